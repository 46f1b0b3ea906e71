//! `lucid-proxy logout`: ends the login, at Lucid and here (rule T18).
//!
//! Under the lock, so that no rotation runs meanwhile, the grant is revoked first and its end written second: a pair that
//! is dead in the store does no harm, a grant that lives where nobody knows of it does. Where Lucid cannot be asked, the
//! login ends here all the same, and the person is told.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;

use super::{ConfigOption, Failure, Signals, chain, load_login, print};
use crate::clock;
use crate::config::{Config, Need, Problem};
use crate::token::answer::Introspection;
use crate::token::handover::{HandoverError, Turn};
use crate::token::record::Record;
use crate::token::refresher::{OpenError, Refresher};
use crate::token::store::Store;

/// How long to wait before saying for whom.
const SILENT: Duration = Duration::from_secs(1);
/// Longer than a rotation can hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(150);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load_login(option, Need::Store, "end")?;
    let store = Store::new(config.credential.store.clone());
    if let Some(nothing) = nothing_to_end(&store, store.read()?.as_ref()) {
        return print(&nothing);
    }
    store.probe()?;
    if !options.yes {
        confirm(&store)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(log_out(&config, &store))?;
    print(&done)
}

/// What is said where there is no login.
fn nothing_to_end(store: &Store, record: Option<&Record>) -> Option<String> {
    match record {
        None => Some(format!(
            "there is no login: {} does not exist",
            store.path().display()
        )),
        Some(record) => record.logged_out.map(|at| {
            let at = clock::utc(at);
            format!("there is no login: logged out at {at} already")
        }),
    }
}

fn confirm(store: &Store) -> Result<(), Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure {
            code: 2,
            error: anyhow!(
                "logout ends the login for every process that uses it, and there is no terminal to ask on; to do it: lucid-proxy logout --yes"
            ),
        });
    }
    let mut errors = std::io::stderr();
    write!(
        errors,
        "this ends the login in {} for every process that uses it; only a new login helps afterwards. Go on? [y/N] ",
        store.path().display()
    )?;
    errors.flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was changed").into()),
    }
}

/// Ends the login; what to say about it.
async fn log_out(config: &Config, store: &Store) -> Result<String, Failure> {
    let mut signals = Signals::new()?;
    let turn = tokio::select! {
        turn = take(store) => turn?,
        name = signals.next() => return Err(anyhow!("{name}: stopped; nothing was changed").into()),
    };
    // Another may have been quicker.
    if let Some(nothing) = nothing_to_end(store, turn.present()) {
        return Ok(nothing);
    }
    let record = turn.present().cloned();
    let revoked = tokio::select! {
        revoked = revoke(config, record.as_ref()) => revoked,
        // A person who is in a hurry still wants it ended.
        name = signals.next() => Err(format!("{name}: not waited for")),
    };
    let end = Record::logged_out(0, SystemTime::now());
    turn.put(end).with_context(|| match revoked {
        Ok(()) => {
            "Lucid has ended the login, but that could not be written down; its tokens are dead"
        }
        Err(_) => "the login could not be ended",
    })?;
    if let Err(why) = &revoked {
        warn(&format!(
            "Lucid may not have ended the login ({why}): whoever has a copy of its tokens could use it on; remove the application's access in the settings of your Lucid account, else it lasts until it is not used for 180 days"
        ));
    }
    let whose = if revoked.is_ok() { "" } else { " here" };
    Ok(format!(
        "logged out{whose}: {} has no tokens any more",
        store.path().display()
    ))
}

async fn take(store: &Store) -> Result<Turn<'_>, HandoverError> {
    match Turn::take(store, SILENT).await {
        Err(HandoverError::Locked { path, holder }) => {
            warn(&format!(
                "waiting up to {} s for {holder}, which holds {path} and may be refreshing the token",
                LOCK_WAIT.as_secs()
            ));
            Turn::take(store, LOCK_WAIT).await
        }
        taken => taken,
    }
}

/// Has the whole grant ended: at Lucid, any token of it stands for all. The reason where that is not known to be so.
async fn revoke(config: &Config, record: Option<&Record>) -> Result<(), String> {
    let Some(record) = record else {
        return Ok(());
    };
    let endpoint = Refresher::endpoint(&config.credential);
    let endpoint = endpoint.map_err(|error| match (error, unread_client(config)) {
        // What is missing was named, and is not this user's to read.
        (OpenError::NoClient, Some(unread)) => unread.to_string(),
        (error, _) => chain(&error.into()),
    })?;
    // A token that is dead already is revoked with success too (RFC 7009 section 2.2).
    let is_current = match &record.intent {
        None => true,
        Some(_) => matches!(
            endpoint.introspect(&record.refresh_token).await,
            Introspection::Active(_)
        ),
    };
    let revoked = endpoint.revoke(&record.refresh_token).await;
    revoked.map_err(|error| error.to_string())?;
    match &record.intent {
        Some(intent) if !is_current => Err(format!(
            "the rotation begun at {} has no known end, and if it took effect, the newest tokens are not known here",
            clock::utc(intent.last_sent())
        )),
        _ => Ok(()),
    }
}

/// The file of the OAuth client that could not be read, if that is so: others may be unread too, and are not missed here.
fn unread_client(config: &Config) -> Option<&Problem> {
    config.unread.iter().find(|unread| {
        let name = unread.key.rsplit('.').next();
        let is_of_client = |name: &str| ["client_id_file", "client_secret_file"].contains(&name);
        name.is_some_and(is_of_client)
    })
}

/// Tells the person, on standard error. One that is closed ends nothing.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "lucid-proxy: {text}");
}
