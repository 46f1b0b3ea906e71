//! Clients of both versions that give and take content without keeping it.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::content::Content;
use super::upstream::{Gate, give, take};
use crate::world::http2_client::{Http2, channel, nothing};
use crate::world::tls::Identity;

/// The side of the proxy that clients see.
pub(super) enum Front {
    /// A connection for each request.
    Http1(SocketAddr),
    /// One for all.
    Http2(Http2),
}

impl Front {
    pub(super) fn http2(address: SocketAddr, identity: &Identity) -> Self {
        Self::Http2(Http2::connect(address, identity))
    }

    /// Sends content of this length; the answer's status.
    pub(super) fn upload(&self, path: &str, length: u64) -> StatusCode {
        self.send(path, length, None)
    }

    /// The same, with the last quarter kept until the gate is open.
    pub(super) fn upload_held(&self, path: &str, length: u64, held: &Gate) -> StatusCode {
        self.send(path, length, Some(held))
    }

    fn send(&self, path: &str, length: u64, held: Option<&Gate>) -> StatusCode {
        match self {
            Self::Http1(address) => {
                let mut stream = connect(*address);
                let framing = format!("Content-Length: {length}\r\n");
                begin(&mut stream, *address, "POST", path, length, &framing);
                give(length, held, |block| {
                    stream.write_all(block).expect("the proxy takes it");
                });
                status(&mut BufReader::new(stream))
            }
            Self::Http2(client) => {
                let (sender, content) = channel();
                let target = format!("{path}?length={length}");
                let fields = [("content-length", &*length.to_string())];
                let begun = client.begin(Method::POST, &target, &fields, content);
                give(length, held, |block| {
                    let block = Bytes::copy_from_slice(block);
                    sender.blocking_send(block).expect("the proxy takes it");
                });
                drop(sender);
                begun.answer().status
            }
        }
    }

    /// Asks for content of this length and sees that it comes; the answer's status.
    pub(super) fn download(&self, path: &str, length: u64) -> StatusCode {
        self.receive(path, length, |_| {})
    }

    /// The same; the gate is opened when a quarter of it has come.
    pub(super) fn download_seen(&self, path: &str, length: u64, seen: &Gate) -> StatusCode {
        self.receive(path, length, |passed| {
            if passed >= length / 4 {
                seen.open();
            }
        })
    }

    fn receive(&self, path: &str, length: u64, mut passed: impl FnMut(u64)) -> StatusCode {
        match self {
            Self::Http1(address) => {
                let mut stream = connect(*address);
                begin(&mut stream, *address, "GET", path, length, "");
                let mut reader = BufReader::with_capacity(256 << 10, stream);
                let status = status(&mut reader);
                take(&mut reader, length, passed);
                status
            }
            Self::Http2(client) => {
                let target = format!("{path}?length={length}");
                let begun = client.begin(Method::GET, &target, &[], nothing());
                let mut content = Content::new();
                let status = begun.answer_in_parts(|part| {
                    content.check(part);
                    passed(content.passed());
                });
                assert_eq!(content.passed(), length, "it broke off");
                status
            }
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn begin(
    stream: &mut TcpStream,
    address: SocketAddr,
    method: &str,
    path: &str,
    length: u64,
    framing: &str,
) {
    let head =
        format!("{method} {path}?length={length} HTTP/1.1\r\nHost: {address}\r\n{framing}\r\n");
    stream
        .write_all(head.as_bytes())
        .expect("the proxy takes it");
}

/// Reads the head of an answer.
fn status(reader: &mut impl Read) -> StatusCode {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head);
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status: {text}"))
}
