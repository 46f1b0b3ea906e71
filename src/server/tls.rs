//! TLS towards clients: certificates from files, taken over when they change, and the protocol by ALPN.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use crate::config::{TlsFiles, readers_of};
use crate::secret::Zeroizing;

/// RFC 7301: the name of HTTP/2.
pub(super) const H2: &[u8] = b"h2";
/// How often the files are looked at. They count as changed when two looks find the same change: a certificate and its
/// key are written one after the other.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// No certificate or key is larger.
const LARGEST: u64 = 1 << 20;
/// Enough to find the end of the largest one without growing, which would leave what was read so far behind unwiped.
const ROOM: usize = LARGEST as usize + 64;

/// Why a certificate cannot be used. The files are named, their content is not.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// A file is something else.
    #[error("{0} is too large for a certificate or a key (1 MiB)")]
    TooLarge(PathBuf),
    /// The certificate's file has none.
    #[error("{0} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// The key's file has none.
    #[error(
        "{0} holds no private key in PEM that is not encrypted (-----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY)"
    )]
    NoKey(PathBuf),
    /// What stands in PEM is broken.
    #[error("{0} is damaged: a block that begins with -----BEGIN is not whole")]
    Damaged(PathBuf),
    /// The two do not belong together, or are of a kind that is not known.
    #[error("{certificate} and {key} cannot be used together: {}", told(.reason))]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        reason: rustls::Error,
    },
    /// The system gives no random numbers.
    #[error("no key for session tickets can be made: {0}")]
    Tickets(rustls::Error),
}

/// What the TLS library says, in words for the commonest mistakes.
fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key is not that of the certificate; the certificate comes first in its file, before those that vouch for it".to_owned()
        }
        error if error.to_string().contains("UnsupportedCertVersion") => {
            "the certificate is of X.509 version 1; version 3 is accepted (openssl req -x509 makes one)".to_owned()
        }
        error => error.to_string(),
    }
}

/// A certificate and its key as they are in use, and where they came from.
pub(super) struct Certificate {
    files: TlsFiles,
    /// How the files looked before they were read for the first time.
    first_look: Look,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    pub(super) fn load(files: &TlsFiles) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Self {
            files: files.clone(),
            first_look: look(files),
            current: ArcSwap::new(Arc::new(read(files)?)),
        }))
    }

    /// What a listener speaks with this certificate.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = [H2, b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
        config.ticketer = Ticketer::new().map_err(CertificateError::Tickets)?;
        Ok(Arc::new(config))
    }

    /// Reads the files once more and takes over what they hold; what cannot be used changes nothing.
    fn reload(&self) {
        let certificate = self.files.certificate.display();
        match read(&self.files) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!("the certificate was read again from {certificate}");
            }
            Err(error) => {
                tracing::warn!("the certificate stays as it was: {error}");
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// Reads a certificate, those that vouch for it, and its key.
fn read(files: &TlsFiles) -> Result<CertifiedKey, CertificateError> {
    let chain = content(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Damaged(files.certificate.clone()))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&content(&files.key)?)
        .map(Zeroizing::new)
        .map_err(|error| {
            let key = files.key.clone();
            match error {
                pem::Error::NoItemsFound => CertificateError::NoKey(key),
                _ => CertificateError::Damaged(key),
            }
        })?;
    if let Some(warning) = readers_of("private key", &files.key) {
        tracing::warn!("{warning}");
    }
    certify(chain, &key).map_err(|reason| CertificateError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason,
    })
}

/// As [`CertifiedKey::from_der`] does it, which would take the key for itself and not wipe it.
fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    match certified.keys_match() {
        // Of some kinds it cannot be told.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error),
    }
}

/// What a file holds; wiped when dropped, since it may be a key.
fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let mut content = Zeroizing::new(Vec::with_capacity(ROOM));
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content))
        .map_err(|error| CertificateError::Unreadable(path.to_owned(), error))?;
    if content.len() as u64 > LARGEST {
        return Err(CertificateError::TooLarge(path.to_owned()));
    }
    Ok(content)
}

/// How a connection to a TLS listener begins.
pub(super) enum Begun {
    Tls(Box<TlsStream<Socket<TcpStream>>>),
    /// The client speaks plain HTTP. It has been promised nothing, so it can be told.
    Plain(Socket<TcpStream>),
}

/// Shakes hands with a client.
pub(super) async fn accept(tcp: Socket<TcpStream>, acceptor: &TlsAcceptor) -> io::Result<Begun> {
    let mut first = [0];
    let read = tcp.get_ref().peek(&mut first).await?;
    // A method begins with a letter, a TLS record with its type, 22 (RFC 8446 section 5.1).
    if read == 1 && first[0].is_ascii_alphabetic() {
        return Ok(Begun::Plain(tcp));
    }
    Ok(Begun::Tls(Box::new(acceptor.accept(tcp).await?)))
}

/// Takes over what changes in the certificates' files; runs as long as it is polled.
pub(super) async fn keep_fresh(certificates: Vec<Arc<Certificate>>) {
    let watched = certificates.into_iter().map(Watched::new);
    let mut watches: JoinSet<_> = watched.map(Watched::watch).collect();
    // Only a defect ends one, and a rotation under way must not end with it.
    while let Some(Err(error)) = watches.join_next().await {
        tracing::error!("a certificate that changes is not taken over any more: {error}");
    }
    std::future::pending().await
}

/// A certificate and how its files looked.
struct Watched {
    certificate: Arc<Certificate>,
    /// Before they were read.
    read: Look,
    /// At the last look.
    last: Look,
}

/// What changes when somebody writes to a file or puts another in its place; `None` where there is none.
type Look = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Watched {
    fn new(certificate: Arc<Certificate>) -> Self {
        let look = certificate.first_look;
        Self {
            certificate,
            read: look,
            last: look,
        }
    }

    /// Looks again and again, on threads made for what blocks: files on a mount that hangs hold up neither rotations, nor
    /// other certificates, nor the end, which does not wait for a look.
    async fn watch(mut self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(|| {
                self.look();
                self
            });
            self = looked
                .await
                .expect("a look ends in order, or later than the runtime");
        }
    }

    fn look(&mut self) {
        let now = look(&self.certificate.files);
        if now == self.last && now != self.read {
            self.read = now;
            self.certificate.reload();
        }
        self.last = now;
    }
}

fn look(files: &TlsFiles) -> Look {
    [&files.certificate, &files.key].map(|path| {
        // Links are followed: programs that renew certificates move a link.
        let metadata = fs::metadata(path).ok()?;
        Some((
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_no_copy_of_a_key_is_left_behind_while_it_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tls.key");
        for size in [0, 1, 227, 8 << 10, 100_000, LARGEST as usize] {
            fs::write(&path, vec![b'k'; size]).expect("written");
            let content: Zeroizing<Vec<u8>> = content(&path).expect("small enough");
            assert_eq!(content.len(), size);
            assert_eq!(content.capacity(), ROOM, "it did not grow: {size}");
        }
        fs::write(&path, vec![b'k'; LARGEST as usize + 1]).expect("written");
        assert!(matches!(content(&path), Err(CertificateError::TooLarge(_))));
    }
}
