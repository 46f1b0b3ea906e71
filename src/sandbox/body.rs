//! The bodies of answers: whole, slow, mirrored or cut.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::intake::MeteredBody;
use super::shared::InFlight;

/// The body of an answer.
#[derive(Debug)]
pub(super) struct ReplyBody {
    content: Content,
    /// Held for its `Drop`.
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Paced {
        blocks: Arc<[Bytes]>,
        /// Index of the block to send next.
        next: usize,
        /// Bytes not sent yet.
        left: u64,
        pause: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    },
    Half {
        first: Option<Bytes>,
        flushed: bool,
    },
    Mirror(MeteredBody),
}

impl ReplyBody {
    /// All at once.
    pub(super) fn whole(bytes: Bytes) -> ReplyBody {
        ReplyBody::new(Content::Whole(bytes))
    }

    /// Block by block, with a pause before each.
    pub(super) fn paced(blocks: Arc<[Bytes]>, pause: Duration) -> ReplyBody {
        let left = blocks.iter().map(|block| block.len() as u64).sum();
        ReplyBody::new(Content::Paced {
            blocks,
            next: 0,
            left,
            pause,
            sleep: None,
        })
    }

    /// A request's body, while it arrives.
    pub(super) fn mirror(body: MeteredBody) -> ReplyBody {
        ReplyBody::new(Content::Mirror(body))
    }

    /// The first part of a body, after which the connection is cut.
    pub(super) fn half(self) -> ReplyBody {
        let first = match self.content {
            Content::Whole(bytes) => bytes.slice(..bytes.len() / 2),
            Content::Paced { blocks, .. } => blocks.first().cloned().unwrap_or_default(),
            Content::Mirror(_) | Content::Half { .. } => Bytes::new(),
        };
        ReplyBody::new(Content::Half {
            first: Some(first),
            flushed: false,
        })
    }

    fn new(content: Content) -> ReplyBody {
        ReplyBody {
            content,
            in_flight: None,
        }
    }

    /// Counts the request as in flight until its answer is out.
    pub(super) fn keep(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }
}

type FrameResult = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        match &mut self.get_mut().content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Paced {
                blocks,
                next,
                left,
                pause,
                sleep,
            } => {
                let Some(block) = blocks.get(*next) else {
                    return Poll::Ready(None);
                };
                if !pause.is_zero() {
                    let timer = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(*pause)));
                    ready!(timer.as_mut().poll(cx));
                    *sleep = None;
                }
                *next += 1;
                *left -= block.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(block.clone()))))
            }
            Content::Half { first, flushed } => {
                if let Some(bytes) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                if !*flushed {
                    // One turn of the connection's loop, in which it writes out what it has: an error drops the rest.
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(Box::new(Cut))))
            }
            Content::Mirror(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Paced { left, .. } => *left == 0,
            Content::Half { .. } => false,
            Content::Mirror(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Paced { left, .. } => SizeHint::with_exact(*left),
            Content::Half { .. } => SizeHint::default(),
            Content::Mirror(body) => body.size_hint(),
        }
    }
}

/// Ends the connection without an answer, or in the middle of one.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script cuts the connection")
    }
}

impl Error for Cut {}
