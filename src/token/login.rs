//! A login, without the browser and without the network: what the person is asked, what comes back, and what it is worth.
//!
//! It is the authorization code grant (RFC 6749 section 4.1) of an application on the person's own machine (RFC 8252),
//! bound to the code by a proof key (RFC 7636). The exchange of the code is the [`endpoint`](super::endpoint)'s.

use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::answer::Issued;
use super::endpoint::Code;
use super::record::Record;
use super::scopes;
use super::succession::issued_at;
use crate::secret::{ExposeSecret, Secret, is_one_word};

/// What makes a login last: without it there is no refresh token (Lucid's documentation).
const OFFLINE_ACCESS: &str = "offline_access";

/// All but the unreserved characters. A space becomes `%20`, which every server reads as one; `+` only most do.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One login that a person is asked to approve. What it is bound by is random and known to nobody else.
#[derive(Debug)]
pub struct Attempt {
    state: Secret,
    verifier: Option<Secret>,
    redirect_uri: String,
}

/// Why what came back is no code of this login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// Anybody could have sent it.
    #[error("it carries no state, so it is not known to belong to this login")]
    NoState,
    /// Of an earlier login, or somebody made it up.
    #[error("its state is not that of this login")]
    OtherState,
    /// RFC 6749 section 3.1 forbids it.
    #[error("it carries {0} more than once")]
    Twice(&'static str),
    /// It contradicts itself.
    #[error("it carries both a code and an error")]
    CodeAndError,
    /// It says nothing.
    #[error("it carries neither a code nor an error")]
    Nothing,
    /// RFC 6749 appendix A.11.
    #[error("its code is not one word of visible ASCII characters")]
    BadCode,
    /// The person, or the authorization server, said no (RFC 6749 section 4.1.2.1).
    #[error("{}", refused(.error, .description))]
    Refused {
        /// The code.
        error: String,
        /// For people; may be empty.
        description: String,
    },
}

impl CallbackError {
    /// Whether it may come from anywhere: then the login goes on, or any web page could end it.
    pub fn may_be_forged(&self) -> bool {
        matches!(self, Self::NoState | Self::OtherState)
    }
}

/// Why a pair that was issued is not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It would die within the hour.
    #[error(
        "the token endpoint issued no refresh token, without which no login lasts: the scope offline_access was not granted; allow it for the application in Lucid's developer portal, and log in again"
    )]
    NoRefreshToken,
    /// No request could carry it.
    #[error(
        "the token endpoint issued a token with characters that no header may carry; expected visible ASCII"
    )]
    NotOneWord,
}

impl Attempt {
    /// A login that comes back to `redirect_uri`, bound by a proof key unless `pkce` is off.
    pub fn new(redirect_uri: String, pkce: bool) -> Self {
        Self {
            state: random(),
            verifier: pkce.then(random),
            redirect_uri,
        }
    }

    /// Where the browser comes back to.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// The URL at which a person approves this login (RFC 6749 section 4.1.1, RFC 7636 section 4.3). Its state is no
    /// secret to whoever sees the browser.
    pub fn authorization_url(&self, endpoint: &str, client_id: &str, scopes: &[String]) -> String {
        let scope = scopes.join(" ");
        let challenge = self.verifier.as_ref().map(challenge);
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &scope),
            ("state", self.state.expose_secret()),
        ];
        if let Some(challenge) = &challenge {
            parameters.push(("code_challenge", challenge));
            parameters.push(("code_challenge_method", "S256"));
        }
        with_query(endpoint, &parameters)
    }

    /// Judges what a browser brought back: the query of the redirect URL (RFC 6749 sections 4.1.2 and 4.1.2.1).
    ///
    /// # Errors
    ///
    /// When it is not a code that belongs to this login.
    pub fn callback(&self, query: &str) -> Result<Code, CallbackError> {
        let parameters = Parameters::read(query);
        // First, since what does not belong to this login is not worth another look.
        self.check_state(&parameters)?;
        match (parameters.one("code")?, parameters.one("error")?) {
            (Some(_), Some(_)) => Err(CallbackError::CodeAndError),
            (None, None) => Err(CallbackError::Nothing),
            (Some(code), None) => self.code(code),
            (None, Some(error)) => Err(CallbackError::Refused {
                error: shown(error),
                description: shown(parameters.first("error_description").unwrap_or_default()),
            }),
        }
    }

    /// Judges what a person pasted: the address that the browser shows afterwards, its query, or the bare code.
    ///
    /// A bare code has no state to check. The person who pastes it vouches for it, and a code of somebody else's login
    /// does not fit the proof key.
    ///
    /// # Errors
    ///
    /// When it is not a code that belongs to this login.
    pub fn pasted(&self, text: &str) -> Result<Code, CallbackError> {
        let text = text.trim();
        let address = text.split('#').next().unwrap_or_default();
        let query = address.split_once('?').map_or(address, |(_, query)| query);
        let is_answer = Parameters::read(query).any(&["code", "error", "state"]);
        match is_answer || address.contains("://") {
            true => self.callback(query),
            false if text.is_empty() => Err(CallbackError::Nothing),
            // Cut out of an address bar it is still encoded as it was there.
            false => self.code(&percent_decode_str(text).decode_utf8_lossy()),
        }
    }

    fn check_state(&self, parameters: &Parameters) -> Result<(), CallbackError> {
        let state = parameters
            .one("state")
            .map_err(|_| CallbackError::OtherState)?
            .ok_or(CallbackError::NoState)?;
        verify_slices_are_equal(state.as_bytes(), self.state.expose_secret().as_bytes())
            .map_err(|_| CallbackError::OtherState)
    }

    fn code(&self, code: &str) -> Result<Code, CallbackError> {
        let code = Secret::from(code);
        if !is_one_word(&code) {
            return Err(CallbackError::BadCode);
        }
        Ok(Code {
            code,
            redirect_uri: self.redirect_uri.clone(),
            verifier: self.verifier.clone(),
        })
    }
}

/// The authorization endpoint for account tokens, beside the one for user tokens; `None` where that has another name.
pub fn account_endpoint(endpoint: &Uri) -> Option<String> {
    let (above, last) = endpoint.path().rsplit_once('/')?;
    if !matches!(last, "authorize" | "authorizeUser" | "authorizeAccount") {
        return None;
    }
    let query = endpoint.query().map(|query| format!("?{query}"));
    let mut parts = endpoint.clone().into_parts();
    let path = format!("{above}/authorizeAccount{}", query.unwrap_or_default());
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok().map(|url| url.to_string())
}

/// The first record of a grant, whose code was `sent` and whose pair was `received` then. Where the answer does not name
/// the scopes, they are those that were `asked` for (RFC 6749 section 5.1).
///
/// # Errors
///
/// When the pair could not be used, or not for long.
pub fn first_record(
    issued: Issued,
    asked: &[String],
    sent: SystemTime,
    received: SystemTime,
) -> Result<Record, Unusable> {
    let refresh_token = issued.refresh_token.ok_or(Unusable::NoRefreshToken)?;
    if !is_one_word(&issued.access_token) || !is_one_word(&refresh_token) {
        return Err(Unusable::NotOneWord);
    }
    let issued_at = issued_at(sent, received, issued.lifetime);
    let scopes = issued.scopes.filter(|scopes| !scopes.is_empty());
    Ok(Record {
        access_token: issued.access_token,
        expires_at: issued_at.checked_add(issued.lifetime).unwrap_or(issued_at),
        scopes: scopes.unwrap_or_else(|| asked.to_vec()),
        user_id: issued.user_id,
        account_id: issued.account_id,
        ..Record::from_refresh_token(refresh_token, issued_at)
    })
}

/// The scopes that were asked for and not granted. A refresh token is proof enough of `offline_access`.
pub fn not_granted(record: &Record, asked: &[String]) -> Vec<String> {
    let mut missing = scopes::missing(asked, &record.scopes);
    missing.retain(|scope| scope != OFFLINE_ACCESS);
    missing
}

/// What a person is told when the token endpoint refused the code, or the client (RFC 6749 section 5.2).
pub fn exchange_refused(code: &str, description: &str) -> String {
    let cause = match code {
        "invalid_client" | "unauthorized_client" => {
            "the client id or secret is wrong, or the application was disabled; correct them and log in again"
        }
        "invalid_scope" | "invalid_scopes" => {
            "not every scope in `scopes` can be granted to this kind of login; correct them and log in again"
        }
        _ => {
            "a code works once, for two minutes, and only with the redirect_url and the client id and secret that it was made for; log in again"
        }
    };
    let quoted = quoted(&shown(description));
    format!("the token endpoint refused the code ({code}{quoted}): {cause}")
}

fn refused(error: &str, description: &str) -> String {
    let quoted = quoted(description);
    match error {
        "access_denied" => format!("the approval was refused ({error}{quoted})"),
        "invalid_scope" | "invalid_scopes" => {
            format!(
                "the authorization server does not grant what was asked for ({error}{quoted}); correct scopes in the configuration"
            )
        }
        "server_error" | "temporarily_unavailable" => {
            format!("the authorization server could not answer ({error}{quoted}); try again later")
        }
        _ => format!("the authorization server refused the login ({error}{quoted})"),
    }
}

fn quoted(description: &str) -> String {
    match description {
        "" => String::new(),
        text => format!(" \"{text}\""),
    }
}

/// Text from outside as it may be shown on a terminal: no control characters, none that turns the direction of writing,
/// and not too much of it.
fn shown(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = text.chars().filter(|c| !c.is_control() && !turns(*c));
    plain.take(300).collect()
}

/// The parameters of a query, decoded. Those without a value count as not there (RFC 6749 section 3.1).
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Self(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(own, _)| own == name);
        named.map(|(_, value)| value.as_str())
    }

    fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn one(&self, name: &'static str) -> Result<Option<&str>, CallbackError> {
        match self.all(name).nth(1) {
            Some(_) => Err(CallbackError::Twice(name)),
            None => Ok(self.first(name)),
        }
    }

    fn any(&self, names: &[&str]) -> bool {
        self.0
            .iter()
            .any(|(name, _)| names.contains(&name.as_str()))
    }
}

/// 256 bits in the 43 characters that RFC 7636 section 4.1 recommends for a verifier.
fn random() -> Secret {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("AWS-LC ends the process where it has no randomness");
    Secret::from(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// RFC 7636 section 4.2.
fn challenge(verifier: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose_secret().as_bytes()))
}

/// A URL with parameters behind those that it has (RFC 6749 section 3.1).
fn with_query(url: &str, parameters: &[(&str, &str)]) -> String {
    let mut text = url.to_owned();
    let mut separator = if url.contains('?') { '&' } else { '?' };
    for (name, value) in parameters {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, ENCODED));
        separator = '&';
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REDIRECT: &str = "http://localhost:8117/callback";

    fn attempt() -> Attempt {
        Attempt {
            state: Secret::from("the-state"),
            // RFC 7636 appendix B.
            verifier: Some(Secret::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")),
            redirect_uri: REDIRECT.to_owned(),
        }
    }

    fn callback(query: &str) -> Result<String, CallbackError> {
        let code = attempt().callback(query)?;
        Ok(code.code.expose_secret().to_owned())
    }

    fn pasted(text: &str) -> Result<String, CallbackError> {
        let code = attempt().pasted(text)?;
        assert_eq!(code.redirect_uri, REDIRECT);
        Ok(code.code.expose_secret().to_owned())
    }

    #[test]
    fn the_authorization_url_is_that_of_rfc_7636_appendix_b() {
        let scopes = ["offline_access", "folder:admin"].map(str::to_owned);
        let url =
            attempt().authorization_url("https://lucid.app/oauth2/authorize", "my id", &scopes);
        assert_eq!(
            url,
            "https://lucid.app/oauth2/authorize?response_type=code&client_id=my%20id\
             &redirect_uri=http%3A%2F%2Flocalhost%3A8117%2Fcallback&scope=offline_access%20folder%3Aadmin\
             &state=the-state&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
        );
        let plain = Attempt {
            verifier: None,
            ..attempt()
        };
        let url = plain.authorization_url("https://lucid.app/authorize?a=b", "id", &scopes);
        assert!(
            url.starts_with("https://lucid.app/authorize?a=b&response_type=code&"),
            "{url}"
        );
        assert!(!url.contains("challenge"), "{url}");
    }

    #[test]
    fn each_login_has_a_state_and_a_verifier_of_its_own() {
        let (one, other) = (
            Attempt::new(String::new(), true),
            Attempt::new(String::new(), true),
        );
        let values = [&one, &other].map(|attempt| {
            let verifier = attempt.verifier.as_ref().expect("asked for");
            [&attempt.state, verifier].map(|value| value.expose_secret().to_owned())
        });
        let mut values = values.concat();
        for value in &values {
            assert_eq!(value.len(), 43, "{value}");
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(value.bytes().all(fits), "{value}");
        }
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 4);
        assert!(Attempt::new(String::new(), false).verifier.is_none());
    }

    #[test]
    fn s06_an_attempt_and_its_code_do_not_show_under_debug() {
        let attempt = attempt();
        let code = attempt.callback("code=marked-code&state=the-state");
        let printed = format!("{attempt:?} {:?}", code.expect("a code"));
        assert!(printed.contains(REDIRECT), "{printed}");
        for secret in ["marked-code", "the-state", "dBjftJeZ4"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    #[test]
    fn a_code_counts_with_the_state_of_this_login_only() {
        assert_eq!(
            callback("code=a%2Bb%3D&state=the-state&iss=lucid.app"),
            Ok("a+b=".to_owned()),
            "what is not known is ignored"
        );
        for (query, error) in [
            ("code=c", CallbackError::NoState),
            ("code=c&state=", CallbackError::NoState),
            ("", CallbackError::NoState),
            ("error=access_denied", CallbackError::NoState),
            ("code=c&state=the-stat", CallbackError::OtherState),
            ("code=c&state=the-state2", CallbackError::OtherState),
            ("code=c&state=THE-STATE", CallbackError::OtherState),
            (
                "code=c&state=the-state&state=the-state",
                CallbackError::OtherState,
            ),
        ] {
            assert_eq!(callback(query), Err(error.clone()), "{query}");
            assert!(error.may_be_forged());
        }
    }

    #[test]
    fn an_answer_that_is_not_one_is_refused() {
        for (query, error) in [
            ("", CallbackError::Nothing),
            ("code=", CallbackError::Nothing),
            ("response_type=code", CallbackError::Nothing),
            ("code=a&error=b", CallbackError::CodeAndError),
            ("code=a&code=a", CallbackError::Twice("code")),
            ("error=a&error=a", CallbackError::Twice("error")),
            ("code=a+b", CallbackError::BadCode),
            ("code=a%00b", CallbackError::BadCode),
            ("code=%ff", CallbackError::BadCode),
        ] {
            let answered = callback(&format!("{query}&state=the-state"));
            assert_eq!(answered, Err(error.clone()), "{query}");
            assert!(!error.may_be_forged());
        }
    }

    #[test]
    fn a_refusal_is_told_without_what_could_fool_a_terminal() {
        let error = callback(
            "error=access_denied&error_description=no%1b%5b2J%e2%80%ae+way&state=the-state",
        );
        let error = error.expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the approval was refused (access_denied \"no[2J way\")"
        );
        let long = "x".repeat(5000);
        let error = callback(&format!("error={long}&state=the-state")).expect_err("refused");
        assert!(error.to_string().len() < 500);
    }

    #[test]
    fn a_person_may_paste_the_code_or_the_address() {
        for text in [
            "the+code==",
            "  the+code==\r\n",
            "http://localhost:8117/callback?code=the%2Bcode%3D%3D&state=the-state",
            "localhost:8117/callback?state=the-state&code=the%2Bcode%3D%3D#fragment",
            "?code=the%2Bcode%3D%3D&state=the-state",
            "code=the%2Bcode%3D%3D&state=the-state",
        ] {
            assert_eq!(pasted(text), Ok("the+code==".to_owned()), "{text}");
        }
        assert_eq!(pasted("a?b"), Ok("a?b".to_owned()));
        assert_eq!(pasted("the+code%3D%3D"), Ok("the+code==".to_owned()));
    }

    #[test]
    fn what_else_a_person_may_paste_is_refused() {
        let url = attempt().authorization_url("https://lucid.app/oauth2/authorize", "id", &[]);
        for (text, error) in [
            ("", CallbackError::Nothing),
            (url.as_str(), CallbackError::Nothing),
            ("two words", CallbackError::BadCode),
            ("k\u{f6}de", CallbackError::BadCode),
            ("http://localhost:8117/callback", CallbackError::NoState),
            (
                "http://localhost:8117/callback?code=c",
                CallbackError::NoState,
            ),
            ("?code=c&state=old", CallbackError::OtherState),
            (
                "?code=c&error=e&state=the-state",
                CallbackError::CodeAndError,
            ),
        ] {
            assert_eq!(pasted(text), Err(error), "{text}");
        }
        let refused = pasted("http://localhost:8117/?error=access_denied&state=the-state");
        assert!(matches!(refused, Err(CallbackError::Refused { .. })));
    }

    #[test]
    fn account_tokens_have_an_authorization_endpoint_of_their_own() {
        let account = |url: &'static str| account_endpoint(&Uri::from_static(url));
        let expected = Some("https://lucid.app/oauth2/authorizeAccount".to_owned());
        assert_eq!(account("https://lucid.app/oauth2/authorize"), expected);
        assert_eq!(account("https://lucid.app/oauth2/authorizeUser"), expected);
        assert_eq!(
            account("https://lucid.app/oauth2/authorizeAccount"),
            expected
        );
        assert_eq!(
            account("https://lucid.app/authorize?a=b"),
            Some("https://lucid.app/authorizeAccount?a=b".to_owned())
        );
        assert_eq!(account("https://lucid.app/oauth2/approve"), None);
        assert_eq!(account("https://lucid.app/authorize/"), None);
    }

    fn issued(refresh_token: Option<&str>) -> Issued {
        Issued {
            access_token: Secret::from("access"),
            refresh_token: refresh_token.map(Secret::from),
            lifetime: Duration::from_secs(3600),
            scopes: None,
            user_id: Some(4711),
            account_id: None,
        }
    }

    #[test]
    fn the_first_record_has_what_was_asked_for_where_the_answer_does_not_say() {
        let asked = ["offline_access", "folder"].map(str::to_owned);
        let sent = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let received = sent + Duration::from_secs(2);
        let make = |issued| first_record(issued, &asked, sent, received);
        let record = make(issued(Some("refresh"))).expect("usable");
        assert_eq!(record.scopes, asked);
        assert_eq!(record.issued_at, sent);
        assert_eq!(record.refresh_issued_at, sent);
        assert_eq!(record.expires_at, sent + Duration::from_secs(3600));
        assert!(not_granted(&record, &asked).is_empty());
        let fewer = Issued {
            scopes: Some(vec!["user.profile".to_owned()]),
            ..issued(Some("refresh"))
        };
        let record = make(fewer).expect("usable");
        assert_eq!(not_granted(&record, &asked), ["folder"]);
        assert_eq!(make(issued(None)).err(), Some(Unusable::NoRefreshToken));
    }

    #[test]
    fn s08_a_token_that_no_header_may_carry_is_an_error() {
        let now = SystemTime::now();
        for bad in ["a\nb", "a b", "a\u{e9}", "\u{7f}"] {
            let refresh = first_record(issued(Some(bad)), &[], now, now);
            assert_eq!(refresh.err(), Some(Unusable::NotOneWord), "{bad:?}");
            let access = Issued {
                access_token: Secret::from(bad),
                ..issued(Some("refresh"))
            };
            let access = first_record(access, &[], now, now);
            assert_eq!(access.err(), Some(Unusable::NotOneWord), "{bad:?}");
        }
        let long = "x".repeat(4096);
        assert!(first_record(issued(Some(&long)), &[], now, now).is_ok());
    }
}
