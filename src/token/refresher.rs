//! The one task that keeps the grant alive (rules T2 to T14).
//!
//! It waits until the [state](super::state) says so and lets the keeper rotate; in between it sees what other
//! processes store. Nothing cancels it in a rotation: it is told to stop only between rotations, and the program waits
//! for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::Lock;
use super::endpoint::TokenEndpoint;
use super::hooks::{Event, Hooks, Kind};
use super::keeper::{Keeper, with_cause};
use super::record::Record;
use super::state::{Cause, Margins, Next, Outcome, Pair, State, Trouble};
use super::store::{Seen, Store, StoreError};
use super::succession::{may_seed, meaning, never_logged_in};
use super::transport::{Https, TransportError};
use super::watch::Watch;
use super::{Grant, scopes};
use crate::clock::{self, Clock, Now};
use crate::config::{self, Credential};

/// Timers only wake up, at least this often: the machine may have slept meanwhile (T12).
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often the store is looked at where the system does not tell of changes.
const STORE_POLL: Duration = Duration::from_secs(1);
/// How often a pair that could not be stored is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// The two clocks may differ by this much between two wake-ups before it counts as a jump.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

/// Keeps one grant alive.
#[derive(Debug)]
pub struct Refresher {
    grant: Grant,
    keeper: Keeper,
    hooks: Hooks,
    /// What the configuration asks for.
    scopes: Vec<String>,
    /// Tells of changes in the store; `None` where the system does not.
    watch: Option<Watch>,
    /// Tells other processes that this one uses the grant.
    in_use: Option<Lock>,
}

/// Why there is no grant to serve with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store is there but unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token endpoint cannot be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The API key cannot be sent.
    #[error("the API key has characters that no header may carry")]
    BadKey,
    /// The application's credentials are not configured.
    #[error("the client id and secret are missing: set LUCID_CLIENT_ID and LUCID_CLIENT_SECRET")]
    NoClient,
}

/// How long the refresher may go on trying to store a pair after it was told to stop.
pub type Drain = Duration;

/// What requests are authenticated with, and what keeps it alive: of an API key nothing does.
///
/// # Errors
///
/// When the store holds something unusable, the token endpoint cannot be prepared, or the key cannot be sent.
pub fn open(
    credential: &Credential,
    patience: Duration,
    clock: Arc<dyn Clock>,
) -> Result<(Grant, Option<Refresher>), OpenError> {
    match &credential.kind {
        config::Kind::OAuth => {
            let (grant, refresher) = Refresher::open(credential, patience, clock)?;
            Ok((grant, Some(refresher)))
        }
        config::Kind::ApiKey(key) => {
            let grant = Grant::fixed(key, clock, patience).map_err(|_| OpenError::BadKey)?;
            Ok((grant, None))
        }
    }
}

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
        let endpoint = Self::endpoint(credential)?;
        let store = Store::new(credential.store.clone());
        Self::assemble(credential, store, endpoint, patience, clock)
    }

    /// The credential's token endpoint.
    ///
    /// # Errors
    ///
    /// When it cannot be prepared.
    pub fn endpoint(credential: &Credential) -> Result<TokenEndpoint, OpenError> {
        let client = credential.client.clone().ok_or(OpenError::NoClient)?;
        let transport = Arc::new(Https::new(&credential.network, &credential.token_url)?);
        Ok(TokenEndpoint::new(&credential.token_url, client, transport))
    }

    /// As [`Refresher::open`], with this store and this endpoint.
    pub(super) fn assemble(
        credential: &Credential,
        store: Store,
        endpoint: TokenEndpoint,
        patience: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<(Grant, Self), OpenError> {
        let stored = store.read()?;
        let record = match &credential.refresh_token {
            Some(seed) if may_seed(stored.as_ref(), seed) => {
                Some(Record::from_refresh_token(seed.clone(), clock.now().wall))
            }
            _ => stored.map(|record| Record {
                generation: Some(record.generation.unwrap_or(1)),
                ..record
            }),
        };
        let margins = Margins {
            refresh: credential.refresh_margin,
            idle: credential.rotate_idle_after,
        };
        let (state, bearer) = match &record {
            Some(record) => {
                let (pair, trouble, bearer) = meaning(record, endpoint.client(), margins);
                let mut state = State::new(pair, trouble);
                if record.intent.is_some() {
                    // Before the first request asks: the token that it would be given may well be dead.
                    state.settle();
                }
                (state, bearer)
            }
            None => {
                let trouble = Trouble::LoginRequired(never_logged_in(&store));
                (State::new(None, Some(trouble)), None)
            }
        };
        let grant = Grant::new(state, bearer, clock.clone(), patience);
        let keeper = Keeper {
            grant: grant.clone(),
            name: credential.name.clone(),
            store,
            endpoint,
            margins,
            clock,
            record,
            stop: CancellationToken::new(),
            adopted: None,
            unsaved: None,
            seen: Seen::default(),
            damaged: None,
            is_store_wrong: false,
            settled_at: None,
        };
        let refresher = Self {
            grant: grant.clone(),
            keeper,
            hooks: Hooks::new(credential),
            scopes: credential.scopes.clone(),
            watch: None,
            in_use: None,
        };
        Ok((grant, refresher))
    }

    /// Whether only a person can help, and what it takes.
    pub fn login_needed(&self) -> Option<String> {
        self.grant.state().trouble().map(ToString::to_string)
    }

    /// Rotates when it is time, until told to stop and nothing is under way.
    pub async fn run(mut self, stop: CancellationToken, drain: Drain) {
        self.keeper.stop = stop.clone();
        self.begin();
        let mut before = self.now();
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
                biased;
                () = stop.cancelled() => break,
                () = self.grant.0.work.notified() => {}
                () = changed(self.watch.as_ref()) => {}
                () = tokio::time::sleep(nap) => {}
            }
            let now = self.now();
            self.notice_jump(before, now);
            before = now;
            self.look_into_the_store();
            // It is tried again after the next nap, which is short while this fails.
            let _ = self.keeper.save_again();
        }
        self.save_before_the_end(drain).await;
        self.hooks.finish(drain).await;
    }

    /// What is done once, before the first wait.
    fn begin(&mut self) {
        self.announce();
        self.watch = self.keeper.store.watch();
        // What was stored between the first reading and the watch, nobody tells of.
        self.look_into_the_store();
        self.log_standing();
        if let Some(message) = self.login_needed() {
            self.tell(Kind::LoginNeeded, message);
        }
        let Some(record) = &self.keeper.record else {
            return;
        };
        if record.intent.is_some() {
            self.grant.decide(|state, _| state.settle());
        } else if record.generation == Some(0) {
            // A configured refresh token is proved at once, not by the first request.
            self.grant.decide(|state, now| state.ask(now, false));
        }
    }

    /// Tells others that the grant is in use. Best effort: it serves a question that `refresh` asks.
    fn announce(&mut self) {
        self.in_use = self.keeper.store.use_grant().ok().flatten();
    }

    fn now(&self) -> Now {
        self.keeper.clock.now()
    }

    fn next(&self) -> Next {
        let busy = self.grant.is_busy();
        let (next, _) = self.grant.decide(|state, now| state.next(now, busy));
        next
    }

    fn nap(&self, due: Option<Instant>) -> Duration {
        let mut nap = LONGEST_SLEEP;
        if let Some(due) = due {
            nap = nap.min(due.saturating_duration_since(self.now().monotonic));
        }
        if self.watch.is_none() {
            nap = nap.min(STORE_POLL);
        }
        if self.keeper.unsaved.is_some() {
            nap = nap.min(WRITE_RETRY);
        }
        if self.keeper.damaged.is_some() {
            nap = nap.min(STORE_POLL);
        }
        nap
    }

    fn notice_jump(&self, before: Now, now: Now) {
        let jump = wall_clock_jump(before, now).filter(|jump| *jump >= CLOCK_JUMP);
        if let Some(jump) = jump {
            tracing::warn!(
                credential = self.keeper.name,
                seconds = jump.as_secs(),
                "the clock was set or the machine slept; expiry is judged anew"
            );
        }
    }

    async fn rotate(&mut self, cause: Cause) {
        let started = Instant::now();
        let (outcome, bearer) = self.keeper.attempt(cause).await;
        let milliseconds = started.elapsed().as_millis() as u64;
        self.grant.publish(bearer, |state, now| {
            state.finished(now, outcome.clone(), fastrand::f64());
        });
        let name = &self.keeper.name;
        match outcome {
            Outcome::Renewed(Pair { generation, .. })
                if self.keeper.adopted == Some(generation) =>
            {
                self.log_adopted();
            }
            Outcome::Renewed(Pair { generation, .. }) => {
                tracing::info!(credential = name, generation, %cause, milliseconds, "token rotated");
                self.tell(Kind::Rotated, format!("token rotated ({cause})"));
            }
            Outcome::Refused(trouble) => {
                tracing::error!(credential = name, %cause, milliseconds, "login needed: {trouble}");
                self.tell(Kind::LoginNeeded, trouble.to_string());
            }
            Outcome::Failed { trouble, .. } => {
                tracing::warn!(credential = name, %cause, milliseconds, "token not rotated, trying again soon: {trouble}");
            }
        }
    }

    fn tell(&mut self, kind: Kind, message: String) {
        let record = self.keeper.record.as_ref();
        let generation = record.and_then(|record| record.generation);
        self.hooks.tell(Event {
            kind,
            generation,
            message,
        });
    }

    fn log_adopted(&self) {
        tracing::info!(
            credential = self.keeper.name,
            generation = self.keeper.adopted,
            "took over a newer token from the store"
        );
        self.log_missing_scopes();
    }

    fn log_missing_scopes(&self) {
        let granted = self.keeper.record.as_ref().map(|record| &record.scopes);
        let missing = granted.map(|granted| scopes::missing(&self.scopes, granted));
        if let Some(missing) = missing.filter(|missing| !missing.is_empty()) {
            tracing::warn!(
                credential = self.keeper.name,
                "{}",
                scopes::advice(&missing)
            );
        }
    }

    /// Sees a login, a logout or a rotation that another process stored.
    fn look_into_the_store(&mut self) {
        if self.watch.as_ref().is_none_or(|watch| !watch.is_alive()) {
            self.watch = self.keeper.store.watch();
        }
        if self.in_use.is_none() {
            // Somebody may just have asked, or the directory was not there.
            self.announce();
        }
        // What is wrong with the store is said when a rotation needs it.
        let Ok(Some((outcome, bearer))) = self.keeper.look() else {
            return;
        };
        match outcome {
            Outcome::Renewed(pair) => {
                self.grant
                    .publish(bearer, |state, now| state.renew(now, pair));
                self.log_adopted();
            }
            Outcome::Refused(trouble) => {
                let message = trouble.to_string();
                self.grant.publish(bearer, |state, _| state.block(trouble));
                tracing::warn!(credential = self.keeper.name, "{message}");
            }
            Outcome::Failed { .. } => {}
        }
    }

    async fn save_before_the_end(&mut self, drain: Drain) {
        let deadline = Instant::now() + drain;
        while self.keeper.save_again().is_err() {
            if Instant::now() >= deadline {
                tracing::error!(
                    credential = self.keeper.name,
                    "the newest token could not be stored in {} and ends with this process; a new login will be needed",
                    self.keeper.store.path().display()
                );
                return;
            }
            tokio::time::sleep(WRITE_RETRY.min(drain)).await;
        }
        while self.keeper.damaged.is_some() && Instant::now() < deadline {
            self.look_into_the_store();
            tokio::time::sleep(STORE_POLL.min(drain)).await;
        }
    }

    fn log_standing(&self) {
        let name = &self.keeper.name;
        match (self.login_needed(), &self.keeper.record) {
            (Some(message), _) => tracing::warn!(credential = name, "login needed: {message}"),
            (None, Some(record)) => {
                let generation = record.generation;
                if let Some(intent) = &record.intent {
                    let at = clock::utc(intent.at);
                    tracing::warn!(
                        credential = name,
                        generation,
                        "a rotation begun at {at} has no known end; finding out what became of it"
                    );
                }
                tracing::info!(credential = name, generation, store = %self.keeper.store.path().display(), "grant ready");
                self.log_missing_scopes();
            }
            (None, None) => {}
        }
        if let Err(error) = self.keeper.store.probe() {
            tracing::error!(
                credential = name,
                "no rotation is possible: {}",
                with_cause(&error)
            );
        }
    }
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
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
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::clock::{Now, SystemClock};
    use crate::config::{Config, Need};
    use crate::secret::Secret;
    use crate::token::record::Intent;

    /// With its store in this directory.
    fn credential(directory: &Path) -> Credential {
        let environment = BTreeMap::from([
            ("LUCID_CLIENT_ID".to_owned(), "id".to_owned()),
            ("LUCID_CLIENT_SECRET".to_owned(), "secret".to_owned()),
            (
                "STATE_DIRECTORY".to_owned(),
                directory.display().to_string(),
            ),
        ]);
        let text = "[credentials.default]\ntoken_url = \"http://127.0.0.1:1/\"\n";
        let config = Config::parse(text, None, &environment, Need::Everything);
        config.expect("it is accepted").credential
    }

    /// The first pair of a grant, which lives for an hour.
    fn login() -> Record {
        let now = SystemTime::now();
        Record {
            generation: Some(1),
            access_token: Secret::from("access"),
            expires_at: now + Duration::from_secs(3600),
            ..Record::from_refresh_token(Secret::from("refresh"), now)
        }
    }

    /// The clock of the tasks moves by itself where nothing else does, so what takes no time was not waited for.
    #[tokio::test(start_paused = true)]
    async fn a_login_between_the_first_look_and_the_watch_is_not_missed() {
        let directory = tempfile::tempdir().expect("a directory");
        let credential = credential(directory.path());
        let patience = Duration::from_secs(30);
        let (grant, refresher) =
            Refresher::open(&credential, patience, Arc::new(SystemClock)).expect("a grant");
        assert!(grant.bearer().await.is_err(), "no login yet");
        Store::new(credential.store.clone())
            .write(&login())
            .expect("written");
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let asking = async {
            while grant.bearer().await.is_err() && began.elapsed() < LONGEST_SLEEP {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.cancel();
            began.elapsed()
        };
        let (took, ()) = tokio::join!(asking, refresher.run(stop.clone(), Drain::ZERO));
        assert!(took < STORE_POLL, "{took:?}");
    }

    /// Runs a refresher whose store is `content` from the beginning, for a while; what the store holds then.
    async fn after_a_while_with(content: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let directory = tempfile::tempdir().expect("a directory");
        let credential = credential(directory.path());
        let store = Store::new(credential.store.clone());
        store.write(&login()).expect("written");
        let (_grant, refresher) =
            Refresher::open(&credential, Duration::from_secs(30), Arc::new(SystemClock))
                .expect("a grant");
        std::fs::write(store.path(), content).expect("written");
        let stop = CancellationToken::new();
        let ending = async {
            tokio::time::sleep(Duration::from_secs(65)).await;
            let early = std::fs::read(store.path()).expect("there");
            assert_eq!(early, content, "it may be in the middle of being written");
            tokio::time::sleep(Duration::from_secs(35)).await;
            stop.cancel();
        };
        tokio::join!(ending, refresher.run(stop.clone(), Drain::ZERO));
        let aside = directory.path().join("token_info.json.damaged");
        let now = std::fs::read(store.path()).expect("there");
        (now, std::fs::read(aside).ok())
    }

    #[tokio::test(start_paused = true)]
    async fn t18_a_damaged_file_is_written_anew_from_memory_and_kept_beside() {
        for damage in [&b""[..], b"{\"refresh_token\":", b"[]"] {
            let (now, aside) = after_a_while_with(damage).await;
            let record = Record::from_json(&now).expect("a record");
            assert!(record.same_tokens(&login()));
            assert_eq!(aside.as_deref(), Some(damage));
        }
        // A later version knows what it wrote, and what has a token in it may have the living one.
        for kept in [
            &br#"{"version":99,"refresh_token":""}"#[..],
            br#"{"access_token":"a","refresh_token":"newer","expiration":1900000000}"#,
            br#"{"access_token":"a","refresh_token" : "newer","expir"#,
        ] {
            let (now, aside) = after_a_while_with(kept).await;
            assert_eq!((now, aside), (kept.to_vec(), None));
        }
    }

    #[tokio::test]
    async fn t11_no_request_comes_before_the_question_what_became_of_a_rotation() {
        let directory = tempfile::tempdir().expect("a directory");
        let credential = credential(directory.path());
        let opened = |record: &Record| {
            let store = Store::new(credential.store.clone());
            store.write(record).expect("written");
            let patience = Duration::from_secs(30);
            Refresher::open(&credential, patience, Arc::new(SystemClock)).expect("a grant")
        };
        let (grant, _) = opened(&login());
        assert!(grant.fresh().is_some());
        let intent = Intent {
            generation: 1,
            at: SystemTime::now(),
            again: None,
        };
        let (grant, mut refresher) = opened(&Record {
            intent: Some(intent),
            ..login()
        });
        assert!(grant.fresh().is_none());
        refresher.begin();
        assert_eq!(refresher.next(), Next::Rotate(Cause::Unfinished));
    }

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
