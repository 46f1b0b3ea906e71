//! Where clients connect, as one text: an address with a port, a unix socket, or what systemd passes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// Sockets that systemd passes at the start: those of one name, or all.
    Systemd(Option<String>),
}

/// What is no [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing that is known.
    #[error(
        "expected an address with a port (\"127.0.0.1:8118\", \"[::1]:8118\"), a socket's path (\"unix:/run/lucid-proxy/proxy.sock\"), or \"systemd\" or \"systemd:NAME\" for what a socket unit passes"
    )]
    Unknown,
    /// The system knows no such path for a socket.
    #[error(
        "expected a path of at most 107 bytes behind \"unix:\", such as \"unix:/run/lucid-proxy/proxy.sock\""
    )]
    Path,
    /// A name without a file.
    #[error(
        "a socket without a file (\"@…\") has neither owner nor mode, so that everybody on this machine could use it; expected a path, such as \"unix:/run/lucid-proxy/proxy.sock\""
    )]
    Abstract,
}

/// Where programs of this machine reach what listens at `address`: every address (`0.0.0.0`, `[::]`) is none to connect to.
pub(crate) fn from_this_machine(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return address,
    };
    SocketAddr::new(ip, address.port())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        match text.strip_prefix("systemd") {
            Some("") => Ok(Self::Systemd(None)),
            Some(name) => match name.strip_prefix(':') {
                Some(name) if !name.is_empty() => Ok(Self::Systemd(Some(name.to_owned()))),
                _ => Err(AddressError::Unknown),
            },
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| AddressError::Unknown),
        }
    }
}

fn socket_path(path: &str) -> Result<PathBuf, AddressError> {
    if path.starts_with('@') {
        return Err(AddressError::Abstract);
    }
    let fits = std::os::unix::net::SocketAddr::from_pathname(path).is_ok();
    if path.is_empty() || !fits {
        return Err(AddressError::Path);
    }
    Ok(PathBuf::from(path))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_as_they_are_written() {
        for text in [
            "127.0.0.1:8118",
            "[::1]:0",
            "unix:/run/lucid-proxy/proxy.sock",
            "unix:here.sock",
            "systemd",
            "systemd:https",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_what_would_be_one() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, error) in [
            ("", AddressError::Unknown),
            ("8118", AddressError::Unknown),
            ("localhost:8118", AddressError::Unknown),
            ("systemd:", AddressError::Unknown),
            ("systemdx", AddressError::Unknown),
            ("unix:", AddressError::Path),
            ("unix:/a\0b", AddressError::Path),
            (&long, AddressError::Path),
            ("unix:@lucid", AddressError::Abstract),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
