//! The one task that rotates the grant (rules T2 to T10).
//!
//! It waits until the [state] says so, then: lock, read the store again, write the intent, ask the token
//! endpoint once, store the answer, publish it. Nothing cancels it between the first and the last of these steps: it
//! is told to stop only between rotations, and the program waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Answer, TokenEndpoint};
use super::record::{Intent, LastError, LastRotation, Record, Refusal};
use super::state::{self, Cause, Next, Outcome, Pair, State, Trouble};
use super::store::{Lock, Store, StoreError};
use super::succession::{
    fingerprint, may_seed, never_logged_in, newer, pair_and_bearer, refusal_message, renewed,
    standing,
};
use super::{Grant, Published};
use crate::clock::Clock;
use crate::config::{Client, Credential, Origin, Scheme};

/// Timers only wake up, at least this often: the machine may have slept meanwhile (T12).
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often the store is looked at while only a login can help.
const LOGIN_POLL: Duration = Duration::from_secs(1);
/// How long another process may hold the lock before a rotation gives up for now.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// How often a pair that could not be stored is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// The two clocks may differ by this much between two wake-ups before it counts as a jump.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

/// Rotates one grant.
#[derive(Debug)]
pub struct Refresher {
    grant: Grant,
    name: String,
    store: Store,
    endpoint: TokenEndpoint,
    client: Client,
    margin: Duration,
    clock: Arc<dyn Clock>,
    /// The pair that is the authority; `None` before the first login.
    record: Option<Record>,
    /// Tells when to end.
    stop: CancellationToken,
    /// The generation that was last taken over from another process.
    adopted: Option<u64>,
    /// A pair that is newer than the store, with the lock that keeps others from using the store's old one (T7).
    unsaved: Option<Lock>,
}

/// Why there is no grant to serve with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store is there but unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No trusted certificates.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The token endpoint's client could not be built.
    #[error("cannot prepare requests to the token endpoint")]
    Endpoint(#[from] reqwest::Error),
    /// The application's credentials are not configured.
    #[error("the client id and secret are missing: set LUCID_CLIENT_ID and LUCID_CLIENT_SECRET")]
    NoClient,
}

/// How long the refresher may go on trying to store a pair after it was told to stop.
pub type Drain = Duration;

impl Refresher {
    /// Reads the store and makes the grant that stands in it; with an empty store and a configured refresh token, a
    /// grant that begins with that.
    ///
    /// # Errors
    ///
    /// When the store holds something unusable, or the token endpoint cannot be prepared.
    pub fn open(
        credential: &Credential,
        patience: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<(Grant, Self), OpenError> {
        let client = credential.client.clone().ok_or(OpenError::NoClient)?;
        let tls = match Origin::of(&credential.token_url) {
            Some(origin) if origin.scheme == Scheme::Http => None,
            _ => Some(crate::tls::client_config()?),
        };
        let endpoint = TokenEndpoint::new(&credential.token_url, client.clone(), tls)?;
        let store = Store::new(credential.store.clone());
        let now = clock.now().wall;
        let stored = store.read()?;
        let record = match &credential.refresh_token {
            Some(seed) if may_seed(stored.as_ref(), seed) => {
                Some(Record::from_refresh_token(seed.clone(), now))
            }
            _ => stored.map(|record| Record {
                generation: Some(record.generation.unwrap_or(1)),
                ..record
            }),
        };
        let margin = credential.refresh_margin;
        let (state, bearer) = match &record {
            Some(record) => standing(record, &client, margin),
            None => (
                State::blocked(None, Trouble::LoginRequired(never_logged_in(&store))),
                None,
            ),
        };
        let grant = Grant::new(state, bearer, clock.clone(), patience);
        let name = credential.name.clone();
        let refresher = Self {
            grant: grant.clone(),
            name,
            store,
            endpoint,
            client,
            margin,
            clock,
            record,
            stop: CancellationToken::new(),
            adopted: None,
            unsaved: None,
        };
        Ok((grant, refresher))
    }

    /// Whether only a person can help, and what it takes.
    pub fn login_needed(&self) -> Option<String> {
        let mut state = self.grant.state();
        if !state.is_blocked() {
            return None;
        }
        match state.ask(self.clock.now()) {
            state::Ask::Fail { trouble, .. } => Some(trouble.to_string()),
            _ => None,
        }
    }

    /// Rotates when it is time, until told to stop and nothing is under way.
    pub async fn run(mut self, stop: CancellationToken, drain: Drain) {
        self.stop = stop.clone();
        self.log_standing();
        if self
            .record
            .as_ref()
            .is_some_and(|record| record.generation == Some(0))
        {
            // A configured refresh token is proved at once, not by the first request.
            self.grant.decide(|state, now| state.ask(now));
        }
        let mut before = self.clock.now();
        while !stop.is_cancelled() {
            // Asked once a turn: the answer to rotate counts as a rotation under way.
            let due = match self.next() {
                Next::Rotate(cause) => {
                    self.rotate(cause).await;
                    continue;
                }
                Next::Sleep(due) => due,
            };
            let nap = self.nap(due);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.grant.0.work.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
            let now = self.clock.now();
            let jump = wall_clock_jump(before, now);
            if let Some(jump) = jump.filter(|jump| *jump >= CLOCK_JUMP) {
                tracing::warn!(
                    credential = self.name,
                    seconds = jump.as_secs(),
                    "the clock was set or the machine slept; expiry is judged anew"
                );
            }
            before = now;
            self.look_into_the_store();
            // It is tried again after the next nap, which is short while this fails.
            let _ = self.save_again();
        }
        self.save_before_the_end(drain).await;
    }

    fn next(&self) -> Next {
        self.grant.state().next(self.clock.now())
    }

    fn nap(&self, due: Option<Instant>) -> Duration {
        let mut nap = LONGEST_SLEEP;
        if let Some(due) = due {
            nap = nap.min(due.saturating_duration_since(self.clock.now().monotonic));
        }
        if self.grant.state().is_blocked() {
            nap = nap.min(LOGIN_POLL);
        }
        if self.unsaved.is_some() {
            nap = nap.min(WRITE_RETRY);
        }
        nap
    }

    async fn rotate(&mut self, cause: Cause) {
        let started = Instant::now();
        let (outcome, bearer) = self.attempt(cause).await;
        let milliseconds = started.elapsed().as_millis() as u64;
        self.grant.publish(bearer, |state, now| {
            state.finished(now, outcome.clone(), fastrand::f64())
        });
        let name = &self.name;
        match outcome {
            Outcome::Renewed(Pair { generation, .. }) if self.adopted == Some(generation) => {
                self.log_adopted()
            }
            Outcome::Renewed(Pair { generation, .. }) => {
                tracing::info!(credential = name, generation, %cause, milliseconds, "token rotated");
            }
            Outcome::Refused(trouble) => {
                tracing::error!(credential = name, %cause, milliseconds, "login needed: {trouble}");
            }
            Outcome::Failed { trouble, .. } => {
                tracing::warn!(credential = name, %cause, milliseconds, "token not rotated, trying again soon: {trouble}");
            }
        }
    }

    fn log_adopted(&self) {
        tracing::info!(
            credential = self.name,
            generation = self.adopted,
            "took over a newer token from the store"
        );
    }

    /// One rotation, from the lock to the store.
    async fn attempt(&mut self, cause: Cause) -> (Outcome, Published) {
        match self.prepare().await {
            Ok((lock, record)) => self.exchange(cause, lock, record).await,
            Err(Instead::Adopt(outcome, bearer)) => (outcome, bearer),
            Err(Instead::GiveUp(outcome)) => (outcome, Published::Same),
        }
    }

    /// Everything that must be so before a refresh token may be sent: the lock is ours, the store has nothing newer,
    /// and it holds a note of what is about to happen, which also proves that it is writable (T2, T3).
    async fn prepare(&mut self) -> Result<(Lock, Record), Instead> {
        self.save_again()?;
        let lock = self.lock().await?;
        if let Some((outcome, bearer)) = self.adopt_newer()? {
            return Err(Instead::Adopt(outcome, bearer));
        }
        let Some(lock) = lock else {
            return Err(Instead::GiveUp(unavailable(format!(
                "another process holds {}; it may be refreshing the same login",
                self.store.lock_path().display()
            ))));
        };
        let Some(record) = self.record.clone() else {
            let trouble = Trouble::LoginRequired(never_logged_in(&self.store));
            return Err(Instead::GiveUp(Outcome::Refused(trouble)));
        };
        if let Some(refusal) = record
            .refusal
            .filter(|refusal| refusal.client == fingerprint(&self.client))
        {
            // Another process was refused this very pair (T9).
            return Err(Instead::GiveUp(Outcome::Refused(Trouble::LoginRequired(
                refusal.message,
            ))));
        }
        let generation = record.generation.unwrap_or(0);
        let begun = Intent {
            generation,
            at: self.clock.now().wall,
        };
        let intended = Record {
            refusal: None,
            intent: record.intent.clone().or(Some(begun)),
            ..record
        };
        self.store.write(&intended)?;
        Ok((
            lock,
            Record {
                intent: record.intent,
                ..intended
            },
        ))
    }

    /// Sends the refresh token and stores what came of it. The intent in `record` is an earlier one, if that never had
    /// an answer.
    async fn exchange(
        &mut self,
        cause: Cause,
        lock: Lock,
        mut record: Record,
    ) -> (Outcome, Published) {
        let (begun, started) = (self.clock.now().wall, Instant::now());
        match self.endpoint.refresh(&record.refresh_token).await {
            Answer::Issued(issued) => {
                let milliseconds = started.elapsed().as_millis() as u64;
                let rotation = LastRotation {
                    at: begun,
                    cause: cause.to_string(),
                    milliseconds,
                };
                let received = self.clock.now().wall;
                self.issued(renewed(&record, issued, rotation, received), lock)
            }
            Answer::Refused { code, description } => self.refused(record, &code, &description),
            Answer::Failed {
                message,
                retry_after,
                maybe_spent,
            } => {
                if maybe_spent && record.intent.is_none() {
                    let generation = record.generation.unwrap_or(0);
                    record.intent = Some(Intent {
                        generation,
                        at: begun,
                    });
                }
                record.last_error = Some(LastError {
                    at: begun,
                    message: message.clone(),
                });
                self.keep(record);
                let trouble = Trouble::TokenUnavailable(message);
                (
                    Outcome::Failed {
                        trouble,
                        retry_after,
                    },
                    Published::Same,
                )
            }
        }
    }

    /// `Ok(None)` when another process held the lock all the time, or this one is to end: nothing has begun yet.
    async fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            if let Some(lock) = self.store.try_lock()? {
                return Ok(Some(lock));
            }
            if Instant::now() >= deadline || self.stop.is_cancelled() {
                return Ok(None);
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Takes over what another process stored, if that is newer than what we have (T2). Of our own pair, takes over
    /// what the other process learned about it: that it was sent and had no answer, or was refused.
    fn adopt_newer(&mut self) -> Result<Option<(Outcome, Published)>, StoreError> {
        let stored = self.store.read_any_mode()?;
        if let (Some(ours), Some(stored)) = (&mut self.record, &stored)
            && ours.same_tokens(stored)
        {
            ours.intent = ours.intent.take().or_else(|| stored.intent.clone());
            ours.refusal = ours.refusal.take().or_else(|| stored.refusal.clone());
        }
        let Some(record) = newer(self.record.as_ref(), stored) else {
            return Ok(None);
        };
        let (pair, bearer) = pair_and_bearer(&record, self.margin);
        self.adopted = Some(pair.generation);
        self.record = Some(record);
        Ok(Some((Outcome::Renewed(pair), Published::New(bearer))))
    }

    /// Stores, then publishes. A pair that cannot be stored is published all the same: it is the only living one (T7).
    fn issued(&mut self, record: Record, lock: Lock) -> (Outcome, Published) {
        if let Err(error) = self.store.write(&record) {
            tracing::error!(
                credential = self.name,
                generation = record.generation,
                "the new token is kept in memory only until the store can be written: {}",
                with_cause(&error)
            );
            self.unsaved = Some(lock);
        }
        let (pair, bearer) = pair_and_bearer(&record, self.margin);
        self.record = Some(record);
        (Outcome::Renewed(pair), Published::New(bearer))
    }

    /// The last look before saying that a grant is over: somebody may have logged in meanwhile (T9).
    fn refused(
        &mut self,
        mut record: Record,
        code: &str,
        description: &str,
    ) -> (Outcome, Published) {
        if let Ok(Some(adopted)) = self.adopt_newer() {
            return adopted;
        }
        let message = refusal_message(code, description, record.intent.as_ref());
        let at = self.clock.now().wall;
        let client = fingerprint(&self.client);
        record.refusal = Some(Refusal {
            code: code.to_owned(),
            message: message.clone(),
            at,
            client,
        });
        self.keep(record);
        (
            Outcome::Refused(Trouble::LoginRequired(message)),
            Published::Same,
        )
    }

    /// Writes what was learned about a pair that stays as it is; failing to is no loss.
    fn keep(&mut self, record: Record) {
        if let Err(error) = self.store.write(&record) {
            tracing::warn!(
                credential = self.name,
                "cannot note the failed rotation: {}",
                with_cause(&error)
            );
        }
        self.record = Some(record);
    }

    /// Sees a login, or a rotation, that another process stored.
    fn look_into_the_store(&mut self) {
        // What is wrong with the store is said when a rotation needs it.
        if let Ok(Some((Outcome::Renewed(pair), bearer))) = self.adopt_newer() {
            self.grant
                .publish(bearer, |state, now| state.renew(now, pair));
            self.log_adopted();
        }
    }

    /// Stores the pair that could not be stored before, if there is one.
    fn save_again(&mut self) -> Result<(), StoreError> {
        let (Some(record), true) = (&self.record, self.unsaved.is_some()) else {
            return Ok(());
        };
        self.store.write(record)?;
        self.unsaved = None;
        tracing::info!(
            credential = self.name,
            generation = record.generation,
            "the token is stored now"
        );
        Ok(())
    }

    async fn save_before_the_end(&mut self, drain: Drain) {
        let deadline = Instant::now() + drain;
        while self.save_again().is_err() {
            if Instant::now() >= deadline {
                tracing::error!(
                    credential = self.name,
                    "the newest token could not be stored in {} and ends with this process; a new login will be needed",
                    self.store.path().display()
                );
                return;
            }
            tokio::time::sleep(WRITE_RETRY.min(drain)).await;
        }
    }

    fn log_standing(&self) {
        let name = &self.name;
        match (self.login_needed(), &self.record) {
            (Some(message), _) => tracing::warn!(credential = name, "login needed: {message}"),
            (None, Some(record)) => {
                let generation = record.generation;
                if let Some(intent) = &record.intent {
                    let at = humantime::format_rfc3339_seconds(intent.at);
                    tracing::warn!(
                        credential = name,
                        generation,
                        "a rotation begun at {at} has no known end; the stored refresh token is tried again when a token is needed"
                    );
                }
                tracing::info!(credential = name, generation, store = %self.store.path().display(), "grant ready");
            }
            (None, None) => {}
        }
        if let Err(error) = self.store.probe() {
            tracing::error!(
                credential = name,
                "no rotation is possible: {}",
                with_cause(&error)
            );
        }
    }
}

/// What a rotation came to before a refresh token was sent.
enum Instead {
    /// Somebody else had rotated.
    Adopt(Outcome, Published),
    /// It cannot be done now, or not at all.
    GiveUp(Outcome),
}

impl From<StoreError> for Instead {
    fn from(error: StoreError) -> Self {
        Self::GiveUp(unwritable(&error))
    }
}

fn unavailable(message: String) -> Outcome {
    Outcome::Failed {
        trouble: Trouble::TokenUnavailable(message),
        retry_after: None,
    }
}

fn unwritable(error: &StoreError) -> Outcome {
    Outcome::Failed {
        trouble: Trouble::StoreUnwritable(with_cause(error)),
        retry_after: None,
    }
}

fn with_cause(error: &StoreError) -> String {
    match (error, std::error::Error::source(error)) {
        // This one's text has its cause in it.
        (StoreError::Damaged { .. }, _) | (_, None) => error.to_string(),
        (_, Some(cause)) => format!("{error}: {cause}"),
    }
}

fn wall_clock_jump(before: crate::clock::Now, now: crate::clock::Now) -> Option<Duration> {
    let expected: SystemTime = before
        .wall
        .checked_add(now.monotonic.saturating_duration_since(before.monotonic))?;
    Some(
        now.wall
            .duration_since(expected)
            .unwrap_or_else(|earlier| earlier.duration()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    #[test]
    fn t12_a_clock_that_was_set_is_noticed() {
        let before = Now {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
            monotonic: Instant::now(),
        };
        let minute = Duration::from_secs(60);
        let now = |wall: SystemTime| Now {
            wall,
            monotonic: before.monotonic + minute,
        };
        assert_eq!(
            wall_clock_jump(before, now(before.wall + minute)),
            Some(Duration::ZERO)
        );
        assert_eq!(
            wall_clock_jump(before, now(before.wall + minute * 3)),
            Some(minute * 2),
            "it slept"
        );
        assert_eq!(
            wall_clock_jump(before, now(before.wall - minute)),
            Some(minute * 2),
            "it was set back"
        );
    }
}
