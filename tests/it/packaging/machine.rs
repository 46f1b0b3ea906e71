//! A systemd of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET};

use crate::world::{SOON, Serving, World, is_root, missing};

/// systemd that runs the units, and more where a test has them, with the configuration of a world, as the first process of namespaces of its own.
pub(super) struct Machine {
    group: String,
    /// There until it is dropped.
    serving: Option<Serving>,
}

impl Machine {
    /// Whether there is a systemd and it can be run.
    pub(super) fn can_start() -> bool {
        if !is_root() {
            return false;
        }
        let is_there = Path::new("/lib/systemd/systemd").exists();
        if !is_there {
            missing("systemd");
        }
        is_there
    }

    pub(super) fn start(world: &World, wanted: &str, more: &[(&str, &str)]) -> Self {
        let directory = world.directory.path();
        let units = directory.join("units");
        fs::create_dir_all(&units).expect("a directory");
        let target = format!("[Unit]\nDefaultDependencies=no\nWants={wanted}\n");
        fs::write(units.join("default.target"), target).expect("written");
        for (file, content) in more {
            let file = units.join(file);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            let directory = directory.display().to_string();
            fs::write(file, content.replace("$directory", &directory)).expect("written");
        }
        fs::write(directory.join("client_id"), CLIENT_ID).expect("written");
        fs::write(directory.join("client_secret"), CLIENT_SECRET).expect("written");
        let name = directory.file_name().expect("a name").to_string_lossy();
        let group = format!("lucid-test{name}");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/packaging/machine.sh");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", script])
            .arg(directory)
            .arg(&group)
            .arg(env!("CARGO_BIN_EXE_lucid-proxy"))
            .arg(super::packaging());
        let mut machine = Self {
            group,
            serving: None,
        };
        machine.serving = Some(Serving::start(command));
        machine
    }

    pub(super) fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("it was not dropped")
    }

    /// The number of the process that serves.
    pub(super) fn main_process(&self) -> u32 {
        let children = |process: u32| {
            let file = format!("/proc/{process}/task/{process}/children");
            let children = fs::read_to_string(file).unwrap_or_default();
            let children = children.split_whitespace().map(str::parse);
            children.collect::<Result<Vec<u32>, _>>().expect("numbers")
        };
        let unshare = self.serving().pid().as_raw_nonzero().get();
        let systemd = children(unshare.try_into().expect("a number of a process"))[0];
        let is_proxy = |process: &u32| {
            fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name.trim() == "lucid-proxy")
        };
        let found = children(systemd).into_iter().find(is_proxy);
        found.expect("the proxy is a child of systemd")
    }
}

impl Drop for Machine {
    /// Removes the control groups, once their processes are gone.
    fn drop(&mut self) {
        self.serving = None;
        let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && find \"/sys/fs/cgroup/$0\" -depth -type d -exec rmdir {} +";
        let deadline = Instant::now() + SOON;
        loop {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, &self.group]);
            let removed = command.output().expect("unshare");
            if removed.status.success() || Instant::now() > deadline {
                break;
            }
        }
    }
}
