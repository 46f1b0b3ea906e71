//! The pages of a login: `GET` and `POST /oauth2/authorize`, and Lucid's page that shows a code to the person.

use std::borrow::Cow;

use chrono::Utc;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;

use super::body::Cut;
use super::codes::Approval;
use super::intake::{self, Unread, has_essence};
use super::pages;
use super::pair::Owner;
use super::parameters::Parameters;
use super::pkce::Challenge;
use super::reply::{self, Reply};
use super::shared::Shared;
use super::{CLIENT_ID, problems, redirects, scopes};

/// What a client may ask for; `prompt` on behalf of users only.
const PARAMETERS: [&str; 8] = [
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "response_type",
    "code_challenge",
    "code_challenge_method",
    "prompt",
];

/// What a person sees, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Asks for tokens that act on behalf of the user.
    AuthorizeUser,
    /// Asks for tokens that act on behalf of the user's account.
    AuthorizeAccount,
    /// Shows what came back, where a client has no page of its own.
    TestRedirect,
}

impl Page {
    pub(super) fn at(path: &str) -> Option<Page> {
        match path {
            "/oauth2/authorize" | "/oauth2/authorizeUser" => Some(Page::AuthorizeUser),
            "/oauth2/authorizeAccount" => Some(Page::AuthorizeAccount),
            _ => {
                let client = path
                    .strip_prefix("/oauth2/clients/")?
                    .strip_suffix("/redirect")?;
                (client == CLIENT_ID).then_some(Page::TestRedirect)
            }
        }
    }

    fn takes(self, name: &str) -> bool {
        PARAMETERS.contains(&name) && (name != "prompt" || self == Page::AuthorizeUser)
    }
}

fn test_redirect_path() -> String {
    format!("/oauth2/clients/{CLIENT_ID}/redirect")
}

pub(super) async fn answer(
    page: Page,
    shared: &Shared,
    head: &Parts,
    body: Incoming,
) -> Result<Reply, Cut> {
    problems::check_page_head(shared, head);
    let query = head.uri.query().unwrap_or_default();
    match (page, &head.method) {
        (Page::TestRedirect, &Method::GET) => Ok(pages::outcome(&Parameters::of_query(query))),
        (Page::TestRedirect, _) => Ok(wrong_method("This page can only be looked at.")),
        (_, &Method::GET) => Ok(ask(page, shared, head, &Parameters::of_query(query))),
        (_, &Method::POST) => decide(page, shared, head, body).await,
        _ => Ok(wrong_method("The method must be GET or POST.")),
    }
}

fn wrong_method(text: &str) -> Reply {
    pages::error(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// Asks the person, unless the client wants nobody to be asked.
fn ask(page: Page, shared: &Shared, head: &Parts, parameters: &Parameters) -> Reply {
    problems::check_names(shared, head, parameters, |name| page.takes(name));
    let request = match Request::check(page, shared, head, parameters) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_reply(),
    };
    if request.prompt_none {
        return approve(shared, request);
    }
    shared.ledger.update(|counts| counts.authorize_pages += 1);
    let taken: Vec<(&str, &str)> = parameters
        .pairs()
        .filter(|(name, _)| page.takes(name))
        .collect();
    pages::approval(
        head.uri.path(),
        &pages::Question {
            owner: request.owner,
            redirect_uri: &request.way_back.redirect_uri,
            scopes: &request.scopes,
            fields: &taken,
        },
    )
}

/// Does what the person decided with one of the page's buttons.
async fn decide(page: Page, shared: &Shared, head: &Parts, body: Incoming) -> Result<Reply, Cut> {
    if head.uri.query().is_some() {
        problems::report(shared, head, "query parameters");
    }
    let outcome = match read_form(head, body).await {
        Ok(form) => carry_out(page, shared, head, &form),
        Err(Unreadable::Cut) => {
            problems::report(shared, head, "a body that ended early");
            return Err(Cut);
        }
        Err(Unreadable::Malformed(what)) => Err(what),
    };
    Ok(outcome.unwrap_or_else(|what| {
        problems::report(shared, head, what);
        pages::error(StatusCode::BAD_REQUEST, what)
    }))
}

/// Why there is no decision to carry out.
#[derive(Debug)]
enum Unreadable {
    Malformed(&'static str),
    /// The browser has gone.
    Cut,
}

async fn read_form(head: &Parts, body: Incoming) -> Result<Parameters, Unreadable> {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .filter(|value| has_essence(value, "application/x-www-form-urlencoded"))
        .ok_or(Unreadable::Malformed("the content type is not a form"))?;
    let body = intake::short(body).await.map_err(|unread| match unread {
        Unread::TooLong => Unreadable::Malformed("a body that is too long"),
        Unread::Incomplete => Unreadable::Cut,
    })?;
    Parameters::parse(content_type, &body).map_err(Unreadable::Malformed)
}

/// The form repeats the request, which is checked again: nothing was remembered when the page was shown.
fn carry_out(
    page: Page,
    shared: &Shared,
    head: &Parts,
    form: &Parameters,
) -> Result<Reply, &'static str> {
    problems::check_names(shared, head, form, |name| {
        name == "decision" || page.takes(name)
    });
    let request = match Request::check(page, shared, head, form) {
        Ok(request) => request,
        Err(refusal) => return Ok(refusal.into_reply()),
    };
    match (form.count("decision"), form.value("decision")) {
        (1, "approve") => Ok(approve(shared, request)),
        (1, "deny") => {
            shared.ledger.update(|counts| counts.denials += 1);
            Ok(request.way_back.refuse("access_denied", "").into_reply())
        }
        _ => Err("the decision is neither approve nor deny"),
    }
}

fn approve(shared: &Shared, request: Request) -> Reply {
    let (granted_scopes, lifetime) = {
        let behaviour = shared.behaviour.borrow();
        (behaviour.granted_scopes.clone(), behaviour.code_lifetime)
    };
    let approval = Approval {
        scopes: granted_scopes.unwrap_or(request.scopes),
        owner: request.owner,
        redirect_uri: request.way_back.redirect_uri.clone(),
        challenge: request.challenge,
    };
    let code = shared.codes().issue(approval, lifetime, Utc::now());
    shared.ledger.update(|counts| counts.approvals += 1);
    request.way_back.go(&[("code", &code)])
}

/// A correct authorization request (RFC 6749, section 4.1.1).
#[derive(Debug)]
struct Request {
    owner: Owner,
    scopes: Vec<String>,
    challenge: Option<Challenge>,
    prompt_none: bool,
    way_back: WayBack,
}

/// Where the person's browser goes next, with what.
#[derive(Clone, Debug)]
struct WayBack {
    redirect_uri: String,
    state: Option<String>,
}

/// Why an authorization request fails (RFC 6749, section 4.1.2.1).
#[derive(Debug)]
enum Refusal {
    /// It cannot be told who asks, so the person is told and nobody else.
    Here(Cow<'static, str>),
    /// The client is told.
    Back(WayBack, &'static str, Cow<'static, str>),
}

impl Request {
    fn check(
        page: Page,
        shared: &Shared,
        head: &Parts,
        parameters: &Parameters,
    ) -> Result<Request, Refusal> {
        let way_back = WayBack::check(shared, parameters)?;
        let malformed = |what: Cow<'static, str>| {
            problems::report(shared, head, &what);
            way_back.refuse("invalid_request", what)
        };
        let get = |name| parameters.get(name).filter(|_| page.takes(name));
        if let Some(name) = PARAMETERS.iter().find(|name| parameters.count(name) > 1) {
            let what = format!("the parameter {name} is there more than once");
            return Err(malformed(what.into()));
        }
        if way_back
            .state
            .as_ref()
            .is_some_and(|state| !is_plain(state))
        {
            return Err(malformed("the state is not printable ASCII".into()));
        }
        if get("response_type").is_some_and(|wanted| wanted != "code") {
            problems::report(shared, head, "a response_type that is not code");
            return Err(way_back.refuse("unsupported_response_type", "only code is supported"));
        }
        let prompt_none = match get("prompt") {
            Some("none") => true,
            Some("consent") | None => false,
            Some(_) => return Err(malformed("the prompt is neither none nor consent".into())),
        };
        let method = get("code_challenge_method");
        let challenge = match get("code_challenge") {
            Some(challenge) => {
                Some(Challenge::parse(challenge, method).map_err(|what| malformed(what.into()))?)
            }
            None if method.is_some() => {
                let what = "a code_challenge_method without a code_challenge";
                return Err(malformed(what.into()));
            }
            None => None,
        };
        let scopes = scopes::parse(parameters.value("scope")).ok_or_else(|| {
            way_back.refuse("invalid_scope", "scope is empty or holds an unknown scope")
        })?;
        let behaviour = shared.behaviour.borrow();
        let owner = match page {
            Page::AuthorizeAccount => Owner::Account(behaviour.account_id),
            _ => Owner::User(behaviour.user_id),
        };
        Ok(Request {
            owner,
            scopes,
            challenge,
            prompt_none,
            way_back,
        })
    }
}

impl WayBack {
    /// Only a known client is answered at a registered place: everything else would make this an open redirector.
    fn check(shared: &Shared, parameters: &Parameters) -> Result<WayBack, Refusal> {
        let here = |text: &'static str| Err(Refusal::Here(text.into()));
        match (parameters.count("client_id"), parameters.value("client_id")) {
            (1, CLIENT_ID) => {}
            (0, _) => return here("The parameter client_id is missing."),
            (1, id) => {
                return Err(Refusal::Here(
                    format!("No application has the client id {id:?}.").into(),
                ));
            }
            _ => return here("The parameter client_id is there more than once."),
        }
        let uri = match (
            parameters.count("redirect_uri"),
            parameters.value("redirect_uri"),
        ) {
            (1, uri) => uri,
            (0, _) => return here("The parameter redirect_uri is missing."),
            _ => return here("The parameter redirect_uri is there more than once."),
        };
        let test_page = shared.public_origin() + &test_redirect_path();
        let behaviour = shared.behaviour.borrow();
        if !redirects::is_registered(uri, behaviour.redirect_uris.as_deref(), &test_page) {
            let text = format!("The redirect URI {uri:?} is not registered for this application.");
            return Err(Refusal::Here(text.into()));
        }
        Ok(WayBack {
            redirect_uri: uri.to_owned(),
            // RFC 6749, section 3.1: a parameter without a value counts as omitted.
            state: parameters
                .get("state")
                .filter(|state| !state.is_empty())
                .map(str::to_owned),
        })
    }

    fn refuse(&self, error: &'static str, description: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Back(self.clone(), error, description.into())
    }

    /// Sends the browser there.
    fn go(&self, parameters: &[(&str, &str)]) -> Reply {
        let mut parameters = parameters.to_vec();
        parameters.extend(self.state.as_deref().map(|state| ("state", state)));
        let location = redirects::with_parameters(&self.redirect_uri, &parameters);
        let mut reply = reply::empty(StatusCode::FOUND);
        let headers = reply.headers_mut();
        headers.insert(LOCATION, location);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        reply
    }
}

impl Refusal {
    fn into_reply(self) -> Reply {
        match self {
            Refusal::Here(text) => pages::error(StatusCode::BAD_REQUEST, &text),
            Refusal::Back(way_back, error, description) if description.is_empty() => {
                way_back.go(&[("error", error)])
            }
            Refusal::Back(way_back, error, description) => {
                way_back.go(&[("error", error), ("error_description", &description)])
            }
        }
    }
}

/// RFC 6749, appendix A.5.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
