//! A person puts another record into the store: a login, an import, a logout (rules T18 and T19).
//!
//! Running proxies take it over by its generation, which is higher than any before.

use std::time::Duration;

use tokio::time::Instant;

use super::disk::Lock;
use super::record::Record;
use super::store::{Holder, Store, StoreError};
use super::succession::replacing;

/// How long a store that is gone may take to come back: longer than a running proxy takes to notice.
const PUT_BACK: Duration = Duration::from_millis(1500);
/// How often a lock that another process holds is tried.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(50);

/// Why nothing was put into the store.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The store cannot be read, written or locked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process held the lock all the time.
    #[error(
        "{holder} holds the lock on {path}; it may be refreshing the token; try again, and if it hangs, end it"
    )]
    Locked {
        /// The lock file.
        path: String,
        /// Who.
        holder: Holder,
    },
    /// What is there is not to be replaced.
    #[error("{0}")]
    Declined(String),
}

/// A store while its lock is ours: nobody else changes it or uses its refresh token.
#[derive(Debug)]
pub struct Turn<'a> {
    store: &'a Store,
    present: Option<Record>,
    _lock: Lock,
}

impl<'a> Turn<'a> {
    /// Takes the lock and reads the store.
    ///
    /// # Errors
    ///
    /// When another process holds the lock for longer than `bound`, or the store is unusable.
    pub async fn take(store: &'a Store, bound: Duration) -> Result<Self, HandoverError> {
        let turn = Self::take_at_once(store, bound).await?;
        if turn.present.is_some() || !store.is_in_use()? {
            return Ok(turn);
        }
        // Perhaps the file was removed a moment ago: whoever has the pair puts it back, and this one must count from there.
        drop(turn);
        tokio::time::sleep(PUT_BACK).await;
        Self::take_at_once(store, bound).await
    }

    async fn take_at_once(store: &'a Store, bound: Duration) -> Result<Self, HandoverError> {
        let Some(lock) = lock(store, Instant::now() + bound, || false).await? else {
            return Err(HandoverError::Locked {
                path: store.lock_path().display().to_string(),
                holder: store.lock_holder()?.unwrap_or_default(),
            });
        };
        Ok(Self {
            store,
            present: store.read()?,
            _lock: lock,
        })
    }

    /// What is in the store.
    pub fn present(&self) -> Option<&Record> {
        self.present.as_ref()
    }

    /// Puts a record into its place, durably, with a higher generation. Returns what was stored.
    ///
    /// # Errors
    ///
    /// When it cannot be written. Then nothing has changed.
    pub fn put(self, record: Record) -> Result<Record, HandoverError> {
        let record = replacing(self.present.as_ref(), record);
        self.store.write(&record)?;
        Ok(record)
    }
}

/// Puts a record into the store, durably, in the place of what is there; `make` is given that, under the lock, and
/// makes the new one or says why not. Returns what was stored.
///
/// # Errors
///
/// When another process holds the lock for longer than `bound`, the store is unusable, or `make` declines. Then nothing
/// has changed.
pub async fn put(
    store: &Store,
    bound: Duration,
    make: impl FnOnce(Option<&Record>) -> Result<Record, String>,
) -> Result<Record, HandoverError> {
    let turn = Turn::take(store, bound).await?;
    let record = make(turn.present()).map_err(HandoverError::Declined)?;
    turn.put(record)
}

/// Takes the lock as soon as nobody else holds it; `Ok(None)` when somebody did until the deadline, or `give_up` says so.
pub(super) async fn lock(
    store: &Store,
    deadline: Instant,
    give_up: impl Fn() -> bool,
) -> Result<Option<Lock>, StoreError> {
    loop {
        if let Some(lock) = store.try_lock()? {
            return Ok(Some(lock));
        }
        if Instant::now() >= deadline || give_up() {
            return Ok(None);
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}
