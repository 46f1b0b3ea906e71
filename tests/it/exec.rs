//! `lucid-proxy exec`: a program that calls Lucid by its own name, and is otherwise as without us.

mod env;
mod programs;
mod run;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, errors, is_there};

impl World {
    /// `exec` with these arguments, in this world, with its temporary files in a directory of its own.
    fn exec(&self, arguments: &[&str]) -> Command {
        self.configure();
        fs::create_dir_all(self.temporary()).expect("a directory");
        let mut command = self.command(&[&["exec"], arguments].concat());
        command.env("TMPDIR", self.temporary());
        command
    }

    fn exec_output(&self, arguments: &[&str]) -> Output {
        let mut command = with_usual_signals(&self.exec(arguments));
        command.stdin(Stdio::null()).output().expect("it runs")
    }

    fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// Names of what is left of runs.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.temporary()).expect("a directory");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries
            .map(|entry| name(entry.expect("an entry")))
            .collect()
    }
}

/// Has signals their usual effect. Whoever runs the tests may ignore some, as nohup does and a shell in the background.
const USUAL_SIGNALS: [&str; 2] = ["env", "--default-signal=HUP,INT,QUIT,TERM,PIPE"];

/// The same program with no environment but what is told here, by way of env(1) where that knows how.
fn with_usual_signals(command: &Command) -> Command {
    let mut usual = match is_there("env", &[USUAL_SIGNALS[1], "true"]) {
        true => {
            let mut usual = Command::new(USUAL_SIGNALS[0]);
            usual.arg(USUAL_SIGNALS[1]).arg(command.get_program());
            usual
        }
        false => Command::new(command.get_program()),
    };
    usual.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        usual.env(name, value.unwrap_or_default());
    }
    if let Some(directory) = command.get_current_dir() {
        usual.current_dir(directory);
    }
    usual
}

/// A run that is spoken with through its standard streams; killed when dropped.
struct Run {
    child: Child,
    input: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Run {
    fn start(command: Command) -> Self {
        Self::with(command, Stdio::inherit())
    }

    /// One whose standard error is read too.
    fn heard(command: Command) -> Self {
        Self::with(command, Stdio::piped())
    }

    fn with(command: Command, errors: Stdio) -> Self {
        let mut command = with_usual_signals(&command);
        command.stderr(errors);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Not in the foreground of whoever runs the tests.
        let mut child = command.process_group(0).spawn().expect("it runs");
        Self {
            input: child.stdin.take(),
            out: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("open");
        writeln!(input, "{line}").expect("it reads");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Closes its standard input, and waits.
    fn end(mut self) -> (ExitStatus, String) {
        drop(self.input.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it was started"), rest)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state of a process, as in `ps`; `None` where there is none.
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", errors(output));
}
