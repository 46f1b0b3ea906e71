//! `proxy.toml`: any text is a configuration or a list of problems with their places, and no problem repeats a secret
//! (S6, S8).
//!
//! `MARKED` stands for a secret where it is in the value of a key that is named like one.

#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use lucid_proxy::config::{Config, ConfigError, Need};

const SECRET: &str = "zq7XvK2pWm9";

fuzz_target!(|text: &str| {
    // A key that names a file has it read: not the endless ones.
    if text.contains("/dev") || text.contains("/proc") || text.contains(SECRET) {
        return;
    }
    let text: String = text.split_inclusive('\n').map(with_secret).collect();
    let environment = ["LUCID_CLIENT_ID", "LUCID_CLIENT_SECRET", "SET"];
    let environment = environment.map(|name| (name.to_owned(), "value".to_owned()));
    let environment = BTreeMap::from(environment);
    let file = PathBuf::from("/nowhere/proxy.toml");
    for need in [Need::Everything, Need::Store] {
        if let Err(error) = Config::parse(&text, Some(file.clone()), &environment, need) {
            judge(&text, &file, &error);
        }
    }
});

/// Puts the secret in where it would stand.
fn with_secret(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else {
        return line.to_owned();
    };
    let name = key.rsplit('.').next().unwrap_or(key);
    let name = name.trim().trim_matches(['"', '\'']);
    let holds_one = name.contains("secret") || name.contains("token");
    let holds_one = holds_one || matches!(name, "key" | "key_sha256");
    // Names of variables and files are told, and so is what is wrong with a URL.
    let names_one = ["_env", "_file", "_url"]
        .iter()
        .any(|end| name.ends_with(end));
    match holds_one && !names_one {
        true => format!("{key}={}", value.replace("MARKED", SECRET)),
        false => line.to_owned(),
    }
}

fn judge(text: &str, file: &Path, error: &ConfigError) {
    let told = format!("{error} {error:?}");
    assert!(!told.contains(SECRET), "{told}");
    let ConfigError::Wrong { problems, .. } = error else {
        panic!("nothing is read here: {told}");
    };
    assert!(!problems.is_empty());
    assert!(error.to_string().contains(&file.display().to_string()));
    let lines = text.split('\n').count();
    for problem in problems {
        assert!(!problem.message.is_empty());
        let Some((line, column)) = problem.position else {
            assert!(!problem.key.is_empty(), "neither place nor key: {problem}");
            continue;
        };
        assert!((1..=lines).contains(&line) && column >= 1, "{problem}");
    }
}
