//! Sockets that systemd made before it started the program (sd_listen_fds(3)).

use std::io;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::listener::Socket;
use crate::config::{Environment, ProcessEnvironment, is_activated};

/// Why a socket from systemd cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// There is none.
    #[error("systemd has passed none{}; is the program started by its socket unit?", named(.0.as_deref()))]
    None(Option<String>),
    /// It is of another kind.
    #[error("{0:?} is neither a TCP nor a streaming unix socket: set ListenStream= in its unit")]
    Kind(String),
    /// It is a connection.
    #[error("{0:?} is a connection and does not listen: leave Accept=yes out of its unit")]
    Connection(String),
    /// TLS is asked for where there is no need of it.
    #[error(
        "a unix socket is among it, which carries plain HTTP alone: leave certificate_file and key_file out of its entry in listen"
    )]
    Tls,
    /// Nothing in the configuration takes it, and whoever connects would wait for ever.
    #[error("systemd has passed {0:?} too: add \"systemd:{0}\" to listen")]
    Unclaimed(String),
    /// The system refused something else.
    #[error("the system refuses to use {0:?}")]
    System(String, #[source] io::Error),
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| {
        format!(" with FileDescriptorName={name}")
    })
}

/// The sockets that were passed and that nothing has taken yet.
pub(super) struct Passed {
    sockets: ListenFd,
    /// `None` where one was taken.
    names: Vec<Option<String>>,
}

impl Passed {
    /// Those of this process. They are there once: a second call finds none.
    pub(super) fn to_this_process() -> Self {
        let names = ProcessEnvironment.var("LISTEN_FDNAMES").unwrap_or_default();
        // That would also take what is said without LISTEN_PID, and so to whoever inherits it: its descriptors would be
        // this program's own.
        let sockets = match is_activated(&ProcessEnvironment) {
            true => ListenFd::from_env(),
            false => ListenFd::empty(),
        };
        // What has no name is called so by systemd too.
        let mut given = names.split(':').filter(|name| !name.is_empty());
        let name = |_| Some(given.next().unwrap_or("unknown").to_owned());
        let names = (0..sockets.len()).map(name).collect();
        Self { sockets, names }
    }

    /// Takes those of this name, or all that are left.
    pub(super) fn take(&mut self, name: Option<&str>) -> Result<Vec<Socket>, ActivationError> {
        let mut taken = Vec::new();
        for index in 0..self.names.len() {
            let wanted = |found: &String| name.is_none_or(|name| name == found);
            if let Some(found) = self.names[index].take_if(|found| wanted(found)) {
                taken.push(self.socket(index, found)?);
            }
        }
        if taken.is_empty() {
            return Err(ActivationError::None(name.map(str::to_owned)));
        }
        Ok(taken)
    }

    fn socket(&mut self, index: usize, name: String) -> Result<Socket, ActivationError> {
        let unix = self.sockets.take_unix_listener(index).ok().flatten();
        let mut tcp = || self.sockets.take_tcp_listener(index).ok().flatten();
        let socket = match unix.map(Socket::Unix).or_else(|| tcp().map(Socket::Tcp)) {
            Some(socket) => socket,
            None => return Err(ActivationError::Kind(name)),
        };
        let prepared = prepare(&socket);
        match prepared {
            Ok(true) => Ok(socket),
            Ok(false) => Err(ActivationError::Connection(name)),
            Err(error) => Err(ActivationError::System(name, error)),
        }
    }

    /// Whether all were taken.
    pub(super) fn finish(self) -> Result<(), ActivationError> {
        match self.names.into_iter().flatten().next() {
            Some(name) => Err(ActivationError::Unclaimed(name)),
            None => Ok(()),
        }
    }
}

/// Answers whether the socket listens.
fn prepare(socket: &Socket) -> io::Result<bool> {
    match socket {
        Socket::Tcp(tcp) => {
            tcp.set_nonblocking(true)?;
            Ok(socket_acceptconn(tcp)?)
        }
        Socket::Unix(unix) => {
            unix.set_nonblocking(true)?;
            Ok(socket_acceptconn(unix)?)
        }
    }
}
