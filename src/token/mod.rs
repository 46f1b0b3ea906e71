//! The grant: an access token for every request, and a login that is never lost.
//!
//! A request knows two calls: [`Grant::bearer`] asks for a token, [`Grant::reject`] reports that upstream did not take
//! it. Behind them stand parts that can be read alone:
//!
//! - [`state`]: what to do and when, as pure functions, in the words of [`decision`]; [`traffic`]: how many requests are on their way;
//! - [`refresher`]: the one task that waits; `keeper`: one rotation, from the lock to the store; `holding`: what is here
//!   and what the store has, kept together;
//! - [`endpoint`]: what the token endpoint is asked; [`answer`]: what its answers mean; [`transport`]: how both travel;
//! - [`store`] and [`record`]: the file that keeps the pair, and what stands in it; [`succession`]: which record follows
//!   which; [`disk`] and [`watch`]: what a store needs of a file system;
//! - [`login`]: what a person is asked to approve, and what comes back; [`scopes`]: what a login lacks;
//! - [`handover`]: what a login, an import and a logout put into the store; `hooks`: programs that are told of a rotation,
//!   or that a login is needed; [`placeholder`]: what programs that refresh by themselves are given.

pub mod answer;
pub mod decision;
pub mod disk;
pub mod endpoint;
pub mod handover;
mod holding;
mod hooks;
mod keeper;
pub mod login;
pub mod placeholder;
pub mod record;
pub mod refresher;
pub mod scopes;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod store;
pub mod succession;
pub mod traffic;
pub mod transport;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{Clock, Now};
use crate::secret::{ExposeSecret, Needle, Secret, bearer_header, bearer_token};
use answer::Owner;
pub use decision::NoToken;
use decision::{Ask, Trouble, Verdict};
use state::State;
use traffic::{Lane, Traffic};

/// Further away than any clock gets, and no more than any system can tell: some 30 000 years.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

/// A grant as requests see it. Cheap to clone; all clones are the same grant.
#[derive(Clone, Debug)]
pub struct Grant(Arc<Shared>);

/// An access token on its way into a request.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The value of `Authorization`, marked sensitive.
    pub header: HeaderValue,
    /// The generation that it belongs to, which travels with the request; `None` where no other follows, as of an API
    /// key.
    pub generation: Option<u64>,
    /// What else is known of its pair.
    pub terms: Terms,
    /// Finds the token in what others say.
    needle: Option<Needle>,
}

/// What is known of a pair beside its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When the access token dies; `None` of an API key, of which nobody says so.
    pub expires_at: Option<SystemTime>,
    /// When the refresh token dies if nobody uses it.
    pub refresh_token_end: Option<SystemTime>,
    /// What was granted; empty where the token endpoint did not say.
    pub scopes: Vec<String>,
    /// Whose it is, as far as the token endpoint said.
    pub owner: Owner,
}

impl Bearer {
    /// A token as requests need it.
    ///
    /// # Errors
    ///
    /// When it has a character that no header value may carry.
    pub fn new(
        token: &Secret,
        generation: Option<u64>,
        terms: Terms,
    ) -> Result<Self, InvalidHeaderValue> {
        Ok(Self {
            header: bearer_header(token)?,
            generation,
            terms,
            needle: Needle::of(token.expose_secret().as_bytes()),
        })
    }

    /// The token itself.
    pub fn token(&self) -> Secret {
        let token = String::from_utf8_lossy(bearer_token(&self.header));
        // A copy that is as long as it is large is wiped whole.
        Secret::from(&*token)
    }

    /// How long a text must be at least to have the token in it; `None` where the token is too short to be looked for.
    pub fn length_to_find(&self) -> Option<usize> {
        self.needle.as_ref().map(Needle::length)
    }

    /// Whether the token is in `text`.
    pub fn is_in(&self, text: &[u8]) -> bool {
        let token = bearer_token(&self.header);
        self.needle
            .as_ref()
            .is_some_and(|needle| needle.is_in(token, text))
    }
}

/// What requests, refresher and commands share.
#[derive(Debug)]
struct Shared {
    /// Read by every request, without a lock.
    standing: ArcSwap<Standing>,
    /// Taken for a moment, and only when a request finds the standing not calm.
    state: Mutex<State>,
    /// Wakes the refresher.
    work: Notify,
    traffic: Traffic,
    /// Wakes the requests that wait.
    changed: Notify,
    clock: Arc<dyn Clock>,
    /// How long a request waits for a token.
    patience: Duration,
}

/// The published side of the state.
#[derive(Debug)]
struct Standing {
    bearer: Option<Arc<Bearer>>,
    /// Until here the bearer is handed out without asking the state.
    fresh_until: SystemTime,
}

impl Grant {
    /// An API key in the place of a grant: always the same bearer, without a generation, so that nothing is ever
    /// reported about it (T16).
    ///
    /// # Errors
    ///
    /// When the key has a character that no header value may carry.
    pub fn fixed(
        key: &Secret,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> Result<Self, InvalidHeaderValue> {
        let bearer = Bearer::new(key, None, Terms::default())?;
        let nothing = "there is no login behind an API key".to_owned();
        let state = State::new(None, Some(Trouble::LoginRequired(nothing)));
        let grant = Self::new(state, None, clock, patience);
        grant.0.standing.store(Arc::new(Standing {
            bearer: Some(Arc::new(bearer)),
            fresh_until: SystemTime::UNIX_EPOCH + FOR_EVER,
        }));
        Ok(grant)
    }

    fn new(
        state: State,
        bearer: Option<Arc<Bearer>>,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> Self {
        let standing = ArcSwap::from_pointee(Standing::of(&state, bearer));
        let state = Mutex::new(state);
        Self(Arc::new(Shared {
            standing,
            state,
            work: Notify::new(),
            traffic: Traffic::default(),
            changed: Notify::new(),
            clock,
            patience,
        }))
    }

    /// A token to send, at once where there is a fresh one; otherwise after a rotation.
    ///
    /// # Errors
    ///
    /// When there is no token within the time that a request may wait.
    pub async fn bearer(&self) -> Result<Arc<Bearer>, NoToken> {
        match self.fresh() {
            Some(bearer) => Ok(bearer),
            // Boxed: few requests wait, and the others should not carry what waiting takes.
            None => Box::pin(self.awaited(false)).await,
        }
    }

    /// A token that is not about to expire, for a request that cannot be sent again: a rotation that only waits for a
    /// quiet moment waits no longer (F7).
    ///
    /// # Errors
    ///
    /// When there is no token within the time that a request may wait.
    pub async fn lasting_bearer(&self) -> Result<Arc<Bearer>, NoToken> {
        match self.fresh() {
            Some(bearer) => Ok(bearer),
            None => Box::pin(self.awaited(true)).await,
        }
    }

    fn fresh(&self) -> Option<Arc<Bearer>> {
        let standing = self.0.standing.load();
        let fresh = self.0.clock.wall() < standing.fresh_until;
        standing.bearer.as_ref().filter(|_| fresh).cloned()
    }

    async fn awaited(&self, lasting: bool) -> Result<Arc<Bearer>, NoToken> {
        let asked = self.patiently(|state, now| state.ask(now, self.is_busy() && !lasting));
        match asked.await {
            Some(answer) => answer?.ok_or_else(NoToken::unusable),
            None => self
                .living()
                .ok_or_else(|| NoToken::too_slow(self.0.patience)),
        }
    }

    /// Asks, and asks again after each change, as long as a request waits; `None` when that was not long enough.
    async fn patiently(
        &self,
        ask: impl Fn(&mut State, Now) -> Ask,
    ) -> Option<Result<Option<Arc<Bearer>>, NoToken>> {
        let deadline = Instant::now() + self.0.patience;
        loop {
            // Made before the question, so that no change in between is missed.
            let changed = self.0.changed.notified();
            match self.decide(&ask) {
                (Ask::Use, bearer) => return Some(Ok(bearer)),
                (Ask::Fail(no_token), _) => return Some(Err(no_token)),
                (Ask::Wait, _) => {}
            }
            tokio::time::timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// The current token if it has not died: better than none when a rotation takes longer than requests wait.
    fn living(&self) -> Option<Arc<Bearer>> {
        let alive = {
            let state = self.state();
            state.trouble().is_none()
                && state
                    .pair()
                    .is_some_and(|pair| self.0.clock.now().wall < pair.expires_at)
        };
        self.0.standing.load().bearer.clone().filter(|_| alive)
    }

    /// Reports that upstream answered 401 to `generation`, and waits for a newer one to send the request again with.
    ///
    /// # Errors
    ///
    /// When there is none: the 401 passes, for this reason.
    pub async fn reject(&self, generation: u64) -> Result<Arc<Bearer>, String> {
        let deadline = Instant::now() + self.0.patience;
        loop {
            let changed = self.0.changed.notified();
            match self.decide(|state, now| state.reject(now, generation)) {
                (Verdict::Replay, Some(bearer)) => return Ok(bearer),
                (Verdict::Replay, None) => {
                    return Err("the new token cannot be sent in a header".to_owned());
                }
                (Verdict::Pass(reason), _) => return Err(reason),
                (Verdict::Wait, _) => {}
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(format!(
                    "no new token within {}",
                    humantime::format_duration(self.0.patience)
                ));
            }
        }
    }

    /// Reports that upstream answered 401 to `generation` where the request cannot be sent again: the rotation is for
    /// the next one (F7).
    pub fn report(&self, generation: u64) {
        self.decide(|state, now| state.report(now, generation));
    }

    /// Reports how upstream answered a replay with `generation` (T15).
    pub fn replayed(&self, generation: u64, accepted: bool) {
        self.decide(|state, now| state.replayed(now, generation, accepted));
    }

    /// A new pair, whatever the old one is still good for: what a person asked for.
    ///
    /// # Errors
    ///
    /// When there is none within the time that a request may wait.
    pub async fn rotate(&self) -> Result<u64, NoToken> {
        let generation = || self.state().pair().map_or(0, |pair| pair.generation);
        let before = generation();
        let demanded = self.patiently(|state, now| state.demand(now, before));
        match demanded.await {
            Some(answer) => answer.map(|_| generation()),
            None => Err(NoToken::too_slow(self.0.patience)),
        }
    }

    /// A place from which one worker's requests go out, so that a rotation can prefer a moment without any (T13).
    pub fn lane(&self) -> Lane {
        self.0.traffic.lane(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.0.traffic.is_busy()
    }

    /// Lets the state decide, publishes what it became, and answers with the bearer that belongs to the decision.
    fn decide<T>(&self, decision: impl FnOnce(&mut State, Now) -> T) -> (T, Option<Arc<Bearer>>) {
        let mut state = self.state();
        let before = (state.is_calm(), state.is_hoping());
        let answer = decision(&mut state, self.0.clock.now());
        let bearer = self.0.standing.load().bearer.clone();
        if before != (state.is_calm(), state.is_hoping()) {
            self.0.traffic.call(state.is_hoping());
            // From this moment requests wait, or at least ask (T13).
            self.0
                .standing
                .store(Arc::new(Standing::of(&state, bearer.clone())));
            self.0.work.notify_one();
        }
        (answer, bearer)
    }

    /// Changes the state and the bearer together and wakes everyone who waits.
    fn publish<T>(
        &self,
        bearer: impl Into<Published>,
        change: impl FnOnce(&mut State, Now) -> T,
    ) -> T {
        let mut state = self.state();
        let answer = change(&mut state, self.0.clock.now());
        self.0.traffic.call(state.is_hoping());
        let bearer = match bearer.into() {
            Published::New(bearer) => bearer,
            Published::Same => self.0.standing.load().bearer.clone(),
        };
        self.0
            .standing
            .store(Arc::new(Standing::of(&state, bearer)));
        drop(state);
        self.0.changed.notify_waiters();
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Decisions do not panic half-way, so a poisoned lock guards a whole state.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which bearer goes with a change of the state.
enum Published {
    New(Option<Arc<Bearer>>),
    Same,
}

impl From<Option<Arc<Bearer>>> for Published {
    fn from(bearer: Option<Arc<Bearer>>) -> Self {
        Self::New(bearer)
    }
}

impl Standing {
    fn of(state: &State, bearer: Option<Arc<Bearer>>) -> Self {
        let fresh_until = match state.pair() {
            Some(pair) if state.is_calm() => pair.refresh_at.min(pair.expires_at),
            _ => SystemTime::UNIX_EPOCH,
        };
        Self {
            bearer,
            fresh_until,
        }
    }
}

impl NoToken {
    fn too_slow(patience: Duration) -> Self {
        let message = format!(
            "the token is being refreshed, which takes longer than {} (timeouts.token)",
            humantime::format_duration(patience)
        );
        Self {
            trouble: Trouble::TokenUnavailable(message),
            retry_after: Some(Duration::from_secs(1)),
        }
    }

    fn unusable() -> Self {
        let message = "the stored access token has characters that no header may carry".to_owned();
        Self {
            trouble: Trouble::TokenUnavailable(message),
            retry_after: None,
        }
    }
}
