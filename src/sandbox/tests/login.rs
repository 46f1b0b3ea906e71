//! The pages of a login.

use super::*;

const URI: &str = "http://localhost:7777/callback";
const SCOPE: &str = "offline_access user.profile";
/// RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A correct request with some parameters added or, where there is one of that name, replaced.
fn asking<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut query = vec![
        ("client_id", CLIENT_ID),
        ("redirect_uri", URI),
        ("scope", SCOPE),
        ("state", "s 1&"),
    ];
    for change in changes {
        match query.iter_mut().find(|(name, _)| *name == change.0) {
            Some(pair) => *pair = *change,
            None => query.push(*change),
        }
    }
    query
}

/// The names and values of the page's hidden fields, as a browser reads them.
fn hidden_fields(page: &str) -> Vec<(String, String)> {
    let unescape = |text: &str| {
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    };
    page.split("<input type=\"hidden\" name=\"")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once("\" value=\"").expect("a value");
            let (value, _) = rest.split_once("\">").expect("an end");
            (unescape(name), unescape(value))
        })
        .collect()
}

fn pairs(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn get<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = fields.iter().filter(|(found, _)| found == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} twice");
    value
}

#[test]
fn the_page_asks_and_its_buttons_redirect() {
    let sandbox = sandbox();
    let query = asking(&[
        ("response_type", "code"),
        ("prompt", "consent"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    for path in ["/oauth2/authorize", "/oauth2/authorizeUser"] {
        let answer = visit(&sandbox, path, &query);
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let page = answer.text();
        for part in [
            CLIENT_ID,
            "Ada Demo",
            "user 4711",
            "<li><code>offline_access</code></li>",
            "<li><code>user.profile</code></li>",
            "<button id=\"approve\" name=\"decision\" value=\"approve\">",
            "<button id=\"deny\" name=\"decision\" value=\"deny\">",
            &format!("<form method=\"post\" action=\"{path}\">"),
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let mut fields = hidden_fields(&page);
        assert_eq!(pairs(&fields), query);

        fields.push((String::from("decision"), String::from("approve")));
        let approved = exchange(&sandbox, &form_post(&sandbox, path, &pairs(&fields)));
        let (place, back) = approved.redirect();
        assert_eq!((place.as_str(), back.len()), (URI, 2));
        assert!(get(&back, "code").is_some_and(|code| code.len() > 30));
        assert_eq!(get(&back, "state"), Some("s 1&"));

        fields.pop();
        fields.push((String::from("decision"), String::from("deny")));
        let denied = exchange(&sandbox, &form_post(&sandbox, path, &pairs(&fields)));
        let (place, back) = denied.redirect();
        assert_eq!(place, URI);
        assert_eq!(
            pairs(&back),
            [("error", "access_denied"), ("state", "s 1&")]
        );
    }
    let counts = sandbox.counts();
    assert_eq!(
        (counts.authorize_pages, counts.approvals, counts.denials),
        (2, 2, 2)
    );
    assert_eq!((counts.api_requests, counts.token_posts), (0, 0));
    no_problems(&sandbox);
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let sandbox = sandbox();
    let evil = "\"><script>alert('1')</script>&amp;";
    let uri = format!("{URI}?x={evil}");
    let query = asking(&[("state", evil), ("redirect_uri", &uri)]);
    let page = visit(&sandbox, "/oauth2/authorize", &query).text();
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(pairs(&hidden_fields(&page)), query, "nothing is lost");

    for query in [
        asking(&[("client_id", evil)]),
        asking(&[("redirect_uri", evil)]),
    ] {
        let error = visit(&sandbox, "/oauth2/authorize", &query);
        assert_eq!(error.status, 400);
        let page = error.text();
        assert!(!page.contains("<script"), "{page}");
        assert!(
            page.contains("&lt;script&gt;"),
            "the value is shown: {page}"
        );
    }
    let path = format!("/oauth2/clients/{CLIENT_ID}/redirect");
    for query in [
        vec![("code", evil)],
        vec![("error", evil), ("error_description", evil)],
    ] {
        let page = visit(&sandbox, &path, &query).text();
        assert!(!page.contains("<script"), "{page}");
        let shown = "<code id=\"code\">&quot;&gt;&lt;script&gt;";
        assert!(page.contains(shown), "{page}");
    }
}

#[test]
fn a_browser_may_run_nothing_and_submit_only_where_the_answer_goes() {
    let sandbox = sandbox();
    for (uri, source) in [
        ("http://localhost:7777/callback", "http://localhost:7777"),
        ("http://127.0.0.1:7777/", "http://127.0.0.1:7777"),
        // A policy has no name for an IPv6 address.
        ("http://[::1]:7777/", "http:"),
    ] {
        let answer = visit(
            &sandbox,
            "/oauth2/authorize",
            &asking(&[("redirect_uri", uri)]),
        );
        let policy = answer.header("content-security-policy").expect("a policy");
        let nonce = policy
            .split_once("style-src 'nonce-")
            .and_then(|(_, rest)| rest.split_once('\''))
            .map(|(nonce, _)| nonce)
            .expect("a nonce");
        let expected = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self' {source}; \
             base-uri 'none'; frame-ancestors 'none'"
        );
        assert_eq!(policy, expected);
        let style = format!("<style nonce=\"{nonce}\">");
        assert!(answer.text().contains(&style), "{policy}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn nobody_is_redirected_to_a_place_that_is_not_registered() {
    let sandbox = sandbox();
    let twice = |name| {
        let mut query = asking(&[]);
        query.push((name, if name == "client_id" { CLIENT_ID } else { URI }));
        query
    };
    let without = |name| {
        let mut query = asking(&[]);
        query.retain(|(found, _)| *found != name);
        query
    };
    for query in [
        asking(&[("client_id", "cid-other")]),
        asking(&[("client_id", "")]),
        without("client_id"),
        twice("client_id"),
        asking(&[("redirect_uri", "https://evil.test/")]),
        asking(&[("redirect_uri", "http://localhost:7777@evil.test/")]),
        asking(&[("redirect_uri", "http://localhost/")]),
        without("redirect_uri"),
        twice("redirect_uri"),
        // Other errors do not change that.
        asking(&[("redirect_uri", "https://evil.test/"), ("scope", "")]),
        asking(&[("redirect_uri", "https://evil.test/"), ("prompt", "none")]),
    ] {
        let mut decided = query.clone();
        decided.push(("decision", "deny"));
        for answer in [
            visit(&sandbox, "/oauth2/authorize", &query),
            exchange(
                &sandbox,
                &form_post(&sandbox, "/oauth2/authorize", &decided),
            ),
        ] {
            assert_eq!((answer.status, answer.header("location")), (400, None));
            assert!(answer.text().contains("<p id=\"error\">"));
        }
    }
    let counts = sandbox.counts();
    assert_eq!(
        (counts.authorize_pages, counts.approvals, counts.denials),
        (0, 0, 0)
    );
    // The positive control.
    assert_eq!(
        visit(&sandbox, "/oauth2/authorize", &asking(&[])).status,
        200
    );
}

#[test]
fn a_list_of_redirect_uris_is_exact() {
    let sandbox = sandbox();
    let listed = "https://app.test/cb?a=b%20c";
    sandbox.change(|behaviour| behaviour.redirect_uris = Some(vec![listed.to_owned()]));
    let ask = |uri| {
        let query = asking(&[("redirect_uri", uri), ("prompt", "none")]);
        visit(&sandbox, "/oauth2/authorize", &query)
    };
    let answer = ask(listed);
    let location = answer.header("location").expect("a location");
    assert!(
        location.starts_with("https://app.test/cb?a=b%20c&code=code-"),
        "{location}"
    );
    assert!(location.ends_with("&state=s+1%26"), "{location}");
    assert_eq!(ask("https://app.test/cb").status, 400);
    assert_eq!(ask(URI).status, 400);
}

#[test]
fn other_errors_go_back_with_the_state() {
    let sandbox = sandbox();
    for (change, error) in [
        (("scope", ""), "invalid_scope"),
        (("scope", "offline_access  user.profile"), "invalid_scope"),
        (("scope", "lucidchart.document.contents"), "invalid_scope"),
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", "too-short"), "invalid_request"),
        (("code_challenge_method", "S256"), "invalid_request"),
        (("prompt", "login"), "invalid_request"),
    ] {
        let answer = visit(&sandbox, "/oauth2/authorize", &asking(&[change]));
        let (place, back) = answer.redirect();
        assert_eq!(place, URI);
        assert_eq!(get(&back, "error"), Some(error), "{change:?}");
        assert_eq!(get(&back, "state"), Some("s 1&"), "{change:?}");
        assert!(get(&back, "error_description").is_some(), "{change:?}");
        assert_eq!(get(&back, "code"), None, "{change:?}");
    }
    let mut without_scope = asking(&[("state", "")]);
    without_scope.retain(|(name, _)| *name != "scope");
    let (_, back) = visit(&sandbox, "/oauth2/authorize", &without_scope).redirect();
    assert_eq!(get(&back, "error"), Some("invalid_scope"));
    assert_eq!(get(&back, "state"), None, "an empty one counts as none");

    let mut twice = asking(&[]);
    twice.push(("scope", SCOPE));
    let (_, back) = visit(&sandbox, "/oauth2/authorize", &twice).redirect();
    assert_eq!(get(&back, "error"), Some("invalid_request"));

    let malformed = [
        "a response_type that is not code",
        "a plain code_challenge has 43 to 128 unreserved characters",
        "a code_challenge_method without a code_challenge",
        "the prompt is neither none nor consent",
        "the parameter scope is there more than once",
    ];
    let expected = malformed.map(|what| format!("GET /oauth2/authorize: {what}"));
    assert_eq!(sandbox.counts().problems, expected);
    assert_eq!(sandbox.counts().authorize_pages, 0);
}

#[test]
fn unknown_parameters_are_problems_and_change_nothing() {
    let sandbox = sandbox();
    let query = asking(&[("nonce", "1"), ("decision", "approve")]);
    let page = visit(&sandbox, "/oauth2/authorize", &query);
    assert_eq!(page.status, 200);
    assert_eq!(pairs(&hidden_fields(&page.text())), asking(&[]));
    // Without a user to ask there is nothing to prompt for.
    let query = asking(&[("prompt", "none")]);
    let page = visit(&sandbox, "/oauth2/authorizeAccount", &query);
    assert_eq!(page.status, 200);
    let expected = [
        "GET /oauth2/authorize: the unknown parameter nonce",
        "GET /oauth2/authorize: the unknown parameter decision",
        "GET /oauth2/authorizeAccount: the unknown parameter prompt",
    ];
    assert_eq!(sandbox.counts().problems, expected);
}

#[test]
fn a_decision_that_is_none_is_refused() {
    let sandbox = sandbox();
    let path = "/oauth2/authorize";
    for query in [
        asking(&[]),
        asking(&[("decision", "")]),
        asking(&[("decision", "maybe")]),
    ] {
        let answer = exchange(&sandbox, &form_post(&sandbox, path, &query));
        assert_eq!((answer.status, answer.header("location")), (400, None));
    }
    let mut both = asking(&[("decision", "deny")]);
    both.push(("decision", "approve"));
    assert_eq!(
        exchange(&sandbox, &form_post(&sandbox, path, &both)).status,
        400
    );
    let json = token_post(&sandbox, &json!({ "decision": "approve" }));
    let json = String::from_utf8_lossy(&json).replace("/oauth2/token", path);
    assert_eq!(exchange(&sandbox, json.as_bytes()).status, 400);
    let put = format!("PUT {path} HTTP/1.1\r\nHost: {}\r\n\r\n", sandbox.address());
    assert_eq!(exchange(&sandbox, put.as_bytes()).status, 405);

    let counts = sandbox.counts();
    assert_eq!((counts.approvals, counts.denials), (0, 0));
    assert_eq!(counts.problems.len(), 5, "{:?}", counts.problems);
}

#[test]
fn prompt_none_approves_without_a_page() {
    let sandbox = sandbox();
    let query = asking(&[("prompt", "none")]);
    let (place, back) = visit(&sandbox, "/oauth2/authorizeUser", &query).redirect();
    assert_eq!(place, URI);
    assert!(get(&back, "code").is_some());
    assert_eq!(get(&back, "state"), Some("s 1&"));
    let counts = sandbox.counts();
    assert_eq!((counts.authorize_pages, counts.approvals), (0, 1));
    no_problems(&sandbox);
}

#[test]
fn the_page_names_who_is_logged_in() {
    let sandbox = sandbox();
    let page = |path| visit(&sandbox, path, &asking(&[])).text();
    assert!(page("/oauth2/authorizeAccount").contains("account Demo (account 52)"));
    sandbox.change(|behaviour| {
        behaviour.user_id = 4712;
        behaviour.account_id = 53;
    });
    assert!(page("/oauth2/authorize").contains("Ben Demo (ben@example.test, user 4712)"));
    assert!(page("/oauth2/authorizeAccount").contains("account 53"));
}

#[test]
fn the_test_page_is_registered_and_shows_what_came_back() {
    let sandbox = sandbox();
    sandbox.change(|behaviour| {
        behaviour.public_origin = Some(String::from("http://lucid.test"));
    });
    let uri = format!("http://lucid.test/oauth2/clients/{CLIENT_ID}/redirect");
    let query = asking(&[("redirect_uri", &uri), ("prompt", "none")]);
    let (place, back) = visit(&sandbox, "/oauth2/authorize", &query).redirect();
    assert_eq!(place, uri);
    let path = uri.strip_prefix("http://lucid.test").expect("its start");
    let shown = visit(&sandbox, path, &pairs(&back));
    assert_eq!(shown.status, 200);
    let code = get(&back, "code").expect("a code");
    let element = format!("<code id=\"code\">{code}</code>");
    assert!(shown.text().contains(&element), "{}", shown.text());

    let denied = visit(&sandbox, path, &[("error", "access_denied")]);
    let element = "<code id=\"code\">access_denied</code>";
    assert!(denied.text().contains(element), "{}", denied.text());
    assert_eq!(visit(&sandbox, path, &[]).status, 400);
    no_problems(&sandbox);
    // Another client's page is none of ours.
    let other = path.replace(CLIENT_ID, "cid-other");
    assert_ne!(visit(&sandbox, &other, &pairs(&back)).status, 200);
}

#[test]
fn a_page_is_not_asked_for_with_a_token() {
    let sandbox = sandbox();
    let line = "GET /oauth2/authorize?";
    let answer = exchange(&sandbox, &request(&sandbox, line, "token", "", b""));
    assert_eq!(answer.status, 400);
    assert_eq!(
        sandbox.counts().problems,
        ["GET /oauth2/authorize: the header authorization"]
    );
}
