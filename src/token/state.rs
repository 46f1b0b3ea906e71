//! What to do about the grant, and when: decisions alone, without a clock, a disk or a network.
//!
//! Every function here is given the time and answers at once. The task that acts on the answers is in
//! `refresher.rs`; requests reach this through [`Grant`](super::Grant).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use super::decision::{
    Ask, Cause, Margins, Next, NoToken, Outcome, Pair, Trouble, Verdict, early,
};
use crate::clock::Now;

/// How long after a rotation that cured nothing a 401 on its pair is believed (T15).
const QUIET_FIRST: Duration = Duration::from_secs(30);
/// The longest such period: a token revoked in earnest still heals within it.
const QUIET_LONGEST: Duration = Duration::from_secs(600);
/// The wait after the first failed rotation (T10); it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Where the doubling ends.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);
/// A server may ask for patience, but not for more than a token's usual life.
const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotation {
    Idle,
    /// Due at the next moment with nothing on its way, and at the latest when the pair says so (T13).
    Hoped,
    /// Due at once, or when the back-off is over.
    Wanted(Cause),
    Running(Cause),
}

#[derive(Clone, Debug)]
struct Retry {
    failures: u32,
    at: Instant,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug)]
struct Quiet {
    until: Instant,
    length: Duration,
    generation: u64,
}

/// Where a grant stands.
#[derive(Clone, Debug)]
pub struct State {
    pair: Option<Pair>,
    /// Only a person can help: no pair, or one that was refused.
    blocked: Option<Trouble>,
    rotation: Rotation,
    retry: Option<Retry>,
    quiet: Option<Quiet>,
    /// When the current pair came; `None` for one that was there at start-up.
    renewed: Option<Instant>,
}

impl State {
    /// A grant with this pair; with `blocked`, only a person can help: never approved, refused, or logged out.
    pub fn new(pair: Option<Pair>, blocked: Option<Trouble>) -> Self {
        Self {
            pair,
            blocked,
            rotation: Rotation::Idle,
            retry: None,
            quiet: None,
            renewed: None,
        }
    }

    /// The current pair, dead or alive.
    pub fn pair(&self) -> Option<&Pair> {
        self.pair.as_ref()
    }

    /// Why only a person can help, where that is so.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.blocked.as_ref()
    }

    /// Whether requests need not ask: nothing is under way and nothing is wrong.
    pub fn is_calm(&self) -> bool {
        self.blocked.is_none() && self.rotation == Rotation::Idle
    }

    /// Whether a rotation waits for a moment with nothing on its way.
    pub fn is_hoping(&self) -> bool {
        self.blocked.is_none() && self.rotation == Rotation::Hoped
    }

    /// A request wants a token. `busy`: others are on their way with the current one.
    pub fn ask(&mut self, now: Now, busy: bool) -> Ask {
        let (None, Some(pair)) = (&self.blocked, self.pair) else {
            let trouble = self
                .blocked
                .clone()
                .unwrap_or_else(|| Trouble::LoginRequired("there is no pair".to_owned()));
            return Ask::Fail(NoToken {
                trouble,
                retry_after: None,
            });
        };
        let alive = now.wall < pair.expires_at;
        match (self.rotation, &self.retry) {
            (Rotation::Idle, _) if now.wall < pair.refresh_at => Ask::Use,
            (Rotation::Idle | Rotation::Hoped, _) if alive && busy && now.wall < pair.rotate_by => {
                self.rotation = Rotation::Hoped;
                Ask::Use
            }
            (Rotation::Idle | Rotation::Hoped, _) => {
                let cause = if alive {
                    Cause::Expiring
                } else {
                    Cause::Expired
                };
                self.rotation = Rotation::Wanted(if pair.generation == 0 {
                    Cause::First
                } else {
                    cause
                });
                Ask::Wait
            }
            (Rotation::Wanted(_), Some(retry)) if now.monotonic < retry.at => {
                // Between two attempts a token that lives by the clock is worth more than none. That upstream rejected
                // it once proves nothing: a 401 can be about the request (T15).
                if alive {
                    return Ask::Use;
                }
                Ask::Fail(NoToken {
                    trouble: retry.trouble.clone(),
                    retry_after: Some(retry.at - now.monotonic),
                })
            }
            _ => Ask::Wait,
        }
    }

    /// A person wants another pair than that of `generation`.
    pub fn demand(&mut self, now: Now, generation: u64) -> Ask {
        let (None, Some(pair)) = (&self.blocked, self.pair) else {
            return self.ask(now, false);
        };
        if pair.generation > generation {
            return Ask::Use;
        }
        match (self.rotation, &self.retry) {
            (Rotation::Wanted(_), Some(retry)) if now.monotonic < retry.at => Ask::Fail(NoToken {
                trouble: retry.trouble.clone(),
                retry_after: Some(retry.at - now.monotonic),
            }),
            (Rotation::Idle | Rotation::Hoped, _) => {
                self.rotation = Rotation::Wanted(Cause::Asked);
                Ask::Wait
            }
            _ => Ask::Wait,
        }
    }

    /// A rotation of the current pair was begun, and its end is not known: it is to be found out (T11).
    pub fn settle(&mut self) {
        if self.is_calm() && self.pair.is_some() {
            self.rotation = Rotation::Wanted(Cause::Unfinished);
        }
    }

    /// A request that used `generation` was answered 401 (T1).
    pub fn reject(&mut self, now: Now, generation: u64) -> Verdict {
        let (None, Some(pair)) = (&self.blocked, self.pair) else {
            return Verdict::Pass("the grant needs a new login".to_owned());
        };
        let backing_off = self.retry.as_ref().filter(|retry| now.monotonic < retry.at);
        let is_newer = generation < pair.generation && now.wall < pair.expires_at;
        match self.rotation {
            Rotation::Running(_) => Verdict::Wait,
            Rotation::Wanted(_) if backing_off.is_none() => Verdict::Wait,
            _ if is_newer => Verdict::Replay,
            Rotation::Wanted(_) => {
                let trouble =
                    backing_off.map_or_else(String::new, |retry| retry.trouble.to_string());
                Verdict::Pass(format!("no new token: {trouble}"))
            }
            Rotation::Idle | Rotation::Hoped if generation < pair.generation => {
                // The newer one has died meanwhile.
                self.rotation = Rotation::Wanted(Cause::Expired);
                Verdict::Wait
            }
            Rotation::Idle | Rotation::Hoped if self.is_quiet(now) => {
                Verdict::Pass("the last rotation did not cure such an answer".to_owned())
            }
            Rotation::Idle | Rotation::Hoped => {
                self.rotation = Rotation::Wanted(Cause::Rejected);
                Verdict::Wait
            }
        }
    }

    fn is_quiet(&self, now: Now) -> bool {
        self.quiet.is_some_and(|quiet| now.monotonic < quiet.until)
    }

    /// A request that used `generation` was answered 401 and cannot be sent again: the next one is to have another pair
    /// (F7). But a pair that was made for such an answer a moment ago has not helped, and making more of them would only
    /// kill tokens that others are using; a request that can be sent again will tell whether it is dead (T15).
    pub fn report(&mut self, now: Now, generation: u64) {
        let young = self
            .renewed
            .is_some_and(|renewed| now.monotonic < renewed + QUIET_FIRST);
        let made_for_it = self.pair.is_some_and(|pair| {
            pair.generation == generation && pair.cause == Some(Cause::Rejected)
        });
        if !(young && made_for_it) {
            self.reject(now, generation);
        }
    }

    /// A replay with `generation` was answered: with another 401, or with anything else (T15).
    pub fn replayed(&mut self, now: Now, generation: u64, accepted: bool) {
        if accepted {
            self.quiet = None;
            return;
        }
        let Some(pair) = self.pair.filter(|pair| pair.generation == generation) else {
            return;
        };
        if !self.is_calm() && !self.is_hoping() {
            return;
        }
        if pair.cause != Some(Cause::Rejected) {
            // This pair was not made to cure a 401, so making one may still help: the next request will know.
            if !self.is_quiet(now) {
                self.rotation = Rotation::Wanted(Cause::Rejected);
            }
        } else if self
            .quiet
            .is_none_or(|quiet| quiet.generation != generation)
        {
            // Longer each time; many replays of one generation are one failure.
            let length = self
                .quiet
                .map_or(QUIET_FIRST, |quiet| (quiet.length * 2).min(QUIET_LONGEST));
            self.quiet = Some(Quiet {
                until: now.monotonic + length,
                length,
                generation,
            });
        }
    }

    /// What the refresher should do now. After [`Next::Rotate`] it must report with [`State::finished`]. `busy`: requests
    /// are on their way with the current pair.
    pub fn next(&mut self, now: Now, busy: bool) -> Next {
        self.want_by_time(now, busy);
        match (self.rotation, &self.retry) {
            (Rotation::Wanted(_), Some(retry)) if now.monotonic < retry.at => {
                Next::Sleep(Some(retry.at))
            }
            (Rotation::Wanted(cause), _) => {
                self.rotation = Rotation::Running(cause);
                Next::Rotate(cause)
            }
            (Rotation::Hoped, _) => Next::Sleep(self.pair.map(|pair| {
                let left = pair.rotate_by.duration_since(now.wall);
                now.monotonic + left.unwrap_or_default()
            })),
            _ => Next::Sleep(None),
        }
    }

    /// What the clocks alone make due.
    fn want_by_time(&mut self, now: Now, busy: bool) {
        let (None, Some(pair)) = (&self.blocked, self.pair) else {
            return;
        };
        match self.rotation {
            Rotation::Hoped if !busy || now.wall >= pair.rotate_by => {
                self.rotation = Rotation::Wanted(Cause::Expiring);
            }
            Rotation::Idle if now.wall >= pair.idle_at => {
                self.rotation = Rotation::Wanted(Cause::Idle);
            }
            _ => {}
        }
    }

    /// The rotation that [`State::next`] asked for has ended. `jitter` is a random number from 0 to 1.
    pub fn finished(&mut self, now: Now, outcome: Outcome, jitter: f64) {
        let cause = match self.rotation {
            Rotation::Running(cause) | Rotation::Wanted(cause) => cause,
            Rotation::Idle | Rotation::Hoped => Cause::Expired,
        };
        self.rotation = Rotation::Idle;
        match outcome {
            Outcome::Renewed(pair) => {
                self.renew(
                    now,
                    Pair {
                        cause: Some(cause),
                        ..pair
                    },
                );
                if cause != Cause::Rejected {
                    self.quiet = None;
                }
            }
            Outcome::Refused(trouble) => self.block(trouble),
            Outcome::Failed {
                trouble,
                retry_after,
            } => {
                let failures = self
                    .retry
                    .as_ref()
                    .map_or(0, |retry| retry.failures)
                    .saturating_add(1);
                let at = now.monotonic + backoff(failures, retry_after, jitter);
                self.retry = Some(Retry {
                    failures,
                    at,
                    trouble,
                });
                // It stays wanted: the grant heals without a request.
                self.rotation = Rotation::Wanted(cause);
            }
        }
    }

    /// The current pair is known to be dead, whatever the clock says: nobody is given it any more.
    pub fn bury(&mut self) {
        if let Some(pair) = &mut self.pair {
            pair.expires_at = SystemTime::UNIX_EPOCH;
        }
    }

    /// Only a person can help from now on: the grant was refused, or ended by a logout.
    pub fn block(&mut self, trouble: Trouble) {
        self.blocked = Some(trouble);
        self.retry = None;
        self.rotation = Rotation::Idle;
    }

    /// A newer pair came from elsewhere, such as a login that another process stored.
    pub fn renew(&mut self, now: Now, pair: Pair) {
        self.renewed = Some(now.monotonic);
        self.pair = Some(pair);
        self.blocked = None;
        self.retry = None;
        self.rotation = Rotation::Idle;
    }
}

fn backoff(failures: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let delay = doubled.min(BACKOFF_LONGEST).mul_f64(0.75 + 0.25 * jitter);
    delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_LONGEST))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
