//! Plays the rows of `http2.txt`: each is one stream, behind which another asks for the probe.

use crate::https;
use crate::world::bench::{Bench, Seen};
use crate::world::endpoint;
use crate::world::frames::{
    DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, frame, headers,
};
use crate::world::table::{self, Row};
use crate::world::tls::Identity;

/// A proxy that is spoken to over TLS too.
pub(super) struct Http2 {
    bench: Bench,
    identity: Identity,
    address: std::net::SocketAddr,
}

/// What a stream is made from.
#[derive(Default)]
struct Stream {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    content: Option<Vec<u8>>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Http2 {
    pub(super) fn start() -> Self {
        let (world, identity) = https::world();
        let tls = https::LISTEN.trim_matches(['[', ']']);
        let mut bench = Bench::of(world, &format!("[\"127.0.0.1:0\", {tls}]"));
        let (_, address) = endpoint(&bench.serving.line()).expect("a second address");
        Self {
            bench,
            identity,
            address,
        }
    }

    pub(super) fn play(&mut self, row: &Row) -> Seen {
        self.bench.answer_with(row);
        let mut frames = Frames::connect(self.address, &self.identity);
        frames.bytes(&self.stream(row).frames(1));
        let mut client = self.outcome(&mut frames, 1);
        if !client.contains("goaway") {
            let (path, marker) = self.bench.next_probe();
            let head = frames.head(3, "GET", &path, &[], END_STREAM);
            frames.bytes(&head);
            let probe = self.outcome(&mut frames, 3);
            if probe != marker {
                client = format!("{client} and then {probe}");
            }
        }
        let upstream = self.bench.settle(&Bench::expected(row).upstream);
        Seen { upstream, client }
    }

    fn stream(&self, row: &Row) -> Stream {
        let mut stream = Stream::default();
        for line in &row.lines {
            match line.as_str() {
                "{post}" | "{get}" => stream.fields = self.usual(line),
                line => match line.strip_prefix("DATA ") {
                    Some(content) => stream.content = Some(self.bytes(content)),
                    None => {
                        let (name, value) = line.split_once(" =").expect("name = value");
                        let value = value.strip_prefix(' ').unwrap_or(value);
                        let field = (self.bytes(name), self.bytes(value));
                        match stream.content {
                            None => stream.fields.push(field),
                            Some(_) => stream.trailers.push(field),
                        }
                    }
                },
            }
        }
        stream
    }

    fn usual(&self, line: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let method = line.trim_matches(['{', '}']).to_ascii_uppercase();
        let authority = format!("localhost:{}", self.address.port());
        let fields = [
            (":method", method.as_str()),
            (":scheme", "https"),
            (":authority", &authority),
            (":path", "/x"),
        ];
        let owned =
            fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        owned.to_vec()
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        let named = |name: &str| match name {
            "proxy" => Ok(format!("localhost:{}", self.address.port()).into_bytes()),
            _ => Err(()),
        };
        table::bytes(text, named).expect("the table was checked")
    }

    /// What comes on a stream: its content if that is an answer of upstream, the code of a refusal, or how it ends.
    fn outcome(&self, frames: &mut Frames, stream: u32) -> String {
        let mut content = Vec::new();
        while let Some(next) = frames.any() {
            match next.kind {
                GOAWAY => return format!("{{goaway {}}}", reason(&next)),
                RST_STREAM if next.stream == stream => {
                    return format!("{{reset {}}}", reason(&next));
                }
                HEADERS | DATA if next.stream == stream => {
                    if next.kind == DATA {
                        content.extend_from_slice(&next.payload);
                    }
                    if next.flags & END_STREAM != 0 {
                        return described(&content);
                    }
                }
                _ => {}
            }
        }
        "{closed}".to_owned()
    }
}

impl Stream {
    /// The frames of it.
    fn frames(&self, stream: u32) -> Vec<u8> {
        let Some(content) = &self.content else {
            return headers(stream, &self.fields, END_STREAM);
        };
        let (data_end, trailers) = match self.trailers.is_empty() {
            true => (END_STREAM, Vec::new()),
            false => (0, headers(stream, &self.trailers, END_STREAM)),
        };
        let data = frame(DATA, data_end, stream, content);
        [headers(stream, &self.fields, 0), data, trailers].concat()
    }
}

fn described(content: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(content) {
        Ok(json) => format!("{{{}}}", json["code"].as_str().unwrap_or_default()),
        Err(_) if content == b"ok" => "{answered}".to_owned(),
        Err(_) if content.is_empty() => "{no content}".to_owned(),
        Err(_) => String::from_utf8_lossy(content).into_owned(),
    }
}

/// The name of the error code (RFC 9113 section 7).
fn reason(frame: &Frame) -> &'static str {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    let code = frame.payload[at..at + 4].try_into().expect("four bytes");
    match u32::from_be_bytes(code) {
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        _ => "another",
    }
}
