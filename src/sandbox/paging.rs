//! Lists in pages: `pageSize`, `pageToken` and the `Link` to the next page.

use http::header::{HOST, LINK};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::api::split_version;
use super::behaviour::LinkOrigin;
use super::reply::{self, Fault, Reply};
use super::resources::Call;

/// The default and the maximum at Lucid.
const LARGEST_PAGE: usize = 200;

/// The page of `items` that the request asks for: a bare array, and a `Link` unless it is the last one.
pub(super) fn answer(call: &Call<'_>, mut items: Vec<Value>) -> Result<Reply, Fault> {
    let asked_size = call.query("pageSize");
    let size = match &asked_size {
        None => LARGEST_PAGE,
        Some(text) => {
            page_size(text).ok_or_else(|| Fault::bad_request("pageSize must be from 1 to 200"))?
        }
    };
    let start = match call.query("pageToken") {
        None => 0,
        Some(token) => {
            read_token(&token).ok_or_else(|| Fault::bad_request("pageToken is not valid"))?
        }
    };
    let end = start.saturating_add(size);
    let has_more = end < items.len();
    items.truncate(end);
    items.drain(..start.min(items.len()));

    let mut reply = reply::json(StatusCode::OK, &items);
    if has_more {
        reply
            .headers_mut()
            .insert(LINK, next_link(call, asked_size.as_deref(), end)?);
    }
    Ok(reply)
}

fn page_size(text: &str) -> Option<usize> {
    text.parse()
        .ok()
        .filter(|size| (1..=LARGEST_PAGE).contains(size))
}

/// A page token: opaque to clients, and with characters that a query must escape, as Lucid's may have.
fn write_token(start: usize) -> String {
    format!("{:x}+page==", start ^ 0x5eed)
}

fn read_token(token: &str) -> Option<usize> {
    let digits = token.strip_suffix("+page==")?;
    usize::from_str_radix(digits, 16)
        .ok()
        .map(|masked| masked ^ 0x5eed)
}

fn next_link(call: &Call<'_>, size: Option<&str>, start: usize) -> Result<HeaderValue, Fault> {
    let (origin, with_version) = {
        let behaviour = call.shared.behaviour.borrow();
        (behaviour.link_origin, behaviour.link_with_version)
    };
    let host = call
        .head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let origin = match (origin, host) {
        (LinkOrigin::EchoHost, Some(host)) => format!("http://{host}"),
        _ => call.shared.public_origin(),
    };
    let version = if with_version { "/v1" } else { "" };
    let path = call.head.uri.path();
    let (_, path) = split_version(path);
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(size) = size {
        query.append_pair("pageSize", size);
    }
    query.append_pair("pageToken", &write_token(start));
    let link = format!("<{origin}{version}{path}?{}>; rel=\"next\"", query.finish());
    // Only a public origin that no header can carry fails here.
    HeaderValue::try_from(link).map_err(|_| Fault::of(StatusCode::INTERNAL_SERVER_ERROR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_read_back() {
        for start in [0, 2, 200, 100_000] {
            assert_eq!(read_token(&write_token(start)), Some(start));
        }
        assert_eq!(read_token("nonsense"), None);
        assert_eq!(read_token("+page=="), None);
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(page_size("1"), Some(1));
        assert_eq!(page_size("200"), Some(200));
        for bad in ["0", "201", "-1", "", "two"] {
            assert_eq!(page_size(bad), None, "{bad:?}");
        }
    }
}
