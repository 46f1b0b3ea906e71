//! Certificates of the hosts that are intercepted: short-lived, and in memory alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Signer, Validity, certify};
use super::key::Key;
use crate::clock;

/// So long before the authority's own end the log tells of it: a process that runs on needs a new start.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often the log tells of clients that ask for another host.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why no TLS connection can be accepted for a host.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The authority may not vouch for it.
    #[error("this host is not among those that are intercepted (intercept.hosts)")]
    NotOurs,
    /// The authority's own time is over.
    #[error(
        "the local certificate authority's time is over; start this process again, and a new one is made"
    )]
    Expired,
    /// The library refused.
    #[error("no certificate can be made for this host")]
    Make(#[source] rcgen::Error),
    /// The TLS library refused.
    #[error("no TLS connection can be accepted for this host")]
    Tls(#[source] rustls::Error),
    /// The system gives no random numbers.
    #[error("no key can be made: the system gave no random bytes")]
    Random,
}

/// What was made for each host.
#[derive(Debug, Default)]
pub(super) struct Leaves(BTreeMap<String, Leaf>);

#[derive(Debug)]
struct Leaf {
    config: Arc<ServerConfig>,
    made: SystemTime,
    /// When half of its time is over.
    renewed: SystemTime,
}

impl Leaves {
    /// What serves this host now: what was made, in the first half of its time, else a new one.
    pub(super) fn for_host(
        &mut self,
        host: &str,
        signer: &Signer,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, LeafError> {
        if let Some(leaf) = self.0.get(host)
            && (leaf.made..leaf.renewed).contains(&now)
        {
            return Ok(leaf.config.clone());
        }
        let leaf = Leaf::make(host, signer, now)?;
        let config = leaf.config.clone();
        self.0.insert(host.to_owned(), leaf);
        Ok(config)
    }
}

impl Leaf {
    fn make(host: &str, signer: &Signer, now: SystemTime) -> Result<Self, LeafError> {
        let authority = signer.validity;
        let validity = authority.of_leaf(now).ok_or(LeafError::Expired)?;
        if authority.end.duration_since(now).unwrap_or_default() < WARN_BEFORE {
            tracing::warn!(
                "the local certificate authority ends at {}; start this process again before, and a new one is made",
                clock::utc(authority.end)
            );
        }
        let left = validity.end.duration_since(now).unwrap_or_default();
        Ok(Self {
            config: Arc::new(config(host, signer, validity)?),
            made: now,
            renewed: now + left / 2,
        })
    }
}

fn config(host: &str, signer: &Signer, validity: Validity) -> Result<ServerConfig, LeafError> {
    let provider = Arc::new(default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneHost {
            host: host.to_owned(),
            told: Mutex::default(),
            certified: Arc::new(certified(host, signer, validity)?),
        }));
    config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(<[u8]>::to_vec).to_vec();
    config.ticketer = Ticketer::new().map_err(LeafError::Tls)?;
    Ok(config)
}

/// A new key, and the certificate for it.
fn certified(host: &str, signer: &Signer, validity: Validity) -> Result<CertifiedKey, LeafError> {
    let key = Key::generate().map_err(|_| LeafError::Random)?;
    let certificate = certify(signer, host, &key, validity).map_err(LeafError::Make)?;
    let pkcs8 = key.to_pkcs8().map_err(|_| LeafError::Random)?;
    let borrowed = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref()));
    let signing = any_ecdsa_type(&borrowed).map_err(LeafError::Tls)?;
    let chain = vec![certificate.der().clone(), signer.certificate.clone()];
    Ok(CertifiedKey::new(chain, signing))
}

/// Shows the one certificate to whoever asks for its host, or for none.
struct OneHost {
    host: String,
    /// When it was last told that somebody asked for another host.
    told: Mutex<Option<Instant>>,
    certified: Arc<CertifiedKey>,
}

impl OneHost {
    /// Says who was asked for in vain, once a minute at the most: a program that asks so asks so again.
    fn tell(&self, name: &str, now: Instant) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(*told, now) {
            *told = Some(now);
            tracing::warn!(
                "a client asked for {name} in the TLS handshake of a connection to {}, and was refused",
                self.host
            );
        }
    }
}

fn is_due(told: Option<Instant>, now: Instant) -> bool {
    told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY)
}

impl ResolvesServerCert for OneHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(name) if !name.eq_ignore_ascii_case(&self.host) => {
                self.tell(name, Instant::now());
                None
            }
            _ => Some(self.certified.clone()),
        }
    }
}

impl fmt::Debug for OneHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneHost")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_another_host_is_told_of_once_a_minute() {
        let now = Instant::now();
        assert!(is_due(None, now));
        assert!(!is_due(
            Some(now),
            now + TELL_EVERY - Duration::from_nanos(1)
        ));
        assert!(is_due(Some(now), now + TELL_EVERY));
    }
}
