//! The proxy of this package, as `serve` runs it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};

use super::process::Process;
use super::{Kind, Peer};
use crate::case::{Head, TOKEN};

/// Long enough that no run sees a rotation.
const LIFETIME: Duration = Duration::from_secs(10 * 60 * 60);

pub(super) fn start(binary: &Path, upstream: SocketAddr, directory: &Path) -> anyhow::Result<Peer> {
    let store = directory.join("token_info.json");
    write_store(&store)?;
    let config = directory.join("proxy.toml");
    fs::write(&config, proxy_toml(upstream, &store))?;
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(&config);
    // Whoever runs the bench may have a login of their own in these variables.
    command
        .env("LUCID_CLIENT_ID", "peers")
        .env("LUCID_CLIENT_SECRET", "peers")
        .env_remove("LUCID_REFRESH_TOKEN")
        .env_remove("RUST_LOG");
    let mut process = Process::start(&mut command, directory)?;
    let address = process.announced().context("lucid-proxy")?;
    Ok(Peer {
        kind: Kind::LucidProxy,
        version: binary.display().to_string(),
        address,
        head: Head::ForProxy(address),
        process,
    })
}

fn proxy_toml(upstream: SocketAddr, store: &Path) -> String {
    // Nothing listens at the token endpoint: with a fresh pair it is never asked.
    format!(
        r#"listen = ["127.0.0.1:0"]
workers = 1

[upstream]
url = "http://{upstream}"

[credentials.default]
kind = "oauth"
token_url = "http://127.0.0.1:9/oauth2/token"
store = {store:?}
"#
    )
}

/// A pair that was issued just now, readable by its owner alone, as the proxy demands.
fn write_store(path: &Path) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let rfc3339 = |time| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true);
    let record = serde_json::json!({
        "version": 1,
        "generation": 1,
        "access_token": TOKEN,
        "refresh_token": "peers-refresh",
        "expires_at": rfc3339(now + LIFETIME),
        "issued_at": rfc3339(now),
        "refresh_issued_at": rfc3339(now),
    });
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(record.to_string().as_bytes())?;
    Ok(())
}
