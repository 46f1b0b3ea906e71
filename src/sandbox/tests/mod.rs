//! The stand-in through real sockets, written and read as bytes.

mod api;
mod exchange;
mod login;
mod token;
mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Behaviour, CLIENT_ID, CLIENT_SECRET, Sandbox};

/// Longer than anything here takes, short enough for a broken test to be noticed.
const LIMIT: Duration = Duration::from_secs(20);

fn sandbox() -> Sandbox {
    Sandbox::start(([127, 0, 0, 1], 0).into(), Behaviour::default())
        .expect("a loopback port is free")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Where a redirect leads: the place without its query, and the query.
    fn redirect(&self) -> (String, Vec<(String, String)>) {
        assert_eq!(self.status, 302, "{}", self.text());
        let location = self.header("location").expect("a location");
        let (place, query) = location.split_once('?').expect("a query");
        let query = form_urlencoded::parse(query.as_bytes());
        (place.to_owned(), query.into_owned().collect())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

/// Sends bytes on a connection of their own.
fn open(sandbox: &Sandbox, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(sandbox.address()).expect("the sandbox listens");
    stream.set_read_timeout(Some(LIMIT)).expect("not zero");
    stream.write_all(bytes).expect("the sandbox reads");
    stream
}

/// Reads one answer: to the end of its length, or of the connection if that comes first.
fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let status = head[9..12].parse().expect("a status line");
            let answer = Answer {
                status,
                body: bytes[end + 4..].to_vec(),
                head,
            };
            let length = answer
                .header("content-length")
                .map_or(0, |text| text.parse().expect("a length"));
            if answer.body.len() >= length {
                return Some(answer);
            }
        }
        match stream.read(&mut buffer).expect("no reset") {
            0 => return None,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

fn exchange(sandbox: &Sandbox, bytes: &[u8]) -> Answer {
    read(&mut open(sandbox, bytes)).expect("a whole answer")
}

fn token_post(sandbox: &Sandbox, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST /oauth2/token HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        sandbox.address(),
        body.len(),
    )
    .into_bytes()
}

fn refresh_post(sandbox: &Sandbox, refresh_token: &str) -> Vec<u8> {
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": refresh_token,
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    });
    token_post(sandbox, &body)
}

fn form_post(sandbox: &Sandbox, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        sandbox.address(),
        body.len(),
    )
    .into_bytes()
}

/// Opens a page as a browser does: without a token.
fn visit(sandbox: &Sandbox, path: &str, query: &[(&str, &str)]) -> Answer {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let host = sandbox.address();
    let bytes = format!("GET {path}?{query} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    exchange(sandbox, bytes.as_bytes())
}

fn request(sandbox: &Sandbox, line: &str, token: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{more}",
        sandbox.address()
    );
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

fn get(sandbox: &Sandbox, path: &str, token: &str) -> Answer {
    exchange(
        sandbox,
        &request(sandbox, &format!("GET {path}"), token, "", b""),
    )
}

fn no_problems(sandbox: &Sandbox) {
    assert_eq!(sandbox.counts().problems, Vec::<String>::new());
}
