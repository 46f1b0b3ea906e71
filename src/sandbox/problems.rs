//! What a correct proxy would never send.

use std::fmt::Display;

use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use super::parameters::Parameters;
use super::shared::Shared;

/// Records a problem. `what` must not contain a token.
pub(super) fn report(shared: &Shared, head: &Parts, what: impl Display) {
    shared
        .ledger
        .problem(format!("{} {}: {what}", head.method, head.uri.path()));
}

/// Checks the head of an API request.
pub(super) fn check_api_head(shared: &Shared, head: &Parts) {
    for name in head.headers.keys() {
        if is_hop_by_hop(name) && !is_of_this_hop(head, name) {
            report(shared, head, format_args!("the hop-by-hop header {name}"));
        }
    }
    check_authorization(shared, head);
    check_target(shared, head);
}

/// Checks the head of a request to the token endpoint and its siblings.
pub(super) fn check_token_head(shared: &Shared, head: &Parts) {
    if head.uri.query().is_some() {
        report(shared, head, "query parameters");
    }
    for name in [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
    ] {
        if head.headers.contains_key(&name) {
            report(shared, head, format_args!("the header {name}"));
        }
    }
    if !accepts_json(&head.headers) {
        report(shared, head, "accept does not permit JSON");
    }
    check_target(shared, head);
}

/// Checks the head of a request for one of the pages that people see.
pub(super) fn check_page_head(shared: &Shared, head: &Parts) {
    for name in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION] {
        if head.headers.contains_key(&name) {
            report(shared, head, format_args!("the header {name}"));
        }
    }
    check_target(shared, head);
}

/// Checks that nothing is among the parameters that is not `expected` there.
pub(super) fn check_names(
    shared: &Shared,
    head: &Parts,
    parameters: &Parameters,
    expected: impl Fn(&str) -> bool,
) {
    for name in parameters.names().filter(|name| !expected(name)) {
        // In a mangled body anything may stand where a name should, a token too.
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let name = if plain { name } else { "(not a plain word)" };
        report(shared, head, format_args!("the unknown parameter {name}"));
    }
}

/// Checks the trailers of an API request: what is stripped from the head must not come in by the back door.
pub(super) fn check_trailers(shared: &Shared, head: &Parts, trailers: Option<&HeaderMap>) {
    for name in trailers.iter().flat_map(|trailers| trailers.keys()) {
        if is_hop_by_hop(name)
            || matches!(
                *name,
                header::AUTHORIZATION | header::HOST | header::CONTENT_LENGTH
            )
        {
            report(shared, head, format_args!("the trailer {name}"));
        }
    }
}

/// Whether a header of this kind may well be the proxy's own: that its chunked body has trailers, or that it takes some.
fn is_of_this_hop(head: &Parts, name: &HeaderName) -> bool {
    let is = |name, value| head.headers.get_all(name).iter().eq([value]);
    match *name {
        header::TRAILER => head.headers.contains_key(header::TRANSFER_ENCODING),
        header::TE | header::CONNECTION => {
            is(header::TE, "trailers") && is(header::CONNECTION, "te")
        }
        _ => false,
    }
}

/// RFC 9110, section 7.6.1: these concern one connection only. `Transfer-Encoding` is not among them here, since it is
/// the next hop's own framing that arrives.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION | header::TE | header::TRAILER | header::UPGRADE
    ) || matches!(name.as_str(), "keep-alive" | "http2-settings")
        || name.as_str().starts_with("proxy-")
}

fn check_authorization(shared: &Shared, head: &Parts) {
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = values.next() else { return };
    if values.next().is_some() {
        report(shared, head, "more than one authorization header");
    }
    if !first.as_bytes().starts_with(b"Bearer ") {
        report(shared, head, "an authorization that is not a bearer token");
    }
}

/// Checks that the request was meant for this server, and says so in the usual form.
fn check_target(shared: &Shared, head: &Parts) {
    if head.uri.authority().is_some() {
        report(shared, head, "an absolute request target");
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host == shared.authority.as_str() => {}
        (Some(host), None)
            if Some(host.as_bytes()) == public_authority(shared).as_ref().map(String::as_bytes) => {
        }
        // Behind a wildcard address any of the machine's names may be the right one.
        (Some(_), None) if shared.address.ip().is_unspecified() => {}
        (Some(_), None) => report(shared, head, "a host that is not this server"),
        (Some(_), Some(_)) => report(shared, head, "more than one host header"),
        (None, _) => report(shared, head, "no host header"),
    }
}

fn public_authority(shared: &Shared) -> Option<String> {
    let behaviour = shared.behaviour.borrow();
    let (_, authority) = behaviour.public_origin.as_ref()?.split_once("://")?;
    Some(authority.to_owned())
}

/// Whether `Accept` permits JSON; none at all permits everything (RFC 9110, section 12.5.1).
fn accepts_json(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut ranges = values
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next());
    ranges.any(|range| matches!(range.trim(), "*/*" | "application/*" | "application/json"))
}
