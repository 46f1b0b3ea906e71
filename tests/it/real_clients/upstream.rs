//! What the programs ask: one resource for each of their steps, behind tokens that the stand-in judges.
//!
//! The first request for each resource finds that its token has just died: in the middle of its content where that is
//! large, else behind it, or, for `/early`, before any of it. What it gets is a 401, and what it is worth shows in the second.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE, TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use multer::Multipart;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The hash of what a client has in the end, decoded where it decodes.
const X_SHA256: HeaderName = HeaderName::from_static("x-sha256");
/// How much of a large upload has come when its token dies.
const MIDDLE: usize = 1 << 20;
/// How much of an upload that is too large is read before it is refused.
const ENOUGH: usize = 64 << 10;
const ETAG_VALUE: &str = "\"first\"";

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Reply = Response<Body>;
/// The connection ends without an answer.
type Cut = Box<dyn std::error::Error + Send + Sync>;

/// It ends with the process.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The stand-in, which knows the tokens.
    judge: SocketAddr,
    /// What `/gzip` answers with.
    compressed: Bytes,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The resources that were asked for, each of which has had its dead token.
    asked: HashSet<String>,
    answers: Vec<(String, u16)>,
    /// Length and hash of each upload that was accepted.
    uploads: Vec<(String, Upload)>,
    /// To those who wait for the second event.
    events: Option<UnboundedSender<Bytes>>,
    /// Uploads that were refused: neither read nor closed, which is for those who send them to bear.
    unread: Vec<Incoming>,
}

/// What arrived of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) length: usize,
    pub(super) sha256: String,
}

impl Upstream {
    pub(super) fn start(judge: SocketAddr, compressed: Bytes) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            judge,
            compressed,
            seen: Mutex::default(),
        });
        let serving = shared.clone();
        std::thread::spawn(move || runtime.block_on(accept(listener, serving)));
        Self { address, shared }
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Which resource was answered with which status, in that order.
    pub(super) fn answers(&self) -> Vec<(String, u16)> {
        self.shared.seen().answers.clone()
    }

    /// The uploads that were accepted.
    pub(super) fn uploads(&self) -> Vec<(String, Upload)> {
        self.shared.seen().uploads.clone()
    }
}

impl Upload {
    pub(super) fn of(content: &[u8]) -> Self {
        Self {
            length: content.len(),
            sha256: sha256(content),
        }
    }

    fn to_json(&self) -> Value {
        json!({"length": self.length, "sha256": self.sha256})
    }
}

/// What `/download` answers with, and `/range` with a part of: 50 MiB that do not repeat.
pub(super) fn large() -> Bytes {
    static LARGE: OnceLock<Bytes> = OnceLock::new();
    let make = || {
        let mut content = vec![0; 50 << 20];
        fastrand::Rng::with_seed(1).fill(&mut content);
        content.into()
    };
    LARGE.get_or_init(make).clone()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| answer(&shared, request));
            // How it ends, the other side decides.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Cut> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let token = head.headers.get(AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok());
    if shared.seen().asked.insert(path.clone()) {
        let length = match token {
            // No program must bear an answer in the middle but through the proxy.
            None => usize::MAX,
            Some(_) if path == "/early" => 0,
            Some(_) => MIDDLE,
        };
        read(&mut body, length).await?;
        shared.ask_judge("POST /sandbox/expire", None).await?;
    }
    let reply = match shared.ask_judge("GET /sandbox/echo", token).await? {
        200 => resource(shared, &head, body).await?,
        _ => {
            // The rest is of no interest, and the connection is left in order.
            tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            let reply = Response::builder().status(StatusCode::UNAUTHORIZED);
            reply
                .header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
                .body(text("the token is dead"))?
        }
    };
    let answered = (path, reply.status().as_u16());
    shared.seen().answers.push(answered);
    Ok(reply)
}

/// What a living token gets.
async fn resource(shared: &Shared, head: &Parts, mut body: Incoming) -> Result<Reply, Cut> {
    let reply = Response::builder();
    let reply = match (head.method.as_str(), head.uri.path()) {
        ("GET", "/get") => reply.body(json_text(&json!({"title": "first"})))?,
        ("POST", "/post") => {
            let content: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
            reply
                .header(CONTENT_TYPE, "application/json")
                .body(json_text(&json!({"received": content})))?
        }
        ("POST", "/multipart") => multipart(shared, head, body).await?,
        ("POST", "/chunked") => {
            let content = body.collect().await?.to_bytes();
            let mut received = shared.keep(head, &content).to_json();
            let said = |name| head.headers.contains_key(name);
            received["chunked"] = Value::from(said(TRANSFER_ENCODING) && !said(CONTENT_LENGTH));
            reply.body(json_text(&received))?
        }
        ("GET" | "HEAD", "/download" | "/head") => whole(large())?,
        ("GET", "/gzip" | "/gzip-bytes") => compressed(shared, head)?,
        ("DELETE", "/no-content") => reply.status(204).body(text(""))?,
        ("GET", "/not-modified") => not_modified(&head.headers)?,
        ("GET", "/range") => range(&head.headers)?,
        ("GET", "/events") => reply
            .header(CONTENT_TYPE, "text/event-stream")
            .body(shared.first_event().boxed_unsync())?,
        ("POST", "/events/seen") => reply.status(shared.second_event()).body(text(""))?,
        ("POST", "/early") => {
            read(&mut body, ENOUGH).await?;
            shared.seen().unread.push(body);
            reply.status(413).body(text("too much"))?
        }
        _ => reply.status(404).body(text("no such resource"))?,
    };
    Ok(reply)
}

/// Takes the part `file` of a form, and tells what else is in it.
async fn multipart(shared: &Shared, head: &Parts, body: Incoming) -> Result<Reply, Cut> {
    let kind = head.headers.get(CONTENT_TYPE).ok_or("no content type")?;
    let boundary = multer::parse_boundary(kind.to_str()?)?;
    let mut parts = Multipart::new(BodyDataStream::new(body), boundary);
    let mut told = json!({});
    while let Some(part) = parts.next_field().await? {
        let name = part.name().unwrap_or_default().to_owned();
        told[&name] = if name == "file" {
            let file_name = part.file_name().map(str::to_owned);
            let mut file = shared.keep(head, &part.bytes().await?).to_json();
            file["name"] = file_name.into();
            file
        } else {
            part.text().await?.into()
        };
    }
    Ok(Response::new(json_text(&told)))
}

fn whole(content: Bytes) -> Result<Reply, Cut> {
    Ok(Response::builder()
        .header(X_SHA256, sha256(&content))
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, ETAG_VALUE)
        .body(Full::new(content).boxed_unsync())?)
}

/// For who decodes it, and for who wants to see the bytes.
fn compressed(shared: &Shared, head: &Parts) -> Result<Reply, Cut> {
    let accepted = head.headers.get(ACCEPT_ENCODING);
    if !accepted.is_some_and(|value| value.as_bytes().windows(4).any(|word| word == b"gzip")) {
        let reply = Response::builder().status(StatusCode::NOT_ACCEPTABLE);
        return Ok(reply.body(text("gzip is all there is"))?);
    }
    let content = shared.compressed.clone();
    let hash = match head.uri.path() {
        "/gzip" => sha256(super::TEXT),
        _ => sha256(&content),
    };
    Ok(Response::builder()
        .header(CONTENT_TYPE, "text/plain")
        .header(CONTENT_ENCODING, "gzip")
        .header(X_SHA256, hash)
        .body(Full::new(content).boxed_unsync())?)
}

/// 304 where the client has it already.
fn not_modified(headers: &HeaderMap) -> Result<Reply, Cut> {
    let known = match headers.get(IF_NONE_MATCH) {
        Some(tag) => tag == ETAG_VALUE,
        None => headers.contains_key(IF_MODIFIED_SINCE),
    };
    let reply = Response::builder().header(ETAG, ETAG_VALUE);
    Ok(match known {
        true => reply.status(304).body(text(""))?,
        false => reply.body(text("content that the client has"))?,
    })
}

/// `bytes=FIRST-LAST` or `bytes=FIRST-` of the large content.
fn range(headers: &HeaderMap) -> Result<Reply, Cut> {
    let Some(asked) = headers.get(RANGE) else {
        return whole(large());
    };
    let asked = asked.to_str()?.strip_prefix("bytes=").ok_or("no bytes")?;
    let (first, last) = asked.split_once('-').ok_or("no range")?;
    let content = large();
    let total = content.len();
    let first: usize = first.parse()?;
    let last = if last.is_empty() {
        total - 1
    } else {
        last.parse()?
    };
    let mut reply = whole(content.slice(first..=last))?;
    *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = format!("bytes {first}-{last}/{total}");
    reply.headers_mut().insert(CONTENT_RANGE, range.parse()?);
    Ok(reply)
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("whole")
    }

    /// Keeps account of an upload.
    fn keep(&self, head: &Parts, content: &[u8]) -> Upload {
        let upload = Upload::of(content);
        let path = head.uri.path().to_owned();
        self.seen().uploads.push((path, upload.clone()));
        upload
    }

    /// The first of two events, behind which the second may come.
    fn first_event(&self) -> Events {
        let (sender, events) = unbounded_channel();
        let _ = sender.send(Bytes::from_static(b"data: first\n\n"));
        self.seen().events = Some(sender);
        Events(events)
    }

    /// The second event, which is the last: somebody has seen the first.
    fn second_event(&self) -> StatusCode {
        let sender = self.seen().events.take();
        let second = Bytes::from_static(b"data: second\n\n");
        match sender.map(|sender| sender.send(second)) {
            Some(Ok(())) => StatusCode::NO_CONTENT,
            _ => StatusCode::CONFLICT,
        }
    }

    /// Asks the stand-in, and returns its status.
    async fn ask_judge(&self, line: &str, token: Option<&str>) -> Result<u16, Cut> {
        let mut stream = TcpStream::connect(self.judge).await?;
        let mut request = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nLucid-Api-Version: 1\r\n",
            self.judge
        );
        if let Some(token) = token {
            request.push_str(&format!("Authorization: {token}\r\n"));
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .await?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).await?;
        let status = status.split(' ').nth(1).ok_or("no status")?;
        Ok(status.parse()?)
    }
}

/// Events as they are sent.
struct Events(UnboundedReceiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = self.0.poll_recv(context);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// Reads until so much has come, or all of it.
async fn read(body: &mut Incoming, length: usize) -> Result<(), Cut> {
    let mut come = 0;
    while come < length {
        match body.frame().await {
            Some(frame) => come += frame?.data_ref().map_or(0, Bytes::len),
            None => break,
        }
    }
    Ok(())
}

fn text(content: &'static str) -> Body {
    Full::from(content).boxed_unsync()
}

fn json_text(content: &Value) -> Body {
    Full::from(content.to_string()).boxed_unsync()
}

fn sha256(content: &[u8]) -> String {
    let hash = digest::digest(&SHA256, content);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The content of `/gzip`, compressed by a program for that.
pub(super) fn gzip(content: &[u8]) -> io::Result<Bytes> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("text");
    std::fs::write(&file, content)?;
    let output = std::process::Command::new("gzip")
        .arg("-nc")
        .arg(file)
        .output()?;
    assert!(output.status.success() && output.stdout.starts_with(&[0x1f, 0x8b]));
    Ok(output.stdout.into())
}
