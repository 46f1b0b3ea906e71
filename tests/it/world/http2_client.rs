//! A client of HTTP/2 over TLS, on a thread of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::tls::Identity;

/// The content of a request.
pub(crate) type Content = UnsyncBoxBody<Bytes, Infallible>;

/// A connection.
pub(crate) struct Http2 {
    sender: SendRequest<Content>,
    /// What drives it.
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
    authority: String,
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether it ended as it should.
    pub(crate) complete: bool,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr, identity: &Identity) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connector = TlsConnector::from(identity.client(&["h2"]));
        let (sender, connection) = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await.expect("a connection");
            let name = ServerName::try_from("localhost").expect("a name");
            let tls = connector.connect(name, tcp).await.expect("a handshake");
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
                .await
                .expect("HTTP/2")
        });
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            // How it ends, the answers say.
            let _ = runtime.block_on(connection);
        });
        Self {
            sender,
            runtime: handle,
            thread: Some(thread),
            authority: format!("localhost:{}", address.port()),
        }
    }

    /// Begins a request, which goes on while others do.
    pub(crate) fn begin(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        content: Content,
    ) -> Begun {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(content).expect("a request");
        let mut sender = self.sender.clone();
        let task = self.runtime.spawn(async move {
            sender.ready().await?;
            sender.send_request(request).await
        });
        Begun {
            task,
            runtime: self.runtime.clone(),
        }
    }

    /// Sends a request without content and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&self, method: Method, path: &str) -> Answer {
        self.begin(method, path, &[], nothing()).answer()
    }

    /// `GET path`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path)
    }

    /// Waits until the connection has ended; nothing must be under way.
    pub(crate) fn wait_for_the_end(mut self) {
        let thread = self.thread.take().expect("it is waited for once");
        thread.join().expect("the client's thread");
    }
}

/// A request under way.
pub(crate) struct Begun {
    task: tokio::task::JoinHandle<hyper::Result<Response<Incoming>>>,
    runtime: Handle,
}

impl Begun {
    /// The answer, as far as it comes.
    #[track_caller]
    pub(crate) fn answer(self) -> Answer {
        let answer = self.try_answer();
        answer.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// The status of the answer, whose content is handed on as it comes.
    #[track_caller]
    pub(crate) fn answer_in_parts(self, mut part: impl FnMut(&[u8])) -> StatusCode {
        self.runtime.block_on(async {
            let answered = self.task.await.expect("the task").expect("an answer");
            let (head, mut incoming) = answered.into_parts();
            while let Some(frame) = incoming.frame().await {
                let frame = frame.expect("the content to its end");
                frame.data_ref().map(Bytes::as_ref).map(&mut part);
            }
            head.status
        })
    }

    /// The answer, unless there is none.
    pub(crate) fn try_answer(self) -> hyper::Result<Answer> {
        self.runtime.block_on(async {
            let (head, mut incoming) = self.task.await.expect("the task")?.into_parts();
            let mut answer = Answer {
                status: head.status,
                headers: head.headers,
                body: Vec::new(),
                trailers: None,
                complete: true,
            };
            while let Some(frame) = incoming.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => answer.body.extend(data),
                    Ok(Err(frame)) => answer.trailers = frame.into_trailers().ok(),
                    Err(_) => answer.complete = false,
                }
                if !answer.complete {
                    break;
                }
            }
            Ok(answer)
        })
    }
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// No content.
pub(crate) fn nothing() -> Content {
    Empty::new().boxed_unsync()
}

/// Content whose length is known.
pub(crate) fn bytes(content: &'static [u8]) -> Content {
    Full::new(Bytes::from_static(content)).boxed_unsync()
}

/// Content whose length is not known, and trailers behind it where there are some.
pub(crate) fn frames(content: &'static [u8], trailers: HeaderMap) -> Content {
    let mut frames = VecDeque::from([Frame::data(Bytes::from_static(content))]);
    if !trailers.is_empty() {
        frames.push_back(Frame::trailers(trailers));
    }
    Frames(frames).boxed_unsync()
}

/// Content that is made while it is sent, and ends when the sender is dropped.
pub(crate) fn channel() -> (mpsc::Sender<Bytes>, Content) {
    let (sender, parts) = mpsc::channel(4);
    (sender, Parts(parts).boxed_unsync())
}

struct Parts(mpsc::Receiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.0.poll_recv(cx);
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
