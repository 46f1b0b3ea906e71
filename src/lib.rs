//! An authenticating reverse proxy for Lucid's REST API.
//!
//! Clients send plain HTTP to it; it adds the `Authorization` header, forwards to `https://api.lucid.co`, keeps a
//! strictly rotating OAuth 2.0 grant alive after one login, and when upstream answers 401 it refreshes and sends the
//! same request once more.
//!
//! # Where a request goes
//!
//! A [`server`] worker accepts the connection and hands each request to [`proxy`], whose
//! [`forward`](proxy::Proxy) is the list of steps that it takes. Two of them meet the [`token`] room: asking for a
//! bearer, and reporting one that upstream rejected. A request stays on its worker's thread from its first byte to its
//! last.
//!
//! # Where a grant goes
//!
//! [`token::state`] decides, [`token::refresher`] acts: lock, read the store again, write the intent, ask the token
//! endpoint once, store the answer, publish it. It runs on a thread of its own and outlives every request.
//!
//! # Rooms
//!
//! Each uses those below it, never above.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the commands: one file each |
//! | [`sandbox`] | a stand-in for Lucid, for trying and testing without an account |
//! | [`server`] | sockets, TLS, workers, connections, the orderly end |
//! | [`proxy`] | the request path |
//! | [`intercept`] | what becomes of requests for other hosts, and the local certificate authority, by which programs that cannot be changed are served; what such programs are given |
//! | [`token`] | the grant |
//! | [`dial`] | connections to upstream and token endpoint |
//! | [`config`] | `proxy.toml` and the environment, checked |
//! | [`tls`], [`secret`], [`memory`], [`clock`], [`telemetry`] | what all of them stand on |
//!
//! # Inside another program
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use lucid_proxy::config::{Config, Need};
//! use lucid_proxy::server::Server;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let environment = BTreeMap::from([
//!     ("LUCID_CLIENT_ID".to_owned(), "…".to_owned()),
//!     ("LUCID_CLIENT_SECRET".to_owned(), "…".to_owned()),
//! ]);
//! let config = Config::parse(r#"listen = ["127.0.0.1:0"]"#, None, &environment, Need::Everything)?;
//! let server = Server::bind(&config)?;
//! let address = server.endpoints()[0].to_string();
//! let running = server.start()?;
//! println!("{address}");
//! assert!(running.shutdown(), "every part ended as it should");
//! # Ok(())
//! # }
//! ```
#![doc = include_str!("../docs/guarantees.md")]

pub mod cli;
pub mod clock;
pub mod config;
pub mod dial;
pub mod intercept;
pub mod memory;
pub mod proxy;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod token;
