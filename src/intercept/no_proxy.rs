//! What is left of a list in `NO_PROXY` for a program that is to come to the proxy.
//!
//! Programs read the list in ways of their own: some take an entry for the end of a name wherever that begins, some take
//! `*` for a part of it. So an entry goes as soon as any of them could find an intercepted host in it, and stays otherwise.

/// Hosts of this machine: nobody comes here through a proxy, the base URL least of all.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The list without what names one of `hosts`, and with the names of this machine, which are reached directly.
pub fn cleaned(list: &str, hosts: &[String]) -> String {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace());
    let mut kept: Vec<&str> = entries
        .filter(|entry| !entry.is_empty() && !names_any(entry, hosts))
        .collect();
    for local in LOCAL {
        if !kept.iter().any(|entry| entry.eq_ignore_ascii_case(local)) {
            kept.push(local);
        }
    }
    kept.join(",")
}

/// The same list as Java's `http.nonProxyHosts` has it: between bars, `*` at one end only. It knows neither ports nor
/// networks.
pub fn for_java(cleaned: &str) -> String {
    let mut hosts = vec!["localhost".to_owned(), "127.*".into(), "[::1]".into()];
    for entry in cleaned.split(',').filter(|entry| !LOCAL.contains(entry)) {
        let name = entry.trim_start_matches('*').trim_start_matches('.');
        if name.is_empty() || name.contains(['*', '/', ':', '[', '|']) || name.contains(unquotable)
        {
            continue;
        }
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        hosts.push(name.to_owned());
        if !is_address {
            hosts.push(format!("*.{name}"));
        }
    }
    hosts.join("|")
}

/// What would end a word of `JAVA_TOOL_OPTIONS`.
fn unquotable(c: char) -> bool {
    c.is_whitespace() || c == '"' || c == '\''
}

fn names_any(entry: &str, hosts: &[String]) -> bool {
    let entry = entry.to_ascii_lowercase();
    // A network that has every address in it. Which ones a host has is not looked up here.
    if entry.ends_with("/0") {
        return true;
    }
    let name = match entry.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &entry,
    };
    // Of a pattern with more before it, the end decides.
    let name = name.rsplit('*').next().unwrap_or(name);
    let name = name.trim_matches('.');
    name.is_empty() || hosts.iter().any(|host| host.ends_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCALS: &str = "localhost,127.0.0.1,::1";

    fn hosts() -> Vec<String> {
        ["api.lucid.co", "api.lucid.app"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn what_could_name_an_intercepted_host_goes() {
        for entry in [
            "*",
            "api.lucid.co",
            "API.Lucid.CO",
            "api.lucid.co.",
            ".lucid.co",
            "*.lucid.co",
            "lucid.co:443",
            "lucid.app",
            ".app",
            "co",
            // As wget and Python's requests read it.
            "ucid.co",
            "api.*.co",
            "*:443",
            "0.0.0.0/0",
            ".",
        ] {
            assert_eq!(cleaned(entry, &hosts()), LOCALS, "{entry}");
            let among = format!("a.test, {entry} b.test");
            assert_eq!(cleaned(&among, &hosts()), format!("a.test,b.test,{LOCALS}"));
        }
    }

    #[test]
    fn everything_else_stays_as_it_was_written() {
        for entry in [
            "Intranet.Example",
            ".example.co",
            "*.example.app",
            "10.0.0.0/8",
            "2001:db8::1",
            "[2001:db8::1]:8443",
            "host:8443",
            "docs.lucid.co",
            "xapi.lucid.co",
            "api.lucid.co.example",
        ] {
            assert_eq!(cleaned(entry, &hosts()), format!("{entry},{LOCALS}"));
        }
        assert_eq!(cleaned("", &hosts()), LOCALS);
        assert_eq!(
            cleaned("LOCALHOST,::1", &hosts()),
            "LOCALHOST,::1,127.0.0.1",
            "not twice"
        );
    }

    #[test]
    fn java_gets_the_list_in_its_own_form() {
        let local = "localhost|127.*|[::1]";
        for (list, more) in [
            ("", ""),
            ("a.test", "|a.test|*.a.test"),
            (".a.test,*.b.test", "|a.test|*.a.test|b.test|*.b.test"),
            ("10.1.2.3", "|10.1.2.3"),
            // No word for these in Java.
            ("10.0.0.0/8,a.test:80,a|b,a'b", ""),
        ] {
            let list = cleaned(list, &hosts());
            assert_eq!(for_java(&list), format!("{local}{more}"), "{list}");
        }
    }
}
