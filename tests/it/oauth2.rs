//! Rule F11: programs that refresh by themselves.

use std::time::SystemTime;

use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET, Counts};
use serde_json::{Value, json};

use crate::world::{Response, SOON, Serving, World, errors};

const JSON: &str = "Content-Type: application/json";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const TOKEN: &str = "POST /oauth2/token";
const INTROSPECT: &str = "POST /oauth2/token/introspect";
const PROFILE: &str = "GET /users/me/profile";
const ACCESS: &str = "lucid-proxy-placeholder-access-";
const REFRESH: &str = "lucid-proxy-placeholder-refresh-";

/// What Lucid's example script sends, with a refresh token that has long been spent.
fn stale() -> Vec<u8> {
    refresh_with("oauth2-stale")
}

fn refresh_with(refresh_token: &str) -> Vec<u8> {
    let body = json!({
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": "cid-of-the-script",
        "client_secret": "sec-of-the-script",
    });
    body.to_string().into_bytes()
}

fn refresh(serving: &Serving, body: &[u8]) -> Response {
    serving.connect().ask(TOKEN, &[JSON], body)
}

#[track_caller]
fn assert_refreshed(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("pragma"), Some("no-cache"));
    assert_ours(response);
    response.json()
}

#[track_caller]
fn assert_ours(response: &Response) {
    let status = response.header("proxy-status").unwrap_or_default();
    assert!(status.starts_with("lucid-proxy; "), "{response:?}");
}

/// `GET /users/me/profile` with such a token.
fn ask_as(serving: &Serving, token: &Value) -> Response {
    let token = token.as_str().expect("a token");
    let authorization = format!("Authorization: Bearer {token}");
    serving
        .connect()
        .ask(PROFILE, &[authorization.as_str()], b"")
}

/// Upstream has seen nothing of what the program sent.
#[track_caller]
fn assert_untouched(counts: &Counts) {
    assert_eq!(
        (counts.unknown_tokens, counts.missing_tokens),
        (0, 0),
        "no placeholder reached upstream"
    );
    assert_eq!(counts.token_posts, counts.rotations);
    assert_eq!(counts.reused_refresh_tokens, 0);
    assert_eq!(
        (counts.code_posts, counts.introspections, counts.revocations),
        (0, 0, 0)
    );
    assert_eq!(counts.problems, Vec::<String>::new());
}

/// When the stored access token dies, as Lucid writes it.
fn stored_expiry(world: &World) -> u64 {
    let since = world
        .record()
        .expires_at
        .duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("a time").as_millis()).expect("a number")
}

#[test]
fn f11_a_program_that_refreshes_by_itself_works_across_dying_tokens() {
    let world = World::logged_in();
    let serving = world.serve();
    let first = assert_refreshed(&refresh(&serving, &stale()));
    let record = world.record();
    assert_eq!(first["client_id"], CLIENT_ID);
    assert_eq!(first["token_type"], "bearer");
    assert_eq!(first["user_id"], 4711);
    assert_eq!(first["scopes"], json!(record.scopes));
    assert!(!record.scopes.is_empty());
    assert_eq!(first["expires"], stored_expiry(&world));
    let seconds = first["expires_in"].as_u64().expect("seconds");
    assert!((3000..=3600).contains(&seconds), "{seconds}");
    let members = first.as_object().expect("an object").len();
    assert_eq!(members, 8, "exactly Lucid's: {first}");
    let text = |answer: &Value, name: &str| answer[name].as_str().expect("text").to_owned();
    assert!(text(&first, "access_token").starts_with(ACCESS));
    assert!(text(&first, "refresh_token").starts_with(REFRESH));

    assert_eq!(ask_as(&serving, &first["access_token"]).status, 200);
    assert_eq!(world.sandbox.counts().rotations, 0, "nothing was refreshed");
    world.sandbox.expire_access_tokens();
    assert_eq!(
        ask_as(&serving, &first["access_token"]).status,
        200,
        "what the program has cached still works: {}",
        serving.log()
    );
    assert_eq!(world.sandbox.counts().rotations, 1);

    let again = text(&first, "refresh_token");
    let second = assert_refreshed(&refresh(&serving, &refresh_with(&again)));
    assert_ne!(second["access_token"], first["access_token"]);
    assert_eq!(second["expires"], stored_expiry(&world));
    for _ in 0..3 {
        assert_eq!(
            assert_refreshed(&refresh(&serving, &refresh_with(&again)))["access_token"],
            second["access_token"]
        );
    }
    world.sandbox.expire_access_tokens();
    for answer in [&first, &second] {
        assert_eq!(ask_as(&serving, &answer["access_token"]).status, 200);
    }
    let counts = world.sandbox.counts();
    assert_eq!(counts.rotations, 2, "one for each death");
    assert_untouched(&counts);
    serving.stop();
}

#[test]
fn f11_any_number_of_refreshes_costs_no_rotation() {
    let world = World::logged_in();
    let serving = world.serve();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = serving.connect();
                for _ in 0..25 {
                    assert_refreshed(&client.ask(TOKEN, &[JSON], &stale()));
                }
            });
        }
    });
    assert_eq!(world.sandbox.counts().token_posts, 0);
    assert_eq!(world.stored()["generation"], 1);
    // And a dead one costs the one that any request would cause.
    let world = World::expired();
    let serving = world.serve();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_refreshed(&refresh(&serving, &stale())));
        }
    });
    assert_eq!(world.sandbox.counts().token_posts, 1);
    assert_untouched(&world.sandbox.counts());
}

#[test]
fn f11_a_refresh_is_known_in_every_spelling() {
    let world = World::logged_in();
    let serving = world.serve();
    let form = b"grant_type=refresh_token&refresh_token=x&client_id=a&client_secret=b";
    let mut client = serving.connect();
    for line in [
        TOKEN,
        "POST /v1/oauth2/token",
        "POST /v2/oauth2//token/",
        "POST /x/../%6fauth2/token?x=y",
    ] {
        assert_refreshed(&client.ask(line, &[JSON], &stale()));
        // Basic credentials, in any case of the scheme and whatever they are.
        assert_refreshed(&client.ask(line, &[FORM, "Authorization: bAsIc !"], form));
    }
    let chunked = ["Transfer-Encoding: chunked", JSON];
    client.request(TOKEN, &chunked, b"");
    let body = stale();
    let (start, rest) = body.split_at(10);
    client.send(format!("{:x}\r\n", start.len()).as_bytes());
    client.send(&[start, b"\r\n"].concat());
    client.send(format!("{:x}\r\n", rest.len()).as_bytes());
    client.send(&[rest, b"\r\n0\r\n\r\n"].concat());
    assert_refreshed(&client.response());
    assert_untouched(&world.sandbox.counts());
}

#[test]
fn f11_a_refresh_waits_for_a_rotation_under_way_and_no_longer_than_a_request() {
    let mut world = World::expired();
    world.tables = "[timeouts]\ntoken = \"500ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let response = refresh(&serving, &stale());
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "tokenUnavailable"),
        "{}",
        response.text()
    );
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_ours(&response);

    let world = World::expired();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(TOKEN, &[JSON], &stale());
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    let answer = assert_refreshed(&client.response());
    assert_eq!(answer["access_token"], format!("{ACCESS}2"));
    assert_eq!(answer["expires"], stored_expiry(&world));
    assert_untouched(&world.sandbox.counts());
}

#[test]
fn f11_without_a_login_a_refresh_is_told_so() {
    let world = World::new();
    let serving = world.serve();
    let placeholder = format!("token={ACCESS}1");
    for (line, header, body) in [
        (TOKEN, JSON, stale()),
        (INTROSPECT, FORM, placeholder.into_bytes()),
    ] {
        let response = serving.connect().ask(line, &[header], &body);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "loginRequired"),
            "{}",
            response.text()
        );
        assert!(response.text().contains("lucid-proxy login"));
    }
    assert_eq!(world.sandbox.counts().connections, 0);
}

#[test]
fn f11_introspection_knows_placeholders_and_nothing_else() {
    let world = World::logged_in();
    let serving = world.serve();
    let ask = |token: &str| {
        let body = format!("token={token}&client_id=a&client_secret=b");
        let mut client = serving.connect();
        assert_refreshed(&client.ask(INTROSPECT, &[FORM], body.as_bytes()))
    };
    let given = assert_refreshed(&refresh(&serving, &stale()));
    let record = world.record();
    let access = ask(given["access_token"].as_str().expect("text"));
    assert_eq!(access["active"], true);
    assert_eq!(access["expires"], stored_expiry(&world));
    assert_eq!(access["scope"], record.scopes.join(" "));
    assert_eq!(
        (&access["client_id"], &access["token_type"]),
        (&json!(CLIENT_ID), &json!("bearer"))
    );
    assert_eq!(access["user_id"], 4711);
    let refresh = ask(given["refresh_token"].as_str().expect("text"));
    let days = refresh["expires_in"].as_u64().expect("seconds") / (24 * 3600);
    assert!(refresh["active"] == true && days == 179, "{refresh}");
    let stored = world.stored();
    for token in [
        "x",
        stored["access_token"].as_str().expect("text"),
        stored["refresh_token"].as_str().expect("text"),
    ] {
        assert_eq!(ask(token), json!({"active": false}));
    }
    assert_untouched(&world.sandbox.counts());
}

#[test]
fn f11_what_is_not_a_refresh_is_refused_in_oauths_words() {
    let world = World::logged_in();
    let serving = world.serve();
    let token = world.stored()["access_token"]
        .as_str()
        .expect("text")
        .to_owned();
    let code = b"grant_type=authorization_code&code=x&redirect_uri=y";
    let mut client = serving.connect();
    for (line, body, code, hint) in [
        (
            "POST /oauth2/token/revoke",
            format!("token={token}").as_bytes(),
            "unsupported_token_type",
            "lucid-proxy logout",
        ),
        (TOKEN, code, "unsupported_grant_type", "lucid-proxy login"),
        (
            TOKEN,
            b"grant_type=client_credentials",
            "unsupported_grant_type",
            "refresh_token",
        ),
        (TOKEN, b"x", "invalid_request", "grant_type is missing"),
        (TOKEN, b"{", "invalid_request", "JSON object"),
    ] {
        let response = client.ask(line, &[FORM], body);
        let error = response.json();
        assert_eq!(response.status, 400, "{error}");
        assert_eq!(error["error"], code);
        let description = error["error_description"].as_str().expect("text");
        assert!(description.contains(hint), "{description}");
        assert_eq!(error["error_uri"], "");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_ours(&response);
    }
    for line in ["GET /oauth2/token", "PUT /oauth2/token/introspect"] {
        let response = client.ask(line, &[], b"");
        assert_eq!(response.status, 405);
        assert_eq!(response.header("allow"), Some("POST"));
        assert_eq!(response.json()["error"], "invalid_request");
        assert_ours(&response);
    }
    let elsewhere = client.ask("GET /oauth2/authorize?client_id=x", &[], b"");
    assert_eq!(
        (elsewhere.status, elsewhere.code().as_str()),
        (403, "policyDenied")
    );
    assert_eq!(
        client.ask(PROFILE, &[], b"").status,
        200,
        "nothing was lost"
    );
    assert_untouched(&world.sandbox.counts());
}

#[test]
fn f11_a_body_that_is_too_large_too_slow_or_cut_off_is_told_so() {
    let mut world = World::logged_in();
    world.tables = "[timeouts]\nbody = \"500ms\"\n".to_owned();
    let serving = world.serve();
    let mut fitting = stale();
    fitting.resize(64 << 10, b' ');
    assert_refreshed(&refresh(&serving, &fitting));

    let mut client = serving.connect();
    client.request(TOKEN, &[JSON, "Content-Length: 65537"], b"");
    let declared = client.response();
    let mut client = serving.connect();
    client.request(TOKEN, &[JSON, "Transfer-Encoding: chunked"], b"");
    client.send(b"10001\r\n");
    client.send(&vec![b' '; 65537]);
    let chunked = client.response();
    let mut client = serving.connect();
    client.request(TOKEN, &[JSON, "Content-Length: 100"], b"");
    client.send(b"{\"grant_type\":");
    let slow = client.response();
    assert!(client.is_closed());
    let mut client = serving.connect();
    client.request(TOKEN, &[JSON, "Content-Length: 100"], b"");
    client.send(b"{\"grant_type\":");
    client.finish();
    let cut = client.response();
    for (response, status, hint) in [
        (declared, 413, "64 KiB"),
        (chunked, 413, "64 KiB"),
        (slow, 408, "timeouts.body"),
        (cut, 400, "ended before its time"),
    ] {
        let error = response.json();
        assert_eq!(response.status, status, "{error}");
        assert_eq!(error["error"], "invalid_request");
        let description = error["error_description"].as_str().expect("text");
        assert!(description.contains(hint), "{description}");
        assert_ours(&response);
        let closes = response.header("connection") == Some("close");
        assert_eq!(closes, status != 400, "{status}");
    }
}

#[test]
fn f11_the_endpoints_can_be_denied() {
    let mut world = World::logged_in();
    world.tables = "oauth2_endpoint = \"deny\"\n".to_owned();
    let serving = world.serve();
    for line in [TOKEN, INTROSPECT, "GET /v1/oauth2/x"] {
        let response = serving.connect().ask(line, &[JSON], &stale());
        assert_eq!(
            (response.status, response.code().as_str()),
            (403, "policyDenied")
        );
    }
    assert_untouched(&world.sandbox.counts());
    world.tables = "oauth2_endpoint = \"allow\"\n".to_owned();
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let expected = "expected \"local\", \"deny\" or \"forward\"";
    assert!(errors(&output).contains(expected), "{}", errors(&output));
}

#[test]
fn f11_t16_a_program_with_a_login_of_its_own_can_be_let_through() {
    let mut world = World::new();
    world.tables = "oauth2_endpoint = \"forward\"\n".to_owned();
    let own = world.sandbox.approve();
    // Without a login of the proxy's: it is not needed for this.
    let serving = world.serve();
    let ask = |line: &str, body: &Value| {
        let headers = [JSON, "Authorization: Basic x", "Proxy-Authorization: y"];
        let body = body.to_string();
        serving.connect().ask(line, &headers, body.as_bytes())
    };
    let credentials = |secret: &str, token: &str| {
        json!({
            "grant_type": "refresh_token",
            "refresh_token": token,
            "client_id": CLIENT_ID,
            "client_secret": secret,
        })
    };
    let refreshed = ask(
        TOKEN,
        &credentials(CLIENT_SECRET, own.refresh_token.as_str()),
    );
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    assert!(refreshed.header("proxy-status").is_none(), "upstream's own");
    let access_token = refreshed.json()["access_token"].clone();
    assert!(access_token.as_str().expect("text").starts_with("oauth2-"));
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.rotations), (1, 1));
    assert_eq!(counts.problems, Vec::<String>::new(), "no Authorization");

    // With a login: it is left alone, whatever the answer is.
    world.log_in();
    serving.wait_for_log("took over a newer token");
    world.sandbox.change(|behaviour| {
        behaviour.bad_client_status = http::StatusCode::UNAUTHORIZED;
    });
    let refused = ask(TOKEN, &credentials("wrong", "oauth2-stale"));
    assert_eq!(refused.status, 401, "{}", refused.text());
    assert!(refused.header("proxy-status").is_none());
    let body =
        json!({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "token": access_token});
    let introspected = ask("POST /v1/oauth2/token/introspect", &body);
    assert_eq!(introspected.json()["active"], true);
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.rotations), (2, 1));
    assert_eq!(counts.introspections, 1);
    assert_eq!(counts.problems, Vec::<String>::new());
    assert_eq!(world.stored()["generation"], 1);
    // A request for the API still has the proxy's own token.
    assert_eq!(ask_as(&serving, &access_token).status, 200);
    assert_eq!(world.sandbox.counts().api_by_generation.get(&1), Some(&1));
    serving.stop();
}

#[test]
fn f11_s06_nothing_of_what_a_program_sends_shows_in_the_log() {
    let world = World::logged_in();
    let serving = world.serve_with(|command| {
        command.env("RUST_LOG", "trace").arg("--verbose");
    });
    let body =
        b"grant_type=refresh_token&refresh_token=marked&client_secret=marked&client_id=marked";
    let headers = [FORM, "Authorization: Basic marked"];
    for (line, body) in [
        ("POST /oauth2/token?client_secret=marked", &body[..]),
        (TOKEN, b"grant_type=marked"),
        (TOKEN, b"marked"),
        (TOKEN, b"{\"refresh_token\":[\"marked\"]}"),
        (INTROSPECT, b"token=marked"),
        ("POST /oauth2/token/revoke", b"token=marked"),
    ] {
        let response = serving.connect().ask(line, &headers, body);
        assert!(!response.text().contains("marked"), "{}", response.text());
    }
    let log = serving.stop();
    assert_eq!(log.matches("/oauth2/token").count(), 6, "{log}");
    assert!(!log.contains("marked"), "{log}");
}
