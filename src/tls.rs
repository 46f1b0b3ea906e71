//! TLS towards upstream and token endpoint: one provider, the system's trust.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls_platform_verifier::Verifier;

/// Why no TLS client could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody is trusted.
    #[error(
        "cannot use this system's trusted certificates; install them (Debian: apt-get install ca-certificates) or point SSL_CERT_FILE at a bundle"
    )]
    Roots(#[from] rustls::Error),
    /// No certificate can be for this host.
    #[error("{0:?} is no name for a certificate; give the host as a name or an address")]
    Name(String),
}

/// A client configuration that trusts what the operating system trusts.
///
/// # Errors
///
/// When the system has no trusted certificates.
pub fn client_config() -> Result<ClientConfig, TlsError> {
    Ok(client_config_judged_by(verifier()?))
}

/// Judges certificates as the operating system does.
///
/// # Errors
///
/// When the system has no trusted certificates.
pub fn verifier() -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(Arc::new(Verifier::new(provider())?))
}

/// As [`client_config`], with a verifier that is, or asks, the one of [`verifier`].
pub(crate) fn client_config_judged_by(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
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
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
