//! `kill -9` under load. Lucid spends a refresh token when it is posted, so there is one place where a kill may cost the
//! login: after the token endpoint has rotated and before the answer is in the store, a few milliseconds in an hour.
//! Everywhere else the stored pair must carry on, and clients must see nothing but broken connections.
//!
//! The stand-in lives in the test's process and knows what was posted and what took effect; the store knows its
//! generation. Once every connection of the killed proxy is gone nothing moves any more, and the two tell where the kill
//! struck (see [`Place`]). What must be so then is the same for every kill of a place.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lucid_proxy::sandbox::Counts;
use lucid_proxy::secret::ExposeSecret;
use lucid_proxy::token::record::Intent;
use lucid_proxy::token::succession::lost;
use rustix::process::Signal;
use tokio::net::TcpSocket;

use super::load::{self, Broken, Tally};
use crate::world::{SOON, Serving, World, errors, get};

const CLIENTS: u64 = 8;
/// The slowest answer of the token endpoint.
const SLOWEST: u64 = 80;
const PROFILE: &str = "/v1/users/me/profile";

#[test]
fn t03_t04_t11_a_few_kills_lose_no_login_but_in_one_place() {
    let struck = Kills::start().strike(8);
    assert_eq!(struck.all(), 8);
}

#[test]
#[ignore = "the long form of the above"]
fn two_hundred_kills_lose_no_login_but_in_one_place() {
    let struck = Kills::start().strike(200);
    assert_eq!(struck.all(), 200);
    assert!(
        struck.before >= 5 && struck.unprocessed >= 5 && struck.lost >= 5 && struck.stored >= 5,
        "every place was hit: {struck:?}"
    );
}

/// Where in the life of a rotation a kill struck, as it shows from outside.
#[derive(Debug)]
enum Place {
    /// Before a POST: the stand-in has seen none since the proxy started.
    Before,
    /// A POST arrived, and the store does not hold its pair: the answer was on its way, or still to be made.
    OnItsWay(OnItsWay),
    /// Every POST that arrived has its pair in the store.
    Stored,
}

/// What became of a POST whose answer was on its way.
#[derive(Debug)]
enum OnItsWay {
    /// It never took effect: the refresh token lives.
    Unprocessed,
    /// It took effect, and the new pair died with the proxy.
    Lost(Intent),
}

/// How often each place was hit.
#[derive(Debug, Default)]
struct Struck {
    before: u64,
    unprocessed: u64,
    lost: u64,
    stored: u64,
}

impl Struck {
    fn all(&self) -> u64 {
        self.before + self.unprocessed + self.lost + self.stored
    }

    fn count(&mut self, place: &Place) {
        *match place {
            Place::Before => &mut self.before,
            Place::OnItsWay(OnItsWay::Unprocessed) => &mut self.unprocessed,
            Place::OnItsWay(OnItsWay::Lost(_)) => &mut self.lost,
            Place::Stored => &mut self.stored,
        } += 1;
    }

    fn print(&self) {
        println!("kills by place:");
        for (place, kills, then) in [
            ("before the POST", self.before, "the login lives"),
            (
                "answer on its way, no effect",
                self.unprocessed,
                "the login lives",
            ),
            (
                "answer on its way, took effect",
                self.lost,
                "loginRequired, with the time of the rotation",
            ),
            ("stored", self.stored, "the login lives"),
        ] {
            println!("  {place:<31}{kills:>4}   {then}");
        }
    }
}

/// What a kill waits for, all of it under load, and from a start with a dead access token.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// A few milliseconds: the first requests come.
    AtOnce,
    /// A POST has arrived, and a part of the time that the token endpoint takes.
    Posted,
    /// A rotation has taken effect, and a moment.
    Rotated,
    /// So many requests have reached upstream.
    Requests(u64),
}

impl Moment {
    fn of_kill(number: u64) -> Self {
        match number % 4 {
            0 => Self::Posted,
            1 => Self::Rotated,
            2 => Self::AtOnce,
            _ => Self::Requests(fastrand::u64(1..200)),
        }
    }
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
    struck: Struck,
}

impl Kills {
    fn start() -> Self {
        Self {
            world: World::logged_in(),
            reserved: Reserved::new(),
            struck: Struck::default(),
        }
    }

    fn serve_on(&self, address: SocketAddr) -> Serving {
        self.world.configure();
        let address = address.to_string();
        Serving::start(self.world.command(&["serve", "--listen", &address]))
    }

    /// Kills the proxy so many times under load.
    fn strike(mut self, times: u64) -> Struck {
        let stop = AtomicBool::new(false);
        let proxy = self.reserved.address;
        let tally = std::thread::scope(|threads| {
            let clients = threads.spawn(|| load::run(proxy, CLIENTS, 0, Broken::TryAgain, &stop));
            // Told to stop also where an assertion below fails; otherwise the scope would wait for ever.
            let _stop = StopAtEnd(&stop);
            for number in 0..times {
                let place = self.kill_at(Moment::of_kill(number));
                self.struck.count(&place);
                match place {
                    Place::OnItsWay(OnItsWay::Lost(intent)) => self.recover(&intent),
                    lived => self.prove_that_the_login_lives(&lived),
                }
            }
            let last = self.serve_on(proxy);
            self.wait_for_requests(400);
            stop.store(true, Ordering::Relaxed);
            let tally = clients.join().expect("clients do not panic");
            last.stop();
            tally
        });
        self.judge(&tally, times);
        self.struck.print();
        self.struck
    }

    /// Starts the proxy with a dead access token, kills it at `moment`, and finds out where that was.
    fn kill_at(&self, moment: Moment) -> Place {
        let sandbox = &self.world.sandbox;
        // While no proxy runs: a token that dies as it comes is another story (T15).
        sandbox.expire_access_tokens();
        self.set_delay(if fastrand::bool() {
            fastrand::u64(1..=SLOWEST)
        } else {
            0
        });
        let before = sandbox.counts();
        let mut serving = self.serve_on(self.reserved.address);
        let pause = match moment {
            Moment::AtOnce => fastrand::u64(..8),
            Moment::Posted => {
                sandbox.wait_until(SOON, |now| now.token_posts > before.token_posts);
                fastrand::u64(..SLOWEST / 2)
            }
            Moment::Rotated => {
                sandbox.wait_until(SOON, |now| now.rotations > before.rotations);
                fastrand::u64(..4)
            }
            Moment::Requests(requests) => {
                self.wait_for_requests(requests);
                0
            }
        };
        std::thread::sleep(Duration::from_millis(pause));
        killed(&mut serving);
        let place = self.place(&before);
        self.set_delay(0);
        place
    }

    fn set_delay(&self, milliseconds: u64) {
        let delay = Duration::from_millis(milliseconds);
        let sandbox = &self.world.sandbox;
        sandbox.change(|behaviour| behaviour.token_delay = delay);
    }

    /// Blocks until so many more requests of clients have reached upstream: the load's own measure of time.
    fn wait_for_requests(&self, requests: u64) {
        let sandbox = &self.world.sandbox;
        let now = sandbox.counts().api_requests;
        sandbox.wait_until(SOON, |counts| counts.api_requests >= now + requests);
    }

    /// Where a kill struck a proxy that had started when the counts were as `before`.
    fn place(&self, before: &Counts) -> Place {
        let counts = self.settled();
        let record = self.world.record();
        let generation = record.generation.expect("it is counted");
        let (rotated, stored) = (counts.rotations, generation - 1);
        let token = record.refresh_token.expose_secret();
        let posts = |counts: &Counts| counts.posts_by_refresh_token.get(token).copied();
        if posts(&counts) == posts(before) {
            // Whatever was posted was an older token, and has its pair in the store.
            assert_eq!(rotated, stored, "no rotation is lost without a POST");
            return match counts.token_posts == before.token_posts {
                true => Place::Before,
                false => Place::Stored,
            };
        }
        let intent = record.intent.expect("it is stored before the POST");
        assert_eq!(intent.generation, generation);
        assert!(
            rotated == stored || rotated == stored + 1,
            "{rotated} rotations, {stored} stored"
        );
        Place::OnItsWay(match rotated == stored {
            true => OnItsWay::Unprocessed,
            false => OnItsWay::Lost(intent),
        })
    }

    /// The counts when nothing that a killed proxy sent can have an effect any more.
    fn settled(&self) -> Counts {
        let sandbox = &self.world.sandbox;
        // Connections are accepted in order: with this answer there is none left that has not been.
        get(sandbox.address(), "/sandbox/counts");
        // With a connection its request has ended: answered, or given up without effect.
        sandbox.wait_until(SOON, |counts| counts.open_connections == 0)
    }

    /// A restarted proxy works, and nobody had to log in. Where no load arrives, so that each count is exact.
    fn prove_that_the_login_lives(&self, place: &Place) {
        let before = self.world.sandbox.counts();
        let serving = self.serve_on(([127, 0, 0, 1], 0).into());
        let response = serving.get(PROFILE);
        assert_eq!(
            response.status,
            200,
            "{place:?}: {}\n{}",
            response.text(),
            serving.log()
        );
        serving.stop();
        let counts = self.settled();
        let posts = counts.token_posts - before.token_posts;
        match place {
            Place::Stored => assert_eq!(posts, 0, "the stored pair was good"),
            Place::Before | Place::OnItsWay(_) => assert_eq!(posts, 1, "{place:?}"),
        }
    }

    /// What a person sees and does after the login was lost.
    fn recover(&self, intent: &Intent) {
        let serving = self.serve_on(([127, 0, 0, 1], 0).into());
        let response = serving.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "loginRequired")
        );
        let message = format!(
            "the token endpoint refused the refresh token (invalid_grant \"Invalid client id, client secret, or refresh token\"): {}; log in again: lucid-proxy login",
            lost(intent)
        );
        assert_eq!(response.json()["message"], message);
        serving.stop();

        let path = self.world.directory.path().join("fresh.json");
        let pair = serde_json::to_vec(&self.world.sandbox.approve()).expect("JSON");
        std::fs::write(&path, pair).expect("written");
        // The import counts the generation up by one, as the lost rotation would have: both sides agree again.
        let imported = self.world.run(&["import", path.to_str().expect("text")]);
        assert!(imported.status.success(), "{}", errors(&imported));
    }

    /// Clients noticed broken connections and nothing else, and upstream no spent refresh token but the lost ones.
    fn judge(&self, tally: &Tally, kills: u64) {
        let counts = self.world.sandbox.counts();
        println!(
            "{kills} kills: {tally:?}; rotations {}, dead tokens {}",
            counts.rotations, counts.dead_tokens
        );
        assert_eq!(tally.failed, 0, "{tally:#?}");
        assert!(tally.broken >= kills, "{tally:?}");
        assert!(tally.replayed > 0, "the load met no dead token");
        assert_eq!(counts.reused_refresh_tokens, self.struck.lost);
        assert_eq!(counts.unknown_tokens, 0);
        assert_eq!(counts.problems, Vec::<String>::new());
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
