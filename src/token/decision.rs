//! The words in which [`state`](super::state) decides: what it is told, and what it answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Why a pair is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is a refresh token and no access token yet.
    First,
    /// The access token dies soon.
    Expiring,
    /// The access token has died.
    Expired,
    /// Upstream answered 401 to it.
    Rejected,
    /// The refresh token has not been used for so long that it might be forgotten (T14).
    Idle,
    /// A rotation was begun, here or in a process that died, and its end is not known (T11).
    Unfinished,
    /// A person asked for it.
    Asked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Idle => "idle",
            Self::Unfinished => "unfinished",
            Self::Asked => "asked",
        })
    }
}

/// When the current pair is to be rotated, and how it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its number within the grant.
    pub generation: u64,
    /// From here on a request that wants it causes a rotation, at the next moment with nothing on its way.
    pub refresh_at: SystemTime,
    /// From here on that rotation waits for no such moment any more.
    pub rotate_by: SystemTime,
    /// From here on nobody is given it.
    pub expires_at: SystemTime,
    /// From here on it is rotated even if nobody wants it (T14).
    pub idle_at: SystemTime,
    /// What the rotation that brought it was for; `None` for a pair that was there at start-up.
    pub cause: Option<Cause>,
}

/// Why there is no token for a request, in the terms of the answer that it gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Only a person can help.
    #[error("{0}")]
    LoginRequired(String),
    /// The token endpoint does not answer as it should, and the last token has died.
    #[error("{0}")]
    TokenUnavailable(String),
    /// No rotation is possible before the store can be written.
    #[error("{0}")]
    StoreUnwritable(String),
}

/// Why there is no token, and when asking again could help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToken {
    /// The reason.
    pub trouble: Trouble,
    /// `None` where a person must act first.
    pub retry_after: Option<Duration>,
}

/// What a request that asks for a token should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Use the current one.
    Use,
    /// Wait until something changes, then ask again.
    Wait,
    /// Give up for now.
    Fail(NoToken),
}

/// What a request that was answered 401 should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again with the current pair, which is a newer one.
    Replay,
    /// Wait until something changes, then ask again.
    Wait,
    /// Let the 401 pass: this is why.
    Pass(String),
}

/// What came of a rotation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A newer pair is there: issued to us, or found in the store.
    Renewed(Pair),
    /// The grant is gone.
    Refused(Trouble),
    /// It failed in a way that leaves the grant alone.
    Failed {
        /// Why.
        trouble: Trouble,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
}

/// What the refresher should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Rotate now; the state counts it as under way.
    Rotate(Cause),
    /// Nothing until this moment; `None`: nothing until an event.
    Sleep(Option<Instant>),
}

/// When a pair is to be rotated, as far as the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// How long before its expiry an access token is replaced, at the most.
    pub refresh: Duration,
    /// How old a refresh token may become.
    pub idle: Duration,
}

/// When a token that lives until `expires_at` should be replaced (T13), at a moment without traffic and in any case:
/// `margin` before, and up to a fifth of it earlier by `jitter` (0 to 1), so that many processes do not come at once; but
/// never more than a tenth of its `lifetime` before. When a fifth of that is left, traffic is no reason to wait any more.
pub fn early(
    expires_at: SystemTime,
    lifetime: Duration,
    margin: Duration,
    jitter: f64,
) -> (SystemTime, SystemTime) {
    let margin = margin.mul_f64(1.0 + 0.2 * jitter).min(lifetime / 10);
    let before = |margin| {
        expires_at
            .checked_sub(margin)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    (before(margin), before(margin / 5))
}
