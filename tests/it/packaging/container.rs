//! The container: its file system, its user, its environment and its command are those that the container file names.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::{PROGRAM, assert_serves_and_rotates, assert_without_rights, status, writable};
use crate::world::{Serving, World, errors, is_root, printed, python_with};

const CONTAINERFILE: &str = include_str!("../../../packaging/Containerfile");

/// What stands behind this instruction in the last stage, once for each time that it is there.
fn instructions(name: &str) -> Vec<&'static str> {
    let (_, last) = CONTAINERFILE.rsplit_once("\nFROM ").expect("a last stage");
    let found = last
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.collect()
}

/// A program and its arguments, in the form that needs no shell.
fn words(instruction: &str) -> Vec<String> {
    let [words] = instructions(instruction)[..] else {
        panic!("one {instruction}");
    };
    serde_json::from_str(words).expect("a list")
}

/// A directory in the container, and those above it.
fn directory(root: &Path, path: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path).expect("a directory");
}

/// A file of this machine in the same place of the container.
fn copy(root: &Path, path: &Path) {
    let inside = root.join(path.strip_prefix("/").expect("a whole path"));
    fs::create_dir_all(inside.parent().expect("a directory")).expect("a directory");
    fs::copy(path, inside).expect("copied");
}

/// What the image has in it: the program, the libraries that it needs, and what names and certificates are found with.
fn image(root: &Path) {
    for path in ["/proc", "/usr/local/bin", instructions("WORKDIR")[0]] {
        directory(root, path);
    }
    let state = instructions("VOLUME")[0];
    directory(root, state);
    // Made by another program: where this process had it open for writing, it could not be run.
    let program = root.join(PROGRAM.trim_start_matches('/'));
    let built = env!("CARGO_BIN_EXE_lucid-proxy");
    let copied = Command::new("cp").arg(built).arg(program).status();
    assert!(copied.expect("cp").success());
    let libraries = Command::new("ldd").arg(built).output().expect("ldd");
    let libraries = printed(&libraries);
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in libraries {
        copy(root, Path::new(library));
    }
    for file in ["/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"] {
        copy(root, Path::new(file));
    }
}

#[test]
fn the_container_serves_and_rotates_with_a_file_system_that_is_read_only() {
    if !is_root() {
        return;
    }
    let Some(python) = python_with(&["ctypes"]) else {
        return;
    };
    let mut world = World::logged_in();
    world.upstream = world.upstream.replace("127.0.0.1", "localhost");
    world.top = "listen = [\"127.0.0.1:0\"]".to_owned();
    world.tables = "[replay]\nmemory = \"1 KiB\"\n".to_owned();
    let root = world.directory.path().join("root");
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o755).create(&root).expect("a directory");
    image(&root);
    let configuration = world.configure();
    let inside = root.join(instructions("WORKDIR")[0].trim_start_matches('/'));
    fs::copy(configuration, inside.join("proxy.toml")).expect("copied");

    let (user, group) = instructions("USER")[0].split_once(':').expect("a group");
    assert_eq!(user, group);
    let user: u32 = user
        .parse()
        .expect("a number, which Kubernetes can see is not root's");
    assert_ne!(user, 0);
    for path in [world.state(), world.store()] {
        chown(path, Some(user), Some(user)).expect("chown");
    }
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o700)).expect("chmod");

    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/packaging/container.py"
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", &python, script])
        .args([&root, &world.state()])
        .arg(user.to_string())
        .args(words("ENTRYPOINT"))
        .args(words("CMD"));
    for (name, value) in world.command(&[]).get_envs() {
        command.env(name, value.expect("all of them are set"));
    }
    let environment = instructions("ENV");
    for variable in &environment {
        let (name, value) = variable.split_once('=').expect("a value");
        command.env(name, value);
    }
    let serving = Serving::start(command);
    assert_serves_and_rotates(&world, &serving);
    let process = serving.pid().as_raw_nonzero().get().unsigned_abs();
    assert_without_rights(process);
    assert_eq!(status(process, "Uid").split('\t').next(), Some("65532"));
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).expect("it runs");
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"));
    let options = root.expect("a root").split(' ').nth(3).expect("options");
    assert!(options.split(',').any(|option| option == "ro"), "{options}");
    assert_eq!(writable(&python, process), instructions("VOLUME"));
}

/// The files outside of `src/` that a source file includes, from the top.
fn included() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = Command::new("grep")
        .args(["-rn", "include_str!(\"\\.\\./", "src"])
        .current_dir(root)
        .output()
        .expect("grep");
    let found = printed(&found);
    let lines = found.lines().map(|line| {
        let (file, rest) = line.split_once(':').expect("a file");
        let path = rest.split('"').nth(1).expect("a path");
        (file.to_owned(), path.trim_start_matches("../").to_owned())
    });
    let lines: Vec<_> = lines.collect();
    assert!(!lines.is_empty(), "lib.rs includes one");
    lines
}

#[test]
fn the_container_is_built_from_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (first, _) = CONTAINERFILE.rsplit_once("\nFROM ").expect("a first stage");
    let copied = first.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied: Vec<_> = copied
        .flat_map(|line| {
            let mut names: Vec<_> = line.split(' ').collect();
            names.pop();
            names
        })
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    for name in &copied {
        let copied = Command::new("cp")
            .arg("-r")
            .arg(root.join(name))
            .arg(directory.path())
            .status();
        assert!(copied.expect("cp").success(), "{name}");
    }
    for (file, included) in included() {
        let is_there = directory.path().join(&included).exists();
        assert!(is_there, "{file} includes {included}");
    }
    // cargo finds every target that Cargo.toml names; whether every crate is there is another question.
    let read = Command::new(env!("CARGO"))
        .args(["fetch", "--offline", "--locked"])
        .current_dir(directory.path())
        .output();
    let told = errors(&read.expect("cargo"));
    assert!(!told.contains("Cargo.toml"), "{told}");
    let toolchain = include_str!("../../../Cargo.toml")
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("a version");
    assert!(first.contains(&format!("rust:{}-", toolchain.trim_matches('"'))));
}
