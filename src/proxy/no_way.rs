//! Why a request for another host than the proxy is not served.

use http::StatusCode;

use super::reply::Refusal;
use super::send_error::SendError;
use crate::dial::DialError;
use crate::intercept::connect::{Destination, Reason};
use crate::tls::TlsError;

impl Refusal {
    pub(super) fn no_tunnels() -> Self {
        Self::no_tunnel(
            "CONNECT is not offered; use this proxy's address in the place of https://api.lucid.co, not as HTTPS_PROXY, or allow that in proxy.toml: [intercept] enabled = true",
        )
    }

    pub(super) fn no_tunnels_inside() -> Self {
        Self::no_tunnel(
            "CONNECT is not offered inside of a tunnel; ask the proxy itself for the next one",
        )
    }

    pub(super) fn no_tunnels_in_http2() -> Self {
        Self::no_tunnel(
            "CONNECT is not offered to clients that speak HTTP/2 with the proxy; speak HTTP/1.1 with it (inside of the tunnel HTTP/2 is spoken)",
        )
    }

    fn no_tunnel(message: impl Into<String>) -> Self {
        Self {
            // A client that takes it for a tunnel sends what is no HTTP.
            closes: true,
            ..Self::policy_denied(message.into())
        }
    }

    /// For a request for another host.
    pub(super) fn elsewhere(reason: &Reason) -> Self {
        match reason {
            Reason::Malformed => Self::bad_request(
                "the request asks for another host: a name or an address is accepted, and a port, which CONNECT always has",
            ),
            Reason::Ssh => Self::no_tunnel("no tunnel leads to port 22"),
            Reason::Address => Self::no_tunnel(
                "no tunnel leads to an address; ask for a host by its name, which [intercept] allow_tunnels must have",
            ),
            Reason::Local => Self::no_tunnel(
                "no tunnel leads back to this machine; reach localhost directly: NO_PROXY=localhost",
            ),
            Reason::OtherPort(host, port) => Self::no_tunnel(format!(
                "{host} is answered here as https://{host}, on port 443, and as http://{host}; port {port} is not"
            )),
            Reason::Real(host) => Self::no_tunnel(format!(
                "{host} is Lucid's own, and the stand-in has nothing of it: exec --sandbox leads to nothing real of Lucid's; run the program without --sandbox"
            )),
            Reason::TlsLeftToUs(Destination { host, port }) => Self::no_tunnel(format!(
                "https://{host} is reached through a tunnel alone; ask with CONNECT {host}:{port}, or reach {host} directly (NO_PROXY={host})"
            )),
            Reason::NotAllowed(Destination { host, port }) => Self::no_tunnel(format!(
                "this proxy leads to no other host; reach {host} directly (NO_PROXY={host}), or allow it in proxy.toml: [intercept] allow_tunnels = [\"{host}:{port}\"]"
            )),
        }
    }

    /// For a host that was reached and did not answer.
    pub(super) fn onward(host: &str, error: SendError) -> Self {
        let message = format!("passing the request on to {host}: {error}");
        let refusal = Self::from(error);
        Self { message, ..refusal }
    }

    /// Where nobody is trusted who could vouch for the proxy on the way.
    pub(super) fn no_tls(error: TlsError) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstreamUnreachable",
            "proxy_configuration_error",
            error.to_string(),
        )
    }

    /// For a host that there is no way to.
    pub(super) fn unreached(error: DialError) -> Self {
        if let DialError::Prohibited(..) = error {
            return Self {
                error: "destination_ip_prohibited",
                ..Self::no_tunnel(error.to_string())
            };
        }
        let message = error.to_string();
        let refusal = Self::from(SendError::Dial(error));
        Self { message, ..refusal }
    }

    /// For a client that uses this as its forward proxy and does not say who it is. Why is not said, as elsewhere.
    pub(super) fn proxy_key_required() -> Self {
        Self {
            closes: true,
            ..Self::new(
                StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                "clientKeyRequired",
                "http_request_denied",
                "this proxy serves clients with a key; give it where the proxy is named, http://NAME:KEY@host:port, or send it as Proxy-Authorization: Bearer KEY; a new one is made with: lucid-proxy key new NAME",
            )
        }
    }
}
