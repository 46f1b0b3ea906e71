//! `kind` of a credential: a grant that is refreshed, or an API key that stays as it is.

use super::raw::{Source, Table};
use super::secrets::{API_KEY, CLIENT_ID, Secrets};
use super::{Kind, Need};
use crate::secret::{Secret, is_one_word};

/// The keys of a credential that are about a login or a refresh.
const OF_A_GRANT: [&str; 19] = [
    "client_id",
    "client_id_env",
    "client_id_file",
    "client_secret",
    "client_secret_env",
    "client_secret_file",
    "refresh_token",
    "refresh_token_env",
    "refresh_token_file",
    "token_url",
    "authorize_url",
    "redirect_url",
    "scopes",
    "pkce",
    "store",
    "refresh_margin",
    "rotate_idle_after",
    "on_login_needed",
    "on_rotated",
];

/// Those that are about an API key.
const OF_A_KEY: [&str; 3] = ["api_key", "api_key_env", "api_key_file"];

/// Takes `kind` and what belongs to an API key, and reports what belongs to the other kind.
pub(super) fn check_kind<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    secrets: &mut Secrets<'_>,
) -> Kind {
    let is_key = match table.string(source, "kind") {
        None => is_implied(source, table, secrets),
        Some(kind) => match kind.value.as_str() {
            "oauth" => false,
            "api_key" => true,
            _ => {
                let expected = "expected \"oauth\" or \"api_key\"";
                source.problem(Some(&kind.at), &kind.key, expected);
                // What else is wrong depends on what was meant.
                table.has_any(&OF_A_KEY) && !table.has_any(&OF_A_GRANT)
            }
        },
    };
    if !is_key {
        let message = "this is for kind = \"api_key\", and the kind here is \"oauth\"; leave it out, or set kind";
        table.refuse(source, &OF_A_KEY, message);
        return Kind::OAuth;
    }
    let message = "this is for kind = \"oauth\": with an API key there is no login and no refresh; leave it out, or set kind";
    table.refuse(source, &OF_A_GRANT, message);
    Kind::ApiKey(check_key(source, table, secrets))
}

/// The variable alone is enough where nothing is said of a grant: `LUCID_API_KEY=… lucid-proxy serve`.
///
/// A key in the file needs the word: what follows from it, that there is no login, should not depend on a variable. But it
/// is that which is missing then, and nothing of a grant.
fn is_implied(source: &mut Source<'_>, table: &Table<'_>, secrets: &Secrets<'_>) -> bool {
    let is_of_a_grant = table.has_any(&OF_A_GRANT);
    if let Some((name, at)) = table.first(&OF_A_KEY).filter(|_| !is_of_a_grant) {
        let message = "needs kind = \"api_key\" beside it";
        source.problem(Some(at), &table.key(name), message);
        return true;
    }
    let is_empty = secrets.usual_is_no_value(&API_KEY) && secrets.need() != Need::Store;
    !is_of_a_grant
        && !table.has_any(&OF_A_KEY)
        && (secrets.usual_is_set(&API_KEY) || is_empty)
        && !secrets.usual_is_set(&CLIENT_ID)
}

fn check_key<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    secrets: &mut Secrets<'_>,
) -> Secret {
    let nothing = || Secret::from("");
    let required = secrets.need() != Need::Store;
    let given = secrets.take_with_place(source, table, &API_KEY, required);
    let Some((key, at)) = given else {
        // Reported already, or nothing that the command needs.
        return nothing();
    };
    if is_one_word(&key) {
        return key;
    }
    let message = "what is given is no API key: expected one word of visible ASCII characters, as Lucid shows it";
    source.problem(at.as_ref(), &table.key("api_key"), message);
    nothing()
}
