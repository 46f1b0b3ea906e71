//! A request body as one attempt to send the request reads it: what was recorded, then what the client sends.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::recorder::{Lost, Reading, Recorded};
use super::recording::{Client, Failed, Recording};
use crate::proxy::leash::{self, Leash, Leashed};
use crate::proxy::multiplexed::Lease;

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
}

/// What goes upstream as the content of one attempt.
///
/// Boxed: requests are moved many times on their way through hyper, and most have no content.
#[derive(Debug)]
pub struct Outgoing(Option<Box<Content>>);

#[derive(Debug)]
struct Content {
    reader: Reader,
    shared: Option<OnStream>,
}

/// On a connection that others use too.
#[derive(Debug)]
struct OnStream {
    leashed: Leashed,
    place: Lease,
    /// Whether it has been asked for.
    begun: bool,
}

impl OnStream {
    /// Makes sure that the task can be ended that sends this: hyper waits there for upstream to take what it has, and asks
    /// for no more meanwhile.
    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.place.begin_upload(self.leashed.keeper());
        }
    }
}

impl Outgoing {
    /// The next attempt to send what is recorded there.
    pub(super) fn new(recording: Option<&Rc<RefCell<Recording>>>) -> Self {
        let content = recording.map(|recording| Content {
            reader: Reader::new(recording),
            shared: None,
        });
        Self(content.map(Box::new))
    }

    /// No content.
    #[cfg(test)]
    pub(in crate::proxy) fn empty() -> Self {
        Self::new(None)
    }

    /// From now on no more of the content is sent when what is returned is dropped, and the stream is reset. Without
    /// content there is nothing to end.
    /// The place on the connection is taken as long as it is sent.
    pub(in crate::proxy) fn leash(&mut self, place: Lease) -> Option<Leash> {
        let content = self.0.as_mut()?;
        let (leash, leashed) = leash::leash();
        content.shared = Some(OnStream {
            leashed,
            place,
            begun: false,
        });
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
        let Poll::Ready(frame) = self.poll_frame(&mut recording, cx) else {
            match &mut recording.waiting {
                Some(waker) => waker.clone_from(cx.waker()),
                waiting => *waiting = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
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
            || self.trailers_read
            || caught_up && recording.client == Client::Done && recording.trailers.is_none();
        // hyper asks for nothing behind the announced length.
        recording.progress.ended = self.ended || self.length == Some(self.position);
        recording.caught_up = caught_up;
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
                match frame {
                    None if recording.client == Client::Gone => {
                        Poll::Ready(Some(Err(OutgoingError::Gone)))
                    }
                    frame => Poll::Ready(frame.map(|frame| frame.map_err(OutgoingError::Client))),
                }
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
        let Some(content) = &mut self.0 else {
            return Poll::Ready(None);
        };
        if let Some(shared) = &mut content.shared {
            shared.begin();
        }
        content.reader.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|content| content.reader.ended)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(content) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let reader = &content.reader;
        let rest = reader
            .length
            .map(|length| length.saturating_sub(reader.position));
        rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
