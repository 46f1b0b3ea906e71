//! Connections to other machines: upstream and the token endpoint are reached by the same steps and settings (rule T5).
//!
//! 1. the name is looked up, both families at once;
//! 2. [`race`]: its addresses are tried one after the other, without waiting for one that does not answer (RFC 8305);
//! 3. TLS, which also finds out which version of HTTP is spoken (ALPN).
//!
//! [`Dialer::connect`] bounds all of it together, and says at which step the time ran out. What becomes of a
//! connection is not for this room: nothing is sent here that a request consists of, so whatever fails here leaves a
//! request unsent.

mod error;
pub mod race;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use error::{DialError, Progress, Step};
pub use race::Attempts;
pub use stream::Stream;

use crate::config::{Origin, Scheme};
use crate::tls::{self, TlsError};

/// Opens connections to one origin.
pub struct Dialer {
    origin: Origin,
    tls: Option<Tls>,
}

/// How TLS is spoken with one server.
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    /// Prepares to reach `origin`; over TLS, `alpn` names the protocols that are offered, the best first.
    ///
    /// # Errors
    ///
    /// When TLS is to be spoken and this system trusts no certificates.
    pub fn new(origin: &Origin, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let tls = match origin.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Tls::with(origin, alpn)?),
        };
        Ok(Self {
            origin: origin.clone(),
            tls,
        })
    }

    /// Where the connections go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// When there is none within the bound. Nothing but handshakes was sent.
    pub async fn connect(&self, bound: Duration) -> Result<Stream, DialError> {
        let mut progress = Progress::begin(&self.origin);
        match tokio::time::timeout(bound, self.open(bound, &mut progress)).await {
            Ok(opened) => opened,
            Err(_) => Err(DialError::TimedOut(progress, bound)),
        }
    }

    async fn open(&self, bound: Duration, progress: &mut Progress) -> Result<Stream, DialError> {
        let tcp = reach(&self.origin, bound, progress).await?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        progress.step = Step::Tls(self.origin.clone());
        match tls.handshake(tcp).await {
            Ok(tls) => Ok(Stream::Tls(Box::new(tls))),
            Err(error) => Err(DialError::Tls(self.origin.clone(), error)),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Tls {
    fn with(origin: &Origin, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let mut config = tls::client_config()?;
        config.alpn_protocols = alpn;
        let name = ServerName::try_from(origin.host.clone());
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: name.map_err(|_| TlsError::Name(origin.host.clone()))?,
        })
    }

    async fn handshake<T>(&self, stream: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// Connects to the first address of `origin` that answers.
async fn reach(
    origin: &Origin,
    bound: Duration,
    progress: &mut Progress,
) -> Result<TcpStream, DialError> {
    progress.step = Step::LookUp(origin.clone());
    let addresses = look_up(origin).await;
    let addresses = addresses.map_err(|error| DialError::LookUp(origin.clone(), error))?;
    let addresses = race::interleave(&addresses);
    let pace = race::pace(bound, addresses.len());
    progress.step = Step::Connect(origin.clone());
    let attempts = &mut progress.attempts;
    match race::first(&addresses, pace, attempts, TcpStream::connect).await {
        Some(tcp) => {
            // Without this a head and a small body written apart would wait for each other's acknowledgement. A
            // socket that refuses the option is about to fail anyway.
            let _ = tcp.set_nodelay(true);
            Ok(tcp)
        }
        None => Err(DialError::Connect(origin.clone(), std::mem::take(attempts))),
    }
}

/// The addresses of a host, as the system orders them (RFC 6724).
///
/// # Errors
///
/// When it has none.
pub async fn look_up(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await?;
    let addresses: Vec<_> = found.collect();
    match addresses.is_empty() {
        true => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )),
        false => Ok(addresses),
    }
}
