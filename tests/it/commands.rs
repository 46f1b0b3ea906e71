//! The commands beside `serve`: what they print, and their exit codes.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{SOON, World, errors, printed};

fn import(world: &World, arguments: &[&str], input: &str) -> Output {
    world.configure();
    let mut command = world.command(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("written");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_command_that_reads_no_configuration_neither_shows_nor_takes_the_option() {
    let world = World::new();
    world.configure();
    let run = |arguments: &[&str]| world.command(arguments).output().expect("it runs");
    assert!(
        printed(&run(&["check", "--help"])).contains("--config"),
        "the control"
    );
    for command in [&["sandbox"][..], &["key"], &["key", "new"]] {
        let help = run(&[command, &["--help"]].concat());
        assert!(help.status.success());
        assert!(!printed(&help).contains("--config"), "{}", printed(&help));
    }
    for arguments in [
        &["sandbox", "--config", "proxy.toml"][..],
        &["-c", "proxy.toml", "sandbox"],
        &["key", "new", "ci", "-c", "proxy.toml"],
        &["key", "-c", "proxy.toml", "new", "ci"],
        &["-c", "proxy.toml", "key", "new", "ci"],
    ] {
        let refused = run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let told = "reads no configuration; leave out --config";
        assert!(errors(&refused).contains(told), "{}", errors(&refused));
    }
}

#[test]
fn help_and_usage() {
    let world = World::new();
    let help = world.command(&["--help"]).output().expect("it runs");
    assert!(help.status.success());
    for word in [
        "serve",
        "sandbox",
        "exec",
        "env",
        "login",
        "import",
        "token",
        "refresh",
        "status",
        "logout",
        "ca",
        "check",
        "doctor",
        "--config",
        "77 login needed",
    ] {
        assert!(printed(&help).contains(word), "{word}: {}", printed(&help));
    }
    assert_eq!(
        world
            .command(&["nonsense"])
            .output()
            .expect("it runs")
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        world
            .command(&["import"])
            .output()
            .expect("it runs")
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn check_says_what_would_be_done() {
    let world = World::new();
    let output = world.run(&["check"]);
    assert!(output.status.success(), "{}", errors(&output));
    let printed = printed(&output);
    assert!(
        printed.contains("proxy.toml: ok") && printed.contains(&world.upstream),
        "{printed}"
    );
    assert_eq!(
        world.sandbox.counts().connections,
        0,
        "without touching the network"
    );
}

#[test]
fn the_environment_alone_is_enough() {
    let world = World::new();
    let output = world.command(&["check"]).output().expect("it runs");
    assert!(output.status.success(), "{}", errors(&output));
    let printed = printed(&output);
    assert!(
        printed.contains("no proxy.toml") && printed.contains("https://api.lucid.co"),
        "{printed}"
    );
    let bare = world
        .command(&["check"])
        .env_remove("LUCID_CLIENT_SECRET")
        .output()
        .expect("it runs");
    assert_eq!(bare.status.code(), Some(78));
    assert!(
        errors(&bare).contains("LUCID_CLIENT_SECRET"),
        "{}",
        errors(&bare)
    );
}

#[test]
fn status_shows_the_login_in_words_and_as_json() {
    let world = World::new();
    let none = world.run(&["status"]);
    assert_eq!(none.status.code(), Some(77));
    assert!(
        errors(&none).contains("lucid-proxy login"),
        "{}",
        errors(&none)
    );
    world.log_in();
    assert_eq!(world.serve().get("/users").status, 200);
    world.sandbox.expire_access_tokens();
    assert_eq!(world.serve().get("/users").status, 200);
    let words = world.run(&["status"]);
    assert!(words.status.success());
    for word in [
        "ready",
        "generation",
        "expires in",
        "lasts until",
        "user.profile",
        "rejected",
    ] {
        assert!(
            printed(&words).contains(word),
            "{word}: {}",
            printed(&words)
        );
    }
    let json = world.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(status["state"], "ready");
    assert_eq!(status["generation"], 2);
    assert_eq!(status["last_rotation"]["cause"], "rejected");
    assert_eq!(status["user_id"], 4711);
    for output in [words, json] {
        let token = world.stored()["access_token"].clone();
        assert!(!printed(&output).contains(token.as_str().expect("text")));
    }
}

#[test]
fn status_tells_of_a_refused_grant_and_of_a_failed_rotation() {
    let world = World::logged_in();
    let serving = world.serve();
    world.sandbox.expire_access_tokens();
    world.sandbox.change(|behaviour| {
        behaviour
            .token_failures
            .push_back(lucid_proxy::sandbox::TokenFailure::Html(
                http::StatusCode::BAD_GATEWAY,
            ));
        behaviour
            .token_failures
            .push_back(lucid_proxy::sandbox::TokenFailure::InvalidGrant);
    });
    assert_eq!(serving.get("/users").status, 401, "the first answer passes");
    let failed = world.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&failed.stdout).expect("JSON");
    let message = status["last_error"]["message"].as_str().expect("text");
    let expected = format!(
        "the token endpoint {}/oauth2/token answered 502 Bad Gateway",
        world.sandbox.origin()
    );
    assert!(message.starts_with(&expected), "{message}");
    serving.wait_for_log("login needed");
    let refused = world.run(&["status", "--json"]);
    assert_eq!(refused.status.code(), Some(77));
    let status: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(status["state"], "login_needed");
    assert_eq!(status["refusal"]["code"], "invalid_grant");
}

#[test]
fn token_prints_a_living_token_and_refreshes_only_if_need_be() {
    let world = World::new();
    let none = world.run(&["token"]);
    assert_eq!(
        (none.status.code(), printed(&none).as_str()),
        (Some(77), "")
    );
    let pair = world.sandbox.approve();
    world.write_store(&serde_json::to_vec(&pair).expect("JSON"));
    let output = world.run(&["token"]);
    assert_eq!(
        printed(&output).trim(),
        pair.access_token,
        "{}",
        errors(&output)
    );
    assert_eq!(world.sandbox.counts().token_posts, 0);
    let mut stored = world.stored();
    stored["expires_at"] = "2020-01-01T00:00:00Z".into();
    world.write_store(stored.to_string().as_bytes());
    let output = world.run(&["token"]);
    assert_eq!(world.sandbox.counts().rotations, 1);
    assert_eq!(printed(&output).trim(), world.stored()["access_token"]);
    assert_ne!(printed(&output).trim(), pair.access_token);
}

#[test]
fn t04_a_signal_to_token_waits_for_the_rotation() {
    let world = World::new();
    world.write_store(&serde_json::to_vec(&world.sandbox.approve()).expect("JSON"));
    let mut stored = world.stored();
    stored["expiration"] = "2020-01-01T00:00:00".into();
    world.write_store(stored.to_string().as_bytes());
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    world.configure();
    let child = world
        .command(&["token"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(world.stored()["generation"], 2, "{}", errors(&output));
}

#[test]
fn import_takes_over_the_example_scripts_file() {
    let world = World::new();
    let file = world.directory.path().join("mine.json");
    fs::write(
        &file,
        serde_json::to_vec(&world.sandbox.approve()).expect("JSON"),
    )
    .expect("written");
    let output = world.run(&["import", file.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(printed(&output).contains("token_info.json"));
    assert_eq!(world.stored()["generation"], 1);
    assert_eq!(world.serve().get("/users").status, 200);
    assert_eq!(
        world.sandbox.counts().token_posts,
        0,
        "the imported token lives"
    );
}

#[test]
fn import_reads_a_refresh_token_or_a_file_from_standard_input() {
    for as_file in [false, true] {
        let world = World::new();
        let pair = world.sandbox.approve();
        let input = match as_file {
            true => serde_json::to_string(&pair).expect("JSON"),
            false => format!("{}\n", pair.refresh_token),
        };
        let output = import(&world, &["import", "-"], &input);
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(world.serve().get("/users").status, 200);
        assert_eq!(world.sandbox.counts().rotations, u64::from(!as_file));
    }
}

#[test]
fn import_refuses_what_would_not_last_and_says_why() {
    let world = World::new();
    let file = world.directory.path().join("bad.json");
    let name = file.to_str().expect("UTF-8").to_owned();
    for (content, reason) in [
        (
            r#"{"access_token":"a","expiration":"2031-01-01T00:00:00"}"#,
            "no refresh_token",
        ),
        (
            r#"{"access_token":"a","refresh_token":""}"#,
            "no refresh_token",
        ),
        ("", "it is empty"),
        ("<html>", "not a token file"),
        (
            r#"{"refresh_token":"r","expiration":"tomorrow"}"#,
            "its field expiration",
        ),
        (
            "{\"refresh_token\":\"r\\nr\"}",
            "characters that no header may carry",
        ),
        (
            r#"{"refresh_token":"r","access_token":"two words"}"#,
            "characters that no header may carry",
        ),
        (
            r#"{"generation":3,"logged_out_at":"2031-01-01T00:00:00Z"}"#,
            "holds no login",
        ),
    ] {
        fs::write(&file, content).expect("written");
        let output = world.run(&["import", &name]);
        assert_eq!(output.status.code(), Some(1));
        let errors = errors(&output);
        assert!(
            errors.contains(reason) && errors.contains("bad.json"),
            "{errors}"
        );
        assert!(!world.store().exists(), "nothing was stored");
    }
    let missing = world.run(&["import", "/nowhere/token_info.json"]);
    assert!(
        errors(&missing).contains("/nowhere/token_info.json"),
        "{}",
        errors(&missing)
    );
    let words = import(&world, &["import", "-"], "two words");
    assert!(errors(&words).contains("one word"), "{}", errors(&words));
}

#[test]
fn t18_import_replaces_a_login_that_may_work_only_when_told_to() {
    let world = World::logged_in();
    let before = fs::read(world.store()).expect("a store");
    let other = serde_json::to_string(&world.sandbox.approve()).expect("JSON");
    let refused = import(&world, &["import", "-"], &other);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("--replace"),
        "{}",
        errors(&refused)
    );
    assert_eq!(
        fs::read(world.store()).expect("a store"),
        before,
        "nothing was changed"
    );
    let replaced = import(&world, &["import", "--replace", "-"], &other);
    assert!(replaced.status.success(), "{}", errors(&replaced));
    assert_eq!(world.stored()["generation"], 2);
}
