//! `refresh`: a new pair now, and what it says to whoever shares the login.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

use lucid_proxy::sandbox::TokenFailure;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::world::{Mount, SOON, World, errors, is_root, printed};

/// The command on a terminal of its own, which the test holds the other end of.
fn on_a_terminal(world: &World) -> (Child, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let name = ptsname(&ours, Vec::new())
        .expect("a name")
        .into_string()
        .expect("UTF-8");
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("the other end");
    world.configure();
    let mut command = world.command(&["refresh"]);
    command.stdin(theirs.try_clone().expect("a second handle"));
    let child = command.stdout(Stdio::piped()).stderr(theirs).spawn();
    (child.expect("it runs"), File::from(ours))
}

fn read_until(terminal: &mut File, text: &str) -> String {
    let mut seen = String::new();
    let deadline = Instant::now() + SOON;
    while !seen.contains(text) && Instant::now() < deadline {
        let mut bytes = [0; 1024];
        // The end of a terminal is an error.
        let Ok(length) = terminal.read(&mut bytes) else {
            break;
        };
        seen += &String::from_utf8_lossy(&bytes[..length]);
    }
    seen
}

#[test]
fn refresh_rotates_now_and_prints_no_token() {
    let world = World::logged_in();
    let before = world.stored()["access_token"].clone();
    let output = world.run(&["refresh"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(world.sandbox.counts().rotations, 1);
    let stored = world.stored();
    assert_ne!(stored["access_token"], before);
    assert_eq!(stored["last_rotation"]["cause"], "asked");
    assert!(
        printed(&output).starts_with("refreshed: generation 2, the access token expires 20"),
        "{}",
        printed(&output)
    );
    assert!(
        !printed(&output).contains("oauth2-"),
        "{}",
        printed(&output)
    );
    assert_eq!(errors(&output), "");
}

#[test]
fn refresh_asks_when_a_proxy_uses_the_login_and_the_proxy_takes_the_new_token_over() {
    let world = World::logged_in();
    let serving = world.serve();
    // By then it has said that it uses the login.
    serving.wait_for_log("grant ready");
    assert_eq!(serving.get("/users").status, 200);
    let refused = world.run(&["refresh"]);
    assert_eq!(refused.status.code(), Some(1));
    for word in [
        "other processes use the login",
        "running proxies take the new one over",
        "nothing was done",
        "--yes",
    ] {
        assert!(
            errors(&refused).contains(word),
            "{word}: {}",
            errors(&refused)
        );
    }
    assert_eq!(world.sandbox.counts().token_posts, 0);
    let forced = world.run(&["refresh", "--yes"]);
    assert!(forced.status.success(), "{}", errors(&forced));
    serving.wait_for_log("took over a newer token");
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(world.sandbox.counts().rotations, 1);
}

#[test]
fn on_a_terminal_refresh_asks_and_only_a_yes_is_one() {
    let world = World::logged_in();
    let _serving = world.serve();
    // By then it has said that it uses the login.
    _serving.wait_for_log("grant ready");
    for (answer, rotations) in [("n\n", 0), ("\n", 0), ("maybe\n", 0), ("y\n", 1)] {
        let (child, mut terminal) = on_a_terminal(&world);
        let asked = read_until(&mut terminal, "[y/N]");
        assert!(asked.contains("other processes use the login"), "{asked}");
        terminal.write_all(answer.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.success(), rotations == 1, "{answer:?}");
        assert_eq!(world.sandbox.counts().rotations, rotations, "{answer:?}");
    }
}

#[test]
fn a_lock_that_another_process_holds_is_a_reason_to_ask_too() {
    let world = World::logged_in();
    let mut lock = File::create(world.state().join("token_info.json.lock")).expect("made");
    lock.lock().expect("locked");
    lock.write_all(b"4242\n").expect("written");
    let refused = world.run(&["refresh"]);
    assert!(
        errors(&refused).contains("process 4242 holds the lock"),
        "{}",
        errors(&refused)
    );
    drop(lock);
    assert!(world.run(&["refresh"]).status.success());
}

#[test]
fn refresh_without_a_login_says_so() {
    let world = World::new();
    let none = world.run(&["refresh"]);
    assert_eq!(none.status.code(), Some(77));
    assert!(
        errors(&none).contains("lucid-proxy login"),
        "{}",
        errors(&none)
    );
    world.log_in();
    world.sandbox.revoke_grants();
    let refused = world.run(&["refresh"]);
    assert_eq!(refused.status.code(), Some(77));
    assert!(
        errors(&refused).contains("invalid_grant"),
        "{}",
        errors(&refused)
    );
    world.write_store(br#"{"logged_out_at":"2031-01-02T03:04:05Z"}"#);
    let out = world.run(&["refresh"]);
    assert_eq!(out.status.code(), Some(77));
    assert!(errors(&out).contains("logged out"), "{}", errors(&out));
}

#[test]
fn a_refresh_that_fails_says_why_and_leaves_the_login() {
    let world = World::logged_in();
    world.sandbox.change(|behaviour| {
        behaviour
            .token_failures
            .push_back(TokenFailure::Html(http::StatusCode::BAD_GATEWAY));
    });
    let failed = world.run(&["refresh"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        errors(&failed).contains("502 Bad Gateway"),
        "{}",
        errors(&failed)
    );
    assert!(world.run(&["refresh"]).status.success(), "the next one");
}

#[test]
fn t03_refresh_with_a_store_that_cannot_be_written_posts_nothing() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mount = Mount::tmpfs(&world.state(), "size=256k,mode=700");
    world.log_in();
    assert!(world.run(&["refresh"]).status.success());
    mount.remount("ro");
    let failed = world.run(&["refresh", "--yes"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        errors(&failed).contains("Read-only file system"),
        "{}",
        errors(&failed)
    );
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t04_a_signal_to_refresh_waits_for_the_rotation() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    world.configure();
    let child = world
        .command(&["refresh"])
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
fn s06_refresh_and_status_show_no_secret_at_any_level() {
    let world = World::logged_in();
    world.configure();
    let run = |arguments: &[&str]| {
        let output = world.command(arguments).env("RUST_LOG", "trace").output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", errors(&output));
        printed(&output) + &errors(&output)
    };
    let shown =
        run(&["refresh"]) + &run(&["status"]) + &run(&["status", "--json"]) + &run(&["check"]);
    assert!(
        shown.contains("TRACE") && shown.contains("token rotated"),
        "the log is there: {shown}"
    );
    for secret in ["oauth2-", "sec-sandbox"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let token = world.command(&["token"]).output().expect("it runs");
    assert!(
        printed(&token).contains("oauth2-"),
        "tokens would be recognised"
    );
}
