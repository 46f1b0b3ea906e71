//! TLS with certificates made for the test: in front of the stand-in, and towards the proxy.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate for `localhost` with its key, for a listener of the proxy.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    /// Both as they stand in files.
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// A connection to the proxy over TLS.
pub(crate) type TlsClient = StreamOwned<ClientConnection, StdTcpStream>;

impl Identity {
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Self {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// Writes `tls.crt` and `tls.key`, the key for its owner alone.
    pub(crate) fn write(&self, directory: &Path) {
        put(&directory.join("tls.crt"), &self.certificate_pem);
        put(&directory.join("tls.key"), &self.key_pem);
    }

    /// What a client that trusts this certificate alone speaks, with these protocols to choose from.
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.client_of(rustls::ALL_VERSIONS, protocols)
    }

    /// The same with these versions of TLS.
    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        Arc::new(config)
    }
}

/// Puts a file in the place of another at once, for its owner alone.
fn put(path: &Path, content: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, content).expect("written");
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::rename(&aside, path).expect("moved");
}

/// Connects and shakes hands.
pub(crate) fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<TlsClient, io::Error> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a configuration");
    let tcp = StdTcpStream::connect(address)?;
    tcp.set_read_timeout(Some(super::SOON))?;
    tcp.set_nodelay(true)?;
    let mut client = StreamOwned::new(connection, tcp);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// Takes TLS off every connection and passes its bytes on; ends with the process.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    /// The name in its certificate.
    pub(super) name: &'static str,
    /// The certificate, to be trusted or not.
    pub(crate) certificate: String,
}

impl TlsFront {
    /// In front of `behind`, with a certificate for `localhost`.
    pub(crate) fn start(behind: SocketAddr) -> Self {
        Self::named("localhost", behind)
    }

    /// In front of `behind`, with a certificate for this name.
    pub(crate) fn named(name: &'static str, behind: SocketAddr) -> Self {
        Self::with(name, &[], behind)
    }

    /// In front of `behind`, with these protocols to choose from, the best first.
    pub(crate) fn offering(protocols: &[&str], behind: SocketAddr) -> Self {
        Self::with("localhost", protocols, behind)
    }

    fn with(name: &'static str, protocols: &[&str], behind: SocketAddr) -> Self {
        let (acceptor, certificate) = acceptor(name, protocols);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || runtime.block_on(accept(listener, acceptor, behind)));
        Self {
            address,
            name,
            certificate,
        }
    }

    /// Its origin, by the name in the certificate.
    pub(crate) fn origin(&self) -> String {
        format!("https://{}:{}", self.name, self.address.port())
    }

    /// Writes a bundle of trusted certificates with this one in it.
    pub(crate) fn write_bundle(&self, path: &Path) {
        std::fs::write(path, &self.certificate).expect("written");
    }
}

/// Takes TLS connections for this name that may speak one of `protocols`; with its certificate.
pub(crate) fn acceptor(name: &str, protocols: &[&str]) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate ends the handshake, as the test wants it.
            let Ok(mut tls) = acceptor.accept(stream).await else {
                return;
            };
            if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                // Nobody speaks it here.
                return;
            }
            let mut plain = TcpStream::connect(behind).await.expect("the stand-in");
            let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        });
    }
}
