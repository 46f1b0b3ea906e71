//! What the proxy itself answers, and why: each refusal with its status, its code and what to do next. How that is written
//! is the matter of `writing`.

mod writing;

use std::time::Duration;

use http::StatusCode;

use super::send_error::SendError;
use crate::token::NoToken;
use crate::token::state::Trouble;
pub(crate) use writing::unasked;
pub(super) use writing::{PROXY_STATUS, answer, no_content, note};

/// When a client may try again that there was no room for: room comes with every request that ends.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// An answer of our own instead of upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// `code` of Lucid's error object; the names are listed in the README.
    pub code: &'static str,
    /// The error type of RFC 9209 section 2.3.
    pub error: &'static str,
    /// What happened and what to do next.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// In which form it is written.
    pub form: Form,
    /// Whether the connection ends with it: what follows such a request may be part of it to somebody.
    pub closes: bool,
}

/// The form of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As Lucid's API writes one.
    Api,
    /// As its OAuth endpoints do (RFC 6749 section 5.2).
    OAuth,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        error: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            error,
            message: message.into(),
            retry_after: None,
            form: Form::Api,
            closes: false,
        }
    }

    /// For a program that speaks OAuth; `code` is one of RFC 6749 section 5.2 or its extensions.
    pub(super) fn oauth(
        status: StatusCode,
        code: &'static str,
        error: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            form: Form::OAuth,
            ..Self::new(status, code, error, message)
        }
    }

    pub(super) fn host_not_allowed(host: &str) -> Self {
        let message = format!(
            "Host {host:?} is not a name of this proxy; use the address that it listens on, or add to proxy.toml: [guard] allow_hosts = [{host:?}]"
        );
        Self::new(
            StatusCode::FORBIDDEN,
            "hostNotAllowed",
            "http_request_denied",
            message,
        )
    }

    /// For `0.0.0.0` and its like, which no configuration allows; `own` is a name that is served.
    pub(super) fn every_address(host: &str, own: &str) -> Self {
        let message = format!(
            "Host {host:?} means every address and is a name of none, and web pages could reach this machine by it; use {own}"
        );
        Self::new(
            StatusCode::FORBIDDEN,
            "hostNotAllowed",
            "http_request_denied",
            message,
        )
    }

    pub(super) fn origin_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "originNotAllowed",
            "http_request_denied",
            message,
        )
    }

    pub(super) fn oauth_endpoint() -> Self {
        let message = "requests to /oauth2 are not forwarded: the proxy refreshes the token by itself, and a second program that does so would end its grant; leave the refresh out, or have it answered here: oauth2_endpoint = \"local\"";
        Self::new(
            StatusCode::FORBIDDEN,
            "policyDenied",
            "http_request_denied",
            message,
        )
    }

    pub(super) fn unknown_oauth_endpoint() -> Self {
        let message = "below /oauth2 the proxy answers POST /oauth2/token and /oauth2/token/introspect and forwards nothing; to log in: lucid-proxy login";
        Self::new(
            StatusCode::FORBIDDEN,
            "policyDenied",
            "http_request_denied",
            message,
        )
    }

    /// Why is not said: that would tell a stranger how near they are.
    pub(super) fn client_key_required() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "clientKeyRequired",
            "http_request_denied",
            "this proxy serves clients with a key; send it once, as Authorization: Bearer KEY, or as Proxy-Authorization: Bearer KEY or Basic with NAME:KEY; a new one is made with: lucid-proxy key new NAME",
        )
    }

    /// For what the rules of the configuration do not permit (S5).
    pub(super) fn policy_denied(message: String) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "policyDenied",
            "http_request_denied",
            message,
        )
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self {
            closes: true,
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "badRequest",
                "http_request_error",
                message,
            )
        }
    }

    /// For a client that speaks plain HTTP where TLS is spoken.
    pub(crate) fn plain_on_tls() -> Self {
        Self::bad_request("this port speaks TLS: begin the address with https://")
    }

    /// The same inside of a tunnel.
    pub(crate) fn plain_inside(host: &str, port: u16) -> Self {
        Self::bad_request(&format!(
            "CONNECT {host}:{port} leads to TLS: begin the address with https://, or ask the proxy for http://{host} without CONNECT"
        ))
    }

    pub(super) fn head_too_large(most: usize) -> Self {
        let message = format!(
            "the head of the request has more than {most} bytes; send fewer or shorter headers, or raise limits.header_bytes"
        );
        Self::too_large(message)
    }

    pub(super) fn too_many_fields(most: usize) -> Self {
        let message = format!(
            "the request has more than {most} headers; send fewer, or raise limits.headers"
        );
        Self::too_large(message)
    }

    fn too_large(message: String) -> Self {
        Self {
            closes: true,
            ..Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headersTooLarge",
                "http_request_error",
                message,
            )
        }
    }

    pub(super) fn target_too_long(most: usize) -> Self {
        let message = format!(
            "the target of the request has more than {most} bytes; send a shorter one, or raise limits.uri_bytes"
        );
        Self {
            closes: true,
            ..Self::new(
                StatusCode::URI_TOO_LONG,
                "uriTooLong",
                "http_request_error",
                message,
            )
        }
    }

    pub(super) fn too_many_requests(most: usize) -> Self {
        Self::overloaded(format!(
            "{most} requests are under way, and no more are taken (limits.requests); try again"
        ))
    }

    /// For a connection that is not taken.
    pub(crate) fn too_many_connections(most: usize) -> Self {
        let message = format!(
            "{most} connections are open, and no more are taken (limits.connections); try again"
        );
        Self {
            closes: true,
            ..Self::overloaded(message)
        }
    }

    /// The same for a client that has its share.
    pub(crate) fn too_many_connections_of_an_address(most: usize) -> Self {
        let message = format!(
            "{most} connections from this address are open, and no more are taken (limits.connections_per_address); use fewer, or try again"
        );
        Self {
            closes: true,
            ..Self::overloaded(message)
        }
    }

    fn overloaded(message: String) -> Self {
        Self {
            retry_after: Some(RETRY_SOON),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "http_request_denied",
                message,
            )
        }
    }

    pub(super) fn looped() -> Self {
        let message = "this request has been through lucid-proxy before; check that upstream.url is not the proxy's own address";
        Self::new(
            StatusCode::LOOP_DETECTED,
            "loopDetected",
            "proxy_loop_detected",
            message,
        )
    }

    /// What answers a TRACE repeats the request, and with it the token (RFC 9110 section 9.3.8).
    pub(super) fn no_trace() -> Self {
        let message = "TRACE is not forwarded: its answer would repeat the proxy's token";
        Self::policy_denied(message.to_owned())
    }

    /// For a request that goes no further than here (RFC 9110 section 7.6.2).
    pub(super) fn no_more_forwards() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "policyDenied",
            "http_request_denied",
            "the request came with Max-Forwards: 0 and ends here; this is lucid-proxy, which answers OPTIONS by itself in no other way",
        )
    }
}

impl From<NoToken> for Refusal {
    fn from(no_token: NoToken) -> Self {
        let message = no_token.trouble.to_string();
        let code = match no_token.trouble {
            Trouble::LoginRequired(_) => "loginRequired",
            Trouble::TokenUnavailable(_) => "tokenUnavailable",
            Trouble::StoreUnwritable(_) => "storeUnwritable",
        };
        let refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            "proxy_configuration_error",
            message,
        );
        let error = if code == "tokenUnavailable" {
            "destination_unavailable"
        } else {
            refusal.error
        };
        Self {
            error,
            retry_after: no_token.retry_after,
            ..refusal
        }
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        let (status, code) = match error {
            SendError::RequestBody(_) => (StatusCode::BAD_REQUEST, "badRequest"),
            SendError::ClientTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "requestTimeout"),
            _ if error.is_timeout() => (StatusCode::GATEWAY_TIMEOUT, "upstreamTimeout"),
            _ => (StatusCode::BAD_GATEWAY, "upstreamUnreachable"),
        };
        Self {
            closes: status == StatusCode::BAD_REQUEST,
            ..Self::new(status, code, error.proxy_error(), error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::connect::{Destination, Reason};

    #[test]
    fn every_refusal_has_a_text_of_its_own() {
        let refusals = [
            Refusal::host_not_allowed("a"),
            Refusal::every_address("a", "b"),
            Refusal::origin_not_allowed("a"),
            Refusal::no_tunnels(),
            Refusal::no_tunnels_inside(),
            Refusal::no_tunnels_in_http2(),
            Refusal::elsewhere(&Reason::Malformed),
            Refusal::elsewhere(&Reason::Ssh),
            Refusal::elsewhere(&Reason::Address),
            Refusal::elsewhere(&Reason::Local),
            Refusal::elsewhere(&Reason::OtherPort("a".to_owned(), 1)),
            Refusal::elsewhere(&Reason::Real("a".to_owned())),
            Refusal::elsewhere(&Reason::NotAllowed(Destination {
                host: "a".to_owned(),
                port: 1,
            })),
            Refusal::proxy_key_required(),
            Refusal::plain_inside("a", 443),
            Refusal::oauth_endpoint(),
            Refusal::unknown_oauth_endpoint(),
            Refusal::client_key_required(),
            Refusal::policy_denied("c".to_owned()),
            Refusal::bad_request("b"),
            Refusal::plain_on_tls(),
            Refusal::head_too_large(1),
            Refusal::too_many_fields(1),
            Refusal::target_too_long(1),
            Refusal::too_many_requests(1),
            Refusal::too_many_connections(1),
            Refusal::too_many_connections_of_an_address(1),
            Refusal::looped(),
            Refusal::no_trace(),
            Refusal::no_more_forwards(),
        ];
        let mut messages: Vec<_> = refusals.iter().map(|refusal| &refusal.message).collect();
        messages.sort_unstable();
        messages.dedup();
        assert_eq!(messages.len(), refusals.len());
    }
}
