//! The proxy between a pipe and an upstream.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lucid_proxy::clock::SystemClock;
use lucid_proxy::config::{Config, Need, Scheme};
use lucid_proxy::proxy::body::{Activity, InFlight};
use lucid_proxy::proxy::guard::Guard;
use lucid_proxy::proxy::{Proxy, Settings};
use lucid_proxy::token::refresher::Refresher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio_util::task::TaskTracker;

use super::strict::{self, Expected};

/// Of virtual time: more than every bound of the proxy's together.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// More than the longest input.
const PIPE: usize = 64 << 10;
const TOKEN: &str = "oauth2-access-fuzz";

pub(super) struct World {
    runtime: LocalRuntime,
    proxy: Rc<Proxy>,
    guard: Rc<Guard>,
    /// What upstream has had of requests, whole or begun.
    seen: Rc<Cell<u64>>,
    _directory: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let seen = Rc::new(Cell::new(0));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let upstream = listener.local_addr().expect("an address");
        let directory = tempfile::tempdir().expect("a directory");
        let settings = settings(&format!("http://{upstream}"), directory.path());
        let expected = Rc::new(Expected {
            host: upstream.to_string(),
            authorization: format!("Bearer {TOKEN}"),
        });
        let accept = accept(listener, expected, seen.clone());
        let proxy = runtime.block_on(async {
            tokio::task::spawn_local(accept);
            Rc::new(Proxy::new(settings, TaskTracker::new()))
        });
        let guard = Guard::tcp(Scheme::Http, ([127, 0, 0, 1], 8118).into(), &[]);
        Self {
            runtime,
            proxy,
            guard: Rc::new(guard),
            seen,
            _directory: directory,
        }
    }

    /// Sends `bytes`, then nothing more, and reads what comes back to its end.
    pub(super) fn serve(&mut self, bytes: &[u8]) {
        // Compared with the input, the token finds its way into it, and back to a client that has sent it.
        if strict::contains(bytes, TOKEN) {
            return;
        }
        let before = self.seen.get();
        let taken = Rc::new(Cell::new(0_u64));
        let (client, server) = tokio::io::duplex(PIPE);
        let proxy = self.proxy.clone();
        let guard = self.guard.clone();
        let counted = taken.clone();
        let activity = Activity::new(&InFlight::new(usize::MAX));
        let service = service_fn(move |request| {
            let (proxy, guard) = (proxy.clone(), guard.clone());
            let (busy, _) = activity.begin();
            counted.set(counted.get() + 1);
            async move { Ok::<_, Infallible>(proxy.handle(request, &guard, busy).await) }
        });
        let answers = Rc::new(RefCell::new(Vec::new()));
        let kept = answers.clone();
        self.runtime.block_on(async {
            let connection = http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(server), service);
            let served = tokio::task::spawn_local(connection);
            let (mut reading, mut writing) = tokio::io::split(client);
            let talk = async {
                let send = async {
                    // The proxy may have closed before.
                    let _ = writing.write_all(bytes).await;
                    let _ = writing.shutdown().await;
                };
                let receive = async {
                    let mut all = Vec::new();
                    let _ = reading.read_to_end(&mut all).await;
                    *kept.borrow_mut() = all;
                };
                tokio::join!(send, receive);
            };
            let over = tokio::time::timeout(LONG, talk).await;
            over.expect("the connection ends when the client has ended");
            // Errors are the client's; a panic is not.
            let _ = served.await.expect("no panic");
            // What is left of requests is carried on or given up.
            tokio::time::sleep(Duration::from_secs(600)).await;
        });
        let requests = self.seen.get() - before;
        assert!(
            requests <= taken.get(),
            "{requests} requests out of {}",
            taken.get()
        );
        let answers = answers.borrow();
        assert!(!strict::contains(&answers, TOKEN), "a token: {answers:?}");
    }
}

fn settings(upstream: &str, directory: &std::path::Path) -> Settings {
    let store = directory.join("token_info.json");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&store)
        .expect("a file");
    let record = format!(
        r#"{{"access_token":"{TOKEN}","refresh_token":"r","expires_at":"2100-01-01T00:00:00Z","generation":1}}"#
    );
    file.write_all(record.as_bytes()).expect("written");
    let text = format!(
        "[upstream]\nurl = \"{upstream}\"\n[credentials.default]\ntoken_url = \"{upstream}/oauth2/token\"\nstore = {store:?}\n"
    );
    let environment = ["LUCID_CLIENT_ID", "LUCID_CLIENT_SECRET"];
    let environment = environment.map(|name| (name.to_owned(), "value".to_owned()));
    let environment = BTreeMap::from(environment);
    let config = Config::parse(&text, None, &environment, Need::Everything).expect("accepted");
    let clock = Arc::new(SystemClock);
    let opened = Refresher::open(&config.credential, config.timeouts.token, clock);
    let (grant, _) = opened.expect("a grant");
    Settings::new(&config, grant).expect("an upstream")
}

async fn accept(listener: TcpListener, expected: Rc<Expected>, seen: Rc<Cell<u64>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (expected, seen) = (expected.clone(), seen.clone());
        tokio::task::spawn_local(async move {
            if let Err(ambiguous) = answer(stream, &expected, &seen).await {
                // A panic in a task would be caught there.
                eprintln!("upstream got what it should not: {ambiguous}");
                std::process::abort();
            }
        });
    }
}

/// Answers every request on a connection.
async fn answer(
    mut stream: TcpStream,
    expected: &Expected,
    seen: &Cell<u64>,
) -> Result<(), String> {
    // No port stays behind for a minute.
    let _ = stream.set_zero_linger();
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    loop {
        let request = loop {
            if let Some(request) = strict::request(&bytes, expected)? {
                break request;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                // Cut in the middle: the client's part was. A whole request before that was answered.
                return Ok(());
            }
        };
        seen.set(seen.get() + 1);
        bytes.drain(..request.length);
        let content = if request.is_head { "" } else { "ok" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLink: <http://{}/next>; rel=next\r\n\r\n{content}",
            expected.host
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return Ok(());
        }
    }
}
