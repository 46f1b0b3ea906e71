//! `[limits]`: how much clients may ask for at once.

use std::ops::Range;

use super::raw::{Found, Source, Table};

const KIB: u64 = 1 << 10;

/// Less would refuse requests that every client sends.
const LEAST_HEAD: u64 = KIB;
/// Every connection may have as much kept before anything of it is looked at; one of HTTP/2 64 KiB more, from which it is
/// told why it is refused.
const MOST_HEAD: u64 = 256 * KIB;
/// hyper takes no longer target.
const LONGEST_TARGET: u64 = 65534;

/// `[limits]`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of all clients together.
    pub connections: usize,
    /// Connections of one IP address that is not this machine's own; of IPv6 addresses, of those that share the first 64
    /// bits.
    pub connections_per_address: usize,
    /// Requests under way, of all clients together.
    pub requests: usize,
    /// What one request's head may be like.
    pub head: HeadLimits,
}

/// The limits of one request's head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of all of it. In HTTP/2 those of its fields, with 32 for each (RFC 9113 section 10.5.1).
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16384,
            connections_per_address: 1024,
            requests: 4096,
            head: HeadLimits {
                bytes: 64 << 10,
                fields: 100,
                target: 16 << 10,
            },
        }
    }
}

/// Takes `[limits]` out of the file, whose clients may speak HTTP/2 where it `has_http2`.
pub(super) fn check<'a>(source: &mut Source<'a>, root: &mut Table<'a>, has_http2: bool) -> Limits {
    const MILLION: Range<usize> = 1..1_000_001;
    let mut table = root.table(source, "limits");
    let usual = Limits::default();
    let mut count = |name, range| table.count(source, name, range);
    let connections = count("connections", MILLION);
    let per_address = count("connections_per_address", MILLION);
    let requests = count("requests", MILLION);
    let fields = count("headers", 10..1001);
    let value =
        |found: &Option<Found<usize>>, usual| found.as_ref().map_or(usual, |found| found.value);
    let most = value(&connections, usual.connections);
    warn_of_unreachable(source, per_address.as_ref(), most, "no address can have");
    if !has_http2 {
        // In HTTP/1.1 one follows the other.
        warn_of_unreachable(
            source,
            requests.as_ref(),
            most,
            "without HTTP/2 there can be no",
        );
    }
    let head = HeadLimits {
        bytes: size(
            source,
            &mut table,
            "header_bytes",
            MOST_HEAD,
            usual.head.bytes,
        ),
        fields: value(&fields, usual.head.fields),
        target: size(
            source,
            &mut table,
            "uri_bytes",
            LONGEST_TARGET,
            usual.head.target,
        ),
    };
    table.finish(source);
    Limits {
        connections: most,
        connections_per_address: value(&per_address, usual.connections_per_address),
        requests: value(&requests, usual.requests),
        head,
    }
}

/// A limit that was set and never is what refuses something.
fn warn_of_unreachable(
    source: &mut Source<'_>,
    set: Option<&Found<usize>>,
    connections: usize,
    why: &str,
) {
    if let Some(found) = set.filter(|found| found.value > connections) {
        let message = format!(
            "{} is never reached: {why} more than the {connections} of limits.connections",
            found.value
        );
        source.warn(&found.at, &found.key, message);
    }
}

fn size<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    name: &'static str,
    most: u64,
    usual: usize,
) -> usize {
    match table.size(source, name) {
        Some(found) if !(LEAST_HEAD..=most).contains(&found.value) => {
            let message = match most {
                LONGEST_TARGET => "a size from \"1 KiB\" to \"65534 B\" is accepted",
                _ => "a size from \"1 KiB\" to \"256 KiB\" is accepted",
            };
            source.problem(Some(&found.at), &found.key, message);
            usual
        }
        Some(found) => usize::try_from(found.value).expect("no more than the largest accepted"),
        None => usual,
    }
}
