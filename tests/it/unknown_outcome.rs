//! Rule T11: a rotation whose outcome nobody knows.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use lucid_proxy::sandbox::{Behaviour, CLIENT_SECRET, TokenFailure};
use lucid_proxy::token::record::Intent;
use lucid_proxy::token::succession::lost;

use crate::world::{SOON, Serving, World, errors};

const PROFILE: &str = "/users/me/profile";

/// A world whose access token has died, and whose next token POSTs fail so.
fn failing(failures: impl IntoIterator<Item = TokenFailure>) -> World {
    World::expired_behaving(Behaviour {
        token_failures: failures.into_iter().collect::<VecDeque<_>>(),
        ..Behaviour::default()
    })
}

/// A world in whose store a rotation has begun `ago`, as a process that died would have left it.
fn intended(ago: Duration) -> (World, Intent) {
    let world = World::expired();
    let intent = Intent {
        generation: 1,
        at: SystemTime::now() - ago,
        again: None,
    };
    world.edit_record(|record| record.intent = Some(intent.clone()));
    // As it is read back: without the microseconds.
    let intent = world.record().intent.expect("just stored");
    (world, intent)
}

/// The stored refresh token is posted by somebody else: the rotation took effect.
fn spend(world: &World) {
    let body = serde_json::json!({
        "grant_type": "refresh_token",
        "refresh_token": world.stored()["refresh_token"],
        "client_id": lucid_proxy::sandbox::CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    });
    let response = crate::world::Client::connect(world.sandbox.address()).ask(
        "POST /oauth2/token",
        &["Content-Type: application/json"],
        body.to_string().as_bytes(),
    );
    assert_eq!(response.status, 200, "{}", response.text());
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

#[track_caller]
fn refused(serving: &Serving, code: &str) -> String {
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, code),
        "{}",
        serving.log()
    );
    let message = response.json()["message"].as_str().map(str::to_owned);
    message.expect("a message")
}

#[test]
fn t11_a_refresh_token_that_lives_is_posted_again_at_once() {
    let world = failing([TokenFailure::CutBefore]);
    let serving = world.serve();
    let message = refused(&serving, "tokenUnavailable");
    assert!(
        message.contains("a running proxy asks again by itself"),
        "{message}"
    );
    assert!(world.record().intent.is_some(), "its end is not known");
    let counts = world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
    assert_eq!((counts.token_posts, counts.introspections), (2, 1));
    assert_eq!(counts.reused_refresh_tokens, 0);
    let record = world.record();
    assert_eq!(record.generation, Some(2));
    assert_eq!((record.intent, record.lost_rotation), (None, None));
}

#[test]
fn t11_a_lost_rotation_is_noted_and_shown_by_status() {
    let world = failing([TokenFailure::CutAfter]);
    let serving = world.serve();
    refused(&serving, "tokenUnavailable");
    let intent = world.record().intent.expect("an intent");
    serving.wait_for_log("login needed");
    let message = refused(&serving, "loginRequired");
    assert!(message.contains(&lost(&intent)), "{message}");
    let counts = world.sandbox.counts();
    assert_eq!(counts.introspections, 1, "{counts:?}");
    assert_eq!(counts.token_posts, 2);
    serving.stop();
    assert_eq!(world.record().lost_rotation, Some(intent.clone()));
    let status = world.run(&["status"]);
    assert_eq!(status.status.code(), Some(77));
    let shown = errors(&status);
    assert!(shown.contains(&lost(&intent)), "{shown}");
}

#[test]
fn t11_while_introspection_does_not_say_nothing_is_posted() {
    let world = failing([TokenFailure::CutBefore]);
    world.sandbox.change(|behaviour| {
        behaviour.introspection_status = StatusCode::INTERNAL_SERVER_ERROR;
    });
    let serving = world.serve();
    refused(&serving, "tokenUnavailable");
    let counts = world
        .sandbox
        .wait_until(SOON, |counts| counts.introspections >= 3);
    assert_eq!(counts.token_posts, 1, "{counts:?}");
    let message = refused(&serving, "tokenUnavailable");
    let begun = humantime::format_rfc3339_seconds(world.record().intent.expect("an intent").at);
    let expected = format!("it is not known whether the rotation begun at {begun} took effect");
    assert!(
        message.contains(&expected) && message.contains("introspection answered 500"),
        "{message}"
    );
    // What it waited for.
    world
        .sandbox
        .change(|behaviour| behaviour.introspection_status = StatusCode::OK);
    let counts = world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    assert_eq!(counts.token_posts, 2, "{counts:?}");
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
}

#[test]
#[ignore = "takes two minutes: until a POST cannot be on its way any more"]
fn t11_without_introspection_the_second_post_comes_when_the_first_cannot_be_on_its_way() {
    std::thread::scope(|threads| {
        threads.spawn(|| second_post_without_introspection(TokenFailure::CutBefore, true));
        threads.spawn(|| second_post_without_introspection(TokenFailure::CutAfter, false));
    });
}

fn second_post_without_introspection(failure: TokenFailure, lives: bool) {
    let world = failing([failure]);
    world.sandbox.change(|behaviour| {
        behaviour.introspection_status = StatusCode::INTERNAL_SERVER_ERROR;
    });
    let serving = world.serve();
    refused(&serving, "tokenUnavailable");
    let intent = world.record().intent.expect("an intent");
    // Until then, and the longest back-off.
    let limit = Duration::from_secs(70 + 60 + 10);
    world
        .sandbox
        .wait_until(limit, |counts| counts.token_posts == 2);
    let waited = intent.at.elapsed().expect("in the past");
    assert!(waited >= Duration::from_secs(70), "{waited:?}");
    if lives {
        serving.wait_for_log("token rotated");
        assert_ok(&serving);
    } else {
        serving.wait_for_log("login needed");
        let message = refused(&serving, "loginRequired");
        assert!(message.contains(&lost(&intent)), "{message}");
    }
    assert_eq!(world.sandbox.counts().token_posts, 2);
}

#[test]
fn t11_an_intent_found_at_the_start_is_settled_without_a_request() {
    let (world, _) = intended(Duration::from_secs(1));
    let serving = world.serve();
    serving.wait_for_log("has no known end; finding out");
    let counts = world
        .sandbox
        .wait_until(SOON, |counts| counts.rotations == 1);
    assert_eq!(
        (
            counts.introspections,
            counts.token_posts,
            counts.api_requests
        ),
        (1, 1, 0)
    );
    serving.wait_for_log("token rotated");
    let record = world.record();
    assert_eq!((record.generation, record.intent), (Some(2), None));
    assert_eq!(
        record.last_rotation.expect("it was rotated").cause,
        "unfinished"
    );
    assert_ok(&serving);
}

#[test]
fn t11_an_intent_found_at_the_start_whose_rotation_was_lost_is_told_without_a_request() {
    let (world, intent) = intended(Duration::from_secs(1));
    spend(&world);
    let serving = world.serve();
    serving.wait_for_log(&lost(&intent));
    let counts = world.sandbox.counts();
    assert_eq!((counts.introspections, counts.token_posts), (1, 2));
    let record = world.record();
    assert_eq!(record.lost_rotation, Some(intent.clone()));
    assert!(record.refusal.is_some());
    let message = refused(&serving, "loginRequired");
    assert!(message.contains(&lost(&intent)), "{message}");
    assert_eq!(world.sandbox.counts().api_requests, 0);
}

#[test]
fn t11_t17_no_request_goes_out_while_it_is_found_out_whether_a_rotation_killed_its_token() {
    // By the clock the access token lives for another hour.
    let world = World::logged_in();
    let now = SystemTime::now();
    world.edit_record(|record| {
        record.generation = Some(1);
        record.intent = Some(Intent {
            generation: 1,
            at: now,
            again: None,
        });
    });
    spend(&world);
    let serving = world.serve();
    let message = refused(&serving, "loginRequired");
    assert!(message.contains("was lost"), "{message}");
    assert_eq!(world.sandbox.counts().api_requests, 0);
}

#[test]
fn t11_an_old_intent_without_introspection_is_posted_once() {
    for (spent, outcome) in [(false, "token rotated"), (true, "login needed")] {
        let (world, intent) = intended(Duration::from_secs(3600));
        if spent {
            spend(&world);
        }
        world.sandbox.change(|behaviour| {
            behaviour.introspection_status = StatusCode::INTERNAL_SERVER_ERROR;
        });
        let serving = world.serve();
        serving.wait_for_log(outcome);
        assert_eq!(world.sandbox.counts().token_posts, 1 + u64::from(spent));
        if spent {
            let message = refused(&serving, "loginRequired");
            assert!(message.contains(&lost(&intent)), "{message}");
        } else {
            assert_ok(&serving);
        }
    }
}

#[test]
fn t11_with_a_wrong_client_secret_nothing_is_posted_and_the_secret_is_named() {
    let (world, intent) = intended(Duration::from_secs(1));
    let wrong = world.serve_with(|command| {
        command.env("LUCID_CLIENT_SECRET", "mistyped");
    });
    let message = refused(&wrong, "loginRequired");
    assert!(
        message.contains("the client id or secret is wrong"),
        "{message}"
    );
    let counts = world.sandbox.counts();
    assert_eq!((counts.introspections, counts.token_posts), (1, 0));
    wrong.stop();
    let record = world.record();
    assert_eq!(record.intent, Some(intent), "it is still open");
    assert_eq!(record.lost_rotation, None);
    assert_ok(&world.serve());
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t11_a_refusal_of_the_client_and_one_of_the_token_are_told_apart() {
    // The token endpoint says the same in both cases.
    let world = World::expired();
    let wrong = world.serve_with(|command| {
        command.env("LUCID_CLIENT_SECRET", "mistyped");
    });
    let of_the_client = refused(&wrong, "loginRequired");
    wrong.stop();
    let world = World::expired();
    world.sandbox.revoke_grants();
    let serving = world.serve();
    let of_the_token = refused(&serving, "loginRequired");
    for (message, says, not) in [
        (
            &of_the_client,
            "the client id or secret is wrong",
            "log in again",
        ),
        (
            &of_the_token,
            "it was used elsewhere, revoked or not used for 180 days; log in again",
            "client id or secret is",
        ),
    ] {
        assert!(message.contains("(invalid_grant "), "{message}");
        assert!(
            message.contains(says) && !message.contains(not),
            "{message}"
        );
        assert!(!message.contains("was lost"), "{message}");
    }
    assert_eq!(world.sandbox.counts().introspections, 1);
    assert_eq!(world.record().lost_rotation, None, "nothing was lost");
}

#[test]
fn t11_where_introspection_does_not_say_the_message_names_both_causes() {
    let world = World::expired_behaving(Behaviour {
        introspection_status: StatusCode::SERVICE_UNAVAILABLE,
        ..Behaviour::default()
    });
    world.sandbox.revoke_grants();
    let message = refused(&world.serve(), "loginRequired");
    assert!(
        message.contains("revoked") && message.contains("or the client id or secret is wrong"),
        "{message}"
    );
}
