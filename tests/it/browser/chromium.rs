//! Chromium without a window, with a profile of its own.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::world::{errors, is_there, missing, printed};

/// A running browser; killed with all its processes when dropped.
pub(super) struct Chromium {
    child: Child,
    _profile: TempDir,
}

/// The name of the program, if it is installed.
pub(super) fn find() -> Option<String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names
        .into_iter()
        .find(|name| is_there(name, &["--version"]));
    if found.is_none() {
        missing("Chromium");
    }
    found.map(str::to_owned)
}

impl Chromium {
    /// Opens a page. `rule` says where names lead, in the words of `--host-resolver-rules`.
    pub(super) fn open(program: &str, rule: &str, url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut command = command(program, &profile);
        command
            .arg(format!("--host-resolver-rules={rule}"))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Self {
            child: command.spawn().expect("Chromium"),
            _profile: profile,
        }
    }

    /// What a page holds that was opened from the address bar.
    pub(super) fn dump(program: &str, url: &str) -> String {
        let profile = tempfile::tempdir().expect("a directory");
        let output = command(program, &profile)
            .args(["--dump-dom", url])
            .output()
            .expect("Chromium");
        assert!(output.status.success(), "{}", errors(&output));
        printed(&output)
    }
}

fn command(program: &str, profile: &TempDir) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", profile.path())
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args([
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        // It does not start as root otherwise.
        command.arg("--no-sandbox");
    }
    command
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
