//! `POST /oauth2/token` and its siblings `introspect` and `revoke`.

use bytes::Bytes;
use chrono::Utc;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::behaviour::{Reuse, TokenFailure};
use super::body::Cut;
use super::grants::Refusal;
use super::parameters::Parameters;
use super::reply::{self, Reply};
use super::server::Connection;
use super::shared::Shared;
use super::token_answer::{bad_client, bad_client_elsewhere, granted, invalid_grant, refuse};
use super::users::USER_ID;
use super::{CLIENT_ID, CLIENT_SECRET, problems};

/// No honest request is longer: three short values and a token of a few kB.
const LONGEST_BODY: usize = 64 * 1024;

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

    /// The parameters that it takes, all of them required.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Endpoint::Token => &["grant_type", "refresh_token", "client_id", "client_secret"],
            Endpoint::Introspect | Endpoint::Revoke => &["client_id", "client_secret", "token"],
        }
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
    let body = match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            problems::report(shared, head, "a body that is too long");
            return Ok(refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "The body is too long",
            ));
        }
        Err(_) => {
            problems::report(shared, head, "a body that ended early");
            return Err(Cut);
        }
    };
    match endpoint {
        Endpoint::Token => connection.note_token_post(),
        Endpoint::Introspect => shared.ledger.update(|counts| counts.introspections += 1),
        Endpoint::Revoke => shared.ledger.update(|counts| counts.revocations += 1),
    }
    let parameters = match understand(endpoint, shared, head, &body) {
        Ok(parameters) => parameters,
        Err(refusal) => {
            if endpoint == Endpoint::Token {
                shared
                    .ledger
                    .update(|counts| counts.refused_token_posts += 1);
            }
            return Ok(*refusal);
        }
    };
    match endpoint {
        Endpoint::Token => token(shared, &parameters).await,
        Endpoint::Introspect => Ok(introspect(shared, &parameters)),
        Endpoint::Revoke => Ok(revoke(shared, &parameters)),
    }
}

/// The parameters of a request, checked for everything but their values.
fn understand(
    endpoint: Endpoint,
    shared: &Shared,
    head: &Parts,
    body: &Bytes,
) -> Result<Parameters, Box<Reply>> {
    let refuse = |what: &str| {
        problems::report(shared, head, what);
        Box::new(refuse(StatusCode::BAD_REQUEST, "invalid_request", what))
    };
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let parameters = Parameters::parse(content_type.unwrap_or_default(), body).map_err(refuse)?;
    if let Some(grant_type) = parameters
        .get("grant_type")
        .filter(|_| endpoint == Endpoint::Token)
        && grant_type != "refresh_token"
    {
        problems::report(shared, head, "a grant_type that is not refresh_token");
        return Err(Box::new(self::refuse(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "",
        )));
    }
    let expected = endpoint.parameters();
    for name in parameters.names().filter(|name| !expected.contains(name)) {
        // In a mangled body anything may stand where a name should, a token too.
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let name = if plain { name } else { "(not a plain word)" };
        problems::report(shared, head, format_args!("the unknown parameter {name}"));
    }
    for name in expected {
        match parameters.names().filter(|found| found == name).count() {
            0 => return Err(refuse(&format!("the parameter {name} is missing"))),
            1 => {}
            _ => {
                return Err(refuse(&format!(
                    "the parameter {name} is there more than once"
                )));
            }
        }
    }
    Ok(parameters)
}

async fn token(shared: &Shared, parameters: &Parameters) -> Result<Reply, Cut> {
    let refresh_token = parameters.value("refresh_token");
    shared.ledger.update(|counts| {
        *counts
            .posts_by_refresh_token
            .entry(refresh_token.to_owned())
            .or_default() += 1;
    });
    shared
        .gate(|behaviour| !behaviour.hold_token_endpoint)
        .await;
    shared.pause(|behaviour| behaviour.token_delay).await;
    if shared.grants().is_spent(refresh_token) {
        shared
            .ledger
            .update(|counts| counts.reused_refresh_tokens += 1);
    }
    match shared.take_token_failure() {
        None => Ok(rotate(shared, parameters)),
        Some(failure) => fail(shared, failure, parameters).await,
    }
}

/// Refreshes: on success the old pair is dead before the answer is written.
fn rotate(shared: &Shared, parameters: &Parameters) -> Reply {
    let (reuse, keep_refresh_token, bad_client_status) = {
        let behaviour = shared.behaviour.borrow();
        (
            behaviour.reuse,
            !behaviour.token_answer.refresh_token,
            behaviour.bad_client_status,
        )
    };
    if !is_client(parameters) {
        shared
            .ledger
            .update(|counts| counts.refused_token_posts += 1);
        return bad_client(bad_client_status);
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
    match outcome {
        Ok(pair) => {
            shared.ledger.update(|counts| {
                counts.rotations += 1;
                counts.rotations_amid_requests += u64::from(counts.in_flight > 0);
            });
            granted(shared, pair)
        }
        Err(_) => {
            shared
                .ledger
                .update(|counts| counts.refused_token_posts += 1);
            invalid_grant()
        }
    }
}

/// Plays one entry of the script.
async fn fail(
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
            rotate(shared, parameters);
            Err(Cut)
        }
        TokenFailure::HalfBodyAfter => Ok(reply::cut_in_half(rotate(shared, parameters))),
        TokenFailure::NoAccessToken => Ok(reply::json(
            StatusCode::OK,
            &json!({ "token_type": "bearer", "expires_in": 3600 }),
        )),
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
            Ok(rotate(shared, parameters))
        }
        TokenFailure::HangAfter => {
            let reply = rotate(shared, parameters);
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
    let answer = json!({
        "active": true,
        "client_id": CLIENT_ID,
        "expires_in": (living.expires - now).num_seconds(),
        "expires": living.expires.timestamp_millis(),
        "scope": living.scopes.join(" "),
        "token_type": "bearer",
        "user_id": USER_ID,
    });
    reply::json(StatusCode::OK, &answer)
}

fn revoke(shared: &Shared, parameters: &Parameters) -> Reply {
    if !is_client(parameters) {
        return bad_client_elsewhere(shared.behaviour.borrow().bad_client_status);
    }
    shared.grants().revoke(parameters.value("token"));
    reply::empty(StatusCode::OK)
}

fn is_client(parameters: &Parameters) -> bool {
    parameters.value("client_id") == CLIENT_ID && parameters.value("client_secret") == CLIENT_SECRET
}
