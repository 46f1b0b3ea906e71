//! `lucid-proxy env`: a shell whose programs come to a running proxy.

use std::process::Command;

use lucid_proxy::config::KeyHash;

use super::assert_code;
use crate::world::{Serving, World, errors, printed};

const PROFILE: &str = "https://api.lucid.co/users/me/profile";

fn intercepting() -> (World, Serving) {
    let mut world = World::logged_in();
    world.tables = "[intercept]\nenabled = true".to_owned();
    let serving = world.serve();
    (world, serving)
}

/// What a shell prints that has evaluated it.
fn in_a_shell(world: &World, variables: &str, script: &str) -> std::process::Output {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("eval \"$1\"; {script}"), "sh", variables])
        .current_dir(world.directory.path());
    command.output().expect("a shell")
}

#[test]
fn a_shell_that_evaluates_it_comes_to_the_running_proxy() {
    let (world, serving) = intercepting();
    let address = serving.address.to_string();
    let mut command = world.command(&["env", "--listen", &address]);
    command.env("JAVA_TOOL_OPTIONS", "-Dname='a b'");
    let env = command.output().expect("it runs");
    assert_code(&env, 0);
    assert_eq!(errors(&env), "");
    let variables = printed(&env);
    assert!(!variables.contains("SECRET"), "{variables}");
    let script = format!(
        "curl -sS --fail {PROFILE}; curl -sS --fail $LUCID_BASE_URL/users/me/profile; echo; echo \"$JAVA_TOOL_OPTIONS\""
    );
    let seen = in_a_shell(&world, &variables, &script);
    assert_code(&seen, 0);
    assert_eq!(
        printed(&seen).matches("Ada").count(),
        2,
        "{}",
        errors(&seen)
    );
    let java = printed(&seen);
    let java = java.lines().last().expect("a line");
    assert!(
        java.starts_with("-Dname='a b' -Djavax.net.ssl.trustStore="),
        "{java}"
    );
    assert!(java.contains("-Dhttps.proxyHost=127.0.0.1"), "{java}");
    // Our own commands there go by what was before.
    let program = env!("CARGO_BIN_EXE_lucid-proxy");
    let script = format!(
        "STATE_DIRECTORY={} LUCID_CLIENT_ID=cid-sandbox LUCID_CLIENT_SECRET=sec-sandbox {program} refresh --yes",
        world.state().display()
    );
    assert_code(&in_a_shell(&world, &variables, &script), 0);
    assert_eq!(world.sandbox.counts().rotations, 1);
}

#[test]
fn a_shell_that_evaluates_it_twice_has_it_once() {
    let (world, serving) = intercepting();
    let program = env!("CARGO_BIN_EXE_lucid-proxy");
    let state = world.state();
    let bundle = state.join("programs").join("trusted.pem");
    let company = world.directory.path().join("wgetrc");
    std::fs::write(&company, "timeout = 5\n").expect("written");
    let env = world.run(&["env", "--listen", &serving.address.to_string()]);
    assert_code(&env, 0);
    // What is set between the two counts; a variable that names what is of the shell's own is no change.
    let script = format!(
        "again() {{ eval \"$(STATE_DIRECTORY={} LUCID_CLIENT_ID=a {program} --config {} env --listen {})\"; }}
        once=$(env | grep -v ^_=); again; [ \"$once\" = \"$(env | grep -v ^_=)\" ] && echo same
        wc -c < {bundle}
        NO_PROXY=intranet.test NODE_OPTIONS=--trace-uncaught WGETRC={}; again
        echo $NO_PROXY; echo $NODE_OPTIONS; grep timeout $WGETRC; again; echo $NO_PROXY; echo $NODE_OPTIONS; grep timeout $WGETRC
        wc -c < {bundle}",
        state.display(),
        world.directory.path().join("proxy.toml").display(),
        serving.address,
        company.display(),
        bundle = bundle.display(),
    );
    let seen = in_a_shell(&world, &printed(&env), &script);
    assert_code(&seen, 0);
    let printed = printed(&seen);
    let lines: Vec<&str> = printed.lines().collect();
    let [same, size, first @ .., size_at_the_end] = lines.as_slice() else {
        panic!("{printed}{}", errors(&seen));
    };
    assert_eq!((*same, size), ("same", size_at_the_end), "{printed}");
    assert_eq!(
        first[0], "intranet.test,localhost,127.0.0.1,::1",
        "{printed}"
    );
    let node = format!(
        "--trace-uncaught --require {}/programs/node.js",
        state.display()
    );
    assert_eq!(first[1], node);
    assert_eq!(first[2], "timeout = 5");
    assert_eq!(first[..3], first[3..], "{printed}");
}

#[test]
fn where_interception_is_off_it_says_what_to_do() {
    let world = World::logged_in();
    let env = world.run(&["env"]);
    assert_code(&env, 1);
    assert_eq!(printed(&env), "");
    assert!(errors(&env).contains("enabled = true under [intercept]"));
}

#[test]
fn s04_where_clients_have_keys_it_asks_for_one() {
    let mut world = World::logged_in();
    let key = "lpk_0123456789abcdef";
    world.tables = format!(
        "[intercept]\nenabled = true\n[clients.script]\nkey_sha256 = \"{}\"",
        KeyHash::of(key.as_bytes()).to_hex()
    );
    let serving = world.serve();
    let address = serving.address.to_string();
    let none = world.run(&["env", "--listen", &address]);
    assert_code(&none, 1);
    assert!(errors(&none).contains("--client NAME"), "{}", errors(&none));
    let file = world.directory.path().join("key");
    std::fs::write(&file, format!("{key}\n")).expect("written");
    let file = file.display().to_string();
    let arguments = [
        "env",
        "--listen",
        &address,
        "--client",
        "script",
        "--key-file",
        &file,
    ];
    let env = world.run(&arguments);
    assert_code(&env, 0);
    assert!(errors(&env).contains("# Java sends no key"));
    let seen = in_a_shell(
        &world,
        &printed(&env),
        &format!("curl -sS --fail {PROFILE}"),
    );
    assert!(printed(&seen).contains("Ada"), "{}", errors(&seen));
    assert!(!printed(&env).contains("https.proxyHost"));
    std::fs::write(&file, "a key").expect("written");
    let wrong = world.run(&arguments);
    assert_code(&wrong, 1);
    assert!(errors(&wrong).contains("can stand in a URL"));
}

#[test]
fn it_names_an_address_that_programs_can_reach() {
    for (listen, code, said) in [
        ("[\"0.0.0.0:1\"]", 0, "http://127.0.0.1:1"),
        ("[\"[::]:1\"]", 0, "http://[::1]:1"),
        (
            "[\"unix:a.sock\", \"127.0.0.2:1\"]",
            0,
            "http://127.0.0.2:1",
        ),
        ("[\"unix:a.sock\"]", 1, "add one such as"),
        ("[\"127.0.0.1:0\"]", 1, "--listen 127.0.0.1:PORT"),
    ] {
        let mut world = World::logged_in();
        world.top = format!("listen = {listen}");
        world.tables = "[intercept]\nenabled = true".to_owned();
        let env = world.run(&["env"]);
        assert_code(&env, code);
        let text = printed(&env) + &errors(&env);
        assert!(text.contains(said), "{listen}: {text}");
        if code == 0 {
            assert!(errors(&env).contains("# nothing listens on"), "{listen}");
        }
    }
}
