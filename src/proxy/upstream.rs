//! Connections to upstream: opened, kept, used for one exchange at a time, and driven by the task that uses them.
//!
//! hyper's client comes in two halves, one that takes requests and one that moves the bytes. The second is usually
//! given a task of its own, and each request then crosses tasks four times. Here the request's own task drives both:
//! while a request is sent, while its answer is awaited and while its body streams, whoever is polled polls the
//! connection first. A connection in the pool is driven by nobody; it is looked at when it is taken out.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Outgoing, RequestBody};
use super::stream::Stream;
use crate::config::{self, Origin, Scheme};
use crate::tls::TlsError;

/// Where requests go, and the connections of one worker to it.
#[derive(Debug)]
pub struct Upstream {
    target: Arc<Target>,
    /// Unused connections, the most recently used last: it is taken first, so that the others can age and go.
    idle: RefCell<Vec<Connection>>,
    /// Told when the first connection comes into an empty pool.
    filled: Notify,
}

/// What all workers know of upstream.
pub struct Target {
    origin: Origin,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    bounds: Bounds,
}

/// How long upstream may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To connect, TLS included.
    pub connect: Duration,
    /// To begin its answer after the request was sent.
    pub response: Duration,
    /// To take more of a request body, or the client to send more of it.
    pub body: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// Why a request got no answer from upstream.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The name is unknown.
    #[error("cannot find the address of upstream {0}: {1}; check upstream.url and the network")]
    Lookup(String, io::Error),
    /// Nobody answers there.
    #[error("cannot connect to upstream {0}: {1}; check upstream.url and the network")]
    Connect(String, io::Error),
    /// The TLS handshake failed.
    #[error("no trusted TLS connection to upstream {0}: {1}")]
    Tls(String, io::Error),
    /// Connecting took too long.
    #[error("upstream {0} did not accept a connection within {1:?} (upstream.connect_timeout)")]
    ConnectTimeout(String, Duration),
    /// The request was sent and no answer came in time.
    #[error("upstream did not answer within {0:?} (upstream.response_timeout)")]
    ResponseTimeout(Duration),
    /// The request stood still on its way.
    #[error("the request body stood still for {0:?} (timeouts.body)")]
    RequestTimeout(Duration),
    /// The connection ended before an answer.
    #[error("the connection to upstream ended before it answered")]
    Ended(#[source] hyper::Error),
    /// The client's part of the request broke off, or is not what its framing says.
    #[error("the request body ended before its time or is not framed as HTTP/1.1 asks")]
    RequestBody(#[source] hyper::Error),
    /// Upstream changed the protocol, which nobody asked for.
    #[error("upstream switched to another protocol, which it was not asked to")]
    Switched,
    /// The answer is coded in a way that cannot be passed on.
    #[error("upstream's answer has a transfer coding other than chunked")]
    Coding,
    /// The answer is not HTTP.
    #[error("upstream's answer is not HTTP/1.1: {0}")]
    Garbage(hyper::Error),
}

impl SendError {
    /// Whether it took too long, rather than failed.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout(..) | Self::ResponseTimeout(_) | Self::RequestTimeout(_)
        )
    }

    /// The error type of RFC 9209 section 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match self {
            Self::Lookup(..) => "dns_error",
            Self::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection_refused"
            }
            Self::Connect(..) => "destination_unavailable",
            Self::Tls(..) => "tls_protocol_error",
            Self::ConnectTimeout(..) => "connection_timeout",
            Self::ResponseTimeout(_) => "http_response_timeout",
            Self::RequestTimeout(_) => "connection_write_timeout",
            Self::Ended(_) => "connection_terminated",
            Self::RequestBody(_) => "http_request_error",
            Self::Garbage(_) | Self::Switched | Self::Coding => "http_protocol_error",
        }
    }
}

impl Target {
    /// Prepares to reach the configured upstream.
    ///
    /// # Errors
    ///
    /// When upstream speaks TLS and this system trusts no certificates.
    pub fn new(upstream: &config::Upstream, body: Duration) -> Result<Self, TlsError> {
        let origin = upstream.origin.clone();
        let tls = match origin.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let mut config = crate::tls::client_config()?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
                    rustls::Error::General(format!("{} is no name for a certificate", origin.host))
                })?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let bounds = Bounds {
            connect: upstream.connect_timeout,
            response: upstream.response_timeout,
            body,
            idle: upstream.idle_timeout,
        };
        Ok(Self {
            origin,
            tls,
            bounds,
        })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How long upstream may take.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let bound = self.bounds.connect;
        let connecting = tokio::time::timeout(bound, self.open());
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(SendError::ConnectTimeout(self.origin.to_string(), bound)))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Ended)?;
        Ok(Connection {
            sender,
            driver: Box::new(driver),
            idle_since: Instant::now(),
            reused: false,
        })
    }

    async fn open(&self) -> Result<Stream, SendError> {
        let name = || self.origin.to_string();
        let addresses = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port))
            .await
            .map_err(|error| SendError::Lookup(name(), error))?;
        let addresses: Vec<_> = addresses.collect();
        // One address that nobody answers at must not use up the time of the others.
        let share = self.bounds.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return self.secure(tcp).await,
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, "nobody answers there"),
            }
        }
        if failure.kind() == io::ErrorKind::TimedOut {
            return Err(SendError::ConnectTimeout(name(), self.bounds.connect));
        }
        Err(SendError::Connect(name(), failure))
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Stream, SendError> {
        // Without this a head and a small body written apart would wait for each other's acknowledgement. A socket
        // that refuses the option is about to fail anyway.
        let _ = tcp.set_nodelay(true);
        match &self.tls {
            None => Ok(Stream::plain(tcp)),
            Some((connector, name)) => match connector.connect(name.clone(), tcp).await {
                Ok(tls) => Ok(Stream::tls(tls)),
                Err(error) => Err(SendError::Tls(self.origin.to_string(), error)),
            },
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("origin", &self.origin)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// A connection and the half that moves its bytes.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Outgoing>,
    driver: Box<http1::Connection<TokioIo<Stream>, Outgoing>>,
    idle_since: Instant,
    reused: bool,
}

impl Connection {
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut *self.driver).poll(cx)
    }

    /// Whether the connection can take a request now. Driving it with nobody to wake shows an end that has come since
    /// it was last driven; nothing else is due on a connection between two exchanges.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut nobody()).is_pending() && self.sender.is_ready()
    }
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
        let overdue = overdue(self.target.bounds, body);
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
            if connection.idle_since.elapsed() < self.target.bounds.idle && connection.is_ready() {
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
                tokio::time::sleep(self.target.bounds.idle).await;
                let mut idle = self.idle.borrow_mut();
                idle.retain_mut(|connection| {
                    connection.idle_since.elapsed() < self.target.bounds.idle
                        && connection.is_ready()
                });
                if idle.is_empty() {
                    break;
                }
            }
        }
    }
}

/// For polling a response body, which hyper fills only while the connection is driven by whoever polls: nobody is to be
/// woken for it later. hyper's channel for bodies has no budget that could make it pretend to be empty, unlike tokio's.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
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
