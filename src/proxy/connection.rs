//! One connection to upstream: how it is opened, and how it is driven.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::body::Outgoing;
use super::send_error::SendError;
use super::stream::Stream;
use crate::config::{self, Origin, Scheme};
use crate::tls::TlsError;

/// What all workers know of upstream.
pub struct Target {
    origin: Origin,
    tls: Option<(TlsConnector, ServerName<'static>)>,
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
        let origin = upstream.origin.clone();
        let tls = match origin.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let mut config = crate::tls::client_config()?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
                    rustls::Error::General(format!("{} is no name for a certificate", origin.host))
                })?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let bounds = Bounds {
            connect: upstream.connect_timeout,
            response: upstream.response_timeout,
            body,
            idle: upstream.idle_timeout,
        };
        Ok(Self {
            origin,
            tls,
            bounds,
        })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
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
        let bound = self.bounds.connect;
        let connecting = tokio::time::timeout(bound, self.open());
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(SendError::ConnectTimeout(self.origin.to_string(), bound)))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Ended)?;
        Ok(Connection {
            sender,
            driver: Box::new(driver),
            idle_since: Instant::now(),
            reused: false,
        })
    }

    async fn open(&self) -> Result<Stream, SendError> {
        let name = || self.origin.to_string();
        let addresses = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port))
            .await
            .map_err(|error| SendError::Lookup(name(), error))?;
        let addresses: Vec<_> = addresses.collect();
        // One address that nobody answers at must not use up the time of the others.
        let share = self.bounds.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return self.secure(tcp).await,
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, "nobody answers there"),
            }
        }
        if failure.kind() == io::ErrorKind::TimedOut {
            return Err(SendError::ConnectTimeout(name(), self.bounds.connect));
        }
        Err(SendError::Connect(name(), failure))
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Stream, SendError> {
        // Without this a head and a small body written apart would wait for each other's acknowledgement. A socket
        // that refuses the option is about to fail anyway.
        let _ = tcp.set_nodelay(true);
        match &self.tls {
            None => Ok(Stream::plain(tcp)),
            Some((connector, name)) => match connector.connect(name.clone(), tcp).await {
                Ok(tls) => Ok(Stream::tls(tls)),
                Err(error) => Err(SendError::Tls(self.origin.to_string(), error)),
            },
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("origin", &self.origin)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
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
