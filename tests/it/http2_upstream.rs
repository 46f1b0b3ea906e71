//! HTTP/2 towards upstream: the same answers, and no request lost that may be sent again (rule F8).

use std::io::Write;

use lucid_proxy::sandbox::{Timing, Unauthorized};

use crate::replay::{assert_arrived, bytes};
use crate::world::client::Client;
use crate::world::http2::{
    DATA, END_HEADERS, END_STREAM, FrameUpstream, Frames, HEADERS, Http2Front, REFUSED_STREAM,
    RST_STREAM,
};
use crate::world::{Serving, World};

/// A proxy in front of the stand-in, which is reached over TLS and HTTP/2.
fn over_http2(streams: u32, keys: &str) -> (World, Http2Front, Serving) {
    let mut world = World::logged_in();
    let front = Http2Front::start(world.sandbox.address(), streams);
    let bundle = world.directory.path().join("trusted.pem");
    front.tls.write_bundle(&bundle);
    world.upstream = front.tls.origin();
    world.upstream_keys = keys.to_owned();
    world.top = "workers = 1".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = Some(front.tls.origin()));
    let serving = world.serve_with(|command| {
        command.env("SSL_CERT_FILE", bundle);
    });
    (world, front, serving)
}

/// A proxy in front of an upstream that the test writes frame by frame.
fn over_frames() -> (World, FrameUpstream, Serving) {
    over_frames_with("")
}

fn over_frames_with(tables: &str) -> (World, FrameUpstream, Serving) {
    let mut world = World::logged_in();
    world.tables = tables.to_owned();
    let upstream = FrameUpstream::start();
    world.upstream = upstream.origin();
    world.upstream_keys = "http = \"2\"".to_owned();
    world.top = "workers = 1".to_owned();
    let serving = world.serve();
    (world, upstream, serving)
}

/// Sends a request and does not wait for its answer.
fn begin(serving: &Serving, line: &str, body: &[u8]) -> Client {
    let mut client = serving.connect();
    client.request(line, &[], body);
    client
}

/// The content of a request that has begun.
fn content(frames: &mut Frames, stream: u32) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let frame = frames.next(&[DATA]).expect("content");
        assert_eq!(frame.stream, stream);
        content.extend(frame.payload);
        if frame.flags & END_STREAM != 0 {
            return content;
        }
    }
}

#[test]
fn an_upstream_that_prefers_http2_gets_it_and_is_asked_on_one_connection() {
    let (world, front, serving) = over_http2(200, "");
    let response = serving.get("/users?pageSize=2");
    assert_eq!(response.status, 200, "{}", response.text());
    let link = response.header("link").expect("a next page");
    let here = format!("<http://{}/users?", serving.address);
    assert!(link.starts_with(&here), "{link}");
    let clients: Vec<_> = (0..50)
        .map(|number| {
            begin(
                &serving,
                &format!("GET /users?pageSize={}", number + 1),
                b"",
            )
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(front.connections(), 1);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn where_upstream_allows_few_streams_there_are_more_connections() {
    let (_world, upstream, serving) = over_frames();
    let mut client = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept_allowing(1);
    let stream = frames.request();
    frames.answer(stream);
    assert_eq!(client.response().status, 200);
    let mut first = begin(&serving, "GET /users", b"");
    let stream = frames.request();
    let mut second = begin(&serving, "GET /users", b"");
    let mut others = upstream.accept_allowing(1);
    let other = others.request();
    others.answer(other);
    assert_eq!(second.response().status, 200);
    frames.answer(stream);
    assert_eq!(first.response().status, 200);
}

#[test]
fn the_configured_version_alone_is_spoken() {
    let (_world, front, serving) = over_http2(200, "http = \"1\"");
    // The front end offers HTTP/2 alone.
    let response = serving.get("/users");
    assert_eq!(response.code(), "upstreamUnreachable");
    assert!(front.connections() >= 1);

    let mut world = World::logged_in();
    world.upstream_keys = "http = \"2\"".to_owned();
    let front = crate::world::tls::TlsFront::start(world.sandbox.address());
    let bundle = world.directory.path().join("trusted.pem");
    front.write_bundle(&bundle);
    world.upstream = front.origin();
    let serving = world.serve_with(|command| {
        command.env("SSL_CERT_FILE", bundle);
    });
    let response = serving.get("/users");
    assert_eq!(response.code(), "upstreamUnreachable");
    assert!(
        response
            .text()
            .contains("does not speak HTTP/2; set upstream.http"),
        "{}",
        response.text()
    );
}

#[test]
fn f05_a_body_is_replayed_on_the_same_connection() {
    let (world, front, serving) = over_http2(200, "");
    let body: Vec<u8> = (0..300_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    for timing in [
        Timing::AtHead,
        Timing::AfterBytes(100_000),
        Timing::AfterBody,
    ] {
        world.sandbox.change(|behaviour| {
            behaviour.unauthorized = Unauthorized {
                timing,
                ..Unauthorized::default()
            };
        });
        for _ in 0..20 {
            world.sandbox.expire_access_tokens();
            let response = serving.connect().ask("POST /sandbox/echo", &[], &body);
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.json()["body_length"], body.len());
            assert!(
                response
                    .header("proxy-status")
                    .is_some_and(|status| status.contains("replayed")),
            );
        }
    }
    assert_eq!(front.connections(), 1);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn f08_a_refused_stream_is_sent_again_whatever_its_method() {
    let (_world, upstream, serving) = over_frames();
    let mut client = begin(&serving, "POST /documents", b"{\"title\":\"once\"}");
    let mut frames = upstream.accept();
    let stream = frames.request();
    frames.reset(stream, REFUSED_STREAM);
    let again = frames.request();
    assert_eq!(content(&mut frames, again), b"{\"title\":\"once\"}");
    frames.answer(again);
    assert_eq!(client.response().status, 200);
}

#[test]
fn f08_a_stream_that_is_refused_for_ever_is_answered() {
    let (_world, upstream, serving) = over_frames();
    let mut client = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept();
    for _ in 0..5 {
        let stream = frames.request();
        frames.reset(stream, REFUSED_STREAM);
    }
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (502, "upstreamUnreachable")
    );
    assert!(
        response.text().contains("refused the request"),
        "{}",
        response.text()
    );
}

#[test]
fn f08_what_a_goaway_leaves_out_is_sent_on_another_connection() {
    let (_world, upstream, serving) = over_frames();
    let mut first = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept();
    let before = frames.request();
    let mut second = begin(&serving, "POST /documents", b"content");
    let after = frames.request();
    assert!(after > before);
    frames.go_away(before);
    let mut others = upstream.accept();
    let again = others.request();
    assert_eq!(content(&mut others, again), b"content");
    others.answer(again);
    assert_eq!(second.response().status, 200);
    // What is not left out ends where it began, and nothing new begins there.
    frames.answer(before);
    assert_eq!(first.response().status, 200);
    let mut third = begin(&serving, "GET /users", b"");
    let stream = others.request();
    others.answer(stream);
    assert_eq!(third.response().status, 200);
}

#[test]
fn f08_a_post_that_upstream_may_have_processed_is_not_sent_again() {
    let (_world, upstream, serving) = over_frames();
    let mut client = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept();
    let stream = frames.request();
    frames.answer(stream);
    assert_eq!(client.response().status, 200);
    let mut post = begin(&serving, "POST /documents", b"content");
    let mut get = begin(&serving, "GET /users", b"");
    frames.request();
    frames.request();
    drop(frames);
    let response = post.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (502, "upstreamUnreachable")
    );
    // Positive control: what is idempotent is.
    let mut frames = upstream.accept();
    let stream = frames.request();
    frames.answer(stream);
    assert_eq!(get.response().status, 200);
}

#[test]
fn f13_an_answer_that_is_reset_looks_cut() {
    let (_world, upstream, serving) = over_frames();
    let mut first = Some(begin(&serving, "GET /users", b""));
    let mut frames = upstream.accept();
    // One that says that nothing is wrong is no end either.
    for reason in [2, 0] {
        let again = || begin(&serving, "GET /users", b"");
        let mut client = first.take().unwrap_or_else(again);
        let stream = frames.request();
        frames.begin_answer(stream);
        frames.send(DATA, 0, stream, b"half");
        let mut response = client.head();
        frames.reset(stream, reason);
        assert!(!client.chunks(&mut response.body), "{reason}");
        assert_eq!(response.body, b"half", "{reason}");
    }
}

#[test]
fn f13_a_request_that_breaks_off_is_reset_and_not_ended() {
    let (_world, upstream, serving) = over_frames();
    let mut client = serving.connect();
    client.request("POST /documents", &["Content-Length: 10"], b"");
    client.send(b"half");
    let mut frames = upstream.accept();
    let stream = frames.request();
    let frame = frames.next(&[DATA]).expect("content");
    assert_eq!(
        (frame.flags & END_STREAM, &frame.payload[..]),
        (0, &b"half"[..])
    );
    drop(client);
    let frame = frames.next(&[DATA, RST_STREAM]).expect("the end");
    assert_eq!((frame.kind, frame.stream), (RST_STREAM, stream));
}

#[test]
fn f03_over_http_2_upstream_learns_too_that_a_client_takes_trailers() {
    let (_world, _front, serving) = over_http2(100, "");
    let response = serving
        .connect()
        .ask("GET /sandbox/echo", &["TE: trailers"], b"");
    let headers = response.json()["headers"].to_string();
    assert!(headers.contains(r#"["te","trailers"]"#), "{headers}");
    assert!(!headers.contains(r#"["connection""#), "{headers}");
}

#[test]
fn f05_over_http_2_an_upload_that_is_recorded_on_disk_is_replayed() {
    let (world, _front, serving) = over_http2(100, "");
    let body = bytes(5 << 20);
    for timing in [
        Timing::AtHead,
        Timing::AfterBytes(3 << 20),
        Timing::AfterBody,
    ] {
        world
            .sandbox
            .change(|behaviour| behaviour.unauthorized.timing = timing);
        world.sandbox.expire_access_tokens();
        let response = serving.connect().ask("POST /sandbox/echo", &[], &body);
        assert_arrived(&response, &body, &serving);
        assert!(response.header("proxy-status").is_some(), "{timing:?}");
    }
    assert_eq!(world.sandbox.counts().token_posts, 3);
}

#[test]
fn f18_an_upload_whose_answer_is_over_goes_on_until_it_stands_still() {
    let (_world, upstream, serving) = over_frames_with("[timeouts]\nbody = \"300ms\"\n");
    let mut client = serving.connect();
    client.request("POST /documents", &["Content-Length: 10"], b"");
    client.send(b"half");
    let mut frames = upstream.accept();
    let stream = frames.request();
    assert_eq!(frames.next(&[DATA]).expect("content").payload, b"half");
    frames.answer(stream);
    assert_eq!(client.head().status, 200);
    client.send(b"rest");
    assert_eq!(frames.next(&[DATA]).expect("more").payload, b"rest");
    let frame = frames.next(&[RST_STREAM]).expect("the end");
    assert_eq!(frame.stream, stream);
    // The place is free for others.
    let mut other = begin(&serving, "GET /users", b"");
    let stream = frames.next(&[HEADERS]).expect("a request").stream;
    frames.answer(stream);
    assert_eq!(other.response().status, 200);
}

#[test]
fn f17_over_http_2_the_client_is_asked_too() {
    let (_world, upstream, serving) = over_frames();
    let mut client = serving.connect();
    let headers = ["Expect: 100-continue", "Content-Length: 7"];
    client.request("POST /documents", &headers, b"");
    let mut frames = upstream.accept();
    let stream = frames.request();
    assert_eq!(client.head().status, 100);
    client.send(b"content");
    assert_eq!(frames.next(&[DATA]).expect("it").payload, b"content");
    frames.answer(stream);
    assert_eq!(client.head().status, 200);
}

const OK: u8 = 0x88;
const LOG: &str = "[log]\nrequests = true\n";

/// The log's line of the request with this target.
fn line(serving: &Serving, target: &str) -> String {
    serving.wait_for_log(target);
    let log = serving.log();
    let line = log.lines().find(|line| line.contains(target));
    line.expect("it is there").to_owned()
}

#[test]
fn f13_an_answer_whose_stream_ends_after_its_length_is_whole() {
    let (_world, upstream, serving) = over_frames_with(LOG);
    let mut client = begin(&serving, "GET /whole", b"");
    let mut frames = upstream.accept();
    let first = frames.request();
    frames.begin_answer_of(first, OK, 2);
    frames.send(DATA, 0, first, b"ok");
    assert_eq!(client.response().body, b"ok");
    assert!(!line(&serving, "/whole").contains("cut off"));
    // Its end is waited for, and comes where others have begun.
    client.request("GET /next", &[], b"");
    let next = frames.next(&[HEADERS, RST_STREAM]).expect("a frame");
    assert_eq!(next.kind, HEADERS);
    frames.send(DATA, END_STREAM, first, b"");
    frames.answer(next.stream);
    assert_eq!(client.response().status, 200);
    // Positive control: one that breaks off is not.
    client.request("GET /cut", &[], b"");
    let stream = frames.request();
    frames.begin_answer_of(stream, OK, 3);
    frames.send(DATA, 0, stream, b"ok");
    assert_eq!(client.head().status, 200);
    frames.reset(stream, 2);
    assert!(line(&serving, "/cut").contains("cut off"));
}

#[test]
fn f12_a_stream_that_does_not_end_behind_its_content_is_given_up() {
    let tables = format!("[timeouts]\nbody = \"300ms\"\n{LOG}");
    let (_world, upstream, serving) = over_frames_with(&tables);
    let mut client = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept();
    let stream = frames.request();
    frames.begin_answer_of(stream, OK, 2);
    frames.send(DATA, 0, stream, b"ok");
    assert_eq!(client.response().body, b"ok");
    let frame = frames.next(&[RST_STREAM]).expect("a reset");
    assert_eq!(frame.stream, stream);
    assert!(!line(&serving, "/users").contains("cut off"));
}

#[test]
fn f13_an_answer_that_can_have_no_content_is_whole_wherever_its_stream_ends() {
    const NO_CONTENT: u8 = 0x89;
    const NOT_MODIFIED: u8 = 0x8b;
    let (_world, upstream, serving) = over_frames_with(LOG);
    let mut client = serving.connect();
    let mut connection = None;
    for (asked, status, length) in [
        ("HEAD /sized", OK, Some(2)),
        ("HEAD /unsized", OK, None),
        ("GET /none", NO_CONTENT, None),
        ("GET /unmodified", NOT_MODIFIED, None),
    ] {
        client.request(asked, &[], b"");
        let frames = connection.get_or_insert_with(|| upstream.accept());
        let frame = frames.next(&[HEADERS, RST_STREAM]).expect("a frame");
        assert_eq!(frame.kind, HEADERS, "before {asked}");
        match length {
            Some(length) => frames.begin_answer_of(frame.stream, status, length),
            None => frames.send(HEADERS, END_HEADERS, frame.stream, &[status]),
        }
        let response = client.head();
        let length = length.map(|length| length.to_string());
        assert_eq!(response.header("content-length"), length.as_deref());
        let (_, target) = asked.split_once(' ').expect("a target");
        assert!(!line(&serving, target).contains("cut off"), "{asked}");
        frames.send(DATA, END_STREAM, frame.stream, b"");
    }
}

#[test]
fn f04_f18_upstream_gets_the_rest_behind_an_answer_whose_stream_ends_after_its_length() {
    let (_world, upstream, serving) = over_frames_with(LOG);
    let mut connection = None;
    for ends_first in [true, false] {
        let mut client = serving.connect();
        client.request("POST /documents", &["Content-Length: 8"], b"");
        client.send(b"half");
        let frames = connection.get_or_insert_with(|| upstream.accept());
        let stream = frames.request();
        assert_eq!(frames.next(&[DATA]).expect("content").payload, b"half");
        frames.begin_answer_of(stream, OK, 2);
        frames.send(DATA, 0, stream, b"ok");
        if ends_first {
            frames.send(DATA, END_STREAM, stream, b"");
        }
        assert_eq!(client.response().body, b"ok");
        client.send(b"rest");
        let frame = frames.next(&[DATA, RST_STREAM]).expect("the rest");
        assert_eq!((frame.kind, &frame.payload[..]), (DATA, &b"rest"[..]));
        assert_eq!(frame.flags & END_STREAM, END_STREAM);
        frames.send(DATA, END_STREAM, stream, b"");
    }
    assert!(!serving.log().contains("cut off"));
}

const SHORT: &str = "[timeouts]\nbody = \"300ms\"\n";

/// Sends a request whose content upstream has no room for.
fn overfill(serving: &Serving) -> Client {
    const LENGTH: usize = 1 << 20;
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {LENGTH}")], b"");
    let mut stream = client.second_handle();
    std::thread::spawn(move || stream.write_all(&vec![7; LENGTH]));
    client
}

/// Reads what upstream has room for on a connection that has just begun.
fn fill(frames: &mut Frames) {
    let mut got = 0;
    while got < 65_535 {
        got += frames.next(&[DATA]).expect("content").payload.len();
    }
}

#[test]
fn f12_f18_an_upload_that_upstream_takes_no_more_of_is_reset_and_its_place_free() {
    let (_world, upstream, serving) = over_frames_with(SHORT);
    let mut client = overfill(&serving);
    let mut frames = upstream.accept_allowing(1);
    let stream = frames.request();
    fill(&mut frames);
    frames.answer(stream);
    assert_eq!(client.response().status, 200);
    let frame = frames.next(&[RST_STREAM]).expect("a reset");
    assert_eq!(frame.stream, stream);
    let mut other = begin(&serving, "GET /users", b"");
    let stream = frames.request();
    frames.answer(stream);
    assert_eq!(other.response().status, 200);
}

#[test]
fn f05_an_upload_that_stands_still_is_reset_where_it_is_replayed() {
    let (_world, upstream, serving) = over_frames();
    let mut client = overfill(&serving);
    let mut frames = upstream.accept();
    let first = frames.request();
    fill(&mut frames);
    let unauthorized = b"\x08\x03401";
    frames.send(HEADERS, END_HEADERS | END_STREAM, first, unauthorized);
    let mut seen = [HEADERS, RST_STREAM].map(|_| {
        let frame = frames.next(&[HEADERS, RST_STREAM]).expect("a frame");
        (frame.kind, frame.stream)
    });
    seen.sort_unstable();
    let [(HEADERS, replay), (RST_STREAM, reset)] = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(reset, first);
    frames.answer(replay);
    assert_eq!(client.response().status, 200);
}

#[test]
fn f12_f18_content_that_waits_for_room_behind_an_answer_is_sent_in_bounded_time() {
    let (_world, upstream, serving) = over_frames_with(SHORT);
    let mut client = begin(&serving, "GET /users", b"");
    let mut frames = upstream.accept_taking(0);
    let stream = frames.request();
    frames.answer(stream);
    assert_eq!(client.response().status, 200);
    for has_room in [true, false] {
        client.request("POST /documents", &[], b"content");
        let stream = frames.request();
        frames.answer(stream);
        assert_eq!(client.response().status, 200);
        if has_room {
            frames.open_window(stream, 100);
            assert_eq!(content(&mut frames, stream), b"content");
        } else {
            let frame = frames.next(&[DATA, RST_STREAM]).expect("a reset");
            assert_eq!((frame.kind, frame.stream), (RST_STREAM, stream));
        }
    }
}
