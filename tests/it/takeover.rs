//! What other processes store, and the moments at which a pair is replaced (rules T13, T14 and T18).

use std::time::{Duration, Instant, SystemTime};

use lucid_proxy::token::record::Record;
use lucid_proxy::token::succession::replacing;
use serde_json::{Value, json};

use crate::world::{SOON, Serving, World, errors};

const PROFILE: &str = "/users/me/profile";
const DAY: Duration = Duration::from_secs(24 * 3600);

#[track_caller]
fn assert_ok(serving: &Serving) {
    let response = serving.get(PROFILE);
    assert_eq!(
        response.status,
        200,
        "{}\n{}",
        response.text(),
        serving.log()
    );
}

/// What `logout` leaves in the place of what is stored.
fn tombstone(world: &World) -> Record {
    let stored = world.record();
    replacing(Some(&stored), Record::logged_out(0, SystemTime::now()))
}

#[test]
fn t02_a_running_and_idle_proxy_takes_over_what_another_process_stored() {
    let world = World::logged_in();
    let serving = world.serve();
    serving.wait_for_log("grant ready");
    // Another process has rotated: the pair that the proxy holds is dead.
    world.sandbox.revoke_grants();
    world.store_record(&world.approved(2));
    serving.wait_for_log("took over a newer token");
    assert_ok(&serving);
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.dead_tokens, counts.token_posts),
        (0, 0),
        "the next request had the new token"
    );
}

#[test]
fn t18_a_logout_that_waits_for_no_lock_stands_all_the_same() {
    let world = World::expired();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    // Somebody who does not wait for the lock.
    let tombstone = tombstone(&world);
    world.store_record(&tombstone);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    let response = client.response();
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "loginRequired"),
        "{}",
        serving.log()
    );
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    assert_eq!(world.sandbox.counts().rotations, 1, "it took effect");
    serving.stop();
    let stored = world.record();
    assert!(stored.generation >= tombstone.generation);
    assert!(stored.logged_out.is_some(), "the logout stands");
    assert_eq!(world.stored()["refresh_token"], "");
    assert_eq!(world.sandbox.counts().api_requests, 0);
}

#[test]
fn f11_t18_a_token_file_of_placeholders_is_no_login_and_comes_back() {
    let world = World::logged_in();
    let serving = world.serve();
    serving.wait_for_log("grant ready");
    let before = world.stored();
    // A program that shares the file writes down what it got, with or without the other fields.
    let bare = json!({
        "access_token": "lucid-proxy-placeholder-access-1",
        "refresh_token": "lucid-proxy-placeholder-refresh-1",
        "expiration": "2199-01-01T00:00:00",
    });
    let mut whole = before.clone();
    for (name, value) in bare.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    for content in [&bare, &whole] {
        world.write_store(content.to_string().as_bytes());
        let deadline = Instant::now() + SOON;
        let is_back = || {
            let content = std::fs::read(world.store()).expect("a file");
            // While the test writes it, it is not whole.
            let stored = serde_json::from_slice::<Value>(&content).unwrap_or_default();
            ["access_token", "refresh_token", "generation"]
                .iter()
                .all(|name| stored[name] == before[name])
        };
        while !is_back() {
            assert!(Instant::now() < deadline, "{}", serving.log());
            std::thread::yield_now();
        }
    }
    serving.wait_for_log("keep a file of its own");
    world.sandbox.expire_access_tokens();
    assert_eq!(serving.get("/users").status, 200);
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.rotations), (1, 1));
    serving.stop();

    // Without a proxy that has the pair, the file says what happened to it.
    world.write_store(bare.to_string().as_bytes());
    for arguments in [&["serve"][..], &["status"], &["login", "--no-browser"]] {
        let output = world.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let errors = errors(&output);
        assert!(errors.contains("no login but placeholders"), "{errors}");
    }
    let store = world.store().display().to_string();
    let imported = world.run(&["import", store.as_str()]);
    assert_eq!(imported.status.code(), Some(1));
    let errors = errors(&imported);
    assert!(errors.contains("no login but placeholders"), "{errors}");
    assert_eq!(world.sandbox.counts().token_posts, 1, "none was sent");
}

#[test]
fn f11_t18_a_placeholder_is_no_refresh_token_to_begin_with() {
    let placeholder = "lucid-proxy-placeholder-refresh-1";
    let world = World::new();
    let serving = world.serve_with(|command| {
        command.env("LUCID_REFRESH_TOKEN", placeholder);
    });
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "loginRequired")
    );
    serving.stop();
    let file = world.directory.path().join("refresh_token");
    std::fs::write(&file, placeholder).expect("written");
    let mut import = world.command(&["import", "-"]);
    import.stdin(std::fs::File::open(file).expect("a file"));
    let output = import.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    assert!(errors.contains("is a placeholder"), "{errors}");
    assert!(!world.store().exists());
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

/// A world with a request on its way that stays there, and the proxy that sent it.
fn with_a_request_on_its_way() -> (World, Serving, crate::world::Client) {
    with_a_request_on_its_way_in(World::logged_in())
}

fn with_a_request_on_its_way_in(world: World) -> (World, Serving, crate::world::Client) {
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = Some("/sandbox/echo".to_owned()));
    let serving = world.serve();
    let mut held = serving.connect();
    held.request("GET /sandbox/echo", &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.in_flight == 1);
    (world, serving, held)
}

/// The stored pair under the next generation, of an hour's lifetime of which so much is left; blocks until the proxy
/// goes by it.
fn let_be_left(world: &World, serving: &Serving, left: Duration) {
    world.edit_record(|record| {
        record.generation = Some(record.generation.unwrap_or(1) + 1);
        record.expires_at = SystemTime::now() + left;
        record.issued_at = record.expires_at - Duration::from_secs(3600);
    });
    serving.wait_for_log("took over a newer token");
}

#[test]
fn t13_in_the_margin_a_rotation_waits_until_the_last_request_has_its_answer() {
    let (world, serving, mut held) = with_a_request_on_its_way();
    let_be_left(&world, &serving, Duration::from_secs(200));
    for _ in 0..3 {
        assert_ok(&serving);
    }
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.dead_tokens), (0, 0));
    assert_eq!(
        counts.api_by_generation.get(&1),
        Some(&4),
        "all with the old token"
    );
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    // Without a further request.
    let counts = world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    assert_eq!(
        (counts.api_requests, counts.rotations_amid_requests),
        (4, 0)
    );
    assert_eq!(held.response().status, 200);
    serving.wait_for_log("cause=expiring");
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().dead_tokens, 0);
}

#[test]
fn f07_a_body_too_large_to_record_is_sent_with_a_token_that_lasts() {
    let mut limited = World::logged_in();
    limited.tables = "[replay]\nmemory = \"1 KiB\"\ndisk = \"0 B\"\n".to_owned();
    let (world, serving, mut held) = with_a_request_on_its_way_in(limited);
    let_be_left(&world, &serving, Duration::from_secs(200));
    let upload = |length| {
        let body = vec![7; length];
        serving
            .connect()
            .ask("POST /sandbox/mirror", &[], &body)
            .status
    };
    assert_eq!(upload(1024), 200);
    assert_eq!(world.sandbox.counts().rotations, 0, "it can be sent again");
    assert_eq!(upload(1025), 200);
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.rotations_amid_requests), (1, 1));
    assert_eq!(counts.dead_tokens, 0, "{}", serving.log());
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    assert_eq!(held.response().status, 200);
}

#[test]
fn t13_when_little_of_the_margin_is_left_a_rotation_waits_for_no_request() {
    let (world, serving, mut held) = with_a_request_on_its_way();
    let_be_left(&world, &serving, Duration::from_secs(30));
    assert_ok(&serving);
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.rotations_amid_requests), (1, 1));
    world
        .sandbox
        .change(|behaviour| behaviour.hold_under = None);
    // Its token was judged before the rotation, or it is sent again: the client does not notice.
    assert_eq!(held.response().status, 200);
}

#[test]
fn t14_an_old_refresh_token_is_rotated_at_the_start_without_traffic() {
    let world = World::logged_in();
    world.edit_record(|record| {
        record.issued_at = SystemTime::now() - 31 * DAY;
        record.refresh_issued_at = record.issued_at;
    });
    let serving = world.serve();
    serving.wait_for_log("cause=idle");
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.token_posts, counts.rotations, counts.api_requests),
        (1, 1, 0)
    );
    let record = world.record();
    assert_eq!(
        record.last_rotation.map(|rotation| rotation.cause),
        Some("idle".to_owned())
    );
    let age = record.refresh_issued_at.elapsed().expect("in the past");
    assert!(age < DAY, "{age:?}");
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1, "once");
}

#[test]
fn t14_where_refresh_tokens_are_kept_an_old_one_is_used_once() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.token_answer.refresh_token = false);
    world.edit_record(|record| {
        record.refresh_issued_at = SystemTime::now() - 31 * DAY;
        record.issued_at = record.refresh_issued_at;
    });
    let serving = world.serve();
    serving.wait_for_log("cause=idle");
    assert_ok(&serving);
    let log = serving.stop();
    assert_eq!(log.matches("cause=idle").count(), 1, "{log}");
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t14_a_younger_refresh_token_is_left_alone() {
    let world = World::logged_in();
    let days_old = |generation, days| {
        world.edit_record(|record| {
            record.generation = Some(generation);
            record.issued_at = SystemTime::now() - days * DAY;
            record.refresh_issued_at = record.issued_at;
        });
    };
    days_old(1, 29);
    let serving = world.serve();
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 0);
    // The same, two days later: nothing else has changed.
    days_old(2, 31);
    serving.wait_for_log("cause=idle");
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.api_requests), (1, 1));
}
