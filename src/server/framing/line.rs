//! A line that comes in pieces.

use memchr::memchr;

/// Bytes of a line that are looked at: more than any field needs that says something of the framing. hyper keeps the
/// whole of a head already.
pub(super) const KEPT: usize = 256;

/// What is remembered of the beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Its first bytes, up to `KEPT`.
    start: Vec<u8>,
    length: usize,
    last: Option<u8>,
    has_colon: bool,
    /// Where its first two spaces are.
    spaces: [Option<usize>; 2],
}

/// A whole line without its LF, as far as it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// Its first bytes, without the CR that ends it.
    pub(super) text: &'a [u8],
    /// Whether that is all of it.
    pub(super) is_all: bool,
    pub(super) has_cr: bool,
}

impl<'a> Seen<'a> {
    /// A line that came in one piece.
    pub(super) fn of(line: &'a [u8]) -> Self {
        let start = &line[..line.len().min(KEPT)];
        Self::new(start, line.len(), line.last().copied())
    }

    fn new(start: &'a [u8], length: usize, last: Option<u8>) -> Self {
        let has_cr = last == Some(b'\r');
        let is_all = start.len() == length;
        let text = match start {
            [text @ .., b'\r'] if is_all => text,
            text => text,
        };
        Self {
            text,
            is_all,
            has_cr,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl Line {
    /// The next bytes of it, without an LF.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else {
            return;
        };
        self.spaces = self.spaces_with(bytes);
        self.has_colon |= memchr(b':', bytes).is_some();
        if self.start.len() < KEPT {
            self.start.reserve_exact(KEPT - self.start.len());
            let kept = bytes.len().min(KEPT - self.start.len());
            self.start.extend_from_slice(&bytes[..kept]);
        }
        self.length += bytes.len();
        self.last = Some(*last);
    }

    /// The next line has not begun. The room stays.
    pub(super) fn clear(&mut self) {
        self.start.clear();
        (self.length, self.last, self.has_colon) = (0, None, false);
        self.spaces = [None; 2];
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The line, if it has come to its end.
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen::new(&self.start, self.length, self.last)
    }

    /// Where the first two spaces are of the line that goes on with `more`.
    pub(super) fn spaces_with(&self, more: &[u8]) -> [Option<usize>; 2] {
        let in_more = |from: usize| {
            let from = from.saturating_sub(self.length);
            Some(self.length + from + memchr(b' ', more.get(from..)?)?)
        };
        let first = self.spaces[0].or_else(|| in_more(0));
        let second = self.spaces[1].or_else(|| in_more(first? + 1));
        [first, second]
    }

    /// What makes a head of a request line of which this much has come.
    pub(super) fn ending_of_request_line(&self) -> &'static [u8] {
        const WHOLE: &[u8] = b"\nGET / HTTP/1.1\r\n\r\n";
        const VERSION: &[u8] = b"HTTP/1.1\r\n\r\n";
        match (self.length, self.last) {
            (0, _) => return &WHOLE[1..],
            // Of an empty line before.
            (1, Some(b'\r')) => return WHOLE,
            _ => {}
        }
        match self.spaces {
            [None, _] => b" / HTTP/1.1\r\n\r\n",
            [Some(first), None] if first + 1 == self.length => b"/ HTTP/1.1\r\n\r\n",
            [Some(_), None] => b" HTTP/1.1\r\n\r\n",
            [_, Some(second)] => VERSION
                .get(self.length - second - 1..)
                .unwrap_or(END_OF_HEAD),
        }
    }

    /// What makes the last one of a field's line of which this much has come.
    pub(super) fn ending_of_field(&self) -> &'static [u8] {
        match (self.length, self.last) {
            (0, _) => &END_OF_HEAD[2..],
            (1, Some(b'\r')) => &END_OF_HEAD[3..],
            (_, Some(b'\r')) => &END_OF_HEAD[1..],
            _ if self.has_colon => END_OF_HEAD,
            _ => b":\r\n\r\n",
        }
    }
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s07_of_a_long_line_only_its_beginning_is_kept() {
        let mut line = Line::default();
        for _ in 0..1000 {
            line.push(&[b'x'; 100]);
        }
        assert_eq!((line.len(), line.start.capacity()), (100_000, KEPT));
        let seen = line.seen();
        assert_eq!((seen.text.len(), seen.is_all), (KEPT, false));
        line.clear();
        line.push(b"y\r");
        let seen = line.seen();
        assert_eq!(
            (seen.text, seen.is_all, seen.has_cr),
            (&b"y"[..], true, true)
        );
        assert_eq!(line.start.capacity(), KEPT);
    }

    proptest! {
        #[test]
        fn f15_a_line_in_pieces_is_seen_as_the_whole_one(
            pieces in prop::collection::vec(prop::collection::vec(
                prop::sample::select(b"ab: \r\t".to_vec()), 0..90), 0..8),
        ) {
            let all = pieces.concat();
            let mut line = Line::default();
            let mut before = [None; 2];
            for piece in &pieces {
                before = line.spaces_with(piece);
                line.push(piece);
            }
            let (whole, seen) = (Seen::of(&all), line.seen());
            prop_assert_eq!(
                (whole.text, whole.is_all, whole.has_cr),
                (seen.text, seen.is_all, seen.has_cr)
            );
            let mut spaces = all.iter().enumerate().filter(|(_, byte)| **byte == b' ');
            let spaces = [(); 2].map(|()| spaces.next().map(|(at, _)| at));
            prop_assert_eq!((line.spaces, before), (spaces, spaces));
            prop_assert_eq!(line.has_colon, all.contains(&b':'));
        }
    }
}
