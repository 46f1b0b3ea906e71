//! What all connections share, and the ways to wait for a change of behaviour.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::watch;

use super::behaviour::{ApiFailure, Behaviour, TokenFailure};
use super::codes::Codes;
use super::counts::Ledger;
use super::grants::{Bearer, Grants, Terms};
use super::image::ImageCache;
use super::library::Library;
use super::pair::{Owner, Pair};

/// The state of one stand-in. Each part has a lock of its own, held for a few lines and never across an await.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    /// The address as it is written in a `Host` header.
    pub(super) authority: String,
    pub(super) behaviour: watch::Sender<Behaviour>,
    pub(super) ledger: Ledger,
    pub(super) images: ImageCache,
    grants: Mutex<Grants>,
    codes: Mutex<Codes>,
    library: Mutex<Library>,
}

impl Shared {
    pub(super) fn new(address: SocketAddr, behaviour: Behaviour) -> Shared {
        Shared {
            address,
            authority: address.to_string(),
            behaviour: watch::Sender::new(behaviour),
            ledger: Ledger::default(),
            images: ImageCache::default(),
            grants: Mutex::default(),
            codes: Mutex::default(),
            library: Mutex::default(),
        }
    }

    /// The stand-in's name for itself: what tests configured, else its address.
    pub(super) fn public_origin(&self) -> String {
        let configured = self.behaviour.borrow().public_origin.clone();
        configured.unwrap_or_else(|| format!("http://{}", self.authority))
    }

    /// All grants. No code that runs under this lock can panic halfway through a change.
    pub(super) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All authorization codes; the same holds. Taken before the grants where both are.
    pub(super) fn codes(&self) -> MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All documents; the same holds.
    pub(super) fn library(&self) -> MutexGuard<'_, Library> {
        self.library.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The terms on which the next pair is issued.
    pub(super) fn terms(&self) -> Terms {
        let behaviour = self.behaviour.borrow();
        Terms {
            access_lifetime: behaviour.access_lifetime,
            refresh_lifetime: behaviour.refresh_lifetime,
            token_length: behaviour.token_length,
        }
    }

    /// A fresh grant.
    pub(super) fn approve(&self) -> Pair {
        let terms = self.terms();
        let (scopes, owner) = {
            let behaviour = self.behaviour.borrow();
            (behaviour.scopes.clone(), Owner::User(behaviour.user_id))
        };
        self.grants().approve(scopes, owner, terms, Utc::now())
    }

    /// What the API key stands for, if that is what `token` is.
    pub(super) fn bearer_of_key(&self, token: &str) -> Option<Bearer> {
        let behaviour = self.behaviour.borrow();
        let is_key = behaviour.api_key.as_deref() == Some(token);
        is_key.then(|| Bearer {
            generation: 0,
            scopes: behaviour.scopes.clone().into(),
            owner: Owner::User(behaviour.user_id),
        })
    }

    /// Waits until the behaviour lets pass.
    pub(super) async fn gate(&self, mut open: impl FnMut(&Behaviour) -> bool) {
        if open(&self.behaviour.borrow()) {
            return;
        }
        // An error would mean that the sender is gone, but it is part of `self`.
        let _ = self.behaviour.subscribe().wait_for(open).await;
    }

    /// Waits as long as the behaviour says at any moment of the wait.
    pub(super) async fn pause(&self, length: impl Fn(&Behaviour) -> Duration) {
        if length(&self.behaviour.borrow()).is_zero() {
            return;
        }
        let start = Instant::now();
        let mut changes = self.behaviour.subscribe();
        loop {
            let left = length(&changes.borrow_and_update()).saturating_sub(start.elapsed());
            if left.is_zero() || tokio::time::timeout(left, changes.changed()).await.is_err() {
                return;
            }
        }
    }

    /// The script's next entry for a token POST, taken off it.
    pub(super) fn take_token_failure(&self) -> Option<TokenFailure> {
        self.take(|behaviour| behaviour.token_failures.pop_front())
    }

    /// The script's next entry for an API request, taken off it.
    pub(super) fn take_api_failure(&self) -> Option<ApiFailure> {
        // Looking is cheaper than taking, and this happens on every request.
        if self.behaviour.borrow().api_failures.is_empty() {
            return None;
        }
        self.take(|behaviour| behaviour.api_failures.pop_front())
    }

    fn take<T>(&self, take: impl FnOnce(&mut Behaviour) -> Option<T>) -> Option<T> {
        let mut taken = None;
        self.behaviour.send_if_modified(|behaviour| {
            taken = take(behaviour);
            // Nobody waits for the script to get shorter.
            false
        });
        taken
    }
}

/// Counts one API request as in flight while it lives.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(super) fn enter(shared: &Arc<Shared>) -> InFlight {
        shared.ledger.update(|counts| {
            counts.api_requests += 1;
            counts.in_flight += 1;
            counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        });
        InFlight(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.ledger.update(|counts| counts.in_flight -= 1);
    }
}
