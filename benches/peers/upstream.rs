//! The server behind the proxies: checks what reaches it, answers from memory, and is never what a proxy waits for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::case::{Case, authorization};
use crate::content::Content;
use crate::wire::{Head, Reader};

/// What clients see of a violation as well, though it is counted here.
const VIOLATION: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server on a thread of its own, which lasts as long as the process.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    violations: Arc<AtomicU64>,
}

/// What every connection's task knows.
struct Expected {
    host: String,
    authorization: String,
    exchanges: Vec<Exchange>,
    violations: Arc<AtomicU64>,
}

struct Exchange {
    request_line: String,
    content: Content,
    response_head: Vec<u8>,
    answer: Content,
}

impl Upstream {
    /// Starts to answer `cases`.
    pub(crate) fn start(cases: &[Case]) -> anyhow::Result<Self> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let violations = Arc::new(AtomicU64::new(0));
        let expected = Arc::new(Expected::new(address, cases, violations.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || runtime.block_on(accept(listener, expected)))?;
        Ok(Self {
            address,
            violations,
        })
    }

    /// Fails if any request so far was not as it should be.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.violations.load(Ordering::Relaxed) {
            0 => Ok(()),
            wrong => bail!("{wrong} requests reached upstream otherwise than they should"),
        }
    }
}

async fn accept(listener: StdListener, expected: Arc<Expected>) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, expected.clone()));
    }
}

/// Answers one request after the other until the proxy closes, or breaks, the connection: how it ends is its own
/// business, and a client that misses an answer says so.
async fn serve(mut stream: TcpStream, expected: Arc<Expected>) {
    let mut reader = Reader::new();
    loop {
        match expected.serve_one(&mut reader, &mut stream).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

impl Expected {
    fn new(address: SocketAddr, cases: &[Case], violations: Arc<AtomicU64>) -> Self {
        let exchanges = cases.iter().map(|case| Exchange {
            request_line: case.request_line(),
            content: case.content.clone(),
            response_head: case.response_head(),
            answer: case.answer.clone(),
        });
        Self {
            host: address.to_string(),
            authorization: authorization(),
            exchanges: exchanges.collect(),
            violations,
        }
    }

    /// Answers the next request; says whether another may follow.
    async fn serve_one(&self, reader: &mut Reader, stream: &mut TcpStream) -> anyhow::Result<bool> {
        let Some(head) = reader.head(stream).await? else {
            return Ok(false);
        };
        let checked = match self.check(&head) {
            Ok(exchange) if reader.content_is(&exchange.content, stream).await? => Ok(exchange),
            Ok(_) => Err(anyhow!("other content than was sent")),
            Err(violation) => Err(violation),
        };
        match checked {
            Ok(exchange) => {
                let answer = &exchange.answer;
                answer.write_behind(&exchange.response_head, stream).await?;
                Ok(true)
            }
            Err(violation) => {
                if self.violations.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("upstream: {violation:#}");
                }
                stream.write_all(VIOLATION).await?;
                Ok(false)
            }
        }
    }

    fn check(&self, head: &Head<'_>) -> anyhow::Result<&Exchange> {
        ensure!(
            head.only("host")? == self.host.as_bytes(),
            "another Host than {}",
            self.host
        );
        ensure!(
            head.only("authorization")? == self.authorization.as_bytes(),
            "another Authorization than {}",
            self.authorization
        );
        self.exchanges
            .iter()
            .find(|exchange| head.start == exchange.request_line.as_bytes())
            .with_context(|| {
                let start = String::from_utf8_lossy(head.start);
                format!("another request line than any case has: {start}")
            })
    }
}
