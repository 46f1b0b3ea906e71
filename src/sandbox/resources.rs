//! What the REST API serves: version, path and method decide who answers.

use http::request::Parts;
use http::{HeaderName, StatusCode};
use serde_json::json;

use super::api::split_version;
use super::behaviour::{ApiFailure, Behaviour};
use super::grants::Bearer;
use super::intake::{self, Received};
use super::reply::{self, Fault, Reply};
use super::shared::Shared;
use super::{documents, users};

const LUCID_API_VERSION: HeaderName = HeaderName::from_static("lucid-api-version");

/// A request whose token was accepted, with its body.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Shared,
    pub(super) head: &'a Parts,
    pub(super) received: &'a Received,
    pub(super) bearer: Option<&'a Bearer>,
}

impl Call<'_> {
    /// The answer, unless the script or the behaviour has another.
    pub(super) fn answer(&self, failure: Option<&ApiFailure>) -> Result<Reply, Fault> {
        if let Some(ApiFailure::Status { code, retry_after }) = failure {
            return Err(Fault::of(*code).retry_after(retry_after.clone()));
        }
        let (version, path) = split_version(self.head.uri.path());
        {
            let behaviour = self.shared.behaviour.borrow();
            if Behaviour::covers(behaviour.forbidden_under.as_ref(), path) {
                return Err(Fault::forbidden());
            }
            if Behaviour::covers(behaviour.throttled_under.as_ref(), path) {
                let retry_after = Some(behaviour.retry_after.clone());
                return Err(Fault::of(StatusCode::TOO_MANY_REQUESTS).retry_after(retry_after));
            }
        }
        if path.starts_with("/sandbox/echo") {
            return Ok(self.echo());
        }
        if version.is_none()
            && self
                .head
                .headers
                .get(LUCID_API_VERSION)
                .is_none_or(|value| value != "1")
        {
            return Err(Fault::bad_request(
                "The header Lucid-Api-Version: 1 or the path prefix /v1 is required",
            ));
        }
        self.resource(path)
    }

    /// Dispatches by path and method.
    fn resource(&self, path: &str) -> Result<Reply, Fault> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (self.head.method.as_str(), segments.as_slice()) {
            ("GET", ["users", "me", "profile"]) => users::profile(self),
            ("GET", ["users"]) => users::list(self),
            ("POST", ["documents", "search"]) => documents::search(self),
            ("POST", ["documents"]) => documents::create(self),
            ("POST", ["documents", "create" | "import"]) => documents::import(self),
            ("GET", ["documents", id]) => documents::get(self, id),
            ("GET", ["documents", id, "contents"]) => documents::contents(self, id),
            ("POST", ["documents", id, "trash"]) => documents::trash(self, id),
            ("POST", ["embeds", "token"]) => documents::embed_token(self),
            ("GET", ["embeds"]) => documents::embeds(self),
            (
                _,
                ["users" | "documents" | "embeds"]
                | ["users", "me", "profile"]
                | ["documents", _]
                | ["documents", _, "contents" | "trash"]
                | ["embeds", "token"],
            ) => Err(Fault::new(
                StatusCode::BAD_REQUEST,
                "unknownOperation",
                "Unknown operation",
            )),
            _ => Err(Fault::of(StatusCode::NOT_FOUND)),
        }
    }

    /// Refuses with 403 unless the grant has one of these scopes or a parent of one.
    pub(super) fn require_scope(&self, wanted: &[&str]) -> Result<(), Fault> {
        let granted = self.bearer.map_or(&[][..], |bearer| &bearer.scopes);
        let allowed = granted
            .iter()
            .any(|granted| wanted.iter().any(|wanted| includes(granted, wanted)));
        if allowed {
            Ok(())
        } else {
            Err(Fault::forbidden())
        }
    }

    /// The first query parameter of that name, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let query = self.head.uri.query().unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The request as it arrived.
    fn echo(&self) -> Reply {
        let headers = self.head.headers.iter();
        let headers: Vec<[String; 2]> = headers
            .map(|(name, value)| [name.to_string(), latin1(value.as_bytes())])
            .collect();
        let digest = self.received.digest.as_ref();
        let answer = json!({
            "method": self.head.method.as_str(),
            "target": self.head.uri.to_string(),
            "headers": headers,
            "body_length": digest.map_or(0, |digest| digest.length),
            "body_sha256": digest.map_or_else(intake::empty_sha256, |digest| digest.sha256.clone()),
        });
        let behaviour = self.shared.behaviour.borrow();
        let mut reply = reply::json(behaviour.echo_status, &answer);
        for (name, value) in &behaviour.echo_headers {
            reply.headers_mut().append(name, value.clone());
        }
        reply
    }
}

/// Whether a granted scope is the wanted one or a parent of it: `account.user` includes `account.user:readonly`.
fn includes(granted: &str, wanted: &str) -> bool {
    wanted
        .strip_prefix(granted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '.']))
}

/// Bytes as text, each byte one character: nothing is lost and nothing can fail.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_scope_includes_its_children() {
        assert!(includes("account.user", "account.user:readonly"));
        assert!(includes("account.user", "account.user"));
        assert!(!includes("account.user:readonly", "account.user"));
        assert!(!includes("account.user", "account.users:admin.readonly"));
    }
}
