//! Unix sockets: who may use them, what is found in their place, and what is left of them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::world::{NOBODY, SOON, Serving, World, errors, is_root, is_there, missing, printed};

/// Asks and reads to the end of the connection.
fn ask(socket: &Path, path: &str, host: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

fn serve(world: &World) -> (Serving, PathBuf) {
    world.configure();
    let serving = Serving::start(world.command(&["serve", "--listen", "unix:proxy.sock"]));
    (serving, world.directory.path().join("proxy.sock"))
}

#[test]
fn a_unix_socket_is_for_its_owner_and_removed_at_the_end() {
    let world = World::logged_in();
    let (serving, socket) = serve(&world);
    assert_eq!(serving.endpoint, "unix:proxy.sock");
    assert_eq!(mode(&socket), 0o600);
    assert!(ask(&socket, "/users/me/profile", "localhost").contains("\"ada\""));
    serving.stop();
    assert!(!socket.exists(), "it is removed");
}

#[test]
fn s02_a_unix_socket_is_asked_by_its_own_name() {
    let mut world = World::logged_in();
    world.tables = "[guard]\nallow_hosts = [\"lucid.internal\"]\n".to_owned();
    let (_serving, socket) = serve(&world);
    for (host, answer) in [
        ("localhost", "HTTP/1.1 200"),
        ("lucid.internal", "HTTP/1.1 200"),
        ("evil.example", "HTTP/1.1 403"),
        ("127.0.0.1", "HTTP/1.1 403"),
    ] {
        assert!(ask(&socket, "/users", host).starts_with(answer), "{host}");
    }
    let answer = ask(&socket, "/users?pageSize=2", "localhost");
    assert!(answer.contains("<http://localhost/users?"), "{answer}");
}

#[test]
fn curl_asks_through_a_unix_socket() {
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    let world = World::logged_in();
    let (_serving, socket) = serve(&world);
    let output = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(&socket)
        .arg("http://localhost/users/me/profile")
        .output()
        .expect("curl");
    assert!(printed(&output).contains("\"ada\""), "{}", errors(&output));
}

#[test]
fn mode_owner_and_group_are_as_they_are_configured() {
    let mut world = World::logged_in();
    let group = rustix::process::getgid().as_raw();
    let (owner, group) = match is_root() {
        true => (NOBODY, NOBODY),
        false => (rustix::process::getuid().as_raw(), group),
    };
    let listen = format!(
        r#"[{{ address = "unix:proxy.sock", mode = "0660", owner = "{owner}", group = "{group}" }}]"#
    );
    let serving = world.serve_on(&listen);
    let socket = world.directory.path().join("proxy.sock");
    let metadata = fs::metadata(&socket).expect("a file");
    assert_eq!(
        (mode(&socket), metadata.uid(), metadata.gid()),
        (0o660, owner, group)
    );
    assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
    serving.stop();
    assert!(!socket.exists());
}

#[test]
fn an_owner_that_this_user_may_not_give_it_to_is_told_and_no_socket_stays() {
    if !is_root() {
        return;
    }
    let mut world = World::logged_in();
    world.top = r#"listen = [{ address = "unix:open/proxy.sock", owner = "root" }]"#.to_owned();
    world.configure();
    let open = world.directory.path().join("open");
    fs::create_dir(&open).expect("a directory");
    std::os::unix::fs::chown(&open, Some(NOBODY), Some(NOBODY)).expect("chown");
    let output = world
        .command_as_nobody(&["serve"])
        .output()
        .expect("it runs");
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("unix:open/proxy.sock: it cannot be given to that owner or group"),
        "{told}"
    );
    assert_eq!(fs::read_dir(&open).expect("a directory").count(), 0);
}

#[test]
fn a_stale_socket_is_replaced() {
    let world = World::logged_in();
    let (mut serving, socket) = serve(&world);
    serving.signal(Signal::KILL);
    serving.wait();
    assert!(socket.exists(), "a killed process removes nothing");
    let (serving, socket) = serve(&world);
    assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
    serving.stop();
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_is_in_use_is_refused_and_goes_on() {
    let world = World::logged_in();
    let (_serving, socket) = serve(&world);
    let output = world.run(&["serve", "--listen", "unix:proxy.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(
        told.contains("cannot listen on unix:proxy.sock: another program listens there"),
        "{told}"
    );
    assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
}

#[test]
fn of_many_that_start_at_once_one_listens() {
    let world = World::logged_in();
    world.configure();
    let socket = world.directory.path().join("proxy.sock");
    for round in 0..3 {
        // What each of them finds is stale.
        drop(UnixListener::bind(&socket).expect("a socket"));
        let start = |_| {
            let mut command = world.command(&["serve", "--listen", "unix:proxy.sock"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the program runs")
        };
        let mut started: Vec<_> = (0..4).map(start).collect();
        let mut winners = Vec::new();
        for child in &mut started {
            let mut line = [0; 1];
            let read = child.stdout.as_mut().expect("piped").read(&mut line);
            if read.expect("readable") == 1 {
                winners.push(child.id());
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
        for mut child in started {
            let _ = child.kill();
            child.wait().expect("it was started");
        }
        fs::remove_file(&socket).expect("the winner was killed");
    }
}

#[test]
fn a_lock_that_somebody_holds_on_the_directory_stops_no_start() {
    let world = World::logged_in();
    const WARNING: &str = "another program holds a lock on the directory of unix:proxy.sock";
    let (serving, _) = serve(&world);
    assert!(!serving.stop().contains(WARNING), "nobody holds it");
    let directory = File::open(world.directory.path()).expect("a directory");
    directory.lock().expect("it is free");
    let (serving, socket) = serve(&world);
    assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
    let log = serving.stop();
    assert!(log.contains(WARNING), "{log}");
}

#[test]
fn a_directory_that_may_be_written_to_and_not_read_can_have_a_socket() {
    let world = World::logged_in();
    world.configure();
    let dark = world.directory.path().join("dark");
    let command = world.command_as_nobody(&["serve", "--listen", "unix:dark/proxy.sock"]);
    fs::create_dir(&dark).expect("a directory");
    if is_root() {
        for path in [&dark, &world.state(), &world.store()] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
    fs::set_permissions(&dark, fs::Permissions::from_mode(0o311)).expect("chmod");
    let serving = Serving::start(command);
    let socket = dark.join("proxy.sock");
    assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
    serving.stop();
    assert!(!socket.exists(), "it is removed");
}

#[test]
fn what_is_not_a_socket_stays_as_it_is() {
    let world = World::logged_in();
    let path = world.directory.path().join("proxy.sock");
    fs::write(&path, "precious").expect("written");
    let told = || {
        let output = world.run(&["serve", "--listen", "unix:proxy.sock"]);
        assert_eq!(output.status.code(), Some(1));
        errors(&output)
    };
    assert!(
        told().contains("what is there is not a socket"),
        "{}",
        told()
    );
    assert_eq!(fs::read(&path).expect("a file"), b"precious");
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("elsewhere", &path).expect("a link");
    assert!(
        told().contains("what is there is not a socket"),
        "{}",
        told()
    );
    assert!(path.is_symlink());
}

#[test]
fn another_processs_socket_in_the_place_of_ours_is_not_removed() {
    let world = World::logged_in();
    let (serving, socket) = serve(&world);
    fs::remove_file(&socket).expect("removed");
    let _other = UnixListener::bind(&socket).expect("a socket");
    serving.stop();
    assert!(
        fs::symlink_metadata(&socket)
            .expect("it stays")
            .file_type()
            .is_socket()
    );
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let world = World::logged_in();
    let output = world.run(&["serve", "--listen", "unix:nowhere/proxy.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(
        told.contains("unix:nowhere/proxy.sock: its directory does not exist"),
        "{told}"
    );
    let output = world.run(&["serve", "--listen", "unix:@abstract"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors(&output).contains("neither owner nor mode"),
        "{}",
        errors(&output)
    );
}

#[test]
fn several_listeners_of_every_kind_serve_at_once() {
    let mut world = World::logged_in();
    let mut serving =
        world.serve_on(r#"["127.0.0.1:0", "unix:one.sock", "[::1]:0", "unix:two.sock"]"#);
    assert_eq!(serving.line(), "proxy unix:one.sock\n");
    let (_, six) = crate::world::endpoint(&serving.line()).expect("an address");
    assert_eq!(serving.line(), "proxy unix:two.sock\n");
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(crate::world::get(six, "/users").status, 200);
    for name in ["one.sock", "two.sock"] {
        let socket = world.directory.path().join(name);
        assert!(ask(&socket, "/users", "localhost").starts_with("HTTP/1.1 200"));
    }
    serving.stop();
    let left = ["one.sock", "two.sock"].map(|name| world.directory.path().join(name).exists());
    assert_eq!(left, [false, false]);
}
