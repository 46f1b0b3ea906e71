//! However a path is spelled, and whatever upstream makes of it: what rules say holds.

use proptest::prelude::*;

use super::*;

/// What the most lenient of servers makes of a path: it decodes as long as there is something to decode, takes a backslash
/// for a slash, drops parameters, spaces and case, resolves dots and ignores versions.
fn lenient(path: &str) -> Vec<String> {
    let mut text = path.to_owned();
    loop {
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let text = text.replace('\\', "/");
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let mut segments = Vec::new();
    for segment in text.split('/') {
        let segment = segment.split(';').next().unwrap_or_default();
        let plain = |character: &char| !character.is_control();
        let segment: String = segment.chars().filter(plain).collect();
        match segment.trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_lowercase()),
        }
    }
    let versions = segments
        .iter()
        .take_while(|segment| may_be_version(segment));
    let versions = versions.count();
    segments.split_off(versions)
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => Just("/"),
        4 => prop::sample::select(vec![
            "secret", "SECRET", "%73ecret", "s%65cret", "secret%20", "secret;a", "secret%00", "%2573ecret", "ſecret",
        ]),
        2 => prop::sample::select(vec!["users", "v1", "V1", "v", "x"]),
        2 => prop::sample::select(vec![
            ".", "..", "%2e", "%2e%2e", ".%2E", "%252e", "..;", "%2f", "%5c", "\\", "%252f", "//", ";", "%3f", "%23", "%", "%0a",
            "%c0%af", " ", "é",
        ]),
    ];
    prop::collection::vec(piece, 1..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn s05_no_spelling_escapes_a_deny(path in paths()) {
        let policy = policy(false, None, &["* /secret/**"]);
        let Some(head) = head("GET", &path, &[]) else { return Ok(()) };
        if check(&head, [&policy].into_iter()).is_ok() {
            let read = lenient(head.uri.path());
            prop_assert_ne!(read.first().map(String::as_str), Some("secret"), "{}", path);
        }
    }

    #[test]
    fn s05_no_spelling_gets_beyond_what_is_allowed(path in paths()) {
        let policy = policy(false, Some(&["GET /users/**"]), &[]);
        let Some(head) = head("GET", &path, &[]) else { return Ok(()) };
        if check(&head, [&policy].into_iter()).is_ok() {
            let read = lenient(head.uri.path());
            prop_assert_eq!(read.first().map(String::as_str), Some("users"), "{}", path);
        }
    }

    #[test]
    fn s05_s08_no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in ".{0,40}") {
        let policy = policy(true, Some(&["GET /users/**", "* /*/a"]), &["* /documents/*/trash"]);
        for target in [&bytes[..], text.as_bytes()] {
            let target = String::from_utf8_lossy(target);
            // Whatever a path is, not only what is one.
            let _ = Sought::read("POST", &target).map(|sought| policy.permits(&sought, true));
            let _ = Rule::parse(&format!("GET /{target}"));
            let _ = Rule::parse(&target);
            if let Some(head) = head("POST", &format!("/{target}"), &[]) {
                let _ = check(&head, [&policy].into_iter());
            }
        }
    }
}

#[test]
fn the_most_lenient_of_servers_is_lenient() {
    for path in [
        "/secret",
        "//x/../v1/SECRET;a=b/1",
        "/%2573ecret%20?x",
        "/x%5c..%5csecret%00",
    ] {
        assert_eq!(lenient(path)[0], "secret", "{path}");
    }
    let permitted = policy(false, None, &["* /secret/**"]);
    is_permitted(
        &permitted,
        &["GET /users/secret", "GET /secrets", "GET /v1/users"],
    );
}
