//! Rule F17: a client that asks before it sends is answered by upstream, once.

use lucid_proxy::sandbox::Timing;

use crate::world::raw_upstream::RawUpstream;
use crate::world::{SOON, Serving, World};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const UNAUTHORIZED: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!";
const EXPECT: [&str; 2] = ["Expect: 100-continue", "Content-Length: 7"];

fn raw() -> (RawUpstream, World, Serving) {
    let (upstream, world) = World::before_raw_upstream();
    let serving = world.serve();
    (upstream, world, serving)
}

#[test]
fn f17_the_client_is_asked_once_and_when_upstream_asks() {
    let (upstream, _world, serving) = raw();
    // Upstream may ask twice, and say other things before.
    for interim in [
        CONTINUE.to_vec(),
        [CONTINUE, CONTINUE].concat(),
        [
            &b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..],
            CONTINUE,
        ]
        .concat(),
    ] {
        let mut client = serving.connect();
        client.request("POST /x", &EXPECT, b"");
        let mut connection = upstream.accept();
        let head = connection.head().expect("a head before the content");
        let head = String::from_utf8(head).expect("text");
        assert!(head.contains("expect: 100-continue\r\n"), "{head}");
        connection.send(&interim);
        assert_eq!(client.head().status, 100);
        client.send(b"content");
        assert_eq!(connection.read(7), b"content");
        connection.send(OK);
        let response = client.head();
        assert_eq!(response.status, 200, "no second one");
        assert_eq!(response.header("connection"), None);
    }
}

#[test]
fn f17_a_final_answer_reaches_the_client_in_the_place_of_a_100() {
    let (upstream, _world, serving) = raw();
    for status in [200, 307, 403, 413, 417, 500] {
        let mut client = serving.connect();
        client.request("POST /x", &EXPECT, b"");
        let mut connection = upstream.accept();
        connection.head().expect("a head");
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno");
        connection.send(answer.as_bytes());
        let response = client.response_or_interim();
        assert_eq!(response.status, status, "nobody asked for the content");
        assert_eq!((response.text().as_str(), response.complete), ("no", true));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(
            connection.is_closed(),
            "it got no content, and no other request"
        );
    }
}

#[test]
fn f17_where_upstream_does_not_ask_the_client_is_asked_after_a_while() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("POST /x", &EXPECT, b"");
    let mut connection = upstream.accept();
    connection.head().expect("a head");
    assert_eq!(client.head().status, 100);
    client.send(b"content");
    assert_eq!(connection.read(7), b"content");
    connection.send(OK);
    assert_eq!(client.head().status, 200);
}

#[test]
fn f17_a_client_that_does_not_wait_is_served_like_any_other() {
    let (upstream, _world, serving) = raw();
    for version in ["1.1", "1.0"] {
        let mut client = serving.connect();
        let head = format!(
            "POST /x HTTP/{version}\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\ncontent",
            serving.address
        );
        client.send(head.as_bytes());
        let mut connection = upstream.accept();
        connection.head().expect("a head");
        connection.send(CONTINUE);
        assert_eq!(connection.read(7), b"content");
        connection.send(OK);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    }
}

#[test]
fn f07_f17_a_401_before_the_content_is_cured_however_large_that_is() {
    let (upstream, mut world, serving) = raw();
    drop(serving);
    world.tables = "[replay]\nmemory = \"0 B\"\ndisk = \"0 B\"\n".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /x", &EXPECT, b"");
    let mut connection = upstream.accept();
    connection.head().expect("a head");
    connection.send(UNAUTHORIZED);
    let mut replay = upstream.accept();
    let head = replay.head().expect("a head");
    assert!(String::from_utf8_lossy(&head).contains("expect: 100-continue\r\n"));
    replay.send(CONTINUE);
    assert_eq!(client.head().status, 100);
    client.send(b"content");
    assert_eq!(replay.read(7), b"content");
    replay.send(OK);
    assert_eq!(client.head().status, 200);
}

#[test]
fn f17_a_replay_asks_the_client_no_second_time() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("POST /x", &EXPECT, b"");
    let mut connection = upstream.accept();
    connection.head().expect("a head");
    connection.send(CONTINUE);
    assert_eq!(client.head().status, 100);
    client.send(b"con");
    assert_eq!(connection.read(3), b"con");
    connection.send(UNAUTHORIZED);
    let mut replay = upstream.accept();
    replay.head().expect("a head");
    replay.send(CONTINUE);
    client.send(b"tent");
    assert_eq!(replay.read(7), b"content");
    replay.send(OK);
    assert_eq!(client.head().status, 200);
}

#[test]
fn f17_interim_answers_are_not_for_clients_of_http_1_1() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style>; rel=preload\r\n\r\n");
    connection.send(CONTINUE);
    connection.send(OK);
    assert_eq!(client.head().status, 200);
}

#[test]
fn f17_the_stand_in_is_asked_too() {
    let world = World::logged_in();
    let serving = world.serve();
    for timing in [Timing::AtHead, Timing::AfterBytes(2), Timing::AfterBody] {
        world
            .sandbox
            .change(|behaviour| behaviour.unauthorized.timing = timing);
        world.sandbox.expire_access_tokens();
        let mut client = serving.connect();
        client.request("POST /sandbox/echo", &EXPECT, b"");
        assert_eq!(client.head().status, 100, "{timing:?}");
        client.send(b"content");
        let response = client.response_or_interim();
        assert_eq!(response.status, 200, "{timing:?}");
        assert_eq!(response.json()["body_length"], 7);
    }
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 0);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}
