//! Programs that people use, each through the proxy while a token dies under every one of its requests. No program
//! notices: it sees no 401, what it sends arrives once and whole, and what it gets is what upstream has sent.
//!
//! The programs are in `tests/clients`. Each gets `BASE CA DIRECTORY`, does the steps below, prints a line for each, and
//! ends with an error if one of them failed.

mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use lucid_proxy::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

use crate::examples::is_clean;
use crate::https;
use crate::world::http2::Http2Front;
use crate::world::{World, errors, is_there, missing, printed, python_with};
use upstream::{Upload, Upstream};

/// What a program does, and the status that it must see. Each has a resource of the same name.
const STEPS: [(&str, u16); 13] = [
    ("get", 200),
    // JSON.
    ("post", 200),
    // A form with a file of 20 MiB.
    ("multipart", 200),
    // 5 MiB whose length is not said beforehand.
    ("chunked", 200),
    // 50 MiB.
    ("download", 200),
    // Decoded by the program.
    ("gzip", 200),
    // The bytes as they were sent.
    ("gzip-bytes", 200),
    ("head", 200),
    ("no-content", 204),
    // What the program has already.
    ("not-modified", 304),
    ("range", 206),
    // Of two events upstream sends the second when the program has said that it has seen the first.
    ("events", 200),
    // 20 MiB, which are refused when 64 KiB of them have been read. Nobody reads the rest.
    ("early", 413),
];

/// What a program cannot do. All else it does.
const CANNOT: [(&str, &str, &str); 4] = [
    ("curl --http1.0", "chunked", "HTTP/1.0 has no chunks"),
    ("wget", "multipart", "it makes no forms"),
    ("wget", "chunked", "it sends nothing without a length"),
    ("fetch", "gzip-bytes", "it always decodes"),
];

const UPLOAD: usize = 20 << 20;
const CHUNKED: usize = 5 << 20;
/// Text that is worth compressing.
const TEXT: &[u8] = include_bytes!("../../LICENSE-APACHE");
/// How long a program may take. Far more than it does on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
const PLAIN: &str = r#"["127.0.0.1:0"]"#;
const TLS: &str = https::LISTEN;

#[test]
fn f04_f05_f18_curl_over_http_1_0_never_notices() {
    never_notices("curl --http1.0", PLAIN);
}

#[test]
fn f04_f05_f18_curl_over_http_1_1_never_notices() {
    never_notices("curl --http1.1", PLAIN);
}

#[test]
fn f04_f05_f18_curl_over_http_2_never_notices() {
    never_notices("curl --http2", TLS);
}

#[test]
fn f04_f05_f18_requests_never_notices() {
    never_notices("requests", PLAIN);
}

#[test]
fn f04_f05_f18_requests_over_tls_never_notices() {
    never_notices("requests", TLS);
}

#[test]
fn f04_f05_f18_httpx_never_notices() {
    never_notices("httpx HTTP/1.1", PLAIN);
}

#[test]
fn f04_f05_f18_httpx_over_http_2_never_notices() {
    never_notices("httpx HTTP/2", TLS);
}

#[test]
fn f04_f05_f18_aiohttp_never_notices() {
    never_notices("aiohttp", PLAIN);
}

#[test]
fn f04_f05_f18_nodes_fetch_never_notices() {
    never_notices("fetch", PLAIN);
}

#[test]
fn f04_f05_f18_axios_never_notices() {
    never_notices("axios", PLAIN);
}

#[test]
fn f04_f05_f18_javas_http_client_never_notices() {
    never_notices("java HTTP_1_1", PLAIN);
}

#[test]
fn f04_f05_f18_javas_http_client_over_http_2_never_notices() {
    never_notices("java HTTP_2", TLS);
}

#[test]
fn f04_f05_f18_wget_never_notices() {
    never_notices("wget", PLAIN);
}

#[test]
fn f04_f05_f18_requests_never_notices_in_front_of_http_2() {
    never_notices_upstreams_http_2("requests", PLAIN);
}

#[test]
fn f04_f05_f18_httpx_over_http_2_never_notices_in_front_of_http_2() {
    never_notices_upstreams_http_2("httpx HTTP/2", TLS);
}

/// Programs fail loudly: without this the tests above would prove little.
#[test]
fn every_step_of_a_program_fails_where_nobody_adds_a_token() {
    for name in [
        "curl --http1.1",
        "requests",
        "httpx HTTP/1.1",
        "aiohttp",
        "fetch",
        "axios",
        "java HTTP_1_1",
        "wget",
    ] {
        let (world, _identity) = https::world();
        let Some((upstream, command)) = prepare(name, &world) else {
            continue;
        };
        let output = finish(name, command, &upstream.origin(), world.directory.path());
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        let failed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("failed ")?.split(' ').next())
            .collect();
        assert_eq!(
            failed,
            steps(name).map(|(step, _)| step).collect::<Vec<_>>(),
            "{name}: {text}"
        );
        assert!(upstream.answers().iter().all(|(_, status)| *status == 401));
    }
}

/// Runs a program through a proxy that listens so, and has everything checked.
fn never_notices(name: &str, listen: &str) {
    never_notices_through(name, listen, |world, upstream| {
        world.upstream = upstream.origin();
    });
}

/// The same with an upstream that is reached as Lucid is, over TLS and HTTP/2.
fn never_notices_upstreams_http_2(name: &str, listen: &str) {
    never_notices_through(name, listen, |world, upstream| {
        let front = Http2Front::start(upstream.address, 100);
        let bundle = world.directory.path().join("trusted.pem");
        front.tls.write_bundle(&bundle);
        world.upstream = front.tls.origin();
        world.upstream_keys = "http = \"2\"\nca_file = \"trusted.pem\"".to_owned();
    });
}

fn never_notices_through(name: &str, listen: &str, lead_to: impl FnOnce(&mut World, &Upstream)) {
    let (mut world, _identity) = https::world();
    let Some((upstream, command)) = prepare(name, &world) else {
        return;
    };
    lead_to(&mut world, &upstream);
    let serving = world.serve_on(listen);
    let output = finish(name, command, &serving.endpoint, world.directory.path());

    let (text, errors) = (printed(&output), errors(&output));
    let done: Vec<_> = text.lines().collect();
    let wanted: Vec<_> = steps(name).map(|(step, _)| format!("ok {step}")).collect();
    assert_eq!(
        done,
        wanted,
        "{name}: {errors}\nthe proxy's log: {}",
        serving.log()
    );
    assert!(output.status.success(), "{name}: {}{errors}", output.status);
    assert_eq!(upstream.answers(), answers(name), "{name}");
    assert_eq!(upstream.uploads(), uploads(name), "{name}");
    died_under_each_request(&world.sandbox, answers(name).len() / 2);
    serving.stop();
}

#[track_caller]
fn died_under_each_request(sandbox: &Sandbox, requests: usize) {
    let counts = sandbox.counts();
    let requests = requests as u64;
    assert_eq!((counts.dead_tokens, counts.rotations), (requests, requests));
    is_clean(&counts);
}

/// What a program does.
fn steps(name: &str) -> impl Iterator<Item = (&'static str, u16)> {
    STEPS.into_iter().filter(move |(step, _)| {
        let reason = CANNOT.iter().find(|cell| (cell.0, cell.1) == (name, *step));
        reason.is_none()
    })
}

/// What upstream must have answered: to each request a 401, which no program sees, and what it sees.
fn answers(name: &str) -> Vec<(String, u16)> {
    let mut requests = Vec::new();
    for (step, status) in steps(name) {
        requests.push((format!("/{step}"), status));
        if step == "events" {
            requests.push(("/events/seen".to_owned(), 204));
        }
    }
    let twice = |(path, status): (String, u16)| [(path.clone(), 401), (path, status)];
    requests.into_iter().flat_map(twice).collect()
}

/// What must have arrived of what the program has sent.
fn uploads(name: &str) -> Vec<(String, Upload)> {
    let content = upload();
    steps(name)
        .filter_map(|(step, _)| match step {
            "multipart" => Some(("/multipart".to_owned(), Upload::of(&content))),
            "chunked" => Some(("/chunked".to_owned(), Upload::of(&content[..CHUNKED]))),
            _ => None,
        })
        .collect()
}

/// What programs send: nothing in it repeats.
fn upload() -> Vec<u8> {
    let mut content = vec![0; UPLOAD];
    fastrand::Rng::with_seed(2).fill(&mut content);
    content
}

/// An upstream, and the program with what it needs in the world's directory; where it is installed.
fn prepare(name: &str, world: &World) -> Option<(Upstream, Command)> {
    let command = program(name)?;
    if !is_there("gzip", &["--version"]) {
        missing("gzip");
        return None;
    }
    for (_, step, reason) in CANNOT.iter().filter(|cell| cell.0 == name) {
        eprintln!("{name} does not do {step}: {reason}");
    }
    let compressed = upstream::gzip(TEXT).expect("gzip runs");
    fs::write(world.directory.path().join("upload.bin"), upload()).expect("written");
    Some((
        Upstream::start(world.sandbox.address(), compressed),
        command,
    ))
}

/// A program by the first word of its name, where it is installed.
fn program(name: &str) -> Option<Command> {
    let (mut command, file) = match name.split(' ').next().unwrap_or_default() {
        "curl" => (installed("curl", "--version", "sh")?, "curl.sh"),
        "wget" => (installed("wget", "--version", "sh")?, "wget.sh"),
        "requests" => (python(&["requests"])?, "with_requests.py"),
        "httpx" => (python(&["httpx", "h2"])?, "with_httpx.py"),
        "aiohttp" => (python(&["aiohttp"])?, "with_aiohttp.py"),
        "fetch" => (installed("node", "--version", "node")?, "fetch.mjs"),
        "axios" => (node_with_packages()?, "with_axios.mjs"),
        // Only a development kit can run a source file.
        "java" => (installed("javac", "-version", "java")?, "Client.java"),
        _ => panic!("no program {name}"),
    };
    command.arg(sources().join(file));
    Some(command)
}

/// What runs a program that needs `needed`.
pub(crate) fn installed(needed: &str, version: &str, runs: &str) -> Option<Command> {
    if is_there(needed, &[version]) {
        return Some(Command::new(runs));
    }
    missing(needed);
    None
}

pub(crate) fn python(modules: &[&str]) -> Option<Command> {
    let mut command = Command::new(python_with(modules)?);
    // Nothing is written beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// Node, where `tests/run` has installed the packages of today's lock file.
pub(crate) fn node_with_packages() -> Option<Command> {
    let mut command = installed("node", "--version", "node")?;
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let present = fs::read(packages.join("installed.json")).ok();
    let wanted = fs::read(sources().join("package-lock.json")).expect("a lock file");
    if present != Some(wanted) {
        missing("what tests/clients/package-lock.json names (tests/run installs it)");
        return None;
    }
    command.env("PACKAGES", packages);
    Some(command)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a program to its end; the second word of its name is its last argument.
fn finish(name: &str, mut command: Command, base: &str, directory: &Path) -> Output {
    let certificate = directory.join("tls.crt");
    command
        .args([
            base.as_ref(),
            certificate.as_os_str(),
            directory.as_os_str(),
        ])
        .args(name.split(' ').nth(1))
        .env("NODE_EXTRA_CA_CERTS", &certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A proxy that the machine is set up for would stand between the program and ours.
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    // For requests these count more than what the program itself says.
    command
        .env_remove("REQUESTS_CA_BUNDLE")
        .env_remove("CURL_CA_BUNDLE");
    let child = command.spawn().expect("the program runs");
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(LIMIT).or_else(|_| {
        // What it said so far tells where it hangs.
        let _ = kill_process(pid, Signal::KILL);
        ended.recv()
    });
    output
        .expect("a thread that waits")
        .expect("it was started")
}
