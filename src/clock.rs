//! The time, as everything that decides by it receives it.
//!
//! Two clocks matter. Stored expiries are points on the wall clock, which people and NTP move about; waiting is
//! measured by the monotonic clock, which nobody moves but which stops while the machine sleeps. [`Now`] carries
//! both, so that a decision can take each from where it belongs and a test can move them apart.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
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

    /// This moment as people name it, for those who need no more: reading two clocks takes twice as long.
    fn wall(&self) -> SystemTime {
        self.now().wall
    }
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

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A time for people and messages, to the second (RFC 3339). Any time that was read from a file can be shown.
pub fn utc(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn s08_any_time_that_a_file_may_hold_can_be_shown() {
        let year = Duration::from_secs(366 * 24 * 60 * 60);
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(utc(epoch), "1970-01-01T00:00:00Z");
        assert!(utc(epoch - 10 * year).starts_with("1959-12-2"));
        assert!(utc(epoch + 8100 * year).starts_with("+10086-10-"));
    }
}
