//! A stand-in for Lucid: its login, its token endpoint with strict rotation, and a few resources of its REST API.
//!
//! It is strict about what it receives (see [`Counts::problems`]), can be told to fail in every way that Lucid might
//! (see [`Behaviour`]), and counts what it was asked (see [`Counts`]). The integration tests are built on it, and so is
//! the command `lucid-proxy sandbox`, which needs neither an account nor a network.
//!
//! ```
//! use lucid_proxy::sandbox::{Behaviour, Sandbox};
//!
//! let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), Behaviour::default())?;
//! let pair = sandbox.approve();
//! println!("curl -H 'Authorization: Bearer {}' {}/v1/users/me/profile", pair.access_token, sandbox.origin());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it serves
//!
//! | path | what |
//! |---|---|
//! | `GET /oauth2/authorize`, `/oauth2/authorizeUser` | asks a person for access on behalf of a user; `prompt=none` grants it at once |
//! | `GET /oauth2/authorizeAccount` | the same on behalf of an account |
//! | `POST` to those | what the buttons `approve` and `deny` do: the same parameters as a form, and `decision` |
//! | `GET /oauth2/clients/cid-sandbox/redirect` | shows the code or the error in the element `code` |
//! | `POST /oauth2/token`, `…/introspect`, `…/revoke` | as at Lucid, JSON or form bodies; for refresh tokens and authorization codes |
//! | `GET /users/me/profile`, `GET /users` | one profile; seven users in pages |
//! | `/documents…` | search, create, import, get (JSON, PNG, JPEG), contents, trash |
//! | `POST /embeds/token`, `GET /embeds?token=` | the latter judges its own token, not the bearer |
//! | `ANY /sandbox/echo…` | the request as it arrived, as JSON (see below); needs a bearer token |
//! | `ANY /sandbox/mirror…` | the request body, sent back while it arrives; needs a bearer token |
//! | `GET /sandbox/counts` | [`Counts`] as JSON |
//! | `POST /sandbox/grants` | a fresh grant: [`Pair`] as JSON |
//! | `POST /sandbox/expire` | as [`Sandbox::expire_access_tokens`]; 204 |
//!
//! Each path may have the prefix `/v1`, except those under `/sandbox` and those of pages for people; API paths need the
//! prefix or the header `Lucid-Api-Version: 1`. Every response carries `X-Lucid-Flow-Id`; a response to an API request
//! whose body was read to its end carries `X-Sandbox-Body-Length` and `X-Sandbox-Body-Sha256`, so that a client can tell
//! whether its body arrived as it was sent.
//!
//! The authorize pages take the parameters of RFC 6749 and RFC 7636 and check them strictly. A request from an unknown client or with
//! a redirect URI that is not registered (see [`Behaviour::redirect_uris`]) gets a page with status 400; every other
//! error goes to the redirect URI. A `code_verifier` is required where there was a `code_challenge`, and nowhere else.
//!
//! The echo answers an object with `method`, `target` (as in the request line), `headers` (an array of pairs in the order
//! of arrival, the values read as ISO 8859-1, so that no byte is lost), `body_length` and `body_sha256`.

mod api;
mod authorize;
mod behaviour;
mod body;
mod code_exchange;
mod codes;
mod control;
mod counts;
mod documents;
mod grants;
mod image;
mod intake;
mod library;
mod pages;
mod paging;
mod pair;
mod parameters;
mod pkce;
mod problems;
mod redirects;
mod reply;
mod resources;
mod scopes;
mod server;
mod shared;
mod tap;
#[cfg(test)]
mod tests;
mod token_answer;
mod token_endpoint;
mod users;
mod verdict;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chrono::Utc;
use tokio::runtime;
use tokio::sync::oneshot;

pub use self::behaviour::{
    ApiFailure, Behaviour, ExpiresIn, LinkOrigin, Reuse, ScopesShape, Timing, TokenAnswer,
    TokenFailure, Unauthorized,
};
pub use self::counts::Counts;
pub use self::documents::EMBED_TOKEN;
pub use self::pair::{Owner, Pair};
use self::shared::Shared;

/// The only client that the stand-in knows.
pub const CLIENT_ID: &str = "cid-sandbox";
/// That client's secret. It guards nothing.
pub const CLIENT_SECRET: &str = "sec-sandbox";

/// A running stand-in, on a thread and a runtime of its own: usable from synchronous code and from any runtime.
/// Dropping it closes every connection and ends the thread.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    /// Dropping the sender is the signal to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts a stand-in. It accepts connections when this returns, and with port 0 the address is known by then.
    ///
    /// # Errors
    ///
    /// When `listen` cannot be bound, or the system grants no thread or event queue.
    pub fn start(listen: SocketAddr, behaviour: Behaviour) -> io::Result<Sandbox> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::new(listener.local_addr()?, behaviour));
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };

        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(String::from("sandbox"))
            .spawn(move || {
                // The runtime is dropped here, on its own thread, and every connection with it.
                runtime.block_on(server::run(listener, state, stopped));
            })?;
        Ok(Sandbox {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The base of its URLs, for example `http://127.0.0.1:40001`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.shared.authority)
    }

    /// A fresh grant, as a login would have given it: its first pair. It is the grant of the user
    /// [`Behaviour::user_id`], and can be refreshed whatever its scopes are.
    pub fn approve(&self) -> Pair {
        self.shared.approve()
    }

    /// Changes the behaviour, for requests that are waiting too.
    pub fn change(&self, edit: impl FnOnce(&mut Behaviour)) {
        self.shared.behaviour.send_modify(edit);
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.ledger.snapshot()
    }

    /// Blocks until `condition` holds over the counts, and returns those.
    ///
    /// The condition runs under the lock of the counts: it must not call back into the sandbox.
    ///
    /// # Panics
    ///
    /// With the counts in the message, when `limit` passes first.
    #[track_caller]
    pub fn wait_until(&self, limit: Duration, condition: impl Fn(&Counts) -> bool) -> Counts {
        match self.shared.ledger.wait(limit, condition) {
            Ok(counts) => counts,
            Err(counts) => panic!("still not so after {limit:?}: {counts:#?}"),
        }
    }

    /// Every living access token dies now; refresh tokens live on.
    pub fn expire_access_tokens(&self) {
        self.shared.grants().expire_access_tokens(Utc::now());
    }

    /// All tokens of all grants die, as when a user withdraws the approval.
    pub fn revoke_grants(&self) {
        self.shared.grants().revoke_all();
    }

    /// Blocks until the stand-in stops, which it does only if its thread dies: for a program that does nothing else.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was printed by its thread; a second one while this is dropped would abort the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.join();
    }
}
