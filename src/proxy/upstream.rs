//! Connections to upstream: opened, kept and used, over HTTP/1.1 for one exchange at a time and driven by the task that
//! uses them, over HTTP/2 for many (`multiplexed`).
//!
//! hyper's client comes in two halves, one that takes requests and one that moves the bytes. The second is usually
//! given a task of its own, and each request then crosses tasks four times. Here the request's own task drives both:
//! while a request is sent, while its answer is awaited and while its body streams, whoever is polled polls the
//! connection first. A connection in the pool is driven by nobody; it is looked at when it is taken out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::body::{BodyError, Failed, Outgoing, RequestBody};
use super::connection::{Bounds, Connection, Opened, Target, nobody};
use super::leash::Leash;
use super::multiplexed::{self, Entry, Lease, Shared};
use super::send_error::SendError;
use super::stream::Resumed;

/// How often a request is sent at the most, however often upstream says that it has not looked at it.
const MOST_ATTEMPTS: u32 = 5;

/// Where requests go, and the connections of one worker to it.
#[derive(Debug)]
pub struct Upstream {
    target: Arc<Target>,
    /// Unused connections, the most recently used last: it is taken first, so that the others can age and go.
    idle: RefCell<Vec<Connection>>,
    shared: Shared,
    /// Whether the last connection that was opened is a shared one.
    shares: Cell<bool>,
    /// Told when the first connection comes into an empty pool.
    filled: Notify,
    /// Where tasks are kept that are waited for at the end.
    tasks: TaskTracker,
}

impl Upstream {
    /// An empty pool.
    pub fn new(target: Arc<Target>, tasks: TaskTracker) -> Self {
        Self {
            shares: Cell::new(target.may_speak_http2()),
            target,
            idle: RefCell::new(Vec::new()),
            shared: Shared::new(),
            filled: Notify::new(),
            tasks,
        }
    }

    /// Sends a request, which `attempt` makes, and waits for the head of its answer.
    ///
    /// A kept connection may end as it is used. The request is then sent on another if not one byte of it was written,
    /// or, once and on a new connection, if `idempotent` says that upstream may get it twice and its content can be
    /// had again (F8). Where upstream says that it has not looked at the request, which only HTTP/2 can, it is sent
    /// again if its content can be had again.
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
        let mut kept = self.take_kept();
        let mut attempts = 1;
        let mut repeated = false;
        loop {
            let way = match kept.take() {
                Some(way) => way,
                // Boxed: the handshakes' state would otherwise be carried along by every request.
                None => Box::pin(self.open()).await?,
            };
            let (reused, shared) = (way.is_reused(), matches!(way, Way::Among(_)));
            let answered = match way {
                Way::Alone(connection) => self.exchange(connection, attempt(), body).await,
                Way::Among(lease) => Box::pin(self.exchange_among(lease, attempt(), body)).await,
            };
            let Unanswered { error, fate } = match answered {
                Ok(response) => return Ok(response),
                Err(unanswered) => unanswered,
            };
            let again = match (&error, fate) {
                _ if attempts == MOST_ATTEMPTS => false,
                // A shared one may be about to end without having said so.
                (SendError::Ended(_), Fate::Unsent) => reused || shared,
                (SendError::Ended(_), Fate::Unknown) => {
                    reused && idempotent && body.is_replayable() && !repeated
                }
                (SendError::Refused(_), _) => body.is_replayable(),
                _ => false,
            };
            if !again {
                return Err(error);
            }
            attempts += 1;
            repeated |= fate == Fate::Unknown;
            if fate != Fate::Unknown {
                kept = self.take_kept();
            }
        }
    }

    /// A connection for one request: a new one, or a shared one that has room by now.
    async fn open(&self) -> Result<Way, SendError> {
        let begun = Instant::now();
        if !self.shares.get() {
            return self.connect(begun).await;
        }
        let bound = self.target.bounds().connect;
        let entry = tokio::time::timeout(bound, self.shared.place_or_turn()).await;
        let turn = match entry.map_err(|_| self.target.connect_timeout())? {
            Entry::Place(lease) => return Ok(Way::Among(lease)),
            // Others that wait for a protocol that does not share are not to wait for each other.
            Entry::Turn(turn) => self.shares.get().then_some(turn),
        };
        let opened = self.connect(begun).await;
        drop(turn);
        opened
    }

    async fn connect(&self, begun: Instant) -> Result<Way, SendError> {
        let opened = self.target.connect(begun).await?;
        self.shares.set(matches!(opened, Opened::Http2(_)));
        Ok(match opened {
            Opened::Http1(connection) => Way::Alone(connection),
            Opened::Http2(connection) => {
                self.filled.notify_one();
                Way::Among(self.shared.add(connection))
            }
        })
    }

    /// A connection that is there already.
    fn take_kept(&self) -> Option<Way> {
        match self.shared.lease() {
            Some(lease) => Some(Way::Among(lease)),
            None => self.take_idle().map(Way::Alone),
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
        let overdue = overdue(self.target.bounds(), body, connection.resumed.clone());
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
                    Poll::Pending => overdue
                        .as_mut()
                        .poll(cx)
                        .map(|error| Err(Unanswered::overdue(error))),
                }
            })
            .await?;
            let uploading = body.progress().is_some_and(|progress| !progress.ended);
            let driver = connection.map(|connection| Driver::new(connection, self, uploading));
            Ok(answered.map(|incoming| UpstreamBody::new(incoming, driver)))
        }
    }

    /// One attempt on a shared connection.
    async fn exchange_among(
        self: &Rc<Self>,
        lease: Lease,
        mut request: Request<Outgoing>,
        body: &RequestBody,
    ) -> Result<Response<UpstreamBody>, Unanswered> {
        self.target.address(&mut request);
        // hyper does not tell whether upstream asks for the content on a stream.
        body.ask();
        let is_head = request.method() == Method::HEAD;
        let leash = request.body_mut().leash(lease.clone());
        // Whether the connection moves says little of one stream.
        let overdue = overdue(self.target.bounds(), body, Resumed::default());
        let answered = tokio::select! {
            biased;
            answered = lease.send(request) => answered,
            error = overdue => return Err(Unanswered::overdue(error)),
        };
        let answered = answered.map_err(|error| {
            lease.failed(error.error());
            Unanswered::on_a_stream(error, body)
        })?;
        lease.answered();
        let driver = Driver::Shared {
            lease,
            leash,
            upstream: self.clone(),
        };
        let has_content = !is_head && may_have_content(answered.status());
        Ok(answered.map(|incoming| {
            let mut content = UpstreamBody::new(incoming, Some(driver));
            content.has_content = has_content;
            content
        }))
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
        if !connection.sender.is_ready() {
            match connection.drive(&mut nobody()) {
                Poll::Ready(_) => return,
                Poll::Pending if connection.sender.is_ready() => {}
                Poll::Pending => return self.see_out(connection.finish()),
            }
        }
        connection.idle_since = Instant::now();
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            self.filled.notify_one();
        }
        idle.push(connection);
    }

    /// Has a connection driven to its end, on which nothing more is asked. Some of a request may not be written yet whose
    /// answer is over, and upstream is to get it (F18).
    fn see_out(&self, driving: impl Future + 'static) {
        let bound = self.target.bounds().body;
        // Whether it comes to its end, nobody is there to hear.
        self.tasks
            .spawn_local(async move { tokio::time::timeout(bound, driving).await.is_ok() });
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
                let shared = self.shared.sweep(self.target.bounds().idle);
                if idle.is_empty() && !shared {
                    break;
                }
            }
        }
    }
}

/// A connection on which a request can be sent.
#[derive(Debug)]
enum Way {
    /// For this request alone.
    Alone(Connection),
    /// Among others.
    Among(Lease),
}

impl Way {
    /// Whether the connection has served a request before.
    fn is_reused(&self) -> bool {
        match self {
            Self::Alone(connection) => connection.reused,
            Self::Among(lease) => lease.is_reused(),
        }
    }
}

/// An exchange that brought no answer.
#[derive(Debug)]
struct Unanswered {
    error: SendError,
    fate: Fate,
}

/// How far a request without an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not one byte of it was written.
    Unsent,
    /// Upstream says that it has not looked at it.
    Unprocessed,
    /// It may have been processed.
    Unknown,
}

impl Unanswered {
    fn overdue(error: SendError) -> Self {
        let fate = Fate::Unknown;
        Self { error, fate }
    }

    /// On an HTTP/2 connection, which tells more.
    fn on_a_stream(mut error: TrySendError<Request<Outgoing>>, body: &RequestBody) -> Self {
        let unsent = error.take_message().is_some();
        let source = error.into_error();
        let (error, fate) = if unsent {
            (SendError::Ended(source), Fate::Unsent)
        } else if multiplexed::is_unprocessed(&source) {
            (SendError::Refused(source), Fate::Unprocessed)
        } else if let Some(failed) = body.progress().and_then(|progress| progress.failed) {
            let error = match failed {
                Failed::Client => SendError::RequestBody(source),
                Failed::Recording => SendError::Recording(source),
            };
            (error, Fate::Unknown)
        } else if multiplexed::is_garbage(&source) {
            (SendError::Garbage(source), Fate::Unknown)
        } else {
            (SendError::Ended(source), Fate::Unknown)
        };
        Self { error, fate }
    }
}

impl From<TrySendError<Request<Outgoing>>> for Unanswered {
    fn from(mut error: TrySendError<Request<Outgoing>>) -> Self {
        let unsent = error.take_message().is_some();
        let source = error.into_error();
        let error = if source.is_parse() {
            SendError::Garbage(source)
        } else if source.is_user() {
            // Of what hyper calls its user's, only the body can fail here.
            SendError::request_body(source)
        } else {
            SendError::Ended(source)
        };
        let fate = if unsent { Fate::Unsent } else { Fate::Unknown };
        Self { error, fate }
    }
}

/// Waits until the wait for an answer has lasted too long: the request must keep moving until it is over, and then the
/// answer must begin in time. What has been handed on moves as long as upstream takes it: that it does, `resumed` tells.
pub(super) async fn overdue(bounds: Bounds, body: &RequestBody, resumed: Resumed) -> SendError {
    let begun = Instant::now();
    let mut deadline = begun + bounds.response.min(bounds.body);
    loop {
        tokio::time::sleep_until(deadline).await;
        let progress = body.progress();
        let handed_on = progress.map_or(begun, |progress| progress.moved.max(begun));
        let taken = resumed.or(handed_on);
        let (next, error) = match progress {
            Some(progress) if !progress.ended && progress.waits_for_client => (
                handed_on + bounds.body,
                SendError::ClientTimeout(bounds.body),
            ),
            Some(progress) if !progress.ended => {
                (taken + bounds.body, SendError::RequestTimeout(bounds.body))
            }
            _ => (
                taken + bounds.response,
                SendError::ResponseTimeout(bounds.response),
            ),
        };
        if next <= Instant::now() {
            return error;
        }
        deadline = next;
    }
}

/// Whether an answer with this status has any content (RFC 9110 section 6.4.1).
fn may_have_content(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

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
enum Driver {
    /// Whoever polls the body.
    Reader {
        connection: Connection,
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
    fn new(connection: Connection, upstream: &Rc<Upstream>, uploading: bool) -> Self {
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

    fn new(incoming: Incoming, driver: Option<Driver>) -> Self {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{Config, Need};

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn f12_waiting_for_others_and_opening_a_connection_have_one_bound() {
        // The system takes connections in, and nobody speaks on them.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = silent.local_addr().expect("an address");
        let text = format!("[upstream]\nurl = \"https://{address}\"\nconnect_timeout = \"10s\"\n");
        let config = Config::parse(&text, None, &BTreeMap::new(), Need::Store).expect("accepted");
        let target = Target::new(&config.upstream, config.timeouts.body).expect("an upstream");
        let upstream = Upstream::new(Arc::new(target), TaskTracker::new());
        let open_after = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let begun = Instant::now();
            let error = upstream.open().await.expect_err("nobody speaks");
            assert!(
                matches!(error, SendError::ConnectTimeout(..) | SendError::Dial(_)),
                "{error:?}"
            );
            begun.elapsed().as_secs()
        };
        let (first, second) = tokio::join!(open_after(0), open_after(3));
        assert_eq!((first, second), (10, 10));
    }
}
