//! Whether it is a program of this user that connects: what the system tells of the other end of a connection on this
//! machine. Java can send no login to a proxy, and still nobody else is to use the one of a run.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Whether this system tells. Where it does not, nobody is let in.
pub const IS_TOLD: bool = cfg!(target_os = "linux");

/// Whether the connection from `peer` to `local`, both of this machine, is held open by a process of this user. It reads
/// what the system tells of all connections, which blocks.
///
/// # Errors
///
/// Where the system does not tell.
pub fn is_own(peer: SocketAddr, local: SocketAddr) -> io::Result<bool> {
    is_own_in(Path::new("/proc/net"), peer, local)
}

fn is_own_in(tables: &Path, peer: SocketAddr, local: SocketAddr) -> io::Result<bool> {
    let user = rustix::process::geteuid().as_raw();
    let is_in = |table, peer, local| {
        let table = std::fs::read_to_string(tables.join(table))?;
        Ok::<_, io::Error>(holder(&table, peer, local) == Some(user))
    };
    // The other end has a line of its own, in which it is the local one. A program such as Java has IPv6 sockets for IPv4
    // too (RFC 4291 section 2.5.5.2).
    if peer.is_ipv4() && is_in("tcp", peer, local)? {
        return Ok(true);
    }
    match is_in("tcp6", mapped(peer), mapped(local)) {
        // A system without IPv6 has no such table.
        Err(error) if peer.is_ipv4() && error.kind() == io::ErrorKind::NotFound => Ok(false),
        told => told,
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(ip.into(), address.port())
}

/// The user who holds the socket at `local` that is connected with `remote` (proc_pid_net(5)). `None` also where nobody has
/// it open any more: such a line names root, whoever it was.
fn holder(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let [local, remote] = [local, remote].map(written);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next()? != local || fields.next()? != remote {
            return None;
        }
        // State, queues, timer, retransmissions; then the user, probes, and the inode.
        let mut fields = fields.skip(4);
        let user = fields.next()?.parse().ok()?;
        let inode: u64 = fields.nth(1)?.parse().ok()?;
        (inode != 0).then_some(user)
    })
}

/// An address as it stands there: words of 32 bits in the machine's order, then the port.
fn written(address: SocketAddr) -> String {
    let words: String = match address {
        SocketAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.ip().octets())),
        SocketAddr::V6(v6) => v6
            .ip()
            .octets()
            .chunks_exact(4)
            .map(|word| {
                let word = [word[0], word[1], word[2], word[3]];
                format!("{:08X}", u32::from_ne_bytes(word))
            })
            .collect(),
    };
    format!("{words}:{:04X}", address.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn s01_the_user_of_the_other_end_is_read_and_of_a_closed_one_nobody() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n\
            1: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 4712 1\n\
            2: 0100007F:A002 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n\
            3: nonsense\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        if cfg!(target_endian = "little") {
            assert_eq!(holder(table, at(0xA001), at(0x1F90)), Some(1001));
            assert_eq!(holder(table, at(0x1F90), at(0xA001)), Some(1000));
            assert_eq!(holder(table, at(0xA002), at(0x1F90)), None);
        }
        assert_eq!(holder(table, at(1), at(0x1F90)), None);
        assert_eq!(holder("", at(1), at(1)), None);
    }

    #[test]
    fn s01_a_living_connection_of_this_user_is_recognised() {
        for (address, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            // As Java does.
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let local = listener.local_addr().expect("an address");
            let client = TcpStream::connect((host, local.port())).expect("a connection");
            let (_accepted, peer) = listener.accept().expect("a connection");
            assert!(is_own(peer, local).expect("told"), "{host}");
            // Asked from the wrong side, it is the other socket; with a wrong port there is none.
            let other = SocketAddr::new(peer.ip(), peer.port() ^ 1);
            assert!(!is_own(other, local).expect("told"));
            drop(client);
            let is_own = is_own(peer, local).expect("told");
            assert!(!is_own, "nobody holds it any more");
        }
    }

    #[test]
    fn where_the_system_does_not_tell_that_is_an_error_and_nobodys_connection_is_none() {
        let tables = tempfile::tempdir().expect("a directory");
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let told = || is_own_in(tables.path(), at(1), at(2));
        told().expect_err("no table is there");
        std::fs::write(tables.path().join("tcp"), "no line\n").expect("written");
        assert!(!told().expect("a system without IPv6"));
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1));
        is_own_in(tables.path(), v6, v6).expect_err("no table of IPv6 is there");
    }
}
