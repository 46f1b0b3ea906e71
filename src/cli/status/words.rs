//! The status for people.

use std::time::{Duration, SystemTime};

use super::super::times::{day, local, span};
use super::{Findings, State, access_token_end};
use crate::config::Credential;
use crate::token::record::{Intent, LastRotation, Record};
use crate::token::scopes;
use crate::token::store::Holder;

/// A rotation that takes longer than this waits for something else than its answer.
const USUAL_ROTATION: Duration = Duration::from_secs(75);

/// One fact a line: its name, and what is known.
pub(super) fn lines(findings: &Findings<'_>) -> String {
    let mut facts = vec![
        ("credential", findings.credential.name.clone()),
        ("state", state(findings)),
        ("store", findings.store.path().display().to_string()),
    ];
    if let Some(record) = &findings.record {
        pair(&mut facts, findings, record);
        history(&mut facts, record);
    }
    facts.push(("used by", users(findings.in_use)));
    if let Some(holder) = findings.holder {
        let held = format!("held by {holder}");
        facts.push(("lock", held));
    }
    shown(facts)
}

/// The same for an API key.
pub(super) fn of_key(credential: &Credential) -> String {
    let state = "ready: an API key, with no login and nothing to refresh";
    shown(vec![
        ("credential", credential.name.clone()),
        ("state", state.to_owned()),
    ])
}

fn shown(facts: Facts) -> String {
    let line = |(name, value): (&str, String)| format!("{name:<15}{value}");
    facts.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

type Facts = Vec<(&'static str, String)>;

fn pair(facts: &mut Facts, findings: &Findings<'_>, record: &Record) {
    let owner = |name: &str, id: Option<u64>| id.map(|id| format!("{name} {id}"));
    let owner = owner("user", record.user_id).or(owner("account", record.account_id));
    facts.extend(owner.map(|owner| ("granted by", owner)));
    let generation = match record.generation {
        None => "unknown (written by another program)".to_owned(),
        Some(generation) => generation.to_string(),
    };
    facts.push(("generation", generation));
    // What a login that is over has is dead, whatever the clock says.
    if findings.state() != State::LoginNeeded {
        let access_token = access_token_end(record).map(|end| access_token(end, findings.now));
        facts.extend(access_token.map(|shown| ("access token", shown)));
        let refresh_token = record
            .refresh_token_end()
            .map(|end| refresh_token(end, findings.now));
        facts.extend(refresh_token.map(|shown| ("refresh token", shown)));
    }
    if record.logged_out.is_none() {
        let granted = match record.scopes.is_empty() {
            true => "the token endpoint did not say".to_owned(),
            false => record.scopes.join(" "),
        };
        facts.push(("scopes", granted));
        facts.push(("asked for", findings.credential.scopes.join(" ")));
    }
    let missing = findings.missing();
    if !missing.is_empty() {
        facts.push(("missing", scopes::advice(&missing)));
    }
}

fn history(facts: &mut Facts, record: &Record) {
    if let Some(rotation) = &record.last_rotation {
        facts.push(("last rotation", rotated(rotation)));
    }
    if let Some(lost) = &record.lost_rotation {
        let lost = format!(
            "begun {} with generation {}: its new pair never arrived",
            local(lost.at),
            lost.generation
        );
        facts.push(("lost rotation", lost));
    }
    if let Some(error) = &record.last_error {
        let error = format!("{}: {}", local(error.at), error.message);
        facts.push(("last error", error));
    }
}

fn state(findings: &Findings<'_>) -> String {
    let intent = findings.record.as_ref();
    let intent = intent.and_then(|record| record.intent.as_ref());
    match (findings.state(), intent) {
        (State::Ready, _) => "ready".to_owned(),
        (State::Rotating, Some(intent)) => rotating(findings, intent),
        (State::Rotating | State::Pending, _) => format!(
            "pending: the rotation begun {} has no known end; the next use finds out",
            intent.map_or_else(String::new, |intent| local(intent.at))
        ),
        (State::Failing, _) => {
            "failing: the access token has died and could not be refreshed; it is tried again"
                .to_owned()
        }
        (State::LoginNeeded, _) => "login needed".to_owned(),
        (State::LoggedOut, _) => "logged out".to_owned(),
        (State::ApiKey, _) => "an API key".to_owned(),
    }
}

fn rotating(findings: &Findings<'_>, intent: &Intent) -> String {
    let who = findings.holder.unwrap_or(Holder { process: None });
    let since = local(intent.last_sent());
    let ago = findings.now.duration_since(intent.last_sent());
    match ago.is_ok_and(|ago| ago > USUAL_ROTATION) {
        true => format!(
            "rotating: {who} has been at it since {since}; if it has a new pair and cannot store it, its log says so"
        ),
        false => format!("rotating: {who} is at it, since {since}"),
    }
}

fn access_token(end: SystemTime, now: SystemTime) -> String {
    match end.duration_since(now) {
        Ok(left) => format!("expires in {} ({})", span(left), local(end)),
        Err(past) => format!(
            "expired {} ago ({}); the next request refreshes it",
            span(past.duration()),
            local(end)
        ),
    }
}

fn refresh_token(end: SystemTime, now: SystemTime) -> String {
    let day = day(end);
    match end > now {
        true => format!("lasts until {day} if it is not used before"),
        false => format!("has died on {day}, if Lucid counts as documented: 180 days without use"),
    }
}

fn rotated(rotation: &LastRotation) -> String {
    let why = match rotation.cause.as_str() {
        "first" => "there was no access token yet",
        "expiring" => "the access token was about to expire",
        "expired" => "the access token had expired",
        "rejected" => "Lucid rejected the access token",
        "idle" => "the refresh token had not been used for long",
        "unfinished" => "the rotation before had no known end",
        "asked" => "a person asked for it",
        _ => "",
    };
    let cause = [rotation.cause.as_str(), why].join(": ");
    format!(
        "{} ({}; took {} ms)",
        local(rotation.at),
        cause.trim_end_matches(": "),
        rotation.milliseconds
    )
}

fn users(in_use: Option<bool>) -> String {
    match in_use {
        Some(true) => "another process now, a running proxy most likely",
        Some(false) => "nobody now",
        None => "unknown: this user may not look at the locks beside the store",
    }
    .to_owned()
}
