//! How the proxy's own answers are written: Lucid's error shape, with a `Proxy-Status` that says who speaks (RFC 9209).

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;

use super::{Form, Refusal};
use crate::proxy::body::ResponseBody;
use crate::proxy::head::{self, PSEUDONYM};

pub(in crate::proxy) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const X_LUCID_FLOW_ID: HeaderName = HeaderName::from_static("x-lucid-flow-id");

impl Refusal {
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
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // RFC 9110 section 15.5.8.
            let challenge = HeaderValue::from_static("Basic realm=\"lucid-proxy\"");
            headers.insert(PROXY_AUTHENTICATE, challenge);
        }
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
pub(in crate::proxy) fn answer(json: &impl Serialize, details: &str) -> Response<ResponseBody> {
    own(json, &request_id(), status_line("details=", details))
}

/// An answer without content that the proxy makes by itself; `details` says so.
pub(in crate::proxy) fn no_content(details: &str) -> Response<ResponseBody> {
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

/// Notes in `Proxy-Status` what became of a first answer of 401.
pub(in crate::proxy) fn note(details: &str) -> HeaderValue {
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
}
