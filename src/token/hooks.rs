//! Programs that a person has run for notifications: when only a login helps, and after a rotation.
//!
//! They get no secret, neither as an argument nor in the environment, run one after the other, and are ended with
//! everything they started when they take too long.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{self, Credential};

/// Longer than a notification takes, shorter than people wait for an end.
const BOUND: Duration = Duration::from_secs(30);
/// More than ever wait, unless a program hangs; then the oldest news matter most.
const WAITING: usize = 8;

/// What a program is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) generation: Option<u64>,
    /// For people; without secrets.
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    LoginNeeded,
    Rotated,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::LoginNeeded => "login_needed",
            Self::Rotated => "rotated",
        }
    }
}

/// The programs of one credential.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    commands: config::Hooks,
    credential: String,
    secret_variables: Vec<String>,
    runner: Option<Runner>,
}

#[derive(Debug)]
struct Runner {
    events: mpsc::Sender<(Vec<String>, Event)>,
    task: JoinHandle<()>,
}

impl Hooks {
    pub(super) fn new(credential: &Credential) -> Self {
        Self {
            commands: credential.hooks.clone(),
            credential: credential.name.clone(),
            secret_variables: credential.secret_variables.clone(),
            runner: None,
        }
    }

    /// Runs the program for an event, after those that run already; within a runtime only.
    pub(super) fn tell(&mut self, event: Event) {
        let command = match event.kind {
            Kind::LoginNeeded => &self.commands.login_needed,
            Kind::Rotated => &self.commands.rotated,
        };
        if command.is_empty() {
            return;
        }
        let told = (command.clone(), event);
        if self.runner().events.try_send(told).is_err() {
            tracing::warn!("on_… programs take too long; one was not run");
        }
    }

    fn runner(&mut self) -> &Runner {
        let (credential, secret_variables) = (&self.credential, &self.secret_variables);
        self.runner.get_or_insert_with(|| {
            let (events, waiting) = mpsc::channel(WAITING);
            let run = run(waiting, credential.clone(), secret_variables.clone());
            Runner {
                events,
                task: tokio::spawn(run),
            }
        })
    }

    /// Waits for the programs that were begun, for no longer than `bound`; then they are ended.
    pub(super) async fn finish(self, bound: Duration) {
        let Some(Runner { events, task }) = self.runner else {
            return;
        };
        drop(events);
        let abort = task.abort_handle();
        if tokio::time::timeout(bound, task).await.is_err() {
            abort.abort();
        }
    }
}

async fn run(
    mut events: mpsc::Receiver<(Vec<String>, Event)>,
    credential: String,
    secret_variables: Vec<String>,
) {
    while let Some((command, event)) = events.recv().await {
        let Some((program, arguments)) = command.split_first() else {
            continue;
        };
        let mut command = Command::new(program);
        command.args(arguments);
        for variable in &secret_variables {
            command.env_remove(variable);
        }
        let generation = event.generation.map(|number| number.to_string());
        command
            .env("LUCID_PROXY_EVENT", event.kind.name())
            .env("LUCID_PROXY_CREDENTIAL", &credential)
            .env("LUCID_PROXY_GENERATION", generation.unwrap_or_default())
            .env("LUCID_PROXY_MESSAGE", &event.message)
            .stdin(Stdio::null())
            // Standard output is for what the user asked this program for.
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let name = event.kind.name();
        match command.spawn() {
            Ok(child) => watch(child, name).await,
            Err(error) => tracing::warn!("on_{name}: cannot run {program}: {error}"),
        }
    }
}

/// Waits for a program and ends it when it takes too long.
async fn watch(mut child: Child, name: &str) {
    let group = Group(child.id());
    match tokio::time::timeout(BOUND, child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => tracing::warn!("on_{name}: {status}"),
        Ok(Err(error)) => tracing::warn!("on_{name}: {error}"),
        Err(_) => {
            tracing::warn!("on_{name}: not done after {} s and ended", BOUND.as_secs());
            drop(group);
            return;
        }
    }
    group.has_ended();
}

/// The processes that a program started, itself among them; ended when dropped.
struct Group(Option<u32>);

impl Group {
    /// It has ended by itself: its number may belong to others by now.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader.and_then(Pid::from_raw) {
            // It may have ended at this moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
