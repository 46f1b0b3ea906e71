//! The listening side: accepts connections and hands each request to the part that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::body::Cut;
use super::reply::{FlowId, Reply};
use super::shared::Shared;
use super::tap::Tap;
use super::{api, authorize, control, token_endpoint};

/// How long to wait after a failed accept. Such failures are about the process, most often too many open files, and
/// trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is signalled. The connections' tasks end with the runtime.
pub(super) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Connection::open(&shared)))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// What is known about one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    /// How many requests it has carried.
    requests: AtomicU64,
    /// Whether a token POST was among them.
    token_seen: AtomicBool,
}

impl Connection {
    fn open(shared: &Arc<Shared>) -> Connection {
        shared.ledger.update(|counts| {
            counts.connections += 1;
            counts.open_connections += 1;
        });
        Connection {
            shared: Arc::clone(shared),
            requests: AtomicU64::new(0),
            token_seen: AtomicBool::new(false),
        }
    }

    /// Counts the connection's present request as a token POST. Code exchanges are counted elsewhere.
    pub(super) fn note_token_post(&self) {
        let used = self.requests.load(Ordering::Relaxed) > 1;
        let first = !self.token_seen.swap(true, Ordering::Relaxed);
        self.shared.ledger.update(|counts| {
            counts.token_posts += 1;
            counts.token_posts_on_used_connections += u64::from(used);
            counts.token_connections += u64::from(first);
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared
            .ledger
            .update(|counts| counts.open_connections -= 1);
    }
}

async fn serve(stream: TcpStream, connection: Connection) {
    // Small answers must not wait for the acknowledgement of the ones before. Failure costs time and nothing else.
    let _ = stream.set_nodelay(true);
    let connection = &connection;
    let service = service_fn(move |request| answer(connection, request));
    let stream = TokioIo::new(Tap::new(stream, Arc::clone(&connection.shared)));
    let served = http1::Builder::new()
        .serve_connection(stream, service)
        .await;
    // All other errors are clients that left and cuts that the script asked for.
    if served.is_err_and(|error| error.is_parse()) {
        connection
            .shared
            .ledger
            .problem(String::from("a request that does not parse"));
    }
}

async fn answer(connection: &Connection, request: Request<Incoming>) -> Result<Reply, Cut> {
    connection.requests.fetch_add(1, Ordering::Relaxed);
    let flow = FlowId::random();
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let mut reply = if let Some(endpoint) = token_endpoint::Endpoint::at(path) {
        token_endpoint::answer(endpoint, connection, &head, body).await?
    } else if let Some(page) = authorize::Page::at(path) {
        authorize::answer(page, &connection.shared, &head, body).await?
    } else if control::serves(path) {
        control::answer(&connection.shared, &head, flow)
    } else {
        api::answer(&connection.shared, &head, body, flow).await?
    };
    flow.stamp(&mut reply);
    Ok(reply)
}
