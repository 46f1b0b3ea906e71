//! `lucid-proxy ca`: the local certificate authority that intercepted programs trust.

use std::io::Write;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Subcommand;
use tracing::level_filters::LevelFilter;

use super::times::local;
use super::{ConfigOption, Failure, load, print};
use crate::config::{Intercept, LogFormat, Need, ProcessEnvironment};
use crate::intercept::Authority;
use crate::intercept::authority::Kept;
use crate::telemetry;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print where the certificate is, and nothing else; it is made where there is none yet
    Path,
    /// Show the certificate: for which hosts, its fingerprint, until when, where
    Show,
    /// Make a new one. Whoever trusts the old one has to be told
    Renew,
}

pub(super) const HELP: &str = "\
It is made on first use and renewed when a third of its year is left; each set of
intercept.hosts has one of its own. A running serve takes a new one over. It can vouch for those hosts and the names
below theirs, and for nothing else.
lucid-proxy never installs it anywhere: programs are given it for themselves.";

/// Standard error says what `ca renew` does not do.
const RENEWED: &str = "a new certificate authority is made, and a running serve takes it over; programs that exec has started go on with the old one; replace the certificate wherever you have installed it, and begin shells that env has prepared anew";

pub(super) fn run(option: &ConfigOption, command: Command) -> Result<(), Failure> {
    // A damaged key is told of here, where it would be a line of the log elsewhere.
    telemetry::start(LogFormat::Text, LevelFilter::WARN, &ProcessEnvironment);
    let Intercept {
        hosts, directory, ..
    } = load(option, Need::Store)?.intercept;
    let now = SystemTime::now();
    match command {
        Command::Path => {
            let authority = Authority::open(&directory, &hosts, now)?;
            print(&authority.path().display().to_string())
        }
        Command::Show => match Authority::kept(&directory, &hosts)? {
            Kept::Whole(authority) => print(&shown(&authority, &hosts, now)),
            Kept::Nothing => Err(anyhow!(
                "there is no certificate authority for these hosts in {} yet; it is made on first use, or by: lucid-proxy ca path",
                directory.display()
            )
            .into()),
            Kept::Damaged => Err(anyhow!(
                "{} is damaged, or not of this program's making; a new one is made on the next use, or by: lucid-proxy ca renew",
                Authority::key_path(&directory, &hosts).display()
            )
            .into()),
        },
        Command::Renew => {
            let authority = Authority::renew(&directory, &hosts, now)?;
            let _ = writeln!(std::io::stderr(), "lucid-proxy: {RENEWED}");
            print(&shown(&authority, &hosts, now))
        }
    }
}

/// In seconds.
const DAY: u64 = 24 * 60 * 60;

/// One fact a line.
fn shown(authority: &Authority, hosts: &[String], now: SystemTime) -> String {
    let validity = authority.validity();
    let left = match validity.end.duration_since(now) {
        Ok(left) => format!("{} days left", left.as_secs() / DAY),
        Err(_) => "over".to_owned(),
    };
    let next = match authority.renewal(hosts, now) {
        Some(why) => format!("a new one is made on the next use: {}", why.now()),
        None => "in use".to_owned(),
    };
    let facts = [
        ("subject", authority.subject().to_owned()),
        (
            "hosts",
            format!("{}, and names below", authority.hosts().join(", ")),
        ),
        (
            "fingerprint",
            format!("SHA-256 {}", authority.fingerprint()),
        ),
        ("from", local(validity.begin)),
        ("until", format!("{} ({left})", local(validity.end))),
        ("state", next),
        ("certificate", authority.path().display().to_string()),
        ("key", authority.key().display().to_string()),
    ];
    let line = |(name, value): (&str, String)| format!("{name:<15}{value}");
    facts.map(line).join("\n")
}
