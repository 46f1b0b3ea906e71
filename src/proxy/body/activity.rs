//! Whether a connection has something to do: it has until the body of its last response is over.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Held while a connection has something to do; says so when it is dropped.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

/// Held while the rest of a request is read that was answered before its end.
#[derive(Debug)]
pub struct Unread(Busy);

/// What a connection is doing, for whoever judges whether it is idle.
#[derive(Debug)]
pub struct Activity {
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
    /// Of a connection that was accepted just now.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            exchanges: Cell::new(0),
            unread: Cell::new(0),
            read: Notify::new(),
            used: Cell::new(false),
            since: Cell::new(Instant::now()),
        })
    }

    /// An exchange begins; it ends when the answer is dropped.
    pub fn begin(self: &Rc<Self>) -> Busy {
        self.used.set(true);
        self.exchanges.set(self.exchanges.get() + 1);
        Busy(self.clone())
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
        Unread(activity.begin())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let activity = &self.0.0;
        activity.unread.set(activity.unread.get() - 1);
        activity.read.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.since.set(Instant::now());
    }
}
