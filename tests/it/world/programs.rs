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
