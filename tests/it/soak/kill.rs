//! `kill -9` under load. Lucid spends a refresh token the moment it is posted, so there is one place where a kill costs
//! the login: after the token endpoint has rotated and before the answer is in the store, a few milliseconds in an
//! hour. Everywhere else the stored pair must carry on, and clients must see nothing but broken connections.
//!
//! The stand-in lives in the test's process and knows how many rotations took effect; the store knows its generation.
//! Once every connection of the killed proxy is gone nothing moves any more, and the two tell whether that place was
//! hit. If so, a restarted proxy must say `loginRequired`, and a new login must help. Random kills hit it now and then
//! only, so each test ends with one that does.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lucid_proxy::sandbox::{Behaviour, TokenFailure};
use rustix::process::Signal;
use tokio::net::TcpSocket;

use super::load::{self, Broken, Tally};
use crate::world::{SOON, Serving, World, errors};

/// Long enough that a busy machine gets a request through with a token that was issued for it.
const LIFETIME: Duration = Duration::from_secs(2);
const CLIENTS: u64 = 8;

#[test]
fn five_kills_lose_no_login() {
    Kills::start().strike(5);
}

#[test]
#[ignore = "the long form of the above"]
fn thirty_kills_lose_no_login() {
    Kills::start().strike(30);
}

/// An address that outlives the proxies that listen on it.
///
/// The socket is bound and never listens. That lets a server with `SO_REUSEADDR` have the same address, and keeps the
/// system from lending the port to others between two servers: not to another test, and not to a client of ours, which
/// could otherwise end up connected to itself.
struct Reserved {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl Reserved {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a free port");
        let address = socket.local_addr().expect("an address");
        Self {
            _socket: socket,
            address,
        }
    }
}

struct Kills {
    world: World,
    reserved: Reserved,
    /// How often a kill hit the place that costs the login.
    lost: u64,
}

impl Kills {
    fn start() -> Self {
        let world = World::behaving(Behaviour {
            access_lifetime: LIFETIME,
            ..Behaviour::default()
        });
        world.log_in();
        Self {
            world,
            reserved: Reserved::new(),
            lost: 0,
        }
    }

    fn serve(&self) -> Serving {
        self.serve_on(self.reserved.address)
    }

    fn serve_on(&self, address: SocketAddr) -> Serving {
        self.world.configure();
        let address = address.to_string();
        Serving::start(self.world.command(&["serve", "--listen", &address]))
    }

    /// Kills the proxy so many times under load, and once more where it hurts.
    fn strike(mut self, times: u32) {
        let stop = AtomicBool::new(false);
        let proxy = self.reserved.address;
        let tally = std::thread::scope(|threads| {
            let clients = threads.spawn(|| load::run(proxy, CLIENTS, 0, Broken::TryAgain, &stop));
            // Told to stop also where an assertion below fails; otherwise the scope would wait for ever.
            let _stop = StopAtEnd(&stop);
            for _ in 0..times {
                self.kill_at_random();
            }
            let last = self.serve();
            let rotations = self.world.sandbox.counts().rotations;
            self.world
                .sandbox
                .wait_until(SOON, |counts| counts.rotations > rotations);
            stop.store(true, Ordering::Relaxed);
            let tally = clients.join().expect("clients do not panic");
            last.stop();
            tally
        });
        self.judge(&tally, times);
        self.kill_where_it_costs_the_login();
    }

    /// Starts the proxy, lets it serve for a random while, kills it, and sees what is left.
    fn kill_at_random(&mut self) {
        let mut serving = self.serve();
        // Half of the kills come while the clients' first requests wait for the rotation that they caused.
        self.wait_for_load(match fastrand::bool() {
            true => fastrand::u64(1..=CLIENTS),
            false => fastrand::u64(CLIENTS..400),
        });
        killed(&mut serving);
        if self.login_was_lost() {
            self.lost += 1;
            self.recover();
        }
        // The next one must rotate at once, with the pair that this one left.
        self.world.sandbox.expire_access_tokens();
    }

    /// Blocks until so many more requests of clients have reached upstream: the load's own measure of time.
    fn wait_for_load(&self, requests: u64) {
        let now = self.world.sandbox.counts().api_requests;
        self.world
            .sandbox
            .wait_until(SOON, |counts| counts.api_requests >= now + requests);
    }

    /// Whether more rotations took effect than the store knows of. Asked when no proxy runs.
    fn login_was_lost(&self) -> bool {
        // A token POST may still be on its way into the stand-in; with the last connection it has ended or never will.
        let counts = self
            .world
            .sandbox
            .wait_until(SOON, |counts| counts.open_connections == 0);
        // What a login writes has no generation yet; it is the first.
        let generation = self.world.stored()["generation"].as_u64().unwrap_or(1);
        let (rotated, stored) = (counts.rotations, generation - 1);
        assert!(
            rotated == stored || rotated == stored + 1,
            "{rotated} rotations, {stored} stored"
        );
        rotated != stored
    }

    /// What a person sees and does after the login was lost. Where no load arrives, so that each answer is as expected.
    fn recover(&self) {
        let serving = self.serve_on(([127, 0, 0, 1], 0).into());
        // The access token in the store died in the lost rotation: this answer is Lucid's own, since the refresh that
        // should cure it is refused.
        let first = serving.get("/v1/users/me/profile");
        assert!([401, 503].contains(&first.status), "{first:?}");
        let second = serving.get("/v1/users/me/profile");
        assert_eq!(
            (second.status, second.code().as_str()),
            (503, "loginRequired")
        );
        assert!(
            second.text().contains(" was lost: it took effect"),
            "{}",
            second.text()
        );
        serving.stop();

        let path = self.world.directory.path().join("fresh.json");
        let pair = serde_json::to_vec(&self.world.sandbox.approve()).expect("JSON");
        std::fs::write(&path, pair).expect("written");
        // The import counts the generation up by one, as the lost rotation would have: both sides agree again.
        let imported = self.world.run(&["import", path.to_str().expect("text")]);
        assert!(imported.status.success(), "{}", errors(&imported));
    }

    /// Clients noticed broken connections and nothing else, and upstream no refresh token twice but the lost ones.
    fn judge(&self, tally: &Tally, kills: u32) {
        let counts = self.world.sandbox.counts();
        println!(
            "{kills} kills, {} of them at a rotation's cost: {tally:?}; rotations {}, dead tokens {}",
            self.lost, counts.rotations, counts.dead_tokens
        );
        assert_eq!(tally.failed, 0, "{tally:#?}");
        assert!(tally.broken >= u64::from(kills), "{tally:?}");
        assert!(tally.replayed > 0, "the load met no dead token");
        assert_eq!(counts.reused_refresh_tokens, self.lost);
        assert_eq!(counts.unknown_tokens, 0);
        assert_eq!(counts.problems, Vec::<String>::new());
    }

    /// The one bad moment, held still: the rotation took effect and its answer never comes.
    fn kill_where_it_costs_the_login(&self) {
        let rotations = self.world.sandbox.counts().rotations;
        let mut serving = self.serve();
        self.world.sandbox.change(|behaviour| {
            behaviour.token_failures.push_back(TokenFailure::HangAfter);
        });
        self.world.sandbox.expire_access_tokens();
        let mut client = serving.connect();
        client.request("GET /v1/users/me/profile", &[], b"");
        self.world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations > rotations);
        killed(&mut serving);
        assert!(client.is_closed(), "nobody is there to answer");
        assert!(self.login_was_lost());
        self.recover();
        let serving = self.serve();
        assert_eq!(serving.get("/v1/users/me/profile").status, 200);
        serving.stop();
    }
}

/// SIGKILL, and the proof that it was that.
fn killed(serving: &mut Serving) {
    use std::os::unix::process::ExitStatusExt;
    serving.signal(Signal::KILL);
    let status: ExitStatus = serving.wait();
    assert_eq!(status.signal(), Some(9), "{status}: {}", serving.log());
}

/// Stops the load when it goes out of scope.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
