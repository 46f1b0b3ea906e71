//! What the store has and what the keeper holds, kept together (rules T2, T7, T18): what is newer there is taken over, what
//! is newer here is stored, and what is missing there is put back.

use std::time::Duration;

use super::Published;
use super::keeper::{Keeper, ON_ITS_WAY, with_cause};
use super::record::{Record, RecordError};
use super::state::{Outcome, Trouble};
use super::store::{Look, Seen, StoreError};
use super::succession::{meaning, never_logged_in, newer};

/// How long a file that is no record is taken for one that another program is just writing: one that has emptied it
/// before it refreshes may write what it gets as long as that takes.
const BEING_WRITTEN: Duration = ON_ITS_WAY;

impl Keeper {
    /// Takes over what another process stored, if that is newer than what we have (T2).
    pub(super) fn adopt_newer(&mut self) -> Result<Option<(Outcome, Published)>, StoreError> {
        self.seen = Seen::default();
        self.look()
    }

    /// As [`Keeper::adopt_newer`], where the store has changed since the last look. Of our own pair, takes over what the
    /// other process learned about it: that it was sent and had no answer, or was refused.
    pub(super) fn look(&mut self) -> Result<Option<(Outcome, Published)>, StoreError> {
        let stored = match self.store.look(&mut self.seen) {
            Ok(Look::Unchanged) => return Ok(None),
            Ok(Look::Changed(stored)) => stored.map(|stored| *stored),
            Ok(Look::Placeholders) => None,
            Err(error) => {
                self.heal(&error);
                return Err(error);
            }
        };
        self.damaged = None;
        let refused = self.learn(stored.as_ref());
        let generation = stored.as_ref().and_then(|stored| stored.generation);
        let newer = newer(self.record.as_ref(), stored, &self.fingerprint());
        let adopted = newer.map(|record| self.adopt(record));
        let ours = self.record.as_ref().and_then(|record| record.generation);
        if generation < ours {
            self.put_right();
        }
        Ok(adopted.or(refused))
    }

    /// Of our own pair, takes over what is stored and not known here; what that means, where the grant is over.
    fn learn(&mut self, stored: Option<&Record>) -> Option<(Outcome, Published)> {
        let client = self.fingerprint();
        let (ours, stored) = (self.record.as_mut()?, stored?);
        if !ours.same_tokens(stored) {
            return None;
        }
        // An intent is stored before it can matter, and what is stored may know more.
        ours.intent = stored.intent.clone();
        if ours.refusal.is_some() {
            return None;
        }
        ours.refusal = stored.refusal.clone();
        let refusal = ours.refusal.as_ref()?;
        // Another process was refused this very pair (T9).
        let is_over = refusal.client == client && !refusal.about_client;
        let trouble = Trouble::LoginRequired(refusal.message.clone());
        is_over.then(|| (Outcome::Refused(trouble), Published::Same))
    }

    /// A file that is no record, and stays as it is for longer than a program needs to write one, is written anew: else
    /// what is in memory would be lost with this process. What it held is kept beside it.
    fn heal(&mut self, error: &StoreError) {
        let StoreError::Damaged { source, .. } = error else {
            return;
        };
        let holds = |record: &Record| record.generation.is_some_and(|generation| generation > 0);
        // A later version's file is whole.
        if matches!(source, RecordError::FutureVersion(_))
            // Somebody's pair, in a form that is not read here: it may be the living one.
            || self.store.holds_a_refresh_token()
            || self.unsaved.is_some()
            || !self.record.as_ref().is_some_and(holds)
        {
            return;
        }
        let (now, seen) = (self.clock.now().monotonic, self.store.seen());
        match &self.damaged {
            Some((known, since)) if *known == seen => {
                if now.saturating_duration_since(*since) >= BEING_WRITTEN {
                    self.write_anew(&seen);
                }
            }
            _ => {
                if self.damaged.is_none() {
                    tracing::warn!(
                        credential = self.name,
                        "{error}; if it stays so it is written anew in {} s",
                        BEING_WRITTEN.as_secs()
                    );
                }
                self.damaged = Some((seen, now));
            }
        }
    }

    fn write_anew(&mut self, seen: &Seen) {
        let (Some(record), Ok(Some(_lock))) = (&self.record, self.store.try_lock()) else {
            return;
        };
        if self.store.seen() != *seen {
            return;
        }
        // With a full disk there is no copy, and then no new file either.
        let written = self.store.set_aside().and_then(|aside| {
            let is_as_it_was = self.store.seen() == *seen;
            if is_as_it_was {
                self.store.write(record)?;
            }
            Ok(aside.filter(|_| is_as_it_was))
        });
        match written {
            // Somebody has just written it.
            Ok(None) => {}
            Ok(Some(aside)) => {
                self.damaged = None;
                tracing::warn!(
                    credential = self.name,
                    generation = record.generation,
                    "the token file was damaged and is as it was; what it held is in {}",
                    aside.display()
                );
            }
            Err(error) => tracing::warn!(
                credential = self.name,
                "the token file is damaged and cannot be written anew: {}",
                with_cause(&error)
            ),
        }
    }

    /// Writes the record into a store that has lost it, has an older one (a backup was restored), or in which another
    /// program, or a login after the loss, has not counted on: whoever starts or logs in next, and every other process,
    /// counts from there. Nothing but a logout ends a pair, and nothing undoes that (T18).
    fn put_right(&mut self) {
        let Some(record) = self.record.clone() else {
            return;
        };
        // One that was never stored is spent first, and one that could not be stored is tried again anyway.
        if self.unsaved.is_some() || record.generation.is_none_or(|generation| generation == 0) {
            return;
        }
        let done = self.write_in_its_place(&record);
        if let Err(error) = &done
            && !self.is_store_wrong
        {
            tracing::warn!(
                credential = self.name,
                "the token file is gone or written by another program, and cannot be written: {}",
                with_cause(error)
            );
        }
        self.is_store_wrong = done.is_err();
        if !matches!(done, Ok(true)) {
            // With the next look it is tried again.
            self.seen = Seen::default();
        }
    }

    /// Whether the store is right now; `false` where somebody holds the lock, who may be writing it.
    fn write_in_its_place(&self, record: &Record) -> Result<bool, StoreError> {
        let Some(_lock) = self.store.try_lock()? else {
            return Ok(false);
        };
        let generation = record.generation;
        match self.store.look(&mut Seen::default())? {
            Look::Changed(Some(stored)) if stored.generation >= generation => {}
            Look::Changed(Some(stored)) if stored.same_tokens(record) => {
                self.store.write(record)?;
                tracing::info!(
                    credential = self.name,
                    generation,
                    "the token file was written by a program that does not count, and is counted now"
                );
            }
            // A login by somebody who found no file, from before this could put it back. It stays, for the person to see.
            Look::Changed(Some(stored)) if stored.refresh_issued_at > record.refresh_issued_at => {}
            stored => {
                self.store.write(record)?;
                let was = match &stored {
                    Look::Changed(Some(_)) => "older",
                    Look::Placeholders => "overwritten by a program with what it was given here",
                    _ => "gone",
                };
                let advice = match (record.logged_out, &stored) {
                    (Some(_), _) => "the logout stands; to log in: lucid-proxy login",
                    (None, Look::Placeholders) => "let that program keep a file of its own",
                    (None, _) => "to end a login: lucid-proxy logout",
                };
                tracing::warn!(
                    credential = self.name,
                    generation,
                    "the token file was {was} and is as it was; {advice}"
                );
            }
        }
        Ok(true)
    }

    fn adopt(&mut self, record: Record) -> (Outcome, Published) {
        let (pair, trouble, bearer) = meaning(&record, self.endpoint.client(), self.margins);
        self.adopted = record.generation;
        self.record = Some(record);
        // A pair of our own that never reached the store has been overtaken.
        self.unsaved = None;
        let outcome = match (trouble, pair) {
            (None, Some(pair)) => Outcome::Renewed(pair),
            (trouble, _) => Outcome::Refused(
                trouble.unwrap_or_else(|| Trouble::LoginRequired(never_logged_in(&self.store))),
            ),
        };
        (outcome, Published::New(bearer))
    }

    /// Whether somebody who did not wait for the lock has logged in or out meanwhile. Then that stands, and what would
    /// have been written is forgotten (T18).
    pub(super) fn overtaken(&mut self, record: &Record) -> Option<(Outcome, Published)> {
        let newer = self.newer_than(record)?;
        Some(self.adopt(newer))
    }

    pub(super) fn newer_than(&self, record: &Record) -> Option<Record> {
        match self.store.look(&mut Seen::default()) {
            Ok(Look::Changed(stored)) => newer(
                Some(record),
                stored.map(|stored| *stored),
                &self.fingerprint(),
            ),
            // What is wrong with the store, the write will say.
            _ => None,
        }
    }

    /// Stores the pair that could not be stored before, if there is one.
    pub(super) fn save_again(&mut self) -> Result<(), StoreError> {
        let (Some(record), true) = (&self.record, self.unsaved.is_some()) else {
            return Ok(());
        };
        if self.newer_than(record).is_some() {
            // It is taken over with the next look.
            self.unsaved = None;
            self.seen = Seen::default();
            return Ok(());
        }
        self.store.write(record)?;
        self.unsaved = None;
        tracing::info!(
            credential = self.name,
            generation = record.generation,
            "the token is stored now"
        );
        Ok(())
    }
}
