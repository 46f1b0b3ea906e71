//! Unix sockets: made with their permissions, in the place of stale ones only, and removed at the end.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::Access;

/// Connections that wait to be accepted; the system has a bound of its own below this.
const BACKLOG: i32 = 4096;
/// How long to wait for the directory's lock. Another start holds it for some system calls.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A program serves there.
    #[error(
        "another program listens there, perhaps another lucid-proxy; stop it, or choose another path"
    )]
    InUse,
    /// What is there is not ours to remove.
    #[error("what is there is not a socket and stays as it is; choose another path")]
    NotASocket,
    /// It cannot be told whether a program serves there.
    #[error(
        "a socket is there, and this user cannot tell whether a program listens on it; remove it, or choose another path"
    )]
    Unknown(#[source] io::Error),
    /// It cannot belong to that owner or group.
    #[error(
        "it cannot be given to that owner or group: only root may give it to another user, and others only to a group of their own"
    )]
    Owner(#[source] io::Error),
    /// The system refused something else.
    #[error("{}", hint(.0))]
    System(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "its directory does not exist; make it (systemd: RuntimeDirectory=lucid-proxy for /run/lucid-proxy)"
        }
        io::ErrorKind::PermissionDenied => "this user may not write to its directory",
        _ => "the system refused it",
    }
}

impl From<Errno> for SocketError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// The file of a socket, removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number. As long as the socket lives nothing else can have them.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What cannot be removed is stale for the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens at `path`. Nobody can connect before the file is theirs to use: the socket listens last.
pub(super) fn bind(path: &Path, access: Access) -> Result<(UnixListener, SocketFile), SocketError> {
    let address = SocketAddrUnix::new(path)?;
    let _turn = lock(path);
    clear(path, &address)?;
    let socket = socket()?;
    rustix::net::bind(&socket, &address)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    fs::set_permissions(path, Permissions::from_mode(access.mode))?;
    if access.owner.is_some() || access.group.is_some() {
        lchown(path, access.owner, access.group).map_err(SocketError::Owner)?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// One program at a time looks whether a socket is stale, removes it and listens: a socket that does not listen yet
/// looks stale to others.
///
/// `None` where there is no lock to be had. That stops no start, since whoever may read the directory can hold the lock,
/// also a user who may write nothing there, and since a directory may be written to and not read; without it only those
/// that start at the same moment are in danger, of having a socket that nobody finds.
fn lock(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    let begun = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                tracing::warn!(
                    "another program holds a lock on the directory of unix:{}; the start goes on without it, which is safe unless two proxies start there at once",
                    path.display()
                );
                return None;
            }
            // Its file system has none.
            Err(TryLockError::Error(_)) => return None,
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket),
        Ok(_) => {}
    }
    match rustix::net::connect(socket()?, address) {
        Err(Errno::CONNREFUSED) => Ok(fs::remove_file(path)?),
        Err(Errno::NOENT) => Ok(()),
        // So many wait there that there is no place for one more.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse),
        Err(error) => Err(SocketError::Unknown(error.into())),
    }
}
