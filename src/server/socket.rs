//! A client's socket, on which what is written must move (rule F12).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::framing::Refused;
use super::handle::Handle;
use super::patience::Patience;
use crate::proxy::ambiguity::Unservable;

/// What whoever watches over a connection knows of its bytes.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Bytes that the client took, TLS included.
    taken: Cell<u64>,
    /// Whether there are bytes that the client does not take.
    is_stalled: Cell<bool>,
    /// When it last took some that it had not taken at once.
    resumed: Cell<Option<Instant>>,
    /// Whether only the end of the connection will show that the content on its way is whole.
    pub(super) ends_by_close: Cell<bool>,
    /// Whether something else follows on the stream when HTTP has ended.
    pub(super) stays_open: Cell<bool>,
    /// Whether whoever writes has said that nothing more is to come.
    pub(super) has_ended: Cell<bool>,
    /// Whether the client said inside of an intercepted tunnel that it leaves (RFC 8446 section 6.1).
    pub(super) took_leave: Cell<bool>,
    /// What is framed in two ways, or too large.
    refused: Cell<Option<Refused>>,
    /// Whether a head was too large, so that nothing is read of what follows.
    is_cut_off: Cell<bool>,
}

impl Wire {
    /// How many bytes the client has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Whether bytes wait for the client to take them.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.get()
    }

    /// When bytes that had to wait for the client last moved.
    pub(super) fn resumed(&self) -> Option<Instant> {
        self.resumed.get()
    }

    /// The next content ends with the connection, or does not.
    pub(super) fn ends_by_close(&self, ends_by_close: bool) {
        self.ends_by_close.set(ends_by_close);
    }

    /// The stream is not to end with HTTP, or is to end when it is told.
    pub(super) fn stays_open(&self, stays_open: bool) {
        self.stays_open.set(stays_open);
    }

    /// Whether the stream was told to end.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Notes that nothing is read of what follows a head that was too large.
    pub(super) fn cut_off(&self) {
        self.is_cut_off.set(true);
    }

    /// Whether that was so.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.get()
    }

    /// Notes what is not to be served of what has come.
    pub(super) fn refuse(&self, refused: Refused) {
        self.refused.set(Some(refused));
    }

    /// Why the request with this number, from 1, is not to be served, if it is not.
    pub(super) fn refused(&self, number: u64) -> Option<Unservable> {
        let refused = self.refused.get();
        refused
            .filter(|refused| number >= refused.from)
            .map(|refused| refused.why)
    }

    /// Another protocol has begun on the same bytes: what was seen of the one before says nothing about it.
    pub(super) fn begin_again(&self) {
        self.refused.set(None);
        self.is_cut_off.set(false);
        self.has_ended.set(false);
        self.ends_by_close.set(false);
    }

    fn add(&self, bytes: usize) {
        self.taken.set(self.taken.get().wrapping_add(bytes as u64));
    }
}

/// A socket that gives its connection up when the client takes nothing of what is to be written for too long.
///
/// Nothing is done for that as long as the system takes what is written at once.
#[derive(Debug)]
pub(super) struct Socket<T> {
    /// Shared with whoever wants to know of a reset.
    io: Rc<T>,
    wire: Rc<Wire>,
    /// How long a write may wait.
    patience: Patience,
}

impl<T: Handle> Socket<T> {
    pub(super) fn new(io: T, wire: &Rc<Wire>, bound: Duration) -> Self {
        Self {
            io: Rc::new(io),
            wire: wire.clone(),
            patience: Patience::new(bound),
        }
    }

    pub(super) fn get_ref(&self) -> &T {
        &self.io
    }

    /// The same socket, which stays open until both are dropped.
    pub(super) fn handle(&self) -> Rc<T> {
        self.io.clone()
    }

    /// Something was written, or cannot be.
    fn written(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if self.patience.renew() {
            self.wire.is_stalled.set(false);
            self.wire.resumed.set(Some(Instant::now()));
        }
        if let Ok(bytes) = written {
            self.wire.add(bytes);
        }
        Poll::Ready(written)
    }

    /// The system takes nothing more for now.
    fn waits(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.is_stalled.set(true);
        ready!(self.patience.poll_end(cx));
        // The system says that there is room again when a third of what it holds has gone, which may be megabytes. A
        // client that is only slow has made some before.
        match rustix::net::send(&self.io, buf, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => self.written(Ok(written)),
            Err(Errno::AGAIN) => Poll::Ready(Err(self.give_up())),
            Err(error) => self.written(Err(error.into())),
        }
    }

    /// The system would go on offering what it holds for minutes.
    fn give_up(&mut self) -> io::Error {
        // A socket that refuses the option is closed already.
        let _ = set_socket_linger(&self.io, Some(Duration::ZERO));
        tracing::debug!(
            "a client took nothing for {:?} (timeouts.body)",
            self.patience.bound()
        );
        io::ErrorKind::TimedOut.into()
    }
}

impl<T: Handle> AsyncRead for Socket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io.poll_receive(cx, buf)
    }
}

impl<T: Handle> AsyncWrite for Socket<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        match socket.io.poll_send(cx, |io| io.try_write(buf)) {
            Poll::Ready(written) => socket.written(written),
            Poll::Pending => socket.waits(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        match socket.io.poll_send(cx, |io| io.try_write_vectored(bufs)) {
            Poll::Ready(written) => socket.written(written),
            Poll::Pending => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                socket.waits(cx, first.map_or(&[], |buf| buf))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The system has what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match rustix::net::shutdown(&self.io, Shutdown::Write) {
            // The client has ended it.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }
}
