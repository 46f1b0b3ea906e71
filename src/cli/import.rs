//! `lucid-proxy import`: a login that was made elsewhere becomes ours.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;

use super::{ConfigOption, Failure, load_login, print};
use crate::clock;
use crate::config::Need;
use crate::secret::{ExposeSecret, Secret, Zeroizing, is_one_word};
use crate::token::handover;
use crate::token::placeholder::Placeholder;
use crate::token::record::Record;
use crate::token::store::Store;

/// More than any token file or refresh token.
const LARGEST: u64 = 1 << 20;
/// More than what Lucid's script or this program writes.
const USUAL: usize = 64 << 10;
/// Longer than a rotation usually takes.
const LOCK_WAIT: Duration = Duration::from_secs(15);

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
    let config = load_login(option, Need::Store, "replace")?;
    let imported = read(&options.file)?;
    let store = Store::new(config.credential.store.clone());
    store.probe()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let put = handover::put(&store, LOCK_WAIT, |present| {
        may_replace(present, &imported, &options, &store)?;
        Ok(imported)
    });
    runtime.block_on(put)?;
    let next = match store.is_in_use() {
        Ok(true) => "the running proxy takes it over now",
        _ => "to use it: lucid-proxy serve",
    };
    print(&format!(
        "imported into {}; it is tried at its first use, and no other program must refresh with its own copy from now on; {next}",
        store.path().display()
    ))
}

/// Whether the present login gives way; the reason why not.
fn may_replace(
    present: Option<&Record>,
    imported: &Record,
    options: &Options,
    store: &Store,
) -> Result<(), String> {
    let present = present.filter(|present| !present.is_over());
    match present {
        Some(present) if present.same_tokens(imported) => Err(format!(
            "{} has this refresh token already; nothing was changed",
            store.path().display()
        )),
        Some(_) if !options.replace => Err(format!(
            "{} holds a login that may still work; nothing was changed; to replace it: lucid-proxy import --replace {}",
            store.path().display(),
            options.file.display()
        )),
        _ => Ok(()),
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
    if let Some(at) = record.logged_out {
        let at = clock::utc(at);
        return Err(
            anyhow!("cannot import {name}: it was logged out at {at} and holds no login").into(),
        );
    }
    let access_token = &record.access_token;
    let has_access_token = !access_token.expose_secret().is_empty();
    if !is_one_word(&record.refresh_token) || has_access_token && !is_one_word(access_token) {
        return Err(anyhow!("cannot import {name}: a token in it has characters that no header may carry; expected visible ASCII").into());
    }
    // What another program's rotations left half done is not ours.
    Ok(Record {
        intent: None,
        refusal: None,
        last_error: None,
        ..record
    })
}

fn from_refresh_token(token: &[u8]) -> Result<Record, Failure> {
    let token = std::str::from_utf8(token).ok().map(Secret::from);
    let token = token.filter(is_one_word).ok_or_else(|| {
        anyhow!(
            "standard input is not a refresh token: expected one word of visible ASCII characters"
        )
    })?;
    if Placeholder::of(token.expose_secret()).is_some() {
        return Err(anyhow!("standard input is a placeholder, which a lucid-proxy gave to a program that refreshes by itself; expected a refresh token of Lucid's").into());
    }
    Ok(Record::from_refresh_token(token, SystemTime::now()))
}

fn read_bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // With room for what people import: where it has to grow, it leaves a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(USUAL));
    from.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}
