//! Why there is no answer from upstream, and whose fault that is.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::Error as TlsError;

use super::body::OutgoingError;
use crate::dial::{Attempts, DialError, NoTunnel, Peer, Step};

/// Why a request got no answer from upstream.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("cannot reach upstream: {0}{advice}", advice = advice(.0))]
    Dial(DialError),
    /// The request was sent and no answer came in time.
    #[error("upstream did not answer within {0:?} (upstream.response_timeout)")]
    ResponseTimeout(Duration),
    /// Upstream took no more of the request.
    #[error("upstream took nothing of the request body for {0:?} (timeouts.body)")]
    RequestTimeout(Duration),
    /// The client sent no more of the request.
    #[error("nothing came of the request body for {0:?} (timeouts.body)")]
    ClientTimeout(Duration),
    /// The connection ended before an answer.
    #[error("the connection to upstream ended before it answered")]
    Ended(#[source] hyper::Error),
    /// The client's part of the request broke off, or is not what its framing says.
    #[error("the request body ended before its time or is not framed as HTTP/1.1 asks")]
    RequestBody(#[source] hyper::Error),
    /// What was recorded of the request cannot be had again.
    #[error("the recorded part of the request body cannot be sent again: {}", cause(.0))]
    Recording(#[source] hyper::Error),
    /// Others that open a connection have not come to an end.
    #[error("upstream {0} did not accept a connection within {1:?} (upstream.connect_timeout)")]
    ConnectTimeout(String, Duration),
    /// Upstream does not speak what it must.
    #[error("upstream {0} does not speak HTTP/2; set upstream.http to \"auto\", or leave it out")]
    NoHttp2(String),
    /// Upstream took no request on an HTTP/2 connection.
    #[error("upstream refused the request on each of its HTTP/2 connections that was tried")]
    Refused(#[source] hyper::Error),
    /// Upstream changed the protocol, which nobody asked for.
    #[error("upstream switched to another protocol, which it was not asked to")]
    Switched,
    /// The answer says in no way, or in more than one, where it ends.
    #[error(
        "upstream's answer does not say in one way only where it ends: by one Content-Length, or by Transfer-Encoding: chunked alone"
    )]
    Framing,
    /// The answer is not HTTP.
    #[error("upstream's answer is not HTTP as it should be: {0}")]
    Garbage(hyper::Error),
}

impl From<DialError> for SendError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

/// What to do about it, where the error does not say so itself.
fn advice(error: &DialError) -> &'static str {
    match error {
        DialError::LookUp(Peer::Server(_), _) | DialError::Connect(Peer::Server(_), _) => {
            "; check upstream.url and the network"
        }
        DialError::Tls(_, error) if is_about_certificate(error) => {
            "; lucid-proxy doctor tells whose certificate it is"
        }
        DialError::TimedOut(..) => " (upstream.connect_timeout)",
        _ => "",
    }
}

fn is_about_certificate(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(TlsError::InvalidCertificate(_)))
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

/// What hyper was told by the body; its own words say only that it was told something.
fn cause(error: &hyper::Error) -> String {
    error.source().map_or_else(String::new, |source| {
        let below = source.source();
        below.map_or_else(|| source.to_string(), |below| format!("{source}: {below}"))
    })
}

impl SendError {
    /// What hyper reports when a request body fails, by whose part of it that was.
    pub(super) fn request_body(error: hyper::Error) -> Self {
        let said = error.source().and_then(|source| source.downcast_ref());
        match said {
            Some(OutgoingError::<hyper::Error>::Unreadable(_) | OutgoingError::Lost(_)) => {
                Self::Recording(error)
            }
            _ => Self::RequestBody(error),
        }
    }

    /// Whether upstream took too long, rather than failed.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Dial(DialError::Connect(_, attempts)) => {
                attempts.kind() == Some(ErrorKind::TimedOut)
            }
            Self::Dial(DialError::TimedOut(..))
            | Self::ConnectTimeout(..)
            | Self::ResponseTimeout(_)
            | Self::RequestTimeout(_) => true,
            _ => false,
        }
    }

    /// The error type of RFC 9209 section 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match self {
            Self::Dial(error) => unreached(error),
            Self::ConnectTimeout(..) => "connection_timeout",
            Self::ResponseTimeout(_) => "http_response_timeout",
            Self::RequestTimeout(_) => "connection_write_timeout",
            Self::Ended(_) | Self::Refused(_) => "connection_terminated",
            Self::RequestBody(_) | Self::ClientTimeout(_) => "http_request_error",
            Self::Recording(_) => "proxy_internal_error",
            Self::Garbage(_) | Self::Switched | Self::Framing | Self::NoHttp2(_) => {
                "http_protocol_error"
            }
        }
    }
}

fn unreached(error: &DialError) -> &'static str {
    match error {
        DialError::UnknownProxy(_) => "proxy_configuration_error",
        DialError::LookUp(..) => "dns_error",
        DialError::Prohibited(..) => "destination_ip_prohibited",
        DialError::Connect(_, attempts) => unconnected(attempts),
        DialError::Tls(_, error) => match tls_error(error) {
            Some(TlsError::InvalidCertificate(_)) => "tls_certificate_error",
            Some(TlsError::AlertReceived(_)) => "tls_alert_received",
            _ => "tls_protocol_error",
        },
        DialError::Tunnel(error) => no_tunnel(&error.why),
        DialError::TimedOut(progress, _) => match progress.step {
            Step::LookUp(_) => "dns_timeout",
            Step::Connect(_) | Step::Tunnel(..) | Step::Tls(_) => "connection_timeout",
        },
    }
}

/// To whoever asks this proxy, the one behind it is the next hop.
fn no_tunnel(why: &NoTunnel) -> &'static str {
    match why {
        // It is this proxy that lacks a user and a password.
        NoTunnel::Unauthorized(_) => "proxy_configuration_error",
        NoTunnel::Refused(status) if status.is_client_error() => "http_request_denied",
        NoTunnel::Refused(_) => "destination_unavailable",
        NoTunnel::Broken(error) if error.is_parse_too_large() => {
            "http_response_header_section_size"
        }
        NoTunnel::Broken(error) if error.is_parse() => "http_protocol_error",
        NoTunnel::Broken(_) => "connection_terminated",
        NoTunnel::Talks => "http_protocol_error",
    }
}

fn unconnected(attempts: &Attempts) -> &'static str {
    match attempts.kind() {
        Some(ErrorKind::ConnectionRefused) => "connection_refused",
        Some(ErrorKind::TimedOut) => "connection_timeout",
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            "destination_ip_unroutable"
        }
        _ => "destination_unavailable",
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    use super::*;

    /// A body that fails at once.
    struct Failing(Option<OutgoingError>);

    impl Body for Failing {
        type Data = Bytes;
        type Error = OutgoingError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
            Poll::Ready(self.0.take().map(Err))
        }
    }

    async fn reported(error: OutgoingError) -> SendError {
        let (near, _far) = tokio::io::duplex(1024);
        let (mut sender, driver) = http1::handshake(TokioIo::new(near)).await.expect("ready");
        let request = http::Request::post("/").body(Failing(Some(error)));
        let request = request.expect("a request");
        let (sent, _) = tokio::join!(sender.send_request(request), driver);
        let error = sent.expect_err("the body failed");
        assert!(error.is_user(), "{error:?}");
        SendError::request_body(error)
    }

    #[tokio::test]
    async fn a_recording_that_cannot_be_read_is_not_the_clients_fault() {
        let gone = reported(OutgoingError::Gone).await;
        assert!(matches!(gone, SendError::RequestBody(_)));
        let disk = io::Error::from(io::ErrorKind::QuotaExceeded);
        let unreadable = reported(OutgoingError::Unreadable(disk)).await;
        assert_eq!(unreadable.proxy_error(), "proxy_internal_error");
        assert_eq!(
            unreadable.to_string(),
            "the recorded part of the request body cannot be sent again: the recording cannot be read: quota exceeded"
        );
    }
}
