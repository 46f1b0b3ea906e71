//! Names of files in the configuration: where systemd keeps what it gives to a service alone is known at the start only.

use super::Environment;
use super::raw::{Found, Source};

/// The variable that systemd sets for `LoadCredential=` and its like (systemd.exec(5)).
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The name of the file, with `$CREDENTIALS_DIRECTORY/` at its beginning replaced by what that says; nothing else is
/// replaced. `None` where that variable is not set, which was reported.
pub(super) fn expanded(
    source: &mut Source<'_>,
    found: &Found<String>,
    environment: &dyn Environment,
) -> Option<String> {
    let below = found.value.strip_prefix('$');
    let below = below.and_then(|rest| rest.strip_prefix(VARIABLE)?.strip_prefix('/'));
    let Some(name) = below else {
        return Some(found.value.clone());
    };
    if let Some(directory) = environment.var(VARIABLE) {
        return Some(format!("{directory}/{name}"));
    }
    let message = format!(
        "the variable {VARIABLE} is not set: systemd sets it for a service with LoadCredential={name}:/path/of/the/file; name the file in full where it is no such service"
    );
    source.problem(Some(&found.at), &found.key, message);
    None
}
