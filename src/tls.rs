//! TLS towards upstream and token endpoint: one provider, the system's trust and what is configured beside.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Why no TLS client could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody is trusted.
    #[error(
        "cannot use this system's trusted certificates; install them (Debian: apt-get install ca-certificates) or name a bundle in upstream.ca_file or SSL_CERT_FILE"
    )]
    Roots(#[from] rustls::Error),
    /// No certificate can be for this host.
    #[error("{0:?} is no name for a certificate; give the host as a name or an address")]
    Name(String),
}

/// Judges certificates as the operating system does, and trusts `extra_roots` beside.
///
/// # Errors
///
/// When nobody is trusted: the system has no trusted certificates, and there are none beside.
pub fn verifier(
    extra_roots: &[CertificateDer<'static>],
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let extra_roots = extra_roots.iter().cloned();
    let verifier = Verifier::new_with_extra_roots(extra_roots, provider())?;
    Ok(Arc::new(verifier))
}

/// Whether a certificate could be one of the extra roots.
pub(crate) fn can_be_trusted(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

/// A client configuration that trusts whom this verifier does: the one of [`verifier`], or one that asks it.
pub(crate) fn client_config(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        // rustls's name for every verifier that is not its own.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// A configuration for a client that never speaks TLS, on systems without any trusted certificate.
pub(crate) fn trusting_nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
