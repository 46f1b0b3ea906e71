//! What is written down of one request and its response: one line, when both are over.

use std::time::Instant;

use bytes::Bytes;
use http::uri::Authority;
use http::{Method, StatusCode, Uri};
use http_body::Frame;

/// One request and its response. Its line is written when it is dropped, since a response can end in many ways.
#[derive(Debug)]
pub struct Exchange {
    method: Method,
    /// Without the query, which may hold a token.
    path: String,
    begun: Instant,
    status: StatusCode,
    /// Content bytes sent to the client.
    sent: u64,
    /// What became of the token's rejection, if there was one.
    pub(super) note: Option<&'static str>,
    pub(super) generation: Option<u64>,
    code: Option<&'static str>,
    reason: Option<String>,
    cut: bool,
}

impl Exchange {
    /// Begins with the request.
    pub fn begin(method: &Method, uri: &Uri) -> Box<Self> {
        Box::new(Self {
            method: method.clone(),
            // The target of CONNECT has no path.
            path: uri
                .authority()
                .filter(|_| uri.path().is_empty())
                .map_or(uri.path(), Authority::as_str)
                .to_owned(),
            begun: Instant::now(),
            status: StatusCode::OK,
            sent: 0,
            note: None,
            generation: None,
            code: None,
            reason: None,
            cut: false,
        })
    }

    /// The head of the response is known.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
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

    /// The response ended before it was whole.
    pub fn cut(&mut self) {
        self.cut = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        tracing::info!(
            method = %self.method,
            path = self.path,
            status = self.status.as_u16(),
            bytes = self.sent,
            milliseconds = self.begun.elapsed().as_millis() as u64,
            generation = self.generation,
            note = self.note,
            code = self.code,
            reason = self.reason,
            cut = self.cut.then_some(true),
            "request"
        );
    }
}
