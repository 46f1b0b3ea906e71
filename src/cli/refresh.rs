//! `lucid-proxy refresh`: a new pair now, because a person wants one.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use super::times::local;
use super::{ConfigOption, Failure, grant, load_login, print, start_logging_for_scripts};
use crate::config::Need;
use crate::token::store::{Store, StoreError};

/// Until another process lets go of the lock, and then until an answer is given up: people wait for what they asked for.
const PATIENCE: Duration = Duration::from_secs(105);

/// What a rotation does to everybody else.
const CONSEQUENCES: &str = "a refresh ends the access token that they have: running proxies take the new one over by themselves and send a request that meets a 401 once more, but a token that `lucid-proxy token` has printed, or a copy of the token file, is dead then";

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Do not ask, even when other processes use the login
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load_login(option, Need::Everything, "refresh")?;
    start_logging_for_scripts();
    let patience = config.timeouts.token.max(PATIENCE);
    let (grant, refresher) = grant::open(&config, patience)?;
    if let Some(message) = refresher.login_needed() {
        return Err(Failure::login_needed(message));
    }
    let store = Store::new(config.credential.store.clone());
    // Before the refresher runs, since that announces that it uses the login too.
    let others = others(&store)?;
    if let Some(others) = others.filter(|_| !options.yes) {
        consent(&others)?;
    }
    let generation = grant::ask(refresher, grant.rotate())?;
    print(&outcome(&store, generation)?)
}

/// Who else uses the login now, in words.
fn others(store: &Store) -> Result<Option<String>, StoreError> {
    let path = store.path().display();
    if let Some(holder) = store.lock_holder()? {
        return Ok(Some(format!(
            "{holder} holds the lock of {path} and may be refreshing it right now"
        )));
    }
    let in_use = store.is_in_use()?;
    Ok(in_use.then(|| format!("other processes use the login in {path} now")))
}

/// Asks whoever sits at the terminal.
fn consent(others: &str) -> Result<(), Failure> {
    let asked = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !asked {
        return Err(anyhow!(
            "{others}; {CONSEQUENCES}; nothing was done; to refresh all the same: lucid-proxy refresh --yes"
        )
        .into());
    }
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{others}; {CONSEQUENCES}.\nRefresh now? [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was done").into()),
    }
}

/// What was stored, read again: a new pair is worth saying so only when it lasts.
fn outcome(store: &Store, generation: u64) -> Result<String, Failure> {
    let stored = store.read()?;
    let stored = stored.filter(|stored| stored.generation >= Some(generation));
    let Some(stored) = stored else {
        return Err(anyhow!(
            "there is a new token, but it could not be stored in {}; see the log above",
            store.path().display()
        )
        .into());
    };
    Ok(format!(
        "refreshed: generation {}, the access token expires {}",
        stored.generation.unwrap_or(generation),
        local(stored.expires_at)
    ))
}
