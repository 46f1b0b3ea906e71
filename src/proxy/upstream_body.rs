//! The content of an answer on its way from upstream, and what becomes of its connection when it is over.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::task::AbortOnDropHandle;

use super::body::BodyError;
use super::connection::{Connection, nobody};
use super::leash::Leash;
use super::multiplexed::Lease;
use super::upstream::Upstream;

/// The content of upstream's answer, and the connection that it comes over.
#[derive(Debug)]
pub struct UpstreamBody {
    /// `None` when its end was read and the rest of its request is let go.
    incoming: Option<Incoming>,
    /// `None` when the connection has ended or is free again.
    driver: Option<Driver>,
    /// Whether trailers have come: whoever has them may not ask whether anything follows.
    has_trailers: bool,
    /// Whether the answer can have any, as far as its head and that of the request tell. In HTTP/1.1 hyper knows.
    has_content: bool,
}

/// Sends what is left of a request; stops when it is dropped.
#[derive(Debug)]
pub(super) struct Upload(Driver);

impl Upload {
    /// All of the request is with the connection. What is not written yet still is, without anybody to wait for it.
    pub(super) fn finish(self) {
        match self.0 {
            Driver::Task(driving, upstream) => upstream.see_out(driving),
            Driver::Shared {
                leash: Some(leash),
                upstream,
                ..
            } if !leash.is_sent() => upstream.see_out(leash.sent()),
            _ => {}
        }
    }
}

/// Who moves the bytes while a response streams.
#[derive(Debug)]
pub(super) enum Driver {
    /// Whoever polls the body.
    Reader {
        connection: Box<Connection>,
        upstream: Rc<Upstream>,
    },
    /// The tasks of an HTTP/2 connection, on which the answer has its place, and an upload under way its end.
    Shared {
        lease: Lease,
        leash: Option<Leash>,
        upstream: Rc<Upstream>,
    },
    /// A task of its own, for an answer that began before the request was over: a client that sends all of its request
    /// before it reads must not wait for itself. The connection ends with the exchange.
    Task(AbortOnDropHandle<()>, Rc<Upstream>),
}

impl Driver {
    pub(super) fn new(
        connection: Box<Connection>,
        upstream: &Rc<Upstream>,
        uploading: bool,
    ) -> Self {
        if !uploading {
            return Self::Reader {
                connection,
                upstream: upstream.clone(),
            };
        }
        let driving = tokio::task::spawn_local(connection.finish());
        Self::Task(AbortOnDropHandle::new(driving), upstream.clone())
    }
}

impl UpstreamBody {
    /// The content of an answer on a connection that serves no other.
    pub(super) fn alone(
        incoming: Incoming,
        driver: AbortOnDropHandle<()>,
        upstream: Rc<Upstream>,
    ) -> Self {
        Self::new(incoming, Some(Driver::Task(driver, upstream)))
    }

    /// The content of an answer on a stream of a shared connection, and whether the answer can have any.
    pub(super) fn on_stream(incoming: Incoming, driver: Driver, has_content: bool) -> Self {
        let mut content = Self::new(incoming, Some(driver));
        content.has_content = has_content;
        content
    }

    /// The content of an answer that `driver` moves, or that is all here.
    pub(super) fn new(incoming: Incoming, driver: Option<Driver>) -> Self {
        Self {
            incoming: Some(incoming),
            driver,
            has_trailers: false,
            has_content: true,
        }
    }

    /// The next frame. When the last has come, the connection is free for the next request.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(match &self.driver {
            Some(Driver::Task(..)) => self.poll_incoming(cx),
            Some(Driver::Shared { .. }) => self.poll_stream(cx),
            Some(Driver::Reader { .. }) | None => self.poll_driven(cx),
        });
        self.has_trailers |= matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        Poll::Ready(frame)
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn poll_driven(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // A small body has often come with the head and waits here already.
        let mut frame = self.poll_incoming(&mut nobody());
        if frame.is_pending() {
            self.drive(cx);
            frame = self.poll_incoming(&mut nobody());
        }
        if let Poll::Ready(None) = frame {
            self.release();
        }
        frame
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_incoming(cx));
        // To hyper a stream that is reset without an error has ended well.
        let is_reset = frame.is_none() && !self.has_ended();
        Poll::Ready(if is_reset {
            Some(Err(BodyError::Reset))
        } else {
            frame
        })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(Driver::Reader { connection, .. }) = &mut self.driver
            && connection.drive(cx).is_ready()
        {
            // Nothing more will come; what has come is still to be read, or the error is.
            self.driver = None;
        }
    }

    /// Whether nothing is to come.
    pub fn is_end_stream(&self) -> bool {
        self.has_trailers || !self.has_content || self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Whether no content is to come. In HTTP/2 the end of the stream may still be, or trailers.
    pub(super) fn is_all_content(&self) -> bool {
        self.is_end_stream() || self.size_hint().exact() == Some(0)
    }

    /// What is to come.
    pub fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(SizeHint::default, Body::size_hint)
    }

    /// Nothing more of this is wanted, and that is as it should be. Returns what sends the rest of the request, where
    /// there is more to send.
    pub(super) fn finish(mut self) -> Option<Upload> {
        match self.driver.take() {
            Some(driver @ Driver::Task(..)) => Some(Upload(driver)),
            Some(Driver::Shared {
                lease,
                leash,
                upstream,
            }) => {
                let upload = leash.map(|leash| Driver::Shared {
                    lease: lease.clone(),
                    leash: Some(leash),
                    upstream: upstream.clone(),
                });
                self.see_end(lease, upstream);
                upload.map(Upload)
            }
            driver => {
                self.driver = driver;
                None
            }
        }
    }

    /// Reads on to the end of the stream where that is still to come: dropped before, the stream is reset, and upstream
    /// may take it that nobody wanted its answer. The place is taken meanwhile.
    fn see_end(mut self, lease: Lease, upstream: Rc<Upstream>) {
        if self.has_trailers || self.has_ended() {
            return;
        }
        if self.poll_end(&mut nobody()).is_pending() {
            upstream.see_out(async move {
                poll_fn(|cx| self.poll_end(cx)).await;
                drop(lease);
            });
        }
    }

    /// Ready when the stream has ended, or goes on with what it should not.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.poll_incoming(cx)) {
                // hyper tells the end as content that there is none of.
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// The answer is over: its place on a shared connection is free for others, and nobody waits for the rest of the
    /// request to be sent there. Where that is not over, the stream is reset.
    pub(super) fn let_go(&mut self) {
        if let Some(Driver::Shared { .. }) = &self.driver {
            self.driver = None;
            self.incoming = None;
        }
    }

    fn release(&mut self) {
        if let Some(Driver::Reader {
            connection,
            upstream,
        }) = self.driver.take()
        {
            upstream.give_back(connection);
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // A body that was read to its end may never have been asked for more.
        if self.is_end_stream() {
            self.release();
        }
    }
}
