//! Clients that end their side early, and clients of HTTP/1.0.

use crate::world::{SOON, World};

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_answers() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/users/me".to_owned()));
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /users/me/profile", &[], b"");
    client.request("GET /sandbox/echo/second", &[], b"");
    client.request("POST /sandbox/echo/third", &[], b"content");
    client.finish();
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    assert_eq!(client.response().json()["username"], "ada");
    assert_eq!(client.response().json()["target"], "/sandbox/echo/second");
    let third = client.response().json();
    assert_eq!(
        (&third["target"], &third["body_length"]),
        (&"/sandbox/echo/third".into(), &7.into())
    );
    assert!(client.is_closed(), "there is nothing more to come");
}

#[test]
fn a_client_that_ends_its_side_without_a_request_is_let_go() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut silent = serving.connect();
    silent.finish();
    assert!(silent.is_closed());
    let mut half = serving.connect();
    half.send(b"GET /users HTTP/1.1\r\nHost:");
    half.finish();
    assert!(half.head_if_any().is_none_or(|answer| answer.status == 400));
    let mut used = serving.connect();
    assert_eq!(used.ask("GET /users", &[], b"").status, 200);
    used.finish();
    assert!(used.is_closed());
}

#[test]
fn f13_content_that_is_cut_does_not_look_whole_in_http_1_0_either() {
    for (answer, whole) in [
        (
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n"[..],
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            false,
        ),
    ] {
        let (upstream, world) = World::before_raw_upstream();
        let serving = world.serve();
        let mut client = serving.connect();
        client.send(format!("GET /x HTTP/1.0\r\nHost: {}\r\n\r\n", serving.address).as_bytes());
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        drop(connection);
        let response = client.response();
        assert_eq!(response.header("transfer-encoding"), None);
        assert_eq!(
            (response.text().as_str(), response.complete),
            ("half", whole),
            "{answer:?}"
        );
    }
}

#[test]
fn a_client_of_http_1_0_may_keep_its_connection() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    let head = |line: &str, more: &str| {
        format!("{line} HTTP/1.0\r\nHost: {}\r\n{more}\r\n", serving.address)
    };
    client.send(head("GET /users/me/profile", "Connection: keep-alive\r\n").as_bytes());
    let response = client.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("keep-alive"));
    client.send(head("HEAD /sandbox/echo", "").as_bytes());
    let response = client.head();
    assert_eq!(response.status, 200);
    assert!(client.is_closed(), "it did not ask for more");
}
