//! Who a server says it is, and who says so: read from its certificate, whether that is trusted or not.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::super::times::day;

/// More names than this tell nobody more.
const MOST_NAMES: usize = 3;

/// Keeps the certificate that a server shows and lets another verifier judge it: what that refuses is refused.
#[derive(Debug)]
pub(super) struct Onlooker {
    judge: Arc<dyn ServerCertVerifier>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Onlooker {
    pub(super) fn beside(judge: Arc<dyn ServerCertVerifier>) -> Arc<Self> {
        let seen = Mutex::new(None);
        Arc::new(Self { judge, seen })
    }

    /// The certificate of the last handshake, if it came that far.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(Certificate::read)
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = Some(end_entity.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        self.judge
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.judge.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.judge.root_hint_subjects()
    }
}

/// What a certificate says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    Read {
        /// In the form of RFC 4514.
        issuer: String,
        /// Host names and addresses that it is for (RFC 5280 section 4.2.1.6).
        names: Vec<String>,
        until: SystemTime,
    },
    /// Not in the form of RFC 5280.
    Unreadable,
}

impl Certificate {
    fn read(der: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = CertificateInner::<Raw>::from_der(der) else {
            return Self::Unreadable;
        };
        let content = certificate.tbs_certificate();
        let names = content.get_extension::<SubjectAltName>().ok().flatten();
        let names = names.map_or_else(Vec::new, |(_, names)| names.0);
        Self::Read {
            issuer: content.issuer().to_string(),
            names: names.iter().filter_map(name).collect(),
            until: content.validity().not_after.to_system_time(),
        }
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Read {
            issuer,
            names,
            until,
        } = self
        else {
            return f.write_str("a certificate in no known form");
        };
        let more = match names.len() {
            0 => "no name".to_owned(),
            1..=MOST_NAMES => names.join(", "),
            many => format!(
                "{} and {} more",
                names[..MOST_NAMES].join(", "),
                many - MOST_NAMES
            ),
        };
        write!(
            f,
            "a certificate for {more}, issued by {issuer}, valid until {}",
            day(*until)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_names_and_end_are_read() {
        let names = ["a.test", "127.0.0.1", "b.test", "c.test"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let read = Certificate::read(made.cert.der());
        let shown = read.to_string();
        assert_eq!(
            shown,
            "a certificate for a.test, 127.0.0.1, b.test and 1 more, issued by CN=rcgen self signed cert, valid until 4096-01-01"
        );
    }

    #[test]
    fn s08_what_is_no_certificate_is_no_panic() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("made");
        let whole = made.cert.der().to_vec();
        for length in 0..whole.len() {
            let cut = CertificateDer::from(&whole[..length]);
            assert_eq!(Certificate::read(&cut), Certificate::Unreadable);
        }
        for place in 0..whole.len() {
            let mut bent = whole.clone();
            bent[place] ^= 0x81;
            let _ = Certificate::read(&CertificateDer::from(bent)).to_string();
        }
    }
}
