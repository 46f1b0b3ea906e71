//! Through a proxy: CONNECT (RFC 9110 section 9.3.6), and why there may be no tunnel.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    HOST, HeaderMap, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{HttpProxy, Origin};
use crate::secret::ExposeSecret;

/// More than any answer to CONNECT needs.
const LARGEST_HEAD: usize = 64 << 10;
/// More ways to log in tell nobody more.
const MOST_SCHEMES: usize = 4;

/// Why a proxy that was reached opened no tunnel. Nothing was sent to the server behind it.
#[derive(Debug)]
pub struct TunnelError {
    /// The proxy.
    pub proxy: Arc<HttpProxy>,
    /// Host and port that it was asked for.
    pub target: String,
    /// What it did instead.
    pub why: NoTunnel,
}

/// What a proxy does instead of opening a tunnel.
#[derive(Debug)]
pub enum NoTunnel {
    /// It answers with a status other than 2xx.
    Refused(StatusCode),
    /// It answers 407 and names the schemes by which it can be logged in to (RFC 9110 section 11.7.1).
    Unauthorized(Vec<String>),
    /// It ends the connection, or what it says is no HTTP.
    Broken(hyper::Error),
    /// It says 200 and then something that nobody asked for.
    Talks,
}

/// Has the proxy at the other end of `io` open a tunnel to `target`; what comes back leads there.
///
/// # Errors
///
/// When it does not.
pub async fn open<T>(io: T, proxy: &Arc<HttpProxy>, target: &Origin) -> Result<T, TunnelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let target = authority(target);
    let opened = ask(io, proxy, &target).await;
    opened.map_err(|why| TunnelError {
        proxy: proxy.clone(),
        target,
        why,
    })
}

/// Host and port, which is never left out here (RFC 9110 section 7.1).
pub fn authority(target: &Origin) -> String {
    match target.host.contains(':') {
        true => format!("[{}]:{}", target.host, target.port),
        false => format!("{}:{}", target.host, target.port),
    }
}

async fn ask<T>(io: T, proxy: &HttpProxy, target: &str) -> Result<T, NoTunnel>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connecting = http1::Builder::new()
        .max_buf_size(LARGEST_HEAD)
        .handshake(TokioIo::new(io))
        .await;
    let (mut sender, connection) = connecting.map_err(NoTunnel::Broken)?;
    let mut connection = pin!(connection.without_shutdown());
    let mut answer = pin!(sender.send_request(request(proxy, target)));
    let mut ended = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.map_err(NoTunnel::Broken)?,
            end = &mut connection, if ended.is_none() => ended = Some(end),
        }
    };
    is_open(&answer)?;
    let parts = match ended {
        Some(ended) => ended,
        None => connection.await,
    };
    let parts = parts.map_err(NoTunnel::Broken)?;
    // A server over TLS waits for its client to speak.
    match parts.read_buf.is_empty() {
        true => Ok(parts.io.into_inner()),
        false => Err(NoTunnel::Talks),
    }
}

fn request(proxy: &HttpProxy, target: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target
        .parse::<Uri>()
        .expect("the host and port of an origin are an authority");
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(target).expect("an authority is visible ASCII");
    headers.insert(HOST, host);
    let agent = concat!("lucid-proxy/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(authorization) = &proxy.authorization {
        let mut value = HeaderValue::try_from(authorization.expose_secret())
            .expect("Basic and base64 are visible ASCII");
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    request
}

fn is_open(answer: &Response<Incoming>) -> Result<(), NoTunnel> {
    match answer.status() {
        // hyper opens no tunnel for 204, which has no place here.
        StatusCode::NO_CONTENT => Err(NoTunnel::Refused(StatusCode::NO_CONTENT)),
        status if status.is_success() => Ok(()),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err(NoTunnel::Unauthorized(schemes(answer.headers())))
        }
        status => Err(NoTunnel::Refused(status)),
    }
}

/// The first word of each challenge: several may stand in one line, behind commas that parameters have too.
fn schemes(headers: &HeaderMap) -> Vec<String> {
    let is_scheme = |word: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !word.is_empty() && word.bytes().all(plain)
    };
    let mut schemes: Vec<String> = Vec::new();
    for line in headers.get_all(PROXY_AUTHENTICATE) {
        let challenges = line.to_str().unwrap_or_default().split(',');
        let words = challenges.filter_map(|challenge| challenge.split_whitespace().next());
        for scheme in words.filter(is_scheme) {
            if !schemes
                .iter()
                .any(|known| known.eq_ignore_ascii_case(scheme))
            {
                schemes.push(scheme.to_owned());
            }
        }
    }
    schemes.truncate(MOST_SCHEMES);
    schemes
}

impl std::error::Error for TunnelError {}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, target, why } = self;
        let set_by = &proxy.set_by;
        match why {
            NoTunnel::Unauthorized(schemes) if !knows_basic(schemes) => write!(
                f,
                "{proxy} wants a login by {} (407), and only Basic is spoken here; run a local proxy that logs in so, such as px or cntlm, and name that one in upstream.proxy",
                schemes.join(" or ")
            ),
            NoTunnel::Unauthorized(_) if proxy.authorization.is_some() => write!(
                f,
                "{proxy} does not accept the user and password that it was given (407); correct them in {set_by}, with %XX for special characters"
            ),
            NoTunnel::Unauthorized(_) => write!(
                f,
                "{proxy} wants a user and a password (407); give them in {set_by}: {}://user:password@{}",
                proxy.origin.scheme.as_str(),
                proxy.origin.authority()
            ),
            NoTunnel::Refused(status) if status.is_client_error() => write!(
                f,
                "{proxy} refused a tunnel to {target} ({status}); ask who runs it to allow CONNECT to {target}"
            ),
            NoTunnel::Refused(status) => write!(
                f,
                "{proxy} opened no tunnel to {target} ({status}); it may not reach that itself: check upstream.url and {set_by}"
            ),
            NoTunnel::Broken(error) => write!(
                f,
                "{proxy} opened no tunnel to {target}: {}; check that {set_by} names an HTTP proxy",
                cause(error)
            ),
            NoTunnel::Talks => write!(
                f,
                "{proxy} spoke into the tunnel to {target} itself; check that {set_by} names an HTTP proxy"
            ),
        }
    }
}

/// Whether a user and a password are of use. A proxy that does not say how to log in may well take them.
fn knows_basic(schemes: &[String]) -> bool {
    schemes.is_empty()
        || schemes
            .iter()
            .any(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
