//! The environment as it was before this program changed it for others.
//!
//! `lucid-proxy exec` and `env` lead programs to a proxy of ours. A `lucid-proxy` among those programs must not come there:
//! what it sends to the token endpoint would be answered with placeholders (rule F11), which it would store in the place of
//! the real pair. So it goes by what was set before, which stands beside it.

/// Says that the variables of proxies were changed, and to what.
pub(crate) const MARK: &str = "LUCID_PROXY_BEFORE";

/// The variables that were, of those that this program reads.
pub(crate) const REPLACED: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Where the value of a replaced variable stands.
pub(crate) fn name(replaced: &str) -> String {
    format!("{MARK}_{replaced}")
}

/// The value of a variable as it was before; `var` gives those that are set now. What somebody has set since is left
/// alone.
pub(super) fn value(name: &str, var: impl Fn(&str) -> Option<String>) -> Option<String> {
    let now = var(name);
    if !REPLACED.contains(&name) {
        return now;
    }
    let Some(ours) = var(MARK) else {
        return now;
    };
    let is_list = name.eq_ignore_ascii_case("no_proxy");
    match is_list || now.as_ref() == Some(&ours) {
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
            ("OTHER", ours),
        ];
        assert_eq!(read("HTTPS_PROXY", &changed), None);
        let company = Some("http://company.test:1".to_owned());
        assert_eq!(read("https_proxy", &changed), company);
        assert_eq!(read("NO_PROXY", &changed), None);
        assert_eq!(read("OTHER", &changed).as_deref(), Some(ours));
    }

    #[test]
    fn what_was_set_since_counts() {
        let since = [(MARK, "http://a.test"), ("HTTPS_PROXY", "http://b.test")];
        assert_eq!(
            read("HTTPS_PROXY", &since).as_deref(),
            Some("http://b.test")
        );
        let unmarked = [("NO_PROXY", "a"), ("LUCID_PROXY_BEFORE_NO_PROXY", "b")];
        assert_eq!(read("NO_PROXY", &unmarked).as_deref(), Some("a"));
    }
}
