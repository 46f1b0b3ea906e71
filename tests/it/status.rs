//! `status` and `check`: what is known of the login, and what it lacks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use lucid_proxy::config::Client;
use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET};
use lucid_proxy::secret::Secret;
use lucid_proxy::token::succession::fingerprint;

use crate::world::{SOON, World, errors, printed};

const REFERENCE: &str = include_str!("../../docs/status.md");

/// A store in which everything is set that can be set beside a pair.
fn eventful() -> Value {
    json!({
        "version": 1, "generation": 7, "access_token": "oauth2-marked", "refresh_token": "oauth2-marked",
        "expires_at": "2031-01-02T03:04:05Z", "issued_at": "2031-01-02T02:04:05Z",
        "refresh_issued_at": "2031-01-02T02:04:05Z",
        "scopes": ["offline_access", "lucidchart.document.content"], "user_id": 4711,
        "intent": {"generation": 7, "at": "2031-01-02T03:00:00Z", "again": "2031-01-02T03:01:00Z"},
        "refusal": {"code": "invalid_grant", "message": "marked refusal", "at": "2031-01-02T03:02:00Z", "client": "x"},
        "last_rotation": {"at": "2031-01-02T02:04:05Z", "cause": "expiring", "milliseconds": 12},
        "last_error": {"at": "2031-01-02T03:02:00Z", "message": "marked error"},
        "lost_rotation": {"generation": 3, "at": "2030-01-02T03:00:00Z"},
    })
}

fn with(changes: Value) -> World {
    let mut store = eventful();
    for (name, value) in changes.as_object().expect("an object") {
        store[name] = value.clone();
    }
    let world = World::new();
    world.write_store(store.to_string().as_bytes());
    world
}

#[track_caller]
fn status(world: &World) -> Value {
    let output = world.run(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {}", errors(&output)))
}

fn fields(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        into.insert(format!("{prefix}{name}"));
        fields(value, &format!("{prefix}{name}."), into);
    }
}

/// The first column of the tables with this heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let rows = REFERENCE
        .lines()
        .skip_while(|line| !line.starts_with(heading));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('`').nth(1))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_field_of_the_json_form_is_documented_and_always_there() {
    let world = with(json!({}));
    let lock = fs::File::create(world.state().join("token_info.json.lock")).expect("made");
    lock.lock().expect("locked");
    let mut found = BTreeSet::new();
    fields(&status(&world), "", &mut found);
    assert_eq!(found, documented("| field |"));
    let mut bare = BTreeSet::new();
    fields(&status(&World::new()), "", &mut bare);
    let top: BTreeSet<_> = found
        .into_iter()
        .filter(|name| !name.contains('.'))
        .collect();
    assert_eq!(bare, top, "without a login too");
}

#[test]
fn each_state_is_told_in_words_in_json_and_by_the_exit_code() {
    let past = "2020-01-01T00:00:00Z";
    let cases = [
        (
            json!({"intent": null, "refusal": null}),
            "ready",
            "ready",
            0,
        ),
        (json!({"refusal": null}), "pending", "has no known end", 0),
        (
            json!({"intent": null, "refusal": null, "expires_at": past}),
            "failing",
            "it is tried again",
            0,
        ),
        (json!({}), "login_needed", "login needed", 77),
        (
            json!({"logged_out_at": past}),
            "logged_out",
            "logged out",
            77,
        ),
    ];
    // The test above has one, those of API keys the other.
    let mut states = BTreeSet::from(["rotating", "api_key"].map(str::to_owned));
    for (changes, state, words, code) in cases {
        let world = with(changes);
        // Nobody's credentials: a refusal is not another application's.
        let run = |arguments: &[&str]| {
            world.configure();
            let mut command = world.command(arguments);
            let output = command.env_remove("LUCID_CLIENT_SECRET").output();
            let output = output.expect("it runs");
            assert_eq!(
                output.status.code(),
                Some(code),
                "{state}: {}",
                errors(&output)
            );
            printed(&output)
        };
        let json: Value = serde_json::from_str(&run(&["status", "--json"])).expect("JSON");
        assert_eq!(json["state"], state);
        let shown = run(&["status"]);
        assert!(shown.contains(words), "{words}: {shown}");
        assert!(!shown.contains("oauth2-"), "{shown}");
        states.insert(state.to_owned());
    }
    assert_eq!(states, documented("| state |"));
}

#[test]
fn t09_a_refusal_counts_for_the_credentials_that_were_refused_alone() {
    let world = with(json!({"intent": null}));
    let output = world.run(&["status", "--json"]);
    assert!(
        output.status.success(),
        "other credentials may try: {}",
        errors(&output)
    );
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["state"], &json["refusal"]["code"]),
        (&"ready".into(), &"invalid_grant".into())
    );
}

#[test]
fn times_are_utc_for_programs_and_local_with_their_zone_for_people() {
    let world = with(json!({"intent": null}));
    assert_eq!(
        status(&world)["last_rotation"]["at"],
        "2031-01-02T02:04:05.000Z"
    );
    let output = world
        .command(&["status"])
        .env("TZ", "<+0530>-5:30")
        .output()
        .expect("it runs");
    let shown = printed(&output);
    for expected in [
        "2031-01-02 07:34:05 +05:30 (expiring: the access token was about to expire; took 12 ms)",
        "2030-01-02 08:30:00 +05:30 with generation 3",
        "2031-01-02 08:32:00 +05:30: marked error",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

#[test]
fn a_rotation_under_way_reads_differently_and_names_the_process() {
    let world = World::logged_in();
    let mut stored = world.stored();
    stored["expiration"] = "2020-01-01T00:00:00".into();
    world.write_store(stored.to_string().as_bytes());
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let child = world
        .command(&["token", "--config"])
        .arg(world.configure())
        .stdout(Stdio::null())
        .spawn();
    let mut child = child.expect("it runs");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    let json = status(&world);
    assert_eq!(json["state"], "rotating", "{json}");
    assert_eq!(json["lock_holder"]["process"], child.id());
    assert_eq!(json["in_use"], true);
    assert_eq!(json["pending_rotation"]["generation"], 1);
    let shown = printed(&world.run(&["status"]));
    assert!(
        shown.contains(&format!("rotating: process {} is at it", child.id())),
        "{shown}"
    );
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert!(child.wait().expect("it ends").success());
    let json = status(&world);
    assert_eq!(
        (&json["state"], &json["in_use"]),
        (&"ready".into(), &false.into())
    );
    assert_eq!(
        (&json["lock_holder"], &json["pending_rotation"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn missing_scopes_are_told_with_the_command_by_status_check_and_log() {
    let mut world = World::logged_in();
    world.tables =
        "scopes = [\"offline_access\", \"user.profile\", \"folder\", \"teams\"]".to_owned();
    let serving = world.serve();
    world.sandbox.expire_access_tokens();
    assert_eq!(
        serving.get("/users/me/profile").status,
        200,
        "the old login goes on"
    );
    let json = status(&world);
    assert_eq!(json["scopes_missing"], json!(["folder", "teams"]));
    assert_eq!(json["scopes_requested"][2], "folder");
    assert!(
        json["scopes"]
            .as_array()
            .expect("a list")
            .contains(&"user.profile".into())
    );
    let expected = "does not have the scopes folder teams";
    assert!(
        json["message"].as_str().expect("text").contains(expected),
        "{json}"
    );
    drop(serving);
    for shown in [
        printed(&world.run(&["status"])),
        printed(&world.run(&["check"])),
        world.serve().stop(),
    ] {
        assert!(
            shown.contains(expected) && shown.contains("lucid-proxy login"),
            "{shown}"
        );
    }
    world.tables.clear();
    let complete = printed(&world.run(&["check"]));
    assert!(
        complete.contains("has the scopes that the configuration asks for"),
        "{complete}"
    );
}

#[test]
fn check_needs_no_store_and_no_good_one() {
    let world = World::new();
    let says = |expected: &str| {
        let output = world.run(&["check"]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(
            printed(&output).contains(expected),
            "{expected}: {}",
            printed(&output)
        );
    };
    says("login          none yet; run: lucid-proxy login");
    assert!(!world.state().exists(), "nothing was made");
    world.write_store(b"oauth2-marked");
    says("login          unknown: ");
    // Refused to other client credentials, it may be tried with these.
    let mut refused = eventful();
    world.write_store(refused.to_string().as_bytes());
    let checked = printed(&world.run(&["check"]));
    assert!(!checked.contains("was refused"), "{checked}");
    refused["refusal"]["client"] = fingerprint(&Client {
        id: CLIENT_ID.to_owned(),
        secret: Secret::from(CLIENT_SECRET),
    })
    .into();
    world.write_store(refused.to_string().as_bytes());
    says("login          was refused");
    world.write_store(br#"{"refresh_token":"oauth2-marked"}"#);
    says("login          the token endpoint did not say which scopes it has");
    world.write_store(br#"{"logged_out_at":"2031-01-02T03:04:05Z"}"#);
    says("login          logged out at 2031-01-02T03:04:05Z");
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o644)).expect("chmod");
    says("chmod 600");
}

#[test]
fn status_leaves_no_file_behind() {
    let world = World::logged_in();
    assert!(world.run(&["status"]).status.success());
    let names: Vec<_> = fs::read_dir(world.state()).expect("a directory").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}
