//! The line that each request gets with `serve --verbose`.

use serde_json::{Value, json};

use crate::world::{SOON, Serving, World};

fn verbose(world: &World) -> Serving {
    world.serve_with(|command| {
        command.arg("--verbose");
    })
}

/// The lines of requests, without their times: where each line begins, and how long the request took.
fn request_lines(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.split_once("Z  INFO "));
    let lines = lines.filter(|(_, rest)| rest.contains(" out "));
    lines
        .map(|(_, rest)| {
            let (columns, took) = (&rest[..12], &rest[12..22]);
            assert!(took.ends_with(" ms") || took.ends_with(" s"), "{rest}");
            format!("{columns}{}", &rest[22..])
        })
        .collect()
}

#[test]
fn each_request_gets_a_line_for_people() {
    let world = World::logged_in();
    let serving = verbose(&world);
    let mut client = serving.connect();
    for (line, body) in [
        ("GET /users/me/profile?token=marked", &b""[..]),
        ("POST /documents/search", b"{}"),
        ("OPTIONS /users", b""),
    ] {
        client.ask(line, &["Content-Type: application/json"], body);
    }
    let refresh = br#"{"grant_type":"refresh_token","refresh_token":"x"}"#;
    let given = client.ask("POST /oauth2/token", &[], refresh).body.len();
    world.sandbox.expire_access_tokens();
    client.ask("GET /users/me/profile", &[], b"");
    for (host, status) in [("evil", 403), ("user:marked@evil", 400)] {
        let mut stranger = serving.connect();
        stranger.send(format!("GET /users HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(stranger.response().status, status);
    }
    let log = serving.stop();
    let lines = request_lines(&log);
    let expected = [
        "GET      200        0 B in       92 B out  gen 1   /users/me/profile",
        "POST     200        2 B in    2.9 KiB out  gen 1   /documents/search",
        "OPTIONS  400        0 B in       88 B out  gen 1   /users",
        &format!(
            "POST     200       50 B in {given:>8} B out  gen 1   /oauth2/token  answered here"
        ),
        "GET      200        0 B in       92 B out  gen 2   /users/me/profile  replayed",
        "GET      403        0 B in      202 B out          /users  hostNotAllowed: Host \"evil\" is not a name of this proxy; use the address that it listens on, or add to proxy.toml: [guard] allow_hosts = [\"evil\"]",
        "GET      400        0 B in      115 B out          /users  badRequest: Host: a name or an address is accepted, and a port",
    ];
    assert_eq!(lines, expected, "{log}");
    assert!(!log.contains("marked"), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log}");
}

#[test]
fn each_request_gets_an_object_for_collectors() {
    let mut world = World::logged_in();
    world.tables = "[log]\nformat = \"json\"\nrequests = true\n".to_owned();
    world.sandbox.expire_access_tokens();
    let serving = world.serve();
    let mut client = serving.connect();
    client.ask("GET /users/me/profile?token=marked", &[], b"");
    let refused = client.ask("DELETE /oauth2/token", &[], b"");
    let log = serving.stop();
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut requests: Vec<_> = events
        .filter(|event| event["message"] == "request")
        .collect();
    for request in &mut requests {
        let fields = request.as_object_mut().expect("an object");
        assert!(fields.remove("timestamp").is_some_and(|at| at.is_string()));
        assert!(
            fields
                .remove("milliseconds")
                .is_some_and(|took| took.is_u64())
        );
    }
    let expected = json!([
        {
            "level": "INFO",
            "message": "request",
            "method": "GET",
            "path": "/users/me/profile",
            "status": 200,
            "received": 0,
            "sent": 92,
            "generation": 2,
            "note": "replayed",
        },
        {
            "level": "INFO",
            "message": "request",
            "method": "DELETE",
            "path": "/oauth2/token",
            "status": 405,
            "received": 0,
            "sent": refused.body.len(),
            "code": "invalid_request",
            "reason": "this is answered to POST alone, with the parameters in the body",
        },
    ]);
    assert_eq!(Value::from(requests), expected, "{log}");
}

#[test]
fn a_request_without_a_whole_answer_is_logged_as_such() {
    let (upstream, world) = World::before_raw_upstream();
    let serving = verbose(&world);
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    drop(connection);
    assert!(!client.response().complete);
    let lines = request_lines(&serving.stop());
    assert_eq!(
        lines,
        ["GET      200        0 B in        3 B out  gen 1   /x  cut off: upstream broke off"]
    );
}

#[test]
fn f07_why_a_request_was_not_sent_again_stands_in_its_line() {
    let mut world = World::logged_in();
    world.tables = "[replay]\nmemory = \"1 KiB\"\ndisk = \"0\"\n".to_owned();
    let serving = verbose(&world);
    world.sandbox.expire_access_tokens();
    let content = [b'x'; 2048];
    let rejected = serving.connect().ask("POST /sandbox/echo", &[], &content);
    assert_eq!(rejected.status, 401);
    let log = serving.stop();
    let expected = "/sandbox/echo  not replayed: the request body is larger than replay.memory and replay.disk together";
    let lines = request_lines(&log);
    assert!(lines[0].ends_with(expected), "{log}");
}

#[test]
fn an_answer_of_the_proxy_to_head_is_whole() {
    let world = World::logged_in();
    let serving = verbose(&world);
    let mut client = serving.connect();
    let get = client.ask("GET /oauth2/token", &[], b"");
    client.request("HEAD /oauth2/token", &[], b"");
    let head = client.head();
    assert_eq!(head.status, 405);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    // What follows is no content.
    assert_eq!(client.ask("GET /users/me/profile", &[], b"").status, 200);
    let log = serving.stop();
    assert!(!log.contains("cut off"), "{log}");
    assert_eq!(request_lines(&log).len(), 3);
}

#[test]
fn f13_an_answer_that_ends_with_trailers_is_whole_and_its_connection_kept() {
    let (upstream, mut world) = World::before_raw_upstream();
    // Each worker has connections of its own.
    world.top = "workers = 1\n".to_owned();
    let serving = verbose(&world);
    let mut client = serving.connect();
    let mut connection = None;
    for te in [&["TE: trailers"][..], &[], &["TE: trailers"]] {
        client.request("GET /x", te, b"");
        let connection = connection.get_or_insert_with(|| upstream.accept());
        connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
        connection.send(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n");
        client.head();
        let passed: &[u8] = if te.is_empty() { b"" } else { b"x-sum: 1\r\n" };
        let expected = [b"2\r\nok\r\n0\r\n", passed, b"\r\n"].concat();
        assert_eq!(client.until(b"\r\n\r\n"), expected);
    }
    let line = "GET      200        0 B in        2 B out  gen 1   /x";
    assert_eq!(request_lines(&serving.stop()), [line; 3]);
}

#[test]
fn what_a_client_sent_is_counted_however_it_sends() {
    let world = World::logged_in();
    let serving = verbose(&world);
    let mut client = serving.connect();
    client.request("POST /sandbox/echo", &["Transfer-Encoding: chunked"], b"");
    client.send(b"3\r\nabc\r\n");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.request_body_bytes == 3);
    client.send(b"4\r\ndefg\r\n0\r\n\r\n");
    assert_eq!(client.response().json()["body_length"], 7);
    // Once, although it is sent to upstream twice.
    world.sandbox.expire_access_tokens();
    client.ask("POST /sandbox/echo", &[], &[0; 100]);
    // What was not looked at does not count.
    let mut stranger = serving.connect();
    stranger.send(b"POST /x HTTP/1.1\r\nHost: evil\r\nContent-Length: 5\r\n\r\n");
    stranger.response();
    let lines = request_lines(&serving.stop());
    for (line, received) in lines.iter().zip(["  7 B in", " 100 B in", "  0 B in"]) {
        assert!(line.contains(received), "{lines:?}");
    }
    assert!(lines[1].ends_with("replayed"), "{lines:?}");
}

#[test]
fn s06_no_character_of_a_request_ends_a_line_or_moves_the_cursor() {
    let world = World::logged_in();
    let serving = verbose(&world);
    // As they stand: U+0085, U+202E and an honest letter.
    let mut client = serving.connect();
    let address = serving.address;
    client.send(b"GET /a\xc2\x85\xe2\x80\xae\xc3\xa9%0a HTTP/1.1\r\n");
    client.send(format!("Host: {address}\r\n\r\n").as_bytes());
    assert_eq!(client.response().status, 404);
    let mut client = serving.connect();
    client.send(b"GET /b HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n");
    let refused = client.response().status;
    assert!(matches!(refused, 400 | 403), "{refused}");
    let log = serving.stop();
    let lines = request_lines(&log);
    assert!(lines[0].ends_with("  /a\\u{85}\\u{202e}é%0a"), "{lines:?}");
    let plain = |character: char| character == '\n' || !character.is_control();
    assert!(log.chars().all(plain), "{log:?}");
    assert!(!log.contains('\u{202e}'), "{log:?}");
}
