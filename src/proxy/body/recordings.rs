//! What the recordings of all requests share: how much each may take, how much all together, and the disk.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::spool::{Directory, Disk};
use crate::config::Replay;

/// How many recordings use the disk at the same time. It is a thread for each, and a disk that hangs is to keep only
/// these.
const AT_ONCE: usize = 8;

/// How long a disk may take for a write before it counts as failed: a healthy one takes it into its cache within
/// milliseconds. Clients wait for it no longer than that, see [`Recordings::patience`].
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is said that a disk fails: every large upload meets it.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The limits of recordings, and where they go. One for all workers.
#[derive(Debug)]
pub struct Recordings {
    /// Bytes of memory that one recording may take.
    pub(super) memory: usize,
    /// Bytes of disk that one may take.
    pub(super) disk: u64,
    pub(super) all_memory: Total,
    pub(super) all_disk: Total,
    pub(super) place: Box<dyn Disk>,
    pub(super) turns: Arc<Semaphore>,
    /// How long a write may take before the disk counts as failed.
    pub(super) patience: Duration,
    /// When it was last said that the disk fails.
    warned: Mutex<Option<Instant>>,
}

impl Recordings {
    /// With the configured limits. `body` is how long a body may stand still: a disk is waited for less than that.
    pub fn new(replay: &Replay, body: Duration) -> Arc<Self> {
        let place = Box::new(Directory::new(&replay.directory));
        Self::in_place(replay, place, PATIENCE.min(body / 2))
    }

    pub(super) fn in_place(replay: &Replay, place: Box<dyn Disk>, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            memory: replay.memory,
            disk: replay.disk,
            all_memory: Total::new(replay.total_memory),
            all_disk: Total::new(replay.total_disk),
            place,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            patience,
            warned: Mutex::new(None),
        })
    }

    /// Says that the disk fails, at most once a minute.
    pub(super) fn warn_of(&self, error: &io::Error) {
        // An instant is whole whenever a thread may have panicked.
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(
                "request bodies above replay.memory cannot be recorded in {}: {error}; they pass, but cannot be sent again after a 401",
                self.place.path().display()
            );
        }
    }
}

/// What all recordings take together of one thing.
#[derive(Debug)]
pub(super) struct Total {
    taken: AtomicU64,
    limit: u64,
}

impl Total {
    fn new(limit: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit,
        }
    }

    /// Takes so many bytes, if there are as many.
    pub(super) fn take(&self, bytes: u64) -> bool {
        // A count of bytes guards no other memory.
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = before
            .checked_add(bytes)
            .is_some_and(|taken| taken <= self.limit);
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
