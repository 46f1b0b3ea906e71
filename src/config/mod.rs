//! The configuration: `proxy.toml` and the environment, checked and in final types.
//!
//! [`Config::load`] reports every problem that it finds, each with its place in the file and what would be accepted.

mod accounts;
mod address;
mod api_key;
pub(crate) mod before;
mod ca_file;
mod check;
mod clients;
mod environment;
mod file_name;
mod file_readers;
mod guard;
mod http_proxy;
mod intercept;
mod limits;
mod listen;
mod misspelt;
mod names;
mod network;
mod no_proxy;
mod origin;
mod raw;
mod redirect;
mod replay;
mod rules;
mod secrets;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use address::from_this_machine;
pub use address::{Address, AddressError};
pub use ca_file::CaFile;
pub use clients::{CLIENT_NAME, KEY_PREFIX, KeyHash, KnownClient, is_client_name};
use environment::usual_files;
pub use environment::{Environment, ProcessEnvironment, state_directory};
pub(crate) use file_readers::warning as readers_of;
pub use guard::Guard;
pub use http_proxy::HttpProxy;
pub use intercept::Intercept;
pub(crate) use intercept::LUCID;
pub use limits::{HeadLimits, Limits};
pub(crate) use listen::is_activated;
pub use listen::{Access, Listen, TlsFiles};
pub(crate) use names::{is_every_address, is_host, is_origin};
pub use network::{Network, Unusable, Way, Why};
pub use no_proxy::NoProxy;
pub use origin::{Origin, Scheme};
use raw::{Found, Source};
pub use redirect::RedirectUrl;
pub use rules::{Rule, Rules, Segment, is_refused};
pub use source::Problem;

use crate::secret::{Secret, Zeroizing};

/// The name of the one credential that there is.
pub const DEFAULT_CREDENTIAL: &str = "default";

/// Everything that the program was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from; `None` when the environment alone was enough.
    pub file: Option<PathBuf>,
    /// Where clients connect.
    pub listen: Vec<Listen>,
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
    /// How much clients may ask for at once.
    pub limits: Limits,
    /// Who may use the proxy.
    pub guard: Guard,
    /// Whose requests are served, if not everybody's who can send one.
    pub clients: Vec<KnownClient>,
    /// Whether programs may use it as a forward proxy.
    pub intercept: Intercept,
    /// What is logged, and how.
    pub log: Log,
    /// Files that were not looked at, and why; none where [`Need`] asks for everything.
    pub unread: Vec<Problem>,
    /// What is accepted, and should not stay so.
    pub warnings: Vec<Problem>,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Scheme, host and port that requests go to.
    pub origin: Origin,
    /// Which versions of HTTP are spoken with it.
    pub http: HttpVersions,
    /// How it is reached.
    pub network: Network,
    /// From the look-up of the name to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

/// Which versions of HTTP are spoken with upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersions {
    /// Over TLS what both sides prefer (ALPN, RFC 7301), in the clear HTTP/1.1.
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone; in the clear with prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// `[credentials.default]`
#[derive(Clone, Debug)]
pub struct Credential {
    /// The name behind `credentials.`.
    pub name: String,
    /// A grant or a key. Of a key, what follows says nothing but `oauth2_endpoint` and `secret_variables`.
    pub kind: Kind,
    /// Identifies the application at Lucid; `None` only where [`Need`] does not ask for it.
    pub client: Option<Client>,
    /// A refresh token to begin with; used only while the store has no pair.
    pub refresh_token: Option<Secret>,
    /// Where a code or a refresh token is exchanged for a new pair.
    pub token_url: http::Uri,
    /// How that is reached: as upstream is.
    pub network: Network,
    /// Where a person approves a login.
    pub authorize_url: http::Uri,
    /// Where the browser is sent afterwards.
    pub redirect_url: RedirectUrl,
    /// What a login asks for.
    pub scopes: Vec<String>,
    /// Whether a login is bound to its code by PKCE (RFC 7636).
    pub pkce: bool,
    /// The file that keeps the pair.
    pub store: PathBuf,
    /// How long before its expiry a token is replaced, at the most.
    pub refresh_margin: Duration,
    /// How old a refresh token may become before it is replaced although nobody needs it.
    pub rotate_idle_after: Duration,
    /// What becomes of requests to `/oauth2/…`.
    pub oauth2_endpoint: OAuth2Endpoint,
    /// What is run when only a login helps, and after a rotation.
    pub hooks: Hooks,
    /// Variables that may hold a secret; programs that this one starts do not get them.
    pub secret_variables: Vec<String>,
}

/// The kind of a credential.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A grant that is refreshed.
    OAuth,
    /// A key that stays as it is (T16).
    ApiKey(Secret),
}

/// What becomes of the requests of a program that refreshes by itself (rule F11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuth2Endpoint {
    /// They are answered here, with placeholders.
    Local,
    /// They are refused.
    Deny,
    /// They go upstream without our token: the program has a grant of its own.
    Forward,
}

/// Programs with their arguments, run for notifications; an empty list runs nothing.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// When only a login helps.
    pub login_needed: Vec<String>,
    /// When a new pair was issued and stored.
    pub rotated: Vec<String>,
}

/// The application's own credentials (RFC 6749 section 2.3.1).
#[derive(Clone, Debug)]
pub struct Client {
    /// Public name of the application.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
}

/// `[replay]`: bytes of request bodies that are recorded, so that a request can be sent again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// In memory, of each request.
    pub memory: usize,
    /// In a temporary file, of each request; zero for no file.
    pub disk: u64,
    /// In memory, of all requests together.
    pub total_memory: u64,
    /// In temporary files, of all requests together.
    pub total_disk: u64,
    /// Where temporary files are made.
    pub directory: PathBuf,
}

/// `[timeouts]`
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the accept of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the accept of a connection to the whole head of its first request.
    pub first_request: Duration,
    /// From the end of a response to the whole head of the next request on that connection.
    pub idle: Duration,
    /// How long a request waits for a token.
    pub token: Duration,
    /// How long a body may stand still, on its way from a client or to one.
    pub body: Duration,
    /// How long the rest of a request is read that nobody wants any more.
    pub linger: Duration,
    /// How long a WebSocket may be silent.
    pub tunnel: Duration,
    /// How long requests may go on after the signal to stop.
    pub drain: Duration,
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
    /// The store alone: the application's credentials may be missing, and no other secret is read.
    Store,
    /// To say whether requests could be served: what only the one who serves them may read is left open.
    Check,
    /// All that is needed to serve requests.
    Everything,
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
        // A secret may stand in it.
        let text = Zeroizing::new(match &file {
            Some(file) => read(file)?,
            None => String::new(),
        });
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
        let (mut source, root) = Source::parse(text, need);
        let config = check::check(&mut source, root, file.clone(), environment, need);
        let place = |problem: &Problem| problem.position.unwrap_or((usize::MAX, 0));
        source.unread.sort_by_key(place);
        source.warnings.sort_by_key(place);
        if source.problems.is_empty() {
            Ok(Self {
                unread: source.unread,
                warnings: source.warnings,
                ..config
            })
        } else {
            source.problems.sort_by_key(place);
            Err(ConfigError::Wrong {
                file,
                problems: source.problems,
            })
        }
    }

    /// Every key that `proxy.toml` may have, in full (`upstream.url`).
    pub fn keys() -> Vec<String> {
        let (mut source, root) = Source::parse("", Need::Store);
        check::check(&mut source, root, None, &BTreeMap::new(), Need::Store);
        source.known.sort_unstable();
        source.known.dedup();
        source.known
    }
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
