//! Unix sockets: made with their permissions, in the place of stale ones only, and removed at the end.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Gid, Mode, RawMode, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::path::Arg;

use crate::config::Access;

/// Connections that wait to be accepted; the system has a bound of its own below this.
pub(super) const BACKLOG: i32 = 4096;
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
    /// Somebody else writes to the directory.
    #[error(
        "something else was put in its place at once; choose a path in a directory that only this user may write to"
    )]
    Replaced,
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
    let socket = bound(&address, access.mode)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    give(path, access)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

/// A socket whose file has these permissions from its first moment, less those that the umask takes.
fn bound(address: &SocketAddrUnix, mode: u32) -> Result<OwnedFd, SocketError> {
    let socket = socket()?;
    // Linux makes the file with what is set here (unix(7) leaves it out); where it is refused, `give` does it all.
    let _ = rustix::fs::fchmod(&socket, permissions(mode));
    rustix::net::bind(&socket, address)?;
    Ok(socket)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode as RawMode)
}

/// Gives the file its permissions, owner and group, and never another file: where others may write to the directory too,
/// they can put a link there at any moment.
#[cfg(target_os = "linux")]
fn give(path: &Path, access: Access) -> Result<(), SocketError> {
    use rustix::fd::AsRawFd;
    use rustix::fs::{FileType, OFlags};

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&handle)?.st_mode;
    if FileType::from_raw_mode(found) != FileType::Socket {
        return Err(SocketError::Replaced);
    }
    if Mode::from_raw_mode(found) != permissions(access.mode) {
        // Such a handle takes no fchmod(2). This leads to what it stands for, wherever that is by now (proc_pid_fd(5)).
        let file = format!("/proc/self/fd/{}", handle.as_raw_fd());
        rustix::fs::chmod(file, permissions(access.mode))?;
    }
    change_owner(&handle, "", access, AtFlags::EMPTY_PATH)
}

/// The same where a link is not followed if one says so.
#[cfg(not(target_os = "linux"))]
fn give(path: &Path, access: Access) -> Result<(), SocketError> {
    use rustix::fs::{CWD, chmodat};

    chmodat(
        CWD,
        path,
        permissions(access.mode),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    change_owner(CWD, path, access, AtFlags::SYMLINK_NOFOLLOW)
}

fn change_owner(
    directory: impl AsFd,
    path: impl Arg,
    access: Access,
    flags: AtFlags,
) -> Result<(), SocketError> {
    if access.owner.is_none() && access.group.is_none() {
        return Ok(());
    }
    // The configuration has refused the number that is nobody's.
    let owner = access.owner.map(Uid::from_raw);
    let group = access.group.map(Gid::from_raw);
    rustix::fs::chownat(directory, path, owner, group, flags)
        .map_err(|error| SocketError::Owner(error.into()))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("a file").mode() & 0o7777
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_of_a_socket_is_private_from_its_first_moment() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("proxy.sock");
        let address = SocketAddrUnix::new(&path).expect("a path");
        let _socket = bound(&address, 0o600).expect("a socket");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn permissions_are_as_asked_whatever_the_umask_takes() {
        let directory = tempfile::tempdir().expect("a directory");
        for asked in [0o600, 0o660, 0o666, 0o777, 0o200] {
            let path = directory.path().join(format!("{asked:o}"));
            let access = Access {
                mode: asked,
                ..Access::default()
            };
            let (_socket, _file) = bind(&path, access).expect("a socket");
            assert_eq!(mode(&path), asked, "{asked:o}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_others_put_in_the_place_of_the_socket_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (precious, path) = (
            directory.path().join("precious"),
            directory.path().join("s"),
        );
        fs::write(&precious, "").expect("written");
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o640)).expect("chmod");
        let access = Access {
            mode: 0o666,
            ..Access::default()
        };
        symlink(&precious, &path).expect("a link");
        assert!(matches!(give(&path, access), Err(SocketError::Replaced)));
        fs::remove_file(&path).expect("removed");
        fs::hard_link(&precious, &path).expect("a link");
        assert!(matches!(give(&path, access), Err(SocketError::Replaced)));
        assert_eq!(mode(&precious), 0o640);
    }
}
