//! `[guard]`: who may use the proxy, and for what.

use super::names;
use super::raw::{Source, Table};
use super::rules::Rules;

/// `[guard]`
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Values of `Host` that are accepted beside the listener's own, lower case.
    pub allow_hosts: Vec<String>,
    /// Origins of the web pages that are served, as browsers send them (RFC 6454 section 6.2).
    pub allow_origins: Vec<String>,
    /// Whether a listener may be reachable from other machines without any client key.
    pub allow_unauthenticated: bool,
    /// What requests may do, whoever sends them.
    pub rules: Rules,
}

/// Takes `[guard]` out of the file, which also says whether it `has_clients`.
pub(super) fn check<'a>(source: &mut Source<'a>, root: &mut Table<'a>, has_clients: bool) -> Guard {
    let mut table = root.table(source, "guard");
    let allow_hosts = names::check_hosts(source, &mut table);
    let allow_origins = names::check_origins(source, &mut table);
    let allow_unauthenticated = table
        .boolean(source, "allow_unauthenticated")
        .filter(|found| found.value);
    if let Some(found) = allow_unauthenticated.as_ref().filter(|_| has_clients) {
        let message = "there are [clients], and with them every request needs a key; leave this out, or all of them";
        source.problem(Some(&found.at), &found.key, message);
    }
    let rules = Rules::check(source, &mut table);
    table.finish(source);
    Guard {
        allow_hosts,
        allow_origins,
        allow_unauthenticated: allow_unauthenticated.is_some(),
        rules,
    }
}
