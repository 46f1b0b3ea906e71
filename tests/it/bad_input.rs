//! Bad configuration and bad stores: each error says what to do, and nothing is lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::world::{Mount, World, errors, is_root};

/// What `serve` says instead of starting.
#[track_caller]
fn refusal(world: &World, code: i32) -> String {
    let output = world.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
    errors(&output)
}

#[test]
fn all_problems_of_a_configuration_are_told_with_their_places() {
    let mut world = World::new();
    world.top = "lisen = [\"127.0.0.1:0\"]\nworkers = \"many\"".to_owned();
    world.tables =
        "client_secret = 5\nrefresh_margin = \"soon\"\n[replay]\nmemory = \"big\"\ntotal_disk = \"1 MiB\"\n[extra]\n"
            .to_owned();
    let errors = refusal(&world, 78);
    for expected in [
        "proxy.toml is not accepted",
        "line 1, column 1: lisen: unknown key; did you mean listen? accepted here: ",
        "listen",
        "workers: expected a whole number from 1 to 1024",
        "credentials.default.client_secret: expected a string in quotes",
        "credentials.default.refresh_margin: expected a duration",
        "replay.memory: expected a size",
        "replay.total_disk: at least what replay.disk allows each request is accepted",
        "extra: unknown key",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}

#[test]
fn s06_an_error_never_repeats_what_may_be_a_secret() {
    for line in [
        "client_secret = \"marked-secret",
        "client_secret = [\"marked-secret\"]",
        "client_secret = \"marked-secret\"",
        "client_secretx = \"marked-secret\"",
        "marked_secret",
    ] {
        let mut world = World::new();
        world.tables = format!("{line}\nworkers = 1\n");
        let errors = refusal(&world, 78);
        assert!(!errors.contains("marked-secret"), "{line}: {errors}");
        assert!(errors.contains("line "), "{line}: {errors}");
    }
}

#[test]
fn a_key_that_is_too_deep_is_told_with_its_line() {
    let mut world = World::new();
    world.top = format!("# a.b.c\n{} = 1\n", ["a"; 300].join("."));
    let refusal = refusal(&world, 78);
    assert!(
        refusal.contains("line 2, column 1: a key has too many parts"),
        "{refusal}"
    );
}

#[test]
fn an_inline_secret_needs_a_private_file() {
    let mut world = World::new();
    world.tables = "client_secret = \"inline\"\n".to_owned();
    let path = world.configure();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    let output = world.command(&["check"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(errors(&output).contains("chmod 600"), "{}", errors(&output));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(
        world
            .command(&["check"])
            .output()
            .expect("it runs")
            .status
            .success()
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let world = World::new();
    let check = |file: &Path| {
        let output = world
            .command(&["check", "--config"])
            .arg(file)
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(78));
        errors(&output)
    };
    let missing = check(Path::new("/nowhere/proxy.toml"));
    assert!(
        missing.contains("/nowhere/proxy.toml") && missing.contains("no such file"),
        "{missing}"
    );
    let directory = check(world.directory.path());
    assert!(directory.contains("it is a directory"), "{directory}");
    let binary = world.directory.path().join("binary");
    fs::write(&binary, b"\xff\xfe\x00").expect("written");
    assert!(check(&binary).contains("not UTF-8"));
}

#[test]
fn a_configuration_that_this_user_may_not_read_is_named() {
    let world = World::new();
    let path = world.configure();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("chmod");
    let path = path.to_str().expect("UTF-8");
    let output = world
        .command_as_nobody(&["check", "--config", path])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(78), "{}", errors(&output));
    let errors = errors(&output);
    assert!(
        errors.contains("proxy.toml") && errors.contains("may not read it"),
        "{errors}"
    );
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let mut world = World::new();
    world.upstream = "http://api.lucid.co".to_owned();
    let errors = refusal(&world, 78);
    assert!(
        errors.contains("upstream.url") && errors.contains("https://"),
        "{errors}"
    );
}

#[test]
fn a_damaged_store_stops_the_start_and_stays_as_it_is() {
    for (content, reason) in [
        (&b""[..], "it is empty"),
        (
            br#"{"access_token":"oauth2-x","refresh_tok"#,
            "not a token file",
        ),
        (b"not JSON", "not a token file"),
        (
            br#"{"version":99,"refresh_token":"oauth2-x"}"#,
            "a newer lucid-proxy wrote it",
        ),
        (br#"{"access_token":"oauth2-x"}"#, "no refresh_token"),
    ] {
        let world = World::new();
        world.write_store(content);
        for command in ["serve", "status", "token"] {
            let output = world.run(&[command]);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command}: {}",
                errors(&output)
            );
            let errors = errors(&output);
            assert!(
                errors.contains(reason) && errors.contains("token_info.json"),
                "{errors}"
            );
            assert!(!errors.contains("oauth2-x"), "{errors}");
        }
        assert_eq!(
            fs::read(world.store()).expect("there"),
            content,
            "nothing was changed"
        );
    }
}

#[test]
fn a_store_that_others_can_read_stops_the_start() {
    let world = World::logged_in();
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o644)).expect("chmod");
    let errors = refusal(&world, 1);
    assert!(
        errors.contains("chmod 600") && errors.contains("token_info.json"),
        "{errors}"
    );
}

#[test]
fn a_store_that_becomes_readable_by_others_is_narrowed_by_the_next_write() {
    let world = World::logged_in();
    let serving = world.serve();
    assert_eq!(serving.get("/users").status, 200);
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o644)).expect("chmod");
    world.sandbox.expire_access_tokens();
    assert_eq!(serving.get("/users").status, 200);
    let mode = fs::metadata(world.store())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn t08_a_symbolic_link_in_the_stores_place_stops_the_start() {
    let world = World::logged_in();
    let target = world.state().join("elsewhere.json");
    fs::rename(world.store(), &target).expect("moved");
    symlink(&target, world.store()).expect("a link");
    let errors = refusal(&world, 1);
    assert!(
        errors.contains("symbolic link") && errors.contains("set store"),
        "{errors}"
    );
}

#[test]
fn a_store_in_a_read_only_directory_serves_while_its_token_lives() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mount = Mount::tmpfs(&world.state(), "size=256k,mode=700");
    world.log_in();
    mount.remount("ro");
    let serving = world.serve();
    assert_eq!(serving.get("/users").status, 200);
    serving.wait_for_log("no rotation is possible");
    drop(serving);
}

#[test]
fn t03_on_a_full_disk_nothing_is_posted_and_the_pair_stays() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    world.log_in();
    let before = fs::read(world.store()).expect("a store");
    fs::write(world.state().join("ballast"), vec![0; 128 << 10]).expect_err("the disk is full");
    let serving = world.serve();
    world.sandbox.expire_access_tokens();
    let response = serving.get("/users");
    assert_eq!(response.status, 401, "the first answer passes");
    let status = response.header("proxy-status").expect("it says why");
    assert!(
        status.contains("cannot write the token file") && status.contains("No space left"),
        "{status}"
    );
    assert_eq!(world.sandbox.counts().token_posts, 0);
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    fs::remove_file(world.state().join("ballast")).expect("removed");
    serving.wait_for_log("token rotated");
    assert_eq!(serving.get("/users").status, 200);
    drop(serving);
}

#[test]
fn t19_import_on_a_full_disk_spends_nothing() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _mount = Mount::tmpfs(&world.state(), "size=32k,mode=700");
    fs::write(world.state().join("ballast"), vec![0; 64 << 10]).expect_err("the disk is full");
    let file = world.directory.path().join("mine.json");
    fs::write(
        &file,
        serde_json::to_vec(&world.sandbox.approve()).expect("JSON"),
    )
    .expect("written");
    let output = world.run(&["import", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("free space"),
        "{}",
        errors(&output)
    );
    assert!(!world.store().exists());
}

#[test]
fn s06_a_secret_that_stands_where_a_variables_name_is_expected_is_not_repeated() {
    let mut world = World::new();
    world.tables = "client_secret_env = \"s3cr3tMarked\"\n".to_owned();
    let refusal = refusal(&world, 78);
    assert!(
        refusal.contains("client_secret_env: the name of a variable is accepted, and the one with this name is not set"),
        "{refusal}"
    );
    assert!(!refusal.contains("s3cr3t"), "{refusal}");
}

#[test]
fn a_secret_that_is_configured_twice_or_nowhere_is_told() {
    let mut world = World::new();
    world.tables = "client_secret_env = \"A\"\nclient_secret_file = \"/b\"\n".to_owned();
    assert!(
        refusal(&world, 78)
            .contains("only one of client_secret, client_secret_env and client_secret_file")
    );
    world.tables = "client_secret_env = \"UNSET_VARIABLE\"\n".to_owned();
    assert!(refusal(&world, 78).contains("the variable UNSET_VARIABLE is not set"));
    world.tables = "client_secret_file = \"/nowhere/secret\"\n".to_owned();
    assert!(refusal(&world, 78).contains("cannot read the file /nowhere/secret"));
    world.tables = "client_secret_file = \"/dev/zero\"\n".to_owned();
    assert!(refusal(&world, 78).contains("the file /dev/zero holds more than 65536 bytes"));
    let file = world.directory.path().join("secret");
    fs::write(&file, "sec-sandbox\n").expect("written");
    world.tables = format!("client_secret_file = \"{}\"\n", file.display());
    world.log_in();
    world.sandbox.expire_access_tokens();
    let serving = world.serve_with(|command| {
        command.env_remove("LUCID_CLIENT_SECRET");
    });
    assert_eq!(
        serving.get("/users").status,
        200,
        "the secret from the file works"
    );
}
