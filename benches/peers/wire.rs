//! As much of HTTP/1.1 as a closed loop needs: one message at a time, of a length that its head gives.

use anyhow::{Context, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Room for any message of the bench with a head twice as long as any proxy makes it.
const BUFFER: usize = 16 << 10;

/// The receiving side of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Box<[u8]>,
    filled: usize,
}

/// A message as it lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// The first line, without its end.
    pub(crate) start: &'a [u8],
    fields: &'a [u8],
    /// All of the content.
    pub(crate) content: &'a [u8],
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Reads the next message; `None` when the other side has closed instead. What was read before is overwritten: no
    /// side of the bench sends a message before the last one was answered, so nothing lies behind it.
    pub(crate) async fn next(
        &mut self,
        stream: &mut TcpStream,
    ) -> anyhow::Result<Option<Message<'_>>> {
        self.filled = 0;
        let (head, length) = loop {
            ensure!(
                self.filled < BUFFER,
                "a message of more than {BUFFER} bytes"
            );
            let read = stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                ensure!(self.filled == 0, "a message was cut off");
                return Ok(None);
            }
            self.filled += read;
            if let Some(whole) = whole(&self.buffer[..self.filled])? {
                break whole;
            }
        };
        ensure!(self.filled == length, "more bytes than one message has");
        let (start, fields) = split_line(&self.buffer[..head]);
        let content = &self.buffer[head..length];
        Ok(Some(Message {
            start,
            fields,
            content,
        }))
    }
}

impl<'a> Message<'a> {
    /// The one value of a field.
    pub(crate) fn only(&self, name: &str) -> anyhow::Result<&'a [u8]> {
        let mut values = values(self.fields, name);
        let value = values.next().with_context(|| format!("no {name}"))?;
        ensure!(values.next().is_none(), "more than one {name}");
        Ok(value)
    }
}

/// Where the head ends and where the message ends, if all of it is there.
fn whole(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(blank) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = blank + 4;
    let fields = split_line(&bytes[..head]).1;
    ensure!(
        values(fields, "transfer-encoding").next().is_none(),
        "a message in chunks, where its length was known"
    );
    let content = match values(fields, "content-length").next() {
        Some(length) => std::str::from_utf8(length)?.parse()?,
        None => 0,
    };
    let length = head + content;
    Ok((length <= bytes.len()).then_some((head, length)))
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
