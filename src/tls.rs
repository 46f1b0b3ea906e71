//! TLS towards upstream and token endpoint: one provider, the system's trust.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls_platform_verifier::BuilderVerifierExt;

/// Why no TLS client could be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use this system's trusted certificates; install them (Debian: apt-get install ca-certificates) or point SSL_CERT_FILE at a bundle"
)]
pub struct TlsError(#[from] rustls::Error);

/// A client configuration that trusts what the operating system trusts.
///
/// # Errors
///
/// When the system has no trusted certificates.
pub fn client_config() -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(config)
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
