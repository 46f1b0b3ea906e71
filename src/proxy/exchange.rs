//! What is written down of one request and its response: one line, when both are over.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body::Frame;

use crate::telemetry::REQUEST;

/// One request and its response. Its line is written when it is dropped, since a response can end in many ways.
#[derive(Debug)]
pub struct Exchange {
    method: Method,
    /// Without the query, which may hold a token.
    path: String,
    begun: Instant,
    /// `None` until there is an answer.
    status: Option<StatusCode>,
    /// Content bytes that came from the client.
    pub(super) received: Rc<Cell<u64>>,
    /// Content bytes sent to the client.
    sent: u64,
    /// What became of the token's rejection, if there was one.
    pub(super) note: Option<&'static str>,
    pub(super) generation: Option<u64>,
    /// Whose request it is, where clients have keys.
    pub(super) client: Option<Arc<str>>,
    code: Option<&'static str>,
    pub(super) reason: Option<String>,
    cut: bool,
}

impl Exchange {
    /// Begins with the request.
    pub fn begin<B>(request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            method: request.method().clone(),
            path: target(request.uri()).to_owned(),
            begun: Instant::now(),
            status: None,
            received: Rc::default(),
            sent: 0,
            note: None,
            generation: None,
            client: None,
            code: None,
            reason: None,
            cut: false,
        })
    }

    /// The head of the response is known.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The proxy answers by itself, for this reason.
    pub fn refused(&mut self, code: &'static str, message: &str) {
        self.code = Some(code);
        self.reason = Some(message.to_owned());
    }

    /// A frame of the response body passes.
    pub fn count(&mut self, frame: &Frame<Bytes>) {
        self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
    }

    /// Bytes were sent to the client outside of any frame.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The response ended before it was whole, for this reason if it is known. The first that is told counts.
    pub fn cut(&mut self, reason: Option<String>) {
        if !self.cut {
            self.cut = true;
            self.reason = reason;
        }
    }
}

/// The path, without the query; of CONNECT, which has none, host and port without a password before them.
fn target(uri: &Uri) -> &str {
    match uri.authority() {
        Some(authority) if uri.path().is_empty() => {
            let authority = authority.as_str();
            authority.rsplit('@').next().unwrap_or(authority)
        }
        _ => uri.path(),
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        tracing::info!(
            target: REQUEST,
            method = self.method.as_str(),
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            received = self.received.get(),
            sent = self.sent,
            milliseconds = self.begun.elapsed().as_millis() as u64,
            generation = self.generation,
            client = self.client.as_deref(),
            note = self.note,
            code = self.code,
            reason = self.reason,
            cut = self.cut.then_some(true),
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_neither_a_query_nor_a_password_is_written_down() {
        for (uri, written) in [
            ("/users?token=marked", "/users"),
            ("http://user:marked@127.0.0.1:8118/users?marked", "/users"),
            ("api.lucid.co:443", "api.lucid.co:443"),
            ("user:marked@api.lucid.co:443", "api.lucid.co:443"),
            ("*", "*"),
        ] {
            assert_eq!(target(&uri.parse().expect("a URI")), written);
        }
    }
}
