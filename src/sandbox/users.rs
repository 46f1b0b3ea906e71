//! The account's people: one profile and a list long enough to have pages.

use http::StatusCode;
use serde_json::{Value, json};

use super::paging;
use super::reply::{self, Fault, Reply};
use super::resources::Call;

/// The user who approves every grant: "Ada Demo".
pub(super) const USER_ID: u64 = 4711;

/// The account to which everybody belongs.
pub(super) const ACCOUNT_ID: u64 = 52;

const NAMES: [&str; 7] = ["Ada", "Ben", "Cleo", "Dora", "Emil", "Finn", "Gwen"];

/// `GET /users/me/profile`
pub(super) fn profile(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&["user.profile"])?;
    let profile = json!({
        "id": USER_ID,
        "accountId": ACCOUNT_ID,
        "username": "ada",
        "email": "ada@example.test",
        "fullName": "Ada Demo",
    });
    Ok(reply::json(StatusCode::OK, &profile))
}

/// `GET /users`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&["account.user:readonly"])?;
    let users = (USER_ID..)
        .zip(NAMES)
        .map(|(id, name)| user(id, name))
        .collect();
    paging::answer(call, users)
}

fn user(id: u64, name: &str) -> Value {
    let username = name.to_lowercase();
    json!({
        "userId": id,
        "accountId": ACCOUNT_ID,
        "email": format!("{username}@example.test"),
        "username": username,
        "name": format!("{name} Demo"),
        "enabled": true,
        "roles": if id == USER_ID { vec!["team-admin"] } else { Vec::new() },
    })
}
