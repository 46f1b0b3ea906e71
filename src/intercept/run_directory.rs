//! The directory of one run: private, and gone afterwards, by the next run where this one could not.
//!
//! A lock in it tells that the run lives. The system lets go of it with the process, however that ends.

use std::fs::{self, DirEntry, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use tempfile::TempDir;

use crate::config::Environment;

const PREFIX: &str = "lucid-proxy-exec-";
const LOCK: &str = "lock";
/// A directory without a lock is a run that begins, unless it has been so for this long.
const BEGINNING: Duration = Duration::from_secs(60);
/// Somebody may take a new directory for an abandoned one, in the moment between its making and its lock.
const TRIES: usize = 8;

/// The directory of a run; removed with what is in it when this is dropped.
#[derive(Debug)]
pub struct RunDirectory {
    directory: TempDir,
    /// Held as long as the directory is there.
    _lock: File,
}

impl RunDirectory {
    /// A new directory, under `$XDG_RUNTIME_DIR` or, without that, where temporary files are. What killed runs have left
    /// there is removed.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn make(environment: &dyn Environment) -> io::Result<Self> {
        let runtime = environment.var("XDG_RUNTIME_DIR").map(PathBuf::from);
        // In a container or behind sudo the variable may name what is not there, or another's.
        let made = runtime
            .filter(|runtime| runtime.is_absolute())
            .and_then(|runtime| Self::make_in(&runtime).ok());
        match made {
            Some(made) => Ok(made),
            None => Self::make_in(&std::env::temp_dir()),
        }
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        for _ in 0..TRIES {
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(parent)?;
            if let Some(lock) = lock_new(&directory.path().join(LOCK))? {
                return Ok(Self {
                    directory,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::other(
            "other processes remove new directories there",
        ))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// `None` where it was taken for an abandoned one.
fn lock_new(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    let lock = match made {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        made => made?,
    };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        locked => locked.map_err(io::Error::from)?,
    }
    let is_there = fs::symlink_metadata(path).is_ok_and(|there| {
        lock.metadata()
            .is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    });
    Ok(is_there.then_some(lock))
}

/// Removes the directories of runs of this user that have ended. What cannot be removed stays.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) && is_abandoned(&entry) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(entry: &DirEntry) -> bool {
    // Of a symbolic link it tells of the link itself.
    let Ok(metadata) = entry.metadata() else {
        return false;
    };
    let is_ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours {
        return false;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    let lock = options
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(entry.path().join(LOCK));
    match lock {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age > BEGINNING)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_run_has_a_private_directory_that_goes_with_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let run = RunDirectory::make_in(parent.path()).expect("made");
        let path = run.path().to_owned();
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(path.join("file"), "").expect("written");
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn the_next_run_removes_what_killed_ones_left_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a directory");
        let living = RunDirectory::make_in(parent.path()).expect("made");
        let make = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir_all(&path).expect("made");
            path
        };
        let killed = make("lucid-proxy-exec-killed");
        fs::write(killed.join(LOCK), "").expect("written");
        fs::write(killed.join("trusted.pem"), "").expect("written");
        let beginning = make("lucid-proxy-exec-beginning");
        let long_ago = make("lucid-proxy-exec-long-ago");
        let at = SystemTime::now() - BEGINNING - Duration::from_secs(9);
        let times = fs::FileTimes::new().set_modified(at);
        let opened = File::open(&long_ago).expect("there");
        opened.set_times(times).expect("set");
        let elsewhere = make("elsewhere");
        fs::write(elsewhere.join(LOCK), "").expect("written");
        let link = parent.path().join("lucid-proxy-exec-link");
        symlink(&elsewhere, &link).expect("a link");
        let run = RunDirectory::make_in(parent.path()).expect("made");
        assert!(!killed.exists() && !long_ago.exists());
        assert!(beginning.exists() && elsewhere.join(LOCK).exists() && link.exists());
        assert!(living.path().exists() && run.path().exists());
    }

    #[test]
    fn a_directory_that_was_taken_for_an_abandoned_one_is_not_used() {
        let parent = tempfile::tempdir().expect("a directory");
        let gone = parent.path().join("gone").join(LOCK);
        assert!(lock_new(&gone).expect("no error").is_none());
        let path = parent.path().join(LOCK);
        let lock = lock_new(&path).expect("no error").expect("it is there");
        assert!(File::open(&path).expect("there").try_lock().is_err());
        drop(lock);
        assert!(File::open(&path).expect("there").try_lock().is_ok());
    }
}
