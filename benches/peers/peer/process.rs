//! A child process, from its first sign of life to its end.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a proxy may take to start.
const START: Duration = Duration::from_secs(10);
/// How long a proxy may take to end before it is killed.
const END: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A running process. Dropped, it is ended, also while a panic unwinds.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to files in `directory`.
    pub(super) fn start(command: &mut Command, directory: &Path) -> anyhow::Result<Self> {
        let (stdout, stderr) = (directory.join("stdout"), directory.join("stderr"));
        let child = command
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self {
            child,
            stdout,
            stderr,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address in the line `NAME http://ADDRESS` that the process prints when it is ready.
    pub(super) fn announced(&mut self) -> anyhow::Result<SocketAddr> {
        let stdout = self.stdout.clone();
        self.wait_for(|| {
            let said = fs::read_to_string(&stdout).ok()?;
            let (line, _) = said.split_once('\n')?;
            line.split_once(" http://")?.1.parse().ok()
        })
    }

    /// Waits until the process accepts connections.
    pub(super) fn accepts(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.wait_for(|| TcpStream::connect(address).ok().map(drop))
    }

    fn wait_for<T>(&mut self, sign: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + START;
        loop {
            let ended = self.child.try_wait()?;
            if let Some(status) = ended {
                let said = fs::read_to_string(&self.stderr)?;
                bail!("it ended at its start ({status}):\n{}", said.trim_end());
            }
            if let Some(found) = sign() {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("it was not ready within {START:?}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn has_ended(&mut self) -> bool {
        // One that cannot be asked is not there.
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // In a drop there is nobody to report a failure to, and the kill below covers it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END;
        while !self.has_ended() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
