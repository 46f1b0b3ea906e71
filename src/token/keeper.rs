//! One rotation, from the lock to the store (rules T2 to T11).
//!
//! The [`Keeper`] has the record that is the authority. [`Keeper::attempt`] takes the lock, reads the store again, finds
//! out about an earlier rotation without a known end, writes the intent, asks the token endpoint once and stores the
//! answer. When, and what requests are told meanwhile, is decided in [`state`](super::state).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer, Introspection};
use super::disk::Lock;
use super::endpoint::TokenEndpoint;
use super::handover;
use super::record::{Intent, LastError, LastRotation, Record, Refusal};
use super::state::{Cause, Margins, Outcome, Trouble};
use super::store::{Holder, Seen, Store, StoreError};
use super::succession::{
    bad_client, fingerprint, logged_out, never_logged_in, pair_and_bearer, refusal_message, renewed,
};
use super::transport::{ANSWER, CONNECT};
use super::{Grant, Published};
use crate::clock::{self, Clock};

/// How long another process may hold the lock before a rotation gives up for now.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How long a refresh token may be on its way: whoever sent it gave up by then.
pub(super) const ON_ITS_WAY: Duration = Duration::from_secs(CONNECT.as_secs() + ANSWER.as_secs());

/// Keeps one grant.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) grant: Grant,
    /// Of the credential, for the log.
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) endpoint: TokenEndpoint,
    pub(super) margins: Margins,
    pub(super) clock: Arc<dyn Clock>,
    /// The pair that is the authority; `None` before the first login.
    pub(super) record: Option<Record>,
    /// Tells when to end.
    pub(super) stop: CancellationToken,
    /// The generation that was last taken over from another process.
    pub(super) adopted: Option<u64>,
    /// A pair that is newer than the store, with the lock that keeps others from using the store's old one (T7).
    pub(super) unsaved: Option<Lock>,
    /// What the store held at the last look.
    pub(super) seen: Seen,
    /// What the store has held that is no record, and since when.
    pub(super) damaged: Option<(Seen, Instant)>,
    /// Whether the store has lost the record and could not be given it back.
    pub(super) is_store_wrong: bool,
    /// From when on the refresh token of an intent cannot be on its way any more.
    pub(super) settled_at: Option<(Intent, Instant)>,
}

/// What a rotation came to before a refresh token was sent: somebody else had rotated, logged in or logged out, or it
/// cannot be done now, or not at all.
struct Instead(Box<(Outcome, Published)>);

/// What is known of an earlier rotation without a known end.
enum Earlier {
    /// There was none, or it did not take effect.
    Nothing,
    /// It may have taken effect. `dead`: it has, or the token was ended otherwise.
    Open { intent: Intent, dead: bool },
}

impl From<StoreError> for Instead {
    fn from(error: StoreError) -> Self {
        Self::give_up(failed(Trouble::StoreUnwritable(with_cause(&error))))
    }
}

impl Instead {
    fn give_up(outcome: Outcome) -> Self {
        Self(Box::new((outcome, Published::Same)))
    }
}

impl Keeper {
    /// One rotation.
    pub(super) async fn attempt(&mut self, cause: Cause) -> (Outcome, Published) {
        let attempted = self.try_rotation(cause).await;
        // What was decided on the way may change what the store's content means.
        self.seen = Seen::default();
        attempted.unwrap_or_else(|instead| *instead.0)
    }

    async fn try_rotation(&mut self, cause: Cause) -> Result<(Outcome, Published), Instead> {
        let (lock, record) = self.prepare().await?;
        let earlier = self.settle(&record).await?;
        let sent = self.intend(record, &earlier)?;
        Ok(self.exchange(cause, lock, sent, earlier).await)
    }

    /// Everything that must be so before a refresh token may be thought of: the lock is ours, and the store has nothing
    /// newer (T2).
    async fn prepare(&mut self) -> Result<(Lock, Record), Instead> {
        self.save_again()?;
        let lock = self.lock().await?;
        if let Some(adopted) = self.adopt_newer()? {
            return Err(Instead(Box::new(adopted)));
        }
        let Some(lock) = lock else {
            let holder = self.store.lock_holder().ok().flatten();
            let holder = holder.unwrap_or(Holder { process: None });
            return Err(Instead::give_up(failed(Trouble::TokenUnavailable(
                format!(
                    "{holder} holds {}; it may be refreshing the same login",
                    self.store.lock_path().display()
                ),
            ))));
        };
        let refused = |message| {
            let trouble = Trouble::LoginRequired(message);
            Err(Instead::give_up(Outcome::Refused(trouble)))
        };
        let Some(record) = self.record.clone() else {
            return refused(never_logged_in(&self.store));
        };
        if let Some(at) = record.logged_out {
            return refused(logged_out(at));
        }
        match &record.refusal {
            Some(refusal) if refusal.client != self.fingerprint() => Ok((lock, record)),
            // Another process was refused this very pair (T9).
            Some(refusal) if !refusal.about_client => refused(refusal.message.clone()),
            Some(refusal) => self
                .ask_again(refusal, &record)
                .await
                .map(|()| (lock, record)),
            None => Ok((lock, record)),
        }
    }

    /// The application was refused, and not the refresh token. Whether it still would be, introspection knows without
    /// spending anything.
    async fn ask_again(&mut self, refusal: &Refusal, record: &Record) -> Result<(), Instead> {
        let outcome = match self.endpoint.introspect(&record.refresh_token).await {
            // An application that may not ask may be told so of any token, and one that is dead is no worse for being sent.
            Introspection::Active(_) | Introspection::Inactive => return Ok(()),
            Introspection::BadClient => {
                Outcome::Refused(Trouble::LoginRequired(refusal.message.clone()))
            }
            Introspection::Unknown(why) => failed(Trouble::TokenUnavailable(format!(
                "{}; whether it still is so is not known ({why}); a running proxy asks again by itself",
                refusal.message
            ))),
        };
        Err(Instead::give_up(outcome))
    }

    /// Finds out about an earlier rotation without a known end (T11). Introspection's yes or no is about the refresh
    /// token as it is now: where it lives, the earlier rotation did not take effect; where it does not, that rotation or
    /// something else has ended it, and there is nothing left on its way that could. Where introspection says neither,
    /// the refresh token is sent again only when it cannot be on its way any more.
    async fn settle(&mut self, record: &Record) -> Result<Earlier, Instead> {
        let Some(intent) = record.intent.clone() else {
            return Ok(Earlier::Nothing);
        };
        match self.endpoint.introspect(&record.refresh_token).await {
            // One that is still on its way may arrive before the next: then that is refused, and the first was lost.
            Introspection::Active(_) if !self.still_on_its_way(&intent).is_zero() => {
                Ok(Earlier::Open {
                    intent,
                    dead: false,
                })
            }
            Introspection::Active(_) => Ok(Earlier::Nothing),
            Introspection::Inactive => {
                self.bury();
                Ok(Earlier::Open { intent, dead: true })
            }
            Introspection::BadClient => {
                let message = format!("{} (introspection)", bad_client());
                Err(Instead::give_up(self.refuse(
                    record.clone(),
                    "invalid_client",
                    true,
                    message,
                )))
            }
            Introspection::Unknown(why) => {
                let left = self.still_on_its_way(&intent);
                if left.is_zero() {
                    return Ok(Earlier::Open {
                        intent,
                        dead: false,
                    });
                }
                let at = clock::utc(intent.last_sent());
                Err(Instead::give_up(failed(Trouble::TokenUnavailable(
                    format!(
                        "it is not known whether the rotation begun at {at} took effect ({why}); it is asked again, and in {} s at the earliest the refresh token is sent once more",
                        left.as_secs() + 1
                    ),
                ))))
            }
        }
    }

    /// How long the refresh token of an intent may still be on its way. The moment at which it no longer is, is fixed on
    /// the first look, by the clock that nobody sets.
    fn still_on_its_way(&mut self, intent: &Intent) -> Duration {
        let now = self.clock.now();
        let settled_at = match &self.settled_at {
            Some((known, at)) if known == intent => *at,
            _ => {
                let ago = now.wall.duration_since(intent.last_sent());
                let left = ON_ITS_WAY.saturating_sub(ago.unwrap_or_default());
                now.monotonic + left
            }
        };
        self.settled_at = Some((intent.clone(), settled_at));
        settled_at.saturating_duration_since(now.monotonic)
    }

    /// Writes down that the refresh token is about to be sent, which also proves that the store is writable (T3).
    fn intend(&mut self, record: Record, earlier: &Earlier) -> Result<Record, Instead> {
        // Introspection may have taken a while.
        if let Some(adopted) = self.adopt_newer()? {
            return Err(Instead(Box::new(adopted)));
        }
        let now = self.clock.now().wall;
        let intent = match earlier {
            Earlier::Nothing => Intent {
                generation: record.generation.unwrap_or(0),
                at: now,
                again: None,
            },
            Earlier::Open { intent, .. } => Intent {
                again: Some(now),
                ..intent.clone()
            },
        };
        let intended = Record {
            refusal: None,
            intent: Some(intent),
            ..record
        };
        self.store.write(&intended)?;
        Ok(intended)
    }

    /// Sends the refresh token and stores what came of it.
    async fn exchange(
        &mut self,
        cause: Cause,
        lock: Lock,
        mut record: Record,
        earlier: Earlier,
    ) -> (Outcome, Published) {
        let begun = self.clock.now();
        match self.endpoint.refresh(&record.refresh_token).await {
            Answer::Issued(issued) => {
                let received = self.clock.now();
                let took = received
                    .monotonic
                    .saturating_duration_since(begun.monotonic);
                let rotation = LastRotation {
                    at: begun.wall,
                    cause: cause.to_string(),
                    milliseconds: took.as_millis() as u64,
                };
                let record = renewed(&record, issued, rotation, received.wall);
                self.issued(record, lock)
            }
            Answer::Refused { code, description } => {
                self.refused(record, &code, &description, earlier).await
            }
            Answer::Failed {
                message,
                retry_after,
                maybe_spent,
            } => {
                if let Some(overtaken) = self.overtaken(&record) {
                    return overtaken;
                }
                if !maybe_spent {
                    record.intent = match earlier {
                        Earlier::Nothing => None,
                        Earlier::Open { intent, .. } => Some(intent),
                    };
                }
                let message = format!("{message}; a running proxy asks again by itself");
                record.last_error = Some(LastError {
                    at: begun.wall,
                    message: message.clone(),
                });
                self.keep(record);
                let outcome = Outcome::Failed {
                    trouble: Trouble::TokenUnavailable(message),
                    retry_after,
                };
                (outcome, Published::Same)
            }
        }
    }

    /// `Ok(None)` when another process held the lock all the time, or this one is to end: nothing has begun yet.
    async fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let deadline = Instant::now() + LOCK_WAIT;
        handover::lock(&self.store, deadline, || self.stop.is_cancelled()).await
    }

    /// Stores, then publishes. A pair that cannot be stored is published all the same: it is the only living one (T7).
    fn issued(&mut self, record: Record, lock: Lock) -> (Outcome, Published) {
        if let Some(overtaken) = self.overtaken(&record) {
            return overtaken;
        }
        if let Err(error) = self.store.write(&record) {
            tracing::error!(
                credential = self.name,
                generation = record.generation,
                "the new token is kept in memory only until the store can be written: {}",
                with_cause(&error)
            );
            self.unsaved = Some(lock);
        }
        let (pair, bearer) = pair_and_bearer(&record, self.margins);
        self.record = Some(record);
        (Outcome::Renewed(pair), Published::New(bearer))
    }

    /// The last look before saying that a grant is over: somebody may have logged in meanwhile (T9).
    async fn refused(
        &mut self,
        record: Record,
        code: &str,
        description: &str,
        earlier: Earlier,
    ) -> (Outcome, Published) {
        if !answer::is_about_client(code) {
            self.bury();
        }
        // Lucid's code is the same for a dead token and for a wrong client secret.
        let introspection = match &earlier {
            _ if answer::is_about_client(code) => Introspection::BadClient,
            Earlier::Open { dead: true, .. } => Introspection::Inactive,
            _ => self.endpoint.introspect(&record.refresh_token).await,
        };
        if let Ok(Some(adopted)) = self.adopt_newer() {
            return adopted;
        }
        let intent = match earlier {
            Earlier::Open { intent, .. } => Some(intent),
            Earlier::Nothing => None,
        };
        let message = refusal_message(code, description, intent.as_ref(), &introspection);
        let about_client = introspection == Introspection::BadClient;
        let is_lost = !about_client && !matches!(introspection, Introspection::Active(_));
        let lost = intent.clone().filter(|_| is_lost);
        let record = Record {
            intent,
            lost_rotation: lost.or(record.lost_rotation),
            ..record
        };
        let refused = self.refuse(record, code, about_client, message);
        (refused, Published::Same)
    }

    /// Writes down that the grant is over for this client.
    fn refuse(
        &mut self,
        record: Record,
        code: &str,
        about_client: bool,
        message: String,
    ) -> Outcome {
        let refusal = Refusal {
            code: code.to_owned(),
            about_client,
            message: message.clone(),
            at: self.clock.now().wall,
            client: self.fingerprint(),
        };
        self.keep(Record {
            refusal: Some(refusal),
            ..record
        });
        Outcome::Refused(Trouble::LoginRequired(message))
    }

    /// Writes what was learned about a pair that stays as it is; failing to is no loss.
    fn keep(&mut self, record: Record) {
        if self.newer_than(&record).is_some() {
            // It is taken over with the next look, and is worth more than what was learned.
        } else if let Err(error) = self.store.write(&record) {
            tracing::warn!(
                credential = self.name,
                "cannot note the failed rotation: {}",
                with_cause(&error)
            );
        }
        self.record = Some(record);
    }

    /// Nobody is given the pair any more from this moment, not only when all of this rotation is over.
    fn bury(&self) {
        self.grant.publish(Published::Same, |state, _| state.bury());
    }

    pub(super) fn fingerprint(&self) -> String {
        fingerprint(self.endpoint.client())
    }
}

fn failed(trouble: Trouble) -> Outcome {
    Outcome::Failed {
        trouble,
        retry_after: None,
    }
}

/// The error and its cause, each said once.
pub(super) fn with_cause(error: &StoreError) -> String {
    match (error, std::error::Error::source(error)) {
        // This one's text has its cause in it.
        (StoreError::Damaged { .. }, _) | (_, None) => error.to_string(),
        (_, Some(cause)) => format!("{error}: {cause}"),
    }
}
