//! Web pages that are served (rule S3): what a browser and the proxy say to one another, on every kind of listener.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use http::Method;

use crate::https;
use crate::world::http2_client::{Http2, nothing};
use crate::world::raw_upstream::RawUpstream;
use crate::world::{Response, SOON, Serving, World};

const PAGE: &str = "http://localhost:5173";
const ORIGIN: &str = "Origin: http://localhost:5173";
const GUARD: &str =
    "[guard]\nallow_origins = [\"https://app.example\", \"http://localhost:5173\"]\n";
const ASKED_METHOD: &str = "Access-Control-Request-Method: POST";
const EXPOSED: &str = "Link, Location, Content-Location, Retry-After, Proxy-Status, X-Lucid-Flow-Id, WWW-Authenticate, Allow, ETag, Content-Disposition, Content-Range, Accept-Ranges, Date";
/// What upstream says about pages is about its own.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://lucid.app\r\nVary: Accept\r\n\
    Access-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\nok";

/// A proxy that serves a page, in front of an upstream that is written by hand.
fn raw() -> (RawUpstream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = GUARD.to_owned();
    let serving = world.serve();
    (upstream, world, serving)
}

/// The fields of an answer that are about pages.
fn about_pages(answer: &Response) -> Vec<(&str, String)> {
    let is_one = |name: &str| name.starts_with("access-control-") || name == "vary";
    let lines = answer.headers.iter().filter(|(name, _)| is_one(name));
    let mut lines: Vec<_> = lines
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    lines.sort();
    lines
}

#[track_caller]
fn assert_readable(answer: &Response) {
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some(PAGE),
        "{:?}",
        answer.headers
    );
    let exposed = answer.header("access-control-expose-headers");
    assert_eq!(exposed, Some(EXPOSED));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let vary: Vec<_> = answer.all("vary");
    assert!(vary.contains(&&b"Origin"[..]), "{vary:?}");
}

#[test]
fn s03_an_allowed_page_reads_the_answer_and_upstream_does_not_hear_of_it() {
    let (upstream, _world, serving) = raw();
    let requests = upstream.answering(ANSWER);
    let mut client = serving.connect();
    let fields = [ORIGIN, "Sec-Fetch-Site: cross-site", "X-Mine: 1"];
    let answer = client.ask("POST /documents", &fields, b"{}");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let expected = [
        ("access-control-allow-origin", PAGE.to_owned()),
        ("access-control-expose-headers", EXPOSED.to_owned()),
        ("vary", "Accept".to_owned()),
        ("vary", "Origin".to_owned()),
    ];
    assert_eq!(about_pages(&answer), expected);
    let request = requests.recv_timeout(SOON).expect("a request");
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    assert!(request.contains("\r\nx-mine: 1\r\n"), "{request}");
    assert!(!request.contains("\r\norigin:"), "{request}");
}

#[test]
fn s03_an_answer_to_no_page_differs_in_vary_alone_and_only_where_pages_are_served() {
    let (upstream, _world, serving) = raw();
    let _requests = upstream.answering(ANSWER);
    let theirs = [
        ("access-control-allow-credentials", "true".to_owned()),
        (
            "access-control-allow-origin",
            "https://lucid.app".to_owned(),
        ),
        ("vary", "Accept".to_owned()),
    ];
    let (answer, vary) = (serving.get("/users"), ("vary", "Origin".to_owned()));
    assert_eq!(about_pages(&answer)[..3], theirs);
    assert_eq!(about_pages(&answer)[3..], [vary]);
    let (upstream, world) = World::before_raw_upstream();
    let _requests = upstream.answering(ANSWER);
    assert_eq!(about_pages(&world.serve().get("/users")), theirs);
}

#[test]
fn s03_a_preflight_is_answered_here_and_needs_no_login() {
    let (upstream, mut world) = (RawUpstream::start(), World::new());
    world.upstream = upstream.origin();
    world.tables = format!("[log]\nrequests = true\n{GUARD}");
    let requests = upstream.answering(ANSWER);
    let serving = world.serve();
    let mut client = serving.connect();
    let fields = [
        ORIGIN,
        "Access-Control-Request-Method: PATCH",
        "Access-Control-Request-Headers: authorization,content-type",
        "Access-Control-Request-Private-Network: true",
    ];
    let answer = client.ask("OPTIONS /documents/x", &fields, b"");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("content-length"), None);
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    let expected = [
        (
            "access-control-allow-headers",
            "authorization, content-type",
        ),
        ("access-control-allow-methods", "PATCH"),
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-private-network", "true"),
        ("access-control-max-age", "600"),
        ("vary", vary),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    assert_eq!(about_pages(&answer), expected);
    serving.wait_for_log("OPTIONS  204");
    serving.wait_for_log("/documents/x  answered here");
    let malformed = [ORIGIN, "Access-Control-Request-Method: GET POST"];
    let answer = client.ask("OPTIONS /x", &malformed, b"");
    assert_eq!((answer.status, answer.code().as_str()), (400, "badRequest"));
    let stranger = ["Origin: http://localhost:5174", ASKED_METHOD];
    let answer = serving.connect().ask("OPTIONS /x", &stranger, b"");
    assert_eq!(answer.code(), "originNotAllowed");
    let line = "[guard] allow_origins = [\\\"http://localhost:5174\\\"]";
    assert!(answer.text().contains(line), "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let mut client = serving.connect();
    client.send(
        format!("OPTIONS /x HTTP/1.1\r\nHost: evil.example\r\n{ORIGIN}\r\n{ASKED_METHOD}\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(client.response().code(), "hostNotAllowed");
    assert!(requests.try_recv().is_err(), "nothing went on");
    world.log_in();
    // What is no preflight goes on, and the page reads the answer.
    let ask = || serving.connect().ask("OPTIONS /x", &[ORIGIN], b"");
    serving.wait_until(|_| ask().status == 200);
    let request = requests.recv_timeout(SOON).expect("a request");
    assert!(request.starts_with(b"OPTIONS /x HTTP/1.1\r\n"));
}

#[test]
fn s03_where_no_page_is_allowed_a_preflight_is_refused_here() {
    let (upstream, world) = World::before_raw_upstream();
    let requests = upstream.answering(ANSWER);
    let serving = world.serve();
    let mut client = serving.connect();
    let answer = client.ask("OPTIONS /x", &[ORIGIN, ASKED_METHOD], b"");
    assert_eq!(answer.code(), "originNotAllowed");
    assert!(requests.try_recv().is_err());
    assert_eq!(client.ask("OPTIONS /x", &[], b"").status, 200);
    assert!(requests.try_recv().is_ok(), "one without a page goes on");
}

#[test]
fn s03_an_allowed_page_reads_what_the_proxy_itself_answers_and_a_stranger_does_not() {
    let mut world = World::new();
    world.tables = GUARD.to_owned();
    let serving = world.serve();
    let ask = |line, fields: &[&str]| serving.connect().ask(line, fields, b"");
    for (line, code) in [
        ("GET /users", "loginRequired"),
        ("GET /oauth2/other", "policyDenied"),
    ] {
        let answer = ask(line, &[ORIGIN]);
        assert_eq!(answer.code(), code);
        assert_readable(&answer);
    }
    for stranger in [
        &["Origin: https://app.example.evil"][..],
        &["Origin: null"],
        &[ORIGIN, ORIGIN],
        &[ORIGIN, "Origin: https://app.example"],
        &["Origin: http://localhost:5173, https://app.example"],
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
    ] {
        let answer = ask("GET /users", stranger);
        assert_eq!(answer.code(), "originNotAllowed", "{stranger:?}");
        assert!(answer.text().contains("allow_origins") || answer.text().contains("Origin header"));
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, None, "{stranger:?}");
    }
}

#[test]
fn s03_f11_a_refresh_of_an_allowed_page_is_answered_here_and_read_by_it() {
    let mut world = World::logged_in();
    world.tables = GUARD.to_owned();
    let serving = world.serve();
    let refresh = br#"{"grant_type":"refresh_token","refresh_token":"x"}"#;
    let answer = serving
        .connect()
        .ask("POST /oauth2/token", &[ORIGIN], refresh);
    assert_eq!(answer.status, 200);
    assert_readable(&answer);
}

#[test]
fn s03_a_401_under_an_allowed_page_is_cured_without_its_notice() {
    let mut world = World::logged_in();
    world.tables = GUARD.to_owned();
    world.sandbox.expire_access_tokens();
    let serving = world.serve();
    let answer = serving
        .connect()
        .ask("GET /users?pageSize=2", &[ORIGIN], b"");
    assert_eq!(answer.status, 200);
    assert_readable(&answer);
    assert!(answer.header("link").is_some());
    assert_eq!(world.sandbox.counts().problems, Vec::<String>::new());
}

#[test]
fn s03_a_websocket_is_for_allowed_pages() {
    const FIELDS: [&str; 4] = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let (upstream, _world, serving) = raw();
    let mut stranger = serving.connect();
    let fields = [&FIELDS[..], &["Origin: http://evil.example"]].concat();
    let answer = stranger.ask("GET /socket", &fields, b"");
    assert_eq!(answer.code(), "originNotAllowed");
    let mut client = serving.connect();
    client.request("GET /socket", &[&FIELDS[..], &[ORIGIN]].concat(), b"");
    let switching = std::thread::spawn(move || {
        let mut connection = upstream.accept();
        let request = String::from_utf8_lossy(&connection.request()).to_ascii_lowercase();
        assert!(request.contains("upgrade: websocket") && !request.contains("\r\norigin:"));
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        connection
    });
    assert_eq!(client.head().status, 101);
    assert_eq!(client.until(b"hello"), b"hello");
    switching.join().expect("no panic");
}

#[test]
fn s03_over_tls_and_http_2_a_page_is_served_alike() {
    let (mut world, identity) = https::world();
    world.tables = GUARD.to_owned();
    let serving = world.serve_on(https::LISTEN);
    let client = Http2::connect(serving.address, &identity);
    let ask = |method, fields: &'static [(&str, &str)]| {
        client.begin(method, "/users", fields, nothing()).answer()
    };
    let answer = ask(Method::GET, &[("origin", PAGE)]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
    let before = world.sandbox.counts().api_requests;
    const ASKED: (&str, &str) = ("access-control-request-method", "PUT");
    const STRANGER: (&str, &str) = ("origin", "https://localhost:5173");
    let answer = ask(Method::OPTIONS, &[("origin", PAGE), ASKED]);
    assert_eq!((answer.status.as_u16(), answer.complete), (204, true));
    assert_eq!(answer.headers["access-control-allow-methods"], "PUT");
    assert_eq!(ask(Method::GET, &[STRANGER]).status, 403);
    assert_eq!(ask(Method::OPTIONS, &[STRANGER, ASKED]).status, 403);
    let twice = ask(Method::GET, &[("origin", PAGE), ("origin", PAGE)]);
    assert_eq!(twice.status, 403);
    assert_eq!(world.sandbox.counts().api_requests, before);
}

#[test]
fn s03_on_a_unix_socket_a_page_is_served_alike() {
    let mut world = World::logged_in();
    world.tables = GUARD.to_owned();
    let _serving = world.serve_on("[\"unix:proxy.sock\"]");
    let ask = |origin: &str| {
        let socket = world.directory.path().join("proxy.sock");
        let mut stream = UnixStream::connect(socket).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let request = format!(
            "GET /users HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answer = ask(PAGE);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let allowed = format!("access-control-allow-origin: {PAGE}\r\n");
    assert!(answer.contains(&allowed), "{answer}");
    assert!(ask("http://localhost").starts_with("HTTP/1.1 403"));
}

#[test]
fn s03_check_tells_what_is_no_origin_and_where() {
    let mut world = World::new();
    world.tables = "[guard]\nallow_origins = [\"http://localhost:5173/\"]\n".to_owned();
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let errors = crate::world::errors(&output);
    assert!(
        errors.contains("column 18: guard.allow_origins: expected an exact origin"),
        "{errors}"
    );
    world.tables = GUARD.to_owned();
    assert!(world.run(&["check"]).status.success());
}
