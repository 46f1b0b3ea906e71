//! A person puts another record into the store: a login, an import, a logout (rules T18 and T19).
//!
//! Running proxies take it over by its generation, which is higher than any before.

use std::time::Duration;

use tokio::time::Instant;

use super::disk::Lock;
use super::record::Record;
use super::store::{Holder, Store, StoreError};
use super::succession::replacing;

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
        "{} holds the lock on {path}; it may be refreshing the token; try again, and if it hangs, end it",
        named(.holder.as_ref())
    )]
    Locked {
        /// The lock file.
        path: String,
        /// Who, if that is known.
        holder: Option<Holder>,
    },
    /// What is there is not to be replaced.
    #[error("{0}")]
    Declined(String),
}

fn named(holder: Option<&Holder>) -> String {
    holder.and_then(|holder| holder.process).map_or_else(
        || "another process".to_owned(),
        |number| format!("process {number}"),
    )
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
    let Some(_lock) = lock(store, Instant::now() + bound, || false).await? else {
        return Err(HandoverError::Locked {
            path: store.lock_path().display().to_string(),
            holder: store.lock_holder()?,
        });
    };
    let present = store.read()?;
    let record = make(present.as_ref()).map_err(HandoverError::Declined)?;
    let record = replacing(present.as_ref(), record);
    store.write(&record)?;
    Ok(record)
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
