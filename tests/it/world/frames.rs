//! HTTP/2 frame by frame (RFC 9113 section 4), without a library in between.

use std::io::{Read, Write};
use std::net::SocketAddr;

use super::is_late;
use super::tls::{self, Identity, TlsClient};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// On HEADERS and DATA; on SETTINGS and PING it means ACK.
pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A client that sends the frames it is told to.
pub(crate) struct Frames {
    tls: TlsClient,
    authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// Connects and sends the preface with empty settings.
    pub(crate) fn connect(address: SocketAddr, identity: &Identity) -> Self {
        let tls = tls::connect(address, &identity.client(&["h2"])).expect("a connection");
        let authority = format!("localhost:{}", address.port());
        let mut frames = Self { tls, authority };
        frames.bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.bytes(&frame(SETTINGS, 0, 0, &[]));
        frames
    }

    /// Sends bytes; an error is the proxy's closing, which the next read shows.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).and_then(|()| self.tls.flush());
    }

    /// Sends a request that is all there.
    pub(crate) fn request(&mut self, stream: u32, method: &str, path: &str) {
        let head = self.head(stream, method, path, &[], END_STREAM);
        self.bytes(&head);
    }

    /// The frame of a request's head.
    pub(crate) fn head(
        &self,
        stream: u32,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        flags: u8,
    ) -> Vec<u8> {
        let mut all = vec![
            (":method", method),
            (":scheme", "https"),
            (":authority", &self.authority),
            (":path", path),
        ];
        all.extend_from_slice(fields);
        headers(stream, &all, flags)
    }

    /// Lets so many more bytes come on a stream, or on all together: stream 0.
    pub(crate) fn open_window(&mut self, stream: u32, bytes: u32) {
        self.bytes(&frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()));
    }

    /// The next frame; `None` when the connection has ended.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.tls.read_exact(&mut head) {
            assert!(!is_late(&error), "neither a frame nor an end");
            return None;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.tls.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The next frame of this kind; those before it are skipped, PINGs and SETTINGS answered as they must be.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, kind: u8) -> Frame {
        self.find(kind).expect("a frame of this kind")
    }

    /// As [`Frames::wait_for`]; `None` when the connection ends before.
    #[track_caller]
    pub(crate) fn find(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let next = self.next()?;
            if next.kind == kind {
                return Some(next);
            }
            self.acknowledge(&next);
        }
    }

    /// The next frame, PINGs and SETTINGS answered; `None` when the connection ends.
    pub(crate) fn any(&mut self) -> Option<Frame> {
        let next = self.next()?;
        self.acknowledge(&next);
        Some(next)
    }

    fn acknowledge(&mut self, frame_before: &Frame) {
        if matches!(frame_before.kind, PING | SETTINGS) && frame_before.flags & ACK == 0 {
            let payload = match frame_before.kind {
                PING => &frame_before.payload[..],
                _ => &[],
            };
            self.bytes(&frame(frame_before.kind, ACK, 0, payload));
        }
    }
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A HEADERS frame with these fields, each a literal that is not indexed (RFC 7541 section 6.2.2).
pub(crate) fn headers<T: AsRef<[u8]>>(stream: u32, fields: &[(T, T)], flags: u8) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            block.extend(length(text.len()));
            block.extend(text);
        }
    }
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(mut length: usize) -> Vec<u8> {
    if length < 127 {
        return vec![u8::try_from(length).expect("below 127")];
    }
    let mut bytes = vec![127];
    length -= 127;
    while length >= 128 {
        bytes.push(u8::try_from(length % 128 + 128).expect("a byte"));
        length /= 128;
    }
    bytes.push(u8::try_from(length).expect("below 128"));
    bytes
}
