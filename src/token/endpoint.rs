//! The token endpoint: what is asked, in the one form that Lucid documents for each question (rule T5).
//!
//! What the answers mean is in [`answer`], how they travel in [`transport`](super::transport).

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde::Serialize;

use super::answer::{self, Answer, Introspection};
use super::transport::{CONNECT, Content, Delivery, Transport};
use crate::config::Client;
use crate::secret::{Buffer, ExposeSecret, Secret};

/// Nothing is lost with an answer to introspection or revocation, so these are waited for as long as people wait.
const ASIDE: Duration = Duration::from_secs(CONNECT.as_secs() + 15);

/// The token endpoint of one credential.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    transport: Arc<dyn Transport>,
    url: Uri,
    introspect_url: Uri,
    revoke_url: Uri,
    client: Client,
}

/// A code from the authorization endpoint, with what binds it to the login that asked for it.
#[derive(Debug)]
pub struct Code {
    /// The code itself.
    pub code: Secret,
    /// The `redirect_uri` of the authorization request, to the letter.
    pub redirect_uri: String,
    /// The verifier of RFC 7636, where a challenge was sent.
    pub verifier: Option<Secret>,
}

/// Why a revocation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The client id or secret is wrong.
    #[error("the token endpoint does not know the client id or secret")]
    BadClient,
    /// It could not be asked, or gave another answer.
    #[error("{0}")]
    Failed(String),
}

/// The documented form of a refresh: JSON, credentials in the body.
#[derive(Serialize)]
struct RefreshRequest<'a> {
    grant_type: &'static str,
    refresh_token: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
}

/// The documented form of a code exchange; `code_verifier` is RFC 7636's.
#[derive(Serialize)]
struct CodeRequest<'a> {
    grant_type: &'static str,
    code: &'a str,
    redirect_uri: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_verifier: Option<&'a str>,
}

impl TokenEndpoint {
    /// The endpoint at `url`, with introspection and revocation below it.
    pub fn new(url: &Uri, client: Client, transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            url: url.clone(),
            introspect_url: below(url, "introspect"),
            revoke_url: below(url, "revoke"),
            client,
        }
    }

    /// Who asks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Exchanges the refresh token for a new pair, in one POST that nothing repeats.
    pub async fn refresh(&self, refresh_token: &Secret) -> Answer {
        let content = json(&RefreshRequest {
            grant_type: "refresh_token",
            refresh_token: refresh_token.expose_secret(),
            client_id: &self.client.id,
            client_secret: self.client.secret.expose_secret(),
        });
        let delivery = self.transport.post(&self.url, content).await;
        self.complete(delivery, &[refresh_token])
    }

    /// Exchanges the code of a login for its first pair (RFC 6749 section 4.1.3), in one POST that nothing repeats.
    pub async fn exchange(&self, code: &Code) -> Answer {
        let verifier = code.verifier.as_ref();
        let content = json(&CodeRequest {
            grant_type: "authorization_code",
            code: code.code.expose_secret(),
            redirect_uri: &code.redirect_uri,
            client_id: &self.client.id,
            client_secret: self.client.secret.expose_secret(),
            code_verifier: verifier.map(ExposeSecret::expose_secret),
        });
        let delivery = self.transport.post(&self.url, content).await;
        let secrets: Vec<_> = std::iter::once(&code.code).chain(verifier).collect();
        self.complete(delivery, &secrets)
    }

    /// Asks whether a token lives (RFC 7662). That changes nothing at the server.
    pub async fn introspect(&self, token: &Secret) -> Introspection {
        match self.aside(&self.introspect_url, token).await {
            Ok(Delivery::Answered(answered)) => answer::judge_introspection(&answered),
            Ok(Delivery::NotSent(message) | Delivery::Unknown(message)) | Err(message) => {
                Introspection::Unknown(format!("introspection {message}"))
            }
        }
    }

    /// Ends the grant to which a token belongs, with every token of it (RFC 7009, and Lucid's documentation).
    ///
    /// # Errors
    ///
    /// When that cannot be known to have happened.
    pub async fn revoke(&self, token: &Secret) -> Result<(), RevokeError> {
        match self.aside(&self.revoke_url, token).await {
            Ok(Delivery::Answered(answered)) if answered.status == http::StatusCode::OK => Ok(()),
            Ok(Delivery::Answered(answered)) if answer::refuses_client(&answered) => {
                Err(RevokeError::BadClient)
            }
            Ok(Delivery::Answered(answered)) if answer::is_misled(&answered) => {
                let misled = answer::MISLED;
                Err(RevokeError::Failed(format!("{} {misled}", self.revoke_url)))
            }
            Ok(Delivery::Answered(answered)) => Err(RevokeError::Failed(format!(
                "{} answered {}",
                self.revoke_url, answered.status
            ))),
            Ok(Delivery::NotSent(message) | Delivery::Unknown(message)) | Err(message) => Err(
                RevokeError::Failed(format!("{} {message}", self.revoke_url)),
            ),
        }
    }

    /// A question beside the exchange of tokens, in the documented form: a form body.
    async fn aside(&self, url: &Uri, token: &Secret) -> Result<Delivery, String> {
        let secret = self.client.secret.expose_secret();
        let values = self.client.id.len() + secret.len() + token.expose_secret().len();
        // Each byte of a value takes three at the most: it never grows, and leaves no copy behind.
        let room = String::with_capacity(64 + 3 * values);
        let body = form_urlencoded::Serializer::new(room)
            .append_pair("client_id", &self.client.id)
            .append_pair("client_secret", secret)
            .append_pair("token", token.expose_secret())
            .finish();
        let content = Content {
            content_type: "application/x-www-form-urlencoded",
            body: body.into_bytes().into(),
        };
        let asked = tokio::time::timeout(ASIDE, self.transport.post(url, content));
        asked
            .await
            .map_err(|_| format!("gave no answer within {} s", ASIDE.as_secs()))
    }

    /// Says which endpoint it was, and takes out of a description what must not be shown, in case the server repeats
    /// what it was sent (S6).
    fn complete(&self, delivery: Delivery, sent: &[&Secret]) -> Answer {
        let failed = |message, maybe_spent| Answer::Failed {
            message,
            retry_after: None,
            maybe_spent,
        };
        let mut answer = match delivery {
            Delivery::Answered(answered) => answer::judge(&answered),
            Delivery::NotSent(message) => failed(message, false),
            Delivery::Unknown(message) => failed(message, true),
        };
        match &mut answer {
            Answer::Issued(_) => {}
            Answer::Refused { description, .. } => {
                for secret in sent.iter().copied().chain([&self.client.secret]) {
                    *description = description.replace(secret.expose_secret(), "[redacted]");
                }
            }
            Answer::Failed { message, .. } => {
                *message = format!("the token endpoint {} {message}", self.url);
            }
        }
        answer
    }
}

fn json(request: &impl Serialize) -> Content {
    let mut body = Buffer::default();
    serde_json::to_writer(&mut body, request).expect("strings always serialise");
    Content {
        content_type: "application/json",
        body: body.into_bytes(),
    }
}

/// The URL one segment below another, without its query.
fn below(url: &Uri, segment: &str) -> Uri {
    let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
    let mut parts = url.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::transport::{Answered, Posting};
    use super::*;

    /// Gives every POST the same answer.
    #[derive(Debug)]
    struct Always(StatusCode, &'static [u8]);

    impl Transport for Always {
        fn post<'a>(&'a self, _: &'a Uri, _: Content) -> Posting<'a> {
            let answered = Answered {
                status: self.0,
                retry_after: None,
                date: None,
                body: self.1.to_vec().into(),
            };
            Box::pin(std::future::ready(Delivery::Answered(answered)))
        }
    }

    fn endpoint(transport: Always) -> TokenEndpoint {
        let client = Client {
            id: "id".to_owned(),
            secret: Secret::from("marked-secret"),
        };
        TokenEndpoint::new(
            &Uri::from_static("http://127.0.0.1/oauth2/token"),
            client,
            Arc::new(transport),
        )
    }

    #[tokio::test]
    async fn s06_a_server_that_repeats_secrets_is_not_quoted() {
        let body =
            br#"{"error":"invalid_grant","error_description":"no marked-token, no marked-secret"}"#;
        let endpoint = endpoint(Always(StatusCode::BAD_REQUEST, body));
        let answer = endpoint.refresh(&Secret::from("marked-token")).await;
        let Answer::Refused { description, .. } = answer else {
            panic!("refused: {answer:?}")
        };
        assert_eq!(description, "no [redacted], no [redacted]");
    }

    #[test]
    fn introspection_and_revocation_are_below_the_token_endpoint() {
        let endpoint = endpoint(Always(StatusCode::OK, b""));
        let shown = [&endpoint.introspect_url, &endpoint.revoke_url].map(ToString::to_string);
        assert_eq!(
            shown,
            [
                "http://127.0.0.1/oauth2/token/introspect",
                "http://127.0.0.1/oauth2/token/revoke"
            ]
        );
    }

    #[tokio::test]
    async fn a_revocation_happened_only_if_the_server_says_so() {
        let revoked = |status, body| {
            let endpoint = endpoint(Always(status, body));
            async move { endpoint.revoke(&Secret::from("token")).await }
        };
        assert_eq!(revoked(StatusCode::OK, b"").await, Ok(()));
        assert_eq!(
            revoked(StatusCode::UNAUTHORIZED, br#"{"error":"invalid_client"}"#).await,
            Err(RevokeError::BadClient)
        );
        let failed = revoked(StatusCode::SERVICE_UNAVAILABLE, b"").await;
        assert!(matches!(failed, Err(RevokeError::Failed(_))), "{failed:?}");
    }
}
