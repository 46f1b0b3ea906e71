//! From keys and values as they were written to a [`Config`] in final types, with every problem on the way.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{Found, Source, Table};
use super::{
    Client, Config, Credential, DEFAULT_CREDENTIAL, Environment, Guard, Log, LogFormat, Need,
    Origin, Replay, Scheme, Timeouts, Upstream, secrets, state_directory,
};

/// Takes every key out of the file and puts it, or its default, into its final type. Problems are left in `source`.
pub(super) fn check<'a>(
    source: &mut Source<'a>,
    mut root: Table<'a>,
    file: Option<PathBuf>,
    environment: &dyn Environment,
    need: Need,
) -> Config {
    let listen = root.addresses(source, "listen");
    let workers = root.count(source, "workers", 1..1025);
    let public_url = root.string(source, "public_url").and_then(|found| {
        let origin = Origin::parse(&found.value);
        if origin.is_none() {
            source.problem(
                Some(&found.at),
                &found.key,
                "expected a scheme, a host and maybe a port: \"https://lucid.internal\"",
            );
        }
        origin
    });
    let upstream = check_upstream(source, &mut root);
    let mut credentials = root.table(source, "credentials");
    let credential = credentials.table(source, DEFAULT_CREDENTIAL);
    let credential = check_credential(source, credential, file.as_deref(), environment, need);
    credentials.finish(source);
    let replay = check_replay(source, &mut root);
    let timeouts = check_timeouts(source, &mut root);
    let listen = listen.unwrap_or_else(|| {
        Found::implied("listen", vec![SocketAddr::from(([127, 0, 0, 1], 8118))])
    });
    let guard = check_guard(source, &mut root);
    let log = check_log(source, &mut root);
    root.finish(source);
    Config {
        file,
        listen: listen.value,
        workers: workers.map_or_else(one_per_core, |found| found.value),
        public_url,
        upstream,
        credential,
        replay,
        timeouts,
        guard,
        log,
    }
}

fn one_per_core() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_upstream<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Upstream {
    let mut table = root.table(source, "upstream");
    const LUCID: &str = "https://api.lucid.co";
    let url = table
        .string(source, "url")
        .unwrap_or_else(|| Found::implied("upstream.url", LUCID.to_owned()));
    let origin = Origin::parse(&url.value).unwrap_or_else(|| {
        source.problem(
            Some(&url.at),
            &url.key,
            format!("expected a scheme, a host and maybe a port, without a path: \"{LUCID}\""),
        );
        Origin {
            scheme: Scheme::Https,
            host: "api.lucid.co".to_owned(),
            port: 443,
        }
    });
    refuse_plain_http(source, &url, &origin);
    let upstream = Upstream {
        origin,
        connect_timeout: table
            .duration(source, "connect_timeout")
            .map_or(Duration::from_secs(10), |found| found.value),
        response_timeout: table
            .duration(source, "response_timeout")
            .map_or(Duration::from_secs(120), |found| found.value),
        idle_timeout: table
            .duration(source, "idle_timeout")
            .map_or(Duration::from_secs(60), |found| found.value),
    };
    table.finish(source);
    upstream
}

/// A token sent over plain HTTP to another machine can be read by everybody on the way.
fn refuse_plain_http(source: &mut Source<'_>, url: &Found<String>, origin: &Origin) {
    if origin.scheme == Scheme::Http && !origin.is_loopback() {
        source.problem(Some(&url.at), &url.key, "http:// is accepted for this machine only (localhost, 127.0.0.1, [::1]), since it would send secrets in the clear; use https://");
    }
}

fn check_credential<'a>(
    source: &mut Source<'a>,
    mut table: Table<'a>,
    file: Option<&Path>,
    environment: &dyn Environment,
    need: Need,
) -> Credential {
    let kind = table.string(source, "kind");
    if let Some(kind) = kind.filter(|kind| kind.value != "oauth") {
        source.problem(Some(&kind.at), &kind.key, "expected \"oauth\"");
    }
    let secrets = secrets::Secrets { file, environment };
    let required = need == Need::Everything;
    let id = secrets.take(source, &mut table, &secrets::CLIENT_ID, required);
    let secret = secrets.take(source, &mut table, &secrets::CLIENT_SECRET, required);
    let refresh_token = secrets.take(source, &mut table, &secrets::REFRESH_TOKEN, false);
    let token_url = table.string(source, "token_url").unwrap_or_else(|| {
        Found::implied("token_url", "https://api.lucid.co/oauth2/token".to_owned())
    });
    let token_url = check_token_url(source, &token_url);
    let store = table
        .string(source, "store")
        .map_or_else(|| "token_info.json".to_owned(), |found| found.value);
    let margin = table
        .duration(source, "refresh_margin")
        .map_or(Duration::from_secs(300), |found| found.value);
    let name = DEFAULT_CREDENTIAL.to_owned();
    table.finish(source);
    Credential {
        name,
        client: id.zip(secret).map(|(id, secret)| Client {
            id: secrets::plain(&id),
            secret,
        }),
        refresh_token,
        token_url,
        store: state_directory(environment).join(store),
        refresh_margin: margin,
    }
}

fn check_token_url(source: &mut Source<'_>, found: &Found<String>) -> http::Uri {
    let uri = found.value.parse::<http::Uri>().ok();
    let origin = uri.as_ref().and_then(Origin::of);
    match (uri, origin) {
        (Some(uri), Some(origin)) => {
            refuse_plain_http(source, found, &origin);
            uri
        }
        _ => {
            source.problem(
                Some(&found.at),
                &found.key,
                "expected a URL: \"https://api.lucid.co/oauth2/token\"",
            );
            http::Uri::default()
        }
    }
}

fn check_replay<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Replay {
    let mut table = root.table(source, "replay");
    const MOST: u64 = 1 << 30;
    let memory = match table.size(source, "memory") {
        Some(found) if found.value > MOST => {
            source.problem(
                Some(&found.at),
                &found.key,
                "at most \"1 GiB\" is accepted, since each request may take that much",
            );
            MOST
        }
        Some(found) => found.value,
        None => 1 << 20,
    };
    table.finish(source);
    Replay {
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
    }
}

fn check_timeouts<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Timeouts {
    let mut table = root.table(source, "timeouts");
    let mut bound = |name, seconds| {
        table
            .duration(source, name)
            .map_or(Duration::from_secs(seconds), |found| found.value)
    };
    let timeouts = Timeouts {
        first_request: bound("first_request", 30),
        idle: bound("idle", 75),
        token: bound("token", 30),
        body: bound("body", 120),
        drain: bound("drain", 30),
    };
    table.finish(source);
    timeouts
}

fn check_guard<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Guard {
    let mut table = root.table(source, "guard");
    let hosts = table.strings(source, "allow_hosts");
    let allow_unauthenticated = table
        .boolean(source, "allow_unauthenticated")
        .is_some_and(|found| found.value);
    let allow_hosts = hosts.map_or_else(Vec::new, |found| {
        for host in &found.value {
            if host.parse::<http::uri::Authority>().is_err() || host.contains(['@', '*']) {
                source.problem(Some(&found.at), &found.key, "expected exact host names, each with its port unless that is 80, such as [\"lucid.internal:8118\"]");
            }
        }
        found.value.iter().map(|host| host.to_ascii_lowercase()).collect()
    });
    table.finish(source);
    Guard {
        allow_hosts,
        allow_unauthenticated,
    }
}

fn check_log<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Log {
    let mut table = root.table(source, "log");
    let format = match table.string(source, "format") {
        Some(found) => match found.value.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => {
                source.problem(Some(&found.at), &found.key, "expected \"text\" or \"json\"");
                LogFormat::Text
            }
        },
        None => LogFormat::Text,
    };
    let requests = table
        .boolean(source, "requests")
        .is_some_and(|found| found.value);
    table.finish(source);
    Log { format, requests }
}
