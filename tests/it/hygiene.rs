//! Where secrets come from, and where they do not go (rule S6).

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use lucid_proxy::sandbox::CLIENT_SECRET;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::world::tls::TlsFront;
use crate::world::{NOBODY, Serving, World, errors, printed};

const ALLOW_DUMPS: &str = "LUCID_PROXY_ALLOW_DUMPS";

#[test]
fn s06_secrets_come_from_files_as_containers_and_systemd_give_them() {
    let world = World::expired();
    let secrets = world.directory.path().join("credentials");
    fs::create_dir(&secrets).expect("made");
    // As `docker secret create` has it from an editor, and as Windows would.
    fs::write(secrets.join("client-id"), "cid-sandbox\n").expect("written");
    fs::write(
        secrets.join("client-secret"),
        format!("{CLIENT_SECRET}\r\n"),
    )
    .expect("written");
    let token = |directory: &str, systemd: Option<&Path>| {
        let text = format!(
            "[upstream]\nurl = \"{0}\"\n[credentials.default]\ntoken_url = \"{0}/oauth2/token\"\nclient_id_file = \"{directory}/client-id\"\nclient_secret_file = \"{directory}/client-secret\"\n",
            world.upstream
        );
        fs::write(world.directory.path().join("proxy.toml"), text).expect("written");
        let mut command = world.command(&["token"]);
        command.env_remove("LUCID_CLIENT_ID");
        command.env_remove("LUCID_CLIENT_SECRET");
        if let Some(systemd) = systemd {
            command.env("CREDENTIALS_DIRECTORY", systemd);
        }
        command.output().expect("it runs")
    };
    let by_systemd = token("$CREDENTIALS_DIRECTORY", Some(&secrets));
    assert!(by_systemd.status.success(), "{}", errors(&by_systemd));
    assert_eq!(world.sandbox.counts().rotations, 1, "with the right secret");
    world.store_expired();
    let plainly = token(&secrets.display().to_string(), None);
    assert!(plainly.status.success(), "{}", errors(&plainly));
    assert_eq!(world.sandbox.counts().rotations, 2);
    let nowhere = token("$CREDENTIALS_DIRECTORY", None);
    assert_eq!(nowhere.status.code(), Some(78));
    let said = errors(&nowhere);
    for place in [
        "line 5, column 18: credentials.default.client_id_file: the variable CREDENTIALS_DIRECTORY is not set",
        "line 6, column 22: credentials.default.client_secret_file: the variable CREDENTIALS_DIRECTORY is not set",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
    // Nothing else is replaced.
    let literal = token("$HOME", Some(&secrets));
    assert!(
        errors(&literal).contains("cannot read the file $HOME/client-id"),
        "{}",
        errors(&literal)
    );
}

#[test]
fn s06_certificates_and_their_keys_come_from_systemd_too() {
    let world = World::new();
    let front = TlsFront::start(world.sandbox.address());
    front.write_bundle(&world.directory.path().join("ca.pem"));
    let check = |systemd: Option<&Path>| {
        let text = "listen = [{ address = \"127.0.0.1:0\", certificate_file = \"$CREDENTIALS_DIRECTORY/crt\", key_file = \"$CREDENTIALS_DIRECTORY/key\" }]\n[upstream]\nca_file = \"$CREDENTIALS_DIRECTORY/ca.pem\"\nproxy_file = \"$CREDENTIALS_DIRECTORY/proxy\"\n";
        fs::write(world.directory.path().join("proxy.toml"), text).expect("written");
        let mut command = world.command(&["check"]);
        if let Some(systemd) = systemd {
            command.env("CREDENTIALS_DIRECTORY", systemd);
        }
        let output = command.output().expect("it runs");
        printed(&output) + &errors(&output)
    };
    let directory = world.directory.path();
    fs::write(directory.join("proxy"), "none\n").expect("written");
    let with = check(Some(directory));
    // The certificate is looked for there, after all else was accepted.
    let crt = directory.join("crt");
    assert!(with.contains(&crt.display().to_string()), "{with}");
    let without = check(None);
    for key in [
        "listen.certificate_file",
        "listen.key_file",
        "upstream.ca_file",
        "upstream.proxy_file",
    ] {
        let said = format!("{key}: the variable CREDENTIALS_DIRECTORY is not set");
        assert!(without.contains(&said), "{key}: {without}");
    }
}

/// The soft limit of a process's core dumps, as proc_pid_limits(5) has it.
fn core_limit(serving: &Serving) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", serving.pid())).expect("Linux");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words = line.and_then(|line| line.split_whitespace().nth(4));
    words.expect("a limit").to_owned()
}

/// Whose the files of a process are: root's where nobody else may look into it (proc(5)).
fn owner(serving: &Serving) -> u32 {
    let environment = format!("/proc/{}/environ", serving.pid());
    fs::metadata(environment).expect("Linux").uid()
}

#[test]
fn s06_nobody_can_look_into_the_process_and_no_core_dump_is_written() {
    let world = World::new();
    world.configure();
    raise_the_limit();
    let user = match rustix::process::geteuid().is_root() {
        true => NOBODY,
        false => rustix::process::geteuid().as_raw(),
    };
    fs::create_dir(world.state()).expect("made");
    chown(world.state(), Some(user), None).expect("theirs");
    let serve = |prepare: fn(&mut Command)| {
        let mut command = world.command_as_nobody(&["serve", "--listen", "127.0.0.1:0"]);
        prepare(&mut command);
        Serving::start(command)
    };
    let open = serve(|command| {
        command.env(ALLOW_DUMPS, "1");
    });
    let seen = (owner(&open), core_limit(&open));
    assert_eq!(seen, (user, inherited()), "the control");
    open.stop();
    let shut = serve(|_| {});
    assert_eq!((owner(&shut), core_limit(&shut).as_str()), (0, "0"));
    // It is all the same to what it does.
    assert_eq!(shut.get("/users").code(), "loginRequired");
    shut.stop();
}

/// Where it was low already, nothing would be seen of its being lowered.
fn raise_the_limit() {
    let mut limit = getrlimit(Resource::Core);
    limit.current = limit.maximum;
    setrlimit(Resource::Core, limit).expect("up to the maximum");
}

/// This process's own limit, which its children have too.
fn inherited() -> String {
    let limit = getrlimit(Resource::Core).current;
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}
