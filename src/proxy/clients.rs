//! Whose request is it? Keys of clients (rules S1 and S4).
//!
//! A key comes where a program has its token, or where it puts the login of a proxy. It is for this proxy alone: neither
//! place goes upstream, whatever stood there ([`head`](super::head) sees to that).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::request::Parts;

use super::Proxy;
use super::exchange::Exchange;
use super::guard::Guard;
use super::policy::Policy;
use super::reply::Refusal;
use crate::config::{KeyHash, KnownClient};
use crate::secret::Zeroizing;

/// Everybody who may use the proxy.
#[derive(Clone, Debug)]
pub struct Clients(Vec<Arc<Client>>);

/// Somebody who may use the proxy.
#[derive(Clone, Debug)]
pub struct Client {
    /// The name behind `clients.`.
    pub name: Arc<str>,
    key: KeyHash,
    /// What its requests may do, if not everything that the guard permits.
    pub policy: Option<Policy>,
}

impl Proxy {
    /// Step 2: whose request it is, where that makes a difference.
    pub(super) fn identify(
        &self,
        head: &Parts,
        guard: &Guard,
        exchange: Option<&mut Exchange>,
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let Some(clients) = &self.settings.clients else {
            return Ok(None);
        };
        let client = match guard.known_client() {
            Known::ByKey => clients.identify(&head.headers)?.clone(),
            Known::Is(client) => client.clone(),
            Known::Everybody => return Ok(None),
        };
        note(exchange, &client);
        Ok(Some(client))
    }

    /// The same for one that uses this as its forward proxy, and says so where a proxy is told.
    pub(super) fn identify_at_proxy(
        &self,
        head: &Parts,
        exchange: Option<&mut Exchange>,
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let Some(clients) = &self.settings.clients else {
            return Ok(None);
        };
        let client = clients.identify_at_proxy(&head.headers)?;
        note(exchange, client);
        Ok(Some(client.clone()))
    }

    /// The same where the one client is known by the listener that it comes to.
    pub(super) fn only_client(&self, exchange: Option<&mut Exchange>) -> Option<Arc<Client>> {
        let client = self.settings.clients.as_ref()?.0.first()?;
        note(exchange, client);
        Some(client.clone())
    }
}

/// By what a listener knows whose request it is.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// By the key that comes with it.
    ByKey,
    /// By the connection: it is this client's.
    Is(&'a Arc<Client>),
    /// Not at all: whoever reaches it belongs to its one program.
    Everybody,
}

fn note(exchange: Option<&mut Exchange>, client: &Client) {
    if let Some(exchange) = exchange {
        exchange.client = Some(client.name.clone());
    }
}

impl Clients {
    /// Those of the configuration; `None` where it has none, and everybody is served.
    pub fn new(clients: &[KnownClient]) -> Option<Self> {
        let known = |client: &KnownClient| {
            Some(Client {
                name: client.name.as_str().into(),
                // Nobody can come with one that is not known.
                key: client.key?,
                policy: Policy::new(format!("clients.{}", client.name), &client.rules),
            })
        };
        let known = |client| known(client).map(Arc::new);
        (!clients.is_empty()).then(|| Self(clients.iter().filter_map(known).collect()))
    }

    /// Whose key a request comes with.
    ///
    /// # Errors
    ///
    /// Where it comes without one, or with one that is nobody's. The refusal is the same for all reasons.
    pub fn identify(&self, headers: &HeaderMap) -> Result<&Arc<Client>, Refusal> {
        Presented::by(headers)
            .and_then(|presented| self.find(&presented))
            .ok_or_else(Refusal::client_key_required)
    }

    /// Whose key a request comes with that asks for another host: where a proxy is told, and nowhere else.
    ///
    /// # Errors
    ///
    /// As for any other, in the words in which a proxy says it.
    pub fn identify_at_proxy(&self, headers: &HeaderMap) -> Result<&Arc<Client>, Refusal> {
        Presented::to_a_proxy(headers)
            .and_then(|presented| self.find(&presented))
            .ok_or_else(Refusal::proxy_key_required)
    }

    fn find(&self, presented: &Presented) -> Option<&Arc<Client>> {
        let mut found = None;
        // All of them, however early it is found.
        for client in &self.0 {
            if client.key.is(&presented.key) {
                found = Some(client);
            }
        }
        let is_named = |name: &[u8], client: &Client| name == client.name.as_bytes();
        let name = presented.name.as_deref();
        found.filter(|client| name.is_none_or(|name| is_named(name, client)))
    }
}

/// What a request says of its sender.
struct Presented {
    key: KeyHash,
    /// Only a login has one.
    name: Option<Vec<u8>>,
}

impl Presented {
    /// Where there is a `Proxy-Authorization`, it counts, since it can be meant for nobody else; what stands in
    /// `Authorization` may then be an old token of Lucid's. Two of what counts are none.
    fn by(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(PROXY_AUTHORIZATION) {
            return Self::to_a_proxy(headers);
        }
        let (scheme, value) = only(headers, AUTHORIZATION)?;
        Self::bearer(scheme, value)
    }

    /// RFC 9110 section 11.7.2.
    fn to_a_proxy(headers: &HeaderMap) -> Option<Self> {
        let (scheme, value) = only(headers, PROXY_AUTHORIZATION)?;
        match scheme.eq_ignore_ascii_case(b"basic") {
            true => Self::login(value),
            false => Self::bearer(scheme, value),
        }
    }

    /// RFC 6750 section 2.1.
    fn bearer(scheme: &[u8], key: &[u8]) -> Option<Self> {
        scheme.eq_ignore_ascii_case(b"bearer").then(|| Self {
            key: KeyHash::of(key),
            name: None,
        })
    }

    /// RFC 7617 section 2.
    fn login(value: &[u8]) -> Option<Self> {
        let login = Zeroizing::new(STANDARD.decode(value).ok()?);
        let colon = login.iter().position(|byte| *byte == b':')?;
        Some(Self {
            key: KeyHash::of(&login[colon + 1..]),
            name: Some(login[..colon].to_vec()),
        })
    }
}

/// Scheme and value of a field that stands there once (RFC 9110 section 11.4).
fn only(headers: &HeaderMap, name: HeaderName) -> Option<(&[u8], &[u8])> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let space = line.iter().position(|byte| *byte == b' ')?;
    Some((&line[..space], line[space..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rules;

    fn clients() -> Clients {
        let known = |name: &str, key: &[u8], read_only| KnownClient {
            name: name.to_owned(),
            key: Some(KeyHash::of(key)),
            rules: Rules {
                read_only,
                ..Rules::default()
            },
        };
        let known = [
            known("reports", b"key-of-reports", true),
            known("ci", b"key-of-ci", false),
        ];
        Clients::new(&known).expect("there are some")
    }

    /// Who has sent these fields.
    fn who(fields: &[(HeaderName, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).expect("a value");
            headers.append(name.clone(), value);
        }
        let clients = clients();
        let client = clients.identify(&headers).ok()?;
        Some(client.name.to_string())
    }

    #[test]
    fn s04_a_key_tells_whose_request_it_is_and_what_that_may_do() {
        assert!(
            Clients::new(&[]).is_none(),
            "without keys everybody is served"
        );
        let ci = Some("ci".to_owned());
        assert_eq!(who(&[(AUTHORIZATION, "Bearer key-of-ci")]), ci);
        assert_eq!(who(&[(AUTHORIZATION, "bearer  key-of-ci ")]), ci);
        assert_eq!(who(&[(PROXY_AUTHORIZATION, "BEARER key-of-ci")]), ci);
        let reports = who(&[(AUTHORIZATION, "Bearer key-of-reports")]);
        assert_eq!(reports.as_deref(), Some("reports"));
        let may = clients().0;
        assert!(may[0].policy.is_some() && may[1].policy.is_none());
    }

    #[test]
    fn s04_where_a_proxys_field_is_it_counts_alone_and_two_are_none() {
        let ci = Some("ci".to_owned());
        let key = "Bearer key-of-ci";
        let stale = "Bearer oauth2-stale";
        let both = |authorization, proxys| {
            who(&[
                (AUTHORIZATION, authorization),
                (PROXY_AUTHORIZATION, proxys),
            ])
        };
        assert_eq!(both(stale, key), ci);
        assert_eq!(both(key, stale), None);
        for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
            assert_eq!(who(&[(name.clone(), key), (name, key)]), None);
        }
        assert_eq!(who(&[]), None);
    }

    #[test]
    fn s04_a_login_has_the_name_of_its_key() {
        let login = |text: &str| {
            let login = format!("Basic {}", STANDARD.encode(text));
            (
                who(&[(PROXY_AUTHORIZATION, &login)]),
                who(&[(AUTHORIZATION, &login)]),
            )
        };
        let ci = Some("ci".to_owned());
        assert_eq!(
            login("ci:key-of-ci"),
            (ci, None),
            "where a proxy's login is"
        );
        for other in [
            "reports:key-of-ci",
            ":key-of-ci",
            "ci:key-of-ci:",
            "ci:key-of",
            "key-of-ci",
            "ci::key-of-ci",
        ] {
            assert_eq!(login(other), (None, None), "{other}");
        }
    }

    #[test]
    fn s04_what_is_no_key_of_anybodys_is_nobodys() {
        for value in [
            "Bearer key-of-c",
            "Bearer key-of-cii",
            "Bearer KEY-OF-CI",
            "Bearer",
            "Bearer ",
            "Basic key-of-ci",
            "Digest key-of-ci",
            "key-of-ci",
            "Bearerkey-of-ci",
            "",
        ] {
            for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
                assert_eq!(who(&[(name, value)]), None, "{value:?}");
            }
        }
    }
}
