//! `/oauth2/…` answered here (rule F11): a program that refreshes by itself gets placeholders with the expiry of the real
//! pair, which it never touches.
//!
//! [`check_head`] and [`errand`] judge what is asked and keep nothing of the tokens and credentials in it; the answers are
//! made by [`refreshed`] and [`introspected`]. Whatever the program then sends as its token, [`head`](super::head) puts
//! the real one in its place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, PRAGMA, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};

use super::Proxy;
use super::body::{Outgoing, RequestBody, ResponseBody};
use super::exchange::Exchange;
use super::reply::{self, Refusal};
use super::route::Endpoint;
use crate::clock::{Clock, SystemClock};
use crate::token::placeholder::{self, Placeholder};
use crate::token::transport::PRODUCT;
use crate::token::{Bearer, Terms};

/// The largest request that is read: tokens and an application's credentials take a few kilobytes at the most.
const LARGEST: usize = 64 << 10;

/// How long Lucid's access tokens live.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);

/// What a program asks.
#[derive(Debug, PartialEq, Eq)]
enum Errand {
    /// A new pair, for whatever it has as its refresh token.
    Refresh,
    /// Whether a token lives: a placeholder, or anything else.
    Introspect(Option<Placeholder>),
}

impl Proxy {
    /// Answers a request to one of the OAuth endpoints. It waits for a living pair as every request does, since what a
    /// program is told must be so, and does nothing else with it.
    pub(super) async fn answer_oauth(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        body: &RequestBody,
        exchange: Option<&mut Exchange>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        refuse_our_own(&head.headers)?;
        check_head(endpoint, &head.method)?;
        let content = read(body.read_here(), self.settings.body_timeout).await?;
        let errand = errand(endpoint, &head.headers, &content)?;
        if errand == Errand::Introspect(None) {
            return Ok(answer(&Inactive { active: false }));
        }
        let bearer = self.settings.grant.bearer().await?;
        if let Some(exchange) = exchange {
            exchange.generation = bearer.generation;
            exchange.note = Some("answered here");
        }
        let (client_id, now) = (self.settings.client_id.as_str(), SystemClock.now().wall);
        Ok(match errand {
            Errand::Introspect(Some(placeholder)) => {
                answer(&introspected(placeholder, &bearer.terms, client_id, now))
            }
            _ => answer(&refreshed(&bearer, client_id, now)),
        })
    }
}

fn answer(json: &impl Serialize) -> Response<ResponseBody> {
    let mut response = reply::answer(json, "answered by the proxy, which keeps the real tokens");
    // RFC 6749 section 5.1 asks for it beside Cache-Control.
    let pragma = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(PRAGMA, pragma);
    response
}

/// A `lucid-proxy` that was led here looks for the real pair. It must not be told of another's in its place, and must not
/// wait here for itself.
fn refuse_our_own(headers: &HeaderMap) -> Result<(), Refusal> {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    if !agent.is_some_and(|agent| agent.starts_with(PRODUCT.as_bytes())) {
        return Ok(());
    }
    Err(Refusal::oauth(
        StatusCode::MISDIRECTED_REQUEST,
        placeholder::MISDIRECTED,
        "http_request_denied",
        "this is a lucid-proxy and not the token endpoint: HTTPS_PROXY or token_url leads the lucid-proxy that asks here; it has to ask Lucid itself",
    ))
}

fn check_head(endpoint: Endpoint, method: &Method) -> Result<(), Refusal> {
    if endpoint == Endpoint::Unknown {
        return Err(Refusal::unknown_oauth_endpoint());
    }
    if method != Method::POST {
        return Err(Refusal::oauth(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
            "http_request_denied",
            "this is answered to POST alone, with the parameters in the body",
        ));
    }
    Ok(())
}

/// Reads all of a request's content within `bound` (`timeouts.body`).
async fn read(content: Outgoing, bound: Duration) -> Result<Bytes, Refusal> {
    if content.size_hint().lower() > LARGEST as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(bound, Limited::new(content, LARGEST).collect()).await {
        Ok(Ok(content)) => Ok(content.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(malformed(
            "the request body ended before its time or is not framed as HTTP/1.1 asks",
        )),
        Err(_) => Err(Refusal::oauth(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request",
            "http_request_error",
            format!("the request body did not arrive within {bound:?} (timeouts.body)"),
        )),
    }
}

fn too_large() -> Refusal {
    Refusal::oauth(
        StatusCode::PAYLOAD_TOO_LARGE,
        "invalid_request",
        "http_request_error",
        format!(
            "the request body is too large; up to {} KiB are accepted here",
            LARGEST >> 10
        ),
    )
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::oauth(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "http_request_error",
        message,
    )
}

fn unsupported(code: &'static str, message: &str) -> Refusal {
    Refusal::oauth(
        StatusCode::BAD_REQUEST,
        code,
        "http_request_denied",
        message,
    )
}

/// What is asked of an endpoint. The application's credentials are nobody's business here, and no refresh token is
/// better than another.
fn errand(endpoint: Endpoint, headers: &HeaderMap, content: &[u8]) -> Result<Errand, Refusal> {
    if endpoint == Endpoint::Revoke {
        return Err(unsupported(
            "unsupported_token_type",
            "nothing was revoked: the login belongs to the proxy and to all programs that use it; it is ended with lucid-proxy logout; this program need only forget its tokens",
        ));
    }
    let parameters = Parameters::read(headers, content)?;
    if endpoint == Endpoint::Introspect {
        let token = given("token", parameters.token)?;
        return Ok(Errand::Introspect(Placeholder::of(&token)));
    }
    match given("grant_type", parameters.grant_type)?.as_str() {
        "refresh_token" => {
            given("refresh_token", parameters.refresh_token).map(|_| Errand::Refresh)
        }
        "authorization_code" => Err(unsupported(
            "unsupported_grant_type",
            "the proxy takes no code: log in with lucid-proxy login where the proxy runs; requests that go through it then need no token, and grant_type=refresh_token is answered whatever the refresh token is",
        )),
        _ => Err(unsupported(
            "unsupported_grant_type",
            "the proxy answers grant_type=refresh_token alone; requests that go through it need no token",
        )),
    }
}

/// A parameter without a value counts as left out (RFC 6749 section 3.2).
fn given(name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        malformed(format!(
            "the parameter {name} is missing; parameters are read from a body of application/json or application/x-www-form-urlencoded"
        ))
    })
}

/// Those of the parameters that matter. No `Debug`: they can be real tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    grant_type: Option<String>,
    refresh_token: Option<String>,
    token: Option<String>,
}

impl Parameters {
    fn read(headers: &HeaderMap, content: &[u8]) -> Result<Self, Refusal> {
        // No form begins with a brace, and not every script says what it sends.
        if is_json(headers) || content.trim_ascii_start().starts_with(b"{") {
            return serde_json::from_slice(content).map_err(|_| {
                malformed("the request body is not a JSON object with each parameter once, as text")
            });
        }
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(content) {
            let place = match &*name {
                "grant_type" => &mut parameters.grant_type,
                "refresh_token" => &mut parameters.refresh_token,
                "token" => &mut parameters.token,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(malformed(format!(
                    "the parameter {name} is there more than once"
                )));
            }
        }
        Ok(parameters)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    })
}

/// A successful answer of Lucid's token endpoint.
#[derive(Serialize)]
struct Refreshed<'a> {
    access_token: String,
    refresh_token: String,
    /// Not known where there is an API key.
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'a str,
    #[serde(flatten)]
    expiry: Expiry,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes: &'a [String],
    token_type: &'a str,
    #[serde(flatten)]
    member: Member,
}

/// What Lucid says about a living token.
#[derive(Serialize)]
struct Introspected<'a> {
    active: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'a str,
    #[serde(flatten)]
    expiry: Expiry,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    token_type: &'a str,
    #[serde(flatten)]
    member: Member,
}

#[derive(Serialize)]
struct Inactive {
    active: bool,
}

/// When a token dies, in both of Lucid's ways.
#[derive(Serialize)]
struct Expiry {
    /// Seconds from now.
    expires_in: u64,
    /// Milliseconds since the epoch.
    expires: u64,
}

/// Whose a token is: a user's or an account's, never both.
#[derive(Serialize)]
struct Member {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<u64>,
}

impl Expiry {
    fn of(end: SystemTime, now: SystemTime) -> Self {
        let since = |start| end.duration_since(start).unwrap_or_default();
        Self {
            expires_in: since(now).as_secs(),
            expires: u64::try_from(since(UNIX_EPOCH).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Member {
    fn of(terms: &Terms) -> Self {
        let (user_id, account_id) = (terms.owner.user_id, terms.owner.account_id);
        Self {
            user_id,
            account_id: account_id.filter(|_| user_id.is_none()),
        }
    }
}

/// When a placeholder for the access token dies. That for an API key, of whose end nobody knows, lives as long as a token
/// of Lucid's, from the moment in which somebody asks.
fn end(terms: &Terms, now: SystemTime) -> SystemTime {
    terms.expires_at.unwrap_or(now + USUAL_LIFETIME)
}

fn refreshed<'a>(bearer: &'a Bearer, client_id: &'a str, now: SystemTime) -> Refreshed<'a> {
    let generation = bearer.generation.unwrap_or(0);
    Refreshed {
        access_token: Placeholder::Access.token(generation),
        refresh_token: Placeholder::Refresh.token(generation),
        client_id,
        expiry: Expiry::of(end(&bearer.terms, now), now),
        scopes: &bearer.terms.scopes,
        token_type: "bearer",
        member: Member::of(&bearer.terms),
    }
}

fn introspected<'a>(
    placeholder: Placeholder,
    terms: &Terms,
    client_id: &'a str,
    now: SystemTime,
) -> Introspected<'a> {
    let access_token = end(terms, now);
    let end = match placeholder {
        Placeholder::Access => access_token,
        Placeholder::Refresh => terms.refresh_token_end.unwrap_or(access_token),
    };
    Introspected {
        active: true,
        client_id,
        expiry: Expiry::of(end, now),
        scope: terms.scopes.join(" "),
        token_type: "bearer",
        member: Member::of(terms),
    }
}

#[cfg(test)]
#[path = "oauth2_tests.rs"]
mod tests;
