//! May this request pass? Judges its bearer token, and answers 401 where it may not.

use chrono::Utc;
use http::header::{AUTHORIZATION, CONNECTION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::api::split_version;
use super::behaviour::Behaviour;
use super::grants::{Bearer, Denial};
use super::reply::{self, Fault, FlowId, Reply};
use super::shared::Shared;

/// What became of a request's token.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Nothing when the resource does not look at it.
    token: Option<Result<Bearer, Refused>>,
    pub(super) accepted: bool,
}

#[derive(Debug)]
enum Refused {
    Missing,
    Denied(Denial),
}

impl Verdict {
    pub(super) fn reach(shared: &Shared, head: &Parts, refuse_anyway: bool) -> Verdict {
        let (_, path) = split_version(head.uri.path());
        let refuse_anyway = refuse_anyway
            || Behaviour::covers(shared.behaviour.borrow().unauthorized_under.as_ref(), path);
        if head.method == Method::GET && path == "/embeds" {
            return Verdict {
                token: None,
                accepted: !refuse_anyway,
            };
        }
        let token = match bearer_token(&head.headers) {
            Some(token) => match shared.bearer_of_key(token) {
                Some(bearer) => Ok(bearer),
                None => {
                    let judged = shared.grants().judge(token, Utc::now());
                    judged.map_err(Refused::Denied)
                }
            },
            None => Err(Refused::Missing),
        };
        let accepted = token.is_ok() && !refuse_anyway;
        Verdict {
            token: Some(token),
            accepted,
        }
    }

    pub(super) fn count(&self, shared: &Shared) {
        shared.ledger.update(|counts| {
            let generation = match &self.token {
                None => return,
                Some(Ok(bearer)) => bearer.generation,
                Some(Err(Refused::Missing)) => return counts.missing_tokens += 1,
                Some(Err(Refused::Denied(Denial::Unknown))) => return counts.unknown_tokens += 1,
                Some(Err(Refused::Denied(Denial::Dead(generation)))) => {
                    counts.dead_tokens += 1;
                    *generation
                }
            };
            *counts.api_by_generation.entry(generation).or_default() += 1;
        });
    }

    pub(super) fn bearer(&self) -> Option<&Bearer> {
        self.token.as_ref().and_then(|token| token.as_ref().ok())
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// A 401 in the form that the behaviour says.
pub(super) fn unauthorized(shared: &Shared, flow: FlowId) -> Reply {
    let behaviour = shared.behaviour.borrow();
    let form = &behaviour.unauthorized;
    let mut reply = match form.empty_body {
        true => reply::empty(StatusCode::UNAUTHORIZED),
        false => Fault::of(StatusCode::UNAUTHORIZED).into_reply(flow),
    };
    if form.close {
        reply
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(challenge) = &form.www_authenticate {
        reply
            .headers_mut()
            .insert(WWW_AUTHENTICATE, challenge.clone());
    }
    reply
}
