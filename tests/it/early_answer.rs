//! Rule F18: an answer that comes before the request is over reaches the client, also one that sends all before it reads.

use std::io::Write;
use std::thread::JoinHandle;

use rustix::process::Signal;

use crate::world::raw_upstream::{Connection, RawUpstream};
use crate::world::{Client, SOON, Serving, World};

/// More than all buffers on the way hold.
const LARGE: usize = 24 << 20;
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much";

fn raw(tables: &str) -> (RawUpstream, World, Serving) {
    raw_with("", tables)
}

fn raw_with(top: &str, tables: &str) -> (RawUpstream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.top = top.to_owned();
    world.tables = tables.to_owned();
    let serving = world.serve();
    (upstream, world, serving)
}

/// A client that sends so much before it reads anything.
fn sending_all(client: Client, length: usize) -> JoinHandle<Client> {
    std::thread::spawn(move || {
        let mut stream = client.second_handle();
        stream
            .write_all(&vec![7; length])
            .expect("all of it is taken");
        client
    })
}

fn upload(serving: &Serving) -> Client {
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {LARGE}")], b"");
    client
}

#[test]
fn f18_an_early_answer_reaches_a_client_that_sends_everything_first() {
    let ends: [fn(Connection); 3] = [
        // With unread bytes on it: it is reset.
        drop,
        // It says that it is done, and does not read.
        |connection| {
            connection.finish();
            std::mem::forget(connection);
        },
        // It takes the rest all the same.
        |mut connection| {
            std::thread::spawn(move || connection.read(LARGE - 5));
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (upstream, _world, serving) = raw("");
        let sending = sending_all(upload(&serving), LARGE);
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        connection.read(5);
        connection.send(TOO_LARGE);
        end(connection);
        let mut client = sending.join().expect("no panic");
        let response = client.response();
        assert_eq!(
            (response.status, response.complete),
            (413, true),
            "{number}"
        );
        assert_eq!(response.text(), "too much");
        // All of the request was read, so the connection is good for another.
        client.request("GET /next", &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(client.head().status, 204, "{number}");
    }
}

#[test]
fn f18_an_answer_of_the_proxy_itself_reaches_such_a_client_too() {
    let world = World::new();
    let serving = world.serve();
    let length = format!("Content-Length: {LARGE}");
    for (line, header, status) in [
        ("POST /x", "X-None: 1", 503),
        ("POST /x", "Sec-Fetch-Site: cross-site", 403),
        ("POST /oauth2/token", "X-None: 1", 413),
        ("POST /x", "Via: 1.1 lucid-proxy", 508),
    ] {
        let mut client = serving.connect();
        client.request(line, &[header, &length], b"");
        let mut client = sending_all(client, LARGE).join().expect("no panic");
        let response = client.response();
        assert_eq!(
            (response.status, response.complete),
            (status, true),
            "{line} {header}"
        );
    }
    assert_eq!(world.sandbox.counts().api_requests, 0);
}

#[test]
fn f18_a_401_that_is_not_cured_reaches_such_a_client_too() {
    let (upstream, world, serving) = raw("[replay]\nmemory = \"0 B\"\ndisk = \"0 B\"\n");
    let sending = sending_all(upload(&serving), LARGE);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.read(5);
    connection.send(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    drop(connection);
    let mut client = sending.join().expect("no panic");
    let response = client.response();
    assert_eq!(response.status, 401);
    let status = response.header("proxy-status").expect("it says why");
    assert!(status.contains("larger than replay.memory"), "{status}");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
}

#[test]
fn f18_upstream_gets_the_rest_of_a_request_that_it_has_answered() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("POST /x", &["Transfer-Encoding: chunked"], b"");
    client.send(b"5\r\nfirst\r\n");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    assert_eq!(connection.read(10), b"5\r\nfirst\r\n");
    connection.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (202, "ok"));
    client.send(b"4\r\nrest\r\n0\r\n\r\n");
    assert_eq!(connection.read(14), b"4\r\nrest\r\n0\r\n\r\n");
    assert!(
        connection.is_closed(),
        "the connection ends with the exchange"
    );
    client.request("GET /next", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(TOO_LARGE);
    assert_eq!(client.response().status, 413);
}

#[test]
fn f18_the_rest_is_read_for_a_bounded_time() {
    let (upstream, _world, serving) = raw("[timeouts]\nlinger = \"300ms\"\n");
    for keeps_sending in [true, false] {
        let mut client = serving.connect();
        client.request("POST /x", &["Transfer-Encoding: chunked"], b"");
        client.send(b"5\r\nfirst\r\n");
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        connection.send(TOO_LARGE);
        drop(connection);
        assert_eq!(client.response().status, 413);
        let mut stream = client.second_handle();
        let deadline = std::time::Instant::now() + SOON;
        // It is told in the end, by an error.
        while keeps_sending && stream.write_all(b"5\r\nagain\r\n").is_ok() {
            assert!(std::time::Instant::now() < deadline, "it is read for ever");
        }
        assert!(client.is_closed());
    }
}

#[test]
fn f18_upstream_is_not_waited_for_that_takes_no_more_of_a_request_that_it_has_answered() {
    let (upstream, _world, serving) = raw("[timeouts]\nbody = \"300ms\"\n");
    let sending = sending_all(upload(&serving), LARGE);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(TOO_LARGE);
    // It stays there and reads nothing.
    let mut client = sending.join().expect("no panic");
    assert_eq!(client.response().status, 413);
    drop(connection);
}

/// The bound of a body that moves would keep such a client from the answer for two minutes, longer than most of them
/// wait: it sends for [`SOON`] at the most.
#[test]
fn f18_upstream_is_waited_for_only_briefly_that_takes_no_more_of_a_request_that_it_has_refused() {
    let (upstream, _world, serving) = raw("");
    let sending = sending_all(upload(&serving), LARGE);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(TOO_LARGE);
    // It stays there and reads nothing.
    let mut client = sending.join().expect("no panic");
    let response = client.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (413, "too much")
    );
    drop(connection);
}

/// Has the proxy end, and returns when its one worker has begun to end connections.
fn begin_to_end(serving: &Serving, mut idle: Client) {
    serving.signal(Signal::TERM);
    assert!(idle.is_closed(), "an idle connection ends at once");
}

#[test]
fn f18_at_the_end_upstream_gets_the_rest_of_a_request_that_it_has_answered() {
    for connection in ["X-None: 1", "Connection: close"] {
        let (upstream, _world, mut serving) = raw_with("workers = 1", "");
        let idle = serving.connect();
        let mut client = serving.connect();
        client.request("POST /x", &[connection, "Content-Length: 10"], b"");
        client.send(b"first");
        let mut upstream = upstream.accept();
        upstream.head().expect("a request");
        assert_eq!(upstream.read(5), b"first");
        upstream.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().status, 202);
        begin_to_end(&serving, idle);
        client.send(b"rest!");
        assert_eq!(upstream.read(5), b"rest!", "{connection}");
        assert!(client.is_closed(), "it serves nothing else");
        assert!(serving.wait().success());
    }
}

#[test]
fn f18_at_the_end_an_answer_reaches_a_client_that_sends_everything_first() {
    let length = format!("Content-Length: {LARGE}");
    for (line, headers, status) in [
        ("POST /oauth2/token", [length.as_str(), "X-None: 1"], 413),
        ("POST /x", [&length, "Host: localhost"], 400),
        ("POST /x", [&length, "Sec-Fetch-Site: cross-site"], 403),
    ] {
        let (_upstream, _world, mut serving) = raw_with("workers = 1", "");
        let idle = serving.connect();
        let mut client = serving.connect();
        client.request(line, &headers, b"");
        let response = client.response();
        assert_eq!((response.status, response.complete), (status, true));
        begin_to_end(&serving, idle);
        let mut client = sending_all(client, LARGE).join().expect("no panic");
        assert!(client.is_closed(), "it serves nothing else");
        assert!(serving.wait().success());
        let log = serving.log();
        assert!(!log.contains("timeouts.drain"), "{log}");
    }
}

#[test]
fn f17_f18_a_client_that_was_not_asked_and_sends_all_the_same_gets_its_answer() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    let length = format!("Content-Length: {LARGE}");
    client.request("POST /x", &["Expect: 100-continue", &length], b"");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(TOO_LARGE);
    drop(connection);
    let mut client = sending_all(client, LARGE).join().expect("no panic");
    let response = client.response_or_interim();
    assert_eq!((response.status, response.complete), (413, true));
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn f18_behind_an_error_a_client_that_pauses_is_waited_for() {
    let (upstream, _world, serving) = raw("");
    let mut client = serving.connect();
    client.request("POST /x", &["Content-Length: 10"], b"");
    client.send(b"first");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    assert_eq!(connection.read(5), b"first");
    connection.send(b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.response().status, 422);
    // Longer than upstream may take nothing.
    std::thread::sleep(std::time::Duration::from_secs(6));
    client.send(b"rest!");
    assert_eq!(connection.read(5), b"rest!");
}
