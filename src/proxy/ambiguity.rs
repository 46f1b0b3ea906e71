//! A request that two readers could take for two things is refused, and its connection closed (rule F15). So is one that
//! is larger than the limits allow (rule S7).

use http::request::Parts;
use http::uri::Scheme as UriScheme;
use http::{Method, Version};

use super::head::Names;
use super::reply::Refusal;
use crate::config::Scheme;

/// Goes with a request that is not to be served, and says why: what is wrong with it is not to be seen any more by the time
/// that the request is here, or is nothing about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unservable {
    /// Its framing can be read in two ways, of which hyper has settled for one.
    Ambiguous(&'static str),
    /// Its head has more than so many bytes (`limits.header_bytes`).
    HeadTooLarge(usize),
    /// It has more than so many fields (`limits.headers`).
    TooManyFields(usize),
    /// Its target has more than so many bytes (`limits.uri_bytes`).
    TargetTooLong(usize),
    /// So many requests are under way already (`limits.requests`).
    Overloaded(usize),
}

impl From<Unservable> for Refusal {
    fn from(why: Unservable) -> Self {
        match why {
            Unservable::Ambiguous(why) => Self::bad_request(why),
            Unservable::HeadTooLarge(most) => Self::head_too_large(most),
            Unservable::TooManyFields(most) => Self::too_many_fields(most),
            Unservable::TargetTooLong(most) => Self::target_too_long(most),
            Unservable::Overloaded(most) => Self::too_many_requests(most),
        }
    }
}

/// Refuses what could be taken for something else, on a listener that is spoken to with `scheme`, as a forward proxy where
/// it is `for_another` host. `names` are those that the head has.
///
/// # Errors
///
/// The refusal says what the request should be like.
pub fn check(head: &Parts, names: Names, scheme: Scheme, for_another: bool) -> Result<(), Refusal> {
    if let Some(why) = head.extensions.get::<Unservable>() {
        return Err((*why).into());
    }
    match problem(head, names, scheme, for_another) {
        None => Ok(()),
        Some(message) => Err(Refusal::bad_request(message)),
    }
}

fn problem(head: &Parts, names: Names, scheme: Scheme, for_another: bool) -> Option<&'static str> {
    if !names.is_plainly_framed() {
        return Some("one Content-Length, or Transfer-Encoding: chunked alone, is accepted");
    }
    // RFC 9112 section 3.2; in HTTP/2 the authority stands in its place.
    if head.version == Version::HTTP_11 && !names.has(Names::HOST) {
        return Some("the request has no Host header; send one");
    }
    target_problem(head, scheme, for_another)
}

/// RFC 9112 section 3.2: each form of target has its methods. RFC 9110 section 7.4: what is asked for by a scheme is not
/// answered over another; of a forward proxy, what is to be reached over TLS may be asked in the clear.
fn target_problem(head: &Parts, scheme: Scheme, for_another: bool) -> Option<&'static str> {
    let uri = &head.uri;
    let spoken = match scheme {
        Scheme::Http => UriScheme::HTTP,
        Scheme::Https => UriScheme::HTTPS,
    };
    match uri.scheme() {
        _ if head.method == Method::CONNECT => None,
        Some(asked) if for_another && *asked == UriScheme::HTTPS => None,
        Some(asked) if *asked != spoken => {
            Some("the request target has another scheme than the one that is spoken here")
        }
        None if uri.authority().is_some() => {
            Some("the request target is a host without a path; begin it with /")
        }
        _ if uri.path() == "*" && head.method != Method::OPTIONS => {
            Some("the request target * is for OPTIONS alone")
        }
        _ => None,
    }
}
