//! An upstream that takes and gives content without keeping it, and the places where one side waits for the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::content::Content;

/// For what takes as long as a machine takes to move gigabytes; nothing is measured with it.
const AT_LAST: Duration = Duration::from_secs(600);

/// Opened once; whoever comes before waits.
#[derive(Default)]
pub(super) struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub(super) fn open(&self) {
        *self.0.lock().expect("whole") = true;
        self.1.notify_all();
    }

    #[track_caller]
    pub(super) fn wait(&self) {
        let closed = self.0.lock().expect("whole");
        let waited = self.1.wait_timeout_while(closed, AT_LAST, |open| !*open);
        assert!(*waited.expect("whole").0, "not within {AT_LAST:?}");
    }
}

/// How far the transfers have come.
#[derive(Default)]
pub(super) struct Stage {
    /// A quarter of the big upload has arrived.
    pub(super) up_begun: Gate,
    /// A quarter of the big download has arrived.
    pub(super) down_begun: Gate,
    /// Half of the upload that is to be sent again has arrived.
    pub(super) half: Gate,
    /// It may be answered 401.
    pub(super) deny: Gate,
    /// It was sent again and answered; before that the big ones keep their last quarter, so that they are under way
    /// meanwhile.
    pub(super) cured: Gate,
    attempts: AtomicU32,
}

impl Stage {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Nobody waits for a test that has failed.
    pub(super) fn release_at_the_end(&self) -> Release<'_> {
        Release(self)
    }

    /// How often the upload that is to be sent again has come.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// Opens what a test opens in its course, when it is dropped.
pub(super) struct Release<'a>(&'a Stage);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.deny.open();
        self.0.cured.open();
    }
}

/// Ends with the process.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
}

impl Upstream {
    pub(super) fn start(stage: &Arc<Stage>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let stage = stage.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let stage = stage.clone();
                std::thread::spawn(move || serve(stream, &stage));
            }
        });
        Self { address }
    }
}

/// A request as far as it matters here: `POST /up?length=1048576`.
struct Request {
    method: String,
    path: String,
    length: u64,
}

fn serve(stream: TcpStream, stage: &Stage) {
    stream.set_nodelay(true).expect("no delay");
    let mut reader = BufReader::with_capacity(256 << 10, stream.try_clone().expect("a handle"));
    let mut writer = stream;
    while let Some(request) = head(&mut reader) {
        let length = request.length;
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/cured") if stage.attempts.fetch_add(1, Ordering::Relaxed) == 0 => {
                take(&mut reader, length / 2, |_| {});
                stage.half.open();
                stage.deny.wait();
                answer(&mut writer, "401 Unauthorized");
                // What is still coming is taken until the proxy has seen the answer.
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            ("POST", path) => {
                let is_up = path == "/up";
                take(&mut reader, length, |passed| {
                    if is_up && passed >= length / 4 {
                        stage.up_begun.open();
                    }
                });
                answer(&mut writer, "200 OK");
            }
            (_, path) => {
                let held = (path == "/down").then_some(&stage.cured);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                writer.write_all(head.as_bytes()).expect("a client");
                give(length, held, |block| {
                    writer.write_all(block).expect("a client");
                });
            }
        }
    }
}

fn head(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // An error is the end, too.
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_ascii_lowercase());
    }
    let mut words = lines[0].split(' ');
    let method = words.next().expect("a method").to_ascii_uppercase();
    let target = words.next().expect("a target");
    let (path, length) = target.split_once("?length=").expect("a length");
    if method == "POST" {
        let framing = format!("content-length: {length}");
        assert!(lines.contains(&framing), "{lines:?}");
    }
    Some(Request {
        path: path.to_owned(),
        length: length.parse().expect("a length"),
        method,
    })
}

fn answer(writer: &mut impl Write, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    writer.write_all(answer.as_bytes()).expect("a client");
}

/// Reads content of this length and tells how much has come.
pub(super) fn take(reader: &mut impl BufRead, length: u64, mut passed: impl FnMut(u64)) {
    let mut content = Content::new();
    let mut limited = reader.take(length);
    loop {
        let bytes = limited.fill_buf().expect("more content");
        if bytes.is_empty() {
            break;
        }
        content.check(bytes);
        let taken = bytes.len();
        limited.consume(taken);
        passed(content.passed());
    }
    assert_eq!(content.passed(), length, "it broke off");
}

/// Gives content of this length; the last quarter only when the gate is open, if there is one.
pub(super) fn give(length: u64, held: Option<&Gate>, mut write: impl FnMut(&[u8])) {
    let mut content = Content::new();
    while content.passed() < length {
        if let Some(gate) = held.filter(|_| content.passed() == length / 4 * 3) {
            gate.wait();
        }
        write(content.next_block());
    }
}
