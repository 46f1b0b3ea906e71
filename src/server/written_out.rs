//! A connection of HTTP/1 that does not end before all of its last answer is written.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::socket::Wire;

/// What hyper serves of a connection, to its very end.
///
/// Where the client has offered to change the protocol, hyper takes the connection for done as soon as it has encoded the
/// answer, and leaves the client's stream open. What the client had no room for yet would be lost with hyper. So it is
/// polled again: having told of the change once, it ends as it does on any other connection, which is to write what is
/// left and then to shut the stream down.
pub(super) struct WrittenOut<C> {
    connection: C,
    wire: Rc<Wire>,
    was_offered: bool,
}

impl<C> WrittenOut<C> {
    /// A connection on the stream of which `wire` tells.
    pub(super) fn new(connection: C, wire: Rc<Wire>) -> Self {
        Self {
            connection,
            wire,
            was_offered: false,
        }
    }

    /// Whether the client has offered to change the protocol.
    pub(super) fn was_offered(&self) -> bool {
        self.was_offered
    }

    /// The connection.
    pub(super) fn into_inner(self) -> C {
        self.connection
    }

    pub(super) fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut C>
    where
        C: Unpin,
    {
        Pin::new(&mut self.get_mut().connection)
    }
}

impl<C, E> Future for WrittenOut<C>
where
    C: Future<Output = Result<(), E>> + Unpin,
{
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        let ended = ready!(Pin::new(&mut this.connection).poll(cx));
        if ended.is_err() || this.wire.has_ended() {
            return Poll::Ready(ended);
        }
        this.was_offered = true;
        Pin::new(&mut this.connection).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{self, Write};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Response, StatusCode};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::proxy::body::ResponseBody;
    use crate::server::socket::Socket;
    use crate::server::stream::{Io, Stream};

    /// Two ends of a connection, and how many bytes wait for the first: as many as the system holds.
    fn full() -> io::Result<(UnixStream, UnixStream, usize)> {
        let (client, mut server) = std::os::unix::net::UnixStream::pair()?;
        client.set_nonblocking(true)?;
        server.set_nonblocking(true)?;
        let mut waiting = 0;
        while let Ok(written) = server.write(&[b'.'; 512]) {
            waiting += written;
        }
        let (client, server) = (UnixStream::from_std(client)?, UnixStream::from_std(server)?);
        Ok((client, server, waiting))
    }

    #[tokio::test]
    async fn f16_a_101_is_written_before_the_connection_is_taken_apart_and_leaves_it_open() {
        let (mut client, server, waiting) = full().expect("a pair");
        let wire = Rc::<Wire>::default();
        let stream = Io::Unix(Socket::new(server, &wire, Duration::from_secs(10)));
        let stream = Stream::new(stream, wire.clone());
        let service = service_fn(|_| {
            wire.stays_open(true);
            let mut response = Response::new(ResponseBody::local(Bytes::new()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let mut connection = WrittenOut::new(connection, wire.clone());
        let request = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        client.write_all(request).await.expect("sent");
        while !wire.is_stalled() {
            tokio::select! {
                biased;
                _ = &mut connection => panic!("there is no room for the answer"),
                () = tokio::task::yield_now() => {}
            }
        }
        // This makes hyper take it for done.
        Pin::new(&mut connection).get_pin_mut().graceful_shutdown();
        let mut before = vec![0; waiting];
        let (ended, read) = tokio::join!(&mut connection, client.read_exact(&mut before));
        ended.expect("an end in order");
        read.expect("what has waited");
        assert!(connection.was_offered());
        let parts = connection.into_inner().into_parts();
        assert_eq!(parts.read_buf, "early");
        let mut stream = parts.io.into_inner();
        stream.leave_http();
        stream.write_all(b"after").await.expect("it is open");
        stream.shutdown().await.expect("an end");
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.expect("an end");
        assert!(rest.starts_with("HTTP/1.1 101 "), "{rest}");
        assert!(rest.ends_with("\r\n\r\nafter"), "{rest}");
    }
}
