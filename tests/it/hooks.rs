//! Programs that are told of a rotation, or that a login is needed: what they get, and that they hold up nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use lucid_proxy::sandbox::CLIENT_SECRET;
use lucid_proxy::secret::ExposeSecret;
use rustix::process::Signal;

use crate::world::{SOON, Serving, World};

const PROFILE: &str = "/users/me/profile";

/// A named pipe through which a script tells the test what it was given.
struct Told(PathBuf);

impl Told {
    fn new(directory: &Path) -> Self {
        let path = directory.join("told");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
        Self(path)
    }

    /// What the next script writes, whole.
    #[track_caller]
    fn next(&self) -> String {
        let (sender, receiver) = mpsc::channel();
        let path = self.0.clone();
        // Opening waits for a writer, so it must not be this thread that does.
        std::thread::spawn(move || sender.send(fs::read_to_string(path).expect("text")));
        receiver.recv_timeout(SOON).expect("a program was run")
    }
}

/// Makes a script both hooks, with two arguments. `PIPE` in it stands for the pipe.
fn hooks(world: &mut World, script: &str) -> Told {
    let told = Told::new(world.directory.path());
    let path = world.directory.path().join("hook.sh");
    let pipe = told.0.to_str().expect("UTF-8");
    fs::write(&path, script.replace("PIPE", pipe)).expect("written");
    let command = format!("[\"sh\", \"{}\", \"an argument\", \"*\"]", path.display());
    world.tables = format!("on_login_needed = {command}\non_rotated = {command}\n");
    told
}

/// Tells its arguments and its environment.
const TELL: &str = "{ printf '%s\\n' \"$#\" \"$@\"; env; } > PIPE\n";

#[track_caller]
fn assert_ok(serving: &Serving) {
    let response = serving.get(PROFILE);
    assert_eq!(
        response.status,
        200,
        "{}\n{}",
        response.text(),
        serving.log()
    );
}

#[track_caller]
fn assert_line(told: &str, line: &str) {
    assert!(told.lines().any(|found| found == line), "{line}: {told}");
}

#[test]
fn s06_programs_are_told_of_rotations_and_needed_logins_and_get_no_secret() {
    let mut world = World::expired();
    let told = hooks(&mut world, TELL);
    world.tables += "client_secret_env = \"MY_SECRET\"\n";
    let serving = world.serve_with(|command| {
        command
            .env("MY_SECRET", CLIENT_SECRET)
            .env("LUCID_REFRESH_TOKEN", "marked-refresh-token")
            .env("MY_SETTING", "passes");
    });
    let before = world.record();
    assert_ok(&serving);
    let rotated = told.next();
    let after = world.record();
    assert!(
        rotated.starts_with("2\nan argument\n*\n"),
        "the arguments as they stand: {rotated}"
    );
    for line in [
        "LUCID_PROXY_EVENT=rotated",
        "LUCID_PROXY_CREDENTIAL=default",
        "LUCID_PROXY_GENERATION=2",
        "LUCID_PROXY_MESSAGE=token rotated (expired)",
    ] {
        assert_line(&rotated, line);
    }
    world.sandbox.revoke_grants();
    // The first answer after the revocation is Lucid's own.
    serving.get(PROFILE);
    let needed = told.next();
    assert_line(&needed, "LUCID_PROXY_EVENT=login_needed");
    assert_line(&needed, "LUCID_PROXY_GENERATION=2");
    let message = needed
        .lines()
        .find(|line| line.starts_with("LUCID_PROXY_MESSAGE="));
    assert!(
        message.is_some_and(|message| message.contains("lucid-proxy login")),
        "{needed}"
    );
    for told in [rotated, needed] {
        assert_line(&told, "MY_SETTING=passes");
        for name in [
            "MY_SECRET=",
            "LUCID_CLIENT_ID=",
            "LUCID_CLIENT_SECRET=",
            "LUCID_REFRESH_TOKEN=",
        ] {
            assert!(
                !told.lines().any(|line| line.starts_with(name)),
                "{name} {told}"
            );
        }
        for secret in [CLIENT_SECRET, "marked-refresh-token", "oauth2-"]
            .into_iter()
            .chain([&before, &after].map(|record| record.access_token.expose_secret()))
            .chain([&before, &after].map(|record| record.refresh_token.expose_secret()))
        {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn a_program_is_told_at_the_start_that_a_login_is_needed() {
    let mut world = World::new();
    let told = hooks(&mut world, TELL);
    let serving = world.serve();
    let needed = told.next();
    assert_line(&needed, "LUCID_PROXY_EVENT=login_needed");
    assert_line(&needed, "LUCID_PROXY_GENERATION=");
    assert!(needed.contains("no login yet"), "{needed}");
    serving.stop();
}

#[test]
fn a_program_that_fails_or_is_missing_is_logged_and_harms_nothing() {
    let mut world = World::expired();
    world.tables =
        "on_rotated = [\"sh\", \"-c\", \"exit 7\"]\non_login_needed = [\"/nowhere/program\"]\n"
            .to_owned();
    let serving = world.serve();
    assert_ok(&serving);
    serving.wait_for_log("on_rotated: exit status: 7");
    world.sandbox.expire_access_tokens();
    assert_ok(&serving);
    world.sandbox.revoke_grants();
    serving.get(PROFILE);
    serving.wait_for_log("on_login_needed: cannot run /nowhere/program: ");
    assert_eq!(serving.get(PROFILE).code(), "loginRequired");
    serving.stop();
}

#[test]
fn t04_a_program_that_hangs_holds_up_neither_rotations_nor_the_end() {
    let mut world = World::expired();
    let told = hooks(&mut world, "echo begun > PIPE; sleep 1000 & wait\n");
    world.tables += "[timeouts]\ndrain = \"300ms\"\n";
    let mut serving = world.serve();
    assert_ok(&serving);
    assert_eq!(told.next(), "begun\n");
    for _ in 0..12 {
        world.sandbox.expire_access_tokens();
        assert_ok(&serving);
    }
    assert_eq!(world.sandbox.counts().rotations, 13);
    serving.wait_for_log("one was not run");
    serving.signal(Signal::TERM);
    // The log ends when the last process that could write to it has: the program, and what it started.
    assert!(serving.wait().success(), "{}", serving.log());
    assert!(
        !serving.log().contains("not done after"),
        "it was not the program's own bound: {}",
        serving.log()
    );
}
