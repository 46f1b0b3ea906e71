//! From the code to the stored pair: one POST, a look at what came, and the store.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use tokio::time::Instant;

use super::owner::{self, Before};
use super::say;
use crate::cli::{Failure, chain};
use crate::token::answer::{Answer, Owner};
use crate::token::endpoint::{Code, TokenEndpoint};
use crate::token::handover::{self, HandoverError};
use crate::token::login::{exchange_refused, first_record, not_granted};
use crate::token::record::Record;
use crate::token::store::{Store, StoreError};

/// How long the store is waited for: longer than a rotation can hold its lock, and enough to free a disk.
const STORING: Duration = Duration::from_secs(150);
/// How long each try waits for the lock.
const TRY: Duration = Duration::from_secs(1);

/// What makes a pair of a code, and stores it.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) endpoint: TokenEndpoint,
    pub(super) store: Store,
    pub(super) before: Before,
    /// What was asked for.
    pub(super) scopes: &'a [String],
    pub(super) accept_fewer_scopes: bool,
}

impl Exchange<'_> {
    /// Exchanges the code, at once, since it lives for two minutes; judges the pair; stores it.
    pub(super) async fn complete(&self, code: Code) -> Result<Record, Failure> {
        let mut record = self.exchange(code).await?;
        self.judge_scopes(&record)?;
        // What is wrong with the store is waited for when it is written.
        let present = self.store.read().ok().flatten();
        if !Owner::of(&record).is_known() && self.before.is_particular(present.as_ref()) {
            let owner = owner::of_new(&record, &self.endpoint).await;
            (record.user_id, record.account_id) = (owner.user_id, owner.account_id);
        }
        self.put(record).await
    }

    pub(super) fn into_store(self) -> Store {
        self.store
    }

    async fn exchange(&self, code: Code) -> Result<Record, Failure> {
        let sent = SystemTime::now();
        match self.endpoint.exchange(&code).await {
            Answer::Issued(issued) => {
                Ok(first_record(issued, self.scopes, sent, SystemTime::now())?)
            }
            Answer::Refused { code, description } => {
                Err(anyhow!(exchange_refused(&code, &description)).into())
            }
            Answer::Failed { message, .. } => {
                Err(anyhow!("{message}; the code may be spent, so log in again").into())
            }
        }
    }

    fn judge_scopes(&self, record: &Record) -> Result<(), Failure> {
        let missing = not_granted(record, self.scopes);
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(" ");
        if self.accept_fewer_scopes {
            say(&format!("not granted, and done without: {missing}"));
            return Ok(());
        }
        Err(anyhow!("the login was approved without the scopes {missing}; allow them for the application in Lucid's developer portal, take them out of scopes in the configuration, or do without: lucid-proxy login --accept-fewer-scopes").into())
    }

    /// Stores the pair, which is in no other place: what may pass is waited for.
    async fn put(&self, record: Record) -> Result<Record, Failure> {
        let deadline = Instant::now() + STORING;
        let mut told = false;
        loop {
            let put = handover::put(&self.store, TRY, |present| {
                self.before.may_follow(present, &Owner::of(&record))?;
                Ok(record.clone())
            });
            let error = match put.await {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
            if !may_pass(&error) || Instant::now() >= deadline {
                return Err(error.into());
            }
            // The lock has been waited for already.
            let pause = match &error {
                HandoverError::Locked { .. } => Duration::ZERO,
                _ => TRY,
            };
            if !told {
                say(&waiting_for(error));
                told = true;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn may_pass(error: &HandoverError) -> bool {
    matches!(
        error,
        HandoverError::Locked { .. }
            | HandoverError::Store(
                StoreError::Write { .. }
                    | StoreError::Lock { .. }
                    | StoreError::Read { .. }
                    | StoreError::Damaged { .. }
                    | StoreError::Exposed { .. }
            )
    )
}

fn waiting_for(error: HandoverError) -> String {
    let seconds = STORING.as_secs();
    match error {
        HandoverError::Locked { path, holder } => format!(
            "approved; waiting up to {seconds} s for {holder}, which holds {path} and may be refreshing the token"
        ),
        error => format!(
            "approved; trying for {seconds} s to store it: {}",
            chain(&error.into())
        ),
    }
}
