//! The bytes to and from upstream, with or without TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::dial;

/// A connection that goes on reading after it can no longer write.
///
/// An upstream that refuses a request by its head alone, with a 401 or a 413, answers and closes while the body is
/// still on its way. The next write then fails although the answer lies ready to be read. hyper gives a connection up
/// at the first failed write; so a failed write is not reported here. Whatever is written afterwards is discarded, and
/// reading goes on to the answer or to the end, which is never far once the other side has closed.
#[derive(Debug)]
pub(super) struct Stream {
    io: dial::Stream,
    deaf: bool,
    /// Whether the last write has to wait.
    waits: bool,
    resumed: Resumed,
}

/// When upstream last took what it had not taken at once. That is rare, and few ask for it: a lock costs nothing here.
#[derive(Clone, Debug, Default)]
pub(super) struct Resumed(Arc<Mutex<Option<Instant>>>);

impl Resumed {
    /// That time, if it is later than `other`, else `other`.
    pub(super) fn or(&self, other: Instant) -> Instant {
        let resumed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        resumed.map_or(other, |resumed| resumed.max(other))
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl From<dial::Stream> for Stream {
    fn from(io: dial::Stream) -> Self {
        Self {
            io,
            deaf: false,
            waits: false,
            resumed: Resumed::default(),
        }
    }
}

impl Stream {
    /// Tells when it moves, also when somebody else has it.
    pub(super) fn resumed(&self) -> Resumed {
        self.resumed.clone()
    }

    /// Notes whether a write waits, and when it goes on. Nothing is done as long as the system takes all at once.
    fn follow<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.waits = true;
        } else if self.waits {
            self.waits = false;
            self.resumed.now();
        }
        polled
    }

    /// Turns the failure of a write into its success, for good.
    fn heard(&mut self, written: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match written {
            Err(error) if is_closed(&error) => {
                self.deaf = true;
                Ok(offered)
            }
            written => written,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        let written = ready!(self.follow(written));
        Poll::Ready(self.heard(written, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            // The usual case, a head without content: a plain send costs the kernel less than a list of one.
            return self.poll_write(cx, only);
        }
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(offered));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        let written = ready!(self.follow(written));
        Poll::Ready(self.heard(written, offered))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let flushed = ready!(self.follow(flushed));
        Poll::Ready(self.heard(flushed.map(|()| 0), 0).map(|_| ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
