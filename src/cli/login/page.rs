//! What a browser shows that came back from the approval: HTML without scripts, in which all that came from outside is
//! escaped.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::token::answer::Owner;
use crate::token::login::CallbackError;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2433;--card:#fff;--ground:#eef0f4;--line:#d9dde5}\
@media(prefers-color-scheme:dark){:root{--ink:#e8ebf2;--card:#1c212c;--ground:#12151c;--line:#343b4a}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--ground);\
color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{width:100%;max-width:30rem;padding:2rem;background:var(--card);border:1px solid var(--line);\
border-radius:12px;overflow-wrap:anywhere}\
h1{margin:0 0 1rem;font-size:1.35rem;line-height:1.3}\
p{margin:1rem 0 0}";

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    title: &'static str,
    text: Vec<String>,
}

impl Page {
    fn new<const N: usize>(status: StatusCode, title: &'static str, text: [&str; N]) -> Self {
        let text = text.map(str::to_owned).to_vec();
        Self {
            status,
            title,
            text,
        }
    }

    /// The login worked.
    pub(super) fn done(owner: &Owner) -> Self {
        let whose = match owner.is_known() {
            true => format!("lucid-proxy now has a login of {owner}, and keeps it alive."),
            false => "lucid-proxy now has your login, and keeps it alive.".to_owned(),
        };
        let text = [whose.as_str(), "You can close this page."];
        Self::new(StatusCode::OK, "You are logged in", text)
    }

    /// It did not.
    pub(super) fn failed(message: &str) -> Self {
        let text = [&sentence(message), "You can close this page."];
        Self::new(StatusCode::BAD_REQUEST, "The login failed", text)
    }

    /// What came was not for this login, which goes on.
    pub(super) fn not_ours(error: &CallbackError) -> Self {
        let why = format!("What your browser brought here was not used: {error}.");
        let text = [
            why.as_str(),
            "The login still waits: go on with the page that belongs to it. If there are several, close them and open the address that lucid-proxy printed last.",
        ];
        Self::new(StatusCode::BAD_REQUEST, "This belongs to no login", text)
    }

    /// It came after the end.
    pub(super) fn over() -> Self {
        let text = [
            "It was decided already; where you started it, you see how it ended. Nothing was changed now. You can close this page.",
        ];
        Self::new(StatusCode::GONE, "This login is over", text)
    }

    /// Any other address.
    pub(super) fn nothing(status: StatusCode) -> Self {
        let text = ["lucid-proxy waits here for the end of a login, and for nothing else."];
        Self::new(status, "There is nothing here", text)
    }

    /// The whole response. The address has a code in it, which no cache, page or server after this one is to see.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.html().into()));
        *response.status_mut() = self.status;
        let style = BASE64_STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).expect("base64 is visible ASCII");
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn html(&self) -> String {
        let title = self.title;
        let paragraphs = self
            .text
            .iter()
            .map(|text| format!("<p>{}</p>\n", escape(text)));
        let paragraphs: String = paragraphs.collect();
        // The empty icon keeps browsers from asking for one.
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} - lucid-proxy</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n{paragraphs}</main>\n</body>\n</html>\n"
        )
    }
}

/// A message as people write: it begins with a capital and ends with a full stop.
fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let first = characters.next().map(char::to_uppercase);
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}.", characters.as_str())
}

/// Text as it may stand between tags.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_is_text_and_nothing_else() {
        let page = Page::failed("no <script>alert('\"&')</script>");
        let html = page.html();
        assert!(
            html.contains("<p>No &lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;.</p>"),
            "{html}"
        );
        assert!(!html.contains("<script"), "{html}");
    }
}
