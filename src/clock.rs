//! The time, as everything that decides by it receives it.
//!
//! Two clocks matter. Stored expiries are points on the wall clock, which people and NTP move about; waiting is
//! measured by the monotonic clock, which nobody moves but which stops while the machine sleeps. [`Now`] carries
//! both, so that a decision can take each from where it belongs and a test can move them apart.

use std::fmt;
use std::time::SystemTime;

use tokio::time::Instant;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For expiries, which outlive the process.
    pub wall: SystemTime,
    /// For back-off, quiet periods and every other wait within the process.
    pub monotonic: Instant,
}

/// Where the time comes from: [`SystemClock`] in the program, a clock that tests can move elsewhere.
pub trait Clock: fmt::Debug + Send + Sync {
    /// This moment.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            wall: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }
}
