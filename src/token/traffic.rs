//! How many requests are on their way with the current token, so that a rotation can prefer a moment without any (T13).
//!
//! A request is on its way from the moment in which it is given a token until the head of its response is there: after
//! that the token's death does not concern it. Each worker counts its own requests in a [`Lane`], with plain stores to a
//! number that nobody else writes; only who considers a rotation adds them up. The sum may be a moment old, which makes a
//! rotation a little less well timed and nothing else.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Grant;

/// All lanes of a grant.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    lanes: Mutex<Vec<Arc<AtomicUsize>>>,
    /// Whether somebody wants to know when a lane becomes empty.
    calling: AtomicBool,
}

/// One worker's requests.
#[derive(Debug)]
pub struct Lane {
    grant: Grant,
    count: Cell<usize>,
    published: Arc<AtomicUsize>,
}

/// A request on its way; it has arrived when this is dropped.
#[derive(Debug)]
#[must_use = "the request is on its way as long as this lives"]
pub struct OnItsWay<'a>(&'a Lane);

impl Traffic {
    pub(super) fn lane(&self, grant: Grant) -> Lane {
        let published = Arc::new(AtomicUsize::new(0));
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Of workers that are gone.
        lanes.retain(|lane| Arc::strong_count(lane) > 1);
        lanes.push(published.clone());
        Lane {
            grant,
            count: Cell::new(0),
            published,
        }
    }

    /// Whether any request is on its way.
    pub(super) fn is_busy(&self) -> bool {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().any(|lane| lane.load(Ordering::Relaxed) > 0)
    }

    /// Whether the refresher is to be woken when a lane becomes empty.
    pub(super) fn call(&self, calling: bool) {
        self.calling.store(calling, Ordering::Relaxed);
    }
}

impl Lane {
    /// A request goes out.
    pub fn enter(&self) -> OnItsWay<'_> {
        self.set(self.count.get() + 1);
        OnItsWay(self)
    }

    fn set(&self, count: usize) {
        self.count.set(count);
        self.published.store(count, Ordering::Relaxed);
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.set(left);
        let shared = &self.0.grant.0;
        if left == 0 && shared.traffic.calling.load(Ordering::Relaxed) {
            shared.work.notify_one();
        }
    }
}
