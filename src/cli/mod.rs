//! The command line: one file per command, and what they share.

mod ca;
mod check;
mod doctor;
mod env;
mod exec;
mod grant;
mod import;
mod key;
mod login;
mod logout;
mod refresh;
mod sandbox;
mod serve;
mod service;
mod status;
mod times;
mod token;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use crate::config::{Config, ConfigError, Kind, LogFormat, Need, ProcessEnvironment};
use crate::server::{Endpoint, Server, StartError};
use crate::token::refresher::OpenError;
use crate::token::store::StoreError;
use crate::{memory, telemetry};

/// Exit code when only a login helps (`EX_NOPERM` of sysexits).
const LOGIN_NEEDED: u8 = 77;
/// Exit code for a configuration that is not accepted (`EX_CONFIG` of sysexits).
const CONFIGURATION: u8 = 78;

#[derive(Debug, Parser)]
#[command(name = "lucid-proxy", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    config: ConfigOption,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "\
Without a command: serve.
Exit codes: 0 done, 1 failed or stopped by a second signal, 2 usage, 77 login needed, 78 configuration.
Variables: LUCID_CLIENT_ID and LUCID_CLIENT_SECRET are enough to run without a proxy.toml;
so is LUCID_API_KEY, while nothing is said of an OAuth client;
LUCID_REFRESH_TOKEN is read once, while there is no login yet; RUST_LOG chooses what is logged;
LUCID_PROXY_ALLOW_DUMPS=1 lets debuggers in and core dumps out, which hold tokens;
HTTPS_PROXY, ALL_PROXY and NO_PROXY lead through a company's proxy, as they do for curl.";

#[derive(Args, Clone, Debug)]
struct ConfigOption {
    /// The configuration [default: ./proxy.toml, else ~/.config/lucid-proxy/proxy.toml, else the
    /// environment alone]
    #[arg(short, long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// In the place of [`ConfigOption`], for a command that has no use for it: its help does not show it.
#[derive(Args, Clone, Debug)]
struct NoConfig {
    #[arg(short, long = "config", value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

impl NoConfig {
    fn refuse(&self, command: &str) -> Result<(), Failure> {
        match self.config {
            Some(_) => Err(no_config(command)),
            None => Ok(()),
        }
    }
}

fn no_config(command: &str) -> Failure {
    Failure {
        code: 2,
        error: anyhow::anyhow!("{command} reads no configuration; leave out --config"),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Serve(serve::Options),
    /// Try it: a stand-in for Lucid and a proxy in front, without an account or a network
    Sandbox(sandbox::Options),
    /// Run a program unchanged: its calls to https://api.lucid.co go through a proxy of its own
    #[command(after_help = exec::HELP)]
    Exec(exec::Options),
    /// Print the variables that lead programs to a running proxy, for a shell
    #[command(after_help = env::HELP)]
    Env(env::Options),
    /// Log in: approve once in a browser
    Login(login::Options),
    /// Take over a login: the token_info.json of Lucid's example script, or a refresh token
    Import(import::Options),
    /// Print a valid access token, refreshing it first if need be; or the API key
    Token,
    /// Refresh the token now; asks first when other processes use the login
    Refresh(refresh::Options),
    /// Show the login: whose, which scopes, until when, the last rotation and error, who uses it
    Status(status::Options),
    /// End the login, at Lucid and here
    Logout(logout::Options),
    /// Keys for the clients of this proxy
    Key(key::Options),
    /// The certificate authority of this machine, for programs whose calls are intercepted
    #[command(subcommand, after_help = ca::HELP)]
    Ca(ca::Command),
    /// Check the configuration without touching the network
    Check,
    /// Prove each link of the chain: configuration, token file, network, clock, tokens, one request
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::Options),
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let code = exit_code(&error);
        Self { code, error }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let start = error.downcast_ref::<StartError>();
    let open = error.downcast_ref::<OpenError>();
    let configuration = error.is::<ConfigError>()
        || matches!(
            start,
            Some(
                StartError::Exposed(_)
                    | StartError::Certificate(..)
                    | StartError::Grant(OpenError::NoClient | OpenError::BadKey)
            )
        )
        || matches!(open, Some(OpenError::NoClient | OpenError::BadKey));
    if configuration { CONFIGURATION } else { 1 }
}

impl Failure {
    fn login_needed(message: String) -> Self {
        Self {
            code: LOGIN_NEEDED,
            error: anyhow::Error::msg(message),
        }
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli
        .command
        .unwrap_or(Command::Serve(serve::Options::default()))
    {
        Command::Serve(options) => serve::run(&cli.config, options),
        Command::Sandbox(_) if cli.config.config.is_some() => Err(no_config("sandbox")),
        Command::Key(_) if cli.config.config.is_some() => Err(no_config("key")),
        Command::Sandbox(options) => sandbox::run(options),
        Command::Exec(options) => match exec::run(&cli.config, options) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Env(options) => env::run(&cli.config, options),
        Command::Login(options) => login::run(&cli.config, options),
        Command::Import(options) => import::run(&cli.config, options),
        Command::Token => token::run(&cli.config),
        Command::Refresh(options) => refresh::run(&cli.config, options),
        Command::Status(options) => status::run(&cli.config, options),
        Command::Logout(options) => logout::run(&cli.config, options),
        Command::Key(options) => key::run(options),
        Command::Ca(command) => ca::run(&cli.config, command),
        Command::Check => check::run(&cli.config),
        Command::Doctor(options) => doctor::run(&cli.config, options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The chain once, here at the edge. A standard error that is closed leaves the exit code.
            let _ = writeln!(std::io::stderr(), "lucid-proxy: {}", chain(&failure.error));
            ExitCode::from(failure.code)
        }
    }
}

/// The error and its causes, each said once.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn load(option: &ConfigOption, need: Need) -> Result<Config, ConfigError> {
    Config::load(option.config.as_deref(), &ProcessEnvironment, need)
}

/// Prints a line that scripts wait for; it is complete when this returns. A reader that has left is no reason to stop
/// serving.
fn announce(name: &str, endpoint: &impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{name} {endpoint}").and_then(|()| out.flush());
}

/// Prints what a command was asked for.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // `lucid-proxy status | head -1` is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Serves until a signal, then ends in order; a second signal ends at once. Everything that scripts wait for is
/// announced by `announce` when signals are already heeded and before work is accepted.
fn serve(
    server: Server,
    announce: impl FnOnce(&[Endpoint]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new()?;
        announce(server.endpoints())?;
        let running = server.start()?;
        service::tell(service::READY);
        let died = tokio::select! {
            name = signals.next() => {
                tracing::info!("{name}: finishing what is under way; once more to stop at once");
                false
            }
            () = running.died() => true,
        };
        service::tell(service::STOPPING);
        let ended = tokio::task::spawn_blocking(move || running.shutdown());
        let again = async {
            let _ = tokio::time::timeout(ONE_PRESS, signals.repeated()).await;
            signals.next().await
        };
        let orderly = tokio::select! {
            orderly = ended => orderly.unwrap_or(false),
            name = again => return Err(anyhow::anyhow!("{name} again: stopped at once").into()),
        };
        if died || !orderly {
            let message = "a part of the server ended by itself, which is a defect; see the log";
            return Err(anyhow::anyhow!(message).into());
        }
        Ok(())
    });
    // After a second signal the orderly end is not waited for.
    runtime.shutdown_background();
    served
}

/// timeout(1) and terminals signal a process and its group, so that one signal may come twice.
const ONE_PRESS: Duration = Duration::from_millis(200);

/// SIGINT, SIGTERM, and SIGHUP unless it is ignored (as under nohup).
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let hangup = (!is_ignored(rustix::process::Signal::HUP))
            .then(|| signal(SignalKind::hangup()))
            .transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Takes whatever comes, for ever.
    async fn repeated(&mut self) {
        loop {
            self.next().await;
        }
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether whoever started this process has it ignore the signal (proc_pid_status(5)); elsewhere than on Linux, no.
fn is_ignored(signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// Loads the configuration for a command that is about a login (`to_do`: what it does), of which there is none where an
/// API key is configured.
fn load_login(option: &ConfigOption, need: Need, to_do: &str) -> Result<Config, Failure> {
    let config = load(option, need)?;
    match &config.credential.kind {
        Kind::OAuth => Ok(config),
        Kind::ApiKey(_) => Err(anyhow::anyhow!(
            "credentials.{} is an API key, which stays as it is: there is no login to {to_do}; requests need none; to use a login in its place, set kind = \"oauth\"",
            config.credential.name
        )
        .into()),
    }
}

fn start_logging(config: &Config) {
    telemetry::start(config.log.format, LevelFilter::INFO, &ProcessEnvironment);
    say_what_protects();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// For a command whose outcome is said at its end: only what must be known beside it, and for people.
fn start_logging_for_scripts() {
    telemetry::start(LogFormat::Text, LevelFilter::ERROR, &ProcessEnvironment);
    say_what_protects();
}

/// Asks the system once more for what `main` has asked it for, now that its refusal can be logged.
fn say_what_protects() {
    if let Err(refused) = memory::protect(&ProcessEnvironment) {
        tracing::debug!("{refused}");
    }
}

/// A store that cannot be used, for a command that only reads it.
fn store_failure(error: StoreError) -> Failure {
    Failure {
        code: 1,
        error: error.into(),
    }
}
