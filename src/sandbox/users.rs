//! The account's people: one profile and a list long enough to have pages.

use http::StatusCode;
use serde_json::{Value, json};

use super::paging;
use super::pair::Owner;
use super::reply::{self, Fault, Reply};
use super::resources::Call;

/// The user who approves grants unless the behaviour names another: "Ada Demo".
pub(super) const USER_ID: u64 = 4711;

/// The account to which everybody belongs.
pub(super) const ACCOUNT_ID: u64 = 52;

const NAMES: [&str; 7] = ["Ada", "Ben", "Cleo", "Dora", "Emil", "Finn", "Gwen"];

/// `GET /users/me/profile`
pub(super) fn profile(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&["user.profile"])?;
    // An account has no profile.
    let Some(Owner::User(id)) = call.bearer.map(|bearer| bearer.owner) else {
        return Err(Fault::forbidden());
    };
    let person = Person::of(id);
    let profile = json!({
        "id": id,
        "accountId": ACCOUNT_ID,
        "username": person.username,
        "email": person.email(),
        "fullName": person.name,
    });
    Ok(reply::json(StatusCode::OK, &profile))
}

/// A user, by what people call them.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) username: String,
    pub(super) name: String,
}

impl Person {
    /// The user with that id; those who are not in the list have a name too.
    pub(super) fn of(id: u64) -> Person {
        let listed = (USER_ID..).zip(NAMES).find(|(listed, _)| *listed == id);
        match listed {
            Some((_, name)) => Person {
                username: name.to_lowercase(),
                name: format!("{name} Demo"),
            },
            None => Person {
                username: format!("user{id}"),
                name: format!("User {id}"),
            },
        }
    }

    pub(super) fn email(&self) -> String {
        format!("{}@example.test", self.username)
    }
}

/// `GET /users`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&["account.user:readonly"])?;
    let users = (USER_ID..).take(NAMES.len()).map(user).collect();
    paging::answer(call, users)
}

fn user(id: u64) -> Value {
    let person = Person::of(id);
    json!({
        "userId": id,
        "accountId": ACCOUNT_ID,
        "email": person.email(),
        "username": person.username,
        "name": person.name,
        "enabled": true,
        "roles": if id == USER_ID { vec!["team-admin"] } else { Vec::new() },
    })
}
