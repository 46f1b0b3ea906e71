//! What the token endpoint answers, in Lucid's words.

use http::header::{ALT_SVC, CACHE_CONTROL, CONNECTION, STRICT_TRANSPORT_SECURITY, VARY, VIA};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::behaviour::{ExpiresIn, ScopesShape};
use super::pair::Pair;
use super::reply::{self, Reply};
use super::shared::Shared;

/// Lucid's words for every refusal of a refresh, whatever its reason.
const REFUSED: &str = "Invalid client id, client secret, or refresh token";

/// A refusal of a refresh. Which of the three values was wrong is not told.
pub(super) fn invalid_grant() -> Reply {
    refuse(StatusCode::BAD_REQUEST, "invalid_grant", REFUSED)
}

/// The answer to a successful refresh or code exchange. A refresh token that is not told is as good as none.
pub(super) fn granted(shared: &Shared, pair: Pair, tell_refresh_token: bool) -> Reply {
    let behaviour = shared.behaviour.borrow();
    let shape = &behaviour.token_answer;
    let mut answer = Map::new();
    answer.insert("access_token".into(), pair.access_token.into());
    answer.insert("client_id".into(), pair.client_id.into());
    let (owner, id) = pair.owner.member();
    answer.insert(owner.into(), id.into());
    if shape.refresh_token && tell_refresh_token {
        answer.insert("refresh_token".into(), pair.refresh_token.into());
    }
    match &shape.expires_in {
        ExpiresIn::Number => {
            answer.insert("expires_in".into(), pair.expires_in.into());
            answer.insert("expires".into(), pair.expires.into());
        }
        ExpiresIn::Text => {
            drop(answer.insert("expires_in".into(), pair.expires_in.to_string().into()))
        }
        ExpiresIn::Absent => {}
        ExpiresIn::Other(value) => drop(answer.insert("expires_in".into(), value.clone())),
    }
    match shape.scopes {
        ScopesShape::Array => drop(answer.insert("scopes".into(), pair.scopes.into())),
        ScopesShape::Text => drop(answer.insert("scope".into(), pair.scopes.join(" ").into())),
        ScopesShape::Absent => {}
    }
    if let Some(token_type) = &shape.token_type {
        answer.insert("token_type".into(), Value::from(token_type.as_str()));
    }
    answer.extend(shape.extra.clone());
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A refusal of a code.
pub(super) fn bad_code(status: StatusCode) -> Reply {
    refuse(status, "invalid_grant", "Invalid authorization code")
}

/// A refusal of a code for the sake of its verifier (RFC 7636, section 4.6).
pub(super) fn bad_verifier() -> Reply {
    refuse(
        StatusCode::BAD_REQUEST,
        "invalid_grant",
        "Invalid code verifier",
    )
}

/// The answer to wrong client credentials in a refresh.
pub(super) fn bad_client(status: StatusCode) -> Reply {
    if status == StatusCode::BAD_REQUEST {
        refuse(status, "invalid_grant", REFUSED)
    } else {
        refuse(
            status,
            "invalid_client",
            "Invalid client id or client secret",
        )
    }
}

/// The same for everything else, where 400 was never seen.
pub(super) fn bad_client_elsewhere(status: StatusCode) -> Reply {
    bad_client(if status == StatusCode::BAD_REQUEST {
        StatusCode::UNAUTHORIZED
    } else {
        status
    })
}

/// An OAuth error (RFC 6749, section 5.2) with the headers that were seen on Lucid's.
pub(super) fn refuse(status: StatusCode, error: &str, description: &str) -> Reply {
    let body = json!({ "error": error, "error_description": description, "error_uri": "" });
    let mut reply = reply::json(status, &body);
    for (name, value) in [
        (CONNECTION, "close"),
        (VARY, "Origin"),
        (VIA, "1.1 sandbox"),
        (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (ALT_SVC, "h3=\":443\"; ma=93600"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    reply
}
