//! From the entries of `listen` to listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;

use super::StartError;
use super::activation::{ActivationError, Passed};
use super::listener::{Endpoint, Socket};
use super::tls::Certificate;
use super::unix::{self, SocketFile};
use crate::config::{Address, Config, Listen, ProcessEnvironment, Scheme, is_activated};

/// Everything that listens.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub(super) bound: Vec<Bound>,
    /// Of all that speak TLS.
    pub(super) certificates: Vec<Arc<Certificate>>,
    /// Of the unix sockets; removed when they are dropped.
    pub(super) files: Vec<SocketFile>,
}

/// A listening socket and what is spoken there.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

impl Bound {
    /// Another handle on the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
        })
    }
}

/// Whether all addresses may be listened on (rule S1), and the certificates can be used.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    for listen in &config.listen {
        if let Address::Tcp(address) = &listen.address {
            check_exposure(config, *address)?;
        }
        if let Some(files) = &listen.tls {
            Certificate::load(files)?;
        }
    }
    Ok(())
}

/// Whoever reaches the proxy can use the token (rule S1).
fn check_exposure(config: &Config, address: SocketAddr) -> Result<(), StartError> {
    if address.ip().is_loopback() || config.guard.allow_unauthenticated {
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
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Bind { address, source })
}

impl Listeners {
    /// Adds the sockets of one entry; they share its certificate.
    fn add(&mut self, listen: &Listen, sockets: Vec<Socket>) -> Result<(), StartError> {
        let certificate = listen.tls.as_ref().map(Certificate::load).transpose()?;
        let tls = certificate
            .as_ref()
            .map(Certificate::server_config)
            .transpose()?;
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
            });
        }
        Ok(())
    }
}
