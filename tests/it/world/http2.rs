//! Upstreams that speak HTTP/2: one in front of the stand-in, and one that is written frame by frame.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use http::header::HOST;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;

use super::SOON;
use super::tls::{TlsFront, acceptor};

/// Speaks HTTP/2 over TLS with whoever connects, and HTTP/1.1 with the stand-in behind it.
pub(crate) struct Http2Front {
    pub(crate) tls: TlsFront,
    connections: Arc<AtomicUsize>,
}

impl Http2Front {
    /// In front of `behind`, with at most `streams` requests on a connection at once.
    pub(crate) fn start(behind: SocketAddr, streams: u32) -> Self {
        Self::named("localhost", behind, streams)
    }

    /// The same, with a certificate for this name.
    pub(crate) fn named(name: &'static str, behind: SocketAddr, streams: u32) -> Self {
        let (acceptor, certificate) = acceptor(name, &["h2"]);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            runtime.block_on(async {
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(serve(stream, acceptor.clone(), behind, streams));
                }
            });
        });
        let tls = TlsFront {
            address,
            name,
            certificate,
        };
        Self { tls, connections }
    }

    /// How many were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    acceptor: TlsAcceptor,
    behind: SocketAddr,
    streams: u32,
) {
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| forward(request, behind));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(streams);
    // How it ends, the other side decides.
    let _ = builder.serve_connection(TokioIo::new(tls), service).await;
}

type Body = BoxBody<Bytes, hyper::Error>;

async fn forward(
    mut request: Request<Incoming>,
    behind: SocketAddr,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(!request.headers().contains_key(HOST), "it is in the target");
    let authority = request.uri().authority().expect("a target").to_string();
    let stream = tokio::net::TcpStream::connect(behind).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = request
        .uri()
        .path_and_query()
        .expect("a path")
        .as_str()
        .parse()?;
    request.headers_mut().insert(HOST, authority.parse()?);
    let response = sender.send_request(request).await?;
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_2;
    Ok(Response::from_parts(head, body.boxed()))
}

/// An upstream in the clear whose frames the test reads and writes.
pub(crate) struct FrameUpstream {
    address: SocketAddr,
    accepted: Receiver<TcpStream>,
}

/// One connection of it.
pub(crate) struct Frames(TcpStream);

/// A frame (RFC 9113 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const REFUSED_STREAM: u32 = 7;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl FrameUpstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, accepted) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { address, accepted }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next connection, its beginning done.
    pub(crate) fn accept(&self) -> Frames {
        self.accept_with(&[])
    }

    /// The same, of an upstream that allows so many requests at once.
    pub(crate) fn accept_allowing(&self, streams: u32) -> Frames {
        let most = [
            &MAX_CONCURRENT_STREAMS.to_be_bytes()[..],
            &streams.to_be_bytes(),
        ];
        self.accept_with(&most.concat())
    }

    /// The same, of an upstream that takes so many bytes of the content of each request before it is asked.
    pub(crate) fn accept_taking(&self, bytes: u32) -> Frames {
        let window = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &bytes.to_be_bytes()];
        self.accept_with(&window.concat())
    }

    fn accept_with(&self, settings: &[u8]) -> Frames {
        let stream = self.accepted.recv_timeout(SOON).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut frames = Frames(stream);
        let mut preface = [0; PREFACE.len()];
        frames.0.read_exact(&mut preface).expect("a preface");
        assert_eq!(preface, PREFACE);
        frames.send(SETTINGS, 0, 0, settings);
        frames
    }
}

impl Frames {
    /// Sends a frame; a proxy that has closed shows in what it tells its client.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len())
            .expect("a short one")
            .to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.0.write_all(&frame);
    }

    /// An answer without content.
    pub(crate) fn answer(&mut self, stream: u32) {
        // `:status: 200`, the eighth entry of the static table (RFC 7541 appendix A).
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]);
    }

    /// The head of an answer whose content follows.
    pub(crate) fn begin_answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]);
    }

    /// The head of an answer whose content is announced to be so long, up to nine bytes. `status` is that of the entry of
    /// the static table, with its first bit set.
    pub(crate) fn begin_answer_of(&mut self, stream: u32, status: u8, length: u8) {
        // A literal that is not indexed, with the name of entry 28, `content-length`.
        let fields = [status, 0x0f, 28 - 15, 1, b'0' + length];
        self.send(HEADERS, END_HEADERS, stream, &fields);
    }

    /// Ends a stream without an answer.
    pub(crate) fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes());
    }

    /// Takes so many more bytes on a stream.
    pub(crate) fn open_window(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Says that nothing beyond `last` was or will be looked at.
    pub(crate) fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload);
    }

    /// The next frame of one of `kinds`; `None` when the proxy has closed.
    pub(crate) fn next(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.any()?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    fn any(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no frame came")
            }
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The stream of the next request's head.
    #[track_caller]
    pub(crate) fn request(&mut self) -> u32 {
        self.next(&[HEADERS]).expect("a request").stream
    }
}
