//! Where a request goes, and whether a 401 on it is a matter of the token (rules F11 and T16).

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

fn is_oauth(path: &str) -> bool {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below("/oauth2") || below("/v1/oauth2")
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
        ] {
            assert_eq!(choose(&uri(path)), Route::RefuseOAuth, "{path}");
        }
        for path in ["/", "/oauth2x", "/users/oauth2", "/v1/users"] {
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
