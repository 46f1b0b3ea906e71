//! The way to a server, one step after the other: its name, its port, TLS. Where there is a proxy on the way, name and port
//! are the proxy's, and it is asked for a tunnel.

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
use crate::config::{CaFile, Environment, Network, Origin, ProcessEnvironment, Scheme, Way, Why};
use crate::dial::{self, Tls, tunnel};
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
    network: &Network,
    origin: &Origin,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let mut all = [names.name, names.port, names.tls].into_iter();
    let way = network.way_to(origin);
    if matches!(way, Way::Unknown(_)) {
        const CONFIGURATION: Unreached = "configuration";
        all.for_each(|name| report.push(Check::depends(name, CONFIGURATION)));
        return Err(CONFIGURATION);
    }
    let reached = reach(names, network, origin, way, report).await;
    if let Err(unreached) = reached {
        all.find(|name| *name == unreached);
        all.for_each(|name| report.push(Check::depends(name, unreached)));
    }
    reached
}

async fn reach(
    names: &Names,
    network: &Network,
    origin: &Origin,
    way: Way<'_>,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let addresses = look_up(names, origin, way, report).await?;
    let Reached { tcp, seen, is_slow } = match connect(&addresses).await {
        Ok(reached) => reached,
        Err(failures) => {
            let key = to_check(names, way);
            let advice = format!(
                "check {key}, the network and a firewall on the way{}",
                directly(way)
            );
            report.push(Check::failed(names.port, failures.join("; "), advice));
            return Err(names.port);
        }
    };
    let (io, passed) = match pass(network, origin, way, tcp).await {
        Ok(passed) => passed,
        Err(error) => {
            report.push(Check::failed_with(names.port, &error, ""));
            return Err(names.port);
        }
    };
    let seen = format!("{seen}{passed}");
    report.push(match is_slow {
        true => Check::warning(
            names.port,
            seen,
            "new connections wait 250 ms for the address that does not answer; mend its route, or turn IPv6 off where it leads nowhere",
        ),
        false => Check::ok(names.port, seen),
    });
    match origin.scheme {
        Scheme::Http => {
            let because = format!("{origin} is on this machine and without TLS");
            report.push(Check::skipped(names.tls, because));
            Ok(io)
        }
        Scheme::Https => secure(names, network, origin, io, report).await,
    }
}

async fn look_up(
    names: &Names,
    origin: &Origin,
    way: Way<'_>,
    report: &mut Report,
) -> Result<Vec<SocketAddr>, Unreached> {
    let (first, purpose) = match way {
        Way::Proxy(proxy) => (
            &proxy.origin,
            format!(", {proxy}, which looks {} up itself", origin.host),
        ),
        _ => (origin, String::new()),
    };
    let host = &first.host;
    let found = match tokio::time::timeout(BOUND, dial::look_up(first)).await {
        Ok(found) => found,
        Err(_) => Err(too_slow("no answer")),
    };
    let (check, addresses) = match found {
        Ok(mut addresses) => {
            addresses.truncate(MOST_ADDRESSES);
            let mut shown: Vec<_> = addresses.iter().map(|at| at.ip().to_string()).collect();
            shown.dedup();
            let seen = match host.parse::<IpAddr>() {
                Ok(_) => format!("{host} is an address{purpose}"),
                Err(_) => format!("{host} is {}{purpose}", shown.join(", ")),
            };
            (Check::ok(names.name, seen), addresses)
        }
        Err(error) => {
            let seen = format!("{host} cannot be looked up: {error}{purpose}");
            let advice = format!(
                "check {} and the name service of this machine (/etc/resolv.conf; in a container, its network){}",
                to_check(names, way),
                directly(way)
            );
            (Check::failed(names.name, seen, advice), Vec::new())
        }
    };
    report.push_gate(check).map(|()| addresses)
}

/// A connection, and what is to be said of it.
struct Reached {
    tcp: TcpStream,
    seen: String,
    /// Whether another address did not answer at all.
    is_slow: bool,
}

/// Connects to every address at once: one that does not answer costs requests time even where another does. What failed
/// where none does.
async fn connect(addresses: &[SocketAddr]) -> Result<Reached, Vec<String>> {
    let begun = Instant::now();
    let mut attempts = JoinSet::new();
    for address in addresses.iter().copied() {
        attempts.spawn(async move {
            let connecting = tokio::time::timeout(BOUND, TcpStream::connect(address)).await;
            let connected = connecting.unwrap_or_else(|_| Err(too_slow("nobody answers")));
            (address, connected)
        });
    }
    let (mut reached, mut failures, mut is_slow) = (None, Vec::new(), false);
    while let Some(attempt) = attempts.join_next().await {
        // A task that connects does not panic.
        let Ok((address, connected)) = attempt else {
            continue;
        };
        match connected {
            Ok(tcp) => reached = reached.or(Some((tcp, address, begun.elapsed()))),
            Err(error) => {
                is_slow |= error.kind() == io::ErrorKind::TimedOut;
                failures.push(format!("{address}: {error}"));
            }
        }
    }
    let Some((tcp, address, took)) = reached else {
        return Err(failures);
    };
    let accepts = format!("{address} accepts connections ({took:.0?})");
    failures.insert(0, accepts);
    Ok(Reached {
        tcp,
        seen: failures.join("; "),
        is_slow,
    })
}

/// Through the proxy, if there is one on the way; what is to be said of that. What is wrong where it leads no further.
async fn pass(
    network: &Network,
    origin: &Origin,
    way: Way<'_>,
    tcp: TcpStream,
) -> Result<(Box<dyn Io>, String), String> {
    let Way::Proxy(proxy) = way else {
        return Ok((Box::new(tcp), directly(way)));
    };
    let begun = Instant::now();
    let tls = Tls::towards(network, &proxy.origin, Vec::new());
    let io: Box<dyn Io> = match tls.map_err(|error| error.to_string())? {
        None => Box::new(tcp),
        Some(tls) => {
            let secured = tokio::time::timeout(BOUND, tls.handshake(tcp)).await;
            let secured = secured.unwrap_or_else(|_| Err(too_slow("the handshake did not end")));
            Box::new(secured.map_err(|error| {
                format!("no trusted TLS connection to {proxy}: {error}; if its certificate is your company's own, name a file with the root certificate in upstream.ca_file")
            })?)
        }
    };
    let opened = tokio::time::timeout(BOUND, tunnel::open(io, proxy, origin)).await;
    let target = tunnel::authority(origin);
    let io = match opened {
        Ok(opened) => opened.map_err(|error| error.to_string())?,
        Err(_) => {
            return Err(format!(
                "{proxy} did not open a tunnel to {target} within {} s; check upstream.url and {}",
                BOUND.as_secs(),
                proxy.set_by
            ));
        }
    };
    let took = begun.elapsed();
    let seen = format!("; {proxy} opens a tunnel to {target} ({took:.0?})");
    Ok((io, seen))
}

async fn secure(
    names: &Names,
    network: &Network,
    origin: &Origin,
    io: Box<dyn Io>,
    report: &mut Report,
) -> Result<Box<dyn Io>, Unreached> {
    let judge = match tls::verifier(network.extra_roots()) {
        Ok(judge) => judge,
        Err(error) => {
            report.push(Check::failed_with(names.tls, &error.to_string(), ""));
            return Err(names.tls);
        }
    };
    let onlooker = Onlooker::beside(judge);
    let mut config = tls::client_config(onlooker.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let secured = handshake(origin, io, config).await;
    let certificate = onlooker.certificate().map(|shown| shown.to_string());
    match secured {
        Ok(stream) => {
            let version = match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS",
            };
            let shown = certificate.unwrap_or_else(|| "no certificate".to_owned());
            let seen = format!("{version}, {shown}{}", own_trust(network));
            report.push(Check::ok(names.tls, seen));
            Ok(Box::new(stream))
        }
        Err(error) => {
            report.push(untrusted(names, network, origin, &error, certificate));
            Err(names.tls)
        }
    }
}

async fn handshake(
    origin: &Origin,
    io: Box<dyn Io>,
    config: rustls::ClientConfig,
) -> io::Result<tokio_rustls::client::TlsStream<Box<dyn Io>>> {
    let name = ServerName::try_from(origin.host.clone());
    let name = name.map_err(|_| io::Error::other("this host name cannot be in a certificate"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, io);
    let connected = tokio::time::timeout(BOUND, connecting).await;
    connected.unwrap_or_else(|_| Err(too_slow("the handshake did not end")))
}

fn untrusted(
    names: &Names,
    network: &Network,
    origin: &Origin,
    error: &io::Error,
    certificate: Option<String>,
) -> Check {
    let about_certificate = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    match certificate.filter(|_| about_certificate) {
        Some(shown) => Check::failed(
            names.tls,
            format!(
                "not trusted: {error}; the server shows {shown}{}",
                own_trust(network)
            ),
            "if the issuer is your company's or a virus scanner's, which reads along, name a file with its root certificate in upstream.ca_file, or install it into the system; if the certificate has expired, check the clock; nothing was sent",
        ),
        None => Check::failed(
            names.tls,
            format!("the handshake failed: {error}"),
            format!(
                "whatever answers at {} speaks no TLS, or something on the way breaks it off{}",
                names.key,
                directly(network.way_to(origin))
            ),
        ),
    }
}

fn too_slow(what: &str) -> io::Error {
    let message = format!("{what} within {} s", BOUND.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// Whether others than the system's usual certificates count.
fn own_trust(network: &Network) -> String {
    let set = |name: &str| Some(format!("{name}={}", ProcessEnvironment.var(name)?));
    let configured = network.ca_file().map(CaFile::path);
    let configured = configured.map(|path| format!("upstream.ca_file={}", path.display()));
    let set: Vec<_> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .filter_map(set)
        .chain(configured)
        .collect();
    match set.is_empty() {
        true => String::new(),
        false => format!(" (judged with {})", set.join(" and ")),
    }
}

/// What names the machine that the way begins with.
fn to_check<'a>(names: &Names, way: Way<'a>) -> &'a str {
    match way {
        Way::Proxy(proxy) => &proxy.set_by,
        _ => names.key,
    }
}

/// That there is no proxy on the way, where one could be expected.
fn directly(way: Way<'_>) -> String {
    match way {
        Way::Direct(why) if why != Why::NothingSet => format!("; reached directly, since {why}"),
        _ => String::new(),
    }
}
