//! A socket that more than one may have in hand: one reads and writes, another waits for what becomes of it.
//!
//! tokio lends what reads and writes to one at a time. What is here does the same with nearly the same system calls: after
//! a write that found too little room it asks once more, where tokio knows. That there is more to read is forgotten after
//! the read, where tokio looks before it for what has come since. Nothing is lost by that, as nothing comes in between:
//! each worker's runtime has one thread, which hears of the system only when no task runs.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket of tokio's of either kind, by what both have.
pub(super) trait Handle: AsFd + Sized {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn try_read_buf(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize>;
    fn try_write(&self, buf: &[u8]) -> io::Result<usize>;
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Forgets that the socket was ready for this, up to when the system says so again.
    fn forget(&self, interest: Interest);
    fn error(&self) -> impl Future<Output = io::Result<()>>;

    /// Reads what has come.
    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let room = buf.remaining();
            match self.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    // With room left nothing more is there, and the next look need not ask the system. Of an end it tells
                    // only once.
                    if matches!(read, Ok(bytes) if bytes > 0 && bytes < room) && TELLS_OF_MORE {
                        self.forget(Interest::READABLE);
                    }
                    return Poll::Ready(read.map(drop));
                }
            }
        }
    }

    /// Writes by `attempt` as soon as there is room.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Completes when the client has reset the connection, or has been lost. An end in order is none of it: a client that
    /// has sent all that it has to say may still wait for the answer.
    async fn reset(&self) {
        // An error here is one of the runtime, which ends everything anyway.
        let _ = self.error().await;
    }
}

/// Completes when nobody is at the other end of a unix socket any more. Of these, other than of TCP, the system tells
/// whether a client has ended its side only, or has closed all of it.
pub(super) async fn closed(unix: &UnixStream) {
    if both_ways(unix).await.is_err() {
        unix.reset().await;
    }
}

/// Completes when neither side sends any more.
#[cfg(any(target_os = "linux", target_os = "android"))]
async fn both_ways(unix: &UnixStream) -> io::Result<()> {
    // Priority stands for the end of the client's side without what can be read before it.
    const END: Interest = Interest::PRIORITY.add(Interest::ERROR);
    loop {
        let ready = unix.ready(END).await?;
        if ready.is_error() {
            return Ok(());
        }
        if ready.is_read_closed() {
            break;
        }
        unix.forget(Interest::PRIORITY);
    }
    // Whoever writes must not miss that there is room, which is said only once. So what is waited for is a handle of its
    // own, which few need: clients have rarely ended their side before they have the answer.
    let handle = std::os::unix::net::UnixStream::from(unix.as_fd().try_clone_to_owned()?);
    let handle = UnixStream::from_std(handle)?;
    while !handle.ready(Interest::WRITABLE).await?.is_write_closed() {
        handle.forget(Interest::WRITABLE);
    }
    Ok(())
}

/// Here the system's word for it is not known.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
async fn both_ways(_: &UnixStream) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the system tells of what comes after all was read, even where that was not seen by a read that got nothing.
const TELLS_OF_MORE: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd"
));

macro_rules! handle {
    ($socket:ty) => {
        impl Handle for $socket {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(cx)
            }

            fn try_read_buf(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
                self.try_read_buf(buf)
            }

            fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
                self.try_write(buf)
            }

            fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.try_write_vectored(bufs)
            }

            fn forget(&self, interest: Interest) {
                // Nothing is tried: what would have to wait is what makes tokio forget.
                let _ = self.try_io(interest, || -> io::Result<()> {
                    Err(io::ErrorKind::WouldBlock.into())
                });
            }

            async fn error(&self) -> io::Result<()> {
                self.ready(Interest::ERROR).await.map(drop)
            }
        }
    };
}

handle!(TcpStream);
handle!(UnixStream);
