//! The pages that a person sees, in HTML without scripts. Whatever came from outside is escaped.

use std::fmt::Write;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};

use super::CLIENT_ID;
use super::pair::Owner;
use super::parameters::Parameters;
use super::redirects::policy_source;
use super::reply::{self, Reply};
use super::users::{ACCOUNT_ID, Person};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2433;--dim:#5b6475;--card:#fff;--ground:#eef0f4;--line:#d9dde5;--strong:#2456d6}\
@media(prefers-color-scheme:dark){:root{--ink:#e8ebf2;--dim:#a0a8b8;--card:#1c212c;--ground:#12151c;--line:#343b4a;\
--strong:#3b66dd}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--ground);\
color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{width:100%;max-width:30rem;padding:2rem;background:var(--card);border:1px solid var(--line);\
border-radius:12px;overflow-wrap:anywhere}\
h1{margin:0 0 1rem;font-size:1.35rem;line-height:1.3}\
p{margin:0 0 1rem}\
ul{margin:0 0 1.25rem;padding:.5rem 1rem .5rem 2rem;border:1px solid var(--line);border-radius:8px}\
code{font:.9em ui-monospace,monospace}\
#code{display:block;margin:0 0 1rem;padding:.75rem 1rem;border:1px solid var(--line);border-radius:8px;\
user-select:all}\
form{display:flex;gap:.75rem;margin:0 0 1.25rem}\
button{flex:1;padding:.65rem 1rem;font:inherit;font-weight:600;border:1px solid var(--line);border-radius:8px;\
background:transparent;color:inherit;cursor:pointer}\
#approve{background:var(--strong);border-color:var(--strong);color:#fff}\
.dim{margin:0;color:var(--dim);font-size:.875rem}";

/// What the approval page asks.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Who would grant it.
    pub(super) owner: Owner,
    pub(super) redirect_uri: &'a str,
    pub(super) scopes: &'a [String],
    /// The parameters of the request, which come back with the decision.
    pub(super) fields: &'a [(&'a str, &'a str)],
}

/// The page that asks a person, with a form that posts back to `path`.
pub(super) fn approval(path: &str, question: &Question<'_>) -> Reply {
    let mut fields = String::new();
    for (name, value) in question.fields {
        let (name, value) = (escape(name), escape(value));
        push(
            &mut fields,
            format_args!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n"),
        );
    }
    let mut scopes = String::new();
    for scope in question.scopes {
        push(
            &mut scopes,
            format_args!("<li><code>{}</code></li>\n", escape(scope)),
        );
    }
    let content = format!(
        "<h1>Let this application use Lucid?</h1>\n\
         <p>The application with the client id <strong>{CLIENT_ID}</strong> asks for access {owner}.</p>\n\
         <p>It would be allowed:</p>\n<ul id=\"scopes\">\n{scopes}</ul>\n\
         <form method=\"post\" action=\"{action}\">\n{fields}\
         <button id=\"deny\" name=\"decision\" value=\"deny\">Deny</button>\n\
         <button id=\"approve\" name=\"decision\" value=\"approve\">Approve</button>\n</form>\n\
         <p class=\"dim\">Either answer goes to <code>{redirect_uri}</code></p>",
        owner = escape(&on_behalf_of(question.owner)),
        action = escape(path),
        redirect_uri = escape(question.redirect_uri),
    );
    // Chromium applies `form-action` to the redirect that answers the form, too.
    let source = policy_source(question.redirect_uri).unwrap_or_default();
    let form_action = format!("'self' {source}");
    page(StatusCode::OK, "Approve access", &content, &form_action)
}

fn on_behalf_of(owner: Owner) -> String {
    match owner {
        Owner::User(id) => {
            let person = Person::of(id);
            format!(
                "on behalf of {} ({}, user {id})",
                person.name,
                person.email()
            )
        }
        Owner::Account(ACCOUNT_ID) => {
            format!("on behalf of the whole account Demo (account {ACCOUNT_ID})")
        }
        Owner::Account(id) => format!("on behalf of the whole account {id}"),
    }
}

/// The page that shows what an authorization request led to.
pub(super) fn outcome(parameters: &Parameters) -> Reply {
    let (status, title, text, shown) = match (parameters.get("code"), parameters.get("error")) {
        (Some(code), None) => (
            StatusCode::OK,
            "Access granted",
            "Copy this code into the application that asked for it. It works once and for a short time only.",
            code,
        ),
        (None, Some(error)) => (
            StatusCode::OK,
            "No access granted",
            parameters
                .get("error_description")
                .unwrap_or("The application that asked gets no access."),
            error,
        ),
        _ => {
            return error(
                StatusCode::BAD_REQUEST,
                "There is neither a code nor an error to show.",
            );
        }
    };
    let content = format!(
        "<h1>{title}</h1>\n<p>{}</p>\n<code id=\"code\">{}</code>",
        escape(text),
        escape(shown)
    );
    page(status, title, &content, "'none'")
}

/// A page that says what is wrong.
pub(super) fn error(status: StatusCode, text: &str) -> Reply {
    let content = format!(
        "<h1>This does not work</h1>\n<p id=\"error\">{}</p>",
        escape(text)
    );
    page(status, "Error", &content, "'none'")
}

fn page(status: StatusCode, title: &str, content: &str, form_action: &str) -> Reply {
    // The empty icon keeps browsers from asking the API for one.
    let nonce = format!("{:032x}", fastrand::u128(..));
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n<body>\n<main>\n\
         {content}\n<p class=\"dim\">This is a stand-in for Lucid. Nothing here reaches Lucid.</p>\n\
         </main>\n</body>\n</html>\n"
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action {form_action}; \
         base-uri 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("a policy's sources are visible ASCII");
    let mut reply = reply::whole(status, "text/html; charset=utf-8", html);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("writing to a string cannot fail");
}

/// Text as it may stand between tags and in a quoted attribute.
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
    fn what_means_something_in_html_is_escaped() {
        assert_eq!(
            escape("<a href=\"x\" title='y'>&amp;</a>"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;"
        );
        assert_eq!(escape("plain \u{e9}"), "plain \u{e9}");
    }
}
