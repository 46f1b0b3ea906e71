//! The environment as it was before this program changed it for others.
//!
//! `lucid-proxy exec` and `env` lead programs to a proxy of ours. A `lucid-proxy` among those programs must not come there:
//! what it sends to the token endpoint would be answered with placeholders (rule F11), which it would store in the place of
//! the real pair. So it goes by what was set before, which stands beside it.

/// Says that the variables of proxies were changed, and to what.
pub(crate) const MARK: &str = "LUCID_PROXY_BEFORE";

/// The variables that were, of those that this program reads: those that name the proxy.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// And those that are given something else. From what stood in them before is made what stands in them now, which would
/// grow each time if it were made from that.
const OTHERS: [&str; 15] = [
    "NO_PROXY",
    "no_proxy",
    "JAVA_TOOL_OPTIONS",
    "NODE_OPTIONS",
    "PHP_INI_SCAN_DIR",
    "WGETRC",
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

/// All of them.
pub(crate) fn replaced() -> impl Iterator<Item = &'static str> {
    PROXIES.into_iter().chain(OTHERS)
}

/// Where the value of a replaced variable stands.
pub(crate) fn name(replaced: &str) -> String {
    format!("{MARK}_{replaced}")
}

/// Where it stands what a variable was set to; `None` for those of proxies, which is what the mark says.
pub(crate) fn set_name(replaced: &str) -> Option<String> {
    OTHERS
        .contains(&replaced)
        .then(|| format!("LUCID_PROXY_SET_{replaced}"))
}

/// The value of a variable as it was before; `var` gives those that are set now. What somebody has set since is left
/// alone.
pub(super) fn value(name: &str, var: impl Fn(&str) -> Option<String>) -> Option<String> {
    let now = var(name);
    if !replaced().any(|replaced| replaced == name) {
        return now;
    }
    let Some(mark) = var(MARK) else {
        return now;
    };
    let ours = match set_name(name) {
        Some(set) => var(&set),
        None => Some(mark),
    };
    match now == ours {
        true => var(&self::name(name)),
        false => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, variables: &[(&str, &str)]) -> Option<String> {
        value(name, |name| {
            let mut found = variables.iter().filter(|(other, _)| *other == name);
            found.next().map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn t02_our_own_commands_do_not_come_to_an_interception() {
        let ours = "http://exec:k@127.0.0.1:1";
        let changed = [
            (MARK, ours),
            ("HTTPS_PROXY", ours),
            ("https_proxy", ours),
            ("LUCID_PROXY_BEFORE_https_proxy", "http://company.test:1"),
            ("NO_PROXY", "localhost"),
            ("LUCID_PROXY_SET_NO_PROXY", "localhost"),
            ("NODE_OPTIONS", "--trace-uncaught --require node.js"),
            (
                "LUCID_PROXY_SET_NODE_OPTIONS",
                "--trace-uncaught --require node.js",
            ),
            ("LUCID_PROXY_BEFORE_NODE_OPTIONS", "--trace-uncaught"),
            ("OTHER", ours),
        ];
        assert_eq!(read("HTTPS_PROXY", &changed), None);
        let company = Some("http://company.test:1".to_owned());
        assert_eq!(read("https_proxy", &changed), company);
        assert_eq!(read("NO_PROXY", &changed), None);
        let before = Some("--trace-uncaught".to_owned());
        assert_eq!(read("NODE_OPTIONS", &changed), before);
        assert_eq!(read("OTHER", &changed).as_deref(), Some(ours));
    }

    #[test]
    fn what_was_set_since_counts() {
        let since = [(MARK, "http://a.test"), ("HTTPS_PROXY", "http://b.test")];
        assert_eq!(
            read("HTTPS_PROXY", &since).as_deref(),
            Some("http://b.test")
        );
        let since = [
            (MARK, "http://a.test"),
            ("NO_PROXY", "intranet"),
            ("LUCID_PROXY_SET_NO_PROXY", "localhost"),
            ("LUCID_PROXY_BEFORE_NO_PROXY", "old"),
        ];
        assert_eq!(read("NO_PROXY", &since).as_deref(), Some("intranet"));
        assert_eq!(read("NO_PROXY", &[since[0], since[2], since[3]]), None);
        let unmarked = [("NO_PROXY", "a"), ("LUCID_PROXY_BEFORE_NO_PROXY", "b")];
        assert_eq!(read("NO_PROXY", &unmarked).as_deref(), Some("a"));
    }
}
