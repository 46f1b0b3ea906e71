//! Keys of clients: where they come from, where they are sent, and that they go nowhere else.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;

use crate::https;
use crate::world::http2_client::{Http2, nothing};
use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::connect;
use crate::world::{Response, SOON, Serving, World, errors, get, is_there, missing, printed};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REPORTS: &str = "lpk_marked-key-of-reports";
const CI: &str = "lpk_marked-key-of-ci";

/// A client whose key's hash is configured, and one whose key is in a file.
fn clients(world: &mut World) {
    fs::write(world.directory.path().join("ci.key"), format!("{CI}\n")).expect("written");
    let hash = digest(&SHA256, REPORTS.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    world.tables = format!(
        "{}[clients.reports]\nkey_sha256 = \"{hash}\"\nread_only = true\n[clients.ci]\nkey_file = \"ci.key\"\ndeny = [\"DELETE /**\"]\n",
        world.tables
    );
}

fn world() -> World {
    let mut world = World::logged_in();
    clients(&mut world);
    world
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}

/// What a program sends that has the login of a proxy.
fn login(name: &str, key: &str) -> String {
    let login = STANDARD.encode(format!("{name}:{key}"));
    format!("Proxy-Authorization: Basic {login}")
}

#[track_caller]
fn is_refused(response: &Response, why: &str) {
    assert_eq!(response.status, 401, "{why}: {}", response.text());
    assert_eq!(response.code(), "clientKeyRequired", "{why}");
    let challenge = response.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"lucid-proxy\""), "{why}");
    let status = response.header("proxy-status").expect("a field");
    assert!(
        status.starts_with("lucid-proxy; error=http_request_denied"),
        "{status}"
    );
}

#[test]
fn s04_a_key_is_taken_in_each_of_its_places_and_reaches_upstream_from_none() {
    let (upstream, mut world) = World::before_raw_upstream();
    clients(&mut world);
    let serving = world.serve();
    let seen = upstream.answering(OK);
    let stale = "Authorization: Bearer oauth2-stale";
    for headers in [
        vec![bearer(CI)],
        vec![bearer(REPORTS)],
        vec![format!("authorization:bearer  {CI} ")],
        vec![format!("Proxy-Authorization: Bearer {CI}")],
        vec![
            format!("Proxy-Authorization: BEARER {CI}"),
            stale.to_owned(),
        ],
        vec![login("ci", CI)],
        vec![
            login("reports", REPORTS),
            "Authorization: Basic b2xkOmxvZ2lu".to_owned(),
        ],
        vec![login("ci", CI), bearer(REPORTS), bearer(CI)],
        vec![
            bearer(CI),
            "Connection: Authorization, Proxy-Authorization".to_owned(),
        ],
    ] {
        let lines: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = serving.connect().ask("GET /users", &lines, b"");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "{lines:?}"
        );
        let request = String::from_utf8(seen.recv_timeout(SOON).expect("a request"));
        let request = request.expect("text").to_ascii_lowercase();
        let has = |text: &str| request.matches(text).count();
        assert_eq!(
            (
                has("\r\nauthorization: bearer oauth2-"),
                has("authorization")
            ),
            (1, 1)
        );
        for gone in ["marked", "stale", "b2xk", "basic", "proxy-auth"] {
            assert_eq!(has(gone), 0, "{lines:?}: {request}");
        }
        for key in [CI, REPORTS] {
            let encoded = STANDARD.encode(key).to_ascii_lowercase();
            assert!(
                !request.contains(encoded.trim_end_matches('=')),
                "{request}"
            );
        }
    }
}

#[test]
fn s04_f02_a_key_in_trailers_goes_no_further() {
    let (upstream, mut world) = World::before_raw_upstream();
    clients(&mut world);
    let serving = world.serve();
    let mut client = serving.connect();
    let trailer = "Trailer: X-Sum, Authorization, Proxy-Authorization";
    let headers = [&bearer(CI), "Transfer-Encoding: chunked", trailer];
    client.request("POST /x", &headers, b"");
    client.send(format!("1\r\nx\r\n0\r\nX-Sum: 1\r\n{}\r\n", bearer(CI)).as_bytes());
    client.send(format!("Proxy-Authorization: Bearer {CI}\r\n\r\n").as_bytes());
    let mut connection = upstream.accept();
    connection.head().expect("a head");
    let content = connection.until(b"\r\n\r\n");
    assert_eq!(content, b"1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n");
    connection.send(OK);
    assert_eq!(client.response().status, 200);
}

#[test]
fn s04_without_its_key_nothing_of_a_request_gets_further_and_all_are_told_the_same() {
    let (upstream, mut world) = World::before_raw_upstream();
    clients(&mut world);
    let serving = world.serve();
    let seen = upstream.answering(OK);
    let without_scheme = format!("Authorization: {CI}");
    let mut messages = Vec::new();
    for headers in [
        vec![],
        vec![bearer("")],
        vec!["Authorization: Bearer".to_owned()],
        vec![bearer("lpk_marked-key-of-nobody")],
        vec![bearer(&CI[..CI.len() - 1])],
        vec![bearer(&format!("{CI}x"))],
        vec![bearer(&CI.to_uppercase())],
        vec![bearer(&format!("{CI}, Bearer {CI}"))],
        vec![without_scheme],
        vec![format!(
            "Authorization: Basic {}",
            STANDARD.encode(format!("ci:{CI}"))
        )],
        vec![format!("X-Api-Key: {CI}")],
        vec![bearer(CI), bearer(CI)],
        vec![bearer(CI), bearer("lpk_marked-key-of-nobody")],
        vec![login("ci", CI), login("ci", CI)],
        vec![login("reports", CI)],
        vec![login("", CI)],
        vec![login("CI", CI)],
        vec![login("ci", "")],
        vec![login("ci", "lpk_marked-key-of-nobody"), bearer(CI)],
        vec!["Proxy-Authorization: Basic !".to_owned()],
        vec!["Proxy-Authorization: Basic".to_owned()],
        vec!["Proxy-Authorization: Basic bm9jb2xvbg==".to_owned()],
        vec!["Proxy-Authorization: Digest x".to_owned()],
        // The hash is no key.
        vec![bearer(
            &world.tables[world.tables.find("256 = \"").expect("it is there") + 7..][..64],
        )],
    ] {
        let lines: Vec<_> = headers.iter().map(String::as_str).collect();
        let why = lines.join(" & ");
        for line in [
            "GET /users",
            "POST /oauth2/token",
            "OPTIONS *",
            "DELETE /documents/1",
        ] {
            let refused = serving.connect().ask(line, &lines, b"");
            is_refused(&refused, &why);
            let message = refused.json()["message"].as_str().expect("text").to_owned();
            assert!(!message.contains("marked"), "{message}");
            messages.push(message);
        }
        let head = serving.connect().ask("HEAD /users", &lines, b"");
        assert_eq!(head.status, 401, "{why}");
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].contains("Authorization: Bearer KEY"),
        "{messages:?}"
    );
    let control = serving.connect().ask("GET /control", &[&bearer(CI)], b"");
    assert_eq!(control.status, 200);
    let first = seen.recv_timeout(SOON).expect("a request");
    assert!(first.starts_with(b"GET /control "), "nothing came before");
}

#[test]
fn s04_the_guard_comes_before_the_key_and_the_key_before_everything_else() {
    let world = world();
    let serving = world.serve();
    let mut stranger = serving.connect();
    stranger.send(
        format!(
            "GET /users HTTP/1.1\r\nHost: evil\r\n{}\r\n\r\n",
            bearer(CI)
        )
        .as_bytes(),
    );
    assert_eq!(stranger.response().code(), "hostNotAllowed");
    let page = ["Origin: https://evil.example", &bearer(CI)];
    let refused = serving.connect().ask("GET /users", &page, b"");
    assert_eq!(refused.code(), "originNotAllowed");
    // What is refused below /oauth2, or would be by a rule, is no answer for strangers.
    for line in ["POST /oauth2/authorize", "GET /documents/../x"] {
        is_refused(&serving.connect().ask(line, &[], b""), line);
        let refused = serving.connect().ask(line, &[&bearer(CI)], b"");
        assert_eq!(refused.code(), "policyDenied");
    }
    let refresh = br#"{"grant_type":"refresh_token","refresh_token":"x"}"#;
    let answer = serving
        .connect()
        .ask("POST /oauth2/token", &[&login("ci", CI)], refresh);
    assert_eq!(answer.status, 200, "{}", answer.text());
    // A client that was refused may try again on its connection.
    let mut client = serving.connect();
    is_refused(&client.ask("POST /documents/search", &[], b"{}"), "no key");
    assert_eq!(client.ask("GET /users", &[&bearer(CI)], b"").status, 200);
}

fn ask_unix(socket: &Path, header: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let request =
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn s01_every_kind_of_listener_asks_for_a_key() {
    let (mut world, identity) = https::world();
    clients(&mut world);
    let mut serving = world.serve_on(
        r#"["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "unix:proxy.sock", { address = "127.0.0.1:0", certificate_file = "tls.crt", key_file = "tls.key" }]"#,
    );
    let with_key = |address: SocketAddr| {
        let mut client = crate::world::Client::connect(address);
        client.ask("GET /users", &[&bearer(CI)], b"").status
    };
    let mut plain = vec![serving.address];
    let mut next = || {
        crate::world::endpoint(&serving.line())
            .expect("an address")
            .1
    };
    plain.push(next());
    // That it is everywhere is no name of its own.
    plain.push(SocketAddr::from(([127, 0, 0, 1], next().port())));
    for address in plain {
        is_refused(&get(address, "/users"), &address.to_string());
        assert_eq!(with_key(address), 200, "{address}");
    }
    next();
    let socket = world.directory.path().join("proxy.sock");
    let refused = ask_unix(&socket, "");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let answer = ask_unix(&socket, &format!("{}\r\n", bearer(CI)));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let tls = next();
    let client = Http2::connect(tls, &identity);
    let refused = client.get("/users");
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.headers["www-authenticate"],
        "Bearer realm=\"lucid-proxy\""
    );
    let key = format!("Bearer {CI}");
    let fields = [("authorization", key.as_str())];
    let answer = client
        .begin(Method::GET, "/users", &fields, nothing())
        .answer();
    assert_eq!(answer.status, 200);
    let mut client = connect(tls, &identity.client(&["http/1.1"])).expect("a handshake");
    let request = format!("GET /users HTTP/1.1\r\nHost: localhost:{}\r\n", tls.port());
    client
        .write_all(format!("{request}\r\n").as_bytes())
        .expect("open");
    let mut answer = [0; 13];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 401 ");
}

#[test]
fn s01_an_address_that_others_can_reach_is_served_to_clients_with_keys() {
    let world = world();
    let output = world.run(&["check"]);
    assert!(output.status.success(), "{}", errors(&output));
    let clients = "\nclients        ci, reports\n";
    assert!(printed(&output).contains(clients), "{}", printed(&output));
    let serving = Serving::start(world.command(&["serve", "--listen", "0.0.0.0:0"]));
    let address = SocketAddr::from(([127, 0, 0, 1], serving.address.port()));
    is_refused(&get(address, "/users"), "no key");
    let mut client = crate::world::Client::connect(address);
    let answer = client.ask("GET /users", &[&bearer(REPORTS)], b"");
    assert_eq!(answer.status, 200);
    // Without any, the message names this way too.
    let open = World::logged_in();
    let output = open.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("lucid-proxy key new"),
        "{}",
        errors(&output)
    );
}

#[test]
fn s01_keys_for_clients_and_no_keys_for_all_contradict_each_other() {
    let mut world = world();
    world
        .tables
        .push_str("[guard]\nallow_unauthenticated = true\n");
    for command in [&["check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let output = world.run(command);
        assert_eq!(output.status.code(), Some(78));
        let errors = errors(&output);
        assert!(
            errors.contains("guard.allow_unauthenticated: there are [clients]"),
            "{errors}"
        );
    }
    world.tables = world
        .tables
        .replace("unauthenticated = true", "unauthenticated = false");
    assert!(world.run(&["check"]).status.success());
}

#[test]
fn s05_each_client_has_rules_of_its_own_beside_those_for_all() {
    let mut world = World::logged_in();
    world.tables = "[guard]\ndeny = [\"* /accounts/**\"]\n".to_owned();
    clients(&mut world);
    let serving = world.serve();
    let ask = |line: &str, key: &str| {
        let headers = [bearer(key), "Content-Type: application/json".to_owned()];
        let headers = headers.each_ref().map(String::as_str);
        serving.connect().ask(line, &headers, b"{}")
    };
    for key in [CI, REPORTS] {
        assert_eq!(ask("GET /users/me/profile", key).status, 200);
        assert_eq!(ask("POST /documents/search", key).status, 200);
        let refused = ask("GET /accounts/me", key);
        assert!(
            refused.text().contains("in deny under [guard]"),
            "{}",
            refused.text()
        );
    }
    let refused = ask("POST /sandbox/echo", REPORTS);
    assert_eq!(refused.code(), "policyDenied");
    assert!(
        refused.text().contains("under [clients.reports]"),
        "{}",
        refused.text()
    );
    assert_eq!(ask("POST /sandbox/echo", CI).status, 200);
    let refused = ask("DELETE /sandbox/echo", CI);
    assert!(
        refused.text().contains("under [clients.ci]"),
        "{}",
        refused.text()
    );
}

#[test]
fn s04_who_asked_stands_in_the_requests_line() {
    let mut world = world();
    let asked = |serving: Serving| {
        serving
            .connect()
            .ask("GET /users/me/profile", &[&bearer(REPORTS)], b"");
        serving
            .connect()
            .ask("POST /users", &[&login("reports", REPORTS)], b"");
        serving.get("/users");
        serving.stop()
    };
    let log = asked(world.serve_with(|command| {
        command.arg("--verbose");
    }));
    assert!(
        log.contains("  /users/me/profile  client reports\n"),
        "{log}"
    );
    assert!(
        log.contains("  /users  client reports  policyDenied: "),
        "{log}"
    );
    assert!(log.contains("  /users  clientKeyRequired: "), "{log}");
    world
        .tables
        .push_str("[log]\nformat = \"json\"\nrequests = true\n");
    let log = asked(world.serve());
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = events.filter(|event| event["message"] == "request");
    let clients: Vec<_> = requests.map(|request| request["client"].clone()).collect();
    assert_eq!(clients, ["reports".into(), "reports".into(), Value::Null]);
}

#[test]
fn s06_no_key_shows_in_the_log_at_any_level() {
    let world = world();
    let serving = world.serve_with(|command| {
        command.env("RUST_LOG", "trace").arg("--verbose");
    });
    for headers in [
        &bearer(CI)[..],
        &login("ci", CI),
        &bearer("lpk_marked-key-of-nobody"),
    ] {
        serving
            .connect()
            .ask("GET /users", &[headers, "X-Other: shown"], b"");
    }
    serving.connect().ask("DELETE /users", &[&bearer(CI)], b"");
    let log = serving.stop();
    assert!(log.contains("client ci"), "{log}");
    assert!(!log.contains("marked"), "{log}");
    let encoded = login("ci", CI);
    assert!(
        !log.contains(&encoded["Proxy-Authorization: Basic ".len()..]),
        "{log}"
    );
}

#[test]
fn s04_an_inline_key_needs_a_private_file_and_a_hash_does_not() {
    let mut world = world();
    world.tables = world
        .tables
        .replace("key_file = \"ci.key\"", &format!("key = \"{CI}\""));
    let file = world.configure();
    let output = world.command(&["check"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let told = errors(&output);
    assert!(
        told.contains("clients.ci.key: a secret may stand here only when"),
        "{told}"
    );
    assert!(
        told.contains("key_file") && !told.contains("marked"),
        "{told}"
    );
    assert!(!told.contains("reports"), "{told}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
    let serving = Serving::start(world.command(&["serve", "--listen", "127.0.0.1:0"]));
    let answer = serving.connect().ask("GET /users", &[&bearer(CI)], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn s04_key_new_makes_a_key_and_says_what_is_to_be_done_with_it() {
    let mut world = World::logged_in();
    let make = |name: &str| {
        let command = world.command(&["key", "new", name]).output();
        command.expect("it runs")
    };
    let (output, other) = (make("reports"), make("reports"));
    assert!(output.status.success() && printed(&output) != printed(&other));
    let key = printed(&output);
    let key = key.strip_suffix('\n').expect("a line");
    let secret = key.strip_prefix("lpk_").expect("a prefix");
    let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!(secret.len() == 43 && secret.bytes().all(url_safe), "{key}");
    let about = errors(&output);
    assert!(!about.contains(secret), "{about}");
    assert!(about.contains("Authorization: Bearer KEY"), "{about}");
    // No reader of a file or a pipe sees it follow.
    let end = "\nthe KEY went to standard output, and is stored nowhere else\n";
    assert!(about.ends_with(end), "{about}");
    // What it prints is what belongs into the file, to the letter.
    let lines = about.lines().skip_while(|line| !line.starts_with('['));
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert_eq!((lines.len(), lines[0]), (2, "[clients.reports]"));
    assert_eq!(
        fs::read_dir(world.directory.path())
            .expect("a directory")
            .count(),
        1,
        "nothing is stored"
    );
    world.tables = lines.join("\n");
    let serving = world.serve();
    is_refused(&serving.get("/users"), "no key");
    let answer = serving.connect().ask("GET /users", &[&bearer(key)], b"");
    assert_eq!(answer.status, 200);
    for bad in [
        "",
        "a b",
        "a.b",
        "é",
        "\"a\"",
        "a:b",
        &"a".repeat(65),
        "lpk_marked",
    ] {
        let output = world
            .command(&["key", "new", bad])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(
            errors(&output).contains("expected a name") && printed(&output).is_empty(),
            "{bad}"
        );
        assert!(!errors(&output).contains("marked"), "it may be a key");
    }
}

#[test]
fn s04_curl_sends_the_login_of_a_proxy() {
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    let world = world();
    let serving = world.serve();
    let status = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(arguments)
            .arg(format!("http://{}/users", serving.address))
            .env_clear()
            .env("NO_PROXY", "")
            .output()
            .expect("curl");
        printed(&output)
    };
    let proxy = |key: &str| format!("http://ci:{key}@{}", serving.address);
    assert_eq!(status(&["-x", &proxy(CI)]), "200");
    assert_eq!(status(&["-x", &proxy("wrong")]), "401");
    assert_eq!(status(&["--oauth2-bearer", CI]), "200");
    // As a base URL with the key in it would be sent.
    assert_eq!(status(&["-u", &format!("ci:{CI}")]), "401");
    assert_eq!(status(&[]), "401");
}

#[test]
fn s04_a_websocket_needs_a_key_and_opens_without_it_at_upstream() {
    let upstream = RawUpstream::start();
    let mut world = World::logged_in();
    world.upstream = upstream.origin();
    clients(&mut world);
    let serving = world.serve();
    let ask = |key: &[&str]| {
        let mut client = serving.connect();
        let mut headers = vec!["Connection: Upgrade", "Upgrade: websocket"];
        headers.extend(key);
        client.request("GET /ws", &headers, b"");
        client
    };
    is_refused(&ask(&[]).response(), "no key");
    let key = [
        &bearer(CI)[..],
        &format!("Proxy-Authorization: Bearer {CI}"),
    ]
    .map(str::to_owned);
    let key = key.each_ref().map(String::as_str);
    let mut client = ask(&key);
    let mut connection = upstream.accept();
    let request = String::from_utf8(connection.request()).expect("text");
    assert!(
        request.starts_with("GET /ws ") && request.contains("websocket"),
        "{request}"
    );
    assert!(!request.contains("marked"), "{request}");
    connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.head().status, 101);
}
