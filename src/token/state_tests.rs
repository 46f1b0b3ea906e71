//! Properties of the decisions, and the examples that the rules name.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any test but those of T14.
const IDLE: Duration = Duration::from_secs(3600 * 24 * 365);

fn start() -> Now {
    Now {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
        monotonic: Instant::now(),
    }
}

fn later(now: Now, by: Duration) -> Now {
    Now {
        wall: now.wall + by,
        monotonic: now.monotonic + by,
    }
}

fn pair(generation: u64, now: Now, lifetime: Duration) -> Pair {
    let expires_at = now.wall + lifetime;
    let (refresh_at, rotate_by) = early(expires_at, lifetime, Duration::from_secs(300), 0.0);
    Pair {
        generation,
        refresh_at,
        rotate_by,
        expires_at,
        idle_at: now.wall + IDLE,
        cause: None,
    }
}

fn active(now: Now) -> State {
    State::new(Some(pair(1, now, HOUR)), None)
}

fn unavailable() -> Outcome {
    Outcome::Failed {
        trouble: Trouble::TokenUnavailable("down".to_owned()),
        retry_after: None,
    }
}

/// Lets the state rotate and succeed.
fn rotate(state: &mut State, now: Now) -> Cause {
    let Next::Rotate(cause) = state.next(now, false) else {
        panic!("nothing to rotate: {state:?}");
    };
    let generation = state.pair().expect("a pair").generation + 1;
    state.finished(now, Outcome::Renewed(pair(generation, now, HOUR)), 0.0);
    cause
}

#[test]
fn t01_many_rejections_of_one_generation_make_one_rotation() {
    let now = start();
    let mut state = active(now);
    for _ in 0..10 {
        assert_eq!(state.reject(now, 1), Verdict::Wait);
    }
    assert_eq!(rotate(&mut state, now), Cause::Rejected);
    for _ in 0..10 {
        assert_eq!(state.reject(now, 1), Verdict::Replay);
    }
    assert_eq!(state.next(now, false), Next::Sleep(None));
}

#[test]
fn t01_an_older_generation_is_replayed_without_a_rotation() {
    let now = start();
    let mut state = State::new(Some(pair(5, now, HOUR)), None);
    assert_eq!(state.reject(now, 4), Verdict::Replay);
    assert_eq!(state.next(now, false), Next::Sleep(None));
}

#[test]
fn t17_a_request_is_not_sent_again_with_a_newer_pair_that_has_died_too() {
    let now = start();
    let mut state = State::new(Some(pair(5, now, HOUR)), None);
    let dead = later(now, HOUR);
    assert_eq!(state.reject(dead, 4), Verdict::Wait);
    assert_eq!(state.next(dead, false), Next::Rotate(Cause::Expired));
    state.finished(dead, unavailable(), 0.0);
    assert!(matches!(state.reject(dead, 4), Verdict::Pass(_)));
}

#[test]
fn t02_while_one_rotation_runs_there_is_no_other() {
    let now = start();
    let mut state = active(now);
    state.reject(now, 1);
    assert_eq!(state.next(now, false), Next::Rotate(Cause::Rejected));
    assert_eq!(state.next(now, false), Next::Sleep(None));
    assert_eq!(state.ask(now, false), Ask::Wait);
    assert_eq!(state.reject(now, 1), Verdict::Wait);
    assert_eq!(state.next(now, false), Next::Sleep(None));
}

#[test]
fn t09_a_refused_grant_answers_at_once_and_never_rotates_again() {
    let now = start();
    let mut state = active(now);
    state.reject(now, 1);
    state.next(now, false);
    let trouble = Trouble::LoginRequired("gone".to_owned());
    state.finished(now, Outcome::Refused(trouble.clone()), 0.0);
    for hours in 0..100 {
        let now = later(now, HOUR * hours);
        let ask = Ask::Fail(NoToken {
            trouble: trouble.clone(),
            retry_after: None,
        });
        assert_eq!(state.ask(now, false), ask);
        assert!(matches!(state.reject(now, 1), Verdict::Pass(_)));
        assert_eq!(state.next(now, false), Next::Sleep(None));
    }
    state.renew(now, pair(2, now, HOUR));
    assert_eq!(state.ask(now, false), Ask::Use, "a login heals it");
}

#[test]
fn t10_failures_back_off_to_a_minute_and_heal_without_a_request() {
    let mut now = start();
    let mut state = active(now);
    now = later(now, HOUR * 2);
    assert_eq!(state.ask(now, false), Ask::Wait);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(state.next(now, false), Next::Rotate(Cause::Expired));
        state.finished(now, unavailable(), 1.0);
        let Next::Sleep(Some(until)) = state.next(now, false) else {
            panic!("no back-off: {state:?}");
        };
        waits.push((until - now.monotonic).as_secs());
        assert!(matches!(
            state.ask(now, false),
            Ask::Fail(NoToken {
                retry_after: Some(_),
                ..
            })
        ));
        now = later(now, until - now.monotonic);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(
        rotate(&mut state, now),
        Cause::Expired,
        "without a request in between"
    );
    assert_eq!(state.ask(now, false), Ask::Use);
}

#[test]
fn t10_retry_after_is_honoured_within_reason() {
    let now = start();
    for (asked, seconds) in [(7, 7), (0, 1), (1_000_000, 3600)] {
        let mut state = active(now);
        state.reject(now, 1);
        state.next(now, false);
        let trouble = Trouble::TokenUnavailable("busy".to_owned());
        let retry_after = Some(Duration::from_secs(asked));
        state.finished(
            now,
            Outcome::Failed {
                trouble,
                retry_after,
            },
            1.0,
        );
        let until = later(now, Duration::from_secs(seconds)).monotonic;
        assert_eq!(state.next(now, false), Next::Sleep(Some(until)), "{asked}");
    }
}

#[test]
fn t10_a_living_token_is_used_while_the_endpoint_is_down() {
    let now = start();
    let mut state = active(now);
    let soon = later(now, HOUR - Duration::from_secs(200));
    assert_eq!(state.ask(soon, false), Ask::Wait, "early refresh");
    state.next(soon, false);
    state.finished(soon, unavailable(), 0.0);
    assert_eq!(state.ask(soon, false), Ask::Use);
    let dead = later(now, HOUR);
    assert_ne!(state.ask(dead, false), Ask::Use);
}

#[test]
fn t12_expiry_is_judged_by_the_wall_clock_at_the_moment_of_use() {
    let now = start();
    let mut state = active(now);
    // The machine slept: the monotonic clock stood still.
    let woken = Now {
        wall: now.wall + HOUR,
        ..now
    };
    assert_eq!(state.ask(woken, false), Ask::Wait);
    assert_eq!(state.next(woken, false), Next::Rotate(Cause::Expired));
}

#[test]
fn t13_the_early_refresh_starts_a_margin_before_but_at_most_a_tenth_of_the_lifetime() {
    let end = start().wall;
    let margin = Duration::from_secs(300);
    let before = |time| end.duration_since(time).expect("before");
    let early = |lifetime, jitter| {
        let (refresh_at, rotate_by) = early(end, lifetime, margin, jitter);
        (before(refresh_at), before(rotate_by))
    };
    assert_eq!(early(HOUR, 0.0), (margin, margin / 5));
    let most = margin + Duration::from_secs(60);
    assert_eq!(early(HOUR, 1.0), (most, most / 5));
    let tenth = Duration::from_millis(300);
    assert_eq!(early(Duration::from_secs(3), 1.0), (tenth, tenth / 5));
    assert_eq!(early(Duration::ZERO, 1.0), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn t13_in_the_margin_new_requests_wait_for_the_rotation() {
    let now = start();
    let mut state = active(now);
    let fresh = later(now, HOUR - Duration::from_secs(301));
    assert_eq!(state.ask(fresh, false), Ask::Use);
    assert_eq!(
        state.next(fresh, false),
        Next::Sleep(None),
        "nothing is rotated before"
    );
    let margin = later(now, HOUR - Duration::from_secs(299));
    assert_eq!(state.ask(margin, false), Ask::Wait);
    assert_eq!(rotate(&mut state, margin), Cause::Expiring);
}

#[test]
fn t13_the_early_refresh_prefers_a_moment_with_nothing_on_its_way() {
    let now = start();
    let mut state = active(now);
    let margin = later(now, HOUR - Duration::from_secs(299));
    assert_eq!(state.ask(margin, true), Ask::Use, "others are on their way");
    let by = later(now, HOUR - Duration::from_secs(60)).monotonic;
    assert_eq!(state.next(margin, true), Next::Sleep(Some(by)));
    assert_eq!(state.ask(margin, true), Ask::Use, "nobody waits yet");
    assert_eq!(
        state.clone().next(margin, false),
        Next::Rotate(Cause::Expiring),
        "they have arrived: without a request"
    );
    assert_eq!(
        state.clone().ask(margin, false),
        Ask::Wait,
        "or with the next request"
    );
    let fifth = later(now, HOUR - Duration::from_secs(59));
    assert_eq!(
        state.clone().next(fifth, true),
        Next::Rotate(Cause::Expiring),
        "with a fifth of the margin left it waits no longer"
    );
    assert_eq!(state.ask(fifth, true), Ask::Wait);
}

#[test]
fn t13_a_rotation_that_waits_for_a_quiet_moment_gives_way_to_a_rejection_and_to_a_newer_pair() {
    let now = start();
    let margin = later(now, HOUR - Duration::from_secs(299));
    let hoping = || {
        let mut state = active(now);
        assert_eq!(state.ask(margin, true), Ask::Use);
        assert!(state.is_hoping());
        state
    };
    let mut state = hoping();
    assert_eq!(state.reject(margin, 1), Verdict::Wait);
    assert_eq!(state.next(margin, true), Next::Rotate(Cause::Rejected));
    let mut state = hoping();
    state.renew(margin, pair(2, margin, HOUR));
    assert!(state.is_calm());
    assert_eq!(state.next(margin, false), Next::Sleep(None));
}

#[test]
fn t14_an_idle_grant_is_rotated_when_its_refresh_token_grows_old() {
    let now = start();
    let mut state = active(now);
    let day = later(now, HOUR * 24);
    assert_eq!(
        state.next(day, false),
        Next::Sleep(None),
        "no hourly rotation"
    );
    let old = later(now, IDLE);
    assert_eq!(state.next(old, false), Next::Rotate(Cause::Idle));
    state.finished(old, unavailable(), 0.0);
    let Next::Sleep(Some(_)) = state.next(old, false) else {
        panic!("it stays wanted: {state:?}")
    };
    state.block(Trouble::LoginRequired("gone".to_owned()));
    assert_eq!(state.next(old, false), Next::Sleep(None));
}

#[test]
fn t11_a_rotation_without_a_known_end_is_settled_without_a_request_and_a_dead_pair_is_not_used() {
    let now = start();
    let mut state = active(now);
    state.settle();
    assert_eq!(state.ask(now, false), Ask::Wait);
    assert_eq!(state.next(now, false), Next::Rotate(Cause::Unfinished));
    state.finished(now, unavailable(), 0.0);
    assert_eq!(
        state.ask(now, false),
        Ask::Use,
        "not known to be dead, and it lives by the clock"
    );
    let due = later(now, Duration::from_secs(1));
    assert_eq!(state.next(due, false), Next::Rotate(Cause::Unfinished));
    state.bury();
    state.finished(due, unavailable(), 0.0);
    assert!(matches!(state.ask(due, false), Ask::Fail(_)));
}

#[test]
fn a_person_gets_another_pair_on_demand_and_once() {
    let now = start();
    let mut state = active(now);
    assert_eq!(state.demand(now, 1), Ask::Wait);
    assert_eq!(state.demand(now, 1), Ask::Wait);
    assert_eq!(rotate(&mut state, now), Cause::Asked);
    assert_eq!(state.demand(now, 1), Ask::Use);
    assert_eq!(state.next(now, false), Next::Sleep(None));
    state.block(Trouble::LoginRequired("gone".to_owned()));
    assert!(matches!(state.demand(now, 2), Ask::Fail(_)));
}

#[test]
fn t15_a_401_that_no_rotation_cures_opens_a_quiet_period_that_doubles() {
    let mut now = start();
    let mut state = active(now);
    let mut lengths = Vec::new();
    for generation in 1..9 {
        assert_eq!(state.reject(now, generation), Verdict::Wait);
        assert_eq!(rotate(&mut state, now), Cause::Rejected);
        for _ in 0..5 {
            // Many replays of one generation are one failure.
            state.replayed(now, generation + 1, false);
        }
        let begun = now;
        while matches!(state.clone().reject(now, generation + 1), Verdict::Pass(_)) {
            assert_eq!(state.next(now, false), Next::Sleep(None), "rotates nothing");
            now = later(now, Duration::from_secs(1));
        }
        lengths.push((now.monotonic - begun.monotonic).as_secs());
    }
    assert_eq!(lengths, [30, 60, 120, 240, 480, 600, 600, 600]);
}

#[test]
fn t15_reports_of_what_cannot_be_replayed_are_no_storm_either() {
    let mut now = start();
    let mut state = active(now);
    let mut rotations = 0;
    for _ in 0..600 {
        let generation = state.pair().expect("a pair").generation;
        state.report(now, generation);
        if matches!(state.clone().next(now, false), Next::Rotate(_)) {
            rotate(&mut state, now);
            rotations += 1;
        }
        now = later(now, Duration::from_secs(1));
    }
    assert!((2..=21).contains(&rotations), "{rotations} in ten minutes");
}

#[test]
fn t13_a_second_attempt_is_waited_for_like_the_first() {
    let now = start();
    let mut state = active(now);
    state.reject(now, 1);
    state.next(now, false);
    state.finished(now, unavailable(), 0.0);
    assert_eq!(state.ask(now, false), Ask::Use, "between two attempts");
    let due = later(now, Duration::from_secs(1));
    assert_eq!(state.next(due, false), Next::Rotate(Cause::Rejected));
    assert_eq!(state.ask(due, false), Ask::Wait, "while one is under way");
}

#[test]
fn t15_an_accepted_replay_or_a_timed_rotation_ends_the_quiet_period() {
    let now = start();
    let quiet = || {
        let mut state = active(now);
        state.reject(now, 1);
        rotate(&mut state, now);
        state.replayed(now, 2, false);
        assert!(matches!(state.reject(now, 2), Verdict::Pass(_)));
        state
    };
    let mut state = quiet();
    state.replayed(now, 2, true);
    assert_eq!(state.reject(now, 2), Verdict::Wait);
    let mut state = quiet();
    let expired = later(now, HOUR);
    let expired = Now {
        monotonic: now.monotonic,
        ..expired
    };
    assert_eq!(state.ask(expired, false), Ask::Wait);
    assert_eq!(rotate(&mut state, expired), Cause::Expired);
    assert_eq!(state.reject(expired, 3), Verdict::Wait);
}

#[test]
fn t15_a_token_that_is_revoked_right_after_its_birth_heals() {
    let now = start();
    let mut state = active(now);
    let expired = later(now, HOUR);
    assert_eq!(state.ask(expired, false), Ask::Wait);
    rotate(&mut state, expired);
    // A request of generation 1 is replayed with 2, which has been revoked: the next rotation is made for it.
    assert_eq!(state.reject(expired, 1), Verdict::Replay);
    state.replayed(expired, 2, false);
    assert_eq!(rotate(&mut state, expired), Cause::Rejected);
}

#[test]
fn t17_without_a_pair_nobody_is_given_anything() {
    let now = start();
    let mut state = State::new(None, Some(Trouble::LoginRequired("never".to_owned())));
    assert!(matches!(state.ask(now, false), Ask::Fail(_)));
    assert!(matches!(state.reject(now, 0), Verdict::Pass(_)));
    assert_eq!(state.next(now, false), Next::Sleep(None));
}

#[derive(Clone, Debug)]
enum Event {
    Ask { busy: bool },
    Reject(u64),
    Replayed(u64, bool),
    Next,
    Succeed { lifetime: u64 },
    Refuse,
    Fail { retry_after: Option<u64> },
    Pass { wall: u64, monotonic: u64 },
    Login,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(|busy| Event::Ask { busy }),
        4 => (0..3_u64).prop_map(Event::Reject),
        2 => (0..2_u64, any::<bool>()).prop_map(|(age, accepted)| Event::Replayed(age, accepted)),
        6 => Just(Event::Next),
        4 => (0..7200_u64).prop_map(|lifetime| Event::Succeed { lifetime }),
        1 => Just(Event::Refuse),
        2 => proptest::option::of(0..100_u64).prop_map(|retry_after| Event::Fail { retry_after }),
        4 => (0..4000_u64, 0..4000_u64).prop_map(|(wall, monotonic)| Event::Pass { wall, monotonic }),
        1 => Just(Event::Login),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_sequence_of_events_breaks_an_invariant(events in proptest::collection::vec(event(), 0..80)) {
        let mut now = start();
        let mut state = active(now);
        let mut running = false;
        let mut refused = false;
        let mut generation = 1_u64;
        for event in events {
            match event {
                Event::Ask { busy } => {
                    let answer = state.ask(now, busy);
                    let current = *state.pair().expect("there is one from the start");
                    if answer == Ask::Use {
                        prop_assert!(!refused, "T9: handed out after a refusal");
                        prop_assert!(now.wall < current.expires_at, "T17: handed out dead");
                    }
                    if refused {
                        let failed = matches!(answer, Ask::Fail(NoToken { retry_after: None, .. }));
                        prop_assert!(failed, "T9: at once");
                    }
                    if answer == Ask::Wait {
                        let under_way = running || matches!(state.clone().next(now, false), Next::Rotate(_));
                        prop_assert!(under_way, "nobody waits for nothing");
                    }
                }
                Event::Reject(age) => {
                    let before = state.clone().next(now, false);
                    let verdict = state.reject(now, generation.saturating_sub(age));
                    let current = *state.pair().expect("there is one from the start");
                    if age > 0 && now.wall < current.expires_at {
                        prop_assert_eq!(state.clone().next(now, false), before, "T1: an old generation rotates nothing");
                    }
                    if verdict == Verdict::Replay {
                        prop_assert!(age > 0, "T1: never with the token that was rejected");
                        prop_assert!(now.wall < current.expires_at, "T17: nor with a dead one");
                    }
                }
                Event::Replayed(age, accepted) => {
                    state.replayed(now, generation.saturating_sub(age), accepted);
                }
                Event::Next => {
                    if let Next::Rotate(_) = state.next(now, false) {
                        prop_assert!(!running, "T2: two rotations at once");
                        prop_assert!(!refused, "T9: a refused generation was posted again");
                        running = true;
                    }
                }
                Event::Succeed { lifetime } if running => {
                    generation += 1;
                    let renewed = pair(generation, now, Duration::from_secs(lifetime));
                    state.finished(now, Outcome::Renewed(renewed), 0.5);
                    running = false;
                }
                Event::Refuse if running => {
                    state.finished(now, Outcome::Refused(Trouble::LoginRequired("gone".to_owned())), 0.5);
                    (running, refused) = (false, true);
                }
                Event::Fail { retry_after } if running => {
                    let trouble = Trouble::TokenUnavailable("down".to_owned());
                    let retry_after = retry_after.map(Duration::from_secs);
                    state.finished(now, Outcome::Failed { trouble, retry_after }, 0.5);
                    prop_assert!(matches!(state.clone().next(now, false), Next::Sleep(Some(_))), "T10: it stays wanted");
                    running = false;
                }
                Event::Pass { wall, monotonic } => {
                    now.wall += Duration::from_secs(wall);
                    now.monotonic += Duration::from_secs(monotonic);
                }
                Event::Login if !running => {
                    generation += 1;
                    state.renew(now, pair(generation, now, HOUR));
                    refused = false;
                }
                _ => {}
            }
            let current = state.pair().expect("there is one from the start").generation;
            prop_assert_eq!(current, generation, "a generation never goes back");
        }
    }

    #[test]
    fn t15_a_storm_of_401s_rotates_a_bounded_number_of_times(
        gaps in proptest::collection::vec(0..5000_u64, 1..400)
    ) {
        let mut now = start();
        let begun = now.monotonic;
        let mut state = State::new(Some(pair(1, now, HOUR * 10_000)), None);
        let mut rotations = 0_u64;
        for gap in gaps {
            now = later(now, Duration::from_millis(gap));
            let generation = state.pair().expect("a pair").generation;
            if state.reject(now, generation) == Verdict::Wait {
                let Next::Rotate(_) = state.next(now, false) else { panic!("nobody waits for nothing") };
                rotations += 1;
                state.finished(now, Outcome::Renewed(pair(generation + 1, now, HOUR * 10_000)), 0.5);
                state.replayed(now, generation + 1, false);
            }
        }
        let seconds = (now.monotonic - begun).as_secs();
        prop_assert!(rotations <= 1 + seconds / 30, "{rotations} in {seconds} s");
    }
}
