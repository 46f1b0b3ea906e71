//! The one task that rotates the grant (rules T2 to T10).
//!
//! It waits until the [state] says so, then: lock, read the store again, write the intent, ask the token
//! endpoint once, store the answer, publish it. Nothing cancels it between the first and the last of these steps: it
//! is told to stop only between rotations, and the program waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Answer, Issued, TokenEndpoint};
use super::record::{Intent, LastError, LastRotation, Record, Refusal};
use super::state::{self, Cause, Next, Outcome, Pair, State, Trouble};
use super::store::{Lock, Store, StoreError};
use super::{Bearer, Grant, Published};
use crate::clock::Clock;
use crate::config::{Client, Credential, Origin, Scheme};
use crate::secret::{ExposeSecret, Secret, bearer_header};

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

/// A configured refresh token counts while the store is empty, or holds nothing but an earlier one that was refused.
fn may_seed(stored: Option<&Record>, seed: &Secret) -> bool {
    stored.is_none_or(|record| {
        record.generation == Some(0)
            && record.refusal.is_some()
            && record.refresh_token.expose_secret() != seed.expose_secret()
    })
}

fn standing(record: &Record, client: &Client, margin: Duration) -> (State, Option<Bearer>) {
    let (pair, bearer) = pair_and_bearer(record, margin);
    match &record.refusal {
        // A refused generation is never posted again by the same application (T9).
        Some(refusal) if refusal.client == fingerprint(client) => (
            State::blocked(Some(pair), Trouble::LoginRequired(refusal.message.clone())),
            bearer,
        ),
        _ => (State::active(pair), bearer),
    }
}

fn pair_and_bearer(record: &Record, margin: Duration) -> (Pair, Option<Bearer>) {
    let generation = record.generation.unwrap_or(1);
    let refresh_at = state::refresh_at(
        record.expires_at,
        record.lifetime(),
        margin,
        fastrand::f64(),
    );
    let pair = Pair {
        generation,
        refresh_at,
        expires_at: record.expires_at,
        cause: None,
    };
    let header = Some(&record.access_token)
        .filter(|token| !token.expose_secret().is_empty())
        .map(bearer_header);
    let bearer = header
        .and_then(Result::ok)
        .map(|header| Bearer { header, generation });
    (pair, bearer)
}

/// The stored record where it is newer than the one in memory, with its generation known.
fn newer(memory: Option<&Record>, stored: Option<Record>) -> Option<Record> {
    let stored = stored?;
    let Some(memory) = memory else {
        return Some(Record {
            generation: Some(stored.generation.unwrap_or(1)),
            ..stored
        });
    };
    let ours = memory.generation.unwrap_or(0);
    let next = ours.saturating_add(1);
    match stored.generation {
        Some(theirs) if theirs > ours => Some(stored),
        // Another grant, written by a program that does not count, or by a login after the file was moved away while
        // ours is refused.
        theirs
            if !memory.same_tokens(&stored)
                && (theirs.is_none_or(|theirs| theirs == ours) || memory.refusal.is_some()) =>
        {
            Some(Record {
                generation: Some(next),
                ..stored
            })
        }
        _ => None,
    }
}

fn renewed(old: &Record, issued: Issued, rotation: LastRotation, received: SystemTime) -> Record {
    // The token was issued at some moment of the exchange, and its beginning is on the safe side. But an exchange that
    // took much of the token's life must not make it look dead on arrival: it would be rotated again at once.
    let took = received.duration_since(rotation.at).unwrap_or_default();
    let issued_at = if took > issued.lifetime / 10 {
        received
    } else {
        rotation.at
    };
    let refresh_issued_at = if issued.refresh_token.is_some() {
        issued_at
    } else {
        old.refresh_issued_at
    };
    Record {
        generation: Some(old.generation.unwrap_or(0).saturating_add(1)),
        access_token: issued.access_token,
        refresh_token: issued
            .refresh_token
            .unwrap_or_else(|| old.refresh_token.clone()),
        issued_at,
        expires_at: issued_at.checked_add(issued.lifetime).unwrap_or(issued_at),
        refresh_issued_at,
        scopes: issued.scopes.unwrap_or_else(|| old.scopes.clone()),
        user_id: issued.user_id.or(old.user_id),
        account_id: issued.account_id.or(old.account_id),
        intent: None,
        refusal: None,
        last_rotation: Some(rotation),
        last_error: None,
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

/// What a person is told when there has never been a pair.
pub fn never_logged_in(store: &Store) -> String {
    let path: PathBuf = store.path().to_owned();
    format!(
        "no login yet ({} does not exist); run: lucid-proxy import FILE",
        path.display()
    )
}

fn refusal_message(code: &str, description: &str, unanswered: Option<&Intent>) -> String {
    let cause = match (code, unanswered) {
        ("invalid_client" | "unauthorized_client", _) => {
            "the client id or secret is wrong, or the application was disabled; correct them and restart".to_owned()
        }
        (_, Some(intent)) => {
            let at = humantime::format_rfc3339_seconds(intent.at);
            format!("a rotation begun at {at} never got its answer, so its new tokens were lost; log in again and run: lucid-proxy import FILE")
        }
        _ => "it was used elsewhere, revoked or not used for 180 days, or the client id or secret is wrong; log in again and run: lucid-proxy import FILE".to_owned(),
    };
    let description = if description.is_empty() {
        String::new()
    } else {
        format!(" \"{description}\"")
    };
    format!("the token endpoint refused the refresh token ({code}{description}): {cause}")
}

/// Tells one application's credentials from another's without keeping them: 64 bits of SHA-256.
pub fn fingerprint(client: &Client) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(client.id.as_bytes());
    context.update(&[0]);
    context.update(client.secret.expose_secret().as_bytes());
    context
        .finish()
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
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

    fn record(generation: Option<u64>, refresh_token: &str) -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        Record {
            generation,
            ..Record::from_refresh_token(Secret::from(refresh_token), now)
        }
    }

    #[test]
    fn t02_t07_only_a_newer_record_is_taken_over() {
        let taken = |memory: &Record, stored: Record| {
            newer(Some(memory), Some(stored)).and_then(|record| record.generation)
        };
        let ours = record(Some(5), "five");
        assert_eq!(taken(&ours, record(Some(6), "six")), Some(6));
        assert_eq!(taken(&ours, record(Some(5), "five")), None, "the same");
        assert_eq!(
            taken(&ours, record(Some(4), "four")),
            None,
            "a restored backup"
        );
        assert_eq!(
            taken(&ours, record(None, "five")),
            None,
            "the same, as the example script writes it"
        );
        assert_eq!(
            taken(&ours, record(None, "other")),
            Some(6),
            "the example script refreshed"
        );
        let refusal = Refusal {
            code: "invalid_grant".to_owned(),
            message: String::new(),
            at: SystemTime::UNIX_EPOCH,
            client: String::new(),
        };
        let refused = Record {
            refusal: Some(refusal),
            ..record(Some(5), "five")
        };
        assert_eq!(
            taken(&refused, record(Some(1), "new")),
            Some(6),
            "a login after the file was moved away"
        );
        assert_eq!(taken(&refused, record(Some(5), "five")), None);
        assert!(newer(None, None).is_none());
        assert_eq!(
            newer(None, Some(record(None, "r"))).and_then(|record| record.generation),
            Some(1)
        );
    }
}
