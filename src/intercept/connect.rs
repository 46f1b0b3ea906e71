//! What becomes of a request that asks for another host than the proxy (RFC 9110 section 7.1): a decision without any
//! look-up. What a name stands for is judged when it is known, by [`address`](super::address).

use std::net::{IpAddr, Ipv6Addr};

use http::uri::Authority;

use super::own_user;

/// The port of remote logins, which no tunnel of a listener that others share leads to.
const SSH: u16 = 22;

/// What a listener does for clients that use it as a forward proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Lower case.
    hosts: Vec<String>,
    /// One of them with a port that is not the usual one, where it is intercepted too.
    other_port: Option<(String, u16)>,
    others: Others,
    /// Domains, in lower case, to which nothing leads, nor to what is below them.
    closed: Vec<String>,
    /// Whether all its connections are of the one user whose program it is for, so that no key is asked for.
    own_user: bool,
}

/// Which other hosts may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// Those alone, by name and port: clients that were not asked may use the listener.
    Named(Vec<(String, u16)>),
    /// All: the listener is there for one program, which could reach them by itself.
    All,
}

/// How the client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `CONNECT host:port`.
    Connect,
    /// `GET http://host/…`.
    Absolute,
    /// `GET https://host/…`, by programs that leave TLS to the proxy, as axios 1.2 does.
    Secure,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The client is answered as this host.
    Intercept(Destination),
    /// It gets to the host itself.
    Pass(Destination),
    /// Neither.
    Refuse(Reason),
}

/// A host and a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Lower case, an IPv6 address without its brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Why a request for another host is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It names no host, or no port.
    Malformed,
    /// It leads to remote logins.
    Ssh,
    /// It names an address, for which nothing could vouch.
    Address,
    /// It leads back to this machine.
    Local,
    /// The host is intercepted on another port.
    OtherPort(String, u16),
    /// The host is Lucid's, and this is the way to the stand-in for Lucid.
    Real(String),
    /// The client asks in the clear for what it wants over TLS, which is its own to speak.
    TlsLeftToUs(Destination),
    /// Nobody has allowed the host.
    NotAllowed(Destination),
}

impl Form {
    /// The port on which this form is used by programs that know of no other.
    fn usual_port(self) -> u16 {
        match self {
            Self::Connect | Self::Secure => 443,
            Self::Absolute => 80,
        }
    }
}

impl Forwarding {
    /// Intercepts these hosts, given in lower case.
    pub fn new(hosts: Vec<String>, others: Others) -> Self {
        Self {
            hosts,
            other_port: None,
            others,
            closed: Vec::new(),
            own_user: false,
        }
    }

    /// The same, but that nothing leads to these domains, given in lower case, nor to what is below them.
    #[must_use]
    pub fn closed_to(self, domains: Vec<String>) -> Self {
        Self {
            closed: domains,
            ..self
        }
    }

    /// The same which also intercepts one of the hosts on this port, over TLS.
    #[must_use]
    pub fn with_port(self, other_port: Option<(String, u16)>) -> Self {
        Self { other_port, ..self }
    }

    /// Whether every host may be reached, by a program that the listener belongs to.
    pub fn is_private(&self) -> bool {
        self.others == Others::All
    }

    /// The same where the listener itself sees to it that nobody else gets in.
    #[must_use]
    pub fn of_own_user(&self) -> Self {
        Self {
            own_user: true,
            ..self.clone()
        }
    }

    /// Whether no key is asked for, whatever is requested.
    pub fn is_of_own_user(&self) -> bool {
        self.own_user
    }

    /// Whether no key is asked for by the listener itself, in the place of the API: where there is another that sees to it
    /// who comes, programs are led to that one.
    pub fn serves_without_key(&self) -> bool {
        self.own_user || (self.is_private() && !own_user::IS_TOLD)
    }

    /// Whether the host, in lower case, is intercepted.
    pub fn intercepts(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own == host)
    }

    /// What is done about a request for this host.
    pub fn decide(&self, form: Form, authority: &Authority) -> Decision {
        let Some(destination) = Destination::of(form, authority) else {
            return Decision::Refuse(Reason::Malformed);
        };
        let is_usual = destination.port == form.usual_port();
        let is_ours = is_usual && self.intercepts(&destination.host);
        if is_ours || (form != Form::Absolute && self.is_on_other_port(&destination)) {
            return Decision::Intercept(destination);
        }
        if self.is_closed_to(&destination.host) {
            return Decision::Refuse(Reason::Real(destination.host));
        }
        if form == Form::Secure {
            return Decision::Refuse(Reason::TlsLeftToUs(destination));
        }
        match &self.others {
            Others::All => Decision::Pass(destination),
            Others::Named(allowed) => match self.objection(&destination, allowed) {
                Some(reason) => Decision::Refuse(reason),
                None => Decision::Pass(destination),
            },
        }
    }

    fn is_closed_to(&self, host: &str) -> bool {
        let is_below = |above: &str| above.is_empty() || above.ends_with('.');
        let mut closed = self.closed.iter();
        closed.any(|domain| host.strip_suffix(domain.as_str()).is_some_and(is_below))
    }

    fn is_on_other_port(&self, to: &Destination) -> bool {
        let other = self.other_port.as_ref();
        other.is_some_and(|(host, port)| *host == to.host && *port == to.port)
    }

    /// The first that can be said against it tells most.
    fn objection(&self, to: &Destination, allowed: &[(String, u16)]) -> Option<Reason> {
        if to.is_address() {
            return Some(Reason::Address);
        }
        if to.is_local() {
            return Some(Reason::Local);
        }
        if to.port == SSH {
            return Some(Reason::Ssh);
        }
        if self.intercepts(&to.host) {
            return Some(Reason::OtherPort(to.host.clone(), to.port));
        }
        let is_allowed = |(host, port): &(String, u16)| *host == to.host && *port == to.port;
        let is_allowed = allowed.iter().any(is_allowed);
        (!is_allowed).then(|| Reason::NotAllowed(to.clone()))
    }
}

impl Destination {
    /// Reads host and port. CONNECT always says which (RFC 9110 section 9.3.6); nobody has a password here.
    fn of(form: Form, authority: &Authority) -> Option<Self> {
        let host = authority.host();
        // Not `authority.port()`, which has no answer for a port that is none.
        let port = match (authority.as_str().strip_prefix(host)?, form) {
            ("", Form::Absolute | Form::Secure) => form.usual_port(),
            (port, _) => decimal(port.strip_prefix(':')?)?,
        };
        let host = match host.strip_prefix('[') {
            Some(literal) => {
                let literal = literal.strip_suffix(']')?;
                literal.parse::<Ipv6Addr>().ok()?;
                literal
            }
            // A name that is complete may say so, and means the same.
            None => host.strip_suffix('.').unwrap_or(host),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        (!host.is_empty() && host.bytes().all(is_name)).then(|| Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// Whether it is an address, in any form that a system reads as one: `127.1` and `0x7f000001` are 127.0.0.1 to many.
    /// No name ends with a number.
    fn is_address(&self) -> bool {
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_number || self.host.parse::<IpAddr>().is_ok()
    }

    /// RFC 6761 section 6.3.
    fn is_local(&self) -> bool {
        self.host.rsplit('.').next() == Some("localhost")
    }
}

/// A port in digits alone; `None` for 0 and what is none.
fn decimal(port: &str) -> Option<u16> {
    let is_decimal = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    is_decimal.then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Forwarding {
        let named = vec![
            ("files.example".to_owned(), 443),
            ("files.example".to_owned(), 80),
            ("files.example".to_owned(), 22),
            ("localhost".to_owned(), 443),
            ("127.1".to_owned(), 443),
        ];
        Forwarding::new(hosts(), Others::Named(named))
    }

    fn hosts() -> Vec<String> {
        ["api.lucid.co", "api.lucid.app"].map(str::to_owned).into()
    }

    fn decide(forwarding: &Forwarding, form: Form, authority: &str) -> Decision {
        forwarding.decide(form, &authority.parse().expect("an authority"))
    }

    fn to(host: &str, port: u16) -> Destination {
        Destination {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn the_hosts_of_upstream_are_intercepted_on_their_usual_port_however_they_are_written() {
        for forwarding in [shared(), Forwarding::new(hosts(), Others::All)] {
            let intercepted = |form: Form, authority: &str| {
                assert_eq!(
                    decide(&forwarding, form, authority),
                    Decision::Intercept(to("api.lucid.co", form.usual_port())),
                    "{authority}"
                );
            };
            intercepted(Form::Connect, "api.lucid.co:443");
            intercepted(Form::Connect, "API.Lucid.CO.:443");
            intercepted(Form::Absolute, "api.lucid.co");
            intercepted(Form::Absolute, "api.lucid.co:80");
            intercepted(Form::Secure, "api.lucid.co");
            intercepted(Form::Secure, "api.lucid.co:443");
            for authority in ["files.example", "files.example:443"] {
                let decision = decide(&forwarding, Form::Secure, authority);
                let reason = Reason::TlsLeftToUs(to("files.example", 443));
                assert_eq!(
                    decision,
                    Decision::Refuse(reason),
                    "no TLS is spoken for them"
                );
            }
        }
    }

    #[test]
    fn an_upstream_on_another_port_is_intercepted_there_and_no_other_host_is() {
        let port = Some(("api.lucid.co".to_owned(), 8443));
        let forwarding = shared().with_port(port);
        let decided = |form, authority| decide(&forwarding, form, authority);
        let there = Decision::Intercept(to("api.lucid.co", 8443));
        assert_eq!(decided(Form::Connect, "API.lucid.co.:8443"), there);
        assert_eq!(decided(Form::Secure, "api.lucid.co:8443"), there);
        let usual = Decision::Intercept(to("api.lucid.co", 443));
        assert_eq!(decided(Form::Connect, "api.lucid.co:443"), usual);
        for (form, authority) in [
            (Form::Absolute, "api.lucid.co:8443"),
            (Form::Connect, "api.lucid.app:8443"),
            (Form::Connect, "api.lucid.co:8444"),
        ] {
            let decision = decided(form, authority);
            assert!(matches!(decision, Decision::Refuse(_)), "{authority}");
        }
        let without = decide(&shared(), Form::Connect, "api.lucid.co:8443");
        assert!(matches!(without, Decision::Refuse(_)), "a positive control");
    }

    #[test]
    fn a_shared_listener_leads_to_nobody_but_who_is_allowed_by_name_and_port() {
        let refused = |form, authority: &str, reason| {
            let decision = decide(&shared(), form, authority);
            assert_eq!(decision, Decision::Refuse(reason), "{authority}");
        };
        for authority in ["files.example:443", "Files.Example.:443"] {
            let decision = decide(&shared(), Form::Connect, authority);
            assert_eq!(decision, Decision::Pass(to("files.example", 443)));
        }
        let decision = decide(&shared(), Form::Absolute, "files.example");
        assert_eq!(decision, Decision::Pass(to("files.example", 80)));
        for (host, port) in [("files.example", 8443), ("a.files.example", 443)] {
            let authority = format!("{host}:{port}");
            refused(
                Form::Connect,
                &authority,
                Reason::NotAllowed(to(host, port)),
            );
        }
        let other = Reason::NotAllowed(to("evil.example", 80));
        refused(Form::Absolute, "evil.example", other);
        for address in [
            "127.0.0.1:443",
            "[::1]:443",
            "[::ffff:169.254.169.254]:443",
            "127.1:443",
            "2130706433:443",
            "0x7f000001:443",
            "0x7f.0.0.0x1:443",
            "8.8.8.8.:443",
        ] {
            refused(Form::Connect, address, Reason::Address);
        }
        for local in ["localhost:443", "LOCALHOST.:443", "a.localhost:443"] {
            refused(Form::Connect, local, Reason::Local);
        }
        refused(Form::Connect, "files.example:22", Reason::Ssh);
        refused(Form::Connect, "api.lucid.co:22", Reason::Ssh);
        let port = Reason::OtherPort("api.lucid.co".to_owned(), 80);
        refused(Form::Connect, "api.lucid.co:80", port);
    }

    #[test]
    fn the_listener_of_one_program_leads_it_everywhere() {
        let private = Forwarding::new(hosts(), Others::All);
        for (authority, host, port) in [
            ("evil.example:22", "evil.example", 22),
            ("localhost:1", "localhost", 1),
            ("127.0.0.1:8080", "127.0.0.1", 8080),
            ("[::1]:443", "::1", 443),
            ("api.lucid.co:8443", "api.lucid.co", 8443),
        ] {
            let decision = decide(&private, Form::Connect, authority);
            assert_eq!(decision, Decision::Pass(to(host, port)));
        }
    }

    #[test]
    fn nothing_leads_to_what_is_closed_and_below_but_what_is_intercepted() {
        let closed = Forwarding::new(hosts(), Others::All).closed_to(vec!["lucid.co".to_owned()]);
        for (form, authority) in [
            (Form::Connect, "users.Lucid.CO.:443"),
            (Form::Connect, "lucid.co:443"),
            (Form::Connect, "api.lucid.co:8443"),
            (Form::Absolute, "lucid.co"),
            (Form::Secure, "a.b.lucid.co"),
        ] {
            let decision = decide(&closed, form, authority);
            let is_refused = matches!(decision, Decision::Refuse(Reason::Real(_)));
            assert!(is_refused, "{authority}: {decision:?}");
        }
        let decision = decide(&closed, Form::Connect, "api.lucid.co:443");
        assert_eq!(decision, Decision::Intercept(to("api.lucid.co", 443)));
        for host in ["notlucid.co", "lucid.co.example", "users.lucid.app"] {
            let decision = decide(&closed, Form::Connect, &format!("{host}:443"));
            assert_eq!(decision, Decision::Pass(to(host, 443)));
        }
    }

    #[test]
    fn s08_what_names_no_host_and_port_is_refused() {
        for forwarding in [shared(), Forwarding::new(hosts(), Others::All)] {
            for authority in [
                "api.lucid.co",
                "api.lucid.co:",
                "api.lucid.co:0",
                "api.lucid.co:+443",
                "api.lucid.co:65536",
                "user@api.lucid.co:443",
                "user:443@api.lucid.co:443",
                ".:443",
                ":443",
                "[::1",
                "[nonsense]:443",
                "a%2e:443",
                "a*b:443",
            ] {
                let Ok(read) = authority.parse() else {
                    continue;
                };
                let decision = forwarding.decide(Form::Connect, &read);
                assert_eq!(decision, Decision::Refuse(Reason::Malformed), "{authority}");
            }
        }
    }
}
