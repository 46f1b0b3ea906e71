//! Connections to upstream: opened, kept and used, over HTTP/1.1 for one exchange at a time and driven by the task that
//! uses them, over HTTP/2 for many (`multiplexed`).
//!
//! hyper's client comes in two halves, one that takes requests and one that moves the bytes. The second is usually
//! given a task of its own, and each request then crosses tasks four times. Here the request's own task drives both:
//! while a request is sent, while its answer is awaited and while its body streams, whoever is polled polls the
//! connection first. A connection in the pool is driven by nobody; it is looked at when it is taken out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::TrySendError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::alarm::Alarm;
use super::body::{Failed, Outgoing, RequestBody};
use super::connection::{Bounds, Connection, Opened, Target, nobody};
use super::multiplexed::{self, Entry, Lease, Shared};
use super::send_error::SendError;
use super::stream::Resumed;
use super::upstream_body::{Driver, UpstreamBody};

/// How often a request is sent at the most, however often upstream says that it has not looked at it.
const MOST_ATTEMPTS: u32 = 5;

/// Where requests go, and the connections of one worker to it.
#[derive(Debug)]
pub struct Upstream {
    target: Arc<Target>,
    /// Unused connections, the most recently used last: it is taken first, so that the others can age and go.
    #[expect(clippy::vec_box, reason = "each is moved in and out for every request")]
    idle: RefCell<Vec<Box<Connection>>>,
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
        mut connection: Box<Connection>,
        request: Request<Outgoing>,
        body: &RequestBody,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, Unanswered>> {
        let answer = connection.sender.try_send_request(request);
        let (bounds, resumed) = (self.target.bounds(), connection.resumed.clone());
        let mut alarm = std::mem::take(&mut connection.alarm);
        let mut connection = Some(connection);
        async move {
            let answered = {
                let mut answer = pin!(answer);
                let mut overdue = pin!(overdue(bounds, body, resumed, &mut alarm));
                poll_fn(|cx| {
                    let ended = |connection: &mut Box<Connection>| connection.drive(cx).is_ready();
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
                .await?
            };
            let uploading = body.progress().is_some_and(|progress| !progress.ended);
            let driver = connection.map(|mut connection| {
                connection.alarm = alarm;
                Driver::new(connection, self, uploading)
            });
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
        let (bounds, mut alarm) = (self.target.bounds(), Alarm::default());
        let overdue = overdue(bounds, body, Resumed::default(), &mut alarm);
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
        Ok(answered.map(|incoming| UpstreamBody::on_stream(incoming, driver, has_content)))
    }

    fn take_idle(&self) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.idle_since.elapsed() < self.target.bounds().idle && connection.is_ready()
            {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    pub(super) fn give_back(&self, mut connection: Box<Connection>) {
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
    pub(super) fn see_out(&self, driving: impl Future + 'static) {
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
    Alone(Box<Connection>),
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
pub(super) async fn overdue(
    bounds: Bounds,
    body: &RequestBody,
    resumed: Resumed,
    alarm: &mut Alarm,
) -> SendError {
    let begun = Instant::now();
    let mut deadline = begun + bounds.response.min(bounds.body);
    loop {
        alarm.at(deadline).await;
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
