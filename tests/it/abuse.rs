//! Rule S7 as a whole: a crowd of slow, silent and greedy clients does not hold out a healthy one, and is let go in the end.
//!
//! A small crowd comes in every run, one of thousands with `tests/run --long`, which also judges how much longer a healthy
//! client waits:
//!
//! ```text
//! cargo test --release --test it -- --ignored abuse --nocapture
//! ```

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::world::client::Client;
use crate::world::{SOON, Serving, World};

/// The crowd, and how it is judged.
struct Abuse {
    /// Connections that send a byte a second of a head.
    sending: usize,
    /// Connections that do nothing.
    silent: usize,
    /// Connections that read a byte a second of a large answer.
    reading: usize,
    /// How many requests a healthy client sends, undisturbed and then amid the crowd.
    requests: usize,
    /// How long it waits between two of them.
    pause: Duration,
    /// The bounds of the configuration, longer than all of that takes.
    bound: Duration,
    /// Bytes of memory that the proxy may have at the most.
    memory: u64,
}

/// What a healthy client saw.
struct Seen {
    median: Duration,
    /// Of a hundred answers, one took longer.
    p99: Duration,
    slowest: Duration,
}

#[test]
fn s07_a_small_crowd_holds_out_nobody_and_is_let_go() {
    let abuse = Abuse {
        sending: 60,
        silent: 60,
        reading: 10,
        requests: 50,
        pause: Duration::from_millis(5),
        bound: Duration::from_secs(3),
        memory: 128 << 20,
    };
    abuse.play();
}

#[test]
#[ignore = "takes two minutes: 4200 connections"]
fn s07_thousands_of_slow_silent_and_greedy_clients_hold_out_nobody_and_are_let_go() {
    let abuse = Abuse {
        sending: 2000,
        silent: 2000,
        reading: 200,
        requests: 5000,
        pause: Duration::from_millis(1),
        bound: Duration::from_secs(30),
        memory: 384 << 20,
    };
    let (undisturbed, amid) = abuse.play();
    let ratio = amid.p99.as_secs_f64() / undisturbed.p99.as_secs_f64();
    assert!(ratio <= 3.0, "{ratio:.2} times as long");
}

impl Abuse {
    /// Returns what a healthy client saw without the crowd, and amid it.
    fn play(&self) -> (Seen, Seen) {
        raise_file_limit();
        let mut world = World::logged_in();
        world.upstream = format!("http://{}", upstream());
        let bound = self.bound.as_millis();
        world.tables = format!("[timeouts]\nfirst_request = \"{bound}ms\"\nbody = \"{bound}ms\"\n");
        let serving = world.serve();
        let address = serving.address;
        let undisturbed = self.ask(&serving);
        let descriptors = serving.descriptors();
        let before = serving.resident_from_now_on();

        let stop = AtomicBool::new(false);
        let refused = AtomicUsize::new(0);
        // It does not leave by itself before the end of this.
        let mut crowd = Crowd::gather(self, address);
        let amid = std::thread::scope(|threads| {
            let _stops = Stop(&stop);
            threads.spawn(|| crowd.go_on(&stop));
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    refused.fetch_add(greedy(address), Ordering::Relaxed);
                }
            });
            let amid = self.ask(&serving);
            let all = self.sending + self.silent + self.reading;
            let there = serving.descriptors();
            assert!(there >= all, "{there} descriptors, with a crowd of {all}");
            amid
        });
        let resident = serving.resident_at_most();
        println!("undisturbed {undisturbed}, amid the crowd {amid}");
        let ratio = amid.p99.as_secs_f64() / undisturbed.p99.as_secs_f64();
        let refused = refused.into_inner();
        println!(
            "p99 {ratio:.2} times as long, resident {} KiB before and {} KiB at the most, {refused} heads refused",
            before >> 10,
            resident >> 10
        );
        assert!(refused > 0);
        assert!(resident < self.memory, "{resident} bytes");

        // The system makes room for one that reads in portions, each of which begins the bound anew.
        let deadline = Instant::now() + 4 * self.bound + SOON;
        // As many as before, with some to upstream.
        while serving.descriptors() > descriptors + 16 {
            let left = serving.descriptors();
            assert!(Instant::now() < deadline, "{left} descriptors are left");
            sleep(Duration::from_millis(100));
        }
        self.ask(&serving);
        let log = serving.stop();
        assert!(!log.contains("panicked"), "{log}");
        (undisturbed, amid)
    }

    /// A healthy client.
    fn ask(&self, serving: &Serving) -> Seen {
        let mut client = serving.connect();
        let mut took = Vec::with_capacity(self.requests);
        for _ in 0..self.requests {
            let begun = Instant::now();
            let answer = client.ask("GET /small", &[], b"");
            took.push(begun.elapsed());
            assert_eq!((answer.status, answer.body.len()), (200, SMALL));
            sleep(self.pause);
        }
        took.sort_unstable();
        Seen {
            median: took[took.len() / 2],
            p99: took[took.len() * 99 / 100],
            slowest: took[took.len() - 1],
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            median,
            p99,
            slowest,
        } = self;
        write!(f, "median {median:?}, p99 {p99:?}, slowest {slowest:?}")
    }
}

/// Tells the crowd to stop, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that are slow or silent.
struct Crowd {
    sending: Vec<TcpStream>,
    reading: Vec<TcpStream>,
    _silent: Vec<TcpStream>,
    head: Vec<u8>,
}

impl Crowd {
    fn gather(abuse: &Abuse, address: SocketAddr) -> Self {
        let connect = |_| TcpStream::connect(address).expect("a connection");
        let sending: Vec<_> = (0..abuse.sending).map(connect).collect();
        let mut reading: Vec<_> = (0..abuse.reading).map(connect).collect();
        for stream in &mut reading {
            let request = format!("GET /large HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("sent");
            stream.read_exact(&mut [0]).expect("it has begun");
            stream.set_nonblocking(true).expect("a socket");
        }
        Self {
            sending,
            reading,
            _silent: (0..abuse.silent).map(connect).collect(),
            head: format!("GET /small HTTP/1.1\r\nHost: {address}\r\nX: ").into_bytes(),
        }
    }

    /// A byte a second to each and from each, evenly over the second.
    fn go_on(&mut self, stop: &AtomicBool) {
        const STEPS: usize = 100;
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            let byte = *self.head.get(round / STEPS).unwrap_or(&b'x');
            // What has been let go is no more.
            for stream in self.sending.iter_mut().skip(round % STEPS).step_by(STEPS) {
                let _ = stream.write(&[byte]);
            }
            for stream in self.reading.iter_mut().skip(round % STEPS).step_by(STEPS) {
                let _ = stream.read(&mut [0]);
            }
            round += 1;
            sleep(Duration::from_secs(1) / STEPS as u32);
        }
    }
}

/// A client with 100,000 headers and one with a header of 1 MiB; returns how many were refused.
fn greedy(address: SocketAddr) -> usize {
    for headers in [
        "X: y\r\n".repeat(100_000),
        format!("X: {}\r\n", "y".repeat(1 << 20)),
    ] {
        let mut client = Client::connect(address);
        client.send(format!("GET /small HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes());
        let answer = client.response();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (431, "headersTooLarge")
        );
    }
    sleep(Duration::from_millis(250));
    2
}

const SMALL: usize = 1 << 10;
const LARGE: usize = 64 << 20;

/// Answers each request with as much as its path says, without a bound for those that take it slowly.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    address
}

fn answer_all(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        let length = match line.starts_with("GET /large") {
            true => LARGE,
            false => SMALL,
        };
        while !matches!(line.as_str(), "" | "\r\n") {
            line.clear();
            stream.read_line(&mut line)?;
        }
        line.clear();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length.min(64 << 10), b'x');
        stream.get_mut().write_all(&answer)?;
        for _ in 1..length / (64 << 10) {
            stream.get_mut().write_all(&[b'x'; 64 << 10])?;
        }
    }
    Ok(())
}

/// Lets this process open as many files as it may.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("what it may");
}
