//! `lucid-proxy key`: keys for the clients of a proxy (rule S4).

use std::io::Write;

use anyhow::Context;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;

use super::{Failure, print};
use crate::config::{CLIENT_NAME, KeyHash, is_client_name};
use crate::secret::Zeroizing;

/// What keys begin with, so that a search for what was published by mistake finds them.
const PREFIX: &str = "lpk_";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key: the key on standard output, what belongs into proxy.toml on standard error. Nothing
    /// is stored
    New {
        /// How the client is called in proxy.toml and in the log
        #[arg(value_parser = client_name)]
        name: String,
    },
}

fn client_name(name: &str) -> Result<String, String> {
    match is_client_name(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("expected a name of {CLIENT_NAME}")),
    }
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::New { name } = command;
    let key = new_key()?;
    // First what says where it belongs: on a terminal the key stands last.
    let about = about(&name, KeyHash::of(key.as_bytes()));
    let _ = writeln!(std::io::stderr(), "{about}");
    print(&key)
}

/// 32 random bytes (RFC 4648 section 5).
fn new_key() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).context("the system gave no random bytes")?;
    let mut key = Zeroizing::new(String::with_capacity(64));
    key.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(*bytes, &mut key);
    Ok(key)
}

fn about(name: &str, hash: KeyHash) -> String {
    format!(
        "for proxy.toml:\n\n[clients.{name}]\nkey_sha256 = \"{}\"\n\nthe client sends with each request: Authorization: Bearer KEY\nor, as the login of a proxy: http://{name}:KEY@ADDRESS\nthis is the KEY, shown once and stored nowhere:\n",
        hash.to_hex()
    )
}
