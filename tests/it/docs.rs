//! The documents say what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lucid_proxy::config::{Config, Need};
use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET};

use crate::unmodified::{ROWS, WITH_ITS_FILE};

const GUARANTEES: &str = include_str!("../../docs/guarantees.md");
const THREATS: &str = include_str!("../../docs/threat-model.md");
const README: &str = include_str!("../../README.md");

fn test_names(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            test_names(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source file");
            let functions = source
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split('(').next());
            names.extend(functions.map(str::to_owned));
        }
    }
}

/// The words in backquotes that look like the name of a test of a rule.
fn cited() -> Vec<&'static str> {
    let words = GUARANTEES.split('`').skip(1).step_by(2);
    let is_rule = |word: &&str| {
        let (rule, rest) = word.split_at_checked(3).unwrap_or(("", ""));
        rule.starts_with(['t', 'f', 's'])
            && rule[1..].bytes().all(|byte| byte.is_ascii_digit())
            && rest.starts_with('_')
    };
    words.filter(is_rule).collect()
}

/// All functions of the source and of its tests.
fn all_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    test_names(&root.join("src"), &mut names);
    test_names(&root.join("tests"), &mut names);
    names
}

#[test]
fn every_row_of_the_threat_model_names_tests_that_exist() {
    let names = all_names();
    let rows = THREATS.lines().filter(|line| line.starts_with("| **"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [who, stops, left, tests] = cells[..] else {
            panic!("four cells: {row}");
        };
        assert!(!stops.is_empty() && !left.is_empty(), "{who}");
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{who}");
        for test in tests {
            assert!(names.contains(test), "{who}: {test}");
        }
        count += 1;
    }
    assert!(count > 10, "the page was read: {count}");
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let names = all_names();
    let cited = cited();
    assert!(cited.len() > 30, "the page was read: {cited:?}");
    let missing: Vec<_> = cited
        .iter()
        .filter(|name| !names.contains(**name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_promise_names_a_test_or_says_that_it_is_not_kept_yet() {
    for line in GUARANTEES.lines().filter(|line| line.starts_with("| ")) {
        let number = line
            .trim_start_matches("| ")
            .split(' ')
            .next()
            .unwrap_or_default();
        let is_promise = number.len() > 1 && number[1..].bytes().all(|byte| byte.is_ascii_digit());
        if is_promise {
            assert!(line.contains('`') || line.contains("not yet"), "{line}");
        }
    }
}

#[test]
fn the_readme_begins_with_the_two_commands_for_a_fresh_machine() {
    let block = README.split("```").nth(1).expect("a block of code");
    let commands: Vec<_> = block
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(commands, ["cargo run --release -- sandbox", "tests/run"]);
}

#[test]
fn the_readme_tells_how_to_log_in_at_the_stand_in() {
    let blocks = README.split("```toml\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let block = blocks.filter(|block| block.contains("/oauth2/authorize"));
    let block = block.last().expect("a configuration for the stand-in");
    let environment = ["LUCID_CLIENT_ID", "LUCID_CLIENT_SECRET"];
    let environment = environment.map(|name| (name.to_owned(), "value".to_owned()));
    let config = Config::parse(block, None, &BTreeMap::from(environment), Need::Everything);
    let config = config.expect("it is accepted");
    assert_eq!(
        config.upstream.origin.to_string(),
        "http://127.0.0.1:8120",
        "what the command beside it starts"
    );
    for word in [CLIENT_ID, CLIENT_SECRET, "--sandbox-listen 127.0.0.1:8120"] {
        assert!(README.contains(word), "{word}");
    }
}

#[test]
fn the_readme_names_every_error_code_that_the_proxy_answers_with() {
    let read = |file| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let source = ["src/proxy/reply.rs", "src/proxy/oauth2.rs"]
        .map(|file| read(file).expect("a file"))
        .concat();
    let codes: BTreeSet<_> = [
        "hostNotAllowed",
        "originNotAllowed",
        "policyDenied",
        "clientKeyRequired",
        "badRequest",
        "requestTimeout",
        "loopDetected",
        "loginRequired",
        "tokenUnavailable",
        "storeUnwritable",
        "upstreamUnreachable",
        "upstreamTimeout",
        "invalid_request",
        "unsupported_grant_type",
        "unsupported_token_type",
    ]
    .into();
    for code in codes {
        assert!(source.contains(&format!("\"{code}\"")), "{code} is gone");
        assert!(
            README.contains(&format!("`{code}`")),
            "{code} is not explained"
        );
    }
}

#[test]
fn every_program_of_the_readmes_table_is_run_by_a_test_and_every_one_that_is_run_is_in_it() {
    let (_, table) = README
        .split_once("\n| program or library |")
        .expect("the table of programs");
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let rows: Vec<Vec<_>> = rows
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<_> = rows.iter().map(|cells| cells[0]).collect();
    assert_eq!(names, ROWS);
    for cells in rows {
        // Each test does both.
        let [name, by_base, by_exec, needs] = cells[..] else {
            panic!("four cells: {cells:?}");
        };
        assert!(
            by_base.starts_with("yes") && by_exec.starts_with("yes"),
            "{name}"
        );
        assert_eq!(by_exec == "yes, as below", name.starts_with("C libcurl"));
        assert!(!needs.is_empty(), "{name}");
    }
    assert!(README.contains(WITH_ITS_FILE), "as the tests have it");
}
