use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri};

use super::*;

mod spellings;

/// Rules as they stand in the configuration; without `allow` everything is permitted.
fn policy(read_only: bool, allow: Option<&[&str]>, deny: &[&str]) -> Policy {
    let parse = |rules: &[&str]| {
        let rules = rules.iter().map(|rule| Rule::parse(rule).expect("a rule"));
        rules.collect::<Vec<_>>()
    };
    let rules = Rules {
        read_only,
        allow: allow.map(parse),
        deny: parse(deny),
    };
    Policy::new("guard", &rules).expect("there are rules")
}

fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Option<Parts> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(method.as_bytes()).ok()?;
    head.uri = target.parse::<Uri>().ok()?;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        head.headers
            .append(name, HeaderValue::from_str(value).expect("a value"));
    }
    Some(head)
}

/// What is said of a request that is a method and a target; nothing where it is permitted.
fn refusal(policy: &Policy, request: &str) -> Option<String> {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    let head = head(method, target, &[]).expect("a head");
    let refused = check(&head, [policy].into_iter()).err()?;
    assert_eq!(
        (refused.status.as_u16(), refused.code),
        (403, "policyDenied")
    );
    Some(refused.message)
}

#[track_caller]
fn is_permitted(policy: &Policy, requests: &[&str]) {
    for request in requests {
        assert_eq!(refusal(policy, request), None, "{request}");
    }
}

#[track_caller]
fn is_refused_with(policy: &Policy, reason: &str, requests: &[&str]) {
    for request in requests {
        let refused = refusal(policy, request).unwrap_or_else(|| panic!("permitted: {request}"));
        assert!(refused.contains(reason), "{request}: {refused}");
    }
}

#[test]
fn s05_what_is_allowed_is_exact_and_all_else_is_refused() {
    let policy = policy(
        false,
        Some(&[
            "GET /documents/**",
            "POST /documents/*/trash",
            "* /users/me/profile",
            "DELETE /v1/folders/*",
            "PUT /a b/é",
        ]),
        &[],
    );
    is_permitted(
        &policy,
        &[
            "GET /documents",
            "GET /documents/",
            "GET /documents/1",
            "GET /documents/1/contents?x=/../..",
            "HEAD /documents/1",
            "GET /v1/documents/1",
            "GET /v22/documents/1",
            "GET /%64ocuments/1",
            "GET http://127.0.0.1:8118/documents/1",
            "POST /documents/1/trash",
            "POST /documents/1/trash/",
            "PATCH /users/me/profile",
            "DELETE /v1/folders/1",
            "PUT /a%20b/%C3%A9",
            "PUT /a%20b/é",
        ],
    );
    is_refused_with(
        &policy,
        "no rule in allow under [guard]",
        &[
            "GET /",
            "GET /users",
            "GET /documentsx",
            "GET /Documents/1",
            "get /documents/1",
            "POST /documents/1",
            "HEAD /documentsx/1",
            "POST /documents/trash",
            "POST /documents/1/2/trash",
            "POST /documents/1/trash/x",
            "GET /V1/documents/1",
            "GET /v1/v1/documents/1",
            "GET /v/documents/1",
            "DELETE /folders/1",
            "DELETE /v2/folders/1",
            "OPTIONS *",
            "PUT /a+b/%C3%A9",
        ],
    );
}

#[test]
fn s05_what_is_denied_is_denied_in_every_spelling_whatever_is_allowed() {
    let denied = policy(
        false,
        Some(&["* /**"]),
        &[
            "DELETE /**",
            "* /documents/*/trash",
            "GET /v1/Users/**",
            "* /kelvin",
        ],
    );
    is_permitted(
        &denied,
        &[
            "GET /documents/1",
            "POST /documents/1/trash/x",
            "POST /documents/trash",
            "POST /v1/users",
            "GET /v2/users",
            "OPTIONS *",
        ],
    );
    is_refused_with(
        &denied,
        "forbids this request",
        &[
            "DELETE /",
            "DELETE /documents/1",
            "delete /documents/1",
            "Delete /documents/1",
            "POST /documents/1/trash",
            "POST /documents/1/trash/",
            "POST /documents/1/TRASH",
            "POST /Documents/1/tr%61sh",
            "POST /v1/documents/1/trash",
            "POST /V1/documents/1/trash",
            "POST /v/documents/1/trash",
            "POST /v1/v2/documents/1/trash",
            "GET /v1/users/1",
            "GET /users/1",
            "HEAD /users",
            "head /users",
            "GET /\u{212a}elvin",
            "GET /%E2%84%AAelvin",
            "GET http://127.0.0.1:8118/documents/1/trash",
        ],
    );
    let all = policy(false, None, &["* /**"]);
    is_refused_with(&all, "\"* /**\"", &["GET /", "OPTIONS *", "GET http://h"]);
    let root = policy(false, None, &["* /"]);
    is_refused_with(&root, "\"* /\"", &["GET /", "OPTIONS *", "GET http://h"]);
    is_permitted(&root, &["GET /users"]);
}

#[test]
fn s05_who_may_not_get_may_not_look_either_and_no_other_rule_is_about_that() {
    let get = policy(false, None, &["GET /secret"]);
    is_refused_with(
        &get,
        "forbids",
        &["GET /secret", "HEAD /secret", "head /secret"],
    );
    is_permitted(&get, &["POST /secret", "HEAD /users"]);
    let post = policy(false, None, &["POST /secret"]);
    is_refused_with(&post, "forbids", &["POST /secret", "post /secret"]);
    is_permitted(&post, &["GET /secret", "HEAD /secret"]);
}

#[test]
fn s05_letters_of_all_alphabets_are_denied_in_any_case() {
    let policy = policy(false, None, &["* /café", "* /key"]);
    // The last begins with the sign for kelvin.
    is_refused_with(
        &policy,
        "forbids",
        &["GET /caf%C3%A9", "GET /CAF%C3%89", "GET /%E2%84%AAEY"],
    );
    is_permitted(
        &policy,
        &["GET /caf%C3%A8", "GET /cafe", "GET /%E2%84%ABEY"],
    );
}

#[test]
fn s05_read_only_permits_what_changes_nothing() {
    let policy = policy(true, None, &[]);
    is_permitted(
        &policy,
        &[
            "GET /documents/1",
            "HEAD /users",
            "POST /documents/search",
            "POST /v1/documents/search/",
            "POST /accounts/me/documents/search?pageSize=2",
            "POST /folders/search",
            "POST /users/searchByEmail",
            "POST /auditLogs/query",
        ],
    );
    is_refused_with(
        &policy,
        "read_only = true",
        &[
            "POST /documents",
            "POST /documents/search/x",
            "POST /documents/Search",
            "POST /describeLink",
            "POST /documents/1/search",
            "PUT /documents/search",
            "PATCH /documents/1",
            "DELETE /documents/1",
            "OPTIONS /users",
            "OPTIONS *",
            "TRACE /users",
            "get /documents/1",
            "PURGE /documents/1",
        ],
    );
}

#[test]
fn s05_what_can_be_read_in_two_ways_is_refused_where_rules_are() {
    let policy = policy(false, None, &["DELETE /nothing"]);
    for (what, paths) in [
        (
            "a segment of dots",
            &[
                "/documents/../users",
                "/./users",
                "/users/..",
                "/users/%2e%2e/x",
                "/users/.%2E/x",
                "/%2e",
            ][..],
        ),
        (
            "an empty segment",
            &["//users", "/users//x", "/users//", "//", "http://h//users"],
        ),
        (
            "an escaped /",
            &["/documents%2f1", "/documents/1%2F..%2fusers"],
        ),
        ("a \\", &["/documents\\1", "/documents%5c..%5cusers"]),
        (
            "a ;",
            &[
                "/documents;a=b/1",
                "/documents%3Ba/1",
                "/documents/..;/users",
                "/;",
            ],
        ),
        (
            "a % that is still there",
            &["/documents/%252e%252e/users", "/%25", "/documents%252f1"],
        ),
        (
            "a % without two hexadecimal digits",
            &["/%", "/%4", "/%zz", "/documents/%2", "/%%34", "/%é"],
        ),
        (
            "bytes that are not UTF-8",
            &[
                "/%ff",
                "/%c0%af",
                "/documents/%c0%ae%c0%ae/users",
                "/%ed%a0%80",
            ],
        ),
        (
            "a control character",
            &["/users%00", "/users%0d%0a", "/users/%7f", "/%c2%85"],
        ),
        ("an escaped ? or #", &["/users%3fx", "/users%23"]),
        (
            "begins or ends with a space",
            &["/users%20", "/%20users", "/%20", "/users%c2%a0"],
        ),
    ] {
        for path in paths {
            is_refused_with(&policy, what, &[&format!("GET {path}")]);
        }
    }
    is_permitted(
        &policy,
        &[
            "GET /...",
            "GET /.a",
            "GET /a..b/",
            "GET /a%20b",
            "GET /a+b",
            "GET /~!$&'()*,=:@-._",
        ],
    );
}

#[test]
fn s05_without_rules_paths_are_as_they_are() {
    for target in ["/documents/../users", "//x", "/%", "/%2f;\\"] {
        let head = head("GET", target, &[("x-http-method", "DELETE")]).expect("a head");
        assert_eq!(check(&head, [].into_iter()), Ok(()), "{target}");
    }
    assert!(Policy::new("guard", &Rules::default()).is_none());
    let nothing = policy(false, Some(&[]), &[]);
    is_refused_with(&nothing, "no rule in allow", &["GET /", "GET /users"]);
}

#[test]
fn s05_no_field_changes_the_method_or_the_path_behind_the_rules() {
    let policy = policy(true, None, &[]);
    let with = |name: &str| {
        let head = head("GET", "/users", &[("accept", "*/*"), (name, "GET")]).expect("a head");
        check(&head, [&policy].into_iter())
    };
    for name in REWRITING {
        for name in [
            name.to_owned(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
        ] {
            let refused = with(&name).expect_err(&name);
            assert!(refused.message.contains("behind the rules"), "{name}");
        }
    }
    for (target, is_refused) in [
        ("/users?a=b&_method=DELETE", true),
        ("/users?%5FMethod=", true),
        ("/users?a=_method", false),
        ("/users?method=DELETE", false),
    ] {
        let head = head("GET", target, &[]).expect("a head");
        assert_eq!(
            check(&head, [&policy].into_iter()).is_err(),
            is_refused,
            "{target}"
        );
    }
    assert_eq!(with("x-http-methods"), Ok(()));
    assert_eq!(with("x-method"), Ok(()));
    // Nothing else is taken for a hyphen, and no underscore for anything else.
    assert_eq!(with("x.http.method"), Ok(()));
    assert_eq!(with("x-_ttp-method"), Ok(()));
}

#[test]
fn s05_a_websocket_is_more_than_reading() {
    let fields = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "foo, WebSocket"),
    ];
    let websocket = head("GET", "/users", &fields).expect("a head");
    let read_only = policy(true, None, &[]);
    let refused = check(&websocket, [&read_only].into_iter()).expect_err("it is refused");
    assert!(refused.message.contains("WebSocket"), "{refused:?}");
    let allowed = policy(false, Some(&["GET /users"]), &[]);
    assert_eq!(check(&websocket, [&allowed].into_iter()), Ok(()));
    let fields = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
    ];
    let other = head("GET", "/users", &fields).expect("a head");
    assert_eq!(check(&other, [&read_only].into_iter()), Ok(()));
}

#[test]
fn s05_all_policies_must_permit_and_each_names_its_place_and_the_line() {
    let guard = policy(false, None, &["DELETE /**"]);
    let allow = [Rule::parse("* /documents/**").expect("a rule")];
    let rules = Rules {
        allow: Some(allow.to_vec()),
        ..Rules::default()
    };
    let client = Policy::new("clients.reports", &rules).expect("there are rules");
    let both = |method: &str, target: &str| {
        let head = head(method, target, &[]).expect("a head");
        let refused = check(&head, [&guard, &client].into_iter()).err();
        refused.map(|refused| refused.message)
    };
    assert_eq!(both("GET", "/documents/1"), None);
    let message = both("DELETE", "/documents/1").expect("refused");
    assert!(
        message.contains("\"DELETE /**\" in deny under [guard]"),
        "{message}"
    );
    let message = both("POST", "/v1/users").expect("refused");
    assert!(message.contains("under [clients.reports]"), "{message}");
    assert!(message.ends_with("add there \"POST /users\""), "{message}");
    // What is added permits it, or is not suggested.
    let long = format!("/users/{}", "x".repeat(LONGEST_SUGGESTION));
    for (method, target) in [
        ("GET", "/*"),
        ("GET", "/users/*"),
        ("get", "/users"),
        ("GET", &long),
    ] {
        let message = both(method, target).expect("refused");
        assert!(message.ends_with("a space and its path"), "{message}");
        assert!(message.len() < 2 * LONGEST_SUGGESTION, "{message}");
    }
}
