//! What answers of the token endpoint mean (rules T6, T9, T10): pure functions over whole answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::placeholder::{self, Placeholder};
use super::record::Record;
use super::transport::Answered;
use crate::secret::{ExposeSecret, Secret, Zeroize};

/// What a token answer without a usable `expires_in` is taken to mean: Lucid's documented lifetime.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);
/// Guards the arithmetic of times against nonsense.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Of all granted scopes together, in bytes. All that Lucid has are shorter than 2 KiB, and what is stored must be
/// readable again.
const LONGEST_SCOPES: usize = 16 << 10;

/// What became of an exchange.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A new pair: the old one is dead.
    Issued(Issued),
    /// The grant is over.
    Refused {
        /// The OAuth error code.
        code: String,
        /// `error_description`, shortened.
        description: String,
    },
    /// Nothing that ends a grant.
    Failed {
        /// What happened.
        message: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
        /// Whether what was sent may have been spent all the same.
        maybe_spent: bool,
    },
}

/// A successful token answer, whatever it left out (T6).
#[derive(Clone, Debug)]
pub struct Issued {
    /// Not empty.
    pub access_token: Secret,
    /// `None`: the old one stays valid (RFC 6749 section 6).
    pub refresh_token: Option<Secret>,
    /// How long the access token lives.
    pub lifetime: Duration,
    /// `None` where the answer did not say.
    pub scopes: Option<Vec<String>>,
    /// For user tokens.
    pub user_id: Option<u64>,
    /// For account tokens.
    pub account_id: Option<u64>,
}

/// What introspection (RFC 7662) says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// It lives.
    Active(Owner),
    /// It is dead, or was never there.
    Inactive,
    /// Not the token is wrong but the client id or secret.
    BadClient,
    /// It could not be asked, or did not say.
    Unknown(String),
}

/// Whose a token is, as far as introspection says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// For user tokens.
    pub user_id: Option<u64>,
    /// For account tokens.
    pub account_id: Option<u64>,
}

impl Owner {
    /// Whose the pair of a record is.
    pub fn of(record: &Record) -> Self {
        Self {
            user_id: record.user_id,
            account_id: record.account_id,
        }
    }

    /// Whether it names anybody.
    pub fn is_known(&self) -> bool {
        self.user_id.or(self.account_id).is_some()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.user_id, self.account_id) {
            (Some(id), _) => write!(f, "user {id}"),
            (None, Some(id)) => write!(f, "account {id}"),
            (None, None) => f.write_str("somebody who is not named"),
        }
    }
}

impl Issued {
    /// Whether it is what a proxy of ours gives to programs that refresh by themselves.
    fn is_placeholder(&self) -> bool {
        let tokens = self.refresh_token.iter().chain([&self.access_token]);
        let mut kinds = tokens.filter_map(|token| Placeholder::of(token.expose_secret()));
        kinds.next().is_some()
    }
}

/// Behind the token endpoint's name or URL, where a proxy of ours answered in its place and nothing was rotated.
pub(super) const MISLED: &str = "was not reached: a lucid-proxy answered, which has no tokens to give; HTTPS_PROXY or token_url leads to it, so correct that, or run this command without HTTPS_PROXY";

/// Whether a proxy of ours refused to answer in the token endpoint's place.
pub(super) fn is_misled(answered: &Answered) -> bool {
    let said = || {
        serde_json::from_slice::<Fields>(&answered.body)
            .ok()?
            .text("error")
    };
    answered.status == StatusCode::MISDIRECTED_REQUEST
        && said().is_some_and(|error| error == placeholder::MISDIRECTED)
}

/// What an answer to a code or a refresh token means.
pub(super) fn judge(answered: &Answered) -> Answer {
    let Answered {
        status,
        retry_after,
        body,
        ..
    } = answered;
    let (status, retry_after) = (*status, *retry_after);
    let issued = issued(body).filter(|_| status == StatusCode::OK);
    // The real pair would be lost under what is no token (F11).
    if is_misled(answered) || issued.as_ref().is_some_and(Issued::is_placeholder) {
        return Answer::Failed {
            message: MISLED.to_owned(),
            retry_after,
            maybe_spent: false,
        };
    }
    if status == StatusCode::OK {
        return match issued {
            Some(issued) => Answer::Issued(issued),
            None => Answer::Failed {
                message: "answered 200 without an access_token".to_owned(),
                retry_after,
                maybe_spent: true,
            },
        };
    }
    if let Some((code, description)) = oauth_error(body).filter(|_| is_refusing(status)) {
        return Answer::Refused { code, description };
    }
    Answer::Failed {
        message: format!("answered {status}"),
        retry_after,
        maybe_spent: status.is_server_error() || status.is_success(),
    }
}

/// What an answer of the introspection endpoint means. Only a whole answer that says so is a yes or a no.
pub(super) fn judge_introspection(answered: &Answered) -> Introspection {
    let status = answered.status;
    if is_misled(answered) {
        return Introspection::Unknown(format!("the token endpoint {MISLED}"));
    }
    let parsed = serde_json::from_slice::<Value>(&answered.body).ok();
    let field = |name: &str| parsed.as_ref()?.get(name);
    match field("active").and_then(Value::as_bool) {
        Some(true) if status == StatusCode::OK => Introspection::Active(Owner {
            user_id: field("user_id").and_then(Value::as_u64),
            account_id: field("account_id").and_then(Value::as_u64),
        }),
        Some(false) if status == StatusCode::OK => Introspection::Inactive,
        // Others may be allowed to refresh and not to ask.
        _ if refuses_client(answered) && !says(answered, "unauthorized_client") => {
            Introspection::BadClient
        }
        _ => Introspection::Unknown(format!("introspection answered {status}")),
    }
}

/// Whether introspection or revocation refused the client id or secret (RFC 7009 section 2.2.1).
pub(super) fn refuses_client(answered: &Answered) -> bool {
    let Some((code, _)) = oauth_error(&answered.body) else {
        return false;
    };
    match answered.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        StatusCode::BAD_REQUEST => is_about_client(&code),
        _ => false,
    }
}

fn says(answered: &Answered, code: &str) -> bool {
    oauth_error(&answered.body).is_some_and(|(said, _)| said == code)
}

/// Whether a code says that the client and not the token is wrong (RFC 6749 section 5.2).
pub(super) fn is_about_client(code: &str) -> bool {
    matches!(code, "invalid_client" | "unauthorized_client")
}

fn is_refusing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// The fields of a JSON object, each as it was written: what one of them holds cannot spoil the others. Of two with the
/// same name the last one counts.
#[derive(Deserialize)]
#[serde(transparent)]
struct Fields(BTreeMap<String, Box<RawValue>>);

/// The tokens among them are nowhere else once they were taken out.
impl Drop for Fields {
    fn drop(&mut self) {
        for field in std::mem::take(&mut self.0).into_values() {
            Box::<str>::from(field).zeroize();
        }
    }
}

impl Fields {
    fn value(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }
}

/// The codes of RFC 6749 section 5.2, and Lucid's own spelling of one.
const ERROR_CODES: [&str; 7] = [
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_scopes",
    "unauthorized_client",
    "unsupported_grant_type",
];

fn oauth_error(body: &[u8]) -> Option<(String, String)> {
    let fields: Fields = serde_json::from_slice(body).ok()?;
    let code = fields.text("error")?;
    let description = fields
        .text("error_description")
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(8192)
        .collect();
    ERROR_CODES
        .contains(&code.as_str())
        .then_some((code, description))
}

/// Takes what can be taken: a pair that was issued must not be thrown away for a field of another type, for a number that
/// no machine can hold, or for what stands around the object (T6).
fn issued(body: &[u8]) -> Option<Issued> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    // Not to its end: what follows the object is nothing to us.
    let answer = Fields::deserialize(&mut serde_json::Deserializer::from_str(text)).ok()?;
    let token = |name: &str| answer.text(name).filter(|text| !text.is_empty());
    let scopes = answer.value("scopes").or_else(|| answer.value("scope"));
    Some(Issued {
        access_token: Secret::from(token("access_token")?),
        refresh_token: token("refresh_token").map(Secret::from),
        lifetime: lifetime(answer.value("expires_in").as_ref()),
        scopes: self::scopes(scopes.as_ref()),
        user_id: answer.number("user_id"),
        account_id: answer.number("account_id"),
    })
}

fn lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|lifetime| *lifetime <= LONGEST_LIFETIME)
        .unwrap_or(ASSUMED_LIFETIME)
}

/// What was granted; as if it were not said where it is no list of scopes, or longer than any.
fn scopes(value: Option<&Value>) -> Option<Vec<String>> {
    let scopes: Vec<_> = match value? {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => return None,
    };
    let length: usize = scopes.iter().map(|scope| scope.len() + 1).sum();
    Some(scopes).filter(|_| length <= LONGEST_SCOPES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &[u8]) -> Answered {
        Answered {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: None,
            date: None,
            body: body.to_vec().into(),
        }
    }

    fn issued_from(body: &str) -> Issued {
        match judge(&answered(200, body.as_bytes())) {
            Answer::Issued(issued) => issued,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn t06_any_200_with_an_access_token_is_a_pair() {
        for (rest, seconds) in [
            (r#""expires_in":1800"#, 1800),
            (r#""expires_in":"1800""#, 1800),
            (r#""expires_in":1800.0"#, 1800),
            (r#""expires_in":"soon""#, 3600),
            (r#""expires_in":null"#, 3600),
            (r#""expires_in":0"#, 3600),
            (r#""expires_in":-1"#, 3600),
            (r#""expires_in":1e300"#, 3600),
            (r#""expires_in":1000000000000"#, 3600),
            (r#""expires_in":{}"#, 3600),
            (r#""token_type":"BEARER","user_id":"x","scopes":7"#, 3600),
        ] {
            let issued = issued_from(&format!(r#"{{"access_token":"a",{rest}}}"#));
            assert_eq!(issued.lifetime, Duration::from_secs(seconds), "{rest}");
            assert!(issued.refresh_token.is_none());
        }
    }

    #[test]
    fn f11_what_a_proxy_of_ours_answers_is_no_pair_and_spends_nothing() {
        let placeholder = |kind: Placeholder| kind.token(7);
        let (access, refresh) = (
            placeholder(Placeholder::Access),
            placeholder(Placeholder::Refresh),
        );
        for (status, body) in [
            (
                200,
                format!(r#"{{"access_token":"{access}","refresh_token":"{refresh}"}}"#),
            ),
            (200, format!(r#"{{"access_token":"{access}"}}"#)),
            (
                200,
                format!(r#"{{"access_token":"a","refresh_token":"{refresh}"}}"#),
            ),
            (421, r#"{"error":"misdirected_request"}"#.to_owned()),
        ] {
            match judge(&answered(status, body.as_bytes())) {
                Answer::Failed {
                    message,
                    maybe_spent: false,
                    ..
                } => assert_eq!(message, MISLED),
                other => panic!("{body}: {other:?}"),
            }
        }
        let refused = answered(421, br#"{"error":"misdirected_request"}"#);
        let said = judge_introspection(&refused);
        assert!(
            matches!(&said, Introspection::Unknown(why) if why.contains(MISLED)),
            "{said:?}"
        );
        // Somebody else's 421, and a token that only looks a little like ours.
        let other = judge(&answered(421, br#"{"error":"invalid_grant"}"#));
        assert!(
            matches!(&other, Answer::Failed { message, .. } if message.contains("421")),
            "{other:?}"
        );
        let issued = issued_from(r#"{"access_token":"lucid-proxy-placeholder-access-x"}"#);
        assert!(!issued.is_placeholder());
    }

    #[test]
    fn t06_one_odd_field_does_not_spoil_the_others() {
        let deep = format!(r#""x":{}{}"#, "[".repeat(5000), "]".repeat(5000));
        let digits = format!(r#""expires_in":{}"#, "9".repeat(400));
        for odd in [
            r#""expires_in":1e400"#,
            r#""expires_in":-1e400"#,
            digits.as_str(),
            r#""expires":1e400"#,
            r#""scope":"\ud800""#,
            r#""scopes":["\udc00"]"#,
            r#""user_id":99999999999999999999999,"account_id":-0.0"#,
            deep.as_str(),
            r#""access_token":"a","refresh_token":"r""#,
        ] {
            for body in [
                format!(r#"{{{odd},"access_token":"a","refresh_token":"r"}}"#),
                format!(r#"{{"access_token":"x","access_token":"a","refresh_token":"r",{odd}}}"#),
            ] {
                let issued = issued_from(&body);
                assert_eq!(issued.access_token.expose_secret(), "a", "{odd}");
                let refresh_token = issued.refresh_token.expect("there is one");
                assert_eq!(refresh_token.expose_secret(), "r", "{odd}");
                assert_eq!(issued.lifetime, Duration::from_secs(3600), "{odd}");
            }
        }
    }

    #[test]
    fn t06_what_stands_around_the_object_does_not_spoil_it() {
        for body in [
            &b"\xef\xbb\xbf{\"access_token\":\"a\"}"[..],
            b" \r\n {\"access_token\":\"a\"}\r\n",
            b"{\"access_token\":\"a\"}\n<!-- served by 17 -->",
            b"{\"access_token\":\"a\",\"name\":\"caf\xe9\"}",
        ] {
            let answer = judge(&answered(200, body));
            assert!(matches!(answer, Answer::Issued(_)), "{answer:?}");
        }
        let cut = judge(&answered(200, b"{\"access_token\":\"a\""));
        assert!(matches!(cut, Answer::Failed { .. }), "{cut:?}");
    }

    #[test]
    fn t06_a_refresh_token_of_another_type_is_none() {
        for odd in ["null", "5", "[]", "{}", "true", r#""""#] {
            let body = format!(r#"{{"access_token":"a","refresh_token":{odd}}}"#);
            assert!(issued_from(&body).refresh_token.is_none(), "{odd}");
        }
    }

    #[test]
    fn t09_a_refusal_needs_no_more_than_its_code() {
        for rest in [
            "",
            r#","error_description":null"#,
            r#","error_description":5,"error_uri":{}"#,
            r#","error_description":"\ud800""#,
            r#","expires_in":1e400"#,
        ] {
            let body = format!(r#"{{"error":"invalid_grant"{rest}}}"#);
            let judged = judge(&answered(400, body.as_bytes()));
            let Answer::Refused { code, description } = judged else {
                panic!("{rest}: {judged:?}");
            };
            assert_eq!((code.as_str(), description.as_str()), ("invalid_grant", ""));
        }
        let body = format!(
            r#"{{"error":"invalid_grant","error_description":"{}"}}"#,
            "long\\n".repeat(9000)
        );
        let judged = judge(&answered(400, body.as_bytes()));
        let Answer::Refused { description, .. } = judged else {
            panic!("{judged:?}");
        };
        assert_eq!(description.len(), 8192);
        assert!(!description.contains('\n'));
    }

    #[test]
    fn t06_scopes_come_as_a_list_as_text_or_not_at_all() {
        let both = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            issued_from(r#"{"access_token":"a","scopes":["a","b"]}"#).scopes,
            both
        );
        assert_eq!(
            issued_from(r#"{"access_token":"a","scope":"a b"}"#).scopes,
            both
        );
        assert_eq!(issued_from(r#"{"access_token":"a"}"#).scopes, None);
        let list = |words: usize| {
            let json = format!(r#"{{"access_token":"a","scope":"{}"}}"#, "a ".repeat(words));
            issued_from(&json).scopes.map(|scopes| scopes.len())
        };
        assert_eq!(list(LONGEST_SCOPES / 2), Some(LONGEST_SCOPES / 2));
        assert_eq!(
            list(LONGEST_SCOPES / 2 + 1),
            None,
            "it would fill the store"
        );
    }

    #[test]
    fn t09_only_an_oauth_code_in_400_401_or_403_ends_a_grant() {
        let refusal = br#"{"error":"invalid_grant","error_description":"no","error_uri":""}"#;
        for status in [400, 401, 403] {
            assert!(
                matches!(judge(&answered(status, refusal)), Answer::Refused { .. }),
                "{status}"
            );
        }
        for (status, body) in [
            (400, &b"<html>blocked</html>"[..]),
            (400, b""),
            (403, br#"{"error":"rate_limited"}"#),
            (403, br#"{"code":"accessForbidden"}"#),
            (401, br#"{"error":{"code":"invalid_grant"}}"#),
            (404, refusal),
            (429, refusal),
            (500, refusal),
            (302, refusal),
            (200, refusal),
            (200, b"<html>"),
            (200, br#"{"access_token":""}"#),
            (200, br#"{"access_token":5}"#),
            (204, b""),
        ] {
            assert!(
                matches!(judge(&answered(status, body)), Answer::Failed { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn t11_only_a_whole_answer_that_says_so_is_a_yes_or_a_no() {
        let judged = |status, body: &str| judge_introspection(&answered(status, body.as_bytes()));
        let owner = Owner {
            user_id: Some(4711),
            account_id: None,
        };
        let active = r#"{"active":true,"user_id":4711}"#;
        assert_eq!(judged(200, active), Introspection::Active(owner));
        assert_eq!(judged(200, r#"{"active":false}"#), Introspection::Inactive);
        let refused = r#"{"error":"invalid_client"}"#;
        assert_eq!(judged(401, refused), Introspection::BadClient);
        assert_eq!(judged(403, refused), Introspection::BadClient);
        for (status, body) in [
            (200, "{}"),
            (200, "<html>"),
            (200, r#"{"active":"true"}"#),
            (200, r#"{"active":null}"#),
            (500, r#"{"active":false}"#),
            (403, "<html>"),
            (404, refused),
            // It may refresh, and may not ask.
            (403, r#"{"error":"unauthorized_client"}"#),
            (400, r#"{"error":"unauthorized_client"}"#),
            (400, r#"{"error":"invalid_request"}"#),
            (429, "{}"),
        ] {
            let judged = judged(status, body);
            assert!(
                matches!(judged, Introspection::Unknown(_)),
                "{status} {body}: {judged:?}"
            );
        }
    }
}
