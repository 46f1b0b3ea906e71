//! Rule S7: a client that has left does not keep the place of its request among those that may be under way.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::https;
use crate::world::client::Client;
use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::{Identity, connect};
use crate::world::{SOON, World};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Room for one request, and an upstream that answers when it is told.
fn world() -> (RawUpstream, World) {
    let (upstream, mut world) = World::before_raw_upstream();
    world.top = "workers = 1".to_owned();
    world.tables = "[limits]\nrequests = 1\n".to_owned();
    (upstream, world)
}

/// Leaves without a word of farewell.
fn reset(socket: impl AsFd) {
    set_socket_linger(&socket, Some(Duration::ZERO)).expect("a socket");
}

/// Whether there is room for a request of this client: what is refused for its origin is one like every other before.
fn has_room(client: &mut Client) -> bool {
    let answer = client.ask("GET /users", &["Origin: http://elsewhere.example"], b"");
    match (answer.status, answer.code().as_str()) {
        (403, "originNotAllowed") => true,
        (503, "overloaded") => false,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_room_soon(client: &mut Client) {
    let deadline = Instant::now() + SOON;
    while !has_room(client) {
        assert!(Instant::now() < deadline, "its place is kept");
    }
}

#[test]
fn s07_a_client_that_resets_its_connection_gives_its_place_up_at_once() {
    let (upstream, world) = world();
    let serving = world.serve();
    let mut other = serving.connect();
    for line in ["GET /silent", "POST /silent"] {
        let mut client = serving.connect();
        client.request(line, &[], if line == "GET /silent" { b"" } else { b"all" });
        let mut connection = upstream.accept();
        connection.request();
        assert!(!has_room(&mut other), "it is under way");
        reset(client.second_handle());
        drop(client);
        assert_room_soon(&mut other);
        assert!(connection.is_closed(), "nobody waits for its answer");
    }
    // With an answer that has begun and stands still.
    let mut client = serving.connect();
    client.request("GET /stops", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(&OK[..OK.len() - 1]);
    assert_eq!(client.head().status, 200);
    assert!(!has_room(&mut other), "it is under way");
    reset(client.second_handle());
    drop(client);
    assert_room_soon(&mut other);
    assert!(connection.is_closed(), "nobody takes the rest");
}

#[test]
fn s07_a_client_that_has_only_ended_its_side_keeps_its_place_and_gets_its_answer() {
    let (upstream, world) = world();
    let serving = world.serve();
    let mut other = serving.connect();
    let mut client = serving.connect();
    client.request("GET /silent", &[], b"");
    client.finish();
    let mut connection = upstream.accept();
    connection.request();
    assert!(!has_room(&mut other), "it is under way");
    connection.send(OK);
    assert_eq!(client.response().text(), "ok");
    assert_room_soon(&mut other);
    // What it resets after that side was ended is seen too.
    let mut client = serving.connect();
    client.request("GET /silent", &[], b"");
    client.finish();
    connection.request();
    assert!(!has_room(&mut other), "it is under way");
    reset(client.second_handle());
    drop(client);
    assert_room_soon(&mut other);
}

#[test]
fn s07_over_tls_a_reset_is_seen_too() {
    let (upstream, mut world) = world();
    let identity = Identity::new();
    identity.write(world.directory.path());
    let (plain, tls) = ("\"127.0.0.1:0\"", https::LISTEN.trim_matches(['[', ']']));
    let mut serving = world.serve_on(&format!("[{tls}, {plain}]"));
    let (_, address) = crate::world::endpoint(&serving.line()).expect("the plain one");
    let mut other = Client::connect(address);
    let mut client = connect(serving.address, &identity.client(&["http/1.1"])).expect("TLS");
    let host = serving.address.port();
    let request = format!("GET /silent HTTP/1.1\r\nHost: localhost:{host}\r\n\r\n");
    client.write_all(request.as_bytes()).expect("sent");
    let mut connection = upstream.accept();
    connection.request();
    assert!(!has_room(&mut other), "it is under way");
    let socket: &TcpStream = client.get_ref();
    reset(socket);
    drop(client);
    assert_room_soon(&mut other);
    assert!(connection.is_closed(), "nobody waits for its answer");
}

/// Elsewhere such a client looks like one that still waits.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn s07_a_client_that_has_closed_its_unix_socket_gives_its_place_up_at_once() {
    use std::io::Read;
    use std::net::Shutdown;

    const FROM_UNIX: &[u8] = b"GET /silent HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (upstream, mut world) = world();
    let serving = world.serve_on("[\"127.0.0.1:0\", \"unix:proxy.sock\"]");
    let mut other = serving.connect();
    for ends_its_side_before in [false, true] {
        let mut client = world.connect_unix();
        client.write_all(FROM_UNIX).expect("sent");
        let mut connection = upstream.accept();
        connection.request();
        if ends_its_side_before {
            client.shutdown(Shutdown::Write).expect("it is open");
        }
        assert!(!has_room(&mut other), "it is under way");
        drop(client);
        assert_room_soon(&mut other);
        assert!(connection.is_closed(), "nobody waits for its answer");
    }
    // Positive control: one that has ended its side only gets its answer.
    let mut client = world.connect_unix();
    client.write_all(FROM_UNIX).expect("sent");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut connection = upstream.accept();
    connection.request();
    assert!(!has_room(&mut other), "it is under way");
    connection.send(OK);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_room_soon(&mut other);
}
