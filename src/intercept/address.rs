//! Which addresses no tunnel of a shared listener leads to: those that are nobody's on the internet, and so lead into this
//! machine, its network, or what its cloud tells about it.
//!
//! A name is judged by what it stands for at the moment, and the connection goes to the very address that was judged: a
//! name that means something else a moment later changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is that is not to be reached; `None` for one of the internet.
pub fn objection(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => of_v4(v4),
        IpAddr::V6(v6) => of_v6(v6),
    }
}

/// What machines of Azure are told by their cloud, metadata and credentials among it: an address of the internet by its
/// number, and of the machine's own network by what answers there.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// RFC 6890, with the registry that goes on from there.
fn of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        _ if address == AZURE => "of a cloud's own services",
        (0, ..) => "unspecified",
        (127, ..) => "this machine's own",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        // Those of the cloud's metadata among them, 169.254.169.254.
        (169, 254, _) => "link-local",
        (100, 64..=127, _) => "of a carrier's own network",
        (192, 0, 0) | (198, 18..=19, _) | (240.., ..) => "reserved",
        (224..=239, ..) => "multicast",
        _ => return None,
    })
}

fn of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match (a, b) {
        (0, 0) if address.is_unspecified() => "unspecified",
        (0, 0) if address.is_loopback() => "this machine's own",
        // Mapped, and as it was once written.
        (0, 0) if [c, d, e] == [0; 3] && matches!(f, 0 | 0xffff) => return embedded(g, h),
        // Through NAT64 (RFC 6052), and 6to4 (RFC 3056).
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => return embedded(g, h),
        (0x2002, high) => return embedded(high, c),
        (0xff00.., _) => "multicast",
        // Those of the cloud's metadata among them, fd00:ec2::254.
        (0xfc00..=0xfdff, _) => "private",
        (0xfe80..=0xfebf, _) => "link-local",
        (0xfec0..=0xfeff, _) => "private",
        (0x2000..=0x3fff, _) if (a, b) != (0x2001, 0) => return None,
        // Nothing else is given to anybody, and Teredo leads through others' networks.
        _ => "reserved",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_reached() {
        for (address, expected) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("168.63.129.16", "of a cloud's own services"),
            ("::ffff:168.63.129.16", "of a cloud's own services"),
            ("127.0.0.1", "this machine's own"),
            ("127.255.255.254", "this machine's own"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("169.254.169.254", "link-local"),
            ("100.64.0.1", "of a carrier's own network"),
            ("100.127.255.255", "of a carrier's own network"),
            ("192.0.0.8", "reserved"),
            ("198.19.0.1", "reserved"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "this machine's own"),
            ("::ffff:127.0.0.1", "this machine's own"),
            ("::ffff:10.0.0.1", "private"),
            ("::10.0.0.1", "private"),
            ("64:ff9b::169.254.169.254", "link-local"),
            ("64:ff9b:1::1", "reserved"),
            ("2002:7f00:1::", "this machine's own"),
            ("2001::1", "reserved"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
            ("4000::1", "reserved"),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(objection(parsed), Some(expected), "{address}");
        }
        for address in [
            "1.1.1.1",
            "168.63.129.15",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "2001:4860:4860::8888",
            "2a00::1",
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(objection(parsed), None, "{address}");
        }
    }
}
