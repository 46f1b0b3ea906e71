//! `lucid-proxy check`: the configuration, without the network.

use std::fmt::Display;
use std::path::Path;

use bytesize::ByteSize;

use super::{ConfigOption, Failure, chain, load, print};
use crate::config::{
    Config, Credential, Intercept, Kind, Limits, Need, Network, Origin, Rule, Rules, Way,
    readers_of,
};
use crate::server::Server;
use crate::token::record::Record;
use crate::token::scopes;
use crate::token::store::Store;
use crate::token::succession::{fingerprint, logged_out};

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let config = load(option, Need::Check)?;
    let mut lines = Lines::default();
    lines.add("configuration", format!("{}: ok", source(&config)));
    for unread in &config.unread {
        lines.add("not looked at", unread);
    }
    check_listeners(&config, &mut lines)?;
    for warning in &config.warnings {
        lines.add("warning", warning);
    }
    lines.add("listen", list(&config.listen));
    lines.add("clients", clients(&config));
    lines.add("hosts", hosts(&config));
    lines.add("pages", pages(&config));
    rules(&config, &mut lines);
    lines.add("limits", limits(&config.limits));
    lines.add("workers", config.workers);
    let upstream = &config.upstream;
    let way = through(&upstream.network, &upstream.origin);
    lines.add("upstream", format!("{}{way}", upstream.origin));
    if config.intercept.enabled {
        lines.add("intercepts", intercept(&config.intercept));
    }
    credential(&config.credential, option.config.as_deref(), &mut lines);
    print(&lines.0)
}

/// What is printed: a word and what is to be said of it, a line each.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, word: &str, text: impl Display) {
        let end = if self.0.is_empty() { "" } else { "\n" };
        self.0 += &format!("{end}{word:<14} {text}");
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

fn source(config: &Config) -> String {
    match &config.file {
        Some(file) => file.display().to_string(),
        None => "the environment (no proxy.toml)".to_owned(),
    }
}

/// Each by itself: that the certificate of one is for the service alone says nothing of the others.
fn check_listeners(config: &Config, lines: &mut Lines) -> Result<(), Failure> {
    for listen in &config.listen {
        let alone = Config {
            listen: vec![listen.clone()],
            ..config.clone()
        };
        match Server::check(&alone) {
            Err(error) if error.is_for_want_of_rights() => {
                lines.add("not looked at", chain(&error.into()));
            }
            checked => checked?,
        }
        let key = listen.tls.as_ref().map(|files| files.key.as_path());
        if let Some(warning) = key.and_then(|key| readers_of("private key", key)) {
            lines.add("warning", warning);
        }
    }
    Ok(())
}

/// How requests are authenticated. What is advised is for the configuration that was `named`, if one was.
fn credential(credential: &Credential, named: Option<&Path>, lines: &mut Lines) {
    if let Kind::ApiKey(_) = credential.kind {
        return lines.add("credential", "an API key");
    }
    let way = Origin::of(&credential.token_url)
        .map(|origin| through(&credential.network, &origin))
        .unwrap_or_default();
    lines.add("token endpoint", format!("{}{way}", credential.token_url));
    lines.add("store", credential.store.display());
    lines.add("login", with_option(login(credential), named));
}

/// Commands that are advised, with the option that names the same configuration.
fn with_option(mut advice: String, named: Option<&Path>) -> String {
    let Some(file) = named.map(|file| file.display().to_string()) else {
        return advice;
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let file = match file.chars().all(is_plain) {
        true => file,
        false => format!("'{}'", file.replace('\'', r"'\''")),
    };
    for command in ["lucid-proxy login", "lucid-proxy status"] {
        advice = advice.replace(command, &format!("{command} --config {file}"));
    }
    advice
}

/// What programs get that use the listeners as their proxy.
fn intercept(intercept: &Intercept) -> String {
    let hosts = intercept.hosts.join(", ");
    let tunnels = intercept.tunnels.iter();
    let tunnels: Vec<_> = tunnels
        .map(|(host, port)| format!("{host}:{port}"))
        .collect();
    match tunnels.as_slice() {
        [] => hosts,
        tunnels => format!("{hosts}; leads to {}", list(tunnels)),
    }
}

/// Who is served.
fn clients(config: &Config) -> String {
    if config.clients.is_empty() {
        return "whoever can connect, without a key".to_owned();
    }
    let names = config.clients.iter().map(|client| client.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// By which names the proxy may be asked.
fn hosts(config: &Config) -> String {
    match config.guard.allow_hosts.as_slice() {
        [] => "its own addresses".to_owned(),
        hosts => format!("its own addresses, {}", list(hosts)),
    }
}

/// Which web pages may ask.
fn pages(config: &Config) -> String {
    match config.guard.allow_origins.as_slice() {
        [] => "none".to_owned(),
        origins => list(origins),
    }
}

/// What requests may do: a line for all, and one for each client that has rules of its own.
fn rules(config: &Config, lines: &mut Lines) {
    lines.add("rules", permitted(&config.guard.rules));
    let own = config.clients.iter();
    for client in own.filter(|client| !client.rules.are_none()) {
        let rules = permitted(&client.rules);
        lines.add("", format!("and for {}: {rules}", client.name));
    }
}

fn permitted(rules: &Rules) -> String {
    if rules.are_none() {
        return "none: everything that the login may".to_owned();
    }
    let named = |rules: &[Rule]| match rules {
        [] => "nothing".to_owned(),
        rules => list(&rules.iter().map(|rule| &rule.text).collect::<Vec<_>>()),
    };
    let mut said = Vec::new();
    if rules.read_only {
        said.push("read_only".to_owned());
    }
    if let Some(allow) = &rules.allow {
        said.push(format!("allow {}", named(allow)));
    }
    if !rules.deny.is_empty() {
        said.push(format!("deny {}", named(&rules.deny)));
    }
    said.join("; ")
}

/// The limits that are not the usual ones.
fn limits(limits: &Limits) -> String {
    let usual = Limits::default();
    let count =
        |name, now: usize, usual| (now != usual).then(|| format!("{name} {now} (usually {usual})"));
    let size = |name, now: usize, usual: usize| {
        let shown = |bytes| ByteSize::b(bytes as u64).display();
        (now != usual).then(|| format!("{name} {} (usually {})", shown(now), shown(usual)))
    };
    let (head, usual_head) = (&limits.head, &usual.head);
    let changed: Vec<_> = [
        count("connections", limits.connections, usual.connections),
        count(
            "connections_per_address",
            limits.connections_per_address,
            usual.connections_per_address,
        ),
        count("requests", limits.requests, usual.requests),
        size("header_bytes", head.bytes, usual_head.bytes),
        count("headers", head.fields, usual_head.fields),
        size("uri_bytes", head.target, usual_head.target),
    ]
    .into_iter()
    .flatten()
    .collect();
    match changed.as_slice() {
        [] => "the usual ones".to_owned(),
        changed => list(changed),
    }
}

/// The proxy that requests go through, if they do.
fn through(network: &Network, origin: &Origin) -> String {
    match network.way_to(origin) {
        Way::Proxy(proxy) => format!(", through {proxy}"),
        Way::Unknown(_) => ", through a proxy that is not known from here".to_owned(),
        Way::Direct(_) => String::new(),
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
