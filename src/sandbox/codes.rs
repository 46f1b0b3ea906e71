//! Authorization codes: issued by an approval, redeemed once. No I/O and no clock: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::grants::after;
use super::pair::Owner;
use super::pkce::Challenge;

/// What a person approved. There is only one client, so a code need not remember whose it is.
#[derive(Clone, Debug)]
pub(super) struct Approval {
    /// What was granted.
    pub(super) scopes: Vec<String>,
    pub(super) owner: Owner,
    /// Where the code was sent; whoever redeems it must know (RFC 6749, section 4.1.3).
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<Challenge>,
}

/// All codes ever issued.
#[derive(Debug, Default)]
pub(super) struct Codes(HashMap<String, Code>);

#[derive(Debug)]
struct Code {
    approval: Approval,
    expires: DateTime<Utc>,
    /// The access token that it was redeemed for.
    redeemed_for: Option<String>,
}

/// Why a code is not redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CodeRefusal {
    /// Never issued.
    Unknown,
    /// Redeemed before, for this access token.
    Used(String),
    /// Left unused for too long.
    Expired,
    /// Not the redirect URI to which it was sent.
    RedirectUri,
    /// The verifier is missing, superfluous or wrong.
    Verifier,
}

impl Codes {
    /// A new code.
    pub(super) fn issue(
        &mut self,
        approval: Approval,
        lifetime: Duration,
        now: DateTime<Utc>,
    ) -> String {
        // A code may hold any visible ASCII (RFC 6749, appendix A.11); the last two characters are lost on whoever
        // forgets to decode a query.
        let code = format!("code-{:032x}+=", fastrand::u128(..));
        let issued = Code {
            approval,
            expires: after(now, lifetime),
            redeemed_for: None,
        };
        self.0.insert(code.clone(), issued);
        code
    }

    /// Redeems a code: `grant` makes a grant of what was approved and returns it with its access token. A refusal
    /// leaves the code as it was.
    pub(super) fn redeem<T>(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
        now: DateTime<Utc>,
        grant: impl FnOnce(&Approval) -> (T, String),
    ) -> Result<T, CodeRefusal> {
        let code = self.0.get_mut(code).ok_or(CodeRefusal::Unknown)?;
        code.check(redirect_uri, verifier, now)?;
        let (granted, access_token) = grant(&code.approval);
        code.redeemed_for = Some(access_token);
        Ok(granted)
    }
}

impl Code {
    fn check(
        &self,
        redirect_uri: &str,
        verifier: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<(), CodeRefusal> {
        if let Some(access_token) = &self.redeemed_for {
            return Err(CodeRefusal::Used(access_token.clone()));
        }
        if now >= self.expires {
            return Err(CodeRefusal::Expired);
        }
        if self.approval.redirect_uri != redirect_uri {
            return Err(CodeRefusal::RedirectUri);
        }
        match (&self.approval.challenge, verifier) {
            (None, None) => Ok(()),
            (Some(challenge), Some(verifier)) if challenge.accepts(verifier) => Ok(()),
            _ => Err(CodeRefusal::Verifier),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const URI: &str = "http://localhost:7777/callback";
    const MINUTE: Duration = Duration::from_secs(60);
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000, 0).expect("a date in 2030")
    }

    fn issued(challenge: Option<Challenge>) -> (Codes, String) {
        let mut codes = Codes::default();
        let approval = Approval {
            scopes: vec![String::from("user.profile")],
            owner: Owner::Account(52),
            redirect_uri: URI.to_owned(),
            challenge,
        };
        let code = codes.issue(approval, MINUTE, start());
        (codes, code)
    }

    fn redeem(
        codes: &mut Codes,
        code: &str,
        uri: &str,
        verifier: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Owner, CodeRefusal> {
        codes.redeem(code, uri, verifier, now, |approval| {
            (approval.owner, String::from("AT"))
        })
    }

    #[test]
    fn a_code_is_redeemed_once() {
        let (mut codes, code) = issued(None);
        assert_eq!(
            redeem(&mut codes, &code, URI, None, start()),
            Ok(Owner::Account(52))
        );
        assert_eq!(
            redeem(&mut codes, &code, URI, None, start()),
            Err(CodeRefusal::Used(String::from("AT")))
        );
        assert_eq!(
            redeem(&mut codes, "code-", URI, None, start()),
            Err(CodeRefusal::Unknown)
        );
    }

    #[test]
    fn a_code_expires_at_the_end_of_its_lifetime() {
        let (mut codes, code) = issued(None);
        let end = start() + TimeDelta::minutes(1);
        assert_eq!(
            redeem(&mut codes, &code, URI, None, end),
            Err(CodeRefusal::Expired)
        );
        let before = end - TimeDelta::milliseconds(1);
        assert!(redeem(&mut codes, &code, URI, None, before).is_ok());
    }

    #[test]
    fn a_refusal_leaves_the_code_as_it_was() {
        let (mut codes, code) = issued(None);
        assert_eq!(
            redeem(&mut codes, &code, "http://localhost:7777/", None, start()),
            Err(CodeRefusal::RedirectUri)
        );
        assert_eq!(
            redeem(&mut codes, &code, URI, Some(VERIFIER), start()),
            Err(CodeRefusal::Verifier),
            "superfluous"
        );
        assert!(redeem(&mut codes, &code, URI, None, start()).is_ok());
    }

    #[test]
    fn a_challenge_calls_for_its_verifier() {
        let challenge =
            Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", Some("S256"));
        let (mut codes, code) = issued(Some(challenge.expect("well-formed")));
        for verifier in [None, Some(URI), Some("")] {
            assert_eq!(
                redeem(&mut codes, &code, URI, verifier, start()),
                Err(CodeRefusal::Verifier),
                "{verifier:?}"
            );
        }
        assert!(redeem(&mut codes, &code, URI, Some(VERIFIER), start()).is_ok());
    }
}
