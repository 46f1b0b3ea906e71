//! Requests for other hosts than the proxy, from clients that take it for their forward proxy (RFC 9110 section 7.1).
//!
//! For upstream's own host the client is answered here, as if it had asked this proxy by its address; any other it gets to
//! itself, if it may. Who a client is it says once, in front of the tunnel.

use std::sync::Arc;

use http::header::{HOST, HeaderMap};
use http::request::Parts;
use http::uri::{Authority, Scheme as UriScheme};
use http::{Method, Response, Version};
use tokio::time::Instant;

use super::Proxy;
use super::body::{RequestBody, ResponseBody};
use super::clients::Client;
use super::exchange::Exchange;
use super::head::Names;
use super::reply::Refusal;
use super::tunnel::{Beyond, Intercepted, Tunnel};
use crate::config::{Origin, Scheme};
use crate::dial::{self, Dialer};
use crate::intercept::address;
use crate::intercept::connect::{Decision, Destination, Form, Forwarding, Reason};

/// What becomes of such a request.
pub(super) enum Elsewhere {
    /// It has its answer.
    Answered(Box<Response<ResponseBody>>),
    /// It goes on as a request of this client to the proxy.
    Intercepted(Option<Arc<Client>>),
}

impl Proxy {
    /// Who asks, and for whom.
    pub(super) async fn go_elsewhere(
        &self,
        forwarding: &Forwarding,
        head: &mut Parts,
        names: Names,
        body: &RequestBody,
        exchange: Option<&mut Exchange>,
    ) -> Result<Elsewhere, Refusal> {
        let form = match head.method == Method::CONNECT {
            true => Form::Connect,
            false if head.uri.scheme() == Some(&UriScheme::HTTPS) => Form::Secure,
            false => Form::Absolute,
        };
        if head.version == Version::HTTP_2 {
            return Err(Refusal::no_tunnels_in_http2());
        }
        let client = match forwarding.is_of_own_user() {
            true => self.only_client(exchange),
            false => self.identify_at_proxy(head, exchange)?,
        };
        let decision = decide(forwarding, form, head, body)?;
        match (decision, form) {
            (Decision::Refuse(reason), _) => Err(Refusal::elsewhere(&reason)),
            (Decision::Intercept(Destination { host, port }), Form::Connect) => {
                let intercepted = Intercepted { host, port, client };
                Ok(opened(Beyond::Intercepted(intercepted)))
            }
            (Decision::Intercept(_), Form::Absolute | Form::Secure) => {
                Ok(Elsewhere::Intercepted(client))
            }
            (Decision::Pass(to), Form::Connect) => {
                let far = self.reach(forwarding, to, Scheme::Https).await?;
                let tunnel = Tunnel::to(far, self.settings.tunnel_timeout);
                Ok(opened(Beyond::Tunnel(tunnel)))
            }
            (Decision::Pass(to), Form::Absolute | Form::Secure) => {
                let answer = self.pass_on(forwarding, to, head, names, body).await;
                answer.map(|answer| Elsewhere::Answered(Box::new(answer)))
            }
        }
    }

    /// A connection to another host, in the clear: it is the client's to speak TLS.
    pub(super) async fn reach(
        &self,
        forwarding: &Forwarding,
        to: Destination,
        scheme: Scheme,
    ) -> Result<dial::Stream, Refusal> {
        let Destination { host, port } = to;
        let origin = Origin { scheme, host, port };
        let judge = (!forwarding.is_private()).then_some(address::objection as dial::Judge);
        let dialer =
            Dialer::for_tunnels(&self.settings.network, &origin, judge).map_err(Refusal::no_tls)?;
        let bound = self.settings.target.bounds().connect;
        let reached = dialer.connect(Instant::now(), bound).await;
        reached.map_err(Refusal::unreached)
    }
}

/// What is to be done, if it is clear what is asked for.
fn decide(
    forwarding: &Forwarding,
    form: Form,
    head: &Parts,
    body: &RequestBody,
) -> Result<Decision, Refusal> {
    let Some(authority) = head.uri.authority() else {
        return Ok(Decision::Refuse(Reason::Malformed));
    };
    if !is_agreed(form, authority, &head.headers) {
        return Err(Refusal::bad_request(
            "the request target and the Host header name different hosts",
        ));
    }
    if form == Form::Connect && body.has_content() {
        return Err(Refusal::bad_request(
            "CONNECT comes without content; send what is for the host when the tunnel is open",
        ));
    }
    Ok(forwarding.decide(form, authority))
}

/// Whether `Host` says the same, if it says anything. In front of a tunnel many programs leave its port out.
fn is_agreed(form: Form, authority: &Authority, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    let Some(host) = first else {
        return true;
    };
    let is = |name: &str| host.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    let without_port = || form == Form::Connect && is(authority.host());
    second.is_none() && (is(authority.as_str()) || without_port())
}

/// The one answer that has a tunnel behind it (RFC 9110 section 9.3.6).
fn opened(beyond: Beyond) -> Elsewhere {
    let response = Response::new(ResponseBody::switched(beyond));
    Elsewhere::Answered(Box::new(response))
}
