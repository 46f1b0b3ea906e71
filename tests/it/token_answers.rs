//! Answers of the token endpoint, good and bad: what is stored, what clients see, and whether the grant lives on
//! (rules T5, T6, T9, T10 and S8).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use http::StatusCode;
use lucid_proxy::sandbox::{Behaviour, ExpiresIn, TokenFailure};
use lucid_proxy::secret::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::TlsFront;
use crate::world::{SOON, Serving, World, errors};

const PROFILE: &str = "/users/me/profile";

#[track_caller]
fn assert_ok(serving: &Serving) {
    let response = serving.get(PROFILE);
    assert_eq!(
        response.status,
        200,
        "{}\n{}",
        response.text(),
        serving.log()
    );
}

/// What the proxy itself says to a request.
#[track_caller]
fn refused(serving: &Serving, code: &str, what: &str) -> String {
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, code),
        "{what}: {}",
        serving.log()
    );
    response.json()["message"].to_string()
}

/// Ends the proxy and looks for what must never be in a log.
#[track_caller]
fn stop(serving: Serving, what: &str) {
    let log = serving.stop();
    assert!(!log.contains("panicked"), "{what}: {log}");
}

/// Tries rows of a table, some at a time: each of them takes a proxy and its back-off of a second.
fn each<T: Send>(rows: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    let rows = Mutex::new(rows.into_iter().collect::<VecDeque<_>>());
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                loop {
                    let Some(row) = rows.lock().expect("whole").pop_front() else {
                        break;
                    };
                    check(row);
                }
            });
        }
    });
}

fn failing(failure: TokenFailure) -> Behaviour {
    Behaviour {
        token_failures: VecDeque::from([failure]),
        ..Behaviour::default()
    }
}

fn status(code: u16, body: &str) -> TokenFailure {
    TokenFailure::Status {
        code: StatusCode::from_u16(code).expect("a status"),
        retry_after: None,
        body: body.to_owned(),
    }
}

fn fields(object: Value) -> Map<String, Value> {
    let Value::Object(fields) = object else {
        panic!("an object: {object}");
    };
    fields
}

#[test]
fn t06_whatever_else_an_answer_holds_its_pair_is_stored_and_used() {
    let world = World::expired();
    let serving = world.serve();
    let hour = 3600;
    let mut generation = 1;
    for (extra, lifetime) in [
        (json!({"expires_in": 0}), hour),
        (json!({"expires_in": -1}), hour),
        (json!({"expires_in": 1e12}), hour),
        (json!({"expires_in": "3600"}), hour),
        (json!({"expires_in": "1800"}), 1800),
        (json!({"expires_in": null}), hour),
        (json!({"expires_in": true}), hour),
        (json!({"expires_in": {"seconds": 5}}), hour),
        (json!({"expires_in": 1799.5}), 1799),
        (json!({"expires": "never", "expires_in": 1800}), 1800),
        (json!({"token_type": "MAC"}), hour),
        (json!({"token_type": ["bearer"]}), hour),
        (json!({"scopes": {"a": 1}, "scope": 7}), hour),
        (json!({"scopes": [1, null, "user.profile"]}), hour),
        (json!({"user_id": "4711", "account_id": 52}), hour),
        (json!({"user_id": -1, "client_id": null}), hour),
        (json!({"error": "invalid_grant"}), hour),
        (json!({"padding": "x".repeat(200 << 10)}), hour),
    ] {
        let shown = extra.to_string();
        let shown = &shown[..shown.len().min(60)];
        world.sandbox.change(|behaviour| {
            behaviour.token_answer.expires_in = ExpiresIn::Absent;
            behaviour.token_answer.extra = fields(extra);
        });
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
        generation += 1;
        let record = world.record();
        assert_eq!(record.generation, Some(generation), "{shown}");
        assert_eq!(record.lifetime().as_secs(), lifetime, "{shown}");
    }
    let counts = world.sandbox.counts();
    assert_eq!(counts.token_posts, counts.rotations);
    assert_eq!(counts.reused_refresh_tokens, 0);
    stop(serving, "odd fields");
}

#[test]
fn t06_without_a_usable_new_refresh_token_the_old_one_stays() {
    let world = World::expired();
    world
        .sandbox
        .change(|behaviour| behaviour.token_answer.refresh_token = false);
    let serving = world.serve();
    let old = world.record();
    for (rotations, odd) in [json!(null), json!(""), json!(5), json!(["a"]), json!({})]
        .into_iter()
        .enumerate()
    {
        let shown = odd.to_string();
        world.sandbox.change(|behaviour| {
            behaviour.token_answer.extra = fields(json!({ "refresh_token": odd }));
        });
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
        let record = world.record();
        assert!(record.same_tokens(&old), "{shown}");
        assert_eq!(record.generation, Some(2 + rotations as u64), "{shown}");
        let same_age = record.refresh_issued_at == old.refresh_issued_at;
        assert!(same_age, "{shown}: it is as old as before");
    }
    stop(serving, "odd refresh tokens");
}

#[test]
fn t06_tokens_of_four_kibibytes_are_stored_and_sent() {
    let world = World::expired_behaving(Behaviour {
        token_length: 4096,
        ..Behaviour::default()
    });
    let serving = world.serve();
    for _ in 0..2 {
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
        let record = world.record();
        for token in [&record.access_token, &record.refresh_token] {
            assert_eq!(token.expose_secret().len(), 4096);
        }
    }
    assert_eq!(world.sandbox.counts().rotations, 2);
}

#[test]
fn s08_a_token_that_no_header_may_carry_is_stored_and_told_and_the_grant_lives_on() {
    for odd in [
        "line\nbreak",
        "nul\0",
        "delete\u{7f}",
        "\r\nX-Injected: yes",
    ] {
        let world = World::expired();
        world.sandbox.change(|behaviour| {
            behaviour.token_answer.extra = fields(json!({ "access_token": odd }));
        });
        let serving = world.serve();
        let message = refused(&serving, "tokenUnavailable", odd);
        assert!(
            message.contains("characters that no header may carry"),
            "{message}"
        );
        let record = world.record();
        assert_eq!(record.generation, Some(2));
        assert_eq!(record.access_token.expose_secret(), odd);
        assert_eq!(world.sandbox.counts().api_requests, 0);
        // The refresh token that came with it is good for the next one.
        world.sandbox.change(|behaviour| {
            behaviour.token_answer.extra = Map::new();
        });
        world.edit_record(|record| {
            record.generation = Some(3);
            record.expires_at = record.issued_at;
        });
        serving.wait_for_log("took over a newer token");
        assert_ok(&serving);
        assert_eq!(world.sandbox.counts().rotations, 2);
        stop(serving, odd);
    }
}

#[test]
fn t10_what_is_neither_a_pair_nor_a_refusal_leaves_the_grant_alone() {
    let refusal = r#"{"error":"invalid_grant","error_description":"no","error_uri":""}"#;
    let rows = [
        (429, refusal),
        (500, refusal),
        (502, "<html>bad gateway</html>"),
        (503, ""),
        (404, refusal),
        (418, "{}"),
        (200, ""),
        (200, "[]"),
        (200, "null"),
        (200, "{}"),
        (200, refusal),
        (200, r#"{"access_token":"#),
        (200, r#"{"access_token":""}"#),
        (200, r#"{"access_token":null}"#),
        (200, r#"{"access_token":5,"refresh_token":"oauth2-x"}"#),
        (200, r#"{"access_token":["oauth2-x"]}"#),
        (201, r#"{"access_token":"oauth2-x"}"#),
        (204, ""),
        (400, ""),
        (400, "<html>blocked</html>"),
        (400, r#"{"error":null}"#),
        (400, r#"{"error":{"code":"invalid_grant"}}"#),
        (400, r#"{"error":"no_such_code"}"#),
        (
            401,
            r#"{"code":"unauthorized","message":"","requestId":""}"#,
        ),
        (403, r#"{"error":"rate_limited"}"#),
    ];
    each(rows, |(code, body)| {
        let what = &format!("{code} {body}");
        let world = World::expired_behaving(failing(status(code, body)));
        let old = world.record();
        let serving = world.serve();
        refused(&serving, "tokenUnavailable", what);
        let record = world.record();
        assert_eq!(record.generation, Some(1), "{what}");
        assert!(record.same_tokens(&old), "{what}: the pair is still there");
        assert!(record.refusal.is_none(), "{what}");
        assert!(record.last_error.is_some(), "{what}");
        let counts = world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == 1);
        assert_eq!(
            (counts.token_posts, counts.api_requests),
            (2, 0),
            "{what}: it healed without a request"
        );
        serving.wait_for_log("token rotated");
        assert_ok(&serving);
        stop(serving, what);
    });
}

#[test]
fn f11_placeholders_do_not_take_the_place_of_a_pair() {
    let body = r#"{"access_token":"lucid-proxy-placeholder-access-8","refresh_token":"lucid-proxy-placeholder-refresh-8","expires_in":3600}"#;
    let world = World::behaving(failing(status(200, body)));
    world.log_in();
    let before = world.stored();
    let output = world.run(&["refresh"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(
        errors(&output).contains("a lucid-proxy answered"),
        "{}",
        errors(&output)
    );
    let after = world.stored();
    for field in ["access_token", "refresh_token", "generation"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // Nothing was spent: it is asked as if for the first time.
    assert!(after["last_error"].is_object() && after["intent"].is_null());
    let output = world.run(&["refresh"]);
    assert!(output.status.success(), "{}", errors(&output));
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.introspections), (1, 0));
}

#[test]
fn t09_a_refusal_ends_the_grant_in_whatever_form_it_comes() {
    let huge = format!(
        r#"{{"error":"invalid_grant","error_description":"{}"}}"#,
        "no ".repeat(30_000)
    );
    let rows = [
        (400, r#"{"error":"invalid_grant"}"#, "invalid_grant"),
        (401, r#"{"error":"invalid_client"}"#, "invalid_client"),
        (403, r#"{"error":"invalid_client"}"#, "invalid_client"),
        (400, r#"{"error":"invalid_scopes"}"#, "invalid_scopes"),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            "unauthorized_client",
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":null,"error_uri":7}"#,
            "invalid_grant",
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":["no"],"error_uri":null}"#,
            "invalid_grant",
        ),
        (
            400,
            r#"{"error":"invalid_request","error":"invalid_grant"}"#,
            "invalid_grant",
        ),
        (400, huge.as_str(), "invalid_grant"),
    ];
    each(rows, |(status_code, body, code)| {
        let what = &body[..body.len().min(80)];
        let world = World::expired_behaving(failing(status(status_code, body)));
        let old = world.record();
        let serving = world.serve();
        for _ in 0..2 {
            let message = refused(&serving, "loginRequired", what);
            assert!(message.contains(code), "{what}: {message}");
            assert!(message.len() < 10_000, "{what}: {}", message.len());
        }
        let counts = world.sandbox.counts();
        assert_eq!((counts.token_posts, counts.api_requests), (1, 0), "{what}");
        let record = world.record();
        assert_eq!(record.refusal.expect("noted").code, code, "{what}");
        let stored = world.record();
        assert!(stored.same_tokens(&old), "{what}: nothing deletes a pair");
        stop(serving, what);
    });
}

#[test]
fn t05_no_kind_of_redirect_is_followed() {
    each([301, 302, 303, 307, 308], |code| {
        let mut world = World::expired();
        let answer = format!(
            "HTTP/1.1 {code} Moved\r\nLocation: {}/oauth2/token\r\nContent-Length: 0\r\n\r\n",
            world.sandbox.origin()
        );
        let raw = RawUpstream::start();
        world.token_origin = raw.origin();
        let requests = raw.answering(answer.into_bytes().leak());
        let serving = world.serve();
        let message = refused(&serving, "tokenUnavailable", &code.to_string());
        assert!(message.contains(&format!("answered {code}")), "{message}");
        assert_eq!(world.record().generation, Some(1));
        stop(serving, "a redirect");
        let posted = requests.recv_timeout(SOON).expect("it was asked");
        assert!(posted.starts_with(b"POST /oauth2/token HTTP/1.1\r\n"));
        assert_eq!(world.sandbox.counts().connections, 0, "{code}");
    });
}

/// A token endpoint that gives a first answer byte by byte, says on being asked that the refresh token lives, and gives
/// the next one whole; and the paths that it was asked for. Each answer ends with its connection.
fn answering(first: Vec<u8>, then: Vec<u8>) -> (String, Receiver<String>) {
    let raw = RawUpstream::start();
    let origin = raw.origin();
    let (asked, paths) = channel();
    std::thread::spawn(move || {
        let mut answers = VecDeque::from([first, then]);
        while !answers.is_empty() {
            let mut connection = raw.accept();
            let request = String::from_utf8(connection.request()).expect("text");
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.as_str() {
                "/oauth2/token" => answers.pop_front().expect("not empty"),
                _ => whole("200 OK", br#"{"active":true}"#),
            };
            asked.send(path).expect("the test listens");
            connection.send(&answer);
        }
    });
    (origin, paths)
}

fn whole(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn t11_an_answer_that_is_cut_or_no_answer_at_all_is_asked_about() {
    let pair = br#"{"access_token":"oauth2-lost","refresh_token":"oauth2-lost"}"#;
    let cut = |length: usize| {
        let answer = whole("200 OK", pair);
        answer[..answer.len() - length].to_vec()
    };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let rows = [
        ("nothing", Vec::new()),
        ("a part of the head", b"HTTP/1.1 200 OK\r\nConte".to_vec()),
        ("all but the last byte", cut(1)),
        ("the head alone", cut(pair.len())),
        (
            "no last chunk",
            format!("{chunked}11\r\n{{\"access_token\":\"x\r\n").into_bytes(),
        ),
        (
            "a bad chunk size",
            format!("{chunked}zz\r\n{{}}\r\n0\r\n\r\n").into_bytes(),
        ),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        (
            "a head without an end",
            [
                b"HTTP/1.1 200 OK\r\n".to_vec(),
                b"X-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000),
            ]
            .concat(),
        ),
        ("too large", whole("200 OK", &b" ".repeat(300 << 10))),
        (
            "compressed",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00".to_vec(),
        ),
    ];
    each(rows, |(what, first)| {
        let mut world = World::expired();
        let old = world.record();
        let pair = serde_json::to_vec(&world.sandbox.approve()).expect("JSON");
        let (origin, paths) = answering(first, whole("200 OK", &pair));
        world.token_origin = origin;
        let serving = world.serve();
        refused(&serving, "tokenUnavailable", what);
        serving.wait_for_log("token rotated");
        assert_ok(&serving);
        let record = world.record();
        assert_eq!(record.generation, Some(2), "{what}");
        assert!(!record.same_tokens(&old), "{what}");
        assert!(record.intent.is_none(), "{what}");
        let paths: Vec<_> = paths.try_iter().collect();
        assert_eq!(
            paths,
            ["/oauth2/token", "/oauth2/token/introspect", "/oauth2/token"],
            "{what}"
        );
        stop(serving, what);
    });
}

#[test]
fn t05_a_certificate_for_another_host_gets_no_refresh_token() {
    let mut world = World::expired();
    let front = TlsFront::start(world.sandbox.address());
    let bundle = world.directory.path().join("trusted.pem");
    front.write_bundle(&bundle);
    let public_origin = Some(front.origin());
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = public_origin);
    // The certificate is trusted, and is for localhost.
    world.token_origin = format!("https://{}", front.address);
    let trusting = |world: &World| {
        world.serve_with(|command| {
            command.env("SSL_CERT_FILE", &bundle);
        })
    };
    let serving = trusting(&world);
    let message = refused(&serving, "tokenUnavailable", "another host");
    assert!(message.contains("certificate"), "{message}");
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.connections), (0, 0));
    stop(serving, "another host");
    let record = world.record();
    assert_eq!(record.generation, Some(1));
    assert!(record.intent.is_none(), "nothing was sent: nothing is open");
    world.token_origin = front.origin();
    let serving = trusting(&world);
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
    stop(serving, "its own host");
}

#[test]
fn t05_a_token_endpoint_that_is_not_there_has_seen_no_refresh_token() {
    let mut world = World::expired();
    let gone = RawUpstream::start().origin();
    world.token_origin = gone;
    let serving = world.serve();
    let message = refused(&serving, "tokenUnavailable", "nobody listens");
    assert!(message.contains("refused"), "{message}");
    assert!(world.record().intent.is_none());
    stop(serving, "nobody listens");
}
