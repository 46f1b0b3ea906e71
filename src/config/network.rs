//! How other machines are reached: the same for upstream and token endpoint (rule T5).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::raw::{Source, Table};
use super::secrets::{self, Given, Secrets};
use super::{CaFile, Environment, Found, HttpProxy, NoProxy, Origin, file_name};
use crate::secret::ExposeSecret;

/// The variables that name a proxy for what goes over TLS, the first one first, as curl reads them. Its `http_proxy` is
/// for what goes in the clear, which here never leaves this machine.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that name what is reached directly all the same.
const EXCEPTION_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// What is between this machine and the servers that it asks.
#[derive(Clone, Debug, Default)]
pub struct Network {
    proxy: Arc<Setting>,
    ca_file: Option<Arc<CaFile>>,
}

/// What is said about a proxy.
#[derive(Debug, Default)]
enum Setting {
    #[default]
    Nothing,
    /// That there is to be none, whatever the environment says.
    Off,
    /// Which one, but for these.
    Use(Result<Arc<HttpProxy>, Unusable>, NoProxy),
}

/// Something that names a proxy, and none that can be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// The variable or the key.
    key: String,
    /// What is wrong and what would be accepted.
    message: String,
}

/// The way to a server.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// Without a proxy, for this reason.
    Direct(Why),
    /// Through this proxy.
    Proxy(&'a Arc<HttpProxy>),
    /// Through a proxy of which it is not known where it is.
    Unknown(&'a Unusable),
}

/// Why a server is reached without a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing names one.
    NothingSet,
    /// `upstream.proxy` is `"none"`.
    Off,
    /// The server is on this machine, and a proxy would look for it on its own.
    Local,
    /// `NO_PROXY` covers it.
    Excepted,
}

impl Network {
    /// Takes its keys from `[upstream]`; where they say nothing of a proxy, the environment does. A variable that one of
    /// them names must be set if that is `required`.
    pub(super) fn check<'a>(
        source: &mut Source<'a>,
        upstream: &mut Table<'a>,
        secrets: &mut Secrets<'_>,
        required: bool,
    ) -> Self {
        let proxy = Setting::check(source, upstream, secrets, required);
        let ca_file = upstream.string(source, "ca_file").and_then(|found| {
            let name = file_name::expanded(source, &found, secrets.environment()).ok()?;
            let read = CaFile::read(Path::new(&name));
            let told = read.map_err(|(message, is_elsewhere)| {
                source.unread(&found.at, &found.key, message, is_elsewhere);
            });
            told.ok().map(Arc::new)
        });
        Self {
            proxy: Arc::new(proxy),
            ca_file,
        }
    }

    /// Reports a proxy that cannot be used, where `origin` would be reached through it.
    pub(super) fn check_way_to(&self, origin: &Origin, source: &mut Source<'_>) {
        let Way::Unknown(unusable) = self.way_to(origin) else {
            return;
        };
        let told = source.problems.iter().chain(&source.unread);
        let reported = |key: &str| told.clone().any(|problem| problem.key == key);
        if !reported(&unusable.key) {
            source.problem(None, &unusable.key, unusable.message.clone());
        }
    }

    /// How `origin` is reached.
    pub fn way_to(&self, origin: &Origin) -> Way<'_> {
        match &*self.proxy {
            Setting::Nothing => Way::Direct(Why::NothingSet),
            Setting::Off => Way::Direct(Why::Off),
            Setting::Use(..) if origin.is_loopback() => Way::Direct(Why::Local),
            Setting::Use(_, exceptions) if exceptions.covers(origin) => Way::Direct(Why::Excepted),
            Setting::Use(Ok(proxy), _) => Way::Proxy(proxy),
            Setting::Use(Err(unusable), _) => Way::Unknown(unusable),
        }
    }

    /// The bundle of certificates that are trusted beside the system's.
    pub fn ca_file(&self) -> Option<&CaFile> {
        self.ca_file.as_deref()
    }

    /// The certificates that are trusted beside the system's.
    pub fn extra_roots(&self) -> &[CertificateDer<'static>] {
        self.ca_file().map_or(&[], CaFile::certificates)
    }
}

impl Setting {
    fn check<'a>(
        source: &mut Source<'a>,
        upstream: &mut Table<'a>,
        secrets: &mut Secrets<'_>,
        required: bool,
    ) -> Self {
        let found = match secrets.given(source, upstream, &secrets::PROXY) {
            Given::Nothing => return Self::of(secrets.environment()),
            Given::Wrong => return Self::Nothing,
            Given::Unread(Found { value, key, .. }) => {
                let message = value;
                return Self::Use(Err(Unusable { key, message }), NoProxy::default());
            }
            Given::Unset(env) => {
                let message = secrets.unset(&env.value);
                if required {
                    source.problem(Some(&env.at), &env.key, message.clone());
                }
                let key = env.key;
                return Self::Use(Err(Unusable { key, message }), NoProxy::default());
            }
            Given::Value(found) => found,
        };
        let value = found.value.expose_secret();
        if value == "none" {
            return Self::Off;
        }
        match HttpProxy::parse(value, &found.key) {
            Ok(proxy) => Self::Use(Ok(Arc::new(proxy)), NoProxy::default()),
            Err(message) => {
                source.problem(Some(&found.at), &found.key, message);
                Self::Nothing
            }
        }
    }

    /// What the environment says.
    fn of(environment: &dyn Environment) -> Self {
        let value = |name: &'static str| Some((name, environment.var(name)?));
        let Some((name, url)) = PROXY_VARIABLES.into_iter().find_map(value) else {
            return Self::Nothing;
        };
        let proxy = HttpProxy::parse(&url, name).map_err(|message| Unusable {
            key: name.to_owned(),
            message: message.to_owned(),
        });
        let exceptions = EXCEPTION_VARIABLES.into_iter().find_map(value);
        let exceptions = exceptions.map(|(_, list)| NoProxy::parse(&list));
        Self::Use(proxy.map(Arc::new), exceptions.unwrap_or_default())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingSet => "no proxy is configured",
            Self::Off => "upstream.proxy is \"none\"",
            Self::Local => "it is on this machine",
            Self::Excepted => "NO_PROXY names it",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, ConfigError, Need};

    /// The configuration with these keys in `[upstream]` and these variables.
    fn config(upstream: &str, variables: &[(&str, &str)], need: Need) -> Result<Config, String> {
        let usual = [("LUCID_CLIENT_ID", "id"), ("LUCID_CLIENT_SECRET", "secret")];
        let environment = usual.iter().chain(variables);
        let environment: BTreeMap<_, _> = environment
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let text = format!("[upstream]\n{upstream}\n");
        let config = Config::parse(&text, None, &environment, need);
        config.map_err(|error: ConfigError| error.to_string())
    }

    fn way(upstream: &str, variables: &[(&str, &str)]) -> String {
        let config = config(upstream, variables, Need::Everything).expect("it is accepted");
        let shown = |network: &Network, origin: &Origin| match network.way_to(origin) {
            Way::Direct(why) => why.to_string(),
            Way::Proxy(proxy) => proxy.to_string(),
            Way::Unknown(unusable) => panic!("{unusable}"),
        };
        let way = shown(&config.upstream.network, &config.upstream.origin);
        let token = Origin::of(&config.credential.token_url).expect("an origin");
        if token == config.upstream.origin {
            assert_eq!(shown(&config.credential.network, &token), way, "rule T5");
        }
        way
    }

    #[test]
    fn t05_the_proxy_is_the_one_that_curl_would_use() {
        let all = [
            ("ALL_PROXY", "http://d"),
            ("all_proxy", "http://c"),
            ("HTTPS_PROXY", "http://b"),
            ("https_proxy", "http://a"),
        ];
        for (set, expected) in [
            (&all[..], "the proxy http://a (https_proxy)"),
            (&all[..3], "the proxy http://b (HTTPS_PROXY)"),
            (&all[..2], "the proxy http://c (all_proxy)"),
            (&all[..1], "the proxy http://d (ALL_PROXY)"),
            (&[], "no proxy is configured"),
            (&[("HTTPS_PROXY", "")], "no proxy is configured"),
            // For what goes in the clear, and the upper case for nothing: a CGI program has it from its client.
            (&[("http_proxy", "http://a")], "no proxy is configured"),
            (&[("HTTP_PROXY", "http://a")], "no proxy is configured"),
            (
                &[("HTTPS_PROXY", "http://b"), ("NO_PROXY", "lucid.co")],
                "NO_PROXY names it",
            ),
            (
                &[("HTTPS_PROXY", "http://b"), ("no_proxy", "*")],
                "NO_PROXY names it",
            ),
            (
                &[
                    ("HTTPS_PROXY", "http://b"),
                    ("NO_PROXY", "*"),
                    ("no_proxy", "a.test"),
                ],
                "the proxy http://b (HTTPS_PROXY)",
            ),
            (&[("NO_PROXY", "*")], "no proxy is configured"),
        ] {
            assert_eq!(way("", set), expected, "{set:?}");
        }
    }

    #[test]
    fn the_file_has_its_way_whatever_the_environment_says() {
        let set = [
            ("HTTPS_PROXY", "http://b"),
            ("NO_PROXY", "*"),
            ("CORP", "http://ada:marked@c"),
        ];
        assert_eq!(way("proxy = \"none\"", &set), "upstream.proxy is \"none\"");
        assert_eq!(
            way("proxy = \"http://a:3128\"", &set),
            "the proxy http://a:3128 (upstream.proxy)"
        );
        assert_eq!(
            way("proxy_env = \"CORP\"", &set),
            "the proxy http://c (upstream.proxy_env)"
        );
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "http://ada:marked@d\n").expect("written");
        let key = format!("proxy_file = {:?}", file.path());
        assert_eq!(way(&key, &set), "the proxy http://d (upstream.proxy_file)");
        let config = config("proxy_env = \"CORP\"", &set, Need::Everything).expect("accepted");
        assert!(!format!("{config:?}").contains("marked"), "{config:?}");
        let secret = &config.credential.secret_variables;
        assert!(secret.contains(&"CORP".to_owned()), "{secret:?}");
    }

    #[test]
    fn what_is_on_this_machine_is_reached_directly() {
        let set = [("HTTPS_PROXY", "socks5://b")];
        for url in [
            "http://127.0.0.1:8120",
            "https://localhost",
            "https://[::1]:8",
        ] {
            let upstream = format!(
                "url = \"{url}\"\n[credentials.default]\ntoken_url = \"{url}/oauth2/token\""
            );
            assert_eq!(way(&upstream, &set), "it is on this machine");
        }
    }

    #[test]
    fn s06_a_proxy_that_cannot_be_used_is_told_without_its_value() {
        let told = |upstream: &str, set: &[(&str, &str)]| {
            config(upstream, set, Need::Everything).expect_err("not accepted")
        };
        let socks = told("", &[("ALL_PROXY", "socks5://ada:marked@b")]);
        assert!(
            socks.contains("ALL_PROXY: SOCKS proxies are not"),
            "{socks}"
        );
        assert_eq!(
            socks.matches("ALL_PROXY").count(),
            1,
            "once for both: {socks}"
        );
        let odd = told("", &[("https_proxy", "http://ada:mar/ked@b:x")]);
        assert!(
            odd.contains("https_proxy: expected a proxy such as"),
            "{odd}"
        );
        let file = told("proxy = \"marked\\u0000\"", &[]);
        assert!(
            file.contains("line 2, column 9: upstream.proxy: expected"),
            "{file}"
        );
        let unset = told("proxy_env = \"CORP\"", &[]);
        assert!(
            unset.contains("upstream.proxy_env: the variable CORP is not set"),
            "{unset}"
        );
        assert_eq!(unset.matches("CORP").count(), 1, "{unset}");
        let both = told("proxy = \"http://a\"\nproxy_env = \"CORP\"", &[]);
        assert!(
            both.contains("only one of proxy, proxy_env and proxy_file"),
            "{both}"
        );
        for told in [socks, odd, file] {
            assert!(!told.contains("marked") && !told.contains("ked@"), "{told}");
        }
        // One that would not be used anyway is nobody's business.
        let set = [("ALL_PROXY", "socks5://b"), ("NO_PROXY", "lucid.co")];
        assert!(config("", &set, Need::Everything).is_ok());
    }

    #[test]
    fn what_needs_no_network_works_without_the_proxy() {
        for (upstream, set) in [
            ("proxy_env = \"CORP\"", &[][..]),
            ("", &[("HTTPS_PROXY", "socks5://b")]),
        ] {
            let config = config(upstream, set, Need::Store).expect("it is accepted");
            let way = config.upstream.network.way_to(&config.upstream.origin);
            assert!(
                matches!(way, Way::Unknown(_)),
                "and is not passed by: {way:?}"
            );
        }
    }

    #[test]
    fn a_password_may_stand_only_where_others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("proxy.toml");
        let check = |url: &str, mode| {
            let text = format!("[upstream]\nproxy = \"{url}\"\n");
            std::fs::write(&file, &text).expect("written");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, mode).expect("chmod");
            Config::load(Some(&file), &BTreeMap::new(), Need::Store)
                .map_err(|error| error.to_string())
        };
        assert!(check("http://ada:marked@a", 0o600).is_ok());
        assert!(check("http://a", 0o644).is_ok(), "no secret");
        let told = check("http://ada:marked@a", 0o644).expect_err("readable by others");
        assert!(
            told.contains("chmod 600") && told.contains("proxy_env"),
            "{told}"
        );
        assert!(!told.contains("marked"), "{told}");
    }
}
