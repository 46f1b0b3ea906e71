//! Rules F1 to F4, F9, F10, F13 and F14, and what the proxy answers by itself.

use std::io::Write;
use std::time::Duration;

use lucid_proxy::sandbox::{ApiFailure, Behaviour};

use crate::world::raw_upstream::RawUpstream;
use crate::world::{SOON, Serving, World};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy in front of an upstream that is written by hand.
fn raw() -> (RawUpstream, World, Serving) {
    let (upstream, world) = World::before_raw_upstream();
    let serving = world.serve();
    (upstream, world, serving)
}

/// The lines of a head, sorted behind the first: only the order of equal names has a meaning.
fn lines(request: &[u8]) -> Vec<String> {
    let text = request
        .iter()
        .map(|byte| char::from(*byte))
        .collect::<String>();
    let mut lines: Vec<_> = text.trim_end().split("\r\n").map(str::to_owned).collect();
    lines[1..].sort_by_key(|line| line.split(':').next().map(str::to_owned));
    lines
}

#[test]
fn f01_f02_f03_f10_f14_the_head_that_upstream_sees() {
    let (upstream, world, serving) = raw();
    let requests = upstream.answering(OK);
    let mut client = serving.connect();
    let head = format!(
        "PURGE /a%2Fb/%7e/..;x?q=%20&&=?/ HTTP/1.1\r\nHost: {}\r\n\
         Authorization: Bearer oauth2-stale\r\nAuthorization: Basic eA==\r\nProxy-Authorization: Basic eA==\r\n\
         Connection: keep-alive, X-Hop\r\nConnection: x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: keep-alive\r\n\
         X-Twice: b\r\nX-Empty:\r\nX-Twice: a\r\nX-Bytes: \u{1}",
        serving.address
    );
    // A byte that is not UTF-8 in the place of the last character.
    let mut head = head.into_bytes();
    head.pop();
    head.extend(b"\xff\xfe\r\n\r\n");
    client.send(&head);
    assert_eq!(client.response().status, 200);
    let token = world.stored()["access_token"]
        .as_str()
        .expect("text")
        .to_owned();
    let seen = requests.recv_timeout(SOON).expect("a request");
    assert_eq!(
        lines(&seen),
        [
            "PURGE /a%2Fb/%7e/..;x?q=%20&&=?/ HTTP/1.1",
            &format!("authorization: Bearer {token}"),
            // Not the client's, see `f03_trailers_reach_a_client_that_takes_them`.
            "connection: te",
            &format!("host: {}", world.upstream.trim_start_matches("http://")),
            "lucid-api-version: 1",
            "te: trailers",
            "via: 1.1 lucid-proxy",
            "x-bytes: \u{ff}\u{fe}",
            "x-empty: ",
            "x-twice: b",
            "x-twice: a",
        ]
    );
}

#[test]
fn f01_f03_the_response_head_that_the_client_sees() {
    let (upstream, _world, serving) = raw();
    let _requests = upstream.answering(
        b"HTTP/1.1 207 Whatever\r\nConnection: X-Hop\r\nConnection: keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
          Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nX-Bytes: \xff\r\nSet-Cookie: b=2\r\nX-Empty:\r\n\
          Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\r\nok",
    );
    let response = serving.get("/x");
    assert_eq!((response.status, response.text().as_str()), (207, "ok"));
    let mut names: Vec<_> = response
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-length",
            "date",
            "set-cookie",
            "set-cookie",
            "www-authenticate",
            "x-bytes",
            "x-empty"
        ]
    );
    assert_eq!(response.all("set-cookie"), [b"a=1", b"b=2"]);
    assert_eq!(response.all("x-bytes"), [b"\xff"]);
    assert_eq!(
        response.header("date"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
}

#[test]
fn f02_the_clients_token_never_reaches_upstream_in_a_replay_either() {
    let world = World::logged_in();
    let serving = world.serve();
    for _ in 0..2 {
        let response = serving.connect().ask(
            "GET /sandbox/echo",
            &["Authorization: Bearer oauth2-stale"],
            b"",
        );
        assert_eq!(response.status, 200);
        let token = world.stored()["access_token"]
            .as_str()
            .expect("text")
            .to_owned();
        let authorization = serde_json::json!(["authorization", format!("Bearer {token}")]);
        let headers = response.json()["headers"].clone();
        let all: Vec<_> = headers
            .as_array()
            .expect("a list")
            .iter()
            .filter(|line| line[0] == "authorization")
            .collect();
        assert_eq!(all, [&authorization]);
        world.sandbox.expire_access_tokens();
    }
    assert_eq!(world.sandbox.counts().unknown_tokens, 0);
}

#[test]
fn f03_trailers_reach_upstream_in_every_attempt() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request(
        "POST /x",
        &[
            "Transfer-Encoding: chunked",
            "Trailer: X-Sum, Authorization",
            "Trailer: x-other",
        ],
        b"",
    );
    client.send(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: Bearer stale\r\nX-Other: 2\r\nX-Sum: 3\r\n\r\n");
    for status in ["401 Unauthorized", "200 OK"] {
        let mut connection = upstream.accept();
        let head = connection.head().expect("a request");
        assert_eq!(
            String::from_utf8_lossy(&head).matches("trailer: ").count(),
            2
        );
        let chunks = connection.until(b"0\r\n");
        assert_eq!(chunks, b"3\r\nabc\r\n0\r\n");
        let trailers = connection.until(b"\r\n\r\n");
        let trailers = String::from_utf8_lossy(&trailers);
        let mut trailers: Vec<_> = trailers.trim_end().split("\r\n").collect();
        trailers.sort_unstable();
        assert_eq!(trailers, ["x-other: 2", "x-sum: 1", "x-sum: 3"]);
        let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        connection.send(answer.as_bytes());
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn f03_trailers_reach_a_client_that_takes_them() {
    let (upstream, _world, serving) = raw();
    for (te, passed) in [
        (Some("TE: gzip, trailers"), &b"0\r\nx-sum: 1\r\n\r\n"[..]),
        (None, b"0\r\n\r\n"),
    ] {
        let mut client = serving.connect();
        for _ in 0..2 {
            client.request("GET /x", te.as_slice(), b"");
            let mut connection = upstream.accept();
            let head = connection.request();
            let head = String::from_utf8_lossy(&head);
            assert_eq!(
                head.contains("\r\nte: trailers\r\n"),
                te.is_some(),
                "{head}"
            );
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
            connection.send(b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Unannounced: 2\r\n\r\n");
            let head = client.head();
            assert_eq!(head.header("trailer"), Some("X-Sum"));
            // Nothing of it is left on the connection for the next answer.
            assert_eq!(client.until(b"\r\n\r\n"), [b"2\r\nok\r\n", passed].concat());
        }
    }
}

#[test]
fn f04_bodies_stream_both_ways_at_once() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /sandbox/mirror", &["Transfer-Encoding: chunked"], b"");
    client.send(b"5\r\nhello\r\n");
    let head = client.head();
    assert_eq!(
        (head.status, head.header("transfer-encoding")),
        (200, Some("chunked"))
    );
    // The answer's first bytes are here while the request is still coming.
    world.sandbox.wait_until(SOON, |counts| {
        counts.in_flight == 1 && counts.request_body_bytes == 5
    });
    client.send(b"6\r\n world\r\n0\r\n\r\n");
    let mut body = Vec::new();
    assert!(client.chunks(&mut body));
    assert_eq!(body, b"hello world");
}

#[test]
fn f09_pages_are_followed_through_the_proxy() {
    for (link_with_version, prefix) in [(false, ""), (true, "/v1")] {
        let world = World::logged_in();
        world
            .sandbox
            .change(|behaviour: &mut Behaviour| behaviour.link_with_version = link_with_version);
        let serving = world.serve();
        let mut path = format!("{prefix}/users?pageSize=3");
        let mut users = 0;
        loop {
            let response = serving.get(&path);
            assert_eq!(response.status, 200, "{path}");
            users += response.json().as_array().expect("a list").len();
            let Some(link) = response.header("link") else {
                break;
            };
            let next = link.strip_prefix(&format!("<http://{}", serving.address));
            let next = next.unwrap_or_else(|| panic!("it leads elsewhere: {link}"));
            let (next, rest) = next.split_once('>').expect("an end");
            assert_eq!(rest, "; rel=\"next\"");
            path = next.to_owned();
        }
        assert_eq!(users, 7);
    }
}

#[test]
fn f09_references_lead_back_in_the_form_in_which_the_client_came() {
    let (upstream, mut world) = World::before_raw_upstream();
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: {0}/a?b#c\r\nContent-Location: {0}\r\nLink: <{0}/1>, </2>\r\nContent-Length: 0\r\n\r\n",
        upstream.origin()
    );
    let _requests = upstream.answering(answer.leak().as_bytes());
    let serving = world.serve();
    let localhost = format!("localhost:{}", serving.address.port());
    for (target, host, seen) in [
        (
            "/x".to_owned(),
            serving.address.to_string(),
            serving.address.to_string(),
        ),
        ("/x".to_owned(), localhost.clone(), localhost.clone()),
        (
            format!("http://{localhost}/x"),
            localhost.clone(),
            localhost,
        ),
    ] {
        let mut client = serving.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let response = client.response();
        assert_eq!(
            response.status, 302,
            "redirects are passed on, not followed"
        );
        assert_eq!(
            response.header("location"),
            Some(&*format!("http://{seen}/a?b#c"))
        );
        assert_eq!(
            response.header("content-location"),
            Some(&*format!("http://{seen}"))
        );
        assert_eq!(
            response.header("link"),
            Some(&*format!("<http://{seen}/1>, </2>"))
        );
    }
    drop(serving);
    world.top = "public_url = \"https://lucid.internal\"".to_owned();
    let response = world.serve().get("/x");
    assert_eq!(
        response.header("location"),
        Some("https://lucid.internal/a?b#c")
    );
}

#[test]
fn f10_both_ways_to_name_a_version_pass() {
    let world = World::logged_in();
    let serving = world.serve();
    assert_eq!(serving.get("/users/me/profile").status, 200);
    assert_eq!(serving.get("/v1/users/me/profile").status, 200);
    let own = serving
        .connect()
        .ask("GET /users/me/profile", &["Lucid-Api-Version: 1"], b"");
    assert_eq!(own.status, 200);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn f13_a_response_that_is_cut_does_not_look_whole() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n",
    ] {
        let (upstream, _world, serving) = raw();
        let mut client = serving.connect();
        client.request("GET /x", &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        drop(connection);
        let response = client.response();
        assert_eq!(
            (response.status, response.complete),
            (200, false),
            "{answer:?}"
        );
        assert!(client.is_closed());
    }
}

#[test]
fn f13_a_silent_response_body_is_cut() {
    let (upstream, mut world, serving) = raw();
    drop(serving);
    world.tables = "[timeouts]\nbody = \"200ms\"\n".to_owned();
    let serving = world.serve();
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"[..],
        // Passed on in its own version, it would end as it should: by closing.
        b"HTTP/1.0 200 OK\r\n\r\nhalf",
    ] {
        let mut client = serving.connect();
        client.request("GET /x", &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        let response = client.response();
        assert_eq!(
            (response.text().as_str(), response.complete),
            ("half", false)
        );
        assert!(connection.is_closed());
    }
}

#[test]
fn f14_a_request_that_has_been_here_before_is_refused() {
    let mut world = World::logged_in();
    world.top = "listen = [\"127.0.0.1:0\"]".to_owned();
    let serving = world.serve();
    let response = serving
        .connect()
        .ask("GET /users", &["Via: 1.0 a, 1.1 lucid-proxy"], b"");
    assert_eq!(
        (response.status, response.code().as_str()),
        (508, "loopDetected")
    );
    assert!(
        response
            .header("proxy-status")
            .is_some_and(|status| status.contains("error=proxy_loop_detected"))
    );
    let other = serving
        .connect()
        .ask("GET /users", &["Via: 1.1 another"], b"");
    assert_eq!(other.status, 200);
    assert_eq!(world.sandbox.counts().api_requests, 1);
}

#[test]
fn responses_without_content_pass_and_keep_the_connection() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    let id = "0b0b0b0b-0000-4000-8000-000000000001";
    let trashed = client.ask(&format!("POST /documents/{id}/trash"), &[], b"");
    assert_eq!(
        (trashed.status, trashed.header("content-length")),
        (204, None)
    );
    let image = client.ask(&format!("GET /documents/{id}"), &["Accept: image/png"], b"");
    assert_eq!(
        (image.status, image.header("content-type")),
        (200, Some("image/png"))
    );
    assert!(image.body.starts_with(b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn answers_without_content_end_with_their_heads() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    for (line, answer, field) in [
        (
            "HEAD /x",
            &b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"[..],
            ("content-length", "1234"),
        ),
        (
            "GET /x",
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            ("etag", "\"a\""),
        ),
        (
            "GET /x",
            b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            ("x-a", "b"),
        ),
        (
            "GET /x",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ("content-length", "0"),
        ),
    ] {
        client.request(line, &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        let head = client.head();
        assert_eq!(head.header(field.0), Some(field.1), "{line}");
        drop(connection);
    }
}

#[test]
fn a_response_without_length_ends_where_upstream_closes() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    connection.send(b"HTTP/1.1 200 OK\r\n\r\nall there is");
    drop(connection);
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.complete),
        ("all there is", true)
    );
}

#[test]
fn a_request_body_that_is_framed_wrongly_is_the_clients_fault() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /sandbox/echo", &["Transfer-Encoding: chunked"], b"");
    client.send(b"5\r\nhello\r\nnonsense\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (400, "badRequest"),
        "{}",
        response.text()
    );
    assert!(client.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    for number in 0..10 {
        client.request(&format!("GET /sandbox/echo/{number}"), &[], b"");
    }
    for number in 0..10 {
        assert_eq!(
            client.response().json()["target"],
            format!("/sandbox/echo/{number}")
        );
    }
}

#[test]
fn a_client_of_http_1_0_is_served_and_its_connection_closed() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    client.send(
        format!(
            "GET /users/me/profile HTTP/1.0\r\nHost: {}\r\n\r\n",
            serving.address
        )
        .as_bytes(),
    );
    let response = client.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["username"], "ada");
    assert!(client.is_closed());
}

#[test]
fn upstreams_own_errors_pass_unchanged() {
    let world = World::logged_in();
    let serving = world.serve();
    for status in [400, 403, 404, 409, 415, 429, 500, 502, 503] {
        let code = http::StatusCode::from_u16(status).expect("a status");
        world.sandbox.change(|behaviour| {
            behaviour.api_failures.push_back(ApiFailure::Status {
                code,
                retry_after: None,
            });
        });
        let response = serving.get("/users");
        assert_eq!(response.status, status);
        assert_eq!(response.header("proxy-status"), None, "it is not ours");
        assert_eq!(
            response.json()["requestId"],
            response.header("x-lucid-flow-id").expect("a field")
        );
    }
}

#[test]
fn an_upstream_that_is_down_resets_or_answers_garbage_is_a_502_that_says_so() {
    let mut world = World::logged_in();
    let (upstream, gone) = (RawUpstream::start(), RawUpstream::start().origin());
    world.upstream = gone;
    let down = world.serve().get("/x");
    assert_eq!(
        (down.status, down.code().as_str()),
        (502, "upstreamUnreachable")
    );
    assert!(
        down.header("proxy-status")
            .is_some_and(|status| status.contains("error=connection_refused"))
    );
    assert!(
        down.text().contains("check upstream.url"),
        "{}",
        down.text()
    );
    world.upstream = upstream.origin();
    let serving = world.serve();
    for (answer, error) in [
        (&b""[..], "connection_terminated"),
        (b"HTTP/1.1 200", "connection_terminated"),
        (b"garbage, no HTTP at all\r\n\r\n", "http_protocol_error"),
        (b"HTTP/1.1 99999 X\r\n\r\n", "http_protocol_error"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "http_protocol_error"),
    ] {
        let mut client = serving.connect();
        client.request("POST /x", &[], b"content");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        drop(connection);
        let response = client.response();
        assert_eq!(
            (response.status, response.code().as_str()),
            (502, "upstreamUnreachable"),
            "{answer:?}"
        );
        let status = response.header("proxy-status").expect("a field");
        assert!(
            status.contains(&format!("error={error}")),
            "{answer:?}: {status}"
        );
    }
}

#[test]
fn an_upstream_that_resets_is_a_502_that_says_so() {
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("POST /x", &[], &[7; 5000]);
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    connection.read(1);
    // Closed with bytes on it that nobody has read, it is reset.
    drop(connection);
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (502, "upstreamUnreachable")
    );
    serving.wait_for_log("upstreamUnreachable");
}

#[test]
fn codings_and_protocols_that_cannot_be_passed_on_are_refused() {
    let (upstream, _world, serving) = raw();
    for answer in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let mut client = serving.connect();
        client.request("GET /x", &[], b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        let response = client.response();
        assert_eq!(
            (response.status, response.code().as_str()),
            (502, "upstreamUnreachable"),
            "{answer:?}"
        );
        drop(connection);
    }
    let mut client = serving.connect();
    client.request("POST /x", &["Transfer-Encoding: gzip, chunked"], b"");
    client.send(b"0\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (400, "badRequest")
    );
}

#[test]
fn a_client_that_takes_the_proxy_for_a_forward_proxy_is_told_so() {
    let world = World::logged_in();
    let serving = world.serve();
    let mut client = serving.connect();
    client.send(b"CONNECT api.lucid.co:443 HTTP/1.1\r\nHost: api.lucid.co:443\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (403, "policyDenied")
    );
    assert!(
        response.text().contains("HTTPS_PROXY"),
        "{}",
        response.text()
    );
}

#[test]
fn f04_an_upload_goes_on_while_nobody_reads_the_answer() {
    const LENGTH: usize = 32 << 20;
    let (upstream, _world, serving) = raw();
    let mut client = serving.connect();
    client.request("POST /x", &[&format!("Content-Length: {LENGTH}")], b"");
    let mut connection = upstream.accept();
    connection.head().expect("a request");
    let mut answer = connection.second_handle();
    let answering = std::thread::spawn(move || {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        answer.write_all(&[head.as_bytes(), &vec![1; LENGTH]].concat())
    });
    let mut upload = client.second_handle();
    let uploading = std::thread::spawn(move || upload.write_all(&vec![2; LENGTH]));
    // Upstream takes all of it although nobody has read a byte of its answer.
    assert!(connection.read(LENGTH).iter().all(|byte| *byte == 2));
    uploading.join().expect("no panic").expect("all was sent");
    let response = client.response();
    answering.join().expect("no panic").expect("all was sent");
    assert_eq!((response.body.len(), response.complete), (LENGTH, true));
}

#[test]
fn an_upstream_that_is_silent_after_a_body_is_a_504_of_the_right_name() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.upstream_keys = "response_timeout = \"600ms\"".to_owned();
    world.tables = "[timeouts]\nbody = \"100ms\"\n".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /x", &[], b"content");
    let mut connection = upstream.accept();
    connection.request();
    let response = client.response();
    assert_eq!(response.status, 504);
    assert!(
        response.text().contains("upstream.response_timeout"),
        "{}",
        response.text()
    );
}

#[test]
fn an_upstream_that_is_silent_is_a_504() {
    let (upstream, mut world) = World::before_raw_upstream();
    world.upstream_keys = "response_timeout = \"200ms\"".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("GET /x", &[], b"");
    let mut connection = upstream.accept();
    connection.request();
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (504, "upstreamTimeout")
    );
    assert!(
        response.text().contains("upstream.response_timeout"),
        "{}",
        response.text()
    );
    assert!(connection.is_closed());
}

#[test]
fn a_slow_upload_is_not_held_against_the_response() {
    let mut world = World::logged_in();
    world.upstream_keys = "response_timeout = \"300ms\"".to_owned();
    let serving = world.serve();
    let mut client = serving.connect();
    client.request("POST /sandbox/echo", &["Content-Length: 8"], b"");
    let begun = std::time::Instant::now();
    for byte in 0..8_u64 {
        client.send(b"x");
        world
            .sandbox
            .wait_until(SOON, |counts| counts.request_body_bytes > byte);
        // Spread over more than the bound, so that only the wait after the last byte can count.
        while begun.elapsed() < Duration::from_millis(60 * (byte + 1)) {
            std::thread::yield_now();
        }
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_request_that_is_no_http_is_refused() {
    let world = World::logged_in();
    let serving = world.serve();
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET /\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"\r\nX\r\n\r\n",
    ] {
        let mut client = serving.connect();
        client.send(bytes);
        client.finish();
        let status = client.head_if_any().map(|head| head.status);
        assert!(matches!(status, None | Some(400)), "{status:?} {bytes:?}");
    }
    let mut none = serving.connect();
    none.send(b"GET /users HTTP/1.1\r\n\r\n");
    let response = none.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (400, "badRequest")
    );
    assert_eq!(world.sandbox.counts().api_requests, 0);
    assert_eq!(serving.get("/users").status, 200);
}

#[test]
fn s02_s03_strangers_by_name_and_web_pages_are_refused() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nallow_hosts = [\"lucid.internal\"]\n".to_owned();
    let serving = world.serve();
    let ask = |host: &str, header: &str| {
        let mut client = serving.connect();
        client.send(format!("GET /users HTTP/1.1\r\nHost: {host}\r\n{header}\r\n").as_bytes());
        client.response()
    };
    let own = serving.address.to_string();
    assert_eq!(ask("rebound.example", "").code(), "hostNotAllowed");
    assert!(ask("rebound.example", "").text().contains("allow_hosts"));
    assert_eq!(
        ask(&own, "Origin: https://evil.example\r\n").code(),
        "originNotAllowed"
    );
    assert_eq!(
        ask(&own, "Sec-Fetch-Site: cross-site\r\n").code(),
        "originNotAllowed"
    );
    assert_eq!(world.sandbox.counts().api_requests, 0);
    assert_eq!(ask(&own, "").status, 200);
    assert_eq!(ask("lucid.internal", "").status, 200);
}
