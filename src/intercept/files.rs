//! The authority's files: read with care, replaced whole, made by one process at a time.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::AuthorityError;
use crate::config::LUCID;
use crate::secret::Zeroizing;
use crate::token::disk::{Disk, FileSystem, Lock, Sharing};

/// Larger than what is ever written, small enough that a wrong file does no harm.
const LARGEST: u64 = 64 << 10;
/// How the names of files begin that are not whole yet.
const DRAFT: &str = ".ca-";
/// How long another process may take to make a certificate.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Where the authority's files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// What their names begin with.
    stem: String,
}

/// Which file it is, and since when: another one, or another content, is another mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    number: u64,
    modified: (i64, i64),
}

impl Mark {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            number: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

impl Files {
    /// Those for these hosts. Each set of hosts has files of its own, so that programs with different ones do not take
    /// the authority from each other.
    pub(super) fn of(directory: &Path, hosts: &[String]) -> Self {
        Self {
            directory: directory.to_owned(),
            stem: stem(hosts),
        }
    }

    /// The private key and its certificates in one file, so that nobody ever finds one without the others.
    pub(super) fn key(&self) -> PathBuf {
        self.directory.join(format!("{}-key.pem", self.stem))
    }

    /// The certificate alone, for programs.
    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.stem))
    }

    /// Where a damaged key is kept.
    pub(super) fn damaged(&self) -> PathBuf {
        self.directory
            .join(format!("{}-key.pem.damaged", self.stem))
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join("ca.lock")
    }

    /// Reads the key's file; `None` where there is none.
    pub(super) fn read_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AuthorityError> {
        read_private(&self.key())
    }

    /// Which file the key is in now; `None` where there is none.
    pub(super) fn mark(&self) -> Option<Mark> {
        fs::symlink_metadata(self.key())
            .ok()
            .map(|found| Mark::of(&found))
    }

    /// Whether the certificate's file holds this.
    pub(super) fn has_certificate(&self, content: &[u8]) -> bool {
        let path = self.certificate();
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        is_file && fs::read(&path).is_ok_and(|there| there == content)
    }

    /// Replaces a file, which is private from its first moment (as rule T8 has it for tokens).
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), AuthorityError> {
        let write = || {
            let mut draft = tempfile::Builder::new()
                .prefix(DRAFT)
                .suffix(".tmp")
                .permissions(fs::Permissions::from_mode(0o600))
                .tempfile_in(&self.directory)?;
            draft.write_all(content)?;
            draft.as_file().sync_all()?;
            draft.persist(path)?;
            FileSystem.sync_directory(&self.directory)
        };
        write().map_err(|source| AuthorityError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Keeps a damaged key beside. The next one that is damaged takes its place.
    pub(super) fn set_aside(&self) -> Result<PathBuf, AuthorityError> {
        let aside = self.damaged();
        fs::rename(self.key(), &aside).map_err(|source| AuthorityError::Write {
            path: aside.clone(),
            source,
        })?;
        Ok(aside)
    }

    /// Removes what a process left that was killed while it wrote. Only who has the lock writes.
    fn remove_drafts(&self) {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(DRAFT) && name.ends_with(".tmp") {
                // Another user's cannot be removed, and does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Waits until no other process makes a certificate, and keeps them from it.
    pub(super) fn lock(&self) -> Result<Lock, AuthorityError> {
        let path = self.lock_path();
        let failed = |source| AuthorityError::Lock {
            path: path.clone(),
            source,
        };
        FileSystem.make_directory(&self.directory).map_err(failed)?;
        let begun = Instant::now();
        loop {
            let lock = FileSystem.try_lock(&path, Sharing::Exclusive);
            match lock.map_err(failed)? {
                Some(lock) => {
                    self.remove_drafts();
                    return Ok(lock);
                }
                None if begun.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_PAUSE),
                None => return Err(AuthorityError::Busy { path }),
            }
        }
    }
}

/// `ca` for Lucid's own hosts, and for others with what they come to.
fn stem(hosts: &[String]) -> String {
    let hosts: BTreeSet<_> = hosts.iter().map(String::as_str).collect();
    if hosts == BTreeSet::from(LUCID) {
        return "ca".to_owned();
    }
    let hosts: Vec<_> = hosts.into_iter().collect();
    let digest = digest(&SHA256, hosts.join("\n").as_bytes());
    let [a, b, c, d, ..] = digest.as_ref() else {
        unreachable!("SHA-256 has 32 bytes")
    };
    format!("ca-{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// Reads a file that is this user's own and nobody else's to read; `None` where there is none.
fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AuthorityError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::LOOP) => AuthorityError::Link { path },
            _ => AuthorityError::Read { path, source },
        }
    };
    // O_NONBLOCK: a FIFO under this name must not hold us for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(flags.bits() as i32);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    accept(path, &file.metadata().map_err(failed)?)?;
    let mut content = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 64));
    file.take(LARGEST)
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(Some(content))
}

/// Refuses what is no regular file, what another user put there, and what others could have read.
fn accept(path: &Path, found: &fs::Metadata) -> Result<(), AuthorityError> {
    let path = path.to_owned();
    let mode = found.mode() & 0o777;
    if !found.is_file() {
        return Err(AuthorityError::NotAFile { path });
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        let owner = found.uid();
        return Err(AuthorityError::Foreign { path, owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(AuthorityError::Exposed { path, mode });
    }
    Ok(())
}
