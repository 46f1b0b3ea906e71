//! Rule S7: what is over a limit is refused with a reason, what is there already goes on, and room that was made is used.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use http::Method;
use rustix::process::Signal;

use crate::https;
use crate::world::client::Client;
use crate::world::http2_client::{Http2, nothing};
use crate::world::tls;
use crate::world::{Response, SOON, Serving, World, errors};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn limited(limits: &str) -> World {
    let mut world = World::logged_in();
    world.tables = format!("[limits]\n{limits}\n");
    world
}

/// Whether an answer says that there is no room, when to come back, and by which key that was said.
#[track_caller]
fn assert_overloaded(answer: &Response, key: &str) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.code(), "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.text().contains(key), "{}", answer.text());
    let status = answer.header("proxy-status").expect("it says who speaks");
    assert!(status.starts_with("lucid-proxy; error="), "{status}");
}

#[test]
fn s07_a_request_too_many_is_refused_and_the_next_that_fits_is_not() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.top = "workers = 1".to_owned();
    world.tables = "[limits]\nrequests = 1\n".to_owned();
    let serving = world.serve();
    let mut first = serving.connect();
    first.request("GET /first", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    let mut second = serving.connect();
    for _ in 0..3 {
        let answer = second.ask("POST /second", &[], b"content");
        assert_overloaded(&answer, "limits.requests");
    }
    // The answer has begun and is not over.
    connection.send(&OK[..OK.len() - 1]);
    assert_eq!(first.head().status, 200);
    assert_overloaded(&second.ask("GET /second", &[], b""), "limits.requests");
    connection.send(b"k");
    assert_eq!(first.until(b"k"), b"ok");
    second.request("GET /second", &[], b"");
    connection.request();
    connection.send(OK);
    assert_eq!(second.response().text(), "ok", "on the same connection");
    serving.wait_for_log("a request was refused: 1 requests are under way");
    let log = serving.stop();
    assert!(
        log.matches("a request was refused").count() <= 2,
        "not each: {log}"
    );
}

#[test]
fn s07_over_http_2_streams_are_counted_too() {
    let (upstream, mut world) = World::before_raw_upstream();
    let identity = tls::Identity::new();
    identity.write(world.directory.path());
    world.tables = "[limits]\nrequests = 1\n".to_owned();
    let serving = world.serve_on(https::LISTEN);
    let client = Http2::connect(serving.address, &identity);
    let first = client.begin(Method::GET, "/first", &[], nothing());
    let mut connection = upstream.accept();
    connection.request();
    let refused = client.get("/second");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["code"], "overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    connection.send(OK);
    assert_eq!(first.answer().text(), "ok");
    let third = client.begin(Method::GET, "/third", &[], nothing());
    connection.request();
    connection.send(OK);
    assert_eq!(third.answer().text(), "ok");
}

/// Asks on new connections until one is taken.
fn until_taken(serving: &Serving, key: &str) -> (Client, Response) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let mut client = serving.connect();
        let answer = client.ask("GET /users", &[], b"");
        if answer.status == 200 {
            return (client, answer);
        }
        assert_overloaded(&answer, key);
        assert!(std::time::Instant::now() < deadline, "never");
    }
}

#[test]
fn s07_a_connection_too_many_is_told_so_and_the_next_that_fits_is_taken() {
    let world = limited("connections = 2");
    let serving = world.serve();
    let mut first = serving.connect();
    assert_eq!(first.ask("GET /users", &[], b"").status, 200);
    let mut second = serving.connect();
    assert_eq!(second.ask("GET /users", &[], b"").status, 200);
    for _ in 0..20 {
        let mut third = serving.connect();
        // It has said nothing yet.
        let answer = third.response();
        assert_overloaded(&answer, "limits.connections)");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.complete);
        assert!(third.rest(&mut Vec::new()), "the end is one in order");
    }
    let mut speaks = serving.connect();
    speaks.request("POST /users", &[], &vec![b'x'; 64 << 10]);
    assert_overloaded(&speaks.response(), "limits.connections)");
    assert!(speaks.rest(&mut Vec::new()), "the end is one in order");
    assert_eq!(first.ask("GET /users", &[], b"").status, 200);
    drop(second);
    let (mut next, _) = until_taken(&serving, "limits.connections)");
    assert_overloaded(&serving.connect().response(), "limits.connections)");
    assert_eq!(first.ask("GET /users", &[], b"").status, 200);
    assert_eq!(next.ask("GET /users", &[], b"").status, 200);
    serving.wait_for_log("a connection was refused: 2 connections are open");
    let log = serving.stop();
    let lines = log.matches("a connection was refused").count();
    assert!(lines < 20, "not each: {log}");
}

#[test]
fn s07_over_tls_a_connection_too_many_is_closed() {
    let (mut world, identity) = https::world();
    world.tables = "[limits]\nconnections = 1\n".to_owned();
    let serving = world.serve_on(https::LISTEN);
    let client = Http2::connect(serving.address, &identity);
    assert_eq!(client.get("/users").status, 200);
    let mut second = TcpStream::connect(serving.address).expect("a connection");
    second.set_read_timeout(Some(SOON)).expect("a timeout");
    assert_eq!(second.read(&mut [0]).expect("an end"), 0);
    assert_eq!(client.get("/users").status, 200);
    serving.wait_for_log("a connection was refused");
}

#[test]
fn s07_connections_of_a_unix_socket_are_counted_with_all() {
    let mut world = limited("connections = 1\nconnections_per_address = 1");
    // Of two workers, each may be the one that takes its connection first.
    world.top = "workers = 1".to_owned();
    let serving = world.serve_on("[\"unix:proxy.sock\"]");
    let mut first = world.connect_unix();
    let mut text = String::new();
    world
        .connect_unix()
        .read_to_string(&mut text)
        .expect("an end");
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.contains("overloaded"),
        "{text}"
    );
    first
        .write_all(b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("sent");
    text.clear();
    first.read_to_string(&mut text).expect("an end");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    drop(serving);
}

#[test]
fn s07_programs_on_this_machine_have_no_share_of_their_own() {
    let world = limited("connections_per_address = 1");
    let serving = world.serve();
    let mut clients = [serving.connect(), serving.connect(), serving.connect()];
    for client in &mut clients {
        assert_eq!(client.ask("GET /users", &[], b"").status, 200);
    }
}

const HEADS: &str = "header_bytes = \"8 KiB\"\nheaders = 20\nuri_bytes = \"2 KiB\"";

/// What is answered to a request line with these fields, sent behind another request.
fn answered(serving: &Serving, line: &str, fields: &str) -> Response {
    let mut client = serving.connect();
    let host = serving.address;
    let request = format!(
        "GET /users HTTP/1.1\r\nHost: {host}\r\n\r\n{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
    );
    client.send(request.as_bytes());
    let before = client.response();
    assert_eq!((before.status, before.complete), (200, true));
    let answer = client.response();
    assert!(answer.status == 200 || client.is_closed());
    answer
}

#[test]
fn s07_a_head_that_is_too_large_is_answered_with_the_reason() {
    let mut world = limited(HEADS);
    world.tables.push_str("[log]\nrequests = true\n");
    let serving = world.serve();
    let field = |length| format!("X: {}\r\n", "x".repeat(length));
    let path = |length| format!("GET /users?{}", "x".repeat(length));
    // Positive control: nearly as much passes.
    for (line, fields) in [
        ("GET /users".to_owned(), field(8000)),
        ("GET /users".to_owned(), field(1).repeat(19)),
        (path(2000), String::new()),
    ] {
        assert_eq!(answered(&serving, &line, &fields).status, 200, "{line}");
    }
    for (line, fields, status, code, key) in [
        (
            "GET /users".to_owned(),
            field(8 << 10),
            431,
            "headersTooLarge",
            "limits.header_bytes",
        ),
        (
            "GET /users".to_owned(),
            field(1 << 20),
            431,
            "headersTooLarge",
            "limits.header_bytes",
        ),
        (
            "GET /users".to_owned(),
            field(1).repeat(20),
            431,
            "headersTooLarge",
            "limits.headers",
        ),
        (
            "GET /users".to_owned(),
            field(1).repeat(100_000),
            431,
            "headersTooLarge",
            "limits.headers",
        ),
        (
            path(2 << 10),
            String::new(),
            414,
            "uriTooLong",
            "limits.uri_bytes",
        ),
        (
            path(1 << 20),
            field(1 << 20),
            414,
            "uriTooLong",
            "limits.uri_bytes",
        ),
    ] {
        let answer = answered(&serving, &line, &fields);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert!(answer.text().contains(key), "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(serving.get("/users").status, 200);
    let log = serving.stop();
    assert!(log.contains("a request was refused: the "), "{log}");
    for part in ["431", "headersTooLarge", "414", "uriTooLong", "/users"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn s07_a_client_that_has_to_send_a_head_that_is_too_large_to_its_end_gets_the_answer() {
    let world = limited("");
    let serving = world.serve();
    for _ in 0..20 {
        let mut client = serving.connect();
        let host = serving.address;
        let start = format!("GET /users HTTP/1.1\r\nHost: {host}\r\nX: ");
        let mut sending = client.second_handle();
        sending.write_all(start.as_bytes()).expect("sent");
        // More than the system holds. Where a connection is closed on it, it is reset, and some systems take the answer away
        // from the client then.
        let sent = sending.write_all(&vec![b'x'; 10 << 20]);
        sent.expect("all of it is taken");
        let answer = client.response();
        assert_eq!((answer.status, answer.complete), (431, true));
        assert_eq!(answer.code(), "headersTooLarge");
    }
}

#[test]
fn s07_over_http_2_a_head_has_the_same_limits() {
    let (mut world, identity) = https::world();
    world.tables = format!("[limits]\n{HEADS}\n[log]\nrequests = true\n");
    let serving = world.serve_on(https::LISTEN);
    let client = Http2::connect(serving.address, &identity);
    let ask = |path: &str, fields: &[(&'static str, &str)]| {
        client.begin(Method::GET, path, fields, nothing()).answer()
    };
    let long = "x".repeat(9 << 10);
    let too_large = ask("/users", &[("x-long", &long)]);
    assert_eq!(too_large.status, 431);
    assert_eq!(too_large.json()["code"], "headersTooLarge");
    let message = too_large.json()["message"].to_string();
    assert!(message.contains("limits.header_bytes"), "{message}");
    // What is larger by far is not kept, and the library says no more than that.
    let much = "x".repeat(100 << 10);
    let far_too_large = ask("/users", &[("x-long", &much)]);
    assert_eq!(far_too_large.status, 431);
    assert_eq!(far_too_large.text(), "");
    let method = Method::from_bytes(long.as_bytes()).expect("a method");
    let long_method = client.begin(method, "/users", &[], nothing()).answer();
    assert_eq!(long_method.status, 431);
    assert_eq!(long_method.json()["code"], "headersTooLarge");
    let too_many = ask("/users", &[("x", "y"); 21]);
    assert_eq!(too_many.status, 431);
    assert_eq!(too_many.json()["code"], "headersTooLarge");
    let too_long = ask(&format!("/users?{}", &long[..3 << 10]), &[]);
    assert_eq!(too_long.status, 414);
    assert_eq!(too_long.json()["code"], "uriTooLong");
    // Positive control: nearly as much passes, on the same connection.
    let large = ask("/users", &[("x-long", &long[..7 << 10])]);
    assert_eq!(large.status, 200);
    assert_eq!(ask("/users", &[("x", "y"); 15]).status, 200);
    let log = serving.stop();
    assert!(log.contains("a request was refused: the "), "{log}");
    let line = log.lines().find(|line| line.contains(" 431 "));
    let line = line.expect("a line for the request");
    assert!(line.contains("headersTooLarge"), "{line}");
}

#[test]
fn s07_more_headers_than_usual_pass_where_they_are_allowed() {
    // The stand-in for Lucid takes no more than usual.
    let (upstream, mut world) = World::before_raw_upstream();
    let _requests = upstream.answering(OK);
    world.tables = "[limits]\nheaders = 500\n".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    let answer = client.ask("GET /users", &["X: y"; 499], b"");
    assert_eq!(answer.text(), "ok");
    let answer = client.ask("GET /users", &["X: y"; 500], b"");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (431, "headersTooLarge")
    );
}

#[test]
fn s07_the_limits_of_the_configuration_are_checked() {
    let world =
        limited("requests = 0\nheaders = 5\nheader_bytes = \"1 MiB\"\nuri_bytes = \"64 KiB\"");
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let errors = errors(&output);
    for expected in [
        "limits.requests: expected a whole number from 1 to 1000000",
        "limits.headers: expected a whole number from 10 to 1000",
        "limits.header_bytes: a size from \"1 KiB\" to \"256 KiB\" is accepted",
        "limits.uri_bytes: a size from \"1 KiB\" to \"65534 B\" is accepted",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}

/// Starts `serve` as a shell does that has been told so of files.
fn serve_with_files(world: &World, ulimit: &str) -> Serving {
    world.configure();
    let program = world.command(&[]);
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("ulimit {ulimit}; exec \"$0\" serve --listen 127.0.0.1:0"),
        ])
        .arg(program.get_program())
        .env_clear()
        .current_dir(world.directory.path());
    for (name, value) in program.get_envs() {
        command.env(name, value.expect("all of them are set"));
    }
    Serving::start(command)
}

#[test]
fn s07_as_many_files_may_be_open_as_the_system_allows() {
    const MANY: usize = 200;
    let world = limited("");
    let serving = serve_with_files(&world, "-Sn 64");
    let mut clients: Vec<_> = (0..MANY).map(|_| serving.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("GET /users", &[], b"").status, 200);
    }
    assert!(serving.descriptors() > MANY, "all are open at once");
}

#[test]
fn s07_more_connections_than_files_may_be_open_are_not_promised() {
    let world = limited("connections = 2000");
    let serving = serve_with_files(&world, "-n 1024");
    serving.wait_for_log(
        "no more than 192 connections (limits.connections is 2000) and 192 requests (limits.requests is 4096) are accepted at a time: no more than 1024 files may be open",
    );
    assert_eq!(serving.get("/users").status, 200);
    serving.signal(Signal::TERM);
    // Positive control: of what fits nothing is said.
    let world = limited("connections = 100\nrequests = 100");
    let serving = serve_with_files(&world, "-n 1024");
    assert_eq!(serving.get("/users").status, 200);
    let log = serving.stop();
    assert!(!log.contains("files may be open"), "{log}");
}

#[test]
fn s07_where_few_files_may_be_open_what_does_not_fit_is_overloaded_and_not_unreachable() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.top = "workers = 1".to_owned();
    let serving = serve_with_files(&world, "-n 160");
    let mut clients = Vec::new();
    let mut connections = Vec::new();
    // As many as are promised of those that are recorded on a disk, each with a connection of its own to upstream.
    let content = vec![b'x'; 2 << 20];
    loop {
        let mut client = serving.connect();
        let mut sending = client.second_handle();
        // What is refused is not always read to its end.
        let head = format!(
            "PUT /silent HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            serving.address,
            content.len()
        );
        if clients.len() == FIT {
            assert_overloaded(&client.response(), "limits.connections)");
            break;
        }
        sending.write_all(head.as_bytes()).expect("sent");
        sending.write_all(&content).expect("sent");
        let mut connection = upstream.accept();
        connection.request();
        connections.push(connection);
        clients.push(client);
    }
    assert_eq!(connections.len(), FIT);
    for (client, connection) in clients.iter_mut().zip(&mut connections) {
        connection.send(OK);
        assert_eq!(client.response().text(), "ok");
    }
}

/// Connections, and requests, that fit beside the reserve where 160 files may be open.
const FIT: usize = 20;

#[test]
fn what_is_no_http_leaves_a_line_in_the_log_where_that_is_asked_for() {
    let world = World::logged_in();
    let serving = world.serve_with(|command| {
        command.env("RUST_LOG", "lucid_proxy=debug");
    });
    let mut client = serving.connect();
    client.send(b"\x16\x03\x01 marked\r\n\r\n");
    assert_eq!(client.response().status, 400);
    serving.wait_for_log("a client sent what is no HTTP/1");
    assert!(!serving.log().contains("marked"), "{}", serving.log());
}
