//! The rest of a request that was answered before its end (rule F18).

use std::time::Duration;

use super::body::RequestBody;

/// How long the client may be silent while nobody wants what it sends; nginx has the same, by the name of
/// `lingering_timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// Sees to the rest of a request whose answer has begun.
///
/// Upstream gets it, also behind a whole answer, until it stands still for `standstill`. What upstream does not take is
/// read and forgotten, for `bound` at the most: many clients send all of a request before they read a byte of the
/// answer. A connection that is closed with bytes on it that were not read is reset, and with the reset the other side
/// loses what it has not read yet: the answer.
pub(super) async fn carry_on(body: RequestBody, standstill: Duration, bound: Duration) {
    let too_slow = async {
        body.left().await;
        // Nothing comes from a client that was not asked for it before it had the answer.
        if !body.is_unasked() {
            body.stands_still(standstill).await;
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
}
