//! The way to upstream and token endpoint: both families of addresses, and where it ends.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;

use lucid_proxy::sandbox::{Behaviour, Sandbox};

use crate::world::{Response, Serving, World, is_root, is_there};

/// An answer of the proxy itself: its status, code, error type and message.
#[track_caller]
pub(crate) fn assert_unreached(response: &Response, status: u16, error: &str, words: &[&str]) {
    let code = match status {
        504 => "upstreamTimeout",
        _ => "upstreamUnreachable",
    };
    assert_eq!(
        (response.status, response.code().as_str()),
        (status, code),
        "{}",
        response.text()
    );
    let said = response.header("proxy-status").expect("a Proxy-Status");
    assert!(
        said.starts_with(&format!("lucid-proxy; error={error}; ")),
        "{said}"
    );
    for word in words {
        assert!(
            response.text().contains(word),
            "{word}: {}",
            response.text()
        );
    }
}

/// An answer of the proxy itself: it cannot find this name, or has waited too long for whoever should know.
#[track_caller]
pub(crate) fn assert_not_found(response: &Response, name: &str) {
    let (status, error) = match response.status {
        504 => (504, "dns_timeout"),
        _ => (502, "dns_error"),
    };
    let word = format!("the address of https://{name}");
    assert_unreached(response, status, error, &[&word]);
}

/// A port of this machine that nobody listens on.
pub(crate) fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Starts `serve` where `localhost` has these addresses, in a file system of its own; `None` where that cannot be had.
fn serve_where_localhost_is(world: &World, addresses: &[&str]) -> Option<Serving> {
    let lines = addresses
        .iter()
        .map(|address| format!("{address} localhost\n"));
    serve_with_hosts(world, &lines.collect::<String>())
}

/// Starts `serve` where `/etc/hosts` has these lines; `None` where that cannot be had.
pub(crate) fn serve_with_hosts(world: &World, lines: &str) -> Option<Serving> {
    if !is_root() || !is_there("unshare", &["-m", "true"]) {
        return None;
    }
    let hosts = world.directory.path().join("hosts");
    std::fs::write(&hosts, lines).expect("written");
    world.configure();
    let like = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .arg(&hosts)
        .arg(like.get_program())
        .args(like.get_args())
        .env_clear()
        .current_dir(world.directory.path());
    for (name, value) in like.get_envs() {
        command.env(name, value.expect("all of them are set"));
    }
    Some(Serving::start(command))
}

#[test]
fn upstream_and_token_endpoint_are_reached_by_ipv6() {
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(loopback).is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let mut world = World::new();
    world.sandbox = Sandbox::start(loopback, Behaviour::default()).expect("a stand-in");
    (world.upstream, world.token_origin) = (world.sandbox.origin(), world.sandbox.origin());
    assert!(world.upstream.starts_with("http://[::1]:"));
    world.log_in();
    world.sandbox.expire_access_tokens();
    let serving = world.serve();
    assert_eq!(serving.get("/users").status, 200);
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.problems.len()), (1, 0));
}

#[test]
fn a_first_address_that_is_dead_costs_no_request() {
    let mut world = World::logged_in();
    let port = world.sandbox.address().port();
    world.upstream = format!("http://localhost:{port}");
    world.token_origin = world.upstream.clone();
    world.sandbox.expire_access_tokens();
    let Some(serving) = serve_where_localhost_is(&world, &["::1", "127.0.0.1"]) else {
        return;
    };
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(world.sandbox.counts().rotations, 1);
    drop(serving);

    // That address is tried: where there is no other, it is told.
    let serving = serve_where_localhost_is(&world, &["::1"]).expect("as before");
    let address = format!("[::1]:{port}: Connection refused");
    let words = [&*address, "upstream.url"];
    assert_unreached(&serving.get("/users"), 502, "connection_refused", &words);
}

#[test]
fn every_address_that_was_tried_is_told() {
    let mut world = World::logged_in();
    let port = closed_port();
    world.upstream = format!("http://localhost:{port}");
    let Some(serving) = serve_where_localhost_is(&world, &["::1", "127.0.0.1", "127.0.0.2"]) else {
        return;
    };
    let response = serving.get("/users");
    let words = ["[::1]:", "127.0.0.1:", "127.0.0.2:"].map(|host| format!("{host}{port}: "));
    let words = words.each_ref().map(String::as_str);
    assert_unreached(&response, 502, "connection_refused", &words);
}

#[test]
fn f12_each_step_to_upstream_has_its_name_and_is_bounded() {
    let mut world = World::logged_in();
    // Accepted by the system, and never by anybody.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    world.upstream = format!("https://{address}");
    world.upstream_keys = "connect_timeout = \"200ms\"".to_owned();
    let response = world.serve().get("/users");
    let words = [
        &*format!("the TLS handshake with https://{address} did not end within 200ms"),
        "upstream.connect_timeout",
    ];
    assert_unreached(&response, 504, "connection_timeout", &words);

    world.upstream = "https://nobody.invalid".to_owned();
    world.upstream_keys = String::new();
    assert_not_found(&world.serve().get("/users"), "nobody.invalid");

    world.upstream = format!("https://{}", world.sandbox.address());
    let words = ["no trusted TLS connection to https://127.0.0.1:"];
    let response = world.serve().get("/users");
    assert_unreached(&response, 502, "tls_protocol_error", &words);
}
