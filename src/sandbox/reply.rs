//! Answers, and Lucid's error object.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use serde::Serialize;
use serde_json::json;

use super::body::ReplyBody;
use super::intake::MeteredBody;

pub(super) const X_LUCID_FLOW_ID: HeaderName = HeaderName::from_static("x-lucid-flow-id");

pub(super) type Reply = Response<ReplyBody>;

/// The number that Lucid gives every exchange; `requestId` in an error object.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowId(u64);

impl FlowId {
    pub(super) fn random() -> FlowId {
        FlowId(fastrand::u64(..))
    }

    pub(super) fn stamp(self, reply: &mut Reply) {
        let value =
            HeaderValue::try_from(self.to_string()).expect("hexadecimal digits are a header value");
        reply.headers_mut().insert(X_LUCID_FLOW_ID, value);
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An answer with a body of the given type.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(ReplyBody::whole(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(value).expect("maps with string keys always serialise");
    whole(status, "application/json", text)
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::whole(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// An answer sent in blocks, with a pause before each.
pub(super) fn paced(content_type: &'static str, blocks: Arc<[Bytes]>, pause: Duration) -> Reply {
    let mut reply = Response::new(ReplyBody::paced(blocks, pause));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer that sends a request's body back while it arrives.
pub(super) fn mirror(body: MeteredBody) -> Reply {
    Response::new(ReplyBody::mirror(body))
}

/// The same answer, but the connection is cut in the middle of its body, if it has one.
pub(super) fn cut_in_half(reply: Reply) -> Reply {
    let (mut head, body) = reply.into_parts();
    match body.size_hint().exact() {
        Some(0) => return Response::from_parts(head, body),
        Some(length) => drop(head.headers.insert(CONTENT_LENGTH, length.into())),
        None => {}
    }
    Response::from_parts(head, body.half())
}

/// An error in the shape of Lucid's REST API.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<HeaderValue>,
}

impl Fault {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault {
            status,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "badRequest", message)
    }

    pub(super) fn forbidden() -> Fault {
        Fault::of(StatusCode::FORBIDDEN)
    }

    /// The error that goes with a status. Lucid's codes for 401, 403, 404 and 406 are documented, the others are guesses.
    pub(super) fn of(status: StatusCode) -> Fault {
        let (code, message) = match status {
            StatusCode::BAD_REQUEST => ("badRequest", "The request is malformed"),
            StatusCode::UNAUTHORIZED => (
                "unauthorized",
                "The access token is missing, expired or invalid",
            ),
            StatusCode::FORBIDDEN => ("accessForbidden", "Access to this resource is forbidden"),
            StatusCode::NOT_FOUND => ("notFound", "The resource was not found"),
            StatusCode::NOT_ACCEPTABLE => ("invalidExportType", "The export type is not supported"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupportedMediaType", "The media type is not supported")
            }
            StatusCode::TOO_MANY_REQUESTS => ("tooManyRequests", "The rate limit was exceeded"),
            _ => ("internalError", "Something went wrong"),
        };
        Fault::new(status, code, message)
    }

    pub(super) fn retry_after(mut self, value: Option<HeaderValue>) -> Fault {
        self.retry_after = value;
        self
    }

    pub(super) fn into_reply(self, flow: FlowId) -> Reply {
        let body =
            json!({ "code": self.code, "message": self.message, "requestId": flow.to_string() });
        let mut reply = json(self.status, &body);
        if let Some(value) = self.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, value);
        }
        reply
    }
}
