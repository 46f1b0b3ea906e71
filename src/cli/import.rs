//! `lucid-proxy import`: a login that was made elsewhere becomes ours.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;

use super::{ConfigOption, Failure, load, print, store_failure};
use crate::config::Need;
use crate::secret::Secret;
use crate::token::record::Record;
use crate::token::store::{Lock, Store};

/// More than any token file or refresh token.
const LARGEST: u64 = 1 << 20;
/// Longer than a rotation usually takes.
const LOCK_WAIT: Duration = Duration::from_secs(15);
const LOCK_POLL: Duration = Duration::from_millis(50);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The token_info.json of Lucid's example script, or - for a refresh token (or such a file) on
    /// standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a login that may still work
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load(option, Need::Store)?;
    let imported = read(&options.file)?;
    let store = Store::new(config.credential.store.clone());
    store.probe()?;
    let _lock = lock(&store)?;
    let present = store.read().map_err(store_failure)?;
    let generation = next_generation(present.as_ref(), &imported, &options, &store)?;
    store.write(&Record {
        generation: Some(generation),
        ..imported
    })?;
    print(&format!(
        "imported into {}; a running proxy takes it over within half a minute, else start one: lucid-proxy serve",
        store.path().display()
    ))
}

fn next_generation(
    present: Option<&Record>,
    imported: &Record,
    options: &Options,
    store: &Store,
) -> Result<u64, Failure> {
    let Some(present) = present else {
        return Ok(imported.generation.unwrap_or(1).max(1));
    };
    if present.same_tokens(imported) && present.refusal.is_none() {
        return Err(anyhow!(
            "{} has this refresh token already; nothing was changed",
            store.path().display()
        )
        .into());
    }
    if present.refusal.is_none() && !options.replace {
        return Err(anyhow!(
            "{} holds a login that may still work; nothing was changed; to replace it: lucid-proxy import --replace {}",
            store.path().display(),
            options.file.display()
        )
        .into());
    }
    Ok(present
        .generation
        .unwrap_or(1)
        .max(imported.generation.unwrap_or(0))
        .saturating_add(1))
}

fn lock(store: &Store) -> Result<Lock, Failure> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        if let Some(lock) = store.try_lock()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            let message =
                "another process is refreshing the token right now; nothing was changed; try again";
            return Err(anyhow!("{message} ({} is locked)", store.lock_path().display()).into());
        }
        std::thread::sleep(LOCK_POLL);
    }
}

fn read(file: &std::path::Path) -> Result<Record, Failure> {
    let (name, content) = if file.as_os_str() == "-" {
        (
            "standard input".to_owned(),
            read_bounded(std::io::stdin().lock())?,
        )
    } else {
        let name = file.display().to_string();
        let opened = std::fs::File::open(file).with_context(|| format!("cannot read {name}"))?;
        let content = read_bounded(opened).with_context(|| format!("cannot read {name}"))?;
        (name, content)
    };
    let trimmed = content.trim_ascii();
    if file.as_os_str() == "-" && !trimmed.starts_with(b"{") {
        return from_refresh_token(trimmed);
    }
    let record = Record::from_json(&content);
    let record = record.map_err(|error| {
        anyhow!(
            "cannot import {name}: {error}; expected the token_info.json of Lucid's example script"
        )
    })?;
    // What another program's rotations left half done is not ours.
    Ok(Record {
        intent: None,
        refusal: None,
        last_error: None,
        ..record
    })
}

fn from_refresh_token(token: &[u8]) -> Result<Record, Failure> {
    let visible = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let token = std::str::from_utf8(token).ok().filter(|_| visible);
    let token = token.ok_or_else(|| {
        anyhow!(
            "standard input is not a refresh token: expected one word of visible ASCII characters"
        )
    })?;
    Ok(Record::from_refresh_token(
        Secret::from(token),
        SystemTime::now(),
    ))
}

fn read_bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}
