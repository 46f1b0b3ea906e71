//! `lucid-proxy status`: what the store says about the login, and who uses it.

mod words;

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::times::utc;
use super::{ConfigOption, Failure, load, print, store_failure};
use crate::config::{Credential, Kind, Need};
use crate::token::record::{Intent, LastError, LastRotation, Record, Refusal};
use crate::token::scopes;
use crate::token::store::{Holder, Store};
use crate::token::succession::{fingerprint, logged_out, never_logged_in};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print one JSON object; docs/status.md explains its fields
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. docs/status.md is its reference; fields are added over time, never renamed.
#[derive(Debug, Default, Serialize)]
struct Status {
    credential: String,
    state: State,
    message: Option<String>,
    store: Option<String>,
    user_id: Option<u64>,
    account_id: Option<u64>,
    generation: Option<u64>,
    access_token_expires_at: Option<String>,
    refresh_token_expires_at: Option<String>,
    scopes: Vec<String>,
    scopes_requested: Vec<String>,
    scopes_missing: Vec<String>,
    last_rotation: Option<RotationShown>,
    pending_rotation: Option<IntentShown>,
    lost_rotation: Option<IntentShown>,
    refusal: Option<RefusalShown>,
    last_error: Option<ErrorShown>,
    logged_out_at: Option<String>,
    lock_holder: Option<HolderShown>,
    in_use: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// There is a pair, and no more is known against it.
    #[default]
    Ready,
    /// A rotation has begun, and the process that holds the lock is about to end it.
    Rotating,
    /// A rotation has begun, and nobody is about to end it.
    Pending,
    /// The access token has died and the last rotation failed; it is tried again.
    Failing,
    /// There is no pair, or it was refused for good.
    LoginNeeded,
    /// A person ended the login.
    LoggedOut,
    /// There is no login: an API key is configured.
    ApiKey,
}

#[derive(Debug, Serialize)]
struct RotationShown {
    at: String,
    cause: String,
    milliseconds: u64,
}

#[derive(Debug, Serialize)]
struct IntentShown {
    generation: u64,
    at: String,
    again: Option<String>,
}

#[derive(Debug, Serialize)]
struct RefusalShown {
    code: String,
    message: String,
    at: String,
}

#[derive(Debug, Serialize)]
struct ErrorShown {
    at: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct HolderShown {
    process: Option<u32>,
}

/// Everything that is known of a login.
struct Findings<'a> {
    credential: &'a Credential,
    store: &'a Store,
    record: Option<Record>,
    /// Who holds the lock.
    holder: Option<Holder>,
    /// Whether a process announces that it uses the login; `None` where that cannot be told.
    in_use: Option<bool>,
    now: SystemTime,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load(option, Need::Store)?;
    if let Kind::ApiKey(_) = config.credential.kind {
        return print(&match options.json {
            true => json(&Status::of_key(&config.credential)),
            false => words::of_key(&config.credential),
        });
    }
    let store = Store::new(config.credential.store.clone());
    let findings = Findings {
        credential: &config.credential,
        store: &store,
        record: store.read().map_err(store_failure)?,
        // Who may not look at the locks can see the rest.
        holder: store.lock_holder().ok().flatten(),
        in_use: store.is_in_use().ok(),
        now: SystemTime::now(),
    };
    let text = match options.json {
        true => json(&findings.status()),
        false => words::lines(&findings),
    };
    print(&text)?;
    match findings.login_needed() {
        Some(message) => Err(Failure::login_needed(message)),
        None => Ok(()),
    }
}

fn json(status: &Status) -> String {
    serde_json::to_string_pretty(status).expect("text and numbers always serialise")
}

impl Status {
    /// Nothing more is known of an API key than that there is one.
    fn of_key(credential: &Credential) -> Self {
        Self {
            credential: credential.name.clone(),
            state: State::ApiKey,
            ..Self::default()
        }
    }
}

impl Findings<'_> {
    fn state(&self) -> State {
        let Some(record) = &self.record else {
            return State::LoginNeeded;
        };
        // Written when a rotation fails, gone when one succeeds.
        let failing = record.last_error.is_some() && record.expires_at <= self.now;
        match record {
            _ if record.logged_out.is_some() => State::LoggedOut,
            _ if self.refusal().is_some() => State::LoginNeeded,
            _ if record.intent.is_some() && self.holder.is_some() => State::Rotating,
            _ if record.intent.is_some() => State::Pending,
            _ if failing => State::Failing,
            _ => State::Ready,
        }
    }

    /// A refusal counts for the credentials that were refused; with others the next use tries once more (T9).
    fn refusal(&self) -> Option<&Refusal> {
        let refusal = self.record.as_ref()?.refusal.as_ref()?;
        let client = self.credential.client.as_ref();
        let other = client.is_some_and(|client| fingerprint(client) != refusal.client);
        (!other).then_some(refusal)
    }

    /// Why only a person can help, if so.
    fn login_needed(&self) -> Option<String> {
        match &self.record {
            None => Some(never_logged_in(self.store)),
            Some(record) => match record.logged_out {
                Some(at) => Some(logged_out(at)),
                None => self.refusal().map(|refusal| refusal.message.clone()),
            },
        }
    }

    fn missing(&self) -> Vec<String> {
        let granted = self.record.as_ref().map(|record| &record.scopes);
        granted.map_or_else(Vec::new, |granted| {
            scopes::missing(&self.credential.scopes, granted)
        })
    }

    fn status(&self) -> Status {
        let record = self.record.as_ref();
        let missing = self.missing();
        let advice = (!missing.is_empty()).then(|| scopes::advice(&missing));
        Status {
            credential: self.credential.name.clone(),
            state: self.state(),
            message: self.login_needed().or(advice),
            store: Some(self.store.path().display().to_string()),
            user_id: record.and_then(|record| record.user_id),
            account_id: record.and_then(|record| record.account_id),
            generation: record.and_then(|record| record.generation),
            access_token_expires_at: record.and_then(access_token_end).map(utc),
            refresh_token_expires_at: record.and_then(Record::refresh_token_end).map(utc),
            scopes: record.map_or_else(Vec::new, |record| record.scopes.clone()),
            scopes_requested: self.credential.scopes.clone(),
            scopes_missing: missing,
            last_rotation: record.and_then(|record| record.last_rotation.as_ref().map(rotation)),
            pending_rotation: record.and_then(|record| record.intent.as_ref().map(intent)),
            lost_rotation: record.and_then(|record| record.lost_rotation.as_ref().map(intent)),
            refusal: record.and_then(|record| record.refusal.as_ref().map(refusal)),
            last_error: record.and_then(|record| record.last_error.as_ref().map(error)),
            logged_out_at: record.and_then(|record| record.logged_out).map(utc),
            lock_holder: self
                .holder
                .map(|Holder { process }| HolderShown { process }),
            in_use: self.in_use,
        }
    }
}

fn rotation(rotation: &LastRotation) -> RotationShown {
    RotationShown {
        at: utc(rotation.at),
        cause: rotation.cause.clone(),
        milliseconds: rotation.milliseconds,
    }
}

fn intent(intent: &Intent) -> IntentShown {
    IntentShown {
        generation: intent.generation,
        at: utc(intent.at),
        again: intent.again.map(utc),
    }
}

fn refusal(refusal: &Refusal) -> RefusalShown {
    RefusalShown {
        code: refusal.code.clone(),
        message: refusal.message.clone(),
        at: utc(refusal.at),
    }
}

fn error(error: &LastError) -> ErrorShown {
    ErrorShown {
        at: utc(error.at),
        message: error.message.clone(),
    }
}

/// `None` where there is no access token, or nobody wrote down when it dies.
fn access_token_end(record: &Record) -> Option<SystemTime> {
    Some(record.expires_at).filter(|end| *end > SystemTime::UNIX_EPOCH)
}
