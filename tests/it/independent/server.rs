//! `tests/oidc/server.mjs` as a process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET};
use serde_json::Value;

use super::LIMIT;
use crate::world::{Client, Response, get, is_there, missing};

/// The independent server; it ends when dropped, and with this process.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    /// The first pair of its grant, as a store holds it.
    pub(super) pair: Value,
    /// What it prints after its first line: one line for each refresh.
    lines: Receiver<Value>,
    errors: PathBuf,
    /// Holds its log.
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts it, where it is installed. It counts in whole seconds: access tokens live for up to one less than told.
    pub(super) fn start(access_lifetime: Duration) -> Option<Self> {
        let packages = packages()?;
        let directory = tempfile::tempdir().expect("a directory");
        let errors = directory.path().join("errors");
        let mut child = Command::new("node")
            .arg(sources().join("server.mjs"))
            .current_dir(packages)
            .env("ACCESS_LIFETIME", access_lifetime.as_secs().to_string())
            .env("LUCID_CLIENT_ID", CLIENT_ID)
            .env("LUCID_CLIENT_SECRET", CLIENT_SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("node runs");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = serde_json::from_str(&line.expect("readable")).expect("JSON");
                // Most tests do not wait for later lines.
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pair: Value::Null,
            lines,
            errors,
            _directory: directory,
        };
        let mut first: Value = server.line(Instant::now()).expect("its port and a pair");
        let port = first["port"].as_u64().and_then(|port| port.try_into().ok());
        server.address.set_port(port.expect("a port"));
        server.pair = first["pair"].take();
        Some(server)
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it has rotated so often, or has refused to, or that takes too long.
    pub(super) fn wait_for_rotations(&self, times: u64) {
        let begun = Instant::now();
        while let Some(line) = self.line(begun) {
            if line["rotations"].as_u64() >= Some(times) || !line["refused"].is_null() {
                return;
            }
        }
    }

    fn line(&self, begun: Instant) -> Option<Value> {
        let left = LIMIT.saturating_sub(begun.elapsed());
        let line = self.lines.recv_timeout(left);
        line.inspect_err(|_| eprintln!("the server's log: {}", self.log()))
            .ok()
    }

    /// What it has seen.
    pub(super) fn counts(&self) -> Value {
        get(self.address, "/counts").json()
    }

    /// Posts `parameters` and the client's credentials to one of its OAuth endpoints, as JSON as Lucid takes it.
    pub(super) fn post(&self, path: &str, mut parameters: Value) -> Response {
        parameters["client_id"] = CLIENT_ID.into();
        parameters["client_secret"] = CLIENT_SECRET.into();
        Client::connect(self.address).ask(
            &format!("POST {path}"),
            &["Content-Type: application/json"],
            parameters.to_string().as_bytes(),
        )
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc")
}

/// Where `tests/run` has installed the packages, if it has, and if they are those of today's lock file.
fn packages() -> Option<PathBuf> {
    if !is_there("node", &["--version"]) {
        missing("node");
        return None;
    }
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc");
    let installed = fs::read(packages.join("installed.json")).ok();
    let wanted = fs::read(sources().join("package-lock.json")).expect("a lock file");
    if installed != Some(wanted) {
        missing("what tests/oidc/package-lock.json names (tests/run installs it)");
        return None;
    }
    Some(packages)
}
