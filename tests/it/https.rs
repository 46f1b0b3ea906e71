//! TLS towards clients: protocols, certificates that change, and clients that do not speak it.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Command;

use rustix::process::Signal;
use rustls::HandshakeKind;

use crate::world::tls::{Identity, TlsClient, connect};
use crate::world::{SOON, Serving, World, errors, is_late, is_there, missing, printed};

/// An entry of `listen` that speaks TLS with the certificate in the world's directory.
pub(crate) const LISTEN: &str =
    r#"[{ address = "127.0.0.1:0", certificate_file = "tls.crt", key_file = "tls.key" }]"#;

/// A world with a certificate in its directory.
pub(crate) fn world() -> (World, Identity) {
    let world = World::logged_in();
    let identity = Identity::new();
    identity.write(world.directory.path());
    (world, identity)
}

/// Opens a FIFO only if its other end is open (fifo(7)).
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

fn serve() -> (World, Identity, Serving) {
    let (mut world, identity) = world();
    let serving = world.serve_on(LISTEN);
    (world, identity, serving)
}

/// Asks over HTTP/1.1 and reads to the end of the connection, or of what comes at once.
fn ask(client: &mut TlsClient, address: SocketAddr, path: &str, close: bool) -> String {
    let port = address.port();
    let connection = if close { "close" } else { "keep-alive" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: {connection}\r\n\r\n"
    );
    client.write_all(request.as_bytes()).expect("it is open");
    let mut answer = Vec::new();
    if close {
        client.read_to_end(&mut answer).expect("an end in order");
    } else {
        let mut buffer = [0; 16 << 10];
        let read = client.read(&mut buffer).expect("an answer");
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The certificate that a new client is shown.
fn shown(address: SocketAddr, identity: &Identity) -> bool {
    connect(address, &identity.client(&[])).is_ok()
}

#[test]
fn clients_speak_http_2_1_1_or_1_0_as_they_choose() {
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    let (world, _identity, serving) = serve();
    assert!(serving.endpoint.starts_with("https://127.0.0.1:"));
    let url = format!(
        "https://localhost:{}/users/me/profile",
        serving.address.port()
    );
    for (choice, expected) in [
        ("--http2", "2 200"),
        ("--http1.1", "1.1 200"),
        ("--http1.0", "1 200"),
        ("--no-alpn", "1.1 200"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "--cacert", "tls.crt", choice, &url])
            .args(["-o", "answer", "-w", "%{http_version} %{http_code}"])
            .current_dir(world.directory.path())
            .output()
            .expect("curl");
        assert_eq!(printed(&output), expected, "{choice}: {}", errors(&output));
        let answer = fs::read_to_string(world.directory.path().join("answer"));
        assert!(answer.expect("an answer").contains("\"ada\""), "{choice}");
    }
}

#[test]
fn the_protocol_is_agreed_on_or_there_is_none() {
    let (_world, identity, serving) = serve();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
        (&[], None),
    ] {
        let client = connect(serving.address, &identity.client(offered)).expect("a handshake");
        assert_eq!(client.conn.alpn_protocol(), agreed.map(str::as_bytes));
    }
    let error = connect(serving.address, &identity.client(&["spdy/3"])).expect_err("none of ours");
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[test]
fn f09_references_lead_back_over_tls_unless_public_url_says_otherwise() {
    let (mut world, identity, serving) = serve();
    let link = |serving: &Serving| {
        let mut client = connect(serving.address, &identity.client(&[])).expect("a handshake");
        let answer = ask(&mut client, serving.address, "/users?pageSize=2", true);
        let line = answer
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("link:"));
        line.expect("a next page").to_owned()
    };
    let port = serving.address.port();
    let to = format!("<https://localhost:{port}/users?");
    assert!(link(&serving).contains(&to), "{}", link(&serving));
    drop(serving);
    world.top = "public_url = \"http://lucid.internal\"".to_owned();
    let serving = world.serve_on(LISTEN);
    assert!(link(&serving).contains("<http://lucid.internal/users?"));
}

#[test]
fn a_certificate_that_changes_is_taken_over_and_open_connections_go_on() {
    let (world, old, serving) = serve();
    let mut open = connect(serving.address, &old.client(&[])).expect("a handshake");
    assert!(ask(&mut open, serving.address, "/users", false).starts_with("HTTP/1.1 200"));
    let new = Identity::new();
    assert!(!shown(serving.address, &new), "not before it is there");
    new.write(world.directory.path());
    serving.wait_for_log(&read_again(&world, "tls.crt"));
    assert!(shown(serving.address, &new));
    assert!(!shown(serving.address, &old));
    assert!(ask(&mut open, serving.address, "/users", true).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_broken_certificate_changes_nothing_and_is_named_and_a_mended_one_is_taken_over() {
    let (world, old, serving) = serve();
    let files = world.directory.path();
    let new = Identity::new();
    fs::write(files.join("tls.crt"), &new.certificate_pem).expect("written");
    serving.wait_for_log("tls.key cannot be used together");
    assert!(shown(serving.address, &old));
    fs::write(files.join("tls.crt"), "nothing of the kind").expect("written");
    serving.wait_for_log("tls.crt holds no certificate in PEM");
    fs::remove_file(files.join("tls.crt")).expect("removed");
    serving.wait_for_log("/tls.crt: No such file");
    assert!(shown(serving.address, &old));
    new.write(files);
    serving.wait_for_log(&read_again(&world, "tls.crt"));
    assert!(shown(serving.address, &new));
    let log = serving.stop();
    assert_eq!(
        log.matches("the certificate stays as it was").count(),
        3,
        "{log}"
    );
    assert!(!log.contains("PRIVATE"), "{log}");
}

/// What the log says of a certificate that was read again from this file.
fn read_again(world: &World, file: &str) -> String {
    let path = world.directory.path().join(file);
    format!("the certificate was read again from {}", path.display())
}

#[test]
fn files_that_hang_hold_up_neither_rotations_nor_other_certificates_nor_the_end() {
    let (mut world, first) = world();
    let second = Identity::new();
    let files = world.directory.path().to_owned();
    fs::write(files.join("other.crt"), &second.certificate_pem).expect("written");
    fs::write(files.join("other.key"), &second.key_pem).expect("written");
    let other = LISTEN.replace("tls.", "other.");
    let listen = format!(
        "{}, \"127.0.0.1:0\", {}",
        &LISTEN[..LISTEN.len() - 1],
        &other[1..]
    );
    let mut serving = world.serve_on(&listen);
    let (_, plain) = crate::world::endpoint(&serving.line()).expect("a second line");
    let (_, secure) = crate::world::endpoint(&serving.line()).expect("a third line");
    let get = || crate::world::get(plain, "/users").status;
    assert_eq!(get(), 200);

    // Whoever reads it waits for what is never written.
    fs::remove_file(files.join("tls.crt")).expect("removed");
    let made = Command::new("mkfifo").arg(files.join("tls.crt")).status();
    assert!(made.expect("mkfifo").success());
    let writer = RefCell::new(None);
    serving.wait_until(|_| {
        // It can be opened as soon as somebody reads.
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(NONBLOCK);
        *writer.borrow_mut() = options.open(files.join("tls.crt")).ok();
        writer.borrow().is_some()
    });
    let rotations = world.sandbox.counts().rotations;
    world.sandbox.expire_access_tokens();
    assert_eq!(get(), 200);
    assert_eq!(world.sandbox.counts().rotations, rotations + 1);
    let new = Identity::new();
    fs::write(files.join("other.crt"), &new.certificate_pem).expect("written");
    fs::write(files.join("other.key"), &new.key_pem).expect("written");
    serving.wait_for_log(&read_again(&world, "other.crt"));
    assert!(shown(secure, &new));
    assert!(
        shown(serving.address, &first),
        "it goes on with what it has"
    );
    serving.signal(Signal::TERM);
    assert!(serving.wait().success(), "{}", serving.log());
    drop(writer);
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let (mut world, identity) = world();
    world.top = format!("listen = {LISTEN}");
    let other = Identity::new();
    let encrypted = identity.key_pem.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let cases: [(&str, Option<&str>, &str); 6] = [
        ("tls.crt", None, "/tls.crt: No such file"),
        (
            "tls.crt",
            Some("text"),
            "tls.crt holds no certificate in PEM",
        ),
        (
            "tls.crt",
            Some(&other.certificate_pem),
            "/tls.key cannot be used together: the key is not that of the certificate",
        ),
        (
            "tls.key",
            Some(&identity.certificate_pem),
            "tls.key holds no private key in PEM",
        ),
        (
            "tls.key",
            Some(&encrypted),
            "tls.key holds no private key in PEM that is not encrypted",
        ),
        (
            "tls.key",
            Some("-----BEGIN PRIVATE KEY-----\nAAAA\n"),
            "tls.key is damaged",
        ),
    ];
    for (file, content, expected) in cases {
        identity.write(world.directory.path());
        let path = world.directory.path().join(file);
        match content {
            Some(content) => fs::write(path, content).expect("written"),
            None => fs::remove_file(path).expect("removed"),
        }
        for command in ["serve", "check"] {
            let output = world.run(&[command]);
            assert_eq!(output.status.code(), Some(78), "{expected}");
            assert!(
                errors(&output).contains("listen: cannot speak TLS on 127.0.0.1:0"),
                "{}",
                errors(&output)
            );
            assert!(
                errors(&output).contains(expected),
                "{expected}: {}",
                errors(&output)
            );
        }
    }
}

#[test]
fn a_key_that_every_user_may_read_is_told() {
    let (mut world, _identity) = world();
    let key = world.directory.path().join("tls.key");
    let chmod = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("chmod");
    const WARNING: &str = "every user of this machine may read the private key";
    chmod(0o644);
    if !world.open_to_all() {
        return;
    }
    assert!(world.serve_on(LISTEN).stop().contains(WARNING));
    chmod(0o640);
    world.top.clear();
    assert!(!world.serve_on(LISTEN).stop().contains(WARNING));
}

#[test]
fn a_session_is_resumed() {
    let (_world, identity, serving) = serve();
    for version in rustls::ALL_VERSIONS {
        let config = identity.client_of(&[version], &["http/1.1"]);
        let kind = || {
            let mut client = connect(serving.address, &config).expect("a handshake");
            let answer = ask(&mut client, serving.address, "/users/me/profile", true);
            assert!(answer.contains("\"ada\""), "{answer}");
            client.conn.handshake_kind()
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn a_client_that_does_not_shake_hands_in_time_is_let_go() {
    let (mut world, identity) = world();
    world.tables = "[timeouts]\nhandshake = \"200ms\"\n".to_owned();
    let serving = world.serve_on(LISTEN);
    assert!(serving.connect().is_closed(), "silent");
    let mut half = serving.connect();
    half.send(b"\x16\x03\x01\x02\x00\x01");
    assert!(half.is_closed(), "in the middle of its hello");
    // What comes after the handshake has bounds of its own.
    let mut client = connect(serving.address, &identity.client(&[])).expect("a handshake");
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| serving.connect().is_closed()))
            .collect();
        assert!(
            others
                .into_iter()
                .all(|other| other.join().expect("a thread"))
        );
    });
    assert!(ask(&mut client, serving.address, "/users", true).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_silent_client_is_let_go_behind_its_handshake() {
    let (mut world, identity) = world();
    world.tables = "[timeouts]\nfirst_request = \"300ms\"\nidle = \"300ms\"\n".to_owned();
    let serving = world.serve_on(LISTEN);
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let mut client =
            connect(serving.address, &identity.client(protocols)).expect("a handshake");
        // With or without a word; what matters is that the end comes.
        let end = client.read_to_end(&mut Vec::new());
        assert!(
            end.err().is_none_or(|error| !is_late(&error)),
            "{protocols:?}"
        );
    }
}

#[test]
fn a_client_that_speaks_plain_http_to_a_tls_port_is_told_so() {
    let (_world, _identity, serving) = serve();
    let mut client = serving.connect();
    let answer = client.ask("GET /users", &[], b"");
    assert_eq!((answer.status, answer.code().as_str()), (400, "badRequest"));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert!(client.is_closed());
    assert_eq!(_world.sandbox.counts().connections, 0);
}

#[test]
fn what_is_neither_tls_nor_http_is_let_go() {
    let (mut world, identity) = world();
    world.tables = "[timeouts]\nhandshake = \"1s\"\n".to_owned();
    let serving = world.serve_on(LISTEN);
    for bytes in [
        &b"\x00\x01\x02\x03"[..],
        b"\x16\x03\x01\x00\x02\xff\xff",
        b"\x80\x2e\x01\x03\x01",
        b"\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(serving.address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(bytes).expect("sent");
        let mut sent = Vec::new();
        let end = stream.read_to_end(&mut sent);
        assert!(end.err().is_none_or(|error| !is_late(&error)), "{bytes:?}");
        assert!(!sent.starts_with(b"HTTP/1.1 2"), "{bytes:?}");
    }
    assert!(shown(serving.address, &identity), "the others are served");
}

#[test]
fn plain_and_tls_listeners_serve_side_by_side_and_end_together() {
    let (mut world, identity) = world();
    let mut serving = world.serve_on(
        r#"["127.0.0.1:0", { address = "127.0.0.1:0", certificate_file = "tls.crt", key_file = "tls.key" }]"#,
    );
    let (endpoint, secure) = crate::world::endpoint(&serving.line()).expect("a second line");
    assert!(endpoint.starts_with("https://"), "{endpoint}");
    let mut plain = serving.connect();
    assert_eq!(plain.ask("GET /users", &[], b"").status, 200);
    let mut tls = connect(secure, &identity.client(&[])).expect("a handshake");
    assert!(ask(&mut tls, secure, "/users", false).starts_with("HTTP/1.1 200"));
    serving.signal(Signal::TERM);
    assert!(plain.is_closed());
    let mut rest = Vec::new();
    tls.read_to_end(&mut rest)
        .expect("an end in order, close_notify and all");
    assert!(serving.wait().success(), "{}", serving.log());
}

#[test]
fn s01_tls_needs_a_word_of_consent_like_every_other_address_that_others_can_reach() {
    let (mut world, _identity) = world();
    world.top = format!("listen = {}", LISTEN.replace("127.0.0.1", "0.0.0.0"));
    let output = world.run(&["serve"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("allow_unauthenticated = true"),
        "{}",
        errors(&output)
    );
}

#[test]
fn keys_of_an_entry_that_do_not_fit_are_told() {
    let mut world = World::new();
    world.top = r#"listen = [
  "localhost:8118",
  { certificate_file = "a" },
  { address = "127.0.0.1:0", certificate_file = "a" },
  { address = "127.0.0.1:0", key_file = "a", mode = "0660" },
  { address = "unix:/a", certificate_file = "a", key_file = "b", mode = "rw", group = "nobody knows" },
  { address = "systemd:a", owner = "root", color = "blue" },
  { address = "unix:/b", owner = "4294967295", group = "4294967294" },
  { address = "unix:/c", owner = "4294967294", group = "4294967295" },
  { address = "127.0.0.1:0", certificate_file = "a", key_file = "" },
]"#
    .to_owned();
    let output = world.run(&["check"]);
    let errors = errors(&output);
    for expected in [
        "line 2, column 3: listen: expected an address with a port",
        "line 3, column 3: listen.address: missing",
        "line 4, column 49: listen.certificate_file: needs key_file beside it",
        "listen.key_file: needs certificate_file beside it",
        "line 5, column 53: listen.mode: only for \"unix:…\" addresses",
        "listen.certificate_file: only for addresses with a port",
        "listen.mode: expected permissions in octal digits, such as \"0660\"",
        "listen.group: expected the name of a group in /etc/group, or a number",
        "listen.owner: systemd makes this socket",
        "line 8, column 34: listen.owner: the number 4294967295 means \"leave it as it is\"",
        "line 9, column 56: listen.group: the number 4294967295 means \"leave it as it is\"",
        "line 10, column 65: listen.key_file: expected the path of a PEM file",
        "listen.color: unknown key; accepted here: address, certificate_file, group, key_file, mode, owner",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
    assert_eq!(
        errors.matches("the number 4294967295").count(),
        2,
        "the one below is a number like any other: {errors}"
    );
}
