//! Inside of a tunnel that leads no further than here: TLS with a certificate of our own, and then a client's connection
//! like any other, whose client believes to speak to the host that it asked for.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use rustls::AlertDescription;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::connection::{Entrance, refuse_plain, serve_http1};
use super::rewound::Rewound;
use super::stream::{Io, Stream};
use super::{http2, tls};
use crate::config::Intercept;
use crate::intercept::connect::{Forwarding, Others};
use crate::intercept::{Authority, AuthorityError};
use crate::proxy::body::Activity;
use crate::proxy::reply::Refusal;
use crate::proxy::tunnel::Intercepted;

/// How often it is said that a client does not trust us: it will try again.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Of a first record, enough to tell what is spoken.
const FIRST: usize = 1 << 10;

/// What all workers need for it.
#[derive(Debug)]
pub(super) struct Interception {
    forwarding: Arc<Forwarding>,
    authority: Mutex<Arc<Authority>>,
    /// Whether one that another process makes is taken over. A program of `exec` trusts the one that it was started with.
    follows: bool,
    /// When it was last said that a client does not trust us.
    said: Mutex<Option<Instant>>,
}

impl Interception {
    /// What the configuration asks for; `None` where it asks for nothing.
    pub(super) fn open(config: &Intercept) -> Result<Option<Arc<Self>>, AuthorityError> {
        if !(config.enabled || config.private) {
            return Ok(None);
        }
        let authority = Authority::open(&config.directory, &config.hosts, SystemTime::now())?;
        let others = match config.private {
            true => Others::All,
            false => Others::Named(config.tunnels.clone()),
        };
        let forwarding = Forwarding::new(config.hosts.clone(), others)
            .closed_to(config.closed.clone())
            .with_port(config.other_port.clone());
        Ok(Some(Arc::new(Self {
            forwarding: Arc::new(forwarding),
            authority: Mutex::new(authority),
            follows: !config.private,
            said: Mutex::default(),
        })))
    }

    /// Who vouches for the hosts now: what the certificate's file says to those that read it now.
    fn authority(&self) -> Arc<Authority> {
        let mut current = self
            .authority
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.follows
            && let Some(next) = current.successor(SystemTime::now())
        {
            tracing::info!(
                "took over a new local certificate authority: {}",
                next.subject()
            );
            *current = next;
        }
        current.clone()
    }

    /// What is done for which host.
    pub(super) fn forwarding(&self) -> Arc<Forwarding> {
        self.forwarding.clone()
    }

    /// Whether it is time to say once more that a client does not trust us.
    fn may_say(&self) -> bool {
        // Whoever has it says it.
        let Ok(mut said) = self.said.try_lock() else {
            return false;
        };
        let is_due = said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }

    /// Says that a client does not trust us, or may not; `how` it shows.
    fn say_distrust(&self, host: &str, how: &str) {
        if self.may_say() {
            tracing::warn!(
                "{how} the certificate that it was shown for {host}: it does not read the variables that name ours, or accepts no other than one that it brings along; it can be given this proxy's address in the place of https://{host}"
            );
        }
    }
}

/// Serves what comes through such a tunnel until either side ends it. `early` is what has been read of it.
pub(super) async fn serve(
    stream: Stream,
    early: Bytes,
    intercepted: Intercepted,
    entrance: &Entrance,
) {
    let Some(interception) = &entrance.interception else {
        return;
    };
    let Intercepted { host, port, client } = intercepted;
    let wire = stream.wire();
    wire.begin_again();
    let activity = Activity::new(&entrance.limits.in_flight);
    let begun_at = Instant::now();
    let inside = Rc::new(entrance.inside(&host, port, client));
    let beginning = tokio::time::timeout(
        entrance.bounds.handshake,
        begin(stream, early, interception, &host),
    );
    let begun = tokio::select! {
        begun = beginning => begun,
        () = entrance.stop.cancelled() => return,
    };
    match begun {
        Ok(Some(Begun::Tls(tls))) => {
            let is_http2 = tls.get_ref().1.alpn_protocol() == Some(tls::H2);
            let stream = Stream::new(Io::Intercepted(tls), wire.clone());
            match is_http2 {
                true => http2::serve(stream, &inside, activity.clone()).await,
                false => serve_http1(stream, &inside, &activity).await,
            }
            let is_unused = activity.idle_since().is_some_and(|(_, used)| !used);
            let is_early = begun_at.elapsed() < entrance.bounds.first_request;
            if is_unused && wire.took_leave.get() {
                tracing::debug!(
                    "a client left the tunnel to {host} in order, before its first request"
                );
            } else if is_unused && is_early && !entrance.stop.is_cancelled() {
                // Some programs look at the certificate only behind the handshake.
                interception.say_distrust(&host, SILENT);
            }
        }
        Ok(Some(Begun::Plain(plain))) => {
            tracing::warn!("a client spoke plain HTTP where CONNECT to {host}:{port} leads to TLS");
            let refusal = Refusal::plain_inside(&host, port);
            refuse_plain(*plain, &wire, &inside, &activity, refusal).await;
        }
        Ok(None) => {}
        Err(_) => tracing::debug!(
            "a TLS handshake in a tunnel to {host} took too long (timeouts.handshake)"
        ),
    }
}

/// What a client begins with inside of the tunnel.
enum Begun {
    Tls(Box<tokio_rustls::server::TlsStream<Rewound>>),
    Plain(Box<Rewound>),
}

/// Shakes hands with a client; `None` where that fails, which is said here.
async fn begin(
    mut stream: Stream,
    early: Bytes,
    interception: &Interception,
    host: &str,
) -> Option<Begun> {
    let mut read = BytesMut::from(early);
    while read.is_empty() {
        read.reserve(FIRST);
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    let is_plain = read[0].is_ascii_alphabetic();
    let rewound = Rewound::new(read.freeze(), stream);
    if is_plain {
        return Some(Begun::Plain(Box::new(rewound)));
    }
    let config = match interception.authority().acceptor(host) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{host} cannot be intercepted: {error}");
            return None;
        }
    };
    match TlsAcceptor::from(config).accept(rewound).await {
        Ok(tls) => Some(Begun::Tls(Box::new(tls))),
        Err(error) => {
            match distrust(&error) {
                Some(how) => interception.say_distrust(host, how),
                None => tracing::debug!("a TLS handshake in a tunnel to {host} failed: {error}"),
            }
            None
        }
    }
}

/// What can be said of a client that only leaves.
const SILENT: &str =
    "a client left before its first request and without a word; perhaps it does not trust";

/// How a client says that it does not trust a certificate (RFC 8446 section 6.2), if it is that.
fn distrust(error: &io::Error) -> Option<&'static str> {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let told = error.get_ref().and_then(|error| error.downcast_ref());
    match told {
        Some(rustls::Error::AlertReceived(alert)) => Some(match alert {
            UnknownCA => "a client does not trust (unknown_ca)",
            BadCertificate => "a client does not trust (bad_certificate)",
            CertificateUnknown => "a client does not trust (certificate_unknown)",
            CertificateExpired => "a client does not trust (certificate_expired)",
            UnsupportedCertificate => "a client does not trust (unsupported_certificate)",
            _ => return None,
        }),
        _ => (error.kind() == io::ErrorKind::UnexpectedEof).then_some(SILENT),
    }
}
