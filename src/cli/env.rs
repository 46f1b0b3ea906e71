//! `lucid-proxy env`: the variables of `exec`, for programs that are started elsewhere and come to a running `serve`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;

use super::exec::trust;
use super::{ConfigOption, Failure, load, print, start_logging_for_scripts};
use crate::config::{
    Address, CLIENT_NAME, Config, Need, ProcessEnvironment, from_this_machine, is_client_name,
};
use crate::intercept::Authority;
use crate::intercept::environment::{Changes, Way, changes};
use crate::intercept::program_files::{Contents, Files};
use crate::secret::Zeroizing;

/// What the variables name lies here, below the state directory.
const DIRECTORY: &str = "programs";
/// Longer than an answer on this machine takes.
const LOOK: Duration = Duration::from_secs(1);
/// More than a key has, and a line break.
const LONGEST_KEY: u64 = 4096;

pub(super) const HELP: &str = "\
Example, with [intercept] enabled = true in proxy.toml and lucid-proxy serve running:
  eval \"$(lucid-proxy env)\"
  python3 report.py

Run it again after lucid-proxy ca renew. A program for which that is all of it: lucid-proxy exec, which needs no
running proxy.";

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Where serve listens, if it was told with --listen
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The client of [clients] that programs are; its key is read from --key-file
    #[arg(long, value_name = "NAME", requires = "key_file", value_parser = client_name)]
    client: Option<String>,
    /// The file with that client's key, - for standard input
    #[arg(long, value_name = "FILE", requires = "client")]
    key_file: Option<PathBuf>,
}

fn client_name(name: &str) -> Result<String, String> {
    match is_client_name(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("expected a name of {CLIENT_NAME}")),
    }
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let config = load(option, Need::Store)?;
    start_logging_for_scripts();
    if !config.intercept.enabled {
        return Err(anyhow!(
            "interception is off, so that a running proxy would refuse what programs send; write enabled = true under [intercept] into proxy.toml and start lucid-proxy serve again, or use lucid-proxy exec, which needs neither"
        )
        .into());
    }
    let proxy = address(&config, options.listen)?;
    let key = key(&config, &options)?;
    let login = options.client.as_deref().zip(key.as_ref());
    let files = write_files(&config)?;
    let way = Way {
        proxy,
        login: login.map(|(name, key)| (name, key.as_str())),
        base: Some(proxy),
        // Java sends no login.
        java: login.is_none().then_some(proxy),
        hosts: &config.intercept.hosts,
        files: &files,
    };
    // The shell is the person's own, with all that is in it.
    print(&lines(&changes(&way, &ProcessEnvironment, &[])))?;
    say(&config, proxy);
    Ok(())
}

/// What a person has to know, who may have closed standard error.
fn say(config: &Config, proxy: SocketAddr) {
    let mut errors = std::io::stderr();
    if TcpStream::connect_timeout(&proxy, LOOK).is_err() {
        let _ = writeln!(
            errors,
            "# nothing listens on {proxy} yet; start it with: lucid-proxy serve"
        );
    }
    if !config.clients.is_empty() {
        let _ = writeln!(
            errors,
            "# Java sends no key to a proxy: for programs in Java use lucid-proxy exec"
        );
    }
}

/// Where programs of this machine reach `serve` in the clear.
fn address(config: &Config, told: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    let plain = config.listen.iter().filter(|listen| listen.tls.is_none());
    let mut plain = plain.filter_map(|listen| match listen.address {
        Address::Tcp(address) => Some(address),
        _ => None,
    });
    let address = told.or_else(|| plain.next()).ok_or_else(|| {
        anyhow!("serve listens on no address with plain HTTP, which is what programs ask of a proxy; add one such as \"127.0.0.1:8118\" to listen")
    })?;
    if address.port() == 0 {
        return Err(anyhow!(
            "serve takes any free port; name the one that it has printed: --listen 127.0.0.1:PORT"
        )
        .into());
    }
    Ok(from_this_machine(address))
}

fn key(config: &Config, options: &Options) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(file) = &options.key_file else {
        return match config.clients.is_empty() {
            true => Ok(None),
            false => Err(anyhow!(
                "clients have keys here; say which one the programs are with --client NAME and --key-file FILE"
            )
            .into()),
        };
    };
    let mut text = Zeroizing::new(String::new());
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(LONGEST_KEY).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|opened| opened.take(LONGEST_KEY).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read the key in {}", file.display()))?;
    let key = text.trim();
    // What stands for itself in a URL (RFC 3986 section 2.3), as the keys of `key new` do.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if key.is_empty() || !key.bytes().all(is_plain) {
        return Err(anyhow!(
            "{} holds no key that can stand in a URL: letters, digits and -._~ are accepted, as lucid-proxy key new makes them",
            file.display()
        )
        .into());
    }
    Ok(Some(Zeroizing::new(key.to_owned())))
}

fn write_files(config: &Config) -> Result<Files, Failure> {
    let intercept = &config.intercept;
    let authority = Authority::open(&intercept.directory, &intercept.hosts, SystemTime::now())?;
    let trust = trust(&authority);
    let directory = std::path::absolute(intercept.directory.join(DIRECTORY))
        .unwrap_or_else(|_| intercept.directory.join(DIRECTORY));
    let files = Files::in_directory(&directory);
    let contents = Contents {
        bundle: &trust.bundle(),
        java: &trust.java(),
        hosts: &intercept.hosts,
    };
    make_private(&directory)
        .and_then(|()| files.write(&contents, &ProcessEnvironment))
        .with_context(|| format!("cannot write into {}", directory.display()))?;
    Ok(files)
}

fn make_private(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// For a POSIX shell.
fn lines(changes: &Changes) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(16 << 10));
    for (name, value) in changes {
        match value {
            Some(value) => {
                text.push_str("export ");
                text.push_str(name);
                text.push_str("='");
                // A quote ends the word, stands for itself, and begins it again.
                text.push_str(&value.replace('\'', "'\\''"));
                text.push_str("'\n");
            }
            None => {
                text.push_str("unset ");
                text.push_str(name);
                text.push('\n');
            }
        }
    }
    // The last line break is added where it is printed.
    text.pop();
    text
}
