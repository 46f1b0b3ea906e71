//! The three ways in which the configuration can give a secret: a variable's name, a file's name, or the value itself.
//! What holds a secret at times, as the URL of a proxy does, is given so too.

use std::io::{ErrorKind, Read};
use std::path::Path;

use super::raw::{At, Source, Table};
use super::{Environment, Found, KEY_PREFIX, Need, file_name, file_readers};
use crate::secret::{ExposeSecret, Secret, Zeroize, Zeroizing};

/// Bytes of a file that holds a secret; more than any token has.
const LARGEST_SECRET: usize = 64 << 10;

/// Characters that a secret worth the name has.
const SHORTEST_SECRET: usize = 16;

/// The keys of one secret, and the variable that is read where no key is given.
pub(super) struct Keys {
    inline: &'static str,
    env: &'static str,
    file: &'static str,
    usual_variable: Option<&'static str>,
    /// Whether a value may stand in a file that others can read.
    is_public: fn(&str) -> bool,
    /// Whether a command that is about the store alone has a use for it.
    is_of_store: bool,
}

/// What the three keys of a secret say.
pub(super) enum Given {
    /// None of them is there.
    Nothing,
    /// What is there is not accepted, and that was reported.
    Wrong,
    /// The variable that one of them names is not set.
    Unset(Found<String>),
    /// The file that one of them names was not looked at, or could not be, for this reason.
    Unread(Found<String>),
    /// The value, and the key that gave it.
    Value(Found<Secret>),
}

pub(super) const CLIENT_ID: Keys = Keys {
    inline: "client_id",
    env: "client_id_env",
    file: "client_id_file",
    usual_variable: Some("LUCID_CLIENT_ID"),
    is_public: |_| true,
    is_of_store: true,
};
pub(super) const CLIENT_SECRET: Keys = Keys {
    inline: "client_secret",
    env: "client_secret_env",
    file: "client_secret_file",
    usual_variable: Some("LUCID_CLIENT_SECRET"),
    is_public: |_| false,
    is_of_store: true,
};
pub(super) const REFRESH_TOKEN: Keys = Keys {
    inline: "refresh_token",
    env: "refresh_token_env",
    file: "refresh_token_file",
    usual_variable: Some("LUCID_REFRESH_TOKEN"),
    is_public: |_| false,
    is_of_store: false,
};
pub(super) const API_KEY: Keys = Keys {
    inline: "api_key",
    env: "api_key_env",
    file: "api_key_file",
    usual_variable: Some("LUCID_API_KEY"),
    is_public: |_| false,
    is_of_store: false,
};
pub(super) const CLIENT_KEY: Keys = Keys {
    inline: "key",
    env: "key_env",
    file: "key_file",
    usual_variable: None,
    is_public: |_| false,
    is_of_store: false,
};
pub(super) const PROXY: Keys = Keys {
    inline: "proxy",
    env: "proxy_env",
    file: "proxy_file",
    usual_variable: None,
    // What stands before an @ is user and password.
    is_public: |url| !url.contains('@'),
    is_of_store: true,
};

/// What looking a secret up needs.
pub(super) struct Secrets<'a> {
    file: Option<&'a Path>,
    environment: &'a dyn Environment,
    need: Need,
    /// Every variable that may hold one, whether it was read or not.
    variables: Vec<String>,
}

impl<'e> Secrets<'e> {
    pub(super) fn new(
        file: Option<&'e Path>,
        environment: &'e dyn Environment,
        need: Need,
    ) -> Self {
        Self {
            file,
            environment,
            need,
            // Whether they are read or not: a program's kind of credential does not say what its environment holds.
            variables: [CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, API_KEY]
                .iter()
                .filter_map(|keys| keys.usual_variable.map(str::to_owned))
                .collect(),
        }
    }

    /// The names of all variables that may hold a secret.
    pub(super) fn into_variables(mut self) -> Vec<String> {
        self.variables.sort_unstable();
        self.variables.dedup();
        self.variables
    }

    /// Whether the variable that is read where no key is given is set to what is no value.
    pub(super) fn usual_is_no_value(&self, keys: &Keys) -> bool {
        let usual = keys.usual_variable;
        usual.is_some_and(|usual| {
            self.environment.is_set(usual) && self.environment.var(usual).is_none()
        })
    }

    /// Whether the variable that is read where no key is given has a value.
    pub(super) fn usual_is_set(&self, keys: &Keys) -> bool {
        let usual = keys.usual_variable;
        usual.is_some_and(|usual| self.environment.var(usual).is_some())
    }

    /// How much of the configuration the command needs.
    pub(super) fn need(&self) -> Need {
        self.need
    }

    /// Where variables are read.
    pub(super) fn environment(&self) -> &'e dyn Environment {
        self.environment
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
        let found = self.take_with_place(source, table, keys, required);
        found.map(|(value, _)| value)
    }

    /// As [`Secrets::take`], with the place in the file, where that names it.
    pub(super) fn take_with_place<'a>(
        &mut self,
        source: &mut Source<'a>,
        table: &mut Table<'a>,
        keys: &Keys,
        required: bool,
    ) -> Option<(Secret, Option<At>)> {
        let usual = keys.usual_variable;
        match self.given(source, table, keys) {
            Given::Value(found) => Some((found.value, Some(found.at))),
            Given::Wrong | Given::Unread(_) => None,
            Given::Unset(env) => {
                if required {
                    source.problem(Some(&env.at), &env.key, self.unset(&env.value));
                }
                None
            }
            Given::Nothing => {
                let value = usual.and_then(|usual| self.environment.var(usual));
                if value.is_none() && required {
                    let message = self.missing(keys);
                    source.problem(None, &table.key(keys.inline), message);
                }
                value.map(|value| (Secret::from(value), None))
            }
        }
    }

    /// What is said of a value that nothing gives.
    fn missing(&self, keys: &Keys) -> String {
        let set = match keys.usual_variable {
            Some(usual) if self.environment.is_set(usual) => {
                format!("{}; correct it, or ", self.unset(usual))
            }
            Some(usual) => format!("missing: set the variable {usual}, or "),
            None => "missing: ".to_owned(),
        };
        format!("{set}give {} or {}", keys.env, keys.file)
    }

    /// What is said of a variable that has no value. What cannot be its name, or is an unusual one, is not repeated: it
    /// may be the secret itself.
    pub(super) fn unset(&self, variable: &str) -> String {
        let is_usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let is_set = self.environment.is_set(variable);
        match variable.chars().all(is_usual) {
            true if is_set => format!("the variable {variable} is set, but empty or no UTF-8 text"),
            true => format!("the variable {variable} is not set"),
            false => "the name of a variable is accepted, and the one with this name is not set"
                .to_owned(),
        }
    }

    /// Takes all three keys from `table` and answers what they say.
    pub(super) fn given<'a>(
        &mut self,
        source: &mut Source<'a>,
        table: &mut Table<'a>,
        keys: &Keys,
    ) -> Given {
        let mut inline = table.string(source, keys.inline);
        let env = table.string(source, keys.env);
        let file = table.string(source, keys.file);
        self.variables
            .extend(env.as_ref().map(|env| env.value.clone()));
        let given: Vec<_> = [&inline, &env, &file].into_iter().flatten().collect();
        if let [_, .., last] = given[..] {
            let message = format!(
                "only one of {}, {} and {} is accepted",
                keys.inline, keys.env, keys.file
            );
            source.problem(Some(&last.at), &last.key, message);
            return Given::Wrong;
        }
        let found = |found: &Found<String>, value: Secret| Found {
            value,
            key: found.key.clone(),
            at: found.at.clone(),
        };
        let value = match (&mut inline, &env, &file) {
            (Some(inline), _, _) => self
                .inline(source, inline, keys)
                .map(|value| found(inline, value)),
            (_, Some(env), _) => match self.environment.var(&env.value) {
                Some(value) => Some(found(env, Secret::from(value))),
                None => return Given::Unset(env.clone()),
            },
            (_, _, Some(file)) => match self.secret_in(source, file, keys) {
                Ok(value) => Some(found(file, value)),
                Err(value) => {
                    let (key, at) = (file.key.clone(), file.at.clone());
                    return Given::Unread(Found { value, key, at });
                }
            },
            (None, None, None) => return Given::Nothing,
        };
        if let Some(mut inline) = inline {
            inline.value.zeroize();
        }
        value.map_or(Given::Wrong, Given::Value)
    }

    /// The content of a file that is looked at; else why there is none, which was reported where it is a problem.
    fn secret_in(
        &self,
        source: &mut Source<'_>,
        file: &Found<String>,
        keys: &Keys,
    ) -> Result<Secret, String> {
        if self.need == Need::Store && !keys.is_of_store {
            return Err("the command has no use for it".to_owned());
        }
        let name = file_name::expanded(source, file, self.environment)?;
        if file.value.starts_with(KEY_PREFIX) {
            let message = "what is given is a key and not the name of a file: write it into a file that is readable by its owner alone, and name that here";
            source.problem(Some(&file.at), &file.key, message);
            return Err(message.to_owned());
        }
        let secret = read(&name).map_err(|(message, is_elsewhere)| {
            source.unread(&file.at, &file.key, message.clone(), is_elsewhere);
            message
        })?;
        let is_secret = !(keys.is_public)(secret.expose_secret());
        if let Some(warning) =
            file_readers::warning("secret", Path::new(&name)).filter(|_| is_secret)
        {
            source.warn(&file.at, &file.key, warning);
        }
        Ok(secret)
    }

    fn inline(
        &self,
        source: &mut Source<'_>,
        found: &mut Found<String>,
        keys: &Keys,
    ) -> Option<Secret> {
        if !(keys.is_public)(&found.value) && self.file.is_some_and(readable_by_others) {
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
        Some(Secret::from(found.value.as_str()))
    }
}

/// The value of something that is configured like a secret but is none.
pub(super) fn plain(value: &Secret) -> String {
    value.expose_secret().to_owned()
}

/// What the file holds, or what is wrong with it, and whether others may well find something there.
fn read(name: &str) -> Result<Secret, (String, bool)> {
    let shown = shown(name);
    match read_some(name) {
        Ok(text) if text.len() > LARGEST_SECRET => {
            let message = format!(
                "the file {shown} holds more than {LARGEST_SECRET} bytes, which is no secret"
            );
            Err((message, false))
        }
        Ok(text) if text.trim().is_empty() => Err((format!("the file {shown} is empty"), false)),
        Ok(text) => Ok(Secret::from(text.trim())),
        Err(error) => {
            let is_elsewhere = error.kind() == ErrorKind::PermissionDenied;
            Err((
                format!("cannot read the file {shown}: {error}"),
                is_elsewhere,
            ))
        }
    }
}

/// The name of a file for a message, but for one that is no path and could be the secret itself: where it stands is told
/// beside it.
fn shown(name: &str) -> &str {
    match name.len() < SHORTEST_SECRET || name.contains(['/', '.']) {
        true => name,
        false => "with this name",
    }
}

/// Not everything that can be opened has an end. There is room for all of it from the beginning: growing would leave what
/// was read so far behind unwiped.
fn read_some(path: &str) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_SECRET + 64));
    let file = std::fs::File::open(path)?;
    file.take(LARGEST_SECRET as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(unix)]
fn readable_by_others(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}
