//! What `check` says of a configuration, and which commands do without what only the service may read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::world::{Mount, World, errors, is_root, printed};

/// A login whose client secret is in a file of this name.
fn with_secret_in(name: &str) -> World {
    let mut world = World::logged_in();
    world.tables = format!("client_secret_file = \"{name}\"\n");
    world
}

fn write(world: &World, name: &str, content: &str, mode: u32) {
    let path = world.directory.path().join(name);
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    printed(output)
}

#[test]
fn what_only_the_service_is_passed_does_not_stop_a_command_that_does_without() {
    let mut world = with_secret_in("$CREDENTIALS_DIRECTORY/client_secret");
    world.tables += "[clients.ci]\nkey_file = \"$CREDENTIALS_DIRECTORY/ci\"\nread_only = true\n";
    let status = succeeded(&world.run(&["status"]));
    assert!(status.contains("token_info.json"), "{status}");
    let checked = succeeded(&world.run(&["check"]));
    for expected in [
        "\nnot looked at  line ",
        "credentials.default.client_secret_file: the variable CREDENTIALS_DIRECTORY is not set",
        "clients.ci.key_file: the variable CREDENTIALS_DIRECTORY is not set",
        "\nclients        ci\n",
        "and for ci: read_only\n",
    ] {
        assert!(checked.contains(expected), "{expected}: {checked}");
    }
    // Whoever is to serve needs it.
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["token"]] {
        let output = world.run(command);
        assert_eq!(output.status.code(), Some(78), "{}", errors(&output));
    }
    let output = world.run(&["logout", "--yes"]);
    assert!(succeeded(&output).starts_with("logged out here: "));
    let told = "Lucid may not have ended the login (line ";
    assert!(errors(&output).contains(told), "{}", errors(&output));
    assert!(errors(&output).contains("client_secret_file: the variable CREDENTIALS_DIRECTORY"));
}

#[test]
fn with_what_the_service_is_passed_check_looks_at_everything() {
    let world = with_secret_in("$CREDENTIALS_DIRECTORY/client_secret");
    world.configure();
    let check = |directory: &Path| {
        let mut command = world.command(&["check"]);
        command.env("CREDENTIALS_DIRECTORY", directory);
        command.output().expect("it runs")
    };
    let output = check(world.directory.path());
    assert_eq!(output.status.code(), Some(78));
    let told = "/client_secret: No such file";
    assert!(errors(&output).contains(told), "{}", errors(&output));
    write(&world, "client_secret", "secret\n", 0o600);
    let checked = succeeded(&check(world.directory.path()));
    assert!(!checked.contains("not looked at"), "{checked}");
}

#[test]
fn what_only_another_user_may_read_is_not_looked_at_and_what_is_not_there_is_an_error() {
    let mut world = with_secret_in("secret");
    world.upstream_keys = "ca_file = \"ca.pem\"\nproxy_file = \"proxy\"".to_owned();
    let identity = crate::world::tls::Identity::new();
    identity.write(world.directory.path());
    world.top = r#"listen = ["127.0.0.1:8118", { address = "127.0.0.1:0", certificate_file = "tls.crt", key_file = "tls.key" }]"#.to_owned();
    for name in ["secret", "ca.pem", "proxy", "tls.key"] {
        write(&world, name, "marked", 0o000);
    }
    write(&world, "tls.crt", &identity.certificate_pem, 0o644);
    world.upstream = "https://api.lucid.co".to_owned();
    world.configure();
    let run = |arguments: &[&str]| {
        let mut command = world.command_as_nobody(arguments);
        command.output().expect("it runs")
    };
    let checked = succeeded(&run(&["check"]));
    let told = checked.matches("\nnot looked at  ").count();
    assert_eq!(told, 4, "{checked}");
    for part in [
        "secret: Permission denied",
        "ca.pem: Permission",
        "proxy: Permission",
        "tls.key: Permission",
    ] {
        assert!(checked.contains(part), "{part}: {checked}");
    }
    let way =
        "\nupstream       https://api.lucid.co, through a proxy that is not known from here\n";
    assert!(checked.contains(way), "{checked}");
    assert_eq!(run(&["serve"]).status.code(), Some(78));
    fs::remove_file(world.directory.path().join("secret")).expect("removed");
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("secret: No such file"),
        "{}",
        errors(&output)
    );
    // Which does not concern what only reads the store.
    assert_ne!(run(&["status"]).status.code(), Some(78));
}

#[test]
fn the_file_of_a_secret_that_every_user_may_read_is_told_with_what_helps() {
    const TOLD: &str = "every user of this machine may read the ";
    let mut world = World::logged_in();
    world.tables = "client_secret_file = \"secret\"\nclient_id_file = \"id\"\n[clients.ci]\nkey_file = \"ci\"\n".to_owned();
    world.upstream_keys = "proxy_file = \"proxy\"".to_owned();
    write(&world, "id", "cid-sandbox", 0o644);
    for (name, content) in [
        ("secret", "sec-sandbox"),
        ("ci", "lpk_sixteen-letters"),
        ("proxy", "http://a:b@localhost:1"),
    ] {
        write(&world, name, content, 0o644);
    }
    let directory = world.directory.path();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("chmod");
    let mut command = world.run(&["check"]);
    let checked = succeeded(&command);
    assert!(!checked.contains(TOLD), "nobody comes so far: {checked}");
    if !world.open_to_all() {
        return;
    }
    command = world.run(&["check"]);
    let checked = succeeded(&command);
    for name in ["secret", "ci", "proxy"] {
        let line = format!("{TOLD}secret {name}; run chmod o= {name}\n");
        assert!(checked.contains(&line), "{line}: {checked}");
    }
    assert_eq!(checked.matches(TOLD).count(), 3, "{checked}");
    let log = world.serve().stop();
    assert_eq!(log.matches(TOLD).count(), 3, "{log}");
    world.top.clear();
    for mode in [0o640, 0o602] {
        for name in ["secret", "ci", "proxy"] {
            let path = world.directory.path().join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        command = world.run(&["check"]);
        assert!(!succeeded(&command).contains(TOLD), "{mode:o}");
    }
}

#[test]
fn chmod_is_advised_where_it_can_be_done() {
    let world = with_secret_in("mount/secret");
    if !is_root() || !world.open_to_all() {
        return;
    }
    let directory = world.directory.path().join("mount");
    let mount = Mount::tmpfs(&directory, "size=64k");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("chmod");
    write(&world, "mount/secret", "sec-sandbox", 0o444);
    let check = || succeeded(&world.run(&["check"]));
    const TOLD: &str = "every user of this machine may read the secret mount/secret; ";
    assert!(check().contains(&format!("{TOLD}run chmod o= mount/secret\n")));
    let mut command = world.command_as_nobody(&["check"]);
    let checked = succeeded(&command.output().expect("it runs"));
    assert!(
        checked.contains(&format!("{TOLD}it is another user's: ")),
        "{checked}"
    );
    mount.remount("ro");
    assert!(!check().contains("every user"), "as containers get it");
}

#[test]
fn check_says_in_few_lines_what_is_in_force() {
    let mut world = World::logged_in();
    let usual = succeeded(&world.run(&["check"]));
    for line in [
        "\nlisten         127.0.0.1:8118\n",
        "\nclients        whoever can connect, without a key\n",
        "\nhosts          its own addresses\n",
        "\npages          none\n",
        "\nrules          none: everything that the login may\n",
        "\nlimits         the usual ones\n",
    ] {
        assert!(usual.contains(line), "{line}: {usual}");
    }
    world.top = "listen = [\"127.0.0.1:8118\", \"[::1]:8118\"]".to_owned();
    let hash = "0f".repeat(32);
    world.tables = format!(
        "[clients.ci]\nkey_sha256 = \"{hash}\"\ndeny = [\"DELETE /**\"]\n[limits]\nconnections = 100\nconnections_per_address = 50\nuri_bytes = \"8 KiB\"\n[guard]\nallow_hosts = [\"lucid.internal\"]\nallow_origins = [\"http://localhost:5173\"]\nread_only = true\nallow = []\n"
    );
    let changed = succeeded(&world.run(&["check"]));
    for line in [
        "\nlisten         127.0.0.1:8118, [::1]:8118\n",
        "\nclients        ci\n",
        "\nhosts          its own addresses, lucid.internal\n",
        "\npages          http://localhost:5173\n",
        "\nrules          read_only; allow nothing\n",
        "\n               and for ci: deny DELETE /**\n",
        "\nlimits         connections 100 (usually 16384), connections_per_address 50 (usually 1024), uri_bytes 8.0 KiB (usually 16.0 KiB)\n",
    ] {
        assert!(changed.contains(line), "{line}: {changed}");
    }
    // What is typed on a terminal is not much wider than that, and every line has its word.
    let words = changed.lines().map(|line| line[..15].to_owned());
    assert!(words.clone().all(|word| word.ends_with(' ')), "{changed}");
}

#[test]
fn what_check_advises_is_for_the_configuration_that_it_was_asked_about() {
    let world = World::new();
    world.configure();
    let check =
        |arguments: &[&str]| succeeded(&world.command(arguments).output().expect("it runs"));
    assert!(check(&["check"]).contains("run: lucid-proxy login\n"));
    let named = check(&["check", "-c", "proxy.toml"]);
    assert!(
        named.contains("run: lucid-proxy login --config proxy.toml\n"),
        "{named}"
    );
    fs::copy(
        world.directory.path().join("proxy.toml"),
        world.directory.path().join("it's.toml"),
    )
    .expect("copied");
    let named = check(&["check", "-c", "it's.toml"]);
    assert!(
        named.contains(r"lucid-proxy login --config 'it'\''s.toml'"),
        "{named}"
    );
}

/// What `check` says of `proxy.toml` with this text, in an environment with these variables and no others of ours.
fn refused(text: &str, variables: &[(&str, &[u8])]) -> String {
    let world = World::new();
    fs::write(world.directory.path().join("proxy.toml"), text).expect("written");
    let mut command = world.command(&["check"]);
    command.env_remove("LUCID_CLIENT_ID");
    command.env_remove("LUCID_CLIENT_SECRET");
    for (name, value) in variables {
        command.env(name, OsStr::from_bytes(value));
    }
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(78), "{}", printed(&output));
    errors(&output)
}

#[test]
fn a_variable_that_is_set_to_no_value_is_told_so_and_leads_to_no_other_kind() {
    for value in [&b""[..], b"marked-\xff"] {
        let told = refused("", &[("LUCID_API_KEY", value)]);
        let expected = "  credentials.default.api_key: the variable LUCID_API_KEY is set, but empty or no UTF-8 text";
        assert!(told.contains(expected), "{told}");
        assert!(
            !told.contains("client") && !told.contains("marked"),
            "{told}"
        );
        let text = "[credentials.default]\nclient_id = \"a\"\nclient_secret_env = \"SECRET\"\n";
        let told = refused(text, &[("SECRET", value)]);
        let expected = "client_secret_env: the variable SECRET is set, but empty or";
        assert!(told.contains(expected), "{told}");
        let told = refused(
            "",
            &[("LUCID_CLIENT_ID", value), ("LUCID_CLIENT_SECRET", b"a")],
        );
        let expected = "client_id: the variable LUCID_CLIENT_ID is set, but empty or no UTF-8 text; correct it, or give client_id_env or client_id_file";
        assert!(told.contains(expected), "{told}");
    }
    let told = refused("", &[]);
    assert!(
        told.contains("client_id: missing: set the variable LUCID_CLIENT_ID"),
        "{told}"
    );
}

#[test]
fn an_api_key_without_its_kind_is_told_to_lack_that_and_nothing_of_a_login() {
    let text = "[credentials.default]\napi_key_env = \"KEY\"\n";
    let told = refused(text, &[("KEY", b"marked")]);
    let expected =
        "line 2, column 1: credentials.default.api_key_env: needs kind = \"api_key\" beside it\n";
    assert!(told.ends_with(expected), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    // Beside what belongs to a login, either may be meant.
    let told = refused(&format!("{text}client_id = \"a\""), &[("KEY", b"marked")]);
    assert!(
        told.contains("api_key_env: this is for kind = \"api_key\""),
        "{told}"
    );
}

#[test]
fn an_unknown_key_is_told_what_it_may_be_meant_for() {
    let client = [
        ("LUCID_CLIENT_ID", &b"a"[..]),
        ("LUCID_CLIENT_SECRET", b"b"),
    ];
    let told = refused("[clients.ci]\nkey_sha265 = \"00\"", &client);
    let expected = "line 2, column 1: clients.ci.key_sha265: unknown key; did you mean key_sha256? accepted here: ";
    assert!(told.contains(expected), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    let told = refused(
        "[credentials.default]\nlisten = [\"127.0.0.1:8118\"]",
        &client,
    );
    let expected = "line 2, column 1: credentials.default.listen: this is a top-level key: put it above the first [table]\n";
    assert!(told.ends_with(expected), "{told}");
}

#[test]
fn a_limit_that_is_never_reached_is_told() {
    let mut world = World::logged_in();
    let check = |world: &World| succeeded(&world.run(&["check"]));
    world.tables =
        "[limits]\nconnections = 10\nconnections_per_address = 11\nrequests = 12\n".to_owned();
    let told = check(&world);
    for expected in [
        "limits.connections_per_address: 11 is never reached: no address can have more than the 10 of limits.connections\n",
        "limits.requests: 12 is never reached: without HTTP/2 there can be no more than the 10 of limits.connections\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    // Those that nobody has set follow.
    world.tables = "[limits]\nconnections = 10\n".to_owned();
    assert!(!check(&world).contains("never"));
    world.tables =
        "[limits]\nconnections = 10\nconnections_per_address = 10\nrequests = 12\n".to_owned();
    crate::world::tls::Identity::new().write(world.directory.path());
    world.top = "listen = [{ address = \"127.0.0.1:0\", certificate_file = \"tls.crt\", key_file = \"tls.key\" }]".to_owned();
    assert!(
        !check(&world).contains("never"),
        "a connection of HTTP/2 has many"
    );
    world.top.clear();
    assert!(check(&world).contains("limits.requests: 12 is never"));
    world.tables += "[intercept]\nenabled = true\n";
    assert!(!check(&world).contains("never"), "so has a tunnel");
}
