//! One connection to upstream: how it is opened, and how it is driven.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{Request, Uri, Version, uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::body::Outgoing;
use super::multiplexed::Multiplexed;
use super::send_error::SendError;
use super::stream::{Resumed, Stream};
use crate::config::{self, HttpVersions, Origin, Scheme};
use crate::dial::{self, Dialer};
use crate::tls::TlsError;

/// What all workers know of upstream.
#[derive(Debug)]
pub struct Target {
    dialer: Dialer,
    /// For connections that are to become tunnels, which must speak HTTP/1.1, where `dialer` offers more than that.
    http1_dialer: Option<Dialer>,
    http: HttpVersions,
    /// The same as in the target of an HTTP/2 request.
    scheme: uri::Scheme,
    authority: uri::Authority,
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
        let origin = &upstream.origin;
        let dialer = Dialer::new(&upstream.network, origin, protocols(upstream.http))?;
        let bounds = Bounds {
            connect: upstream.connect_timeout,
            response: upstream.response_timeout,
            body,
            idle: upstream.idle_timeout,
        };
        let scheme = match origin.scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        };
        let authority =
            uri::Authority::try_from(origin.authority()).expect("an origin has an authority");
        let both = upstream.http == HttpVersions::Auto && origin.scheme == Scheme::Https;
        Ok(Self {
            http1_dialer: both.then(|| dialer.offering(protocols(HttpVersions::Http1))),
            dialer,
            http: upstream.http,
            scheme,
            authority,
            bounds,
        })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        self.dialer.origin()
    }

    /// How long upstream may take.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Opens a connection for a request that has waited for one since `begun`.
    ///
    /// # Errors
    ///
    /// When there is none within the bound.
    pub(super) async fn connect(&self, begun: Instant) -> Result<Opened, SendError> {
        let stream = self.dialer.connect(begun, self.bounds.connect).await?;
        if self.speaks_http2(&stream)? {
            let connection = Multiplexed::begin(Stream::from(stream)).await;
            return connection.map(Opened::Http2).map_err(SendError::Ended);
        }
        Connection::begin(stream).await.map(Opened::Http1)
    }

    /// Opens a connection that speaks HTTP/1.1 whatever upstream prefers.
    ///
    /// # Errors
    ///
    /// When there is none within the bound.
    pub(super) async fn connect_http1(&self) -> Result<Box<Connection>, SendError> {
        let dialer = self.http1_dialer.as_ref().unwrap_or(&self.dialer);
        let stream = dialer.connect(Instant::now(), self.bounds.connect).await?;
        Connection::begin(stream).await
    }

    /// Whether upstream may be spoken to in HTTP/1.1, the version in which a connection can change its protocol.
    pub(super) fn may_speak_http1(&self) -> bool {
        self.http != HttpVersions::Http2
    }

    /// No connection within the bound.
    pub(super) fn connect_timeout(&self) -> SendError {
        SendError::ConnectTimeout(self.origin().to_string(), self.bounds.connect)
    }

    /// Whether a connection that is opened may turn out to speak HTTP/2.
    pub(super) fn may_speak_http2(&self) -> bool {
        match self.http {
            HttpVersions::Auto => self.is_tls(),
            HttpVersions::Http1 => false,
            HttpVersions::Http2 => true,
        }
    }

    fn is_tls(&self) -> bool {
        self.origin().scheme == Scheme::Https
    }

    fn speaks_http2(&self, stream: &dial::Stream) -> Result<bool, SendError> {
        match (self.http, stream.protocol()) {
            (HttpVersions::Http2, None) if !self.is_tls() => Ok(true),
            (_, Some(HTTP2)) => Ok(true),
            (HttpVersions::Http2, _) => Err(SendError::NoHttp2(self.origin().to_string())),
            _ => Ok(false),
        }
    }

    /// Makes a request's head one of HTTP/2: the host is part of the target, and nothing speaks of the connection (RFC
    /// 9113 sections 8.2.2 and 8.3.1).
    pub(super) fn address<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_2;
        for name in [HOST, TRANSFER_ENCODING, CONNECTION] {
            request.headers_mut().remove(name);
        }
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(target).expect("scheme, host and path make a URI");
    }
}

/// What `Target::connect` has opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// For one exchange after the other.
    Http1(Box<Connection>),
    /// For many at once.
    Http2(Multiplexed),
}

/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const HTTP2: &[u8] = b"h2";

/// What is offered by ALPN, the best first.
fn protocols(http: HttpVersions) -> Vec<Vec<u8>> {
    let (http1, http2) = (b"http/1.1".to_vec(), HTTP2.to_vec());
    match http {
        HttpVersions::Auto => vec![http2, http1],
        HttpVersions::Http1 => vec![http1],
        HttpVersions::Http2 => vec![http2],
    }
}

/// A connection and the half that moves its bytes. Boxed wherever it is, since it goes from hand to hand.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Outgoing>,
    pub(super) driver: http1::Connection<TokioIo<Stream>, Outgoing>,
    pub(super) resumed: Resumed,
    /// For the waits of one exchange after the other.
    pub(super) alarm: Alarm,
    pub(super) idle_since: Instant,
    /// Whether it has served a request before.
    pub(super) reused: bool,
}

impl Connection {
    /// Begins to speak HTTP/1.1.
    pub(super) async fn begin(stream: dial::Stream) -> Result<Box<Self>, SendError> {
        let stream = Stream::from(stream);
        let resumed = stream.resumed();
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Ended)?;
        Ok(Box::new(Self {
            sender,
            driver,
            resumed,
            alarm: Alarm::default(),
            idle_since: Instant::now(),
            reused: false,
        }))
    }

    /// Moves bytes in both directions; ready when the connection has ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut self.driver).poll(cx)
    }

    /// Drives it to the end of what is under way.
    pub(super) async fn finish(self: Box<Self>) {
        let Self { sender, driver, .. } = *self;
        // As long as there is somebody who could ask for more, it would wait for that.
        drop(sender);
        // How it ends, whoever reads the answer hears.
        let _ = driver.await;
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
