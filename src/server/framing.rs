//! Follows how a client of HTTP/1 frames its requests (rule F15).
//!
//! hyper reads a request that has both a length and chunks as one with chunks, takes the length out, and says nothing of
//! it; of two equal lengths it leaves one. A server in front of the proxy may have read such a request in the other way,
//! and what is content to one of the two is the next request to the other. So the bytes are looked at on their way to
//! hyper: at each line of a head for the two fields, at the rest for no more than where it ends. Nothing is held back or
//! changed. What is noted is the number of the first request that is not to be served, and why.

use memchr::memchr;

/// Bytes of a line that came in pieces which are kept: more than hyper takes of a whole head.
const LONGEST_LINE: usize = 512 << 10;
/// Bytes of room that stay for the next such line: more than most of them need.
const USUAL_LINE: usize = 2 << 10;

/// Where in the client's bytes the next one is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Heads that have begun.
    requests: u64,
    /// Of the head that has begun last.
    length: Option<u64>,
    chunked: bool,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before a request line.
    #[default]
    Between,
    Fields,
    Content(u64),
    ChunkSize,
    /// In a chunk, so far before the end of its line.
    Chunk(u64),
    Trailers,
    /// Behind what hyper refuses, or the proxy.
    Lost,
}

/// Requests that are not to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The number of the first; from 1.
    pub(super) from: u64,
    pub(super) why: &'static str,
}

impl Framing {
    /// What is not to be served of all that has come.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Follows the next bytes.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Lost => return,
                Place::Content(left) => self.skip(left, bytes, Place::Content, Place::Between),
                Place::Chunk(left) => self.skip(left, bytes, Place::Chunk, Place::ChunkSize),
                place => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        return self.keep(bytes);
                    };
                    let line = &bytes[..end];
                    // Most lines are these, and are passed over at once.
                    if place != Place::Fields || !self.line.is_empty() || !is_other_field(line) {
                        self.line_with(line);
                    }
                    &bytes[end + 1..]
                }
            };
        }
    }

    /// Passes over content of which so much is left.
    fn skip<'a>(
        &mut self,
        left: u64,
        bytes: &'a [u8],
        more: fn(u64) -> Place,
        then: Place,
    ) -> &'a [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.place = match left - skipped as u64 {
            0 => then,
            left => more(left),
        };
        &bytes[skipped..]
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST_LINE {
            self.line = Vec::new();
            self.refuse_the_next("a line of the request before has no end");
        }
    }

    /// A line that ends with these bytes and an LF.
    fn line_with(&mut self, end: &[u8]) {
        if self.line.is_empty() {
            return self.on_line(end);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        self.on_line(&line);
        line.clear();
        line.shrink_to(USUAL_LINE);
        self.line = line;
    }

    fn on_line(&mut self, line: &[u8]) {
        let (text, has_cr) = match line {
            [text @ .., b'\r'] => (text, true),
            text => (text, false),
        };
        match self.place {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            Place::Between if text.is_empty() => {}
            Place::Between => {
                self.requests += 1;
                (self.length, self.chunked) = (None, false);
                self.place = Place::Fields;
            }
            Place::Fields if text.is_empty() => self.place = self.content(),
            Place::Fields => self.on_field(text),
            // hyper takes an LF alone for the end of a line in heads only.
            _ if !has_cr => self.refuse_the_next("the chunks of the request before are not framed"),
            Place::ChunkSize => self.on_chunk_size(text),
            Place::Trailers if text.is_empty() => self.place = Place::Between,
            _ => {}
        }
    }

    /// What follows the head (RFC 9112 section 6.3).
    fn content(&self) -> Place {
        match (self.chunked, self.length) {
            (true, _) => Place::ChunkSize,
            (false, None | Some(0)) => Place::Between,
            (false, Some(length)) => Place::Content(length),
        }
    }

    fn on_field(&mut self, line: &[u8]) {
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value(line, CONTENT_LENGTH) {
                    self.on_length(value);
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value(line, TRANSFER_ENCODING) {
                    self.on_coding(value);
                }
            }
            _ => {}
        }
    }

    fn on_length(&mut self, value: &[u8]) {
        match (decimal(value), self.length) {
            _ if self.chunked => self.refuse(BOTH),
            (_, Some(_)) => {
                self.refuse("the request has more than one Content-Length header; send one");
            }
            (None, None) => self.refuse("Content-Length: a number of bytes is accepted"),
            (length, None) => self.length = length,
        }
    }

    fn on_coding(&mut self, value: &[u8]) {
        match value.eq_ignore_ascii_case(b"chunked") && !self.chunked {
            _ if self.length.is_some() => self.refuse(BOTH),
            true => self.chunked = true,
            false => self.refuse("Transfer-Encoding: only chunked is accepted, once"),
        }
    }

    /// `size [ chunk-ext ]` (RFC 9112 section 7.1).
    fn on_chunk_size(&mut self, line: &[u8]) {
        let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
        let digits = line.iter().position(|byte| !is_digit(byte));
        let (digits, behind) = line.split_at(digits.unwrap_or(line.len()));
        let size = std::str::from_utf8(digits).ok();
        let size = size.and_then(|text| u64::from_str_radix(text, 16).ok());
        // The end of its line belongs to a chunk.
        let with_end = size.and_then(|size| size.checked_add(2));
        match (with_end, behind.first()) {
            (Some(2), None | Some(b';' | b' ' | b'\t')) => self.place = Place::Trailers,
            (Some(left), None | Some(b';' | b' ' | b'\t')) => self.place = Place::Chunk(left),
            _ => self.refuse_the_next("the chunks of the request before are not framed"),
        }
    }

    /// The request whose head has begun is not to be served, nor is any behind it.
    fn refuse(&mut self, why: &'static str) {
        self.place = Place::Lost;
        self.refused = Some(Refused {
            from: self.requests,
            why,
        });
    }

    /// As hyper ends the connection at what cannot be followed, none should come; where it would not, it is not served.
    fn refuse_the_next(&mut self, why: &'static str) {
        self.requests += 1;
        self.refuse(why);
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const BOTH: &str =
    "the request has both a Content-Length and a Transfer-Encoding header; send one of them";

/// Whether a line of a head is clearly a field that says nothing of the framing.
fn is_other_field(line: &[u8]) -> bool {
    match line.first() {
        None | Some(b'\r') => false,
        Some(b'c' | b'C') => line.get(CONTENT_LENGTH.len()) != Some(&b':'),
        Some(b't' | b'T') => line.get(TRANSFER_ENCODING.len()) != Some(&b':'),
        Some(_) => true,
    }
}

/// `1*DIGIT` (RFC 9112 section 6.2): no sign, and no more than can be counted.
fn decimal(value: &[u8]) -> Option<u64> {
    let number = value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|_| !value.is_empty())
}

/// The value of the field with this name, if the line is one of it.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start
        .eq_ignore_ascii_case(name)
        .then_some(value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many requests were followed, which is the first not to be served, and whether the end is one of a request.
    fn followed(pieces: &[&[u8]]) -> (u64, Option<u64>, bool) {
        let mut framing = Framing::default();
        for piece in pieces {
            framing.follow(piece);
        }
        let refused = framing.refused().map(|refused| refused.from);
        let between = framing.place == Place::Between && framing.line.is_empty();
        (framing.requests, refused, between)
    }

    const GOOD: &[u8] = b"\r\n\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\nHost: a\nContent-length:  003 \n\na\nb\
        PUT /c HTTP/1.1\r\nTransfer-Encoding:chunked\r\nX: y\r\n\r\n2;a=\"b\"\r\n\n\n\r\nA \r\n0\r\n\r\n01234\r\n00;x\r\nX: y\r\n\r\n\
        POST /d HTTP/1.1\r\nContent-Length: 0\r\nContent-Length-X: 1\r\n\r\n";

    #[test]
    fn f15_every_framing_is_followed_to_its_end() {
        assert_eq!(followed(&[GOOD]), (4, None, true));
        let both = [GOOD, b"POST /e HTTP/1.1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n"];
        assert_eq!(followed(&both), (5, Some(5), false));
    }

    #[test]
    fn f15_what_is_framed_in_two_ways_is_noted() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Content-Length: 3\r\nX: y\r\nTransfer-Encoding: gzip",
            "content-length:3\ncontent-length:3",
            "Content-Length: 3\r\nCONTENT-LENGTH: 4",
            "Content-Length: 3, 3",
            "Content-Length: +3",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            assert_eq!(
                followed(&[head.as_bytes()]),
                (1, Some(1), false),
                "{fields}"
            );
        }
    }

    #[test]
    fn the_room_of_a_long_line_does_not_stay_with_its_connection() {
        let mut framing = Framing::default();
        framing.follow(b"GET / HTTP/1.1\r\nX: ");
        framing.follow(&[b'x'; LONGEST_LINE - 10]);
        assert!(framing.line.capacity() > USUAL_LINE, "it is kept whole");
        framing.follow(b"\r\nY: ");
        assert!(framing.line.capacity() <= USUAL_LINE);
        // Positive control: what followed is the same request, and the next is one.
        framing.follow(b"y\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!((framing.requests, framing.place), (2, Place::Between));
    }

    #[test]
    fn f15_what_cannot_be_followed_ends_what_is_served() {
        let endless = [b'0'; LONGEST_LINE + 1];
        for chunks in [
            &b"3\nabc"[..],
            b"x\r\n",
            b"3x\r\n",
            b"\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000000\r\n",
            b"0\r\nX: y\n\nGET / HTTP/1.1\r\n\r\n",
            &endless,
        ] {
            let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            let shown = String::from_utf8_lossy(&chunks[..chunks.len().min(30)]);
            assert_eq!(followed(&[head, chunks]), (2, Some(2), false), "{shown:?}");
        }
    }

    proptest! {
        #[test]
        fn f15_it_does_not_matter_in_which_pieces_the_bytes_come(
            cuts in prop::collection::vec(0..GOOD.len(), 0..8),
            ambiguous in any::<bool>(),
        ) {
            let more: &[u8] = match ambiguous {
                true => b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                false => b"",
            };
            let all = [GOOD, more].concat();
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&all[from..cut]);
                from = cut;
            }
            pieces.push(&all[from..]);
            prop_assert_eq!(followed(&pieces), followed(&[&all]));
        }

        #[test]
        fn s08_f15_any_bytes_are_followed_without_a_panic(
            pieces in prop::collection::vec(prop::collection::vec(
                prop::sample::select(b"GPa0f: \r\n\t;,Ccontent-length transfer-encoding chunked HTTP/1.1".to_vec()), 0..60), 0..8),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            followed(&pieces);
        }
    }
}
