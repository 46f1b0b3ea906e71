//! What a login or a rotation yields.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use serde::Serialize;

use super::CLIENT_ID;

/// The two tokens of a grant with what the token endpoint said about them, named as in the `token_info.json` of Lucid's
/// example script. Serialised, it is such a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What API requests carry.
    pub access_token: String,
    /// What the next rotation costs.
    pub refresh_token: String,
    /// The access token's lifetime in seconds, counted from its issue.
    pub expires_in: u64,
    /// When the access token dies, in milliseconds since the epoch.
    pub expires: i64,
    /// The same moment in local time without a zone and with microseconds, as python's `datetime.isoformat()` prints it:
    /// the example script's own addition.
    pub expiration: String,
    /// The client to which the pair was issued.
    pub client_id: String,
    /// What the grant allows.
    pub scopes: Vec<String>,
    /// Always `bearer`.
    pub token_type: String,
    /// On whose behalf the tokens act; serialised as `user_id` or `account_id`.
    #[serde(flatten)]
    pub owner: Owner,
    /// The ordinal of this pair within its grant; the first is 1. Lucid does not tell it.
    #[serde(skip)]
    pub generation: u64,
}

/// On whose behalf the tokens of a grant act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Owner {
    /// The user with this id, who approved the grant.
    #[serde(rename = "user_id")]
    User(u64),
    /// The account with this id, one of whose users approved the grant.
    #[serde(rename = "account_id")]
    Account(u64),
}

impl Owner {
    /// The member that tells it in the token endpoint's answers.
    pub(super) fn member(self) -> (&'static str, u64) {
        match self {
            Owner::User(id) => ("user_id", id),
            Owner::Account(id) => ("account_id", id),
        }
    }
}

impl Pair {
    /// A pair of access and refresh token, in this order.
    pub(super) fn new(
        (access_token, refresh_token): (String, String),
        lifetime: Duration,
        expires: DateTime<Utc>,
        scopes: &[String],
        owner: Owner,
        generation: u64,
    ) -> Pair {
        let local = expires.with_timezone(&Local).naive_local();
        Pair {
            access_token,
            refresh_token,
            expires_in: lifetime.as_secs(),
            expires: expires.timestamp_millis(),
            expiration: local.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
            client_id: CLIENT_ID.to_owned(),
            scopes: scopes.to_vec(),
            token_type: String::from("bearer"),
            owner,
            generation,
        }
    }
}
