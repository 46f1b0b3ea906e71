//! A proxy between this machine and the internet, as companies have them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::{Origin, Scheme};
use crate::secret::Secret;

/// A proxy that connections go through, opened with CONNECT (RFC 9110 section 9.3.6).
#[derive(Clone, Debug)]
pub struct HttpProxy {
    /// Where it listens, and whether with TLS.
    pub origin: Origin,
    /// The value of `Proxy-Authorization` (RFC 7617), where its URL names a user.
    pub authorization: Option<Secret>,
    /// The variable or the key that names it.
    pub set_by: String,
}

/// What is said of a value that is no proxy's URL. It never repeats the value, which may have a password in it.
const EXPECTED: &str = "expected a proxy such as http://proxy.example:3128 or http://user:password@proxy.example:3128, with %XX for special characters in user and password";

impl HttpProxy {
    /// Reads the URL of a proxy, `http://` or `https://`; without either, it means `http://`, as curl has it. The port is
    /// the scheme's own where none is given.
    ///
    /// # Errors
    ///
    /// When it is none; the message says what would be accepted.
    pub fn parse(url: &str, set_by: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(
                    "SOCKS proxies are not spoken to, only http:// and https:// ones; name one of these in upstream.proxy, or connect directly with upstream.proxy = \"none\"",
                );
            }
            _ => return Err(EXPECTED),
        };
        let (user, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (user, server),
            None => ("", rest),
        };
        let origin = Origin::parse(&format!("{}://{server}", scheme.as_str()));
        Ok(Self {
            origin: origin.ok_or(EXPECTED)?,
            authorization: authorization(user)?,
            set_by: set_by.to_owned(),
        })
    }
}

/// `user:password` as it stands in a URL, for `Proxy-Authorization`.
fn authorization(user_and_password: &str) -> Result<Option<Secret>, &'static str> {
    if user_and_password.is_empty() {
        return Ok(None);
    }
    let (user, password) = user_and_password
        .split_once(':')
        .unwrap_or((user_and_password, ""));
    let [user, password] =
        [user, password].map(|part| percent_decode_str(part).collect::<Vec<_>>());
    if user.contains(&b':') {
        return Err("no user name of a proxy can have a colon in it (RFC 7617)");
    }
    let plain = [&user[..], b":", &password].concat();
    if plain.iter().any(u8::is_ascii_control) {
        return Err(
            "no user name or password of a proxy can have control characters in it (RFC 7617)",
        );
    }
    Ok(Some(Secret::from(format!(
        "Basic {}",
        STANDARD.encode(plain)
    ))))
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} ({})", self.origin, self.set_by)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::ExposeSecret;

    fn parse(url: &str) -> Result<HttpProxy, &'static str> {
        HttpProxy::parse(url, "HTTPS_PROXY")
    }

    /// The origin, and user and password as the proxy will read them.
    fn read(url: &str) -> (String, Option<Vec<u8>>) {
        let proxy = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let plain = proxy.authorization.map(|value| {
            let encoded = value
                .expose_secret()
                .strip_prefix("Basic ")
                .map(str::to_owned);
            STANDARD.decode(encoded.expect("Basic")).expect("base64")
        });
        (proxy.origin.to_string(), plain)
    }

    #[test]
    fn urls_of_proxies_are_read_as_curl_reads_them() {
        for (url, origin, user) in [
            ("http://proxy.test:3128", "http://proxy.test:3128", None),
            ("HTTP://Proxy.Test/", "http://proxy.test", None),
            ("https://proxy.test", "https://proxy.test", None),
            ("proxy.test:3128", "http://proxy.test:3128", None),
            (" http://[::1]:8 ", "http://[::1]:8", None),
            ("http://@proxy.test", "http://proxy.test", None),
            (
                "http://ada:pass@proxy.test:8",
                "http://proxy.test:8",
                Some(&b"ada:pass"[..]),
            ),
            (
                "ada:pass@proxy.test:8",
                "http://proxy.test:8",
                Some(b"ada:pass"),
            ),
            ("http://ada@proxy.test", "http://proxy.test", Some(b"ada:")),
            ("http://ada:@proxy.test", "http://proxy.test", Some(b"ada:")),
            (
                "http://:pass@proxy.test",
                "http://proxy.test",
                Some(b":pass"),
            ),
            (
                "http://corp%5Cada:p%40s%3As%2F@proxy.test",
                "http://proxy.test",
                Some(b"corp\\ada:p@s:s/"),
            ),
            (
                "http://ada:p:q@proxy.test",
                "http://proxy.test",
                Some(b"ada:p:q"),
            ),
            (
                "http://ada:p@q@proxy.test",
                "http://proxy.test",
                Some(b"ada:p@q"),
            ),
            (
                "http://ada:%E9%zz@proxy.test",
                "http://proxy.test",
                Some(b"ada:\xe9%zz"),
            ),
        ] {
            assert_eq!(
                read(url),
                (origin.to_owned(), user.map(<[u8]>::to_vec)),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_proxy_is_told() {
        for (url, word) in [
            ("", "expected a proxy"),
            ("http://", "expected a proxy"),
            ("http://a b", "expected a proxy"),
            ("http://proxy.test:0", "expected a proxy"),
            ("http://proxy.test/path", "expected a proxy"),
            ("http://ada:pa/ss@proxy.test:99999", "expected a proxy"),
            ("ftp://proxy.test", "expected a proxy"),
            ("socks5h://proxy.test:1080", "SOCKS"),
            ("http://a%3Ab:c@proxy.test", "colon"),
            (
                "http://ada:c%0D%0AX-Evil%3A1@proxy.test",
                "control characters",
            ),
        ] {
            let told = parse(url).expect_err(url);
            assert!(told.contains(word), "{url}: {told}");
        }
    }

    #[test]
    fn s06_the_password_of_a_proxy_does_not_show() {
        let proxy = parse("http://ada:marked@proxy.test:3128").expect("a proxy");
        assert_eq!(
            proxy.to_string(),
            "the proxy http://proxy.test:3128 (HTTPS_PROXY)"
        );
        let shown = format!("{proxy:?}");
        for secret in ["marked", "ada", &STANDARD.encode("ada:marked")] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn s08_no_url_of_a_proxy_makes_a_panic(url in "\\PC*", user in "\\PC*") {
            let _ = parse(&url);
            let _ = parse(&format!("http://{user}@proxy.test"));
        }
    }
}
