//! Upstream repeats the token in what it answers (rule S6): the log tells, and not which token.

use crate::world::World;
use crate::world::raw_upstream::RawUpstream;

pub(crate) const REPEATED: &str = "repeats the proxy's token";

/// The log of a fresh proxy that has passed these answers on, each on a connection of its own.
fn told_of(answers: &[Answer], world: &World, upstream: &RawUpstream) -> String {
    let serving = world.serve();
    for (number, answer) in answers.iter().enumerate() {
        let mut client = serving.connect();
        client.request(&format!("GET /debug/{number}?query=marked"), &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        let content = answer.content.concat();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n\r\n",
            content.len(),
            answer.lines
        );
        connection.send(head.as_bytes());
        let mut seen = Vec::new();
        for part in &answer.content {
            connection.send(part.as_bytes());
            // What was sent has arrived before more is: each part is a frame of its own.
            let end = part.len().saturating_sub(10);
            seen.extend(client.until(&part.as_bytes()[end..]));
        }
        let seen = String::from_utf8_lossy(&seen);
        let (head, passed) = seen.split_once("\r\n\r\n").expect("a head");
        assert_eq!(passed, content, "unchanged");
        let head = head.to_ascii_lowercase();
        for line in answer.lines.to_ascii_lowercase().split("\r\n") {
            assert!(head.contains(line), "unchanged: {line}: {head}");
        }
    }
    serving.stop()
}

/// A line of its header, and its content in parts.
#[derive(Clone)]
struct Answer {
    lines: String,
    content: Vec<String>,
}

fn answer(lines: &str, content: &[&str]) -> Answer {
    Answer {
        lines: lines.to_owned(),
        content: content.iter().map(|part| (*part).to_owned()).collect(),
    }
}

fn token_of(world: &World) -> String {
    let stored = world.stored();
    stored["access_token"].as_str().expect("text").to_owned()
}

#[test]
fn s06_an_answer_that_repeats_the_token_is_told_and_passes_unchanged() {
    let (upstream, world) = World::before_raw_upstream();
    let token = token_of(&world);
    let (begin, end) = token.split_at(token.len() / 2);
    let repeating = [
        (
            "the header x-debug",
            answer(&format!("X-Debug: got Bearer {token}!"), &["it is over"]),
        ),
        (
            "its content",
            answer(
                "Content-Type: application/json",
                &[&format!("{{\"a\":\"{token}\"}}")],
            ),
        ),
        (
            "its content",
            answer(
                "Content-Type: text/html; charset=utf-8",
                &[&format!("<b>{begin}"), &format!("{end}</b>")],
            ),
        ),
        ("its content", answer("X-No-Type: 1", &[&token])),
    ];
    for (place, answer) in repeating {
        let log = told_of(&[answer.clone(), answer], &world, &upstream);
        assert_eq!(log.matches(REPEATED).count(), 1, "once a minute: {log}");
        assert!(log.contains(&format!("{REPEATED} in {place}")), "{log}");
        assert!(
            log.contains("path=\"/debug/0\"") && log.contains("WARN"),
            "{log}"
        );
        assert!(!log.contains(&token) && !log.contains("marked"), "{log}");
    }
}

#[test]
fn s06_what_is_no_text_or_another_token_is_not_told() {
    let (upstream, world) = World::before_raw_upstream();
    let token = token_of(&world);
    let other = format!("{}+", &token[..token.len() - 1]);
    let far = format!("{}{token}", "-x".repeat(40 << 10));
    let silent = [
        answer("Content-Type: image/png", &[&token]),
        answer(
            "Content-Type: text/plain\r\nContent-Encoding: br",
            &[&token],
        ),
        answer("Content-Type: text/plain", &[&other]),
        answer("Content-Type: text/plain", &[&far]),
        answer("Content-Encoding: gzip", &[&token]),
        answer("X-No-Type: 1", &[&other]),
    ];
    let told = answer("Content-Type: text/plain", &[&token]);
    let answers: Vec<_> = silent.into_iter().chain([told]).collect();
    let log = told_of(&answers, &world, &upstream);
    assert_eq!(log.matches(REPEATED).count(), 1, "{log}");
    assert!(log.contains("path=\"/debug/6\""), "the control: {log}");
}

#[test]
fn s06_a_token_that_is_repeated_to_a_replay_is_told_too() {
    let world = World::logged_in();
    world.sandbox.expire_access_tokens();
    let serving = world.serve();
    let answer = serving.get("/sandbox/echo?marked");
    assert_eq!(world.sandbox.counts().rotations, 1);
    let token = token_of(&world);
    assert!(
        answer.text().contains(&token),
        "the stand-in repeats what it got"
    );
    let log = serving.stop();
    assert!(
        log.contains(REPEATED) && log.contains("path=\"/sandbox/echo\""),
        "{log}"
    );
    assert!(!log.contains(&token), "{log}");
}

/// The log of a fresh proxy that has passed this answer on, bytes as they are, to a client that takes trailers and would
/// speak WebSocket. `end` is the last that the client gets of it.
fn told_of_bytes(answer: &str, end: &str, world: &World, upstream: &RawUpstream) -> String {
    let serving = world.serve();
    let mut client = serving.connect();
    let fields = [
        "TE: trailers",
        "Connection: TE, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    // A request for a WebSocket takes a way of its own.
    let fields = match answer.contains(" 101 ") {
        true => &fields[1..],
        false => &fields[..1],
    };
    client.request("GET /debug?query=marked", fields, b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(answer.as_bytes());
    let seen = client.until(end.as_bytes());
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.ends_with(end), "unchanged: {seen}");
    drop((client, connection));
    serving.stop()
}

#[test]
fn s06_trailers_that_repeat_the_token_are_told_behind_content_of_any_kind() {
    let (upstream, world) = World::before_raw_upstream();
    let token = token_of(&world);
    let other = format!("{}+", &token[..token.len() - 1]);
    let long = "-x".repeat(40 << 10);
    for (kind, content) in [
        ("text/plain", "ok"),
        ("text/plain", &long),
        ("image/png", "ok"),
    ] {
        for (value, is_told) in [(&token, true), (&other, false)] {
            let end = format!("0\r\nx-debug: {value}\r\n\r\n");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTrailer: X-Debug\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{content}\r\n{end}",
                content.len()
            );
            let log = told_of_bytes(&answer, &end, &world, &upstream);
            let said = format!("{REPEATED} in the trailer x-debug");
            assert_eq!(log.contains(&said), is_told, "{kind}: {log}");
            assert!(!log.contains(&token) && !log.contains("marked"), "{log}");
        }
    }
}

#[test]
fn s06_the_head_of_a_101_that_repeats_the_token_is_told() {
    let (upstream, world) = World::before_raw_upstream();
    let token = token_of(&world);
    let other = format!("{}+", &token[..token.len() - 1]);
    for (value, is_told) in [(&token, true), (&other, false)] {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: {value}\r\n\r\n\u{1}behind"
        );
        let log = told_of_bytes(&answer, "\u{1}behind", &world, &upstream);
        let said = format!("{REPEATED} in the header sec-websocket-protocol");
        assert_eq!(log.contains(&said), is_told, "{log}");
        assert!(!is_told || log.contains("path=\"/debug\""), "{log}");
        assert!(!log.contains(&token) && !log.contains("marked"), "{log}");
    }
}
