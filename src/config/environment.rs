//! What the environment says: variables, and the folders that they name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::before;

/// The environment as a map: the process's own, or a test's.
pub trait Environment {
    /// The value of a variable; `None` where it is unset, empty or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// Whether a variable is set, if only to what is no value.
    fn is_set(&self, name: &str) -> bool;
}

/// The process's environment, but for what this program itself has changed in it for others (`before`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        before::value(name, |name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    fn is_set(&self, name: &str) -> bool {
        std::env::var_os(name).is_some()
    }
}

impl Environment for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn is_set(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// The folder for what the program keeps: `$STATE_DIRECTORY` (set by systemd), else `$XDG_STATE_HOME/lucid-proxy`,
/// else `~/.local/state/lucid-proxy` (XDG Base Directory Specification).
pub fn state_directory(environment: &dyn Environment) -> PathBuf {
    if let Some(directories) = environment.var("STATE_DIRECTORY") {
        return PathBuf::from(directories.split(':').next().unwrap_or_default());
    }
    let home = || PathBuf::from(environment.var("HOME").unwrap_or_else(|| "/".to_owned()));
    let base = environment
        .var("XDG_STATE_HOME")
        .map_or_else(|| home().join(".local/state"), PathBuf::from);
    base.join("lucid-proxy")
}

/// Where the configuration is looked for when no option names it.
pub(super) fn usual_files(environment: &dyn Environment) -> Vec<PathBuf> {
    let config_home = environment
        .var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            environment
                .var("HOME")
                .map(|home| PathBuf::from(home).join(".config"))
        });
    let mut files = vec![PathBuf::from("proxy.toml")];
    files.extend(config_home.map(|home| home.join("lucid-proxy/proxy.toml")));
    files
}
