//! What the proxy itself answers: Lucid's error shape, with a `Proxy-Status` that says who speaks (RFC 9209).

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;

use super::body::ResponseBody;
use super::head::{self, PSEUDONYM};
use super::send_error::SendError;
use crate::token::NoToken;
use crate::token::state::Trouble;

pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const X_LUCID_FLOW_ID: HeaderName = HeaderName::from_static("x-lucid-flow-id");

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

/// Lucid's error object.
#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

/// The error object of Lucid's OAuth endpoints.
#[derive(Serialize)]
struct OAuthErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
    error_uri: &'a str,
}

impl Refusal {
    fn new(
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

    pub(super) fn origin_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "originNotAllowed",
            "http_request_denied",
            message,
        )
    }

    pub(super) fn no_tunnels() -> Self {
        let message = "CONNECT is not offered; use this proxy's address in the place of https://api.lucid.co, not as HTTPS_PROXY";
        Self {
            // A client that takes it for a tunnel sends what is no HTTP.
            closes: true,
            ..Self::new(
                StatusCode::FORBIDDEN,
                "policyDenied",
                "http_request_denied",
                message,
            )
        }
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

    /// The answer as a response.
    pub fn into_response(self) -> Response<ResponseBody> {
        let request_id = request_id();
        let parameters = format!("error={}; details=", self.error);
        let status_line = status_line(&parameters, &self.message);
        let mut response = match self.form {
            Form::Api => own(
                &ErrorBody {
                    code: self.code,
                    message: &self.message,
                    request_id: &request_id,
                },
                &request_id,
                status_line,
            ),
            Form::OAuth => own(
                &OAuthErrorBody {
                    error: self.code,
                    error_description: &self.message,
                    error_uri: "",
                },
                &request_id,
                status_line,
            ),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // Only what answers nothing but POST refuses a method so (RFC 9110 section 15.5.6).
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Only a client without its key is refused so (RFC 9110 section 11.6.1).
            let challenge = HeaderValue::from_static("Bearer realm=\"lucid-proxy\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        // The rest of the request is not read (RFC 9110 sections 15.5.9 and 15.5.14).
        let is_unread = matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE
        );
        if self.closes || is_unread {
            head::close(headers);
        }
        response
    }
}

/// The answer as the bytes of HTTP/1.1, for who gets it without having been heard.
pub(crate) fn unasked(refusal: Refusal) -> Vec<u8> {
    let (head, body) = refusal.into_response().into_parts();
    let body = body.collect().now_or_never().and_then(Result::ok);
    let body = body
        .expect("what the proxy itself answers is there")
        .to_bytes();
    let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend(body);
    bytes
}

/// An answer with status 200 that the proxy makes by itself; `details` says so.
pub(super) fn answer(json: &impl Serialize, details: &str) -> Response<ResponseBody> {
    own(json, &request_id(), status_line("details=", details))
}

/// An answer without content that the proxy makes by itself; `details` says so.
pub(super) fn no_content(details: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::local(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let status_line = status_line("details=", details);
    response.headers_mut().insert(PROXY_STATUS, status_line);
    response
}

fn own(
    json: &impl Serialize,
    request_id: &str,
    status_line: HeaderValue,
) -> Response<ResponseBody> {
    let json = serde_json::to_vec(json).expect("strings, numbers and lists always serialise");
    let mut response = Response::new(ResponseBody::local(Bytes::from(json)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PROXY_STATUS, status_line);
    headers.insert(
        X_LUCID_FLOW_ID,
        HeaderValue::try_from(request_id).expect("hexadecimal digits"),
    );
    response
}

/// As Lucid writes one.
fn request_id() -> String {
    format!("{:016x}", fastrand::u64(..))
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

/// Notes in `Proxy-Status` what became of a first answer of 401.
pub(super) fn note(details: &str) -> HeaderValue {
    status_line("received-status=401; details=", details)
}

/// A member of the list that `Proxy-Status` is, its last parameter a quoted string (RFC 8941 section 3.3.3).
fn status_line(parameters: &str, text: &str) -> HeaderValue {
    let mut line = format!("{PSEUDONYM}; {parameters}\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            ' '..='~' => line.push(character),
            _ => line.push('?'),
        }
    }
    line.push('"');
    HeaderValue::try_from(line).expect("visible ASCII and spaces")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s08_any_text_becomes_a_valid_field() {
        let value = note("a \"quoted\" \\ line\r\nX-Evil: é\u{7f}");
        assert_eq!(
            value,
            r#"lucid-proxy; received-status=401; details="a \"quoted\" \\ line??X-Evil: ??""#
        );
    }

    #[test]
    fn every_refusal_has_a_text_of_its_own() {
        let refusals = [
            Refusal::host_not_allowed("a"),
            Refusal::origin_not_allowed("a"),
            Refusal::no_tunnels(),
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
