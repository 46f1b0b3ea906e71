//! The rest of a request that was answered before its end (rule F18).

use std::time::Duration;

use http::StatusCode;

use super::body::{RequestBody, Unread};

/// How long the client may be silent while nobody wants what it sends, and upstream take nothing of a request that it has
/// refused; nginx has the former, by the name of `lingering_timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// Sees to the rest of a request whose answer has begun.
///
/// Upstream gets it, also behind a whole answer, until one of the two stands still for `standstill`. Where that answer is
/// an error, upstream may do so more briefly: hardly anything depends on the rest then, and the client may not see the
/// error before all is sent. What upstream does not take is read and forgotten, for `bound` at the most: many clients send
/// all of a request before they read a byte of the answer. A connection that is closed with bytes on it that were not read
/// is reset, and with the reset the other side loses what it has not read yet: the answer. All that time the request
/// counts as `unread`: a connection with nothing to do is closed.
pub(super) async fn carry_on(
    body: RequestBody,
    answer: StatusCode,
    standstill: Duration,
    bound: Duration,
    unread: Unread,
) {
    let too_slow = async {
        body.left().await;
        // Nothing comes from a client that was not asked for it before it had the answer.
        if !body.is_unasked() {
            body.stands_still(standstill, patience(answer, standstill))
                .await;
        }
    };
    tokio::select! {
        () = body.unattended() => {}
        () = too_slow => {}
    }
    body.stop();
    let reading =
        async { while let Ok(true) = tokio::time::timeout(SILENCE, body.discard()).await {} };
    // However it ends: the client's connection follows.
    let _ = tokio::time::timeout(bound, reading).await;
    drop(unread);
}

/// How long upstream may take nothing of a request that it has answered so.
fn patience(answer: StatusCode, standstill: Duration) -> Duration {
    let refused = answer.is_client_error() || answer.is_server_error();
    if refused {
        standstill.min(SILENCE)
    } else {
        standstill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f18_only_an_error_shortens_the_wait_for_upstream() {
        let two_minutes = Duration::from_secs(120);
        for (status, expected) in [
            (StatusCode::OK, two_minutes),
            (StatusCode::ACCEPTED, two_minutes),
            (StatusCode::TEMPORARY_REDIRECT, two_minutes),
            (StatusCode::PAYLOAD_TOO_LARGE, SILENCE),
            (StatusCode::INTERNAL_SERVER_ERROR, SILENCE),
        ] {
            assert_eq!(patience(status, two_minutes), expected, "{status}");
        }
        let short = Duration::from_millis(300);
        assert_eq!(patience(StatusCode::UNAUTHORIZED, short), short);
    }
}
