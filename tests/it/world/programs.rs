//! Other people's programs, which a fresh checkout tests without.

use std::io::ErrorKind;
use std::process::Command;

/// Whether a program is installed and, asked so, succeeds.
pub(crate) fn is_there(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) => output.status.success(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Says that a test is skipped; where everything must be proven it fails instead.
pub(crate) fn missing(what: &str) {
    let strict = std::env::var_os("LUCID_TEST_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "{what} is missing and LUCID_TEST_STRICT is 1");
    eprintln!("skipped: {what} is missing");
}

/// A Python that has these modules: the first one in the path may be another than the distribution's, whose packages it
/// does not see.
pub(crate) fn python_with(modules: &[&str]) -> Option<String> {
    let import = format!("import {}", modules.join(", "));
    let python = ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| is_there(python, &["-c", &import]));
    if python.is_none() {
        missing(&format!("a Python 3 with {}", modules.join(" and ")));
    }
    python.map(str::to_owned)
}
