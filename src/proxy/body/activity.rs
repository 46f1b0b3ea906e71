//! Whether a connection has something to do: it has until the body of its last response is over.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Held while a connection has something to do; says so when it is dropped.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

/// Held while the rest of a request is read that was answered before its end.
#[derive(Debug)]
pub struct Unread(Rc<Activity>);

/// How many requests are under way on all connections that share this, and how many may be.
#[derive(Debug)]
pub struct InFlight {
    now: AtomicUsize,
    most: usize,
}

impl InFlight {
    /// With none yet, and `most` at the most.
    pub fn new(most: usize) -> Arc<Self> {
        let now = AtomicUsize::new(0);
        Arc::new(Self { now, most })
    }

    /// How many may be under way.
    pub fn most(&self) -> usize {
        self.most
    }
}

/// What a connection is doing, for whoever judges whether it is idle.
#[derive(Debug)]
pub struct Activity {
    in_flight: Arc<InFlight>,
    exchanges: Cell<u32>,
    /// Requests that were answered before their end.
    unread: Cell<u32>,
    /// Tells when there is one less.
    read: Notify,
    /// Whether there has been a request at all.
    used: Cell<bool>,
    /// When the connection last became idle.
    since: Cell<Instant>,
}

impl Activity {
    /// Of a connection that was accepted just now, whose requests are counted there.
    pub fn new(in_flight: &Arc<InFlight>) -> Rc<Self> {
        Rc::new(Self {
            in_flight: in_flight.clone(),
            exchanges: Cell::new(0),
            unread: Cell::new(0),
            read: Notify::new(),
            used: Cell::new(false),
            since: Cell::new(Instant::now()),
        })
    }

    /// An exchange begins; it ends when the answer is dropped. Also tells whether it is one of as many as may be under
    /// way; where it is not, it counts all the same until it is answered.
    pub fn begin(self: &Rc<Self>) -> (Busy, bool) {
        // Nothing is to be ordered by the number.
        let before = self.in_flight.now.fetch_add(1, Ordering::Relaxed);
        self.used.set(true);
        self.exchanges.set(self.exchanges.get() + 1);
        (Busy(self.clone()), before < self.in_flight.most)
    }

    fn end_one(&self) {
        self.exchanges.set(self.exchanges.get() - 1);
        self.since.set(Instant::now());
    }

    /// Since when the connection has had nothing to do, and whether it has had a request before; `None` while it is
    /// busy.
    pub fn idle_since(&self) -> Option<(Instant, bool)> {
        (self.exchanges.get() == 0).then(|| (self.since.get(), self.used.get()))
    }

    /// Completes when nothing is read any more of requests that were answered before their end.
    pub async fn all_read(&self) {
        while self.unread.get() > 0 {
            self.read.notified().await;
        }
    }
}

impl Busy {
    /// The request is answered before its end. The connection is busy with it beyond the answer.
    pub fn unread(&self) -> Unread {
        let activity = &self.0;
        activity.unread.set(activity.unread.get() + 1);
        activity.exchanges.set(activity.exchanges.get() + 1);
        Unread(activity.clone())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.end_one();
        self.0.unread.set(self.0.unread.get() - 1);
        self.0.read.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end_one();
        self.0.in_flight.now.fetch_sub(1, Ordering::Relaxed);
    }
}
