//! What requests may do: `read_only`, `allow` and `deny`, whatever a client writes.

use std::sync::mpsc::Receiver;

use http::Method;

use crate::https::{self, LISTEN};
use crate::world::http2_client::{Http2, nothing};
use crate::world::raw_upstream::RawUpstream;
use crate::world::{SOON, Serving, World, errors};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const DENY: &str = "[guard]\ndeny = [\"DELETE /**\", \"* /documents/*/trash\"]\n";

/// A proxy with these tables, and the first lines of the requests that pass it.
fn serve(tables: &str) -> (World, Serving, Receiver<Vec<u8>>) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = tables.to_owned();
    let serving = world.serve();
    (world, serving, upstream.answering(OK))
}

/// The target of the next request that upstream sees.
#[track_caller]
fn target(seen: &Receiver<Vec<u8>>) -> String {
    let request = seen.recv_timeout(SOON).expect("a request");
    let head = String::from_utf8(request).expect("text");
    let line = head.split("\r\n").next().unwrap_or_default();
    line.strip_suffix(" HTTP/1.1").expect("a line").to_owned()
}

#[test]
fn s05_nothing_that_is_denied_reaches_upstream_however_it_is_written() {
    let (_world, serving, seen) = serve(DENY);
    let absolute = format!("POST http://{}/documents/1/trash", serving.address);
    let override_it: &[&str] = &["X-HTTP-Method-Override: DELETE"];
    for (line, headers) in [
        ("DELETE /documents/1", &[][..]),
        ("delete /documents/1", &[]),
        ("DELETE /", &[]),
        ("DELETE *", &[]),
        ("POST /documents/1/trash", &[]),
        ("POST /documents/1/trash/", &[]),
        ("POST /documents/1/trash//", &[]),
        ("POST /documents/1/trash?x", &[]),
        ("POST /documents/1/trash#x", &[]),
        ("POST /v1/documents/1/trash", &[]),
        ("POST /V1/documents/1/trash", &[]),
        ("POST /v1/v1/documents/1/trash", &[]),
        ("POST /Documents/1/TRASH", &[]),
        ("POST /%64ocuments/1/%74rash", &[]),
        ("POST /%2564ocuments/1/trash", &[]),
        ("POST /documents/1%2ftrash", &[]),
        ("POST /documents%5c1%5ctrash", &[]),
        ("POST /documents\\1\\trash", &[]),
        ("POST //documents/1/trash", &[]),
        ("POST /documents//1/trash", &[]),
        ("POST /users/../documents/1/trash", &[]),
        ("POST /users/%2e%2e/documents/1/trash", &[]),
        ("POST /users/..;/documents/1/trash", &[]),
        ("POST /./documents/1/trash", &[]),
        ("POST /documents;x=y/1/trash", &[]),
        ("POST /documents/1/trash;x", &[]),
        ("POST /documents/1/trash%00", &[]),
        ("POST /documents/1/trash%20", &[]),
        ("POST /documents/1/trash%3f", &[]),
        ("POST /documents/1/trash%23", &[]),
        ("POST /documents/1/%c0%ae%c0%ae/x", &[]),
        (&absolute, &[]),
        ("POST /documents/1", override_it),
        ("GET /documents/1", &["X-HTTP-Method: DELETE"]),
        ("GET /documents/1", &["x-method-override: DELETE"]),
        ("GET /documents/1", &["X_HTTP_METHOD_OVERRIDE: DELETE"]),
        ("GET /users", &["X-Original-URL: /documents/1/trash"]),
        ("GET /users", &["X-Rewrite-URL: /documents/1/trash"]),
        // What upstream is not told because a client calls it a matter of one connection is a matter of the rules.
        (
            "GET /users",
            &["Connection: x-http-method", "X-HTTP-Method: DELETE"],
        ),
    ] {
        let refused = serving.connect().ask(line, headers, b"");
        let is_ours = refused.header("proxy-status").is_some();
        assert!(
            is_ours && matches!(refused.status, 400 | 403),
            "{line}: {}",
            refused.text()
        );
        // Upstream sees what is asked next, and nothing before.
        let control = serving.connect().ask("POST /documents/1%20", &[], b"");
        assert_eq!(control.code(), "policyDenied", "{line}");
        let control = serving
            .connect()
            .ask("POST /documents/%31?a=/../b", &[], b"");
        assert_eq!((control.status, control.text().as_str()), (200, "ok"));
        assert_eq!(target(&seen), "POST /documents/%31?a=/../b", "{line}");
    }
}

#[test]
fn s05_what_rules_permit_passes_as_it_was_written() {
    let (_world, serving, seen) = serve("[guard]\nallow = [\"* /documents/**\"]\n");
    for line in [
        "GET /documents",
        "HEAD /documents/",
        "PATCH /v1/%64ocuments/a%20b/",
        "QUERY /documents/1",
    ] {
        assert_eq!(serving.connect().ask(line, &[], b"").status, 200, "{line}");
        assert_eq!(target(&seen), line);
    }
    let absolute = format!("GET http://{}/documents/1?x", serving.address);
    assert_eq!(serving.connect().ask(&absolute, &[], b"").status, 200);
    assert_eq!(target(&seen), "GET /documents/1?x");
    let refused = serving.get("/users/1");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "policyDenied")
    );
    let message = refused.json()["message"].as_str().expect("text").to_owned();
    assert!(message.ends_with("add there \"GET /users/1\""), "{message}");
}

#[test]
fn s05_nothing_that_is_denied_reaches_upstream_over_http_2() {
    let upstream = RawUpstream::start();
    let (mut world, identity) = https::world();
    world.upstream = upstream.origin();
    world.tables = DENY.to_owned();
    let serving = world.serve_on(LISTEN);
    let seen = upstream.answering(OK);
    let client = Http2::connect(serving.address, &identity);
    let method = |name: &str| Method::from_bytes(name.as_bytes()).expect("a method");
    let fields: &[(&str, &str)] = &[("x-http-method-override", "DELETE")];
    for (name, path, fields) in [
        ("DELETE", "/documents/1", &[][..]),
        ("delete", "/documents/1", &[]),
        ("POST", "/v1/Documents/1/tr%61sh/", &[]),
        ("POST", "/users/%2e%2e/documents/1/trash", &[]),
        ("POST", "/documents/1%2ftrash", &[]),
        ("POST", "//documents/1/trash", &[]),
        ("GET", "/documents/1", fields),
    ] {
        let refused = client.begin(method(name), path, fields, nothing()).answer();
        assert_eq!(refused.status, 403, "{name} {path}");
        assert_eq!(refused.json()["code"], "policyDenied", "{name} {path}");
        assert_eq!(client.get("/documents/1").status, 200);
        assert_eq!(target(&seen), "GET /documents/1", "{name} {path}");
    }
}

#[test]
fn s05_read_only_lets_reading_and_searching_through() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nread_only = true\n".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    let json: &[&str] = &["Content-Type: application/json"];
    assert_eq!(client.ask("GET /users/me/profile", &[], b"").status, 200);
    assert_eq!(client.ask("HEAD /sandbox/echo", &[], b"").status, 200);
    assert_eq!(
        client.ask("POST /documents/search", json, b"{}").status,
        200
    );
    let asked = world.sandbox.counts().api_requests;
    for line in [
        "POST /documents",
        "PATCH /documents/1",
        "DELETE /documents/1",
        "OPTIONS /users",
    ] {
        let refused = client.ask(line, json, b"{}");
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "policyDenied"),
            "{line}"
        );
        assert!(
            refused.text().contains("read_only = true under [guard]"),
            "{line}"
        );
    }
    let websocket = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    let refused = serving.connect().ask("GET /users", &websocket, b"");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "policyDenied")
    );
    assert!(refused.text().contains("WebSocket"), "{}", refused.text());
    assert_eq!(world.sandbox.counts().api_requests, asked);
}

#[test]
fn s05_what_is_refused_asks_for_no_token() {
    // Nobody has logged in: whoever asks for a token is told so.
    let mut world = World::new();
    world.tables = DENY.to_owned();
    let serving = world.serve();
    let refused = serving.connect().ask("DELETE /documents/1", &[], b"");
    assert_eq!(refused.code(), "policyDenied");
    assert_eq!(serving.get("/documents/1").code(), "loginRequired");
}

#[test]
fn s05_what_is_answered_here_is_not_asked_about() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nread_only = true\nallow = []\n".to_owned();
    let serving = world.serve();
    let refresh = br#"{"grant_type":"refresh_token","refresh_token":"x"}"#;
    let answer = serving.connect().ask("POST /oauth2/token", &[], refresh);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(serving.get("/users").code(), "policyDenied");
    // What goes upstream is.
    world.tables = format!("oauth2_endpoint = \"forward\"\n{}", world.tables);
    let serving = world.serve();
    let refused = serving.connect().ask("POST /oauth2/token", &[], refresh);
    assert_eq!(refused.code(), "policyDenied");
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

#[test]
fn s05_a_bad_rule_is_told_with_its_place() {
    let mut world = World::new();
    world.tables = "[guard]\nread_only = 1\nallow = [\"GET /users\",\n  \"get /users\", \"GET users\"]\ndeny = [\"GET /a/**/b\", \"GET /a%20b\", \"GET /a//b\"]\n".to_owned();
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let errors = errors(&output);
    let line = |number: usize, column: usize| {
        let text = std::fs::read_to_string(world.directory.path().join("proxy.toml"));
        let before = text
            .expect("it was written")
            .lines()
            .position(|line| line == "[guard]");
        format!(
            "line {}, column {column}: guard.",
            before.expect("there") + 1 + number
        )
    };
    for (at, problem) in [
        (line(1, 13), "read_only: expected true or false"),
        (line(3, 3), "allow: expected a method in capitals"),
        (
            line(3, 17),
            "allow: expected one space and a path that begins with /",
        ),
        (line(4, 9), "deny: ** is accepted as the last segment alone"),
        (line(4, 24), "deny: expected the path as it reads decoded"),
        (line(4, 38), "deny: expected no empty segment"),
    ] {
        assert!(
            errors.contains(&format!("{at}{problem}")),
            "{at}{problem}: {errors}"
        );
    }
    assert_eq!(errors.matches("guard.").count(), 6, "{errors}");
}
