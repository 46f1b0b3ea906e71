//! Rule F12: every wait has a bound, and no bound cuts what moves. Each side is slow, silent, and cut.
//!
//! Where something is slow, it takes several times the bound in all, and less than half of it for each step.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use http::Method;

use crate::world::client::{Client, is_late};
use crate::world::frames::{
    DATA, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame,
};
use crate::world::http2_client::Http2;
use crate::world::raw_upstream::{Connection, RawUpstream};
use crate::world::tls::{self, Identity};
use crate::world::{SOON, Serving, World};

const STEP: Duration = Duration::from_millis(150);
const BOUND: &str = "500ms";
const STEPS: usize = 10;

/// More than fits into all buffers on the way.
const LARGE: usize = 64 << 20;

/// A proxy in front of an upstream that is written by hand, with these bounds.
fn raw(bounds: &str) -> (RawUpstream, World, Serving) {
    raw_on("\"127.0.0.1:0\"", bounds)
}

fn raw_on(listen: &str, bounds: &str) -> (RawUpstream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = format!("[timeouts]\n{bounds}\n[log]\nrequests = true\n");
    let serving = world.serve_on(&format!("[{listen}]"));
    (upstream, world, serving)
}

fn body_bound() -> String {
    format!("body = \"{BOUND}\"")
}

/// Answers the next request with so many bytes; what is returned says whether the proxy took them all.
fn answering(upstream: &RawUpstream, length: usize) -> JoinHandle<io::Result<()>> {
    let mut connection = upstream.accept();
    connection.request();
    let mut handle = connection.second_handle();
    std::thread::spawn(move || {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        handle.write_all(head.as_bytes())?;
        handle.write_all(&vec![b'x'; length])
    })
}

/// Sends a request and reads nothing until the proxy has given up; then all that is left.
fn takes_nothing(mut stream: impl Read + Write, host: &str, upstream: &RawUpstream) {
    let request = format!("GET /large HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream.flush().expect("sent");
    let sent = answering(upstream, LARGE).join().expect("no panic");
    let error = sent.expect_err("the proxy has not taken all");
    assert!(!is_late(&error), "upstream is held for ever");
    let mut seen = Vec::new();
    // By a reset, or without any end of TLS.
    let end = stream.read_to_end(&mut seen);
    assert!(end.err().is_none_or(|error| !is_late(&error)));
    assert!(seen.len() < LARGE, "it is not whole");
}

#[test]
fn f12_a_client_that_takes_nothing_of_a_response_is_let_go() {
    let (upstream, _world, serving) = raw(&body_bound());
    let stream = TcpStream::connect(serving.address).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    takes_nothing(stream, &serving.address.to_string(), &upstream);
    serving.wait_for_log("cut off");

    let (upstream, world, serving) = raw_on("\"unix:proxy.sock\"", &body_bound());
    let stream = UnixStream::connect(world.directory.path().join("proxy.sock"));
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    takes_nothing(stream, "localhost", &upstream);
    serving.wait_for_log("cut off");

    let (upstream, identity, _world, serving) = over_tls(&body_bound());
    let stream = tls::connect(serving.address, &identity.client(&[])).expect("TLS");
    let host = format!("localhost:{}", serving.address.port());
    takes_nothing(stream, &host, &upstream);
    serving.wait_for_log("cut off");
}

/// The same proxy, to be spoken to over TLS.
fn over_tls(bounds: &str) -> (RawUpstream, Identity, World, Serving) {
    let upstream = RawUpstream::start();
    let identity = Identity::new();
    let mut world = World::logged_in();
    identity.write(world.directory.path());
    world.upstream = upstream.origin();
    world.tables = format!("[timeouts]\n{bounds}\n[log]\nrequests = true\n");
    let serving = world.serve_on(
        "[{ address = \"127.0.0.1:0\", certificate_file = \"tls.crt\", key_file = \"tls.key\" }]",
    );
    (upstream, identity, world, serving)
}

#[test]
fn f12_a_client_that_is_slow_to_take_a_response_gets_all_of_it() {
    const LENGTH: usize = 5 << 20;
    // The system says that there is room again when a third of megabytes has gone: more than is read within the bound.
    let (upstream, _world, serving) = raw("body = \"1s\"");
    let mut client = Client::connect_with_little_room(serving.address);
    client.request("GET /large", &[], b"");
    let sent = answering(&upstream, LENGTH);
    let head = client.head();
    assert_eq!(head.status, 200);
    for _ in 0..LENGTH / (64 << 10) {
        sleep(Duration::from_millis(100));
        assert_eq!(client.take(64 << 10), 64 << 10, "it is cut");
    }
    sent.join().expect("no panic").expect("all was sent");
}

#[test]
fn f12_what_the_proxy_still_has_of_a_response_is_no_idle_connection() {
    // More than the system holds of a unix socket (net.core.wmem_default), and with that no more than the proxy holds.
    const LENGTH: usize = 400_000;
    let (upstream, world, _serving) = raw_on("\"unix:proxy.sock\"", "idle = \"300ms\"");
    let stream = UnixStream::connect(world.directory.path().join("proxy.sock"));
    let mut stream = stream.expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let sent = answering(&upstream, LENGTH).join().expect("no panic");
    sent.expect("the proxy has taken it, or is about to");
    // Several times the bound, and what is left to a request that is on its way then.
    sleep(Duration::from_secs(2));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end in order");
    let content = answer.iter().filter(|byte| **byte == b'x').count();
    assert!(content >= LENGTH, "{content}");
}

const REFUSED: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much";
/// Each a [`STEP`] behind the last: several times the bound, and what is left to a request that is on its way then.
const PIECES: usize = 2 * STEPS;

#[test]
fn f12_f18_a_client_whose_request_is_read_behind_its_answer_is_not_idle() {
    const PIECE: usize = 64 << 10;
    let (upstream, identity, _world, serving) = over_tls("idle = \"300ms\"");
    let stream = tls::connect(serving.address, &identity.client(&[])).expect("TLS");
    let mut client = BufReader::new(stream);
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: {}\r\n\r\n",
        serving.address.port(),
        PIECES * PIECE
    );
    client.get_mut().write_all(head.as_bytes()).expect("sent");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(REFUSED);
    drop(connection);
    for _ in 0..PIECES {
        sleep(STEP);
        let sent = client.get_mut().write_all(&[b'x'; PIECE]);
        sent.expect("all of it is taken");
    }
    let mut line = String::new();
    client.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 413 "), "{line}");
}

#[test]
fn f12_f18_over_http_2_a_client_whose_request_is_read_behind_its_answer_is_not_idle() {
    let (upstream, identity, _world, serving) = over_tls("idle = \"300ms\"");
    let mut client = Frames::connect(serving.address, &identity);
    let head = client.head(1, "POST", "/x", &[], 0);
    client.bytes(&head);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(REFUSED);
    drop(connection);
    assert_eq!(client.wait_for(DATA).payload, b"too much");
    for _ in 0..PIECES {
        sleep(STEP);
        client.bytes(&frame(DATA, 0, 1, b"x"));
    }
    client.bytes(&frame(DATA, END_STREAM, 1, b""));
    // The connection has been kept for this.
    client.request(3, "GET", "/oauth2/x");
    assert_eq!(client.wait_for(HEADERS).stream, 3);
    // Positive control: with nothing to read it is idle, and told so.
    client.wait_for(GOAWAY);
}

#[test]
fn f12_a_client_that_leaves_in_the_middle_of_a_response_holds_nothing() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("GET /large", &[], b"");
    let sent = answering(&upstream, LARGE);
    assert_eq!(client.head().status, 200);
    drop(client);
    let error = sent.join().expect("no panic").expect_err("nobody takes it");
    assert!(!is_late(&error), "upstream is held for ever");
    serving.wait_for_log("cut off");
}

#[test]
fn f12_a_stream_that_a_client_does_not_take_is_reset_and_no_other() {
    let (upstream, identity, _world, serving) = over_tls(&body_bound());
    let mut client = Frames::connect(serving.address, &identity);
    client.open_window(0, 1 << 30);
    client.request(1, "GET", "/large");
    let sent = answering(&upstream, LARGE);
    let mut taken = 0;
    while taken < 65_535 {
        let data = client.wait_for(DATA);
        assert_eq!(data.stream, 1);
        taken += data.payload.len();
    }
    // While that one stands still, others are served, and one that is taken slowly goes on.
    client.request(3, "GET", "/slow");
    let slow = answering(&upstream, 65_535 + STEPS * (16 << 10));
    let (mut taken, mut resets) = (0, Vec::new());
    let mut opened = 0;
    while taken < 65_535 + STEPS * (16 << 10) {
        let next = client.next().expect("the connection goes on");
        match next.kind {
            DATA if next.stream == 3 => taken += next.payload.len(),
            DATA => panic!("{next:?}"),
            RST_STREAM => resets.push(next.stream),
            SETTINGS if next.flags == 0 => client.bytes(&frame(SETTINGS, 1, 0, b"")),
            6 if next.flags == 0 => client.bytes(&frame(6, 1, 0, &next.payload)),
            _ => {}
        }
        if taken >= 65_535 + opened * (16 << 10) && opened < STEPS {
            sleep(STEP);
            client.open_window(3, 16 << 10);
            opened += 1;
        }
    }
    slow.join().expect("no panic").expect("all was sent");
    assert_eq!(resets, [1]);
    let error = sent.join().expect("no panic").expect_err("nobody takes it");
    assert!(!is_late(&error), "upstream is held for ever");
    serving.wait_for_log("cut off");
}

#[test]
fn f12_a_small_answer_that_is_not_taken_is_reset_too() {
    let (upstream, identity, _world, serving) = over_tls(&body_bound());
    let mut client = Frames::connect(serving.address, &identity);
    // SETTINGS_INITIAL_WINDOW_SIZE.
    client.bytes(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    client.request(1, "GET", "/small");
    let sent = answering(&upstream, 10);
    assert_eq!(client.wait_for(HEADERS).stream, 1);
    assert_eq!(client.wait_for(RST_STREAM).stream, 1);
    sent.join().expect("no panic").expect("all was sent");
    serving.wait_for_log("cut off");
    // Positive control: what is taken is not.
    client.request(3, "GET", "/small");
    let sent = answering(&upstream, 10);
    assert_eq!(client.wait_for(HEADERS).stream, 3);
    client.open_window(3, 10);
    assert_eq!(client.wait_for(DATA).payload.len(), 10);
    sent.join().expect("no panic").expect("all was sent");
}

#[test]
fn f12_a_client_that_is_silent_in_its_request_is_told_so_and_a_slow_one_is_served() {
    let (upstream, _world, serving) = raw(&body_bound());
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = serving.connect();
        client.request("POST /x", &[framing], b"");
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        let response = client.response();
        assert_eq!(
            (response.status, response.code().as_str()),
            (408, "requestTimeout")
        );
        assert!(
            response.text().contains("timeouts.body"),
            "{}",
            response.text()
        );
        assert_eq!(response.header("connection"), Some("close"));
        let status = response.header("proxy-status").expect("a field");
        assert!(status.contains("error=http_request_error"), "{status}");
        assert_eq!(connection.rest(), b"", "no end that looks whole");
    }
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {STEPS}")], b"");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    for _ in 0..STEPS {
        sleep(STEP);
        client.send(b"x");
        assert_eq!(connection.read(1), b"x");
    }
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

#[test]
fn f12_over_http_2_a_client_that_is_silent_in_its_request_is_told_so_too() {
    let (upstream, identity, _world, serving) = over_tls(&body_bound());
    let mut client = Frames::connect(serving.address, &identity);
    let head = client.head(1, "POST", "/x", &[("content-length", "10")], 0);
    client.bytes(&head);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    let answer = client.wait_for(HEADERS);
    assert_eq!(answer.stream, 1);
    let content = String::from_utf8_lossy(&client.wait_for(DATA).payload).into_owned();
    assert!(content.contains("requestTimeout"), "{content}");
    let other = Http2::connect(serving.address, &identity);
    let begun = other.begin(
        Method::GET,
        "/x",
        &[],
        crate::world::http2_client::nothing(),
    );
    answering(&upstream, 2)
        .join()
        .expect("no panic")
        .expect("sent");
    assert_eq!(begun.answer().body, b"xx");
}

#[test]
fn f12_a_client_that_breaks_off_in_its_request_leaves_nothing_whole_behind() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("POST /x", &["Content-Length: 10"], b"");
    client.send(b"half");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    assert_eq!(connection.read(4), b"half");
    drop(client);
    assert!(connection.is_closed());
}

#[test]
fn f12_an_upstream_that_takes_nothing_of_a_request_is_told_by_its_name() {
    let (upstream, _world, serving) = raw(&body_bound());
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {LARGE}")], b"");
    let mut handle = client.second_handle();
    // It is read to the end, or cut where it has seen the answer.
    let sending = std::thread::spawn(move || drop(handle.write_all(&vec![b'x'; LARGE])));
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (504, "upstreamTimeout")
    );
    assert!(
        response
            .text()
            .contains("upstream took nothing of the request body"),
        "{}",
        response.text()
    );
    let status = response.header("proxy-status").expect("a field");
    assert!(
        status.contains("error=connection_write_timeout"),
        "{status}"
    );
    sending.join().expect("no panic");
}

#[test]
fn f12_an_upstream_that_is_slow_to_take_a_request_gets_all_of_it() {
    const LENGTH: usize = 3 << 20;
    const PIECE: usize = 64 << 10;
    let upstream = RawUpstream::start_with_little_room();
    let mut world = World::logged_in();
    world.upstream = upstream.origin();
    world.upstream_keys = "response_timeout = \"1s\"".to_owned();
    world.tables = "[timeouts]\nbody = \"1s\"\n".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {LENGTH}")], b"");
    let mut handle = client.second_handle();
    let sending = std::thread::spawn(move || handle.write_all(&vec![b'x'; LENGTH]));
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    for _ in 0..LENGTH / PIECE {
        sleep(Duration::from_millis(100));
        assert_eq!(connection.read(PIECE).len(), PIECE, "it is cut");
    }
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    sending.join().expect("no panic").expect("all was sent");
}

#[test]
fn f12_an_upstream_that_is_slow_in_its_answer_is_waited_for() {
    let (upstream, _world, serving) = raw(&body_bound());
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..STEPS {
        sleep(STEP);
        connection.send(b"1\r\nx\r\n");
    }
    connection.send(b"0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.body.len(), response.complete), (STEPS, true));
}

#[test]
fn f12_the_head_of_an_answer_has_one_bound_however_it_comes() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.upstream_keys = format!("response_timeout = \"{BOUND}\"");
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    let slowly = std::thread::spawn(move || dribble(&mut connection));
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (504, "upstreamTimeout")
    );
    slowly.join().expect("no panic");
}

/// Sends a head that does not end, until the proxy has closed.
fn dribble(connection: &mut Connection) {
    let mut handle = connection.second_handle();
    handle
        .write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")
        .expect("it is there");
    for _ in 0..200 {
        if handle.write_all(b"x").is_err() {
            return;
        }
        sleep(STEP);
    }
    panic!("it is read for ever");
}

#[test]
fn f12_the_head_of_a_request_has_one_bound_however_it_comes() {
    let (_upstream, _world, serving) =
        raw(&format!("first_request = \"{BOUND}\"\nidle = \"{BOUND}\""));
    let head = format!("GET /oauth2/x HTTP/1.1\r\nHost: {}\r\n", serving.address);
    let mut first = serving.connect();
    first.send(head.as_bytes());
    let mut later = serving.connect();
    assert_eq!(later.ask("GET /oauth2/x", &[], b"").status, 403);
    later.send(head.as_bytes());
    for client in [&mut first, &mut later] {
        let mut handle = client.second_handle();
        let sent = (0..200).find(|_| {
            sleep(STEP);
            handle.write_all(b"X: y\r\n").is_err()
        });
        assert!(sent.is_some(), "it is read for ever");
        assert!(client.is_closed());
    }
}
