//! `lucid-proxy doctor`: each link of the chain is proved, not pinged.
//!
//! - [`report`]: what a check says, how it is printed, and the exit code;
//! - [`store`] and [`mounts`]: the token file, its directory and what is mounted there;
//! - [`network`] and [`certificate`]: name, port and TLS of upstream and token endpoint, by hand, one step after the other;
//! - [`tokens`]: the token endpoint, asked whether the pair lives;
//! - [`profile`]: one authenticated request, and the clock.
//!
//! Nothing here rotates: the token endpoint is asked by introspection alone, and what is written lies beside the token
//! file and is removed.

mod certificate;
mod mounts;
mod network;
mod profile;
mod report;
mod store;
mod tokens;

use anyhow::anyhow;
use clap::Args;

use super::{ConfigOption, Failure, chain, load, print, start_logging_for_scripts};
use crate::config::{Config, Kind, Need, Origin};
use crate::secret::Secret;
use crate::server::Server;
use crate::token::store::Store;
use profile::Proof;
use report::{Check, Fault, Report};

pub(super) const HELP: &str = "\
It refreshes nothing and changes nothing: the token endpoint is only asked whether the tokens live,
and an access token that has expired is not tried (run `lucid-proxy refresh` before, if you want that).
Each step that waits for the network gives up after 10 to 25 s.
Exit codes: 78 when the configuration is not accepted or the client id or secret is wrong, else 77 when
a login is needed, else 1 when any other check failed, else 0; warnings are no failure.
docs/doctor.md lists the checks and explains --json.";

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    start_logging_for_scripts();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(examine(option));
    // A look-up of a name that was given up may still wait for the system.
    runtime.shutdown_background();
    print(&match options.json {
        true => report.json(),
        false => report.words(),
    })?;
    match report.exit_code() {
        0 => Ok(()),
        code => Err(Failure {
            code,
            error: anyhow!("{}", report.summary()),
        }),
    }
}

async fn examine(option: &ConfigOption) -> Report {
    let mut report = Report::default();
    let Some(config) = configuration(option, &mut report) else {
        return report;
    };
    let credential = &config.credential;
    if let Kind::ApiKey(key) = &credential.kind {
        try_key(&config, key, &mut report).await;
        return report;
    }
    let store = Store::new(credential.store.clone());
    let record = store::examine(&store, &mut report);
    tokens::login(credential, &store, record.as_ref(), &mut report);
    let network = &config.upstream.network;
    let upstream = network::examine(
        &network::UPSTREAM,
        network,
        &config.upstream.origin,
        &mut report,
    )
    .await;
    let endpoint = match Origin::of(&credential.token_url) {
        Some(origin) if origin != config.upstream.origin => {
            let names = &network::TOKEN_ENDPOINT;
            let network = &credential.network;
            let reached = network::examine(names, network, &origin, &mut report).await;
            reached.map(drop)
        }
        // The same machine: proved already.
        _ => upstream.as_ref().map(drop).map_err(|unreached| *unreached),
    };
    let living = tokens::examine(credential, &store, record, endpoint, &mut report).await;
    let living = living.map(|record| Proof::Login(Box::new(record)));
    profile::examine(&config.upstream.origin, upstream, living, &mut report).await;
    report
}

/// An API key is proved by the request alone: there is neither a login nor a token endpoint.
async fn try_key(config: &Config, key: &Secret, report: &mut Report) {
    let upstream = &config.upstream;
    let way = network::examine(
        &network::UPSTREAM,
        &upstream.network,
        &upstream.origin,
        report,
    );
    let way = way.await;
    let proof = Proof::Key(key.clone());
    profile::examine(&upstream.origin, way, Ok(proof), report).await;
}

/// Without the application's credentials there is still something to check.
fn configuration(option: &ConfigOption, report: &mut Report) -> Option<Config> {
    const NAME: &str = "configuration";
    let complete = load(option, Need::Everything);
    let error = match complete {
        Ok(config) => {
            report.push(match Server::check(&config) {
                Ok(()) => Check::ok(NAME, source(&config)),
                Err(error) => {
                    Check::failed_with(NAME, &chain(&error.into()), "").of(Fault::Configuration)
                }
            });
            return Some(config);
        }
        Err(error) => error,
    };
    let advice = "correct it; proxy.toml in the source explains every key, and lucid-proxy check tells when it is accepted";
    let seen = chain(&error.into());
    report.push(Check::failed(NAME, seen, advice).of(Fault::Configuration));
    let config = load(option, Need::Store).ok()?;
    // Of a key that was not accepted there is nothing to check.
    matches!(config.credential.kind, Kind::OAuth).then_some(config)
}

fn source(config: &Config) -> String {
    match &config.file {
        Some(file) => file.display().to_string(),
        None => "the environment (no proxy.toml)".to_owned(),
    }
}
