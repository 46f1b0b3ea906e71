//! Authorization codes at the token endpoint.

use http::StatusCode;

use super::*;
use crate::sandbox::{Reuse, TokenFailure};

const URI: &str = "http://localhost:7777/callback";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// The code that an approval at `path` yields.
fn code(sandbox: &Sandbox, path: &str, scope: &str, more: &[(&str, &str)]) -> String {
    let mut form = vec![
        ("client_id", CLIENT_ID),
        ("redirect_uri", URI),
        ("scope", scope),
        ("decision", "approve"),
    ];
    form.extend_from_slice(more);
    let (_, back) = exchange(sandbox, &form_post(sandbox, path, &form)).redirect();
    let code = back.into_iter().find(|(name, _)| name == "code");
    code.expect("a code").1
}

fn user_code(sandbox: &Sandbox) -> String {
    code(
        sandbox,
        "/oauth2/authorize",
        "offline_access user.profile",
        &[],
    )
}

fn fields(code: &str) -> Value {
    json!({
        "grant_type": "authorization_code", "code": code, "redirect_uri": URI,
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    })
}

fn redeem(sandbox: &Sandbox, code: &str) -> Answer {
    exchange(sandbox, &token_post(sandbox, &fields(code)))
}

fn redeem_with(sandbox: &Sandbox, code: &str, name: &str, value: &str) -> Answer {
    let mut fields = fields(code);
    fields[name] = json!(value);
    exchange(sandbox, &token_post(sandbox, &fields))
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    let value = answer[name].as_str();
    value.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

fn introspect(sandbox: &Sandbox, token: &str) -> Value {
    let fields = [
        ("client_id", CLIENT_ID),
        ("client_secret", CLIENT_SECRET),
        ("token", token),
    ];
    exchange(
        sandbox,
        &form_post(sandbox, "/oauth2/token/introspect", &fields),
    )
    .json()
}

fn assert_refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (status, &json!(error))
    );
}

#[test]
fn a_code_becomes_a_grant_in_both_forms() {
    let sandbox = sandbox();
    for json in [true, false] {
        let code = user_code(&sandbox);
        let answer = if json {
            redeem(&sandbox, &code)
        } else {
            let fields = fields(&code);
            let fields = fields.as_object().expect("a map").iter();
            let fields: Vec<(&str, &str)> = fields
                .map(|(name, value)| (name.as_str(), value.as_str().expect("a string")))
                .collect();
            exchange(&sandbox, &form_post(&sandbox, "/v1/oauth2/token", &fields))
        };
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let tokens = answer.json();
        assert_eq!(tokens["scopes"], json!(["offline_access", "user.profile"]));
        assert_eq!(
            (&tokens["expires_in"], &tokens["token_type"]),
            (&json!(3600), &json!("bearer"))
        );
        assert_eq!(
            (&tokens["user_id"], tokens.get("account_id")),
            (&json!(4711), None)
        );
        let access_token = text(&tokens, "access_token");
        assert_eq!(
            get(&sandbox, "/v1/users/me/profile", access_token).status,
            200
        );
        let post = refresh_post(&sandbox, text(&tokens, "refresh_token"));
        assert_eq!(exchange(&sandbox, &post).status, 200);
    }
    let counts = sandbox.counts();
    assert_eq!((counts.code_posts, counts.code_exchanges), (2, 2));
    assert_eq!(
        (counts.token_posts, counts.rotations, counts.approvals),
        (2, 2, 2),
        "code exchanges are not among the token POSTs"
    );
    assert_eq!(
        (counts.refused_code_exchanges, counts.token_connections),
        (0, 2)
    );
    no_problems(&sandbox);
}

#[test]
fn a_second_use_is_refused_and_harms_nothing_unless_told_to() {
    let sandbox = sandbox();
    let code = user_code(&sandbox);
    let tokens = redeem(&sandbox, &code).json();
    let profile = || {
        get(
            &sandbox,
            "/v1/users/me/profile",
            text(&tokens, "access_token"),
        )
        .status
    };
    assert_refused(&redeem(&sandbox, &code), 401, "invalid_grant");
    assert_eq!(profile(), 200);

    sandbox.change(|behaviour| behaviour.code_reuse = Reuse::RevokeGrant);
    assert_refused(&redeem(&sandbox, &code), 401, "invalid_grant");
    assert_eq!(profile(), 401);
    let counts = sandbox.counts();
    assert_eq!(
        (
            counts.code_posts,
            counts.code_exchanges,
            counts.refused_code_exchanges
        ),
        (3, 1, 2)
    );
    assert_eq!(counts.refused_token_posts, 0);
}

#[test]
fn bad_codes_have_the_status_asked_for() {
    let sandbox = sandbox();
    let good = user_code(&sandbox);
    sandbox.change(|behaviour| behaviour.code_lifetime = Duration::ZERO);
    let expired = user_code(&sandbox);
    for status in [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST] {
        sandbox.change(|behaviour| behaviour.bad_code_status = status);
        let status = status.as_u16();
        assert_refused(&redeem(&sandbox, "code-0001"), status, "invalid_grant");
        assert_refused(&redeem(&sandbox, &expired), status, "invalid_grant");
        let elsewhere = redeem_with(&sandbox, &good, "redirect_uri", "http://localhost:7777/");
        assert_refused(&elsewhere, status, "invalid_grant");
    }
    assert_eq!(
        redeem(&sandbox, &good).status,
        200,
        "refusals cost it nothing"
    );
    no_problems(&sandbox);
}

#[test]
fn wrong_client_credentials_are_told_apart_from_a_bad_code() {
    let sandbox = sandbox();
    let code = user_code(&sandbox);
    // 400 was seen for refreshes alone.
    for (asked, status) in [(400, 401), (401, 401), (403, 403)] {
        sandbox.change(|behaviour| {
            behaviour.bad_client_status = StatusCode::from_u16(asked).expect("a status");
        });
        let answer = redeem_with(&sandbox, &code, "client_secret", "wrong");
        assert_refused(&answer, status, "invalid_client");
    }
    assert_eq!(sandbox.counts().refused_code_exchanges, 3);
    assert_eq!(redeem(&sandbox, &code).status, 200);
}

#[test]
fn a_verifier_is_needed_exactly_where_there_was_a_challenge() {
    let sandbox = sandbox();
    let s256 = [
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for challenge in [&s256[..], &[("code_challenge", VERIFIER)]] {
        let code = code(&sandbox, "/oauth2/authorize", "user.profile", challenge);
        assert_refused(&redeem(&sandbox, &code), 400, "invalid_grant");
        let wrong = redeem_with(
            &sandbox,
            &code,
            "code_verifier",
            &VERIFIER.replace('d', "e"),
        );
        assert_refused(&wrong, 400, "invalid_grant");
        let right = redeem_with(&sandbox, &code, "code_verifier", VERIFIER);
        assert_eq!(right.status, 200);
    }
    let code = user_code(&sandbox);
    let superfluous = redeem_with(&sandbox, &code, "code_verifier", VERIFIER);
    assert_refused(&superfluous, 400, "invalid_grant");
    assert_eq!(redeem(&sandbox, &code).status, 200);
    no_problems(&sandbox);
}

#[test]
fn an_account_grant_names_the_account_for_ever() {
    let sandbox = sandbox();
    let scope = "offline_access user.profile account.user:readonly";
    let code = code(&sandbox, "/oauth2/authorizeAccount", scope, &[]);
    let first = redeem(&sandbox, &code).json();
    let post = refresh_post(&sandbox, text(&first, "refresh_token"));
    let second = exchange(&sandbox, &post).json();
    let access_token = text(&second, "access_token");
    for answer in [&first, &second, &introspect(&sandbox, access_token)] {
        assert_eq!(
            (&answer["account_id"], answer.get("user_id")),
            (&json!(52), None)
        );
    }
    assert_eq!(get(&sandbox, "/v1/users", access_token).status, 200);
    assert_eq!(
        get(&sandbox, "/v1/users/me/profile", access_token).status,
        403,
        "an account has no profile"
    );
    no_problems(&sandbox);
}

#[test]
fn another_person_may_be_logged_in() {
    let sandbox = sandbox();
    let ada = sandbox.approve();
    sandbox.change(|behaviour| behaviour.user_id = 4712);
    let code = user_code(&sandbox);
    // Who approved it counts, not who is logged in by now.
    sandbox.change(|behaviour| behaviour.user_id = 9000);
    let ben = redeem(&sandbox, &code).json();
    let access_token = text(&ben, "access_token");
    assert_eq!(ben["user_id"], 4712);
    assert_eq!(introspect(&sandbox, access_token)["user_id"], 4712);
    let other = sandbox.approve();
    assert_eq!(introspect(&sandbox, &other.access_token)["user_id"], 9000);
    for (token, id, name) in [
        (ada.access_token.as_str(), 4711, "Ada Demo"),
        (access_token, 4712, "Ben Demo"),
        (other.access_token.as_str(), 9000, "User 9000"),
    ] {
        let profile = get(&sandbox, "/v1/users/me/profile", token).json();
        assert_eq!(
            (&profile["id"], &profile["fullName"]),
            (&json!(id), &json!(name))
        );
    }
}

#[test]
fn without_offline_access_there_is_no_refresh_token() {
    let sandbox = sandbox();
    let path = "/oauth2/authorize";
    let tokens = redeem(&sandbox, &code(&sandbox, path, "user.profile", &[])).json();
    assert_eq!(tokens.get("refresh_token"), None);
    assert_eq!(tokens["scopes"], json!(["user.profile"]));
    assert_eq!(
        get(
            &sandbox,
            "/v1/users/me/profile",
            text(&tokens, "access_token")
        )
        .status,
        200
    );

    // What was granted counts, not what was asked for.
    sandbox.change(|behaviour| {
        behaviour.granted_scopes = Some(vec![String::from("account.user:readonly")]);
    });
    let tokens = redeem(&sandbox, &user_code(&sandbox)).json();
    assert_eq!(tokens.get("refresh_token"), None);
    assert_eq!(tokens["scopes"], json!(["account.user:readonly"]));
    let access_token = text(&tokens, "access_token");
    assert_eq!(get(&sandbox, "/v1/users", access_token).status, 200);
    assert_eq!(
        get(&sandbox, "/v1/users/me/profile", access_token).status,
        403
    );
}

#[test]
fn the_script_applies_to_code_exchanges() {
    let sandbox = sandbox();
    let code = user_code(&sandbox);
    sandbox.change(|behaviour| {
        behaviour.hold_token_endpoint = true;
        behaviour.token_failures = [
            TokenFailure::Html(StatusCode::OK),
            TokenFailure::InvalidGrant,
            TokenFailure::CutAfter,
        ]
        .into();
    });
    let post = token_post(&sandbox, &fields(&code));
    let mut held = open(&sandbox, &post);
    let counts = sandbox.wait_until(LIMIT, |counts| counts.code_posts == 1);
    assert_eq!(counts.code_exchanges, 0);
    sandbox.change(|behaviour| behaviour.hold_token_endpoint = false);
    let page = read(&mut held).expect("an answer");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_refused(&exchange(&sandbox, &post), 401, "invalid_grant");
    assert_eq!(sandbox.counts().code_exchanges, 0);
    assert!(read(&mut open(&sandbox, &post)).is_none(), "cut");
    let counts = sandbox.counts();
    assert_eq!((counts.code_exchanges, counts.rotations), (1, 0));
    assert_eq!(
        counts.refused_code_exchanges, 0,
        "scripted failures are not counted"
    );
    assert_refused(&exchange(&sandbox, &post), 401, "invalid_grant");
}

#[test]
fn malformed_code_exchanges_are_problems() {
    let sandbox = sandbox();
    let mut without_uri = fields("code");
    without_uri
        .as_object_mut()
        .expect("a map")
        .remove("redirect_uri");
    let answer = exchange(&sandbox, &token_post(&sandbox, &without_uri));
    assert_refused(&answer, 400, "invalid_request");
    redeem_with(&sandbox, "code", "refresh_token", "x");
    let twice = format!(
        "{},\"code_verifier\":\"a\",\"code_verifier\":\"b\"}}",
        fields("code").to_string().trim_end_matches('}')
    );
    let post = format!(
        "POST /oauth2/token HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{twice}",
        sandbox.address(),
        twice.len(),
    );
    assert_refused(&exchange(&sandbox, post.as_bytes()), 400, "invalid_request");
    let unknown = json!({ "grant_type": "client_credentials" });
    let answer = exchange(&sandbox, &token_post(&sandbox, &unknown));
    assert_refused(&answer, 400, "unsupported_grant_type");
    let expected = [
        "POST /oauth2/token: the parameter redirect_uri is missing",
        "POST /oauth2/token: the unknown parameter refresh_token",
        "POST /oauth2/token: the parameter code_verifier is there more than once",
        "POST /oauth2/token: a grant_type that is neither refresh_token nor authorization_code",
    ];
    let counts = sandbox.counts();
    assert_eq!(counts.problems, expected);
    assert_eq!((counts.code_posts, counts.refused_code_exchanges), (3, 3));
    assert_eq!((counts.token_posts, counts.refused_token_posts), (1, 1));
}

#[test]
fn revocations_that_end_a_grant_are_told_apart() {
    let sandbox = sandbox();
    let tokens = redeem(&sandbox, &user_code(&sandbox)).json();
    let revoke = |token: &str, secret: &str| {
        let fields = [
            ("client_id", CLIENT_ID),
            ("client_secret", secret),
            ("token", token),
        ];
        exchange(
            &sandbox,
            &form_post(&sandbox, "/oauth2/token/revoke", &fields),
        )
        .status
    };
    let access_token = text(&tokens, "access_token");
    assert_eq!(revoke("nonsense", CLIENT_SECRET), 200);
    assert_eq!(revoke(access_token, "wrong"), 401);
    assert_eq!(sandbox.counts().effective_revocations, 0);
    assert_eq!(revoke(access_token, CLIENT_SECRET), 200);
    assert_eq!(revoke(text(&tokens, "refresh_token"), CLIENT_SECRET), 200);
    let counts = sandbox.counts();
    assert_eq!((counts.revocations, counts.effective_revocations), (4, 1));
    let post = refresh_post(&sandbox, text(&tokens, "refresh_token"));
    assert_eq!(exchange(&sandbox, &post).status, 400);
}
