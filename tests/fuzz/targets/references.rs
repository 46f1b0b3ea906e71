//! References in response heads: only the upstream's origin is exchanged, once, and every other byte stays (F9).

#![no_main]

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION};
use libfuzzer_sys::fuzz_target;
use lucid_proxy::config::Origin;
use lucid_proxy::proxy::rewrite;

/// Begins like no origin of the web, so that it is plain where it was put in.
const PROXY: &[u8] = b"proxy://here:8118";

fuzz_target!(|bytes: &[u8]| {
    let upstream = Origin::parse("https://api.lucid.co").expect("an origin");
    let mut headers = HeaderMap::new();
    for (number, value) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let name = [LINK, LOCATION, CONTENT_LOCATION][number % 3].clone();
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let before = headers.clone();
    rewrite::point_back(&mut headers, &upstream, PROXY);
    let once = headers.clone();
    rewrite::point_back(&mut headers, &upstream, PROXY);
    assert_eq!(once, headers, "a second time changes nothing");
    assert_eq!(before.len(), once.len());
    for name in [LINK, LOCATION, CONTENT_LOCATION] {
        let lines = before.get_all(&name).iter().zip(once.get_all(&name));
        lines.for_each(|(before, after)| compare(&name, before.as_bytes(), after.as_bytes()));
    }
});

/// Goes through both at once: where they differ, the upstream's origin stood and the proxy stands, at the beginning of a
/// reference.
fn compare(name: &HeaderName, before: &[u8], after: &[u8]) {
    let (mut old, mut new) = (0, 0);
    while old < before.len() {
        if after.get(new) == Some(&before[old]) {
            (old, new) = (old + 1, new + 1);
            continue;
        }
        let begins = match *name == LINK {
            true => old > 0 && before[old - 1] == b'<',
            false => old == 0,
        };
        assert!(begins, "changed within a reference");
        assert!(after[new..].starts_with(PROXY), "something else came in");
        old += upstream_origin(&before[old..]);
        new += PROXY.len();
        if *name != LINK {
            assert_eq!(before[old..], after[new..]);
        }
    }
    assert_eq!(new, after.len(), "something was added");
}

/// The length of the upstream's origin, which stands there in whatever case, with its port or without.
fn upstream_origin(reference: &[u8]) -> usize {
    const HOST: &[u8] = b"https://api.lucid.co";
    let (host, rest) = reference.split_at_checked(HOST.len()).expect("an origin");
    assert!(host.eq_ignore_ascii_case(HOST), "another host");
    let port = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'>'))
        .unwrap_or(rest.len());
    match rest[..port].strip_prefix(b":") {
        None => assert_eq!(port, 0, "another host"),
        Some(digits) => {
            let number = std::str::from_utf8(digits).expect("digits");
            assert!(
                number.is_empty() || number.parse() == Ok(443_u16),
                "another port"
            );
        }
    }
    HOST.len() + port
}
