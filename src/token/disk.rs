//! What a store needs of a file system, and nothing more.
//!
//! [`Disk`] is the seam: the program uses [`FileSystem`], the simulation of the grant's life a disk that fills up, loses
//! what was not synced, and dies at any step.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::watch::Watch;
use crate::secret::Zeroizing;

/// Larger than any record, small enough that a wrong file does no harm.
const LARGEST: u64 = 1 << 20;

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Reads a whole file, of which at most 1 MiB; a symbolic link in its place is an error and not followed.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::InvalidInput`] where it is not a regular file.
    fn read(&self, path: &Path) -> io::Result<Content>;

    /// Makes a directory, private, with all above it, where there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes a new empty file, private from its first moment, under a name of its own in `directory`.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create(&self, directory: &Path) -> io::Result<Box<dyn Draft>>;

    /// Whether the file is known to be a mount of its own, over which nothing can be renamed (rename(2), `EBUSY`).
    fn is_mount(&self, _path: &Path) -> bool {
        false
    }

    /// Makes what was renamed in `directory` last through a power cut.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Takes the lock on a file, which is made where there is none and never removed; a symbolic link is not followed.
    /// `Ok(None)` when somebody else holds it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn try_lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>>;

    /// Tells when a file changes, which need not be there yet; `None` where the system does not, or there is no directory.
    fn watch(&self, file: &Path, directory: &Path) -> Option<Watch>;
}

/// A file that is about to take another's place. Dropped before that, it is removed.
pub trait Draft: fmt::Debug {
    /// Appends to it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn write(&mut self, content: &[u8]) -> io::Result<()>;

    /// Makes its content last through a power cut.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Puts it, whole, into the place of `path`.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn replace(self: Box<Self>, path: &Path) -> io::Result<()>;
}

/// What a file holds, and who may read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// It may be a secret.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The permission bits.
    pub mode: u32,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Whether others may hold the same lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else.
    Exclusive,
    /// All who ask for it shared.
    Shared,
}

/// A lock; letting go of it unlocks.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop, which unlocks")] Box<dyn Held>);

/// Whatever unlocks when it is dropped.
pub trait Held: fmt::Debug + Send + Sync {}

impl Held for File {}

impl Lock {
    /// A lock that ends with `held`.
    pub fn new(held: impl Held + 'static) -> Self {
        Self(Box::new(held))
    }
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Disk for FileSystem {
    fn read(&self, path: &Path) -> io::Result<Content> {
        let file = open_no_follow(OpenOptions::new().read(true), path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // With room for all of it and more: where it has to grow, it leaves a copy behind.
        let room = metadata.len().min(LARGEST) as usize + 64;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(LARGEST).read_to_end(&mut bytes)?;
        let mode = metadata.mode() & 0o777;
        Ok(Content { bytes, mode })
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    }

    fn create(&self, directory: &Path) -> io::Result<Box<dyn Draft>> {
        let file = tempfile::Builder::new()
            .prefix(".token_info-")
            .suffix(".tmp")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        Ok(Box::new(file))
    }

    fn is_mount(&self, path: &Path) -> bool {
        is_mount(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn try_lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.create(true).truncate(false).mode(0o600);
        let mut file = open_no_follow(&mut options, path)?;
        let locked = match sharing {
            Sharing::Exclusive => file.try_lock(),
            Sharing::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => {
                if sharing == Sharing::Exclusive {
                    // For people who ask who holds it. It proves nothing, and a full disk is no reason not to lock.
                    let _ = sign(&mut file);
                }
                Ok(Some(Lock::new(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn watch(&self, file: &Path, directory: &Path) -> Option<Watch> {
        Watch::on_file(file, directory)
    }
}

impl Draft for tempfile::NamedTempFile {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.write_all(content)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.as_file().sync_all()
    }

    fn replace(self: Box<Self>, path: &Path) -> io::Result<()> {
        self.persist(path)?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
fn is_mount(_: &Path) -> bool {
    false
}

/// Where the system does not know, the first write will tell.
#[cfg(target_os = "linux")]
fn is_mount(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Writes this process's number into a lock file.
fn sign(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    let line = format!("{}\n", std::process::id());
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a FIFO under this name must not hold us for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits() as i32).open(path)
}
