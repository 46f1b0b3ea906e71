//! `lucid-proxy exec -- COMMAND`: a program whose calls to Lucid go through a proxy of its own, for as long as it runs.

mod child;
mod program;
mod signals;

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use tracing::level_filters::LevelFilter;

use super::{ConfigOption, Failure, key, load, sandbox, say_what_protects};
use crate::config::{
    Address, Config, Environment, KeyHash, KnownClient, Listen, Need, ProcessEnvironment, Rules,
};
use crate::intercept::environment::{Changes, TRUSTED_ALREADY, Way, changes};
use crate::intercept::program_files::{Contents, Files};
use crate::intercept::run_directory::RunDirectory;
use crate::intercept::trust::Trust;
use crate::intercept::{Authority, own_user};
use crate::sandbox::{Behaviour, Sandbox};
use crate::secret::Zeroizing;
use crate::server::{Running, Server};
use crate::telemetry;
use crate::token::store::Store;
use child::{Ended, Limits};
use program::Program;
use signals::PassedOn;

/// What the program's client is called in the log.
const CLIENT: &str = "exec";

/// Lucid's own domains, which the stand-in stands for only in part.
const LUCIDS: [&str; 4] = ["lucid.co", "lucid.app", "lucidgov.app", "lucidchart.com"];

/// The program has ended: what its own children still ask for gets no more time than a person waits for a prompt.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) const HELP: &str = "\
Examples:
  lucid-proxy exec -- python3 report.py
  lucid-proxy exec -- sh -c 'curl https://api.lucid.co/users/me/profile'
  lucid-proxy exec --sandbox -- node sync.js    (no account, nothing real of Lucid's is touched)

The program is run with variables (HTTPS_PROXY, SSL_CERT_FILE, NODE_OPTIONS, JAVA_TOOL_OPTIONS and others) that
lead its requests to api.lucid.co through a proxy on a random port, with a random key, for as long as it runs.
Tunnels to other hosts pass byte for byte; plain requests to them get a Via, and HTTP/1.1 without upgrades. With
--sandbox, nothing leads to Lucid's other hosts. LUCID_BASE_URL says where plain requests without any of that are taken.
No running lucid-proxy is needed, and one that runs is not disturbed.

Signals, terminal, standard streams and exit code are the program's own. When it ends, so does the way to
Lucid and every other host: a program that it leaves in the background finds it closed, after 5 s at the most for
requests under way; run that with serve and env instead.

Exit codes: the program's own (where a signal ended it, the same signal ends this one, which a shell shows as 128
and its number), 126 it cannot be run, 127 there is no such program, 77 login needed (it was not run),
78 configuration.";

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Run it against the built-in stand-in for Lucid, with a login of its own
    #[arg(long)]
    sandbox: bool,
    /// How long an access token of the stand-in lives
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, requires = "sandbox")]
    token_lifetime: Duration,
    /// Log each request on standard error: method, status, duration, sizes, which token, path
    #[arg(short, long)]
    verbose: bool,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Ends as the program does.
pub(super) fn run(option: &ConfigOption, options: Options) -> Result<ExitCode, Failure> {
    // All that the run had is gone by then.
    Ok(run_program(option, options)?.likewise())
}

fn run_program(option: &ConfigOption, options: Options) -> Result<Ended, Failure> {
    // Before the server raises them for itself.
    let limits = Limits::of_this_process();
    let (name, arguments) = options
        .command
        .split_first()
        .context("clap asks for a command")?;
    let program = Program::find(name).map_err(|error| Failure {
        code: error.exit_code(),
        error: error.into(),
    })?;
    if options.sandbox && option.config.is_some() {
        return Err(Failure {
            code: 2,
            error: anyhow::anyhow!("exec --sandbox reads no configuration; leave out --config"),
        });
    }
    start_logging(options.verbose);
    let directory = RunDirectory::make(&ProcessEnvironment).context(
        "cannot make a directory for this run under $XDG_RUNTIME_DIR or $TMPDIR; set TMPDIR to one that can be written",
    )?;
    let (mut config, _sandbox) = configure(option, &options, &directory)?;
    let key = key::new_key()?;
    make_private(&mut config, &key, options.verbose);
    let server = Server::bind(&config)?;
    if let Some(message) = server.login_needed() {
        return Err(Failure::login_needed(message));
    }
    let changes = prepare(&config, &server, &directory, &key)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Heeded from now on, so that none is lost between here and the program.
        let mut signals = PassedOn::new()?;
        let running = server.start()?;
        let ended = match child::spawn(&program, arguments, &changes, limits) {
            Ok(pid) => tokio::select! {
                ended = child::until_it_ends(pid, &mut signals) => ended.map_err(Failure::from),
                never = say_if_it_dies(&running) => match never {},
            },
            Err(error) => Err(Failure {
                code: error.exit_code(),
                error: error.into(),
            }),
        };
        finish(running, &mut signals).await;
        ended
    })
}

/// The program goes on: it may need no more of Lucid.
async fn say_if_it_dies(running: &Running) -> Infallible {
    running.died().await;
    tracing::error!(
        "a part of the proxy ended by itself, which is a defect: the program may find no way to Lucid any more"
    );
    std::future::pending().await
}

/// The program has ended, and what it has left behind may still ask for something. A signal is for nobody but us by now,
/// and ends the wait for that; a rotation is waited for all the same.
async fn finish(running: Running, signals: &mut PassedOn) {
    let cut = running.cut();
    let mut ended = tokio::task::spawn_blocking(move || running.shutdown());
    tokio::select! {
        _ = &mut ended => return,
        () = signals.asked_to_end() => cut.cancel(),
    }
    // What has died has been told of.
    let _ = ended.await;
}

/// Only what must be known: standard error is the program's. `RUST_LOG` may be meant for that too, and is for this one
/// where it names it.
fn start_logging(verbose: bool) {
    struct Named;
    impl Environment for Named {
        fn var(&self, name: &str) -> Option<String> {
            ProcessEnvironment
                .var(name)
                .filter(|value| value.contains("lucid_proxy"))
        }

        fn is_set(&self, name: &str) -> bool {
            self.var(name).is_some()
        }
    }
    let level = match verbose {
        true => LevelFilter::INFO,
        false => LevelFilter::WARN,
    };
    telemetry::start(crate::config::LogFormat::Text, level, &Named);
    say_what_protects();
}

/// The configuration, and the stand-in where it leads to that.
fn configure(
    option: &ConfigOption,
    options: &Options,
    directory: &RunDirectory,
) -> Result<(Config, Option<Sandbox>), Failure> {
    if !options.sandbox {
        return Ok((load(option, Need::Everything)?, None));
    }
    let behaviour = Behaviour {
        access_lifetime: options.token_lifetime,
        ..Behaviour::default()
    };
    let stand_in = Sandbox::start(([127, 0, 0, 1], 0).into(), behaviour)
        .context("the stand-in cannot listen on 127.0.0.1")?;
    let mut config = sandbox::configure(&stand_in, &directory.path().join("state"))?;
    config.intercept.closed = LUCIDS.map(str::to_owned).to_vec();
    let record = sandbox::record(&stand_in.approve())?;
    Store::new(config.credential.store.clone()).write(&record)?;
    Ok((config, Some(stand_in)))
}

/// For one program alone, whatever the configuration says of listeners and clients.
fn make_private(config: &mut Config, key: &Zeroizing<String>, verbose: bool) {
    let listen = |own_user| Listen {
        own_user,
        ..Listen::from(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))))
    };
    config.listen = vec![listen(false)];
    if own_user::IS_TOLD {
        config.listen.push(listen(true));
    }
    config.public_url = None;
    config.clients = vec![KnownClient {
        name: CLIENT.to_owned(),
        key: Some(KeyHash::of(key.as_bytes())),
        rules: Rules::default(),
    }];
    config.intercept.enabled = true;
    config.intercept.private = true;
    config.timeouts.drain = config.timeouts.drain.min(DRAIN);
    config.log.requests = verbose;
}

/// Writes what the variables of the program name, and returns those.
fn prepare(
    config: &Config,
    server: &Server,
    directory: &RunDirectory,
    key: &Zeroizing<String>,
) -> Result<Changes, Failure> {
    let intercept = &config.intercept;
    let authority = Authority::open(&intercept.directory, &intercept.hosts, SystemTime::now())?;
    let trust = trust(&authority);
    let files = Files::in_directory(directory.path());
    let contents = Contents {
        bundle: &trust.bundle(),
        java: &trust.java(),
        hosts: &intercept.hosts,
    };
    files
        .write(&contents, &ProcessEnvironment)
        .with_context(|| format!("cannot write into {}", directory.path().display()))?;
    let mut addresses = server.endpoints().iter().filter_map(|it| it.tcp());
    let proxy = addresses.next().context("it listens on TCP")?;
    let own_user = addresses.next();
    let way = Way {
        proxy,
        login: Some((CLIENT, key)),
        base: Some(own_user.unwrap_or(proxy)),
        java: own_user,
        hosts: &intercept.hosts,
        files: &files,
    };
    let secrets = &config.credential.secret_variables;
    Ok(changes(&way, &ProcessEnvironment, secrets))
}

/// The system's certificates, those that variables name already, and ours.
pub(super) fn trust(authority: &Authority) -> Trust {
    let mut trust = Trust::system_and(authority);
    for name in TRUSTED_ALREADY {
        let Some(file) = ProcessEnvironment.var(name) else {
            continue;
        };
        if let Err(error) = trust.add_file(file.as_ref()) {
            tracing::warn!("{name} names {file}, whose certificates are left out: {error}");
        }
    }
    trust
}
