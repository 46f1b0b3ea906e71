//! Listening sockets of every kind.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::{Scheme, from_this_machine};

/// Where clients reach the server. Shown as `serve` prints it: `http://127.0.0.1:8118`, `unix:/run/proxy.sock`. One at every
/// address is shown as this machine reaches it, for `0.0.0.0` is no name that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and its real port.
    Tcp {
        /// Whether clients speak TLS there.
        scheme: Scheme,
        /// The address.
        address: SocketAddr,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The address, unless it is a unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { address, .. } => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { scheme, address } => {
                let address = from_this_machine(*address);
                write!(f, "{}://{address}", scheme.as_str())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket, not yet in the hands of a worker.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl Socket {
    /// Another handle on the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(tcp) => Self::Tcp(tcp.try_clone()?),
            Self::Unix(unix) => Self::Unix(unix.try_clone()?),
        })
    }

    /// Where it listens, spoken to with `scheme`.
    pub(super) fn endpoint(&self, scheme: Scheme) -> io::Result<Endpoint> {
        Ok(match self {
            Self::Tcp(tcp) => Endpoint::Tcp {
                scheme,
                address: tcp.local_addr()?,
            },
            Self::Unix(unix) => {
                let address = unix.local_addr()?;
                // A socket that systemd made may have no file.
                Endpoint::Unix(address.as_pathname().map_or("@".into(), PathBuf::from))
            }
        })
    }
}

/// A connection as it was accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    /// With where it comes from.
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl Accepted {
    /// Where it comes from.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(*peer),
            Self::Unix(_) => None,
        }
    }

    /// The addresses of the other end and of this one; `None` for one that has none.
    pub(super) fn ends(&self) -> Option<io::Result<(SocketAddr, SocketAddr)>> {
        match self {
            Self::Tcp(tcp, _) => {
                let ends = tcp
                    .peer_addr()
                    .and_then(|peer| Ok((peer, tcp.local_addr()?)));
                Some(ends)
            }
            Self::Unix(_) => None,
        }
    }

    /// Writes what there is room for at once, says that nothing more is to come, and reads what comes up to its end. What
    /// is not read would have the system reset the connection, and the client lose what was written.
    pub(super) async fn part(self, last: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(tcp, _) => part(tcp, last).await,
            Self::Unix(unix) => part(unix, last).await,
        }
    }
}

async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin, last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// A listening socket in the hands of a worker.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Hands the socket to the runtime that this is called in.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(tcp) => Self::Tcp(TcpListener::from_std(tcp)?),
            Socket::Unix(unix) => Self::Unix(UnixListener::from_std(unix)?),
        })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(tcp) => {
                let accepted = tcp.accept().await;
                accepted.map(|(tcp, peer)| Accepted::Tcp(tcp, peer.ip()))
            }
            Self::Unix(unix) => unix.accept().await.map(|(unix, _)| Accepted::Unix(unix)),
        }
    }
}
