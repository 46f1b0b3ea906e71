//! Several proxies on one store, in front of an authorization server that was written by others: `oidc-provider`, which
//! is certified and takes a refresh token that comes twice for a theft. `tests/oidc/server.mjs` makes it look like Lucid.
//!
//! ```text
//! cargo test --release --test it -- --ignored independent --test-threads 1 --nocapture
//! ```

mod server;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Client, Serving, World};
use server::Server;

/// How long a few rotations may take. Far more than they do on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The life of an access token, so that many die under load.
const SHORT: Duration = Duration::from_secs(3);
/// The same where only rotation and revocation are to end it.
const LONG: Duration = Duration::from_secs(3600);
/// Nobody issued it.
const STALE: &str = "Authorization: Bearer oauth2-stale-independent-51ae07";
const PROFILE: &str = "/users/me/profile";
/// Answers beyond this many that nobody should see are counted and not described.
const MOST_DESCRIBED: usize = 5;

#[test]
fn t02_an_independent_server_sees_no_reuse() {
    let Some(server) = Server::start(SHORT) else {
        return;
    };
    let rotations = load(&server, 16, || server.wait_for_rotations(3));
    assert!(rotations >= 3, "{rotations}");
}

#[test]
#[ignore = "takes a minute: 4 proxies, 64 clients"]
fn t02_an_independent_server_sees_no_reuse_for_a_minute() {
    let Some(server) = Server::start(SHORT) else {
        return;
    };
    // A pair lives for three seconds at the most: with requests all the time there is a new one at least that often,
    // less what a busy machine adds.
    let rotations = load(&server, 64, || std::thread::sleep(Duration::from_secs(60)));
    assert!(rotations >= 15, "{rotations}");
}

/// Without this the absence of a reuse would prove little.
#[test]
fn the_independent_server_notices_a_reuse_and_revokes_the_grant() {
    let Some(server) = Server::start(LONG) else {
        return;
    };
    let refresh = json!({
        "grant_type": "refresh_token",
        "refresh_token": server.pair["refresh_token"],
    });
    let rotated = server.post("/oauth2/token", refresh.clone());
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let pair = rotated.json();
    assert_eq!(pair["expires_in"], LONG.as_secs());
    assert_ne!(pair["refresh_token"], server.pair["refresh_token"]);
    assert_eq!(profile_with(&server, &server.pair["access_token"]), 401);
    assert_eq!(profile_with(&server, &pair["access_token"]), 200);
    assert!(is_active(&server, &pair["refresh_token"]));

    let reused = server.post("/oauth2/token", refresh);
    assert_eq!(
        (reused.status, &reused.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    assert_eq!(profile_with(&server, &pair["access_token"]), 401);
    assert!(!is_active(&server, &pair["refresh_token"]));
    let counts = server.counts();
    assert_eq!(counts["token_posts"], 2, "{counts}");
    assert_eq!(counts["rotations"], 1, "{counts}");
    assert_eq!(counts["reused_refresh_tokens"], 1, "{counts}");
    assert_eq!(counts["grants_revoked"], 1, "{counts}");
    assert_eq!(counts["errors"], json!({"invalid_grant": 1}));
    assert_eq!(counts["api_by_status"], json!({"200": 1, "401": 2}));
}

/// The same through proxies: two that have a copy of the store each do what those that share one must not.
#[test]
fn the_independent_server_notices_proxies_that_do_not_share_a_store() {
    let Some(server) = Server::start(LONG) else {
        return;
    };
    let worlds = [world(&server), world(&server)];
    // Of an unknown age, so that each rotates at its start.
    let undated = json!({"refresh_token": server.pair["refresh_token"]});
    for world in &worlds {
        world.write_store(undated.to_string().as_bytes());
    }
    let [first_world, second_world] = &worlds;
    let first = first_world.serve();
    assert_eq!(first.get(PROFILE).status, 200);
    // Not before that: its rotation ends what the first one was just given.
    let second = second_world.serve();
    assert_eq!(second.get(PROFILE).code(), "loginRequired");
    // Its new pair went with the grant.
    assert_ne!(first.get(PROFILE).status, 200);
    assert_eq!(first.get(PROFILE).code(), "loginRequired");
    let counts = server.counts();
    assert_eq!(counts["reused_refresh_tokens"], 1, "{counts}");
    assert_eq!(counts["grants_revoked"], 1, "{counts}");
}

/// Has clients ask four proxies on one store until `enough` returns, judges what clients, server and store have seen, and
/// returns the number of rotations.
fn load(server: &Server, clients: usize, enough: impl FnOnce()) -> u64 {
    let world = world(server);
    let mut first = server.pair.clone();
    first["generation"] = 1.into();
    world.write_store(first.to_string().as_bytes());
    let proxies: [Serving; 4] = std::array::from_fn(|_| world.serve());
    let begun = Instant::now();
    let tally = ask_all(&proxies, clients, enough);
    let lasted = begun.elapsed();
    // Each waits for a rotation of its own: then the counts stand still.
    let logs = proxies.map(Serving::stop);
    let counts = server.counts();
    println!("in {lasted:?}: {tally:?}\n{counts}");

    let seen = || format!("{counts}\nthe proxies' logs: {logs:#?}");
    assert_eq!(tally.failed, 0, "{:#?}\n{}", tally.failures, seen());
    assert!(tally.answers >= clients as u64, "{tally:?}");
    assert_eq!(counts["token_posts"], counts["rotations"], "{}", seen());
    for none in [
        "reused_refresh_tokens",
        "refresh_tokens_spent_twice",
        "grants_revoked",
    ] {
        assert_eq!(counts[none], 0, "{none}: {}", seen());
    }
    assert_eq!(counts["errors"], json!({}), "{}", seen());
    let rotations = counts["rotations"].as_u64().expect("a number");
    assert_eq!(world.stored()["generation"], 1 + rotations, "{}", seen());
    let took_part = logs.iter().filter(|log| log.contains("rotated")).count();
    println!("rotations {rotations}, by {took_part} proxies");
    rotations
}

/// A world whose upstream is the independent server.
fn world(server: &Server) -> World {
    let mut world = World::new();
    world.upstream = server.origin();
    world.token_origin = server.origin();
    world
}

/// What clients saw.
#[derive(Debug, Default)]
struct Tally {
    /// Answers that were right.
    answers: u64,
    /// Those among them that a proxy got with a second attempt.
    replayed: u64,
    /// All others.
    failed: u64,
    /// The first of those.
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.replayed += other.replayed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(MOST_DESCRIBED);
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < MOST_DESCRIBED {
            self.failures.push(what);
        }
    }
}

/// Runs clients, spread over the proxies, until `enough` returns.
fn ask_all(proxies: &[Serving], clients: usize, enough: impl FnOnce()) -> Tally {
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let client = proxies[number % proxies.len()].connect();
                let stop = &stop;
                threads.spawn(move || ask(client, number, stop))
            })
            .collect();
        enough();
        stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in clients {
            sum.add(client.join().expect("a client"));
        }
        sum
    })
}

/// One client, on one connection: a GET, a small POST and a larger one in turn.
fn ask(mut client: Client, number: usize, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut random = fastrand::Rng::with_seed(number as u64);
    for serial in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut body = vec![0; [0, 100, 20_000][serial % 3]];
        random.fill(&mut body);
        let line = match body.is_empty() {
            true => "GET /users/me/profile",
            false => "POST /sandbox/echo",
        };
        let answer = client.ask(line, &[STALE], &body);
        let is_right = match body.is_empty() {
            true => answer.body.ends_with(br#""username":"ada"}"#),
            false => answer.body == body,
        };
        // The proxy says so where it had to send a request twice.
        let said = answer.header("proxy-status");
        if answer.status == 200 && is_right && answer.complete {
            tally.answers += 1;
            tally.replayed += u64::from(said.is_some());
        } else {
            let (status, text) = (answer.status, answer.text());
            tally.fail(format!(
                "client {number}, request {serial}, {line}: {status} {said:?} {text}"
            ));
        }
    }
    tally
}

/// The status of an API request that carries this token.
fn profile_with(server: &Server, token: &Value) -> u16 {
    let token = token.as_str().expect("a token");
    let bearer = format!("Authorization: Bearer {token}");
    Client::connect(server.address)
        .ask(&format!("GET {PROFILE}"), &[&bearer], b"")
        .status
}

/// What introspection says (RFC 7662).
fn is_active(server: &Server, token: &Value) -> bool {
    let answer = server.post("/oauth2/token/introspect", json!({"token": token}));
    answer.json()["active"] == true
}
