//! `lucid-proxy status`: what the store says about the login.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;

use super::{ConfigOption, Failure, load, print, store_failure};
use crate::config::{Config, Need};
use crate::token::record::{Intent, LastError, LastRotation, Record, Refusal};
use crate::token::store::Store;
use crate::token::succession::never_logged_in;

/// A refresh token that nobody uses dies after this (Lucid's documentation).
const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(180 * 24 * 3600);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints; fields are added over time, never renamed. Times are RFC 3339 in UTC.
#[derive(Serialize)]
struct Status {
    credential: String,
    /// `ready`, `pending` (a rotation has begun and has no known end), `failing` (the token has died and the last
    /// rotation failed; it is tried again) or `login_needed`.
    state: &'static str,
    store: String,
    generation: Option<u64>,
    access_token_expires_at: Option<String>,
    refresh_token_expires_at: Option<String>,
    scopes: Vec<String>,
    user_id: Option<u64>,
    account_id: Option<u64>,
    last_rotation: Option<LastRotation>,
    pending_rotation: Option<Intent>,
    refusal: Option<RefusalShown>,
    last_error: Option<LastError>,
}

#[derive(Serialize)]
struct RefusalShown {
    code: String,
    message: String,
    at: String,
}

impl From<Refusal> for RefusalShown {
    fn from(refusal: Refusal) -> Self {
        Self {
            at: utc(refusal.at),
            code: refusal.code,
            message: refusal.message,
        }
    }
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load(option, Need::Store)?;
    let store = Store::new(config.credential.store.clone());
    let record = store.read().map_err(store_failure)?;
    let status = describe(&config, record.as_ref());
    let text = match options.json {
        true => serde_json::to_string_pretty(&status).expect("text and numbers always serialise"),
        false => lines(&status, record.as_ref(), SystemTime::now()),
    };
    print(&text)?;
    match (status.state, status.refusal) {
        ("login_needed", Some(refusal)) => Err(Failure::login_needed(refusal.message)),
        ("login_needed", None) => Err(Failure::login_needed(never_logged_in(&store))),
        _ => Ok(()),
    }
}

fn describe(config: &Config, record: Option<&Record>) -> Status {
    let credential = &config.credential;
    let failing = |record: &Record| {
        // Written when a rotation fails, gone when one succeeds.
        record.last_error.is_some() && record.expires_at <= SystemTime::now()
    };
    let state = match record {
        None => "login_needed",
        Some(record) if record.refusal.is_some() => "login_needed",
        Some(record) if record.intent.is_some() => "pending",
        Some(record) if failing(record) => "failing",
        Some(_) => "ready",
    };
    let has_token = |record: &&Record| record.expires_at > SystemTime::UNIX_EPOCH;
    Status {
        credential: credential.name.clone(),
        state,
        store: credential.store.display().to_string(),
        generation: record.and_then(|record| record.generation),
        access_token_expires_at: record
            .filter(has_token)
            .map(|record| utc(record.expires_at)),
        refresh_token_expires_at: record.and_then(refresh_token_end).map(utc),
        scopes: record
            .map(|record| record.scopes.clone())
            .unwrap_or_default(),
        user_id: record.and_then(|record| record.user_id),
        account_id: record.and_then(|record| record.account_id),
        last_rotation: record.and_then(|record| record.last_rotation.clone()),
        pending_rotation: record.and_then(|record| record.intent.clone()),
        refusal: record
            .and_then(|record| record.refusal.clone())
            .map(RefusalShown::from),
        last_error: record.and_then(|record| record.last_error.clone()),
    }
}

fn refresh_token_end(record: &Record) -> Option<SystemTime> {
    record.refresh_issued_at.checked_add(REFRESH_TOKEN_LIFE)
}

fn lines(status: &Status, record: Option<&Record>, now: SystemTime) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<15}{value}"));
    line("credential", status.credential.clone());
    line("state", state_line(status));
    line("store", status.store.clone());
    if let Some(record) = record {
        line(
            "generation",
            status.generation.map_or_else(
                || "unknown (written by another program)".to_owned(),
                |n| n.to_string(),
            ),
        );
        if status.access_token_expires_at.is_some() {
            line("access token", until(record.expires_at, now));
        }
        if let Some(end) = refresh_token_end(record) {
            line(
                "refresh token",
                format!("lasts until {} if it is not used before", day(end)),
            );
        }
        line(
            "scopes",
            if status.scopes.is_empty() {
                "unknown".to_owned()
            } else {
                status.scopes.join(" ")
            },
        );
        let owner = |name: &str, id: Option<u64>| id.map(|id| format!("{name} {id}"));
        if let Some(owner) = owner("user", status.user_id).or(owner("account", status.account_id)) {
            line("granted by", owner);
        }
        if let Some(rotation) = &status.last_rotation {
            line(
                "last rotation",
                format!(
                    "{} ({}, {} ms)",
                    local(rotation.at),
                    rotation.cause,
                    rotation.milliseconds
                ),
            );
        }
        if let Some(error) = &status.last_error {
            line(
                "last error",
                format!("{}: {}", local(error.at), error.message),
            );
        }
    }
    lines.join("\n")
}

fn state_line(status: &Status) -> String {
    match (status.state, &status.pending_rotation) {
        ("pending", Some(intent)) => format!(
            "a rotation begun at {} has no known end; the next use tries again",
            local(intent.at)
        ),
        ("login_needed", _) => "login needed".to_owned(),
        ("failing", _) => {
            "failing: the token has died and cannot be refreshed; it is tried again".to_owned()
        }
        (state, _) => state.to_owned(),
    }
}

fn until(end: SystemTime, now: SystemTime) -> String {
    let rounded =
        |duration: Duration| humantime::format_duration(Duration::from_secs(duration.as_secs()));
    match end.duration_since(now) {
        Ok(left) => format!("expires in {} ({})", rounded(left), local(end)),
        Err(past) => format!(
            "expired {} ago ({}); the next request refreshes it",
            rounded(past.duration()),
            local(end)
        ),
    }
}

fn utc(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn local(time: SystemTime) -> String {
    DateTime::<Local>::from(time)
        .format("%Y-%m-%d %H:%M:%S")
        .to_string()
}

fn day(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%Y-%m-%d").to_string()
}
