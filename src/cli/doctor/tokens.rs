//! The login as the store has it, and as the token endpoint knows it. Introspection spends nothing.

use std::time::SystemTime;

use super::super::times::local;
use super::report::{Check, Fault, Report, Unreached, depends};
use crate::config::Credential;
use crate::secret::{ExposeSecret, Secret};
use crate::token::answer::Introspection;
use crate::token::endpoint::TokenEndpoint;
use crate::token::record::{Intent, Record};
use crate::token::refresher::Refresher;
use crate::token::scopes;
use crate::token::store::Store;
use crate::token::succession::{fingerprint, logged_out, never_logged_in};

const LOGIN: &str = "login";
const ENDPOINT: &str = "token_endpoint";
const REFRESH_TOKEN: &str = "refresh_token";
const ACCESS_TOKEN: &str = "access_token";

/// No token of anybody's: where there is no login, the client id and secret are proved with it.
const NOBODYS_TOKEN: &str = "lucid-proxy-doctor";

/// The login; else why there is none to ask about.
type Stored = Result<Record, String>;

/// A pair whose access token should be taken upstream; else why none is tried, and what would help.
pub(super) type Living = Result<Record, NotTried>;

/// Why nothing is tried upstream, and what would help.
pub(super) type NotTried = (String, Option<String>);

/// What the store says about the login.
pub(super) fn login(
    credential: &Credential,
    store: &Store,
    stored: Result<&Option<Record>, &Unreached>,
    report: &mut Report,
) {
    report.push(match stored {
        Err(unreached) => Check::depends(LOGIN, unreached),
        Ok(None) if credential.refresh_token.is_some() => Check::ok(
            LOGIN,
            "none yet; the configured refresh token begins one at the next start",
        ),
        Ok(None) => Check::failed_with(LOGIN, &never_logged_in(store), "").of(Fault::Login),
        Ok(Some(record)) => judge_record(credential, store, record),
    });
}

fn judge_record(credential: &Credential, store: &Store, record: &Record) -> Check {
    if let Some(at) = record.logged_out {
        return Check::failed_with(LOGIN, &logged_out(at), "").of(Fault::Login);
    }
    let client = credential.client.as_ref().map(fingerprint);
    let refusal = record.refusal.as_ref();
    // With other credentials it is tried once more (T9).
    let refusal = refusal.filter(|refusal| client.is_none_or(|client| client == refusal.client));
    if let Some(refusal) = refusal {
        let seen = format!("refused at {}: {}", local(refusal.at), refusal.code);
        if refusal.about_client {
            // It is asked again before the next refresh; what it says now, the check of the token endpoint shows.
            return Check::warning(LOGIN, seen, refusal.message.clone());
        }
        return Check::failed(LOGIN, seen, refusal.message.clone()).of(Fault::Login);
    }
    let seen = described(record);
    let missing = scopes::missing(&credential.scopes, &record.scopes);
    if !missing.is_empty() {
        return Check::warning(LOGIN, seen, scopes::advice(&missing));
    }
    match &record.intent {
        Some(intent) if !is_locked(store) => {
            let seen = format!("{seen}; {}", unfinished(intent));
            Check::warning(LOGIN, seen, "the next use of the login finds out by itself")
        }
        _ => Check::ok(LOGIN, seen),
    }
}

fn described(record: &Record) -> String {
    let owner = |name: &str, id: Option<u64>| id.map(|id| format!(", {name} {id}"));
    let owner = owner("user", record.user_id).or(owner("account", record.account_id));
    let generation = record.generation;
    let generation =
        generation.map_or_else(|| "unknown".to_owned(), |generation| generation.to_string());
    format!("generation {generation}{}", owner.unwrap_or_default())
}

fn unfinished(intent: &Intent) -> String {
    format!(
        "the rotation begun {} has no known end",
        local(intent.last_sent())
    )
}

fn is_locked(store: &Store) -> bool {
    store.lock_holder().is_ok_and(|holder| holder.is_some())
}

/// Asks the token endpoint about the pair, and thereby whether it knows the application.
pub(super) async fn examine(
    credential: &Credential,
    store: &Store,
    stored: Result<Option<Record>, Unreached>,
    way: Result<(), Unreached>,
    report: &mut Report,
) -> Living {
    let unreached = if credential.client.is_none() {
        Some("configuration")
    } else {
        way.err()
    };
    let record = match stored {
        Ok(record) => record
            .filter(|record| record.logged_out.is_none())
            .ok_or_else(|| "there is no login".to_owned()),
        Err(unreached) => Err(depends(unreached)),
    };
    let endpoint = match (unreached, Refresher::endpoint(credential)) {
        (None, Ok(endpoint)) => endpoint,
        (Some(unreached), _) => {
            for name in [ENDPOINT, REFRESH_TOKEN, ACCESS_TOKEN] {
                report.push(Check::depends(name, unreached));
            }
            return living(record);
        }
        (None, Err(error)) => {
            report.push(Check::failed_with(ENDPOINT, &error.to_string(), ""));
            report.push(Check::depends(REFRESH_TOKEN, ENDPOINT));
            report.push(Check::depends(ACCESS_TOKEN, ENDPOINT));
            return living(record);
        }
    };
    ask(credential, store, record, &endpoint, report).await
}

async fn ask(
    credential: &Credential,
    store: &Store,
    record: Stored,
    endpoint: &TokenEndpoint,
    report: &mut Report,
) -> Living {
    let refresh_token = match (&record, &credential.refresh_token) {
        (Ok(record), _) => Ok(record.refresh_token.clone()),
        (Err(_), Some(seed)) => Ok(seed.clone()),
        (Err(because), None) => Err(because.clone()),
    };
    let asked = refresh_token.as_ref().ok().cloned();
    let asked = asked.unwrap_or_else(|| Secret::from(NOBODYS_TOKEN));
    let mut said = endpoint.introspect(&asked).await;
    let mut record = record;
    if said == Introspection::Inactive
        && let Some(newer) = newer(store, record.as_ref().ok())
    {
        // A proxy has rotated meanwhile.
        said = endpoint.introspect(&newer.refresh_token).await;
        record = Ok(newer);
    }
    if let Err(unreached) = report.push_gate(judge_endpoint(credential, &said)) {
        report.push(Check::depends(REFRESH_TOKEN, unreached));
        report.push(Check::depends(ACCESS_TOKEN, unreached));
        return living(record);
    }
    let refresh_token = report.push_gate(match refresh_token {
        Err(because) => Check::skipped(REFRESH_TOKEN, because),
        Ok(_) => judge_refresh_token(store, record.as_ref().ok(), &said),
    });
    ask_about_access_token(record, refresh_token, endpoint, report).await
}

fn newer(store: &Store, record: Option<&Record>) -> Option<Record> {
    let stored = store.read().ok().flatten()?;
    let is_newer = record.is_none_or(|record| !record.same_tokens(&stored));
    Some(stored).filter(|stored| is_newer && stored.logged_out.is_none())
}

fn judge_endpoint(credential: &Credential, said: &Introspection) -> Check {
    let url = &credential.token_url;
    match said {
        Introspection::Active(_) | Introspection::Inactive => Check::ok(
            ENDPOINT,
            format!("{url} knows the client id and secret (asked by introspection)"),
        ),
        Introspection::BadClient => Check::failed(
            ENDPOINT,
            format!("{url} does not know the client id or secret"),
            "compare LUCID_CLIENT_ID and LUCID_CLIENT_SECRET, or what proxy.toml says, with the application in Lucid's developer portal, and whether it is enabled there",
        )
        .of(Fault::Configuration),
        Introspection::Unknown(why) => Check::failed(
            ENDPOINT,
            format!("{url}: {why}"),
            "if that is not token_url's answer, correct token_url; else wait and try again: a running proxy goes on with the token that it has, and tries again by itself",
        ),
    }
}

fn judge_refresh_token(store: &Store, record: Option<&Record>, said: &Introspection) -> Check {
    if matches!(said, Introspection::Active(_)) {
        return Check::ok(REFRESH_TOKEN, "alive, says introspection");
    }
    let intent = record.and_then(|record| record.intent.as_ref());
    match intent {
        Some(_) if is_locked(store) => Check::warning(
            REFRESH_TOKEN,
            "spent by a rotation that is under way now",
            "run doctor again when it has ended",
        ),
        Some(intent) => Check::failed(
            REFRESH_TOKEN,
            format!(
                "dead, says introspection, and {}: the new pair was lost",
                unfinished(intent)
            ),
            "log in again: lucid-proxy login",
        )
        .of(Fault::Login),
        None => Check::failed(
            REFRESH_TOKEN,
            "dead, says introspection: it was used elsewhere, revoked, or not used for 180 days",
            "log in again: lucid-proxy login; and let nothing else refresh with a copy of it",
        )
        .of(Fault::Login),
    }
}

async fn ask_about_access_token(
    record: Stored,
    refresh_token: Result<(), Unreached>,
    endpoint: &TokenEndpoint,
    report: &mut Report,
) -> Living {
    let record = match living(record) {
        Ok(record) => record,
        Err((because, advice)) => {
            report.push(not_tried(ACCESS_TOKEN, because.clone(), advice.clone()));
            return Err((because, advice));
        }
    };
    let end = local(record.expires_at);
    let check = match endpoint.introspect(&record.access_token).await {
        Introspection::Active(_) => Check::ok(
            ACCESS_TOKEN,
            format!("alive, says introspection; expires {end}"),
        ),
        Introspection::Inactive => Check::failed(
            ACCESS_TOKEN,
            format!("dead, says introspection, although it should live until {end}"),
            match refresh_token {
                Ok(()) => {
                    "a running proxy heals that with the first request; to do so now: lucid-proxy refresh"
                }
                Err(_) => "it went with the refresh token; log in again: lucid-proxy login",
            },
        ),
        Introspection::BadClient => Check::warning(
            ACCESS_TOKEN,
            "introspection refused the client id and secret this time",
            "run doctor again",
        ),
        Introspection::Unknown(why) => Check::warning(ACCESS_TOKEN, why, "run doctor again"),
    };
    match report.push_gate(check) {
        Ok(()) => Ok(record),
        Err(_) => Err(("the access token is dead".to_owned(), None)),
    }
}

fn living(record: Stored) -> Living {
    let refresh = "to try it with a new one: lucid-proxy refresh, then doctor again";
    let record = record.map_err(|because| (because, None))?;
    if record.access_token.expose_secret().is_empty() {
        let because = "there is no access token yet; the first request gets one";
        return Err((because.to_owned(), Some(refresh.to_owned())));
    }
    if record.expires_at <= SystemTime::now() {
        let because = format!(
            "the access token expired {}; the next request refreshes it",
            local(record.expires_at)
        );
        return Err((because, Some(refresh.to_owned())));
    }
    Ok(record)
}

/// A check that needs a living access token where there is none.
pub(super) fn not_tried(name: &'static str, because: String, advice: Option<String>) -> Check {
    match advice {
        None => Check::skipped(name, because),
        Some(advice) => Check::skipped_until(name, because, advice),
    }
}
