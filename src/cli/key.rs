//! `lucid-proxy key`: keys for the clients of a proxy (rule S4).

use std::io::{IsTerminal, Write};

use anyhow::Context;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::{Failure, NoConfig, print};
use crate::config::{CLIENT_NAME, KEY_PREFIX, KeyHash, is_client_name};
use crate::secret::Zeroizing;

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    config: NoConfig,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key: the key on standard output, what belongs into proxy.toml on standard error. Nothing
    /// is stored
    New {
        /// How the client is called in proxy.toml and in the log
        name: String,
        #[command(flatten)]
        config: NoConfig,
    },
}

pub(super) fn run(options: Options) -> Result<(), Failure> {
    options.config.refuse("key")?;
    let Command::New { name, config } = options.command;
    config.refuse("key")?;
    if !is_client_name(&name) {
        // It may be a key, and is not repeated.
        let message = format!("expected a name of {CLIENT_NAME}, which is no key");
        return Err(Failure {
            code: 2,
            error: anyhow::Error::msg(message),
        });
    }
    let key = new_key()?;
    let about = about(&name, KeyHash::of(key.as_bytes()));
    // First what says where it belongs: on a terminal the key stands last.
    if std::io::stdout().is_terminal() {
        let _ = writeln!(std::io::stderr(), "{about}");
        return print(&key);
    }
    print(&key)?;
    let _ = writeln!(std::io::stderr(), "{about}");
    Ok(())
}

/// 32 random bytes (RFC 4648 section 5).
pub(super) fn new_key() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).context("the system gave no random bytes")?;
    let mut key = Zeroizing::new(String::with_capacity(64));
    key.push_str(KEY_PREFIX);
    URL_SAFE_NO_PAD.encode_string(*bytes, &mut key);
    Ok(key)
}

fn about(name: &str, hash: KeyHash) -> String {
    let hash = hash.to_hex();
    let last = match std::io::stdout().is_terminal() {
        true => "this is the KEY, shown once and stored nowhere:\n",
        false => "the KEY went to standard output, and is stored nowhere else",
    };
    format!(
        "for proxy.toml:

[clients.{name}]
key_sha256 = \"{hash}\"

the client sends with each request: Authorization: Bearer KEY
or, where it has something else there: Proxy-Authorization: Bearer KEY
(http://{name}:KEY@ADDRESS is accepted as its HTTP proxy, with http://ADDRESS as its base URL, but not as the base URL)
{last}"
    )
}
