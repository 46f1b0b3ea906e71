//! Looks at request heads as they arrive, for what hyper repairs before anyone can see it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::shared::Shared;

/// What is longer than this without an empty line is a body. Each read scans it anew, which this bounds as well.
const LONGEST_HEAD: usize = 64 * 1024;

/// A connection whose request heads are checked for ambiguous framing.
///
/// The framing of bodies is not followed. A head is expected in the first bytes and in those that follow an answer, and
/// is looked at if it looks like one: a client that sends a request before it has the answer to the last one is not seen.
#[derive(Debug)]
pub(super) struct Tap {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// The next bytes may begin a head, or continue the one in `partial`.
    expecting: bool,
    partial: Vec<u8>,
}

impl Tap {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>) -> Tap {
        Tap {
            stream,
            shared,
            expecting: true,
            partial: Vec::new(),
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        // Most heads arrive in one piece and need no copy.
        let mut joined = std::mem::take(&mut self.partial);
        let seen = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        if let Some(end) = head_end(seen) {
            self.expecting = false;
            self.check(&seen[..end]);
        } else if seen.len() < LONGEST_HEAD {
            self.partial = if joined.is_empty() {
                bytes.to_vec()
            } else {
                joined
            };
        } else {
            self.expecting = false;
        }
    }

    /// After an answer there may be a new head; what came before was none.
    fn expect_head(&mut self) {
        self.expecting = true;
        self.partial.clear();
    }

    fn check(&self, head: &[u8]) {
        let Some(name) = request_name(head) else {
            return;
        };
        for problem in ambiguities(head) {
            self.shared.ledger.problem(format!("{name}: {problem}"));
        }
    }
}

/// Where a head ends, its empty line included; bare line feeds are taken for line ends here.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(feed) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += feed + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Method and path of what looks like a request head; the query may hold a token and is left out.
fn request_name(head: &[u8]) -> Option<String> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.trim_end().split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let path = target.split('?').next().unwrap_or_default();
    Some(format!("{method} {path}"))
}

/// What two servers might read differently (RFC 9112, sections 2.2, 5.1, 5.2 and 6.3).
fn ambiguities(head: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let (mut lengths, mut encodings) = (0, 0);
    for line in head.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r").or(line.is_empty().then_some(line)) else {
            found.push("a bare line feed");
            continue;
        };
        if line.contains(&b'\r') {
            found.push("a bare carriage return");
        }
        if matches!(line, [b' ' | b'\t', ..]) {
            found.push("a folded header line");
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if matches!(name, [.., b' ' | b'\t']) {
            found.push("white space before a colon");
        }
        lengths += usize::from(name.trim_ascii().eq_ignore_ascii_case(b"content-length"));
        encodings += usize::from(name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding"));
    }
    if lengths > 1 {
        found.push("more than one content-length");
    }
    if encodings > 1 {
        found.push("more than one transfer-encoding");
    }
    if lengths > 0 && encodings > 0 {
        found.push("both content-length and transfer-encoding");
    }
    found
}

impl AsyncRead for Tap {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if this.expecting {
            this.look(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.expect_head();
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.expect_head();
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_head_is_not_ambiguous() {
        let head = b"POST /a?token=b HTTP/1.1\r\nHost: c\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(head_end(head), Some(head.len()));
        assert_eq!(request_name(head).as_deref(), Some("POST /a"));
        assert_eq!(ambiguities(head), Vec::<&str>::new());
    }

    #[test]
    fn ambiguous_framing_is_found() {
        let cases = [
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                "more than one content-length",
            ),
            (
                "Content-Length: 1\r\ntransfer-encoding: chunked\r\n",
                "both content-length and transfer-encoding",
            ),
            ("A: b\r\n c\r\n", "a folded header line"),
            ("A: b\n", "a bare line feed"),
            ("A: b\rc\r\n", "a bare carriage return"),
            ("A : b\r\n", "white space before a colon"),
        ];
        for (lines, expected) in cases {
            let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(ambiguities(head.as_bytes()), [expected], "{lines:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_head_have_no_name() {
        assert_eq!(request_name(b"PNG\r\n\r\n"), None);
        assert_eq!(request_name(b"\xff\xfe / HTTP/1.1\r\n\r\n"), None);
    }
}
