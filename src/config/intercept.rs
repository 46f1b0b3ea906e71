//! `[intercept]`: whether programs may use the listeners as a forward proxy, and for which hosts.

use std::net::IpAddr;
use std::path::PathBuf;

use super::raw::{Found, Source, Table};
use super::{Environment, Origin, Scheme, state_directory};

/// The names of Lucid's API.
pub(crate) const LUCID: [&str; 2] = ["api.lucid.co", "api.lucid.app"];
/// Characters of the longest name that DNS has (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;
/// Characters of the longest part of one.
const LONGEST_LABEL: usize = 63;
/// Below this one are the ports of services that a web client has nothing to ask of: SSH, mail, directories.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// `[intercept]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// Whether the listeners take CONNECT and requests in absolute form.
    pub enabled: bool,
    /// Hosts whose requests are served by this proxy, lower case, each once: names, never addresses.
    pub hosts: Vec<String>,
    /// Name and port of the upstream, where it is one of the hosts and is not on the usual port of `https`.
    pub other_port: Option<(String, u16)>,
    /// Where else clients of shared listeners may go, byte for byte: names in lower case, and ports.
    pub tunnels: Vec<(String, u16)>,
    /// Where the local certificate authority is kept.
    pub directory: PathBuf,
    /// Whether the listeners belong to one program that was started for them, and lead it everywhere. No file says so.
    pub private: bool,
    /// Domains, in lower case, to which a program is not led, nor to what is below them. No file says so.
    pub closed: Vec<String>,
}

/// Takes `[intercept]` out of the file. Without `hosts` there, it is Lucid's own names and that of the upstream.
pub(super) fn check<'a>(
    source: &mut Source<'a>,
    root: &mut Table<'a>,
    upstream: &Origin,
    environment: &dyn Environment,
) -> Intercept {
    let mut table = root.table(source, "intercept");
    let enabled = table
        .boolean(source, "enabled")
        .is_some_and(|found| found.value);
    let hosts = check_hosts(source, &mut table).unwrap_or_else(|| usual_hosts(upstream));
    let tunnels = check_tunnels(source, &mut table, &hosts);
    table.finish(source);
    Intercept {
        enabled,
        other_port: other_port(upstream, &hosts),
        hosts,
        tunnels,
        directory: state_directory(environment),
        private: false,
        closed: Vec::new(),
    }
}

fn other_port(upstream: &Origin, hosts: &[String]) -> Option<(String, u16)> {
    let is_other = upstream.port != Scheme::Https.default_port();
    let is_such = upstream.scheme == Scheme::Https && is_other && hosts.contains(&upstream.host);
    is_such.then(|| (upstream.host.clone(), upstream.port))
}

fn usual_hosts(upstream: &Origin) -> Vec<String> {
    let mut hosts = LUCID.map(str::to_owned).to_vec();
    if !hosts.contains(&upstream.host) && refusal(&upstream.host).is_none() {
        hosts.push(upstream.host.clone());
    }
    hosts
}

fn check_hosts<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Option<Vec<String>> {
    let key = table.key("hosts");
    let found = table.texts(source, "hosts")?;
    if found.is_empty() {
        source.problem(
            None,
            &key,
            "expected at least one name, such as [\"api.lucid.co\"]; leave the key out for Lucid's own, and use enabled for none",
        );
    }
    let mut hosts = Vec::new();
    for Found { value, key, at } in found {
        let host = value.to_ascii_lowercase();
        if let Some(why) = refusal(&host) {
            let message = format!("{why}; expected a host's full name, such as \"api.lucid.co\"");
            source.problem(Some(&at), &key, message);
        } else if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Some(hosts)
}

fn check_tunnels<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    hosts: &[String],
) -> Vec<(String, u16)> {
    let found = table.texts(source, "allow_tunnels").unwrap_or_default();
    let mut tunnels = Vec::new();
    for Found { value, key, at } in found {
        match tunnel(&value.to_ascii_lowercase(), hosts) {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(why) => {
                let message = format!(
                    "{why}; expected a host's full name and its port, such as \"example.com:443\""
                );
                source.problem(Some(&at), &key, message);
            }
        }
    }
    tunnels
}

/// A name and a port between which bytes may be tunnelled, or why there is none in `text`.
fn tunnel(text: &str, hosts: &[String]) -> Result<(String, u16), &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => (host, port),
        _ => return Err("the port is missing"),
    };
    if let Some(why) = refusal(host) {
        return Err(why);
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|_| digits);
    match port {
        None | Some(0) => Err("this is no port"),
        Some(80 | 443 | FIRST_UNPRIVILEGED..) if hosts.iter().any(|known| known == host) => {
            Err("this host is intercepted, and needs no tunnel")
        }
        Some(port @ (80 | 443 | FIRST_UNPRIVILEGED..)) => Ok((host.to_owned(), port)),
        Some(_) => Err("ports 80, 443 and those above 1023 are accepted, and no others"),
    }
}

/// Why something in lower case is no name that a certificate of ours may be for; `None` where it is one.
fn refusal(host: &str) -> Option<&'static str> {
    let bracketed = host.starts_with('[');
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    // What ends in a number is an address in one of its older forms (WHATWG URL, section 3.5).
    if bracketed || host.parse::<IpAddr>().is_ok() || is_number(last) || last.starts_with("0x") {
        return Some("an address is not accepted, since no certificate of ours is for one");
    }
    if last == "localhost" {
        return Some("localhost is not accepted: it is another host on every machine");
    }
    if host.contains('*') {
        return Some("there are no wildcards");
    }
    if host.contains(':') {
        return Some("a host has no port here");
    }
    let labels = host.split('.');
    if !(host.len() <= LONGEST_NAME && host.contains('.') && labels.clone().all(is_label)) {
        return Some("this is no full name of a host");
    }
    None
}

/// A part of a name, in lower case (RFC 1123 section 2.1); `_` is in use although no host should have it.
fn is_label(label: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-_".contains(&it);
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, ConfigError, Need};

    fn read_intercept(text: &str) -> Result<Intercept, Vec<String>> {
        let environment = BTreeMap::from([("STATE_DIRECTORY".to_owned(), "/state".to_owned())]);
        match Config::parse(text, None, &environment, Need::Store) {
            Ok(config) => Ok(config.intercept),
            Err(ConfigError::Wrong { problems, .. }) => {
                Err(problems.iter().map(ToString::to_string).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn by_default_nothing_is_intercepted_and_the_hosts_are_lucids_and_the_upstreams() {
        let usual = read_intercept("").expect("accepted");
        assert!(!usual.enabled);
        assert_eq!(usual.hosts, LUCID);
        assert_eq!(usual.tunnels, []);
        assert_eq!(usual.directory, PathBuf::from("/state"));
        for (url, also) in [
            ("https://api.lucid.co", None),
            ("https://API.Example.com:8443", Some("api.example.com")),
            ("http://127.0.0.1:1", None),
            ("http://localhost:1", None),
            ("https://[2001:db8::1]", None),
        ] {
            let read = read_intercept(&format!("[upstream]\nurl = \"{url}\"")).expect("accepted");
            let expected: Vec<_> = LUCID.into_iter().chain(also).collect();
            assert_eq!(read.hosts, expected, "{url}");
        }
    }

    #[test]
    fn what_is_written_is_taken_in_lower_case_and_once() {
        let read = read_intercept(
            "[intercept]\nenabled = true\nhosts = [\"API.Lucid.co\", \"api.lucid.co\", \"b_1.xn--bcher-kva.example\"]\nallow_tunnels = [\"Files.example.org:443\", \"example.com:80\", \"example.com:8443\"]",
        )
        .expect("accepted");
        assert!(read.enabled);
        assert_eq!(read.hosts, ["api.lucid.co", "b_1.xn--bcher-kva.example"]);
        let tunnel = |host: &str, port| (host.to_owned(), port);
        assert_eq!(
            read.tunnels,
            [
                tunnel("files.example.org", 443),
                tunnel("example.com", 80),
                tunnel("example.com", 8443)
            ]
        );
    }

    #[test]
    fn each_wrong_host_is_a_problem_that_says_why_and_where() {
        for (host, why) in [
            ("127.0.0.1", "an address"),
            ("[::1]", "an address"),
            ("::1", "an address"),
            ("127.1", "an address"),
            ("0x7f.0x1", "an address"),
            ("localhost", "localhost"),
            ("api.LOCALHOST", "localhost"),
            ("*.lucid.co", "no wildcards"),
            ("api.lucid.co:443", "no port"),
            ("co", "no full name"),
            ("", "no full name"),
            ("api.lucid.co.", "no full name"),
            (".lucid.co", "no full name"),
            ("a..b", "no full name"),
            ("-a.b", "no full name"),
            ("bücher.example", "no full name"),
            ("https://api.lucid.co", "no port"),
            ("api.lucid.co/x", "no full name"),
        ] {
            let text = format!("[intercept]\nhosts = [\"ok.example\", \"{host}\"]");
            let problems = read_intercept(&text).expect_err(host);
            assert_eq!(problems.len(), 1, "{host}: {problems:?}");
            let expected = "line 2, column 24: intercept.hosts: ";
            assert!(problems[0].starts_with(expected), "{problems:?}");
            assert!(problems[0].contains(why), "{host}: {problems:?}");
            assert!(problems[0].contains("\"api.lucid.co\""), "{problems:?}");
        }
        let long = format!("{}.example", "a".repeat(64));
        read_intercept(&format!("[intercept]\nhosts = [\"{long}\"]")).expect_err("a long label");
        let long = format!("{}example", "a.".repeat(124));
        read_intercept(&format!("[intercept]\nhosts = [\"{long}\"]")).expect_err("a long name");
        let problems = read_intercept("[intercept]\nhosts = []").expect_err("none");
        assert!(problems[0].contains("at least one name"), "{problems:?}");
    }

    #[test]
    fn each_wrong_tunnel_is_a_problem_that_says_why_and_where() {
        for (tunnel, why) in [
            ("example.com", "the port is missing"),
            ("example.com:", "no port"),
            ("example.com:0", "no port"),
            ("example.com:+443", "no port"),
            ("example.com:65536", "no port"),
            ("example.com:22", "443 and those above 1023"),
            ("example.com:25", "443 and those above 1023"),
            ("example.com:1023", "443 and those above 1023"),
            (":443", "the port is missing"),
            ("169.254.169.254:80", "an address"),
            ("[::1]:443", "an address"),
            ("localhost:8080", "localhost"),
            ("*:443", "no wildcards"),
            ("api.lucid.co:443", "is intercepted"),
            ("https://example.com:443", "no port"),
        ] {
            let text = format!("[intercept]\nallow_tunnels = [\"{tunnel}\"]");
            let problems = read_intercept(&text).expect_err(tunnel);
            assert_eq!(problems.len(), 1, "{tunnel}: {problems:?}");
            let expected = "line 2, column 18: intercept.allow_tunnels: ";
            assert!(problems[0].starts_with(expected), "{problems:?}");
            assert!(problems[0].contains(why), "{tunnel}: {problems:?}");
            assert!(problems[0].contains("\"example.com:443\""), "{problems:?}");
        }
    }

    proptest! {
        #[test]
        fn s08_no_text_makes_a_panic_or_a_name_that_is_an_address(text in "\\PC{0,20}|[0-9a-fx.:\\[\\]]{0,20}") {
            if refusal(&text).is_none() {
                prop_assert!(text.parse::<IpAddr>().is_err());
                prop_assert!(rustls::pki_types::DnsName::try_from(text.as_str()).is_ok(), "{text}");
            }
            let _ = tunnel(&text, &[]);
        }
    }
}
