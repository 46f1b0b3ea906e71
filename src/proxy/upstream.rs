//! Connections to upstream: opened, kept, used for one exchange at a time, and driven by the task that uses them.
//!
//! hyper's client comes in two halves, one that takes requests and one that moves the bytes. The second is usually
//! given a task of its own, and each request then crosses tasks four times. Here the request's own task drives both:
//! while a request is sent, while its answer is awaited and while its body streams, whoever is polled polls the
//! connection first. A connection in the pool is driven by nobody; it is looked at when it is taken out.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Outgoing, RequestBody};
use super::connection::{Bounds, Connection, Target, nobody};
use super::send_error::SendError;

/// Where requests go, and the connections of one worker to it.
#[derive(Debug)]
pub struct Upstream {
    target: Arc<Target>,
    /// Unused connections, the most recently used last: it is taken first, so that the others can age and go.
    idle: RefCell<Vec<Connection>>,
    /// Told when the first connection comes into an empty pool.
    filled: Notify,
}

impl Upstream {
    /// An empty pool.
    pub fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            idle: RefCell::new(Vec::new()),
            filled: Notify::new(),
        }
    }

    /// Sends a request, which `attempt` makes, and waits for the head of its answer.
    ///
    /// A kept connection may end as it is used. The request is then sent on another if not one byte of it was written,
    /// or, once and on a new connection, if `idempotent` says that upstream may get it twice and its content can be
    /// had again (F8).
    ///
    /// # Errors
    ///
    /// When no answer came; the request may have been processed all the same.
    pub async fn send(
        self: &Rc<Self>,
        attempt: impl Fn() -> Request<Outgoing>,
        body: &RequestBody,
        idempotent: bool,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let mut kept = self.take_idle();
        loop {
            let connection = match kept.take() {
                Some(connection) => connection,
                // Boxed: the handshakes' state would otherwise be carried along by every request.
                None => Box::pin(self.target.connect()).await?,
            };
            let reused = connection.reused;
            match self.exchange(connection, attempt(), body).await {
                Ok(response) => return Ok(response),
                Err(Unanswered {
                    error: SendError::Ended(_),
                    unsent: true,
                }) if reused => {
                    kept = self.take_idle();
                }
                Err(Unanswered {
                    error: SendError::Ended(_),
                    ..
                }) if reused && idempotent && body.is_replayable() => {}
                Err(Unanswered { error, .. }) => return Err(error),
            }
        }
    }

    /// One attempt on one connection. Not an `async fn`, whose state would keep a place for the request that has long
    /// been handed over.
    fn exchange(
        self: &Rc<Self>,
        mut connection: Connection,
        request: Request<Outgoing>,
        body: &RequestBody,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, Unanswered>> {
        let answer = connection.sender.try_send_request(request);
        let overdue = overdue(self.target.bounds(), body);
        let mut connection = Some(connection);
        async move {
            let mut answer = pin!(answer);
            let mut overdue = pin!(overdue);
            let answered = poll_fn(|cx| {
                let ended = |connection: &mut Connection| connection.drive(cx).is_ready();
                if connection.as_mut().is_some_and(ended) {
                    // Dropped, it says so to whoever still waits for it.
                    connection = None;
                }
                match answer.as_mut().poll(cx) {
                    Poll::Ready(answered) => Poll::Ready(answered.map_err(Unanswered::from)),
                    Poll::Pending => overdue.as_mut().poll(cx).map(|error| {
                        Err(Unanswered {
                            error,
                            unsent: false,
                        })
                    }),
                }
            })
            .await?;
            let uploading = body.progress().is_some_and(|progress| !progress.ended);
            let driver = connection.map(|connection| Driver::new(connection, self, uploading));
            Ok(answered.map(|incoming| UpstreamBody { incoming, driver }))
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.idle_since.elapsed() < self.target.bounds().idle && connection.is_ready()
            {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    fn give_back(&self, mut connection: Connection) {
        // Most often it has been driven to that point already.
        if !connection.sender.is_ready() && !connection.is_ready() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            self.filled.notify_one();
        }
        idle.push(connection);
    }

    /// Closes connections that nobody uses any more; runs as long as the worker.
    pub async fn sweep(&self) {
        loop {
            self.filled.notified().await;
            loop {
                tokio::time::sleep(self.target.bounds().idle).await;
                let mut idle = self.idle.borrow_mut();
                idle.retain_mut(|connection| {
                    connection.idle_since.elapsed() < self.target.bounds().idle
                        && connection.is_ready()
                });
                if idle.is_empty() {
                    break;
                }
            }
        }
    }
}

/// An exchange that brought no answer.
#[derive(Debug)]
struct Unanswered {
    error: SendError,
    /// Whether not one byte of the request was written.
    unsent: bool,
}

impl From<TrySendError<Request<Outgoing>>> for Unanswered {
    fn from(mut error: TrySendError<Request<Outgoing>>) -> Self {
        let unsent = error.take_message().is_some();
        let source = error.into_error();
        let error = if source.is_parse() {
            SendError::Garbage(source)
        } else if source.is_user() {
            // Of what hyper calls its user's, only the body can fail here.
            SendError::RequestBody(source)
        } else {
            SendError::Ended(source)
        };
        Self { error, unsent }
    }
}

/// Waits until the wait for an answer has lasted too long: the request must keep moving until it is over, and then the
/// answer must begin in time.
async fn overdue(bounds: Bounds, body: &RequestBody) -> SendError {
    let begun = Instant::now();
    let mut deadline = begun + bounds.response.min(bounds.body);
    loop {
        tokio::time::sleep_until(deadline).await;
        let (next, error) = match body.progress() {
            Some(progress) if !progress.ended => (
                progress.moved.max(begun) + bounds.body,
                SendError::RequestTimeout(bounds.body),
            ),
            progress => {
                let sent = progress.map_or(begun, |progress| progress.moved.max(begun));
                (
                    sent + bounds.response,
                    SendError::ResponseTimeout(bounds.response),
                )
            }
        };
        if next <= Instant::now() {
            return error;
        }
        deadline = next;
    }
}

/// The content of upstream's answer, and the connection that it comes over.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// `None` when the connection has ended or is free again.
    driver: Option<Driver>,
}

/// Who moves the bytes while a response streams.
#[derive(Debug)]
enum Driver {
    /// Whoever polls the body.
    Reader {
        connection: Connection,
        upstream: Rc<Upstream>,
    },
    /// A task of its own, for an answer that began before the request was over: a client that sends all of its request
    /// before it reads must not wait for itself. The connection ends with the exchange.
    Task(
        #[expect(dead_code, reason = "held for its drop, which ends the task")]
        AbortOnDropHandle<()>,
    ),
}

impl Driver {
    fn new(connection: Connection, upstream: &Rc<Upstream>, uploading: bool) -> Self {
        if !uploading {
            return Self::Reader {
                connection,
                upstream: upstream.clone(),
            };
        }
        Self::Task(AbortOnDropHandle::new(tokio::task::spawn_local(
            async move {
                // How it ends, the body says.
                let _ = connection.driver.await;
            },
        )))
    }
}

impl UpstreamBody {
    /// The next frame. When the last has come, the connection is free for the next request.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(Driver::Task(_)) = &self.driver {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        }
        // A small body has often come with the head and waits here already.
        let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody());
        if frame.is_pending() {
            self.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody());
        }
        if let Poll::Ready(None) = frame {
            self.release();
        }
        frame
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
        self.incoming.is_end_stream()
    }

    /// What is to come.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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
        // A body of known length that was read to its end may never have been asked for more.
        if self.incoming.is_end_stream() {
            self.release();
        }
    }
}
