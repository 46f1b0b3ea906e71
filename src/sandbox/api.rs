//! The REST API: the steps of one request.

use std::sync::Arc;

use http::request::Parts;
use hyper::body::Incoming;

use super::behaviour::{ApiFailure, Behaviour, Timing};
use super::body::Cut;
use super::intake::{self, Content, Incomplete, MeteredBody, Received};
use super::problems;
use super::reply::{self, FlowId, Reply};
use super::resources::Call;
use super::shared::{InFlight, Shared};
use super::verdict::{self, Verdict};

pub(super) async fn answer(
    shared: &Arc<Shared>,
    head: &Parts,
    body: Incoming,
    flow: FlowId,
) -> Result<Reply, Cut> {
    let in_flight = InFlight::enter(shared);
    problems::check_api_head(shared, head);
    let mut reply = exchange(shared, head, body, flow).await?;
    shared.ledger.update(|counts| {
        *counts
            .api_by_status
            .entry(reply.status().as_u16())
            .or_default() += 1
    });
    reply.body_mut().keep(in_flight);
    Ok(reply)
}

/// One request, step by step.
async fn exchange(
    shared: &Arc<Shared>,
    head: &Parts,
    body: Incoming,
    flow: FlowId,
) -> Result<Reply, Cut> {
    let failure = shared.take_api_failure();
    if failure == Some(ApiFailure::CutAtHead) {
        return Err(Cut);
    }
    let body = MeteredBody::new(body, shared);
    let refuse_anyway = failure == Some(ApiFailure::Unauthorized);
    let admission = admit(shared, head, body, refuse_anyway).await;
    // A client that left in the middle of its body waits for no answer.
    let Admission {
        verdict,
        received,
        unread,
    } = admission.map_err(|Incomplete| Cut)?;
    verdict.count(shared);
    if let Content::Malformed(reason) = &received.content {
        problems::report(shared, head, reason);
    }

    let (_, path) = split_version(head.uri.path());
    shared.pause(|behaviour| behaviour.api_delay).await;
    shared
        .gate(|behaviour| !Behaviour::covers(behaviour.hold_under.as_ref(), path))
        .await;

    let mut reply = match (verdict.accepted, unread) {
        (true, Some(body)) => reply::mirror(body),
        (true, None) => {
            let call = Call {
                shared,
                head,
                received: &received,
                bearer: verdict.bearer(),
            };
            call.answer(failure.as_ref())
                .unwrap_or_else(|fault| fault.into_reply(flow))
        }
        (false, unread) => {
            unread
                .into_iter()
                .for_each(|body| leave_unread(shared, body));
            verdict::unauthorized(shared, flow)
        }
    };
    if let Some(digest) = &received.digest {
        digest.stamp(&mut reply);
    }
    match failure {
        Some(ApiFailure::CutAfter) => Err(Cut),
        Some(ApiFailure::HalfBody) => Ok(reply::cut_in_half(reply)),
        _ => Ok(reply),
    }
}

/// A request whose token was judged.
struct Admission {
    verdict: Verdict,
    /// What was read of its body, if that was all of it.
    received: Received,
    /// The body, if it was not read to its end: the answer comes early, or is that body.
    unread: Option<MeteredBody>,
}

/// Judges the token and reads the body, in the order that the behaviour says.
async fn admit(
    shared: &Shared,
    head: &Parts,
    mut body: MeteredBody,
    refuse_anyway: bool,
) -> Result<Admission, Incomplete> {
    let timing = shared.behaviour.borrow().unauthorized.timing;
    let mut verdict = Verdict::reach(shared, head, refuse_anyway);
    let early = match timing {
        _ if verdict.accepted => head.uri.path().starts_with("/sandbox/mirror"),
        Timing::AtHead => true,
        Timing::AfterBytes(bytes) => {
            body.read(bytes).await?;
            true
        }
        Timing::AfterBody => false,
    };
    if early {
        return Ok(Admission {
            verdict,
            received: Received::default(),
            unread: Some(body),
        });
    }
    let received = intake::receive(body, head).await?;
    // Without a body no time has passed.
    if timing == Timing::AfterBody && received.digest.is_some() {
        verdict = Verdict::reach(shared, head, refuse_anyway);
    }
    Ok(Admission {
        verdict,
        received,
        unread: None,
    })
}

/// The version in a path, and the path without it.
pub(super) fn split_version(path: &str) -> (Option<u8>, &str) {
    match path.strip_prefix("/v1") {
        Some(rest) if rest.starts_with('/') => (Some(1), rest),
        _ => (None, path),
    }
}

/// Goes on reading a body whose answer came early, beside the answer, or leaves it alone.
fn leave_unread(shared: &Arc<Shared>, mut body: MeteredBody) {
    if shared.behaviour.borrow().drain_after_early_answer {
        // The task ends with the body or with the connection, and a body cut short is counted as it is noticed.
        tokio::spawn(async move { drop(body.drain().await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_segment_is_a_version() {
        assert_eq!(split_version("/v1/users"), (Some(1), "/users"));
        assert_eq!(split_version("/users"), (None, "/users"));
        assert_eq!(split_version("/v10/users"), (None, "/v10/users"));
    }
}
