//! Tells when the store changes, so that a login by another process is noticed at once.
//!
//! What the system tells is about this machine alone: a directory on a network file system is not watched, since a change
//! by another machine would be missed in silence. Where there is no watch, the refresher looks every second.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Tells of changes, as long as it lives.
pub struct Watch {
    changed: Arc<Notify>,
    watched: Option<Watched>,
}

/// A directory of this machine.
struct Watched {
    directory: PathBuf,
    identity: (u64, u64),
    /// Its thread ends when this is dropped.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// A watch that is told of changes through `changed`.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self {
            changed,
            watched: None,
        }
    }

    /// Watches a file, which need not be there yet; its directory must. `None` where that is not possible.
    pub(super) fn on_file(file: &Path, directory: &Path) -> Option<Self> {
        if is_remote(directory) {
            return None;
        }
        // The names in events are those of the directory as the system knows it.
        let file = directory.canonicalize().ok()?.join(file.file_name()?);
        let directory = file.parent()?.to_owned();
        let identity = identity(&directory)?;
        let changed = Arc::new(Notify::new());
        let teller = changed.clone();
        let concerned = [file, directory.clone()];
        let tell = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| matters(&event, &concerned)) {
                teller.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(tell).ok()?;
        watcher
            .watch(&directory, RecursiveMode::NonRecursive)
            .ok()?;
        Some(Self {
            changed,
            watched: Some(Watched {
                directory,
                identity,
                _watcher: watcher,
            }),
        })
    }

    /// Waits for the next change. Changes while nobody waits count as one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether it still tells of changes: not when another directory has taken the place of the one that is watched.
    pub fn is_alive(&self) -> bool {
        self.watched
            .as_ref()
            .is_none_or(|watched| identity(&watched.directory) == Some(watched.identity))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Whether an event can mean that the store holds something else. That it was opened for reading does not: we do that.
fn matters(event: &Event, concerned: &[PathBuf]) -> bool {
    let changes = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    changes && (event.need_rescan() || event.paths.iter().any(|path| concerned.contains(path)))
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = directory.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_remote(_: &Path) -> bool {
    false
}

/// Whether files in this directory may be changed by other machines (statfs(2)).
#[cfg(target_os = "linux")]
pub(crate) fn is_remote(directory: &Path) -> bool {
    /// NFS, SMB, CIFS, 9P, Ceph, FUSE.
    const REMOTE: [u32; 6] = [
        0x6969,
        0xFE53_4D42,
        0xFF53_4D42,
        0x0102_1997,
        0x00C3_6400,
        0x6573_5546,
    ];
    // The type is 32 bits wide, in a number that is longer and signed in places.
    rustix::fs::statfs(directory).is_ok_and(|status| REMOTE.contains(&(status.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_takes_the_stores_place_is_told_and_other_files_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        fs::create_dir(&state).expect("a directory");
        let store = state.join("store");
        let watch = Watch::on_file(&store, &state).expect("a watch");
        fs::write(state.join("other"), "x").expect("written");
        fs::write(directory.path().join("new"), "x").expect("written");
        fs::rename(directory.path().join("new"), &store).expect("moved");
        watch.changed().await;
        assert!(watch.is_alive());
        let read = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Read)));
        assert!(!matters(
            &read.add_path(store.clone()),
            std::slice::from_ref(&store)
        ));
        let other = Event::new(EventKind::Any).add_path(state.join("other"));
        assert!(!matters(&other, &[store]));
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_ends_the_watch() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        fs::create_dir(&state).expect("a directory");
        let watch = Watch::on_file(&state.join("store"), &state).expect("a watch");
        fs::rename(&state, directory.path().join("old")).expect("moved");
        fs::create_dir(&state).expect("a directory");
        assert!(!watch.is_alive());
        assert!(Watch::on_file(&state.join("store"), &state).is_some());
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_watched() {
        assert!(Watch::on_file(Path::new("/nowhere/store"), Path::new("/nowhere")).is_none());
    }
}
