//! A request body on its way to upstream, recorded while it passes (rules F4 and F5).

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::proxy::head;
use crate::proxy::leash::{self, Leash, Leashed};
use crate::proxy::multiplexed::Lease;

/// A client's request body: it streams to upstream and is recorded as it passes, up to a limit. As long as the
/// recording is whole it can be read again from its beginning, also while the client is still sending.
#[derive(Clone, Debug)]
pub struct RequestBody(Option<Rc<RefCell<Recording>>>);

#[derive(Debug)]
struct Recording<B = Incoming> {
    incoming: B,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    recorded: usize,
    /// Bytes that are recorded at the most.
    limit: usize,
    /// Whether everything that came so far is recorded.
    whole: bool,
    /// The attempt that may read; others stand still.
    attempt: u32,
    /// Whether that one stands still too.
    paused: bool,
    /// It, where it has asked meanwhile.
    stopped: Option<Waker>,
    /// When the body last moved, or ended.
    moved: Instant,
    ended: bool,
    /// Whether the client's part of the request broke off.
    failed: bool,
}

impl RequestBody {
    /// A body that is recorded up to `limit` bytes.
    pub fn record(incoming: Incoming, limit: usize) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Recording::new(incoming, limit)))))
    }

    /// The body from its beginning, for the next attempt to send the request. Earlier attempts stand still from now on.
    pub fn attempt(&self) -> Outgoing {
        let Some(recording) = &self.0 else {
            return Outgoing {
                reader: None,
                leashed: None,
                place: None,
            };
        };
        let mut shared = recording.borrow_mut();
        shared.attempt += 1;
        shared.paused = false;
        let reader = Reader {
            attempt: shared.attempt,
            next: 0,
            trailers_read: false,
            hint: shared.hint(),
            recording: recording.clone(),
        };
        Outgoing {
            reader: Some(reader),
            leashed: None,
            place: None,
        }
    }

    /// Stops the attempt under way from reading on: what the client sends from now on is for the next one.
    pub fn pause(&self) {
        if let Some(recording) = &self.0 {
            recording.borrow_mut().paused = true;
        }
    }

    /// Lets the attempt that [`RequestBody::pause`] stopped read on.
    pub fn resume(&self) {
        if let Some(recording) = &self.0 {
            let mut recording = recording.borrow_mut();
            recording.paused = false;
            if let Some(reader) = recording.stopped.take() {
                reader.wake();
            }
        }
    }

    /// Whether the body can be sent again byte for byte.
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|recording| {
            let recording = recording.borrow();
            recording.whole && !recording.failed
        })
    }

    /// When the client's part of the request last moved, and whether it is over.
    pub fn progress(&self) -> Option<Progress> {
        let recording = self.0.as_ref()?.borrow();
        Some(Progress {
            moved: recording.moved,
            ended: recording.ended,
            failed: recording.failed,
        })
    }
}

/// How far a request body has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// When it last moved.
    pub moved: Instant,
    /// Whether all of it has been handed on.
    pub ended: bool,
    /// Whether it broke off.
    pub failed: bool,
}

impl<B> Recording<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn new(incoming: B, limit: usize) -> Self {
        // A body that says beforehand that it is too large need not be recorded up to there.
        let whole = incoming.size_hint().lower() <= limit as u64;
        let moved = Instant::now();
        Self {
            incoming,
            chunks: Vec::new(),
            trailers: None,
            recorded: 0,
            limit,
            whole,
            attempt: 0,
            paused: false,
            stopped: None,
            moved,
            ended: false,
            failed: false,
        }
    }

    /// The exact size of the body from its beginning, where the client gave it.
    fn hint(&self) -> SizeHint {
        match self.incoming.size_hint().exact() {
            Some(rest) if self.whole => SizeHint::with_exact(rest + self.recorded as u64),
            Some(rest) => SizeHint::with_exact(rest),
            None => SizeHint::default(),
        }
    }

    /// The next frame from the client, recorded if there is room.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.moved = Instant::now();
        match frame {
            Some(Ok(frame)) => {
                // Of a body of known length nobody asks for more than that.
                self.ended = self.incoming.is_end_stream();
                Poll::Ready(self.keep(frame).map(Ok))
            }
            Some(Err(error)) => {
                self.failed = true;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn keep(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                self.keep_data(&data);
                Some(Frame::data(data))
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                head::strip_trailers(&mut trailers);
                self.trailers = Some(trailers.clone());
                Some(Frame::trailers(trailers))
            }
        }
    }

    fn keep_data(&mut self, data: &Bytes) {
        if !self.whole {
            return;
        }
        self.recorded += data.len();
        if self.recorded > self.limit {
            self.whole = false;
            self.chunks = Vec::new();
        } else {
            self.chunks.push(data.clone());
        }
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

/// Why the content of a request cannot be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// The client's part of it broke off.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The same, as an earlier attempt has seen.
    #[error("the client's part of the request has broken off")]
    Broken,
    /// The answer to it is not wanted any longer.
    #[error("the answer is over or given up")]
    LetGo,
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

#[derive(Debug)]
struct Reader<B = Incoming> {
    recording: Rc<RefCell<Recording<B>>>,
    attempt: u32,
    /// The next of the recorded chunks.
    next: usize,
    trailers_read: bool,
    hint: SizeHint,
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut recording = self.recording.borrow_mut();
        if recording.attempt != self.attempt {
            // Another attempt has taken over; this one is about to be dropped.
            return Poll::Pending;
        }
        if recording.paused {
            recording.stopped = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(chunk) = recording.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if let (Some(trailers), false) = (&recording.trailers, self.trailers_read) {
            self.trailers_read = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if recording.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(recording.poll_client(cx));
        self.next = recording.chunks.len();
        self.trailers_read = recording.trailers.is_some();
        Poll::Ready(frame)
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
            Some(reader) => match ready!(reader.poll(cx)) {
                // What broke off must not look whole because it is asked once more.
                None if reader.recording.borrow().failed => {
                    Poll::Ready(Some(Err(OutgoingError::Broken)))
                }
                frame => Poll::Ready(frame.map(|frame| frame.map_err(OutgoingError::Client))),
            },
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |reader| reader.hint)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
