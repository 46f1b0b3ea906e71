//! Where the content of a request ends: noticed when it does, and told apart from where it breaks off.

use std::io::{Read, Write};

use http::StatusCode;

use crate::https::{LISTEN, world};
use crate::world::frames::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM, frame};
use crate::world::raw_upstream::{Connection, RawUpstream};
use crate::world::tls::Identity;
use crate::world::{Serving, World};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

fn over_tls() -> (RawUpstream, World, Identity, Serving) {
    let upstream = RawUpstream::start();
    let (mut world, identity) = world();
    world.upstream = upstream.origin();
    // Connections to upstream are kept by each worker for itself.
    world.top = "workers = 1".to_owned();
    let serving = world.serve_on(LISTEN);
    (upstream, world, identity, serving)
}

fn plain() -> (RawUpstream, World, Serving) {
    let (upstream, mut world) = World::before_raw_upstream();
    // Connections to upstream are kept by each worker for itself.
    world.top = "workers = 1".to_owned();
    let serving = world.serve();
    (upstream, world, serving)
}

/// Everything that still comes on a connection.
fn rest(connection: &Connection) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = connection.second_handle().read_to_end(&mut rest);
    rest
}

#[test]
fn f13_an_upload_that_is_reset_never_looks_whole_whatever_the_reason() {
    let (upstream, _world, identity, serving) = over_tls();
    let begin = |stream| {
        let mut client = Frames::connect(serving.address, &identity);
        let head = client.head(stream, "POST", "/x", &[], 0);
        client.bytes(&[head, frame(DATA, 0, stream, b"first")].concat());
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        assert_eq!(connection.read(10), b"5\r\nfirst\r\n");
        (client, connection)
    };
    for reason in [NO_ERROR, CANCEL] {
        let (mut client, connection) = begin(1);
        client.bytes(&frame(RST_STREAM, 0, 1, &reason.to_be_bytes()));
        assert_eq!(rest(&connection), b"", "no last chunk after {reason}");
    }
    // Also when the answer is here already.
    let (mut client, mut connection) = begin(1);
    connection.send(OK);
    client.wait_for(DATA);
    client.bytes(&frame(RST_STREAM, 0, 1, &NO_ERROR.to_be_bytes()));
    assert_eq!(rest(&connection), b"");
    // And one that ends as it should does.
    let (mut client, mut connection) = begin(1);
    client.bytes(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(connection.read(5), b"0\r\n\r\n");
    connection.send(OK);
    client.wait_for(DATA);
}

#[test]
fn the_end_of_an_announced_length_is_the_end_also_where_a_stream_ends_later() {
    let (upstream, _world, identity, serving) = over_tls();
    let mut connection = None;
    for (length, content) in [("5", &b"first"[..]), ("0", b"")] {
        let mut client = Frames::connect(serving.address, &identity);
        let mut bytes = client.head(1, "POST", "/x", &[("content-length", length)], 0);
        bytes.extend(frame(DATA, 0, 1, content));
        client.bytes(&bytes);
        // On the connection that was used before, which is free again only where the request is known to have ended.
        let connection = connection.get_or_insert_with(|| upstream.accept());
        assert!(connection.request().ends_with(content));
        client.bytes(&frame(DATA, END_STREAM, 1, b""));
        connection.send(OK);
        client.wait_for(HEADERS);
        client.wait_for(DATA);
    }
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "/x");
    let connection = connection.as_mut().expect("it is there");
    assert!(connection.request().starts_with(b"GET"));
    connection.send(OK);
    client.wait_for(DATA);
}

#[test]
fn f18_upstream_gets_all_of_an_upload_that_is_over_after_its_answer() {
    const LENGTH: usize = 6 << 20;
    let (upstream, _world, serving) = plain();
    for _ in 0..8 {
        let mut client = serving.connect();
        client.request("POST /x", &[&format!("Content-Length: {LENGTH}")], b"");
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        connection.send(OK);
        assert_eq!(client.response().status, StatusCode::OK);
        let mut stream = client.second_handle();
        let sending = std::thread::spawn(move || stream.write_all(&vec![7; LENGTH]));
        let mut stream = connection.second_handle();
        let (mut got, mut piece) = (0, [0; 4 << 10]);
        // Slower than the client by far: the end of the request lies in the proxy when the proxy has read it.
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            got += read;
            std::thread::yield_now();
            if got == LENGTH {
                break;
            }
        }
        assert_eq!(got, LENGTH);
        sending.join().expect("no panic").expect("all is taken");
    }
}

#[test]
fn f18_upstream_gets_all_of_an_upload_that_lay_in_the_proxy_when_it_answered() {
    let (upstream, _world, serving) = plain();
    // What the sockets on the way hold is not known: somewhere here it is all but what the proxy itself can hold.
    for length in (1..40).map(|step| step * (192 << 10)) {
        let mut client = serving.connect();
        client.request("POST /x", &[&format!("Content-Length: {length}")], b"");
        let mut stream = client.second_handle();
        let sending = std::thread::spawn(move || stream.write_all(&vec![7; length]));
        let mut connection = upstream.accept();
        connection.head().expect("a request");
        connection.send(OK);
        assert_eq!(client.response().status, StatusCode::OK);
        let (mut stream, mut got) = (connection.second_handle(), 0);
        let mut piece = vec![0; 64 << 10];
        while got < length
            && let Ok(read @ 1..) = stream.read(&mut piece)
        {
            got += read;
        }
        assert_eq!(got, length);
        sending.join().expect("no panic").expect("all is taken");
    }
}

#[test]
fn s08_f15_a_target_of_a_fragment_alone_is_the_root() {
    let (upstream, _world, identity, serving) = over_tls();
    let requests = upstream.answering(OK);
    let mut client = Frames::connect(serving.address, &identity);
    client.request(1, "GET", "#f");
    client.wait_for(DATA);
    let seen = requests.recv().expect("a request");
    assert!(seen.starts_with(b"GET / HTTP/1.1\r\n"), "{seen:?}");
}
