//! Web pages that are served (rule S3): the CORS protocol of the Fetch standard, section 3.3.
//!
//! It is spoken between a browser and this proxy, and upstream takes no part in it: it sees neither `Origin` nor a
//! preflight, and what it says about pages, which it means for its own, does not reach any. Credentials of a browser
//! (cookies) are never asked for: `Access-Control-Allow-Credentials` is not sent.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Response};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::head;
use super::reply::{self, Refusal};
use crate::config::is_origin;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// What a page may read beside the fields that every page may: the next page and where something is (Lucid's pagination),
/// when to try again, who speaks and why, what to tell Lucid's support, and what downloads and caches go by.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Link, Location, Content-Location, Retry-After, Proxy-Status, X-Lucid-Flow-Id, WWW-Authenticate, Allow, ETag, \
     Content-Disposition, Content-Range, Accept-Ranges, Date",
);

/// How long a browser may go by the answer to a preflight, in seconds: a change of the configuration should not take longer
/// to be noticed. Browsers take no more than some two hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// An allowed page that sends a request.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    origin: &'a HeaderValue,
    asks_first: bool,
}

impl<'a> Page<'a> {
    /// The page whose request has this head, if its origin is one of those `allowed`. There must be one origin: a browser
    /// sends no more, and of two nobody could say which one is meant.
    pub fn of(head: &Parts, allowed: &'a [HeaderValue]) -> Option<Self> {
        let mut lines = head.headers.get_all(ORIGIN).iter();
        let said = lines.next().filter(|_| lines.next().is_none())?;
        let origin = allowed.iter().find(|origin| *origin == said)?;
        Some(Self {
            origin,
            asks_first: is_preflight(head),
        })
    }

    /// Lets the page read an answer, and says so.
    pub fn let_read(self, headers: &mut HeaderMap) {
        if !self.asks_first {
            remove_upstreams(headers);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        vary(headers);
    }
}

/// Says that the answer to another origin would be another. That is said of answers without any origin too: a browser that
/// has kept one of those, from a click on a link, would show it to the page and then forbid it to read (Fetch standard,
/// "CORS protocol and HTTP caches").
pub fn vary(headers: &mut HeaderMap) {
    let is_said = ["origin", "*"]
        .iter()
        .any(|name| head::has_member(headers, VARY, name));
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Whether a browser asks with this head if a page may send what it would like to. It does not come with a key or any other
/// credential.
pub fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to the preflight of an allowed page: it may send what it asks for.
///
/// # Errors
///
/// When it asks for what cannot be a method or a field's name.
pub(super) fn answer(
    asked: &HeaderMap,
    exchange: Option<&mut Exchange>,
) -> Result<Response<ResponseBody>, Refusal> {
    if let Some(exchange) = exchange {
        exchange.note = Some("answered here");
    }
    let mut response = reply::no_content("a preflight is answered by the proxy");
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, asked_method(asked)?);
    if let Some(names) = asked_names(asked)? {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if asked
        .get(REQUEST_PRIVATE_NETWORK)
        .is_some_and(|asks| asks == "true")
    {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(
        VARY,
        HeaderValue::from_static(
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    );
    Ok(response)
}

fn asked_method(asked: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut lines = asked.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    let method = lines.next().filter(|_| lines.next().is_none());
    let method = method.filter(|method| Method::from_bytes(method.as_bytes()).is_ok());
    method.cloned().ok_or_else(|| {
        Refusal::bad_request("Access-Control-Request-Method: one method is accepted")
    })
}

/// On one line, whatever they came on.
fn asked_names(asked: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
    let members = head::members(asked, ACCESS_CONTROL_REQUEST_HEADERS);
    let names: Vec<_> = members.filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    if !names
        .iter()
        .all(|name| HeaderName::from_bytes(name).is_ok())
    {
        return Err(Refusal::bad_request(
            "Access-Control-Request-Headers: names of header fields are accepted, with commas between them",
        ));
    }
    let names = HeaderValue::from_bytes(&names.join(&b", "[..]));
    Ok(Some(names.expect("names and commas make a valid value")))
}

fn remove_upstreams(headers: &mut HeaderMap) {
    let is_about_pages = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let names: Vec<_> = headers.keys().filter(is_about_pages).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What the page is told, in its developer tools, whose request has these fields and came from no allowed origin. Nothing
/// is repeated of them but an origin that can stand in `proxy.toml`.
pub fn refusal(headers: &HeaderMap) -> Refusal {
    let mut lines = headers.get_all(ORIGIN).iter();
    let (first, second) = (lines.next(), lines.next());
    let text = first.and_then(|origin| origin.to_str().ok());
    Refusal::origin_not_allowed(match (first, second, text) {
        (None, ..) => "a web page of another site sent this request, and the browser does not tell which page; so it is with links, images and scripts; have the page ask with fetch(), and add its origin to proxy.toml: [guard] allow_origins".to_owned(),
        (_, None, Some("null")) => "a web page without an origin of its own sent this request (Origin: null): a file, a sandboxed frame, or what another site has redirected; serve the page from an address such as http://localhost:5173 and add that to proxy.toml: [guard] allow_origins".to_owned(),
        (_, None, Some(origin)) if is_origin(origin) => format!(
            "a web page ({origin}) sent this request, and its origin is not among those that are served; if it is yours, add to proxy.toml: [guard] allow_origins = [{origin:?}]"
        ),
        _ => "the Origin header is not what a browser sends: one origin, such as http://localhost:5173; programs leave it out".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: HeaderValue = HeaderValue::from_static("http://localhost:5173");

    fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            (HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn head(method: Method, lines: &[(&'static str, &[u8])]) -> Parts {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = method;
        head.headers = map(lines);
        head
    }

    fn shown(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn s03_a_page_is_allowed_by_one_origin_to_the_letter() {
        let is_allowed = |lines: &[(&'static str, &[u8])]| {
            Page::of(&head(Method::GET, lines), &[ALLOWED]).is_some()
        };
        assert!(is_allowed(&[("origin", b"http://localhost:5173")]));
        for other in [
            &b"http://localhost:5174"[..],
            b"https://localhost:5173",
            b"http://localhost",
            b"http://localhost:5173/",
            b"http://localhost:5173.evil.example",
            b"http://evil.example/http://localhost:5173",
            b"HTTP://localhost:5173",
            b"http://localhost:5173 http://evil.example",
            b"http://localhost:5173, http://localhost:5173",
            b"http://localhost:5173\xff",
            b"null",
            b"*",
            b"",
        ] {
            assert!(!is_allowed(&[("origin", other)]), "{other:?}");
        }
        let twice = &b"http://localhost:5173"[..];
        assert!(!is_allowed(&[("origin", twice), ("origin", twice)]));
        assert!(!is_allowed(&[
            ("origin", twice),
            ("origin", b"http://evil.example")
        ]));
        assert!(!is_allowed(&[("referer", twice)]));
    }

    #[test]
    fn s03_a_preflight_is_told_by_three_things() {
        let origin = ("origin", &b"http://localhost:5173"[..]);
        let method = ("access-control-request-method", &b"PUT"[..]);
        let is_one = |method, lines: &[_]| is_preflight(&head(method, lines));
        assert!(is_one(Method::OPTIONS, &[origin, method]));
        assert!(!is_one(Method::OPTIONS, &[origin]));
        assert!(!is_one(Method::OPTIONS, &[method]));
        assert!(!is_one(Method::GET, &[origin, method]));
    }

    #[test]
    fn s03_a_preflight_is_answered_with_what_it_asks_for() {
        let answered = |lines: &[(&'static str, &[u8])]| {
            let mut response = answer(&map(lines), None)?;
            assert_eq!(response.status(), 204);
            response.headers_mut().remove(reply::PROXY_STATUS);
            Ok::<_, Refusal>(response.headers().clone())
        };
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let plain = answered(&[("access-control-request-method", b"PATCH")]).expect("an answer");
        assert_eq!(
            shown(&plain),
            [
                ("access-control-allow-methods", "PATCH"),
                ("access-control-max-age", "600"),
                ("vary", vary),
            ]
        );
        let full = answered(&[
            ("access-control-request-method", b"POST"),
            (
                "access-control-request-headers",
                b"authorization,Content-Type",
            ),
            ("access-control-request-headers", b", x-b ,"),
            ("access-control-request-private-network", b"true"),
        ]);
        assert_eq!(
            shown(&full.expect("an answer")),
            [
                (
                    "access-control-allow-headers",
                    "authorization, Content-Type, x-b"
                ),
                ("access-control-allow-methods", "POST"),
                ("access-control-allow-private-network", "true"),
                ("access-control-max-age", "600"),
                ("vary", vary),
            ]
        );
        for (method, names) in [
            (&b"GET POST"[..], &b""[..]),
            (b"", b""),
            (b"\xff", b""),
            (b"GET", b"a b"),
            (b"GET", b"a, b:c"),
            (b"GET", b"\xff"),
            (b"GET", b"\"a\""),
        ] {
            let refused = answered(&[
                ("access-control-request-method", method),
                ("access-control-request-headers", names),
            ]);
            assert_eq!(
                refused.expect_err("no such thing").code,
                "badRequest",
                "{method:?} {names:?}"
            );
        }
        let twice = ("access-control-request-method", &b"GET"[..]);
        assert!(answered(&[twice, twice]).is_err());
    }

    #[test]
    fn s03_what_upstream_says_about_pages_gives_way_to_what_the_proxy_says() {
        let head = head(Method::GET, &[("origin", b"http://localhost:5173")]);
        let allowed = [ALLOWED];
        let page = Page::of(&head, &allowed).expect("an allowed page");
        let mut headers = map(&[
            ("access-control-allow-origin", b"https://lucid.app"),
            ("access-control-allow-origin", b"*"),
            ("access-control-allow-credentials", b"true"),
            ("access-control-expose-headers", b"X-Other"),
            ("vary", b"Accept"),
            ("x-other", b"stays"),
        ]);
        page.let_read(&mut headers);
        assert_eq!(
            shown(&headers),
            [
                ("access-control-allow-origin", "http://localhost:5173"),
                (
                    "access-control-expose-headers",
                    EXPOSED.to_str().expect("text")
                ),
                ("vary", "Accept"),
                ("vary", "Origin"),
                ("x-other", "stays"),
            ]
        );
        let exposed = EXPOSED.to_str().expect("text").to_ascii_lowercase();
        for needed in ["link", "retry-after", "proxy-status", "x-lucid-flow-id"] {
            assert!(exposed.split(", ").any(|name| name == needed), "{needed}");
        }
    }

    #[test]
    fn s03_vary_is_added_where_it_does_not_say_so_yet() {
        for (before, is_added) in [
            (&b"Accept, origin"[..], false),
            (b"*", false),
            (b"Accept, X-Origin", true),
            (b"", true),
        ] {
            let mut headers = map(&[("vary", before)]);
            vary(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().count() == 2, is_added);
        }
    }

    #[test]
    fn s03_a_refusal_names_the_line_to_add_and_repeats_nothing_else() {
        let told = |lines: &[(&'static str, &[u8])]| refusal(&map(lines)).message;
        let evil = ("origin", &b"https://evil.example:8443"[..]);
        let line = "[guard] allow_origins = [\"https://evil.example:8443\"]";
        assert!(told(&[evil]).ends_with(line), "{}", told(&[evil]));
        assert!(told(&[("origin", b"null")]).contains("Origin: null"));
        assert!(told(&[]).contains("another site"));
        for marked in [
            &b"https://MARKED"[..],
            b"https://marked/\"",
            b"https://marked\xff",
            b"marked",
            b"https://marked, https://evil.example",
        ] {
            let message = told(&[("origin", marked)]);
            assert!(
                !message.to_ascii_lowercase().contains("marked"),
                "{message}"
            );
            assert!(message.contains("not what a browser sends"), "{message}");
        }
        assert!(told(&[evil, evil]).contains("not what a browser sends"));
    }
}
