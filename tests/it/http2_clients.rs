//! HTTP/2 towards clients: what passes, how streams and connections end, and the bounds.

use std::process::Command;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustix::process::Signal;

use crate::https::{LISTEN, world};
use crate::world::frames::{
    DATA, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame, headers,
};
use crate::world::http2_client::{Http2, bytes, frames, nothing};
use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::Identity;
use crate::world::{SOON, Serving, World, errors, is_there, missing};

fn serve() -> (World, Identity, Serving) {
    let (mut world, identity) = world();
    let serving = world.serve_on(LISTEN);
    (world, identity, serving)
}

/// A proxy in front of an upstream that is written by hand.
fn raw() -> (RawUpstream, World, Identity, Serving) {
    let upstream = RawUpstream::start();
    let (mut world, identity) = world();
    world.upstream = upstream.origin();
    let serving = world.serve_on(LISTEN);
    (upstream, world, identity, serving)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// NO_ERROR, CANCEL and so on (RFC 9113 section 7), from the end of a RST_STREAM or a GOAWAY without more.
fn reason(frame: &crate::world::frames::Frame) -> u32 {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    let code = frame.payload[at..at + 4].try_into().expect("four bytes");
    u32::from_be_bytes(code)
}

#[test]
fn f01_f03_a_request_and_its_answer_pass_without_what_is_about_one_connection() {
    let (upstream, world, identity, serving) = raw();
    let requests = upstream.answering(
        b"HTTP/1.1 207 Whatever\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
          Proxy-Connection: keep-alive\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Bytes: \xff\r\nContent-Length: 2\r\n\r\nok",
    );
    let client = Http2::connect(serving.address, &identity);
    let fields = [
        ("authorization", "Bearer stale"),
        ("te", "trailers"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-twice", "b"),
        ("x-twice", "a"),
    ];
    let begun = client.begin(Method::GET, "/a%2Fb/../c?q=%20&&", &fields, nothing());
    let answer = begun.answer();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (207, "ok")
    );
    for gone in [
        "connection",
        "x-hop",
        "keep-alive",
        "upgrade",
        "proxy-connection",
        "transfer-encoding",
    ] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(
        answer.headers["x-bytes"],
        HeaderValue::from_bytes(b"\xff").expect("a value")
    );
    let seen = requests.recv_timeout(SOON).expect("a request");
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let token = world.stored()["access_token"]
        .as_str()
        .expect("text")
        .to_owned();
    let host = world.upstream.trim_start_matches("http://");
    let mut lines: Vec<_> = seen.trim_end().split("\r\n").collect();
    lines[1..].sort_by_key(|line| line.split(':').next());
    assert_eq!(
        lines,
        [
            "GET /a%2Fb/../c?q=%20&& HTTP/1.1",
            &format!("authorization: Bearer {token}"),
            "connection: te",
            "cookie: a=1; b=2",
            &format!("host: {host}"),
            "lucid-api-version: 1",
            "te: trailers",
            "via: 2.0 lucid-proxy",
            "x-twice: b",
            "x-twice: a",
        ]
    );
}

#[test]
fn streams_of_one_connection_do_not_wait_for_each_other() {
    let (world, identity, serving) = serve();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/users/me".to_owned()));
    let client = Http2::connect(serving.address, &identity);
    let held: Vec<_> = (0..20)
        .map(|_| client.begin(Method::GET, "/users/me/profile", &[], nothing()))
        .collect();
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 20);
    for _ in 0..5 {
        assert_eq!(client.get("/users").status, 200);
    }
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    for held in held {
        assert_eq!(held.answer().json()["username"], "ada");
    }
}

#[test]
fn a_dead_token_is_replaced_for_all_streams_at_once() {
    let (world, identity, serving) = serve();
    let client = Http2::connect(serving.address, &identity);
    assert_eq!(client.get("/users").status, 200);
    world.sandbox.expire_access_tokens();
    let begun: Vec<_> = (0..10)
        .map(|_| client.begin(Method::POST, "/sandbox/echo", &[], bytes(b"content")))
        .collect();
    for begun in begun {
        assert_eq!(begun.answer().json()["body_length"], 7);
    }
    assert_eq!(world.sandbox.counts().rotations, 1);
}

#[test]
fn f05_content_passes_with_its_length_or_without() {
    let (upstream, _world, identity, serving) = raw();
    let requests = upstream.answering(OK);
    let client = Http2::connect(serving.address, &identity);
    for (method, content, framing, end) in [
        (
            Method::POST,
            bytes(b"five!"),
            "content-length: 5",
            "\r\n\r\nfive!",
        ),
        (
            Method::POST,
            frames(b"five!", HeaderMap::new()),
            "transfer-encoding: chunked",
            "\r\n5\r\nfive!\r\n0\r\n\r\n",
        ),
        (
            Method::GET,
            frames(b"five!", HeaderMap::new()),
            "transfer-encoding: chunked",
            "\r\n5\r\nfive!\r\n0\r\n\r\n",
        ),
        (Method::DELETE, nothing(), "DELETE /x HTTP/1.1", "\r\n\r\n"),
    ] {
        let answer = client.begin(method, "/x", &[], content).answer();
        assert_eq!(answer.text(), "ok");
        let seen = requests.recv_timeout(SOON).expect("a request");
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains(framing) && seen.ends_with(end), "{seen}");
        assert_eq!(
            seen.contains("transfer-encoding"),
            framing.contains("chunked"),
            "{seen}"
        );
    }
}

#[test]
fn f02_trailers_pass_both_ways_without_credentials() {
    let (upstream, _world, identity, serving) = raw();
    let client = Http2::connect(serving.address, &identity);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("1"));
    trailers.insert("authorization", HeaderValue::from_static("Bearer stale"));
    let declared = [("trailer", "x-checksum, authorization"), ("te", "trailers")];
    let content = frames(b"five!", trailers);
    let begun = client.begin(Method::PUT, "/x", &declared, content);
    let mut connection = upstream.accept();
    connection.head().expect("a head");
    let expected = b"5\r\nfive!\r\n0\r\nx-checksum: 1\r\n\r\n";
    assert_eq!(connection.read(expected.len()), expected);
    connection.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: 1\r\n\r\n",
    );
    let answer = begun.answer();
    assert_eq!((answer.text().as_str(), answer.complete), ("ok", true));
    assert_eq!(answer.trailers.expect("trailers")["x-end"], "1");
}

#[test]
fn responses_of_every_framing_pass() {
    for (answer, status, text) in [
        (OK, 200, "ok"),
        (
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..],
            200,
            "ok",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ] {
        let (upstream, _world, identity, serving) = raw();
        let _requests = upstream.answering(answer);
        let client = Http2::connect(serving.address, &identity);
        let seen = client.get("/x");
        assert_eq!(
            (seen.status.as_u16(), seen.text().as_str(), seen.complete),
            (status, text, true)
        );
    }
    let (upstream, _world, identity, serving) = raw();
    let client = Http2::connect(serving.address, &identity);
    let begun = client.begin(Method::GET, "/x", &[], nothing());
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\n\r\nall there is");
    drop(connection);
    let answer = begun.answer();
    assert_eq!(
        (answer.text().as_str(), answer.complete),
        ("all there is", true)
    );
}

#[test]
fn answers_to_head_have_no_content_whoever_gives_them() {
    let (upstream, _world, identity, serving) = raw();
    let _requests = upstream.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let client = Http2::connect(serving.address, &identity);
    let page = [("origin", "https://evil.example")];
    let refused = |method| client.begin(method, "/x", &page, nothing()).answer();
    let (own, full) = (refused(Method::HEAD), refused(Method::GET));
    assert_eq!(
        (own.status, full.status),
        (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN)
    );
    assert_eq!(
        own.headers["content-length"],
        full.headers["content-length"]
    );
    assert!(own.body.is_empty() && own.complete);
    assert!(!full.body.is_empty());
    let mut raw = Frames::connect(serving.address, &identity);
    let head = raw.head(1, "HEAD", "/x", &page, END_STREAM);
    raw.bytes(&head);
    assert_eq!(raw.wait_for(HEADERS).flags & END_STREAM, END_STREAM);
    let theirs = client.ask(Method::HEAD, "/x");
    assert_eq!(theirs.headers["content-length"], "1000");
    assert!(theirs.body.is_empty() && theirs.complete);
}

#[test]
fn s02_f15_the_authority_counts_and_a_host_that_disagrees_is_refused() {
    let (world, identity, serving) = serve();
    let port = serving.address.port();
    let own = format!("localhost:{port}");
    let ask = |fields: &[(&str, &str)]| {
        let mut client = Frames::connect(serving.address, &identity);
        let mut all = vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/users"),
        ];
        all.extend_from_slice(fields);
        client.bytes(&headers(1, &all, END_STREAM));
        client.wait_for(HEADERS);
        let content = client.wait_for(DATA).payload;
        String::from_utf8_lossy(&content).into_owned()
    };
    assert!(ask(&[(":authority", &own)]).contains("\"username\""));
    assert!(ask(&[(":authority", &own), ("host", &own)]).contains("\"username\""));
    assert!(ask(&[("host", &own)]).contains("\"username\""));
    let before = world.sandbox.counts().api_requests;
    let refused = ask(&[(":authority", &own), ("host", "evil.example")]);
    assert!(
        refused.contains("badRequest") && refused.contains("different hosts"),
        "{refused}"
    );
    assert!(ask(&[(":authority", "evil.example")]).contains("hostNotAllowed"));
    assert!(ask(&[]).contains("no Host"));
    assert_eq!(world.sandbox.counts().api_requests, before);
}

#[test]
fn f15_what_is_malformed_in_http_2_ends_its_stream_and_never_reaches_upstream() {
    let (world, identity, serving) = serve();
    for fields in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "close")],
        &[("upgrade", "h2c")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "close")],
        &[("te", "gzip")],
        &[(":status", "200")],
        &[("content-length", "5")],
    ] {
        let mut client = Frames::connect(serving.address, &identity);
        let head = client.head(1, "POST", "/sandbox/echo", fields, END_STREAM);
        client.bytes(&head);
        let end = client.find(RST_STREAM);
        let end = end.unwrap_or_else(|| panic!("no reset for {fields:?}"));
        assert_eq!(
            (end.stream, reason(&end)),
            (1, 1),
            "PROTOCOL_ERROR for {fields:?}"
        );
        client.request(3, "GET", "/users");
        assert_eq!(client.wait_for(HEADERS).stream, 3, "the others go on");
    }
    // A name that no field may have is held against the connection.
    let mut client = Frames::connect(serving.address, &identity);
    let head = client.head(1, "POST", "/sandbox/echo", &[("X-Upper", "a")], END_STREAM);
    client.bytes(&head);
    assert_eq!(reason(&client.wait_for(GOAWAY)), 1, "PROTOCOL_ERROR");
    let answered = world.sandbox.counts().api_requests;
    assert_eq!(answered, 8, "the good ones alone");
}

#[test]
fn connect_is_refused_in_http_2_too() {
    let (_world, identity, serving) = serve();
    let mut client = Frames::connect(serving.address, &identity);
    let fields = [(":method", "CONNECT"), (":authority", "evil.example:443")];
    client.bytes(&headers(1, &fields, 0));
    client.wait_for(HEADERS);
    let content = client.wait_for(DATA).payload;
    assert!(String::from_utf8_lossy(&content).contains("policyDenied"));
}

#[test]
fn f09_references_lead_back_to_the_authority_over_tls() {
    let (_world, identity, serving) = serve();
    let client = Http2::connect(serving.address, &identity);
    let answer = client.get("/users?pageSize=2");
    let link = answer.headers["link"].to_str().expect("text");
    let to = format!("<https://localhost:{}/users?", serving.address.port());
    assert!(link.starts_with(&to), "{link}");
}

#[test]
fn f13_content_that_is_cut_resets_its_stream_and_no_other() {
    let (upstream, _world, identity, serving) = raw();
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "/cut");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(
        client.wait_for(DATA).payload,
        b"half",
        "what came before arrives"
    );
    drop(connection);
    let end = client.wait_for(RST_STREAM);
    assert_eq!((end.stream, reason(&end)), (1, 2), "INTERNAL_ERROR");
    client.request(3, "GET", "/whole");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(OK);
    let mut content = Vec::new();
    loop {
        let data = client.wait_for(DATA);
        content.extend(data.payload);
        if data.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(content, b"ok");
}

#[test]
fn f13_what_comes_together_with_the_cut_arrives_before_the_reset() {
    let (upstream, _world, identity, serving) = raw();
    let client = Http2::connect(serving.address, &identity);
    let begun = client.begin(Method::GET, "/x", &[], nothing());
    let mut connection = upstream.accept();
    connection.request();
    connection
        .send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n");
    let answer = begun.answer();
    assert_eq!((answer.text().as_str(), answer.complete), ("half", false));
}

#[test]
fn a_client_that_resets_its_stream_cancels_that_request_alone() {
    let (upstream, _world, identity, serving) = raw();
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "/left");
    let mut left = upstream.accept();
    left.request();
    client.request(3, "GET", "/stays");
    let mut stays = upstream.accept();
    stays.request();
    client.bytes(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    assert!(left.is_closed(), "upstream is told");
    stays.send(OK);
    assert_eq!(client.wait_for(HEADERS).stream, 3);
}

#[test]
fn a_request_whose_client_leaves_before_its_answer_is_logged_as_such() {
    let (mut world, identity) = world();
    world.tables = "[log]\nrequests = true\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/users".to_owned()));
    let serving = world.serve_on(LISTEN);
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "/users");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    client.bytes(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    serving.wait_for_log("/users  the client left before its answer\n");
}

#[test]
fn shutdown_says_goodbye_and_lets_streams_end() {
    let (world, identity, mut serving) = serve();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/users/me".to_owned()));
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "/users/me/profile");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    let idle = Http2::connect(serving.address, &identity);
    assert_eq!(idle.get("/users").status, 200);
    serving.signal(Signal::TERM);
    let goodbye = client.wait_for(GOAWAY);
    assert_eq!(reason(&goodbye), 0, "NO_ERROR");
    idle.wait_for_the_end();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    let answer = client.wait_for(HEADERS);
    assert_eq!((answer.stream, answer.payload[0]), (1, 0x88), ":status 200");
    while client.next().is_some() {}
    assert!(serving.wait().success());
    assert!(!serving.log().contains("are cut"), "{}", serving.log());
}

#[test]
fn a_client_that_does_not_listen_while_it_is_idle_does_not_hold_up_the_end() {
    let (_world, identity, mut serving) = serve();
    let mut deaf = Frames::connect(serving.address, &identity);
    deaf.request(1, "GET", "/users");
    deaf.wait_for(HEADERS);
    while deaf.wait_for(DATA).flags & END_STREAM == 0 {}
    serving.signal(Signal::TERM);
    assert!(serving.wait().success());
    assert!(
        !serving.log().contains("timeouts.drain"),
        "{}",
        serving.log()
    );
}

#[test]
fn an_idle_connection_is_let_go_and_a_long_exchange_is_not_idle() {
    let (mut world, identity) = world();
    world.tables = "[timeouts]\nidle = \"300ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.api_delay = Duration::from_millis(900));
    let serving = world.serve_on(LISTEN);
    let client = Http2::connect(serving.address, &identity);
    assert_eq!(client.get("/users").status, 200, "three times the bound");
    client.wait_for_the_end();
}

#[test]
fn a_client_that_no_longer_answers_is_let_go_and_one_that_does_is_not() {
    let (mut world, identity) = world();
    world.tables = "[timeouts]\nbody = \"300ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/".to_owned()));
    let serving = world.serve_on(LISTEN);
    let mut gone = Frames::connect(serving.address, &identity);
    gone.request(1, "GET", "/users");
    let mut there = Frames::connect(serving.address, &identity);
    there.request(1, "GET", "/users");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 2);
    // The one answers each question, the other reads and answers nothing.
    let there = std::thread::spawn(move || there.wait_for(HEADERS));
    while gone.next().is_some_and(|frame| frame.kind != GOAWAY) {}
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    let answer = there.join().expect("an answer");
    assert_eq!(answer.payload[0], 0x88, ":status 200");
}

#[test]
fn the_bounds_of_a_connection_are_told_and_kept() {
    let (world, identity, serving) = serve();
    let mut client = Frames::connect(serving.address, &identity);
    let settings = client.wait_for(SETTINGS).payload;
    let setting = |wanted: u16| {
        let mut entries = settings.chunks(6);
        let entry = entries.find(|entry| entry[..2] == wanted.to_be_bytes());
        entry.map(|entry| u32::from_be_bytes(entry[2..].try_into().expect("four bytes")))
    };
    assert_eq!(setting(3), Some(128), "SETTINGS_MAX_CONCURRENT_STREAMS");
    // So much more than limits.header_bytes is refused with the reason.
    assert_eq!(setting(6), Some(128 << 10), "SETTINGS_MAX_HEADER_LIST_SIZE");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/users/me".to_owned()));
    for stream in 0..129 {
        client.request(2 * stream + 1, "GET", "/users/me/profile");
    }
    let refused = client.wait_for(RST_STREAM);
    assert_eq!(
        (refused.stream, reason(&refused)),
        (257, 7),
        "REFUSED_STREAM for the 129th"
    );
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    assert_eq!(client.wait_for(HEADERS).payload[0], 0x88, ":status 200");
    let large = "x".repeat(9 << 10);
    let mut other = Frames::connect(serving.address, &identity);
    for (stream, count, kind) in [(1, 1, HEADERS), (3, 8, HEADERS)] {
        let fields = vec![("x-large", large.as_str()); count];
        let block = other.head(stream, "GET", "/sandbox/echo", &fields, END_STREAM);
        for part in split(&block) {
            other.bytes(&part);
        }
        let answer = other.wait_for(kind);
        let is_200 = answer.payload[0] == 0x88;
        assert_eq!((answer.stream, is_200), (stream, count == 1));
    }
}

/// A HEADERS frame as several of at most 16 KiB (RFC 9113 section 6.10).
fn split(head: &[u8]) -> Vec<Vec<u8>> {
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;
    let (stream, block) = (
        u32::from_be_bytes(head[5..9].try_into().expect("four bytes")),
        &head[9..],
    );
    let parts: Vec<_> = block.chunks(16 << 10).collect();
    let flags = |index| {
        if index + 1 == parts.len() {
            END_HEADERS
        } else {
            0
        }
    };
    let part = |(index, part): (usize, &&[u8])| match index {
        0 => frame(HEADERS, END_STREAM | flags(0), stream, part),
        _ => frame(CONTINUATION, flags(index), stream, part),
    };
    parts.iter().enumerate().map(part).collect()
}

#[test]
fn s07_streams_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    let (world, identity, serving) = serve();
    let mut client = Frames::connect(serving.address, &identity);
    client.wait_for(SETTINGS);
    let mut flood = Vec::new();
    // As many as are read at once, and more than may wait to be begun.
    for stream in 0..40 {
        let stream = 2 * stream + 1;
        flood.extend(client.head(stream, "GET", "/users", &[], END_STREAM));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    client.bytes(&flood);
    let end = client.wait_for(GOAWAY);
    assert_eq!(reason(&end), 11, "ENHANCE_YOUR_CALM");
    assert_eq!(world.sandbox.counts().api_requests, 0);
    let other = Http2::connect(serving.address, &identity);
    assert_eq!(other.get("/users").status, 200);
}

#[test]
fn http_2_without_tls_is_not_offered() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(&frame(SETTINGS, 0, 0, &[]));
    assert!(
        client
            .head_if_any()
            .is_none_or(|answer| answer.status >= 400)
    );
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    let url = format!("http://{}/users", serving.address);
    for (choice, outcome) in [("--http2", "1.1 200"), ("--http2-prior-knowledge", "0 000")] {
        let output = Command::new("curl")
            .args([
                "-sS",
                choice,
                &url,
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
            ])
            .output()
            .expect("curl");
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(seen, outcome, "{choice}: {}", errors(&output));
    }
}

#[test]
fn clients_of_http_1_1_and_2_share_a_listener() {
    let (_world, identity, serving) = serve();
    let client = Http2::connect(serving.address, &identity);
    assert_eq!(client.get("/users").status, 200);
    let old = crate::world::tls::connect(serving.address, &identity.client(&["http/1.1"]));
    assert_eq!(
        old.expect("a handshake").conn.alpn_protocol(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(client.get("/users").status, 200);
}
