//! May this client use the proxy at all? (rules S2 and S3)
//!
//! A program that adds a credential to whatever reaches its port must not serve every web page that a browser on this
//! machine opens: a page can send requests here by name (DNS rebinding) or across origins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri, Version};

use super::clients::{Client, Known};
use super::cors::{self, Page};
use super::head::Names;
use super::reply::Refusal;
use crate::config::{Scheme, is_every_address, is_host};
use crate::intercept::connect::Forwarding;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where a listener at every address is reached from this machine, unless another is named: Linux has all of 127.0.0.0/8.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST_6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The names under which one listener may be asked, and the pages that may ask.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Lower case, with the port unless it is the scheme's own. Never empty; the first is the listener's own.
    hosts: Vec<String>,
    /// As browsers send them.
    origins: Vec<HeaderValue>,
    scheme: Scheme,
    /// Whether the listener is reached at every address of the machine.
    is_everywhere: bool,
    role: Role,
}

/// What clients take the listener for.
#[derive(Clone, Debug)]
enum Role {
    /// For the address of the API.
    Reverse,
    /// For that, or for a proxy on the way to it and to others.
    Forward(Arc<Forwarding>),
    /// For the API itself: the connection was intercepted, and is this client's where clients have keys.
    Intercepted(Option<Arc<Client>>),
}

impl Guard {
    /// A guard for a listener at `address` that is spoken to with `scheme`, and is also known by the `allowed` names.
    ///
    /// That it is at every address (`0.0.0.0`, `[::]`) is no name: a browser takes such a one for this machine. It has
    /// those of loopback, which no page can be rebound to, and on each connection that of [`Guard::reached_at`].
    pub fn tcp(scheme: Scheme, address: SocketAddr, allowed: &[String]) -> Self {
        let port = address.port();
        let mut guard = Self {
            hosts: Vec::new(),
            origins: Vec::new(),
            scheme,
            is_everywhere: address.ip().is_unspecified(),
            role: Role::Reverse,
        };
        match guard.is_everywhere {
            true => {
                guard.add_address(SocketAddr::new(LOCALHOST, port));
                if address.is_ipv6() {
                    guard.add_address(SocketAddr::new(LOCALHOST_6, port));
                }
            }
            false => guard.add_address(address),
        }
        if guard.is_everywhere || address.ip().is_loopback() {
            guard.add("localhost", port);
        }
        guard.hosts.extend_from_slice(allowed);
        guard
    }

    /// The guard for a connection that arrived at the `local` address; `None` where the listener's does, as it does for
    /// all connections of a listener at one address.
    ///
    /// An address is safe as a name: nobody can have one lead elsewhere.
    pub fn reached_at(&self, local: impl FnOnce() -> Option<SocketAddr>) -> Option<Self> {
        if !self.is_everywhere {
            return None;
        }
        let local = local()?;
        // A socket for both versions shows an address of IPv4 in IPv6 (RFC 4291 section 2.5.5.2).
        let ip = local.ip().to_canonical();
        if ip.is_unspecified() || [LOCALHOST, LOCALHOST_6].contains(&ip) {
            return None;
        }
        let hosts = Vec::with_capacity(self.hosts.len() + 2);
        let mut guard = Self {
            hosts,
            ..self.clone()
        };
        // First, since it is the one that a refusal advises.
        guard.add_address(SocketAddr::new(ip, local.port()));
        guard.hosts.extend_from_slice(&self.hosts);
        Some(guard)
    }

    fn add_address(&mut self, address: SocketAddr) {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        self.add(&host, address.port());
    }

    /// `Host` leaves out the scheme's own port (RFC 9110 section 7.2), or has it.
    fn add(&mut self, host: &str, port: u16) {
        self.hosts.push(format!("{host}:{port}"));
        if port == self.scheme.default_port() {
            self.hosts.push(host.to_owned());
        }
    }

    /// A guard for a unix socket, which has no name of its own: clients say `localhost`, or one of the `allowed` names.
    pub fn unix(allowed: &[String]) -> Self {
        let mut hosts = vec!["localhost".to_owned()];
        hosts.extend_from_slice(allowed);
        Self {
            hosts,
            origins: Vec::new(),
            scheme: Scheme::Http,
            is_everywhere: false,
            role: Role::Reverse,
        }
    }

    /// The same guard for a listener that is a forward proxy too.
    #[must_use]
    pub fn with_forwarding(self, forwarding: Arc<Forwarding>) -> Self {
        let role = Role::Forward(forwarding);
        Self { role, ..self }
    }

    /// A guard for a connection through this listener on which the client believes to speak to `host` on `port`, with the same pages.
    #[must_use]
    pub fn of_intercepted(&self, host: &str, port: u16, client: Option<Arc<Client>>) -> Self {
        let is_usual = port == Scheme::Https.default_port();
        Self {
            // With a dot behind it, the name says that it is complete, and is the same.
            hosts: [host.to_owned(), format!("{host}.")]
                .into_iter()
                .flat_map(|name| [format!("{name}:{port}"), name])
                // Without a port, a name means the usual one (RFC 9110 section 4.2.2).
                .filter(|name| is_usual || name.contains(':'))
                .collect(),
            origins: self.origins.clone(),
            scheme: Scheme::Https,
            is_everywhere: false,
            role: Role::Intercepted(client),
        }
    }

    /// What is done for a request that asks for another host than the proxy; `None` for all others, and where nothing is.
    pub fn forwarding(&self, head: &Parts) -> Option<&Arc<Forwarding>> {
        let Role::Forward(forwarding) = &self.role else {
            return None;
        };
        let is_for_another = || {
            let authority = head.uri.authority().filter(|_| is_absolute(head));
            authority.is_some_and(|authority| !self.is_own(authority.as_str()))
        };
        (head.method == Method::CONNECT || is_for_another()).then_some(forwarding)
    }

    /// Whether the client of such a request believes to speak to upstream itself.
    pub fn is_intercepted(&self, head: &Parts) -> bool {
        match &self.role {
            Role::Reverse => false,
            Role::Intercepted(_) => true,
            Role::Forward(_) => self.forwarding(head).is_some(),
        }
    }

    /// By what it is known whose request it is.
    pub fn known_client(&self) -> Known<'_> {
        match &self.role {
            Role::Intercepted(Some(client)) => Known::Is(client),
            Role::Forward(forwarding) if forwarding.serves_without_key() => Known::Everybody,
            _ => Known::ByKey,
        }
    }

    fn is_own(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// The same guard, which also lets in what pages of these `origins` send.
    #[must_use]
    pub fn with_pages_of(mut self, origins: &[String]) -> Self {
        let values = origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok());
        self.origins = values.collect();
        self
    }

    /// How clients of the listener begin its address.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether pages of any origin are let in.
    pub fn has_pages(&self) -> bool {
        !self.origins.is_empty()
    }

    /// The page that sent the request, if it is one of those that are let in. `names` are those that the head has.
    pub fn page(&self, head: &Parts, names: Names) -> Option<Page<'_>> {
        match names.has(Names::ORIGIN) {
            true => Page::of(head, &self.origins),
            false => None,
        }
    }

    /// Refuses what did not ask for this proxy by one of its names, and what a web page sent that is not let in. `names`
    /// are those that the head has.
    ///
    /// # Errors
    ///
    /// The refusal names the line of the configuration that would allow it, where there is one.
    pub fn check(&self, head: &Parts, names: Names) -> Result<(), Refusal> {
        let headers = &head.headers;
        if head.method == Method::CONNECT {
            // First, since what it asks for is another host by its nature.
            return Err(match self.role {
                Role::Intercepted(_) => Refusal::no_tunnels_inside(),
                _ => Refusal::no_tunnels(),
            });
        }
        let host = asked_host(&head.uri, headers)?;
        if !self.is_own(host) {
            return Err(self.unknown_host(host));
        }
        self.check_sender(head, names)
    }

    fn unknown_host(&self, host: &str) -> Refusal {
        if !is_host(host) {
            // What is none is not repeated: a password before it is nobody's business.
            return Refusal::bad_request("Host: a name or an address is accepted, and a port");
        }
        match is_every_address(host) {
            true => Refusal::every_address(host, &self.hosts[0]),
            false => Refusal::host_not_allowed(host),
        }
    }

    /// Refuses what a web page sent that is not let in (rule S3).
    ///
    /// # Errors
    ///
    /// As [`Guard::check`].
    pub fn check_sender(&self, head: &Parts, names: Names) -> Result<(), Refusal> {
        if !names.has(Names::SENDER) || self.page(head, names).is_some() {
            return Ok(());
        }
        match names.has(Names::ORIGIN) || is_sent_by_another_site(&head.headers) {
            true => Err(cors::refusal(&head.headers)),
            false => Ok(()),
        }
    }
}

/// Whether the target is in absolute-form, as proxies are asked (RFC 9112 section 3.2.2). In HTTP/2 every target has a
/// scheme.
fn is_absolute(head: &Parts) -> bool {
    head.version != Version::HTTP_2 && head.uri.scheme().is_some()
}

/// Whether a browser says so, in any of the words that it may have for it one day: the two others are what a person has
/// typed, and what this proxy's own origin has sent (Fetch Metadata, section 2.3).
fn is_sent_by_another_site(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(SEC_FETCH_SITE).iter();
    lines.any(|site| site != "none" && site != "same-origin")
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
    fn s02_every_address_is_no_name_and_the_one_that_was_reached_is() {
        let local = |text: &str| text.parse().ok();
        for (listener, reached, good, bad) in [
            (
                "0.0.0.0:8118",
                "10.0.0.5:8118",
                &["127.0.0.1:8118", "localhost:8118", "10.0.0.5:8118"][..],
                &[
                    "0.0.0.0:8118",
                    "[::1]:8118",
                    "10.0.0.6:8118",
                    "10.0.0.5",
                    "evil.example:8118",
                ][..],
            ),
            (
                "[::]:8118",
                "[::ffff:10.0.0.5]:8118",
                &[
                    "127.0.0.1:8118",
                    "[::1]:8118",
                    "localhost:8118",
                    "10.0.0.5:8118",
                ],
                &["[::]:8118", "0.0.0.0:8118", "[::ffff:10.0.0.5]:8118"],
            ),
            (
                "0.0.0.0:8118",
                "127.0.0.2:8118",
                &["127.0.0.1:8118", "localhost:8118", "127.0.0.2:8118"],
                &["127.0.0.3:8118", "0.0.0.0:8118"],
            ),
            (
                "[::]:80",
                "[fe80::1%3]:80",
                &["[fe80::1]", "[fe80::1]:80", "[::1]", "localhost"],
                &["[::]", "[fe80::2]", "[fe80::1%3]"],
            ),
        ] {
            let listener = listener.parse().expect("an address");
            let guard = Guard::tcp(Scheme::Http, listener, &[]);
            let guard = guard.reached_at(|| local(reached)).expect("another");
            let is_served = |host: &str| {
                let host = HeaderValue::from_str(host).expect("a value");
                checked(&guard, "/", HeaderMap::from_iter([(HOST, host)])).is_ok()
            };
            for host in good {
                assert!(is_served(host), "{listener} {host}");
            }
            for host in bad {
                assert!(!is_served(host), "{listener} {host}");
            }
        }
        let everywhere = local("0.0.0.0:8118").expect("an address");
        let guard = Guard::tcp(Scheme::Http, everywhere, &[]);
        // Linux lets a client connect to it, which arrives on loopback.
        for own in ["127.0.0.1:8118", "0.0.0.0:8118"] {
            assert!(guard.reached_at(|| local(own)).is_none(), "{own}");
        }
        let one = local("10.0.0.5:8118").expect("an address");
        let guard = Guard::tcp(Scheme::Http, one, &[]);
        assert!(guard.reached_at(|| panic!("not asked")).is_none());
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
        assert_eq!(with("sec-fetch-site", "of-a-later-day"), refused);
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
    }

    #[test]
    fn s03_an_allowed_page_is_served_and_one_that_does_not_say_which_it_is_is_not() {
        let own = "http://localhost:5173";
        let guard = Guard::tcp(
            Scheme::Http,
            "127.0.0.1:8118".parse().expect("an address"),
            &[],
        );
        let guard = guard.with_pages_of(&[own.to_owned()]);
        let with = |lines: &[(&'static str, &str)]| {
            let lines = [("host", "127.0.0.1:8118")].iter().chain(lines);
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_str(value).expect("a value"));
            }
            checked(&guard, "/", headers).map_err(|refusal| refusal.code)
        };
        let refused = Err("originNotAllowed");
        assert_eq!(with(&[("origin", own)]), Ok(()));
        for site in ["cross-site", "same-site", "same-origin"] {
            let said = ("sec-fetch-site", site);
            assert_eq!(with(&[("origin", own), said]), Ok(()), "{site}");
            let stranger = [said, ("origin", "http://localhost:5174")];
            assert_eq!(with(&stranger), refused, "{site}");
        }
        assert_eq!(with(&[("origin", own), ("origin", own)]), refused);
        assert_eq!(with(&[("sec-fetch-site", "cross-site")]), refused);
        assert_eq!(
            with(&[("sec-fetch-site", "none"), ("sec-fetch-site", "same-site")]),
            refused
        );
        assert_eq!(with(&[]), Ok(()));
        let rebound = HeaderMap::from_iter([
            (HOST, HeaderValue::from_static("evil.example:8118")),
            (
                http::header::ORIGIN,
                HeaderValue::from_static("http://localhost:5173"),
            ),
        ]);
        let rebound = checked(&guard, "/", rebound).map_err(|refusal| refusal.code);
        assert_eq!(rebound, Err("hostNotAllowed"), "Host is checked first");
    }

    #[test]
    fn s03_a_guard_without_origins_has_no_pages() {
        let guard = Guard::unix(&[]);
        assert!(!guard.has_pages());
        assert!(guard.with_pages_of(&["null".to_owned()]).has_pages());
    }

    #[test]
    fn s02_a_refused_name_is_repeated_only_where_it_can_be_allowed() {
        let told = |host: &str| {
            let guard = Guard::unix(&[]);
            let host = HeaderValue::from_str(host).expect("a value");
            let refused = checked(&guard, "/", HeaderMap::from_iter([(HOST, host)]));
            refused.expect_err("not its name").message
        };
        let line = "[guard] allow_hosts = [\"lucid.internal:8118\"]";
        assert!(told("lucid.internal:8118").ends_with(line));
        for marked in [
            "marked:99999",
            "u:marked@x",
            "marked/",
            "marked\"",
            "*.marked",
        ] {
            assert!(!told(marked).contains("marked"), "{marked}");
        }
    }

    #[test]
    fn s02_every_address_is_refused_with_a_name_that_is_served() {
        let told = |guard: &Guard, host: &str| {
            let host = HeaderValue::from_str(host).expect("a value");
            let refused = checked(guard, "/", HeaderMap::from_iter([(HOST, host)]));
            refused.expect_err("not its name").message
        };
        let local = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let guard = |at| Guard::tcp(Scheme::Http, local(at), &["lucid.internal".to_owned()]);
        let everywhere = guard("0.0.0.0:8118");
        let reached = everywhere.reached_at(|| Some(local("10.0.0.5:8118")));
        let reached = reached.expect("another");
        for (guard, host, name) in [
            (&everywhere, "0.0.0.0:8118", "127.0.0.1:8118"),
            (&everywhere, "0.0.0.0", "127.0.0.1:8118"),
            (&reached, "0.0.0.0:8118", "10.0.0.5:8118"),
            (&guard("[::]:8118"), "[::]:8118", "127.0.0.1:8118"),
            (&guard("[::]:8118"), "[0:0::0]:8118", "127.0.0.1:8118"),
            (&guard("[::1]:8118"), "[::ffff:0.0.0.0]:1", "[::1]:8118"),
            (&guard("10.0.0.5:80"), "0.0.0.0:80", "10.0.0.5:80"),
            (&Guard::unix(&[]), "0.0.0.0", "localhost"),
        ] {
            let told = told(guard, host);
            assert!(told.ends_with(&format!("use {name}")), "{host}: {told}");
            assert!(!told.contains("allow_hosts"), "{told}");
        }
        // Where it helps, the key is named.
        assert!(told(&everywhere, "10.0.0.5:8118").contains("allow_hosts"));
    }
}
