//! One connection to upstream: how it is opened, and how it is driven.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::body::Outgoing;
use super::send_error::SendError;
use super::stream::Stream;
use crate::config::{self, Origin};
use crate::dial::Dialer;
use crate::tls::TlsError;

/// What all workers know of upstream.
#[derive(Debug)]
pub struct Target {
    dialer: Dialer,
    bounds: Bounds,
}

/// How long upstream may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To connect, TLS included.
    pub connect: Duration,
    /// To begin its answer after the request was sent.
    pub response: Duration,
    /// To take more of a request body, or the client to send more of it.
    pub body: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

impl Target {
    /// Prepares to reach the configured upstream.
    ///
    /// # Errors
    ///
    /// When upstream speaks TLS and this system trusts no certificates.
    pub fn new(upstream: &config::Upstream, body: Duration) -> Result<Self, TlsError> {
        let dialer = Dialer::new(&upstream.origin, vec![b"http/1.1".to_vec()])?;
        let bounds = Bounds {
            connect: upstream.connect_timeout,
            response: upstream.response_timeout,
            body,
            idle: upstream.idle_timeout,
        };
        Ok(Self { dialer, bounds })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        self.dialer.origin()
    }

    /// How long upstream may take.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// When there is none within the bound.
    pub(super) async fn connect(&self) -> Result<Connection, SendError> {
        let stream = self.dialer.connect(self.bounds.connect).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(Stream::from(stream)))
            .await
            .map_err(SendError::Ended)?;
        Ok(Connection {
            sender,
            driver: Box::new(driver),
            idle_since: Instant::now(),
            reused: false,
        })
    }
}

/// A connection and the half that moves its bytes.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Outgoing>,
    pub(super) driver: Box<http1::Connection<TokioIo<Stream>, Outgoing>>,
    pub(super) idle_since: Instant,
    /// Whether it has served a request before.
    pub(super) reused: bool,
}

impl Connection {
    /// Moves bytes in both directions; ready when the connection has ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut *self.driver).poll(cx)
    }

    /// Whether the connection can take a request now. Driving it with nobody to wake shows an end that has come since
    /// it was last driven; nothing else is due on a connection between two exchanges.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut nobody()).is_pending() && self.sender.is_ready()
    }
}

/// For polling a response body, which hyper fills only while the connection is driven by whoever polls: nobody is to be
/// woken for it later. hyper's channel for bodies has no budget that could make it pretend to be empty, unlike tokio's.
pub(super) fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
