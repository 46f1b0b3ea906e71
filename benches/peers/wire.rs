//! As much of HTTP/1.1 as a closed loop needs: one message at a time, of a length that its head gives.

use anyhow::{Context, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::content::Content;

/// Room for any head of the bench, however long a proxy makes it, and for content as it comes.
const BUFFER: usize = 64 << 10;

/// The receiving side of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Box<[u8]>,
    /// What was read.
    filled: usize,
    /// Where the content of the message under way begins.
    content: usize,
    /// How long it is.
    length: usize,
}

/// A message's head as it lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// The first line, without its end.
    pub(crate) start: &'a [u8],
    fields: &'a [u8],
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            content: 0,
            length: 0,
        }
    }

    /// Reads the next message's head; `None` when the other side has closed instead. What was read before is overwritten:
    /// no side of the bench sends a message before the last one was answered, so nothing lies behind it.
    pub(crate) async fn head(
        &mut self,
        stream: &mut TcpStream,
    ) -> anyhow::Result<Option<Head<'_>>> {
        self.filled = 0;
        let head = loop {
            ensure!(self.filled < BUFFER, "a head of more than {BUFFER} bytes");
            let read = stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                ensure!(self.filled == 0, "a message was cut off");
                return Ok(None);
            }
            self.filled += read;
            let mut ends = self.buffer[..self.filled].windows(4);
            if let Some(blank) = ends.position(|four| four == b"\r\n\r\n") {
                break blank + 4;
            }
        };
        let (start, fields) = split_line(&self.buffer[..head]);
        self.content = head;
        self.length = length(fields)?;
        Ok(Some(Head { start, fields }))
    }

    /// Reads the content behind the head, and says whether it is the expected one.
    pub(crate) async fn content_is(
        &mut self,
        expected: &Content,
        stream: &mut TcpStream,
    ) -> anyhow::Result<bool> {
        let mut same = self.length == expected.length();
        let mut place = self.filled - self.content;
        same &= expected.has_at(0, &self.buffer[self.content..self.filled]);
        while place < self.length {
            let read = stream.read(&mut self.buffer).await?;
            ensure!(read > 0, "a message was cut off");
            same &= expected.has_at(place, &self.buffer[..read]);
            place += read;
        }
        ensure!(place == self.length, "more bytes than one message has");
        Ok(same)
    }
}

impl<'a> Head<'a> {
    /// The one value of a field.
    pub(crate) fn only(&self, name: &str) -> anyhow::Result<&'a [u8]> {
        let mut values = values(self.fields, name);
        let value = values.next().with_context(|| format!("no {name}"))?;
        ensure!(values.next().is_none(), "more than one {name}");
        Ok(value)
    }
}

/// How long the content is that follows these fields.
fn length(fields: &[u8]) -> anyhow::Result<usize> {
    ensure!(
        values(fields, "transfer-encoding").next().is_none(),
        "a message in chunks, where its length was known"
    );
    match values(fields, "content-length").next() {
        Some(length) => Ok(std::str::from_utf8(length)?.parse()?),
        None => Ok(0),
    }
}

fn values<'a>(fields: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = fields;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (line, behind) = split_line(rest);
            rest = behind;
            if let Some((field, value)) = line.split_at_checked(name.len())
                && let Some(value) = value.strip_prefix(b":")
                && field.eq_ignore_ascii_case(name.as_bytes())
            {
                return Some(value.trim_ascii());
            }
        }
        None
    })
}

/// The first line, and what follows its end.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (bytes[..end].trim_ascii_end(), &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}
