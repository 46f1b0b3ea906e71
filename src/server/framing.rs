//! Follows how a client of HTTP/1 frames its requests (rule F15), and how large their heads are (rule S7).
//!
//! hyper reads a request that has both a length and chunks as one with chunks, takes the length out, and says nothing of
//! it; of two equal lengths it leaves one. A server in front of the proxy may have read such a request in the other way,
//! and what is content to one of the two is the next request to the other. So the bytes are looked at on their way to
//! hyper: at each line of a head for the two fields, at the rest for no more than where it ends. Nothing is held back or
//! changed. What is noted is the number of the first request that is not to be served, and why.
//!
//! A head that is larger than it may be is cut off: hyper would answer it without a reason, or keep more of it than is
//! allowed here. What hyper gets instead of the rest is the shortest end of a head, so that the request comes to whoever
//! refuses it.

mod cut;
mod line;

use memchr::memchr;

pub(super) use cut::Cut;
use line::{Line, Seen};

use crate::config::HeadLimits;
use crate::proxy::ambiguity::Unservable;

/// Bytes of a line whose end may still come: more than may be in a whole head, and than hyper takes of the line before a
/// chunk.
const LONGEST_LINE: usize = 512 << 10;

/// Where in the client's bytes the next one is.
#[derive(Debug)]
pub(super) struct Framing {
    limits: HeadLimits,
    position: Position,
    /// The beginning of a line whose end has not come yet.
    line: Line,
    /// Heads that have begun.
    requests: u64,
    /// Of the head that has begun last.
    length: Option<u64>,
    chunked: bool,
    /// Bytes of the head that is coming, with the empty lines before it.
    size: usize,
    /// Its fields whose lines have ended.
    fields: usize,
    /// Whether the client has offered to change the protocol. What comes then may be no request, and may be nothing to cut.
    may_change: bool,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    /// Before a request line.
    #[default]
    Between,
    Fields,
    /// In the head of a request that is not to be served: only its size is still of interest.
    Refused,
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
    pub(super) why: Unservable,
}

impl Framing {
    /// Of a connection on which nothing has come yet.
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            position: Position::default(),
            line: Line::default(),
            requests: 0,
            length: None,
            chunked: false,
            size: 0,
            fields: 0,
            may_change: false,
            refused: None,
        }
    }

    /// What is not to be served of all that has come.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Follows the next bytes. Returns where a head is to be cut off.
    pub(super) fn follow(&mut self, all: &[u8]) -> Option<Cut> {
        let mut bytes = all;
        while !bytes.is_empty() {
            bytes = match self.position {
                Position::Lost => return None,
                Position::Content(left) => {
                    self.skip(left, bytes, Position::Content, Position::Between)
                }
                Position::Chunk(left) => {
                    self.skip(left, bytes, Position::Chunk, Position::ChunkSize)
                }
                position => {
                    let end = memchr(b'\n', bytes);
                    let (line, rest) = match end {
                        Some(end) => (&bytes[..end], &bytes[end + 1..]),
                        None => (bytes, &[][..]),
                    };
                    if matches!(
                        position,
                        Position::Between | Position::Fields | Position::Refused
                    ) {
                        self.size += bytes.len() - rest.len();
                        if let Some(why) = self.excess(line) {
                            return match self.may_change {
                                true => self.give_up(why),
                                false => Some(self.cut(all.len() - bytes.len(), line, why)),
                            };
                        }
                    }
                    // Most lines are these, and are passed over at once.
                    let is_other = position == Position::Fields
                        && self.line.is_empty()
                        && is_other_field(line);
                    match end {
                        None => self.keep(line),
                        Some(_) if is_other => self.fields += 1,
                        Some(_) => self.line_with(line),
                    }
                    rest
                }
            };
        }
        None
    }

    /// Passes over content of which so much is left.
    fn skip<'a>(
        &mut self,
        left: u64,
        bytes: &'a [u8],
        more: fn(u64) -> Position,
        then: Position,
    ) -> &'a [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.position = match left - skipped as u64 {
            0 => then,
            left => more(left),
        };
        &bytes[skipped..]
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.line.push(bytes);
        let is_size = self.position == Position::ChunkSize;
        if self.line.len() > LONGEST_LINE || (is_size && is_endless_size(self.line.seen())) {
            self.line.clear();
            self.refuse_the_next("a line of the request before has no end");
        }
    }

    /// A line that ends with these bytes and an LF.
    fn line_with(&mut self, end: &[u8]) {
        if self.line.is_empty() {
            return self.on_line(Seen::of(end));
        }
        let mut line = std::mem::take(&mut self.line);
        line.push(end);
        self.on_line(line.seen());
        line.clear();
        self.line = line;
    }

    fn on_line(&mut self, line: Seen<'_>) {
        match self.position {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            Position::Between if line.is_empty() => {}
            Position::Between => {
                self.requests += 1;
                (self.length, self.chunked) = (None, false);
                // What follows may be another protocol.
                self.may_change |= line.text.starts_with(b"CONNECT ");
                self.position = Position::Fields;
            }
            Position::Fields if line.is_empty() => {
                self.position = self.content();
                (self.size, self.fields) = (0, 0);
            }
            Position::Fields => {
                self.fields += 1;
                self.on_field(line);
            }
            Position::Refused if line.is_empty() => self.position = Position::Lost,
            Position::Refused => self.fields += 1,
            // hyper takes an LF alone for the end of a line in heads only.
            _ if !line.has_cr => self.refuse_the_next(UNFRAMED),
            Position::ChunkSize => self.on_chunk_size(line),
            Position::Trailers if line.is_empty() => self.position = Position::Between,
            _ => {}
        }
    }

    /// What follows the head (RFC 9112 section 6.3).
    fn content(&self) -> Position {
        match (self.chunked, self.length) {
            (true, _) => Position::ChunkSize,
            (false, None | Some(0)) => Position::Between,
            (false, Some(length)) => Position::Content(length),
        }
    }

    fn on_field(&mut self, line: Seen<'_>) {
        // What is not seen of a value makes it none that is accepted.
        let value_of = |name| value(line.text, name).map(|value| line.is_all.then_some(value));
        match line.text.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(CONTENT_LENGTH) {
                    self.on_length(value.unwrap_or_default());
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value_of(TRANSFER_ENCODING) {
                    self.on_coding(value.unwrap_or_default());
                }
            }
            Some(b'u' | b'U') => self.may_change |= value_of(UPGRADE).is_some(),
            _ => {}
        }
    }

    fn on_length(&mut self, value: &[u8]) {
        match (decimal(value), self.length) {
            _ if self.chunked => self.refuse_as_ambiguous(BOTH),
            (_, Some(_)) => self.refuse_as_ambiguous(
                "the request has more than one Content-Length header; send one",
            ),
            (None, None) => {
                self.refuse_as_ambiguous("Content-Length: a number of bytes is accepted");
            }
            (length, None) => self.length = length,
        }
    }

    fn on_coding(&mut self, value: &[u8]) {
        match value.eq_ignore_ascii_case(b"chunked") && !self.chunked {
            _ if self.length.is_some() => self.refuse_as_ambiguous(BOTH),
            true => self.chunked = true,
            false => self.refuse_as_ambiguous("Transfer-Encoding: only chunked is accepted, once"),
        }
    }

    /// `size [ chunk-ext ]` (RFC 9112 section 7.1), of which the extension need not be whole.
    fn on_chunk_size(&mut self, line: Seen<'_>) {
        if is_endless_size(line) {
            return self.refuse_the_next(UNFRAMED);
        }
        let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
        let digits = line.text.iter().position(|byte| !is_digit(byte));
        let (digits, behind) = line.text.split_at(digits.unwrap_or(line.text.len()));
        let size = std::str::from_utf8(digits).ok();
        let size = size.and_then(|text| u64::from_str_radix(text, 16).ok());
        // The end of its line belongs to a chunk.
        let with_end = size.and_then(|size| size.checked_add(2));
        match (with_end, behind.first()) {
            (Some(2), None | Some(b';' | b' ' | b'\t')) => self.position = Position::Trailers,
            (Some(left), None | Some(b';' | b' ' | b'\t')) => self.position = Position::Chunk(left),
            _ => self.refuse_the_next(UNFRAMED),
        }
    }

    /// The request whose head has begun is not to be served, nor is any behind it.
    fn refuse(&mut self, why: Unservable) {
        self.position = match self.position {
            Position::Fields => Position::Refused,
            _ => Position::Lost,
        };
        let from = self.requests;
        self.refused.get_or_insert(Refused { from, why });
    }

    fn refuse_as_ambiguous(&mut self, why: &'static str) {
        self.refuse(Unservable::Ambiguous(why));
    }

    /// As hyper ends the connection at what cannot be followed, none should come; where it would not, it is not served.
    fn refuse_the_next(&mut self, why: &'static str) {
        self.requests += 1;
        self.refuse_as_ambiguous(why);
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const UPGRADE: &[u8] = b"upgrade";
const BOTH: &str =
    "the request has both a Content-Length and a Transfer-Encoding header; send one of them";

const UNFRAMED: &str = "the chunks of the request before are not framed";

/// Whether a line of a head is clearly a field that says nothing of the framing.
fn is_other_field(line: &[u8]) -> bool {
    match line.first() {
        None | Some(b'\r') => false,
        Some(b'c' | b'C') => line.get(CONTENT_LENGTH.len()) != Some(&b':'),
        Some(b't' | b'T') => line.get(TRANSFER_ENCODING.len()) != Some(&b':'),
        Some(b'u' | b'U') => line.get(UPGRADE.len()) != Some(&b':'),
        Some(_) => true,
    }
}

/// Whether the size of a chunk goes on behind what is looked at, which no number does.
fn is_endless_size(line: Seen<'_>) -> bool {
    !line.is_all && line.text.iter().all(u8::is_ascii_hexdigit)
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
    use http_body_util::BodyExt;
    use hyper::body::Incoming;
    use proptest::prelude::*;

    use super::cut::SHOWN;
    use super::*;

    /// So large that only what is meant to reaches them.
    const LIMITS: HeadLimits = HeadLimits {
        bytes: 2 * LONGEST_LINE,
        fields: 100,
        target: LONGEST_LINE,
    };

    /// How many requests were followed, which is the first not to be served, and whether the end is one of a request.
    fn followed(pieces: &[&[u8]]) -> (u64, Option<u64>, bool) {
        let mut framing = Framing::new(LIMITS);
        for piece in pieces {
            framing.follow(piece);
        }
        let refused = framing.refused().map(|refused| refused.from);
        let between = framing.position == Position::Between && framing.line.is_empty();
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
    fn f15_what_is_looked_at_of_a_line_is_enough_to_tell_how_the_request_is_framed() {
        let long = "x".repeat(LONGEST_LINE / 2);
        let (spaces, zeros) = (" ".repeat(line::KEPT), "0".repeat(line::KEPT));
        for (fields, is_served) in [
            (format!("X: {long}"), true),
            (format!("Content-Length-{long}: 3"), true),
            (format!("Content-Length:{}3", &spaces[..200]), true),
            (format!("Content-Length:{spaces}3"), false),
            (format!("Content-Length: 3{spaces}"), false),
            (format!("Content-Length: {zeros}"), false),
            (format!("Content-Length: {long}"), false),
            (format!("Transfer-Encoding: chunked{spaces}"), false),
            (format!("Transfer-Encoding: {long}"), false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            let (whole, pieces) = (
                head.as_bytes(),
                head.as_bytes().chunks(100).collect::<Vec<_>>(),
            );
            let refused = (!is_served).then_some(1);
            for pieces in [&[whole][..], &pieces] {
                let (requests, from, _) = followed(pieces);
                assert_eq!((requests, from), (1, refused), "{}", &fields[..30]);
            }
        }
        let chunk = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;{long}\r\nabc\r\n0\r\nX: {long}\r\n\r\n"
        );
        let pieces: Vec<_> = chunk.as_bytes().chunks(100).collect();
        assert_eq!(followed(&[chunk.as_bytes()]), (1, None, true));
        assert_eq!(followed(&pieces), (1, None, true));
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

    /// What is passed on of `bytes`, and why the head in it is cut off, if it is.
    fn passed(limits: HeadLimits, bytes: &[u8]) -> (Vec<u8>, Option<Unservable>) {
        let mut framing = Framing::new(limits);
        match framing.follow(bytes) {
            None => (bytes.to_vec(), None),
            Some(cut) => {
                let refused = framing.refused().expect("what is cut off is refused");
                let passed = [&bytes[..cut.kept], cut.ending].concat();
                (passed, Some(refused.why))
            }
        }
    }

    #[test]
    fn s07_a_head_may_be_as_large_as_its_limits_and_no_larger() {
        let head = b"\r\nGET /12345 HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
        let exact = HeadLimits {
            bytes: head.len(),
            fields: 2,
            target: 6,
        };
        let twice = head.repeat(2);
        assert_eq!(passed(exact, &twice), (twice.clone(), None));
        let smaller = HeadLimits {
            bytes: head.len() - 1,
            ..exact
        };
        let why = Some(Unservable::HeadTooLarge(head.len() - 1));
        assert_eq!(passed(smaller, head), (head.to_vec(), why));
        let fewer = HeadLimits { fields: 1, ..exact };
        let kept = b"\r\nGET /12345 HTTP/1.1\r\nA: b\r\n\r\n".to_vec();
        let why = Some(Unservable::TooManyFields(1));
        assert_eq!(passed(fewer, head), (kept, why));
        let shorter = HeadLimits { target: 5, ..exact };
        let kept = b"\r\nGET /12345 HTTP/1.1\r\n\r\n".to_vec();
        let why = Some(Unservable::TargetTooLong(5));
        assert_eq!(passed(shorter, head), (kept, why));
    }

    #[test]
    fn s07_a_head_that_is_refused_already_may_be_no_larger() {
        let limits = HeadLimits {
            bytes: 100,
            fields: 3,
            target: 100,
        };
        let twice = "GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n";
        let long = format!("{twice}X: {}", "x".repeat(100));
        let (kept, why) = passed(limits, long.as_bytes());
        assert_eq!(kept, format!("{twice}\r\n").as_bytes());
        assert!(matches!(why, Some(Unservable::Ambiguous(_))), "{why:?}");
        let many = format!("{twice}A: b\r\nA: b\r\n\r\n");
        let (kept, why) = passed(limits, many.as_bytes());
        assert_eq!(kept, format!("{twice}A: b\r\n\r\n").as_bytes());
        assert!(matches!(why, Some(Unservable::Ambiguous(_))), "{why:?}");
        // Positive control: what follows its head is not counted.
        let small = format!("{twice}\r\n{}", "x".repeat(1000));
        assert_eq!(passed(limits, small.as_bytes()).0, small.as_bytes());
    }

    /// What is passed on of a request line in pieces until it is cut off, the number of the request, and why.
    fn passed_in(limits: HeadLimits, pieces: &[&[u8]]) -> (String, Option<Refused>) {
        let mut framing = Framing::new(limits);
        let mut passed = Vec::new();
        for piece in pieces {
            match framing.follow(piece) {
                None => passed.extend_from_slice(piece),
                Some(cut) => {
                    passed.extend_from_slice(&piece[..cut.kept]);
                    passed.extend_from_slice(cut.ending);
                    break;
                }
            }
        }
        let passed = String::from_utf8(passed).expect("ASCII");
        (passed, framing.refused())
    }

    #[test]
    fn s07_a_target_that_is_too_long_leaves_a_whole_head_wherever_it_is_cut_off() {
        let limits = HeadLimits {
            target: 5,
            ..LIMITS
        };
        let refused = Some(Refused {
            from: 1,
            why: Unservable::TargetTooLong(5),
        });
        let line = b"GET /12345678 HTTP/1.1\r\n\r\n";
        for at in 0..=line.len() {
            let (first, second) = line.split_at(at);
            let (passed, why) = passed_in(limits, &[first, second]);
            assert_eq!(why, refused, "{at}");
            assert!(passed.starts_with("GET /12345"), "{at}: {passed:?}");
            assert!(passed.ends_with(" HTTP/1.1\r\n\r\n"), "{at}: {passed:?}");
            assert_eq!(passed.matches('\n').count(), 2, "{at}: {passed:?}");
        }
        let long = [b"GET /", &[b'x'; 1000][..]].concat();
        let (passed, why) = passed_in(limits, &[&long]);
        assert_eq!(why, refused);
        assert_eq!(passed.len(), SHOWN + " HTTP/1.1\r\n\r\n".len());
        let exact = b"GET /1234 HTTP/1.1\r\n\r\n";
        assert_eq!(passed_in(limits, &[exact]).1, None, "the control");
    }

    #[test]
    fn s07_too_many_empty_lines_before_a_request_are_followed_by_a_whole_head() {
        let limits = HeadLimits { bytes: 5, ..LIMITS };
        for empty in ["\n", "\r\n"] {
            let (passed, why) = passed_in(limits, &[empty.repeat(6).as_bytes()]);
            let why = why.map(|refused| refused.why);
            assert_eq!(why, Some(Unservable::HeadTooLarge(5)));
            assert!(passed.starts_with(empty), "{passed:?}");
            let head = passed.trim_start();
            assert_eq!(head, "GET / HTTP/1.1\r\n\r\n", "{passed:?}");
        }
    }

    #[test]
    fn s07_fields_that_are_too_large_leave_a_whole_head_wherever_they_are_cut_off() {
        let line = "GET / HTTP/1.1\r\n";
        let head = format!("{line}Abc: de\r\nF: g\r\n\r\n");
        for bytes in line.len()..head.len() {
            let limits = HeadLimits { bytes, ..LIMITS };
            // Byte by byte: what has been passed on of a field cannot be taken back.
            let pieces: Vec<_> = head.as_bytes().chunks(1).collect();
            let (passed, why) = passed_in(limits, &pieces);
            let why = why.map(|refused| refused.why);
            assert_eq!(why, Some(Unservable::HeadTooLarge(bytes)));
            let end = passed.find("\r\n\r\n").expect("a whole head");
            assert_eq!(end + 4, passed.len(), "{bytes}: {passed:?}");
            let fields = passed[..end].strip_prefix(line.trim_end());
            let mut fields = fields.expect("its line").split("\r\n").skip(1);
            let is_field = |field: &str| field.contains(':') && !field.contains('\r');
            assert!(fields.all(is_field), "{bytes}: {passed:?}");
        }
    }

    #[test]
    fn f15_all_lines_of_trailers_belong_to_their_request() {
        let post = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let end = b"0\r\nA: b\r\nC: d\r\nE: f\r\n\r\n";
        assert_eq!(followed(&[post, end]), (1, None, true));
        assert_eq!(followed(&[post, end, post, end]), (2, None, true));
    }

    #[test]
    fn s07_a_head_that_is_too_large_by_its_target_is_told_so() {
        let line = [b"GET /", &[b'x'; 100][..], b" HTTP/1.1\r\n\r\n"].concat();
        for (target, why) in [
            (5, Unservable::TargetTooLong(5)),
            (1000, Unservable::HeadTooLarge(20)),
        ] {
            let limits = HeadLimits {
                bytes: 20,
                fields: 1,
                target,
            };
            let (_, refused) = passed_in(limits, &[&line]);
            assert_eq!(refused, Some(Refused { from: 1, why }));
        }
    }

    #[test]
    fn s07_behind_an_offered_upgrade_nothing_is_cut_off_and_nothing_too_large_is_served() {
        let limits = HeadLimits {
            fields: 1,
            target: 5,
            ..LIMITS
        };
        let offer = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n";
        for (more, refused) in [
            ("\r\nGET / HTTP/1.1\r\n\r\n", None),
            (
                "\r\nGET /12345678 HTTP/1.1\r\n\r\n",
                Some((2, Unservable::TargetTooLong(5))),
            ),
            ("A: b\r\n\r\n", Some((1, Unservable::TooManyFields(1)))),
        ] {
            let all = format!("{offer}{more}");
            let (passed, why) = passed_in(limits, &[all.as_bytes()]);
            assert_eq!(passed, all, "nothing is cut off");
            assert_eq!(why, refused.map(|(from, why)| Refused { from, why }));
        }
    }

    #[test]
    fn f15_a_size_whose_end_is_not_looked_at_ends_what_is_served() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let rest = b"34\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for (zeros, refused) in [
            (line::KEPT, Some(2)),
            (line::KEPT + 1, Some(2)),
            (2 * line::KEPT, Some(2)),
            // Positive control: a size that is seen whole.
            (line::KEPT - 3, None),
        ] {
            let all = [&head[..], &vec![b'0'; zeros], rest].concat();
            let by_byte: Vec<_> = all.chunks(1).collect();
            for pieces in [vec![&all[..]], all.chunks(100).collect(), by_byte] {
                assert_eq!(followed(&pieces).1, refused, "{zeros} in {}", pieces.len());
            }
        }
    }

    /// How many requests hyper takes from these bytes, and whether it ends without an error.
    fn taken_by_hyper(bytes: &[u8]) -> (u64, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let taken = std::cell::Cell::new(0);
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            taken.set(taken.get() + 1);
            async {
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(http::Response::new(http_body_util::Empty::<&[u8]>::new()))
            }
        });
        let io = tokio::io::join(bytes, tokio::io::sink());
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(hyper_util::rt::TokioIo::new(io), service);
        let ended = runtime.expect("a runtime").block_on(connection);
        (taken.get(), ended.is_ok())
    }

    /// What chunks and what looks like them are made of.
    fn of_chunks() -> impl Strategy<Value = Vec<u8>> {
        let get = "GET / HTTP/1.1\r\n\r\n";
        let chunk = |(zeros, content): (usize, &str)| {
            format!("{}{:x}\r\n{content}\r\n", "0".repeat(zeros), content.len())
        };
        let zeros = prop_oneof![0..4_usize, line::KEPT - 3..line::KEPT + 3, 0..600_usize];
        let content = prop::sample::select(vec!["abc", "0\r\n\r\n", get]);
        let other = prop::sample::select(vec![
            "0",
            "1",
            "a",
            ";",
            " ",
            "\t",
            "\r\n",
            "\n",
            "\r",
            "0\r\n\r\n",
            "3;a=b\r\nabc\r\n",
            "X: y\r\n",
            get,
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ]);
        let piece = prop_oneof![
            8 => (zeros.clone(), content).prop_map(chunk),
            1 => zeros.prop_map(|zeros| "0".repeat(zeros)),
            1 => other.prop_map(str::to_owned),
        ];
        let end = format!("0\r\n\r\n{get}");
        prop::collection::vec(piece, 0..6)
            .prop_map(move |pieces| [&pieces.concat(), end.as_str()].concat().into_bytes())
    }

    #[test]
    fn f15_hyper_reads_a_size_with_many_zeros_as_what_it_says() {
        let chunk = format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(2 * line::KEPT));
        let post = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let all = [post, &chunk, post, "0\r\n\r\n"].concat();
        assert_eq!(taken_by_hyper(all.as_bytes()), (2, true));
    }

    proptest! {
        #[test]
        fn f15_requests_are_counted_as_hyper_counts_them(chunks in of_chunks()) {
            let all = [&b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &chunks].concat();
            let (requests, refused, _) = followed(&[&all]);
            let (taken, is_ok) = taken_by_hyper(&all);
            let served = refused.map_or(u64::MAX, |from| from - 1);
            prop_assert!(taken.min(served) <= requests, "hyper took {taken} of {requests}");
            // What hyper leaves off with an error is not served either.
            prop_assert!(!is_ok || requests.min(served) <= taken, "hyper took {taken} of {requests}");
        }

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
