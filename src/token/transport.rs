//! One POST to one of the token endpoint's URLs, and what came back (rule T5).
//!
//! [`Transport`] is the seam between what is asked and how it travels: the program uses [`Https`], the simulation of the
//! grant's life a network of its own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Uri};

use crate::config::{Origin, Scheme};

/// Until the request is on its way. Longer than a retransmitted SYN takes, shorter than people wait.
pub const CONNECT: Duration = Duration::from_secs(10);
/// From then on. Giving up while the server still works loses the pair that it issues, so this is generous.
pub const ANSWER: Duration = Duration::from_secs(60);
/// More than any token answer needs.
const LARGEST_ANSWER: usize = 256 << 10;

/// Sends requests to the token endpoint.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends one POST, on a connection of its own, following no redirect and repeating nothing.
    fn post<'a>(&'a self, url: &'a Uri, content: Content) -> Posting<'a>;
}

/// A POST under way.
pub type Posting<'a> = Pin<Box<dyn Future<Output = Delivery> + Send + 'a>>;

/// What is sent.
pub struct Content {
    /// `application/json` or `application/x-www-form-urlencoded`.
    pub content_type: &'static str,
    /// It holds secrets.
    pub body: Vec<u8>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// What became of a POST.
#[derive(Debug)]
pub enum Delivery {
    /// A whole answer.
    Answered(Answered),
    /// Not one byte of the request was sent.
    NotSent(String),
    /// The request may have been processed; its answer did not come, or not whole.
    Unknown(String),
}

/// An answer of the token endpoint.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The HTTP status.
    pub status: StatusCode,
    /// What the server asked for.
    pub retry_after: Option<Duration>,
    /// The server's clock.
    pub date: Option<SystemTime>,
    /// All of its content.
    pub body: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub struct Https {
    http: reqwest::Client,
}

/// Why there is no way to the token endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No trusted certificates.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The HTTP client could not be built.
    #[error("cannot prepare requests to the token endpoint")]
    Client(#[from] reqwest::Error),
}

impl Https {
    /// A way to `url`, which trusts what the system trusts.
    ///
    /// # Errors
    ///
    /// When the system has no trusted certificates, or no HTTP client can be made.
    pub fn new(url: &Uri) -> Result<Self, TransportError> {
        let tls = match Origin::of(url) {
            Some(origin) if origin.scheme == Scheme::Http => crate::tls::trusting_nobody(),
            _ => crate::tls::client_config()?,
        };
        let http = reqwest::Client::builder()
            .user_agent(concat!("lucid-proxy/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A fresh connection each time: one that dies as it is used would leave the outcome unknown.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(CONNECT + ANSWER)
            .tls_backend_preconfigured(tls)
            .build()?;
        Ok(Self { http })
    }

    async fn send(&self, url: &Uri, content: Content) -> Delivery {
        let request = self
            .http
            .post(url.to_string())
            .header(CONTENT_TYPE, HeaderValue::from_static(content.content_type))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(content.body);
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => {
                let sent = !error.is_connect() && !error.is_builder();
                let message = format!("could not be asked: {}", chain(&error.without_url()));
                if sent {
                    Delivery::Unknown(message)
                } else {
                    Delivery::NotSent(message)
                }
            }
        }
    }
}

impl Transport for Https {
    fn post<'a>(&'a self, url: &'a Uri, content: Content) -> Posting<'a> {
        Box::pin(self.send(url, content))
    }
}

async fn read(mut response: reqwest::Response) -> Delivery {
    let status = response.status();
    let (retry_after, date) = (retry_after(response.headers()), date(response.headers()));
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                return Delivery::Unknown(format!("sent too large an answer ({status})"));
            }
            Ok(None) => {
                return Delivery::Answered(Answered {
                    status,
                    retry_after,
                    date,
                    body,
                });
            }
            Err(error) => {
                let cause = chain(&error.without_url());
                return Delivery::Unknown(format!(
                    "sent an answer ({status}) that was cut off: {cause}"
                ));
            }
        }
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

/// Seconds or a date (RFC 9110 section 10.2.3); a date counts from the server's own clock where it tells that.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    until
        .duration_since(date(headers).unwrap_or_else(SystemTime::now))
        .ok()
}

/// The server's clock, as `Date` tells it (RFC 9110 section 6.6.1).
pub(crate) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// The preferred form of RFC 9110 section 5.6.7.
fn http_date(text: &str) -> Option<SystemTime> {
    let date: DateTime<Utc> = DateTime::parse_from_rfc2822(text.trim()).ok()?.to_utc();
    Some(date.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_retry_after_is_seconds_or_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a value"));
            headers.insert(
                DATE,
                HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"),
            );
            retry_after(&headers)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("soon"), None);
        assert_eq!(read("Wed, 21 Oct 2015 07:27:00 GMT"), None, "in the past");
        assert_eq!(
            read("Wed, 21 Oct 2015 07:28:09 GMT"),
            Some(Duration::from_secs(9)),
            "by the server's clock"
        );
    }

    #[test]
    fn s06_what_is_sent_does_not_show_under_debug() {
        let content = Content {
            content_type: "application/json",
            body: b"marked".to_vec(),
        };
        assert!(!format!("{content:?}").contains("marked"));
        assert!(
            !format!("{content:?}").contains("109"),
            "nor its bytes as numbers"
        );
    }
}
