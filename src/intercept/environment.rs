//! The variables that lead a program here, and have it trust what it finds.
//!
//! [`changes`] is a pure function of where the proxy listens, where the files lie, and what is set already. What is set
//! already is kept where it can be: lists are extended, and a program that finds nothing of Lucid's in its way notices
//! nothing.
//!
//! `ALL_PROXY` stays as it is: for `http` and `https` the variables of those count, and what it leads elsewhere is of other
//! protocols, which are not spoken here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::no_proxy;
use super::program_files::{self, Files};
use crate::config::Environment;
use crate::config::before;
use crate::secret::Zeroizing;

/// The variables whose file replaces, or adds to, what a program trusts.
const BUNDLES: [&str; 10] = [
    // OpenSSL, and with it most of Python, Ruby, Perl and PHP; Go; rustls.
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "PERL_LWP_SSL_CA_FILE",
];

/// Those of which another file may be named already, whose certificates the bundle gets too. What `SSL_CERT_FILE` names is
/// what the system trusts.
pub const TRUSTED_ALREADY: &[&str] = BUNDLES.split_at(1).1;

/// Where a program is to be led.
#[derive(Debug)]
pub struct Way<'a> {
    /// The address that takes CONNECT.
    pub proxy: SocketAddr,
    /// Name and key that it asks for.
    pub login: Option<(&'a str, &'a str)>,
    /// What `LUCID_BASE_URL` says: an address that takes plain requests without a key; `None` where there is none.
    pub base: Option<SocketAddr>,
    /// An address that takes CONNECT without a login, since Java sends none.
    pub java: Option<SocketAddr>,
    /// The hosts whose connections are intercepted, in lower case.
    pub hosts: &'a [String],
    /// What the variables name.
    pub files: &'a Files,
}

/// Variables to set, in the order of their names; `None` for one to remove.
pub type Changes = BTreeMap<String, Option<Zeroizing<String>>>;

/// What a program's environment must have, seen from `present`, to come this way. Of the variables `secrets` it gets none.
pub fn changes(way: &Way<'_>, present: &dyn Environment, secrets: &[String]) -> Changes {
    let mut changes = Changes::new();
    remember(&mut changes, present, way);
    let mut set = |name: &str, value: String| {
        changes.insert(name.to_owned(), Some(Zeroizing::new(value)));
    };
    for name in BUNDLES {
        set(name, text(&way.files.bundle));
    }
    let no_proxy = set_proxies(&mut set, way, present);
    set_java(&mut set, way, present, &no_proxy);
    // Only then does LWP read the variables of proxies.
    set("PERL_LWP_ENV_PROXY", "1".to_owned());
    set("NODE_USE_ENV_PROXY", "1".to_owned());
    set(
        "NODE_OPTIONS",
        extended(
            present,
            "NODE_OPTIONS",
            &format!("--require {}", for_node(&way.files.node)),
        ),
    );
    // wget of Debian trusts what its own file says, since GnuTLS reads no variable.
    set("WGETRC", text(&way.files.wgetrc));
    // Before the colon: where PHP looks anyway, if nothing else is said.
    let directories = present.var("PHP_INI_SCAN_DIR").unwrap_or_default();
    set(
        "PHP_INI_SCAN_DIR",
        format!("{directories}:{}", text(&way.files.php)),
    );
    if let Some(base) = way.base {
        for name in ["LUCID_API_URL", "LUCID_BASE_URL"] {
            set(name, format!("http://{base}"));
        }
    }
    note_what_is_set(&mut changes);
    for name in secrets {
        changes.insert(name.clone(), None);
    }
    changes
}

/// The proxy's URL with the login in it.
pub fn proxy_url(way: &Way<'_>) -> String {
    let mut url = "http://".to_owned();
    if let Some((name, key)) = way.login {
        // Both are of letters that stand for themselves there.
        let _ = write!(url, "{name}:{key}@");
    }
    let _ = write!(url, "{}", way.proxy);
    url
}

/// What a `lucid-proxy` in there is to go by, which must not come to itself (see [`before`]). Of an environment that was
/// changed already, `present` tells what was before that.
fn remember(changes: &mut Changes, present: &dyn Environment, way: &Way<'_>) {
    let is_changed_already = present.var(before::MARK).is_some();
    changes.insert(before::MARK.to_owned(), Some(proxy_url(way).into()));
    for name in before::replaced() {
        let value = present.var(name).map(Zeroizing::new);
        if value.is_some() || is_changed_already {
            changes.insert(before::name(name), value);
        }
    }
}

/// So that what somebody sets later can be told from it.
fn note_what_is_set(changes: &mut Changes) {
    for name in before::replaced() {
        if let (Some(set), Some(value)) = (before::set_name(name), changes.get(name).cloned()) {
            changes.insert(set, value);
        }
    }
}

/// Returns the list of exceptions.
fn set_proxies(
    set: &mut impl FnMut(&str, String),
    way: &Way<'_>,
    present: &dyn Environment,
) -> String {
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        set(name, proxy_url(way));
    }
    let [lower, upper] = ["no_proxy", "NO_PROXY"].map(|name| present.var(name));
    // One that is set alone is read by programs that prefer the other.
    let either = lower.clone().or(upper.clone()).unwrap_or_default();
    for (name, value) in [("no_proxy", lower), ("NO_PROXY", upper)] {
        let list = value.as_ref().unwrap_or(&either);
        set(name, no_proxy::cleaned(list, way.hosts));
    }
    no_proxy::cleaned(&either, way.hosts)
}

/// Java sends no login that a variable could give it (its `Authenticator` is set by programs alone), so it is led to an
/// address that asks for none. Of equal properties the last one counts.
fn set_java(
    set: &mut impl FnMut(&str, String),
    way: &Way<'_>,
    present: &dyn Environment,
    no_proxy: &str,
) {
    let mut options = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword={}",
        for_java(&way.files.java),
        program_files::JAVA_PASSWORD
    );
    if let Some(java) = way.java {
        for scheme in ["http", "https"] {
            let _ = write!(
                options,
                " -D{scheme}.proxyHost={} -D{scheme}.proxyPort={}",
                java.ip(),
                java.port()
            );
        }
        let _ = write!(
            options,
            " \"-Dhttp.nonProxyHosts={}\"",
            no_proxy::for_java(no_proxy)
        );
    }
    set(
        "JAVA_TOOL_OPTIONS",
        extended(present, "JAVA_TOOL_OPTIONS", &options),
    );
}

fn extended(present: &dyn Environment, name: &str, more: &str) -> String {
    match present.var(name) {
        Some(before) => format!("{before} {more}"),
        None => more.to_owned(),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// One word of `NODE_OPTIONS`: between double quotes, a backslash takes the meaning of what follows.
fn for_node(path: &Path) -> String {
    let path = text(path);
    match path.contains([' ', '\t', '\n', '"', '\\']) {
        true => format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")),
        false => path,
    }
}

/// One word of `JAVA_TOOL_OPTIONS`: between quotes of either kind everything stands for itself.
fn for_java(path: &Path) -> String {
    let path = text(path);
    match path.contains('"') {
        true => format!("'{path}'"),
        false => format!("\"{path}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://exec:lpk_key@127.0.0.1:4000";

    fn changed(present: &[(&str, &str)]) -> Changes {
        changed_in("/run/x", present)
    }

    fn changed_in(directory: &str, present: &[(&str, &str)]) -> Changes {
        let hosts = ["api.lucid.co".to_owned()];
        let files = Files::in_directory(Path::new(directory));
        let way = Way {
            proxy: ([127, 0, 0, 1], 4000).into(),
            login: Some(("exec", "lpk_key")),
            base: Some(([127, 0, 0, 1], 4001).into()),
            java: Some(([127, 0, 0, 1], 4001).into()),
            hosts: &hosts,
            files: &files,
        };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let present: BTreeMap<_, _> = present.iter().map(owned).collect();
        changes(&way, &present, &["LUCID_CLIENT_SECRET".to_owned()])
    }

    fn value<'a>(changes: &'a Changes, name: &str) -> &'a str {
        let change = changes.get(name).unwrap_or_else(|| panic!("{name}"));
        change.as_ref().unwrap_or_else(|| panic!("{name} is set"))
    }

    #[test]
    fn an_empty_environment_gets_all_of_it_and_loses_the_secrets() {
        let changes = changed(&[]);
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            assert_eq!(value(&changes, name), URL);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            assert_eq!(value(&changes, name), "localhost,127.0.0.1,::1");
        }
        for name in BUNDLES {
            assert_eq!(value(&changes, name), "/run/x/trusted.pem");
        }
        for (name, expected) in [
            ("LUCID_API_URL", "http://127.0.0.1:4001"),
            ("LUCID_BASE_URL", "http://127.0.0.1:4001"),
            ("NODE_USE_ENV_PROXY", "1"),
            ("NODE_OPTIONS", "--require /run/x/node.js"),
            ("PERL_LWP_ENV_PROXY", "1"),
            ("WGETRC", "/run/x/wgetrc"),
            ("PHP_INI_SCAN_DIR", ":/run/x/php"),
        ] {
            assert_eq!(value(&changes, name), expected);
        }
        assert_eq!(changes.get("LUCID_CLIENT_SECRET"), Some(&None), "removed");
        assert!(!changes.contains_key("ALL_PROXY") && !changes.contains_key("all_proxy"));
    }

    #[test]
    fn what_is_set_already_is_kept_and_extended() {
        let changes = changed(&[
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
            ("NODE_OPTIONS", "--max-old-space-size=4096"),
            ("PHP_INI_SCAN_DIR", "/etc/php"),
            ("NO_PROXY", "intranet,lucid.co"),
        ]);
        let java = value(&changes, "JAVA_TOOL_OPTIONS");
        assert!(java.starts_with("-Xmx1g -D"), "{java}");
        assert_eq!(
            value(&changes, "NODE_OPTIONS"),
            "--max-old-space-size=4096 --require /run/x/node.js"
        );
        assert_eq!(value(&changes, "PHP_INI_SCAN_DIR"), "/etc/php:/run/x/php");
        for name in ["NO_PROXY", "no_proxy"] {
            let expected = "intranet,localhost,127.0.0.1,::1";
            assert_eq!(value(&changes, name), expected, "{name}");
        }
        // Each keeps its own where there are two.
        let changes = changed(&[("NO_PROXY", "upper"), ("no_proxy", "lower")]);
        assert!(value(&changes, "NO_PROXY").starts_with("upper,"));
        assert!(value(&changes, "no_proxy").starts_with("lower,"));
    }

    #[test]
    fn java_is_led_without_a_login_and_other_programs_with_one() {
        let changes = changed(&[("no_proxy", "a.test")]);
        let expected = "-Djavax.net.ssl.trustStore=\"/run/x/trusted.p12\" -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=4001 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=4001 \"-Dhttp.nonProxyHosts=localhost|127.*|[::1]|a.test|*.a.test\"";
        assert_eq!(value(&changes, "JAVA_TOOL_OPTIONS"), expected);
    }

    #[test]
    fn a_path_with_spaces_is_one_word() {
        let changes = changed_in("/tmp/a b", &[]);
        assert_eq!(
            value(&changes, "NODE_OPTIONS"),
            "--require \"/tmp/a b/node.js\""
        );
        let java = value(&changes, "JAVA_TOOL_OPTIONS");
        assert!(
            java.contains("trustStore=\"/tmp/a b/trusted.p12\" "),
            "{java}"
        );
    }

    #[test]
    fn what_was_before_is_remembered_for_our_own_commands() {
        let company = "http://proxy.example:3128";
        let outer = changed(&[("HTTPS_PROXY", company), ("no_proxy", "a.test")]);
        assert_eq!(value(&outer, "LUCID_PROXY_BEFORE"), URL);
        assert_eq!(value(&outer, "LUCID_PROXY_BEFORE_HTTPS_PROXY"), company);
        assert_eq!(value(&outer, "LUCID_PROXY_BEFORE_no_proxy"), "a.test");
        assert!(!outer.contains_key("LUCID_PROXY_BEFORE_HTTP_PROXY"));
        // One in another: what is no more set is forgotten.
        let inner = changed(&[("LUCID_PROXY_BEFORE", URL), ("HTTPS_PROXY", company)]);
        assert_eq!(value(&inner, "LUCID_PROXY_BEFORE_HTTPS_PROXY"), company);
        assert_eq!(inner.get("LUCID_PROXY_BEFORE_NO_PROXY"), Some(&None));
        let set = value(&inner, "LUCID_PROXY_SET_NO_PROXY");
        assert_eq!(set, value(&inner, "NO_PROXY"));
        for name in TRUSTED_ALREADY {
            let is_remembered = before::replaced().any(|replaced| replaced == *name);
            assert!(is_remembered, "{name}");
        }
    }
}
