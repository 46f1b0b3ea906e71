//! WebSockets (rule F16): tunnelled with every byte, and no other change of protocol.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;

use crate::world::client::Client;
use crate::world::http2::Http2Front;
use crate::world::raw_upstream::{Connection, RawUpstream};
use crate::world::tls::{self, Identity, TlsFront};
use crate::world::{Serving, World, is_there, missing, printed};

const FIELDS: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Hop: 1\r\n\r\n";

/// A proxy in front of an upstream that is written by hand.
fn raw(tables: &str) -> (RawUpstream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = format!("[log]\nrequests = true\n{tables}");
    let serving = world.serve();
    (upstream, world, serving)
}

/// A tunnel, and what both ends have in hand of it.
fn opened(upstream: &RawUpstream, serving: &Serving) -> (Client, Connection) {
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(SWITCHING);
    assert_eq!(client.head().status, 101);
    (client, connection)
}

/// The line of the only request that was made.
fn line(serving: &Serving) -> String {
    serving.wait_for_log(" out ");
    let log = serving.log();
    let line = log.lines().find(|line| line.contains(" out "));
    line.expect("it was waited for").to_owned()
}

#[test]
fn f16_a_websocket_is_tunnelled_with_what_comes_early_on_either_side() {
    let (upstream, world, serving) = raw("");
    let mut client = serving.connect();
    let head = format!(
        "GET /socket?a=b HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer stale\r\n{}\r\n\r\n",
        serving.address,
        FIELDS.join("\r\n")
    );
    // Bytes behind the head, which would be two requests if they were looked at, and one with more headers than any may
    // have.
    let requests = b"\x81\x05GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n\x81\n";
    let early = [&requests[..], &b"a:b\n".repeat(120)].concat();
    client.send(&[head.as_bytes(), &early].concat());
    let mut connection = upstream.accept();
    let request = connection.request();
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let token = world.stored()["access_token"].to_string().to_lowercase();
    for line in [
        "get /socket?a=b http/1.1",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==",
        "sec-websocket-version: 13",
        "via: 1.1 lucid-proxy",
        &format!("authorization: bearer {}", token.trim_matches('"')),
    ] {
        let line = format!("{line}\r\n");
        assert_eq!(request.matches(&line).count(), 1, "{line}: {request}");
    }
    assert!(!connection.has_more(), "nothing passes before the 101");
    connection.send(&[SWITCHING, b"\x81\x02hi"].concat());
    let response = client.head();
    assert_eq!(response.status, 101);
    for (name, value) in [
        ("connection", Some("upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        ("x-hop", None),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    assert_eq!(client.until(b"hi"), b"\x81\x02hi");
    assert_eq!(connection.read(early.len()), early);
    for _ in 0..3 {
        client.send(b"there");
        assert_eq!(connection.read(5), b"there");
        connection.send(b"back");
        assert_eq!(client.until(b"back"), b"back");
    }
    drop(client);
    assert_eq!(connection.rest(), b"");
    drop(connection);
    let line = line(&serving);
    let (received, sent) = (early.len() + 15, 4 + 12);
    for part in [
        "GET      101 ",
        &format!(" {received} B in "),
        &format!(" {sent} B out  gen 1   /socket"),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("cut off"), "{line}");
}

#[test]
fn f16_much_passes_both_ways_at_once() {
    const LENGTH: usize = 8 << 20;
    let (upstream, _world, serving) = raw("");
    let (mut client, mut connection) = opened(&upstream, &serving);
    let (mut up, mut down) = (client.second_handle(), connection.second_handle());
    let up = std::thread::spawn(move || up.write_all(&vec![1; LENGTH]));
    let down = std::thread::spawn(move || {
        down.write_all(&vec![2; LENGTH])?;
        down.shutdown(Shutdown::Write)
    });
    assert!(connection.read(LENGTH).iter().all(|byte| *byte == 1));
    up.join().expect("no panic").expect("all was sent");
    let mut bytes = Vec::new();
    assert!(client.rest(&mut bytes));
    down.join().expect("no panic").expect("all was sent");
    assert_eq!(bytes.len(), LENGTH);
    assert!(bytes.iter().all(|byte| *byte == 2));
}

#[test]
fn f16_one_side_may_end_and_the_other_goes_on() {
    let (upstream, _world, serving) = raw("");
    let (mut client, mut connection) = opened(&upstream, &serving);
    client.send(b"last words");
    client.finish();
    assert_eq!(connection.rest(), b"last words");
    connection.send(b"still here");
    assert_eq!(client.until(b"here"), b"still here");
    drop(connection);
    assert!(client.is_closed());

    let (mut client, mut connection) = opened(&upstream, &serving);
    connection.send(b"last words");
    connection.finish();
    let mut bytes = Vec::new();
    assert!(client.rest(&mut bytes));
    assert_eq!(bytes, b"last words");
    client.send(b"still here");
    client.finish();
    assert_eq!(connection.rest(), b"still here");
}

#[test]
fn f16_a_client_that_has_ended_its_side_with_the_request_gets_a_tunnel_all_the_same() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    client.finish();
    let mut connection = upstream.accept();
    connection.request();
    connection.send(&[SWITCHING, b"only this"].concat());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.until(b"this"), b"only this");
    assert_eq!(connection.rest(), b"");
}

#[test]
fn f16_where_one_side_breaks_off_so_does_the_other() {
    let (upstream, _world, serving) = raw("");
    let (mut client, connection) = opened(&upstream, &serving);
    // Closed with bytes on it that nobody has read, a connection is reset.
    client.send(b"unread");
    serving.wait_until(|_| connection.has_more());
    drop(connection);
    assert!(client.is_closed());
    serving.wait_for_log("cut off");

    let (client, mut connection) = opened(&upstream, &serving);
    connection.send(b"unread");
    let handle = client.second_handle();
    serving.wait_until(|_| handle.peek(&mut [0]).is_ok_and(|length| length > 0));
    drop((client, handle));
    assert!(connection.is_closed());
}

#[test]
fn f16_a_tunnel_that_is_silent_ends_at_its_bound_and_one_that_moves_does_not() {
    let (upstream, _world, serving) = raw("[timeouts]\ntunnel = \"1s\"\n");
    let (mut client, mut connection) = opened(&upstream, &serving);
    // Several times the bound, with less than it between two bytes of either side.
    for _ in 0..8 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        client.send(b"x");
        assert_eq!(connection.read(1), b"x");
        std::thread::sleep(std::time::Duration::from_millis(100));
        connection.send(b"y");
        assert_eq!(client.until(b"y"), b"y");
    }
    assert!(client.is_closed());
    assert!(connection.is_closed());
    let line = line(&serving);
    assert!(line.contains("101") && line.contains("cut off"), "{line}");
}

#[test]
fn f16_what_upstream_does_not_agree_to_is_answered_and_what_came_early_is_no_request() {
    let (upstream, _world, serving) = raw("");
    for (status, close) in [
        ("403 Forbidden", ""),
        ("200 OK", ""),
        ("426 Upgrade Required", "Upgrade: websocket\r\n"),
    ] {
        let mut client = serving.connect();
        client.request("GET /socket", &FIELDS, b"");
        client.request("GET /smuggled", &[], b"");
        let mut connection = upstream.accept();
        let request = connection.request();
        assert!(request.starts_with(b"GET /socket "));
        let answer = format!("HTTP/1.1 {status}\r\n{close}Content-Length: 4\r\n\r\nwhy?");
        connection.send(answer.as_bytes());
        let response = client.response();
        assert_eq!(response.status.to_string(), status[..3]);
        assert_eq!(
            (response.text().as_str(), response.complete),
            ("why?", true)
        );
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(response.header("upgrade"), None);
        assert!(client.is_closed(), "{status}");
        assert!(connection.is_closed(), "it serves nothing else");
    }
    // Nothing of it has come to upstream, where the next request is this one.
    let mut client = serving.connect();
    client.request("GET /next", &[], b"");
    assert!(upstream.accept().request().starts_with(b"GET /next "));
}

#[test]
fn f16_a_client_that_sends_ahead_of_its_time_gets_the_refusal_all_the_same() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    let mut connection = upstream.accept();
    connection.request();
    // Behind the head and in packets of their own, more than what is read with it.
    client.send(&vec![b'x'; 300_000]);
    connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nwhy?");
    client.send(&vec![b'x'; 100_000]);
    let response = client.response();
    assert_eq!((response.status, response.complete), (403, true));
    assert!(
        client.rest(&mut Vec::new()),
        "no reset, which many clients see first"
    );
}

/// More than the system holds of a unix socket (net.core.wmem_default), and with that no more than the proxy holds.
const MUCH: usize = 300_000;

/// A client that has asked for [`MUCH`] with these fields and has read nothing, when the proxy has all of that.
fn unread(request: &str, tables: &str) -> (UnixStream, UnixStream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.top = "workers = 1".to_owned();
    world.tables = format!("[log]\nrequests = true\n{tables}");
    let serving = world.serve_on("[\"unix:proxy.sock\"]");
    let (mut client, idle) = (world.connect_unix(), world.connect_unix());
    client.write_all(request.as_bytes()).expect("sent");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
    connection.send(head.as_bytes());
    connection.send(&vec![b'x'; MUCH]);
    let line = line(&serving);
    assert!(!line.contains("cut off"), "{line}");
    (client, idle, world, serving)
}

/// Reads all that there is, and says how much content is in it.
fn content(mut client: UnixStream) -> usize {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an end in order");
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    answer.len() - head.expect("a head") - 4
}

/// Where the content is not read, hyper takes the connection for done before the client has the whole answer.
#[test]
fn f16_who_offers_another_protocol_and_is_not_asked_for_content_gets_the_whole_answer() {
    for offer in ["X: y", "Connection: Upgrade\r\nUpgrade: h2c"] {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 7\r\n{offer}\r\n\r\n"
        );
        let (client, _idle, _world, _serving) = unread(&request, "[timeouts]\nlinger = \"50ms\"\n");
        // Several times the bound for content that nobody wants.
        sleep(Duration::from_millis(500));
        assert_eq!(content(client), MUCH, "{offer}");
    }
}

#[test]
fn f16_at_the_end_a_client_whose_websocket_was_refused_gets_the_whole_answer() {
    for offer in ["Connection: close", &FIELDS.join("\r\n")] {
        let request = format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n\r\n");
        let (client, mut idle, _world, mut serving) = unread(&request, "");
        serving.signal(Signal::TERM);
        // The one worker has begun to end connections.
        assert_eq!(idle.read(&mut [0]).expect("an end in order"), 0);
        assert_eq!(content(client), MUCH, "{offer}");
        assert!(serving.wait().success());
    }
}

#[test]
fn f16_a_401_is_cured_before_the_tunnel_opens() {
    let (upstream, world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    let mut first = upstream.accept();
    let request = first.request();
    first.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let mut second = upstream.accept();
    let again = second.request();
    let with = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let token = text.split("authorization: Bearer ").nth(1);
        let token = token.and_then(|rest| rest.split('\r').next());
        let token = token
            .unwrap_or_else(|| panic!("no token: {text}"))
            .to_owned();
        (text.replace(&token, "…"), token)
    };
    let ((request, old), (again, new)) = (with(&request), with(&again));
    assert_eq!(request, again, "but for the token");
    assert_ne!(old, new);
    assert_eq!(world.stored()["access_token"], new);
    second.send(&[SWITCHING, b"hi"].concat());
    let response = client.head();
    assert_eq!(response.status, 101);
    let note = response.header("proxy-status").expect("a note");
    assert!(note.contains("replayed with a new token"), "{note}");
    assert_eq!(client.until(b"hi"), b"hi");
    drop((client, second));
    assert!(line(&serving).contains("gen 2"), "{}", line(&serving));
}

#[test]
fn f16_a_401_that_no_token_cures_is_answered() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    for _ in 0..2 {
        let mut connection = upstream.accept();
        connection.request();
        connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    }
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
    assert!(client.is_closed());
}

#[test]
fn f16_every_other_upgrade_is_removed_and_what_follows_is_a_request() {
    let (upstream, _world, serving) = raw("");
    let h2c = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
    ];
    let with_content = [FIELDS[0], FIELDS[1], "Content-Length: 2"];
    for (method, fields, content) in [
        ("GET", &h2c[..], &b""[..]),
        // Without `Connection` it is nothing that the client wants.
        ("GET", &["Upgrade: websocket"], b""),
        ("GET", &["Connection: upgrade"], b""),
        (
            "GET",
            &["Connection: upgrade", "Upgrade: websocket2, xwebsocket"],
            b"",
        ),
        // RFC 6455 section 4.1 asks for GET, and content has no place before the other protocol.
        ("POST", &FIELDS, b""),
        ("GET", &with_content, b"ab"),
    ] {
        let mut client = serving.connect();
        for _ in 0..2 {
            client.request(&format!("{method} /x"), fields, b"");
            client.send(content);
        }
        let mut connection = upstream.accept();
        for _ in 0..2 {
            let request = connection.request();
            let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
            for name in ["\r\nupgrade:", "\r\nconnection:", "\r\nhttp2-settings:"] {
                assert!(!request.contains(name), "{name}: {request}");
            }
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            let response = client.response();
            assert_eq!(
                (response.status, response.header("connection")),
                (200, None)
            );
        }
    }
}

#[test]
fn f16_of_several_protocols_the_websocket_alone_is_asked_for() {
    let (upstream, _world, serving) = raw("");
    for fields in [
        &["Connection: keep-alive, upgrade", "Upgrade: h2c, WebSocket"][..],
        &[
            "Connection: upgrade",
            "Connection: X-Hop",
            "X-Hop: 1",
            "Upgrade: websocket",
            "Upgrade: foo/2",
        ],
        &[
            "Connection: upgrade, te",
            "TE: trailers",
            "Upgrade: websocket",
        ],
    ] {
        let mut client = serving.connect();
        client.request("GET /socket", fields, b"");
        let mut connection = upstream.accept();
        let request = connection.request();
        let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
        assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
        assert!(request.contains("\r\nconnection: upgrade\r\n"), "{request}");
        for name in ["h2c", "foo", "x-hop", "\r\nte:", "keep-alive"] {
            assert!(!request.contains(name), "{name}: {request}");
        }
        connection.send(SWITCHING);
        assert_eq!(client.head().status, 101);
    }
}

#[test]
fn f16_a_101_that_nobody_asked_for_is_an_error() {
    let (upstream, _world, serving) = raw("");
    let other = SWITCHING_TO_H2C;
    for (fields, answer) in [(&[][..], SWITCHING), (&FIELDS, other)] {
        let mut client = serving.connect();
        client.request("GET /socket", fields, b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        let response = client.response();
        assert_eq!(
            (response.status, response.code().as_str()),
            (502, "upstreamUnreachable")
        );
        assert!(connection.is_closed());
    }
}

const SWITCHING_TO_H2C: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";

#[test]
fn f16_the_guard_comes_before_and_what_it_refuses_leaves_no_request_behind() {
    let (upstream, _world, serving) = raw("");
    let own = format!("Host: {}", serving.address);
    for (host, origin, code) in [
        ("Host: evil.example", "X: y", "hostNotAllowed"),
        (
            own.as_str(),
            "Origin: https://evil.example",
            "originNotAllowed",
        ),
    ] {
        let mut client = serving.connect();
        let fields = FIELDS.join("\r\n");
        client.send(
            format!("GET /socket HTTP/1.1\r\n{host}\r\n{origin}\r\n{fields}\r\n\r\n").as_bytes(),
        );
        client.request("GET /smuggled", &[], b"");
        let response = client.response();
        assert_eq!((response.status, response.code().as_str()), (403, code));
        assert!(client.is_closed());
    }
    // Positive control: the first that comes to upstream is this one.
    let (_client, _connection) = opened(&upstream, &serving);
}

#[test]
fn f16_upstream_that_is_silent_cut_or_away_is_told_as_ever() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.upstream_keys = "response_timeout = \"200ms\"".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    let mut connection = upstream.accept();
    connection.request();
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (504, "upstreamTimeout")
    );
    assert!(client.is_closed() && connection.is_closed());

    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 101 Swi");
    drop(connection);
    assert_eq!(client.response().status, 502);

    drop(upstream);
    let mut client = serving.connect();
    client.request("GET /socket", &FIELDS, b"");
    assert_eq!(client.response().status, 502);
}

#[test]
fn f16_a_tunnel_is_waited_for_at_the_end_as_requests_are() {
    let (upstream, _world, mut serving) = raw("");
    let (mut client, mut connection) = opened(&upstream, &serving);
    serving.signal(Signal::TERM);
    serving.wait_for_log("finishing what is under way");
    client.send(b"x");
    assert_eq!(connection.read(1), b"x");
    drop(connection);
    assert!(client.is_closed());
    drop(client);
    assert!(serving.wait().success());
    assert!(
        !serving.log().contains("timeouts.drain"),
        "{}",
        serving.log()
    );

    let (upstream, _world, mut serving) = raw("[timeouts]\ndrain = \"200ms\"\n");
    let (mut client, mut connection) = opened(&upstream, &serving);
    serving.signal(Signal::TERM);
    assert!(serving.wait().success());
    assert!(client.is_closed() && connection.is_closed());
    assert!(
        serving.log().contains("timeouts.drain"),
        "{}",
        serving.log()
    );
}

#[test]
fn f16_over_tls_a_websocket_passes_on_http_1_1_whatever_else_is_spoken() {
    let upstream = RawUpstream::start();
    let behind = upstream.origin().trim_start_matches("http://").parse();
    let front = TlsFront::offering(&["h2", "http/1.1"], behind.expect("an address"));
    let identity = Identity::new();
    let mut world = World::logged_in();
    let bundle = world.directory.path().join("trusted.pem");
    front.write_bundle(&bundle);
    identity.write(world.directory.path());
    world.upstream = front.origin();
    world.top = "listen = [{ address = \"127.0.0.1:0\", certificate_file = \"tls.crt\", key_file = \"tls.key\" }]".to_owned();
    world.configure();
    let mut command = world.command(&["serve"]);
    command.env("SSL_CERT_FILE", bundle);
    let serving = Serving::start(command);
    let mut client = tls::connect(serving.address, &identity.client(&["http/1.1"])).expect("TLS");
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: localhost:{}\r\n{}\r\n\r\n",
        serving.address.port(),
        FIELDS.join("\r\n")
    );
    client
        .write_all(&[head.as_bytes(), b"early"].concat())
        .expect("sent");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(&[SWITCHING, b"hi"].concat());
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nhi") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut client, &mut byte).expect("more");
        seen.extend(byte);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(connection.read(5), b"early");
    client.conn.send_close_notify();
    client.flush().expect("sent");
    assert_eq!(connection.rest(), b"");
    drop(connection);
    let end = std::io::Read::read(&mut client, &mut [0]);
    assert_eq!(end.expect("TLS ends as it should"), 0);
    // Positive control: of the two protocols upstream prefers the other, which nobody speaks there.
    let mut client = tls::connect(serving.address, &identity.client(&["http/1.1"])).expect("TLS");
    let host = format!("localhost:{}", serving.address.port());
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.write_all(request.as_bytes()).expect("sent");
    let mut line = [0; 12];
    std::io::Read::read_exact(&mut client, &mut line).expect("an answer");
    assert_eq!(&line, b"HTTP/1.1 502");
}

#[test]
fn f16_where_http_2_alone_is_configured_there_is_no_tunnel() {
    let mut world = World::logged_in();
    let front = Http2Front::start(world.sandbox.address(), 100);
    let bundle = world.directory.path().join("trusted.pem");
    front.tls.write_bundle(&bundle);
    world.upstream = front.tls.origin();
    world.upstream_keys = "http = \"2\"".to_owned();
    let serving = world.serve_with(|command| {
        command.env("SSL_CERT_FILE", bundle);
    });
    let mut client = serving.connect();
    let response = client.ask("GET /sandbox/echo", &FIELDS, b"");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(!response.json()["headers"].to_string().contains("upgrade"));
    assert_eq!(client.ask("GET /users", &[], b"").status, 200);
}

#[test]
fn f16_what_is_answered_here_is_no_tunnel() {
    let (_upstream, world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /oauth2/token", &FIELDS, b"");
    client.request("GET /oauth2/token", &[], b"");
    assert_eq!(client.response().status, 405);
    assert!(client.is_closed());
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

/// What the client's key is answered with (RFC 6455 section 4.2.2).
pub(crate) fn accept_key(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let key = format!(
        "{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
        key.expect("a key").trim()
    );
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    BASE64_STANDARD.encode(digest)
}

/// The next frame of a client: its first byte and its content, which is short and masked (RFC 6455 section 5.2).
fn frame(connection: &mut Connection) -> (u8, Vec<u8>) {
    let head = connection.read(2);
    let length = usize::from(head[1] - 0x80);
    let mask = connection.read(4);
    let masked = connection.read(length);
    let plain = masked.iter().zip(mask.iter().cycle());
    (head[0], plain.map(|(byte, mask)| byte ^ mask).collect())
}

#[test]
fn f16_a_websocket_of_node_talks_through_the_proxy() {
    const SCRIPT: &str = "
        const socket = new WebSocket(process.argv[1], ['chat']);
        socket.onopen = () => socket.send('there');
        socket.onmessage = ({ data }) => { console.log(data, socket.protocol); socket.close(1000); };
        socket.onclose = ({ code, wasClean }) => console.log(code, wasClean);";
    const FLAG: &str = "--experimental-websocket";
    if !is_there("node", &["--version"]) {
        return missing("node");
    }
    if !is_there("node", &[FLAG, "--eval", ""]) {
        return eprintln!("skipped: this node has no WebSocket");
    }
    let (upstream, _world, serving) = raw("");
    let node = Command::new("node")
        .args([FLAG, "--no-warnings", "--eval", SCRIPT])
        .arg(format!("ws://{}/socket", serving.address))
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    let mut connection = upstream.accept();
    let key = accept_key(&connection.request());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
    // A first message comes with the answer.
    connection.send(&[answer.as_bytes(), b"\x81\x02hi"].concat());
    assert_eq!(frame(&mut connection), (0x81, b"there".to_vec()));
    assert_eq!(frame(&mut connection), (0x88, vec![3, 232]));
    connection.send(b"\x88\x02\x03\xe8");
    drop(connection);
    let output = node.wait_with_output().expect("node");
    assert_eq!(printed(&output), "hi chat\n1000 true\n");
}
