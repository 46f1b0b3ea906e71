//! The token endpoint: one request form, one request, and what its answers mean (rules T5, T6, T9, T10).

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::config::Client;
use crate::secret::{ExposeSecret, Secret};

/// Until the request is on its way. Longer than a retransmitted SYN takes, shorter than people wait.
const CONNECT: Duration = Duration::from_secs(10);
/// From then on. Giving up while the server still works loses the pair that it issues, so this is generous.
const ANSWER: Duration = Duration::from_secs(60);
/// More than any token answer needs.
const LARGEST_ANSWER: usize = 256 << 10;
/// What a token answer without a usable `expires_in` is taken to mean: Lucid's documented lifetime.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);
/// Guards the arithmetic of times against nonsense.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The token endpoint of one credential.
#[derive(Debug)]
pub struct TokenEndpoint {
    http: reqwest::Client,
    url: String,
    client: Client,
}

/// What became of a refresh.
#[derive(Debug)]
pub enum Answer {
    /// A new pair: the old one is dead.
    Issued(Issued),
    /// The grant is over.
    Refused {
        /// The OAuth error code.
        code: String,
        /// `error_description`, shortened.
        description: String,
    },
    /// Nothing that ends a grant.
    Failed {
        /// What happened.
        message: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
        /// Whether the refresh token may have been spent all the same.
        maybe_spent: bool,
    },
}

/// A successful token answer, whatever it left out (T6).
#[derive(Debug)]
pub struct Issued {
    /// Not empty.
    pub access_token: Secret,
    /// `None`: the old one stays valid (RFC 6749 section 6).
    pub refresh_token: Option<Secret>,
    /// How long the access token lives.
    pub lifetime: Duration,
    /// `None` where the answer did not say.
    pub scopes: Option<Vec<String>>,
    /// For user tokens.
    pub user_id: Option<u64>,
    /// For account tokens.
    pub account_id: Option<u64>,
}

/// The documented form: JSON, credentials in the body.
#[derive(Serialize)]
struct RefreshRequest<'a> {
    grant_type: &'static str,
    refresh_token: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
}

impl TokenEndpoint {
    /// An endpoint that trusts what `tls` trusts; `None` for an endpoint without TLS.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made of that.
    pub fn new(
        url: &http::Uri,
        client: Client,
        tls: Option<rustls::ClientConfig>,
    ) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("lucid-proxy/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A fresh connection each time: one that dies as it is used would leave the outcome unknown.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(CONNECT + ANSWER);
        builder = match tls {
            Some(tls) => builder.tls_backend_preconfigured(tls),
            None => builder.tls_backend_preconfigured(crate::tls::trusting_nobody()),
        };
        Ok(Self {
            http: builder.build()?,
            url: url.to_string(),
            client,
        })
    }

    /// Exchanges the refresh token for a new pair, in one POST that nothing repeats.
    pub async fn refresh(&self, refresh_token: &Secret) -> Answer {
        let body = serde_json::to_vec(&RefreshRequest {
            grant_type: "refresh_token",
            refresh_token: refresh_token.expose_secret(),
            client_id: &self.client.id,
            client_secret: self.client.secret.expose_secret(),
        })
        .expect("strings always serialise");
        let request = self
            .http
            .post(&self.url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(body);
        match request.send().await {
            Ok(response) => self.complete(read_answer(response).await, refresh_token),
            Err(error) => {
                let maybe_spent = !error.is_connect() && !error.is_builder();
                let message = format!("could not be asked: {}", chain(&error.without_url()));
                self.complete(failed(message, maybe_spent), refresh_token)
            }
        }
    }

    /// Says which endpoint it was and what happens next, and takes out of a description what must not be shown, in case
    /// the server repeats what it was sent (S6).
    fn complete(&self, mut answer: Answer, refresh_token: &Secret) -> Answer {
        match &mut answer {
            Answer::Issued(_) => {}
            Answer::Refused { description, .. } => {
                for secret in [refresh_token, &self.client.secret] {
                    *description = description.replace(secret.expose_secret(), "[redacted]");
                }
            }
            Answer::Failed { message, .. } => {
                *message = format!(
                    "the token endpoint {} {message}; it is asked again by itself",
                    self.url
                );
            }
        }
        answer
    }
}

async fn read_answer(mut response: reqwest::Response) -> Answer {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(read_retry_after);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => {
                body.extend_from_slice(&chunk)
            }
            Ok(Some(_)) => {
                return failed("sent too large an answer".to_owned(), status.is_success());
            }
            Ok(None) => return judge(status, retry_after, &body),
            Err(error) => {
                let cause = chain(&error.without_url());
                return failed(
                    format!("sent an answer ({status}) that was cut off: {cause}"),
                    true,
                );
            }
        }
    }
}

fn failed(message: String, maybe_spent: bool) -> Answer {
    Answer::Failed {
        message,
        retry_after: None,
        maybe_spent,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

/// What a whole answer of the token endpoint means.
fn judge(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Answer {
    if status == StatusCode::OK {
        return match issued(body) {
            Some(issued) => Answer::Issued(issued),
            None => failed("answered 200 without an access_token".to_owned(), true),
        };
    }
    let refusing = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    if let Some((code, description)) = oauth_error(body).filter(|_| refusing) {
        return Answer::Refused { code, description };
    }
    Answer::Failed {
        message: format!("answered {status}"),
        retry_after,
        maybe_spent: status.is_server_error() || status.is_success(),
    }
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The codes of RFC 6749 section 5.2, and Lucid's own spelling of one.
const ERROR_CODES: [&str; 7] = [
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_scopes",
    "unauthorized_client",
    "unsupported_grant_type",
];

fn oauth_error(body: &[u8]) -> Option<(String, String)> {
    let parsed: OAuthError = serde_json::from_slice(body).ok()?;
    let known = ERROR_CODES.contains(&parsed.error.as_str());
    let description = parsed
        .error_description
        .chars()
        .filter(|c| !c.is_control())
        .take(8192)
        .collect();
    known.then_some((parsed.error, description))
}

/// Takes what can be taken: a pair that was issued must not be thrown away for a field of another type (T6).
fn issued(body: &[u8]) -> Option<Issued> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| answer.get(name)?.as_str().filter(|text| !text.is_empty());
    Some(Issued {
        access_token: Secret::from(text("access_token")?),
        refresh_token: text("refresh_token").map(Secret::from),
        lifetime: lifetime(answer.get("expires_in")),
        scopes: scopes(answer.get("scopes").or_else(|| answer.get("scope"))),
        user_id: answer.get("user_id").and_then(serde_json::Value::as_u64),
        account_id: answer.get("account_id").and_then(serde_json::Value::as_u64),
    })
}

fn lifetime(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = match expires_in {
        Some(serde_json::Value::Number(number)) => number.as_f64(),
        Some(serde_json::Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|lifetime| *lifetime <= LONGEST_LIFETIME)
        .unwrap_or(ASSUMED_LIFETIME)
}

fn scopes(value: Option<&serde_json::Value>) -> Option<Vec<String>> {
    match value? {
        serde_json::Value::String(text) => {
            Some(text.split_whitespace().map(str::to_owned).collect())
        }
        serde_json::Value::Array(items) => Some(
            items
                .iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued_from(body: &str) -> Issued {
        match judge(StatusCode::OK, None, body.as_bytes()) {
            Answer::Issued(issued) => issued,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn t06_any_200_with_an_access_token_is_a_pair() {
        for (rest, seconds) in [
            (r#""expires_in":1800"#, 1800),
            (r#""expires_in":"1800""#, 1800),
            (r#""expires_in":1800.0"#, 1800),
            (r#""expires_in":"soon""#, 3600),
            (r#""expires_in":null"#, 3600),
            (r#""expires_in":0"#, 3600),
            (r#""expires_in":-1"#, 3600),
            (r#""expires_in":1e300"#, 3600),
            (r#""expires_in":1000000000000"#, 3600),
            (r#""expires_in":{}"#, 3600),
            (r#""token_type":"BEARER","user_id":"x","scopes":7"#, 3600),
        ] {
            let issued = issued_from(&format!(r#"{{"access_token":"a",{rest}}}"#));
            assert_eq!(issued.lifetime, Duration::from_secs(seconds), "{rest}");
            assert!(issued.refresh_token.is_none());
        }
    }

    #[test]
    fn t06_scopes_come_as_a_list_as_text_or_not_at_all() {
        let both = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            issued_from(r#"{"access_token":"a","scopes":["a","b"]}"#).scopes,
            both
        );
        assert_eq!(
            issued_from(r#"{"access_token":"a","scope":"a b"}"#).scopes,
            both
        );
        assert_eq!(issued_from(r#"{"access_token":"a"}"#).scopes, None);
    }

    #[test]
    fn t09_only_an_oauth_code_in_400_401_or_403_ends_a_grant() {
        let refusal = br#"{"error":"invalid_grant","error_description":"no","error_uri":""}"#;
        for status in [400, 401, 403] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(
                matches!(judge(status, None, refusal), Answer::Refused { .. }),
                "{status}"
            );
        }
        for (status, body) in [
            (400, &b"<html>blocked</html>"[..]),
            (400, b""),
            (403, br#"{"error":"rate_limited"}"#),
            (403, br#"{"code":"accessForbidden"}"#),
            (401, br#"{"error":{"code":"invalid_grant"}}"#),
            (404, refusal),
            (429, refusal),
            (500, refusal),
            (302, refusal),
            (200, refusal),
            (200, b"<html>"),
            (200, br#"{"access_token":""}"#),
            (200, br#"{"access_token":5}"#),
            (204, b""),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(
                matches!(judge(status, None, body), Answer::Failed { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn s06_a_server_that_repeats_secrets_is_not_quoted() {
        let client = Client {
            id: "id".to_owned(),
            secret: Secret::from("marked-secret"),
        };
        let endpoint = TokenEndpoint::new(
            &http::Uri::from_static("http://127.0.0.1/token"),
            client,
            None,
        )
        .expect("a client");
        let body =
            br#"{"error":"invalid_grant","error_description":"no marked-token, no marked-secret"}"#;
        let answer = endpoint.complete(
            judge(StatusCode::BAD_REQUEST, None, body),
            &Secret::from("marked-token"),
        );
        let Answer::Refused { description, .. } = answer else {
            panic!("refused: {answer:?}")
        };
        assert_eq!(description, "no [redacted], no [redacted]");
    }

    #[test]
    fn t10_retry_after_is_seconds_or_a_date() {
        let read = |text: &str| read_retry_after(&HeaderValue::from_str(text).expect("a value"));
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("soon"), None);
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None, "in the past");
        assert!(read("Fri, 31 Dec 2100 23:59:59 GMT").is_some());
    }
}
