//! Listening sockets of every kind.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Scheme;

/// Where clients reach the server. Shown as `serve` prints it: `http://127.0.0.1:8118`, `unix:/run/proxy.sock`.
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
            Self::Tcp { scheme, address } => write!(f, "{}://{address}", scheme.as_str()),
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
    Tcp(TcpStream),
    Unix(UnixStream),
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
            Self::Tcp(tcp) => tcp.accept().await.map(|(tcp, _)| Accepted::Tcp(tcp)),
            Self::Unix(unix) => unix.accept().await.map(|(unix, _)| Accepted::Unix(unix)),
        }
    }
}
