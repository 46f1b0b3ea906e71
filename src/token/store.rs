//! The file that keeps the pair, and the lock beside it (rules T2 and T8).
//!
//! The file is never written in place: a new one is made beside it, synced, and renamed over it, so that at every
//! moment there is one whole record under its name. The lock is a file of its own that is never removed, since
//! whoever locks a removed file locks alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::record::{Record, RecordError};

/// Larger than any record, small enough that a wrong file does no harm.
const LARGEST: u64 = 1 << 20;

/// A record in a file.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// Held while a refresh token is in use; letting go of it unlocks.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What is wrong with the store, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There, but no record.
    #[error(
        "the token file {path} cannot be used: {source}; restore it, or move it away and log in or import again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// Anybody on the machine could have copied the tokens.
    #[error("the token file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Replacing it would replace the link and leave its target old.
    #[error("the token file {path} is a symbolic link; set store to the file that it points at")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Not a file at all.
    #[error("the token file {path} is not a regular file; set store to a file")]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// The system refused to read it.
    #[error("cannot read the token file {path}; check its owner and mode")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to write beside it.
    #[error(
        "cannot write the token file {path}; its directory must be writable and have free space"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to lock.
    #[error(
        "cannot lock {path}; its directory must be writable and its file system must have locks"
    )]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Store {
    /// A store at `path`; nothing is touched yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the record; `None` where there is no file.
    ///
    /// # Errors
    ///
    /// When there is a file that is not ours alone or holds no record.
    pub fn read(&self) -> Result<Option<Record>, StoreError> {
        let Some((record, mode)) = self.read_with_mode()? else {
            return Ok(None);
        };
        if mode & 0o077 != 0 {
            return Err(StoreError::Exposed {
                path: self.path.clone(),
                mode,
            });
        }
        Ok(Some(record))
    }

    /// As [`Store::read`], but takes a file that others can read: the next write narrows it, and a running proxy does
    /// more good with its tokens than without.
    ///
    /// # Errors
    ///
    /// When there is a file that holds no record.
    pub fn read_any_mode(&self) -> Result<Option<Record>, StoreError> {
        Ok(self.read_with_mode()?.map(|(record, _)| record))
    }

    fn read_with_mode(&self) -> Result<Option<(Record, u32)>, StoreError> {
        let path = || self.path.clone();
        let file = match open_no_follow(OpenOptions::new().read(true), &self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_link(&error) => return Err(StoreError::Link { path: path() }),
            Err(source) => {
                return Err(StoreError::Read {
                    path: path(),
                    source,
                });
            }
        };
        let read_failed = |source| StoreError::Read {
            path: path(),
            source,
        };
        let metadata = file.metadata().map_err(read_failed)?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { path: path() });
        }
        let mut content = Vec::new();
        file.take(LARGEST)
            .read_to_end(&mut content)
            .map_err(read_failed)?;
        let record = Record::from_json(&content).map_err(|source| StoreError::Damaged {
            path: path(),
            source,
        })?;
        Ok(Some((record, metadata.mode() & 0o777)))
    }

    /// Replaces the record durably: when this returns, a power cut leaves the new one.
    ///
    /// # Errors
    ///
    /// When anything on the way fails; the old record is then still there.
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        self.replace(&record.to_json())
            .map_err(|source| StoreError::Write {
                path: self.path.clone(),
                source,
            })
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        let directory = self.directory();
        make_private_directory(directory)?;
        let mut file = new_file_beside(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(directory)?.sync_all()
    }

    /// Proves that a record could be written, without touching the one that is there.
    ///
    /// # Errors
    ///
    /// When it could not.
    pub fn probe(&self) -> Result<(), StoreError> {
        let directory = self.directory();
        let probe = || {
            make_private_directory(directory)?;
            let mut file = new_file_beside(directory)?;
            // As large as a record, so that a full disk shows.
            file.write_all(&[b' '; 16 << 10])?;
            file.as_file().sync_all()
        };
        probe().map_err(|source| StoreError::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// When there can be no lock; `Ok(None)` when somebody else holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        let path = self.lock_path();
        let failed = |source| StoreError::Lock {
            path: path.clone(),
            source,
        };
        make_private_directory(self.directory()).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = open_no_follow(&mut options, &path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The name of the lock file: `.lock` behind the store's own.
    pub fn lock_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".lock");
        PathBuf::from(name)
    }

    fn directory(&self) -> &Path {
        self.path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }
}

fn new_file_beside(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".token_info-")
        .suffix(".tmp")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)
}

fn make_private_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a FIFO under this name must not hold us for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits() as i32).open(path)
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::secret::{ExposeSecret, Secret};

    fn world() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::new(directory.path().join("state/token_info.json"));
        (directory, store)
    }

    fn record(refresh_token: &str) -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        Record::from_refresh_token(Secret::from(refresh_token), now)
    }

    #[test]
    fn t08_a_record_is_replaced_whole_private_and_without_leftovers() {
        let (_directory, store) = world();
        assert!(store.read().expect("no file is no error").is_none());
        store.write(&record("first")).expect("written");
        let inode = fs::metadata(store.path()).expect("there").ino();
        store.write(&record("second")).expect("written");
        let metadata = fs::metadata(store.path()).expect("there");
        assert_ne!(metadata.ino(), inode, "a new file under the old name");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let read = store.read().expect("readable").expect("there");
        assert_eq!(read.refresh_token.expose_secret(), "second");
        let names: Vec<_> = fs::read_dir(store.directory())
            .expect("a directory")
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(
            fs::metadata(store.directory()).expect("there").mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn t08_a_link_in_the_place_of_the_store_is_refused() {
        let (directory, store) = world();
        store.write(&record("real")).expect("written");
        let link = Store::new(directory.path().join("link.json"));
        std::os::unix::fs::symlink(store.path(), link.path()).expect("a link");
        let error = link.read().expect_err("a link").to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(
            store.read().expect("readable").is_some(),
            "the target itself is fine"
        );
    }

    #[test]
    fn t02_a_link_in_the_place_of_the_lock_is_not_followed() {
        let (directory, store) = world();
        store.write(&record("real")).expect("written");
        let planted = directory.path().join("planted");
        std::os::unix::fs::symlink(&planted, store.lock_path()).expect("a link");
        store.try_lock().expect_err("a planted lock");
        assert!(!planted.exists());
    }

    #[test]
    fn t02_only_one_holds_the_lock_and_the_lock_file_stays() {
        let (_directory, store) = world();
        let lock = store.try_lock().expect("lockable").expect("free");
        assert!(store.try_lock().expect("lockable").is_none());
        drop(lock);
        assert!(store.lock_path().exists());
        assert!(store.try_lock().expect("lockable").is_some());
    }

    #[test]
    fn a_store_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let (_directory, store) = world();
        store.write(&record("real")).expect("written");
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = store.read().expect_err("exposed").to_string();
        assert!(
            error.contains("mode 0644") && error.contains("chmod 600"),
            "{error}"
        );
        assert!(store.read_any_mode().expect("readable").is_some());
    }

    #[test]
    fn s08_a_directory_and_a_fifo_are_errors() {
        let (_directory, store) = world();
        fs::create_dir_all(store.path()).expect("a directory in the wrong place");
        store.read().expect_err("a directory");
        store.write(&record("x")).expect_err("a directory");
        fs::remove_dir(store.path()).expect("gone");
        let status = std::process::Command::new("mkfifo")
            .arg(store.path())
            .status()
            .expect("mkfifo");
        assert!(status.success());
        let error = store.read().expect_err("a FIFO").to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
