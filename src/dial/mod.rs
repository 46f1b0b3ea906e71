//! Connections to other machines: upstream and the token endpoint are reached by the same steps and settings (rule T5).
//!
//! 1. the name is looked up, both families at once;
//! 2. [`race`]: its addresses are tried one after the other, without waiting for one that does not answer (RFC 8305);
//! 3. [`tunnel`]: where there is a proxy on the way, the first two steps lead there, and it is asked for a tunnel;
//! 4. TLS, which also finds out which version of HTTP is spoken (ALPN).
//!
//! [`Dialer::connect`] bounds all of it together, and says at which step the time ran out. What becomes of a
//! connection is not for this room: nothing is sent here that a request consists of, so whatever fails here leaves a
//! request unsent.

mod error;
pub mod race;
mod stream;
pub mod tunnel;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use error::{DialError, Peer, Progress, Step};
pub use race::Attempts;
pub use stream::Stream;
pub use tunnel::{NoTunnel, TunnelError};

use crate::config::{HttpProxy, Network, Origin, Scheme, Way};
use crate::tls::{self, TlsError};

/// Opens connections to one origin.
#[derive(Debug)]
pub struct Dialer {
    origin: Origin,
    way: Route,
    /// Towards the origin.
    tls: Option<Tls>,
    judge: Option<Judge>,
}

/// Says what is wrong with an address, where something is.
pub type Judge = fn(IpAddr) -> Option<&'static str>;

/// Where the first step of a connection leads.
#[derive(Clone, Debug)]
enum Route {
    Direct,
    /// To this proxy, and over TLS if it listens so.
    Proxy(Arc<HttpProxy>, Option<Tls>),
    /// To a proxy that is not known, for this reason.
    Unknown(String),
}

/// How TLS is spoken with one server.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Route {
    fn to(network: &Network, origin: &Origin) -> Result<Self, TlsError> {
        Ok(match network.way_to(origin) {
            Way::Direct(_) => Self::Direct,
            Way::Proxy(proxy) => Self::Proxy(
                proxy.clone(),
                Tls::towards(network, &proxy.origin, Vec::new())?,
            ),
            Way::Unknown(unusable) => Self::Unknown(unusable.to_string()),
        })
    }
}

impl Dialer {
    /// Prepares to reach `origin` by this network; over TLS, `alpn` names the protocols that are offered, the best first.
    ///
    /// # Errors
    ///
    /// When TLS is to be spoken and nobody is trusted.
    pub fn new(network: &Network, origin: &Origin, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let way = Route::to(network, origin)?;
        Ok(Self {
            origin: origin.clone(),
            way,
            tls: Tls::towards(network, origin, alpn)?,
            judge: None,
        })
    }

    /// Prepares to reach `origin` for somebody who speaks with it by themselves, TLS too. Only addresses that `judge` lets
    /// pass are connected to. Through a proxy that is the proxy's to see to, which looks the name up.
    ///
    /// # Errors
    ///
    /// When TLS is to be spoken with a proxy and nobody is trusted.
    pub fn for_tunnels(
        network: &Network,
        origin: &Origin,
        judge: Option<Judge>,
    ) -> Result<Self, TlsError> {
        let way = Route::to(network, origin)?;
        Ok(Self {
            origin: origin.clone(),
            way,
            tls: None,
            judge,
        })
    }

    /// The same way, with these protocols to offer where TLS is spoken.
    pub fn offering(&self, alpn: Vec<Vec<u8>>) -> Self {
        let tls = self.tls.as_ref().map(|tls| {
            let mut config = ClientConfig::clone(&tls.config);
            config.alpn_protocols = alpn;
            Tls {
                config: Arc::new(config),
                name: tls.name.clone(),
            }
        });
        Self {
            origin: self.origin.clone(),
            way: self.way.clone(),
            tls,
            judge: self.judge,
        }
    }

    /// Where the connections go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Opens a connection for somebody who has waited since `begun`.
    ///
    /// # Errors
    ///
    /// When there is none within the bound. Nothing but handshakes was sent.
    pub async fn connect(&self, begun: Instant, bound: Duration) -> Result<Stream, DialError> {
        let peer = self.first_peer()?;
        let mut progress = Progress::begin(&peer);
        let opening = self.open(peer, bound, &mut progress);
        match tokio::time::timeout_at(begun + bound, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(DialError::TimedOut(progress, bound)),
        }
    }

    fn first_peer(&self) -> Result<Peer, DialError> {
        match &self.way {
            Route::Direct => Ok(Peer::Server(self.origin.clone())),
            Route::Proxy(proxy, _) => Ok(Peer::Proxy(proxy.clone())),
            Route::Unknown(why) => Err(DialError::UnknownProxy(why.clone())),
        }
    }

    async fn open(
        &self,
        peer: Peer,
        bound: Duration,
        progress: &mut Progress,
    ) -> Result<Stream, DialError> {
        let tcp = reach(&peer, self.judge, bound, progress).await?;
        let in_tls = |tls| Stream::Tls(Box::new(tls));
        match &self.way {
            Route::Proxy(proxy, None) => {
                let tcp = self.pass(proxy, tcp, progress).await?;
                self.finish(tcp, progress, Stream::Plain, in_tls).await
            }
            Route::Proxy(proxy, Some(tls)) => {
                let outer = tls.secure(peer, tcp, progress).await?;
                let outer = self.pass(proxy, outer, progress).await?;
                let nested = |tls| Stream::Nested(Box::new(tls));
                self.finish(outer, progress, in_tls, nested).await
            }
            Route::Direct | Route::Unknown(_) => {
                self.finish(tcp, progress, Stream::Plain, in_tls).await
            }
        }
    }

    /// Through the proxy at the other end.
    async fn pass<T>(
        &self,
        proxy: &Arc<HttpProxy>,
        io: T,
        progress: &mut Progress,
    ) -> Result<T, DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        progress.step = Step::Tunnel(proxy.clone(), self.origin.clone());
        let opened = tunnel::open(io, proxy, &self.origin).await;
        if opened.is_ok() {
            tracing::debug!("{proxy} opened a tunnel to {}", self.origin);
        }
        opened.map_err(DialError::Tunnel)
    }

    /// What is left to do where `io` leads to the origin.
    async fn finish<T>(
        &self,
        io: T,
        progress: &mut Progress,
        in_the_clear: impl FnOnce(T) -> Stream,
        in_tls: impl FnOnce(TlsStream<T>) -> Stream,
    ) -> Result<Stream, DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(tls) = &self.tls else {
            return Ok(in_the_clear(io));
        };
        let server = Peer::Server(self.origin.clone());
        tls.secure(server, io, progress).await.map(in_tls)
    }
}

impl Tls {
    /// Towards a server, as its scheme has it; `alpn` names the protocols that are offered, the best first.
    ///
    /// # Errors
    ///
    /// When nobody is trusted.
    pub fn towards(
        network: &Network,
        origin: &Origin,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Option<Self>, TlsError> {
        if origin.scheme == Scheme::Http {
            return Ok(None);
        }
        let mut config = tls::client_config(tls::verifier(network.extra_roots())?);
        config.alpn_protocols = alpn;
        let name = ServerName::try_from(origin.host.clone());
        Ok(Some(Self {
            config: Arc::new(config),
            name: name.map_err(|_| TlsError::Name(origin.host.clone()))?,
        }))
    }

    async fn secure<T>(
        &self,
        peer: Peer,
        io: T,
        progress: &mut Progress,
    ) -> Result<TlsStream<T>, DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        progress.step = Step::Tls(peer.clone());
        let secured = self.handshake(io).await;
        secured.map_err(|error| DialError::Tls(peer, error))
    }

    /// Speaks TLS.
    ///
    /// # Errors
    ///
    /// When the other side does not, or is not trusted.
    pub async fn handshake<T>(&self, io: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(self.name.clone(), io).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Connects to the first address of `peer` that answers.
async fn reach(
    peer: &Peer,
    judge: Option<Judge>,
    bound: Duration,
    progress: &mut Progress,
) -> Result<TcpStream, DialError> {
    let addresses = look_up(peer.origin()).await;
    let addresses = addresses.map_err(|error| DialError::LookUp(peer.clone(), error))?;
    let addresses = match (peer, judge) {
        (Peer::Server(origin), Some(judge)) => permitted(origin, addresses, judge)?,
        _ => addresses,
    };
    let addresses = race::interleave(&addresses);
    let pace = race::pace(bound, addresses.len());
    progress.step = Step::Connect(peer.clone());
    let attempts = &mut progress.attempts;
    match race::first(&addresses, pace, attempts, TcpStream::connect).await {
        Some(tcp) => {
            // Without this a head and a small body written apart would wait for each other's acknowledgement. A
            // socket that refuses the option is about to fail anyway.
            let _ = tcp.set_nodelay(true);
            hold_little(&tcp);
            tracing::debug!("connected to {peer} at {}", shown(&tcp));
            Ok(tcp)
        }
        None => Err(DialError::Connect(peer.clone(), std::mem::take(attempts))),
    }
}

/// Those of the addresses with which nothing is wrong.
fn permitted(
    origin: &Origin,
    addresses: Vec<SocketAddr>,
    judge: Judge,
) -> Result<Vec<SocketAddr>, DialError> {
    let first = addresses.first().map(SocketAddr::ip);
    let is_good = |address: &SocketAddr| judge(address.ip()).is_none();
    let good: Vec<_> = addresses.into_iter().filter(is_good).collect();
    match first.and_then(|first| Some((first, judge(first)?))) {
        Some((first, why)) if good.is_empty() => {
            Err(DialError::Prohibited(origin.clone(), first, why))
        }
        _ => Ok(good),
    }
}

/// Bytes that the system may hold of what it has not sent yet. It would hold megabytes, and nobody could tell whether the
/// other side takes any of it: a slow one would seem to stand still. What is on its way comes on top, so that a fast one
/// is not slowed down.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 256 << 10;

#[cfg(target_os = "linux")]
fn hold_little(tcp: &TcpStream) {
    // A socket that refuses the option works all the same.
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT);
}

#[cfg(not(target_os = "linux"))]
fn hold_little(_: &TcpStream) {}

fn shown(tcp: &TcpStream) -> String {
    // A socket that has no peer any more is about to fail anyway.
    let address = tcp.peer_addr();
    address.map_or_else(|error| error.to_string(), |address| address.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_leads_to_no_address_that_is_judged_to_be_wrong() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let connect = async |host: &str, judge| {
            let origin = Origin {
                scheme: Scheme::Https,
                host: host.to_owned(),
                port,
            };
            let dialer = Dialer::for_tunnels(&Network::default(), &origin, judge);
            let dialer = dialer.expect("no TLS is spoken");
            dialer
                .connect(Instant::now(), Duration::from_secs(10))
                .await
        };
        let judge: Judge = |address| address.is_loopback().then_some("this machine's own");
        for host in ["localhost", "127.0.0.1"] {
            let refused = connect(host, Some(judge)).await.expect_err("it is judged");
            let message = refused.to_string();
            assert!(
                message.starts_with(&format!("{host} stands for ")),
                "{message}"
            );
            assert!(message.contains("this machine's own"), "{message}");
            let opened = connect(host, None).await;
            assert!(matches!(opened, Ok(Stream::Plain(_))), "{host}");
        }
    }
}
