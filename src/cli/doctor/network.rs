//! The way to a server, one step after the other: its name, its port, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::certificate::Onlooker;
use super::report::{Check, Report, Unreached};
use crate::config::{Environment, Origin, ProcessEnvironment, Scheme};
use crate::tls;

/// For each step. Longer than a retransmitted SYN takes, shorter than people wait.
const BOUND: Duration = Duration::from_secs(10);
/// More addresses than this are not tried.
const MOST_ADDRESSES: usize = 16;

/// The checks of one server.
pub(super) struct Names {
    /// What it is called in `proxy.toml`.
    key: &'static str,
    name: &'static str,
    port: &'static str,
    tls: &'static str,
}

pub(super) const UPSTREAM: Names = Names {
    key: "upstream.url",
    name: "upstream_name",
    port: "upstream_port",
    tls: "upstream_tls",
};

pub(super) const TOKEN_ENDPOINT: Names = Names {
    key: "token_url",
    name: "token_name",
    port: "token_port",
    tls: "token_tls",
};

/// A connection that HTTP can be spoken on.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Goes the whole way and answers with the connection, or with the check at which the way ended.
pub(super) async fn examine(
    names: &Names,
    origin: &Origin,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let reached = reach(names, origin, report).await;
    if let Err(unreached) = reached {
        let rest = [names.name, names.port, names.tls].into_iter();
        for skipped in rest.skip_while(|name| *name != unreached).skip(1) {
            report.push(Check::depends(skipped, unreached));
        }
    }
    reached
}

async fn reach(
    names: &Names,
    origin: &Origin,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let addresses = look_up(names, origin, report).await?;
    let tcp = connect(names, origin, &addresses, report).await?;
    match origin.scheme {
        Scheme::Http => {
            let because = format!("{origin} is on this machine and without TLS");
            report.push(Check::skipped(names.tls, because));
            Ok(Box::new(tcp))
        }
        Scheme::Https => secure(names, origin, tcp, report).await,
    }
}

async fn look_up(
    names: &Names,
    origin: &Origin,
    report: &mut Report,
) -> Result<Vec<SocketAddr>, Unreached> {
    let host = &origin.host;
    let found = tokio::net::lookup_host((host.as_str(), origin.port));
    let found = match tokio::time::timeout(BOUND, found).await {
        Ok(found) => found.map(|addresses| addresses.take(MOST_ADDRESSES).collect::<Vec<_>>()),
        Err(_) => Err(too_slow("no answer")),
    };
    let advice = || {
        format!(
            "check {} and the name service of this machine (/etc/resolv.conf; in a container, its network){}",
            names.key,
            unused_proxy()
        )
    };
    let (check, addresses) = match found {
        Ok(addresses) if addresses.is_empty() => {
            let seen = format!("{host} has no address");
            (Check::failed(names.name, seen, advice()), addresses)
        }
        Ok(addresses) => {
            let mut shown: Vec<_> = addresses.iter().map(|at| at.ip().to_string()).collect();
            shown.dedup();
            let seen = match host.parse::<IpAddr>() {
                Ok(_) => format!("{host} is an address"),
                Err(_) => format!("{host} is {}", shown.join(", ")),
            };
            (Check::ok(names.name, seen), addresses)
        }
        Err(error) => {
            let seen = format!("{host} cannot be looked up: {error}");
            (Check::failed(names.name, seen, advice()), Vec::new())
        }
    };
    report.push_gate(check).map(|()| addresses)
}

/// Connects to every address at once: one that does not answer costs requests time even where another does.
async fn connect(
    names: &Names,
    origin: &Origin,
    addresses: &[SocketAddr],
    report: &mut Report,
) -> Result<TcpStream, Unreached> {
    let begun = Instant::now();
    let mut attempts = JoinSet::new();
    for address in addresses.iter().copied() {
        attempts.spawn(async move {
            let connecting = tokio::time::timeout(BOUND, TcpStream::connect(address)).await;
            let connected = connecting.unwrap_or_else(|_| Err(too_slow("nobody answers")));
            (address, connected)
        });
    }
    let (mut reached, mut failures, mut slow) = (None, Vec::new(), false);
    while let Some(attempt) = attempts.join_next().await {
        // A task that connects does not panic.
        let Ok((address, connected)) = attempt else {
            continue;
        };
        match connected {
            Ok(tcp) => reached = reached.or(Some((tcp, address, begun.elapsed()))),
            Err(error) => {
                slow |= error.kind() == io::ErrorKind::TimedOut;
                failures.push(format!("{address}: {error}"));
            }
        }
    }
    let Some((tcp, address, took)) = reached else {
        let advice = format!(
            "check {}, the network and a firewall on the way{}",
            names.key,
            unused_proxy()
        );
        let seen = match failures.is_empty() {
            true => format!("no address of {origin} was tried"),
            false => failures.join("; "),
        };
        report.push(Check::failed(names.port, seen, advice));
        return Err(names.port);
    };
    let mut seen = format!("{address} accepts connections ({took:.0?})");
    if !failures.is_empty() {
        seen = format!("{seen}; {}", failures.join("; "));
    }
    report.push(match slow {
        true => Check::warning(
            names.port,
            seen,
            "each new connection may wait for the address that does not answer; mend its route, or turn IPv6 off where it leads nowhere",
        ),
        false => Check::ok(names.port, seen),
    });
    Ok(tcp)
}

async fn secure(
    names: &Names,
    origin: &Origin,
    tcp: TcpStream,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let judge = match tls::verifier() {
        Ok(judge) => judge,
        Err(error) => {
            report.push(Check::failed_with(names.tls, &error.to_string(), ""));
            return Err(names.tls);
        }
    };
    let onlooker = Onlooker::beside(judge);
    let mut config = tls::client_config_judged_by(onlooker.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let secured = handshake(origin, tcp, config).await;
    let certificate = onlooker.certificate().map(|shown| shown.to_string());
    match secured {
        Ok(stream) => {
            let version = match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS",
            };
            let shown = certificate.unwrap_or_else(|| "no certificate".to_owned());
            let seen = format!("{version}, {shown}{}", own_trust());
            report.push(Check::ok(names.tls, seen));
            Ok(Box::new(stream))
        }
        Err(error) => {
            report.push(untrusted(names, &error, certificate));
            Err(names.tls)
        }
    }
}

async fn handshake(
    origin: &Origin,
    tcp: TcpStream,
    config: rustls::ClientConfig,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(origin.host.clone());
    let name = name.map_err(|_| io::Error::other("this host name cannot be in a certificate"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let connected = tokio::time::timeout(BOUND, connecting).await;
    connected.unwrap_or_else(|_| Err(too_slow("the handshake did not end")))
}

fn untrusted(names: &Names, error: &io::Error, certificate: Option<String>) -> Check {
    let about_certificate = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    match certificate.filter(|_| about_certificate) {
        Some(shown) => Check::failed(
            names.tls,
            format!(
                "not trusted: {error}; the server shows {shown}{}",
                own_trust()
            ),
            "if the issuer is your company's or a virus scanner's, which reads along, put its root certificate with the usual ones into one file and name that in SSL_CERT_FILE, or install it into the system; if the certificate has expired, check the clock; nothing was sent",
        ),
        None => Check::failed(
            names.tls,
            format!("the handshake failed: {error}"),
            format!(
                "whatever answers at {} speaks no TLS, or something on the way breaks it off{}",
                names.key,
                unused_proxy()
            ),
        ),
    }
}

fn too_slow(what: &str) -> io::Error {
    let message = format!("{what} within {} s", BOUND.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// Whether the certificates that count are not the system's usual ones.
fn own_trust() -> String {
    let set = |name: &str| Some(format!("{name}={}", ProcessEnvironment.var(name)?));
    let set: Vec<_> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .filter_map(set)
        .collect();
    match set.is_empty() {
        true => String::new(),
        false => format!(" (judged with {})", set.join(" and ")),
    }
}

/// Programs that heed these variables reach what this one does not.
fn unused_proxy() -> String {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = names
        .into_iter()
        .find(|name| ProcessEnvironment.var(name).is_some());
    set.map_or_else(String::new, |name| {
        format!("; {name} is set, but lucid-proxy connects directly")
    })
}
