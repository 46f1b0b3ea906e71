//! Rules T: the grant is never lost and never rotated needlessly.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, StatusCode};
use lucid_proxy::sandbox::{Behaviour, ExpiresIn, ScopesShape, TokenFailure};
use lucid_proxy::secret::{ExposeSecret, Secret};
use lucid_proxy::token::record::Record;
use lucid_proxy::token::store::Store;
use rustix::process::Signal;

use crate::world::{Mount, SOON, Serving, World, errors, is_root};

const PROFILE: &str = "/users/me/profile";

fn failing(failures: impl IntoIterator<Item = TokenFailure>) -> Behaviour {
    Behaviour {
        token_failures: failures.into_iter().collect::<VecDeque<_>>(),
        ..Behaviour::default()
    }
}

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

#[test]
fn t01_parallel_401s_make_one_rotation_and_no_client_sees_one() {
    let world = World::logged_in();
    let serving = world.serve();
    assert_ok(&serving);
    for round in 1..=3 {
        world.sandbox.expire_access_tokens();
        std::thread::scope(|threads| {
            for _ in 0..24 {
                threads.spawn(|| assert_ok(&serving));
            }
        });
        let counts = world.sandbox.counts();
        assert_eq!(counts.token_posts, round, "{counts:?}");
        assert_eq!(counts.rotations, round);
    }
    let counts = world.sandbox.counts();
    assert!(counts.dead_tokens >= 3, "the tokens did die: {counts:?}");
    assert_eq!(counts.reused_refresh_tokens, 0);
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn t02_several_proxies_on_one_store_share_each_rotation() {
    let world = World::logged_in();
    let proxies = [world.serve(), world.serve(), world.serve()];
    for round in 1..=3 {
        world.sandbox.expire_access_tokens();
        std::thread::scope(|threads| {
            for serving in proxies.iter().cycle().take(12) {
                threads.spawn(|| assert_ok(serving));
            }
        });
        let counts = world.sandbox.counts();
        assert_eq!(counts.token_posts, round, "{counts:?}");
    }
    assert_eq!(world.sandbox.counts().reused_refresh_tokens, 0);
    let adopted: usize = proxies
        .into_iter()
        .map(|proxy| proxy.stop().matches("took over").count())
        .sum();
    assert!(adopted > 0, "the others took over what one had stored");
}

#[test]
fn t02_while_another_process_holds_the_lock_nothing_is_posted() {
    let world = World::expired();
    let store = Store::new(world.store());
    let lock = store.try_lock().expect("lockable").expect("free");
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    // Another process finishes its rotation and stores it: that pair is adopted.
    let mut newer = store.read().expect("readable").expect("there");
    let pair = world.sandbox.approve();
    newer.generation = Some(2);
    newer.access_token = Secret::from(pair.access_token);
    newer.refresh_token = Secret::from(pair.refresh_token);
    newer.expires_at = SystemTime::now() + Duration::from_secs(3600);
    store.write(&newer).expect("written");
    drop(lock);
    assert_eq!(client.response().status, 200);
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

#[test]
fn t03_no_post_when_the_store_is_unwritable() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mount = Mount::tmpfs(&world.state(), "size=256k,mode=700");
    world.store_expired();
    mount.remount("ro");
    let serving = world.serve();
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "storeUnwritable")
    );
    assert!(
        response.text().contains("token_info.json"),
        "{}",
        response.text()
    );
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.token_posts, counts.api_requests),
        (0, 0),
        "nothing was sent at all"
    );
    mount.remount("rw");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
    assert!(
        serving.log().contains("Read-only file system"),
        "{}",
        serving.log()
    );
    drop(serving);
}

#[test]
fn t03_the_intent_is_stored_before_the_post() {
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
    assert_eq!(world.stored()["intent"]["generation"], 1);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert_eq!(client.response().status, 200);
    assert!(
        world.stored().get("intent").is_none(),
        "and gone with the answer"
    );
}

#[test]
fn t04_a_client_that_leaves_in_the_middle_of_a_rotation_cancels_nothing() {
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
    drop(client);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    serving.wait_for_log("token rotated");
    assert_eq!(world.stored()["generation"], 2);
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t04_shutdown_waits_for_a_rotation() {
    let world = World::expired();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let mut serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    drop(client);
    serving.signal(Signal::TERM);
    serving.wait_for_log("finishing what is under way");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert!(serving.wait().success());
    assert_eq!(world.stored()["generation"], 2);
    let living = world.stored()["access_token"].clone();
    assert!(!living.as_str().expect("text").is_empty());
}

#[test]
fn t05_each_refresh_is_one_post_on_a_connection_of_its_own() {
    let world = World::logged_in();
    let serving = world.serve();
    for _ in 0..3 {
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
    }
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.token_connections), (3, 3));
    assert_eq!(counts.token_posts_on_used_connections, 0);
    assert_eq!(
        counts.problems, [""; 0],
        "the documented form, nothing else"
    );
}

#[test]
fn t05_a_redirect_of_the_token_endpoint_is_not_followed() {
    let world = World::expired_behaving(failing([TokenFailure::Redirect]));
    let serving = world.serve();
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "tokenUnavailable")
    );
    assert_eq!(world.sandbox.counts().token_posts, 1);
    world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
}

#[test]
fn t06_odd_token_answers_are_stored_first_and_judged_later() {
    let world = World::expired();
    let serving = world.serve();
    let mut generation = 1;
    let mut check = |edit: &dyn Fn(&mut Behaviour)| {
        world.sandbox.change(edit);
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
        generation += 1;
        assert_eq!(
            world.stored()["generation"],
            generation,
            "{}",
            serving.log()
        );
    };
    check(&|behaviour| behaviour.token_answer.scopes = ScopesShape::Text);
    check(&|behaviour| behaviour.token_answer.scopes = ScopesShape::Absent);
    for odd in [
        ExpiresIn::Text,
        ExpiresIn::Absent,
        ExpiresIn::Other("soon".into()),
        ExpiresIn::Other((-1).into()),
    ] {
        check(&|behaviour| behaviour.token_answer.expires_in = odd.clone());
    }
    check(&|behaviour| behaviour.token_answer.token_type = Some("BEARER".to_owned()));
    check(&|behaviour| behaviour.token_answer.token_type = None);
    check(&|behaviour| behaviour.token_length = 4096);
    let before = world.stored()["refresh_token"].clone();
    check(&|behaviour| behaviour.token_answer.refresh_token = false);
    assert_eq!(
        world.stored()["refresh_token"],
        before,
        "the old one is kept where there is no new one"
    );
}

#[test]
fn t07_a_pair_that_cannot_be_stored_is_served_from_memory_until_it_is() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    world.store_expired();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    let ballast = world.state().join("ballast");
    let filled = fs::write(&ballast, vec![0; 128 << 10]);
    assert!(filled.is_err(), "the disk is full now");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert_eq!(client.response().status, 200, "{}", serving.log());
    assert_eq!(world.stored()["generation"], 1, "the store is old");
    serving.wait_for_log("kept in memory only");
    assert_ok(&serving);
    fs::remove_file(&ballast).expect("removed");
    serving.wait_for_log("the token is stored now");
    assert_eq!(world.stored()["generation"], 2);
    assert_eq!(world.sandbox.counts().token_posts, 1);
    drop(serving);
}

#[test]
fn t07_memory_wins_over_an_older_store() {
    let world = World::expired();
    let old = fs::read(world.store()).expect("a store");
    let serving = world.serve();
    assert_ok(&serving);
    // Somebody restores a backup: its pair is dead.
    world.write_store(&old);
    world.sandbox.expire_access_tokens();
    assert_ok(&serving);
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.reused_refresh_tokens), (2, 0));
    assert_eq!(world.stored()["generation"], 3);
}

#[test]
fn t09_a_refused_grant_is_posted_once_and_a_new_login_heals_it() {
    let world = World::expired();
    world.sandbox.revoke_grants();
    let serving = world.serve();
    for _ in 0..5 {
        let response = serving.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "loginRequired")
        );
        assert!(
            response.text().contains("lucid-proxy login"),
            "{}",
            response.text()
        );
    }
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.api_requests), (1, 0));
    drop(serving);
    // Not after a restart either.
    let serving = world.serve();
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    assert_eq!(world.sandbox.counts().token_posts, 1);
    let file = world.directory.path().join("new.json");
    fs::write(
        &file,
        serde_json::to_vec(&world.sandbox.approve()).expect("JSON"),
    )
    .expect("written");
    let imported = world.run(&["import", file.to_str().expect("UTF-8")]);
    assert!(imported.status.success(), "{imported:?}");
    serving.wait_for_log("took over a newer token");
    assert_ok(&serving);
}

#[test]
fn t09_what_one_process_was_refused_another_does_not_post_again() {
    let world = World::expired();
    let (one, other) = (world.serve(), world.serve());
    world.sandbox.revoke_grants();
    assert_eq!(one.get(PROFILE).code(), "loginRequired");
    assert_eq!(other.get(PROFILE).code(), "loginRequired");
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t09_t17_what_another_process_was_refused_is_not_sent_with_a_living_access_token_either() {
    let world = World::logged_in();
    let serving = world.serve();
    assert_ok(&serving);
    let before = world.sandbox.counts();
    world.sandbox.revoke_grants();
    let refused = world.run(&["refresh", "--yes"]);
    assert_eq!(refused.status.code(), Some(77), "{}", errors(&refused));
    serving.wait_for_log("invalid_grant");
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    let counts = world.sandbox.counts();
    assert_eq!(counts.api_requests, before.api_requests);
    assert_eq!(counts.token_posts, 1);
}

#[test]
fn t09_an_application_that_is_enabled_again_needs_no_login() {
    let refused = TokenFailure::Status {
        code: StatusCode::UNAUTHORIZED,
        retry_after: None,
        body: r#"{"error":"invalid_client","error_description":"disabled"}"#.to_owned(),
    };
    let world = World::expired_behaving(failing([refused]));
    let serving = world.serve();
    let response = serving.get(PROFILE);
    assert_eq!(response.code(), "loginRequired");
    assert!(
        response
            .text()
            .contains("enable it in Lucid's developer portal"),
        "{}",
        response.text()
    );
    drop(serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
    // It is enabled now, and introspection says so before the refresh token is sent.
    assert_ok(&world.serve());
    let counts = world.sandbox.counts();
    assert_eq!((counts.introspections, counts.token_posts), (1, 2));
    assert_eq!(world.record().refusal, None);
}

#[test]
fn t09_a_client_that_is_still_refused_posts_nothing_at_the_next_start() {
    let world = World::expired();
    for start in 1..4 {
        let serving = world.serve_with(|command| {
            command.env("LUCID_CLIENT_SECRET", "mistyped");
        });
        assert_eq!(serving.get(PROFILE).code(), "loginRequired");
        let counts = world.sandbox.counts();
        assert_eq!((counts.introspections, counts.token_posts), (start, 1));
    }
    // Positive control: with the right secret the same login goes on.
    assert_ok(&world.serve());
    assert_eq!(world.sandbox.counts().token_posts, 2);
}

#[test]
fn t11_the_intent_of_a_process_that_died_is_remembered_by_another() {
    let world = World::expired_behaving(failing([TokenFailure::HangAfter]));
    let (mut one, other) = (world.serve(), world.serve());
    let mut client = one.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    let begun = world.stored()["intent"]["at"].as_str().expect("a time")[..19].to_owned();
    one.signal(Signal::KILL);
    one.wait();
    let response = other.get(PROFILE);
    assert_eq!(response.code(), "loginRequired");
    assert!(
        response
            .text()
            .contains(&format!("the rotation begun at {begun}Z was lost")),
        "{}",
        response.text()
    );
}

#[test]
fn t13_a_token_that_lives_no_longer_than_its_refresh_takes_is_used_all_the_same() {
    let world = World::expired_behaving(Behaviour {
        access_lifetime: Duration::from_secs(1),
        token_delay: Duration::from_millis(1500),
        ..Behaviour::default()
    });
    let serving = world.serve();
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t09_other_client_credentials_may_try_a_refused_grant_once_more() {
    let world = World::expired();
    let wrong = world.serve_with(|command| {
        command.env("LUCID_CLIENT_SECRET", "mistyped");
    });
    assert_eq!(wrong.get(PROFILE).code(), "loginRequired");
    drop(wrong);
    assert_ok(&world.serve());
    assert_eq!(
        world.sandbox.counts().rotations,
        1,
        "the grant was not lost over a typing mistake"
    );
}

#[test]
fn t09_before_a_grant_is_called_over_the_store_is_read_once_more() {
    let world = World::expired_behaving(failing([TokenFailure::InvalidGrant]));
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    // A script that does not know the lock refreshes and stores in the meantime.
    world.log_in_by_script();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert_eq!(client.response().status, 200, "{}", serving.log());
}

#[test]
fn t10_odd_answers_leave_the_grant_alone_and_it_heals_by_itself() {
    for failure in [
        TokenFailure::Status {
            code: StatusCode::INTERNAL_SERVER_ERROR,
            retry_after: None,
            body: String::new(),
        },
        TokenFailure::Status {
            code: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(HeaderValue::from_static("2")),
            body: "{}".to_owned(),
        },
        TokenFailure::Html(StatusCode::OK),
        TokenFailure::Html(StatusCode::FORBIDDEN),
        TokenFailure::CutBefore,
        TokenFailure::NoAccessToken,
    ] {
        let world = World::expired_behaving(failing([failure.clone()]));
        let serving = world.serve();
        let response = serving.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "tokenUnavailable"),
            "{failure:?}"
        );
        let retry: u64 = response
            .header("retry-after")
            .expect("a field")
            .parse()
            .expect("a number");
        assert!((1..=2).contains(&retry), "{failure:?}: {retry}");
        // Without a request in between.
        let counts = world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == 1);
        assert_eq!(
            (counts.token_posts, counts.api_requests),
            (2, 0),
            "{failure:?}"
        );
        serving.wait_for_log("token rotated");
        assert_ok(&serving);
    }
}

#[test]
fn t10_waiting_requests_are_answered_from_one_failure() {
    let world = World::expired_behaving(failing([TokenFailure::Html(StatusCode::BAD_GATEWAY)]));
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut clients: Vec<_> = (0..8).map(|_| serving.connect()).collect();
    for client in &mut clients {
        client.request(&format!("GET {PROFILE}"), &[], b"");
    }
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    for client in &mut clients {
        assert!(
            matches!(client.response().status, 503 | 200),
            "answered, not left waiting"
        );
    }
    assert!(
        world.sandbox.counts().token_posts <= 2,
        "{:?}",
        world.sandbox.counts()
    );
}

#[test]
fn t10_a_slow_token_endpoint_is_waited_for() {
    let world = World::expired();
    world
        .sandbox
        .change(|behaviour| behaviour.token_delay = Duration::from_secs(10));
    let serving = world.serve();
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t11_a_lost_rotation_is_called_by_its_name() {
    for failure in [TokenFailure::CutAfter, TokenFailure::HalfBodyAfter] {
        let world = World::expired_behaving(failing([failure.clone()]));
        let serving = world.serve();
        assert_eq!(
            serving.get(PROFILE).code(),
            "tokenUnavailable",
            "{failure:?}"
        );
        let begun = world.stored()["intent"]["at"].as_str().expect("a time")[..19].to_owned();
        serving.wait_for_log("login needed");
        let response = serving.get(PROFILE);
        assert_eq!(response.code(), "loginRequired", "{failure:?}");
        let expected = format!("the rotation begun at {begun}Z was lost");
        assert!(
            response.text().contains(&expected),
            "{expected}: {}",
            response.text()
        );
        assert_eq!(world.sandbox.counts().token_posts, 2, "{failure:?}");
    }
}

#[test]
fn t13_while_a_rotation_is_under_way_new_requests_wait_within_their_own_bound() {
    let mut world = World::expired();
    world.tables = "[timeouts]\ntoken = \"300ms\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "tokenUnavailable")
    );
    assert!(
        response.text().contains("timeouts.token"),
        "{}",
        response.text()
    );
    assert_eq!(world.sandbox.counts().api_requests, 0);
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
}

#[test]
fn t15_a_401_that_no_rotation_cures_does_not_become_a_storm() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.unauthorized_under = Some("/users/me".to_owned()));
    let serving = world.serve();
    for _ in 0..20 {
        let response = serving.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (401, "unauthorized")
        );
        assert!(
            response
                .header("proxy-status")
                .is_some_and(|status| status.contains("received-status=401"))
        );
    }
    let counts = world.sandbox.counts();
    assert_eq!(counts.token_posts, 1, "{}", serving.log());
    assert_eq!(serving.get("/users").status, 200, "the rest goes on");
}

#[test]
fn t15_uploads_that_cannot_be_replayed_are_no_storm_either() {
    let mut world = World::logged_in();
    world.tables = "[replay]\nmemory = \"1 KiB\"\ndisk = \"0 B\"\n".to_owned();
    world
        .sandbox
        .change(|behaviour| behaviour.unauthorized_under = Some("/sandbox/echo".to_owned()));
    let serving = world.serve();
    for _ in 0..20 {
        assert_eq!(
            serving
                .connect()
                .ask("POST /sandbox/echo", &[], &[7; 5000])
                .status,
            401
        );
        assert_eq!(serving.get("/users").status, 200);
    }
    assert_eq!(world.sandbox.counts().token_posts, 1, "{}", serving.log());
}

#[test]
fn t16_what_a_refresh_does_not_cure_never_causes_one() {
    let world = World::logged_in();
    let serving = world.serve();
    world.sandbox.change(|behaviour| {
        behaviour.forbidden_under = Some("/documents/search".to_owned());
        behaviour.throttled_under = Some("/users/me".to_owned());
    });
    assert_eq!(
        serving
            .connect()
            .ask(
                "POST /documents/search",
                &["Content-Type: application/json"],
                b"{}"
            )
            .status,
        403
    );
    assert_eq!(serving.get(PROFILE).status, 429);
    assert_eq!(serving.get("/embeds?token=stale").status, 401);
    assert_eq!(serving.get("/oauth2/token").status, 405);
    world.sandbox.change(|behaviour| {
        behaviour.api_failures = VecDeque::from([lucid_proxy::sandbox::ApiFailure::Status {
            code: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: None,
        }]);
    });
    assert_eq!(serving.get("/users").status, 503);
    assert_eq!(world.sandbox.counts().token_posts, 0);
    world.sandbox.expire_access_tokens();
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(
        world.sandbox.counts().token_posts,
        1,
        "a 401 about the token does"
    );
}

#[test]
fn t17_without_a_login_nothing_is_sent_upstream() {
    let world = World::new();
    let serving = world.serve();
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "loginRequired")
    );
    let counts = world.sandbox.counts();
    assert_eq!((counts.connections, counts.token_posts), (0, 0));
    world.log_in();
    serving.wait_for_log("took over a newer token");
    assert_ok(&serving);
}

#[test]
fn t07_an_older_file_that_is_restored_under_a_proxy_is_put_right_at_once() {
    let world = World::logged_in();
    let serving = world.serve();
    let backup = world.directory.path().join("backup.json");
    for _ in 0..2 {
        fs::copy(world.store(), &backup).expect("copied");
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
    }
    let newest = world.stored();
    fs::rename(&backup, world.store()).expect("restored");
    serving.wait_for_log("was older and is as it was");
    assert_eq!(world.stored(), newest);
    // Also when a person logs out from it, in the moment before: that holds.
    fs::copy(world.store(), &backup).expect("copied");
    let older = Record::logged_out(1, SystemTime::now());
    Store::new(world.store()).write(&older).expect("written");
    serving.wait_for_log("logged out at");
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    // And what was backed up before does not undo it.
    fs::rename(&backup, world.store()).expect("restored");
    serving.wait_for_log("is as it was; the logout stands");
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    assert!(world.stored().get("logged_out_at").is_some());
}

#[test]
fn t18_a_token_file_that_is_removed_comes_back_while_a_proxy_has_the_pair() {
    let world = World::logged_in();
    let serving = world.serve();
    world.sandbox.expire_access_tokens();
    assert_ok(&serving);
    let before = world.stored();
    fs::remove_file(world.store()).expect("removed");
    serving.wait_for_log("was gone and is as it was");
    assert_eq!(world.stored(), before);
    // Also with the directory that it was in.
    fs::rename(world.state(), world.directory.path().join("away")).expect("moved");
    assert_ok(&serving);
    world.sandbox.expire_access_tokens();
    assert_ok(&serving);
    assert_eq!(world.stored()["generation"], 3);
    assert_eq!(world.sandbox.counts().reused_refresh_tokens, 0);
}

#[test]
fn t02_what_a_program_stored_that_does_not_count_is_counted_on_for_everybody() {
    let world = World::logged_in();
    let proxies = [world.serve(), world.serve()];
    world.sandbox.expire_access_tokens();
    proxies.iter().for_each(assert_ok);
    assert_eq!(world.stored()["generation"], 2);
    // The example script logs in and stores what it got.
    world.log_in_by_script();
    // One of them counts it; the other goes along.
    let deadline = Instant::now() + SOON;
    while world.stored()["generation"] != 3 {
        assert!(
            Instant::now() < deadline,
            "{}{}",
            proxies[0].log(),
            proxies[1].log()
        );
        std::thread::yield_now();
    }
    for serving in &proxies {
        serving.wait_for_log("from the store credential=\"default\" generation=3");
        assert_ok(serving);
    }
    assert_eq!(world.stored()["generation"], 3);
    world.sandbox.expire_access_tokens();
    proxies.iter().for_each(assert_ok);
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.reused_refresh_tokens), (2, 0));
}

#[test]
fn a_refresh_token_from_the_environment_makes_the_first_pair_once() {
    let world = World::new();
    let pair = world.sandbox.approve();
    let seed = |command: &mut std::process::Command| {
        command.env("LUCID_REFRESH_TOKEN", &pair.refresh_token);
    };
    let serving = world.serve_with(seed);
    world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    assert_ok(&serving);
    serving.stop();
    let serving = world.serve_with(seed);
    assert_ok(&serving);
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.reused_refresh_tokens), (1, 0));
}

#[test]
fn a_refresh_token_from_the_environment_takes_the_place_of_one_that_was_refused() {
    let world = World::new();
    let refused = world.serve_with(|command| {
        command.env("LUCID_REFRESH_TOKEN", "oauth2-stale");
    });
    refused.wait_for_log("login needed");
    refused.stop();
    let serving = world.serve_with(|command| {
        command.env("LUCID_REFRESH_TOKEN", world.sandbox.approve().refresh_token);
    });
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().rotations, 1);
}

#[test]
fn a_grant_survives_a_kill_under_load() {
    let world = World::logged_in();
    let mut serving = world.serve();
    for round in 0..3 {
        world.sandbox.expire_access_tokens();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| assert_ok(&serving));
            }
        });
        serving.signal(Signal::KILL);
        serving.wait();
        serving = world.serve();
        assert_ok(&serving);
        assert_eq!(world.sandbox.counts().rotations, round + 1);
    }
    assert_eq!(world.sandbox.counts().reused_refresh_tokens, 0);
}

#[test]
fn s06_no_token_shows_in_the_log_at_any_level() {
    let world = World::expired();
    let serving = world.serve_with(|command| {
        command.env("RUST_LOG", "trace").arg("--verbose");
    });
    assert_ok(&serving);
    world.sandbox.expire_access_tokens();
    assert_ok(&serving);
    world.sandbox.revoke_grants();
    serving.get(PROFILE);
    let store = Store::new(world.store())
        .read()
        .expect("readable")
        .expect("there");
    let log = serving.stop();
    assert!(
        log.contains("token rotated") && log.contains("login needed"),
        "a whole life: {log}"
    );
    for secret in [
        store.access_token,
        store.refresh_token,
        Secret::from("sec-sandbox"),
        Secret::from("oauth2-"),
    ] {
        assert!(!log.contains(secret.expose_secret()), "{log}");
    }
}
