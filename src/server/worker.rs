//! One worker: a thread, a runtime, its own accept on the shared sockets, its own connections to upstream.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::Bound;
use super::connection::{self, Bounds, Entrance};
use super::intercepted::Interception;
use super::limits::Limits;
use super::listener::{Accepted, Endpoint, Listener};
use super::owner;
use crate::config;
use crate::proxy::guard::Guard;
use crate::proxy::reply;
use crate::proxy::{Proxy, Settings};

/// How long to wait after an accept that failed for want of something: descriptors or memory come back only when
/// connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client for which there is no room may take to hear so.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a worker is made from.
pub(super) struct Worker {
    pub(super) bound: Vec<Bound>,
    pub(super) settings: Settings,
    pub(super) guard: config::Guard,
    pub(super) interception: Option<Arc<Interception>>,
    pub(super) bounds: Bounds,
    pub(super) limits: Arc<Limits>,
    pub(super) drain: Duration,
    /// Told when all workers have what they need: a crowd that waits already could take the last descriptors away from
    /// those that start later.
    pub(super) go: CancellationToken,
    pub(super) stop: CancellationToken,
    /// Told when what is still under way is not to be waited for.
    pub(super) cut: CancellationToken,
}

impl Worker {
    /// Starts the thread. `died` is cancelled when it ends.
    pub(super) fn start(self, index: usize, died: CancellationToken) -> io::Result<JoinHandle<()>> {
        let died = died.drop_guard();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("lucid-worker-{index}"))
            .spawn(move || {
                let _died = died;
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())
                {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                // A receiver that is gone means that the start was given up.
                let _ = ready.send(Ok(()));
                runtime.block_on(self.run());
                // A name being looked up by the system cannot be interrupted and is not waited for.
                runtime.shutdown_background();
            })?;
        started
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the worker ended at its start")))?;
        Ok(thread)
    }

    async fn run(self) {
        tokio::select! {
            () = self.go.cancelled() => {}
            // The start was given up.
            () = self.stop.cancelled() => return,
        }
        let connections = TaskTracker::new();
        let proxy = Rc::new(Proxy::new(self.settings, connections.clone()));
        for bound in self.bound {
            let mut guard = guard(&bound.endpoint, &self.guard);
            if let Some(interception) = &self.interception {
                guard = guard.with_forwarding(match bound.own_user {
                    true => Arc::new(interception.forwarding().of_own_user()),
                    false => interception.forwarding(),
                });
            }
            let entrance = Entrance {
                proxy: proxy.clone(),
                guard,
                tls: bound.tls.map(TlsAcceptor::from),
                interception: self.interception.clone(),
                own_user: bound.own_user,
                bounds: self.bounds,
                limits: self.limits.clone(),
                tasks: connections.clone(),
                stop: self.stop.clone(),
            };
            match Listener::new(bound.socket) {
                Ok(listener) => {
                    connections.spawn_local(accept(listener, Rc::new(entrance)));
                }
                Err(error) => {
                    tracing::error!("cannot serve a listening socket: {error}");
                    return;
                }
            }
        }
        let drained = async {
            self.stop.cancelled().await;
            connections.close();
            tokio::select! {
                drained = tokio::time::timeout(self.drain, connections.wait()) => drained,
                () = self.cut.cancelled() => Ok(()),
            }
        };
        let drained = tokio::select! {
            drained = drained => drained,
            () = proxy.sweep() => return,
        };
        if drained.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests were still under way after {:?} (timeouts.drain) and are cut",
                self.drain
            );
        }
    }
}

/// By which names a listening socket may be asked, and by which pages.
fn guard(endpoint: &Endpoint, guard: &config::Guard) -> Guard {
    let names = match endpoint {
        Endpoint::Tcp { scheme, address } => Guard::tcp(*scheme, *address, &guard.allow_hosts),
        Endpoint::Unix(_) => Guard::unix(&guard.allow_hosts),
    };
    names.with_pages_of(&guard.allow_origins)
}

/// Accepts on one listening socket until told to stop.
async fn accept(listener: Listener, entrance: Rc<Entrance>) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = entrance.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                failing = false;
                take(accepted, &entrance);
            }
            // The client has left the queue; the next one may be there.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!(
                        "cannot accept connections for now: {error}; open connections go on"
                    );
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Has a connection served, or refused where there is no room for it.
fn take(accepted: Accepted, entrance: &Rc<Entrance>) {
    let full = match entrance.limits.admit(accepted.peer()) {
        Ok(place) => {
            let at = entrance.of(&accepted);
            match entrance.own_user {
                false => entrance
                    .tasks
                    .spawn_local(connection::serve(accepted, place, at)),
                true => entrance.tasks.spawn_local(async move {
                    if owner::is_own(&accepted, &at).await {
                        connection::serve(accepted, place, at).await;
                    }
                }),
            };
            return;
        }
        Err(full) => full,
    };
    entrance.limits.say_full(full);
    // Where TLS is spoken, nothing can be said before it is.
    if entrance.tls.is_some() {
        return;
    }
    if let Some(telling) = entrance.limits.tell() {
        let stop = entrance.stop.clone();
        entrance.tasks.spawn_local(async move {
            let answer = reply::unasked(full.into());
            // However it ends: nothing follows.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(FAREWELL, accepted.part(&answer)) => {}
            }
            drop(telling);
        });
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
