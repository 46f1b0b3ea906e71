//! Where a request goes, and whether a 401 on it is a matter of the token (rules F11 and T16).

use std::borrow::Cow;

use http::{StatusCode, Uri};

use crate::config::OAuth2Endpoint;

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To upstream, with the token.
    Forward,
    /// To upstream without it: the program refreshes a grant of its own.
    ForwardBare,
    /// Answered here.
    Answer(Endpoint),
    /// Not at all: it would use or end a grant behind the proxy's back.
    RefuseOAuth,
}

/// What is below `/oauth2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Where tokens are refreshed (RFC 6749 section 3.2).
    Token,
    /// Where one asks about a token (RFC 7662).
    Introspect,
    /// Where one ends a grant (RFC 7009).
    Revoke,
    /// Nothing that programs ask for at Lucid's API.
    Unknown,
}

/// Chooses by the path.
pub fn choose(uri: &Uri, oauth2: OAuth2Endpoint) -> Route {
    if !is_oauth(uri.path()) {
        return Route::Forward;
    }
    match oauth2 {
        OAuth2Endpoint::Local => Route::Answer(endpoint(uri.path())),
        OAuth2Endpoint::Deny => Route::RefuseOAuth,
        OAuth2Endpoint::Forward => Route::ForwardBare,
    }
}

/// Whether another token could change this answer: a 401, but not one that is about something else (T16).
pub fn is_curable(status: StatusCode, uri: &Uri) -> bool {
    status == StatusCode::UNAUTHORIZED && !is_oauth(uri.path()) && !has_own_token(uri)
}

/// Whether a path is below `/oauth2` or `/v1/oauth2`, however it is written: upstream may read it as we do not.
fn is_oauth(path: &str) -> bool {
    let path = decoded(path);
    let (segments, _) = segments::<2>(&path);
    segments[usize::from(is_version(segments[0]))].eq_ignore_ascii_case("oauth2")
}

/// Which endpoint a path below `/oauth2` is.
fn endpoint(path: &str) -> Endpoint {
    let path = decoded(path);
    let (segments, depth) = segments::<4>(&path);
    let below = usize::from(is_version(segments[0])) + 1;
    let is = |place: usize, name: &str| {
        let segment = segments.get(place);
        segment.is_some_and(|segment| segment.eq_ignore_ascii_case(name))
    };
    match depth.saturating_sub(below) {
        1 if is(below, "token") => Endpoint::Token,
        2 if is(below, "token") && is(below + 1, "introspect") => Endpoint::Introspect,
        2 if is(below, "token") && is(below + 1, "revoke") => Endpoint::Revoke,
        _ => Endpoint::Unknown,
    }
}

fn decoded(path: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy()
}

/// The first segments that are left of a path when its dots and empty segments are taken out, and how many there are.
fn segments<const FIRST: usize>(path: &str) -> ([&str; FIRST], usize) {
    let mut segments = [""; FIRST];
    let mut depth = 0_usize;
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                depth = depth.saturating_sub(1);
                if let Some(place) = segments.get_mut(depth) {
                    *place = "";
                }
            }
            segment => {
                if let Some(place) = segments.get_mut(depth) {
                    *place = segment;
                }
                depth += 1;
            }
        }
    }
    (segments, depth)
}

fn is_version(segment: &str) -> bool {
    segment
        .strip_prefix('v')
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `GET /embeds?token=…` answers 401 when the token in its query is bad.
fn has_own_token(uri: &Uri) -> bool {
    let path = uri.path().strip_prefix("/v1").unwrap_or(uri.path());
    let query = uri.query().unwrap_or_default();
    path.trim_end_matches('/') == "/embeds"
        && form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("a URI")
    }

    #[test]
    fn f11_the_token_endpoints_are_known_however_they_are_written() {
        let chosen = |path| choose(&uri(path), OAuth2Endpoint::Local);
        for (endpoint, paths) in [
            (
                Endpoint::Token,
                &[
                    "/oauth2/token",
                    "/v1/oauth2/token?x",
                    "//oauth2/token/",
                    "/%6fauth2/token",
                    "/v1//oauth2/token",
                    "/v2/oauth2/token",
                    "/x/../oauth2/token",
                    "/x/y/%2e%2e/.././OAuth2/token",
                    "/v1/x/../oauth2/TOKEN",
                    "/oauth2%2ftoken",
                    "/..%2Foauth2/x/../token",
                ][..],
            ),
            (
                Endpoint::Introspect,
                &["/oauth2/token/introspect", "/v1/oauth2/token//introspect"],
            ),
            (
                Endpoint::Revoke,
                &["/oauth2/token/revoke", "/v1/oauth2/token/x/../revoke"],
            ),
            (
                Endpoint::Unknown,
                &[
                    "/oauth2",
                    "/v1/oauth2",
                    "/oauth2/authorize",
                    "/oauth2/token/x",
                    "/oauth2/token/revoke/x",
                    "/oauth2/x/token",
                    "/v1/oauth2/token/introspect/x",
                    "/oauth2/token/..",
                ],
            ),
        ] {
            for path in paths {
                assert_eq!(chosen(path), Route::Answer(endpoint), "{path}");
            }
        }
        for path in [
            "/",
            "/oauth2x",
            "/users/oauth2",
            "/v1/users",
            "/v1/users/oauth2",
            "/v1/v1/oauth2/token",
            "/oauth2/token/../..",
            "*",
            "/%ff",
        ] {
            assert_eq!(chosen(path), Route::Forward, "{path}");
        }
    }

    #[test]
    fn f11_the_configuration_says_what_becomes_of_them() {
        for (oauth2, route) in [
            (OAuth2Endpoint::Local, Route::Answer(Endpoint::Token)),
            (OAuth2Endpoint::Deny, Route::RefuseOAuth),
            (OAuth2Endpoint::Forward, Route::ForwardBare),
        ] {
            assert_eq!(choose(&uri("/oauth2/token"), oauth2), route);
            assert_eq!(choose(&uri("/users"), oauth2), Route::Forward);
        }
    }

    #[test]
    fn t16_only_a_401_about_our_token_is_curable() {
        let curable =
            |status, path| is_curable(StatusCode::from_u16(status).expect("a status"), &uri(path));
        assert!(curable(401, "/users"));
        assert!(curable(401, "/embeds"));
        assert!(curable(401, "/documents/embeds?token=x"));
        for status in [200, 400, 403, 404, 407, 429, 500, 502, 503] {
            assert!(!curable(status, "/users"), "{status}");
        }
        for path in [
            "/embeds?token=x",
            "/v1/embeds?a=b&token=",
            "/embeds?to%6ben=x",
            "/oauth2/token",
            "/v1/oauth2/token/introspect",
        ] {
            assert!(!curable(401, path), "{path}");
        }
    }
}
