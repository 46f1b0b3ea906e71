//! From the entries of `listen` to listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;

use super::StartError;
use super::activation::{ActivationError, Passed};
use super::listener::{Endpoint, Socket};
use super::tls::{Certificate, CertificateError};
use super::unix::{self, BACKLOG, SocketFile};
use crate::config::{Address, Config, Listen, ProcessEnvironment, Scheme, is_activated};

/// Everything that listens.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Of the unix sockets; removed when they are dropped. They stand first, and so are dropped while the sockets live:
    /// behind those, the file of another process could have the number of ours.
    pub(super) files: Vec<SocketFile>,
    pub(super) bound: Vec<Bound>,
    /// Of all that speak TLS.
    pub(super) certificates: Vec<Arc<Certificate>>,
}

/// A listening socket and what is spoken there.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Whether connections of other users are closed at once.
    pub(super) own_user: bool,
}

impl Bound {
    /// Another handle on the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            own_user: self.own_user,
        })
    }
}

/// Whether all addresses may be listened on (rule S1), and the certificates can be used.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    for listen in &config.listen {
        if let Address::Tcp(address) = &listen.address {
            check_exposure(config, *address)?;
        }
        if let Some(files) = listen.tls.as_ref().filter(|files| files.are_known()) {
            Certificate::load(files).map_err(|error| unusable(listen, error))?;
        }
    }
    Ok(())
}

fn unusable(listen: &Listen, error: CertificateError) -> StartError {
    StartError::Certificate(listen.address.clone(), error.into())
}

/// Whoever reaches the proxy can use the token, unless clients have keys (rule S1).
fn check_exposure(config: &Config, address: SocketAddr) -> Result<(), StartError> {
    let is_known = !config.clients.is_empty() || config.guard.allow_unauthenticated;
    if address.ip().is_loopback() || is_known {
        Ok(())
    } else {
        Err(StartError::Exposed(address))
    }
}

/// Makes all sockets that the configuration asks for, or none.
pub(super) fn bind(config: &Config) -> Result<Listeners, StartError> {
    warn_of_unused_activation(config);
    let mut listeners = Listeners::default();
    let mut passed = None;
    for listen in &config.listen {
        let sockets = match &listen.address {
            Address::Tcp(address) => {
                check_exposure(config, *address)?;
                vec![Socket::Tcp(tcp(*address)?)]
            }
            Address::Unix(path) => {
                let failed = |source| StartError::Unix(path.clone(), source);
                let (socket, file) = unix::bind(path, listen.access).map_err(failed)?;
                listeners.files.push(file);
                vec![Socket::Unix(socket)]
            }
            Address::Systemd(name) => passed
                .get_or_insert_with(Passed::to_this_process)
                .take(name.as_deref())?,
        };
        listeners.add(listen, sockets)?;
    }
    passed.map_or(Ok(()), Passed::finish)?;
    for address in listeners
        .bound
        .iter()
        .filter_map(|bound| bound.endpoint.tcp())
    {
        // Those of systemd are known only now.
        check_exposure(config, address)?;
    }
    Ok(listeners)
}

/// Without it a port that systemd holds would look as if another program had it.
fn warn_of_unused_activation(config: &Config) {
    let is_passed = |listen: &Listen| matches!(listen.address, Address::Systemd(_));
    if is_activated(&ProcessEnvironment) && !config.listen.iter().any(is_passed) {
        tracing::warn!(
            "systemd has passed sockets, and listen names none of them: add \"systemd\" to it, or leave listen out"
        );
    }
}

fn tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        // The standard library asks for less, and a crowd that comes at once would have others wait for seconds.
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Bind { address, source })
}

impl Listeners {
    /// Adds the sockets of one entry; they share its certificate.
    fn add(&mut self, listen: &Listen, sockets: Vec<Socket>) -> Result<(), StartError> {
        let certificate = listen.tls.as_ref().map(Certificate::load).transpose();
        let certificate = certificate.map_err(|error| unusable(listen, error))?;
        let tls = certificate.as_ref().map(Certificate::server_config);
        let tls = tls.transpose().map_err(|error| unusable(listen, error))?;
        self.certificates.extend(certificate);
        let scheme = match tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        };
        for socket in sockets {
            if let (Scheme::Https, Socket::Unix(_)) = (scheme, &socket) {
                return Err(ActivationError::Tls.into());
            }
            self.bound.push(Bound {
                endpoint: socket.endpoint(scheme).map_err(StartError::Worker)?,
                socket,
                tls: tls.clone(),
                own_user: listen.own_user,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU8, Ordering};

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;

    use super::*;
    use crate::config::Access;

    const NOT_DROPPED: u8 = 0;
    const FILE_GONE: u8 = 1;
    const FILE_THERE: u8 = 2;

    /// Goes with a socket and sees what is left of its file.
    #[derive(Debug)]
    struct Witness(PathBuf, Arc<AtomicU8>);

    impl ResolvesServerCert for Witness {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            let seen = if self.0.exists() {
                FILE_THERE
            } else {
                FILE_GONE
            };
            self.1.store(seen, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_file_of_a_socket_is_removed_while_the_socket_lives() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("proxy.sock");
        let (socket, file) = unix::bind(&path, Access::default()).expect("a socket");
        let seen = Arc::new(AtomicU8::new(NOT_DROPPED));
        let witness = Arc::new(Witness(path.clone(), seen.clone()));
        let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(witness);
        let socket = Socket::Unix(socket);
        let mut listeners = Listeners::default();
        listeners.files.push(file);
        listeners.bound.push(Bound {
            endpoint: socket.endpoint(Scheme::Http).expect("an address"),
            socket,
            tls: Some(Arc::new(tls)),
            own_user: false,
        });
        assert!(path.exists(), "it is there as long as they are");
        drop(listeners);
        assert_eq!(seen.load(Ordering::Relaxed), FILE_GONE);
    }
}
