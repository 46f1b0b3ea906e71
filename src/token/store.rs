//! The file that keeps the pair, and the locks beside it (rules T2 and T8).
//!
//! The file is never written in place: a new one is made beside it, synced, and renamed over it, so that at every
//! moment there is one whole record under its name. The lock is a file of its own that is never removed, since
//! whoever locks a removed file locks alone.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Content, Disk, FileSystem, Lock, Sharing};
use super::record::{Record, RecordError};
use super::watch::Watch;

/// A record in a file.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    disk: Arc<dyn Disk>,
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
    /// What is mounted cannot be renamed over, as containers do it with single files.
    #[error(
        "the token file {path} is a mount of its own and cannot be replaced; mount its directory {directory} instead"
    )]
    Mount {
        /// The file.
        path: PathBuf,
        /// What could be mounted.
        directory: PathBuf,
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
    /// A store at `path` on this machine; nothing is touched yet.
    pub fn new(path: PathBuf) -> Self {
        Self::on(Arc::new(FileSystem), path)
    }

    /// A store at `path` on `disk`; nothing is touched yet.
    pub fn on(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { path, disk }
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
        let Some(Content { bytes, mode }) = self.content()? else {
            return Ok(None);
        };
        let record = self.parse(&bytes)?;
        if mode & 0o077 != 0 {
            return Err(StoreError::Exposed {
                path: self.path.clone(),
                mode,
            });
        }
        Ok(Some(record))
    }

    /// As [`Store::read`], but takes a file that others can read: the next write narrows it, and a running proxy does
    /// more good with its tokens than without. Reads nothing anew where the file is still as it was when it was `seen`.
    ///
    /// # Errors
    ///
    /// When there is a file that holds no record.
    pub fn look(&self, seen: &mut Seen) -> Result<Look, StoreError> {
        let content = self.content()?;
        let now = Seen::of(content.as_ref());
        if now == *seen {
            return Ok(Look::Unchanged);
        }
        let record = content.as_ref().map(|content| self.parse(&content.bytes));
        let look = match record.transpose() {
            Err(StoreError::Damaged {
                source: RecordError::Placeholders,
                ..
            }) => Look::Placeholders,
            parsed => Look::Changed(parsed?.map(Box::new)),
        };
        *seen = now;
        Ok(look)
    }

    /// What is there, whatever it is.
    pub(super) fn seen(&self) -> Seen {
        match self.disk.read(&self.path) {
            Ok(content) => Seen::of(Some(&content)),
            Err(_) => Seen::of(None),
        }
    }

    /// Copies what is there, whatever it is, to a file beside it, and returns its name.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub(super) fn set_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let mut name = self.path.clone().into_os_string();
        name.push(".damaged");
        let aside = PathBuf::from(name);
        if let Some(content) = self.content()? {
            let copied = self.replace_at(&aside, &content.bytes);
            copied.map_err(|source| self.unwritable(source))?;
        }
        Ok(Some(aside))
    }

    /// Whether what is there, whatever it is, has a refresh token in it that a person could take out.
    pub(super) fn holds_a_refresh_token(&self) -> bool {
        let Ok(Some(content)) = self.content() else {
            return false;
        };
        let text = String::from_utf8_lossy(&content.bytes);
        text.split("\"refresh_token\"").skip(1).any(|behind| {
            let value = behind.trim_start().strip_prefix(':').map(str::trim_start);
            let token = value.and_then(|value| value.strip_prefix('"'));
            token.is_some_and(|token| !token.is_empty() && !token.starts_with('"'))
        })
    }

    fn content(&self) -> Result<Option<Content>, StoreError> {
        let path = || self.path.clone();
        match self.disk.read(&self.path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if is_link(&error) => Err(StoreError::Link { path: path() }),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(StoreError::NotAFile { path: path() })
            }
            Err(source) => Err(StoreError::Read {
                path: path(),
                source,
            }),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Record, StoreError> {
        Record::from_json(bytes).map_err(|source| StoreError::Damaged {
            path: self.path.clone(),
            source,
        })
    }

    /// Replaces the record durably: when this returns, a power cut leaves the new one.
    ///
    /// # Errors
    ///
    /// When anything on the way fails. The old record is then still there, or the new one, which a power cut may take
    /// back.
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        self.replace(&record.to_json())
            .map_err(|source| self.unwritable(source))
    }

    fn unwritable(&self, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::ResourceBusy => self.mount(),
            _ => StoreError::Write {
                path: self.path.clone(),
                source,
            },
        }
    }

    fn mount(&self) -> StoreError {
        StoreError::Mount {
            path: self.path.clone(),
            directory: self.directory().to_owned(),
        }
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.replace_at(&self.path, content)
    }

    fn replace_at(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let directory = self.directory();
        self.disk.make_directory(directory)?;
        let mut draft = self.disk.create(directory)?;
        draft.write(content)?;
        draft.sync()?;
        draft.replace(path)?;
        self.disk.sync_directory(directory)
    }

    /// Proves that a record could be written, without touching the one that is there.
    ///
    /// # Errors
    ///
    /// When it could not.
    pub fn probe(&self) -> Result<(), StoreError> {
        if self.disk.is_mount(&self.path) {
            return Err(self.mount());
        }
        let directory = self.directory();
        let probe = || {
            self.disk.make_directory(directory)?;
            let mut draft = self.disk.create(directory)?;
            // As large as a record, so that a full disk shows.
            draft.write(&[b' '; 16 << 10])?;
            draft.sync()
        };
        probe().map_err(|source| self.unwritable(source))
    }

    /// Takes the lock if nobody has it. It is held while a refresh token is in use.
    ///
    /// # Errors
    ///
    /// When there can be no lock; `Ok(None)` when somebody else holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        self.locked(self.lock_path(), Sharing::Exclusive)
    }

    /// Says that this process uses the grant, as long as the answer is kept. Any number may do so at once.
    ///
    /// # Errors
    ///
    /// When there can be no lock; `Ok(None)` when somebody asks at this moment whether anyone does.
    pub fn use_grant(&self) -> Result<Option<Lock>, StoreError> {
        self.locked(self.use_path(), Sharing::Shared)
    }

    /// Whether another process uses the grant.
    ///
    /// # Errors
    ///
    /// When there can be no lock.
    pub fn is_in_use(&self) -> Result<bool, StoreError> {
        self.is_held(self.use_path(), Sharing::Exclusive)
    }

    /// Which process holds the lock, if one does and has said so; for people, since a number proves nothing.
    ///
    /// # Errors
    ///
    /// When there can be no lock.
    pub fn lock_holder(&self) -> Result<Option<Holder>, StoreError> {
        let path = self.lock_path();
        // Held for a moment only; whoever wants it exclusively tries again at once.
        if !self.is_held(path.clone(), Sharing::Shared)? {
            return Ok(None);
        }
        let signed = self.disk.read(&path).ok();
        let signed = signed.and_then(|content| String::from_utf8(content.bytes.to_vec()).ok());
        Ok(Some(Holder {
            process: signed.and_then(|text| text.trim().parse().ok()),
        }))
    }

    /// Asks without making a lock file: one that belongs to whoever asks, root say, would shut out those who need it.
    fn is_held(&self, path: PathBuf, sharing: Sharing) -> Result<bool, StoreError> {
        match self.disk.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            _ => Ok(self.locked(path, sharing)?.is_none()),
        }
    }

    fn locked(&self, path: PathBuf, sharing: Sharing) -> Result<Option<Lock>, StoreError> {
        let lock = || {
            self.disk.make_directory(self.directory())?;
            self.disk.try_lock(&path, sharing)
        };
        lock().map_err(|source| StoreError::Lock { path, source })
    }

    /// The name of the lock file: `.lock` behind the store's own.
    pub fn lock_path(&self) -> PathBuf {
        self.beside(".lock")
    }

    /// The name of the file on which those who use the grant hold a shared lock: `.in-use` behind the store's own.
    fn use_path(&self) -> PathBuf {
        self.beside(".in-use")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Tells of changes of the store; `None` where the system does not, or there is no directory yet.
    pub fn watch(&self) -> Option<Watch> {
        self.disk.watch(&self.path, self.directory())
    }

    /// The directory in which the store is.
    pub fn directory(&self) -> &Path {
        self.path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }
}

/// Who holds the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process number, as it wrote it into the lock file.
    pub process: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(number) => write!(f, "process {number}"),
            None => f.write_str("another process"),
        }
    }
}

/// What a store held when it was last looked at; a digest, since it may be secret. By default it was never looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Option<Option<(Vec<u8>, u32)>>);

impl Seen {
    fn of(content: Option<&Content>) -> Self {
        let digest = |bytes| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let seen = content.map(|content| (digest(&content.bytes).as_ref().to_vec(), content.mode));
        Self(Some(seen))
    }
}

/// What a look into a store shows.
#[derive(Debug)]
pub enum Look {
    /// The same as before.
    Unchanged,
    /// This; `None` where there is no file.
    Changed(Option<Box<Record>>),
    /// What a program wrote that refreshes through a proxy: as good as no file (F11).
    Placeholders,
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
        assert_eq!(store.lock_holder().expect("lockable"), None);
        assert!(!store.directory().exists(), "asking leaves nothing");
        let lock = store.try_lock().expect("lockable").expect("free");
        assert!(store.try_lock().expect("lockable").is_none());
        let process = Some(std::process::id());
        assert_eq!(
            store.lock_holder().expect("lockable"),
            Some(Holder { process })
        );
        drop(lock);
        assert!(store.lock_path().exists());
        assert!(store.try_lock().expect("lockable").is_some());
    }

    #[test]
    fn all_who_use_a_grant_may_do_so_at_once_and_others_can_tell() {
        let (_directory, store) = world();
        assert!(!store.is_in_use().expect("lockable"));
        assert!(!store.directory().exists(), "asking leaves nothing");
        let users = [(); 2].map(|()| store.use_grant().expect("lockable").expect("shared"));
        assert!(store.is_in_use().expect("lockable"));
        drop(users);
        assert!(!store.is_in_use().expect("lockable"));
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
        let mut seen = Seen::default();
        let look = store.look(&mut seen).expect("readable");
        assert!(matches!(look, Look::Changed(Some(_))), "{look:?}");
        let look = store.look(&mut seen).expect("readable");
        assert!(matches!(look, Look::Unchanged), "{look:?}");
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
