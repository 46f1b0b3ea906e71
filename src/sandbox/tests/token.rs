//! The token endpoint.

use std::io::Read;

use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::*;
use crate::sandbox::{ExpiresIn, Reuse, ScopesShape, TokenFailure};

#[test]
fn a_refresh_replaces_the_pair() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    assert_eq!(
        get(&sandbox, "/v1/users/me/profile", &pair.access_token).status,
        200
    );

    let answer = exchange(&sandbox, &refresh_post(&sandbox, &pair.refresh_token));
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("x-lucid-flow-id")
            .is_some_and(|id| id.len() == 16)
    );
    let new = answer.json();
    assert_eq!(
        (&new["expires_in"], &new["token_type"]),
        (&json!(3600), &json!("bearer"))
    );
    assert_eq!(new["scopes"], json!(Behaviour::default().scopes));
    assert!(
        new["expires"]
            .as_i64()
            .is_some_and(|expires| expires > 1_700_000_000_000)
    );

    assert_eq!(
        get(&sandbox, "/v1/users/me/profile", &pair.access_token).status,
        401
    );
    let token = new["access_token"].as_str().expect("a token");
    assert_eq!(get(&sandbox, "/v1/users/me/profile", token).status, 200);

    let refused = exchange(&sandbox, &refresh_post(&sandbox, &pair.refresh_token));
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("connection"), Some("close"));
    let expected = json!({
        "error": "invalid_grant", "error_uri": "",
        "error_description": "Invalid client id, client secret, or refresh token",
    });
    assert_eq!(refused.json(), expected);

    let counts = sandbox.counts();
    assert_eq!(
        (
            counts.token_posts,
            counts.rotations,
            counts.refused_token_posts
        ),
        (2, 1, 1)
    );
    assert_eq!(counts.posts_by_refresh_token[&pair.refresh_token], 2);
    assert_eq!((counts.reused_refresh_tokens, counts.dead_tokens), (1, 1));
    assert_eq!(counts.api_by_generation, [(1, 2), (2, 1)].into());
    assert_eq!(counts.api_by_status, [(200, 2), (401, 1)].into());
    assert_eq!((counts.token_connections, counts.connections), (2, 5));
    no_problems(&sandbox);
}

#[test]
fn a_held_token_post_counts_as_arrived_and_goes_on_when_let() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    sandbox.change(|behaviour| behaviour.hold_token_endpoint = true);
    let mut stream = open(&sandbox, &refresh_post(&sandbox, &pair.refresh_token));
    let counts = sandbox.wait_until(LIMIT, |counts| counts.token_posts == 1);
    assert_eq!(counts.rotations, 0);
    sandbox.change(|behaviour| behaviour.hold_token_endpoint = false);
    assert_eq!(read(&mut stream).expect("an answer").status, 200);
}

#[test]
fn the_script_fails_each_post_in_its_own_way() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    sandbox.change(|behaviour| {
        behaviour.token_failures = [
            TokenFailure::Status {
                code: StatusCode::SERVICE_UNAVAILABLE,
                retry_after: Some(HeaderValue::from_static("7")),
                body: String::from("{}"),
            },
            TokenFailure::Html(StatusCode::OK),
            TokenFailure::NoAccessToken,
            TokenFailure::InvalidGrant,
            TokenFailure::Redirect,
            TokenFailure::CutBefore,
            TokenFailure::HalfBodyAfter,
        ]
        .into();
    });
    let post = refresh_post(&sandbox, &pair.refresh_token);
    let unavailable = exchange(&sandbox, &post);
    assert_eq!(
        (unavailable.status, unavailable.header("retry-after")),
        (503, Some("7"))
    );
    assert_eq!(
        exchange(&sandbox, &post).header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(exchange(&sandbox, &post).json().get("access_token"), None);
    assert_eq!(exchange(&sandbox, &post).json()["error"], "invalid_grant");
    assert_eq!(exchange(&sandbox, &post).status, 307);
    assert!(
        read(&mut open(&sandbox, &post)).is_none(),
        "cut without an answer"
    );
    assert_eq!(sandbox.counts().rotations, 0);

    let mut stream = open(&sandbox, &post);
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("a clean end of the connection");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .expect("a length");
    assert_eq!(body.len(), length.parse::<usize>().expect("a number") / 2);
    assert_eq!(sandbox.counts().rotations, 1);

    sandbox.change(|behaviour| behaviour.reuse = Reuse::RevokeGrant);
    assert_eq!(exchange(&sandbox, &post).status, 400);
    assert_eq!(sandbox.counts().reused_refresh_tokens, 1);
}

#[test]
fn a_post_that_hangs_after_its_effect_is_let_go_by_a_change() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    sandbox.change(|behaviour| behaviour.token_failures.push_back(TokenFailure::HangAfter));
    let mut stream = open(&sandbox, &refresh_post(&sandbox, &pair.refresh_token));
    sandbox.wait_until(LIMIT, |counts| counts.rotations == 1);
    sandbox.change(|behaviour| behaviour.release_hung = true);
    assert_eq!(read(&mut stream).expect("an answer").status, 200);
}

#[test]
fn malformed_token_posts_are_problems() {
    let sandbox = sandbox();
    let answer = exchange(
        &sandbox,
        &token_post(&sandbox, &json!({ "grant_type": "refresh_token" })),
    );
    assert_eq!(answer.json()["error"], "invalid_request");
    let post = format!(
        "POST /oauth2/token?a=b HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic eA==\r\nAccept: text/html\r\n\
         Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}",
        sandbox.address()
    );
    assert_eq!(exchange(&sandbox, post.as_bytes()).status, 400);
    let expected = [
        "POST /oauth2/token: the parameter refresh_token is missing",
        "POST /oauth2/token: query parameters",
        "POST /oauth2/token: the header authorization",
        "POST /oauth2/token: accept does not permit JSON",
        "POST /oauth2/token: the content type is neither JSON nor a form",
    ];
    assert_eq!(sandbox.counts().problems, expected);
}

#[test]
fn introspection_and_revocation_take_forms() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    let post = |path: &str, secret: &str| {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("client_id", CLIENT_ID)
            .append_pair("client_secret", secret);
        let body = body.append_pair("token", &pair.refresh_token).finish();
        let post = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            sandbox.address(),
            body.len(),
        );
        exchange(&sandbox, post.as_bytes())
    };
    assert_eq!(post("/oauth2/token/introspect", "wrong").status, 401);
    assert_eq!(
        post("/oauth2/token/introspect", CLIENT_SECRET).json()["active"],
        true
    );
    assert_eq!(post("/v1/oauth2/token/revoke", CLIENT_SECRET).status, 200);
    assert_eq!(
        post("/oauth2/token/introspect", CLIENT_SECRET).json(),
        json!({ "active": false })
    );
    assert_eq!(
        get(&sandbox, "/v1/users/me/profile", &pair.access_token).status,
        401
    );
    let counts = sandbox.counts();
    assert_eq!((counts.introspections, counts.revocations), (3, 1));
    no_problems(&sandbox);
}

#[test]
fn the_answer_takes_the_shape_asked_for() {
    let sandbox = sandbox();
    let pair = sandbox.approve();
    sandbox.change(|behaviour| {
        let shape = &mut behaviour.token_answer;
        shape.scopes = ScopesShape::Text;
        shape.refresh_token = false;
        shape.expires_in = ExpiresIn::Other(json!("soon"));
        shape.token_type = Some(String::from("BEARER"));
        shape.extra.insert(String::from("id_token"), json!(null));
        behaviour.token_length = 4000;
    });
    let post = refresh_post(&sandbox, &pair.refresh_token);
    let answer = exchange(&sandbox, &post).json();
    assert_eq!(answer["scope"], Behaviour::default().scopes.join(" "));
    assert_eq!(
        (&answer["expires_in"], &answer["token_type"]),
        (&json!("soon"), &json!("BEARER"))
    );
    assert_eq!(answer["access_token"].as_str().map(str::len), Some(4000));
    assert!(answer.get("id_token").is_some());
    for absent in ["scopes", "refresh_token", "expires"] {
        assert_eq!(answer.get(absent), None, "{absent}");
    }
    assert_eq!(
        exchange(&sandbox, &post).status,
        200,
        "the refresh token was not spent"
    );
}

#[test]
fn wrong_client_credentials_have_the_status_asked_for() {
    let sandbox = sandbox();
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": sandbox.approve().refresh_token,
        "client_id": CLIENT_ID, "client_secret": "wrong",
    });
    let post = token_post(&sandbox, &body);
    for (status, error) in [
        (StatusCode::BAD_REQUEST, "invalid_grant"),
        (StatusCode::UNAUTHORIZED, "invalid_client"),
        (StatusCode::FORBIDDEN, "invalid_client"),
    ] {
        sandbox.change(|behaviour| behaviour.bad_client_status = status);
        let answer = exchange(&sandbox, &post);
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (status.as_u16(), &json!(error))
        );
    }
    assert_eq!(sandbox.counts().refused_token_posts, 3);
}
