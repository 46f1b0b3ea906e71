//! `Expect: 100-continue`: the content stays with the client until upstream asks for it (rule F17).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, StatusCode, Version};
use tokio::time::Sleep;

/// How long upstream may keep silent before the client is asked all the same. A server that does not know the
/// expectation says nothing and waits for the content; curl waits as long for it.
const SILENCE: Duration = Duration::from_secs(1);

/// A client that waits to be asked for the content (RFC 9110 section 10.1.1).
///
/// hyper's server asks it, with one 100, as soon as somebody wants the first byte. So nobody does before upstream has
/// sent its own 100: a final answer then reaches the client in the place of a 100, and a 401 is cured without one.
pub(super) struct Expectation {
    asked: Arc<AtomicBool>,
    /// Runs while an attempt waits.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Expectation {
    /// The expectation of a request, if it has one. In HTTP/1.0 there is none, whatever it says, and hyper goes by the
    /// last of several lines.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let last = head.headers.get_all(EXPECT).iter().next_back();
        let expects =
            last.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        (expects && head.version == Version::HTTP_11).then(|| Self {
            asked: Arc::default(),
            silence: None,
        })
    }

    /// Has upstream's 100 noticed, as long as this attempt lasts.
    pub(super) fn listen<B>(&mut self, request: &mut Request<B>) {
        self.silence = None;
        let asked = self.asked.clone();
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                // hyper asks for the content next, on the same thread.
                asked.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Ready when the client may be asked.
    pub(super) fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE)));
        silence.as_mut().poll(cx)
    }
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expectation")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}
