//! `POST /oauth2/token` and its siblings `introspect` and `revoke`.

use bytes::Bytes;
use chrono::Utc;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::behaviour::{Reuse, TokenFailure};
use super::body::Cut;
use super::code_exchange;
use super::grants::Refusal;
use super::intake::{self, Unread};
use super::parameters::Parameters;
use super::reply::{self, Reply};
use super::server::Connection;
use super::shared::Shared;
use super::token_answer::{
    bad_client, bad_client_elsewhere, bad_code, granted, invalid_grant, refuse,
};
use super::{CLIENT_ID, CLIENT_SECRET, problems};

/// What is asked of the token endpoint, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Token,
    Introspect,
    Revoke,
}

impl Endpoint {
    /// The endpoint at `path`, with or without a version.
    pub(super) fn at(path: &str) -> Option<Endpoint> {
        match path.strip_prefix("/v1").unwrap_or(path) {
            "/oauth2/token" => Some(Endpoint::Token),
            "/oauth2/token/introspect" => Some(Endpoint::Introspect),
            "/oauth2/token/revoke" => Some(Endpoint::Revoke),
            _ => None,
        }
    }

    /// What is asked of it. On the token endpoint, all that is not a code exchange counts as a refresh.
    fn errand(self, parameters: Option<&Parameters>) -> Errand {
        let grant_type = parameters.map(|parameters| parameters.value("grant_type"));
        match self {
            Endpoint::Token if grant_type == Some("authorization_code") => Errand::ExchangeCode,
            Endpoint::Token => Errand::Refresh,
            Endpoint::Introspect => Errand::Introspect,
            Endpoint::Revoke => Errand::Revoke,
        }
    }
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Refresh,
    ExchangeCode,
    Introspect,
    Revoke,
}

impl Errand {
    /// The parameters that it requires.
    fn required(self) -> &'static [&'static str] {
        match self {
            Errand::Refresh => &["grant_type", "refresh_token", "client_id", "client_secret"],
            Errand::ExchangeCode => &[
                "grant_type",
                "code",
                "redirect_uri",
                "client_id",
                "client_secret",
            ],
            Errand::Introspect | Errand::Revoke => &["client_id", "client_secret", "token"],
        }
    }

    /// The parameter that it takes beside those.
    fn optional(self) -> Option<&'static str> {
        (self == Errand::ExchangeCode).then_some("code_verifier")
    }

    fn count_arrival(self, connection: &Connection) {
        let ledger = &connection.shared.ledger;
        match self {
            Errand::Refresh => connection.note_token_post(),
            Errand::ExchangeCode => ledger.update(|counts| counts.code_posts += 1),
            Errand::Introspect => ledger.update(|counts| counts.introspections += 1),
            Errand::Revoke => ledger.update(|counts| counts.revocations += 1),
        }
    }

    fn count_refusal(self, shared: &Shared) {
        shared.ledger.update(|counts| match self {
            Errand::Refresh => counts.refused_token_posts += 1,
            Errand::ExchangeCode => counts.refused_code_exchanges += 1,
            Errand::Introspect | Errand::Revoke => {}
        });
    }
}

pub(super) async fn answer(
    endpoint: Endpoint,
    connection: &Connection,
    head: &Parts,
    body: Incoming,
) -> Result<Reply, Cut> {
    let shared = &*connection.shared;
    problems::check_token_head(shared, head);
    if head.method != Method::POST {
        problems::report(shared, head, "a method that is not POST");
        return Ok(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
            "The method must be POST",
        ));
    }
    let body = match intake::short(body).await {
        Ok(body) => body,
        Err(Unread::TooLong) => {
            problems::report(shared, head, "a body that is too long");
            return Ok(refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "The body is too long",
            ));
        }
        Err(Unread::Incomplete) => {
            problems::report(shared, head, "a body that ended early");
            return Err(Cut);
        }
    };
    let parameters = parse(head, &body);
    let errand = endpoint.errand(parameters.as_ref().ok());
    errand.count_arrival(connection);
    let checked = parameters
        .map_err(|what| malformed(shared, head, what))
        .and_then(|parameters| check(errand, shared, head, parameters));
    let parameters = match checked {
        Ok(parameters) => parameters,
        Err(refusal) => {
            errand.count_refusal(shared);
            return Ok(*refusal);
        }
    };
    match errand {
        Errand::Refresh => refresh(shared, &parameters).await,
        Errand::ExchangeCode => play(Errand::ExchangeCode, shared, &parameters).await,
        Errand::Introspect => Ok(introspect(shared, &parameters)),
        Errand::Revoke => Ok(revoke(shared, &parameters)),
    }
}

fn parse(head: &Parts, body: &Bytes) -> Result<Parameters, &'static str> {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    Parameters::parse(content_type.unwrap_or_default(), body)
}

/// Refuses what no correct client sends.
fn malformed(shared: &Shared, head: &Parts, what: &str) -> Box<Reply> {
    problems::report(shared, head, what);
    Box::new(refuse(StatusCode::BAD_REQUEST, "invalid_request", what))
}

/// Checks parameters for everything but their values.
fn check(
    errand: Errand,
    shared: &Shared,
    head: &Parts,
    parameters: Parameters,
) -> Result<Parameters, Box<Reply>> {
    if errand == Errand::Refresh
        && let Some(grant_type) = parameters.get("grant_type")
        && grant_type != "refresh_token"
    {
        let what = "a grant_type that is neither refresh_token nor authorization_code";
        problems::report(shared, head, what);
        let error = "unsupported_grant_type";
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, error, "")));
    }
    let (required, optional) = (errand.required(), errand.optional());
    problems::check_names(shared, head, &parameters, |name| {
        required.contains(&name) || optional == Some(name)
    });
    for name in required {
        if parameters.count(name) == 0 {
            let what = format!("the parameter {name} is missing");
            return Err(malformed(shared, head, &what));
        }
    }
    for name in required.iter().copied().chain(optional) {
        if parameters.count(name) > 1 {
            let what = format!("the parameter {name} is there more than once");
            return Err(malformed(shared, head, &what));
        }
    }
    Ok(parameters)
}

async fn refresh(shared: &Shared, parameters: &Parameters) -> Result<Reply, Cut> {
    let refresh_token = parameters.value("refresh_token");
    shared.ledger.update(|counts| {
        *counts
            .posts_by_refresh_token
            .entry(refresh_token.to_owned())
            .or_default() += 1;
    });
    play(Errand::Refresh, shared, parameters).await
}

/// Does a refresh or a code exchange, unless the script has something else in store.
async fn play(errand: Errand, shared: &Shared, parameters: &Parameters) -> Result<Reply, Cut> {
    shared
        .gate(|behaviour| !behaviour.hold_token_endpoint)
        .await;
    shared.pause(|behaviour| behaviour.token_delay).await;
    if errand == Errand::Refresh && shared.grants().is_spent(parameters.value("refresh_token")) {
        shared
            .ledger
            .update(|counts| counts.reused_refresh_tokens += 1);
    }
    match shared.take_token_failure() {
        None => Ok(take_effect(errand, shared, parameters)),
        Some(failure) => fail(errand, shared, failure, parameters).await,
    }
}

fn take_effect(errand: Errand, shared: &Shared, parameters: &Parameters) -> Reply {
    let outcome = match errand {
        Errand::ExchangeCode => code_exchange::exchange(shared, parameters),
        _ => rotate(shared, parameters),
    };
    outcome.unwrap_or_else(|refusal| {
        errand.count_refusal(shared);
        *refusal
    })
}

/// Refreshes: on success the old pair is dead before the answer is written.
fn rotate(shared: &Shared, parameters: &Parameters) -> Result<Reply, Box<Reply>> {
    let (reuse, keep_refresh_token, bad_client_status) = {
        let behaviour = shared.behaviour.borrow();
        (
            behaviour.reuse,
            !behaviour.token_answer.refresh_token,
            behaviour.bad_client_status,
        )
    };
    if !is_client(parameters) {
        return Err(Box::new(bad_client(bad_client_status)));
    }
    let refresh_token = parameters.value("refresh_token");
    let terms = shared.terms();
    let outcome = {
        let mut grants = shared.grants();
        let outcome = grants.rotate(refresh_token, terms, keep_refresh_token, Utc::now());
        if outcome == Err(Refusal::Spent) && reuse == Reuse::RevokeGrant {
            grants.revoke(refresh_token);
        }
        outcome
    };
    let pair = outcome.map_err(|_| Box::new(invalid_grant()))?;
    shared.ledger.update(|counts| {
        counts.rotations += 1;
        counts.rotations_amid_requests += u64::from(counts.in_flight > 0);
    });
    Ok(granted(shared, pair, true))
}

/// Plays one entry of the script.
async fn fail(
    errand: Errand,
    shared: &Shared,
    failure: TokenFailure,
    parameters: &Parameters,
) -> Result<Reply, Cut> {
    match failure {
        TokenFailure::Status {
            code,
            retry_after,
            body,
        } => {
            let mut reply = reply::whole(code, "application/json", body);
            if let Some(value) = retry_after {
                reply.headers_mut().insert(RETRY_AFTER, value);
            }
            Ok(reply)
        }
        TokenFailure::Html(code) => {
            let page = "<!DOCTYPE html><title>Blocked</title><h1>Request blocked</h1>";
            Ok(reply::whole(code, "text/html; charset=utf-8", page))
        }
        TokenFailure::CutBefore => Err(Cut),
        TokenFailure::CutAfter => {
            take_effect(errand, shared, parameters);
            Err(Cut)
        }
        TokenFailure::HalfBodyAfter => {
            Ok(reply::cut_in_half(take_effect(errand, shared, parameters)))
        }
        TokenFailure::NoAccessToken => Ok(reply::json(
            StatusCode::OK,
            &json!({ "token_type": "bearer", "expires_in": 3600 }),
        )),
        TokenFailure::InvalidGrant if errand == Errand::ExchangeCode => {
            Ok(bad_code(shared.behaviour.borrow().bad_code_status))
        }
        TokenFailure::InvalidGrant => Ok(invalid_grant()),
        TokenFailure::Redirect => {
            let mut reply = reply::empty(StatusCode::TEMPORARY_REDIRECT);
            let location = HeaderValue::try_from(shared.public_origin() + "/oauth2/token");
            // Only a public origin that no header can carry leaves it out.
            if let Ok(location) = location {
                reply.headers_mut().insert(LOCATION, location);
            }
            Ok(reply)
        }
        TokenFailure::HangBefore => {
            shared.gate(|behaviour| behaviour.release_hung).await;
            Ok(take_effect(errand, shared, parameters))
        }
        TokenFailure::HangAfter => {
            let reply = take_effect(errand, shared, parameters);
            shared.gate(|behaviour| behaviour.release_hung).await;
            Ok(reply)
        }
    }
}

fn introspect(shared: &Shared, parameters: &Parameters) -> Reply {
    let (status, bad_client_status) = {
        let behaviour = shared.behaviour.borrow();
        (behaviour.introspection_status, behaviour.bad_client_status)
    };
    if status != StatusCode::OK {
        return refuse(status, "server_error", "");
    }
    if !is_client(parameters) {
        return bad_client_elsewhere(bad_client_status);
    }
    let now = Utc::now();
    let Some(living) = shared.grants().introspect(parameters.value("token"), now) else {
        return reply::json(StatusCode::OK, &json!({ "active": false }));
    };
    let mut answer = json!({
        "active": true,
        "client_id": CLIENT_ID,
        "expires_in": (living.expires - now).num_seconds(),
        "expires": living.expires.timestamp_millis(),
        "scope": living.scopes.join(" "),
        "token_type": "bearer",
    });
    let (owner, id) = living.owner.member();
    answer[owner] = Value::from(id);
    reply::json(StatusCode::OK, &answer)
}

fn revoke(shared: &Shared, parameters: &Parameters) -> Reply {
    if !is_client(parameters) {
        return bad_client_elsewhere(shared.behaviour.borrow().bad_client_status);
    }
    if shared.grants().revoke(parameters.value("token")) {
        shared
            .ledger
            .update(|counts| counts.effective_revocations += 1);
    }
    reply::empty(StatusCode::OK)
}

pub(super) fn is_client(parameters: &Parameters) -> bool {
    parameters.value("client_id") == CLIENT_ID && parameters.value("client_secret") == CLIENT_SECRET
}
