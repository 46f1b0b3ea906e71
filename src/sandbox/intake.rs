//! Request bodies: hashed and counted as they arrive, parsed where the content type calls for it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyDataStream, BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use multer::Multipart;
use serde_json::Value;

use super::problems;
use super::reply::Reply;
use super::shared::Shared;

const X_SANDBOX_BODY_LENGTH: HeaderName = HeaderName::from_static("x-sandbox-body-length");
const X_SANDBOX_BODY_SHA256: HeaderName = HeaderName::from_static("x-sandbox-body-sha256");

/// JSON bodies longer than this are hashed but not parsed; so are text parts of forms. No resource here needs more.
const LONGEST_TEXT: usize = 1024 * 1024;

/// No honest request to an OAuth endpoint is longer: a few short values and a token or a state of a few kB.
const LONGEST_FORM: usize = 64 * 1024;

/// A body that ended before its framing said so: the client is gone, and there is nobody to answer.
#[derive(Debug)]
pub(super) struct Incomplete;

/// A request body that was read to its end.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Absent when the request had no body.
    pub(super) digest: Option<BodyDigest>,
    pub(super) content: Content,
}

/// The length of a body and its hash.
#[derive(Debug)]
pub(super) struct BodyDigest {
    pub(super) length: u64,
    pub(super) sha256: String,
}

/// What a body says.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// Nothing that is understood here.
    #[default]
    Opaque,
    Json(Value),
    Form(Form),
    /// It is not what its content type says; with the reason.
    Malformed(String),
}

/// A `multipart/form-data` body.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The text parts by name.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) file: Option<FilePart>,
}

/// The part named `file`; its bytes are counted and forgotten.
#[derive(Debug)]
pub(super) struct FilePart {
    pub(super) name: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) length: u64,
}

impl BodyDigest {
    pub(super) fn stamp(&self, reply: &mut Reply) {
        let sha256 =
            HeaderValue::try_from(&self.sha256).expect("hexadecimal digits are a header value");
        reply
            .headers_mut()
            .insert(X_SANDBOX_BODY_LENGTH, self.length.into());
        reply.headers_mut().insert(X_SANDBOX_BODY_SHA256, sha256);
    }
}

/// Reads a body to its end.
pub(super) async fn receive(mut body: MeteredBody, head: &Parts) -> Result<Received, Incomplete> {
    if body.is_end_stream() {
        return Ok(Received::default());
    }
    let content_type = head
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content = match content_type {
        Some(text) if is_json(text) => json(&mut body).await,
        Some(text) if has_essence(text, "multipart/form-data") => form(&mut body, text).await,
        _ => Content::Opaque,
    };
    // Parsers stop where they have seen enough, but the hash is over everything.
    body.drain().await?;
    problems::check_trailers(&body.shared, head, body.trailers.as_ref());
    Ok(Received {
        digest: Some(body.finish()),
        content,
    })
}

/// Why a request to an OAuth endpoint has no body to look at.
#[derive(Debug)]
pub(super) enum Unread {
    TooLong,
    Incomplete,
}

/// Reads the body of a request to an OAuth endpoint.
pub(super) async fn short(body: Incoming) -> Result<Bytes, Unread> {
    match Limited::new(body, LONGEST_FORM).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLong),
        Err(_) => Err(Unread::Incomplete),
    }
}

/// Whether a content type is JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    has_essence(content_type, "application/json")
}

/// Whether a content type is the given one, its parameters aside.
pub(super) fn has_essence(content_type: &str, essence: &str) -> bool {
    let found = content_type.split(';').next().unwrap_or_default();
    found.trim().eq_ignore_ascii_case(essence)
}

async fn json(body: &mut MeteredBody) -> Content {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if text.len() + data.len() > LONGEST_TEXT {
            return Content::Opaque;
        }
        text.extend_from_slice(&data);
    }
    match serde_json::from_slice(&text) {
        Ok(value) => Content::Json(value),
        Err(error) => Content::Malformed(format!("not JSON: {error}")),
    }
}

async fn form(body: &mut MeteredBody, content_type: &str) -> Content {
    match parse_form(body, content_type).await {
        Ok(form) => Content::Form(form),
        Err(error) => Content::Malformed(format!("not multipart/form-data: {error}")),
    }
}

async fn parse_form(body: &mut MeteredBody, content_type: &str) -> multer::Result<Form> {
    let boundary = multer::parse_boundary(content_type)?;
    let mut parts = Multipart::new(BodyDataStream::new(body), boundary);
    let mut form = Form::default();
    while let Some(mut part) = parts.next_field().await? {
        let name = part.name().unwrap_or_default().to_owned();
        if name == "file" {
            let mut file = FilePart {
                name: part.file_name().map(str::to_owned),
                content_type: part.content_type().map(ToString::to_string),
                length: 0,
            };
            while let Some(chunk) = part.chunk().await? {
                file.length += chunk.len() as u64;
            }
            form.file = Some(file);
        } else {
            let mut text = Vec::new();
            while let Some(chunk) = part.chunk().await? {
                let room = LONGEST_TEXT - text.len();
                text.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            form.fields
                .insert(name, String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(form)
}

/// A request body that is counted and hashed while whoever polls it reads it.
#[derive(Debug)]
pub(super) struct MeteredBody {
    inner: Incoming,
    shared: Arc<Shared>,
    sha256: HashState,
    length: u64,
    trailers: Option<HeaderMap>,
    /// The body ended with an error. Parsers may take it for an end.
    failed: bool,
}

/// `digest::Context` without its internals in `Debug` output; made with the first byte, since most requests have none.
#[derive(Default)]
struct HashState(Option<digest::Context>);

impl std::fmt::Debug for HashState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashState")
    }
}

impl MeteredBody {
    pub(super) fn new(inner: Incoming, shared: &Arc<Shared>) -> MeteredBody {
        let shared = Arc::clone(shared);
        MeteredBody {
            inner,
            shared,
            sha256: HashState::default(),
            length: 0,
            trailers: None,
            failed: false,
        }
    }

    /// Reads until at least `bytes` were received, or the end.
    pub(super) async fn read(&mut self, bytes: u64) -> Result<(), Incomplete> {
        while self.length < bytes && !self.failed && self.frame().await.is_some() {}
        if self.failed { Err(Incomplete) } else { Ok(()) }
    }

    /// Reads the rest and forgets it.
    pub(super) async fn drain(&mut self) -> Result<(), Incomplete> {
        self.read(u64::MAX).await
    }

    fn finish(mut self) -> BodyDigest {
        let context = self
            .sha256
            .0
            .take()
            .unwrap_or_else(|| digest::Context::new(&SHA256));
        BodyDigest {
            length: self.length,
            sha256: hex(context.finish().as_ref()),
        }
    }
}

impl Body for MeteredBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.sha256
                        .0
                        .get_or_insert_with(|| digest::Context::new(&SHA256))
                        .update(data);
                    this.length += data.len() as u64;
                    this.shared
                        .ledger
                        .update(|counts| counts.request_body_bytes += data.len() as u64);
                } else {
                    this.trailers = frame.trailers_ref().cloned();
                }
            }
            Some(Err(_)) if !this.failed => {
                this.failed = true;
                this.shared
                    .ledger
                    .update(|counts| counts.incomplete_requests += 1);
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The hash of nothing.
pub(super) fn empty_sha256() -> String {
    hex(digest::digest(&SHA256, b"").as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
