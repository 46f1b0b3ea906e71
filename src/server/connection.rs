//! One client's connection: its protocol, its idle bounds, and its end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::intercepted::Interception;
use super::limits::{Limits, Place};
use super::listener::Accepted;
use super::socket::{Socket, Wire};
use super::stream::{Io, Peer, Stream};
use super::written_out::WrittenOut;
use super::{http2, intercepted, tls};
use crate::proxy::Proxy;
use crate::proxy::ambiguity::Unservable;
use crate::proxy::body::{Activity, ResponseBody};
use crate::proxy::clients::Client;
use crate::proxy::guard::Guard;
use crate::proxy::reply::Refusal;
use crate::proxy::tunnel::Beyond;

/// What the connections of one listening socket share.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) proxy: Rc<Proxy>,
    pub(super) guard: Guard,
    /// What a client must speak first; `None` for plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// For clients that use it as their forward proxy; `None` where it is none.
    pub(super) interception: Option<Arc<Interception>>,
    /// Whether connections of other users are closed at once.
    pub(super) own_user: bool,
    pub(super) bounds: Bounds,
    pub(super) limits: Arc<Limits>,
    /// Where the tasks of connections and their streams are kept.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Entrance {
    /// Completes when tunnels need not be carried on: those of one program that has ended, whose ends nobody else waits for.
    async fn tunnels_end(&self) {
        match &self.interception {
            Some(interception) if interception.forwarding().is_private() => {
                self.stop.cancelled().await;
            }
            _ => std::future::pending().await,
        }
    }

    /// The entrance for this connection: where the listener is at every address, the one that it was made to is a name
    /// of the proxy's too.
    pub(super) fn of(self: &Rc<Self>, accepted: &Accepted) -> Rc<Self> {
        let guard = match accepted {
            Accepted::Tcp(tcp, _) => self.guard.reached_at(|| tcp.local_addr().ok()),
            Accepted::Unix(_) => None,
        };
        match guard {
            Some(guard) => Rc::new(Self {
                guard,
                ..Self::clone(self)
            }),
            None => self.clone(),
        }
    }

    /// Why a request is not served although nothing is wrong with it: where it does not fit.
    pub(super) fn overloaded(&self, fits: bool) -> Option<Unservable> {
        (!fits).then(|| Unservable::Overloaded(self.limits.in_flight.most()))
    }

    /// The same for what comes through a tunnel of `client` to `host` and `port`, if that is intercepted.
    pub(super) fn inside(&self, host: &str, port: u16, client: Option<Arc<Client>>) -> Self {
        Self {
            proxy: self.proxy.clone(),
            guard: self.guard.of_intercepted(host, port, client),
            tls: None,
            interception: None,
            own_user: self.own_user,
            bounds: self.bounds,
            limits: self.limits.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// How long a client may do nothing, or take nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From the accept to the end of the TLS handshake.
    pub(super) handshake: Duration,
    /// From the accept to the whole head of the first request.
    pub(super) first_request: Duration,
    pub(super) idle: Duration,
    /// How long a client may take nothing of what is there for it. In HTTP/2 also: how long it may be silent, and then
    /// how long it may leave the question unanswered whether it is there.
    pub(super) body: Duration,
    /// How long a client may go on sending what nobody wants.
    pub(super) linger: Duration,
}

/// Fields of a head for which hyper has room without being told. Where fewer are allowed, it never sees more.
const MOST_FIELDS: usize = 100;
/// Bytes that hyper reads at a time of content, and keeps of a head where no more is allowed: with more of them content is
/// not read faster, and a crowd of clients takes as much more memory.
const LEAST_BUFFER: usize = 64 << 10;
/// Bytes of a head beyond what is allowed that hyper may get: the end of one that was cut off.
const BEYOND: usize = 1 << 10;
/// How long a request may still arrive on a connection that is to end.
const REQUEST_UNDER_WAY: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it, and has its place among all for so long.
pub(super) async fn serve(accepted: Accepted, _place: Place, entrance: Rc<Entrance>) {
    let activity = Activity::new(&entrance.limits.in_flight);
    let wire = Rc::<Wire>::default();
    let bound = entrance.bounds.body;
    let io = match accepted {
        Accepted::Unix(unix) => Io::Unix(Socket::new(unix, &wire, bound)),
        Accepted::Tcp(tcp, _) => {
            // A socket that refuses the option is about to fail anyway.
            let _ = tcp.set_nodelay(true);
            Io::Tcp(Socket::new(tcp, &wire, bound))
        }
    };
    match (&entrance.tls, io) {
        // Boxed: the state of TLS and of HTTP/2 would otherwise be carried along by every plain connection.
        (Some(acceptor), Io::Tcp(tcp)) => {
            Box::pin(serve_tls(tcp, wire, acceptor, &entrance, activity)).await;
        }
        (_, io) => serve_http1(Stream::new(io, wire), &entrance, &activity).await,
    }
    tracing::trace!("the connection of a client has ended");
}

async fn serve_tls(
    tcp: Socket<TcpStream>,
    wire: Rc<Wire>,
    acceptor: &TlsAcceptor,
    entrance: &Rc<Entrance>,
    activity: Rc<Activity>,
) {
    let begun = tokio::select! {
        begun = tokio::time::timeout(entrance.bounds.handshake, tls::accept(tcp, acceptor)) => begun,
        () = entrance.stop.cancelled() => return,
    };
    match begun {
        Ok(Ok(tls::Begun::Tls(stream))) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
            let stream = Stream::new(Io::Tls(stream), wire);
            match is_http2 {
                true => http2::serve(stream, entrance, activity).await,
                false => serve_http1(stream, entrance, &activity).await,
            }
        }
        Ok(Ok(tls::Begun::Plain(tcp))) => {
            let plain = Stream::new(Io::Tcp(tcp), wire.clone());
            refuse_plain(plain, &wire, entrance, &activity, Refusal::plain_on_tls()).await;
        }
        Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("a TLS handshake took too long (timeouts.handshake)"),
    }
}

pub(super) async fn serve_http1(stream: Stream, entrance: &Entrance, activity: &Rc<Activity>) {
    let stream = stream.follow(entrance.limits.head);
    let wire = stream.wire();
    let peer = stream.peer();
    let beyond = Cell::new(None);
    let number = Cell::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        let (busy, fits) = activity.begin();
        let version = request.version();
        let is_connect = *request.method() == Method::CONNECT;
        number.set(number.get() + 1);
        let why = wire.refused(number.get());
        if let Some(why) = why.or_else(|| entrance.overloaded(fits)) {
            entrance.limits.say_unservable(why);
            request.extensions_mut().insert(why);
        }
        let (wire, beyond) = (&wire, &beyond);
        async move {
            let mut response = entrance.proxy.handle(request, &entrance.guard, busy).await;
            let may_switch = is_connect || response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if may_switch && let Some(next) = response.body_mut().take_beyond() {
                beyond.set(Some(next));
                wire.stays_open(true);
            }
            wire.ends_by_close(version == Version::HTTP_10 && !has_length(&response));
            Ok::<_, Infallible>(response)
        }
    });
    let mut http1 = http1::Builder::new();
    http1.max_buf_size(LEAST_BUFFER.max(entrance.limits.head.bytes + BEYOND));
    if entrance.limits.head.fields > MOST_FIELDS {
        http1.max_headers(entrance.limits.head.fields);
    }
    let connection = http1
        // A client that has sent all it has to say may say so and still wants its answer. Over TCP one that has left in
        // order looks the same: its request goes on until the answer has nowhere to go. As nothing is read meanwhile, the
        // watch looks for a client that has left in another way.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = WrittenOut::new(connection, wire.clone());
    let ended = Watch::new(entrance, activity, &wire)
        .reading_first()
        .while_there_is(peer)
        .over(Pin::new(&mut connection), |connection| {
            connection.get_pin_mut().graceful_shutdown();
        })
        .await;
    if let Some(Err(error)) = &ended
        && error.is_parse()
    {
        tracing::debug!("a client sent what is no HTTP/1 as it is read here: {error}");
    }
    let is_offered = connection.was_offered() && matches!(ended, Some(Ok(())));
    if is_offered || (wire.is_cut_off() && ended.is_some()) {
        let http1::Parts { io, read_buf, .. } = connection.into_inner().into_parts();
        leave_http(io.into_inner(), read_buf, beyond.take(), entrance).await;
    }
}

/// What follows on HTTP where the client has offered to change the protocol, or where nothing was read of what it sent.
async fn leave_http(
    mut stream: Stream,
    early: Bytes,
    beyond: Option<Box<Beyond>>,
    entrance: &Entrance,
) {
    stream.leave_http();
    // Boxed: the connections of ordinary requests should not carry along what these need.
    match beyond.map(|beyond| *beyond) {
        Some(Beyond::Tunnel(tunnel)) => {
            let leaving = entrance.tunnels_end();
            Box::pin(tunnel.carry(stream, early, leaving)).await;
        }
        Some(Beyond::Intercepted(to)) => {
            Box::pin(intercepted::serve(stream, early, to, entrance)).await;
        }
        None => Box::pin(read_to_nowhere(stream, entrance)).await,
    }
}

/// Reads what the client has sent ahead of its time in the other protocol, or in a head that is too large: closed on it,
/// the connection would be reset, and with that the client would lose the answer.
async fn read_to_nowhere(mut stream: Stream, entrance: &Entrance) {
    let mut nowhere = tokio::io::sink();
    let reading = tokio::io::copy(&mut stream, &mut nowhere);
    // However it ends: nothing follows.
    tokio::select! {
        biased;
        _ = tokio::time::timeout(entrance.bounds.linger, reading) => {}
        () = entrance.stop.cancelled() => {}
    }
}

/// Tells a client that speaks plain HTTP where TLS is spoken what to do.
pub(super) async fn refuse_plain(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: &Wire,
    entrance: &Entrance,
    activity: &Rc<Activity>,
    refusal: Refusal,
) {
    let service = service_fn(|_| {
        let (busy, _) = activity.begin();
        let mut response = refusal.clone().into_response();
        response.body_mut().keep_busy(busy);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    Watch::new(entrance, activity, wire)
        .over(pin!(connection), http1::Connection::graceful_shutdown)
        .await;
}

/// Whether the client is told how long the content is. Otherwise it ends, for a client of HTTP/1.0, with the connection.
fn has_length(response: &Response<ResponseBody>) -> bool {
    response.headers().contains_key(CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

/// Watches over a connection while it is served.
pub(super) struct Watch<'a> {
    entrance: &'a Entrance,
    activity: &'a Activity,
    wire: &'a Wire,
    peer: Option<Peer>,
    reads_first: bool,
    farewell: Duration,
    rest: Duration,
}

/// What ends a connection from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The client has done nothing for too long.
    Idle,
    /// All connections are to end.
    Stop,
    /// The client has left.
    Left,
}

impl<'a> Watch<'a> {
    pub(super) fn new(entrance: &'a Entrance, activity: &'a Activity, wire: &'a Wire) -> Self {
        Self {
            entrance,
            activity,
            wire,
            peer: None,
            reads_first: false,
            farewell: Duration::MAX,
            rest: REQUEST_UNDER_WAY,
        }
    }

    /// The connection is to end only when requests that were answered before their end have been read: hyper closes one of
    /// HTTP/1 on which nothing more is to be written.
    pub(super) fn reading_first(self) -> Self {
        let reads_first = true;
        Self {
            reads_first,
            ..self
        }
    }

    /// The connection is given up as soon as the client is known to have left, whatever is under way.
    pub(super) fn while_there_is(self, peer: Peer) -> Self {
        let peer = Some(peer);
        Self { peer, ..self }
    }

    /// How long a connection with nothing under way may take to end when all are to end.
    pub(super) fn farewell(self, farewell: Duration) -> Self {
        Self { farewell, ..self }
    }

    /// How long the rest of responses may stand still that is neither the proxy's nor the system's any more.
    pub(super) fn rest(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// Completes when the connection has ended, with how it did, or when it has been given up.
    pub(super) async fn over<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        end: impl FnOnce(Pin<&mut C>),
    ) -> Option<C::Output> {
        // Of these, nothing is to be done each time that bytes come and go, only when it is their turn.
        let mut due = FuturesUnordered::from_iter([self.due(Due::Idle), self.due(Due::Left)]);
        let idle = tokio::select! {
            biased;
            ended = connection.as_mut() => return Some(ended),
            due = due.select_next_some() => match due {
                Due::Left => return None,
                due => due == Due::Idle,
            }
        };
        if self.reads_first {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return Some(ended),
                _ = due.select_next_some() => return None,
                () = self.activity.all_read() => {}
            }
        }
        end(connection.as_mut());
        let bound = match (idle, self.idle_since()) {
            (_, Some((_, false))) => REQUEST_UNDER_WAY,
            (true, _) => self.rest,
            (false, Some(_)) => self.farewell,
            // What is under way may end; how long it may take is the worker's to say.
            (false, None) => Duration::MAX,
        };
        tokio::select! {
            ended = connection => Some(ended),
            _ = due.select_next_some() => None,
            () = self.forsaken(bound) => None,
        }
    }

    /// Completes when one of these is so: this, or, beside the first, that all connections are to end.
    async fn due(&self, what: Due) -> Due {
        match (what, &self.peer) {
            (Due::Left, Some(peer)) => peer.left().await,
            (Due::Left, None) => std::future::pending().await,
            _ => tokio::select! {
                biased;
                () = self.idle() => {}
                () = self.entrance.stop.cancelled() => return Due::Stop,
            },
        }
        what
    }

    /// Completes when the client has done nothing for too long.
    async fn idle(&self) {
        let bounds = self.entrance.bounds;
        loop {
            let now = Instant::now();
            // Looked at again when it could be idle for that long at the earliest: one timer for many requests.
            let earliest = now + bounds.idle;
            let deadline = match self.idle_since() {
                Some((since, true)) => since + bounds.idle,
                Some((since, false)) => since + bounds.first_request,
                None => earliest,
            };
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline.min(earliest)).await;
        }
    }

    /// Since when there has been nothing to do, and whether there was a request before; `None` while there is. hyper
    /// takes the whole of a response from the proxy before the client has it.
    fn idle_since(&self) -> Option<(Instant, bool)> {
        let (since, used) = self.activity.idle_since()?;
        let since = self
            .wire
            .resumed()
            .map_or(since, |resumed| resumed.max(since));
        (!self.wire.is_stalled()).then_some((since, used))
    }

    /// Completes when nothing is under way and the client has taken nothing for so long. What it sends does not count:
    /// one that sends its head byte by byte would be waited for without a bound.
    async fn forsaken(&self, bound: Duration) {
        loop {
            let taken = self.wire.taken();
            tokio::time::sleep(bound).await;
            if self.idle_since().is_some() && self.wire.taken() == taken {
                return;
            }
        }
    }
}
