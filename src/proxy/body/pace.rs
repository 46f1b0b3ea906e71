//! Whether a client of HTTP/2 takes the content that is there for it (rule F12).
//!
//! Each stream has a window, and a client that leaves it closed is not seen on the connection, where other streams move.
//! The task that sends the content then waits for the window and does not come back for more.

use std::cell::Cell;

/// Bytes that are handed on at once: the client has taken the last ones, or nearly so, when the next are asked for.
pub(super) const PIECE: usize = 16 << 10;

/// How the content of one response moves, for whoever sends it and whoever bounds that.
#[derive(Debug, Default)]
pub struct Pace {
    /// How often some was handed on.
    pieces: Cell<u64>,
    /// Whether the next piece waits for the client, and not for upstream.
    waits: Cell<bool>,
    given_up: Cell<bool>,
}

impl Pace {
    /// Something is asked for.
    pub(super) fn ask(&self) {
        self.waits.set(false);
    }

    /// Something is handed on.
    pub(super) fn hand_on(&self) {
        self.pieces.set(self.pieces.get() + 1);
        self.waits.set(true);
    }

    /// The number of the piece that the client has not taken yet, where it is waited for.
    pub fn waits_for(&self) -> Option<u64> {
        self.waits.get().then(|| self.pieces.get())
    }

    /// The client is not waited for any longer.
    pub fn give_up(&self) {
        self.given_up.set(true);
    }

    /// Whether that was so.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }
}
