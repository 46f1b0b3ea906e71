//! References in response heads that lead around the proxy are turned back to it (rule F9).
//!
//! Lucid's `Link` is an absolute URL on its own host; a client that follows it as it stands would leave the proxy on
//! page two. Only the origin in front of such a reference is exchanged: every byte behind it stays.

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION};

use crate::config::Origin;

/// Points `Link`, `Location` and `Content-Location` at `proxy` where they point at `upstream`.
///
/// `proxy` is a scheme and an authority without a slash behind: `http://127.0.0.1:8118`.
pub fn point_back(headers: &mut HeaderMap, upstream: &Origin, proxy: &[u8]) {
    each_value(headers, &LINK, |value| rewrite_link(value, upstream, proxy));
    for name in [LOCATION, CONTENT_LOCATION] {
        each_value(headers, &name, |value| {
            let rest = behind_origin(value, upstream)?;
            Some([proxy, rest].concat())
        });
    }
}

fn each_value(
    headers: &mut HeaderMap,
    name: &HeaderName,
    rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>,
) {
    if !headers.contains_key(name) {
        return;
    }
    if let http::header::Entry::Occupied(mut entry) = headers.entry(name) {
        for value in entry.iter_mut() {
            let rewritten = rewrite(value.as_bytes()).map(HeaderValue::try_from);
            if let Some(Ok(rewritten)) = rewritten {
                *value = rewritten;
            }
        }
    }
}

/// Exchanges the origin in each `<…>` of a `Link` value (RFC 8288 section 3). What stands in quotes is a parameter,
/// even if it looks like a reference.
fn rewrite_link(value: &[u8], upstream: &Origin, proxy: &[u8]) -> Option<Vec<u8>> {
    let mut rewritten = Vec::with_capacity(value.len() + proxy.len());
    let mut copied = 0;
    let mut quoted = false;
    let mut at = 0;
    while at < value.len() {
        match value[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'<' if !quoted => {
                let target = &value[at + 1..];
                let end = target
                    .iter()
                    .position(|byte| *byte == b'>')
                    .unwrap_or(target.len());
                if let Some(rest) = behind_origin(&target[..end], upstream) {
                    rewritten.extend_from_slice(&value[copied..=at]);
                    rewritten.extend_from_slice(proxy);
                    rewritten.extend_from_slice(rest);
                    copied = at + 1 + end;
                }
                at += end;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return None;
    }
    rewritten.extend_from_slice(&value[copied..]);
    Some(rewritten)
}

/// What stands behind the upstream's origin in a reference; `None` when the reference points elsewhere.
fn behind_origin<'a>(reference: &'a [u8], upstream: &Origin) -> Option<&'a [u8]> {
    let rest =
        strip_prefix_ignoring_case(reference, upstream.scheme.as_str())?.strip_prefix(b"://")?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let origin = std::str::from_utf8(authority).ok().and_then(|authority| {
        Origin::parse(&format!("{}://{authority}", upstream.scheme.as_str()))
    })?;
    (origin == *upstream).then_some(behind)
}

fn strip_prefix_ignoring_case<'a>(text: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &[u8] = b"http://127.0.0.1:8118";

    fn upstream() -> Origin {
        Origin::parse("https://api.lucid.co").expect("an origin")
    }

    fn rewritten(name: HeaderName, value: &[u8]) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        headers.append(
            name.clone(),
            HeaderValue::from_bytes(value).expect("a value"),
        );
        point_back(&mut headers, &upstream(), PROXY);
        headers[name].as_bytes().to_vec()
    }

    fn shown(name: HeaderName, value: &str) -> String {
        String::from_utf8(rewritten(name, value.as_bytes())).expect("text")
    }

    #[test]
    fn f09_links_to_upstream_lead_to_the_proxy_and_all_else_stays() {
        for (value, expected) in [
            (
                r#"<https://api.lucid.co/users?pageSize=2&pageToken=a%2Fb==>; rel="next""#,
                r#"<http://127.0.0.1:8118/users?pageSize=2&pageToken=a%2Fb==>; rel="next""#,
            ),
            (
                r#"<https://API.LUCID.CO:443/v1/a>;rel=next , <https://lucid.app/x>; rel=alternate,<HTTPS://api.lucid.co>"#,
                r#"<http://127.0.0.1:8118/v1/a>;rel=next , <https://lucid.app/x>; rel=alternate,<http://127.0.0.1:8118>"#,
            ),
        ] {
            assert_eq!(shown(LINK, value), expected);
        }
        for value in [
            r#"</users?pageToken=2>; rel="next""#,
            r#"<https://api.lucid.co.evil/x>; rel="next""#,
            r#"<https://api.lucid.co@evil/x>; rel="next""#,
            r#"<https://api.lucid.co:8443/x>; rel="next""#,
            r#"<http://api.lucid.co/x>; rel="next""#,
            r#"<https://[api.lucid.co]/x>; rel="next""#,
            r#"</a>; title="<https://api.lucid.co/b>""#,
            r#"</a>; title="\"<https://api.lucid.co/b>""#,
            r#"https://api.lucid.co/x"#,
            "<",
            "",
        ] {
            assert_eq!(shown(LINK, value), value);
        }
    }

    #[test]
    fn f09_locations_to_upstream_lead_to_the_proxy() {
        for name in [LOCATION, CONTENT_LOCATION] {
            assert_eq!(
                shown(name.clone(), "https://api.lucid.co/a?b#c"),
                "http://127.0.0.1:8118/a?b#c"
            );
            assert_eq!(
                shown(name.clone(), "https://api.lucid.co"),
                "http://127.0.0.1:8118"
            );
            assert_eq!(
                shown(name.clone(), "https://lucid.app/a"),
                "https://lucid.app/a"
            );
            assert_eq!(shown(name, "/a"), "/a");
        }
    }

    #[test]
    fn f09_every_line_of_a_repeated_field_is_rewritten_in_its_place() {
        let mut headers = HeaderMap::new();
        for value in [
            "<https://api.lucid.co/1>",
            "</2>",
            "<https://api.lucid.co/3>",
        ] {
            headers.append(LINK, HeaderValue::from_static(value));
        }
        point_back(&mut headers, &upstream(), PROXY);
        let values: Vec<_> = headers.get_all(LINK).iter().collect();
        assert_eq!(
            values,
            [
                "<http://127.0.0.1:8118/1>",
                "</2>",
                "<http://127.0.0.1:8118/3>"
            ]
        );
    }

    proptest! {
        #[test]
        fn f09_any_bytes_are_rewritten_without_a_panic_and_only_where_upstream_is_named(
            value in proptest::collection::vec(prop_oneof![
                Just(b"<https://api.lucid.co".to_vec()), Just(b"\"".to_vec()), Just(b">".to_vec()), Just(b"\\".to_vec()),
                proptest::collection::vec(0x20_u8..0x7f, 0..6),
            ], 0..12).prop_map(|parts| parts.concat())
        ) {
            let out = rewritten(LINK, &value);
            let origin = b"https://api.lucid.co";
            if !value.windows(origin.len()).any(|window| window.eq_ignore_ascii_case(origin)) {
                prop_assert_eq!(out, value);
            }
        }
    }
}
