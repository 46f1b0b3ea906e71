//! One POST to one of the token endpoint's URLs, and what came back (rule T5).
//!
//! [`Transport`] is the seam between what is asked and how it travels: the program uses [`Https`], the simulation of the
//! grant's life a network of its own.

use std::fmt;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Uri};

use crate::config::{HttpProxy, Network, Origin, Scheme, Way};
use crate::secret::{Buffer, ExposeSecret, Zeroizing};
use crate::tls;

/// Until the request is on its way. Longer than a retransmitted SYN takes, shorter than people wait.
pub const CONNECT: Duration = Duration::from_secs(10);
/// From then on. Giving up while the server still works loses the pair that it issues, so this is generous.
pub const ANSWER: Duration = Duration::from_secs(60);
/// How this program's own requests to the token endpoint are known, the version behind it (RFC 9110 section 10.1.5).
pub(crate) const PRODUCT: &str = "lucid-proxy/";
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
    pub body: Zeroizing<Vec<u8>>,
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
#[derive(Clone)]
pub struct Answered {
    /// The HTTP status.
    pub status: StatusCode,
    /// What the server asked for.
    pub retry_after: Option<Duration>,
    /// The server's clock.
    pub date: Option<SystemTime>,
    /// All of its content. It may hold secrets.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The network.
#[derive(Debug)]
pub struct Https {
    http: reqwest::Client,
    /// Through what, in words for a failure; or why it is not known where to go.
    way: Result<String, String>,
}

/// Why there is no way to the token endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No trusted certificates.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The URL names no host.
    #[error("{0} is no URL of a token endpoint; give one like https://api.lucid.co/oauth2/token")]
    Url(Uri),
    /// The HTTP client could not be built.
    #[error("cannot prepare requests to the token endpoint")]
    Client(#[from] reqwest::Error),
}

impl Https {
    /// A way to the origin of `url` by this network: with the proxy and the trust of requests to upstream.
    ///
    /// # Errors
    ///
    /// When nobody is trusted, the URL has no origin, or no HTTP client can be made.
    pub fn new(network: &Network, url: &Uri) -> Result<Self, TransportError> {
        let origin = Origin::of(url).ok_or_else(|| TransportError::Url(url.clone()))?;
        let (proxy, way) = match network.way_to(&origin) {
            Way::Direct(_) => (None, Ok(String::new())),
            Way::Proxy(proxy) => {
                let through = format!(" through the proxy {} ({})", proxy.origin, proxy.set_by);
                (Some(through_proxy(proxy)?), Ok(through))
            }
            Way::Unknown(unusable) => (None, Err(unusable.to_string())),
        };
        let tls = match origin.scheme {
            // On this machine alone, where there is no proxy either.
            Scheme::Http => tls::trusting_nobody(),
            Scheme::Https => tls::client_config(tls::verifier(network.extra_roots())?),
        };
        let builder = reqwest::Client::builder()
            .user_agent(format!("{PRODUCT}{}", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A fresh connection each time: one that dies as it is used would leave the outcome unknown.
            .pool_max_idle_per_host(0)
            // The environment was read with the configuration.
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(CONNECT + ANSWER)
            .tls_backend_preconfigured(tls);
        let builder = match proxy {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        };
        let http = builder.build()?;
        Ok(Self { http, way })
    }

    async fn send(&self, url: &Uri, content: Content) -> Delivery {
        let way = match &self.way {
            Ok(way) => way,
            Err(unknown) => return Delivery::NotSent(format!("could not be asked: {unknown}")),
        };
        let request = self
            .http
            .post(url.to_string())
            .header(CONTENT_TYPE, HeaderValue::from_static(content.content_type))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Bytes::from_owner(content.body));
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => {
                let sent = !error.is_connect() && !error.is_builder();
                let hint = match way.is_empty() {
                    true => "",
                    false => "; lucid-proxy doctor tells what the proxy answers",
                };
                let cause = chain(&error.without_url());
                let message = format!("could not be asked{way}: {cause}{hint}");
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

fn through_proxy(proxy: &HttpProxy) -> Result<reqwest::Proxy, reqwest::Error> {
    let through = reqwest::Proxy::all(proxy.origin.to_string())?;
    Ok(match &proxy.authorization {
        None => through,
        Some(authorization) => {
            let mut value = HeaderValue::try_from(authorization.expose_secret())
                .expect("Basic and base64 are visible ASCII");
            value.set_sensitive(true);
            through.custom_http_auth(value)
        }
    })
}

async fn read(mut response: reqwest::Response) -> Delivery {
    let status = response.status();
    let (retry_after, date) = (retry_after(response.headers()), date(response.headers()));
    let mut body = Buffer::default();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => {
                body.write_all(&chunk).expect("memory takes all of it");
            }
            Ok(Some(_)) => {
                return Delivery::Unknown(format!("sent too large an answer ({status})"));
            }
            Ok(None) => {
                return Delivery::Answered(Answered {
                    status,
                    retry_after,
                    date,
                    body: body.into_bytes(),
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Posts to a server that does this with its first connection.
    async fn posted<F>(scheme: &str, serve: impl FnOnce(TcpStream) -> F) -> Delivery
    where
        F: Future<Output = ()>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let url: Uri = format!("{scheme}://{address}/oauth2/token")
            .parse()
            .expect("a URL");
        let transport = Https::new(&Network::default(), &url).expect("a transport");
        let content = Content {
            content_type: "application/json",
            body: b"{}".to_vec().into(),
        };
        let serve = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream).await;
        };
        tokio::join!(transport.post(&url, content), serve).0
    }

    /// Reads as far as the request's last byte.
    async fn whole_request(stream: &mut TcpStream) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n{}") {
            seen.push(stream.read_u8().await.expect("more of the request"));
        }
    }

    #[tokio::test]
    async fn t05_what_fails_before_the_request_was_not_sent_and_all_else_is_unknown() {
        let broken_tls = posted("https", |mut stream| async move {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        assert!(matches!(broken_tls.await, Delivery::NotSent(_)));
        let closed_in_handshake = posted("https", |stream| async move { drop(stream) });
        assert!(matches!(closed_in_handshake.await, Delivery::NotSent(_)));
        for answer in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        ] {
            let delivery = posted("http", |mut stream| async move {
                whole_request(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
            let delivery = delivery.await;
            assert!(matches!(delivery, Delivery::Unknown(_)), "{delivery:?}");
        }
        let answered = posted("http", |mut stream| async move {
            whole_request(&mut stream).await;
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n[]";
            stream.write_all(answer).await.expect("written");
        });
        let Delivery::Answered(answered) = answered.await else {
            panic!("a whole answer")
        };
        assert_eq!(
            (answered.status.as_u16(), answered.body.as_slice()),
            (400, &b"[]"[..])
        );
    }

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
    fn s06_what_is_posted_and_answered_does_not_show_under_debug() {
        let content = Content {
            content_type: "application/json",
            body: b"marked".to_vec().into(),
        };
        let answered = Delivery::Answered(Answered {
            status: StatusCode::OK,
            retry_after: None,
            date: None,
            body: b"marked".to_vec().into(),
        });
        let shown = format!("{content:?} {answered:?}");
        assert!(shown.contains("json") && shown.contains("200"), "{shown}");
        assert!(!shown.contains("marked"), "{shown}");
        assert!(!shown.contains("109"), "nor its bytes as numbers: {shown}");
    }
}
