//! Step 9, beside the client's answer: does upstream repeat our token in it? (rule S6)
//!
//! A debugging endpoint or an error page may show what it was asked with, and whoever reads on has the token. The answer
//! passes as it is (F9); the log tells, without the token, so that somebody can act. Looked at are the header, that of a
//! 101 too, and the trailers that it announces. Of the content, where it is text or nobody says what it is, and is not
//! coded, the first 64 KiB are: small answers whole, and of a large one nothing that costs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri};

use super::head::Names;
use crate::token::Bearer;

/// How much of an answer's content is looked at.
const LOOKED_AT: usize = 64 << 10;

/// How often it is told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// When it was told last, by any worker: what repeats a token once does so for every request.
static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// Looks at the content of an answer while it passes.
#[derive(Debug)]
pub struct Watch {
    bearer: Arc<Bearer>,
    path: Option<PathAndQuery>,
    /// Bytes of the content that may still be looked at.
    left: usize,
    /// Whether trailers are announced, which are looked at however long the content is.
    awaits_trailers: bool,
    /// The end of what has passed, less than a token long: the token may go on in the next frame.
    tail: Bytes,
}

/// Looks at the header of an answer to a request for `uri`, and says what looks at its content, where that is to be done.
pub(super) fn look(
    headers: &HeaderMap,
    names: Names,
    bearer: Arc<Bearer>,
    uri: &Uri,
) -> Option<Box<Watch>> {
    bearer.length_to_find()?;
    look_at_head(headers, &bearer, uri.path());
    let left = length_to_look_at(names);
    let awaits_trailers = names.has(Names::TRAILER);
    let is_to_be_watched = !names.has(Names::EMPTY) && (left > 0 || awaits_trailers);
    is_to_be_watched.then(|| {
        Box::new(Watch {
            bearer,
            path: uri.path_and_query().cloned(),
            left,
            awaits_trailers,
            tail: Bytes::new(),
        })
    })
}

/// Looks at the header of an answer alone.
pub(super) fn look_at_head(headers: &HeaderMap, bearer: &Bearer, path: &str) {
    if let Some(name) = field_with(bearer, headers) {
        tell(&format!("the header {name}"), path);
    }
}

/// The first of these fields that has the token in its value.
fn field_with<'a>(bearer: &Bearer, fields: &'a HeaderMap) -> Option<&'a HeaderName> {
    let shortest = bearer.length_to_find()?;
    let mut fields = fields.iter();
    let found = fields.find(|(_, value)| value.len() >= shortest && bearer.is_in(value.as_bytes()));
    found.map(|(name, _)| name)
}

/// Bytes of the content that are looked at. A browser takes what has no type for text where it looks so.
fn length_to_look_at(names: Names) -> usize {
    let is_text = names.has(Names::TEXT) || !names.has(Names::NO_TEXT);
    match is_text && !names.has(Names::CODED) {
        true => LOOKED_AT,
        false => 0,
    }
}

impl Watch {
    /// Looks at the next bytes, behind which more follow or not. Whether there is anything left to look at.
    pub fn look_at(&mut self, data: &Bytes, more: bool) -> bool {
        if self.left > 0 && self.sees(data) {
            tell("its content", self.path());
            return false;
        }
        more && (self.left > 0 || self.awaits_trailers)
    }

    /// Looks at what comes behind the content.
    pub fn look_at_trailers(&self, trailers: &HeaderMap) {
        if let Some(name) = field_with(&self.bearer, trailers) {
            tell(&format!("the trailer {name}"), self.path());
        }
    }

    fn path(&self) -> &str {
        self.path.as_ref().map_or("", PathAndQuery::path)
    }

    /// Whether the token ends in these bytes, as far as they are to be looked at.
    fn sees(&mut self, data: &Bytes) -> bool {
        let data = data.slice(..data.len().min(self.left));
        self.left -= data.len();
        let kept = self.bearer.length_to_find().map_or(0, |length| length - 1);
        let mut end = data.slice(data.len().saturating_sub(kept)..);
        if !self.tail.is_empty() {
            let beginning = &data[..data.len().min(kept)];
            let seam = Bytes::from([&self.tail, beginning].concat());
            if self.bearer.is_in(&seam) {
                return true;
            }
            if data.len() < kept {
                // Of frames smaller than a token, as many as it may take count.
                end = seam.slice(seam.len().saturating_sub(kept)..);
            }
        }
        self.tail = end;
        self.bearer.is_in(&data)
    }
}

/// Says it, unless that was done a moment ago.
fn tell(place: &str, path: &str) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if !is_due(*told, now) {
        return;
    }
    *told = Some(now);
    tracing::warn!(
        path,
        "an answer of upstream's repeats the proxy's token in {place}: it passed unchanged, and whoever has seen it can use the token; keep clients from such paths"
    );
}

fn is_due(told: Option<Instant>, now: Instant) -> bool {
    told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;
    use crate::token::Terms;

    const TOKEN: &str = "oauth2-marked-0123456789-abcdefghij";

    fn watch() -> Watch {
        let bearer = Bearer::new(&Secret::from(TOKEN), Some(1), Terms::default());
        Watch {
            bearer: Arc::new(bearer.expect("a header")),
            path: None,
            left: LOOKED_AT,
            awaits_trailers: false,
            tail: Bytes::new(),
        }
    }

    fn sees<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut watch = watch();
        let mut frames = frames.into_iter();
        frames.any(|frame| watch.sees(&Bytes::copy_from_slice(frame)))
    }

    proptest! {
        #[test]
        fn s06_a_token_is_seen_however_it_is_split(
            before in 0..200_usize,
            behind in 0..200_usize,
            mut cuts in proptest::collection::vec(0..435_usize, 0..12),
            missing in 0..TOKEN.len(),
        ) {
            let text = [&b"x".repeat(before)[..], TOKEN.as_bytes(), &b"y".repeat(behind)].concat();
            cuts.sort_unstable();
            let split = |text: &[u8]| {
                let mut frames = Vec::new();
                let mut from = 0;
                for cut in cuts.iter().map(|cut| (*cut).min(text.len())) {
                    frames.push(text[from..cut].to_vec());
                    from = cut;
                }
                frames.push(text[from..].to_vec());
                frames
            };
            prop_assert!(sees(split(&text).iter().map(Vec::as_slice)));
            prop_assert!(sees(text.chunks(1)), "byte by byte");
            let mut other = text;
            other.remove(before + missing);
            prop_assert!(!sees(split(&other).iter().map(Vec::as_slice)));
            prop_assert!(!sees(other.chunks(1)));
        }
    }

    #[test]
    fn s06_a_large_answer_costs_nothing_behind_its_beginning() {
        let blank = vec![b'x'; LOOKED_AT - TOKEN.len()];
        let inside = [&blank, TOKEN.as_bytes()].concat();
        assert!(sees([&inside[..]]) && sees([&blank[..], TOKEN.as_bytes()]));
        assert!(
            !sees([&b"x"[..], &inside]),
            "it ends behind what is looked at"
        );
        let mut watch = watch();
        let blank = Bytes::from(blank);
        assert!(watch.look_at(&blank, true), "there is more to look at");
        assert!(!watch.look_at(&blank, true), "enough was looked at");
        let mut ended = super::tests::watch();
        assert!(
            !ended.look_at(&Bytes::from_static(b"x"), false),
            "nothing more comes"
        );
    }

    #[test]
    fn s06_what_may_be_text_is_watched_and_what_costs_nothing_is_not() {
        let bearer = watch().bearer;
        let uri = Uri::from_static("/users?query");
        let watched = |names| {
            let watch = look(&HeaderMap::new(), names, bearer.clone(), &uri);
            watch.map(|watch| (watch.left, watch.awaits_trailers))
        };
        let none = Names::default();
        for (names, expected) in [
            (none, Some((LOOKED_AT, false))),
            (Names::TEXT, Some((LOOKED_AT, false))),
            (Names::NO_TEXT, None),
            (Names::NO_TEXT.with(Names::TEXT), Some((LOOKED_AT, false))),
            (Names::CODED, None),
            (Names::TEXT.with(Names::CODED), None),
            (Names::TEXT.with(Names::EMPTY), None),
            (Names::TEXT.with(Names::TRAILER), Some((LOOKED_AT, true))),
            (Names::NO_TEXT.with(Names::TRAILER), Some((0, true))),
        ] {
            assert_eq!(watched(names), expected, "{names:?}");
        }
        let short = Bearer::new(&Secret::from("short"), Some(1), Terms::default());
        let short = Arc::new(short.expect("a header"));
        assert!(look(&HeaderMap::new(), none, short, &uri).is_none());
    }

    #[test]
    fn s06_content_is_passed_over_where_only_trailers_are_awaited() {
        let content = Bytes::from_static(TOKEN.as_bytes());
        let mut watch = watch();
        (watch.left, watch.awaits_trailers) = (0, true);
        assert!(watch.look_at(&content, true), "trailers follow");
        assert!(watch.tail.is_empty(), "nothing is kept of it");
        assert!(!watch.look_at(&content, false), "nothing follows");
    }

    #[test]
    fn s06_it_is_told_once_a_minute() {
        let told = Instant::now();
        assert!(is_due(None, told));
        for (seconds, due) in [(0, false), (59, false), (60, true)] {
            let now = told + Duration::from_secs(seconds);
            assert_eq!(is_due(Some(told), now), due, "{seconds}");
        }
    }
}
