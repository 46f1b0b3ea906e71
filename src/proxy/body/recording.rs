//! One request body and its recording, for all attempts to send it.

use std::cell::Cell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::expectation::Expectation;
use super::recorder::{Lost, Recorder};
use super::recordings::Recordings;
use crate::proxy::head;
use crate::proxy::upstream_body::Upload;

/// What the client sends, and what has passed of it.
#[derive(Debug)]
pub(super) struct Recording<B = Incoming> {
    pub(super) incoming: B,
    /// Whether the client can break off without an error: by a reset that says that there is none, in HTTP/2.
    quiet_resets: bool,
    /// How many bytes the client has announced.
    pub(super) length: Option<u64>,
    pub(super) recorder: Recorder,
    /// How many bytes have come.
    pub(super) passed: u64,
    /// Where they are counted too, if anybody wants to know.
    pub(super) received: Option<Rc<Cell<u64>>>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) client: Client,
    /// Keeps the content with the client until upstream wants it.
    pub(super) expectation: Option<Expectation>,
    /// Attempts that were given out, by their number.
    pub(super) attempts: u32,
    /// The attempt that may read; others stand still.
    pub(super) turn: u32,
    /// Whether that one has read all that has come.
    pub(super) caught_up: bool,
    /// Who waits for more of it to come.
    pub(super) waiting: Option<Waker>,
    /// The attempt that was stopped and may be told to go on, and who waits for that.
    pub(super) paused: (u32, Option<Waker>),
    /// Attempts that are still there.
    pub(super) readers: u32,
    /// Sends on what is left of the request when its answer is over.
    pub(super) left: Option<Upload>,
    /// Who waits for a change of the two.
    pub(super) heir: Option<Waker>,
    /// No attempt will follow.
    pub(super) answered: bool,
    pub(super) progress: Progress,
}

/// What is to be expected of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Sending,
    /// All has come.
    Done,
    /// No more comes, although more was to.
    Gone,
}

/// How far an attempt to send a request body has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// When it last moved.
    pub moved: Instant,
    /// Whether all of it has been handed on, but for trailers where its length was announced.
    pub ended: bool,
    /// Whether more is wanted and the client sends none.
    pub waits_for_client: bool,
    /// Why it cannot be, where that is so.
    pub failed: Option<Failed>,
}

/// Whose part of a request body failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The client's.
    Client,
    /// The recording's.
    Recording,
}

impl<B> Recording<B> {
    pub(super) fn begin_attempt(&mut self) -> u32 {
        self.attempts += 1;
        self.turn = self.attempts;
        self.readers += 1;
        self.progress.ended = self.length == Some(0);
        self.progress.waits_for_client = false;
        self.progress.failed = None;
        self.caught_up = self.passed == 0;
        self.turn
    }

    /// The answer is here, and no attempt will follow. A client that was not asked for the content by then never is.
    pub(super) fn answer(&mut self) {
        self.answered = true;
        if self.caught_up {
            self.recorder.give_up(Lost::Answered);
        }
        if self.expectation.is_some() {
            self.pause();
        }
    }

    /// An attempt is over.
    pub(super) fn end_attempt(&mut self) {
        self.readers -= 1;
        self.wake_heir();
    }

    /// The answer is over, and somebody else sees to the rest of the request.
    pub(super) fn leave(&mut self, upload: Upload) {
        self.left = Some(upload);
        self.wake_heir();
    }

    fn wake_heir(&mut self) {
        if let Some(heir) = self.heir.take() {
            heir.wake();
        }
    }

    /// Ready when there is no attempt left.
    pub(super) fn poll_unattended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_heir(self.readers == 0, cx)
    }

    /// Ready when the rest of the request was left to whoever asks.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_heir(self.left.is_some(), cx)
    }

    fn poll_heir(&mut self, ready: bool, cx: &mut Context<'_>) -> Poll<()> {
        if ready {
            return Poll::Ready(());
        }
        self.heir = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn pause(&mut self) {
        self.paused = (self.turn, self.waiting.take());
        self.attempts += 1;
        self.turn = self.attempts;
    }

    pub(super) fn resume(&mut self) {
        let (attempt, waiting) = std::mem::take(&mut self.paused);
        self.turn = attempt;
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    pub(super) fn lost(&self) -> Option<Lost> {
        if self.client == Client::Gone {
            return Some(Lost::Gone);
        }
        // What is still all with the client needs no recording, however large it is.
        self.recorder.lost().filter(|_| self.passed > 0)
    }
}

impl<B> Recording<B>
where
    B: Body<Data = Bytes, Error: Error> + Unpin,
{
    pub(super) fn new(
        incoming: B,
        version: Version,
        expectation: Option<Expectation>,
        recordings: &Arc<Recordings>,
    ) -> Self {
        let length = incoming.size_hint().exact();
        Self {
            incoming,
            quiet_resets: version == Version::HTTP_2,
            length,
            recorder: Recorder::new(recordings, length),
            passed: 0,
            received: None,
            trailers: None,
            client: Client::Sending,
            expectation,
            attempts: 0,
            turn: 0,
            caught_up: true,
            waiting: None,
            paused: (0, None),
            readers: 0,
            left: None,
            heir: None,
            answered: false,
            progress: Progress {
                moved: Instant::now(),
                ended: false,
                waits_for_client: false,
                failed: None,
            },
        }
    }

    /// Takes what the client sends next and forgets it; ready with whether more may follow.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.recorder.give_up(Lost::Answered);
        if self.client == Client::Sending {
            let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
            match frame {
                Some(Ok(_)) if !self.incoming.is_end_stream() => {}
                Some(Ok(_)) | None => self.client = Client::Done,
                Some(Err(_)) => self.client = Client::Gone,
            }
        }
        Poll::Ready(self.client == Client::Sending)
    }

    /// The next frame from the client, recorded; none when the client is [`Client::Done`] or [`Client::Gone`]. Pending also while upstream does not want it, and while the recording
    /// has no room for it.
    pub(super) fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(expectation) = &mut self.expectation {
            ready!(expectation.poll_asked(cx));
            self.expectation = None;
        }
        ready!(self.recorder.poll_room(cx));
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        self.progress.waits_for_client = frame.is_pending();
        Poll::Ready(match ready!(frame) {
            Some(Ok(frame)) => {
                let frame = self.keep(frame);
                // Of a body of known length nobody asks for more than that.
                if self.incoming.is_end_stream() {
                    self.client = Client::Done;
                }
                // What is due goes to the disk before the next frame is asked for.
                let _ = self.recorder.poll_room(cx);
                frame.map(Ok)
            }
            Some(Err(error)) => {
                self.client = Client::Gone;
                Some(Err(error))
            }
            None => {
                let is_whole = !self.quiet_resets || self.incoming.is_end_stream();
                self.client = if is_whole { Client::Done } else { Client::Gone };
                None
            }
        })
    }

    fn keep(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                self.passed += data.len() as u64;
                if let Some(received) = &self.received {
                    received.set(self.passed);
                }
                self.recorder.keep(&data);
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
}
