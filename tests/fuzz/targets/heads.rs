//! Heads of requests and responses, and trailers: nothing that is about one connection passes, no credentials of the
//! client's do, ours stand once, and all else stays as it was (F1, F2, F3, F14, S2, S3).
//!
//! The input is text: a method, a target and a version, then fields.

#![no_main]

use std::collections::BTreeSet;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, TE, TRAILER, TRANSFER_ENCODING, VIA,
};
use http::{Method, Request, Response, Uri, Version};
use libfuzzer_sys::fuzz_target;
use lucid_proxy::config::Scheme;
use lucid_proxy::proxy::guard::Guard;
use lucid_proxy::proxy::head;

/// RFC 9110 section 7.6.1, and what speaks to a proxy about itself.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
const OURS: &str = "Bearer ours";
const UPSTREAM: &str = "api.lucid.co";

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some((method, uri, version)) = lines.next().and_then(begin) else {
        return;
    };
    let mut fields = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    let named = named_by_connection(&fields);
    guard(&method, &uri, &fields);
    request(&fields, &named, &uri, version);
    response(&fields, &named, version);
    trailers(&fields, &named);
});

fn begin(line: &[u8]) -> Option<(Method, Uri, Version)> {
    let mut words = line.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let version = match words.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    Some((method, uri, version))
}

/// What any line of `Connection` names, in lower case.
fn named_by_connection(fields: &HeaderMap) -> BTreeSet<String> {
    let lines = fields.get_all(CONNECTION).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let text = names.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase());
    text.collect()
}

/// Only who asks for the proxy by one of its names, and no web page, gets in.
fn guard(method: &Method, uri: &Uri, fields: &HeaderMap) {
    let address = "127.0.0.1:8118".parse().expect("an address");
    let guard = Guard::tcp(Scheme::Http, address, &["lucid.internal".to_owned()]);
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method.clone();
    head.uri = uri.clone();
    head.headers = fields.clone();
    let Err(refusal) = guard.check(&head, head::Names::of(fields)) else {
        let is_own = |name: &[u8]| {
            ["127.0.0.1:8118", "localhost:8118", "lucid.internal"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
        };
        let hosts: Vec<_> = fields.get_all(HOST).iter().collect();
        assert!(hosts.len() < 2 && hosts.iter().all(|host| is_own(host.as_bytes())));
        let authority = uri
            .authority()
            .map(|authority| authority.as_str().as_bytes());
        assert!(authority.is_none_or(is_own));
        assert!(authority.is_some() || !hosts.is_empty());
        assert!(!fields.contains_key(ORIGIN) && *method != Method::CONNECT);
        return;
    };
    assert!(refusal.status.is_client_error());
    let response = refusal.into_response();
    assert!(!response.headers().is_empty());
}

/// Everything of `before` that is not told to go, in its order.
fn assert_stayed(
    before: &HeaderMap,
    after: &HeaderMap,
    named: &BTreeSet<String>,
    put: &[HeaderName],
) {
    for name in before.keys().filter(|name| !put.contains(name)) {
        let goes = HOP_BY_HOP.contains(&name.as_str()) || named.contains(name.as_str());
        let stays = match goes {
            true => Vec::new(),
            false => before.get_all(name).iter().collect(),
        };
        let after: Vec<_> = after.get_all(name).iter().collect();
        assert_eq!(stays, after, "{name}");
    }
}

fn request(fields: &HeaderMap, named: &BTreeSet<String>, uri: &Uri, version: Version) {
    let mut before = fields.clone();
    let names = head::Names::of(&before);
    if version == Version::HTTP_2 {
        head::translate_from_http2(&mut before, true);
        assert!(before.get_all(COOKIE).iter().count() < 2);
        assert!(before.contains_key(CONTENT_LENGTH) || before.contains_key(TRANSFER_ENCODING));
    }
    let version_field = HeaderName::from_static("lucid-api-version");
    let mut after = before.clone();
    let host = HeaderValue::from_static(UPSTREAM);
    head::prepare_request(&mut after, names, version, &host, uri.path());
    assert!(!after.contains_key(AUTHORIZATION) && !after.contains_key(ORIGIN));
    let mut ours = HeaderValue::from_static(OURS);
    ours.set_sensitive(true);
    head::authorize(&mut after, ours);

    let put = [
        AUTHORIZATION,
        CONNECTION,
        HOST,
        ORIGIN,
        TE,
        TRANSFER_ENCODING,
        VIA,
        version_field.clone(),
    ];
    assert_stayed(&before, &after, named, &put);
    let all = |name: &HeaderName| -> Vec<_> {
        after
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect()
    };
    assert_eq!(all(&AUTHORIZATION), [OURS.as_bytes()]);
    assert_eq!(all(&HOST), [UPSTREAM.as_bytes()]);
    let chunked = before.contains_key(TRANSFER_ENCODING);
    assert_eq!(all(&TRANSFER_ENCODING), vec![b"chunked"; chunked.into()]);
    // Only what is said anew.
    match all(&TE)[..] {
        [] => assert!(all(&CONNECTION).is_empty()),
        [te] => assert_eq!((te, all(&CONNECTION)), (&b"trailers"[..], vec![&b"te"[..]])),
        _ => panic!("more than one TE"),
    }
    assert!(
        all(&VIA)
            .last()
            .is_some_and(|via| via.ends_with(b" lucid-proxy"))
    );
    assert!(head::is_loop(&after), "a second time through");
    let before_us = before.get_all(VIA).iter().count();
    let kept = if named.contains("via") { 0 } else { before_us };
    assert_eq!(all(&VIA).len(), kept + 1);
    if before.contains_key(&version_field) && !named.contains(version_field.as_str()) {
        let before: Vec<_> = before.get_all(&version_field).iter().collect();
        let after: Vec<_> = after.get_all(&version_field).iter().collect();
        assert_eq!(before, after, "the client's version counts");
    }
}

fn response(fields: &HeaderMap, named: &BTreeSet<String>, version: Version) {
    let mut response = Response::new(());
    *response.version_mut() = version;
    *response.headers_mut() = fields.clone();
    head::prepare_response(&mut response, head::Names::of(fields));
    assert_eq!(response.version(), Version::HTTP_11);
    assert_stayed(fields, response.headers(), named, &[]);
    assert!(response.headers().keys_len() <= fields.keys_len());
    let once = response.headers().clone();
    head::strip_hop_by_hop(response.headers_mut());
    assert_eq!(&once, response.headers());
}

fn trailers(fields: &HeaderMap, named: &BTreeSet<String>) {
    let mut trailers = fields.clone();
    head::strip_trailers(&mut trailers);
    let gone = [AUTHORIZATION, CONTENT_LENGTH, HOST, TRAILER];
    for gone in &gone {
        assert!(!trailers.contains_key(gone));
    }
    assert_stayed(fields, &trailers, named, &gone);
}
