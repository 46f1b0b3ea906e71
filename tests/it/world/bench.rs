//! One proxy between a client and an upstream that both deal in bytes, for tables of cases.
//!
//! Behind the bytes of a case the client asks for `/probe/N` on the same connection, and then on another. The answers
//! show that the connections on both sides are in step, or that the proxy has closed the client's; and what has not
//! reached upstream by then never does.
//!
//! What was seen is written as a table writes it, with names for what differs from run to run: `{proxy}`, `{upstream}`,
//! `{token}` and `{date}`. `{get}` and `{post}` begin the usual request as the client sends it, with its `Host`;
//! `{got}` and `{posted}` begin it as upstream sees it, and `{added}` stands for the three lines that the proxy adds to
//! every request. `{ok}` is the usual answer, `{closed}` the proxy's closing the connection. `{400}` is an answer without content, of the HTTP library's own or to HEAD; `{400 badRequest}` one of the proxy's, with its code, and `, close` where it says that the connection ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use super::strict_upstream::{Answer, Upstream};
use super::table::{self, Row};
use super::{SOON, Serving, World};

/// What the names of a table are called that stand for bytes to be sent.
pub(crate) const SENT: [&str; 6] = ["proxy", "upstream", "get", "post", "end", "head"];

/// What the names are called that stand for bytes that were seen.
pub(crate) const SEEN: [&str; 24] = [
    "proxy",
    "upstream",
    "token",
    "date",
    "got",
    "posted",
    "added",
    "added by 2",
    "ok",
    "closed",
    "cut",
    "nothing",
    "malformed",
    "400",
    "414",
    "431",
    "400 badRequest, close",
    "414 uriTooLong, close",
    "403 policyDenied, close",
    "403 hostNotAllowed",
    "403 policyDenied",
    "508 loopDetected",
    "502 upstreamUnreachable",
    "502",
];

const USUAL_REQUEST: &str = "{get}\\r\\n";
const USUAL_ANSWER: &str = "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
const USUAL_SEEN: &str = "{got}{added}\\r\\n";
const GOT: &str = "GET /x HTTP/1.1\\r\\nhost: {upstream}\\r\\n";
const POSTED: &str = "POST /x HTTP/1.1\\r\\nhost: {upstream}\\r\\n";
const ADDED: &str =
    "via: 1.1 lucid-proxy\\r\\nlucid-api-version: 1\\r\\nauthorization: Bearer {token}\\r\\n";
const ADDED_BY_2: &str =
    "via: 2.0 lucid-proxy\\r\\nlucid-api-version: 1\\r\\nauthorization: Bearer {token}\\r\\n";
const OK: &str = "HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\ndate: {date}\\r\\n\\r\\nok";

/// Names that stand for much, and for what.
const NAMES: [(&str, &str); 5] = [
    ("{got}", GOT),
    ("{posted}", POSTED),
    ("{added}", ADDED),
    ("{added by 2}", ADDED_BY_2),
    ("{ok}", OK),
];

/// A proxy with one worker, and what is on both sides of it.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) serving: Serving,
    upstream: Upstream,
    probes: u32,
}

/// What was seen of one case, as tables write it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) upstream: String,
    pub(crate) client: String,
}

impl Bench {
    pub(crate) fn start() -> Self {
        Self::of(World::logged_in(), "[\"127.0.0.1:0\"]")
    }

    /// Listening where this value of `listen` says.
    pub(crate) fn of(mut world: World, listen: &str) -> Self {
        let upstream = Upstream::start();
        world.upstream = format!("http://{}", upstream.address);
        world.top = "workers = 1".to_owned();
        // What is left of a refused request is not waited for.
        world.tables = "[timeouts]\nlinger = \"50ms\"\n".to_owned();
        let serving = world.serve_on(listen);
        Self {
            world,
            serving,
            upstream,
            probes: 0,
        }
    }

    /// What a row expects to be seen.
    pub(crate) fn expected(row: &Row) -> Seen {
        let upstream = row.text("U<").unwrap_or(USUAL_SEEN);
        Seen {
            upstream: plain(&upstream.replace("{nothing}", "")),
            client: plain(row.text("C<").unwrap_or("{ok}")),
        }
    }

    /// Plays a row; the client's bytes are sent in pieces that end at `cuts`, each read by the proxy before the next.
    pub(crate) fn play(&mut self, row: &Row, cuts: &[usize]) -> Seen {
        self.answer_with(row);
        let bytes = self.client_bytes(row);
        let end = row.text("C>").is_some_and(|text| text.ends_with("{end}"));
        self.probes += 1;
        let probe = self.probe();
        let mut client = self.connect();
        let mut from = 0;
        for cut in cuts.iter().filter(|cut| **cut < bytes.len()) {
            let _ = client.write_all(&bytes[from..*cut]);
            wait_until_read(&client);
            from = *cut;
        }
        let _ = client.write_all(&bytes[from..]);
        if end {
            let _ = client.shutdown(Shutdown::Write);
        } else {
            let _ = client.write_all(&probe);
        }
        let (answer, how) = read_answer(&mut client, self.marker().as_bytes());
        let client = match how {
            How::Probe => self.without_probe(&answer),
            How::Closed if end => self.named(&answer),
            How::Closed => self.named(&answer) + "{closed}",
            How::Silent => self.named(&answer) + "{silent}",
        };
        let upstream = self.settle(&Self::expected(row).upstream);
        Seen { upstream, client }
    }

    /// What upstream answers to the row's request.
    pub(crate) fn answer_with(&self, row: &Row) {
        let text = row.text("U>").unwrap_or(USUAL_ANSWER);
        let at_head = text.starts_with("{head}");
        let end = at_head || text.ends_with("{end}");
        let bytes = table::bytes(text, |name| self.sent(name)).expect("the table was checked");
        self.upstream.answer_with(Answer {
            bytes,
            at_head,
            end,
        });
    }

    /// What the client sends.
    pub(crate) fn client_bytes(&self, row: &Row) -> Vec<u8> {
        let text = row.text("C>").unwrap_or(USUAL_REQUEST);
        table::bytes(text, |name| self.sent(name)).expect("the table was checked")
    }

    fn sent(&self, name: &str) -> Result<Vec<u8>, ()> {
        match name {
            "proxy" => Ok(self.authority().into_bytes()),
            "upstream" => Ok(self.upstream.address.to_string().into_bytes()),
            "get" | "post" => {
                let (method, host) = (name.to_ascii_uppercase(), self.authority());
                Ok(format!("{method} /x HTTP/1.1\r\nHost: {host}\r\n").into_bytes())
            }
            "end" | "head" => Ok(Vec::new()),
            _ => Err(()),
        }
    }

    /// How a client calls the proxy.
    fn authority(&self) -> String {
        format!("localhost:{}", self.serving.address.port())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.serving.address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// The path of the next probe, and what is answered to it.
    pub(crate) fn next_probe(&mut self) -> (String, String) {
        self.probes += 1;
        let marker = self.marker().trim_start().to_owned();
        (format!("/probe/{}", self.probes), marker)
    }

    fn probe(&self) -> Vec<u8> {
        let (number, host) = (self.probes, self.authority());
        format!("GET /probe/{number} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
    }

    /// How the answer to the probe ends.
    fn marker(&self) -> String {
        format!("\r\n\r\nthe probe {}.", self.probes)
    }

    /// Asks on another connection, and then takes what upstream has seen; what is expected is waited for.
    pub(crate) fn settle(&mut self, expected: &str) -> String {
        self.probes += 1;
        let mut client = self.connect();
        let _ = client.write_all(&self.probe());
        let (answer, how) = read_answer(&mut client, self.marker().as_bytes());
        assert!(
            matches!(how, How::Probe) && self.without_probe(&answer).is_empty(),
            "the next client got {:?}",
            table::written(&answer)
        );
        let text = self.named(&self.upstream.take());
        match text.strip_suffix("{cut}") {
            // How much of a message arrives that is given up, and whether any of it, is a matter of time.
            Some(_) if expected == "{cut}" => expected.to_owned(),
            None if text.is_empty() && expected == "{cut}" => expected.to_owned(),
            _ => text,
        }
    }

    /// The answers before that of the probe.
    fn without_probe(&self, answer: &[u8]) -> String {
        let text = self.named(answer);
        let probe = format!(
            "HTTP/1.1 200 OK\\r\\ncontent-length: {}\\r\\ndate: {{date}}{}",
            self.marker().len() - 4,
            table::written(self.marker().as_bytes())
        );
        let before = text.strip_suffix(&probe);
        before.map_or_else(|| text.clone(), str::to_owned)
    }

    /// Bytes as tables write them, with names for what differs from run to run.
    fn named(&self, bytes: &[u8]) -> String {
        let stored = self.world.stored();
        let token = stored["access_token"].as_str().expect("text");
        let text = own_answers(&table::written(bytes))
            .replace(token, "{token}")
            .replace(&self.authority(), "{proxy}")
            .replace(&self.upstream.address.to_string(), "{upstream}")
            .replace("\\x7bmalformed\\x7d", "{malformed}")
            .replace("\\x7bcut\\x7d", "{cut}");
        dates(&text)
    }
}

/// Rows of which something else was seen than they expect.
#[derive(Default)]
pub(crate) struct Mismatches(String);

impl Mismatches {
    /// Takes down the row if what was seen is not what it expects; `how` says how it was played.
    pub(crate) fn compare(&mut self, row: &Row, how: &str, seen: &Seen) {
        let expected = Bench::expected(row);
        if *seen == expected {
            return;
        }
        let Row {
            id,
            section,
            demand,
            ..
        } = row;
        self.0 += &format!("[{id}] {section}: {demand}{how}\n");
        for (mark, expected, found) in [
            ("U<", &expected.upstream, &seen.upstream),
            ("C<", &expected.client, &seen.client),
        ] {
            let (expected, found) = (short(expected), short(found));
            self.0 += &format!("  {mark} expected {expected}\n  {mark} found    {found}\n");
        }
    }

    /// There were none.
    #[track_caller]
    pub(crate) fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// With the names that stand for much written out.
fn plain(text: &str) -> String {
    let text = table::expanded(text);
    NAMES
        .iter()
        .fold(text, |text, (name, meaning)| text.replace(name, meaning))
}

/// With those names where they fit.
fn short(text: &str) -> String {
    NAMES.iter().fold(text.to_owned(), |text, (name, meaning)| {
        text.replace(meaning, name)
    })
}

fn dates(text: &str) -> String {
    let mut parts = text.split("date: ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_now = part.get(25..29) == Some(" GMT") && !part.contains(" 1970 ");
        whole.push_str("date: ");
        whole.push_str(if is_now {
            "{date}"
        } else {
            &part[..29.min(part.len())]
        });
        whole.push_str(part.get(29..).unwrap_or_default());
    }
    whole
}

/// Puts names in the place of answers that do not come from upstream.
fn own_answers(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("HTTP/1.1 ") {
        whole.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((head, behind)) = rest.split_once("\\r\\n\\r\\n") else {
            break;
        };
        match own_answer(head, behind) {
            Some((name, behind)) => {
                whole.push_str(&name);
                rest = behind;
            }
            None => {
                whole.push_str(&rest[..9]);
                rest = &rest[9..];
            }
        }
    }
    whole + rest
}

fn own_answer<'a>(head: &str, behind: &'a str) -> Option<(String, &'a str)> {
    let status = head.get(9..12)?;
    let lines: Vec<_> = head.split("\\r\\n").skip(1).collect();
    let is_close = lines.contains(&"connection: close");
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    let is_bare = lines.len() == 3 && is_close && has("content-length: 0") && has("date: ");
    if is_bare && ["400", "414", "431"].contains(&status) {
        return Some((format!("{{{status}}}"), behind));
    }
    if !has("proxy-status: lucid-proxy; error=") || !has("x-lucid-flow-id: ") {
        return None;
    }
    let Some(content) = behind.strip_prefix("\\x7b\"code\":\"") else {
        return Some((format!("{{{status}}}"), behind));
    };
    let code = content.split('"').next()?;
    let content_end = behind.find("\\x7d")? + 4;
    let close = if is_close { ", close" } else { "" };
    Some((
        format!("{{{status} {code}{close}}}"),
        &behind[content_end..],
    ))
}

enum How {
    /// The probe was answered.
    Probe,
    /// The proxy has closed.
    Closed,
    /// Neither came.
    Silent,
}

fn read_answer(client: &mut TcpStream, marker: &[u8]) -> (Vec<u8>, How) {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return (answer, How::Closed),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if super::is_late(&error) => return (answer, How::Silent),
            // A reset is an end too.
            Err(_) => return (answer, How::Closed),
        }
        if answer.ends_with(marker) {
            return (answer, How::Probe);
        }
    }
}

/// Waits until nothing of what was sent lies unread in the proxy's socket, as the system tells (proc_net_tcp(5)).
fn wait_until_read(client: &TcpStream) {
    let (Ok(near), Ok(far)) = (client.local_addr(), client.peer_addr()) else {
        return;
    };
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let line = table.lines().find(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|word| word.ends_with(&port(far)))
                && words.next().is_some_and(|word| word.ends_with(&port(near)))
        });
        let queues = line.and_then(|line| line.split_whitespace().nth(4));
        if queues.is_none_or(|queues| queues.ends_with(":00000000")) {
            return;
        }
        std::thread::yield_now();
    }
}
