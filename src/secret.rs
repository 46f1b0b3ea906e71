//! Values that must never be printed.
//!
//! [`Secret`] has no `Display` and no `Serialize`, prints as a placeholder under `Debug`, and is wiped when dropped.
//! [`Zeroizing`] wipes what is not text, such as a private key, and keeps nobody from printing it.
//! What leaves this module as a header value is marked sensitive, so that hyper and tracing print it as `Sensitive`.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use memchr::memmem::Finder;

pub use secrecy::zeroize::{Zeroize, Zeroizing};
pub use secrecy::{ExposeSecret, SecretString as Secret};

/// RFC 6750 section 2.1.
const SCHEME: &[u8] = b"Bearer ";

/// `Bearer <token>` as a header value marked sensitive.
///
/// # Errors
///
/// When the token has a character that no header value may carry (RFC 9110 section 5.5).
pub fn bearer_header(token: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let value = Zeroizing::new([SCHEME, token.expose_secret().as_bytes()].concat());
    // It is wiped with the last copy of the header, since none of them copies the bytes.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The token in what [`bearer_header`] made.
pub fn bearer_token(header: &HeaderValue) -> &[u8] {
    header.as_bytes().strip_prefix(SCHEME).unwrap_or_default()
}

/// Bytes that are written one after the other and hold secrets: where they need more room, what they had is wiped.
#[derive(Default)]
pub struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    /// Enough for what most have to hold, a pair and what is said about it, and no more: all of it is wiped.
    const ROOM: usize = 1 << 10;

    /// What was written.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// How much was written.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let room = needed.max(2 * self.0.capacity()).max(Self::ROOM);
            let mut roomier = Vec::with_capacity(room);
            roomier.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(roomier);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Finds a token in text, as fast as the machine can look at that.
///
/// What is searched for is a piece of the token, half of it at the most, which no wiping reaches here; where it is found,
/// the whole token is compared.
#[derive(Clone)]
pub struct Needle {
    piece: Finder<'static>,
    /// Where in the token the piece begins.
    at: usize,
    /// The token's length.
    length: usize,
}

/// Shorter tokens are not looked for: half of one could stand anywhere.
const SHORTEST: usize = 16;
/// What all machines with wide instructions compare in one step.
const PIECE: usize = 16;

impl Needle {
    /// For this token; `None` where it is too short to be looked for.
    pub fn of(token: &[u8]) -> Option<Self> {
        let length = token.len();
        let piece = PIECE.min(length / 2);
        // In the middle: the beginnings of tokens look alike.
        let at = (length - piece) / 2;
        (length >= SHORTEST).then(|| Self {
            piece: Finder::new(&token[at..at + piece]).into_owned(),
            at,
            length,
        })
    }

    /// The length of what is looked for.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether `token`, for which this was made, is in `text`.
    pub fn is_in(&self, token: &[u8], text: &[u8]) -> bool {
        let mut from = 0;
        while let Some(found) = text.get(from..).and_then(|rest| self.piece.find(rest)) {
            let begin = (from + found).checked_sub(self.at);
            let there = begin.and_then(|begin| text.get(begin..begin + token.len()));
            if there == Some(token) {
                return true;
            }
            from += found + 1;
        }
        false
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needle").finish_non_exhaustive()
    }
}

/// Whether a token can be sent and kept: one word of visible ASCII (RFC 6750 section 2.1 allows less, Lucid promises no
/// more).
pub fn is_one_word(token: &Secret) -> bool {
    let token = token.expose_secret();
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_neither_a_secret_nor_its_header_shows_under_debug() {
        let secret = Secret::from("oauth2-marked");
        let header = bearer_header(&secret).expect("visible ASCII");
        assert_eq!(
            header.as_bytes(),
            b"Bearer oauth2-marked",
            "the value itself is whole"
        );
        let printed = format!("{secret:?} {header:?}");
        assert!(!printed.contains("marked"), "{printed}");
    }

    #[test]
    fn s06_the_memory_of_a_bearer_header_is_this_programs_own_and_shared_by_its_copies() {
        let header = bearer_header(&Secret::from("oauth2-marked")).expect("visible ASCII");
        let copy = header.clone();
        assert_eq!(header.as_bytes().as_ptr(), copy.as_bytes().as_ptr());
        assert_eq!(bearer_token(&copy), b"oauth2-marked");
        assert_eq!(bearer_token(&HeaderValue::from_static("Basic x")), b"");
    }

    #[test]
    fn s06_a_buffer_holds_what_was_written_and_never_grows_in_its_place() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for length in [0, 1, 4095, 1, 10, 10_000] {
            let before = buffer.0.as_ptr();
            let has_room = buffer.0.capacity() - buffer.0.len() >= length;
            let part = vec![length as u8; length];
            buffer.write_all(&part).expect("there is room");
            expected.extend(part);
            assert_eq!(before == buffer.0.as_ptr(), has_room, "{length}");
        }
        assert_eq!((buffer.len(), buffer.is_empty()), (expected.len(), false));
        assert_eq!(*buffer.into_bytes(), expected);
    }

    #[test]
    fn a_needle_shows_nothing_and_finds_the_whole_token_alone() {
        let token = b"oauth2-marked-0123456789-abcdefghij";
        let needle = Needle::of(token).expect("long enough");
        let whole = [b"before ", &token[..], b" behind"].concat();
        assert!(needle.is_in(token, &whole) && needle.is_in(token, token));
        for part in [&token[1..], &token[..token.len() - 1], b"", b"oauth2-"] {
            assert!(!needle.is_in(token, part), "{part:?}");
        }
        // The piece stands there before the token does.
        let decoy = [&token[5..30], &token[..]].concat();
        assert!(needle.is_in(token, &decoy));
        let alike = [b'a'; 40];
        let needle_alike = Needle::of(&alike).expect("long enough");
        assert!(
            needle_alike.is_in(&alike, &[b'a'; 50]) && !needle_alike.is_in(&alike, &[b'a'; 39])
        );
        assert!(Needle::of(&token[..SHORTEST - 1]).is_none());
        assert!(!format!("{needle:?}").contains("23"), "{needle:?}");
    }

    #[test]
    fn s08_a_token_with_a_line_break_is_an_error_and_no_panic() {
        assert!(bearer_header(&Secret::from("a\r\nX-Evil: 1")).is_err());
    }
}
