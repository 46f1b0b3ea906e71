//! By which names the proxy may be asked, and which web pages may ask it: `guard.allow_hosts` and `guard.allow_origins`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::raw::{Found, Source, Table};

/// Characters of the longest name that DNS has (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253;
/// Longer schemes than any that is registered.
const LONGEST_SCHEME: usize = 32;

/// Takes the values of `Host` that are accepted beside the listener's own. They come back in lower case.
pub(super) fn check_hosts<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Vec<String> {
    let hosts = table.texts(source, "allow_hosts").unwrap_or_default();
    let hosts = hosts.into_iter().map(|host| {
        if !is_host(&host.value) {
            let expected = "expected an exact host name, with its port unless that is 80 (443 with TLS), such as \"lucid.internal:8118\"";
            source.problem(Some(&host.at), &host.key, expected);
        } else if is_every_address(&host.value) {
            let message = "means every address and is a name of none, and web pages could reach this machine by it; name the address or the host that clients ask for";
            source.problem(Some(&host.at), &host.key, message);
        }
        host.value.to_ascii_lowercase()
    });
    hosts.collect()
}

/// Takes the origins of the web pages that are served.
pub(super) fn check_origins<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Vec<String> {
    let origins = table.texts(source, "allow_origins").unwrap_or_default();
    let origins = origins.into_iter().map(|Found { value, key, at }| {
        if !is_origin(&value) {
            let expected = match value.as_str() {
                "null" => "\"null\" is what every page without an origin of its own says, a stranger's in a frame too; serve the page from an address, such as \"http://localhost:5173\"",
                "*" => "\"*\" would serve every page that a browser opens; name each origin that may use the proxy, such as \"http://localhost:5173\"",
                _ => "expected an exact origin as browsers send it, such as \"http://localhost:5173\": in lower case; without the port that is the scheme's own; with nothing behind it; no wildcard",
            };
            source.problem(Some(&at), &key, expected);
        }
        value
    });
    origins.collect()
}

/// Whether it is a `Host` that can be allowed: a name or an address, and maybe a port, without anything else.
pub(crate) fn is_host(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    match split(&lower) {
        Some((host, port)) => (is_name(host) || is_ipv6(host)) && port.is_none_or(is_port),
        None => false,
    }
}

/// Whether a `Host` is the unspecified address (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2). Connections to it end on
/// this machine, and browsers let pages of any origin make them.
pub(crate) fn is_every_address(host: &str) -> bool {
    let Some((host, _)) = split(host) else {
        return false;
    };
    let address = match ipv6(host) {
        Some((_, address)) => Some(IpAddr::V6(address)),
        None => host.parse().ok(),
    };
    address.is_some_and(|address| address.to_canonical().is_unspecified())
}

/// Whether it is an origin in the one form in which browsers send it (RFC 6454 section 6.2), and not `null`.
pub(crate) fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let Some((host, port)) = split(rest) else {
        return false;
    };
    let port_of_scheme = match scheme {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => "",
    };
    is_scheme(scheme)
        && (is_name(host) || is_shortest_ipv6(host))
        && port.is_none_or(|port| is_port(port) && port != port_of_scheme)
}

/// Host and port of an authority; an address of IPv6 keeps its brackets.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => rest.is_empty().then_some((host, None)),
    }
}

/// RFC 3986 section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.len() <= LONGEST_SCHEME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(plain)
}

/// A name in lower case, of which `_` is in use although no host should have it, or an address of IPv4. What ends in a
/// number is an address to a browser, which writes it in the usual way.
fn is_name(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let last = text.trim_end_matches('.').rsplit('.').next();
    let is_number = last.is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= LONGEST_HOST
        && text.bytes().all(plain)
        && !text.starts_with('.')
        && !text.contains("..")
        && (!is_number || text.parse::<Ipv4Addr>().is_ok())
}

fn ipv6(text: &str) -> Option<(&str, Ipv6Addr)> {
    let literal = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((literal, literal.parse().ok()?))
}

fn is_ipv6(text: &str) -> bool {
    ipv6(text).is_some()
}

/// Browsers shorten an address as the standard library does, but write none of its parts with dots.
fn is_shortest_ipv6(text: &str) -> bool {
    ipv6(text).is_some_and(|(literal, address)| {
        let shortest = address.to_string();
        let is_plain = !literal.contains(|sign: char| sign == '.' || sign.is_ascii_uppercase());
        is_plain && (literal == shortest || shortest.contains('.'))
    })
}

/// As it is written without zeros that say nothing.
fn is_port(text: &str) -> bool {
    let number = text.parse::<u16>().ok().filter(|number| *number != 0);
    number.is_some_and(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, ConfigError, Guard, Need};

    fn guard(text: &str) -> Result<Guard, Vec<String>> {
        match Config::parse(text, None, &BTreeMap::new(), Need::Store) {
            Ok(config) => Ok(config.guard),
            Err(ConfigError::Wrong { problems, .. }) => {
                Err(problems.iter().map(ToString::to_string).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn s03_origins_are_taken_as_browsers_send_them_and_in_no_other_form() {
        for good in [
            "http://localhost:5173",
            "https://app.example",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "https://[2001:db8::1]",
            "http://[::ffff:7f00:1]",
            "https://xn--bcher-kva.example",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "tauri://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "null",
            "*",
            "localhost:5173",
            "http://",
            "http://*.example",
            "http://a/",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u@a",
            "http://A",
            "HTTP://a",
            "http://a:80",
            "https://a:443",
            "http://a:0",
            "http://a:080",
            "http://a:+81",
            "http://a:99999",
            "http://a:",
            "http://a:1:2",
            "http://a b",
            "http://a, http://b",
            "http://a\r\nX: y",
            "http://bücher.example",
            "http://.a",
            "http://a..b",
            "http://127.1",
            "http://127.0.0.01",
            "http://[::1",
            "http://[0:0::1]",
            "http://[::FFFF:7f00:1]",
            "http://[::1]x",
            "http://[127.0.0.1]",
            "file://",
            "1a://b",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
        assert!(!is_origin(&format!("http://{}", "a".repeat(254))));
    }

    #[test]
    fn s02_hosts_are_names_or_addresses_with_a_port_or_without() {
        for good in [
            "lucid.internal",
            "Lucid.Internal:8118",
            "my_host",
            "host.",
            "10.0.0.1:80",
            "[::1]:8118",
            "[0:0::1]",
            "x:65535",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "*",
            "*.example",
            "x:99999",
            "x:0",
            "x:",
            "x:y",
            "x:1:2",
            "::1",
            "[::1]8118",
            "[x]",
            "x/y",
            "x?",
            "u@x",
            "u:p@x",
            "x y",
            "x\"",
            "http://x",
            "10.0.0.256",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn s02_every_address_is_never_an_allowed_name() {
        for every in [
            "0.0.0.0",
            "0.0.0.0:8118",
            "[::]:8118",
            "[0:0::0]",
            "[::ffff:0.0.0.0]:8118",
        ] {
            let text = format!("[guard]\nallow_hosts = [\"a.test\", \"{every}\"]\n");
            let problems = guard(&text).expect_err(every);
            let told = "line 2, column 26: guard.allow_hosts: means every address";
            assert!(problems[0].starts_with(told), "{every}: {problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
        for one in [
            "10.0.0.0",
            "[::1]:8118",
            "0.0.0.0.test",
            "[::ffff:10.0.0.5]",
        ] {
            let text = format!("[guard]\nallow_hosts = [\"{one}\"]\n");
            assert!(guard(&text).is_ok(), "{one}");
        }
    }

    #[test]
    fn s02_s03_each_entry_that_is_not_accepted_is_told_with_its_place() {
        let text = "[guard]\nallow_hosts = [\"lucid.internal\",\n  \"x:99999\", \"x/y\"]\nallow_origins = [\n \"http://localhost:5173\",\n \"http://Localhost\", \"null\", \"*\"]\n";
        let problems = guard(text).expect_err("four of them are wrong");
        let places: Vec<_> = problems
            .iter()
            .filter_map(|problem| problem.split(": expected").next())
            .collect();
        assert_eq!(
            places[..3],
            [
                "line 3, column 3: guard.allow_hosts",
                "line 3, column 14: guard.allow_hosts",
                "line 6, column 2: guard.allow_origins",
            ]
        );
        assert!(problems[2].contains("\"http://localhost:5173\""));
        assert!(problems[3].starts_with("line 6, column 22: guard.allow_origins: \"null\" is"));
        assert!(problems[4].starts_with("line 6, column 30: guard.allow_origins: \"*\" would"));
        assert_eq!(problems.len(), 5);
        let accepted = guard(
            "[guard]\nallow_hosts = [\"Lucid.Internal\"]\nallow_origins = [\"https://app.example\"]",
        );
        let accepted = accepted.expect("both are right");
        assert_eq!(accepted.allow_hosts, ["lucid.internal"]);
        assert_eq!(accepted.allow_origins, ["https://app.example"]);
        let mixed = guard("[guard]\nallow_origins = [1]").expect_err("no list of strings");
        assert!(
            mixed[0].contains("line 2, column 17") && mixed[0].contains("a list of strings"),
            "{mixed:?}"
        );
    }
}
