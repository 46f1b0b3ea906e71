//! What the stand-in was asked, and waiting for it to be asked.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Problems beyond this many are not recorded: a load test against a broken proxy must not fill the memory.
const MOST_PROBLEMS: usize = 1000;

/// What the stand-in has seen since its start. `GET /sandbox/counts` answers it as a JSON object with these field names;
/// the maps become objects, their numeric keys strings.
///
/// An *API request* is any request but those to `/oauth2/…`, to `/sandbox/counts`, `/sandbox/grants` and
/// `/sandbox/expire`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// POSTs to the token endpoint that arrived, body read, whatever became of them: refreshes, and what is too mangled
    /// to tell. Code exchanges are not among them, nor in any other count of token POSTs: see `code_posts`.
    pub token_posts: u64,
    /// Rotations that took effect.
    pub rotations: u64,
    /// Rotations that took effect while API requests were in flight.
    pub rotations_amid_requests: u64,
    /// Token POSTs refused on their merits: bad client, bad refresh token, malformed. Scripted failures are not counted.
    pub refused_token_posts: u64,
    /// Token POSTs on a connection that had carried a request before.
    pub token_posts_on_used_connections: u64,
    /// Token POSTs for each refresh token, by its value.
    pub posts_by_refresh_token: BTreeMap<String, u64>,
    /// Token POSTs of a refresh token that was spent by then.
    pub reused_refresh_tokens: u64,
    /// Approval pages shown, at any of the authorize paths.
    pub authorize_pages: u64,
    /// Approvals that led to a code: the page's button, or `prompt=none`.
    pub approvals: u64,
    /// Denials on the page.
    pub denials: u64,
    /// Code exchanges that arrived at the token endpoint, body read, whatever became of them.
    pub code_posts: u64,
    /// Code exchanges that took effect: each made a grant.
    pub code_exchanges: u64,
    /// Code exchanges refused on their merits: bad client, bad code, bad verifier, malformed. Scripted failures are not
    /// counted.
    pub refused_code_exchanges: u64,
    /// Introspection requests that arrived.
    pub introspections: u64,
    /// Revocation requests that arrived.
    pub revocations: u64,
    /// Revocation requests that took effect: with them a grant ended that had lived until then.
    pub effective_revocations: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are open now.
    pub open_connections: u64,
    /// Connections on which at least one token POST arrived.
    pub token_connections: u64,
    /// API requests whose head arrived.
    pub api_requests: u64,
    /// API answers by status, counted when the head of the answer is ready.
    pub api_by_status: BTreeMap<u16, u64>,
    /// API requests by the generation of the pair whose access token they carried, living or dead. The generation is
    /// the ordinal of the pair within its grant; the first is 1. With the API key it is 0.
    pub api_by_generation: BTreeMap<u64, u64>,
    /// API requests whose access token was expired, spent or revoked.
    pub dead_tokens: u64,
    /// API requests whose token was never issued as an access token.
    pub unknown_tokens: u64,
    /// API requests without a bearer token.
    pub missing_tokens: u64,
    /// Bytes of API request bodies received so far, framing excluded; grows while a body arrives.
    pub request_body_bytes: u64,
    /// API requests whose body ended early.
    pub incomplete_requests: u64,
    /// API requests in flight now: from their head's arrival to the last byte of the answer handed to the connection.
    pub in_flight: u64,
    /// The most API requests that were ever in flight at once.
    pub max_in_flight: u64,
    /// What a correct proxy would never send: method, path and header or parameter, never a token. At most 1000.
    pub problems: Vec<String>,
}

/// The counts behind a lock, and the threads that wait for them to change.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Book {
    counts: Counts,
    /// How many threads wait. Waking nobody would still cost a system call for every request.
    waiters: usize,
}

impl Ledger {
    /// Changes the counts and wakes those who wait for a change.
    pub(super) fn update<T>(&self, edit: impl FnOnce(&mut Counts) -> T) -> T {
        let mut book = self.lock();
        let value = edit(&mut book.counts);
        if book.waiters > 0 {
            self.changed.notify_all();
        }
        value
    }

    /// Records something that a correct proxy would never send.
    pub(super) fn problem(&self, text: String) {
        self.update(|counts| {
            if counts.problems.len() < MOST_PROBLEMS {
                counts.problems.push(text);
            }
        });
    }

    /// The counts at this moment.
    pub(super) fn snapshot(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Blocks until `condition` holds; the counts that satisfied it, or those of the moment when `limit` passed.
    pub(super) fn wait(
        &self,
        limit: Duration,
        condition: impl Fn(&Counts) -> bool,
    ) -> Result<Counts, Box<Counts>> {
        let start = Instant::now();
        let mut book = self.lock();
        loop {
            if condition(&book.counts) {
                return Ok(book.counts.clone());
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Box::new(book.counts.clone()));
            }
            book.waiters += 1;
            book = self
                .changed
                .wait_timeout(book, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            book.waiters -= 1;
        }
    }

    /// The lock is held for plain arithmetic only; if a caller's condition panics under it, the counts are still whole.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_change_that_satisfies_it() {
        let ledger = Ledger::default();
        let seen = std::thread::scope(|threads| {
            let waiter = threads
                .spawn(|| ledger.wait(Duration::from_secs(10), |counts| counts.rotations == 2));
            ledger.update(|counts| counts.rotations += 1);
            ledger.update(|counts| counts.rotations += 1);
            waiter.join().expect("the condition does not panic")
        });
        assert_eq!(seen.expect("the condition came true").rotations, 2);
    }

    #[test]
    fn waiting_in_vain_tells_what_was_there() {
        let ledger = Ledger::default();
        ledger.update(|counts| counts.connections = 7);
        let seen = ledger.wait(Duration::from_millis(1), |_| false);
        assert_eq!(seen.expect_err("the condition never holds").connections, 7);
    }

    #[test]
    fn problems_are_bounded() {
        let ledger = Ledger::default();
        for number in 0..2 * MOST_PROBLEMS {
            ledger.problem(format!("problem {number}"));
        }
        assert_eq!(ledger.snapshot().problems.len(), MOST_PROBLEMS);
    }
}
