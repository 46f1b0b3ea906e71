//! A request body on its way to upstream, recorded while it passes (rules F4 and F5).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::request::Parts;
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::expectation::Expectation;
use super::outgoing::Outgoing;
use super::recorder::Lost;
use super::recording::{Client, Progress, Recording};
use super::recordings::Recordings;
use crate::proxy::head::Names;
use crate::proxy::upstream_body::Upload;

/// A client's request body: it streams to upstream and is recorded as it passes. As long as the recording is whole it
/// can be read again from its beginning, also while the client is still sending.
#[derive(Clone, Debug)]
pub struct RequestBody(Option<Rc<RefCell<Recording>>>);

impl RequestBody {
    /// The content of the request with this head, which has `names`, recorded within these limits.
    pub fn record(
        head: &Parts,
        names: Names,
        incoming: Incoming,
        recordings: &Arc<Recordings>,
    ) -> Self {
        // By far the most requests have no content: nothing is made for them.
        if incoming.is_end_stream() {
            return Self(None);
        }
        let expectation = names
            .has(Names::EXPECT)
            .then(|| Expectation::of(head))
            .flatten();
        let recording = Recording::new(incoming, head.version, expectation, recordings);
        Self(Some(Rc::new(RefCell::new(recording))))
    }

    /// Whether there is any content, be it empty.
    pub fn has_content(&self) -> bool {
        self.0.is_some()
    }

    /// The body from its beginning, for the next attempt to send the request. Earlier attempts stand still from now on.
    pub fn attempt(&self) -> Outgoing {
        Outgoing::new(self.0.as_ref())
    }

    /// The next attempt as a request.
    pub fn attempt_with(&self, head: Parts) -> Request<Outgoing> {
        let mut request = Request::from_parts(head, self.attempt());
        if let Some(recording) = &self.0
            && let Some(expectation) = &mut recording.borrow_mut().expectation
        {
            expectation.listen(&mut request);
        }
        request
    }

    /// The body for the proxy itself: nothing is kept of it.
    pub fn read_here(&self) -> Outgoing {
        self.ask();
        if let Some(recording) = &self.0 {
            recording.borrow_mut().recorder.give_up(Lost::Answered);
        }
        self.attempt()
    }

    /// Has the client asked for the content as soon as somebody reads it, whatever it expects.
    pub fn ask(&self) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().expectation = None;
        }
    }

    /// Whether the client was never asked for the content, and may never send it.
    pub fn is_unasked(&self) -> bool {
        let is_unasked =
            |recording: &Rc<RefCell<Recording>>| recording.borrow().expectation.is_some();
        self.0.as_ref().is_some_and(is_unasked)
    }

    /// Stops the attempt under way from reading on: what the client sends from now on is for the next one.
    pub fn pause(&self) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().pause();
        }
    }

    /// Lets the attempt that [`RequestBody::pause`] stopped read on.
    pub fn resume(&self) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().resume();
        }
    }

    /// Says that no attempt will follow: what has been read of the recording is not needed any more.
    pub fn answered(&self) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().answer();
        }
    }

    /// Whether what passes is recorded. It is not where the client has announced more than there is room for.
    pub fn is_recorded(&self) -> bool {
        let is_recorded = |recording: &Rc<RefCell<Recording>>| {
            let recording = recording.borrow();
            recording.recorder.lost().is_none()
        };
        self.0.as_ref().is_none_or(is_recorded)
    }

    /// Whether the body can be sent again byte for byte.
    pub fn is_replayable(&self) -> bool {
        self.lost().is_none()
    }

    /// Why the body cannot be sent again, where that is so.
    pub fn lost(&self) -> Option<Lost> {
        self.0.as_ref()?.borrow().lost()
    }

    /// Counts the content bytes that come from the client from now on.
    pub fn count(&self, received: Rc<Cell<u64>>) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().received = Some(received);
        }
    }

    /// Whether more is to come from the client, or to be handed on.
    pub fn is_unfinished(&self) -> bool {
        let is_unfinished = |recording: &Rc<RefCell<Recording>>| {
            let recording = recording.borrow();
            recording.client == Client::Sending
                || recording.readers > 0 && !recording.progress.ended
        };
        self.0.as_ref().is_some_and(is_unfinished)
    }

    /// The answer is over: what sends the rest of the request is left to whoever carries it on.
    pub(in crate::proxy) fn leave(&self, upload: Upload) {
        let Some(recording) = &self.0 else { return };
        let mut recording = recording.borrow_mut();
        match recording.readers {
            // Nobody waits for it to stand still.
            0 => upload.finish(),
            _ => recording.leave(upload),
        }
    }

    /// Completes when the rest of the request is left to whoever asks.
    pub async fn left(&self) {
        if let Some(recording) = &self.0 {
            poll_fn(|cx| recording.borrow_mut().poll_left(cx)).await;
        }
    }

    /// Sends no more of it.
    pub fn stop(&self) {
        if let Some(recording) = &self.0 {
            let (left, attended) = {
                let mut recording = recording.borrow_mut();
                recording.pause();
                (recording.left.take(), recording.readers > 0)
            };
            // Not while the recording is borrowed, of which it is a reader.
            match left {
                Some(upload) if !attended => upload.finish(),
                left => drop(left),
            }
        }
    }

    /// Completes when no attempt is left that could take more.
    pub async fn unattended(&self) {
        if let Some(recording) = &self.0 {
            poll_fn(|cx| recording.borrow_mut().poll_unattended(cx)).await;
        }
    }

    /// Takes what the client sends next and forgets it; returns whether more may follow.
    pub async fn discard(&self) -> bool {
        match &self.0 {
            Some(recording) => poll_fn(|cx| recording.borrow_mut().poll_discard(cx)).await,
            None => false,
        }
    }

    /// Completes when the attempt under way has waited for so long for the client, or, more briefly, for upstream.
    pub async fn stands_still(&self, client: Duration, upstream: Duration) {
        while let Some(progress) = self.progress() {
            let bound = match progress.waits_for_client {
                true => client,
                false => upstream,
            };
            let deadline = progress.moved + bound;
            let now = Instant::now();
            if deadline <= now {
                return;
            }
            // Whoever is waited for may change at any time.
            tokio::time::sleep_until(deadline.min(now + upstream)).await;
        }
    }

    /// How far the attempt under way has come; `None` where there is no content.
    pub fn progress(&self) -> Option<Progress> {
        Some(self.0.as_ref()?.borrow().progress)
    }
}
