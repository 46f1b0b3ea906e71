//! The relay: this program again, told to be one.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::process::Process;
use super::{Kind, Peer};
use crate::case::Head;

pub(super) fn start(upstream: SocketAddr, directory: &Path) -> anyhow::Result<Peer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--relay", &upstream.to_string()]);
    let mut process = Process::start(&mut command, directory)?;
    let address = process.announced().context("relay")?;
    Ok(Peer {
        kind: Kind::Relay,
        version: "tokio's copy_bidirectional, one thread".to_owned(),
        address,
        head: Head::ForUpstream(upstream),
        process,
    })
}
