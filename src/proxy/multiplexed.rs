//! HTTP/2 towards upstream: one connection carries many requests at once, and is driven by tasks of its own.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::body::Outgoing;
use super::leash::Keeper;

/// Requests on one connection at once, where upstream allows that many: what RFC 9113 section 6.5.2 recommends as the
/// least to allow. With more there is a second connection.
const MOST_STREAMS: usize = 100;
/// Content that upstream may send on one stream before the client has taken it: enough for 20 MB/s over 50 ms, and for a
/// slow client no more memory than a socket would take.
const STREAM_WINDOW: u32 = 1 << 20;
/// As much for all streams together as for each, so that clients that do not read never hold up those that do.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// Content of one stream that may wait here for upstream to take it. It counts as sent, so there should not be much of it.
const SEND_BUFFER: usize = 256 << 10;
/// Large frames cost less for each byte.
const FRAME: u32 = 64 << 10;
/// Of a response head, as hyper's HTTP/1.1 has it at about that size.
const HEAD: u32 = 256 << 10;
/// How often a connection is asked whether it lives: a path that has died without a word is noticed within
/// `PING_EVERY` and `PING_ANSWER`, well before a response is given up.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long that may take.
const PING_ANSWER: Duration = Duration::from_secs(10);

/// The connections of one worker that many requests share.
#[derive(Debug)]
pub(super) struct Shared {
    connections: RefCell<Vec<Rc<Multiplexed>>>,
    /// One is opened at a time: whoever has waited for it uses the one that was opened.
    turn: Semaphore,
    /// Told when a place becomes free.
    freed: Rc<Notify>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            connections: RefCell::new(Vec::new()),
            turn: Semaphore::new(1),
            freed: Rc::default(),
        }
    }

    /// A place on the connection that has the most room.
    pub(super) fn lease(&self) -> Option<Lease> {
        let connections = self.connections.borrow();
        let with_room = connections
            .iter()
            .filter(|connection| connection.has_room());
        with_room
            .min_by_key(|connection| connection.streams.get())
            .map(|connection| Lease::new(connection, &self.freed))
    }

    /// A place, as soon as one is free, or the turn to open a connection, whichever comes first.
    pub(super) async fn place_or_turn(&self) -> Entry<'_> {
        loop {
            let turn = tokio::select! {
                biased;
                turn = self.turn.acquire() => Some(turn.expect("nobody closes the queue for it")),
                () = self.freed.notified() => None,
            };
            match (self.lease(), turn) {
                (Some(lease), _) => return Entry::Place(lease),
                (None, Some(turn)) => return Entry::Turn(turn),
                // Somebody else was faster.
                (None, None) => {}
            }
        }
    }

    /// Takes a connection in, and a place on it.
    pub(super) fn add(&self, connection: Multiplexed) -> Lease {
        let connection = Rc::new(connection);
        let mut connections = self.connections.borrow_mut();
        // Those that upstream has closed, or is about to, take no more requests.
        connections.retain(|connection| !connection.is_closed());
        connections.push(connection.clone());
        Lease::new(&connection, &self.freed)
    }

    /// Lets go of connections that are closed, or have not been used for `idle`; whether any is left. Each ends when
    /// the last of its requests does.
    pub(super) fn sweep(&self, idle: Duration) -> bool {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_closed() && !connection.is_idle(idle));
        !connections.is_empty()
    }
}

/// How a request that found no room goes on.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// There is room by now.
    Place(Lease),
    /// It may open a connection, and nobody else may while it holds this.
    Turn(SemaphorePermit<'a>),
}

/// One connection.
pub(super) struct Multiplexed {
    sender: RefCell<http2::SendRequest<Outgoing>>,
    /// Requests whose answer is not over.
    streams: Cell<usize>,
    /// How many upstream allows, as far as it has said so.
    allowed: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
    /// Whether it has answered a request before.
    used: Cell<bool>,
    /// Whether upstream has said that it takes no more requests.
    retired: Cell<bool>,
    begun: Begun,
}

/// Of the upload that hyper has begun to send, until it gives it a task.
///
/// hyper asks for the first of a request's content where it opens the stream, and if not all of it goes out there, the
/// next task that it makes sends the rest.
type Begun = Rc<Cell<Option<Keeper>>>;

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed")
            .field("streams", &self.streams)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

impl Multiplexed {
    /// Begins to speak HTTP/2 on a connection. Upstream's part of the beginning is not waited for.
    pub(super) async fn begin(
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> hyper::Result<Self> {
        let begun = Begun::default();
        let mut builder = http2::Builder::new(OnThisThread(begun.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(MOST_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEAD)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let allowed = Rc::new(Cell::new(MOST_STREAMS));
        let told = allowed.clone();
        let opened = begun.clone();
        // Like those of the executor it ends with the connection, that with the last sender, or all with the worker.
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            // How it ends, the requests on it say.
            let _ = poll_fn(|cx| {
                // Whatever is left there is not of what begins now.
                opened.take();
                let ended = connection.as_mut().poll(cx);
                told.set(connection.current_max_send_streams());
                ended
            })
            .await;
        });
        Ok(Self {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            allowed,
            idle_since: Cell::new(Instant::now()),
            used: Cell::new(false),
            retired: Cell::new(false),
            begun,
        })
    }

    fn is_closed(&self) -> bool {
        self.retired.get() || self.sender.borrow().is_closed()
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.allowed.get().min(MOST_STREAMS) && !self.is_closed()
    }

    fn is_idle(&self, bound: Duration) -> bool {
        self.streams.get() == 0 && self.idle_since.get().elapsed() >= bound
    }
}

/// A place for one request on a shared connection, free again when all clones of this are dropped.
#[derive(Clone, Debug)]
pub(super) struct Lease(Rc<Place>);

#[derive(Debug)]
struct Place {
    connection: Rc<Multiplexed>,
    freed: Rc<Notify>,
}

impl Lease {
    fn new(connection: &Rc<Multiplexed>, freed: &Rc<Notify>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::new(Place {
            connection: connection.clone(),
            freed: freed.clone(),
        }))
    }

    fn connection(&self) -> &Multiplexed {
        &self.0.connection
    }

    /// Whether the connection has answered a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.connection().used.get()
    }

    /// An answer has come.
    pub(super) fn answered(&self) {
        self.connection().used.set(true);
    }

    /// No answer has come; after a GOAWAY nothing more is sent here.
    pub(super) fn failed(&self, error: &hyper::Error) {
        if cause(error).is_some_and(h2::Error::is_go_away) {
            self.connection().retired.set(true);
        }
    }

    /// The content of the request is asked for. The task that sends it ends when its keeper is told so, and with that the
    /// stream.
    pub(super) fn begin_upload(&self, keeper: Keeper) {
        self.connection().begun.set(Some(keeper));
    }

    /// Sends a request.
    pub(super) fn send(
        &self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + use<>
    {
        self.connection()
            .sender
            .borrow_mut()
            .try_send_request(request)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.idle_since.set(Instant::now());
        self.freed.notify_one();
    }
}

/// Whether an error says that upstream has not looked at the request (RFC 9113 section 8.7): its stream was refused, or
/// is beyond the last one that a GOAWAY names.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|cause| {
        cause.is_remote()
            && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether an error says that upstream broke the protocol.
pub(super) fn is_garbage(error: &hyper::Error) -> bool {
    cause(error).is_some_and(h2::Error::is_library)
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Runs the tasks of a connection on the worker's own thread.
#[derive(Clone)]
struct OnThisThread(Begun);

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        match self.0.take().filter(|keeper| !keeper.is_sent()) {
            Some(keeper) => tokio::task::spawn_local(while_wanted(task, keeper)),
            None => tokio::task::spawn_local(async {
                task.await;
            }),
        };
    }
}

/// Sends an upload to its end, or until nobody wants its answer; dropped before its end, the stream is reset.
async fn while_wanted(upload: impl Future, keeper: Keeper) {
    let mut upload = pin!(upload);
    poll_fn(|cx| match keeper.poll_let_go(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => upload.as_mut().poll(cx).map(|_| ()),
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::dial;
    use crate::proxy::stream::Stream;

    /// Asks an upstream that takes the request and never answers it, and PINGs only if it is said; returns the error
    /// and how long that took.
    async fn ask(answers_pings: bool, patience: Duration) -> (Option<hyper::Error>, Duration) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let upstream = tokio::task::spawn_local(async move {
            let mut connection = h2::server::handshake(theirs).await.expect("HTTP/2");
            let _request = connection.accept().await.expect("a request");
            while answers_pings && connection.accept().await.is_some() {}
            // The connection stays, and nobody looks at it.
            std::future::pending::<()>().await;
        });
        let connection = Multiplexed::begin(ours).await.expect("a beginning");
        let lease = Shared::new().add(connection);
        let request = Request::get("http://upstream/").body(Outgoing::empty());
        let begun = Instant::now();
        let answer = lease.send(request.expect("a request"));
        let answered = tokio::time::timeout(patience, answer).await;
        upstream.abort();
        let error = answered.ok().and_then(|answered| answered.err());
        (error.map(TrySendError::into_error), begun.elapsed())
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn f12_an_upstream_that_leaves_a_ping_unanswered_is_given_up() {
        let (error, took) = ask(false, Duration::from_secs(3600)).await;
        let error = error.expect("it is given up");
        let cause = std::error::Error::source(&error).expect("a cause");
        assert!(
            cause.to_string().contains("keep-alive timed out"),
            "{cause}"
        );
        assert_eq!(took.as_secs(), (PING_EVERY + PING_ANSWER).as_secs());
        // One that answers them is not, however long it takes.
        let (error, took) = ask(true, Duration::from_secs(3600)).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(took.as_secs(), 3600);
    }

    #[tokio::test(flavor = "local")]
    async fn whoever_waits_for_a_connection_to_be_opened_takes_a_place_that_becomes_free() {
        let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = upstream.local_addr().expect("an address");
        let tcp = TcpStream::connect(address).await.expect("a connection");
        let stream = Stream::from(dial::Stream::Plain(tcp));
        let connection = Multiplexed::begin(stream).await.expect("a beginning");
        let shared = Shared::new();
        let mut places = vec![shared.add(connection)];
        while let Some(place) = shared.lease() {
            places.push(place);
        }
        assert_eq!(places.len(), MOST_STREAMS);
        let Entry::Turn(turn) = shared.place_or_turn().await else {
            panic!("there is no place");
        };
        let mut waiting = pin!(shared.place_or_turn());
        poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending(), "nothing is free");
            std::task::Poll::Ready(())
        })
        .await;
        places.pop();
        assert!(matches!(waiting.await, Entry::Place(_)));
        drop(turn);
        assert!(matches!(shared.place_or_turn().await, Entry::Place(_)));
    }
}
