//! Rules F4 to F8: a replay is byte-identical or does not happen, and happens once.

use std::fs;
use std::path::PathBuf;

use http::HeaderValue;
use lucid_proxy::sandbox::{Behaviour, Timing, Unauthorized};

use crate::world::raw_upstream::RawUpstream;
use crate::world::{Mount, Response, SOON, Serving, World, is_root};

/// Bytes that differ everywhere, so that none can be lost, doubled or moved unseen.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(length)
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[track_caller]
pub(crate) fn assert_arrived(response: &Response, body: &[u8], serving: &Serving) {
    assert_eq!(
        response.status,
        200,
        "{}\n{}",
        response.text(),
        serving.log()
    );
    assert_eq!(response.json()["body_length"], body.len());
    assert_eq!(response.json()["body_sha256"], sha256(body));
}

fn echo(serving: &Serving, body: &[u8]) -> Response {
    serving.connect().ask("POST /sandbox/echo", &[], body)
}

#[test]
fn f05_a_replayed_body_is_the_body_that_was_sent() {
    let world = World::logged_in();
    let serving = world.serve();
    for timing in [
        Timing::AtHead,
        Timing::AfterBytes(1),
        Timing::AfterBytes(100_000),
        Timing::AfterBody,
    ] {
        for (close, drained) in [(false, true), (true, true), (false, false), (true, false)] {
            for length in [1, 1000, 300 << 10, (1 << 20) - 1, 1 << 20] {
                world.sandbox.change(|behaviour| {
                    behaviour.unauthorized = Unauthorized {
                        timing,
                        close,
                        ..Unauthorized::default()
                    };
                    behaviour.drain_after_early_answer = drained;
                });
                world.sandbox.expire_access_tokens();
                let body = bytes(length);
                let response = echo(&serving, &body);
                assert_arrived(&response, &body, &serving);
                let status = response.header("proxy-status").expect("a replay says so");
                assert_eq!(
                    status,
                    r#"lucid-proxy; received-status=401; details="replayed with a new token""#
                );
            }
        }
    }
    let counts = world.sandbox.counts();
    assert_eq!(counts.token_posts, 4 * 4 * 5, "each met a dead token");
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn f05_the_rest_of_a_body_that_is_still_coming_flows_into_the_replay() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.unauthorized.timing = Timing::AtHead);
    let serving = world.serve();
    for chunked in [false, true] {
        world.sandbox.expire_access_tokens();
        let before = world.sandbox.counts();
        let body = bytes(200 << 10);
        let (first, rest) = body.split_at(70_000);
        let mut client = serving.connect();
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        };
        client.request("POST /sandbox/echo", &[&framing], b"");
        let chunk = |data: &[u8]| match chunked {
            true => [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat(),
            false => data.to_vec(),
        };
        client.send(&chunk(first));
        world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == before.rotations + 1);
        // The replay is on its way and has what there is so far.
        world.sandbox.wait_until(SOON, |counts| {
            counts.api_requests == before.api_requests + 2
        });
        client.send(&chunk(rest));
        if chunked {
            client.send(b"0\r\n\r\n");
        }
        assert_arrived(&client.response(), &body, &serving);
    }
}

/// A directory for recordings, and the table that names it.
pub(crate) fn recorded_in(world: &mut World) -> PathBuf {
    let directory = world.directory.path().join("recordings");
    fs::create_dir(&directory).expect("a directory");
    world.tables = format!("[replay]\ndirectory = {directory:?}\n");
    world.looked_into = true;
    directory
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it looks into /proc")]
fn f04_f05_an_upload_that_is_recorded_on_disk_is_replayed_with_flat_memory() {
    const LENGTH: usize = 40 << 20;
    const FLAT: u64 = 8 << 20;
    let mut world = World::logged_in();
    let directory = recorded_in(&mut world);
    let serving = world.serve();
    let body = bytes(LENGTH);
    let (first, rest) = body.split_at(LENGTH / 2);
    // Both workers have served something, and know how large their buffers have to be.
    for _ in 0..8 {
        assert_arrived(
            &echo(&serving, &body[..1 << 20]),
            &body[..1 << 20],
            &serving,
        );
    }
    for (timing, close) in [
        (Timing::AtHead, false),
        (Timing::AfterBytes(LENGTH as u64 / 3), true),
        (Timing::AfterBytes(LENGTH as u64 - 1), true),
        (Timing::AfterBody, false),
    ] {
        world.sandbox.change(|behaviour| {
            behaviour.unauthorized.timing = timing;
            behaviour.unauthorized.close = close;
        });
        world.sandbox.expire_access_tokens();
        let before = serving.resident_from_now_on();
        let mut client = serving.connect();
        client.request(
            "POST /sandbox/echo",
            &[&format!("Content-Length: {LENGTH}")],
            b"",
        );
        client.send(first);
        // Some of it has gone where it should.
        serving.wait_until(|serving| serving.open_files(&directory) == 1);
        client.send(rest);
        assert_arrived(&client.response(), &body, &serving);
        let grown = serving.resident_at_most().saturating_sub(before);
        assert!(grown < FLAT, "{timing:?}: {grown} bytes");
        serving.wait_until(|serving| serving.open_files(&directory) == 0);
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
    }
    assert_eq!(world.sandbox.counts().token_posts, 4);
}

/// An upload larger than memory holds passes; with a dead token it gets its 401, and a reason.
fn assert_passes_unrecorded(world: &World, serving: &Serving) {
    let body = bytes(3 << 20);
    assert_arrived(&echo(serving, &body), &body, serving);
    world.sandbox.expire_access_tokens();
    let response = echo(serving, &body);
    assert_eq!(response.status, 401, "{}", serving.log());
    let status = response.header("proxy-status").expect("it says why");
    assert!(
        status.contains("could not be recorded in replay.directory"),
        "{status}"
    );
    let rotations = world.sandbox.counts().rotations;
    serving.wait_for_log(&format!("generation={}", rotations + 1));
    assert_arrived(&echo(serving, &body), &body, serving);
    // Less than memory holds is recorded all the same.
    world.sandbox.expire_access_tokens();
    assert_arrived(&echo(serving, &body[..1 << 20]), &body[..1 << 20], serving);
    let log = serving.log();
    let warnings: Vec<_> = log.matches("cannot be recorded in").collect();
    assert_eq!(warnings.len(), 1, "{log}");
}

#[test]
fn f04_a_disk_that_is_full_or_missing_stops_the_recording_and_not_the_request() {
    let mut world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.unauthorized.timing = Timing::AfterBody);
    world.tables = "[replay]\ndirectory = \"nowhere\"\n".to_owned();
    let serving = world.serve();
    assert_passes_unrecorded(&world, &serving);
    assert!(
        serving
            .log()
            .contains("state/nowhere: No such file or directory"),
        "{}",
        serving.log()
    );
    drop(serving);
    if !is_root() {
        return;
    }
    let directory = world.directory.path().join("small");
    let _mount = Mount::tmpfs(&directory, "size=1m");
    world.tables = format!("[replay]\ndirectory = {directory:?}\n");
    let serving = world.serve();
    assert_passes_unrecorded(&world, &serving);
    assert!(
        serving.log().contains("No space left on device"),
        "{}",
        serving.log()
    );
}

#[test]
fn f05_an_empty_body_and_a_chunked_one_are_replayed_with_the_same_framing() {
    let (upstream, world) = World::before_raw_upstream();
    let serving = world.serve();
    for (framing, body) in [
        ("Content-Length: 0", &b""[..]),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
        ("X-None: 1", b""),
    ] {
        let mut client = serving.connect();
        client.request("POST /x", &[framing], b"");
        client.send(body);
        let mut connection = upstream.accept();
        let first = connection.request();
        connection
            .send(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let mut connection = upstream.accept();
        let second = connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let without_token = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).into_owned();
            let (lines, tokens): (Vec<_>, Vec<_>) = text
                .lines()
                .map(str::to_owned)
                .partition(|line| !line.starts_with("authorization"));
            (lines, tokens)
        };
        let ((first, one), (second, two)) = (without_token(&first), without_token(&second));
        assert_eq!(first, second);
        assert_ne!(one, two, "with another token");
    }
}

#[test]
fn f06_there_is_exactly_one_replay() {
    let (upstream, world) = World::before_raw_upstream();
    let serving = world.serve();
    let requests =
        upstream.answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nX-A: b\r\n\r\nno!");
    let response = serving.get("/x");
    assert_eq!((response.status, response.text().as_str()), (401, "no!"));
    assert_eq!(response.header("x-a"), Some("b"));
    assert_eq!(requests.try_iter().count(), 2);
}

#[test]
fn f06_without_an_answer_to_the_replay_the_first_one_reaches_the_client_whole() {
    for length in [10, 64 << 10, 300 << 10] {
        let (upstream, world) = World::before_raw_upstream();
        let serving = world.serve();
        let mut client = serving.connect();
        client.request("GET /x", &[], b"");
        let mut first = upstream.accept();
        first.request();
        let body = bytes(length);
        first.send(
            format!(
                "HTTP/1.1 401 Unauthorized\r\nX-First: yes\r\nContent-Length: {length}\r\n\r\n"
            )
            .as_bytes(),
        );
        let (half, rest) = body.split_at(length / 2);
        first.send(half);
        world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == 1);
        let mut replay = upstream.accept();
        replay.request();
        // It ends without an answer, and so would every further attempt.
        drop((replay, upstream));
        let sending = std::thread::spawn({
            let rest = rest.to_vec();
            move || {
                first.send(&rest);
                first
            }
        });
        let response = client.response();
        assert_eq!(
            (response.status, response.complete),
            (401, true),
            "{}",
            serving.log()
        );
        assert_eq!(response.header("x-first"), Some("yes"));
        assert!(
            response.body == body,
            "whole, though some of it had been read before"
        );
        let status = response.header("proxy-status").expect("it says why");
        assert!(status.contains("the replay got no answer"), "{status}");
        drop(sending.join());
    }
}

/// An upload that is answered 401 in its middle; `in_between` sees what follows. Upstream ends its answer when it has all
/// of the request. Returns why the client got that answer.
fn first_attempt_goes_on(world: &mut World, in_between: impl FnOnce(RawUpstream, &[u8])) -> String {
    let upstream = RawUpstream::start();
    world.upstream = upstream.origin();
    let serving = world.serve();
    let body = bytes(500_000);
    let (begun, rest) = body.split_at(100_000);
    let mut client = serving.connect();
    client.request("POST /x", &["Content-Length: 500000"], b"");
    client.send(begun);
    let mut first = upstream.accept();
    first.head().expect("a request");
    assert!(first.read(begun.len()) == begun);
    first.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno");
    in_between(upstream, begun);
    client.send(rest);
    assert!(first.read(rest.len()) == rest, "each byte once");
    first.send(b"t!");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (401, "not!"));
    let status = response.header("proxy-status").expect("it says why");
    status.to_owned()
}

#[test]
fn f06_without_an_answer_to_the_replay_the_first_attempt_goes_on() {
    let why = first_attempt_goes_on(&mut World::logged_in(), |upstream, begun| {
        let mut replay = upstream.accept();
        replay.head().expect("a request");
        assert!(replay.read(begun.len()) == begun);
    });
    assert!(why.contains("the replay got no answer"), "{why}");
}

#[test]
fn f06_without_a_new_token_the_first_attempt_goes_on() {
    let mut world = World::logged_in();
    world.token_origin = RawUpstream::start().origin();
    let why = first_attempt_goes_on(&mut world, |_, _| {});
    assert!(why.contains("not replayed: no new token"), "{why}");
}

/// A body that is larger than what is recorded, by a byte, under these limits.
const SMALL: [(&str, usize); 2] = [
    ("memory = \"64 KiB\"\ndisk = \"0 B\"", 64 << 10),
    ("memory = \"64 KiB\"\ndisk = \"200 KiB\"", 264 << 10),
];

#[test]
fn f07_a_body_too_large_to_record_still_causes_the_rotation() {
    for ((limits, length), chunked) in SMALL.into_iter().zip([false, true, false, true]) {
        let body = bytes(length + 1);
        let mut world = World::logged_in();
        world.tables = format!("[replay]\n{limits}\n");
        let serving = world.serve();
        world.sandbox.expire_access_tokens();
        let rotations = world.sandbox.counts().rotations;
        let mut client = serving.connect();
        let response = if chunked {
            client.request("POST /sandbox/echo", &["Transfer-Encoding: chunked"], b"");
            client.send(
                &[
                    format!("{:x}\r\n", body.len()).as_bytes(),
                    &body,
                    b"\r\n0\r\n\r\n",
                ]
                .concat(),
            );
            client.response()
        } else {
            client.ask("POST /sandbox/echo", &[], &body)
        };
        assert_eq!(
            (response.status, response.code().as_str()),
            (401, "unauthorized")
        );
        let status = response.header("proxy-status").expect("it says why");
        let reason = "not replayed: the request body is larger than replay.memory and replay.disk";
        assert!(status.contains(reason), "{status}");
        world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == rotations + 1);
        serving.wait_for_log(&format!("generation={}", rotations + 2));
        assert_arrived(&echo(&serving, &body), &body, &serving);
    }
}

#[test]
fn f07_a_body_of_exactly_the_limit_is_replayed() {
    for (limits, length) in SMALL {
        let mut world = World::logged_in();
        world.tables = format!("[replay]\n{limits}\n");
        let serving = world.serve();
        world.sandbox.expire_access_tokens();
        let body = bytes(length);
        assert_arrived(&echo(&serving, &body), &body, &serving);
    }
}

#[test]
fn f08_a_kept_connection_that_upstream_has_closed_costs_no_request() {
    let upstream = RawUpstream::start();
    let mut world = World::logged_in();
    world.top = "workers = 1".to_owned();
    world.upstream = upstream.origin();
    let serving = world.serve();
    for line in ["GET /1", "POST /2", "DELETE /3"] {
        let mut client = serving.connect();
        client.request(line, &[], if line.starts_with("POST") { b"x" } else { b"" });
        let mut connection = upstream.accept();
        connection.request();
        // No `Connection: close`: the end comes as a surprise.
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().status, 200, "{line}: {}", serving.log());
        drop(connection);
    }
}

#[test]
fn f08_a_request_that_may_have_been_processed_is_repeated_only_if_it_is_idempotent() {
    let upstream = RawUpstream::start();
    let mut world = World::logged_in();
    world.top = "workers = 1".to_owned();
    world.upstream = upstream.origin();
    let serving = world.serve();
    for (line, body, status) in [
        ("GET /x", &b""[..], 200),
        ("PUT /x", b"content", 200),
        ("POST /x", b"content", 502),
    ] {
        let mut client = serving.connect();
        client.request("GET /warm", &[], b"");
        let mut kept = upstream.accept();
        kept.request();
        kept.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().status, 200);
        client.request(line, &[], body);
        let seen = kept.request();
        drop(kept);
        if status == 200 {
            let mut again = upstream.accept();
            assert_eq!(again.request(), seen, "byte for byte");
            again.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        }
        let response = client.response();
        assert_eq!(response.status, status, "{line}: {}", response.text());
    }
}

#[test]
fn a_401_in_every_documented_and_likely_form_is_cured() {
    let world = World::logged_in();
    let serving = world.serve();
    for (empty_body, www_authenticate) in [
        (true, None),
        (
            false,
            Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
        ),
        (true, Some(HeaderValue::from_static("Bearer"))),
    ] {
        world.sandbox.change(|behaviour: &mut Behaviour| {
            behaviour.unauthorized = Unauthorized {
                empty_body,
                www_authenticate: www_authenticate.clone(),
                ..Unauthorized::default()
            };
        });
        world.sandbox.expire_access_tokens();
        let response = serving.get("/users/me/profile");
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("www-authenticate"),
            None,
            "nothing of the first answer is left"
        );
    }
}

#[test]
fn a_client_that_leaves_in_an_upload_or_a_download_harms_nobody() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.image_bytes = 8 << 20);
    let serving = world.serve();
    let mut upload = serving.connect();
    upload.request("POST /sandbox/echo", &["Content-Length: 1000000"], b"");
    upload.send(&bytes(1000));
    world
        .sandbox
        .wait_until(SOON, |counts| counts.request_body_bytes == 1000);
    drop(upload);
    world
        .sandbox
        .wait_until(SOON, |counts| counts.incomplete_requests == 1);
    let mut download = serving.connect();
    download.request(
        "GET /documents/0b0b0b0b-0000-4000-8000-000000000001",
        &["Accept: image/png"],
        b"",
    );
    assert_eq!(download.head().status, 200);
    drop(download);
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 0);
    assert_eq!(serving.get("/users/me/profile").status, 200);
}
