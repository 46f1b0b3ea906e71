//! An API key in the place of a login: the same proxy, and nothing that refreshes.

use std::fs;
use std::process::{Command, Output};

use lucid_proxy::sandbox::{Behaviour, Counts};
use serde_json::{Value, json};

use crate::world::raw_upstream::RawUpstream;
use crate::world::{Serving, World, errors, printed};

const KEY: &str = "key-marked-0123456789abcdef";
const PROFILE: &str = "/users/me/profile";

/// In front of a stand-in that takes [`KEY`].
fn world() -> World {
    World::behaving(Behaviour {
        api_key: Some(KEY.to_owned()),
        ..Behaviour::default()
    })
}

/// Writes `proxy.toml` with these lines about the credential.
fn configure(world: &World, credential: &str) {
    let text = format!(
        "[upstream]\nurl = \"{}\"\n[credentials.default]\n{credential}\n",
        world.upstream
    );
    fs::write(world.directory.path().join("proxy.toml"), text).expect("written");
}

/// The program with an API key in its environment, and no application.
fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command
        .env_remove("LUCID_CLIENT_ID")
        .env_remove("LUCID_CLIENT_SECRET")
        .env("LUCID_API_KEY", KEY);
    command
}

fn run(world: &World, arguments: &[&str]) -> Output {
    configure(world, "kind = \"api_key\"");
    command(world, arguments).output().expect("it runs")
}

fn serve(world: &World) -> Serving {
    configure(world, "kind = \"api_key\"");
    Serving::start(command(
        world,
        &["serve", "--listen", "127.0.0.1:0", "--verbose"],
    ))
}

#[track_caller]
fn nothing_was_refreshed(counts: &Counts) {
    let asked = (
        counts.token_posts,
        counts.introspections,
        counts.revocations,
    );
    assert_eq!(asked, (0, 0, 0));
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn t16_a_401_on_an_api_key_passes_unchanged_and_nothing_is_refreshed_or_replayed() {
    let world = world();
    let serving = serve(&world);
    let answer = serving.get(PROFILE);
    assert_eq!(
        (answer.status, answer.json()["id"].clone()),
        (200, json!(4711))
    );
    world.sandbox.change(|behaviour| behaviour.api_key = None);
    let direct = crate::world::get(world.sandbox.address(), "/v1/users/me/profile");
    let before = world.sandbox.counts();
    for _ in 0..3 {
        let refused = serving
            .connect()
            .ask(&format!("POST {PROFILE}"), &[], b"content");
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("proxy-status"), None, "{refused:?}");
        assert_eq!(refused.json()["code"], direct.json()["code"], "{refused:?}");
    }
    let after = world.sandbox.counts();
    assert_eq!(
        after.api_requests - before.api_requests,
        3,
        "each is sent once"
    );
    assert_eq!(
        after.unknown_tokens - before.unknown_tokens,
        3,
        "with the key"
    );
    nothing_was_refreshed(&after);
    assert!(!world.state().exists(), "no store, no lock");
    // What is taken again works again.
    world
        .sandbox
        .change(|behaviour| behaviour.api_key = Some(KEY.to_owned()));
    assert_eq!(serving.get(PROFILE).status, 200);
    let log = serving.stop();
    assert!(log.contains(" 401 ") && !log.contains(" gen "), "{log}");
    assert!(!log.contains(KEY), "{log}");
}

#[test]
fn f02_the_key_takes_the_place_of_what_the_client_sent() {
    let upstream = RawUpstream::start();
    let mut world = world();
    world.upstream = upstream.origin();
    let requests = upstream.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let serving = serve(&world);
    let answer = serving.connect().ask(
        "GET /users",
        &["Authorization: Bearer stale", "X-Other: stays"],
        b"",
    );
    assert_eq!(answer.text(), "ok");
    let request = requests.recv().expect("a request");
    let request = String::from_utf8(request)
        .expect("text")
        .to_ascii_lowercase();
    let sent: Vec<_> = request
        .lines()
        .filter(|line| line.starts_with("authorization") || line.starts_with("x-other"))
        .collect();
    let ours = format!("authorization: bearer {KEY}");
    assert_eq!(sent.len(), 2, "{request}");
    assert!(
        sent.contains(&"x-other: stays") && sent.contains(&ours.as_str()),
        "{request}"
    );
}

#[test]
fn a_key_comes_from_a_variable_a_file_or_the_file_that_is_its_owners_alone() {
    let world = world();
    let file = world.directory.path().join("key");
    fs::write(&file, format!("{KEY}\n")).expect("written");
    let token = |credential: &str, variable: &str| {
        configure(&world, &format!("kind = \"api_key\"\n{credential}"));
        let mut command = command(&world, &["token"]);
        command.env_remove("LUCID_API_KEY").env(variable, KEY);
        command.output().expect("it runs")
    };
    for (credential, variable) in [
        ("", "LUCID_API_KEY"),
        ("api_key_env = \"MY_KEY\"", "MY_KEY"),
        (&*format!("api_key_file = \"{}\"", file.display()), "OTHER"),
    ] {
        let output = token(credential, variable);
        assert_eq!(printed(&output), format!("{KEY}\n"), "{}", errors(&output));
    }
    let exposed = token(&format!("api_key = \"{KEY}\""), "OTHER");
    assert_eq!(exposed.status.code(), Some(78));
    let said = errors(&exposed);
    assert!(
        said.contains("line 5, column 11") && said.contains("chmod 600"),
        "{said}"
    );
    assert!(!said.contains(KEY), "{said}");
}

#[test]
fn what_belongs_to_the_other_kind_is_told_with_its_place() {
    let world = world();
    let check = |credential: &str, variable: &str, value: &str| {
        configure(&world, credential);
        let mut command = command(&world, &["check"]);
        command.env_remove("LUCID_API_KEY").env(variable, value);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(78), "{}", printed(&output));
        errors(&output)
    };
    let both = check(
        "kind = \"api_key\"\nclient_id = \"x\"\nstore = \"y\"\nnonsense = 1",
        "LUCID_API_KEY",
        KEY,
    );
    for said in [
        "line 5, column 1: credentials.default.client_id: this is for kind = \"oauth\"",
        "line 6, column 1: credentials.default.store: this is for kind = \"oauth\"",
        "line 7, column 1: credentials.default.nonsense: unknown key; accepted here: api_key, api_key_env, api_key_file, kind, oauth2_endpoint",
    ] {
        assert!(both.contains(said), "{said}: {both}");
    }
    let other = check("api_key_env = \"MY_KEY\"", "MY_KEY", KEY);
    assert!(
        other.contains(
            "line 4, column 1: credentials.default.api_key_env: needs kind = \"api_key\" beside it"
        ),
        "{other}"
    );
    let unknown = check("kind = \"basic\"", "LUCID_API_KEY", KEY);
    assert!(
        unknown.contains(
            "line 4, column 8: credentials.default.kind: expected \"oauth\" or \"api_key\""
        ),
        "{unknown}"
    );
    let missing = check("kind = \"api_key\"", "OTHER", "");
    assert!(
        missing.contains("credentials.default.api_key: missing: set the variable LUCID_API_KEY, or give api_key_env or api_key_file"),
        "{missing}"
    );
    let two_words = check(
        "kind = \"api_key\"\napi_key_env = \"MY_KEY\"",
        "MY_KEY",
        "marked two",
    );
    assert!(
        two_words.contains(
            "line 5, column 15: credentials.default.api_key: what is given is no API key"
        ),
        "{two_words}"
    );
    assert!(!two_words.contains("marked"), "{two_words}");
}

#[test]
fn the_variable_alone_is_enough_where_nothing_is_said_of_an_application() {
    let world = world();
    let check = |command: &mut Command| {
        let output = command.output().expect("it runs");
        printed(&output) + &errors(&output)
    };
    let alone = check(&mut command(&world, &["check"]));
    assert!(alone.contains("credential     an API key"), "{alone}");
    let with_client = command(&world, &["check"])
        .env("LUCID_CLIENT_ID", "cid")
        .env("LUCID_CLIENT_SECRET", "sec")
        .output()
        .expect("it runs");
    assert!(
        printed(&with_client).contains("token endpoint"),
        "{}",
        printed(&with_client)
    );
    configure(&world, "store = \"x\"");
    let with_store = check(&mut command(&world, &["check"]));
    assert!(with_store.contains("LUCID_CLIENT_ID"), "{with_store}");
    configure(&world, "oauth2_endpoint = \"deny\"");
    let implied = check(&mut command(&world, &["check"]));
    assert!(implied.contains("credential     an API key"), "{implied}");
}

#[test]
fn each_command_knows_that_there_is_no_login() {
    let world = world();
    let token = run(&world, &["token"]);
    assert_eq!(printed(&token), format!("{KEY}\n"));
    let status = run(&world, &["status"]);
    assert!(status.status.success());
    assert!(
        printed(&status).contains("ready: an API key"),
        "{}",
        printed(&status)
    );
    let status = run(&world, &["status", "--json"]);
    let json: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(
        (&json["state"], &json["store"]),
        (&json!("api_key"), &Value::Null)
    );
    assert!(!printed(&status).contains(KEY));
    let check = run(&world, &["check"]);
    assert!(
        printed(&check).ends_with("credential     an API key\n"),
        "{}",
        printed(&check)
    );
    assert!(
        !printed(&check).contains("token endpoint"),
        "{}",
        printed(&check)
    );
    for arguments in [
        &["login", "--no-browser"][..],
        &["refresh", "--yes"],
        &["logout", "--yes"],
        &["import", "-"],
    ] {
        let output = run(&world, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = errors(&output);
        assert!(said.contains("credentials.default is an API key"), "{said}");
        assert!(said.contains("there is no login to"), "{said}");
    }
    nothing_was_refreshed(&world.sandbox.counts());
    assert_eq!(world.sandbox.counts().connections, 0, "without the network");
    assert!(!world.state().exists());
}

#[test]
fn doctor_proves_the_key_by_one_request_and_nothing_else() {
    let world = world();
    let doctor = || {
        let output = run(&world, &["doctor", "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(!(printed(&output) + &errors(&output)).contains(KEY));
        (output.status.code(), json["checks"].clone())
    };
    let (code, checks) = doctor();
    let checks = checks.as_array().expect("a list").clone();
    let names: Vec<_> = checks
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert_eq!(code, Some(0), "{checks:?}");
    assert_eq!(
        names,
        [
            "configuration",
            "upstream_name",
            "upstream_port",
            "upstream_tls",
            "profile",
            "clock"
        ]
    );
    assert_eq!(
        world.sandbox.counts().api_by_generation[&0],
        1,
        "with the key"
    );
    world
        .sandbox
        .change(|behaviour| behaviour.forbidden_under = Some("/users".to_owned()));
    let (code, checks) = doctor();
    assert_eq!(
        (code, &checks[4]["verdict"]),
        (Some(0), &json!("warning")),
        "{checks}"
    );
    world.sandbox.change(|behaviour| behaviour.api_key = None);
    let (code, checks) = doctor();
    assert_eq!(
        (code, &checks[4]["verdict"]),
        (Some(78), &json!("failed")),
        "{checks}"
    );
    assert!(
        checks[4]["seen"]
            .to_string()
            .contains("does not take the API key"),
        "{checks}"
    );
    nothing_was_refreshed(&world.sandbox.counts());
}

#[test]
fn f11_a_program_that_refreshes_by_itself_works_with_an_api_key_too() {
    let world = world();
    let serving = serve(&world);
    let ask = |path: &str, body: Value| {
        let json = "Content-Type: application/json";
        let body = body.to_string();
        serving
            .connect()
            .ask(&format!("POST {path}"), &[json], body.as_bytes())
    };
    let spent = json!({"grant_type": "refresh_token", "refresh_token": "oauth2-spent"});
    let refreshed = ask("/oauth2/token", spent);
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let pair = refreshed.json();
    assert_eq!(
        (&pair["expires_in"], &pair["client_id"]),
        (&json!(3600), &Value::Null)
    );
    let access_token = pair["access_token"].as_str().expect("text");
    assert!(
        access_token.starts_with("lucid-proxy-placeholder-access-"),
        "{pair}"
    );
    let authorization = format!("Authorization: Bearer {access_token}");
    let answer = serving
        .connect()
        .ask(&format!("GET {PROFILE}"), &[&authorization], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let about = ask("/oauth2/token/introspect", json!({"token": access_token})).json();
    assert_eq!(about["active"], json!(true), "{about}");
    let code = json!({"grant_type": "authorization_code", "code": "c"});
    assert_eq!(ask("/oauth2/token", code).status, 400);
    nothing_was_refreshed(&world.sandbox.counts());
}
