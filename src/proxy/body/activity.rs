//! Whether a connection has something to do: it has until the body of its last response is over.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

/// Held while a connection has something to do; says so when it is dropped.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

/// What a connection is doing, for whoever judges whether it is idle.
#[derive(Debug)]
pub struct Activity {
    exchanges: Cell<u32>,
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
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.begin()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.since.set(Instant::now());
    }
}
