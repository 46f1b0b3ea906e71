//! The token file and its directory: what is there, and what the program will do there, done once with scratch files.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rustix::fs::StatVfsMountFlags;
use rustix::process::geteuid;
use tempfile::{TempDir, TempPath};

use super::mounts;
use super::report::{Check, Report, Unreached};
use crate::token::disk::{Disk, FileSystem, Sharing};
use crate::token::record::Record;
use crate::token::store::{Store, StoreError};
use crate::token::watch::is_remote;

const DIRECTORY: &str = "store_directory";
const MOUNT: &str = "store_mount";
const FILE: &str = "store_file";
const WRITE: &str = "store_write";
const LOCK: &str = "store_lock";

/// As large as a record.
const SCRATCH: [u8; 16 << 10] = [b' '; 16 << 10];
/// Less than this is used up by a few records and logs beside them.
const LITTLE_SPACE: u64 = 1 << 20;
/// A rotation waits for the disk three times.
const SLOW: Duration = Duration::from_secs(1);

/// Where scratch files are made.
enum Place {
    Directory(PathBuf),
    /// The store's directory is not there yet; this stands for it.
    Scratch(TempDir),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Scratch(directory) => directory.path(),
        }
    }
}

/// The record that is stored, or the check that keeps it from being read.
pub(super) fn examine(store: &Store, report: &mut Report) -> Result<Option<Record>, Unreached> {
    let place = directory(store.directory(), report);
    let usable = match &place {
        Ok(place) => report
            .push_gate(mount(store, place.path()))
            .map(|()| place.path()),
        Err(unreached) => {
            report.push(Check::depends(MOUNT, unreached));
            Err(*unreached)
        }
    };
    let record = file(store, report);
    match usable {
        Ok(place) => {
            let written = report.push_gate(write(place));
            report.push(match written {
                Ok(()) => lock(store, place),
                Err(unreached) => Check::depends(LOCK, unreached),
            });
        }
        Err(unreached) => {
            report.push(Check::depends(WRITE, unreached));
            report.push(Check::depends(LOCK, unreached));
        }
    }
    record
}

fn directory(path: &Path, report: &mut Report) -> Result<Place, Unreached> {
    let shown = path.display();
    let (check, place) = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => (
            judge_directory(path, &metadata),
            Place::Directory(path.to_owned()),
        ),
        Ok(_) => {
            let advice = "set store to a file in a directory";
            report.push(Check::failed(
                DIRECTORY,
                format!("{shown} is no directory"),
                advice,
            ));
            return Err(DIRECTORY);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match scratch_directory(path) {
            Ok((above, scratch)) => {
                let seen = format!(
                    "{shown} does not exist yet and can be made in {}",
                    above.display()
                );
                (Check::ok(DIRECTORY, seen), Place::Scratch(scratch))
            }
            Err(error) => return unusable_directory(path, &error, report),
        },
        Err(error) => return unusable_directory(path, &error, report),
    };
    report.push(check);
    Ok(place)
}

fn unusable_directory(
    path: &Path,
    error: &io::Error,
    report: &mut Report,
) -> Result<Place, Unreached> {
    let seen = format!(
        "{} is not there and cannot be made: {error}",
        path.display()
    );
    let advice = "make it, for the user that runs lucid-proxy, with mode 700; or set store elsewhere (STATE_DIRECTORY and XDG_STATE_HOME choose the directory)";
    report.push(Check::failed(DIRECTORY, seen, advice));
    Err(DIRECTORY)
}

/// A directory beside the one that is missing: what can be made there can be made in that one.
fn scratch_directory(missing: &Path) -> io::Result<(PathBuf, TempDir)> {
    let above = missing.ancestors().skip(1).find(|above| above.exists());
    let above = above.unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new()
        .prefix(".lucid-proxy-doctor-")
        .tempdir_in(above)?;
    Ok((above.to_owned(), scratch))
}

fn judge_directory(path: &Path, metadata: &fs::Metadata) -> Check {
    let shown = path.display();
    let (owner, me) = (metadata.uid(), geteuid().as_raw());
    let mode = metadata.mode() & 0o7777;
    let seen = format!("{shown} (mode {mode:04o}, owner {})", user(owner, me));
    if owner != me && me == 0 {
        let advice = format!(
            "files that root makes there shut its owner out; run lucid-proxy as user {owner}"
        );
        return Check::warning(DIRECTORY, seen, advice);
    }
    if owner != me && owner != 0 {
        let advice = format!(
            "user {owner} can replace the token file; let its directory belong to the user that runs lucid-proxy"
        );
        return Check::warning(DIRECTORY, seen, advice);
    }
    if mode & 0o022 != 0 {
        let advice = format!(
            "others can put a file of theirs into the token file's place; run: chmod go-w {shown}"
        );
        return Check::warning(DIRECTORY, seen, advice);
    }
    Check::ok(DIRECTORY, seen)
}

fn user(owner: u32, me: u32) -> String {
    match owner == me {
        true => "you".to_owned(),
        false => format!("user {owner}"),
    }
}

/// What lies under the directory, and whether the file is mounted by itself: then it cannot be replaced.
fn mount(store: &Store, place: &Path) -> Check {
    let directory = place.canonicalize().unwrap_or_else(|_| place.to_owned());
    let file = store.path().file_name().map(|name| directory.join(name));
    let mounted = file.as_deref().and_then(mounts::of);
    if file.is_some_and(|file| is_a_mount(&directory, &file, mounted.as_ref())) {
        let seen = format!(
            "{} is mounted by itself, and cannot be replaced",
            store.path().display()
        );
        let advice = format!(
            "mount its directory {} instead of the file",
            store.directory().display()
        );
        return Check::failed(MOUNT, seen, advice);
    }
    let kind = mounted.map_or_else(|| "mounted".to_owned(), |mount| mount.kind);
    let status = match rustix::fs::statvfs(&directory) {
        Ok(status) => status,
        Err(error) => {
            let error = io::Error::from(error);
            return Check::warning(
                MOUNT,
                format!("{kind}; cannot be asked: {error}"),
                "see store write",
            );
        }
    };
    if status.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let seen = format!("{kind}, read-only");
        return Check::failed(
            MOUNT,
            seen,
            "no refresh is possible there; mount it writable, or set store elsewhere",
        );
    }
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    let seen = format!("{kind}, writable, {} free", ByteSize(free).display().iec());
    if is_remote(&directory) {
        let advice = "other machines may change it: that is looked for every second, and only as good as the locks of its server; a disk of this machine is better where one is enough";
        return Check::warning(MOUNT, seen, advice);
    }
    if free < LITTLE_SPACE {
        return Check::warning(
            MOUNT,
            seen,
            "free some space: without it there is no refresh",
        );
    }
    Check::ok(MOUNT, seen)
}

fn is_a_mount(directory: &Path, file: &Path, mounted: Option<&mounts::Mount>) -> bool {
    let device = |path: &Path| {
        fs::symlink_metadata(path)
            .map(|metadata| metadata.dev())
            .ok()
    };
    let differs = device(file).is_some_and(|of_file| device(directory) != Some(of_file));
    mounted.is_some_and(|mount| mount.is_the_path) || differs
}

/// What is stored.
fn file(store: &Store, report: &mut Report) -> Result<Option<Record>, Unreached> {
    let (check, record) = match store.read() {
        Ok(None) => (
            Check::ok(
                FILE,
                format!("{} does not exist yet", store.path().display()),
            ),
            None,
        ),
        Ok(Some(record)) => {
            let mode = fs::symlink_metadata(store.path()).map(|metadata| metadata.mode() & 0o777);
            let mode = mode.map_or_else(|_| String::new(), |mode| format!(" (mode {mode:04o})"));
            let seen = format!("{}{mode} holds a whole record", store.path().display());
            (Check::ok(FILE, seen), Some(record))
        }
        Err(error) => (from_error(FILE, &error), None),
    };
    report.push_gate(check).map(|()| record)
}

fn from_error(name: &'static str, error: &StoreError) -> Check {
    let (text, cause) = (error.to_string(), error.source());
    // A damaged record's text has its cause in it.
    let cause = cause
        .map(ToString::to_string)
        .filter(|cause| !text.contains(cause));
    Check::failed_with(name, &text, &cause.unwrap_or_default())
}

/// A file is replaced whole and durably, as a record is, beside it.
fn write(place: &Path) -> Check {
    let begun = Instant::now();
    let took = |()| begun.elapsed();
    match replace_scratch(place).map(took) {
        Ok(took) if took > SLOW => {
            let seen = format!("a scratch file was replaced, which took {took:.1?}");
            Check::warning(
                WRITE,
                seen,
                "each refresh waits for this disk; put the token file on a faster one",
            )
        }
        Ok(took) => Check::ok(
            WRITE,
            format!("a scratch file was written, synced and renamed over another in {took:.1?}"),
        ),
        Err(error) => {
            let seen = format!(
                "a scratch file in {} could not be replaced: {error}",
                place.display()
            );
            let advice = "no refresh is possible; the directory must be writable for this user and have free space";
            Check::failed(WRITE, seen, advice)
        }
    }
}

fn replace_scratch(place: &Path) -> io::Result<()> {
    let target = scratch_file(place)?;
    let mut draft = FileSystem.create(place)?;
    draft.write(&SCRATCH)?;
    draft.sync()?;
    draft.replace(&target)?;
    FileSystem.sync_directory(place)?;
    if fs::read(&target)? != SCRATCH {
        return Err(io::Error::other("it holds something else than was written"));
    }
    target.close()
}

/// Removed when dropped.
fn scratch_file(place: &Path) -> io::Result<TempPath> {
    let file = tempfile::Builder::new()
        .prefix(".token_info-doctor-")
        .tempfile_in(place)?;
    Ok(file.into_temp_path())
}

/// Whether a lock keeps a second one out, and who holds the real one.
fn lock(store: &Store, place: &Path) -> Check {
    let advice = "several processes would refresh at once and lose the login; put the token file on a file system with locks";
    match lock_scratch(place) {
        Ok(true) => {}
        Ok(false) => return Check::failed(LOCK, "two locks on one scratch file at once", advice),
        Err(error) => {
            let seen = format!("a scratch file could not be locked: {error}");
            return Check::failed(LOCK, seen, advice);
        }
    }
    let users = store
        .lock_holder()
        .and_then(|holder| Ok((holder, store.is_in_use()?)));
    match users {
        Ok((holder, in_use)) => {
            let holder = holder.map_or_else(
                || "free now".to_owned(),
                |holder| format!("held by {holder} now"),
            );
            let in_use = if in_use {
                "a process uses the login"
            } else {
                "no process uses the login"
            };
            Check::ok(
                LOCK,
                format!("one lock keeps another out; {holder}; {in_use}"),
            )
        }
        Err(error) => from_error(LOCK, &error),
    }
}

/// Whether the second of two locks was refused.
fn lock_scratch(place: &Path) -> io::Result<bool> {
    let file = scratch_file(place)?;
    let first = FileSystem.try_lock(&file, Sharing::Exclusive)?;
    let second = FileSystem.try_lock(&file, Sharing::Exclusive)?;
    let excludes = first.is_some() && second.is_none();
    drop((first, second));
    file.close()?;
    Ok(excludes)
}
