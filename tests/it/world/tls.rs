//! TLS in front of the stand-in, with a certificate made for the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

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
        let (acceptor, certificate) = acceptor(name, &[]);
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
            let mut plain = TcpStream::connect(behind).await.expect("the stand-in");
            let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        });
    }
}
