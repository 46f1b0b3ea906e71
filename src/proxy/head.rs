//! Request and response heads: what must not pass is taken out, what upstream needs is put in (rules F1, F2, F10, F14).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, HeaderMap, HeaderName,
    HeaderValue, MAX_FORWARDS, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Method, Response, Version};

/// The name under which this program appears in `Via` and `Proxy-Status`.
pub const PSEUDONYM: &str = "lucid-proxy";

const LUCID_API_VERSION: HeaderName = HeaderName::from_static("lucid-api-version");

/// Fields that are about one connection (RFC 9110 section 7.6.1), and those that speak to a proxy about itself
/// (sections 11.7.1 and 11.7.2). `Trailer` stays: it describes the content.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The one protocol that a connection may change to (RFC 6455 section 11.2).
const WEBSOCKET: &str = "websocket";

/// Which of the fields that matter here a head has, a bit for each, and whether those are sound that frame the message.
/// Most heads have few of them: one pass over all costs less than a look-up for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names(u32);

impl Names {
    const CONNECTION: Self = Self(1);
    const TE: Self = Self(1 << 5);
    const TRANSFER_ENCODING: Self = Self(1 << 6);
    const UPGRADE: Self = Self(1 << 7);
    /// `Via`.
    pub const VIA: Self = Self(1 << 8);
    /// One of those that hold a reference which is turned back to the proxy (F9).
    pub const REFERENCE: Self = Self(1 << 9);
    const CONTENT_LENGTH: Self = Self(1 << 10);
    /// One of those that say where the message ends says it badly, or is not the only one.
    const ILL_FRAMED: Self = Self(1 << 11);
    const AUTHORIZATION: Self = Self(1 << 12);
    /// `Host`.
    pub const HOST: Self = Self(1 << 13);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 14);
    /// One of those by which a browser tells who has sent a request (S3): `Origin` or `Sec-Fetch-Site`.
    pub const SENDER: Self = Self(Self::ORIGIN.0 | Self::SEC_FETCH_SITE.0);
    /// `Origin`.
    pub const ORIGIN: Self = Self(1 << 15);
    const SEC_FETCH_SITE: Self = Self(1 << 16);

    /// A `Content-Type` of text: what people read, JSON, XML or a form.
    pub const TEXT: Self = Self(1 << 20);
    /// A `Content-Encoding` other than none.
    pub const CODED: Self = Self(1 << 21);
    /// A `Content-Type` of something else than text.
    pub const NO_TEXT: Self = Self(1 << 22);
    /// `Trailer`: fields are announced that come behind the content.
    pub const TRAILER: Self = Self(1 << 23);
    /// No field, but found out beside them: nothing follows the head.
    pub const EMPTY: Self = Self(1 << 24);

    /// Those of a head.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.iter();
        lines.fold(Self(0), |found, (name, value)| found.and(name, value))
    }

    /// By text, since that is decided by the length for nearly every name.
    fn and(self, name: &HeaderName, value: &HeaderValue) -> Self {
        let bit = match name.as_str() {
            "connection" => Self::CONNECTION,
            "keep-alive" => Self(1 << 1),
            "proxy-authenticate" => Self(1 << 2),
            "proxy-authorization" => Self(1 << 3),
            "proxy-connection" => Self(1 << 4),
            "te" => Self::TE,
            "transfer-encoding" => self.framed_by(Self::TRANSFER_ENCODING, is_chunked(value)),
            "upgrade" => Self::UPGRADE,
            "via" => Self::VIA,
            "link" | "location" | "content-location" => Self::REFERENCE,
            "authorization" => Self::AUTHORIZATION,
            "host" => Self::HOST,
            "expect" => Self::EXPECT,
            "origin" => Self::ORIGIN,
            "sec-fetch-site" => Self::SEC_FETCH_SITE,
            "content-type" => kind(value),
            "trailer" => Self::TRAILER,
            "content-encoding" if !value.as_bytes().eq_ignore_ascii_case(b"identity") => {
                Self::CODED
            }
            "content-length" => self.framed_by(Self::CONTENT_LENGTH, is_length(value)),
            _ => return self,
        };
        Self(self.0 | bit.0)
    }

    fn framed_by(self, field: Self, is_sound: bool) -> Self {
        let is_said = self.has(Self::TRANSFER_ENCODING) || self.has(Self::CONTENT_LENGTH);
        match is_sound && !is_said {
            true => field,
            false => Self(field.0 | Self::ILL_FRAMED.0),
        }
    }

    /// Whether the message says in one way only where it ends: by `chunked` alone, by one length, or not at all (RFC 9112
    /// section 6.3). hyper takes `chunked` off and puts it on again, but leaves any other coding as it is, without saying
    /// so behind the proxy; where an answer has both, it takes the chunks and leaves the length.
    pub fn is_plainly_framed(self) -> bool {
        !self.has(Self::ILL_FRAMED)
    }

    /// Those, and this one.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this one is there.
    pub fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }

    /// Removes [`HOP_BY_HOP`], with everything that any `Connection` line names.
    fn remove_hop_by_hop(self, headers: &mut HeaderMap) {
        if self.has(Self::CONNECTION) {
            for name in named_by_connection(headers) {
                headers.remove(name);
            }
        }
        for (place, name) in HOP_BY_HOP.iter().enumerate() {
            if self.has(Self(1 << place)) {
                headers.remove(name);
            }
        }
    }
}

/// Removes what is about this connection alone: the fixed set and everything that any `Connection` line names (F1).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    Names::of(headers).remove_hop_by_hop(headers);
}

/// All names on all lines have to be read before the first is removed.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    members(headers, CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

/// The members of a list, on whichever line they stand (RFC 9110 section 5.6.1).
pub(super) fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii)
}

/// Whether it is among them, in any case.
pub(super) fn has_member(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// RFC 9112 section 6.2: digits, and nothing else.
fn is_length(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// Whether a media type (RFC 9110 section 8.3.1) is one of text or not. What is none says nothing of the content.
fn kind(value: &HeaderValue) -> Names {
    let value = value.as_bytes();
    let end = value.iter().position(|byte| *byte == b';');
    let essence = value[..end.unwrap_or(value.len())].trim_ascii();
    let Some(slash) = essence.iter().position(|byte| *byte == b'/') else {
        return Names::default();
    };
    let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
    let suffix = subtype.rsplit(|byte| *byte == b'+').next();
    // `message/http` is what answers a TRACE.
    let is_text = [&b"text"[..], b"message"]
        .iter()
        .any(|text| kind.eq_ignore_ascii_case(text))
        || [&b"json"[..], b"xml", b"x-www-form-urlencoded"]
            .iter()
            .any(|text| suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(text)));
    match is_text {
        true => Names::TEXT,
        false => Names::NO_TEXT,
    }
}

fn is_chunked(value: &HeaderValue) -> bool {
    let value = value.as_bytes().trim_ascii();
    value.eq_ignore_ascii_case(b"chunked")
}

/// Puts the token in, in the place of whatever the client sent there (F2).
pub fn authorize(headers: &mut HeaderMap, bearer: HeaderValue) {
    headers.insert(AUTHORIZATION, bearer);
}

/// Says in the words of HTTP/1.1 what HTTP/2 says by its frames, or splits.
pub fn translate_from_http2(headers: &mut HeaderMap, has_content: bool) {
    if has_content && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // RFC 9113 section 8.2.3: what stands on several lines there must stand on one here.
    let mut lines = headers.get_all(COOKIE).iter();
    if lines.next().is_some() && lines.next().is_some() {
        let lines: Vec<_> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let joined = HeaderValue::from_bytes(&lines.join(&b"; "[..]));
        headers.insert(COOKIE, joined.expect("what joins valid values is valid"));
    }
}

/// The entry in `Via` for a request that came in this version (RFC 9110 section 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2.0 lucid-proxy",
        Version::HTTP_10 => "1.0 lucid-proxy",
        _ => "1.1 lucid-proxy",
    })
}

/// Makes the request head of a client that speaks `version` fit for upstream: everything but the token. `names` are those
/// that it has. Returns whether the client would like to speak WebSocket; no `Upgrade` is left, whatever it says (F16).
pub fn prepare_request(
    headers: &mut HeaderMap,
    names: Names,
    version: Version,
    upstream: &HeaderValue,
    path: &str,
) -> bool {
    let chunked = names.has(Names::TRANSFER_ENCODING);
    // RFC 9110 section 10.1.4.
    let trailers = names.has(Names::TE) && has_member(headers, TE, "trailers");
    let websocket = names.has(Names::UPGRADE) && offers_websocket(headers);
    names.remove_hop_by_hop(headers);
    if names.has(Names::AUTHORIZATION) {
        headers.remove(AUTHORIZATION);
    }
    if names.has(Names::ORIGIN) {
        // The guard has judged it (S3). Upstream knows none of the pages that are served here, and might refuse them.
        headers.remove(ORIGIN);
    }
    if trailers {
        // For ourselves: what upstream sends behind the content is passed on to a client that takes it. `TE` is for one
        // connection, and says so (RFC 9110 section 10.1.4).
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if chunked {
        // Said again because hyper would not frame a GET's content by itself.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(HOST, upstream.clone());
    headers.append(VIA, via(version));
    if !names_a_version(path)
        && let Entry::Vacant(version) = headers.entry(LUCID_API_VERSION)
    {
        version.insert(HeaderValue::from_static("1"));
    }
    websocket
}

/// Makes a request head fit for a host that is not upstream, `host` with its port, on a connection that serves nothing
/// else. The client's `Authorization` is for that host and stays; what it told the proxy goes (F1, F2, F14).
pub fn prepare_onward(headers: &mut HeaderMap, names: Names, version: Version, host: HeaderValue) {
    names.remove_hop_by_hop(headers);
    if names.has(Names::TRANSFER_ENCODING) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(HOST, host);
    headers.append(VIA, via(version));
    close(headers);
}

/// Makes the response head of such a host fit for the client (RFC 9110 section 7.6.3).
pub fn prepare_answer_from_onward<B>(response: &mut Response<B>, names: Names) {
    let version = response.version();
    prepare_response(response, names);
    response.headers_mut().append(VIA, via(version));
}

/// Whether WebSocket is among the protocols that a client offers to change to. `Upgrade` counts only where `Connection`
/// names it (RFC 9110 section 7.8).
pub(super) fn offers_websocket(headers: &HeaderMap) -> bool {
    has_member(headers, CONNECTION, "upgrade") && has_member(headers, UPGRADE, WEBSOCKET)
}

/// Asks for a WebSocket, or agrees to one, and to no other protocol (RFC 6455 section 4).
pub fn change_to_websocket(headers: &mut HeaderMap) {
    headers.remove(TE);
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

/// Whether a response with status 101 changes to WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    has_member(headers, UPGRADE, WEBSOCKET)
}

/// Whether an `Upgrade` stands there. In a request that was prepared, one does only where a WebSocket is asked for.
pub fn has_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Makes upstream's response head, which has `names`, fit for the client.
pub fn prepare_response<B>(response: &mut Response<B>, names: Names) {
    // A message is of the version of who sends it (RFC 9110 section 2.5); by upstream's HTTP/1.0 the server would frame
    // the content so that a broken one looks whole.
    *response.version_mut() = Version::HTTP_11;
    names.remove_hop_by_hop(response.headers_mut());
}

/// Counts down how often the request may be forwarded; whether it may be at all (RFC 9110 section 7.6.2). That is asked of
/// OPTIONS alone, as TRACE never is, and what is no number asks for nothing.
pub fn may_go_on(method: &Method, headers: &mut HeaderMap) -> bool {
    if *method != Method::OPTIONS {
        return true;
    }
    let left = headers
        .get(MAX_FORWARDS)
        .and_then(|left| left.to_str().ok());
    let left = left.filter(|left| left.bytes().all(|byte| byte.is_ascii_digit()));
    match left.and_then(|left| left.parse::<u64>().ok()) {
        None => true,
        Some(0) => false,
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
    }
}

/// Says that the connection to the client ends with this response (RFC 9112 section 9.6).
pub fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Whether the path says which version it means: `/v1/users/me/profile` (F10).
fn names_a_version(path: &str) -> bool {
    let first = path
        .strip_prefix('/')
        .unwrap_or(path)
        .split('/')
        .next()
        .unwrap_or_default();
    is_version(first)
}

/// Whether a segment of a path is a version, as `v1` is.
pub(super) fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether the request has been here before (F14).
pub fn is_loop(headers: &HeaderMap) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_our_hop))
}

/// `1.1 lucid-proxy (comment)`: protocol, then name.
fn is_our_hop(hop: &[u8]) -> bool {
    let mut words = hop
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    words
        .nth(1)
        .is_some_and(|name| name.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
}

/// Takes credentials out of the trailers that a client sends (F2), and what would say anew where the message ends or whom
/// it is for (RFC 9110 section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    for name in [AUTHORIZATION, CONTENT_LENGTH, HOST, TRAILER] {
        trailers.remove(name);
    }
    strip_hop_by_hop(trailers);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        headers
    }

    fn prepared(lines: &[(&str, &[u8])], path: &str) -> HeaderMap {
        let mut headers = map(lines);
        let names = Names::of(&headers);
        prepare_request(
            &mut headers,
            names,
            Version::HTTP_11,
            &HeaderValue::from_static("api.lucid.co"),
            path,
        );
        headers
    }

    #[test]
    fn each_field_that_matters_is_told_from_all_others() {
        let fields = [
            ("connection", "x", Names::CONNECTION),
            ("te", "trailers", Names::TE),
            ("transfer-encoding", "chunked", Names::TRANSFER_ENCODING),
            ("upgrade", "h2c", Names::UPGRADE),
            ("via", "1.1 x", Names::VIA),
            ("location", "/", Names::REFERENCE),
            ("content-length", "1", Names::CONTENT_LENGTH),
            ("content-length", "x", Names::ILL_FRAMED),
            ("authorization", "x", Names::AUTHORIZATION),
            ("host", "x", Names::HOST),
            ("expect", "100-continue", Names::EXPECT),
            ("origin", "null", Names::ORIGIN),
            ("sec-fetch-site", "none", Names::SEC_FETCH_SITE),
            ("content-type", "text/plain", Names::TEXT),
            ("content-encoding", "gzip", Names::CODED),
            ("content-type", "image/png", Names::NO_TEXT),
            ("trailer", "x-sum", Names::TRAILER),
        ];
        for (name, value, _) in fields {
            let names = Names::of(&map(&[("x-other", b"1"), (name, value.as_bytes())]));
            for (_, other, bit) in fields {
                // What ends a message badly is the same field.
                let is_it = (other == value || bit == Names::CONTENT_LENGTH)
                    && fields.contains(&(name, other, bit));
                assert_eq!(names.has(bit), is_it, "{name}: {value}: {bit:?}");
            }
            let is_of_a_sender = ["origin", "sec-fetch-site"].contains(&name);
            assert_eq!(names.has(Names::SENDER), is_of_a_sender, "{name}");
            assert!(!names.has(Names::EMPTY) && names.with(Names::EMPTY).has(Names::EMPTY));
            assert_eq!(names.with(names), names);
        }
    }

    #[test]
    fn f15_a_message_says_in_one_way_where_it_ends() {
        let is_plain = |lines: &[(&str, &[u8])]| Names::of(&map(lines)).is_plainly_framed();
        let chunked: (&str, &[u8]) = ("transfer-encoding", b"chunked");
        let length: (&str, &[u8]) = ("content-length", b"10");
        for lines in [
            &[][..],
            &[chunked],
            &[length],
            &[("content-length", b"0")],
            &[("transfer-encoding", b" Chunked")],
        ] {
            assert!(is_plain(lines), "{lines:?}");
        }
        for lines in [
            &[chunked, length][..],
            &[length, chunked],
            &[length, length],
            &[chunked, chunked],
            &[("content-length", b"")],
            &[("content-length", b"+1")],
            &[("content-length", b"1, 1")],
            &[("content-length", b"0x1")],
            &[("transfer-encoding", b"gzip, chunked")],
            &[("transfer-encoding", b"identity")],
            &[("transfer-encoding", b"identity"), length],
            &[("content-length", b"x"), chunked],
        ] {
            assert!(!is_plain(lines), "{lines:?}");
        }
    }

    #[test]
    fn f09_each_field_that_holds_a_reference_is_seen() {
        for (name, is_one) in [
            ("link", true),
            ("location", true),
            ("content-location", true),
            ("content-type", false),
        ] {
            let names = Names::of(&map(&[("date", b"now"), (name, b"/")]));
            assert_eq!(names.has(Names::REFERENCE), is_one, "{name}");
        }
    }

    #[test]
    fn s06_text_is_told_from_what_is_none_or_is_coded() {
        for (name, value, expected) in [
            (
                "content-type",
                &b"text/html; charset=utf-8"[..],
                Some(Names::TEXT),
            ),
            ("content-type", b"TEXT/plain", Some(Names::TEXT)),
            ("content-type", b"application/json", Some(Names::TEXT)),
            (
                "content-type",
                b"application/problem+JSON ;x",
                Some(Names::TEXT),
            ),
            ("content-type", b"image/svg+xml", Some(Names::TEXT)),
            ("content-type", b"message/http", Some(Names::TEXT)),
            (
                "content-type",
                b"application/x-www-form-urlencoded",
                Some(Names::TEXT),
            ),
            ("content-type", b"application/pdf", Some(Names::NO_TEXT)),
            ("content-type", b"application/jsonx", Some(Names::NO_TEXT)),
            ("content-type", b"json", None),
            ("content-type", b"", None),
            ("content-encoding", b"gzip", Some(Names::CODED)),
            ("content-encoding", b"Identity", None),
        ] {
            let names = Names::of(&map(&[(name, value)]));
            assert_eq!(names.0, expected.map_or(0, |bit| bit.0), "{value:?}");
        }
    }

    #[test]
    fn each_of_the_fixed_set_is_found_in_its_place() {
        for (place, name) in HOP_BY_HOP.iter().enumerate() {
            let chunked = HeaderValue::from_static("chunked");
            let names = Names::default().and(name, &chunked);
            assert_eq!(names.0, 1 << place, "{name}");
        }
    }

    #[test]
    fn f01_the_fixed_set_and_all_names_on_all_connection_lines_go() {
        let mut headers = map(&[
            ("connection", b"close, X-One"),
            ("connection", b" x-two ,, keep-alive"),
            ("keep-alive", b"timeout=5"),
            ("proxy-connection", b"keep-alive"),
            ("te", b"trailers"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"h2c"),
            ("proxy-authenticate", b"Basic"),
            ("x-one", b"1"),
            ("x-two", b"2"),
            ("x-two", b"3"),
            ("x-three", b"stays"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-three", b"stays")]));
    }

    #[test]
    fn f02_the_clients_credentials_go_and_ours_stands_alone() {
        let mut headers = prepared(
            &[
                ("authorization", b"Bearer stale"),
                ("authorization", b"Basic x"),
                ("proxy-authorization", b"Basic y"),
            ],
            "/",
        );
        assert!(!headers.contains_key(AUTHORIZATION) && !headers.contains_key(PROXY_AUTHORIZATION));
        authorize(&mut headers, HeaderValue::from_static("Bearer ours"));
        let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(values, ["Bearer ours"]);
    }

    #[test]
    fn f02_credentials_in_trailers_go_and_what_belongs_in_a_head() {
        let mut trailers = map(&[
            ("authorization", b"x"),
            ("content-length", b"1"),
            ("host", b"evil"),
            ("proxy-authorization", b"y"),
            ("x-checksum", b"1"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("x-checksum", b"1")]));
    }

    #[test]
    fn f03_bytes_order_duplicates_and_empty_values_stay() {
        let headers = prepared(
            &[
                ("x-a", b"1"),
                ("x-b", b"\xff\xfe"),
                ("x-a", b""),
                ("x-a", b"2"),
            ],
            "/",
        );
        let values: Vec<_> = headers
            .get_all("x-a")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(values, [&b"1"[..], b"", b"2"]);
        assert_eq!(headers["x-b"].as_bytes(), b"\xff\xfe");
    }

    #[test]
    fn f16_a_websocket_is_offered_where_connection_names_the_upgrade() {
        for (connection, upgrade, is_offered) in [
            (&b"keep-alive, Upgrade"[..], &b"WebSocket"[..], true),
            (b"upgrade", b"h2c, websocket", true),
            (b"upgrade", b"h2c", false),
            (b"keep-alive", b"websocket", false),
            (b"upgrade", b"websocket2", false),
        ] {
            let mut headers = map(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(offers_websocket(&headers), is_offered, "{upgrade:?}");
            assert!(has_upgrade(&headers));
            let names = Names::of(&headers);
            let upstream = HeaderValue::from_static("api.lucid.co");
            let offered = prepare_request(&mut headers, names, Version::HTTP_11, &upstream, "/");
            assert_eq!(offered, is_offered, "{upgrade:?}");
            assert!(!has_upgrade(&headers), "none is left");
        }
        let alone = map(&[("upgrade", b"websocket")]);
        assert!(!offers_websocket(&alone), "it speaks of another connection");
        let mut asked = map(&[("te", b"trailers"), ("connection", b"te"), ("x-a", b"1")]);
        change_to_websocket(&mut asked);
        let expected: &[(&str, &[u8])] = &[
            ("upgrade", b"websocket"),
            ("connection", b"upgrade"),
            ("x-a", b"1"),
        ];
        assert_eq!(asked, map(expected));
        assert!(offers_websocket(&asked) && is_websocket(&asked));
        assert!(!is_websocket(&map(&[("upgrade", b"h2c")])));
    }

    #[test]
    fn f01_an_answer_is_of_our_version_and_keeps_nothing_of_its_connection() {
        let mut response = Response::new(());
        *response.version_mut() = Version::HTTP_10;
        *response.headers_mut() = map(&[
            ("connection", b"close, x-hop"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("etag", b"1"),
        ]);
        let names = Names::of(response.headers());
        prepare_response(&mut response, names);
        assert_eq!(response.version(), Version::HTTP_11);
        assert_eq!(*response.headers(), map(&[("etag", b"1")]));
        close(response.headers_mut());
        let expected: &[(&str, &[u8])] = &[("etag", b"1"), ("connection", b"close")];
        assert_eq!(*response.headers(), map(expected));
    }

    #[test]
    fn f14_how_often_a_request_may_go_on_is_counted_down() {
        for (method, left, goes_on, then) in [
            (Method::OPTIONS, "0", false, "0"),
            (Method::OPTIONS, "1", true, "0"),
            (Method::OPTIONS, "7", true, "6"),
            (Method::OPTIONS, "+7", true, "+7"),
            (Method::OPTIONS, "many", true, "many"),
            (Method::OPTIONS, "", true, ""),
            (Method::GET, "0", true, "0"),
            (Method::GET, "7", true, "7"),
        ] {
            let mut headers = map(&[("max-forwards", left.as_bytes())]);
            assert_eq!(may_go_on(&method, &mut headers), goes_on, "{left}");
            assert_eq!(headers[MAX_FORWARDS], then, "{method}: {left}");
        }
        assert!(may_go_on(&Method::OPTIONS, &mut HeaderMap::new()));
    }

    #[test]
    fn f10_a_version_is_added_only_where_none_is_named() {
        for (path, added) in [
            ("/users", true),
            ("/v1/users", false),
            ("/v2/dataSources/aws/regions", false),
            ("/v1", false),
            ("/v/users", true),
            ("/v1x/users", true),
            ("/users/v1", true),
            ("*", true),
        ] {
            assert_eq!(
                prepared(&[], path).contains_key(LUCID_API_VERSION),
                added,
                "{path}"
            );
        }
        let kept = prepared(&[("lucid-api-version", b"2")], "/users");
        assert_eq!(
            kept.get_all(LUCID_API_VERSION).iter().collect::<Vec<_>>(),
            ["2"]
        );
    }

    #[test]
    fn f01_what_a_client_says_of_trailers_is_said_anew() {
        for (te, said) in [
            (&b"trailers"[..], true),
            (b"gzip;q=0.5, Trailers", true),
            (b"trailers;q=0.1", false),
            (b"deflate", false),
            (b"", false),
        ] {
            let headers = prepared(
                &[("te", te), ("connection", b"TE, x-hop"), ("x-hop", b"1")],
                "/",
            );
            let lines = |name: HeaderName| headers.get_all(name).iter().collect::<Vec<_>>();
            let expected = |value| if said { vec![value] } else { vec![] };
            assert_eq!(lines(TE), expected("trailers"));
            assert_eq!(lines(CONNECTION), expected("te"));
            assert!(!headers.contains_key("x-hop"));
        }
    }

    #[test]
    fn f14_via_is_added_behind_others_and_our_own_is_a_loop() {
        let headers = prepared(&[("via", b"1.0 fred")], "/");
        assert_eq!(
            headers.get_all(VIA).iter().collect::<Vec<_>>(),
            ["1.0 fred", "1.1 lucid-proxy"]
        );
        assert!(is_loop(&headers));
        for (via, looped) in [
            (&b"1.1 Lucid-Proxy (x)"[..], true),
            (b"1.0 a, 1.1 lucid-proxy , 1.1 b", true),
            (b"1.1 lucid-proxy-2", false),
            (b"lucid-proxy", false),
            (b"", false),
        ] {
            assert_eq!(is_loop(&map(&[("via", via)])), looped, "{via:?}");
        }
    }

    #[test]
    fn f14_via_tells_the_version_that_the_client_spoke() {
        for (version, expected) in [
            (Version::HTTP_10, "1.0 lucid-proxy"),
            (Version::HTTP_11, "1.1 lucid-proxy"),
            (Version::HTTP_2, "2.0 lucid-proxy"),
        ] {
            let mut headers = HeaderMap::new();
            let upstream = HeaderValue::from_static("api.lucid.co");
            let names = Names::of(&headers);
            prepare_request(&mut headers, names, version, &upstream, "/");
            assert_eq!(headers[VIA], expected);
            assert!(is_loop(&headers));
        }
    }

    #[test]
    fn f03_what_http_2_leaves_unsaid_or_splits_is_said_on_one_line() {
        let translated = |lines: &[(&str, &[u8])], has_content| {
            let mut headers = map(lines);
            translate_from_http2(&mut headers, has_content);
            headers
        };
        let chunked = map(&[("transfer-encoding", b"chunked")]);
        assert_eq!(translated(&[], true), chunked);
        assert_eq!(translated(&[], false), HeaderMap::new());
        let length: &[(&str, &[u8])] = &[("content-length", b"5")];
        assert_eq!(translated(length, true), map(length));
        let split: &[(&str, &[u8])] =
            &[("cookie", b"a=1"), ("cookie", b"b=\xff"), ("cookie", b"c")];
        assert_eq!(
            translated(split, false),
            map(&[("cookie", b"a=1; b=\xff; c")])
        );
        let one: &[(&str, &[u8])] = &[("cookie", b"a=1; b=2")];
        assert_eq!(translated(one, false), map(one));
    }

    #[test]
    fn f14_nothing_is_told_of_the_clients_network() {
        let headers = prepared(&[], "/");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "lucid-api-version", "via"]);
    }

    proptest! {
        #[test]
        fn f01_what_connection_names_never_passes_and_the_rest_always_does(
            named in proptest::collection::vec("x-[a-z]{1,4}", 0..5),
            others in proptest::collection::vec("y-[a-z]{1,4}", 0..5),
            split in any::<bool>(),
        ) {
            let mut headers = HeaderMap::new();
            for name in named.iter().chain(&others) {
                headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static("v"));
            }
            if split {
                for name in &named {
                    headers.append(CONNECTION, HeaderValue::from_str(name).expect("a value"));
                }
            } else {
                headers.append(CONNECTION, HeaderValue::from_str(&named.join(", ")).expect("a value"));
            }
            strip_hop_by_hop(&mut headers);
            prop_assert!(named.iter().all(|name| !headers.contains_key(name)));
            prop_assert!(others.iter().all(|name| headers.contains_key(name)));
            prop_assert!(!headers.contains_key(CONNECTION));
        }
    }
}
