//! Where a browser comes back to after a login.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

use super::{Origin, Scheme};

/// A `redirect_uri` (RFC 6749 section 3.1.2), kept to the letter, since servers compare it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUrl {
    text: String,
    /// Port 0 where any free one will do.
    origin: Origin,
    path: String,
}

impl RedirectUrl {
    /// Reads an absolute URL without a fragment. On this machine its port may be 0: any free one, for servers that
    /// accept that (RFC 8252 section 7.3).
    pub fn parse(text: &str) -> Option<Self> {
        // `http::Uri` drops a fragment in silence.
        let uri: Uri = text.parse().ok().filter(|_| !text.contains('#'))?;
        let origin = Origin::of(&uri).or_else(|| on_any_port(&uri))?;
        Some(Self {
            text: text.to_owned(),
            origin,
            path: uri.path().to_owned(),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port; port 0 where any free one will do.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The path, without a query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The addresses on which to listen for a browser that comes back; none where it goes elsewhere or speaks TLS.
    /// `localhost` is both, since it depends on the machine which of them a browser tries first.
    pub fn listen(&self) -> Vec<IpAddr> {
        if self.origin.scheme == Scheme::Https || !self.origin.is_loopback() {
            return Vec::new();
        }
        match self.origin.host.parse() {
            Ok(address) => vec![address],
            Err(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }

    /// With this port, where any would do.
    pub fn at(&self, port: u16) -> String {
        let any = self.origin.port == 0;
        let start = self.text.find("://").map_or(0, |start| start + 3);
        let (scheme, rest) = self.text.split_at(start);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        match authority.strip_suffix(":0").filter(|_| any) {
            Some(host) => format!("{scheme}{host}:{port}{rest}"),
            None => self.text.clone(),
        }
    }
}

/// The origin of a URL on this machine whose port is 0.
fn on_any_port(uri: &Uri) -> Option<Origin> {
    let host = uri.authority()?.as_str().strip_suffix(":0")?;
    let origin = Origin::parse(&format!("{}://{host}", uri.scheme_str()?))?;
    let listens = origin.scheme == Scheme::Http && origin.is_loopback();
    listens.then_some(Origin { port: 0, ..origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedirectUrl {
        RedirectUrl::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn it_is_kept_to_the_letter() {
        for text in [
            "http://localhost:8117",
            "http://LOCALHOST:8117/Callback?a=b",
            "https://lucid.app/oauth2/clients/cid/redirect",
        ] {
            assert_eq!(url(text).as_str(), text);
            assert_eq!(url(text).at(7), text, "its port is its own");
        }
        assert_eq!(url("http://localhost:8117?a=b").path(), "/");
        assert_eq!(url("http://localhost:8117/a%20b?c").path(), "/a%20b");
    }

    #[test]
    fn port_0_is_any_port_of_this_machine() {
        for (text, at) in [
            ("http://localhost:0/callback", "http://localhost:7/callback"),
            ("http://127.0.0.1:0", "http://127.0.0.1:7"),
            ("http://[::1]:0?a=:0/", "http://[::1]:7?a=:0/"),
        ] {
            assert_eq!(url(text).origin().port, 0, "{text}");
            assert_eq!(url(text).at(7), at);
        }
        for text in ["https://localhost:0/", "http://lucid.app:0/", "http://:0/"] {
            assert_eq!(RedirectUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_plain_http_on_this_machine_is_listened_for() {
        let listens = |text: &str| url(text).listen().len();
        assert_eq!(listens("http://localhost:8117/callback"), 2);
        assert_eq!(listens("http://127.0.0.1:8117/callback"), 1);
        assert_eq!(listens("http://[::1]:8117/callback"), 1);
        assert_eq!(listens("https://localhost:8117/callback"), 0);
        assert_eq!(listens("https://lucid.app/oauth2/clients/cid/redirect"), 0);
    }

    #[test]
    fn what_is_no_redirect_url_is_none() {
        for text in [
            "",
            "localhost:8117",
            "/callback",
            "ftp://a/",
            "http://a/#b",
            "http://a b/",
        ] {
            assert_eq!(RedirectUrl::parse(text), None, "{text}");
        }
    }
}
