//! Whether a connection is of this user, on a listener that is for no other.
//!
//! The system tells it in a list of all connections of the machine, which is long where there are many and is read on
//! another thread: what a worker does meanwhile is not to wait for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::connection::Entrance;
use super::listener::Accepted;
use crate::intercept::own_user;

/// Lists that are read at the same time, by all workers: whoever opens connections by the hundred gets no more threads.
static READING: Semaphore = Semaphore::const_new(2);

/// How often each of these is said: standard error may be a program's, and anybody on the machine can cause it.
const SAY_EVERY: Duration = Duration::from_secs(60);
static STRANGER_SAID: Said = Said(Mutex::new(None));
static UNTOLD_SAID: Said = Said(Mutex::new(None));

/// Whether it is, which is found out within the time for a handshake. What it is where not is said here.
pub(super) async fn is_own(accepted: &Accepted, entrance: &Entrance) -> bool {
    let ends = match accepted.ends() {
        Some(ends) => ends,
        // The file of a unix socket is this user's.
        None => return true,
    };
    let told = async { look(ends?).await };
    let told = tokio::select! {
        told = tokio::time::timeout(entrance.bounds.handshake, told) => told,
        () = entrance.stop.cancelled() => return false,
    };
    match told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(true) => return true,
        Ok(false) => {
            if STRANGER_SAID.is_due() {
                tracing::warn!("a connection of another user was closed");
            }
        }
        Err(error) => {
            if UNTOLD_SAID.is_due() {
                tracing::warn!(
                    "a connection was closed, since the system does not tell in /proc/net/tcp whose it is: {error}; programs that come without a key (Java, and all that ask LUCID_BASE_URL) find no way here"
                );
            }
        }
    }
    false
}

async fn look((peer, local): (SocketAddr, SocketAddr)) -> io::Result<bool> {
    let _turn = READING.acquire().await.map_err(io::Error::other)?;
    tokio::task::spawn_blocking(move || own_user::is_own(peer, local)).await?
}

/// When something was last said.
struct Said(Mutex<Option<Instant>>);

impl Said {
    fn is_due(&self) -> bool {
        // Whoever has it says it.
        let Ok(mut last) = self.0.try_lock() else {
            return false;
        };
        let is_due = last.is_none_or(|last| last.elapsed() >= SAY_EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
