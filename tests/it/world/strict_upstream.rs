//! The upstream of a bench: it takes strict requests only, and keeps what it sees.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::SOON;
use super::strict;
use super::table::find;

/// An upstream that takes strict requests only, and keeps what it sees.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answer: Mutex<Answer>,
    seen: Mutex<Record>,
    grown: Condvar,
}

/// What upstream has seen.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    /// Requests that have begun to arrive and not come to an end.
    unfinished: usize,
}

/// What upstream answers.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// As soon as the head is there; the connection ends with it.
    pub(crate) at_head: bool,
    /// The connection ends with it too.
    pub(crate) end: bool,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("not blocking");
        let shared = Arc::new(Shared::default());
        let upstream = Self {
            address,
            shared: shared.clone(),
        };
        // One thread for all connections: what has arrived first is seen first.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, shared.clone()));
                }
            });
        });
        upstream
    }

    /// What every request is answered with from now on, probes excepted.
    pub(crate) fn answer_with(&self, answer: Answer) {
        *self.shared.answer.lock().expect("whole") = answer;
    }

    /// What was seen since this was asked before. What has begun to arrive ends in time, whole or cut, and is waited for.
    pub(crate) fn take(&self) -> Vec<u8> {
        let seen = self.shared.seen.lock().expect("whole");
        let is_unfinished = |seen: &mut Record| seen.unfinished > 0;
        let waited = self
            .shared
            .grown
            .wait_timeout_while(seen, SOON, is_unfinished);
        std::mem::take(&mut waited.expect("whole").0.bytes)
    }
}

impl Shared {
    fn see(&self, bytes: &[u8]) {
        self.seen.lock().expect("whole").bytes.extend(bytes);
    }

    /// Whether a request has begun that did not end before.
    fn has_begun(&self, begun: bool, before: bool) {
        let mut seen = self.seen.lock().expect("whole");
        seen.unfinished = seen.unfinished + usize::from(begun) - usize::from(before);
        self.grown.notify_all();
    }
}

/// Reads requests and answers them, until one is not as it should be.
async fn serve(mut stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let mut begun = false;
    loop {
        let read = stream.read_buf(&mut bytes).await;
        let ended = !matches!(read, Ok(read) if read > 0);
        let goes_on = !ended && take(&mut stream, &mut bytes, &shared).await;
        if ended && !bytes.is_empty() {
            shared.see(&[&bytes[..], b"{cut}"].concat());
        }
        let begins = goes_on && !bytes.is_empty();
        shared.has_begun(begins, begun);
        begun = begins;
        if !goes_on {
            return;
        }
    }
}

/// Takes what has come; whether the connection goes on.
async fn take(stream: &mut tokio::net::TcpStream, bytes: &mut Vec<u8>, shared: &Shared) -> bool {
    loop {
        let answer = shared.answer.lock().expect("whole").clone();
        match strict::request(bytes) {
            strict::Read::Whole(request, length) => {
                bytes.drain(..length);
                let answer = match probe(&request) {
                    Some(number) => probe_answer(&number),
                    None => {
                        shared.see(&request);
                        answer
                    }
                };
                if !send(stream, &answer).await {
                    return false;
                }
            }
            strict::Read::Head(head) if answer.at_head => {
                shared.see(&head);
                return send(stream, &answer).await;
            }
            strict::Read::Head(_) | strict::Read::Partial => return true,
            strict::Read::Malformed(_) => {
                shared.see(&[&bytes[..], b"{malformed}"].concat());
                return false;
            }
        }
    }
}

/// Sends an answer; whether the connection goes on.
async fn send(stream: &mut tokio::net::TcpStream, answer: &Answer) -> bool {
    let _ = stream.write_all(&answer.bytes).await;
    if answer.end {
        let _ = stream.shutdown().await;
    }
    !answer.end
}

fn probe(request: &[u8]) -> Option<String> {
    let rest = request.strip_prefix(b"GET /probe/")?;
    let end = find(rest, b" ")?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

fn probe_answer(number: &str) -> Answer {
    let content = format!("the probe {number}.");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    Answer {
        bytes: [head.as_bytes(), content.as_bytes()].concat(),
        ..Answer::default()
    }
}
