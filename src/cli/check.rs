//! `lucid-proxy check`: the configuration, without the network.

use super::{ConfigOption, Failure, chain, load, print};
use crate::config::{Config, Credential, Kind, Need, Network, Origin, Way};
use crate::server::Server;
use crate::token::record::Record;
use crate::token::scopes;
use crate::token::store::Store;
use crate::token::succession::{fingerprint, logged_out};

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let config = load(option, Need::Everything)?;
    Server::check(&config)?;
    let source = match &config.file {
        Some(file) => file.display().to_string(),
        None => "the environment (no proxy.toml)".to_owned(),
    };
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    print(&format!(
        "configuration  {source}: ok\nlisten         {}\nclients        {}\nworkers        {}\nupstream       {}{}\n{}",
        listen.join(", "),
        clients(&config),
        config.workers,
        config.upstream.origin,
        through(&config.upstream.network, &config.upstream.origin),
        credential(&config),
    ))
}

/// How requests are authenticated.
fn credential(config: &Config) -> String {
    let credential = &config.credential;
    if let Kind::ApiKey(_) = credential.kind {
        return "credential     an API key".to_owned();
    }
    format!(
        "token endpoint {}{}\nstore          {}\nlogin          {}",
        credential.token_url,
        Origin::of(&credential.token_url)
            .map(|origin| through(&credential.network, &origin))
            .unwrap_or_default(),
        credential.store.display(),
        login(credential),
    )
}

/// Who is served.
fn clients(config: &Config) -> String {
    if config.clients.is_empty() {
        return "whoever can connect, without a key".to_owned();
    }
    let names = config.clients.iter().map(|client| client.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// The proxy that requests go through, if they do.
fn through(network: &Network, origin: &Origin) -> String {
    match network.way_to(origin) {
        Way::Proxy(proxy) => format!(", through {proxy}"),
        _ => String::new(),
    }
}

/// Whether the token endpoint refused the login to the application that is configured (T9).
fn is_refused(record: &Record, credential: &Credential) -> bool {
    let (refusal, client) = (record.refusal.as_ref(), credential.client.as_ref());
    refusal
        .zip(client)
        .is_some_and(|(refusal, client)| refusal.client == fingerprint(client))
}

/// What the login lacks of what the configuration asks for. It is told, and is no fault of the configuration.
fn login(credential: &Credential) -> String {
    let record = match Store::new(credential.store.clone()).read() {
        Ok(Some(record)) => record,
        Ok(None) => return "none yet; run: lucid-proxy login".to_owned(),
        Err(error) => return format!("unknown: {}", chain(&error.into())),
    };
    let missing = scopes::missing(&credential.scopes, &record.scopes);
    match record.logged_out {
        Some(at) => logged_out(at),
        None if is_refused(&record, credential) => {
            "was refused; see: lucid-proxy status".to_owned()
        }
        None if !missing.is_empty() => scopes::advice(&missing),
        None if record.scopes.is_empty() => {
            "the token endpoint did not say which scopes it has".to_owned()
        }
        None => "has the scopes that the configuration asks for".to_owned(),
    }
}
