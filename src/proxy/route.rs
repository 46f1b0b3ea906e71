//! Where a request goes, and whether a 401 on it is a matter of the token (rules F11 and T16).

use std::borrow::Cow;

use http::{StatusCode, Uri};

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To upstream, with the token.
    Forward,
    /// Not at all: it would use or end a grant behind the proxy's back.
    RefuseOAuth,
}

/// Chooses by the path.
pub fn choose(uri: &Uri) -> Route {
    if is_oauth(uri.path()) {
        Route::RefuseOAuth
    } else {
        Route::Forward
    }
}

/// Whether another token could change this answer: a 401, but not one that is about something else (T16).
pub fn is_curable(status: StatusCode, uri: &Uri) -> bool {
    status == StatusCode::UNAUTHORIZED && !is_oauth(uri.path()) && !has_own_token(uri)
}

/// Whether a path is below `/oauth2` or `/v1/oauth2`, however it is written: upstream may read it as we do not.
fn is_oauth(path: &str) -> bool {
    let mut segments: [Cow<'_, str>; 2] = Default::default();
    let mut depth = 0_usize;
    for segment in path.split('/') {
        match percent_encoding::percent_decode_str(segment).decode_utf8_lossy() {
            segment if segment.is_empty() || segment == "." => {}
            segment if segment == ".." => depth = depth.saturating_sub(1),
            segment => {
                if let Some(place) = segments.get_mut(depth) {
                    *place = segment;
                }
                depth += 1;
            }
        }
    }
    let is_oauth = |segment: &str| segment.eq_ignore_ascii_case("oauth2");
    depth > 0 && is_oauth(&segments[0])
        || depth > 1 && is_version(&segments[0]) && is_oauth(&segments[1])
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
    fn f11_the_token_endpoints_are_not_forwarded() {
        for path in [
            "/oauth2",
            "/oauth2/token",
            "/v1/oauth2/token?x",
            "/oauth2/token/revoke",
            "//oauth2/token",
            "/%6fauth2/token",
            "/v1//oauth2/token",
            "/v2/oauth2/token",
            "/x/../oauth2/token",
            "/x/y/%2e%2e/.././OAuth2/token",
        ] {
            assert_eq!(choose(&uri(path)), Route::RefuseOAuth, "{path}");
        }
        for path in [
            "/",
            "/oauth2x",
            "/users/oauth2",
            "/v1/users",
            "/v1/users/oauth2",
            "*",
            "/%ff",
        ] {
            assert_eq!(choose(&uri(path)), Route::Forward, "{path}");
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
