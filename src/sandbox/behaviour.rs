//! What the stand-in does: one plain struct that a test edits while requests are under way.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use super::users::{ACCOUNT_ID, USER_ID};

/// How the stand-in behaves. The default is Lucid as documented; what Lucid leaves open has the mildest default.
///
/// Changes made with [`Sandbox::change`](super::Sandbox::change) also reach requests that are already waiting.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How long an access token lives. Lucid: one hour. Applies to pairs issued from now on.
    pub access_lifetime: Duration,
    /// How long an unused refresh token lives. Lucid: 180 days. Applies to pairs issued from now on.
    pub refresh_lifetime: Duration,
    /// The least number of bytes in a token; shorter ones are padded. Zero adds nothing (tokens then have about
    /// 50 bytes). Several kB are worth a test, since nothing documents an upper bound.
    pub token_length: usize,
    /// The scopes of grants made by [`Sandbox::approve`](super::Sandbox::approve) from now on. An API request without
    /// the scope that it needs gets a 403.
    pub scopes: Vec<String>,
    /// What a person who approves at the authorize page grants, when it is not what was asked for. Default: what was
    /// asked for. Applies to approvals from now on.
    pub granted_scopes: Option<Vec<String>>,
    /// An API key that is taken like a living access token with `scopes`, of the user `user_id`. Default: none.
    pub api_key: Option<String>,
    /// Who is logged in at the authorize page, and to whom the grants of [`Sandbox::approve`](super::Sandbox::approve)
    /// belong; another id is another person. Default: 4711, Ada Demo. `GET /users/me/profile` answers with the id of
    /// the grant whose token it sees.
    pub user_id: u64,
    /// That person's account, to which the grants of `/oauth2/authorizeAccount` belong. Default: 52. The API's
    /// resources stay those of account 52.
    pub account_id: u64,
    /// The registered redirect URIs, compared character by character; nothing else is registered then. Default: any
    /// `http://localhost:PORT/…`, `http://127.0.0.1:PORT/…` and `http://[::1]:PORT/…`, and the stand-in's own page
    /// that shows a code.
    pub redirect_uris: Option<Vec<String>>,
    /// How long an authorization code can be redeemed. Lucid: five minutes in the reference, two (the default) in its
    /// sample. Applies to codes issued from now on.
    pub code_lifetime: Duration,
    /// The status for a code that is unknown, used or expired, or was sent to another redirect URI. 401 (the default)
    /// was reported for Lucid, RFC 6749 has 400. A bad `code_verifier` is always answered 400.
    pub bad_code_status: StatusCode,
    /// What happens when a code is redeemed a second time. Lucid documents nothing.
    pub code_reuse: Reuse,
    /// What happens when a spent refresh token is posted. Lucid documents only that it is refused.
    pub reuse: Reuse,
    /// The status for a wrong client id or secret. 400 was seen on the wire for refreshes and hides which of the
    /// three values was wrong; Lucid's reference says 401, its older edition 403. Code exchanges, introspection and
    /// revocation answer 401 where this is 400, which was seen for refreshes alone.
    pub bad_client_status: StatusCode,
    /// The shape of a successful token answer.
    pub token_answer: TokenAnswer,
    /// Time between the arrival of a token POST and its effect. Default: none. This and the next three fields apply to
    /// code exchanges too.
    pub token_delay: Duration,
    /// A gate: while true, token POSTs are counted as arrived and then wait, before they have any effect.
    pub hold_token_endpoint: bool,
    /// What goes wrong with the next token POSTs, one entry for each, in order. Entries are taken as a POST passes
    /// the gate.
    pub token_failures: VecDeque<TokenFailure>,
    /// Lets go of the token POSTs caught by [`TokenFailure::HangBefore`] and [`TokenFailure::HangAfter`]: they then go
    /// on as if nothing had happened.
    pub release_hung: bool,
    /// Introspection answers this status and nothing else, unless it is 200 (the default).
    pub introspection_status: StatusCode,
    /// When and in which form the API answers 401.
    pub unauthorized: Unauthorized,
    /// API paths that start with this are answered 401 whatever the token: a 401 that no refresh cures. This and the
    /// other `…_under` fields are compared with the path without its `/v1`; `"/"` covers every path.
    pub unauthorized_under: Option<String>,
    /// API paths that start with this are answered 403, as Lucid does for a missing permission.
    pub forbidden_under: Option<String>,
    /// API paths that start with this are answered 429 with [`retry_after`](Behaviour::retry_after).
    pub throttled_under: Option<String>,
    /// The `Retry-After` of those answers: seconds (default 1) or an HTTP date.
    pub retry_after: HeaderValue,
    /// The status for an object that does not exist. 403 as at Lucid, which does not tell whether it exists; or 404.
    pub missing_object_status: StatusCode,
    /// A gate: while set, answers to API paths that start with this wait, their bodies read and their tokens judged.
    pub hold_under: Option<String>,
    /// Time between an API request's arrival, with its body, and the answer. Default: none.
    pub api_delay: Duration,
    /// What goes wrong with the next API requests, one entry for each, in the order of their arrival.
    pub api_failures: VecDeque<ApiFailure>,
    /// Whether the rest of a request body is still read after an answer that came early. Default: yes. If not, the
    /// connection closes with unread bytes on it, which resets it: the client may lose the answer.
    pub drain_after_early_answer: bool,
    /// The stand-in's name for itself in `Link` and in redirects, for example `http://lucid.test`; also accepted as
    /// `Host` then. Default: the address on which it listens.
    pub public_origin: Option<String>,
    /// Which origin a `Link` names.
    pub link_origin: LinkOrigin,
    /// Whether a `Link` has the `/v1` prefix. Default: no, as in Lucid's examples.
    pub link_with_version: bool,
    /// The least size of an exported image in bytes; it is padded and stays valid. Default: the smallest possible.
    pub image_bytes: usize,
    /// An image is sent in blocks of about this many bytes (default 64 KiB), with `image_pause` before each.
    pub image_block: usize,
    /// Time before each block of an image. Default: none.
    pub image_pause: Duration,
    /// The status of answers under `/sandbox/echo`. Default: 200.
    pub echo_status: StatusCode,
    /// Headers added to answers under `/sandbox/echo`, in order, equal names kept: for what a proxy does with responses.
    pub echo_headers: Vec<(HeaderName, HeaderValue)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            access_lifetime: Duration::from_secs(60 * 60),
            refresh_lifetime: Duration::from_secs(180 * 24 * 60 * 60),
            token_length: 0,
            scopes: [
                "offline_access",
                "user.profile",
                "account.user:readonly",
                "lucidchart.document.content",
            ]
            .map(String::from)
            .to_vec(),
            granted_scopes: None,
            api_key: None,
            user_id: USER_ID,
            account_id: ACCOUNT_ID,
            redirect_uris: None,
            code_lifetime: Duration::from_secs(2 * 60),
            bad_code_status: StatusCode::UNAUTHORIZED,
            code_reuse: Reuse::Refuse,
            reuse: Reuse::Refuse,
            bad_client_status: StatusCode::BAD_REQUEST,
            token_answer: TokenAnswer::default(),
            token_delay: Duration::ZERO,
            hold_token_endpoint: false,
            token_failures: VecDeque::new(),
            release_hung: false,
            introspection_status: StatusCode::OK,
            unauthorized: Unauthorized::default(),
            unauthorized_under: None,
            forbidden_under: None,
            throttled_under: None,
            retry_after: HeaderValue::from_static("1"),
            missing_object_status: StatusCode::FORBIDDEN,
            hold_under: None,
            api_delay: Duration::ZERO,
            api_failures: VecDeque::new(),
            drain_after_early_answer: true,
            public_origin: None,
            link_origin: LinkOrigin::Own,
            link_with_version: false,
            image_bytes: 0,
            image_block: 64 * 1024,
            image_pause: Duration::ZERO,
            echo_status: StatusCode::OK,
            echo_headers: Vec::new(),
        }
    }
}

/// What posting a spent refresh token or a used code leads to, beside the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing: the pair that it was exchanged for lives on.
    Refuse,
    /// The whole grant is revoked, as other OAuth servers do on the suspicion of theft.
    RevokeGrant,
}

/// The shape of a successful token answer. The default is Lucid's documented one.
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    /// Which field lists the scopes.
    pub scopes: ScopesShape,
    /// Whether there is a new refresh token. If not, a posted one is not spent and stays valid. A code exchange yields
    /// none either way unless `offline_access` was granted.
    pub refresh_token: bool,
    /// How the lifetime is written.
    pub expires_in: ExpiresIn,
    /// The value of `token_type`; Lucid writes `bearer`. `None` leaves the field out.
    pub token_type: Option<String>,
    /// Fields added to the answer, over those of the same name.
    pub extra: Map<String, Value>,
}

impl Default for TokenAnswer {
    fn default() -> Self {
        TokenAnswer {
            scopes: ScopesShape::Array,
            refresh_token: true,
            expires_in: ExpiresIn::Number,
            token_type: Some(String::from("bearer")),
            extra: Map::new(),
        }
    }
}

/// How a token answer lists the scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopesShape {
    /// `"scopes": ["…", "…"]`, as documented.
    Array,
    /// `"scope": "… …"`, as in RFC 6749 and older material of Lucid's.
    Text,
    /// Neither field.
    Absent,
}

/// How a token answer writes `expires_in`. In all forms but [`Number`](ExpiresIn::Number), `expires` is left out too,
/// so that nothing else in the answer gives the lifetime away.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpiresIn {
    /// A number of whole seconds, as documented.
    Number,
    /// The same number as a JSON string.
    Text,
    /// The field is left out.
    Absent,
    /// This value instead, for example `"soon"`, `-1` or `3599.5`.
    Other(Value),
}

/// What goes wrong with one POST to the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFailure {
    /// An answer with this status; nothing took effect.
    Status {
        /// The status code.
        code: StatusCode,
        /// The `Retry-After` header: seconds or an HTTP date.
        retry_after: Option<HeaderValue>,
        /// The body, sent as `application/json` whether it is JSON or not.
        body: String,
    },
    /// A page of HTML with this status, as a firewall in between would send; nothing took effect.
    Html(StatusCode),
    /// The connection is cut without an answer, before anything took effect.
    CutBefore,
    /// The rotation or code exchange takes effect, then the connection is cut without an answer.
    CutAfter,
    /// The rotation or code exchange takes effect, then the connection is cut in the middle of the body.
    HalfBodyAfter,
    /// A 200 whose JSON has no `access_token`; nothing took effect.
    NoAccessToken,
    /// Lucid's `invalid_grant`, although the refresh token or code is good; nothing took effect.
    InvalidGrant,
    /// A 307 to the stand-in's own token endpoint: whoever follows it posts the refresh token or code
    /// a second time.
    Redirect,
    /// Silence before anything took effect, until [`release_hung`](Behaviour::release_hung).
    HangBefore,
    /// The rotation or code exchange takes effect, then silence until [`release_hung`](Behaviour::release_hung).
    HangAfter,
}

/// When and in which form the API answers 401.
#[derive(Clone, Debug)]
pub struct Unauthorized {
    /// How much of the request body is read first.
    pub timing: Timing,
    /// Whether the answer carries `Connection: close` and ends the connection.
    pub close: bool,
    /// An answer without a body instead of Lucid's error object.
    pub empty_body: bool,
    /// A `WWW-Authenticate` header to add. Lucid's is not known; `Bearer error="invalid_token"` is likely.
    pub www_authenticate: Option<HeaderValue>,
}

impl Default for Unauthorized {
    fn default() -> Self {
        Unauthorized {
            timing: Timing::AfterBody,
            close: false,
            empty_body: false,
            www_authenticate: None,
        }
    }
}

/// When a 401 is sent, relative to the request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// As soon as the head is read; the token is judged then.
    AtHead,
    /// When at least this many bytes of the body were read; the token is judged at the head.
    AfterBytes(u64),
    /// When the body is complete; the token is judged then, so it may die during a slow upload.
    AfterBody,
}

/// Which origin a `Link` header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrigin {
    /// The stand-in's own: [`public_origin`](Behaviour::public_origin), else the address on which it listens.
    Own,
    /// Whatever the request's `Host` header says.
    EchoHost,
}

/// What goes wrong with one API request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiFailure {
    /// An answer with this status and Lucid's error object, once the body was read and the token accepted.
    Status {
        /// The status code.
        code: StatusCode,
        /// The `Retry-After` header: seconds or an HTTP date.
        retry_after: Option<HeaderValue>,
    },
    /// A 401 although the token is good, in the form that [`Behaviour::unauthorized`] says.
    Unauthorized,
    /// The connection is cut as soon as the head was read.
    CutAtHead,
    /// The request takes effect, then the connection is cut without an answer.
    CutAfter,
    /// The request takes effect, then the connection is cut in the middle of the answer's body.
    HalfBody,
}

impl Behaviour {
    /// Whether a `…_under` field covers `path`, a path without its version.
    pub(super) fn covers(prefix: Option<&String>, path: &str) -> bool {
        prefix.is_some_and(|prefix| path.starts_with(prefix.as_str()))
    }
}
