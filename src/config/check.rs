//! From keys and values as they were written to a [`Config`] in final types, with every problem on the way.

use std::path::PathBuf;
use std::time::Duration;

use super::raw::{Found, Source, Table};
use super::{
    Client, Config, Credential, DEFAULT_CREDENTIAL, Environment, Hooks, HttpVersions, Kind, Log,
    LogFormat, Need, Network, OAuth2Endpoint, Origin, RedirectUrl, Scheme, Timeouts, Upstream,
    api_key, clients, guard, intercept, limits, listen, replay, secrets, state_directory,
};

/// Takes every key out of the file and puts it, or its default, into its final type. Problems are left in `source`.
pub(super) fn check<'a>(
    source: &mut Source<'a>,
    mut root: Table<'a>,
    file: Option<PathBuf>,
    environment: &dyn Environment,
    need: Need,
) -> Config {
    let listen = listen::check(source, &mut root, environment);
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
    let mut secrets = secrets::Secrets::new(file.as_deref(), environment, need);
    let upstream = check_upstream(source, &mut root, &mut secrets, need);
    let clients = clients::check(source, &mut root, &mut secrets);
    let mut credentials = root.table(source, "credentials");
    let credential = credentials.table(source, DEFAULT_CREDENTIAL);
    let credential = Credential {
        network: upstream.network.clone(),
        ..check_credential(source, credential, secrets, need)
    };
    if need != Need::Store {
        let token_endpoint = match credential.kind {
            Kind::OAuth => Origin::of(&credential.token_url),
            Kind::ApiKey(_) => None,
        };
        for origin in [Some(&upstream.origin), token_endpoint.as_ref()]
            .into_iter()
            .flatten()
        {
            upstream.network.check_way_to(origin, source);
        }
    }
    credentials.finish(source);
    let replay = replay::check(source, &mut root, environment);
    let timeouts = check_timeouts(source, &mut root);
    let has_tls = listen.iter().any(|listen| listen.tls.is_some());
    let intercept = intercept::check(source, &mut root, &upstream.origin, environment);
    // What comes through a tunnel is TLS too.
    let limits = limits::check(source, &mut root, has_tls || intercept.enabled);
    let guard = guard::check(source, &mut root, !clients.is_empty());
    let log = check_log(source, &mut root);
    root.finish(source);
    Config {
        file,
        listen,
        workers: workers.map_or_else(one_per_core, |found| found.value),
        public_url,
        upstream,
        credential,
        replay,
        timeouts,
        limits,
        guard,
        clients,
        intercept,
        log,
        unread: Vec::new(),
        warnings: Vec::new(),
    }
}

fn one_per_core() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_upstream<'a>(
    source: &mut Source<'a>,
    root: &mut Table<'a>,
    secrets: &mut secrets::Secrets<'_>,
    need: Need,
) -> Upstream {
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
        http: check_http(source, &mut table),
        network: Network::check(source, &mut table, secrets, need != Need::Store),
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

fn check_http<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> HttpVersions {
    let Some(found) = table.string(source, "http") else {
        return HttpVersions::Auto;
    };
    match found.value.as_str() {
        "auto" => HttpVersions::Auto,
        "1" => HttpVersions::Http1,
        "2" => HttpVersions::Http2,
        _ => {
            let expected = "expected \"auto\", \"1\" or \"2\"";
            source.problem(Some(&found.at), &found.key, expected);
            HttpVersions::Auto
        }
    }
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
    mut secrets: secrets::Secrets<'_>,
    need: Need,
) -> Credential {
    let kind = api_key::check_kind(source, &mut table, &mut secrets);
    let environment = secrets.environment();
    let is_oauth = matches!(kind, Kind::OAuth);
    let required = is_oauth && need != Need::Store;
    let id = secrets.take(source, &mut table, &secrets::CLIENT_ID, required);
    let secret = secrets.take(source, &mut table, &secrets::CLIENT_SECRET, required);
    let refresh_token = secrets.take(source, &mut table, &secrets::REFRESH_TOKEN, false);
    let store = table
        .string(source, "store")
        .map_or_else(|| "token_info.json".to_owned(), |found| found.value);
    let credential = Credential {
        name: DEFAULT_CREDENTIAL.to_owned(),
        kind,
        client: id
            .zip(secret)
            .filter(|_| is_oauth)
            .map(|(id, secret)| Client {
                id: secrets::plain(&id),
                secret,
            }),
        refresh_token: refresh_token.filter(|_| is_oauth),
        token_url: check_url(
            source,
            &mut table,
            "token_url",
            "https://api.lucid.co/oauth2/token",
        ),
        network: Network::default(),
        authorize_url: check_url(
            source,
            &mut table,
            "authorize_url",
            "https://lucid.app/oauth2/authorize",
        ),
        redirect_url: check_redirect_url(source, &mut table),
        scopes: check_scopes(source, &mut table),
        pkce: table
            .boolean(source, "pkce")
            .is_none_or(|found| found.value),
        store: state_directory(environment).join(store),
        refresh_margin: table
            .duration(source, "refresh_margin")
            .map_or(Duration::from_secs(300), |found| found.value),
        rotate_idle_after: check_rotate_idle_after(source, &mut table),
        oauth2_endpoint: check_oauth2_endpoint(source, &mut table),
        hooks: Hooks {
            login_needed: check_hook(source, &mut table, "on_login_needed"),
            rotated: check_hook(source, &mut table, "on_rotated"),
        },
        secret_variables: secrets.into_variables(),
    };
    table.finish(source);
    credential
}

/// A URL that secrets are sent to, or come back to: over TLS, or on this machine.
fn check_url<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    name: &'static str,
    usual: &'static str,
) -> http::Uri {
    let found = table
        .string(source, name)
        .unwrap_or_else(|| Found::implied(name, usual.to_owned()));
    let uri = found.value.parse::<http::Uri>().ok();
    // `http::Uri` drops a fragment in silence; none of these may have one (RFC 6749 sections 3.1 and 3.1.2).
    let uri = uri.filter(|_| !found.value.contains('#'));
    let origin = uri.as_ref().and_then(Origin::of);
    match (uri, origin) {
        (Some(uri), Some(origin)) => {
            refuse_plain_http(source, &found, &origin);
            uri
        }
        _ => {
            let message = format!("expected a URL: \"{usual}\"");
            source.problem(Some(&found.at), &found.key, message);
            http::Uri::default()
        }
    }
}

/// Where a code comes back to: over TLS, or on this machine.
fn check_redirect_url<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> RedirectUrl {
    const USUAL: &str = "http://localhost:8117/callback";
    let found = table
        .string(source, "redirect_url")
        .unwrap_or_else(|| Found::implied("redirect_url", USUAL.to_owned()));
    match RedirectUrl::parse(&found.value) {
        Some(url) => {
            refuse_plain_http(source, &found, url.origin());
            url
        }
        None => {
            let message =
                format!("expected a URL: \"{USUAL}\"; port 0 is accepted on this machine");
            source.problem(Some(&found.at), &found.key, message);
            RedirectUrl::parse(USUAL).expect("the usual one is accepted")
        }
    }
}

fn check_scopes<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Vec<String> {
    let Some(found) = table.strings(source, "scopes") else {
        let usual = [
            "offline_access",
            "user.profile",
            "lucidchart.document.content",
        ];
        return usual.map(str::to_owned).to_vec();
    };
    // RFC 6749 section 3.3.
    let is_scope = |scope: &String| {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        !scope.is_empty() && scope.bytes().all(plain)
    };
    if !found.value.iter().all(is_scope) {
        let message = "expected scopes without spaces or quotes, one an entry, such as [\"offline_access\", \"user.profile\"]";
        source.problem(Some(&found.at), &found.key, message);
    } else if !found.value.iter().any(|scope| scope == "offline_access") {
        let message = "\"offline_access\" is missing: without it there is no refresh token, and no login lasts";
        source.problem(Some(&found.at), &found.key, message);
    }
    found.value
}

/// A refresh token dies after 180 unused days (Lucid's documentation): what is accepted leaves time to notice a failure.
fn check_rotate_idle_after<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    const LONGEST: Duration = Duration::from_secs(170 * DAY);
    const SHORTEST: Duration = Duration::from_secs(60 * 60);
    match table.duration(source, "rotate_idle_after") {
        Some(found) if found.value > LONGEST => {
            let message = "at most \"170days\" is accepted, since a refresh token dies after 180 days without use";
            source.problem(Some(&found.at), &found.key, message);
            LONGEST
        }
        Some(found) if found.value < SHORTEST => {
            let message =
                "at least \"1h\" is accepted, since each refresh ends a token that may be in use";
            source.problem(Some(&found.at), &found.key, message);
            SHORTEST
        }
        Some(found) => found.value,
        None => Duration::from_secs(30 * DAY),
    }
}

fn check_oauth2_endpoint<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> OAuth2Endpoint {
    let Some(found) = table.string(source, "oauth2_endpoint") else {
        return OAuth2Endpoint::Local;
    };
    match found.value.as_str() {
        "local" => OAuth2Endpoint::Local,
        "deny" => OAuth2Endpoint::Deny,
        "forward" => OAuth2Endpoint::Forward,
        _ => {
            let expected = "expected \"local\", \"deny\" or \"forward\"";
            source.problem(Some(&found.at), &found.key, expected);
            OAuth2Endpoint::Deny
        }
    }
}

fn check_hook<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    name: &'static str,
) -> Vec<String> {
    let Some(found) = table.strings(source, name) else {
        return Vec::new();
    };
    if found.value.first().is_none_or(String::is_empty) {
        let message = "expected a program and its arguments, such as [\"notify-send\", \"Lucid needs a login\"]; leave the key out for none";
        source.problem(Some(&found.at), &found.key, message);
    }
    found.value
}

fn check_timeouts<'a>(source: &mut Source<'a>, root: &mut Table<'a>) -> Timeouts {
    let mut table = root.table(source, "timeouts");
    let mut bound = |name, seconds| {
        table
            .duration(source, name)
            .map_or(Duration::from_secs(seconds), |found| found.value)
    };
    let timeouts = Timeouts {
        handshake: bound("handshake", 10),
        first_request: bound("first_request", 30),
        idle: bound("idle", 75),
        token: bound("token", 30),
        body: bound("body", 120),
        linger: bound("linger", 30),
        tunnel: bound("tunnel", 600),
        drain: bound("drain", 30),
    };
    table.finish(source);
    timeouts
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
