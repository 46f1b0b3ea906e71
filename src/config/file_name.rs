//! Names of files in the configuration: where systemd keeps what it gives to a service alone is known at the start only.

use std::path::Path;

use super::Environment;
use super::raw::{Found, Source};

/// The variable that systemd sets for `LoadCredential=` and its like (systemd.exec(5)).
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The name of the file, with `$CREDENTIALS_DIRECTORY/` at its beginning replaced by what that says; nothing else is
/// replaced.
///
/// # Errors
///
/// Where it is not known which file is meant, which was reported where it is a problem; the reason.
pub(super) fn expanded(
    source: &mut Source<'_>,
    found: &Found<String>,
    environment: &dyn Environment,
) -> Result<String, String> {
    let Some(name) = below_credentials(&found.value) else {
        return match misspelt(&found.value) {
            Some(message) => {
                source.problem(Some(&found.at), &found.key, message);
                Err(message.to_owned())
            }
            None => Ok(found.value.clone()),
        };
    };
    if let Some(directory) = environment.var(VARIABLE) {
        return Ok(format!("{directory}/{name}"));
    }
    let message = format!(
        "the variable {VARIABLE} is not set: systemd sets it for a service with LoadCredential={name}:/path/of/the/file; name the file in full where it is no such service"
    );
    source.unread(&found.at, &found.key, message.clone(), true);
    Err(message)
}

/// Whether a name still begins with the variable: what it stands for is not known.
pub(super) fn is_unknown(file: &Path) -> bool {
    file.to_str().and_then(below_credentials).is_some()
}

fn below_credentials(name: &str) -> Option<&str> {
    name.strip_prefix('$')?
        .strip_prefix(VARIABLE)?
        .strip_prefix('/')
}

/// What a shell would replace would be a folder of that name here, which nobody means.
fn misspelt(name: &str) -> Option<&'static str> {
    if name.starts_with("${") {
        Some(
            "a variable is written without braces: $CREDENTIALS_DIRECTORY/NAME is accepted, and no other variable; name the file in full elsewhere",
        )
    } else if name.starts_with('$') {
        Some(
            "$CREDENTIALS_DIRECTORY/NAME, which systemd sets, is accepted, and no other variable; name the file in full",
        )
    } else if name.starts_with("~/") {
        Some("~ is not replaced by a home directory; name the file in full")
    } else {
        None
    }
}
