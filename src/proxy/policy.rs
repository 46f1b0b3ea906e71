//! May this client do this? Rules about methods and paths (rule S5).
//!
//! Rules see a path as upstream may: its segments, decoded. Servers differ in what they make of an escaped slash, of dots,
//! of what follows a semicolon; so where any rule applies, a path that could be read as another one is refused before it is
//! compared. A rule that forbids is generous in what it takes for the same, one that permits is exact.
//!
//! The path is that of the request as it goes upstream: nothing changes it between here and there but that the host of an
//! absolute target goes.

use std::borrow::Cow;

use http::HeaderMap;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::Proxy;
use super::clients::Client;
use super::head;
use super::reply::Refusal;
use crate::config::{Rule, Rules, Segment, is_refused};

/// POSTs that change nothing at Lucid, and only ask with more than fits into a query. `/describeLink` is not among them: it
/// is not documented what following a link leaves behind, an access request or an entry among the recent documents.
const SEARCHES: [&[&str]; 5] = [
    &["documents", "search"],
    &["accounts", "me", "documents", "search"],
    &["folders", "search"],
    &["users", "searchByEmail"],
    &["auditLogs", "query"],
];

/// Fields by which some servers let a request have another method or another path than the one that rules have seen.
const REWRITING: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Bytes of a request that a message repeats at the most: it also stands in a header.
const LONGEST_SUGGESTION: usize = 200;

/// The rules of one place of the configuration; there is at least one.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The table that they stand in: `guard`, or `clients.NAME`.
    place: String,
    rules: Rules,
}

impl Policy {
    /// The rules that stand in the table `place`, if there are any.
    pub fn new(place: impl Into<String>, rules: &Rules) -> Option<Self> {
        (!rules.are_none()).then(|| Self {
            place: place.into(),
            rules: rules.clone(),
        })
    }

    fn permits(&self, sought: &Sought<'_>, opens_websocket: bool) -> Result<(), Refusal> {
        let place = &self.place;
        if self.rules.read_only && opens_websocket {
            return Err(Refusal::policy_denied(format!(
                "what passes through a WebSocket may change something, and read_only = true stands under [{place}] in proxy.toml; to permit it, take that line out"
            )));
        }
        if self.rules.read_only && !sought.reads_only() {
            return Err(Refusal::policy_denied(format!(
                "read_only = true under [{place}] in proxy.toml permits GET, HEAD and the searches of Lucid's API alone; to permit more, take that line out, and name in allow what is permitted then"
            )));
        }
        if let Some(rule) = self.rules.deny.iter().find(|rule| sought.is_denied(rule)) {
            return Err(Refusal::policy_denied(format!(
                "the rule {:?} in deny under [{place}] in proxy.toml forbids this request; to permit it, take that rule out",
                rule.text
            )));
        }
        match &self.rules.allow {
            Some(allow) if !allow.iter().any(|rule| sought.is_allowed(rule)) => {
                let add = sought.suggestion();
                Err(Refusal::policy_denied(format!(
                    "no rule in allow under [{place}] in proxy.toml permits this request; to permit it, add there {add}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Proxy {
    /// Step 3: whether the rules let a request through that goes upstream.
    pub(super) fn permit(&self, head: &Parts, client: Option<&Client>) -> Result<(), Refusal> {
        let own = client.and_then(|client| client.policy.as_ref());
        match (self.settings.policy.as_deref(), own) {
            (None, None) => Ok(()),
            (all, own) => check(head, all.into_iter().chain(own)),
        }
    }
}

/// Refuses a request that one of these does not permit. With none of them, every request is permitted as it is.
///
/// # Errors
///
/// The refusal names the rule, and the line that would permit the request.
pub fn check<'a>(
    head: &Parts,
    policies: impl Iterator<Item = &'a Policy> + Clone,
) -> Result<(), Refusal> {
    if policies.clone().next().is_none() {
        return Ok(());
    }
    if let Some(name) = rewriting_field(&head.headers) {
        return Err(Refusal::policy_denied(format!(
            "the header {name} could change the method or the path behind the rules of proxy.toml; send the request without it, with the method and the path that it means"
        )));
    }
    if has_method_in_query(head.uri.query()) {
        return Err(Refusal::policy_denied(
            "_method in the query could change the method behind the rules of proxy.toml; send the request without it, with the method that it means".to_owned(),
        ));
    }
    let sought = Sought::read(head.method.as_str(), head.uri.path()).map_err(|what| {
        Refusal::policy_denied(format!(
            "the path has {what} and could be taken for another one; proxy.toml has rules about paths, and such a path is refused: send it without"
        ))
    })?;
    let opens_websocket = head::offers_websocket(&head.headers);
    let mut policies = policies;
    policies.try_for_each(|policy| policy.permits(&sought, opens_websocket))
}

/// Whatever is between here and the program that answers may read `_` as `-`, as CGI does (RFC 3875 section 4.1.18).
fn rewriting_field(headers: &HeaderMap) -> Option<&'static str> {
    let is = |name: &str, other: &str| {
        let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
        name.len() == other.len() && name.bytes().zip(other.bytes()).all(same)
    };
    headers
        .keys()
        .find_map(|name| REWRITING.into_iter().find(|other| is(name.as_str(), other)))
}

/// Some servers take another method from there. Of a form's content nobody looks at that.
fn has_method_in_query(query: Option<&str>) -> bool {
    let query = query.unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).any(|(name, _)| name.eq_ignore_ascii_case("_method"))
}

/// A request as rules see it.
#[derive(Debug)]
struct Sought<'a> {
    method: &'a str,
    /// Decoded, with nothing in them that could be read in two ways.
    segments: Vec<Cow<'a, str>>,
}

impl<'a> Sought<'a> {
    /// Reads a path, or says what it has that can be read in two ways.
    fn read(method: &'a str, path: &'a str) -> Result<Self, &'static str> {
        // The server as a whole, for OPTIONS (RFC 9112 section 3.2.4); and a target without a path.
        let path = if matches!(path, "" | "*") { "/" } else { path };
        let Some(path) = path.strip_prefix('/') else {
            return Err("no / at its beginning");
        };
        let segments = match path {
            "" => Vec::new(),
            _ => {
                let path = path.strip_suffix('/').unwrap_or(path);
                path.split('/').map(segment).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { method, segments })
    }

    /// Whether it changes nothing.
    fn reads_only(&self) -> bool {
        let search = |search: &&[&str]| self.unversioned().iter().eq(search.iter());
        match self.method {
            "GET" | "HEAD" => true,
            "POST" => SEARCHES.iter().any(search),
            _ => false,
        }
    }

    /// The path without the version that may stand first in it.
    fn unversioned(&self) -> &[Cow<'a, str>] {
        match self.segments.split_first() {
            Some((first, rest)) if head::is_version(first) => rest,
            _ => &self.segments,
        }
    }

    /// Exact in everything; what may be got by GET may be looked at by HEAD.
    fn is_allowed(&self, rule: &Rule) -> bool {
        let is_method =
            |method: &String| method == self.method || (method == "GET" && self.method == "HEAD");
        let segments = match names_version(rule) {
            true => &self.segments,
            false => self.unversioned(),
        };
        rule.method.as_ref().is_none_or(is_method)
            && fits(&rule.segments, rule.rest, segments, str::eq)
    }

    /// Whatever case upstream takes for the same, and however many versions it takes off.
    fn is_denied(&self, rule: &Rule) -> bool {
        let is_method = |method: &String| {
            method.eq_ignore_ascii_case(self.method)
                || (method == "GET" && self.method.eq_ignore_ascii_case("HEAD"))
        };
        let versions = self
            .segments
            .iter()
            .take_while(|segment| may_be_version(segment));
        let versions = versions.count();
        let fits = |pattern, segments| fits(pattern, rule.rest, segments, is_same_in_any_case);
        // Where the path names no version, a field does, or Lucid takes one for granted.
        let implied =
            versions == 0 && names_version(rule) && fits(&rule.segments[1..], &self.segments[..]);
        rule.method.as_ref().is_none_or(is_method)
            && (implied
                || (0..=versions).any(|skipped| fits(&rule.segments, &self.segments[skipped..])))
    }

    /// A rule that would permit just this, in quotes, where there is one that is not too long.
    fn suggestion(&self) -> String {
        let path = self.unversioned().join("/");
        let rule = format!("{} /{path}", self.method);
        let is_plain = rule.len() <= LONGEST_SUGGESTION && !rule.contains('*');
        match is_plain && Rule::parse(&rule).is_ok() {
            true => format!("{rule:?}"),
            false => "a rule with its method in capitals, a space and its path".to_owned(),
        }
    }
}

/// Decodes one segment, or says what makes it ambiguous.
fn segment(segment: &str) -> Result<Cow<'_, str>, &'static str> {
    if has_bad_escape(segment) {
        return Err("a % without two hexadecimal digits behind it");
    }
    let decoded = percent_decode_str(segment).decode_utf8();
    let decoded = decoded.map_err(|_| "bytes that are not UTF-8")?;
    match &*decoded {
        "" => return Err("an empty segment"),
        "." | ".." => return Err("a segment of dots"),
        _ => {}
    }
    match decoded.chars().find(|character| is_refused(*character)) {
        None if decoded.trim() != decoded => Err("a segment that begins or ends with a space"),
        None => Ok(decoded),
        Some('/') => Err("an escaped /"),
        Some('\\') => Err("a \\"),
        Some(';') => Err("a ;"),
        Some('%') => Err("a % that is still there when it is decoded"),
        Some('?' | '#') => Err("an escaped ? or #"),
        Some(_) => Err("a control character"),
    }
}

fn has_bad_escape(segment: &str) -> bool {
    let mut pieces = segment.split('%').skip(1);
    pieces.any(|piece| {
        let digits = piece.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

fn fits(
    pattern: &[Segment],
    rest: bool,
    segments: &[Cow<'_, str>],
    is_same: fn(&str, &str) -> bool,
) -> bool {
    let is_long_enough = match rest {
        true => segments.len() >= pattern.len(),
        false => segments.len() == pattern.len(),
    };
    is_long_enough
        && pattern
            .iter()
            .zip(segments)
            .all(|(pattern, segment)| match pattern {
                Segment::Any => true,
                Segment::Literal(literal) => is_same(literal, segment),
            })
}

fn names_version(rule: &Rule) -> bool {
    matches!(rule.segments.first(), Some(Segment::Literal(first)) if head::is_version(first))
}

/// Whether somebody could take it for a version: `v1`, `V1`, `v`.
fn may_be_version(segment: &str) -> bool {
    let digits = segment.strip_prefix(['v', 'V']);
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether two texts differ in nothing but the case of letters, also of those that have their small letter in common with
/// another (`K` and the sign for kelvin) or their capital.
fn is_same_in_any_case(a: &str, b: &str) -> bool {
    let folded = |text: &str| -> String {
        let capitals = text.chars().flat_map(char::to_uppercase);
        capitals.flat_map(char::to_lowercase).collect()
    };
    match a.is_ascii() && b.is_ascii() {
        true => a.eq_ignore_ascii_case(b),
        false => folded(a) == folded(b),
    }
}

#[cfg(test)]
mod tests;
