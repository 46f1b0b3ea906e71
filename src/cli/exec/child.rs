//! The program: how it is started, stopped with and waited for, and how we end as it did.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getrlimit, kill_process,
    setrlimit, waitpid,
};

use super::program::{NotRun, Program};
use super::signals::{News, PassedOn, terminal};
use crate::intercept::environment::Changes;
use crate::memory;

/// What the program is to have of what this process has changed for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    files: Rlimit,
    core: Rlimit,
}

impl Limits {
    /// Before the server raises them.
    pub(super) fn of_this_process() -> Self {
        Self {
            files: getrlimit(Resource::Nofile),
            core: memory::core_limit(),
        }
    }

    /// Does something with these limits. What is open stays so; that another thread opens something meanwhile, and has
    /// more open than it may, is an accept that is tried again.
    fn within<T>(self, act: impl FnOnce() -> T) -> T {
        let limits = [(Resource::Nofile, self.files), (Resource::Core, self.core)];
        let ours = limits.map(|(resource, limit)| {
            let ours = getrlimit(resource);
            // The soft limits alone were changed, which is always allowed.
            let _ = setrlimit(resource, limit);
            (resource, ours)
        });
        let done = act();
        for (resource, limit) in ours {
            let _ = setrlimit(resource, limit);
        }
        done
    }
}

/// Starts the program in this process's group, with its streams and its terminal.
pub(super) fn spawn(
    program: &Program,
    arguments: &[OsString],
    changes: &Changes,
    limits: Limits,
) -> Result<Pid, NotRun> {
    let mut command = Command::new(&program.path);
    command.arg0(&program.name).args(arguments);
    let spawned = limits.within(|| match apply(&mut command, changes).spawn() {
        // A script that does not say what runs it is run by the shell, as execvp(3) has it.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOEXEC) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg(&program.path).args(arguments);
            apply(&mut shell, changes).spawn()
        }
        spawned => spawned,
    });
    match spawned {
        Ok(child) => Ok(Pid::from_child(&child)),
        Err(error) => Err(NotRun::CannotRun(program.path.clone(), error)),
    }
}

fn apply<'a>(command: &'a mut Command, changes: &Changes) -> &'a mut Command {
    for (name, value) in changes {
        match value {
            Some(value) => command.env(name, value.as_str()),
            None => command.env_remove(name),
        };
    }
    command
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this code.
    Code(u8),
    /// By the signal of this number.
    Signal(i32),
}

impl Ended {
    /// `None` while it has not.
    fn of(status: WaitStatus) -> Option<Self> {
        match status.exit_status() {
            // The system keeps 8 bits of what a program says.
            Some(code) => Some(Self::Code((code & 0xff) as u8)),
            None => status.terminating_signal().map(Self::Signal),
        }
    }

    /// Ends this process in the same way: a shell that sees its command die of SIGINT ends its script, and goes on where
    /// the command has an exit code. So nothing may be left to do.
    ///
    /// Returns the exit code where that is the way, or where no signal can end this process; as a shell has it, it is 128
    /// and the signal's number then.
    pub(super) fn likewise(self) -> ExitCode {
        let signal = match self {
            Self::Code(code) => return ExitCode::from(code),
            Self::Signal(signal) => signal,
        };
        if !getpid().is_init() {
            // The core dump that some signals mean would be ours, and no help in finding what the program did.
            let core = Rlimit {
                current: Some(0),
                ..getrlimit(Resource::Core)
            };
            let _ = setrlimit(Resource::Core, core);
            // An error is a signal without a name, or with no default action that ends a process.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        ExitCode::from(((128 + signal) & 0xff) as u8)
    }
}

/// Waits for the program's end, passes signals on to it until then, and returns how it ended.
///
/// It is waited for in the same task that signals it, so that no signal goes to a number that another process has by now.
pub(super) async fn until_it_ends(pid: Pid, signals: &mut PassedOn) -> io::Result<Ended> {
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((_, status))) => match Ended::of(status) {
                Some(ended) => return Ok(ended),
                None => stop_too(status),
            },
            Ok(None) => match signals.next().await {
                News::Child => {}
                News::PassOn(signal) => {
                    // One that may not be sent, to a program of another user, is lost as it would be without us.
                    let _ = kill_process(pid, signal);
                }
            },
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whoever waits for this process is to see that the program has stopped. A shell continues both again, and a `SIGCONT` to
/// this process alone is passed on. Where there is no terminal nobody does, and the program may be continued without us.
fn stop_too(status: WaitStatus) {
    let by_terminal = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
    let signal = status.stopping_signal().and_then(Signal::from_named_raw);
    if signal.is_some_and(|signal| by_terminal.contains(&signal)) || terminal().is_some() {
        let _ = kill_process(getpid(), Signal::STOP);
    }
}
