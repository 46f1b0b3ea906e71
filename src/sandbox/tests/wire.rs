//! Bodies, connections, and what must not arrive on them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use http::{HeaderValue, StatusCode};

use super::*;
use crate::sandbox::{ApiFailure, Timing};

#[test]
fn an_early_401_leaves_the_connection_usable() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    sandbox.change(|behaviour| {
        behaviour.unauthorized.timing = Timing::AfterBytes(4);
        behaviour.unauthorized.www_authenticate =
            Some(HeaderValue::from_static("Bearer error=\"invalid_token\""));
        behaviour.unauthorized.empty_body = true;
    });
    let body = vec![b'x'; 300_000];
    let bytes = request(&sandbox, "POST /sandbox/echo", "dead", "", &body);
    let (first, rest) = bytes.split_at(bytes.len() - 200_000);
    let mut stream = open(&sandbox, first);
    let early = read(&mut stream).expect("an answer before the body's end");
    assert_eq!((early.status, early.body.len()), (401, 0));
    assert!(early.header("www-authenticate").is_some());
    assert_eq!(early.header("x-sandbox-body-sha256"), None);

    stream.write_all(rest).expect("the rest is still read");
    stream
        .write_all(&request(
            &sandbox,
            "POST /sandbox/echo/a?",
            &token,
            "",
            b"abc",
        ))
        .expect("the next request");
    let echo = read(&mut stream).expect("an answer");
    assert_eq!(echo.json()["target"], "/sandbox/echo/a?");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(echo.json()["body_sha256"], abc);
    assert_eq!(echo.header("x-sandbox-body-sha256"), Some(abc));
    // The rest of the first body is read beside the second request.
    let counts = sandbox.wait_until(LIMIT, |counts| counts.request_body_bytes == 300_003);
    assert_eq!(counts.connections, 1);
    no_problems(&sandbox);
}

#[test]
fn a_long_chunked_body_is_hashed_as_it_streams() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let head = request(
        &sandbox,
        "POST /sandbox/echo",
        &token,
        "Transfer-Encoding: chunked\r\n",
        b"",
    );
    let mut stream = open(&sandbox, &head);
    let block = vec![b'x'; 1024 * 1024];
    for _ in 0..64 {
        stream.write_all(b"100000\r\n").expect("the sandbox reads");
        stream.write_all(&block).expect("the sandbox reads");
        stream.write_all(b"\r\n").expect("the sandbox reads");
    }
    stream.write_all(b"0\r\n\r\n").expect("the sandbox reads");
    assert_eq!(
        read(&mut stream).expect("an answer").json()["body_length"],
        64 * 1024 * 1024
    );
}

#[test]
fn a_body_cut_short_is_counted() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let bytes = request(&sandbox, "POST /sandbox/echo", &token, "", b"abcdef");
    let stream = open(&sandbox, &bytes[..bytes.len() - 3]);
    sandbox.wait_until(LIMIT, |counts| counts.request_body_bytes == 3);
    stream.shutdown(Shutdown::Write).expect("still connected");
    sandbox.wait_until(LIMIT, |counts| {
        counts.incomplete_requests == 1 && counts.in_flight == 0
    });
}

#[test]
fn held_api_requests_are_in_flight() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    sandbox.change(|behaviour| behaviour.hold_under = Some(String::from("/")));
    let bytes = request(&sandbox, "GET /v1/users", &token, "", b"");
    let mut streams: Vec<_> = (0..3).map(|_| open(&sandbox, &bytes)).collect();
    sandbox.wait_until(LIMIT, |counts| counts.in_flight == 3);
    sandbox.change(|behaviour| behaviour.hold_under = None);
    for stream in &mut streams {
        assert_eq!(read(stream).expect("an answer").status, 200);
    }
    let counts = sandbox.wait_until(LIMIT, |counts| counts.in_flight == 0);
    assert_eq!(counts.max_in_flight, 3);
}

#[test]
fn what_a_proxy_must_not_send_is_a_problem() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let more = "Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\n\
        Authorization: Bearer other\r\n";
    exchange(
        &sandbox,
        &request(&sandbox, "GET /v1/users", &token, more, b""),
    );
    let elsewhere = format!(
        "GET /v1/users HTTP/1.1\r\nHost: evil.test\r\nAuthorization: Basic {token}\r\n\r\n"
    );
    exchange(&sandbox, elsewhere.as_bytes());
    let trailers = "Transfer-Encoding: chunked\r\nTrailer: authorization\r\n";
    let mut bytes = request(&sandbox, "POST /sandbox/echo", &token, trailers, b"");
    bytes.extend_from_slice(b"1\r\nx\r\n0\r\nauthorization: x\r\n\r\n");
    exchange(&sandbox, &bytes);

    let problems = sandbox.counts().problems;
    let expected = [
        "GET /v1/users: the hop-by-hop header connection",
        "GET /v1/users: the hop-by-hop header te",
        "GET /v1/users: the hop-by-hop header upgrade",
        "GET /v1/users: the hop-by-hop header proxy-authorization",
        "GET /v1/users: more than one authorization header",
        "GET /v1/users: an authorization that is not a bearer token",
        "GET /v1/users: a host that is not this server",
        "POST /sandbox/echo: the trailer authorization",
    ];
    for problem in expected {
        assert!(
            problems.iter().any(|found| found == problem),
            "{problem} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expected.len());
    assert!(problems.iter().all(|problem| !problem.contains(&token)));
}

#[test]
fn the_mirror_answers_while_the_body_still_comes() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let bytes = request(
        &sandbox,
        "POST /sandbox/mirror",
        &token,
        "",
        b"first-second",
    );
    let (first, second) = bytes.split_at(bytes.len() - 6);
    let mut stream = open(&sandbox, first);
    let mut seen = Vec::new();
    while !seen.ends_with(b"first-") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("what came so far");
        seen.push(byte[0]);
    }
    stream.write_all(second).expect("the sandbox reads");
    let mut rest = [0; 6];
    stream.read_exact(&mut rest).expect("the rest");
    assert_eq!(&rest, b"second");
}

#[test]
fn dropping_it_closes_every_connection() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    sandbox.change(|behaviour| behaviour.hold_token_endpoint = true);
    let mut stream = open(&sandbox, &refresh_post(&sandbox, &pair.refresh_token));
    sandbox.wait_until(LIMIT, |counts| counts.token_posts == 1);
    let reader = thread::spawn(move || stream.read(&mut [0; 16]).unwrap_or(0));
    drop(sandbox);
    assert_eq!(reader.join().expect("no panic"), 0);
}

#[test]
fn a_401_may_end_the_connection_with_the_body_unread() {
    let sandbox = sandbox();
    sandbox.change(|behaviour| {
        behaviour.unauthorized.timing = Timing::AtHead;
        behaviour.unauthorized.close = true;
        behaviour.drain_after_early_answer = false;
    });
    // The body never comes, so nothing is unread when the connection closes, and no reset can swallow the answer.
    let bytes = request(&sandbox, "POST /sandbox/echo", "dead", "", b"abc");
    let mut stream = open(&sandbox, &bytes[..bytes.len() - 3]);
    let answer = read(&mut stream).expect("an answer");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (401, Some("close"))
    );
    assert_eq!(stream.read(&mut [0; 16]).expect("no reset"), 0);
}

#[test]
fn api_requests_fail_as_the_script_says() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    sandbox.change(|behaviour| {
        behaviour.api_failures = [
            ApiFailure::Unauthorized,
            ApiFailure::Status {
                code: StatusCode::BAD_GATEWAY,
                retry_after: None,
            },
            ApiFailure::CutAtHead,
            ApiFailure::CutAfter,
            ApiFailure::HalfBody,
        ]
        .into();
    });
    let bytes = request(&sandbox, "GET /v1/users", &token, "", b"");
    assert_eq!(exchange(&sandbox, &bytes).status, 401);
    assert_eq!(exchange(&sandbox, &bytes).status, 502);
    assert!(read(&mut open(&sandbox, &bytes)).is_none());
    assert!(read(&mut open(&sandbox, &bytes)).is_none());
    let mut half = Vec::new();
    open(&sandbox, &bytes)
        .read_to_end(&mut half)
        .expect("a clean end of the connection");
    assert!(half.starts_with(b"HTTP/1.1 200") && !half.ends_with(b"]"));
    assert_eq!(exchange(&sandbox, &bytes).status, 200);
    let counts = sandbox.wait_until(LIMIT, |counts| counts.in_flight == 0);
    assert_eq!(counts.api_requests, 6);
}

#[test]
fn ambiguous_framing_is_a_problem_on_every_request_of_a_connection() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let mut stream = open(
        &sandbox,
        &request(&sandbox, "POST /sandbox/echo", &token, "", b"abc"),
    );
    read(&mut stream).expect("an answer");
    let more = "Transfer-Encoding: chunked\r\nContent-Length: 8\r\n";
    let mut bytes = request(&sandbox, "POST /sandbox/echo?a", &token, more, b"");
    bytes.extend_from_slice(b"1\r\nx\r\n0\r\n\r\n");
    stream.write_all(&bytes).expect("the sandbox reads");
    read(&mut stream).expect("an answer");
    let expected = "POST /sandbox/echo: both content-length and transfer-encoding";
    assert_eq!(sandbox.counts().problems, [expected]);

    let mut stream = open(&sandbox, b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n");
    assert_eq!(read(&mut stream).expect("hyper's own answer").status, 400);
    drop(stream);
    sandbox.wait_until(LIMIT, |counts| {
        counts
            .problems
            .iter()
            .any(|found| found == "a request that does not parse")
    });
}
