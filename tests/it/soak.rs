//! Many clients at once, for a while: nobody may notice that tokens die every two seconds, or that the proxy is killed.
//!
//! Each test has a short form for every run and a long one, ignored, for `tests/run --long`. The long ones are worth
//! building with `--release`:
//!
//! ```text
//! cargo test --release --test it -- --ignored soak --test-threads 1 --nocapture
//! ```

mod kill;
mod load;

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Serving, get};
use load::{Broken, Tally};

/// Tells [`client`], in a process of its own, where the proxy is, how many clients to be, and the first one's number.
const CLIENT: &str = "LUCID_SOAK_CLIENT";
/// Stands before the one line that a client process is started for.
const SUMMARY: &str = "soak summary: ";

#[test]
fn a_few_clients_never_see_a_token_die() {
    let soak = Soak::start(2, 8);
    // The fourth pair is that of the third rotation.
    soak.sandbox.wait_for_log("generation=4");
    soak.end(3);
}

#[test]
#[ignore = "takes a minute: 8 processes of 16 clients"]
fn many_clients_in_many_processes_never_see_a_token_die() {
    let soak = Soak::start(8, 16);
    std::thread::sleep(Duration::from_secs(60));
    // A pair lives for two seconds at the most: with requests all the time there is a new one at least that often,
    // less what a busy machine adds.
    let counts = soak.end(15);
    assert!(
        counts["rotations_amid_requests"].as_u64() > Some(0),
        "{counts}"
    );
}

/// Not a test: what a client process runs. Started by hand without its variable it does nothing.
#[test]
#[ignore = "started by the other tests"]
fn client() {
    let Ok(orders) = std::env::var(CLIENT) else {
        return;
    };
    let mut orders = orders.split(' ');
    let proxy = orders.next().and_then(|address| address.parse().ok());
    let mut number = || orders.next().and_then(|number| number.parse().ok());
    let (clients, first) = (number().expect("a number"), number().expect("a number"));
    let stop = AtomicBool::new(false);
    let tally = std::thread::scope(|threads| {
        threads.spawn(|| {
            // The end of the input is the signal to stop, and comes when the parent dies too.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        });
        let proxy = proxy.expect("an address");
        load::run(proxy, clients, first, Broken::IsFailure, &stop)
    });
    let json = serde_json::to_string(&tally).expect("JSON");
    // Whatever the test harness has begun to print ends here.
    println!("\n{SUMMARY}{json}");
}

/// `lucid-proxy sandbox` under the load of several processes.
struct Soak {
    sandbox: Serving,
    counts: SocketAddr,
    clients: Vec<ClientProcess>,
    begun: Instant,
}

impl Soak {
    fn start(processes: u64, clients: u64) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lucid-proxy"));
        command
            .env_clear()
            .args(["sandbox", "--token-lifetime", "2s"])
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null());
        let mut sandbox = Serving::start(command);
        let line = sandbox.line();
        let counts = line
            .strip_prefix("sandbox http://")
            .and_then(|rest| rest.trim().parse().ok());
        let counts = counts.unwrap_or_else(|| panic!("no address in {line:?}"));
        let proxy = sandbox.address;
        let clients = (0..processes)
            .map(|process| ClientProcess::start(proxy, clients, process * clients))
            .collect();
        Self {
            sandbox,
            counts,
            clients,
            begun: Instant::now(),
        }
    }

    /// Stops the load, judges what clients and stand-in have seen, and returns the latter.
    fn end(mut self, rotations: u64) -> Value {
        let lasted = self.begun.elapsed();
        for client in &mut self.clients {
            client.tell_to_stop();
        }
        let mut tally = Tally::default();
        for client in self.clients {
            tally.add(client.summary());
        }
        // Every rotation had a request waiting for it, and there are none left: the counts stand still.
        let counts = get(self.counts, "/sandbox/counts").json();
        let log = self.sandbox.stop();
        println!("in {lasted:?}: {tally:?}");
        println!(
            "token posts {}, rotations {} ({} amid requests), dead tokens {}, most in flight {}, connections {}",
            counts["token_posts"],
            counts["rotations"],
            counts["rotations_amid_requests"],
            counts["dead_tokens"],
            counts["max_in_flight"],
            counts["connections"]
        );

        assert_eq!(tally.failed, 0, "{tally:#?}\nthe proxy's log: {log}");
        assert!(tally.answers > 0 && tally.confirmed > 0, "{tally:?}");
        assert!(counts["rotations"].as_u64() >= Some(rotations), "{counts}");
        assert_eq!(counts["token_posts"], counts["rotations"]);
        let posts = counts["posts_by_refresh_token"].as_object();
        assert!(
            posts.expect("an object").values().all(|posts| *posts == 1),
            "a refresh token was sent twice"
        );
        for none in [
            "reused_refresh_tokens",
            "unknown_tokens",
            "missing_tokens",
            "incomplete_requests",
        ] {
            assert_eq!(counts[none], 0, "{none}");
        }
        assert_eq!(counts["problems"], serde_json::json!([]));
        counts
    }
}

/// This very program, started once more to be clients.
struct ClientProcess {
    child: Child,
    /// Reads all that the process prints, so that it never waits for somebody to do so.
    output: Option<JoinHandle<String>>,
}

impl ClientProcess {
    fn start(proxy: SocketAddr, clients: u64, first: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of this test"))
            .args(["soak::client", "--exact", "--ignored", "--nocapture"])
            .env(CLIENT, format!("{proxy} {clients} {first}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client runs");
        let mut stdout = child.stdout.take().expect("piped");
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("text");
            text
        });
        Self {
            child,
            output: Some(output),
        }
    }

    fn tell_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    fn summary(mut self) -> Tally {
        let output = self.output.take().expect("read once");
        let text = output.join().expect("the reader of the output");
        let status = self.child.wait().expect("it was started");
        let json = text.lines().find_map(|line| line.strip_prefix(SUMMARY));
        let json = json.unwrap_or_else(|| panic!("no summary, {status}: {text}"));
        serde_json::from_str(json).expect("a summary")
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
