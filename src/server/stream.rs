//! The bytes to and from a client, by whatever way they come.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::framing::Framing;
use super::socket::{Socket, Wire};

/// A client's connection.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    wire: Rc<Wire>,
    /// Follows the requests of HTTP/1.
    framing: Option<Framing>,
}

/// By what the bytes come.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(Socket<TcpStream>),
    Unix(Socket<UnixStream>),
    Tls(Box<TlsStream<Socket<TcpStream>>>),
}

impl Stream {
    /// A connection of which `wire` tells.
    pub(super) fn new(io: Io, wire: Rc<Wire>) -> Self {
        Self {
            io,
            wire,
            framing: None,
        }
    }

    /// What comes is HTTP/1, whose framing is followed.
    pub(super) fn follow(mut self) -> Self {
        self.framing = Some(Framing::default());
        self
    }

    /// What comes from now on is another protocol.
    pub(super) fn leave_http(&mut self) {
        self.framing = None;
        self.wire.stays_open(false);
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
        let before = buf.filled().len();
        let read = ready!(match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        });
        let this = &mut *self;
        if let Some(framing) = &mut this.framing {
            framing.follow(&buf.filled()[before..]);
            if let Some(refused) = framing.refused() {
                this.wire.refuse(refused);
            }
        }
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
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(tcp) => tcp.is_write_vectored(),
            Io::Unix(unix) => unix.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stays_open = self.wire.stays_open.get();
        let shut = ready!(match &mut self.io {
            _ if stays_open => self.as_mut().poll_flush(cx),
            Io::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        });
        self.wire.has_ended.set(true);
        Poll::Ready(shut)
    }
}
