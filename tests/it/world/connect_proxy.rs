//! A company's proxy: opens tunnels on CONNECT, wherever they are to lead, and can be told to do otherwise.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::tls;

/// What the proxy does with the next CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Opens a tunnel with this answer.
    Open(&'static str),
    /// Gives this answer and ends the connection.
    Answer(&'static str),
    /// Gives no answer at all.
    Silent,
}

/// Opens tunnels to one address, under whatever name it is asked for; ends with the process.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    /// Its own certificate, where it listens with TLS.
    pub(crate) certificate: Option<String>,
    shared: Arc<Shared>,
}

struct Shared {
    behind: Mutex<SocketAddr>,
    acts: Mutex<VecDeque<Act>>,
    /// The head of each CONNECT.
    heads: Mutex<Vec<String>>,
    /// How often all tunnels were cut.
    cuts: watch::Sender<u32>,
}

impl ConnectProxy {
    /// With tunnels that lead to `behind`.
    pub(crate) fn start(behind: SocketAddr) -> Self {
        Self::listening(behind, None)
    }

    /// The same behind TLS, as `localhost`.
    pub(crate) fn over_tls(behind: SocketAddr) -> Self {
        Self::listening(behind, Some(tls::acceptor("localhost", &[])))
    }

    fn listening(behind: SocketAddr, tls: Option<(TlsAcceptor, String)>) -> Self {
        let shared = Arc::new(Shared {
            behind: Mutex::new(behind),
            acts: Mutex::default(),
            heads: Mutex::default(),
            cuts: watch::Sender::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (acceptor, certificate) = tls.unzip();
        let serving = accept(listener, acceptor, shared.clone());
        std::thread::spawn(move || runtime.block_on(serving));
        Self {
            address,
            certificate,
            shared,
        }
    }

    /// Its URL, with this user and password.
    pub(crate) fn url(&self, user: &str) -> String {
        match &self.certificate {
            None => format!("http://{user}{}", self.address),
            Some(_) => format!("https://{user}localhost:{}", self.address.port()),
        }
    }

    /// What it does with the next CONNECTs; afterwards it opens tunnels again.
    pub(crate) fn will(&self, acts: impl IntoIterator<Item = Act>) {
        self.shared.acts.lock().expect("whole").extend(acts);
    }

    /// The heads of all CONNECTs so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().expect("whole").clone()
    }

    /// Where tunnels lead from now on.
    pub(crate) fn lead_to(&self, behind: SocketAddr) {
        *self.shared.behind.lock().expect("whole") = behind;
    }

    /// Cuts all tunnels.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, &shared).await,
                // A client that does not trust the certificate ends the handshake, as the test wants it.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(mut client: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    let mut cut = shared.cuts.subscribe();
    let Some(head) = head(&mut client).await else {
        return;
    };
    shared.heads.lock().expect("whole").push(head);
    let act = shared.acts.lock().expect("whole").pop_front();
    match act.unwrap_or(Act::Open("HTTP/1.1 200 Connection established\r\n\r\n")) {
        Act::Open(answer) => {
            let behind = *shared.behind.lock().expect("whole");
            let mut server = TcpStream::connect(behind).await.expect("a server");
            let _ = client.write_all(answer.as_bytes()).await;
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.changed() => {}
            }
        }
        Act::Answer(answer) => {
            let _ = client.write_all(answer.as_bytes()).await;
            let _ = client.shutdown().await;
        }
        Act::Silent => {
            // Until the client gives up.
            let _ = client.read_u8().await;
        }
    }
}

/// `None` where the client asks for nothing.
async fn head(client: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
