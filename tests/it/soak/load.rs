//! The load: clients that ask without pause and compare every answer with what they sent.
//!
//! One thread and one blocking socket per client, and as little work as possible for each request: load, proxy and
//! stand-in share the machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// No answer within this time counts as a failure. Far more than a rotation takes on a busy machine.
const SILENCE: Duration = Duration::from_secs(60);
/// The wait of a client whose proxy is gone before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// About the size of the files that people import.
const FILE: usize = 300 << 10;
/// Nobody issued it: if it ever reached upstream, that would be counted there.
const STALE: &str = "oauth2-stale-soak-d41d8c";
const BOUNDARY: &str = "soak-boundary-5f3c";
/// Failures beyond this many are counted and not described.
const MOST_DESCRIBED: usize = 5;

/// What clients did, and what they were not content with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Answers that were right in every respect.
    pub(super) answers: u64,
    /// Those among them that the proxy got with a second attempt.
    pub(super) replayed: u64,
    /// Bytes of request bodies that upstream confirmed.
    pub(super) confirmed: u64,
    /// Connections that broke, where that may happen.
    pub(super) broken: u64,
    /// Answers that no client should see, and connections that should not have broken.
    pub(super) failed: u64,
    /// The first of those.
    pub(super) failures: Vec<String>,
    /// The longest wait for an answer, in milliseconds.
    pub(super) slowest: u64,
}

impl Tally {
    /// Adds another's numbers.
    pub(super) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.replayed += other.replayed;
        self.confirmed += other.confirmed;
        self.broken += other.broken;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.failures.truncate(MOST_DESCRIBED);
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < MOST_DESCRIBED {
            self.failures.push(what);
        }
    }
}

/// What a broken connection means to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A failure: nobody had a reason to end it.
    IsFailure,
    /// The proxy was killed: try again.
    TryAgain,
}

/// Runs clients until told to stop, and adds up what they did. `first` sets them apart from those of other processes.
pub(super) fn run(
    proxy: SocketAddr,
    clients: u64,
    first: u64,
    broken: Broken,
    stop: &AtomicBool,
) -> Tally {
    std::thread::scope(|threads| {
        let clients: Vec<_> = (first..first + clients)
            .map(|number| threads.spawn(move || Client::new(proxy, number).run(broken, stop)))
            .collect();
        let mut sum = Tally::default();
        for client in clients {
            sum.add(client.join().expect("clients do not panic"));
        }
        sum
    })
}

/// One client: its connection, its import, its place in the round of requests.
struct Client {
    proxy: SocketAddr,
    number: u64,
    stream: Option<BufReader<TcpStream>>,
    /// Sent over and over with another serial number in it.
    form: Vec<u8>,
    /// Where in `form` the serial number stands.
    serial_at: usize,
    serial: u64,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Client {
    fn new(proxy: SocketAddr, number: u64) -> Self {
        let (form, serial_at) = form(number);
        Self {
            proxy,
            number,
            stream: None,
            form,
            serial_at,
            serial: 0,
            buffer: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn run(mut self, broken: Broken, stop: &AtomicBool) -> Tally {
        while !stop.load(Ordering::Relaxed) {
            self.serial += 1;
            let begun = Instant::now();
            let Err(failure) = self.step() else {
                self.tally.answers += 1;
                let waited = begun.elapsed().as_millis() as u64;
                self.tally.slowest = self.tally.slowest.max(waited);
                continue;
            };
            if broken == Broken::TryAgain && failure.is_broken_connection() {
                self.tally.broken += 1;
            } else {
                let (number, serial, after) = (self.number, self.serial, begun.elapsed());
                self.tally.fail(format!(
                    "client {number}, request {serial}, after {after:?}: {failure}"
                ));
            }
            self.stream = None;
            std::thread::sleep(RETRY_PAUSE);
        }
        self.tally
    }

    /// One request, of each kind in turn.
    fn step(&mut self) -> Result<(), Failure> {
        match self.serial % 3 {
            0 => self.profile(),
            1 => self.search(),
            _ => self.import(),
        }
    }

    fn profile(&mut self) -> Result<(), Failure> {
        self.send("GET /users/me/profile", "", &[])?;
        self.answer(200)?;
        match self.buffer.ends_with(br#""username":"ada"}"#) {
            true => Ok(()),
            false => Err(Failure::Wrong("the profile", self.content())),
        }
    }

    fn search(&mut self) -> Result<(), Failure> {
        let (number, serial) = (self.number, self.serial);
        let body = format!(r#"{{"keywords":"","from":"{number}-{serial}"}}"#);
        // The first page of several, so that there is a Link to rewrite.
        self.send(
            "POST /documents/search?pageSize=1",
            "application/json",
            body.as_bytes(),
        )?;
        let head = self.answer(200)?;
        head.confirms(body.as_bytes())?;
        self.tally.confirmed += body.len() as u64;
        let here = format!("<http://{}/documents/search?", self.proxy);
        match head
            .field("Link")
            .is_some_and(|link| link.starts_with(&here))
        {
            true => Ok(()),
            false => Err(Failure::Wrong("the Link", head.0)),
        }
    }

    fn import(&mut self) -> Result<(), Failure> {
        let serial = format!("{:016x}", self.serial);
        self.form[self.serial_at..][..serial.len()].copy_from_slice(serial.as_bytes());
        // Lent to the calls below, which borrow all of the client.
        let form = std::mem::take(&mut self.form);
        let imported = self.import_form(&form);
        self.form = form;
        imported
    }

    fn import_form(&mut self, form: &[u8]) -> Result<(), Failure> {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.send("POST /documents/import", &kind, form)?;
        self.answer(201)?.confirms(form)?;
        self.tally.confirmed += form.len() as u64;
        Ok(())
    }

    fn send(&mut self, line: &str, content_type: &str, body: &[u8]) -> io::Result<()> {
        let mut head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {STALE}\r\nLucid-Api-Version: 1\r\n",
            self.proxy
        );
        if !body.is_empty() {
            head += &format!(
                "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        head += "\r\n";
        let stream = self.connected()?.get_mut();
        if body.len() < FILE {
            // One write, one packet.
            return stream.write_all(&[head.as_bytes(), body].concat());
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    }

    fn connected(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.proxy)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE))?;
            stream.set_write_timeout(Some(SILENCE))?;
            self.stream = Some(BufReader::new(stream));
        }
        Ok(self.stream.as_mut().expect("just made"))
    }

    /// Reads an answer, its content into `buffer`.
    fn answer(&mut self, expected: u16) -> Result<Head, Failure> {
        let stream = self.stream.as_mut().expect("a request was sent on it");
        let head = Head::read(stream)?;
        let length = head.field("Content-Length");
        let Some(length) = length.and_then(|text| text.parse().ok()) else {
            return Err(Failure::Wrong("the framing", head.0));
        };
        self.buffer.resize(length, 0);
        stream.read_exact(&mut self.buffer)?;
        if head.status() != Some(expected) {
            return Err(Failure::Wrong("the status", head.0 + &self.content()));
        }
        // The proxy says so where it had to send a request twice.
        self.tally.replayed += u64::from(head.field("Proxy-Status").is_some());
        Ok(head)
    }

    fn content(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

/// An import of this client's own, and where in it the serial number goes.
fn form(number: u64) -> (Vec<u8>, usize) {
    let start = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"product\"\r\n\r\nlucidchart\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nsoak {number}\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"soak.drawio\"\r\n\
         Content-Type: x-application/vnd.lucid.drawio\r\n\r\n"
    );
    let serial_at = start.len();
    // Lengths differ, so that bodies that were mixed up show by that too.
    let mut file = vec![0; FILE + 17 * number as usize];
    fastrand::Rng::with_seed(number).fill(&mut file);
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    (
        [start.as_bytes(), &file, end.as_bytes()].concat(),
        serial_at,
    )
}

/// Why a request did not go as it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The connection broke, or fell silent.
    #[error("the connection: {0}")]
    Io(#[from] io::Error),
    /// The answer is not the right one: in what, and what came.
    #[error("{0} is wrong: {1}")]
    Wrong(&'static str, String),
}

impl Failure {
    /// Silence is none: a proxy that was killed leaves nobody waiting.
    fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() != io::ErrorKind::WouldBlock)
    }
}

/// The head of an answer, as it came.
struct Head(String);

impl Head {
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut head = String::new();
        loop {
            let before = head.len();
            stream.read_line(&mut head)?;
            match &head[before..] {
                "" => return Err(io::ErrorKind::UnexpectedEof.into()),
                "\r\n" => return Ok(Self(head)),
                _ => {}
            }
        }
    }

    fn status(&self) -> Option<u16> {
        self.0.split(' ').nth(1)?.parse().ok()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether upstream received this body, byte for byte.
    fn confirms(&self, body: &[u8]) -> Result<(), Failure> {
        let sha256: String = digest(&SHA256, body)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let length = body.len().to_string();
        let same = self.field("X-Sandbox-Body-Sha256") == Some(&sha256)
            && self.field("X-Sandbox-Body-Length") == Some(&length);
        match same {
            true => Ok(()),
            false => Err(Failure::Wrong(
                "the body that upstream received",
                self.0.clone(),
            )),
        }
    }
}
