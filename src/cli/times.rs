//! How times are printed: RFC 3339 in UTC for programs, the local time with its zone for people.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// RFC 3339, in UTC, to the millisecond.
pub(super) fn utc(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The local time, with the offset of its zone.
pub(super) fn local(time: SystemTime) -> String {
    DateTime::<Local>::from(time)
        .format("%Y-%m-%d %H:%M:%S %:z")
        .to_string()
}

/// The local day.
pub(super) fn day(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%Y-%m-%d").to_string()
}

/// In whole seconds, and in whole minutes or hours where seconds do not matter any more.
pub(super) fn span(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    let seconds = duration.as_secs();
    let unit = match seconds {
        DAY.. => 3600,
        3600.. => 60,
        _ => 1,
    };
    humantime::format_duration(Duration::from_secs(seconds - seconds % unit)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_exact_as_matters() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(3599), "59m 59s");
        assert_eq!(shown(3661), "1h 1m");
        assert_eq!(shown(90_061), "1day 1h");
    }
}
