//! Inside of a tunnel to a host that is intercepted: the client believes to speak to Lucid.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::forward_proxy::ENABLED;
use crate::world::connect_proxy::ConnectProxy;
use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::{Identity, TlsClient, TlsFront};
use crate::world::{
    SOON, Serving, World, errors, is_late, is_there, missing, printed, python_with,
};

const HOST: &str = "api.lucid.co";
const REPORTS: &str = "lpk_marked-key-of-reports";

fn serve(tables: &str) -> (World, Serving) {
    let mut world = World::logged_in();
    world.tables = format!("{ENABLED}{tables}");
    let serving = world.serve();
    (world, serving)
}

/// What a client speaks that trusts the local authority alone.
fn trusting(world: &World, protocols: &[&str]) -> ClientConfig {
    let pem = fs::read(world.state().join("ca.pem")).expect("an authority");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("a certificate"))
        .expect("it is added");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    config
}

/// A connection that was told to lead to Lucid.
fn tunnel(address: SocketAddr, fields: &str) -> TcpStream {
    tunnel_to(443, address, fields)
}

/// The same to this port.
fn tunnel_to(port: u16, address: SocketAddr, fields: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(address).expect("a connection");
    tcp.set_read_timeout(Some(SOON)).expect("a timeout");
    tcp.set_nodelay(true).expect("no delay");
    let head = format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{fields}\r\n");
    tcp.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200 OK\r\n"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    tcp
}

/// TLS inside of one, with a client that asks for `name`.
fn shake_hands(tcp: TcpStream, config: ClientConfig, name: &'static str) -> io::Result<TlsClient> {
    let name = ServerName::try_from(name).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut client = StreamOwned::new(connection, tcp);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

fn enter(world: &World, serving: &Serving, fields: &str) -> TlsClient {
    let tcp = tunnel(serving.address, fields);
    shake_hands(tcp, trusting(world, &["http/1.1"]), HOST).expect("a handshake")
}

/// Sends a request with more fields, the last one of its connection, and reads all that comes.
fn ask(client: &mut TlsClient, line: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    );
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an end in order");
    String::from_utf8(answer).expect("text")
}

/// Whether a read shows the end of a connection, and not that nothing has come for too long. A reset is an end too.
fn has_ended(read: io::Result<usize>) -> bool {
    read.map_or_else(|error| !is_late(&error), |length| length == 0)
}

/// `curl` through the proxy, with what the local authority vouches for.
fn curl(world: &World, serving: &Serving, arguments: &[&str]) -> Output {
    Command::new("curl")
        .env_clear()
        .args(["-q", "-sS", "--max-time", "20", "-x"])
        .arg(format!("http://{}", serving.address))
        .arg("--cacert")
        .arg(world.state().join("ca.pem"))
        .args(arguments)
        .output()
        .expect("curl runs")
}

#[test]
fn curl_speaks_to_lucid_by_http_1_1_and_2_while_tokens_die() {
    if !is_there("curl", &["-V"]) {
        return missing("curl");
    }
    let (world, serving) = serve("[log]\nrequests = true\n");
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for host in [HOST, "api.lucid.app"] {
            world.sandbox.expire_access_tokens();
            let url = format!("https://{host}/users/me/profile");
            let stale = "Authorization: Bearer stale";
            let format = "\n%{http_version} %{http_code} %header{proxy-status}";
            let output = curl(
                &world,
                &serving,
                &[version, "-H", stale, "-w", format, &url],
            );
            let text = printed(&output);
            assert!(output.status.success(), "{}{text}", errors(&output));
            let last =
                format!("\n{shown} 200 lucid-proxy; received-status=401; details=\"replayed");
            assert!(text.contains(&last), "{text}");
            assert!(text.contains("\"email\""), "{text}");
        }
    }
    assert_eq!(world.sandbox.counts().token_posts, 4);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
    let log = serving.stop();
    assert_eq!(log.matches("/users/me/profile").count(), 4, "{log}");
    assert_eq!(log.matches("CONNECT  200").count(), 4, "{log}");
}

#[test]
fn python_asks_without_a_host_in_front_of_the_tunnel() {
    let Some(python) = python_with(&["urllib.request"]) else {
        return;
    };
    let (world, serving) = serve("");
    let script = "import urllib.request as r; print(r.urlopen('https://api.lucid.co/users/me/profile').read())";
    let output = Command::new(python)
        .env_clear()
        .env("HTTPS_PROXY", format!("http://{}", serving.address))
        .env("SSL_CERT_FILE", world.state().join("ca.pem"))
        .args(["-c", script])
        .output()
        .expect("Python runs");
    assert!(printed(&output).contains("email"), "{}", errors(&output));
}

#[test]
fn f09_references_lead_to_where_the_client_believes_to_be() {
    let (upstream, mut world) = World::before_raw_upstream();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nLink: <{}/x?page=2>; rel=\"next\"\r\nLocation: https://{HOST}/y\r\nContent-Length: 2\r\n\r\nok",
        upstream.origin()
    );
    let seen = upstream.answering(Box::leak(answer.into_bytes().into_boxed_slice()));
    world.top = "public_url = \"https://elsewhere.example\"\n".to_owned();
    world.tables = ENABLED.to_owned();
    let serving = world.serve();
    let mut client = enter(&world, &serving, "");
    let answer = ask(&mut client, "GET /x", "", "");
    assert!(
        answer.contains("\r\nlink: <https://api.lucid.co/x?page=2>; rel=\"next\"\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\nlocation: https://api.lucid.co/y\r\n"),
        "{answer}"
    );
    let request = seen.recv_timeout(SOON).expect("a request");
    let request = String::from_utf8_lossy(&request).into_owned();
    assert!(request.contains("via: 1.1 lucid-proxy\r\n"), "{request}");
}

#[test]
fn s02_s03_inside_only_that_host_is_served_and_no_page() {
    let (world, serving) = serve("");
    let inside = || enter(&world, &serving, "");
    let good = ask(&mut inside(), "GET /users/me/profile", "", "");
    assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
    for (head, code) in [
        (
            "GET / HTTP/1.1\r\nHost: api.lucid.app\r\n",
            "hostNotAllowed",
        ),
        (
            "GET / HTTP/1.1\r\nHost: api.lucid.co:8443\r\n",
            "hostNotAllowed",
        ),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", "hostNotAllowed"),
        (
            "GET https://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n",
            "hostNotAllowed",
        ),
        (
            "GET http://api.lucid.co/ HTTP/1.1\r\nHost: api.lucid.co\r\n",
            "badRequest",
        ),
        (
            "GET / HTTP/1.1\r\nHost: api.lucid.co\r\nOrigin: https://evil.example\r\n",
            "originNotAllowed",
        ),
        (
            "GET / HTTP/1.1\r\nHost: api.lucid.co\r\nSec-Fetch-Site: cross-site\r\n",
            "originNotAllowed",
        ),
        (
            "CONNECT api.lucid.co:443 HTTP/1.1\r\nHost: api.lucid.co\r\n",
            "policyDenied",
        ),
        (
            "GET / HTTP/1.1\r\nHost: api.lucid.co\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "badRequest",
        ),
    ] {
        let mut client = inside();
        client
            .write_all(format!("{head}Connection: close\r\n\r\n0\r\n\r\n").as_bytes())
            .expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end in order");
        assert!(
            answer.contains(&format!("\"code\":\"{code}\"")),
            "{head}: {answer}"
        );
    }
}

#[test]
fn s04_s05_a_clients_rules_hold_inside_and_its_key_is_told_once() {
    let mut world = World::logged_in();
    fs::write(world.directory.path().join("reports.key"), REPORTS).expect("written");
    world.tables = format!(
        "{ENABLED}[clients.reports]\nkey_file = \"reports.key\"\nread_only = true\n[log]\nrequests = true\n"
    );
    let serving = world.serve();
    let login = STANDARD.encode(format!("reports:{REPORTS}"));
    let login = format!("Proxy-Authorization: Basic {login}\r\n");
    for (line, fields, status) in [
        ("GET /users/me/profile", "", "200"),
        (
            "GET /users/me/profile",
            "Authorization: Bearer stale\r\n",
            "200",
        ),
        ("POST /documents", "Authorization: Bearer stale\r\n", "403"),
    ] {
        let mut client = enter(&world, &serving, &login);
        let answer = ask(&mut client, line, fields, "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {answer}"
        );
    }
    let log = serving.stop();
    assert_eq!(log.matches("client reports").count(), 6, "{log}");
    assert!(!log.contains("marked"), "{log}");
}

#[test]
fn f11_a_program_that_refreshes_by_itself_gets_tokens_that_work() {
    let (world, serving) = serve("");
    let before = world.stored();
    let body = "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"oauth2-stale\",\"client_id\":\"dummy\",\"client_secret\":\"dummy\"}";
    let mut client = enter(&world, &serving, "");
    let answer = ask(
        &mut client,
        "POST /oauth2/token",
        "Content-Type: application/json\r\n",
        body,
    );
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let token = answer["access_token"].as_str().expect("a token");
    assert!(
        token.starts_with("lucid-proxy-placeholder-access-"),
        "{token}"
    );
    let mut client = enter(&world, &serving, "");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let answer = ask(&mut client, "GET /users/me/profile", &bearer, "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(world.stored(), before, "the real pair is untouched");
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

#[test]
fn f16_a_websocket_works_inside() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = ENABLED.to_owned();
    let serving = world.serve();
    let mut client = enter(&world, &serving, "");
    client.write_all(b"GET /socket HTTP/1.1\r\nHost: api.lucid.co\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly").expect("sent");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhi");
    assert_eq!(connection.read(5), b"early");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhi") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("more");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    client.write_all(b"there").expect("sent");
    assert_eq!(connection.read(5), b"there");
    client.conn.send_close_notify();
    client.flush().expect("sent");
    assert_eq!(connection.rest(), b"");
}

#[test]
fn what_comes_ahead_of_the_answer_belongs_to_the_tunnel() {
    let (world, serving) = serve("[limits]\nheader_bytes = \"4 KiB\"\n");
    // The first record of a handshake, padded to be larger than any head may be.
    let mut config = trusting(&world, &[]);
    config.alpn_protocols = (0..200)
        .map(|number| format!("none-{number:040}").into_bytes())
        .collect();
    config.alpn_protocols.push(b"http/1.1".to_vec());
    let name = ServerName::try_from(HOST).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut bytes = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).expect("in memory");
    }
    assert!(bytes.len() > 8 << 10, "{}", bytes.len());
    let mut tcp = TcpStream::connect(serving.address).expect("a connection");
    tcp.set_read_timeout(Some(SOON)).expect("a timeout");
    tcp.write_all(&bytes).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    let mut client = StreamOwned::new(connection, tcp);
    for close in [false, false, true] {
        let fields = if close { "Connection: close\r\n" } else { "" };
        client
            .write_all(
                format!("GET /users/me/profile HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
                    .as_bytes(),
            )
            .expect("sent");
    }
    let mut answers = String::new();
    client
        .read_to_string(&mut answers)
        .expect("an end in order");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

#[test]
fn another_name_in_the_handshake_is_refused_and_none_is_not() {
    let (world, serving) = serve("");
    let other = shake_hands(
        tunnel(serving.address, ""),
        trusting(&world, &[]),
        "api.lucid.app",
    );
    assert!(other.is_err());
    serving.wait_for_log("api.lucid.app");
    let log = serving.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("api.lucid.app"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains(HOST) && lines[0].contains("WARN"),
        "{log}"
    );
    let mut config = trusting(&world, &[]);
    config.enable_sni = false;
    let mut client = shake_hands(tunnel(serving.address, ""), config, HOST).expect("a handshake");
    let answer = ask(&mut client, "GET /users/me/profile", "", "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn plain_http_inside_is_told_what_to_do() {
    let (_world, serving) = serve("");
    let mut tcp = tunnel(serving.address, "");
    tcp.write_all(b"GET /users HTTP/1.1\r\nHost: api.lucid.co\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an end");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("leads to TLS") && answer.contains("https://"),
        "{answer}"
    );
    let line = "a client spoke plain HTTP where CONNECT to api.lucid.co:443 leads to TLS";
    assert_eq!(serving.stop().matches(line).count(), 1);
}

#[test]
fn an_upstream_on_another_port_is_intercepted_on_that_too() {
    let mut world = World::logged_in();
    let front = TlsFront::named(HOST, world.sandbox.address());
    let company = ConnectProxy::start(front.address);
    front.write_bundle(&world.directory.path().join("lucid.pem"));
    world.upstream = format!("https://{HOST}:8443");
    world.upstream_keys = format!("ca_file = \"lucid.pem\"\nproxy = \"{}\"\n", company.url(""));
    world.tables = ENABLED.to_owned();
    let origin = Some(world.upstream.clone());
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = origin);
    let serving = world.serve();
    let answer = |port, host: &str| {
        let tcp = tunnel_to(port, serving.address, "");
        let tls = shake_hands(tcp, trusting(&world, &["http/1.1"]), HOST);
        let mut client = tls.expect("a handshake");
        let head =
            format!("GET /users/me/profile HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an end in order");
        String::from_utf8(answer).expect("text")
    };
    for (port, host, status) in [
        (8443, "api.lucid.co:8443", "200"),
        (443, "api.lucid.co", "200"),
        (8443, "api.lucid.co", "403"),
        (443, "api.lucid.co:8443", "403"),
    ] {
        let answer = answer(port, host);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{port} {host}: {answer}");
    }
}

#[test]
fn a_name_that_says_that_it_is_complete_is_the_same() {
    let (world, serving) = serve("");
    let answer = |host: &str| {
        let mut client = enter(&world, &serving, "");
        let head =
            format!("GET /users/me/profile HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an end in order");
        String::from_utf8(answer).expect("text")
    };
    for host in ["api.lucid.co.", "API.lucid.co.:443"] {
        let answer = answer(host);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for host in ["api.lucid.co..", "api.lucid.co.:80", "."] {
        let answer = answer(host);
        assert!(
            answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.1 400 "),
            "{host}: {answer}"
        );
    }
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn a_running_server_takes_a_new_authority_over() {
    let (world, serving) = serve("");
    let status = |config| {
        let tls = shake_hands(tunnel(serving.address, ""), config, HOST);
        tls.map(|mut tls| ask(&mut tls, "GET /users/me/profile", "", ""))
    };
    let old = trusting(&world, &["http/1.1"]);
    let answer = status(old.clone()).expect("trusted");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Another program with other hosts has one of its own.
    let other = world.directory.path().join("other.toml");
    fs::write(&other, "[intercept]\nhosts = [\"api.lucid.co\"]\n").expect("written");
    let other = other.to_str().expect("text").to_owned();
    let output = world.command(&["-c", &other, "ca", "path"]).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", errors(&output));
    status(old.clone()).expect("still trusted");
    let output = world.run(&["ca", "renew"]);
    assert!(output.status.success(), "{}", errors(&output));
    let answer = status(trusting(&world, &["http/1.1"])).expect("the new one is in use");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    status(old).expect_err("the old one is not");
}

#[test]
fn a_client_that_does_not_trust_us_is_told_of_once() {
    let (world, serving) = serve("");
    let stranger = Identity::new();
    for _ in 0..3 {
        let config = ClientConfig::clone(&stranger.client(&[]));
        let error = shake_hands(tunnel(serving.address, ""), config, HOST).expect_err("no trust");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }
    serving.wait_for_log(
        "a client does not trust (unknown_ca) the certificate that it was shown for api.lucid.co: ",
    );
    let mut client = enter(&world, &serving, "");
    assert!(ask(&mut client, "GET /users/me/profile", "", "").starts_with("HTTP/1.1 200 "));
    assert_eq!(serving.stop().matches("does not trust").count(), 1);
}

#[test]
fn a_client_that_leaves_without_a_word_may_not_trust_us() {
    let mut world = World::logged_in();
    world.tables = ENABLED.to_owned();
    let serving = world.serve_with(|command| {
        command.env("RUST_LOG", "lucid_proxy=debug");
    });
    let mut trusted = enter(&world, &serving, "");
    assert!(ask(&mut trusted, "GET /users/me/profile", "", "").starts_with("HTTP/1.1 200 "));
    // Opened in advance, and not needed.
    let mut spare = enter(&world, &serving, "");
    spare.conn.send_close_notify();
    spare.flush().expect("sent");
    let mut rest = Vec::new();
    spare.read_to_end(&mut rest).expect("an end in order");
    serving.wait_for_log("a client left the tunnel to api.lucid.co in order");
    assert!(!serving.log().contains("trust"), "{}", serving.log());
    drop(enter(&world, &serving, ""));
    serving.wait_for_log(
        "perhaps it does not trust the certificate that it was shown for api.lucid.co: ",
    );
}

#[test]
fn f09_what_leads_to_lucid_itself_stays_as_it_is() {
    let upstream = RawUpstream::start();
    let behind = upstream.origin();
    let behind = behind.strip_prefix("http://").expect("plain");
    let front = TlsFront::named(HOST, behind.parse().expect("an address"));
    let company = ConnectProxy::start(front.address);
    let mut world = World::logged_in();
    front.write_bundle(&world.directory.path().join("lucid.pem"));
    world.upstream = format!("https://{HOST}");
    world.upstream_keys = format!("ca_file = \"lucid.pem\"\nproxy = \"{}\"\n", company.url(""));
    world.top = "public_url = \"https://elsewhere.example\"\n".to_owned();
    world.tables = ENABLED.to_owned();
    let answer = "HTTP/1.1 200 OK\r\nLink: <https://api.lucid.co/x?page=2>; rel=\"next\"\r\nContent-Length: 2\r\n\r\nok";
    let _seen = upstream.answering(answer.as_bytes());
    let serving = world.serve();
    let kept = "link: <https://api.lucid.co/x?page=2>; rel=\"next\"\r\n";
    let mut client = enter(&world, &serving, "");
    let inside = ask(&mut client, "GET /x", "", "");
    assert!(inside.contains(kept), "{inside}");
    let mut client = serving.connect();
    client.send(b"GET http://api.lucid.app/x HTTP/1.1\r\nHost: api.lucid.app\r\n\r\n");
    let absolute = client.response();
    let link = absolute.header("link");
    assert_eq!(link, Some("<https://api.lucid.co/x?page=2>; rel=\"next\""));
    // Who asks the proxy by its address is led back to it.
    let link = serving.get("/x");
    let link = link.header("link");
    assert_eq!(
        link,
        Some("<https://elsewhere.example/x?page=2>; rel=\"next\"")
    );
}

#[test]
fn f12_a_client_that_does_not_shake_hands_in_time_is_let_go() {
    let (_world, serving) = serve("[timeouts]\nhandshake = \"200ms\"\n");
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = tunnel(serving.address, "");
        tcp.write_all(begun).expect("sent");
        assert!(has_ended(tcp.read(&mut [0])), "{begun:?}");
    }
}

#[test]
fn f12_a_client_that_asks_for_nothing_inside_is_let_go() {
    let (world, serving) = serve("[timeouts]\nfirst_request = \"300ms\"\nidle = \"100ms\"\n");
    let mut silent = enter(&world, &serving, "");
    assert!(has_ended(silent.read(&mut [0])));
    let mut idle = enter(&world, &serving, "");
    let head = format!("GET /users/me/profile HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    idle.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    idle.read_to_string(&mut answer).expect("an end in order");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn s08_nonsense_inside_harms_nobody() {
    let (world, serving) = serve("");
    for nonsense in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\0\0\0\0",
        b"\xff\xfe",
        b"\r\n\r\n",
        b"GET",
    ] {
        let mut tcp = tunnel(serving.address, "");
        tcp.write_all(nonsense).expect("sent");
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    let mut client = enter(&world, &serving, "");
    assert!(ask(&mut client, "GET /users/me/profile", "", "").starts_with("HTTP/1.1 200 "));
    let log = serving.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_tls_listener_is_a_forward_proxy_too() {
    let mut world = World::logged_in();
    let identity = Identity::new();
    identity.write(world.directory.path());
    world.tables = ENABLED.to_owned();
    let serving = world.serve_on(
        "[{ address = \"127.0.0.1:0\", certificate_file = \"tls.crt\", key_file = \"tls.key\" }, \"unix:proxy.sock\"]",
    );
    let mut outer =
        crate::world::tls::connect(serving.address, &identity.client(&["http/1.1"])).expect("TLS");
    outer
        .write_all(b"CONNECT api.lucid.co:443 HTTP/1.1\r\nHost: api.lucid.co:443\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        outer.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let name = ServerName::try_from(HOST).expect("a name");
    let config = Arc::new(trusting(&world, &["http/1.1"]));
    let inner = ClientConnection::new(config, name).expect("a configuration");
    let mut client = StreamOwned::new(inner, outer);
    client
        .write_all(
            format!("GET /users/me/profile HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an end in order");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut unix = world.connect_unix();
    unix.write_all(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    unix.read_to_string(&mut answer).expect("an end");
    assert!(answer.contains("policyDenied"), "{answer}");
    let http2 = crate::world::http2_client::Http2::connect(serving.address, &identity);
    let answer = http2.get("/users/me/profile");
    assert_eq!(answer.status, 200, "HTTP/2 has a scheme in every target");
    let answer = http2.ask(http::Method::CONNECT, "/");
    assert_eq!(answer.status, 403);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("speak HTTP/1.1 with it"), "{text}");
}

#[test]
fn no_request_is_lost_when_the_server_ends() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.tables = ENABLED.to_owned();
    let serving = world.serve();
    let mut idle = enter(&world, &serving, "");
    let mut busy = enter(&world, &serving, "");
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: api.lucid.co\r\n\r\n")
        .expect("sent");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    serving.signal(rustix::process::Signal::TERM);
    assert!(has_ended(idle.read(&mut [0])), "it has nothing to wait for");
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut answer = String::new();
    busy.read_to_string(&mut answer).expect("an end in order");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    serving.stop();
}
