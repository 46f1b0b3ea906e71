//! Redirect URIs: which are registered, and how an answer is added to one.

use http::HeaderValue;

/// Hosts whose redirect URIs are registered at any port unless a list says otherwise, as a local login needs them.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whether `uri` is registered: it is in `list`, or without a list it is `test_page` or a page on loopback.
///
/// A fragment is never allowed (RFC 6749, section 3.1.2), nor what a `Location` header could not carry as it is.
pub(super) fn is_registered(uri: &str, list: Option<&[String]>, test_page: &str) -> bool {
    let plain = uri
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    plain
        && match list {
            Some(list) => list.iter().any(|registered| registered == uri),
            None => uri == test_page || is_on_loopback(uri),
        }
}

/// Whether `uri` is `http://` + a loopback host + `:` + a port + `/…`.
fn is_on_loopback(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://") else {
        return false;
    };
    let port = LOOPBACK
        .iter()
        .find_map(|host| rest.strip_prefix(host)?.strip_prefix(':'))
        .and_then(|rest| rest.split_once('/'))
        .map(|(port, _)| port);
    port.is_some_and(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0)
    })
}

/// A registered URI with parameters added to its query; what is there already stays (RFC 6749, section 3.1.2).
pub(super) fn with_parameters(uri: &str, parameters: &[(&str, &str)]) -> HeaderValue {
    let separator = match uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some((_, query)) if query.ends_with('&') => "",
        Some(_) => "&",
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    HeaderValue::try_from(format!("{uri}{separator}{query}"))
        .expect("a registered URI and an encoded query consist of visible ASCII")
}

/// What a Content-Security-Policy calls the place to which `uri` leads: an origin, or a scheme where it knows no name
/// for the origin (it has none for IPv6 addresses, nor for the private schemes of native applications).
pub(super) fn policy_source(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    let named = scheme
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if scheme.is_empty() || !named {
        return None;
    }
    let authority = rest.strip_prefix("//").map(|rest| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        &rest[..end]
    });
    let nameable = authority.filter(|authority| {
        !authority.is_empty()
            && authority
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
    });
    Some(match nameable {
        Some(authority) => format!("{scheme}://{authority}"),
        None => format!("{scheme}:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_PAGE: &str = "http://lucid.test/oauth2/clients/cid-sandbox/redirect";

    #[test]
    fn loopback_pages_at_any_port_and_the_test_page_are_registered() {
        for uri in [
            "http://localhost:7777/callback",
            "http://127.0.0.1:1/",
            "http://[::1]:65535/a?b=c",
            TEST_PAGE,
        ] {
            assert!(is_registered(uri, None, TEST_PAGE), "{uri}");
        }
    }

    #[test]
    fn what_only_looks_like_a_loopback_page_is_not() {
        for uri in [
            "",
            "http://localhost/",
            "http://localhost:7777",
            "https://localhost:7777/",
            "http://localhost.evil.test:7777/",
            "http://localhost:7777@evil.test/",
            "http://localhost:0/",
            "http://localhost:+80/",
            "http://localhost:65536/",
            "http://127.0.0.2:80/",
            "http://localhost:80/#fragment",
            "http://localhost:80/a b",
            "http://localhost:80/\r\nX: y",
            "http://localhost:80/\u{e9}",
            "javascript:alert(1)//http://localhost:80/",
        ] {
            assert!(!is_registered(uri, None, TEST_PAGE), "{uri:?}");
        }
    }

    #[test]
    fn a_list_is_exact_and_complete() {
        let list = [String::from("http://localhost:7777/a?b=c")];
        let registered = |uri| is_registered(uri, Some(&list), TEST_PAGE);
        assert!(registered("http://localhost:7777/a?b=c"));
        for uri in [
            "http://localhost:7777/a",
            "http://localhost:7777/a?b=c&d=e",
            "http://LOCALHOST:7777/a?b=c",
            TEST_PAGE,
        ] {
            assert!(!registered(uri), "{uri}");
        }
    }

    #[test]
    fn parameters_join_a_query_that_is_there() {
        for (uri, joined) in [
            ("http://localhost:1/", "http://localhost:1/?code=a+%2B%3D"),
            ("http://localhost:1/?", "http://localhost:1/?code=a+%2B%3D"),
            (
                "http://localhost:1/?b=%20",
                "http://localhost:1/?b=%20&code=a+%2B%3D",
            ),
            (
                "http://localhost:1/?b&",
                "http://localhost:1/?b&code=a+%2B%3D",
            ),
        ] {
            assert_eq!(with_parameters(uri, &[("code", "a +=")]), joined);
        }
    }

    #[test]
    fn a_policy_names_the_origin_or_at_least_the_scheme() {
        for (uri, source) in [
            ("http://localhost:7777/a?b", Some("http://localhost:7777")),
            ("https://app.test?b", Some("https://app.test")),
            ("http://[::1]:80/", Some("http:")),
            ("com.example.app:/callback", Some("com.example.app:")),
            ("https://a;script-src/", Some("https:")),
            ("a;b://c", None),
            ("nothing", None),
        ] {
            assert_eq!(policy_source(uri).as_deref(), source, "{uri}");
        }
    }
}
