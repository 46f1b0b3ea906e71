//! What programs have to trust: the system's certificates and ours in one, since most variables that name trusted
//! certificates replace those of the system.

use std::io;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self as pki_pem, PemObject};

use super::{Authority, pem, pkcs12};

/// The certificates that programs are to trust, ours first, each once.
#[derive(Clone, Debug)]
pub struct Trust(Vec<CertificateDer<'static>>);

impl Trust {
    /// Ours, and the system's: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where the environment has them. What of
    /// those cannot be read is left out, and the log says so.
    pub fn system_and(authority: &Authority) -> Self {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!("of this system's trusted certificates some are left out: {error}");
        }
        if system.certs.is_empty() {
            tracing::warn!(
                "this system has no trusted certificates: programs will trust ours alone; install them (Debian: apt-get install ca-certificates)"
            );
        }
        let mut trust = Self(vec![authority.certificate().clone()]);
        trust.add(system.certs);
        trust
    }

    /// Those in a file as well, such as one that a variable names whose place our bundle takes. How many it held.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or something in it is no PEM.
    pub fn add_file(&mut self, path: &Path) -> io::Result<usize> {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| match error {
                pki_pem::Error::Io(error) => error,
                error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            })?;
        let count = certificates.len();
        self.add(certificates);
        Ok(count)
    }

    fn add(&mut self, certificates: Vec<CertificateDer<'static>>) {
        for certificate in certificates {
            if !self.0.contains(&certificate) {
                self.0.push(certificate);
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them in PEM, for `SSL_CERT_FILE` and its kind.
    pub fn bundle(&self) -> Vec<u8> {
        let blocks = self.0.iter().map(|it| pem::block(pem::CERTIFICATE, it));
        blocks.flat_map(|block| block.as_bytes().to_vec()).collect()
    }

    /// All of them in a trust store for Java (`-Djavax.net.ssl.trustStoreType=PKCS12`). It has no password, since it
    /// holds nothing secret: Java reads it with any or none.
    pub fn java(&self) -> Vec<u8> {
        pkcs12::trust_store(&self.0)
    }
}
