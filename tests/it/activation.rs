//! What the program has to do with systemd: sockets that it is passed, and what it tells.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::world::{SOON, Serving, World, errors, get};

/// `serve` as systemd starts it, with the socket as descriptor 3 and, a second time, as descriptor 4.
fn activated(
    world: &World,
    socket: impl Into<OwnedFd>,
    names: &[&str],
    arguments: &str,
) -> Command {
    activated_as("$$", world, socket, names, arguments)
}

/// The same with this number of a process, in the words of a shell; without one `LISTEN_PID` is not set.
fn activated_as(
    process: &str,
    world: &World,
    socket: impl Into<OwnedFd>,
    names: &[&str],
    arguments: &str,
) -> Command {
    let program = world.command(&[]);
    let mut command = Command::new("sh");
    let meant = match process {
        "" => String::new(),
        process => format!("export LISTEN_PID={process};"),
    };
    let script = format!("exec 3<&0 4<&0 </dev/null; {meant} exec \"$0\" serve {arguments}");
    command
        .args(["-c", &script])
        .arg(program.get_program())
        .env_clear()
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("LISTEN_FDS", names.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .current_dir(world.directory.path())
        .stdin(Stdio::from(socket.into()));
    command
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// What `serve` says instead of starting.
#[track_caller]
fn refusal(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    errors(&output)
}

#[test]
fn a_socket_that_systemd_passes_is_served_when_nothing_else_is_configured() {
    let world = World::logged_in();
    world.configure();
    let (listener, address) = listener();
    let serving = Serving::start(activated(&world, listener, &["proxy.socket"], ""));
    assert_eq!(serving.endpoint, format!("http://{address}"));
    assert_eq!(serving.get("/users").status, 200);
}

#[test]
fn sockets_are_taken_by_their_names_and_may_speak_tls() {
    let (mut world, identity) = crate::https::world();
    world.top = r#"listen = ["systemd:plain", { address = "systemd:tls", certificate_file = "tls.crt", key_file = "tls.key" }]"#.to_owned();
    world.configure();
    let (listener, address) = listener();
    let mut serving = Serving::start(activated(&world, listener, &["tls", "plain"], ""));
    assert_eq!(serving.endpoint, format!("http://{address}"));
    assert_eq!(serving.line(), format!("proxy https://{address}\n"));
    drop(identity);
}

#[test]
fn a_unix_socket_from_systemd_is_served_and_stays() {
    let world = World::logged_in();
    world.configure();
    let path = world.directory.path().join("systemd.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serving = Serving::start(activated(
        &world,
        listener,
        &["any"],
        "--listen systemd:any",
    ));
    assert_eq!(serving.endpoint, format!("unix:{}", path.display()));
    serving.stop();
    assert!(path.exists(), "it is systemd's to remove");
}

#[test]
fn tls_is_not_asked_for_in_vain_on_a_unix_socket_from_systemd() {
    let (mut world, _identity) = crate::https::world();
    world.top =
        r#"listen = [{ address = "systemd", certificate_file = "tls.crt", key_file = "tls.key" }]"#
            .to_owned();
    world.configure();
    let path = world.directory.path().join("systemd.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let told = refusal(activated(&world, listener, &["one"], ""));
    assert!(
        told.contains("leave certificate_file and key_file out"),
        "{told}"
    );
}

#[test]
fn sockets_that_cannot_be_served_are_told_with_the_line_that_helps() {
    let mut world = World::logged_in();
    world.configure();
    let told = refusal(activated(
        &world,
        listener().0,
        &["one", "two"],
        "--listen systemd:one",
    ));
    assert!(told.contains("add \"systemd:two\" to listen"), "{told}");
    let told = refusal(activated(
        &world,
        listener().0,
        &["one"],
        "--listen systemd:other",
    ));
    assert!(
        told.contains("passed none with FileDescriptorName=other"),
        "{told}"
    );
    let (datagrams, _other) = UnixDatagram::pair().expect("sockets");
    let told = refusal(activated(&world, datagrams, &["one"], ""));
    assert!(told.contains("set ListenStream="), "{told}");
    let (listener, address) = listener();
    let connection = std::net::TcpStream::connect(address).expect("a connection");
    let told = refusal(activated(&world, connection, &["one"], ""));
    assert!(told.contains("leave Accept=yes out"), "{told}");
    drop(listener);
    world.top = "listen = [\"systemd\"]".to_owned();
    let output = world.run(&["serve"]);
    assert!(
        errors(&output).contains("systemd has passed none"),
        "{}",
        errors(&output)
    );
}

#[test]
fn s01_a_socket_from_systemd_that_others_can_reach_needs_a_word_of_consent() {
    let world = World::logged_in();
    world.configure();
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let mut command = activated(&world, listener, &["one"], "");
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("allow_unauthenticated = true"),
        "{}",
        errors(&output)
    );
}

#[test]
fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let world = World::logged_in();
    world.configure();
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    assert_eq!(Serving::start(command).get("/users").status, 200);
}

#[test]
fn sockets_that_were_passed_to_no_process_by_its_number_are_left_alone() {
    let world = World::logged_in();
    world.configure();
    for (process, is_served) in [("$$", true), ("", false)] {
        let (listener, _) = listener();
        let mut command = activated_as(process, &world, listener, &["one"], "--listen systemd");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut first = [0];
        let read = child.stdout.as_mut().expect("piped").read(&mut first);
        let _ = child.kill();
        let told = errors(&child.wait_with_output().expect("it was started"));
        // Where it serves it says so first.
        assert_eq!(read.expect("readable") == 1, is_served, "{told}");
        assert_ne!(told.contains("systemd has passed none"), is_served);
    }
}

#[test]
fn sockets_that_the_configuration_does_not_name_are_told() {
    let world = World::logged_in();
    world.configure();
    let arguments = "--listen 127.0.0.1:0";
    let serving = Serving::start(activated(&world, listener().0, &["one"], arguments));
    assert_eq!(serving.get("/users").status, 200);
    let log = serving.stop();
    assert!(log.contains("listen names none of them"), "{log}");
}

#[test]
fn the_service_manager_is_told_of_the_beginning_and_of_the_end() {
    let world = World::logged_in();
    let manager = UnixDatagram::bind(world.directory.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a timeout");
    let told = || {
        let mut buffer = [0; 100];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut serving = world.serve_with(|command| {
        command.env("NOTIFY_SOCKET", world.directory.path().join("notify"));
    });
    assert_eq!(told(), "READY=1");
    assert_eq!(get(serving.address, "/users").status, 200);
    serving.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert!(serving.wait().success());
}

#[test]
fn a_service_manager_that_is_not_there_harms_nothing() {
    let world = World::logged_in();
    let serving = world.serve_with(|command| {
        command.env("NOTIFY_SOCKET", "/nowhere/notify");
    });
    assert_eq!(serving.get("/users").status, 200);
    serving.wait_for_log("cannot be told READY=1");
}
