//! A listener for one answer of the browser (RFC 8252 section 7.3): on this machine only, on one path, and deaf to
//! everything that does not belong to this login.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::page::Page;
use crate::config::RedirectUrl;
use crate::proxy::guard::asked_host;
use crate::token::endpoint::Code;
use crate::token::login::{Attempt, CallbackError};

/// Browsers open a few connections ahead; nobody needs more.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and a connection be unused.
const HEAD: Duration = Duration::from_secs(10);
/// How long the last page may take to reach the browser.
const LAST_PAGE: Duration = Duration::from_secs(1);
/// How often a free port is looked for that is free on every address.
const TRIES: usize = 20;

/// The bound sockets of a login that has not begun.
#[derive(Debug)]
pub(super) struct Listener {
    sockets: Vec<TcpListener>,
    port: u16,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// Another program does.
    #[error(
        "{address} is in use, where the browser is to come back to ({redirect_url}); another login may wait there: end it, or set redirect_url to another port that is registered for the application, or log in with --paste"
    )]
    InUse {
        address: SocketAddr,
        redirect_url: String,
    },
    /// The system refused.
    #[error(
        "cannot listen on {address}, where the browser is to come back to ({redirect_url}); set redirect_url to another port that is registered for the application, or log in with --paste"
    )]
    Refused {
        address: SocketAddr,
        redirect_url: String,
        source: io::Error,
    },
}

impl Listener {
    /// Takes the port on all addresses that the redirect URL may mean; an address that the machine does not have is
    /// left out.
    pub(super) async fn bind(url: &RedirectUrl) -> Result<Self, BindError> {
        let mut tries = 0;
        loop {
            match bind_all(&url.listen(), url.origin().port).await {
                Ok(listener) => return Ok(listener),
                // A free port on one address may be taken on the other.
                Err((_, error))
                    if url.origin().port == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && tries < TRIES =>
                {
                    tries += 1;
                }
                Err((address, source)) => {
                    let redirect_url = url.as_str().to_owned();
                    return Err(match source.kind() {
                        io::ErrorKind::AddrInUse => BindError::InUse {
                            address,
                            redirect_url,
                        },
                        _ => BindError::Refused {
                            address,
                            redirect_url,
                            source,
                        },
                    });
                }
            }
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Begins to listen for the answer to `attempt`.
    pub(super) fn open(self, url: &RedirectUrl, attempt: Arc<Attempt>) -> Door {
        let (decisions, decided) = mpsc::channel(1);
        let over = Arc::new(AtomicBool::new(false));
        let reception = Arc::new(Reception {
            attempt,
            path: url.path().to_owned(),
            hosts: names(url, self.port),
            over: over.clone(),
            decisions,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        for socket in self.sockets {
            let accept = accept(
                socket,
                reception.clone(),
                room.clone(),
                stop.clone(),
                tasks.clone(),
            );
            tasks.spawn(accept);
        }
        Door {
            decided,
            over,
            stop,
            tasks,
        }
    }
}

/// Binds one port, the first free one for 0, on every address that the machine has.
async fn bind_all(addresses: &[IpAddr], port: u16) -> Result<Listener, (SocketAddr, io::Error)> {
    let mut listener = Listener {
        sockets: Vec::new(),
        port,
    };
    let mut missing = None;
    for address in addresses {
        let address = SocketAddr::new(*address, listener.port);
        let bound = TcpListener::bind(address).await;
        let bound = bound.and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
        match bound {
            Ok((port, socket)) => {
                listener.port = port;
                listener.sockets.push(socket);
            }
            Err(error) if is_missing(&error) => missing = Some((address, error)),
            Err(error) => return Err((address, error)),
        }
    }
    match missing {
        Some(missing) if listener.sockets.is_empty() => Err(missing),
        _ => Ok(listener),
    }
}

/// Whether the machine has no such address, as without IPv6.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// What a browser may call this listener: a page with a name of its own could lead here otherwise (DNS rebinding).
fn names(url: &RedirectUrl, port: u16) -> Vec<String> {
    let own = url.origin().host.as_str();
    let own = match own.contains(':') {
        true => format!("[{own}]"),
        false => own.to_owned(),
    };
    let hosts = ["localhost", "127.0.0.1", "[::1]", &own].map(str::to_owned);
    let mut names: Vec<_> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    if port == 80 {
        // `Host` leaves out the scheme's own port (RFC 9110 section 7.2).
        names.extend(hosts);
    }
    names
}

/// An open listener; closed for good when dropped.
#[derive(Debug)]
pub(super) struct Door {
    decided: mpsc::Receiver<Decision>,
    over: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What ends the wait for an answer. Exactly one is made.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: Result<Code, CallbackError>,
    /// Shows a page to the person, whose browser waits for it.
    pub(super) page: oneshot::Sender<Page>,
}

impl Door {
    /// Waits for the answer.
    pub(super) async fn decision(&mut self) -> Decision {
        match self.decided.recv().await {
            Some(decision) => decision,
            // Nobody is left who could answer.
            None => std::future::pending().await,
        }
    }

    /// Lets a code that came by another way be the answer, unless the browser was first.
    pub(super) fn decide(&self) -> bool {
        !self.over.swap(true, Ordering::AcqRel)
    }

    /// Accepts nobody any more and lets the last page reach the browser.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        // Each connection has that bound itself.
        let _ = tokio::time::timeout(LAST_PAGE * 2, self.tasks.wait()).await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What all connections share.
#[derive(Debug)]
struct Reception {
    attempt: Arc<Attempt>,
    path: String,
    hosts: Vec<String>,
    over: Arc<AtomicBool>,
    decisions: mpsc::Sender<Decision>,
}

async fn accept(
    socket: TcpListener,
    reception: Arc<Reception>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, or a peer that has left.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let serve = serve(stream, reception.clone(), stop.clone());
        tasks.spawn(async move {
            serve.await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, reception: Arc<Reception>, stop: CancellationToken) {
    let service = service_fn(|request| {
        let reception = reception.clone();
        async move { Ok::<_, std::convert::Infallible>(reception.answer(request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_PAGE, connection).await;
}

impl Reception {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let page = self.page(&request).await;
        page.into_response()
    }

    async fn page(&self, request: &Request<Incoming>) -> Page {
        if !self.is_asked_by_name(request) {
            return Page::nothing(StatusCode::FORBIDDEN);
        }
        if request.method() != Method::GET || request.uri().path() != self.path {
            return Page::nothing(StatusCode::NOT_FOUND);
        }
        if self.over.load(Ordering::Acquire) {
            return Page::over();
        }
        match self
            .attempt
            .callback(request.uri().query().unwrap_or_default())
        {
            Err(error) if error.may_be_forged() => {
                tracing::warn!(
                    "a request to the redirect URL was not used: {error}; the login still waits"
                );
                Page::not_ours(&error)
            }
            outcome => self.decide(outcome).await,
        }
    }

    fn is_asked_by_name(&self, request: &Request<Incoming>) -> bool {
        let asked = asked_host(request.uri(), request.headers());
        asked.is_ok_and(|asked| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(asked)))
    }

    /// Hands on what ends the wait, and waits for what is to be shown.
    async fn decide(&self, outcome: Result<Code, CallbackError>) -> Page {
        if self.over.swap(true, Ordering::AcqRel) {
            return Page::over();
        }
        let (page, shown) = oneshot::channel();
        let handed_on = self.decisions.send(Decision { outcome, page }).await;
        match (handed_on, shown.await) {
            (Ok(()), Ok(page)) => page,
            _ => Page::failed("lucid-proxy was stopped; nothing was stored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedirectUrl {
        RedirectUrl::parse(text).expect("a redirect URL")
    }

    #[test]
    fn s02_the_listener_has_the_names_of_this_machine_and_no_other() {
        let names_of = |text, port| names(&url(text), port);
        let usual = names_of("http://localhost:8117/callback", 8117);
        for name in ["localhost:8117", "127.0.0.1:8117", "[::1]:8117"] {
            assert!(usual.iter().any(|own| own == name), "{name}");
        }
        assert!(usual.iter().all(|own| own.ends_with(":8117")), "{usual:?}");
        let plain = names_of("http://127.0.0.2/callback", 80);
        for name in ["127.0.0.2", "127.0.0.2:80", "localhost"] {
            assert!(plain.iter().any(|own| own == name), "{name}");
        }
    }

    #[tokio::test]
    async fn localhost_is_one_port_on_all_addresses_that_there_are() {
        let url = url("http://localhost:0/callback");
        let listener = Listener::bind(&url).await.expect("a free port");
        let ports: Vec<_> = listener
            .sockets
            .iter()
            .map(|socket| socket.local_addr().expect("bound").port())
            .collect();
        assert!(
            ports
                .iter()
                .all(|port| *port == listener.port() && *port != 0)
        );
        let taken = RedirectUrl::parse(&url.at(listener.port())).expect("a redirect URL");
        let error = Listener::bind(&taken).await.expect_err("taken");
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
    }
}
