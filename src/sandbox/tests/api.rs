//! The resources of the REST API, and control.

use http::header::SET_COOKIE;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::*;
use crate::sandbox::{EMBED_TOKEN, LinkOrigin};

#[test]
fn users_come_in_pages() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let mut path = String::from("/v1/users?pageSize=2");
    let mut sizes = Vec::new();
    loop {
        let page = get(&sandbox, &path, &token);
        sizes.push(page.json().as_array().expect("a bare array").len());
        let Some(link) = page.header("link") else {
            break;
        };
        let url = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""))
            .expect("a link");
        path = format!(
            "/v1{}",
            url.strip_prefix(&sandbox.origin()).expect("its own origin")
        );
    }
    assert_eq!(sizes, [2, 2, 2, 1]);
    assert_eq!(get(&sandbox, "/v1/users?pageSize=0", &token).status, 400);
    assert_eq!(get(&sandbox, "/v1/users?pageToken=x", &token).status, 400);

    sandbox.change(|behaviour| {
        behaviour.public_origin = Some(String::from("https://api.lucid.test"));
        behaviour.link_with_version = true;
    });
    let link = get(&sandbox, "/v1/users?pageSize=6", &token)
        .header("link")
        .expect("a link")
        .to_owned();
    assert!(
        link.starts_with("<https://api.lucid.test/v1/users?pageSize=6&pageToken="),
        "{link}"
    );
    no_problems(&sandbox);
}

#[test]
fn documents_are_created_found_exported_and_trashed() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let post = |path: &str, content_type: &str, body: &str| {
        let more = format!("Content-Type: {content_type}\r\n");
        exchange(
            &sandbox,
            &request(
                &sandbox,
                &format!("POST {path}"),
                &token,
                &more,
                body.as_bytes(),
            ),
        )
    };
    let created = post(
        "/v1/documents",
        "application/json",
        r#"{"title":"Mine","product":"lucidchart"}"#,
    );
    assert_eq!(created.status, 201);
    let id = created.json()["documentId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let found = post(
        "/v1/documents/search",
        "application/json",
        r#"{"keywords":"mine"}"#,
    )
    .json();
    assert_eq!(found[0]["documentId"], id.as_str());

    let form = "--b\r\nContent-Disposition: form-data; name=\"product\"\r\n\r\nlucidspark\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.lucid\"\r\n\
        Content-Type: x-application/vnd.lucid.standardImport\r\n\r\nzip\r\n--b--\r\n";
    let imported = post(
        "/v1/documents/import",
        "multipart/form-data; boundary=b",
        form,
    );
    assert_eq!(
        (imported.status, imported.json()["title"].as_str()),
        (201, Some("a.lucid"))
    );
    assert_eq!(
        imported.header("x-sandbox-body-length"),
        Some(form.len().to_string().as_str())
    );

    sandbox.change(|behaviour| behaviour.image_bytes = 200_000);
    let line = format!("GET /v1/documents/{id}?page=2");
    let png = exchange(
        &sandbox,
        &request(
            &sandbox,
            &line,
            &token,
            "Accept: image/png;dpi=256\r\n",
            b"",
        ),
    );
    assert_eq!(png.header("content-type"), Some("image/png"));
    assert_eq!((&png.body[..4], png.body.len()), (&b"\x89PNG"[..], 200_000));
    assert_eq!(
        exchange(
            &sandbox,
            &request(&sandbox, &line, &token, "Accept: image/gif\r\n", b"")
        )
        .status,
        406
    );
    assert_eq!(
        get(&sandbox, "/v1/documents/0", &token).json()["code"],
        "accessForbidden"
    );

    let line = format!("POST /v1/documents/{id}/trash");
    assert_eq!(
        exchange(&sandbox, &request(&sandbox, &line, &token, "", b"")).status,
        204
    );
    no_problems(&sandbox);
    assert_eq!(post("/v1/documents", "application/json", "{").status, 400);
    assert_eq!(
        post(
            "/v1/documents/import",
            "multipart/form-data; boundary=b",
            "--x"
        )
        .status,
        400
    );
    assert_eq!(sandbox.counts().problems.len(), 2);
}

#[test]
fn the_api_answers_errors_in_lucids_shape() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    let unversioned = get(&sandbox, "/users", &token);
    assert_eq!(
        (unversioned.status, unversioned.json()["code"].as_str()),
        (400, Some("badRequest"))
    );
    assert_eq!(
        unversioned.json()["requestId"].as_str(),
        unversioned.header("x-lucid-flow-id")
    );
    assert_eq!(
        get(&sandbox, "/v1/nothing", &token).json()["code"],
        "notFound"
    );
    assert_eq!(
        get(&sandbox, "/v1/documents/search", &token).status,
        403,
        "an id like any other"
    );
    let wrong_method = exchange(
        &sandbox,
        &request(&sandbox, "DELETE /v1/users", &token, "", b""),
    );
    assert_eq!(wrong_method.json()["code"], "unknownOperation");
    assert_eq!(
        get(&sandbox, "/v1/users", "nonsense").json()["code"],
        "unauthorized"
    );
    assert_eq!(
        get(&sandbox, "/v1/embeds?token=nonsense", &token).status,
        401
    );
    assert_eq!(
        get(&sandbox, &format!("/v1/embeds?token={EMBED_TOKEN}"), &token).status,
        200
    );

    sandbox.change(|behaviour| behaviour.throttled_under = Some(String::from("/users")));
    assert_eq!(
        get(&sandbox, "/v1/users", &token).header("retry-after"),
        Some("1")
    );
    sandbox.change(|behaviour| behaviour.forbidden_under = Some(String::from("/users")));
    assert_eq!(get(&sandbox, "/v1/users", &token).status, 403);
    sandbox.change(|behaviour| behaviour.unauthorized_under = Some(String::from("/users/me")));
    assert_eq!(get(&sandbox, "/v1/users/me/profile", &token).status, 401);
    no_problems(&sandbox);
}

#[test]
fn a_grant_without_the_scope_is_forbidden() {
    let sandbox = sandbox();
    sandbox.change(|behaviour| behaviour.scopes = vec![String::from("user.profile")]);
    let token = sandbox.approve().access_token;
    assert_eq!(get(&sandbox, "/v1/users/me/profile", &token).status, 200);
    assert_eq!(get(&sandbox, "/v1/users", &token).status, 403);
}

#[test]
fn control_needs_no_token() {
    let sandbox = sandbox();
    let post = |path: &str| {
        let post = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            sandbox.address()
        );
        exchange(&sandbox, post.as_bytes())
    };
    let grant = post("/sandbox/grants");
    let token = grant.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(get(&sandbox, "/v1/users", &token).status, 200);
    assert_eq!(post("/sandbox/expire").status, 204);
    assert_eq!(get(&sandbox, "/v1/users", &token).status, 401);
    let counts = get(&sandbox, "/sandbox/counts", "").json();
    assert_eq!(
        (&counts["api_requests"], &counts["api_by_status"]["401"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn a_link_may_echo_the_host() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    sandbox.change(|behaviour| {
        behaviour.public_origin = Some(String::from("http://lucid.test"));
        behaviour.link_origin = LinkOrigin::EchoHost;
    });
    let page = get(&sandbox, "/v1/users?pageSize=6", &token);
    let start = format!("<{}/users?pageSize=6&pageToken=", sandbox.origin());
    assert!(
        page.header("link")
            .is_some_and(|link| link.starts_with(&start)),
        "{page:?}"
    );
}

#[test]
fn the_echo_shows_the_request_as_it_arrived_and_answers_what_it_is_told_to() {
    let sandbox = sandbox();
    let token = sandbox.approve().access_token;
    sandbox.change(|behaviour| {
        behaviour.echo_status = StatusCode::ACCEPTED;
        for cookie in ["a=1", "b=2"] {
            behaviour
                .echo_headers
                .push((SET_COOKIE, HeaderValue::from_static(cookie)));
        }
    });
    let mut bytes = request(
        &sandbox,
        "PURGE /sandbox/echo/%2e//?",
        &token,
        "X-B: 1\r\nX-A:\r\nX-B: 2\r\n",
        b"",
    );
    let end = bytes.len() - 2;
    bytes.splice(end..end, *b"X-Bytes: \xe9\r\n");
    let answer = exchange(&sandbox, &bytes);
    assert_eq!(answer.status, 202);
    assert_eq!(answer.head.matches("set-cookie: ").count(), 2);
    let echo = answer.json();
    assert_eq!(
        (&echo["method"], &echo["target"]),
        (&json!("PURGE"), &json!("/sandbox/echo/%2e//?"))
    );
    for header in [
        ["x-b", "1"],
        ["x-b", "2"],
        ["x-a", ""],
        ["x-bytes", "\u{e9}"],
    ] {
        assert!(
            echo["headers"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(header))),
            "{header:?}: {echo}"
        );
    }
    assert_eq!(echo["body_length"], 0);
    no_problems(&sandbox);
}
