//! Start, limits and end of the program, as its user sees them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lucid_proxy::sandbox::Behaviour;
use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::world::{SOON, Serving, World, errors, missing};

#[test]
fn every_bound_address_is_printed_before_work_is_accepted() {
    let mut world = World::logged_in();
    world.top = "listen = [\"127.0.0.1:0\", \"[::1]:0\"]".to_owned();
    world.configure();
    let mut serving = Serving::start(world.command(&["serve"]));
    let line = serving.line();
    let second = line
        .strip_prefix("proxy http://")
        .and_then(|rest| rest.trim().parse().ok());
    let second: std::net::SocketAddr = second.unwrap_or_else(|| panic!("{line:?}"));
    assert!(second.is_ipv6());
    assert_eq!(crate::world::get(second, "/users").status, 200);
    assert_eq!(serving.get("/users").status, 200);
}

#[test]
fn serve_is_the_default_command() {
    let mut world = World::logged_in();
    world.top = "listen = [\"127.0.0.1:0\"]".to_owned();
    world.configure();
    assert_eq!(Serving::start(world.command(&[])).get("/users").status, 200);
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let world = World::logged_in();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = world.run(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    assert!(
        errors.contains(&address) && errors.contains("--listen"),
        "{errors}"
    );
}

#[test]
fn s01_an_address_that_others_can_reach_needs_a_word_of_consent() {
    let mut world = World::logged_in();
    let output = world.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("allow_unauthenticated = true"),
        "{}",
        errors(&output)
    );
    world.tables = "[guard]\nallow_unauthenticated = true\n".to_owned();
    world.configure();
    let serving = Serving::start(world.command(&["serve", "--listen", "0.0.0.0:0"]));
    // It is announced by a name that is served, and is not only there.
    assert_eq!(serving.address.ip(), IpAddr::from([127, 0, 0, 1]));
    let announced = serving.address.to_string();
    assert_eq!(status_as(serving.address, &announced), "200");
    let other = SocketAddr::from(([127, 0, 0, 2], serving.address.port()));
    assert_eq!(status_as(other, &other.to_string()), "200");
    assert_eq!(status_as(other, &announced), "200");
    assert_eq!(status_as(serving.address, &other.to_string()), "403");
}

#[test]
fn s02_every_address_is_no_name_that_can_be_allowed() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nallow_hosts = [\"0.0.0.0:8118\"]\n".to_owned();
    world.configure();
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let told = "guard.allow_hosts: means every address and is a name of none";
    assert!(errors(&output).contains(told), "{}", errors(&output));
}

/// An address of this machine that is not loopback's, if it has one: that of the way to elsewhere. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

fn status_as(to: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let request = format!("GET /users HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer["HTTP/1.1 ".len()..][..3].to_owned()
}

#[test]
fn s02_a_listener_at_every_address_is_asked_by_the_one_that_was_reached() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nallow_unauthenticated = true\n".to_owned();
    world.configure();
    let serving = Serving::start(world.command(&["serve", "--listen", "0.0.0.0:0"]));
    let port = serving.address.port();
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    for (host, status) in [
        ("127.0.0.1", "200"),
        ("localhost", "200"),
        ("0.0.0.0", "403"),
        ("[::]", "403"),
    ] {
        assert_eq!(
            status_as(loopback, &format!("{host}:{port}")),
            status,
            "{host}"
        );
    }
    let Some(own) = own_address() else {
        return missing("an address that is not loopback's");
    };
    let reached = SocketAddr::new(own, port);
    let host = reached.to_string();
    assert_eq!(status_as(reached, &host), "200", "{host}");
    assert_eq!(
        status_as(loopback, &host),
        "403",
        "it was not reached there"
    );
    assert_eq!(status_as(reached, &format!("0.0.0.0:{port}")), "403");
    assert_eq!(status_as(reached, &format!("evil.example:{port}")), "403");
}

#[test]
fn sigterm_lets_a_request_under_way_end_and_takes_no_new_connection() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour: &mut Behaviour| behaviour.hold_under = Some("/users/me".to_owned()));
    let mut serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /users/me/profile", &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    let mut idle = serving.connect();
    assert_eq!(idle.ask("GET /users", &[], b"").status, 200);
    serving.signal(Signal::TERM);
    serving.wait_for_log("finishing what is under way");
    assert!(idle.is_closed(), "an idle connection ends at once");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(client.is_closed());
    assert!(serving.wait().success());
}

#[test]
fn what_outlasts_the_drain_is_cut() {
    let mut world = World::logged_in();
    world.tables = "[timeouts]\ndrain = \"200ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/".to_owned()));
    let mut serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /users", &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    serving.signal(Signal::INT);
    assert!(serving.wait().success());
    assert!(client.is_closed());
    assert!(
        serving.log().contains("timeouts.drain"),
        "{}",
        serving.log()
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/".to_owned()));
    let mut serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /users", &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    serving.signal(Signal::INT);
    serving.wait_for_log("once more to stop at once");
    let status = serving.signal_until_it_ends(Signal::TERM);
    assert_eq!(status.code(), Some(1));
    assert!(client.is_closed());
}

#[test]
fn t04_one_signal_that_comes_twice_still_waits_for_a_rotation() {
    // Two of a kind may arrive as one; two kinds, close behind each other, never do.
    for (signal, again) in [(Signal::TERM, Signal::INT), (Signal::HUP, Signal::TERM)] {
        let world = World::logged_in();
        let mut serving = world.serve();
        world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = true);
        world.sandbox.expire_access_tokens();
        let mut client = serving.connect();
        client.request("GET /users", &[], b"");
        world
            .sandbox
            .wait_until(SOON, |counts| counts.token_posts == 1);
        serving.signal(signal);
        serving.signal(again);
        serving.wait_for_log("finishing what is under way");
        world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = false);
        assert!(serving.wait().success(), "{}", serving.log());
        assert_eq!(client.response().status, 200);
        assert_eq!(world.stored()["generation"], 2);
    }
}

#[test]
fn running_out_of_descriptors_ends_no_worker() {
    let mut world = World::logged_in();
    world.top = "workers = 2".to_owned();
    let serving = world.serve();
    serving.wait_for_log("grant ready");
    // Beneath what it has reckoned with at its start.
    let few = Rlimit {
        current: Some(80),
        maximum: Some(80),
    };
    prlimit(Some(serving.pid()), Resource::Nofile, few).expect("a limit");
    let crowd: Vec<_> = (0..120).map(|_| serving.connect()).collect();
    serving.wait_for_log("cannot accept connections for now");
    drop(crowd);
    for _ in 0..10 {
        assert_eq!(serving.get("/users").status, 200, "{}", serving.log());
    }
}

#[test]
fn a_silent_client_is_let_go() {
    let mut world = World::logged_in();
    world.tables = "[timeouts]\nfirst_request = \"200ms\"\nidle = \"300ms\"\n".to_owned();
    let serving = world.serve();
    assert!(serving.connect().is_closed(), "before its first request");
    let mut half = serving.connect();
    half.send(b"GET /users HTTP/1.1\r\nHost:");
    assert!(half.is_closed(), "in the middle of its first request");
    let mut used = serving.connect();
    for _ in 0..2 {
        assert_eq!(used.ask("GET /users", &[], b"").status, 200);
    }
    assert!(used.is_closed(), "after its last");
}

#[test]
fn a_long_exchange_is_not_idle() {
    let mut world = World::logged_in();
    world.tables = "[timeouts]\nfirst_request = \"200ms\"\nidle = \"200ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.api_delay = Duration::from_millis(900));
    let serving = world.serve();
    let begun = Instant::now();
    let mut client = serving.connect();
    assert_eq!(client.ask("GET /users", &[], b"").status, 200);
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "several times the bound"
    );
}

#[test]
fn unused_connections_to_upstream_are_closed() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.upstream_keys = "idle_timeout = \"200ms\"".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(connection.is_closed());
}

#[test]
fn the_sandbox_command_prints_its_addresses_and_commands_that_work() {
    let world = World::new();
    let state = world.directory.path().join("tmp");
    std::fs::create_dir(&state).expect("a directory");
    let mut command = world.command(&[
        "sandbox",
        "--listen",
        "127.0.0.1:0",
        "--token-lifetime",
        "1s",
    ]);
    command.env("TMPDIR", &state);
    let mut serving = Serving::start(command);
    assert!(serving.line().starts_with("sandbox http://127.0.0.1:"));
    let lines: Vec<_> = std::iter::repeat_with(|| serving.line()).take(5).collect();
    let curls: Vec<_> = lines
        .iter()
        .filter_map(|line| line.trim().strip_prefix("curl"))
        .collect();
    assert_eq!(curls.len(), 3, "{lines:?}");
    for curl in curls {
        let mut shell = Command::new("sh");
        let output = shell
            .args(["-c", &format!("curl -sS --fail {curl}")])
            .output()
            .expect("sh");
        if errors(&output).contains("not found") {
            eprintln!("skipped: curl is missing");
            continue;
        }
        assert!(output.status.success(), "{curl}: {}", errors(&output));
    }
    let log = serving.stop();
    assert!(log.contains("grant ready"), "{log}");
    let left: Vec<_> = std::fs::read_dir(&state).expect("a directory").collect();
    assert!(left.is_empty(), "it cleans up: {left:?}");
}

#[test]
fn the_sandbox_command_fails_refreshes_as_it_is_told() {
    let world = World::new();
    let arguments = [
        "sandbox",
        "--listen",
        "127.0.0.1:0",
        "--token-lifetime",
        "1s",
        "--fail-refresh",
        "503*2,html,cut",
    ];
    let serving = Serving::start(world.command(&arguments));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut statuses = std::collections::BTreeSet::new();
    while !serving.log().contains("token rotated") {
        statuses.insert(serving.get("/users").status);
        assert!(Instant::now() < deadline, "{}", serving.log());
    }
    // 401: the token died on its way while no other could be had, and the first answer passes.
    let known = |status: &u16| matches!(status, 200 | 401 | 503);
    assert!(statuses.iter().all(known), "{statuses:?}");
    assert_eq!(
        serving.log().matches("token not rotated").count(),
        4,
        "{}",
        serving.log()
    );
    let wrong = world
        .command(&["sandbox", "--fail-refresh", "sideways"])
        .output()
        .expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        errors(&wrong).contains("expected html"),
        "{}",
        errors(&wrong)
    );
}
