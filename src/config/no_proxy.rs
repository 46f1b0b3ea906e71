//! Hosts that are reached directly although a proxy is configured: the list in `NO_PROXY`, as curl reads it.

use std::net::{IpAddr, Ipv6Addr};

use super::Origin;

/// The list, which covers some origins.
///
/// Entries stand between commas or spaces. `*` covers everything. A name covers that host and all below it, with or
/// without a dot or `*.` before it. An address covers itself, `10.0.0.0/8` all that begin so; names are not looked up for
/// that. A port behind an entry, `example.com:8443` or `[::1]:443`, restricts it to that port. What is nothing of that
/// covers nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// In lower case, without dots at the ends.
    Domain(String),
    /// The addresses that share so many first bits with this one.
    Network(IpAddr, u8),
}

impl NoProxy {
    /// Reads the list.
    pub fn parse(text: &str) -> Self {
        let entries = text.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter_map(Entry::parse).collect())
    }

    /// Whether this origin is to be reached directly.
    pub fn covers(&self, origin: &Origin) -> bool {
        let host = origin.host.strip_suffix('.').unwrap_or(&origin.host);
        let address = host
            .parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical());
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|port| port == origin.port) && entry.hosts.have(host, address)
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        // A whole IPv6 address has colons of its own.
        if let Some(hosts) = Hosts::parse_addresses(text) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let hosts = Hosts::parse(host)?;
        Some(Self { hosts, port })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some(addresses) = Self::parse_addresses(text) {
            return Some(addresses);
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_name = !name.is_empty() && !name.contains(['*', '/', ':', '[', ']']);
        is_name.then(|| Self::Domain(name.to_ascii_lowercase()))
    }

    /// An address, or the beginning of one with its length in bits; IPv6 with or without brackets.
    fn parse_addresses(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse().ok()?)),
            None => (text, None),
        };
        let bracketed = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = match bracketed {
            Some(inside) => IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?),
            None => address.parse().ok()?,
        };
        match length {
            None => {
                let address = address.to_canonical();
                Some(Self::Network(address, width(address)))
            }
            Some(length) => (length <= width(address)).then_some(Self::Network(address, length)),
        }
    }

    fn have(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Domain(name) => host
                .strip_suffix(name)
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            Self::Network(network, length) => {
                address.is_some_and(|address| begin_alike(address, *network, *length))
            }
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn begin_alike(one: IpAddr, other: IpAddr, length: u8) -> bool {
    let differences = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()),
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    // Shifted by all of its bits, nothing is left of it.
    let ends = u32::from(width(one) - length);
    differences.checked_shr(ends).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(list: &str, url: &str) -> bool {
        let origin = Origin::parse(url).unwrap_or_else(|| panic!("{url}"));
        NoProxy::parse(list).covers(&origin)
    }

    #[test]
    fn each_form_of_an_entry_covers_what_it_names() {
        for (list, covered, others) in [
            (
                "*",
                &["https://lucid.co", "https://10.0.0.1", "https://[::1]:8"][..],
                &[][..],
            ),
            (
                "lucid.co",
                &[
                    "https://lucid.co",
                    "https://api.lucid.co",
                    "https://LUCID.co.:8443",
                ],
                &[
                    "https://notlucid.co",
                    "https://lucid.com",
                    "https://co",
                    "https://lucid.co.uk",
                ],
            ),
            (
                ".lucid.co",
                &["https://lucid.co", "https://api.lucid.co"],
                &["https://notlucid.co"],
            ),
            (
                "*.lucid.co",
                &["https://api.lucid.co"],
                &["https://notlucid.co"],
            ),
            (
                "Lucid.CO.",
                &["https://api.lucid.co"],
                &["https://lucid.com"],
            ),
            (
                "lucid.co:8443",
                &["https://api.lucid.co:8443"],
                &[
                    "https://api.lucid.co",
                    "https://api.lucid.co:443",
                    "https://api.lucid.co:8",
                ],
            ),
            ("lucid.co:443", &["https://lucid.co"], &["http://lucid.co"]),
            (
                "10.1.2.3",
                &[
                    "https://10.1.2.3",
                    "https://10.1.2.3:8",
                    "https://[::ffff:10.1.2.3]",
                ],
                &[
                    "https://10.1.2.30",
                    "https://1.10.1.2",
                    "https://host.10.1.2.3x",
                ],
            ),
            ("10.1.2.3:8", &["https://10.1.2.3:8"], &["https://10.1.2.3"]),
            (
                "::ffff:10.1.2.3",
                &["https://10.1.2.3"],
                &["https://10.1.2.4"],
            ),
            (
                "2001:db8::1",
                &["https://[2001:db8::1]"],
                &["https://[2001:db8::11]"],
            ),
            (
                "[2001:db8::1]",
                &["https://[2001:DB8:0::1]"],
                &["https://[2001:db8::2]"],
            ),
            (
                "[2001:db8::1]:8",
                &["https://[2001:db8::1]:8"],
                &["https://[2001:db8::1]"],
            ),
            (
                "10.0.0.0/8",
                &["https://10.255.1.2"],
                &["https://11.0.0.1", "https://[a00::1]", "https://ten.test"],
            ),
            ("10.1.2.3/31", &["https://10.1.2.2"], &["https://10.1.2.4"]),
            (
                "0.0.0.0/0",
                &["https://1.2.3.4"],
                &["https://[::1]", "https://lucid.co"],
            ),
            ("::/0", &["https://[fe80::1]"], &["https://1.2.3.4"]),
            (
                "2001:db8::/33",
                &["https://[2001:db8:7fff::1]"],
                &["https://[2001:db8:8000::1]"],
            ),
            (
                "10.0.0.0/8:8443",
                &["https://10.0.0.1:8443"],
                &["https://10.0.0.1"],
            ),
            (
                " a.test,b.test  c.test,,\t10.0.0.0/8 ",
                &[
                    "https://a.test",
                    "https://x.b.test",
                    "https://c.test",
                    "https://10.0.0.1",
                ],
                &["https://d.test"],
            ),
        ] {
            for url in covered {
                assert!(covers(list, url), "{list:?} covers {url}");
            }
            for url in others {
                assert!(!covers(list, url), "{list:?} does not cover {url}");
            }
        }
    }

    #[test]
    fn what_is_no_entry_covers_nothing() {
        for list in [
            "",
            ",",
            ".",
            "*.",
            "lucid.co:",
            "lucid.co:x",
            "lucid.co:99999",
            "10.0.0.0/33",
            "10.0.0.0/x",
            "::/129",
            "[10.0.0.1]",
            "[::1",
            "api.*.co",
            "https://lucid.co",
        ] {
            let read = NoProxy::parse(list);
            assert_eq!(read, NoProxy::default(), "{list:?}");
        }
    }

    fn labels() -> impl Strategy<Value = Vec<&'static str>> {
        proptest::collection::vec(proptest::sample::select(vec!["a", "b", "ab", "co"]), 1..4)
    }

    proptest! {
        #[test]
        fn a_name_covers_the_hosts_whose_last_labels_it_has(
            host in labels(),
            name in labels(),
            before in proptest::sample::select(vec!["", ".", "*."]),
        ) {
            let expected = host.ends_with(&name);
            let list = format!("{before}{}", name.join("."));
            prop_assert_eq!(covers(&list, &format!("https://{}", host.join("."))), expected);
        }

        #[test]
        fn a_network_covers_the_addresses_that_begin_with_its_bits(
            network: u32,
            length in 0u8..33,
            flips in proptest::option::of(0u32..32),
        ) {
            let address = network ^ flips.map_or(0, |bit| 1 << bit);
            let [network, address] = [network, address].map(std::net::Ipv4Addr::from_bits);
            let bits = |address: std::net::Ipv4Addr| format!("{:032b}", address.to_bits());
            let expected = bits(network)[..usize::from(length)] == bits(address)[..usize::from(length)];
            let url = format!("https://{address}");
            prop_assert_eq!(covers(&format!("{network}/{length}"), &url), expected);
        }

        #[test]
        fn a_list_covers_what_one_of_its_entries_covers(
            entries in proptest::collection::vec("[a*.:/0-9\\[\\]]{0,9}", 0..5),
            host in "[a.1]{1,6}",
        ) {
            if let Some(origin) = Origin::parse(&format!("https://{host}")) {
                let one = |entry: &String| NoProxy::parse(entry).covers(&origin);
                let all = NoProxy::parse(&entries.join(","));
                prop_assert_eq!(all.covers(&origin), entries.iter().any(one));
            }
        }

        #[test]
        fn s08_no_list_makes_a_panic(list in "\\PC*", host in "[a-z0-9.:\\[\\]]{1,12}") {
            if let Some(origin) = Origin::parse(&format!("https://{host}")) {
                let _ = NoProxy::parse(&list).covers(&origin);
            }
        }
    }
}
