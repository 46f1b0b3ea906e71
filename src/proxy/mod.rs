//! The request path. `Proxy::forward` reads as the list of its steps; each is a module of its own.
//!
//! 1. accept: [`server`](crate::server) hands a request over;
//! 2. [`ambiguity`]: can the request be read in one way only? [`guard`] and [`clients`]: may this client use the proxy?
//!    What a browser asks about an allowed page is answered by [`cors`];
//! 3. [`route`]: forward it, where the [`policy`] permits it, answer it here (`oauth2`), or refuse it;
//! 4. [`head`]: what is about one connection goes, what upstream needs comes;
//! 5. bearer: the current token, from [`token`](crate::token);
//! 6. [`upstream`]: send it over a [`connection`], while [`body`] records what passes;
//! 7. judge: a 401 that a newer token can cure is answered by sending the request once more, in `cure`;
//! 8. [`rewrite`]: references to upstream lead back here;
//! 9. stream the content, look for our token in it ([`echo`]), and write the [`exchange`] down. What is still to come of the
//!    request is carried on meanwhile: upstream gets it, or it is read and forgotten (`linger`).
//!
//! A request for a WebSocket takes the same steps up to the answer on a way of its own, [`tunnel`]. One that asks for another
//! host, because the client takes this for its forward proxy, leaves them in step 2 (`elsewhere`): it gets a tunnel, is passed
//! `onward`, or comes back to step 3 as if it had asked here.

mod alarm;
pub mod ambiguity;
pub mod body;
pub mod clients;
pub mod connection;
pub mod cors;
mod cure;
pub mod echo;
mod elsewhere;
pub mod exchange;
pub mod guard;
pub mod head;
mod leash;
mod linger;
mod multiplexed;
mod no_way;
mod oauth2;
mod onward;
pub mod policy;
pub mod reply;
pub mod rewrite;
pub mod route;
pub mod send_error;
mod stream;
pub mod tunnel;
pub mod upstream;
pub mod upstream_body;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Network, OAuth2Endpoint, Origin, Scheme};
use crate::token::traffic::Lane;
use crate::token::{Bearer, Grant};
use body::{Busy, Recordings, RequestBody, ResponseBody};
use clients::Clients;
use connection::Target;
use cure::Answer;
use elsewhere::Elsewhere;
use exchange::Exchange;
use guard::Guard;
use head::Names;
use policy::Policy;
use reply::Refusal;
use route::Route;
use send_error::SendError;
use upstream::Upstream;

/// What every worker's proxy is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    target: Arc<Target>,
    grant: Grant,
    /// `Host` towards upstream.
    host: HeaderValue,
    public_url: Option<Origin>,
    oauth2_endpoint: OAuth2Endpoint,
    /// The application that the real pair was issued to.
    client_id: String,
    recordings: Arc<Recordings>,
    body_timeout: Duration,
    linger: Duration,
    tunnel_timeout: Duration,
    log_requests: bool,
    /// What requests may do, whoever sends them.
    policy: Option<Arc<Policy>>,
    /// Whose requests are served; `None` for everybody's.
    clients: Option<Arc<Clients>>,
    /// How other hosts are reached, for clients that use this as their forward proxy.
    network: Network,
    /// Whether upstream is one of the hosts that are intercepted.
    is_upstream_intercepted: bool,
}

impl Settings {
    /// Prepares what the configuration says.
    ///
    /// # Errors
    ///
    /// When upstream speaks TLS and this system trusts no certificates.
    pub fn new(config: &Config, grant: Grant) -> Result<Self, crate::tls::TlsError> {
        let target = Target::new(&config.upstream, config.timeouts.body)?;
        let host = HeaderValue::try_from(target.origin().authority())
            .expect("an origin's authority is visible ASCII");
        let client = config.credential.client.as_ref();
        Ok(Self {
            target: Arc::new(target),
            grant,
            host,
            public_url: config.public_url.clone(),
            oauth2_endpoint: config.credential.oauth2_endpoint,
            client_id: client.map_or_else(String::new, |client| client.id.clone()),
            recordings: Recordings::new(&config.replay, config.timeouts.body),
            body_timeout: config.timeouts.body,
            linger: config.timeouts.linger,
            tunnel_timeout: config.timeouts.tunnel,
            log_requests: config.log.requests,
            policy: Policy::new("guard", &config.guard.rules).map(Arc::new),
            clients: Clients::new(&config.clients).map(Arc::new),
            network: config.upstream.network.clone(),
            is_upstream_intercepted: is_intercepted(config),
        })
    }
}

/// Whether what leads to upstream leads clients here that believe to speak to it.
fn is_intercepted(config: &Config) -> bool {
    let Origin { scheme, host, port } = &config.upstream.origin;
    let usual = (Scheme::Https, Scheme::Https.default_port());
    (*scheme, *port) == usual && config.intercept.hosts.contains(host)
}

/// The request path of one worker.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    upstream: Rc<Upstream>,
    /// Counts the requests that are on their way with a token.
    lane: Lane,
    /// Where tasks are kept that are waited for at the end.
    tasks: TaskTracker,
    /// When it was last said that upstream fails.
    warned: Cell<Option<Instant>>,
}

/// How often it is said that upstream fails.
const WARN_EVERY: Duration = Duration::from_secs(1);

impl Proxy {
    /// A proxy with connections of its own. What it has to do after an answer, it does in `tasks`.
    pub fn new(settings: Settings, tasks: TaskTracker) -> Self {
        let upstream = Rc::new(Upstream::new(settings.target.clone(), tasks.clone()));
        let lane = settings.grant.lane();
        Self {
            settings,
            upstream,
            lane,
            tasks,
            warned: Cell::new(None),
        }
    }

    /// Closes unused connections to upstream as they age; runs as long as the worker.
    pub async fn sweep(&self) {
        self.upstream.sweep().await;
    }

    /// Answers one request, from upstream or by itself. The client's connection is `busy` until that is over, and with
    /// the answer all of the request.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        guard: &Guard,
        busy: Busy,
    ) -> Response<ResponseBody> {
        let mut exchange = self
            .settings
            .log_requests
            .then(|| Exchange::begin(&request));
        let (mut head, incoming) = request.into_parts();
        let names = Names::of(&head.headers);
        let page = guard.page(&head, names);
        let body = RequestBody::record(&head, names, incoming, &self.settings.recordings);
        if let Some(exchange) = &exchange {
            body.count(exchange.received.clone());
        }
        let answered = self
            .forward(&mut head, names, &body, guard, exchange.as_deref_mut())
            .await;
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                if let Some(exchange) = &mut exchange {
                    exchange.refused(refusal.code, &refusal.message);
                }
                self.warn_of(&refusal);
                let mut response = refusal.into_response();
                if head.method == Method::CONNECT || head::has_upgrade(&head.headers) {
                    // What a client sends ahead of its time in another protocol must not be taken for a request.
                    head::close(response.headers_mut());
                }
                response
            }
        };
        match page {
            Some(page) => page.let_read(response.headers_mut()),
            None if guard.has_pages() => cors::vary(response.headers_mut()),
            None => {}
        }
        body.answered();
        if body.is_unasked() {
            // It may keep the content or send it, and nobody could tell that from the next request.
            head::close(response.headers_mut());
        }
        if body.is_unfinished() {
            // The client's connection lasts as long as this does, and is waited for at the end.
            response.body_mut().then_carry_on(body.clone());
            self.tasks.spawn_local(linger::carry_on(
                body,
                response.status(),
                self.settings.body_timeout,
                self.settings.linger,
                busy.unread(),
            ));
        }
        if let Some(mut exchange) = exchange {
            exchange.answered(response.status());
            response.body_mut().then_log(exchange);
        }
        response.body_mut().keep_busy(busy);
        if head.method == Method::HEAD {
            ResponseBody::withhold(&mut response);
        }
        response
    }

    /// Says that upstream fails, at most once a second: an outage meets every request.
    fn warn_of(&self, refusal: &Refusal) {
        let recent = self
            .warned
            .get()
            .is_some_and(|warned| warned.elapsed() < WARN_EVERY);
        if !recent
            && matches!(
                refusal.status,
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
            )
        {
            self.warned.set(Some(Instant::now()));
            tracing::warn!(code = refusal.code, "{}", refusal.message);
        }
    }

    async fn forward(
        &self,
        head: &mut Parts,
        names: Names,
        body: &RequestBody,
        guard: &Guard,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let forwarding = guard.forwarding(head);
        ambiguity::check(head, names, guard.scheme(), forwarding.is_some())?;
        let client = if let Some(forwarding) = forwarding {
            let going = self.go_elsewhere(forwarding, head, names, body, exchange.as_deref_mut());
            match Box::pin(going).await? {
                Elsewhere::Answered(response) => return Ok(*response),
                Elsewhere::Intercepted(client) => {
                    guard.check_sender(head, names)?;
                    if names.has(Names::ORIGIN) && cors::is_preflight(head) {
                        return cors::answer(&head.headers, exchange);
                    }
                    client
                }
            }
        } else {
            guard.check(head, names)?;
            if names.has(Names::ORIGIN) && cors::is_preflight(head) {
                return cors::answer(&head.headers, exchange);
            }
            self.identify(head, guard, exchange.as_deref_mut())?
        };
        let client = client.as_deref();
        match route::choose(&head.uri, self.settings.oauth2_endpoint) {
            Route::Forward => self.permit(head, client)?,
            // Boxed: few requests take these ways, and the others should not carry what they need.
            Route::ForwardBare => {
                self.permit(head, client)?;
                return Box::pin(self.forward_bare(head, names, body, guard)).await;
            }
            Route::Answer(endpoint) => {
                return Box::pin(self.answer_oauth(endpoint, head, body, exchange)).await;
            }
            Route::RefuseOAuth => return Err(Refusal::oauth_endpoint()),
        }
        let asked = Asked::of(head, guard);
        if self.prepare(head, names, body.has_content())? {
            return Box::pin(self.open_tunnel(head, body, &asked, exchange)).await;
        }
        let bearer = match body.is_recorded() {
            true => self.settings.grant.bearer().await?,
            false => self.settings.grant.lasting_bearer().await?,
        };
        let on_its_way = self.lane.enter();
        head::authorize(&mut head.headers, bearer.header.clone());
        let generation = bearer.generation;
        let first = self.send(head, body, Some(bearer)).await?;
        let is_curable = route::is_curable(first.status(), &head.uri);
        let mut answer = match generation.filter(|_| is_curable) {
            None => first,
            Some(generation) => Box::pin(self.cure(first, head, body, generation)).await,
        };
        drop(on_its_way);
        answer.note(exchange);
        Ok(self.hand_back(answer, &head.uri, &asked))
    }

    /// The way of a request that brings its own credentials in its body: without our token, and whatever the answer is,
    /// it says nothing about that (T16).
    async fn forward_bare(
        &self,
        head: &mut Parts,
        names: Names,
        body: &RequestBody,
        guard: &Guard,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let asked = Asked::of(head, guard);
        if self.prepare(head, names, body.has_content())? {
            // A WebSocket is opened with our token or not at all.
            head::strip_hop_by_hop(&mut head.headers);
        }
        let answer = self.send(head, body, None).await?;
        Ok(self.hand_back(answer, &head.uri, &asked))
    }

    /// Step 4: the head as upstream should see it, all but the token. Returns whether it asks for a WebSocket.
    fn prepare(&self, head: &mut Parts, names: Names, has_content: bool) -> Result<bool, Refusal> {
        if head.version == Version::HTTP_2 {
            head::translate_from_http2(&mut head.headers, has_content);
        }
        if names.has(Names::VIA) && head::is_loop(&head.headers) {
            return Err(Refusal::looped());
        }
        if head.method == Method::TRACE {
            return Err(Refusal::no_trace());
        }
        if !head::may_go_on(&head.method, &mut head.headers) {
            return Err(Refusal::no_more_forwards());
        }
        let offered = head::prepare_request(
            &mut head.headers,
            names,
            head.version,
            &self.settings.host,
            head.uri.path(),
        );
        let websocket = offered && !has_content && self.may_tunnel(head);
        if websocket {
            head::change_to_websocket(&mut head.headers);
        }
        if head.uri.authority().is_some() || head.uri.path().is_empty() {
            head.uri = origin_form(&head.uri);
        }
        head.version = Version::HTTP_11;
        // What hyper's server keeps here is about the client's connection.
        head.extensions.clear();
        Ok(websocket)
    }

    /// Step 6: the request with its content from the beginning, which has this token if any, and the head of its answer.
    async fn send(
        &self,
        head: &Parts,
        body: &RequestBody,
        bearer: Option<Arc<Bearer>>,
    ) -> Result<Answer, SendError> {
        let attempt = || body.attempt_with(head.clone());
        let response = self
            .upstream
            .send(attempt, body, is_idempotent(&head.method))
            .await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Switched);
        }
        Answer::plain(response, bearer)
    }

    /// Steps 8 and 9: the answer to a request for `uri` as the client should see it.
    fn hand_back(&self, answer: Answer, uri: &Uri, asked: &Asked) -> Response<ResponseBody> {
        let mut response = answer.response;
        let watch = answer
            .bearer
            .and_then(|bearer| echo::look(response.headers(), answer.names, bearer, uri));
        head::prepare_response(&mut response, answer.names);
        if answer.names.has(Names::REFERENCE) {
            self.point_back(response.headers_mut(), asked);
        }
        response.map(|content| content.stream(self.settings.body_timeout, watch))
    }

    /// Step 8: references to upstream lead back to where the client asked.
    fn point_back(&self, headers: &mut HeaderMap, asked: &Asked) {
        let at = |authority| [asked.scheme.as_str().as_bytes(), b"://", authority].concat();
        let public_url = self.settings.public_url.as_ref();
        if asked.intercepted && self.settings.is_upstream_intercepted {
            // They lead to where the client believes to be.
            return;
        }
        let proxy = match (public_url.filter(|_| !asked.intercepted), &asked.name) {
            (Some(public_url), _) => public_url.to_string().into_bytes(),
            (None, Name::Target(authority)) => at(authority.as_str().as_bytes()),
            (None, Name::Host(host)) => at(host.as_bytes()),
            (None, Name::Nothing) => return,
        };
        rewrite::point_back(headers, self.settings.target.origin(), &proxy);
    }
}

/// How the client reached the proxy.
struct Asked {
    scheme: Scheme,
    name: Name,
    /// Whether it believes to speak to upstream itself.
    intercepted: bool,
}

/// By which name it did.
enum Name {
    Target(Authority),
    Host(HeaderValue),
    Nothing,
}

impl Asked {
    fn of(head: &Parts, guard: &Guard) -> Self {
        let name = match (head.uri.authority(), head.headers.get(HOST)) {
            (Some(authority), _) => Name::Target(authority.clone()),
            (None, Some(host)) => Name::Host(host.clone()),
            (None, None) => Name::Nothing,
        };
        let scheme = match head.uri.scheme() {
            // In the clear too, of a forward proxy.
            Some(scheme) if *scheme == UriScheme::HTTPS => Scheme::Https,
            _ => guard.scheme(),
        };
        Self {
            scheme,
            name,
            intercepted: guard.is_intercepted(head),
        }
    }
}

/// RFC 9112 section 3.2.1.
fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        // What stood before a fragment can be nothing, and shows as `/` without being it.
        Some(target) if target.as_str() != "/" => target.clone().into(),
        _ => PathAndQuery::from_static("/").into(),
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
