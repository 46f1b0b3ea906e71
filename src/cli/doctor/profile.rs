//! One authenticated request, and what its answer says about this machine's clock.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::super::times::{local, span};
use super::network::Io;
use super::report::{Check, Fault, Report, Unreached};
use super::tokens::{NotTried, not_tried};
use crate::config::Origin;
use crate::secret::{Secret, bearer_header};
use crate::token::record::Record;
use crate::token::transport::date;

const PROFILE: &str = "profile";
const CLOCK: &str = "clock";
/// What Lucid answers to every token that has not died.
const PATH: &str = "/users/me/profile";
/// From the request to the end of the answer.
const BOUND: Duration = Duration::from_secs(15);
/// More than any profile.
const LARGEST: usize = 64 << 10;
/// `Date` counts whole seconds, and the answer was on its way for some.
const USUAL_SKEW: Duration = Duration::from_secs(30);
/// Here certificates and expiries begin to be misjudged.
const HARMFUL_SKEW: Duration = Duration::from_secs(300);

/// What the request is authenticated with.
pub(super) enum Proof {
    /// The access token of a login that should live.
    Login(Box<Record>),
    /// An API key.
    Key(Secret),
}

impl Proof {
    fn secret(&self) -> &Secret {
        match self {
            Self::Login(record) => &record.access_token,
            Self::Key(key) => key,
        }
    }

    fn refused(&self, seen: &str) -> Check {
        match self {
            Self::Login(record) => Check::failed(
                PROFILE,
                format!(
                    "{seen}, although the token should live until {}",
                    local(record.expires_at)
                ),
                "a running proxy heals that with the first request; to do so now: lucid-proxy refresh",
            ),
            Self::Key(_) => Check::failed(
                PROFILE,
                format!("{seen}: Lucid does not take the API key"),
                "compare LUCID_API_KEY, or what proxy.toml says, with the keys in Lucid's developer portal: it may have expired or been removed there; nothing here can renew it",
            )
            .of(Fault::Configuration),
        }
    }

    fn forbidden(&self, seen: &str) -> Check {
        match self {
            Self::Login(record) if record.account_id.is_some() => Check::ok(
                PROFILE,
                format!("{seen}: the token was taken; an account has no profile"),
            ),
            Self::Login(_) => Check::warning(
                PROFILE,
                format!("{seen}: the token was taken, but may not read profiles"),
                "nothing, if no program needs the scope user.profile; else add it to scopes and run: lucid-proxy login",
            ),
            Self::Key(_) => Check::warning(
                PROFILE,
                format!("{seen}: the API key was taken, but may not read profiles"),
                "nothing, if no program needs them; else make a key with that grant in Lucid's developer portal",
            ),
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// In the middle between request and answer, on this machine's clock.
    at: SystemTime,
    took: Duration,
}

/// Sends the one request on the connection that was proved before: the profile where there is a living token, else a
/// question without credentials, whose answer shows the clock all the same.
pub(super) async fn examine(
    origin: &Origin,
    way: Result<Box<dyn Io>, Unreached>,
    living: Result<Proof, NotTried>,
    report: &mut Report,
) {
    let stream = match way {
        Ok(stream) => stream,
        Err(unreached) => {
            report.push(Check::depends(PROFILE, unreached));
            report.push(Check::depends(CLOCK, unreached));
            return;
        }
    };
    let answer = match living {
        Err((because, advice)) => {
            report.push(not_tried(PROFILE, because, advice));
            ask(origin, Method::HEAD, "/", None, stream).await
        }
        Ok(proof) => {
            let Ok(bearer) = bearer_header(proof.secret()) else {
                let seen = "the access token has characters that no header may carry";
                report.push(Check::failed(PROFILE, seen, "run: lucid-proxy refresh"));
                return;
            };
            let answer = ask(origin, Method::GET, PATH, Some(&bearer), stream).await;
            report.push(judge(origin, answer.as_ref(), &proof));
            answer
        }
    };
    report.push(match answer {
        Ok(answer) => clock(&answer),
        Err(error) => Check::skipped(CLOCK, format!("{origin} did not answer: {error}")),
    });
}

async fn ask(
    origin: &Origin,
    method: Method,
    path: &str,
    bearer: Option<&HeaderValue>,
    stream: Box<dyn Io>,
) -> Result<Answer, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, origin.authority())
        .header(
            USER_AGENT,
            concat!("lucid-proxy/", env!("CARGO_PKG_VERSION")),
        )
        .header(ACCEPT, "application/json")
        .header("lucid-api-version", "1");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(BOUND, exchange(request, stream)).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no whole answer within {} s", BOUND.as_secs())),
    }
}

async fn exchange(
    request: Request<Empty<Bytes>>,
    stream: Box<dyn Io>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut moved = tokio::task::JoinSet::new();
    // Ends with the set, which is dropped here.
    moved.spawn(connection);
    let (at, begun) = (SystemTime::now(), Instant::now());
    let response = sender.send_request(request).await?;
    let took = begun.elapsed();
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        at: at + took / 2,
        took,
    })
}

fn judge(origin: &Origin, answer: Result<&Answer, &String>, proof: &Proof) -> Check {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let seen = format!("GET {origin}{PATH}: {error}");
            let advice = "something on the way accepts connections and does not answer as Lucid does; check upstream.url";
            return Check::failed(PROFILE, seen, advice);
        }
    };
    let status = answer.status;
    let seen = format!("GET {PATH} answered {status} in {:.0?}", answer.took);
    let user = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|profile| profile.get("id")?.as_u64());
    match (status, user) {
        (StatusCode::OK, Some(user)) => Check::ok(PROFILE, format!("{seen}: user {user}")),
        (StatusCode::OK, None) => Check::failed(
            PROFILE,
            format!("{seen}, but no profile"),
            "something else than Lucid's API answers; check upstream.url",
        ),
        (StatusCode::UNAUTHORIZED, _) => proof.refused(&seen),
        (StatusCode::FORBIDDEN, _) => proof.forbidden(&seen),
        (StatusCode::TOO_MANY_REQUESTS, _) => Check::warning(
            PROFILE,
            seen,
            "Lucid's rate limit is used up; send fewer requests",
        ),
        _ => Check::failed(
            PROFILE,
            seen,
            "Lucid has trouble, or something on the way answers in its place (check upstream.url); try again later",
        ),
    }
}

fn clock(answer: &Answer) -> Check {
    let Some(theirs) = date(&answer.headers) else {
        return Check::skipped(CLOCK, "the answer does not tell the server's time");
    };
    let (skew, side) = match answer.at.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let advice = "set it (on most systems: timedatectl set-ntp true); certificates, the expiry of tokens that came from another machine and all times in the log are misjudged";
    let seen = format!("{} {side} the server", span(skew));
    match skew {
        skew if skew > HARMFUL_SKEW => Check::failed(CLOCK, seen, advice),
        skew if skew > USUAL_SKEW => Check::warning(CLOCK, seen, advice),
        _ => Check::ok(
            CLOCK,
            format!("within {} s of the server's", USUAL_SKEW.as_secs()),
        ),
    }
}
