//! Grants and their pairs: issuing, rotating, expiring and revoking. No I/O and no clock: `now` is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::pair::{Owner, Pair};

/// On which terms a pair is issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long its access token lives.
    pub(super) access_lifetime: Duration,
    /// How long its refresh token lives when unused.
    pub(super) refresh_lifetime: Duration,
    /// Tokens shorter than this are padded.
    pub(super) token_length: usize,
}

/// All grants ever approved, and every token ever issued: telling a dead token from an unknown one needs the dead.
#[derive(Debug, Default)]
pub(super) struct Grants {
    grants: Vec<Grant>,
    tokens: HashMap<String, Issued>,
}

#[derive(Debug)]
struct Grant {
    scopes: Arc<[String]>,
    owner: Owner,
    revoked: bool,
    /// The only generation whose access token lives.
    generation: u64,
    access_expires: DateTime<Utc>,
    /// The only generation whose refresh token lives. Older than `generation` when a rotation issued no refresh token.
    refresh_generation: u64,
    refresh_expires: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    kind: Kind,
    /// Index into `Grants::grants`, which only ever grows.
    grant: usize,
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Access,
    Refresh,
}

/// A living access token.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) generation: u64,
    pub(super) scopes: Arc<[String]>,
    pub(super) owner: Owner,
}

/// Why an access token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// Never issued as an access token.
    Unknown,
    /// Expired, replaced or revoked; with its generation.
    Dead(u64),
}

/// Why a refresh token is not accepted. On the wire all of them look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Never issued as a refresh token.
    Unknown,
    /// A rotation has replaced it.
    Spent,
    /// Left unused for too long.
    Expired,
    /// Its grant was revoked.
    Revoked,
}

/// What introspection tells about a living token.
#[derive(Clone, Debug)]
pub(super) struct Living {
    pub(super) expires: DateTime<Utc>,
    pub(super) scopes: Arc<[String]>,
    pub(super) owner: Owner,
}

impl Grants {
    /// A fresh grant, as a login gives it: its first pair.
    pub(super) fn approve(
        &mut self,
        scopes: Vec<String>,
        owner: Owner,
        terms: Terms,
        now: DateTime<Utc>,
    ) -> Pair {
        let id = self.grants.len();
        self.grants.push(Grant {
            scopes: scopes.into(),
            owner,
            revoked: false,
            generation: 1,
            access_expires: after(now, terms.access_lifetime),
            refresh_generation: 1,
            refresh_expires: after(now, terms.refresh_lifetime),
        });
        let refresh_token = self.issue(Kind::Refresh, id, terms);
        self.pair(id, refresh_token, terms)
    }

    /// Rotates: the old access token is dead when this returns, and so is `refresh_token` unless `keep_refresh_token`.
    pub(super) fn rotate(
        &mut self,
        refresh_token: &str,
        terms: Terms,
        keep_refresh_token: bool,
        now: DateTime<Utc>,
    ) -> Result<Pair, Refusal> {
        let id = self.check_refresh_token(refresh_token, now)?;
        let grant = &mut self.grants[id];
        grant.generation += 1;
        grant.access_expires = after(now, terms.access_lifetime);
        if keep_refresh_token {
            return Ok(self.pair(id, refresh_token.to_owned(), terms));
        }
        grant.refresh_generation = grant.generation;
        grant.refresh_expires = after(now, terms.refresh_lifetime);
        let refresh_token = self.issue(Kind::Refresh, id, terms);
        Ok(self.pair(id, refresh_token, terms))
    }

    /// The index of the grant that `refresh_token` may rotate.
    fn check_refresh_token(
        &self,
        refresh_token: &str,
        now: DateTime<Utc>,
    ) -> Result<usize, Refusal> {
        let issued = self
            .tokens
            .get(refresh_token)
            .filter(|issued| issued.kind == Kind::Refresh);
        let issued = issued.ok_or(Refusal::Unknown)?;
        let grant = &self.grants[issued.grant];
        if issued.generation != grant.refresh_generation {
            Err(Refusal::Spent)
        } else if grant.revoked {
            Err(Refusal::Revoked)
        } else if now >= grant.refresh_expires {
            Err(Refusal::Expired)
        } else {
            Ok(issued.grant)
        }
    }

    /// Whether `token` is a refresh token that a rotation has replaced.
    pub(super) fn is_spent(&self, token: &str) -> bool {
        let issued = self
            .tokens
            .get(token)
            .filter(|issued| issued.kind == Kind::Refresh);
        issued
            .is_some_and(|issued| issued.generation != self.grants[issued.grant].refresh_generation)
    }

    /// Judges the token of an API request.
    pub(super) fn judge(&self, access_token: &str, now: DateTime<Utc>) -> Result<Bearer, Denial> {
        let issued = self
            .tokens
            .get(access_token)
            .filter(|issued| issued.kind == Kind::Access);
        let issued = issued.ok_or(Denial::Unknown)?;
        let grant = &self.grants[issued.grant];
        if grant.revoked || issued.generation != grant.generation || now >= grant.access_expires {
            return Err(Denial::Dead(issued.generation));
        }
        Ok(Bearer {
            generation: issued.generation,
            scopes: Arc::clone(&grant.scopes),
            owner: grant.owner,
        })
    }

    /// What introspection tells about `token`, an access or a refresh token; nothing if it is dead or unknown.
    pub(super) fn introspect(&self, token: &str, now: DateTime<Utc>) -> Option<Living> {
        let issued = self.tokens.get(token)?;
        let grant = &self.grants[issued.grant];
        let (current, expires) = match issued.kind {
            Kind::Access => (grant.generation, grant.access_expires),
            Kind::Refresh => (grant.refresh_generation, grant.refresh_expires),
        };
        let lives = !grant.revoked && issued.generation == current && now < expires;
        lives.then(|| Living {
            expires,
            scopes: Arc::clone(&grant.scopes),
            owner: grant.owner,
        })
    }

    /// Revokes the grant to which `token` belongs, dead or alive: every token of it dies. Whether that changed anything.
    pub(super) fn revoke(&mut self, token: &str) -> bool {
        let Some(issued) = self.tokens.get(token) else {
            return false;
        };
        !std::mem::replace(&mut self.grants[issued.grant].revoked, true)
    }

    /// Revokes all grants.
    pub(super) fn revoke_all(&mut self) {
        for grant in &mut self.grants {
            grant.revoked = true;
        }
    }

    /// Every living access token dies; refresh tokens live on.
    pub(super) fn expire_access_tokens(&mut self, now: DateTime<Utc>) {
        for grant in &mut self.grants {
            grant.access_expires = grant.access_expires.min(now);
        }
    }

    /// The current pair of a grant, with a new access token.
    fn pair(&mut self, id: usize, refresh_token: String, terms: Terms) -> Pair {
        let access_token = self.issue(Kind::Access, id, terms);
        let grant = &self.grants[id];
        Pair::new(
            (access_token, refresh_token),
            terms.access_lifetime,
            grant.access_expires,
            &grant.scopes,
            grant.owner,
            grant.generation,
        )
    }

    /// A new token of the grant's current generation, remembered for ever.
    fn issue(&mut self, kind: Kind, id: usize, terms: Terms) -> String {
        let generation = self.grants[id].generation;
        let token = token_value(kind, id, generation, terms.token_length);
        self.tokens.insert(
            token.clone(),
            Issued {
                kind,
                grant: id,
                generation,
            },
        );
        token
    }
}

/// A token's text. It begins and ends as Lucid's may: `=` is outside what base64url and careless patterns allow.
fn token_value(kind: Kind, grant: usize, generation: u64, length: usize) -> String {
    let kind = match kind {
        Kind::Access => "AT",
        Kind::Refresh => "RT",
    };
    let mut token = format!(
        "oauth2-{kind}-{grant}-{generation}-{:032x}",
        fastrand::u128(..)
    );
    while token.len() + 1 < length {
        token.push(fastrand::alphanumeric());
    }
    token.push('=');
    token
}

/// `lifetime` after `now`; a lifetime beyond the calendar never ends.
pub(super) fn after(now: DateTime<Utc>, lifetime: Duration) -> DateTime<Utc> {
    // One day before the end of the calendar, so that the moment can be told in any zone.
    let never = DateTime::<Utc>::MAX_UTC - TimeDelta::days(1);
    let lifetime = TimeDelta::from_std(lifetime).ok();
    lifetime
        .and_then(|lifetime| now.checked_add_signed(lifetime))
        .map_or(never, |then| then.min(never))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        access_lifetime: Duration::from_secs(3600),
        refresh_lifetime: Duration::from_secs(86_400),
        token_length: 0,
    };

    const OWNER: Owner = Owner::User(4711);

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000, 0).expect("a date in 2030")
    }

    fn approved() -> (Grants, Pair) {
        let mut grants = Grants::default();
        let pair = grants.approve(vec![String::from("offline_access")], OWNER, TERMS, start());
        (grants, pair)
    }

    #[test]
    fn a_rotation_kills_both_old_tokens_at_once() {
        let (mut grants, first) = approved();
        let second = grants
            .rotate(&first.refresh_token, TERMS, false, start())
            .expect("the first pair is good");

        assert_eq!(
            grants
                .judge(&first.access_token, start())
                .expect_err("replaced"),
            Denial::Dead(1)
        );
        assert_eq!(
            grants
                .judge(&second.access_token, start())
                .expect("current")
                .generation,
            2
        );
        assert!(grants.is_spent(&first.refresh_token));
        assert_eq!(
            grants.rotate(&first.refresh_token, TERMS, false, start()),
            Err(Refusal::Spent)
        );
        assert!(
            grants
                .rotate(&second.refresh_token, TERMS, false, start())
                .is_ok(),
            "a reuse alone harms nothing"
        );
    }

    #[test]
    fn a_rotation_may_keep_the_refresh_token() {
        let (mut grants, first) = approved();
        let second = grants
            .rotate(&first.refresh_token, TERMS, true, start())
            .expect("the first pair is good");

        assert_eq!(second.refresh_token, first.refresh_token);
        assert!(!grants.is_spent(&first.refresh_token));
        assert_eq!(
            grants
                .judge(&first.access_token, start())
                .expect_err("replaced"),
            Denial::Dead(1)
        );
        assert!(
            grants
                .rotate(&first.refresh_token, TERMS, false, start())
                .is_ok()
        );
    }

    #[test]
    fn tokens_expire_at_the_end_of_their_lifetime() {
        let (mut grants, pair) = approved();
        let hour = start() + TimeDelta::hours(1);
        assert!(
            grants
                .judge(&pair.access_token, hour - TimeDelta::milliseconds(1))
                .is_ok()
        );
        assert_eq!(
            grants.judge(&pair.access_token, hour).expect_err("expired"),
            Denial::Dead(1)
        );

        let day = start() + TimeDelta::days(1);
        assert!(
            grants
                .introspect(&pair.refresh_token, day - TimeDelta::milliseconds(1))
                .is_some()
        );
        assert!(grants.introspect(&pair.refresh_token, day).is_none());
        assert_eq!(
            grants.rotate(&pair.refresh_token, TERMS, false, day),
            Err(Refusal::Expired)
        );
    }

    #[test]
    fn expiring_access_tokens_leaves_refresh_tokens() {
        let (mut grants, pair) = approved();
        grants.expire_access_tokens(start());
        assert_eq!(
            grants
                .judge(&pair.access_token, start())
                .expect_err("expired"),
            Denial::Dead(1)
        );
        assert!(
            grants
                .rotate(&pair.refresh_token, TERMS, false, start())
                .is_ok()
        );
    }

    #[test]
    fn revoking_any_token_kills_the_whole_grant_and_no_other() {
        let (mut grants, pair) = approved();
        let other = grants.approve(Vec::new(), OWNER, TERMS, start());
        assert!(grants.revoke(&pair.access_token));
        assert!(!grants.revoke(&pair.refresh_token), "dead already");
        assert!(!grants.revoke("nonsense"));
        assert_eq!(
            grants
                .judge(&pair.access_token, start())
                .expect_err("revoked"),
            Denial::Dead(1)
        );
        assert_eq!(
            grants.rotate(&pair.refresh_token, TERMS, false, start()),
            Err(Refusal::Revoked)
        );
        assert!(grants.judge(&other.access_token, start()).is_ok());

        grants.revoke_all();
        assert!(grants.judge(&other.access_token, start()).is_err());
    }

    #[test]
    fn a_grant_keeps_its_owner() {
        let mut grants = Grants::default();
        let owner = Owner::Account(52);
        let first = grants.approve(Vec::new(), owner, TERMS, start());
        let second = grants
            .rotate(&first.refresh_token, TERMS, false, start())
            .expect("the first pair is good");
        assert_eq!((first.owner, second.owner), (owner, owner));
        let bearer = grants.judge(&second.access_token, start());
        assert_eq!(bearer.expect("current").owner, owner);
        let living = grants.introspect(&second.refresh_token, start());
        assert_eq!(living.expect("current").owner, owner);

        let written = serde_json::to_value(&second).expect("a map");
        assert_eq!(written["account_id"], 52);
        assert_eq!(written.get("user_id"), None);
    }

    #[test]
    fn a_token_serves_its_own_purpose_only() {
        let (mut grants, pair) = approved();
        assert_eq!(
            grants
                .judge(&pair.refresh_token, start())
                .expect_err("not an access token"),
            Denial::Unknown
        );
        assert_eq!(
            grants.rotate(&pair.access_token, TERMS, false, start()),
            Err(Refusal::Unknown)
        );
    }

    #[test]
    fn endless_lifetimes_are_possible() {
        let mut grants = Grants::default();
        let terms = Terms {
            access_lifetime: Duration::MAX,
            refresh_lifetime: Duration::MAX,
            token_length: 0,
        };
        let pair = grants.approve(Vec::new(), OWNER, terms, start());
        assert!(grants.judge(&pair.access_token, start()).is_ok());
    }

    #[test]
    fn tokens_are_padded_to_the_length_asked_for() {
        assert_eq!(token_value(Kind::Access, 0, 1, 5000).len(), 5000);
        assert_ne!(
            token_value(Kind::Access, 0, 1, 0),
            token_value(Kind::Access, 0, 1, 0)
        );
    }

    #[test]
    fn a_pair_is_written_as_the_example_script_writes_it() {
        let (_, pair) = approved();
        assert_eq!(pair.expires, 1_900_003_600_000);
        let (seconds, micros) = pair.expiration.split_once('.').expect("a fraction");
        assert_eq!(
            (seconds.len(), micros),
            ("2030-03-17T18:46:40".len(), "000000")
        );
    }
}
