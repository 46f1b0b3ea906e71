//! Where secrets come from, and where they do not go (rule S6).

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use http::StatusCode;
use lucid_proxy::config::{LogFormat, ProcessEnvironment};
use lucid_proxy::sandbox::{ApiFailure, CLIENT_SECRET, TokenFailure};
use lucid_proxy::telemetry;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::level_filters::LevelFilter;

use crate::echo::REPEATED;
use crate::https;
use crate::world::frames::{END_STREAM, Frames, HEADERS, RST_STREAM};
use crate::world::http2::Http2Front;
use crate::world::login::{parameter, visit};
use crate::world::tls::TlsFront;
use crate::world::{Client, NOBODY, SOON, Serving, World, errors, printed};

const KEY: &str = "key-marked-0123456789abcdef";
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
    for (directory, said) in [
        ("$HOME", "and no other variable; name the file in full"),
        ("${CREDENTIALS_DIRECTORY}", "without braces"),
        ("~", "~ is not replaced"),
    ] {
        let other = token(directory, Some(&secrets));
        assert_eq!(other.status.code(), Some(78));
        let errors = errors(&other);
        assert_eq!(errors.matches(said).count(), 2, "{directory}: {errors}");
    }
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

/// Everything that is secret in a life of a proxy, and where the life is written down.
#[derive(Default)]
struct Life {
    log: String,
    secrets: Vec<String>,
}

impl Life {
    /// Runs a command to its end, at the highest level.
    fn run(&mut self, command: &mut Command) -> i32 {
        let output = command.env("RUST_LOG", "trace").output().expect("it runs");
        self.log.push_str(&printed(&output));
        self.log.push_str(&errors(&output));
        output.status.code().expect("no signal")
    }

    /// Remembers the pair in the store.
    fn remember(&mut self, world: &World) {
        let stored = world.stored();
        let token = |name: &str| stored[name].as_str().expect("text").to_owned();
        self.secrets
            .extend([token("access_token"), token("refresh_token")]);
    }

    fn login(&mut self, world: &World, trust: &Path) {
        let login = world.login_with(&[], |command| {
            command.env("RUST_LOG", "trace").env("SSL_CERT_FILE", trust);
        });
        let place = login.press("approve");
        visit(&place);
        self.secrets
            .push(parameter(&place, "code").expect("a code"));
        let output = login.end();
        assert!(output.status.success(), "{}", errors(&output));
        self.log.push_str(&printed(&output));
        self.log.push_str(&errors(&output));
        self.remember(world);
    }

    /// What programs do that use the proxy, refresh by themselves, and see their token die.
    fn requests(&mut self, world: &World, serving: &Serving) {
        let mut client = serving.connect();
        let old = "Authorization: Bearer client-marked";
        let json = "Content-Type: application/json";
        let ask = |client: &mut Client, line: &str, content: &str| {
            client.ask(
                line,
                &[old, "Proxy-Authorization: Basic basic-marked", json],
                content.as_bytes(),
            )
        };
        assert_eq!(
            ask(&mut client, "GET /users/me/profile?token=query-marked", "").status,
            200
        );
        world.sandbox.expire_access_tokens();
        let echo = ask(
            &mut client,
            "POST /sandbox/echo?query-marked",
            "{\"a\":\"body-marked\"}",
        );
        self.remember(world);
        let access_token = &self.secrets[self.secrets.len() - 2];
        assert!(
            echo.text().contains(access_token),
            "upstream saw it: {}",
            echo.text()
        );
        let refresh = "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"script-marked\",\"client_secret\":\"sec-marked\"}";
        assert_eq!(ask(&mut client, "POST /oauth2/token", refresh).status, 200);
        assert_eq!(
            ask(
                &mut client,
                "POST /oauth2/token",
                "{\"refresh_token\":7,\"script-marked"
            )
            .status,
            400
        );
        world.sandbox.change(|behaviour| {
            behaviour
                .api_failures
                .extend([ApiFailure::CutAtHead, ApiFailure::HalfBody]);
            behaviour
                .token_failures
                .push_back(TokenFailure::Html(StatusCode::BAD_GATEWAY));
        });
        ask(&mut client, "POST /sandbox/echo", "{\"a\":\"body-marked\"}");
        // A client that does not wait for its answer.
        serving.connect().request("GET /users", &[old], b"");
        world.sandbox.expire_access_tokens();
        let begun = world.sandbox.counts().rotations;
        serving.get("/users");
        world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations > begun);
        serving.wait_until(|_| world.stored()["generation"].as_u64() > Some(2));
        self.remember(world);
        let _ = serving
            .connect()
            .ask("GET /users", &["Origin: http://evil.example", old], b"");
        world.sandbox.revoke_grants();
        serving.get("/users");
        serving.wait_for_log("login needed");
    }

    fn assert_clean(&self) {
        let marks = [
            "client-marked",
            "basic-marked",
            "query-marked",
            "body-marked",
            "script-marked",
            "sec-marked",
        ];
        let secrets = self.secrets.iter().map(String::as_str);
        for secret in secrets
            .chain(marks)
            .chain([CLIENT_SECRET, KEY, "oauth2-AT", "oauth2-RT"])
        {
            let found = self.log.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret}: {found:?}");
        }
    }
}

#[test]
fn s06_what_the_library_of_http_2_cannot_read_is_not_quoted_at_any_level() {
    let (mut world, identity) = https::world();
    world.top = format!("listen = {}\n", https::LISTEN);
    world.configure();
    for filter in ["trace", "h2=trace"] {
        let mut command = world.command(&["serve"]);
        command.env("RUST_LOG", filter);
        let serving = Serving::start(command);
        let mut frames = Frames::connect(serving.address, &identity);
        frames.request(1, "GET", "/users?key=a marked-query");
        assert_eq!(frames.wait_for(RST_STREAM).stream, 1);
        let marked = [("te", "marked-field"), ("x-key", "marked-value")];
        let head = frames.head(3, "GET", "/users", &marked, END_STREAM);
        frames.bytes(&head);
        assert_eq!(frames.wait_for(RST_STREAM).stream, 3);
        // Positive control: the connection goes on.
        frames.request(5, "GET", "/users?marked=query");
        assert_eq!(frames.wait_for(HEADERS).stream, 5);
        let log = serving.stop();
        assert!(!log.contains("marked"), "{log}");
    }
}

#[test]
fn s06_a_whole_life_at_trace_level_shows_no_secret() {
    let mut world = World::new().for_login();
    let front = Http2Front::start(world.sandbox.address(), 100);
    let trust = world.directory.path().join("trusted.pem");
    front.tls.write_bundle(&trust);
    world.upstream = front.tls.origin();
    let mut life = Life::default();
    let traced = |world: &World, arguments: &[&str]| {
        world.configure();
        let mut command = world.command(arguments);
        command
            .env("RUST_LOG", "trace")
            .env("SSL_CERT_FILE", &trust);
        command
    };
    life.login(&world, &trust);
    let serving = Serving::start(traced(
        &world,
        &["serve", "--listen", "127.0.0.1:0", "--verbose"],
    ));
    life.requests(&world, &serving);
    life.log.push_str(&serving.stop());
    for (arguments, code) in [
        (&["status", "--json"][..], 77),
        (&["doctor"], 77),
        (&["check"], 0),
        (&["token"], 77),
        (&["logout", "--yes"], 0),
    ] {
        assert_eq!(
            life.run(&mut traced(&world, arguments)),
            code,
            "{arguments:?}"
        );
    }
    let with_key = "[credentials.default]\nkind = \"api_key\"\n[log]\nformat = \"json\"\n";
    let text = format!("[upstream]\nurl = \"{}\"\n{with_key}", world.upstream);
    world
        .sandbox
        .change(|behaviour| behaviour.api_key = Some(KEY.to_owned()));
    let mut command = traced(&world, &["serve", "--listen", "127.0.0.1:0", "--verbose"]);
    fs::write(world.directory.path().join("proxy.toml"), text).expect("written");
    command.env("LUCID_API_KEY", KEY);
    let serving = Serving::start(command);
    let echo = serving.get("/sandbox/echo");
    assert!(
        echo.text().contains(KEY),
        "upstream saw it: {}",
        echo.text()
    );
    world.sandbox.change(|behaviour| behaviour.api_key = None);
    assert_eq!(serving.get("/sandbox/echo").status, 401);
    life.log.push_str(&serving.stop());
    let counts = world.sandbox.counts();
    assert_eq!(counts.code_exchanges, 1);
    assert!(
        counts.rotations >= 2 && counts.revocations >= 1,
        "{counts:?}"
    );
    let posted = |token: &&String| counts.posts_by_refresh_token.contains_key(*token);
    let posted = life.secrets.iter().filter(posted).count();
    assert!(
        posted >= 2,
        "the token endpoint saw what is looked for: {counts:?}"
    );
    for part in [
        "the connection of a client has ended",
        "DEBUG",
        "token rotated",
        "401",
        REPEATED,
        "login needed",
    ] {
        assert!(life.log.contains(part), "the log is there: {part}");
    }
    life.assert_clean();
}

const PANICS: &str = "LUCID_PROXY_TEST_PANICS";

/// What the program has in its hands when it panics, as the environment of this test's child says it: the format of its
/// log. Only the child does something here.
#[test]
fn a_child_of_the_test_below_panics() {
    let format = match std::env::var(PANICS).as_deref() {
        Ok("text") => LogFormat::Text,
        Ok("json") => LogFormat::Json,
        Ok("none") => {
            telemetry::tell_panics();
            return black_box(Err::<(), _>("error-marked")).expect("a file that is read");
        }
        _ => return,
    };
    telemetry::tell_panics();
    telemetry::start(format, LevelFilter::INFO, &ProcessEnvironment);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let tasks = tokio::task::LocalSet::new();
        // As connections are served: whoever waits for them does not look how they ended.
        tasks.spawn_local(async {
            let answer = Err::<(), _>("error-marked".to_owned());
            black_box(answer).expect("an answer");
        });
        tasks.spawn_local(async {
            let text = "text-märked";
            let end = text.find("rked").expect("it is there") - 1;
            drop(text[..end].to_owned());
        });
        tasks.spawn_local(async { panic!("said in the code") });
        tasks.await;
    });
    tracing::info!("the others go on");
}

fn child_that_panics(format: &str, filter: &str) -> std::process::Output {
    let mut child = Command::new(std::env::current_exe().expect("the path of this test"));
    let child = child
        .args(["--exact", "hygiene::a_child_of_the_test_below_panics"])
        .args(["--nocapture", "--test-threads", "1"])
        .env(PANICS, format)
        .env("RUST_LOG", filter)
        .env("RUST_BACKTRACE", "1");
    child.output().expect("it runs")
}

#[test]
fn s06_a_panic_is_told_where_nothing_is_logged() {
    for (format, filter, number) in [
        ("text", "off", 3),
        ("json", "off", 3),
        ("text", "lucid_proxy::proxy=info", 3),
        // Before there is a log at all.
        ("none", "info", 1),
    ] {
        let output = child_that_panics(format, filter);
        let log = errors(&output);
        assert!(!log.contains("the others go on"), "the control: {log}");
        let is_bug = |line: &&str| line.starts_with("lucid-proxy: this is a bug");
        let bugs: Vec<_> = log.lines().filter(is_bug).collect();
        assert_eq!(bugs.len(), number, "{format} {filter}: {log}");
        for bug in bugs {
            assert!(bug.contains(" place=\"tests/it/hygiene.rs:"), "{bug}");
            assert!(bug.contains(" trace=\""), "{bug}");
        }
        let everything = printed(&output) + &log;
        for held in ["error-marked", "text-m", "rked"] {
            assert!(!everything.contains(held), "{held}: {everything}");
        }
    }
}

#[test]
fn s06_a_panic_is_told_by_its_place_and_without_what_it_holds() {
    for format in ["text", "json"] {
        let output = child_that_panics(format, "trace");
        let log = errors(&output);
        assert!(log.contains("the others go on"), "{log}");
        let bugs = log.lines().filter(|line| line.contains("this is a bug"));
        let bugs: Vec<_> = bugs.collect();
        assert_eq!(bugs.len(), 3, "{log}");
        for bug in &bugs {
            assert!(bug.contains("tests/it/hygiene.rs:"), "{bug}");
            assert!(bug.contains("ERROR"), "{bug}");
        }
        assert!(bugs[2].contains("said in the code"), "{log}");
        assert!(log.contains("poll"), "a trace was asked for: {log}");
        if format == "json" {
            for line in log.lines() {
                let parsed = serde_json::from_str::<serde_json::Value>(line);
                assert!(parsed.is_ok(), "{line}");
            }
        }
        let everything = printed(&output) + &log;
        for held in ["error-marked", "text-m", "rked"] {
            assert!(!everything.contains(held), "{held}: {everything}");
        }
    }
}
