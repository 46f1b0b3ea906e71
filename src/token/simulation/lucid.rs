//! The server's side: grants with strict rotation, and what is known of every refresh token that was ever sent.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::Instant;

use super::world::Life;

/// Everything that Lucid knows, and what the judge of the simulation wants to know.
#[derive(Debug)]
pub(super) struct Lucid {
    pub(super) access_lifetime: Duration,
    pub(super) refresh_lifetime: Duration,
    grants: Vec<Grant>,
    /// Every refresh token that was ever issued.
    pub(super) refresh_tokens: BTreeMap<String, RefreshToken>,
}

#[derive(Debug)]
struct Grant {
    revoked: bool,
    number: u64,
    access_token: String,
    access_expires: SystemTime,
    refresh_token: String,
    refresh_expires: SystemTime,
}

/// What is known of a refresh token.
#[derive(Debug, Default)]
pub(super) struct RefreshToken {
    grant: usize,
    /// When it was issued.
    pub(super) issued: Option<SystemTime>,
    /// The moments at which it was sent and what is known of that.
    pub(super) posts: Vec<Post>,
    /// The exchange that spent it.
    pub(super) spent: Option<Spent>,
    /// Whether a process has said that the rotation of it was lost.
    pub(super) called_lost: bool,
    /// When introspection last said, to somebody who heard it, whether it lives.
    pub(super) introspected: Option<Instant>,
}

/// One sending of a refresh token.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
    /// Whether the sender learned that it had no effect.
    pub(super) harmless: bool,
}

/// An exchange that took effect.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    pub(super) by: Life,
    pub(super) successor: String,
    /// Whether the sender has the answer.
    pub(super) delivered: bool,
}

impl Lucid {
    pub(super) fn new(access_lifetime: Duration, refresh_lifetime: Duration) -> Self {
        Self {
            access_lifetime,
            refresh_lifetime,
            grants: Vec::new(),
            refresh_tokens: BTreeMap::new(),
        }
    }

    /// A person approves a login: its first pair, as the token endpoint answers it.
    pub(super) fn approve(&mut self, now: SystemTime) -> serde_json::Value {
        self.grants.push(Grant {
            revoked: false,
            number: 0,
            access_token: String::new(),
            access_expires: now,
            refresh_token: String::new(),
            refresh_expires: now,
        });
        self.issue(self.grants.len() - 1, now)
    }

    fn issue(&mut self, index: usize, now: SystemTime) -> serde_json::Value {
        let grant = &mut self.grants[index];
        grant.number += 1;
        grant.access_token = format!("AT-{index}-{}", grant.number);
        grant.refresh_token = format!("RT-{index}-{}", grant.number);
        grant.access_expires = now + self.access_lifetime;
        grant.refresh_expires = now + self.refresh_lifetime;
        let known = RefreshToken {
            grant: index,
            issued: Some(now),
            ..RefreshToken::default()
        };
        self.refresh_tokens
            .insert(grant.refresh_token.clone(), known);
        json!({
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
            "expires_in": self.access_lifetime.as_secs(),
            "scopes": ["offline_access"],
            "token_type": "bearer",
            "user_id": index,
        })
    }

    /// A refresh arrives.
    pub(super) fn refresh(
        &mut self,
        refresh_token: &str,
        by: Life,
        now: SystemTime,
    ) -> Result<serde_json::Value, serde_json::Value> {
        if !self.is_living(refresh_token, now) {
            return Err(json!({
                "error": "invalid_grant",
                "error_description": "Invalid client id, client secret, or refresh token",
                "error_uri": "",
            }));
        }
        let index = self.refresh_tokens[refresh_token].grant;
        let answer = self.issue(index, now);
        let successor = self.grants[index].refresh_token.clone();
        if let Some(known) = self.refresh_tokens.get_mut(refresh_token) {
            known.spent = Some(Spent {
                by,
                successor,
                delivered: false,
            });
        }
        Ok(answer)
    }

    fn grant_of(&self, refresh_token: &str) -> Option<&Grant> {
        let known = self.refresh_tokens.get(refresh_token)?;
        self.grants.get(known.grant)
    }

    /// Whether a refresh token can be exchanged.
    pub(super) fn is_living(&self, refresh_token: &str, now: SystemTime) -> bool {
        self.grant_of(refresh_token).is_some_and(|grant| {
            !grant.revoked && grant.refresh_token == refresh_token && now < grant.refresh_expires
        })
    }

    /// Whether a person or time has ended the grant of a refresh token.
    pub(super) fn is_over(&self, refresh_token: &str, now: SystemTime) -> bool {
        self.grant_of(refresh_token)
            .is_none_or(|grant| grant.revoked || now >= grant.refresh_expires)
    }

    /// Whether the API takes an access token.
    pub(super) fn accepts(&self, access_token: &str, now: SystemTime) -> bool {
        let grant = self
            .grants
            .iter()
            .rev()
            .find(|grant| grant.access_token == access_token);
        grant.is_some_and(|grant| !grant.revoked && now < grant.access_expires)
    }

    pub(super) fn revoke(&mut self, refresh_token: &str) {
        if let Some(index) = self
            .refresh_tokens
            .get(refresh_token)
            .map(|known| known.grant)
        {
            self.grants[index].revoked = true;
        }
    }
}
