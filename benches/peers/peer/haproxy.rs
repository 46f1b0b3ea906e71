//! haproxy with one thread and shared server connections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::process::Process;
use super::{Installed, Kind, Peer, free_address};
use crate::case::{Head, authorization};

pub(super) fn start(upstream: SocketAddr, directory: &Path) -> anyhow::Result<Option<Peer>> {
    let Some(installed) = Installed::find("haproxy") else {
        return Ok(None);
    };
    let address = free_address()?;
    let config = directory.join("haproxy.cfg");
    fs::write(&config, haproxy_cfg(address, upstream))?;
    let mut command = Command::new(&installed.path);
    // -db: one process in the foreground.
    command.arg("-db").arg("-f").arg(&config);
    let mut process = Process::start(&mut command, directory)?;
    process.accepts(address).context("haproxy")?;
    Ok(Some(Peer {
        kind: Kind::Haproxy,
        version: installed.version,
        address,
        head: Head::ForProxy(address),
        process,
    }))
}

/// Without `log` lines nothing is logged. Idle server connections are kept without a limit by default, and
/// `TCP_NODELAY` is set by default.
fn haproxy_cfg(address: SocketAddr, upstream: SocketAddr) -> String {
    let authorization = authorization();
    format!(
        r#"global
    nbthread 1
    maxconn 1024

defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s

frontend clients
    bind {address}
    default_backend api

backend api
    http-request set-header Host "{upstream}"
    http-request set-header Authorization "{authorization}"
    server api {upstream}
"#
    )
}
