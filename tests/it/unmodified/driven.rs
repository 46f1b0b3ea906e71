//! A program that does what its standard input says, line by line, and prints a line for each.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a step may take. Far more than it does on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// It runs until it is dropped or has no more steps to do.
pub(super) struct Driven {
    child: Child,
    steps: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Driven {
    pub(super) fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child.spawn().expect("the program runs");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let sink = errors.clone();
        let mut from = child.stderr.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..length]);
                sink.lock().expect("whole").push_str(&text);
            }
        });
        Self {
            steps: child.stdin.take(),
            child,
            lines,
            errors,
            reader: Some(reader),
        }
    }

    /// Has it do a step, and returns what it printed about that; `None` where it printed nothing and ended.
    pub(super) fn try_step(&mut self, step: &str) -> Option<String> {
        let steps = self.steps.as_mut().expect("it has more to do");
        // One that has ended takes none.
        let _ = writeln!(steps, "{step}");
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                panic!("{step}: nothing came of it: {}", self.errors())
            }
        }
    }

    /// The same for a step that it must be able to do.
    #[track_caller]
    pub(super) fn step(&mut self, step: &str) -> String {
        match self.try_step(step) {
            Some(line) => line,
            None => {
                self.steps = None;
                let status = self.wait();
                panic!("{step}: it ended with {status}: {}", self.errors())
            }
        }
    }

    /// What it has written to standard error so far; all of it once it has been waited for.
    pub(super) fn errors(&self) -> String {
        self.errors.lock().expect("whole").clone()
    }

    /// Waits until it has written this there.
    #[track_caller]
    pub(super) fn wait_for_errors(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.errors().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?}: {}", self.errors());
            std::thread::yield_now();
        }
    }

    /// It has no more to do, and is waited for.
    pub(super) fn end(&mut self) -> ExitStatus {
        self.steps = None;
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it was started");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of its errors");
        }
        status
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
