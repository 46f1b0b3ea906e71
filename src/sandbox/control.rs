//! Control over HTTP, for scripts: no token needed.

use chrono::Utc;
use http::request::Parts;
use http::{Method, StatusCode};

use super::reply::{self, Fault, FlowId, Reply};
use super::shared::Shared;

/// Whether `path` is answered here.
pub(super) fn serves(path: &str) -> bool {
    matches!(
        path,
        "/sandbox/counts" | "/sandbox/grants" | "/sandbox/expire"
    )
}

pub(super) fn answer(shared: &Shared, head: &Parts, flow: FlowId) -> Reply {
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/sandbox/counts") => reply::json(StatusCode::OK, &shared.ledger.snapshot()),
        (&Method::POST, "/sandbox/grants") => reply::json(StatusCode::CREATED, &shared.approve()),
        (&Method::POST, "/sandbox/expire") => {
            shared.grants().expire_access_tokens(Utc::now());
            reply::empty(StatusCode::NO_CONTENT)
        }
        _ => Fault::of(StatusCode::METHOD_NOT_ALLOWED).into_reply(flow),
    }
}
