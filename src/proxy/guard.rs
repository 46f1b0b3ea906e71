//! May this client use the proxy at all? (rules S2 and S3)
//!
//! A program that adds a credential to whatever reaches its port must not serve every web page that a browser on this
//! machine opens: a page can send requests here by name (DNS rebinding) or across origins.

use std::net::SocketAddr;

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Uri};

use super::head::Names;
use super::reply::Refusal;
use crate::config::Scheme;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which one listener may be asked.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Lower case, with the port unless it is the scheme's own.
    hosts: Vec<String>,
    scheme: Scheme,
}

impl Guard {
    /// A guard for a listener at `address` that is spoken to with `scheme`, and is also known by the `allowed` names.
    pub fn tcp(scheme: Scheme, address: SocketAddr, allowed: &[String]) -> Self {
        let mut hosts = vec![address.to_string()];
        if address.ip().is_loopback() {
            hosts.push(format!("localhost:{}", address.port()));
        }
        if address.port() == scheme.default_port() {
            // `Host` leaves out the scheme's own port (RFC 9110 section 7.2).
            let port = format!(":{}", address.port());
            hosts.extend(
                hosts
                    .clone()
                    .iter()
                    .filter_map(|host| host.strip_suffix(&port).map(str::to_owned)),
            );
        }
        hosts.extend_from_slice(allowed);
        Self { hosts, scheme }
    }

    /// A guard for a unix socket, which has no name of its own: clients say `localhost`, or one of the `allowed` names.
    pub fn unix(allowed: &[String]) -> Self {
        let mut hosts = vec!["localhost".to_owned()];
        hosts.extend_from_slice(allowed);
        Self {
            hosts,
            scheme: Scheme::Http,
        }
    }

    /// How clients of the listener begin its address.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Refuses what did not ask for this proxy by one of its names, and what a web page sent. `names` are those that the
    /// head has.
    ///
    /// # Errors
    ///
    /// The refusal names the line of the configuration that would allow it, where there is one.
    pub fn check(&self, head: &Parts, names: Names) -> Result<(), Refusal> {
        let headers = &head.headers;
        if head.method == Method::CONNECT {
            // First, since what it asks for is another host by its nature.
            return Err(Refusal::no_tunnels());
        }
        let host = asked_host(&head.uri, headers)?;
        if !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return Err(match is_host(host) {
                true => Refusal::host_not_allowed(host),
                false => Refusal::bad_request("Host: a name or an address is accepted, and a port"),
            });
        }
        if !names.has(Names::SENDER) {
            return Ok(());
        }
        if let Some(origin) = headers.get(ORIGIN) {
            return Err(Refusal::origin_not_allowed(&String::from_utf8_lossy(
                origin.as_bytes(),
            )));
        }
        if headers
            .get(SEC_FETCH_SITE)
            .is_some_and(|site| site == "cross-site" || site == "same-site")
        {
            return Err(Refusal::origin_not_allowed("another site"));
        }
        Ok(())
    }
}

/// Whether it is `uri-host [ ":" port ]` (RFC 9110 section 7.2). A password before it is nobody's business: what is none is
/// not repeated.
fn is_host(host: &str) -> bool {
    host.parse::<Authority>().is_ok() && !host.contains('@')
}

/// The host that the client asked for: that of an absolute-form target, else `Host` (RFC 9112 section 3.2.2).
pub fn asked_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
    let mut lines = headers.get_all(HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(Refusal::bad_request(
            "the request has more than one Host header; send one",
        ));
    }
    let host = first.map(|value| value.to_str()).transpose();
    let host = host.map_err(|_| {
        Refusal::bad_request("the Host header has characters that no host has; send its name")
    })?;
    match (uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => Err(
            Refusal::bad_request("the request target and the Host header name different hosts"),
        ),
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::bad_request(
            "the request has no Host header; send one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(guard: &Guard, uri: &str, headers: HeaderMap) -> Result<(), Refusal> {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.uri = uri.parse().expect("a URI");
        head.headers = headers;
        guard.check(&head, Names::of(&head.headers))
    }

    fn check(
        address: &str,
        allowed: &[&str],
        uri: &str,
        lines: &[(&'static str, &str)],
    ) -> Result<(), String> {
        let allowed: Vec<_> = allowed.iter().map(|host| (*host).to_owned()).collect();
        let guard = Guard::tcp(Scheme::Http, address.parse().expect("an address"), &allowed);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        checked(&guard, uri, headers).map_err(|refusal| refusal.code.to_owned())
    }

    #[test]
    fn s02_only_the_listeners_own_names_are_served() {
        let host = |host| check("127.0.0.1:8118", &[], "/", &[("host", host)]);
        for good in ["127.0.0.1:8118", "localhost:8118", "LocalHost:8118"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost",
            "localhost:8118.evil.example",
            "",
            "127.0.0.1:8118 ",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check("[::1]:8118", &[], "/", &[("host", "[::1]:8118")]),
            Ok(())
        );
        assert_eq!(
            check("127.0.0.1:80", &[], "/", &[("host", "localhost")]),
            Ok(())
        );
        assert_eq!(
            check(
                "127.0.0.1:8118",
                &["lucid.internal"],
                "/",
                &[("host", "Lucid.Internal")]
            ),
            Ok(())
        );
    }

    #[test]
    fn s02_the_port_that_may_be_left_out_is_the_schemes_own() {
        let is_served = |scheme, address: &str, host| {
            let guard = Guard::tcp(scheme, address.parse().expect("an address"), &[]);
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            checked(&guard, "/", headers).is_ok()
        };
        assert!(is_served(Scheme::Https, "127.0.0.1:443", "localhost"));
        assert!(is_served(Scheme::Https, "[::1]:443", "[::1]"));
        assert!(!is_served(Scheme::Https, "127.0.0.1:80", "localhost"));
        assert!(!is_served(Scheme::Http, "127.0.0.1:443", "localhost"));
    }

    #[test]
    fn s02_a_unix_socket_is_called_localhost() {
        let guard = Guard::unix(&["lucid.internal".to_owned()]);
        let is_served = |host| {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            checked(&guard, "/", headers).is_ok()
        };
        assert!(is_served("localhost") && is_served("Lucid.internal"));
        assert!(!is_served("localhost:80") && !is_served("127.0.0.1") && !is_served(""));
    }

    #[test]
    fn s02_an_absolute_target_counts_and_must_agree_with_host() {
        let check = |uri, lines: &[(&'static str, &str)]| check("127.0.0.1:8118", &[], uri, lines);
        assert_eq!(
            check("http://127.0.0.1:8118/x", &[("host", "127.0.0.1:8118")]),
            Ok(())
        );
        assert_eq!(
            check("http://evil.example/x", &[("host", "127.0.0.1:8118")]),
            Err("badRequest".to_owned())
        );
        assert_eq!(
            check("http://evil.example/x", &[("host", "evil.example")]),
            Err("hostNotAllowed".to_owned())
        );
        assert_eq!(check("/", &[]), Err("badRequest".to_owned()));
        assert_eq!(
            check(
                "/",
                &[("host", "127.0.0.1:8118"), ("host", "127.0.0.1:8118")]
            ),
            Err("badRequest".to_owned())
        );
    }

    #[test]
    fn s02_f15_a_host_that_is_no_text_is_refused_beside_an_absolute_target_too() {
        for uri in ["/", "http://127.0.0.1:8118/"] {
            let host = |host| check("127.0.0.1:8118", &[], uri, &[("host", host)]);
            assert_eq!(host("127.0.0.1:8118"), Ok(()));
            assert_eq!(host("127.0.0.1:8118ä"), Err("badRequest".to_owned()));
        }
    }

    #[test]
    fn s03_what_a_web_page_sends_is_refused_and_what_a_person_types_is_not() {
        let with = |name, value| {
            check(
                "127.0.0.1:8118",
                &[],
                "/",
                &[("host", "127.0.0.1:8118"), (name, value)],
            )
        };
        let refused = Err("originNotAllowed".to_owned());
        assert_eq!(with("origin", "https://evil.example"), refused);
        assert_eq!(with("origin", "null"), refused);
        assert_eq!(
            with("origin", "http://127.0.0.1:8118"),
            refused,
            "Origin is never compared with Host"
        );
        assert_eq!(with("sec-fetch-site", "cross-site"), refused);
        assert_eq!(with("sec-fetch-site", "same-site"), refused);
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
    }
}
