//! The bytes to and from a client, by whatever way they come.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::framing::Framing;
use super::handle::{self, Handle};
use super::rewound::Rewound;
use super::socket::{Socket, Wire};
use crate::config::HeadLimits;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    wire: Rc<Wire>,
    /// Follows the requests of HTTP/1.
    framing: Option<Framing>,
    /// What is read instead of what comes, up to an end: a head was cut off.
    ending: Option<&'static [u8]>,
}

/// By what the bytes come.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(Socket<TcpStream>),
    Unix(Socket<UnixStream>),
    Tls(Box<TlsStream<Socket<TcpStream>>>),
    /// TLS inside of a tunnel that leads no further than here.
    Intercepted(Box<TlsStream<Rewound>>),
}

/// A client's socket, for whoever does not read or write.
#[derive(Debug)]
pub(super) enum Peer {
    Tcp(Rc<TcpStream>),
    Unix(Rc<UnixStream>),
}

impl Peer {
    /// Completes when the client has left, as far as the system tells: reset the connection, or closed a unix socket.
    pub(super) async fn left(&self) {
        match self {
            Self::Tcp(tcp) => tcp.reset().await,
            Self::Unix(unix) => handle::closed(unix).await,
        }
    }
}

impl Stream {
    /// A connection of which `wire` tells.
    pub(super) fn new(io: Io, wire: Rc<Wire>) -> Self {
        Self {
            io,
            wire,
            framing: None,
            ending: None,
        }
    }

    /// What comes is HTTP/1, whose framing is followed, and whose heads are cut off where they are too large.
    pub(super) fn follow(mut self, limits: HeadLimits) -> Self {
        self.framing = Some(Framing::new(limits));
        self
    }

    /// What comes from now on is another protocol, or of no interest.
    pub(super) fn leave_http(&mut self) {
        (self.framing, self.ending) = (None, None);
        self.wire.stays_open(false);
    }

    /// Looks at what has been read behind `before`.
    fn on_read(&mut self, before: usize, buf: &mut ReadBuf<'_>) {
        let Some(framing) = &mut self.framing else {
            return;
        };
        let cut = framing.follow(&buf.filled()[before..]);
        if let Some(refused) = framing.refused() {
            self.wire.refuse(refused);
        }
        if let Some(cut) = cut {
            self.wire.cut_off();
            buf.set_filled(before + cut.kept);
            self.ending = Some(cut.ending);
            self.read_ending(buf);
        }
    }

    /// Whether what is read is no more what comes; then it is read.
    fn read_ending(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some(ending) = &mut self.ending else {
            return false;
        };
        let (now, later) = ending.split_at(ending.len().min(buf.remaining()));
        buf.put_slice(now);
        *ending = later;
        true
    }

    /// The socket, which stays open as long as this is there.
    pub(super) fn peer(&self) -> Peer {
        match &self.io {
            Io::Tcp(tcp) => Peer::Tcp(tcp.handle()),
            Io::Unix(unix) => Peer::Unix(unix.handle()),
            Io::Tls(tls) => Peer::Tcp(tls.get_ref().0.handle()),
            Io::Intercepted(tls) => tls.get_ref().0.get_ref().peer(),
        }
    }

    pub(super) fn wire(&self) -> Rc<Wire> {
        self.wire.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An end in order would make cut content look whole (F13). What the client has received it can still read. TLS
        // tells the two ends apart by itself, and a unix socket has but one.
        if self.wire.ends_by_close.get()
            && !self.wire.has_ended()
            && let Io::Tcp(tcp) = &self.io
        {
            // A socket that refuses the option is closed already.
            let _ = tcp.get_ref().set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ending(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Io::Intercepted(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        });
        if matches!(self.io, Io::Intercepted(_)) && buf.filled().len() == before && read.is_ok() {
            // The end of TCP alone would be an error.
            self.wire.took_leave.set(buf.remaining() > 0);
        }
        self.on_read(before, buf);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Io::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Io::Intercepted(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Io::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
            Io::Intercepted(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(tcp) => tcp.is_write_vectored(),
            Io::Unix(unix) => unix.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
            Io::Intercepted(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Io::Intercepted(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stays_open = self.wire.stays_open.get();
        let shut = ready!(match &mut self.io {
            _ if stays_open => self.as_mut().poll_flush(cx),
            Io::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Io::Intercepted(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        });
        self.wire.has_ended.set(true);
        Poll::Ready(shut)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::proxy::ambiguity::Unservable;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 2048,
        fields: 10,
        target: 1024,
    };
    const GOOD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\nContent-Length: 3\n\nabc\
        PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n";
    const SERVED: [&str; 3] = ["/a=", "/b=abc", "/c=\r\n\r\n"];

    /// A head that is too large, why it is, and whether hyper can read what it gets of it.
    fn too_large() -> impl Strategy<Value = (Vec<u8>, Unservable, bool)> {
        let x = |length| "x".repeat(length);
        let large = Unservable::HeadTooLarge(LIMITS.bytes);
        let many = Unservable::TooManyFields(LIMITS.fields);
        let long = Unservable::TargetTooLong(LIMITS.target);
        let cases = [
            (format!("GET /{} HTTP/1.1\r\n", x(1024)), long, true),
            (format!("GET http://a/{}", x(4000)), long, true),
            (format!("{} / HTTP/1.1\r\n", x(4000)), large, true),
            (format!("GET / HTTP/1.1{}", " ".repeat(4000)), large, false),
            ("\r\n".repeat(2000), large, true),
            ("\n".repeat(4000), large, true),
            (format!("GET / HTTP/1.1\r\nA: {}", x(4000)), large, true),
            (format!("GET / HTTP/1.0\r\n{}", x(4000)), large, true),
            (format!("GET / HTTP/1.1\r\n{}\r\n", x(4000)), large, true),
            (
                format!("GET / HTTP/1.1\n{}", "A:b\n".repeat(11)),
                many,
                true,
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nContent-Length: 9\r\n{}\r\n",
                    "A: b\r\n".repeat(10)
                ),
                many,
                true,
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nA:{}",
                    x(4000)
                ),
                large,
                true,
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\n{}",
                    format!("A: {}\r\n", x(500)).repeat(9)
                ),
                large,
                true,
            ),
        ];
        prop::sample::select(cases.to_vec())
            .prop_map(|(head, why, is_readable)| (head.into_bytes(), why, is_readable))
    }

    /// Reads what a stream has of `bytes`, by so many at a time, in turns, up to an end although the client has not ended.
    async fn read(bytes: &[u8], rooms: &[usize]) -> (Vec<u8>, Rc<Wire>) {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let wire = Rc::<Wire>::default();
        let socket = Socket::new(server, &wire, Duration::from_secs(10));
        let mut stream = Stream::new(Io::Unix(socket), wire.clone()).follow(LIMITS);
        client.write_all(bytes).await.expect("sent");
        let mut all = Vec::new();
        for room in rooms.iter().cycle() {
            let mut room = vec![0; *room];
            let mut buf = ReadBuf::new(&mut room);
            let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buf));
            read.await.expect("bytes");
            if buf.filled().is_empty() {
                break;
            }
            all.extend_from_slice(buf.filled());
        }
        (all, wire)
    }

    /// What hyper serves of `bytes`: each target with its content, as far as that is to be had.
    async fn served(bytes: &[u8]) -> Vec<String> {
        let served = RefCell::new(Vec::new());
        let service = service_fn(async |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let content = request.into_body().collect().await;
            let content = content.map_or_else(|_| Bytes::new(), |content| content.to_bytes());
            let content = String::from_utf8_lossy(&content).into_owned();
            served.borrow_mut().push(format!("{path}={content}"));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
        // It ends with an error where the last head cannot be read.
        let _ = http1::Builder::new()
            .half_close(true)
            .serve_connection(io, service)
            .await;
        served.into_inner()
    }

    proptest! {
        #[test]
        fn s07_however_it_is_cut_a_head_that_is_too_large_is_the_last_and_is_refused(
            (head, why, is_readable) in too_large(),
            rooms in prop::collection::vec(1..3000_usize, 1..6),
        ) {
            let smuggled = b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
            let bytes = [GOOD, &head, smuggled].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (passed, wire) = read(&bytes, &rooms).await;
                prop_assert!(passed.len() <= GOOD.len() + LIMITS.bytes + 32, "{}", passed.len());
                prop_assert!(wire.is_cut_off());
                for good in 1..=3 {
                    prop_assert_eq!(wire.refused(good), None);
                }
                prop_assert_eq!(wire.refused(4), Some(why));
                let served = served(&passed).await;
                prop_assert_eq!(&served[..3], &SERVED);
                prop_assert_eq!(served.len() - 3, usize::from(is_readable), "{:?}", served);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn s07_what_is_within_the_limits_passes_whole() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let wire = Rc::<Wire>::default();
        let socket = Socket::new(server, &wire, Duration::from_secs(10));
        let mut stream = Stream::new(Io::Unix(socket), wire.clone()).follow(LIMITS);
        let bytes = GOOD.repeat(100);
        client.write_all(&bytes).await.expect("sent");
        drop(client);
        let mut all = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all);
        read.await.expect("an end");
        assert_eq!(all, bytes);
        assert!(!wire.is_cut_off());
    }
}
