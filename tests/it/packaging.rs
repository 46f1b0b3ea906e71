//! The units and the container file in `packaging/`: the real program runs as they say.

mod container;
mod machine;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use crate::replay::{assert_arrived, bytes};
use crate::world::{SOON, Serving, World, errors, is_there, missing, printed, python_with};

use machine::Machine;

/// Where the program is installed.
const PROGRAM: &str = "/usr/local/bin/lucid-proxy";

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// Another command of the program, as the service's user and with its login: what the README does with `systemd-run`.
const AFTER: &str = "
[Unit]
DefaultDependencies=no
After=lucid-proxy.service
[Service]
Type=oneshot
DynamicUser=yes
User=lucid-proxy
StateDirectory=lucid-proxy
Environment=LUCID_CLIENT_ID=cid-sandbox LUCID_CLIENT_SECRET=sec-sandbox
ExecStart=/usr/local/bin/lucid-proxy status
StandardOutput=append:$directory/log
StandardError=append:$directory/log
";

/// A login whose secrets are credentials of the service, and an upstream with a name that is looked up.
fn world() -> World {
    let mut world = World::logged_in();
    world.upstream = world.upstream.replace("127.0.0.1", "localhost");
    world.tables = r#"
client_id_file = "/run/credentials/lucid-proxy.service/client_id"
client_secret_file = "/run/credentials/lucid-proxy.service/client_secret"
on_rotated = ["sh", "-c", "echo $LUCID_PROXY_GENERATION > /var/lib/lucid-proxy/rotated"]
[replay]
memory = "1 KiB"
"#
    .to_owned();
    world.configure();
    world
}

/// What the kernel says of a process in this field.
fn status(process: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.strip_prefix(':'));
    value.expect("a field").trim().to_owned()
}

/// Where a process may write, of the places that are a mount of their own.
fn writable(python: &str, process: u32) -> Vec<String> {
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).expect("it runs");
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // In its file system, and as its user.
    let script = "
import os, sys
process, user, *places = sys.argv[1:]
os.chroot(f'/proc/{process}/root')
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
for place in sorted(set(places)):
    if os.access(place, os.W_OK):
        print(place)
";
    let user = status(process, "Uid");
    let user = user.split('\t').next().expect("a number");
    let mut command = Command::new(python);
    command.args(["-c", script, &process.to_string(), user]);
    let output = command.args(places).output().expect("Python");
    assert!(output.status.success(), "{}", errors(&output));
    printed(&output).lines().map(str::to_owned).collect()
}

/// A process that is nobody in particular, can become nobody else, and leaves no core dump.
#[track_caller]
fn assert_without_rights(process: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(process, set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status(process, "NoNewPrivs"), "1");
    let users = status(process, "Uid");
    assert!(users.split('\t').all(|user| user != "0"), "{users}");
}

/// A request passes, the token is rotated under a request whose content is on the disk, and the new pair is stored.
#[track_caller]
fn assert_serves_and_rotates(world: &World, serving: &Serving) {
    let response = serving.get("/users");
    assert_eq!(response.status, 200, "{}", serving.log());
    world.sandbox.expire_access_tokens();
    let body = bytes(300 << 10);
    let mut client = serving.connect();
    let response = client.ask("POST /sandbox/echo", &[], &body);
    assert_arrived(&response, &body, serving);
    assert!(response.header("proxy-status").is_some(), "it was replayed");
    assert_eq!(world.stored()["generation"], 2);
    let log = serving.log();
    assert!(!log.contains("cannot be recorded"), "{log}");
}

#[test]
fn the_service_serves_and_rotates_without_any_rights() {
    if !Machine::can_start() {
        return;
    }
    let Some(python) = python_with(&["ctypes"]) else {
        return;
    };
    let mut world = world();
    world.top = "listen = [\"127.0.0.1:0\"]".to_owned();
    world.configure();
    let machine = Machine::start(
        &world,
        "lucid-proxy.service after.service",
        &[("after.service", AFTER)],
    );
    let serving = machine.serving();
    // systemd starts what comes after the service when that says that it is ready.
    serving.wait_for_log("used by        another process now");
    assert_serves_and_rotates(&world, serving);
    let process = machine.main_process();
    assert_without_rights(process);
    assert_eq!(status(process, "Seccomp"), "2");
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("it runs");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    assert_eq!(
        writable(&python, process),
        [
            "/run/lucid-proxy",
            "/tmp",
            "/var/lib/private/lucid-proxy",
            "/var/tmp"
        ]
    );
    // A program that is run after a rotation works too.
    serving.wait_until(|_| world.state().join("rotated").exists());
}

#[test]
fn who_connects_to_the_socket_starts_the_service() {
    if !Machine::can_start() {
        return;
    }
    let world = world();
    let path = world.directory.path().join("proxy.sock");
    let socket = format!("[Socket]\nListenStream=\nListenStream={}\n", path.display());
    let client = std::thread::spawn(move || {
        let deadline = Instant::now() + SOON;
        let mut stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("nobody listens: {error}"),
            }
        };
        let request = b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("sent");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let machine = Machine::start(
        &world,
        "lucid-proxy.socket",
        &[("lucid-proxy.socket.d/test.conf", &socket)],
    );
    let answer = client.join().expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(machine);
}

/// Where the units are, with a program in them that is there.
fn units_of_this_program() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for unit in ["lucid-proxy.service", "lucid-proxy.socket"] {
        let text = fs::read_to_string(packaging().join(unit)).expect("a unit");
        let text = text.replace(PROGRAM, env!("CARGO_BIN_EXE_lucid-proxy"));
        fs::write(directory.path().join(unit), text).expect("written");
    }
    directory
}

/// Runs `systemd-analyze`, where it is there.
fn analyze(arguments: &[&str], directory: &Path) -> Option<Output> {
    if !is_there("systemd-analyze", &["--version"]) {
        missing("systemd-analyze");
        return None;
    }
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).current_dir(directory);
    Some(command.output().expect("systemd-analyze"))
}

#[test]
fn systemd_has_nothing_against_the_units() {
    let directory = units_of_this_program();
    let verify = ["verify", "./lucid-proxy.service", "./lucid-proxy.socket"];
    let Some(output) = analyze(&verify, directory.path()) else {
        return;
    };
    let about = |output: &Output| {
        let told = errors(output);
        let ours = told.lines().filter(|line| line.contains("lucid-proxy"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(about(&output), [""; 0]);
    let unit = directory.path().join("lucid-proxy.service");
    fs::write(
        &unit,
        "[Service]\nExecStart=/bin/true\nProtectEverything=yes\n",
    )
    .expect("written");
    let output = analyze(&verify, directory.path()).expect("it is there");
    assert!(!about(&output).is_empty(), "it tells of what is wrong");
}

#[test]
fn systemd_finds_little_exposed() {
    // In tenths, of 10; what is left is the network, unix sockets and the system's own file hierarchy.
    let security = |directory: &Path| {
        let arguments = [
            "security",
            "--offline=true",
            "--threshold=15",
            "./lucid-proxy.service",
        ];
        analyze(&arguments, directory)
    };
    let directory = units_of_this_program();
    let Some(output) = security(directory.path()) else {
        return;
    };
    assert!(output.status.success(), "{}", printed(&output));
    let unit = directory.path().join("lucid-proxy.service");
    let text = fs::read_to_string(&unit).expect("a unit");
    fs::write(&unit, text.replace("CapabilityBoundingSet=", "#")).expect("written");
    let output = security(directory.path()).expect("it is there");
    assert!(!output.status.success(), "{}", printed(&output));
}
