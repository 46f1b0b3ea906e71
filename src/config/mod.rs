//! The configuration: `proxy.toml` and the environment, checked and in final types.
//!
//! [`Config::load`] reports every problem that it finds, each with its place in the file and what would be accepted.

mod origin;
mod raw;
mod secrets;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use origin::{Origin, Scheme};
pub use raw::Problem;
use raw::{Found, Source, Table};

use crate::secret::Secret;

/// The name of the one credential that there is.
pub const DEFAULT_CREDENTIAL: &str = "default";

/// Everything that the program was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from; `None` when the environment alone was enough.
    pub file: Option<PathBuf>,
    /// Where clients connect: plain HTTP/1.1.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve requests.
    pub workers: usize,
    /// What links to the upstream are rewritten to, instead of the host that the client asked for.
    pub public_url: Option<Origin>,
    /// The API behind the proxy.
    pub upstream: Upstream,
    /// How requests are authenticated there.
    pub credential: Credential,
    /// What is kept of a request so that it can be sent again.
    pub replay: Replay,
    /// How long each wait may last.
    pub timeouts: Timeouts,
    /// Who may use the proxy.
    pub guard: Guard,
    /// What is logged, and how.
    pub log: Log,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Scheme, host and port that requests go to.
    pub origin: Origin,
    /// From the look-up of the name to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

/// `[credentials.default]`
#[derive(Clone, Debug)]
pub struct Credential {
    /// The name behind `credentials.`.
    pub name: String,
    /// Identifies the application at Lucid; `None` only under [`Need::Store`].
    pub client: Option<Client>,
    /// A refresh token to begin with; used only while the store has no pair.
    pub refresh_token: Option<Secret>,
    /// Where a refresh token is exchanged for a new pair.
    pub token_url: http::Uri,
    /// The file that keeps the pair.
    pub store: PathBuf,
    /// How long before its expiry a token is replaced, at the most.
    pub refresh_margin: Duration,
}

/// The application's own credentials (RFC 6749 section 2.3.1).
#[derive(Clone, Debug)]
pub struct Client {
    /// Public name of the application.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
}

/// `[replay]`
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Bytes of a request body that are recorded; a larger one cannot be sent again.
    pub memory: usize,
}

/// `[timeouts]`
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the accept of a connection to the whole head of its first request.
    pub first_request: Duration,
    /// From the end of a response to the whole head of the next request on that connection.
    pub idle: Duration,
    /// How long a request waits for a token.
    pub token: Duration,
    /// How long a response body may stand still.
    pub body: Duration,
    /// How long requests may go on after the signal to stop.
    pub drain: Duration,
}

/// `[guard]`
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Values of `Host` that are accepted beside the listener's own, lower case.
    pub allow_hosts: Vec<String>,
    /// Whether a listener may be reachable from other machines without any client key.
    pub allow_unauthenticated: bool,
}

/// `[log]`
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// One line for people, or one JSON object, per event.
    pub format: LogFormat,
    /// Whether each request gets a line.
    pub requests: bool,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much of the configuration a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The store alone: the application's credentials may be missing.
    Store,
    /// All that is needed to serve requests.
    Everything,
}

/// The environment as a map: the process's own, or a test's.
pub trait Environment {
    /// The value of a variable; `None` where it is unset, empty or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;
}

/// The process's environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Environment for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}: {hint}")]
    Unreadable {
        /// The file.
        path: String,
        /// What would help.
        hint: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file, or the environment, says something that is not accepted.
    #[error("{}", Listed(.file.as_deref(), .problems))]
    Wrong {
        /// The file; `None` when the environment alone was read.
        file: Option<PathBuf>,
        /// Everything that was found wrong.
        problems: Vec<Problem>,
    },
}

struct Listed<'a>(Option<&'a Path>, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(file) => write!(
                f,
                "the configuration in {} is not accepted:",
                file.display()
            )?,
            None => f.write_str("the configuration is incomplete:")?,
        }
        self.1
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads and checks the configuration: `file` if given, else `./proxy.toml`, else
    /// `$XDG_CONFIG_HOME/lucid-proxy/proxy.toml`, else the environment alone.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or with every problem found in it.
    pub fn load(
        file: Option<&Path>,
        environment: &dyn Environment,
        need: Need,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(file) => Some(file.to_owned()),
            None => usual_files(environment)
                .into_iter()
                .find(|file| file.exists()),
        };
        let text = match &file {
            Some(file) => read(file)?,
            None => String::new(),
        };
        Self::parse(&text, file, environment, need)
    }

    /// Checks `text` as if it stood in `file`.
    ///
    /// # Errors
    ///
    /// With every problem found in it.
    pub fn parse(
        text: &str,
        file: Option<PathBuf>,
        environment: &dyn Environment,
        need: Need,
    ) -> Result<Self, ConfigError> {
        let (mut source, root) = Source::parse(text);
        let config = check(&mut source, root, file.clone(), environment, need);
        if source.problems.is_empty() {
            Ok(config)
        } else {
            source
                .problems
                .sort_by_key(|problem| problem.position.unwrap_or((usize::MAX, 0)));
            Err(ConfigError::Wrong {
                file,
                problems: source.problems,
            })
        }
    }

    /// Every key that `proxy.toml` may have, in full (`upstream.url`).
    pub fn keys() -> Vec<String> {
        let (mut source, root) = Source::parse("");
        check(&mut source, root, None, &BTreeMap::new(), Need::Store);
        source.known.sort_unstable();
        source.known
    }
}

/// The folder for what the program keeps: `$STATE_DIRECTORY` (set by systemd), else `$XDG_STATE_HOME/lucid-proxy`,
/// else `~/.local/state/lucid-proxy` (XDG Base Directory Specification).
pub fn state_directory(environment: &dyn Environment) -> PathBuf {
    if let Some(directories) = environment.var("STATE_DIRECTORY") {
        return PathBuf::from(directories.split(':').next().unwrap_or_default());
    }
    let home = || PathBuf::from(environment.var("HOME").unwrap_or_else(|| "/".to_owned()));
    let base = environment
        .var("XDG_STATE_HOME")
        .map_or_else(|| home().join(".local/state"), PathBuf::from);
    base.join("lucid-proxy")
}

fn usual_files(environment: &dyn Environment) -> Vec<PathBuf> {
    let config_home = environment
        .var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            environment
                .var("HOME")
                .map(|home| PathBuf::from(home).join(".config"))
        });
    let mut files = vec![PathBuf::from("proxy.toml")];
    files.extend(config_home.map(|home| home.join("lucid-proxy/proxy.toml")));
    files
}

fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; name one with --config, or leave the option out"
            }
            io::ErrorKind::IsADirectory => "it is a directory; name the file in it",
            io::ErrorKind::PermissionDenied => {
                "this user may not read it; change its owner or mode"
            }
            io::ErrorKind::InvalidData => "it is not UTF-8 text",
            _ => "see the cause",
        };
        ConfigError::Unreadable {
            path: file.display().to_string(),
            hint: hint.to_owned(),
            source,
        }
    })
}

fn check<'a>(
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
