//! The example scripts, each with its stale token, run through the proxy while the proxy's own tokens die.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lucid_proxy::sandbox::{Behaviour, Counts};

use crate::world::{SOON, Serving, World, errors, is_there, missing, printed, python_with};

/// Short enough that scripts run one after another outlive several, long enough that a busy machine gets a request
/// through with a token that was issued for it.
const LIFETIME: Duration = Duration::from_secs(2);

#[test]
fn list_users_follows_its_pages_across_dying_tokens() {
    let Some(python) = python_with(&["requests"]) else {
        return;
    };
    each_way(
        |address| script(&python, "list_users.py", address),
        |output| {
            assert_eq!(
                printed(output),
                "4711 Ada Demo <ada@example.test>\n\
             4712 Ben Demo <ben@example.test>\n\
             4713 Cleo Demo <cleo@example.test>\n\
             4714 Dora Demo <dora@example.test>\n\
             4715 Emil Demo <emil@example.test>\n\
             4716 Finn Demo <finn@example.test>\n\
             4717 Gwen Demo <gwen@example.test>\n\
             7 users\n"
            );
        },
    );
}

#[test]
fn upload_and_export_gets_both_through_across_dying_tokens() {
    if !is_there("node", &["--version"]) {
        return missing("node");
    }
    let pictures = tempfile::tempdir().expect("a directory");
    let command = |address| {
        let mut command = script("node", "upload_and_export.mjs", address);
        command.env("TMPDIR", pictures.path());
        command
    };
    each_way(command, |output| {
        let text = printed(output);
        let mut lines = text.lines();
        let imported = lines.next().expect("a line");
        assert!(
            imported.starts_with("imported \"Hello from draw.io\" as "),
            "{text}"
        );
        let file = lines.next().and_then(|line| line.split_once(" bytes to "));
        let picture = std::fs::read(file.expect("a file").1).expect("the picture");
        assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"), "{text}");
        assert_eq!(lines.next(), None);
    });
}

#[test]
fn refresh_by_itself_works_with_what_it_is_given_across_dying_tokens() {
    let Some(python) = python_with(&["requests"]) else {
        return;
    };
    let kept = tempfile::tempdir().expect("a directory");
    let file = kept.path().join("my_token_info.json");
    let command = |address| {
        let mut command = script(&python, "refresh_by_itself.py", address);
        command.arg(&file);
        command
    };
    each_way(command, |output| {
        assert_eq!(
            printed(output),
            "logged in as Ada Demo\nthe account has 7 users\n"
        );
        let stored = std::fs::read_to_string(&file).expect("its own token file");
        assert_eq!(stored.matches("lucid-proxy-placeholder-").count(), 2);
        assert!(!stored.contains("oauth2-"), "{stored}");
        // The next run takes them for dead, and refreshes with the placeholder that it has.
        let mut stored: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
        stored["expiration"] = "2001-01-01T00:00:00".into();
        std::fs::write(&file, stored.to_string()).expect("written");
    });
}

#[test]
fn search_prints_its_titles_across_dying_tokens() {
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    each_way(
        |address| script("sh", "search.sh", address),
        |output| {
            assert_eq!(printed(output), "logged in as Ada Demo\nPlan\nFloor plan\n");
        },
    );
}

#[test]
fn embed_runs_the_proxy_inside_another_program() {
    let output = Command::new(built_example("embed")).output();
    let output = output.expect("the example runs");
    assert!(output.status.success(), "{}", errors(&output));
    let text = printed(&output);
    let lines: Vec<_> = text.lines().collect();
    let [first, second, rotated] = lines[..] else {
        panic!("three lines are expected: {text}");
    };
    assert!(first.contains(r#""fullName":"Ada Demo""#), "{text}");
    assert_eq!(first, second);
    assert_eq!(rotated, "tokens rotated: 2", "one at its start, one later");
}

/// Scripts fail loudly: without this the tests above would prove little.
#[test]
fn a_script_fails_where_the_stale_token_is_all_there_is() {
    let world = World::logged_in();
    for mut script in scripts(world.sandbox.address()) {
        let output = script.output().expect("the script runs");
        assert!(!output.status.success(), "{script:?}: {}", printed(&output));
    }
}

/// Runs a script in both ways in which tokens die, and has what it printed checked each time.
fn each_way(command: impl Fn(SocketAddr) -> Command, check: impl Fn(&Output)) {
    while_the_token_dies_under_a_request(&command, &check);
    over_several_lifetimes(&command, &check);
}

/// The token dies while the answer to the script's first request is held back, so that exactly one request of the
/// script meets it dead: the second, or the first itself where its token was not judged yet.
fn while_the_token_dies_under_a_request(
    command: impl Fn(SocketAddr) -> Command,
    check: impl Fn(&Output),
) {
    let world = World::logged_in();
    let serving = world.serve();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/".to_owned()));
    let script = command(serving.address)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script runs");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.api_requests == 1);
    world.sandbox.expire_access_tokens();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    let output = script.wait_with_output().expect("the script ends");

    succeeded(&output, &serving);
    check(&output);
    let counts = world.sandbox.counts();
    assert_eq!((counts.dead_tokens, counts.rotations), (1, 1), "{counts:?}");
    is_clean(&counts);
    serving.stop();
}

/// The script runs again and again while tokens of a short life come and go.
fn over_several_lifetimes(command: impl Fn(SocketAddr) -> Command, check: impl Fn(&Output)) {
    let world = World::behaving(Behaviour {
        access_lifetime: LIFETIME,
        ..Behaviour::default()
    });
    world.log_in();
    let serving = world.serve();
    while world.sandbox.counts().rotations < 2 {
        let output = command(serving.address).output().expect("the script runs");
        succeeded(&output, &serving);
        check(&output);
    }
    is_clean(&world.sandbox.counts());
    serving.stop();
}

#[track_caller]
fn succeeded(output: &Output, serving: &Serving) {
    assert!(
        output.status.success(),
        "{}: {}{}\nthe proxy's log: {}",
        output.status,
        printed(output),
        errors(output),
        serving.log()
    );
}

/// Upstream saw the proxy's tokens alone, each refresh token once, and nothing that a correct proxy would not send.
#[track_caller]
pub(crate) fn is_clean(counts: &Counts) {
    assert_eq!(counts.unknown_tokens, 0, "a stale token reached upstream");
    assert_eq!(counts.missing_tokens, 0);
    assert_eq!(counts.token_posts, counts.rotations);
    assert_eq!(counts.reused_refresh_tokens, 0);
    assert_eq!(counts.problems, Vec::<String>::new());
}

/// Those of the scripts that can run here.
fn scripts(address: SocketAddr) -> Vec<Command> {
    let mut scripts = Vec::new();
    if let Some(python) = python_with(&["requests"]) {
        scripts.push(script(&python, "list_users.py", address));
        let mut refreshing = script(&python, "refresh_by_itself.py", address);
        refreshing.arg("/does/not/exist");
        scripts.push(refreshing);
    }
    if is_there("node", &["--version"]) {
        scripts.push(script("node", "upload_and_export.mjs", address));
    }
    if is_there("curl", &["--version"]) {
        scripts.push(script("sh", "search.sh", address));
    }
    scripts
}

fn script(program: &str, name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("examples")
                .join(name),
        )
        .arg(format!("http://{address}"))
        .stdin(Stdio::null());
    // A proxy that the machine is set up for would stand between the script and ours.
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// An example of this package, from the directory beside the one in which this test was built. `cargo test` builds
/// examples first; `cargo test --test it` does not, and what it left there may be old, so it is built again.
fn built_example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("…/<profile>/deps/it-…");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build
        .args(["build", "--quiet", "--offline", "--example", name])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(profile.parent().expect("the target directory"));
    let built = build.output().expect("cargo runs");
    assert!(built.status.success(), "{}", errors(&built));
    profile.join("examples").join(name)
}
