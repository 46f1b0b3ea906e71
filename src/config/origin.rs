//! An origin (RFC 6454): scheme, host and port, with nothing behind them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::Uri;

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL without one means.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Lower case, an IPv6 address without its brackets.
    pub host: String,
    /// Always known: the scheme's own where the URL had none.
    pub port: u16,
}

impl Origin {
    /// Takes the origin from an absolute URL; `None` when there is none of the two schemes in it, or it carries
    /// a user name.
    pub fn of(uri: &Uri) -> Option<Self> {
        let scheme = match uri.scheme_str()? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        if authority.as_str().contains('@') || host.is_empty() {
            return None;
        }
        // Not `authority.port()`, which has no answer for a port that is none.
        let port = match authority.as_str().strip_prefix(host)? {
            "" => scheme.default_port(),
            port => port
                .strip_prefix(':')?
                .parse()
                .ok()
                .filter(|port| *port != 0)?,
        };
        let host = match host.strip_prefix('[') {
            Some(literal) => ipv6(literal.strip_suffix(']')?)?,
            None => host,
        };
        let host = host.to_ascii_lowercase();
        Some(Self { scheme, host, port })
    }

    /// Reads a URL that is nothing but an origin, with or without a slash behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('#');
        if bare { Self::of(&uri) } else { None }
    }

    /// The value of `Host` for this origin: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// Whether it is this machine by name or address, so that plain HTTP stays on it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// The origin of a listener that speaks plain HTTP at this address.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            scheme: Scheme::Http,
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// What alone may stand in brackets (RFC 3986 section 3.2.2); nobody has used a later version yet.
fn ipv6(literal: &str) -> Option<&str> {
    literal.parse::<Ipv6Addr>().is_ok().then_some(literal)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_origins_and_nothing_else() {
        let shown = |text: &str| Origin::parse(text).map(|origin| origin.to_string());
        for (text, expected) in [
            ("https://api.lucid.co", "https://api.lucid.co"),
            ("https://API.lucid.co:443/", "https://api.lucid.co"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:8118", "http://[::1]:8118"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "api.lucid.co",
            "ftp://a",
            "https://[api.lucid.co]",
            "https://[127.0.0.1]",
            "https://[[::1]]",
            "https://[::1",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://a:0",
            "/x",
            "https://a:99999",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn knows_loopback_by_name_and_address() {
        let loopback = |text: &str| Origin::parse(text).expect("an origin").is_loopback();
        assert!(
            loopback("http://localhost:1")
                && loopback("http://127.9.9.9")
                && loopback("http://[::1]")
        );
        assert!(!loopback("http://localhost.example") && !loopback("http://10.0.0.1"));
    }
}
