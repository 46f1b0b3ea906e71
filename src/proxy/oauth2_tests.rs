//! What is asked, and what is answered, without a connection.

use http::header::AUTHORIZATION;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::secret::Secret;
use crate::token::answer::Owner;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn asked(endpoint: Endpoint, content_type: &str, content: &[u8]) -> Result<Errand, Refusal> {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        let value = HeaderValue::from_str(content_type).expect("a value");
        headers.insert(CONTENT_TYPE, value);
    }
    errand(endpoint, &headers, content)
}

fn code(endpoint: Endpoint, content_type: &str, content: &str) -> (u16, &'static str) {
    let refusal = asked(endpoint, content_type, content.as_bytes()).expect_err(content);
    (refusal.status.as_u16(), refusal.code)
}

#[test]
fn f11_lucids_own_flow_and_its_variants_are_a_refresh() {
    for (content_type, content) in [
        (
            JSON,
            r#"{"grant_type":"refresh_token","refresh_token":"oauth2-RT","client_id":"c","client_secret":"s"}"#,
        ),
        (
            "Application/JSON; charset=utf-8",
            r#" {"refresh_token":"x","grant_type":"refresh_token"}"#,
        ),
        (
            FORM,
            "grant_type=refresh_token&refresh_token=oauth2-RT%3D&client_id=c&client_secret=s",
        ),
        (
            FORM,
            "grant_type=refresh%5Ftoken&refresh_token=+&client_id=a&client_id=b",
        ),
        // Said wrongly, or not at all.
        (
            FORM,
            r#"{"grant_type":"refresh_token","refresh_token":"x"}"#,
        ),
        ("", r#"{"grant_type":"refresh_token","refresh_token":"x"}"#),
        ("", "grant_type=refresh_token&refresh_token=x"),
        ("text/plain", "grant_type=refresh_token&refresh_token=x"),
        // What is not looked at may be anything.
        (
            JSON,
            r#"{"grant_type":"refresh_token","refresh_token":"x","client_id":7,"client_secret":null,"scope":["a"]}"#,
        ),
    ] {
        let errand = asked(Endpoint::Token, content_type, content.as_bytes());
        assert_eq!(errand, Ok(Errand::Refresh), "{content}");
    }
}

#[test]
fn f11_a_lucid_proxy_is_told_that_this_is_not_the_token_endpoint() {
    let asked = |agent: &'static str| {
        let headers = [(USER_AGENT, HeaderValue::from_static(agent))];
        refuse_our_own(&HeaderMap::from_iter(headers))
    };
    let refusal = asked("lucid-proxy/0.1.0").expect_err("refused");
    let seen = (refusal.status.as_u16(), refusal.code);
    assert_eq!(seen, (421, "misdirected_request"));
    assert_eq!(asked("lucid-proxy"), Ok(()));
    assert_eq!(asked("my-lucid-proxy/0.1.0"), Ok(()));
    assert_eq!(refuse_our_own(&HeaderMap::new()), Ok(()));
}

#[test]
fn f11_other_grants_and_revocations_are_refused_in_oauths_words() {
    for (endpoint, content, code_) in [
        (
            Endpoint::Token,
            "grant_type=authorization_code&code=x&redirect_uri=y",
            "unsupported_grant_type",
        ),
        (
            Endpoint::Token,
            "grant_type=client_credentials",
            "unsupported_grant_type",
        ),
        (
            Endpoint::Token,
            "grant_type=password",
            "unsupported_grant_type",
        ),
        (Endpoint::Revoke, "token=x", "unsupported_token_type"),
        (Endpoint::Revoke, "", "unsupported_token_type"),
        (Endpoint::Token, "", "invalid_request"),
        (Endpoint::Token, "refresh_token=x", "invalid_request"),
        (
            Endpoint::Token,
            "grant_type=&refresh_token=x",
            "invalid_request",
        ),
        (
            Endpoint::Token,
            "grant_type=refresh_token",
            "invalid_request",
        ),
        (
            Endpoint::Token,
            "grant_type=refresh_token&refresh_token=",
            "invalid_request",
        ),
        (
            Endpoint::Token,
            "grant_type=refresh_token&grant_type=refresh_token&refresh_token=x",
            "invalid_request",
        ),
        (Endpoint::Introspect, "", "invalid_request"),
        (Endpoint::Introspect, "token=", "invalid_request"),
        (Endpoint::Introspect, "token=x&token=y", "invalid_request"),
    ] {
        assert_eq!(code(endpoint, FORM, content), (400, code_), "{content}");
    }
    for content in [
        "",
        "{",
        "[]",
        "null",
        "\"grant_type\"",
        r#"{"grant_type":["refresh_token"],"refresh_token":"x"}"#,
        r#"{"grant_type":"refresh_token","refresh_token":7}"#,
        r#"{"grant_type":"refresh_token","grant_type":"refresh_token","refresh_token":"x"}"#,
        r#"{"grant_type":"refresh_token","refresh_token":"x"} x"#,
        r#"{"grant_type":"refresh_token","refresh_token":null}"#,
    ] {
        let refused = code(Endpoint::Token, JSON, content);
        assert_eq!(refused, (400, "invalid_request"), "{content}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(60_000));
    let refused = code(Endpoint::Token, JSON, &deep);
    assert_eq!(refused, (400, "invalid_request"));
}

#[test]
fn f11_only_a_post_to_a_known_endpoint_is_looked_at() {
    for endpoint in [Endpoint::Token, Endpoint::Introspect, Endpoint::Revoke] {
        assert_eq!(check_head(endpoint, &Method::POST), Ok(()));
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
            let refusal = check_head(endpoint, &method).expect_err("refused");
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        }
    }
    for method in [Method::GET, Method::POST] {
        let refusal = check_head(Endpoint::Unknown, &method).expect_err("refused");
        assert_eq!(
            (refusal.status.as_u16(), refusal.code),
            (403, "policyDenied")
        );
    }
}

#[test]
fn f11_a_message_has_no_character_that_oauth_forbids_and_says_nothing_of_the_request() {
    let marked = "grant_type=marked&refresh_token=marked&token=marked&client_secret=marked";
    let twice = format!("{marked}&{marked}");
    let json = r#"{"grant_type":["marked"]}"#;
    let refusals = [
        asked(Endpoint::Token, FORM, marked.as_bytes()),
        asked(Endpoint::Revoke, FORM, marked.as_bytes()),
        asked(Endpoint::Token, FORM, twice.as_bytes()),
        asked(Endpoint::Token, JSON, json.as_bytes()),
        asked(Endpoint::Token, FORM, b"marked"),
        asked(Endpoint::Token, FORM, b"grant_type=authorization_code"),
        check_head(Endpoint::Token, &Method::GET).map(|()| Errand::Refresh),
        Err(too_large()),
    ];
    for refusal in refusals {
        let message = refusal.expect_err("refused").message;
        // RFC 6749 section 5.2.
        let allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        assert!(message.bytes().all(allowed), "{message}");
        assert!(!message.contains("marked"), "{message}");
    }
}

fn at(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

fn bearer(scopes: &[&str], user_id: Option<u64>, account_id: Option<u64>) -> Bearer {
    let terms = Terms {
        expires_at: Some(at(1_900_000_000_123)),
        refresh_token_end: Some(at(1_915_000_000_000)),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        owner: Owner {
            user_id,
            account_id,
        },
    };
    Bearer::new(&Secret::from("oauth2-marked"), Some(7), terms).expect("a header")
}

fn value(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).expect("JSON")
}

#[test]
fn f11_an_answer_has_lucids_shape_and_the_expiry_of_the_real_pair() {
    let now = at(1_899_996_400_500);
    let bearer = bearer(&["folder", "offline_access"], Some(4711), None);
    assert_eq!(
        value(&refreshed(&bearer, "cid-demo", now)),
        json!({
            "access_token": "lucid-proxy-placeholder-access-7",
            "refresh_token": "lucid-proxy-placeholder-refresh-7",
            "client_id": "cid-demo",
            "expires_in": 3599,
            "expires": 1_900_000_000_123_u64,
            "scopes": ["folder", "offline_access"],
            "token_type": "bearer",
            "user_id": 4711,
        })
    );
    let access = introspected(Placeholder::Access, &bearer.terms, "cid-demo", now);
    assert_eq!(
        value(&access),
        json!({
            "active": true,
            "client_id": "cid-demo",
            "expires_in": 3599,
            "expires": 1_900_000_000_123_u64,
            "scope": "folder offline_access",
            "token_type": "bearer",
            "user_id": 4711,
        })
    );
    let refresh = value(&introspected(Placeholder::Refresh, &bearer.terms, "c", now));
    assert_eq!(refresh["expires"], 1_915_000_000_000_u64);
    assert_eq!(refresh["expires_in"], 15_003_599);
}

#[test]
fn f11_what_is_not_known_is_left_out() {
    let now = at(1_900_000_000_200);
    let unknown = bearer(&[], None, None);
    let answers = [
        value(&refreshed(&unknown, "c", now)),
        value(&introspected(Placeholder::Access, &unknown.terms, "c", now)),
    ];
    for answer in answers {
        for name in ["scope", "scopes", "user_id", "account_id"] {
            assert!(answer.get(name).is_none(), "{answer}");
        }
        assert_eq!(answer["expires_in"], 0, "it has just died");
    }
    let account = bearer(&[], None, Some(52));
    assert_eq!(value(&refreshed(&account, "c", now))["account_id"], 52);
    let both = value(&refreshed(&bearer(&[], Some(1), Some(52)), "c", now));
    assert_eq!(both["user_id"], 1);
    assert!(both.get("account_id").is_none(), "never both");
}

proptest! {
    #[test]
    fn s08_no_request_to_an_oauth_endpoint_makes_a_panic(
        content_type in prop_oneof![Just(JSON), Just(FORM), Just("")],
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        words in proptest::collection::vec(prop_oneof![
            Just("grant_type"), Just("refresh_token"), Just("token"), Just("\""), Just("="), Just("&"), Just(":"),
            Just(","), Just("{"), Just("}"), Just("%"), Just("%ff"), Just("null"), Just("\u{0}"),
        ], 0..20),
    ) {
        for content in [&bytes[..], words.concat().as_bytes()] {
            for endpoint in [Endpoint::Token, Endpoint::Introspect, Endpoint::Revoke] {
                let _ = asked(endpoint, content_type, content);
            }
        }
    }
}

#[test]
fn f11_the_applications_credentials_are_not_looked_at() {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic !"));
    let content = b"grant_type=refresh_token&refresh_token=x&client_id=%00&client_secret=%ff";
    assert_eq!(
        errand(Endpoint::Token, &headers, content),
        Ok(Errand::Refresh)
    );
}
