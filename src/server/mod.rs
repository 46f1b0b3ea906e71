//! The listening side: sockets, workers, connections, and an orderly end.
//!
//! One worker per core, each a thread with a runtime and connections to upstream of its own; a request never changes
//! threads. What is not a request, the rotation of the grant above all, runs on one more thread, so that neither waits
//! for the other.
//!
//! Clients come over TCP, over TLS or through a unix socket, made here or passed by systemd, and speak HTTP/1 or, where
//! TLS agrees on it, HTTP/2. All of it ends in one `serve` of `connection`, which watches over idle and silent clients
//! whatever they speak; what a request is and what becomes of it is the [proxy](crate::proxy)'s. That a request of HTTP/1 is
//! framed in one way only is seen in the bytes (`framing`), before the library that reads it has settled for one. A tunnel
//! to a host that is intercepted is another such connection inside of the first (`intercepted`).
//!
//! How many connections and requests there may be is counted over all workers (`limits`), and is no more than there are
//! files for (`files`).
//!
//! [`Server::bind`] takes the addresses, [`Server::start`] begins to serve, [`Running::shutdown`] ends it: workers finish
//! what is under way, then the refresher finishes its rotation.

mod activation;
mod bind;
mod connection;
mod files;
mod framing;
mod handle;
mod http2;
mod intercepted;
mod limits;
mod listener;
mod owner;
mod patience;
mod rewound;
mod socket;
mod stream;
mod tls;
mod unix;
mod worker;
mod written_out;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::{Address, Config};
use crate::intercept::AuthorityError;
use crate::proxy::Settings;
use crate::tls::TlsError;
use crate::token::refresher::{self, OpenError, Refresher};
pub use activation::ActivationError;
use bind::{Bound, Listeners};
use connection::Bounds;
use intercepted::Interception;
use limits::Limits;
pub use listener::Endpoint;
use tls::Certificate;
pub use tls::CertificateError;
pub use unix::SocketError;
use unix::SocketFile;
use worker::Worker;

/// Addresses that are taken and a grant that was read: all that can fail at the start has not.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    endpoints: Vec<Endpoint>,
    config: Config,
    settings: Settings,
    interception: Option<Arc<Interception>>,
    /// `None` where there is nothing to refresh.
    refresher: Option<Refresher>,
}

/// A server at work. Dropped without [`Running::shutdown`], it is told to stop and not waited for.
#[derive(Debug)]
pub struct Running {
    workers: Vec<JoinHandle<()>>,
    background: Option<JoinHandle<()>>,
    socket_files: Vec<SocketFile>,
    stop: CancellationToken,
    stop_background: CancellationToken,
    died: CancellationToken,
    cut: CancellationToken,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Everybody who reaches the address could use the token.
    #[error(
        "listen: {0} can be reached from other machines, and whoever reaches it could use your token; give each client a key (lucid-proxy key new NAME), listen on 127.0.0.1, or set allow_unauthenticated = true under [guard] if the network lets in only whom you trust"
    )]
    Exposed(SocketAddr),
    /// The system refused the address.
    #[error("cannot listen on {address}: {}", bind_hint(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There can be no unix socket.
    #[error("cannot listen on unix:{}", .0.display())]
    Unix(PathBuf, #[source] SocketError),
    /// There is no such socket from systemd.
    #[error("cannot listen on what systemd passes")]
    Activation(#[from] ActivationError),
    /// A listener has no usable certificate.
    #[error("listen: cannot speak TLS on {0}")]
    Certificate(Address, #[source] Box<CertificateError>),
    /// There is no usable grant.
    #[error(transparent)]
    Grant(#[from] OpenError),
    /// There is no usable upstream.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody can vouch for the hosts that are intercepted.
    #[error("[intercept] cannot be enabled")]
    Authority(#[from] AuthorityError),
    /// The system refused a thread or a runtime.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port, perhaps another lucid-proxy; stop it, or choose another port with --listen (port 0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for privileged programs; choose another with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "the system refused it",
    }
}

impl StartError {
    /// Whether a file was there and is not this user's to read: the one who serves may have better luck.
    pub fn is_for_want_of_rights(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        matches!(self, Self::Certificate(_, error)
            if matches!(&**error, CertificateError::Unreadable(_, error) if denied(error)))
    }
}

impl Server {
    /// Takes the configured addresses, reads the store and prepares to reach upstream. Clients that connect from now
    /// on wait until [`Server::start`].
    ///
    /// # Errors
    ///
    /// When an address cannot be had or would let strangers in (rule S1), a certificate is unusable, or the store is.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let listeners = bind::bind(config)?;
        let endpoints = listeners.bound.iter().map(|bound| bound.endpoint.clone());
        let endpoints = endpoints.collect();
        let clock = Arc::new(SystemClock);
        let (grant, refresher) = refresher::open(&config.credential, config.timeouts.token, clock)?;
        let settings = Settings::new(config, grant)?;
        let interception = Interception::open(&config.intercept)?;
        Ok(Self {
            listeners,
            endpoints,
            config: config.clone(),
            settings,
            interception,
            refresher,
        })
    }

    /// Whether the configured addresses may be listened on, as far as that can be told without listening: nobody but
    /// whom they are for can reach them (rule S1), and their certificates can be used.
    ///
    /// # Errors
    ///
    /// When others could use the token through one of them, or a certificate is unusable.
    pub fn check(config: &Config) -> Result<(), StartError> {
        bind::check(config)
    }

    /// Where clients reach the server, with real ports, in the order of the configuration.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What a person has to do before any request can be answered; `None` where nothing.
    pub fn login_needed(&self) -> Option<String> {
        self.refresher.as_ref().and_then(Refresher::login_needed)
    }

    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or what a thread needs.
    pub fn start(self) -> Result<Running, StartError> {
        let Self {
            listeners,
            config,
            settings,
            interception,
            refresher,
            ..
        } = self;
        let (stop, stop_background, died, cut) = Default::default();
        // Dropped in the opposite order where the start fails: the files while the sockets live.
        let Listeners {
            bound,
            certificates,
            files,
        } = listeners;
        let background =
            start_background(refresher, certificates, &config, &stop_background, &died)?;
        let mut running = Running {
            workers: Vec::new(),
            background: Some(background),
            socket_files: files,
            stop,
            stop_background,
            died,
            cut,
        };
        let bounds = Bounds {
            handshake: config.timeouts.handshake,
            first_request: config.timeouts.first_request,
            idle: config.timeouts.idle,
            body: config.timeouts.body,
            linger: config.timeouts.linger,
        };
        let limits = Limits::new(&config.limits, config.workers, bound.len());
        let go = CancellationToken::new();
        for index in 0..config.workers {
            let bound = bound.iter().map(Bound::try_clone);
            let worker = Worker {
                bound: bound
                    .collect::<Result<_, _>>()
                    .map_err(StartError::Worker)?,
                settings: settings.clone(),
                guard: config.guard.clone(),
                interception: interception.clone(),
                bounds,
                limits: limits.clone(),
                drain: config.timeouts.drain,
                go: go.clone(),
                stop: running.stop.child_token(),
                cut: running.cut.clone(),
            };
            running.workers.push(
                worker
                    .start(index, running.died.clone())
                    .map_err(StartError::Worker)?,
            );
        }
        go.cancel();
        Ok(running)
    }
}

/// The thread for everything that is not a request.
fn start_background(
    refresher: Option<Refresher>,
    certificates: Vec<Arc<Certificate>>,
    config: &Config,
    stop: &CancellationToken,
    died: &CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Worker)?;
    let (stop, died, drain) = (
        stop.clone(),
        died.clone().drop_guard(),
        config.timeouts.drain,
    );
    std::thread::Builder::new()
        .name("lucid-refresher".to_owned())
        .spawn(move || {
            let _died = died;
            runtime.block_on(async {
                let refreshed = async {
                    match refresher {
                        Some(refresher) => refresher.run(stop, drain).await,
                        None => stop.cancelled().await,
                    }
                };
                tokio::select! {
                    () = refreshed => {}
                    () = tls::keep_fresh(certificates) => {}
                }
            });
            // A look at files that hang cannot be interrupted and is not waited for.
            runtime.shutdown_background();
        })
        .map_err(StartError::Worker)
}

impl Running {
    /// Waits until a part of the server ends by itself, which only a defect in it can cause.
    pub async fn died(&self) {
        self.died.cancelled().await;
    }

    /// What has [`Running::shutdown`] wait for requests no longer, when it is cancelled. A rotation under way is waited for
    /// all the same.
    #[must_use]
    pub fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Removes the files of unix sockets, stops accepting, waits for requests under way as long as `timeouts.drain` allows, then for a rotation under way.
    ///
    /// Returns whether every part ended as it should.
    #[must_use = "whether every part ended as it should"]
    pub fn shutdown(mut self) -> bool {
        // While the sockets live, so that no file of another process can be taken for theirs.
        self.socket_files.clear();
        self.stop.cancel();
        let mut orderly = true;
        for worker in std::mem::take(&mut self.workers) {
            orderly &= worker.join().is_ok();
        }
        self.stop_background.cancel();
        orderly
            & self
                .background
                .take()
                .is_none_or(|background| background.join().is_ok())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.socket_files.clear();
        self.stop.cancel();
        self.stop_background.cancel();
    }
}
