//! Why there is no connection, and how far it came.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::race::Attempts;
use super::tunnel::{self, TunnelError};
use crate::config::{HttpProxy, Origin};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is to be a proxy, and it is not known which.
    #[error("the proxy to go through is not known: {0}")]
    UnknownProxy(String),
    /// The name is unknown.
    #[error("cannot find the address of {0}: {1}{advice}", advice = .0.advice())]
    LookUp(Peer, io::Error),
    /// The name stands for addresses alone that are not to be reached, as this one, for this reason.
    #[error("{host} stands for {1}, which is {2}; no tunnel leads to such an address", host = .0.host)]
    Prohibited(Origin, IpAddr, &'static str),
    /// Nobody answers there.
    #[error("cannot connect to {0}: {1}{advice}", advice = .0.advice())]
    Connect(Peer, Attempts),
    /// The TLS handshake failed.
    #[error("no trusted TLS connection to {0}: {1}")]
    Tls(Peer, io::Error),
    /// The proxy was reached, and leads no further.
    #[error(transparent)]
    Tunnel(TunnelError),
    /// It took too long, and this was under way.
    #[error("{step} within {1:?}{tried}", step = .0.step, tried = .0.tried())]
    TimedOut(Progress, Duration),
}

/// Whom a step is about.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Who is to be asked in the end.
    Server(Origin),
    /// The proxy before it.
    Proxy(Arc<HttpProxy>),
}

/// How far a connection has come.
#[derive(Debug)]
pub struct Progress {
    /// What it is waiting for.
    pub step: Step,
    /// The addresses that were tried last.
    pub attempts: Attempts,
}

/// What a connection is waiting for.
#[derive(Debug)]
pub enum Step {
    /// The addresses of a name.
    LookUp(Peer),
    /// One of them to accept.
    Connect(Peer),
    /// The proxy to open a tunnel to this server.
    Tunnel(Arc<HttpProxy>, Origin),
    /// The end of the TLS handshake.
    Tls(Peer),
}

impl Peer {
    /// Where it listens.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Server(origin) => origin,
            Self::Proxy(proxy) => &proxy.origin,
        }
    }

    /// What to do about a proxy that is not there; a server's address comes from elsewhere.
    fn advice(&self) -> String {
        match self {
            Self::Server(_) => String::new(),
            Self::Proxy(proxy) => format!("; check {} and the network", proxy.set_by),
        }
    }
}

impl Progress {
    pub(super) fn begin(peer: &Peer) -> Self {
        Self {
            step: Step::LookUp(peer.clone()),
            attempts: Attempts::default(),
        }
    }

    fn tried(&self) -> String {
        match self.step {
            Step::Connect(_) => format!(" ({})", self.attempts),
            Step::LookUp(_) | Step::Tunnel(..) | Step::Tls(_) => String::new(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(origin) => origin.fmt(f),
            Self::Proxy(proxy) => proxy.fmt(f),
        }
    }
}

impl fmt::Display for Step {
    /// What has not happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp(peer) => write!(f, "the address of {peer} was not found"),
            Self::Connect(peer) => write!(f, "{peer} did not accept a connection"),
            Self::Tunnel(proxy, target) => {
                let target = tunnel::authority(target);
                write!(f, "{proxy} did not open a tunnel to {target}")
            }
            Self::Tls(peer) => write!(f, "the TLS handshake with {peer} did not end"),
        }
    }
}
