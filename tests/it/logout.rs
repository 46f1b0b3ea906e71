//! `lucid-proxy logout`: the login ends at Lucid and here, and nobody brings it back.

use std::fs;
use std::process::Output;
use std::time::SystemTime;

use lucid_proxy::token::record::{Intent, Record};
use lucid_proxy::token::store::Store;
use rustix::process::Signal;

use crate::world::{Mount, World, errors, is_root, printed};

const PROFILE: &str = "/users/me/profile";

fn store(world: &World) -> Store {
    Store::new(world.store())
}

fn stored(world: &World) -> Record {
    let record = store(world).read().expect("readable");
    record.expect("a record")
}

/// The login has ended here: no token is left, and the generation is this.
#[track_caller]
fn assert_logged_out(world: &World, output: &Output, generation: u64) {
    assert!(output.status.success(), "{}", errors(output));
    assert!(
        printed(output).contains("logged out"),
        "{}",
        printed(output)
    );
    let record = stored(world);
    assert!(record.logged_out.is_some());
    assert_eq!(record.generation, Some(generation));
    let content = fs::read_to_string(world.store()).expect("readable");
    assert!(!content.contains("oauth2-"), "{content}");
}

#[test]
fn t18_logout_revokes_the_grant_and_leaves_a_higher_generation() {
    let world = World::logged_in();
    let tokens = fs::read_to_string(world.store()).expect("readable");
    assert!(
        tokens.contains("oauth2-"),
        "the control of the next line: {tokens}"
    );
    let output = world.run(&["logout", "--yes"]);
    assert_logged_out(&world, &output, 2);
    assert_eq!(errors(&output), "");
    let counts = world.sandbox.counts();
    assert_eq!((counts.revocations, counts.effective_revocations), (1, 1));
    assert_eq!(counts.problems, [""; 0]);
    let again = world.run(&["logout", "--yes"]);
    assert!(again.status.success());
    assert!(
        printed(&again).contains("logged out at"),
        "{}",
        printed(&again)
    );
    assert_eq!(stored(&world).generation, Some(2));
    assert_eq!(world.sandbox.counts().revocations, 1);
    let serving = world.serve_with(|command| {
        command.env("LUCID_REFRESH_TOKEN", world.sandbox.approve().refresh_token);
    });
    let response = serving.get(PROFILE);
    assert_eq!(response.code(), "loginRequired");
    assert!(
        response.text().contains("lucid-proxy login"),
        "{}",
        response.text()
    );
    assert_eq!(
        world.sandbox.counts().token_posts,
        0,
        "nor by what is configured"
    );
}

#[test]
fn t18_a_running_proxy_respects_a_logout_and_takes_the_next_login_over() {
    let world = World::logged_in().for_login();
    let serving = world.serve();
    assert_eq!(serving.get(PROFILE).status, 200);
    let output = world.run(&["logout", "--yes"]);
    assert_logged_out(&world, &output, 2);
    serving.wait_for_log("logged out at");
    let asked = world.sandbox.counts().api_requests;
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    assert_eq!(world.sandbox.counts().api_requests, asked);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(stored(&world).generation, Some(3));
    serving.wait_for_log("took over a newer token");
    assert_eq!(serving.get(PROFILE).status, 200);
    let output = world.run(&["logout", "--yes"]);
    assert_logged_out(&world, &output, 4);
    let file = world.directory.path().join("other.json");
    fs::write(
        &file,
        serde_json::to_vec(&world.sandbox.approve()).expect("JSON"),
    )
    .expect("written");
    let imported = world.run(&["import", file.to_str().expect("UTF-8")]);
    assert!(imported.status.success(), "{}", errors(&imported));
    assert_eq!(stored(&world).generation, Some(5));
}

#[test]
fn t18_a_late_writer_does_not_bring_a_login_back() {
    let world = World::logged_in();
    let serving = world.serve();
    assert_eq!(serving.get(PROFILE).status, 200);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    world.sandbox.expire_access_tokens();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(crate::world::SOON, |counts| counts.token_posts == 1);
    world.configure();
    let logout = world
        .command(&["logout", "--yes"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    client.response();
    let output = logout.wait_with_output().expect("it ends");
    assert_logged_out(&world, &output, 3);
    serving.wait_for_log("logged out at");
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    drop(serving);
    assert!(
        stored(&world).logged_out.is_some(),
        "also after the proxy's end"
    );
    assert_eq!(
        world.sandbox.counts().effective_revocations,
        1,
        "of the new pair"
    );
}

#[test]
fn logout_works_offline_with_a_warning() {
    let mut world = World::logged_in();
    world.token_origin = "http://127.0.0.1:1".to_owned();
    let output = world.run(&["logout", "--yes"]);
    assert_logged_out(&world, &output, 2);
    for word in [
        "may not have ended the login",
        "127.0.0.1:1",
        "settings of your Lucid account",
    ] {
        assert!(
            errors(&output).contains(word),
            "{word}: {}",
            errors(&output)
        );
    }
    assert!(
        printed(&output).contains("logged out here"),
        "{}",
        printed(&output)
    );
}

#[test]
fn logout_without_usable_client_credentials_warns_too() {
    for (secret, reason) in [
        (None, "LUCID_CLIENT_SECRET"),
        (Some("wrong-marked"), "client id or secret"),
    ] {
        let world = World::logged_in();
        world.configure();
        let mut command = world.command(&["logout", "--yes"]);
        match secret {
            Some(secret) => command.env("LUCID_CLIENT_SECRET", secret),
            None => command.env_remove("LUCID_CLIENT_SECRET"),
        };
        let output = command.output().expect("it runs");
        assert_logged_out(&world, &output, 2);
        assert!(errors(&output).contains(reason), "{}", errors(&output));
        assert!(
            !errors(&output).contains("wrong-marked"),
            "{}",
            errors(&output)
        );
        assert_eq!(world.sandbox.counts().effective_revocations, 0);
    }
}

#[test]
fn logout_blames_the_file_of_the_client_and_no_other_that_is_unread() {
    let mut world = World::logged_in();
    world.upstream_keys = "ca_file = \"$CREDENTIALS_DIRECTORY/ca.pem\"".to_owned();
    let told = |world: &World| {
        world.configure();
        let mut command = world.command(&["logout", "--yes"]);
        command.env_remove("LUCID_CLIENT_SECRET");
        let output = command.output().expect("it runs");
        assert_logged_out(world, &output, 2);
        assert!(!errors(&output).contains("ca_file"), "{}", errors(&output));
        errors(&output)
    };
    // It is a variable that is missing, and no file.
    assert!(told(&world).contains("LUCID_CLIENT_SECRET"));
    world.log_in();
    world.tables = "client_secret_file = \"$CREDENTIALS_DIRECTORY/secret\"\n".to_owned();
    assert!(told(&world).contains("client_secret_file: the variable CREDENTIALS_DIRECTORY"));
}

#[test]
fn logout_without_a_terminal_needs_a_word_of_consent() {
    let world = World::logged_in();
    let before = fs::read(world.store()).expect("a store");
    let output = world.run(&["logout"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors(&output).contains("logout --yes"),
        "{}",
        errors(&output)
    );
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    assert_eq!(world.sandbox.counts().revocations, 0);
}

#[test]
fn logout_without_a_login_says_so() {
    let world = World::new();
    let output = world.run(&["logout"]);
    assert!(output.status.success());
    assert!(
        printed(&output).contains("there is no login"),
        "{}",
        printed(&output)
    );
    assert!(!world.store().exists());
    world.write_store(b"{");
    let output = world.run(&["logout", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("cannot be used"),
        "{}",
        errors(&output)
    );
    assert_eq!(world.sandbox.counts().connections, 0);
}

#[test]
fn a_logout_that_cannot_be_written_down_ends_nothing() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mount = Mount::tmpfs(&world.state(), "size=256k,mode=700");
    world.log_in();
    let ballast = world.state().join("ballast");
    fs::write(&ballast, vec![0; 512 << 10]).expect_err("the disk is full");
    let output = world.run(&["logout", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("free space"),
        "{}",
        errors(&output)
    );
    assert_eq!(world.sandbox.counts().revocations, 0);
    fs::remove_file(&ballast).expect("removed");
    mount.remount("ro");
    let output = world.run(&["logout", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("writable"), "{}", errors(&output));
    assert_eq!(world.sandbox.counts().revocations, 0);
    mount.remount("rw");
    let output = world.run(&["logout", "--yes"]);
    assert_logged_out(&world, &output, 2);
}

#[test]
fn a_signal_ends_the_wait_for_the_lock_and_changes_nothing() {
    let world = World::logged_in().for_login();
    let before = fs::read(world.store()).expect("a store");
    let _lock = store(&world).try_lock().expect("lockable").expect("free");
    let mut logout = world.waiting(&["logout", "--yes"]);
    logout.wait_for_line(&format!("process {}", std::process::id()));
    logout.signal(Signal::INT);
    let output = logout.end();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("nothing was changed"),
        "{}",
        errors(&output)
    );
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    assert_eq!(world.sandbox.counts().revocations, 0);
}

#[test]
fn logout_tells_where_a_rotation_may_have_left_another_pair() {
    for spent in [false, true] {
        let world = World::logged_in();
        let before = stored(&world);
        if spent {
            world.sandbox.expire_access_tokens();
            assert_eq!(world.serve().get(PROFILE).status, 200);
        }
        let intent = Intent {
            generation: 1,
            at: SystemTime::now(),
            again: None,
        };
        let begun = Record {
            generation: Some(7),
            intent: Some(intent),
            ..before
        };
        store(&world).write(&begun).expect("written");
        let output = world.run(&["logout", "--yes"]);
        assert_logged_out(&world, &output, 8);
        let warned = errors(&output).contains("has no known end");
        assert_eq!(warned, spent, "{}", errors(&output));
        assert_eq!(world.sandbox.counts().revocations, 1);
    }
}
