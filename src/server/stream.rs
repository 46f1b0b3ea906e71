//! The bytes to and from a client.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    wire: Rc<Wire>,
    ended: bool,
}

/// What whoever watches over a connection knows of its bytes.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Whether only the end of the connection will show that the content on its way is whole.
    ends_by_close: Cell<bool>,
}

impl Wire {
    /// The next content ends with the connection, or does not.
    pub(super) fn ends_by_close(&self, ends_by_close: bool) {
        self.ends_by_close.set(ends_by_close);
    }
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            wire: Rc::default(),
            ended: false,
        }
    }

    pub(super) fn wire(&self) -> Rc<Wire> {
        self.wire.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An end in order would make cut content look whole (F13). What the client has received it can still read.
        if self.wire.ends_by_close.get() && !self.ended {
            // A socket that refuses the option is closed already.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.tcp).poll_shutdown(cx));
        self.ended = true;
        Poll::Ready(shut)
    }
}
