//! The three ways in which the configuration can give a secret: a variable's name, a file's name, or the value itself.

use std::path::Path;

use super::raw::{Source, Table};
use super::{Environment, Found};
use crate::secret::{ExposeSecret, Secret};

/// The keys of one secret, and the variable that is read where no key is given.
pub(super) struct Keys {
    inline: &'static str,
    env: &'static str,
    file: &'static str,
    usual_variable: &'static str,
    /// Whether the value itself may stand in a file that others can read.
    public: bool,
}

pub(super) const CLIENT_ID: Keys = Keys {
    inline: "client_id",
    env: "client_id_env",
    file: "client_id_file",
    usual_variable: "LUCID_CLIENT_ID",
    public: true,
};
pub(super) const CLIENT_SECRET: Keys = Keys {
    inline: "client_secret",
    env: "client_secret_env",
    file: "client_secret_file",
    usual_variable: "LUCID_CLIENT_SECRET",
    public: false,
};
pub(super) const REFRESH_TOKEN: Keys = Keys {
    inline: "refresh_token",
    env: "refresh_token_env",
    file: "refresh_token_file",
    usual_variable: "LUCID_REFRESH_TOKEN",
    public: false,
};

/// What looking a secret up needs.
pub(super) struct Secrets<'a> {
    file: Option<&'a Path>,
    environment: &'a dyn Environment,
    /// Every variable that may hold one, whether it was read or not.
    variables: Vec<String>,
}

impl<'e> Secrets<'e> {
    pub(super) fn new(file: Option<&'e Path>, environment: &'e dyn Environment) -> Self {
        Self {
            file,
            environment,
            variables: Vec::new(),
        }
    }

    /// The names of all variables that may hold a secret.
    pub(super) fn into_variables(mut self) -> Vec<String> {
        self.variables.sort_unstable();
        self.variables.dedup();
        self.variables
    }

    /// Takes all three keys from `table` and answers the value that one of them, or the usual variable, gives.
    /// Reports a value that is `required` and not there, and where it could come from.
    pub(super) fn take<'a>(
        &mut self,
        source: &mut Source<'a>,
        table: &mut Table<'a>,
        keys: &Keys,
        required: bool,
    ) -> Option<Secret> {
        let inline = table.string(source, keys.inline);
        let env = table.string(source, keys.env);
        let file = table.string(source, keys.file);
        self.variables.push(keys.usual_variable.to_owned());
        self.variables
            .extend(env.as_ref().map(|env| env.value.clone()));
        let given: Vec<_> = [&inline, &env, &file].into_iter().flatten().collect();
        if let [_, .., last] = given[..] {
            let message = format!(
                "only one of {}, {} and {} is accepted",
                keys.inline, keys.env, keys.file
            );
            source.problem(Some(&last.at), &last.key, message);
            return None;
        }
        match (inline, env, file) {
            (Some(inline), _, _) => self.inline(source, inline, keys),
            (_, _, Some(file)) => from_file(source, &file),
            (_, Some(env), _) => {
                let value = self.environment.var(&env.value);
                if value.is_none() && required {
                    source.problem(
                        Some(&env.at),
                        &env.key,
                        format!("the variable {} is not set", env.value),
                    );
                }
                value.map(Secret::from)
            }
            (None, None, None) => {
                let value = self.environment.var(keys.usual_variable);
                if value.is_none() && required {
                    let message = format!(
                        "missing: set the variable {}, or give {} or {}",
                        keys.usual_variable, keys.env, keys.file
                    );
                    source.problem(None, &table.key(keys.inline), message);
                }
                value.map(Secret::from)
            }
        }
    }

    fn inline(&self, source: &mut Source<'_>, found: Found<String>, keys: &Keys) -> Option<Secret> {
        if !keys.public && self.file.is_some_and(readable_by_others) {
            let message = format!(
                "a secret may stand here only when the file is readable by its owner alone: run chmod 600 on it, or use {} or {}",
                keys.env, keys.file
            );
            source.problem(Some(&found.at), &found.key, message);
            return None;
        }
        if found.value.is_empty() {
            source.problem(
                Some(&found.at),
                &found.key,
                "expected a value that is not empty",
            );
            return None;
        }
        Some(Secret::from(found.value))
    }
}

/// The value of something that is configured like a secret but is none.
pub(super) fn plain(value: &Secret) -> String {
    value.expose_secret().to_owned()
}

fn from_file(source: &mut Source<'_>, found: &Found<String>) -> Option<Secret> {
    match std::fs::read_to_string(&found.value) {
        Ok(text) if !text.trim().is_empty() => Some(Secret::from(text.trim().to_owned())),
        Ok(_) => {
            source.problem(
                Some(&found.at),
                &found.key,
                format!("the file {} is empty", found.value),
            );
            None
        }
        Err(error) => {
            source.problem(
                Some(&found.at),
                &found.key,
                format!("cannot read the file {}: {error}", found.value),
            );
            None
        }
    }
}

#[cfg(unix)]
fn readable_by_others(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}
