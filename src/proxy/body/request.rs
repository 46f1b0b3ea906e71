//! A request body on its way to upstream, recorded while it passes (rules F4 and F5).

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::activity::Busy;
use super::expectation::Expectation;
use super::recorder::{Lost, Reading, Recorded};
use super::recording::{Client, Failed, Progress, Recording};
use super::recordings::Recordings;
use crate::proxy::leash::{self, Leash, Leashed};
use crate::proxy::multiplexed::Lease;
use crate::proxy::upstream::Upload;

/// A client's request body: it streams to upstream and is recorded as it passes. As long as the recording is whole it
/// can be read again from its beginning, also while the client is still sending.
#[derive(Clone, Debug)]
pub struct RequestBody(Option<Rc<RefCell<Recording>>>);

/// Why a request body cannot be sent on.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError<E: Error + 'static = hyper::Error> {
    /// The client has left, or sends what is no body.
    #[error("the client's part broke off")]
    Client(#[source] E),
    /// The same, noticed by an earlier attempt.
    #[error("the client's part broke off before")]
    Gone,
    /// What has passed cannot be sent again.
    #[error("there is no recording of what has passed: {0}")]
    Lost(Lost),
    /// The disk does not give back what it took.
    #[error("the recording cannot be read")]
    Unreadable(#[source] io::Error),
    /// The answer to it is not wanted any longer.
    #[error("the answer is over or given up")]
    LetGo,
}

impl RequestBody {
    /// The content of the request with this head, which is recorded within these limits.
    pub fn record(head: &Parts, incoming: Incoming, recordings: &Arc<Recordings>) -> Self {
        // By far the most requests have no content: nothing is made for them.
        if incoming.is_end_stream() {
            return Self(None);
        }
        let recording = Recording::new(incoming, Expectation::of(head), recordings);
        Self(Some(Rc::new(RefCell::new(recording))))
    }

    /// The body from its beginning, for the next attempt to send the request. Earlier attempts stand still from now on.
    pub fn attempt(&self) -> Outgoing {
        Outgoing {
            reader: self.0.as_ref().map(Reader::new),
            leashed: None,
            place: None,
        }
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
    pub(in crate::proxy) fn leave(&self, upload: Upload, busy: Option<Busy>) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().leave(upload, busy);
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
            let left = {
                let mut recording = recording.borrow_mut();
                recording.pause();
                recording.left.take()
            };
            // Not while the recording is borrowed, of which it is a reader.
            drop(left);
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

    /// Completes when the attempt under way has not moved for so long.
    pub async fn stands_still(&self, bound: Duration) {
        while let Some(progress) = self.progress()
            && progress.moved.elapsed() < bound
        {
            tokio::time::sleep_until(progress.moved + bound).await;
        }
    }

    /// How far the attempt under way has come; `None` where there is no content.
    pub fn progress(&self) -> Option<Progress> {
        Some(self.0.as_ref()?.borrow().progress)
    }
}

/// What goes upstream as the content of one attempt.
#[derive(Debug)]
pub struct Outgoing {
    /// `None` where there is no content.
    reader: Option<Reader>,
    leashed: Option<Leashed>,
    /// Held for its drop.
    place: Option<Lease>,
}

impl Outgoing {
    /// From now on the content ends with an error when what is returned is dropped. Without content there is nothing to
    /// end.
    /// The place on the connection is taken as long as it is sent.
    pub(in crate::proxy) fn leash(&mut self, place: Lease) -> Option<Leash> {
        self.reader.as_ref()?;
        self.place = Some(place);
        let (leash, leashed) = leash::leash();
        self.leashed = Some(leashed);
        Some(leash)
    }
}

struct Reader<B = Incoming> {
    recording: Rc<RefCell<Recording<B>>>,
    attempt: u32,
    /// How many bytes this attempt has handed on.
    position: u64,
    trailers_read: bool,
    /// What is being read from the file.
    reading: Option<Reading>,
    length: Option<u64>,
    ended: bool,
}

type FrameResult<E> = Result<Frame<Bytes>, OutgoingError<E>>;

impl<B> Reader<B>
where
    B: Body<Data = Bytes, Error: Error> + Unpin,
{
    fn new(recording: &Rc<RefCell<Recording<B>>>) -> Self {
        let mut shared = recording.borrow_mut();
        Self {
            recording: recording.clone(),
            attempt: shared.begin_attempt(),
            position: 0,
            trailers_read: false,
            reading: None,
            length: shared.length,
            ended: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<FrameResult<B::Error>>> {
        let recording = self.recording.clone();
        let mut recording = recording.borrow_mut();
        if recording.turn != self.attempt {
            // Another attempt has taken over, and this one is about to be dropped; unless it is told to go on.
            if recording.paused.0 == self.attempt {
                recording.paused.1 = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let frame = ready!(self.poll_frame(&mut recording, cx));
        recording.progress.moved = Instant::now();
        recording.progress.failed = frame.as_ref().and_then(|frame| match frame {
            Err(OutgoingError::Lost(_) | OutgoingError::Unreadable(_)) => Some(Failed::Recording),
            Err(_) => Some(Failed::Client),
            Ok(_) => None,
        });
        if let Some(data) = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
        {
            self.position += data.len() as u64;
        }
        let caught_up = self.position == recording.passed;
        self.ended = frame.is_none()
            || caught_up
                && recording.client == Client::Done
                && (recording.trailers.is_none() || self.trailers_read);
        recording.progress.ended = self.ended;
        if caught_up && recording.answered {
            recording.recorder.give_up(Lost::Answered);
        }
        Poll::Ready(frame)
    }

    /// The next of what is recorded; then of what the client sends.
    fn poll_frame(
        &mut self,
        recording: &mut Recording<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<FrameResult<B::Error>>> {
        if self.position < recording.passed {
            let data = ready!(self.poll_recorded(recording, cx));
            return Poll::Ready(Some(data.map(Frame::data)));
        }
        if let (Some(trailers), false) = (&recording.trailers, self.trailers_read) {
            self.trailers_read = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        match recording.client {
            Client::Sending => {
                let frame = ready!(recording.poll_client(cx));
                self.trailers_read = recording.trailers.is_some();
                Poll::Ready(frame.map(|frame| frame.map_err(OutgoingError::Client)))
            }
            Client::Done => Poll::Ready(None),
            // To hyper's channel this is an end like any other, once it has told the error.
            Client::Gone => Poll::Ready(Some(Err(OutgoingError::Gone))),
        }
    }

    fn poll_recorded(
        &mut self,
        recording: &Recording<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, OutgoingError<B::Error>>> {
        if self.reading.is_none() {
            if let Some(lost) = recording.recorder.lost() {
                return Poll::Ready(Err(OutgoingError::Lost(lost)));
            }
            match recording.recorder.at(self.position) {
                Recorded::InMemory(bytes) => return Poll::Ready(Ok(bytes)),
                Recorded::OnDisk(reading) => self.reading = Some(reading),
            }
        }
        let reading = self.reading.as_mut().expect("it was begun");
        let bytes = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(bytes.map_err(OutgoingError::Unreadable))
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        self.recording.borrow_mut().end_attempt();
    }
}

impl<B> fmt::Debug for Reader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("attempt", &self.attempt)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
        let is_let_go = |leashed: &Leashed| leashed.is_let_go(cx);
        if self.leashed.as_ref().is_some_and(is_let_go) {
            return Poll::Ready(Some(Err(OutgoingError::LetGo)));
        }
        match &mut self.reader {
            Some(reader) => reader.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.ended)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.reader else {
            return SizeHint::with_exact(0);
        };
        let rest = reader
            .length
            .map(|length| length.saturating_sub(reader.position));
        rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
