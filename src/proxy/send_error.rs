//! Why there is no answer from upstream, and whose fault that is.

use std::io;
use std::time::Duration;

/// Why a request got no answer from upstream.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The name is unknown.
    #[error("cannot find the address of upstream {0}: {1}; check upstream.url and the network")]
    Lookup(String, io::Error),
    /// Nobody answers there.
    #[error("cannot connect to upstream {0}: {1}; check upstream.url and the network")]
    Connect(String, io::Error),
    /// The TLS handshake failed.
    #[error("no trusted TLS connection to upstream {0}: {1}")]
    Tls(String, io::Error),
    /// Connecting took too long.
    #[error("upstream {0} did not accept a connection within {1:?} (upstream.connect_timeout)")]
    ConnectTimeout(String, Duration),
    /// The request was sent and no answer came in time.
    #[error("upstream did not answer within {0:?} (upstream.response_timeout)")]
    ResponseTimeout(Duration),
    /// The request stood still on its way.
    #[error("the request body stood still for {0:?} (timeouts.body)")]
    RequestTimeout(Duration),
    /// The connection ended before an answer.
    #[error("the connection to upstream ended before it answered")]
    Ended(#[source] hyper::Error),
    /// The client's part of the request broke off, or is not what its framing says.
    #[error("the request body ended before its time or is not framed as HTTP/1.1 asks")]
    RequestBody(#[source] hyper::Error),
    /// Upstream changed the protocol, which nobody asked for.
    #[error("upstream switched to another protocol, which it was not asked to")]
    Switched,
    /// The answer is coded in a way that cannot be passed on.
    #[error("upstream's answer has a transfer coding other than chunked")]
    Coding,
    /// The answer is not HTTP.
    #[error("upstream's answer is not HTTP/1.1: {0}")]
    Garbage(hyper::Error),
}

impl SendError {
    /// Whether it took too long, rather than failed.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout(..) | Self::ResponseTimeout(_) | Self::RequestTimeout(_)
        )
    }

    /// The error type of RFC 9209 section 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match self {
            Self::Lookup(..) => "dns_error",
            Self::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection_refused"
            }
            Self::Connect(..) => "destination_unavailable",
            Self::Tls(..) => "tls_protocol_error",
            Self::ConnectTimeout(..) => "connection_timeout",
            Self::ResponseTimeout(_) => "http_response_timeout",
            Self::RequestTimeout(_) => "connection_write_timeout",
            Self::Ended(_) => "connection_terminated",
            Self::RequestBody(_) => "http_request_error",
            Self::Garbage(_) | Self::Switched | Self::Coding => "http_protocol_error",
        }
    }
}
