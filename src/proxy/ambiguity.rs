//! A request that two readers could take for two things is refused, and its connection closed (rule F15).

use http::request::Parts;
use http::uri::Scheme as UriScheme;
use http::{Method, Version};

use super::head::Names;
use super::reply::Refusal;
use crate::config::Scheme;

/// Goes with a request whose framing can be read in two ways, and says why: by the time the request is here, hyper has
/// settled for one of them.
#[derive(Clone, Copy, Debug)]
pub struct Ambiguous(pub &'static str);

/// Refuses what could be taken for something else, on a listener that is spoken to with `scheme`. `names` are those that
/// the head has.
///
/// # Errors
///
/// The refusal says what the request should be like.
pub fn check(head: &Parts, names: Names, scheme: Scheme) -> Result<(), Refusal> {
    match problem(head, names, scheme) {
        None => Ok(()),
        Some(message) => Err(Refusal::bad_request(message)),
    }
}

fn problem(head: &Parts, names: Names, scheme: Scheme) -> Option<&'static str> {
    if let Some(Ambiguous(why)) = head.extensions.get() {
        return Some(why);
    }
    if !names.is_plainly_framed() {
        return Some("one Content-Length, or Transfer-Encoding: chunked alone, is accepted");
    }
    // RFC 9112 section 3.2; in HTTP/2 the authority stands in its place.
    if head.version == Version::HTTP_11 && !names.has(Names::HOST) {
        return Some("the request has no Host header; send one");
    }
    target_problem(head, scheme)
}

/// RFC 9112 section 3.2: each form of target has its methods. RFC 9110 section 7.4: what is asked for by a scheme is not
/// answered over another.
fn target_problem(head: &Parts, scheme: Scheme) -> Option<&'static str> {
    let uri = &head.uri;
    let spoken = match scheme {
        Scheme::Http => UriScheme::HTTP,
        Scheme::Https => UriScheme::HTTPS,
    };
    match uri.scheme() {
        _ if head.method == Method::CONNECT => None,
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
