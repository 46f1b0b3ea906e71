//! Programs that have `https://api.lucid.co` written into them, none of which knows of a proxy: under `exec`, and in a shell
//! that has what `env` prints, before a `serve`. Tokens die while they run, and no program notices.
//!
//! The programs are in `tests/unmodified`. Each does what its standard input says, line by line: `get` asks for a profile,
//! `post` makes a document, and what came of it is printed as a line. One that sees an error ends with one.

mod driven;
mod programs;

use std::ffi::OsStr;
use std::process::Command;

use serde_json::Value;

use crate::examples::is_clean;
use crate::world::{Serving, World, errors, is_there, missing, printed, python_with};
use driven::Driven;
use programs::{program, source};

/// A test for each row of the table in the README, and the names of the rows.
macro_rules! rows {
    ($(fn $test:ident() runs $name:literal;)*) => {
        pub(crate) const ROWS: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                works($name);
            }
        )*
    };
}

rows! {
    fn f05_unmodified_curl_works() runs "curl";
    fn f05_unmodified_wget_works() runs "wget";
    fn f05_unmodified_httpie_works() runs "HTTPie";
    fn f05_unmodified_git_works() runs "git";
    fn f05_unmodified_python_urllib_works() runs "Python urllib";
    fn f05_unmodified_python_requests_works() runs "Python requests";
    fn f05_unmodified_python_httpx_works() runs "Python httpx";
    fn f05_unmodified_python_httpx_over_http_2_works() runs "Python httpx with HTTP/2";
    fn f05_unmodified_python_aiohttp_works() runs "Python aiohttp";
    fn f05_unmodified_nodes_fetch_works() runs "Node fetch";
    fn f05_unmodified_nodes_https_works() runs "Node https";
    fn f05_unmodified_axios_works() runs "Node axios";
    fn f05_unmodified_javas_http_client_works() runs "Java HttpClient";
    fn f05_unmodified_javas_http_url_connection_works() runs "Java HttpURLConnection";
    fn f05_unmodified_ruby_works() runs "Ruby net/http";
    fn f05_unmodified_perl_works() runs "Perl LWP";
    fn f05_unmodified_php_works() runs "PHP curl";
    fn f05_unmodified_go_works() runs "Go net/http";
    fn f05_unmodified_libcurl_with_openssl_works() runs "C libcurl with OpenSSL";
    fn f05_unmodified_libcurl_with_gnutls_works() runs "C libcurl with GnuTLS";
}

/// Short enough that several die under a program, long enough that a busy machine gets a request through with one.
const LIFETIME: &str = "2s";
const LUCID_PROXY: &str = env!("CARGO_BIN_EXE_lucid-proxy");
/// What the README says for a program that trusts the system's file alone: it gets another one in its place, which nothing
/// else sees.
pub(crate) const WITH_ITS_FILE: &str =
    r#"mount --bind "$SSL_CERT_FILE" /etc/ssl/certs/ca-certificates.crt && exec "$@""#;

/// The program as it stands works under `exec` and with `env`, and another one where nothing but the address is changed
/// works without either.
#[track_caller]
fn works(name: &str) {
    let places = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let Some(unmodified) = program(name, places[0].path(), None) else {
        return;
    };
    let Some(unmodified) = trusting(name, unmodified) else {
        return;
    };
    let changed = |base: &str| program(name, places[1].path(), Some(base)).expect("it is there");
    under_exec(name, &unmodified);
    let mut world = World::logged_in();
    let serving = serve(&mut world);
    under_serve(name, &unmodified, &world, &serving);
    by_its_base_url(name, &changed(&serving.endpoint), &world);
    nothing_is_left_out(name, &world, 6);
    fails_loudly(name, &unmodified, &world, &serving);
    serving.stop();
}

/// Tokens come and go while it asks again and again.
fn under_exec(name: &str, program: &Command) {
    let world = World::new();
    let exec = exec(&["--sandbox", "--token-lifetime", LIFETIME, "--verbose"]);
    let mut program = driven(&world, &exec, program);
    get(name, &mut program);
    post(name, &mut program);
    while !program.errors().contains(" gen 3 ") {
        get(name, &mut program);
    }
    post(name, &mut program);
    ends_well(name, program);
    assert!(!world.state().exists(), "nothing real is touched");
}

/// A token dies before each request but the first, and none sees that.
fn under_serve(name: &str, program: &Command, world: &World, serving: &Serving) {
    let mut program = driven(world, &in_a_shell(serving), program);
    get(name, &mut program);
    for _ in 0..2 {
        world.sandbox.expire_access_tokens();
        get(name, &mut program);
        world.sandbox.expire_access_tokens();
        post(name, &mut program);
    }
    ends_well(name, program);
}

fn by_its_base_url(name: &str, program: &Command, world: &World) {
    let mut program = driven(world, &[], program);
    world.sandbox.expire_access_tokens();
    get(name, &mut program);
    world.sandbox.expire_access_tokens();
    post(name, &mut program);
    ends_well(name, program);
}

/// A program that did not look at what it got would prove little.
fn fails_loudly(name: &str, program: &Command, world: &World, serving: &Serving) {
    world.sandbox.revoke_grants();
    let mut program = driven(world, &in_a_shell(serving), program);
    let line = program.try_step("get");
    // What is printed before the answer is there may stand alone.
    assert!(
        matches!(line.as_deref(), None | Some("get ")),
        "{name}: {line:?}"
    );
    assert!(!program.end().success(), "{name}: {}", program.errors());
}

#[track_caller]
fn nothing_is_left_out(name: &str, world: &World, deaths: u64) {
    let counts = world.sandbox.counts();
    let found = (counts.dead_tokens, counts.rotations);
    assert_eq!(found, (deaths, deaths), "{name}");
    is_clean(&counts);
}

#[track_caller]
fn ends_well(name: &str, mut program: Driven) {
    let status = program.end();
    assert!(status.success(), "{name}: {status}: {}", program.errors());
}

#[track_caller]
fn get(name: &str, program: &mut Driven) {
    let profile = answer(name, "get", program);
    // git has no eyes for what it is.
    if name != "git" {
        assert_eq!(profile["fullName"], "Ada Demo", "{name}: {profile}");
    }
}

#[track_caller]
fn post(name: &str, program: &mut Driven) {
    let document = answer(name, "post", program);
    if name != "git" {
        assert_eq!(document["title"], "a note", "{name}: {document}");
    }
}

#[track_caller]
fn answer(name: &str, step: &str, program: &mut Driven) -> Value {
    let line = program.step(step);
    match line.strip_prefix(step).map(serde_json::from_str) {
        Some(Ok(content)) => content,
        _ => panic!("{name}: {line:?}: {}", program.errors()),
    }
}

/// `serve` with interception on.
fn serve(world: &mut World) -> Serving {
    world.tables = "[intercept]\nenabled = true\n".to_owned();
    world.serve()
}

/// What stands before a program in a shell that is led to a `serve`.
fn in_a_shell(serving: &Serving) -> [String; 5] {
    let script =
        r#"variables=$("$0" env --listen "$1") && shift && eval "$variables" && exec "$@""#;
    let address = serving.address.to_string();
    ["sh", "-c", script, LUCID_PROXY, &address].map(str::to_owned)
}

/// What stands before a program that `exec` runs.
fn exec(options: &[&str]) -> Vec<String> {
    let words = [&[LUCID_PROXY, "exec"], options, &["--"]].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// The program behind these words, in the world's environment.
fn in_world(world: &World, before: &[String], program: &Command) -> Command {
    let mut words = before.iter().map(OsStr::new).collect::<Vec<_>>();
    words.push(program.get_program());
    words.extend(program.get_args());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(world.directory.path())
        .env_clear();
    let like = world.command(&[]);
    for (name, value) in like.get_envs().chain(program.get_envs()) {
        command.env(name, value.expect("all of them are set"));
    }
    command.env("HOME", world.directory.path());
    command
}

fn driven(world: &World, before: &[String], program: &Command) -> Driven {
    Driven::start(&mut in_world(world, before, program))
}

/// The program, where needed with what the README says for it; `None` where that cannot be.
fn trusting(name: &str, program: Command) -> Option<Command> {
    if !name.starts_with("C libcurl") {
        return Some(program);
    }
    let options: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--mount"],
        false => &["--map-root-user", "--mount"],
    };
    if !is_there("unshare", &[options, &["true"]].concat()) {
        missing("a system where unshare may make a mount namespace");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(options)
        .args(["sh", "-c", WITH_ITS_FILE, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    Some(command)
}

/// Prints what it is given twice, and then what Lucid gives for it.
const SHOWS_AND_USES: &str = r#"set -e; "$0" "$1"; token=$("$0" "$1"); echo "$token"
curl -sS --fail -H "Authorization: Bearer $token" https://api.lucid.co/users/me/profile"#;

#[test]
fn libcurl_alone_trusts_the_systems_file_alone() {
    for name in ["C libcurl with OpenSSL", "C libcurl with GnuTLS"] {
        let place = tempfile::tempdir().expect("a directory");
        let Some(program) = program(name, place.path(), None) else {
            continue;
        };
        let world = World::new();
        // What it was about is heard before the run ends.
        let mut before = exec(&["--sandbox"]);
        before.extend(["sh", "-c", "\"$0\"; code=$?; echo; cat; exit $code"].map(str::to_owned));
        let mut program = driven(&world, &before, &program);
        assert_eq!(program.step("get"), "get ", "{name}");
        if name.ends_with("OpenSSL") {
            // GnuTLS looks at it behind the handshake, and then leaves as one that needs nothing more.
            program.wait_for_errors("the certificate that it was shown for api.lucid.co");
        }
        assert_eq!(program.end().code(), Some(1), "{name}");
        // Its own words.
        let errors = program.errors();
        assert!(
            errors.contains("ertificate verif") || errors.contains("SSL cert"),
            "{name}: {errors}"
        );
    }
}

#[test]
fn a_program_that_pins_another_authority_fails_and_the_log_says_why() {
    if !is_there("curl", &["--version"]) {
        return missing("curl");
    }
    let mut world = World::logged_in();
    crate::world::tls::Identity::new().write(world.directory.path());
    let serving = serve(&mut world);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "https://api.lucid.co/users/me/profile"]);
    let mut pinning = Command::new("curl");
    pinning.args(["--cacert", "tls.crt"]).args(curl.get_args());
    // Twice: who asks again and again does not fill the log.
    for _ in 0..2 {
        let output = in_world(&world, &in_a_shell(&serving), &pinning).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(60), "{}", errors(&output));
    }
    let output = in_world(&world, &in_a_shell(&serving), &curl)
        .output()
        .expect("it runs");
    assert!(printed(&output).contains("Ada Demo"), "{}", errors(&output));
    let why = "WARN a client does not trust (unknown_ca) the certificate that it was shown for api.lucid.co";
    serving.wait_for_log(why);
    let log = serving.stop();
    assert_eq!(log.matches(why).count(), 1, "{log}");
}

/// Lucid's own example has its client's id and secret written into it, and refreshes by itself.
#[test]
fn f11_unmodified_a_script_that_refreshes_by_itself_gets_placeholders_that_work() {
    let Some(python) = python_with(&["requests"]) else {
        return;
    };
    let world = World::logged_in();
    world.configure();
    let before = world.stored();
    let script = source("access_token.py", world.directory.path(), None);
    let mut shell = Command::new("sh");
    shell.args(["-c", SHOWS_AND_USES]).arg(python).arg(script);
    let output = in_world(&world, &exec(&[]), &shell).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", errors(&output));
    let text = printed(&output);
    let lines: Vec<_> = text.lines().collect();
    let [first, second, profile] = lines[..] else {
        panic!("three lines are expected: {text}");
    };
    assert!(first.starts_with("lucid-proxy-placeholder-"), "{text}");
    assert_eq!(first, second, "what it has kept is good for a while");
    assert!(profile.contains(r#""fullName":"Ada Demo""#), "{text}");

    let kept = std::fs::read_to_string(world.directory.path().join("token_info.json"));
    let kept = kept.expect("its own token file");
    assert!(!kept.contains("oauth2-"), "{kept}");
    let after = world.stored();
    for name in ["access_token", "refresh_token", "generation"] {
        assert_eq!(after[name], before[name], "the real pair is untouched");
    }
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

/// The program believes to speak to Lucid, so what leads to the next page leads there.
#[test]
fn f09_unmodified_pages_are_followed_by_the_name_of_lucid() {
    let Some(python) = python_with(&["requests"]) else {
        return;
    };
    let mut world = World::logged_in();
    world.sandbox.change(|behaviour| {
        behaviour.public_origin = Some("https://api.lucid.co".to_owned());
    });
    let serving = serve(&mut world);
    let mut pages = Command::new(python);
    pages.arg(source("pages.py", world.directory.path(), None));
    for before in [&in_a_shell(&serving)[..], &exec(&["--sandbox"])] {
        let output = in_world(&world, before, &pages).output().expect("it runs");
        let expected = "Ada Ben Cleo\nDora Emil Finn\nGwen\n";
        assert_eq!(printed(&output), expected, "{}", errors(&output));
        assert!(output.status.success(), "{}", errors(&output));
    }
    serving.stop();
}
