//! WebSockets: after upstream's 101 bytes pass both ways as they come, and nobody looks at them (rule F16).
//!
//! A connection of its own is opened to upstream for each, since it never comes back to HTTP. The client's side is the
//! server's: it hands over its connection when the 101 has been sent, and carries the tunnel in the same task, so that it
//! is waited for at the end like every request.

use std::cell::Cell;
use std::fmt::Debug;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::body::{RequestBody, ResponseBody};
use super::clients::Client;
use super::connection::Connection;
use super::cure::Answer;
use super::exchange::Exchange;
use super::reply::Refusal;
use super::send_error::SendError;
use super::upstream::overdue;
use super::upstream_body::UpstreamBody;
use super::{Asked, Bearer, Proxy, StatusCode, echo, head, route};

/// Bytes of each direction that are held here at the most: what one TLS record carries (RFC 8446 section 5.1).
const BUFFER: usize = 16 << 10;

/// How long nothing may move in a tunnel whose program has ended, longer than bytes stay on their way through this machine.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a client's connection becomes when it is no longer HTTP.
#[derive(Debug)]
pub enum Beyond {
    /// Its bytes go to somebody else.
    Tunnel(Tunnel),
    /// The client believes to speak to another host from now on, over TLS.
    Intercepted(Intercepted),
}

/// As whom a client is answered, and which client that is.
#[derive(Debug)]
pub struct Intercepted {
    /// The host that it asked for, in lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `None` where clients have no keys.
    pub client: Option<Arc<Client>>,
}

/// A connection to somebody, and what is needed to carry its bytes.
#[derive(Debug)]
pub struct Tunnel {
    /// With what has come right behind a 101.
    far: Box<dyn Far>,
    /// How long both sides may be silent.
    bound: Duration,
    /// Written down when the tunnel has ended.
    exchange: Option<Box<Exchange>>,
}

/// The other end of a tunnel.
trait Far: AsyncRead + AsyncWrite + Debug + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Unpin> Far for T {}

impl Proxy {
    /// Whether a request with this head may change to WebSocket: as RFC 6455 section 4.1 has it, and upstream can be
    /// asked for it.
    pub(super) fn may_tunnel(&self, head: &Parts) -> bool {
        head.method == Method::GET
            && head.version == Version::HTTP_11
            && self.settings.target.may_speak_http1()
    }

    /// Steps 5 to 8 for a request that asks for a WebSocket. A client that gets something else must close: what it has
    /// sent ahead of its time would be taken for a request.
    pub(super) async fn open_tunnel(
        &self,
        head: &mut Parts,
        body: &RequestBody,
        asked: &Asked,
        exchange: Option<&mut Exchange>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let bearer = self.settings.grant.bearer().await?;
        let on_its_way = self.lane.enter();
        head::authorize(&mut head.headers, bearer.header.clone());
        let generation = bearer.generation;
        let first = self.ask_for_websocket(head, body, bearer).await?;
        let is_curable = route::is_curable(first.status(), &head.uri);
        let mut answer = match generation.filter(|_| is_curable) {
            None => first,
            Some(generation) => self.cure(first, head, body, generation).await,
        };
        drop(on_its_way);
        answer.note(exchange);
        if answer.switches() {
            return Ok(self.switch(answer, &head.uri, asked).await?);
        }
        let mut response = self.hand_back(answer, &head.uri, asked);
        head::close(response.headers_mut());
        Ok(response)
    }

    /// Step 6 on a connection that serves nothing else.
    pub(super) async fn ask_for_websocket(
        &self,
        head: &Parts,
        body: &RequestBody,
        bearer: Arc<Bearer>,
    ) -> Result<Answer, SendError> {
        let target = &self.settings.target;
        let Connection {
            mut sender,
            driver,
            resumed,
            mut alarm,
            ..
        } = *target.connect_http1().await?;
        let driver = tokio::task::spawn_local(async move {
            // How it ends, the answer says.
            let _ = driver.with_upgrades().await;
        });
        let driver = AbortOnDropHandle::new(driver);
        let request = body.attempt_with(head.clone());
        let response = tokio::select! {
            biased;
            answered = sender.send_request(request) => answered.map_err(unanswered)?,
            error = overdue(target.bounds(), body, resumed, &mut alarm) => return Err(error),
        };
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !head::is_websocket(response.headers()) {
            return Err(SendError::Switched);
        }
        let response =
            response.map(|incoming| UpstreamBody::alone(incoming, driver, self.upstream.clone()));
        Answer::plain(response, Some(bearer))
    }

    /// The 101 to a request for `uri` as the client should see it, and the tunnel behind it.
    async fn switch(
        &self,
        answer: Answer,
        uri: &Uri,
        asked: &Asked,
    ) -> Result<Response<ResponseBody>, SendError> {
        let mut response = answer.response;
        if let Some(bearer) = &answer.bearer {
            echo::look_at_head(response.headers(), bearer, uri.path());
        }
        // The task that drives the connection gives it up as soon as it has passed the head on.
        let upgraded = hyper::upgrade::on(&mut response).await;
        let upgraded = TokioIo::new(upgraded.map_err(SendError::Ended)?);
        let tunnel = Tunnel::to(upgraded, self.settings.tunnel_timeout);
        head::prepare_response(&mut response, answer.names);
        head::change_to_websocket(response.headers_mut());
        self.point_back(response.headers_mut(), asked);
        Ok(response.map(|_| ResponseBody::switched(Beyond::Tunnel(tunnel))))
    }
}

fn unanswered(error: hyper::Error) -> SendError {
    match error.is_parse() {
        true => SendError::Garbage(error),
        false => SendError::Ended(error),
    }
}

impl Tunnel {
    /// A tunnel to `far` on which both sides may be silent for `bound`.
    pub(super) fn to(
        far: impl AsyncRead + AsyncWrite + Debug + Unpin + 'static,
        bound: Duration,
    ) -> Self {
        Self {
            far: Box::new(far),
            bound,
            exchange: None,
        }
    }

    /// Has `exchange` written down when the tunnel has ended.
    pub fn then_log(&mut self, exchange: Box<Exchange>) {
        self.exchange = Some(exchange);
    }

    /// Carries bytes both ways until both sides have ended, one has broken off, or nothing has moved for too long, which is
    /// not long once `leaving` has completed. `early` is what the client has sent right behind its request.
    pub async fn carry(
        self,
        client: impl AsyncRead + AsyncWrite,
        early: Bytes,
        leaving: impl Future<Output = ()>,
    ) {
        let counts = Counts::new(self.exchange.as_deref());
        let (from_client, to_client) = tokio::io::split(client);
        let (from_upstream, to_upstream) = tokio::io::split(self.far);
        let ended = {
            let up = counts.pass(early.chain(from_client), to_upstream, &counts.up);
            let down = counts.pass(from_upstream, to_client, &counts.down);
            tokio::select! {
                ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()).map_err(|_| None),
                () = counts.last_words(leaving) => Err(Some("its program has ended".to_owned())),
                () = counts.silent(self.bound) => Err(Some(format!("nothing moved for {:?} (timeouts.tunnel)", self.bound))),
            }
        };
        if let Some(mut exchange) = self.exchange {
            exchange.sent(counts.down.get());
            if let Err(reason) = ended {
                exchange.cut(reason);
            }
        }
    }
}

/// What has moved through a tunnel.
struct Counts {
    /// Bytes from the client; the request's line in the log counts them too.
    up: Rc<Cell<u64>>,
    down: Rc<Cell<u64>>,
    last: Cell<Instant>,
}

impl Counts {
    fn new(exchange: Option<&Exchange>) -> Self {
        Self {
            up: exchange.map_or_else(Rc::default, |exchange| exchange.received.clone()),
            down: Rc::default(),
            last: Cell::new(Instant::now()),
        }
    }

    /// Carries one direction to its end, which is passed on.
    async fn pass(
        &self,
        from: impl AsyncRead,
        to: impl AsyncWrite,
        count: &Cell<u64>,
    ) -> io::Result<()> {
        tokio::pin!(from, to);
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = from.read(&mut buffer).await?;
            self.moved();
            if length == 0 {
                return to.shutdown().await;
            }
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let written = to.write(rest).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.moved();
                count.set(count.get() + written as u64);
                rest = &rest[written..];
            }
            to.flush().await?;
            self.moved();
        }
    }

    fn moved(&self) {
        self.last.set(Instant::now());
    }

    /// Completes when `leaving` has, and what was under way has passed.
    async fn last_words(&self, leaving: impl Future<Output = ()>) {
        leaving.await;
        // What was written just before may not have been read.
        tokio::time::sleep(LAST_WORDS).await;
        self.silent(LAST_WORDS).await;
    }

    /// Completes when nothing has moved for so long.
    async fn silent(&self, bound: Duration) {
        loop {
            let deadline = self.last.get() + bound;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}
