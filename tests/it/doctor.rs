//! `doctor`: a healthy world is called healthy, and each link that is broken is named with what to do.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::StatusCode;
use lucid_proxy::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::world::raw_upstream::RawUpstream;
use crate::world::tls::TlsFront;
use crate::world::{Mount, World, errors, is_root, printed};

const REFERENCE: &str = include_str!("../../docs/doctor.md");

/// What doctor found.
struct Found(Value, Option<i32>);

impl Found {
    fn of(output: &Output) -> Self {
        let json = serde_json::from_slice(&output.stdout);
        let json: Value = json.unwrap_or_else(|_| panic!("JSON: {}", errors(output)));
        assert_eq!(json["exit_code"], output.status.code().expect("an end"));
        Self(json, output.status.code())
    }

    fn checks(&self) -> &[Value] {
        self.0["checks"].as_array().expect("a list")
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        let found = self.checks().iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {}", self.0))
    }

    fn named(&self, verdict: &str) -> Vec<&str> {
        let named = self
            .checks()
            .iter()
            .filter(|check| check["verdict"] == verdict);
        named.filter_map(|check| check["name"].as_str()).collect()
    }

    /// The check has this verdict, and says all of these words.
    #[track_caller]
    fn says(&self, name: &str, verdict: &str, words: &[&str]) -> &Self {
        let check = self.check(name);
        assert_eq!(check["verdict"], verdict, "{check}");
        let said = format!("{} {}", check["seen"], check["advice"]);
        for word in words {
            assert!(said.contains(word), "{word}: {check}");
        }
        self
    }

    /// These and no others failed, with this exit code.
    #[track_caller]
    fn fails(&self, names: &[&str], code: i32) -> &Self {
        assert_eq!(self.named("failed"), names, "{}", self.0);
        assert_eq!(self.1, Some(code));
        self
    }
}

fn doctor(world: &World) -> Found {
    doctor_with(world, |_| {})
}

fn doctor_with(world: &World, prepare: impl FnOnce(&mut Command)) -> Found {
    world.configure();
    let mut command = world.command(&["doctor", "--json"]);
    prepare(&mut command);
    Found::of(&command.output().expect("it runs"))
}

/// Upstream and token endpoint each behind TLS of its own, and the bundle that has both certificates.
fn over_tls() -> (World, [TlsFront; 2], String) {
    let mut world = World::logged_in();
    let fronts = [(); 2].map(|()| TlsFront::start(world.sandbox.address()));
    world.upstream = fronts[0].origin();
    world.token_origin = fronts[1].origin();
    let bundle = world.directory.path().join("trusted.pem");
    let certificates = fronts.each_ref().map(|front| front.certificate.as_str());
    fs::write(&bundle, certificates.concat()).expect("written");
    let origin = fronts[0].origin();
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = Some(origin));
    (world, fronts, bundle.display().to_string())
}

fn names_in(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.state()).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_healthy_world_is_proved_link_by_link_and_nothing_is_changed() {
    let (world, _fronts, bundle) = over_tls();
    let before = fs::read(world.store()).expect("a store");
    let found = doctor_with(&world, |command| {
        command.env("SSL_CERT_FILE", &bundle);
    });
    found.fails(&[], 0);
    assert_eq!(found.named("ok").len(), found.checks().len(), "{}", found.0);
    for name in ["upstream_tls", "token_tls"] {
        let expected = [
            "TLS 1.3",
            "localhost",
            "issued by CN=rcgen self signed cert",
            "4096",
            "SSL_CERT_FILE=",
        ];
        found.says(name, "ok", &expected);
    }
    found.says("profile", "ok", &["200 OK", "user 4711"]);
    found.says(
        "store_lock",
        "ok",
        &["free now", "no process uses the login"],
    );
    let documented: BTreeSet<_> = REFERENCE
        .lines()
        .skip_while(|line| !line.starts_with("| check |"))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    let names = found
        .checks()
        .iter()
        .filter_map(|check| check["name"].as_str());
    assert_eq!(names.collect::<BTreeSet<_>>(), documented);
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.token_posts, counts.rotations, counts.revocations),
        (0, 0, 0)
    );
    assert_eq!((counts.introspections, counts.api_requests), (2, 1));
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    assert_eq!(
        names_in(&world),
        ["token_info.json"],
        "no scratch file is left"
    );
}

#[test]
fn what_is_sent_is_what_lucid_asks_for() {
    let world = World::logged_in();
    let found = doctor(&world);
    found.fails(&[], 0);
    // One host for both: its checks are made once.
    let names = found
        .checks()
        .iter()
        .filter_map(|check| check["name"].as_str());
    assert_eq!(names.filter(|name| name.ends_with("_port")).count(), 1);
    let counts = world.sandbox.counts();
    assert_eq!((counts.introspections, counts.api_requests), (2, 1));
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn words_are_aligned_one_check_a_line_with_what_to_do_below() {
    let world = World::new();
    let output = world.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(77));
    let shown = printed(&output);
    for expected in [
        "ok       configuration       ",
        "\nok       store directory     ",
        "\nFAILED   login               no login yet (",
        "\n         → run: lucid-proxy login\n",
        "\nskipped  upstream TLS        http://127.0.0.1:",
        "\nskipped  refresh token       there is no login\n",
        "\nok       clock               within 30 s of the server's\n",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(errors(&output), "lucid-proxy: not as it should be: login\n");
}

#[test]
fn where_nobody_is_logged_in_all_but_the_login_is_proved_and_nothing_is_made() {
    let world = World::new();
    let found = doctor(&world);
    found.fails(&["login"], 77);
    found.says(
        "store_directory",
        "ok",
        &["does not exist yet and can be made in"],
    );
    found.says("token_endpoint", "ok", &["knows the client id and secret"]);
    found.says("profile", "skipped", &["there is no login"]);
    assert!(!world.state().exists());
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
    world.write_store(br#"{"logged_out_at":"2031-01-02T03:04:05Z"}"#);
    doctor(&world).fails(&["login"], 77).says(
        "login",
        "failed",
        &["logged out", "lucid-proxy login"],
    );
}

#[test]
fn a_configured_refresh_token_is_proved_and_not_spent() {
    let world = World::new();
    let seed = world.sandbox.approve().refresh_token;
    let found = doctor_with(&world, |command| {
        command.env("LUCID_REFRESH_TOKEN", &seed);
    });
    found
        .fails(&[], 0)
        .says("login", "ok", &["at the next start"]);
    found.says("refresh_token", "ok", &["alive"]);
    assert_eq!(world.sandbox.counts().token_posts, 0);
    world.sandbox.revoke_grants();
    let found = doctor_with(&world, |command| {
        command.env("LUCID_REFRESH_TOKEN", &seed);
    });
    found.fails(&["refresh_token"], 77);
}

#[test]
fn a_dead_grant_is_told_from_a_dead_access_token() {
    let world = World::logged_in();
    world.sandbox.expire_access_tokens();
    let found = doctor(&world);
    found.fails(&["access_token"], 1);
    found.says(
        "access_token",
        "failed",
        &["although it should live", "lucid-proxy refresh"],
    );
    found.says("profile", "skipped", &["the access token is dead"]);
    world.sandbox.revoke_grants();
    let found = doctor(&world);
    found.fails(&["refresh_token", "access_token"], 77);
    found.says("refresh_token", "failed", &["revoked", "lucid-proxy login"]);
    found.says("access_token", "failed", &["went with the refresh token"]);
    assert_eq!(
        world.run(&["token"]).status.code(),
        Some(0),
        "the store does not know"
    );
    assert_eq!(world.run(&["refresh"]).status.code(), Some(77));
    let found = doctor(&world);
    found.says("login", "failed", &["invalid_grant", "lucid-proxy login"]);
    assert_eq!(found.1, Some(77));
}

#[test]
fn an_access_token_that_has_expired_is_usual_and_not_tried() {
    let world = World::logged_in();
    let mut stored = world.stored();
    stored["expiration"] = "2020-01-01T00:00:00".into();
    world.write_store(stored.to_string().as_bytes());
    let found = doctor(&world);
    found.fails(&[], 0);
    for name in ["access_token", "profile"] {
        found.says(
            name,
            "skipped",
            &["expired 2020-01-01", "lucid-proxy refresh"],
        );
    }
    found
        .says("refresh_token", "ok", &["alive"])
        .says("clock", "ok", &[]);
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

#[test]
fn a_wrong_client_secret_is_told_from_a_dead_token() {
    for status in [400, 401, 403] {
        let bad_client_status = StatusCode::from_u16(status).expect("a status");
        let world = World::behaving(Behaviour {
            bad_client_status,
            ..Behaviour::default()
        });
        world.log_in();
        let found = doctor_with(&world, |command| {
            command.env("LUCID_CLIENT_SECRET", "wrong");
        });
        found.fails(&["token_endpoint"], 78);
        found.says(
            "token_endpoint",
            "failed",
            &[
                "does not know the client id or secret",
                "LUCID_CLIENT_SECRET",
            ],
        );
        found.says("refresh_token", "skipped", &["token endpoint failed"]);
        found.says("profile", "ok", &["user 4711"]);
    }
}

#[test]
fn introspection_that_does_not_work_is_no_verdict_on_the_tokens() {
    let world = World::logged_in();
    world
        .sandbox
        .change(|behaviour| behaviour.introspection_status = StatusCode::SERVICE_UNAVAILABLE);
    let found = doctor(&world);
    found.fails(&["token_endpoint"], 1);
    found.says("token_endpoint", "failed", &["503", "try again"]);
    found.says("profile", "ok", &["user 4711"]);
    let mut world = World::logged_in();
    let page = RawUpstream::start();
    world.token_origin = page.origin();
    page.answering(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    );
    let found = doctor(&world);
    found.fails(&["token_endpoint"], 1);
    found.says(
        "token_endpoint",
        "failed",
        &["introspection answered 200 OK", "correct token_url"],
    );
}

#[test]
fn a_rotation_by_a_proxy_meanwhile_is_no_dead_token() {
    let mut world = World::logged_in();
    let endpoint = RawUpstream::start();
    world.token_origin = endpoint.origin();
    world.configure();
    let mut stored = world.stored();
    let output = std::thread::scope(|threads| {
        let command = threads.spawn(|| {
            world
                .command(&["doctor", "--json"])
                .output()
                .expect("it runs")
        });
        drop(endpoint.accept());
        let answer = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let mut first = endpoint.accept();
        first.request();
        stored["generation"] = 2.into();
        stored["refresh_token"] = "oauth2-newer".into();
        world.write_store(stored.to_string().as_bytes());
        first.send(answer(r#"{"active":false}"#).as_bytes());
        let mut second = endpoint.accept();
        assert!(String::from_utf8_lossy(&second.request()).contains("oauth2-newer"));
        second.send(answer(r#"{"active":true}"#).as_bytes());
        let mut third = endpoint.accept();
        third.request();
        third.send(answer(r#"{"active":true}"#).as_bytes());
        command.join().expect("it ends")
    });
    Found::of(&output)
        .fails(&[], 0)
        .says("refresh_token", "ok", &["alive"]);
}

#[test]
fn a_rotation_under_way_and_one_without_an_end_are_told_apart() {
    let world = World::logged_in();
    let mut stored = world.stored();
    stored["intent"] = json!({"generation": 1, "at": "2031-01-02T03:00:00Z"});
    world.write_store(stored.to_string().as_bytes());
    doctor(&world).fails(&[], 0).says(
        "login",
        "warning",
        &["has no known end", "finds out by itself"],
    );
    world.sandbox.revoke_grants();
    doctor(&world).says(
        "refresh_token",
        "failed",
        &["the new pair was lost", "lucid-proxy login"],
    );
    let lock = fs::File::create(world.state().join("token_info.json.lock")).expect("made");
    lock.lock().expect("locked");
    fs::write(world.state().join("token_info.json.lock"), "4242\n").expect("written");
    let found = doctor(&world);
    found.says("refresh_token", "warning", &["under way now"]);
    found.says("store_lock", "ok", &["held by process 4242 now"]);
}

#[test]
fn what_the_profile_is_answered_with_decides() {
    let answered = |change: &dyn Fn(&mut Behaviour)| {
        let world = World::logged_in();
        world.sandbox.change(|behaviour| change(behaviour));
        doctor(&world)
    };
    let under = || Some("/users".to_owned());
    answered(&|behaviour| behaviour.unauthorized_under = under())
        .fails(&["profile"], 1)
        .says(
            "profile",
            "failed",
            &["401 Unauthorized", "lucid-proxy refresh"],
        );
    answered(&|behaviour| behaviour.forbidden_under = under())
        .fails(&[], 0)
        .says("profile", "warning", &["403 Forbidden", "user.profile"]);
    let world = World::logged_in();
    let mut of_an_account = world.stored();
    let fields = of_an_account.as_object_mut().expect("an object");
    fields.remove("user_id");
    fields.insert("account_id".to_owned(), 52.into());
    world.write_store(of_an_account.to_string().as_bytes());
    world
        .sandbox
        .change(|behaviour| behaviour.forbidden_under = under());
    doctor(&world).fails(&[], 0).says(
        "profile",
        "ok",
        &["403 Forbidden", "an account has no profile"],
    );
    answered(&|behaviour| behaviour.throttled_under = under())
        .fails(&[], 0)
        .says("profile", "warning", &["429", "rate limit"]);
    for (answer, word) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"[..],
            "but no profile",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
            "302 Found",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "upstream.url"),
    ] {
        let mut world = World::logged_in();
        let upstream = RawUpstream::start();
        world.upstream = upstream.origin();
        upstream.answering(answer);
        let found = doctor(&world);
        found
            .fails(&["profile"], 1)
            .says("profile", "failed", &[word]);
        found.says("clock", "skipped", &[]);
    }
}

#[test]
fn a_clock_that_is_off_is_measured_against_the_server() {
    const MINUTE: u64 = 60;
    for (minutes, ahead, verdict, words) in [
        (2, true, "warning", ["2m", "ahead of the server"]),
        (2, false, "warning", ["1m 5", "behind the server"]),
        (10, true, "failed", ["10m", "ahead of the server"]),
        (10, false, "failed", ["9m 5", "behind the server"]),
    ] {
        let mut world = World::logged_in();
        let upstream = RawUpstream::start();
        world.upstream = upstream.origin();
        let skew = Duration::from_secs(minutes * MINUTE);
        let now = SystemTime::now();
        let theirs = if ahead { now - skew } else { now + skew };
        let date = DateTime::<Utc>::from(theirs).format("%a, %d %b %Y %H:%M:%S GMT");
        let answer =
            format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 11\r\n\r\n{{\"id\":4711}}");
        upstream.answering(answer.leak().as_bytes());
        let found = doctor(&world);
        found
            .says("clock", verdict, &words)
            .says("clock", verdict, &["timedatectl"]);
        assert_eq!(found.1, Some(i32::from(verdict == "failed")));
    }
}

#[test]
fn each_step_of_the_way_to_a_server_is_named_where_it_ends() {
    let mut world = World::logged_in();
    world.upstream = "https://nobody.invalid".to_owned();
    let found = doctor_with(&world, |command| {
        command.envs([("HTTPS_PROXY", "http://127.0.0.1:3128"), ("NO_PROXY", "*")]);
    });
    found.fails(&["upstream_name"], 1);
    let words = [
        "nobody.invalid",
        "upstream.url",
        "reached directly, since NO_PROXY names it",
    ];
    found.says("upstream_name", "failed", &words);
    for name in ["upstream_port", "upstream_tls", "profile", "clock"] {
        found.says(name, "skipped", &["upstream name failed"]);
    }
    found.says("token_endpoint", "ok", &[]);

    let closed = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr();
    world.upstream = format!("http://{}", closed.expect("an address"));
    let found = doctor(&world);
    found
        .fails(&["upstream_port"], 1)
        .says("upstream_port", "failed", &["Connection refused"]);
    found.says("profile", "skipped", &["upstream port failed"]);

    world.upstream = format!("https://{}", world.sandbox.address());
    let found = doctor(&world);
    found
        .fails(&["upstream_tls"], 1)
        .says("upstream_tls", "failed", &["speaks no TLS"]);

    std::mem::swap(&mut world.upstream, &mut world.token_origin);
    let found = doctor(&world);
    found
        .fails(&["token_tls"], 1)
        .says("token_endpoint", "skipped", &["token TLS failed"]);
    found.says("profile", "ok", &["user 4711"]);
}

#[test]
fn a_certificate_that_is_not_trusted_is_shown_and_gets_nothing() {
    let (world, _fronts, _) = over_tls();
    let other = world.directory.path().join("other.pem");
    TlsFront::start(world.sandbox.address()).write_bundle(&other);
    let found = doctor_with(&world, |command| {
        command.env("SSL_CERT_FILE", &other);
    });
    found.fails(&["upstream_tls", "token_tls"], 1);
    let expected = [
        "not trusted",
        "issued by CN=rcgen self signed cert",
        "SSL_CERT_FILE",
        "nothing was sent",
    ];
    found.says("upstream_tls", "failed", &expected);
    assert_eq!(world.sandbox.counts().connections, 0);
    let found = doctor_with(&world, |command| {
        command
            .env("SSL_CERT_FILE", "/nowhere")
            .env("SSL_CERT_DIR", "/nowhere");
    });
    found.says("upstream_tls", "failed", &["ca-certificates"]);
}

#[test]
fn a_token_file_that_is_not_ours_alone_or_no_record_is_told() {
    let world = World::logged_in();
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o644)).expect("chmod");
    let found = doctor(&world);
    found
        .fails(&["store_file"], 1)
        .says("store_file", "failed", &["mode 0644", "chmod 600"]);
    for name in ["login", "refresh_token", "access_token", "profile"] {
        found.says(name, "skipped", &["store file failed"]);
    }
    found
        .says("token_endpoint", "ok", &[])
        .says("store_write", "ok", &[]);
    let target = world.state().join("elsewhere.json");
    fs::rename(world.store(), &target).expect("moved");
    symlink(&target, world.store()).expect("a link");
    doctor(&world).says("store_file", "failed", &["symbolic link"]);
    fs::remove_file(world.store()).expect("removed");
    world.write_store(b"oauth2-marked");
    let found = doctor(&world);
    found.says("store_file", "failed", &["not a token file", "restore it"]);
    assert!(!found.0.to_string().contains("oauth2-marked"));
}

#[test]
fn a_directory_that_others_can_write_to_or_that_is_none_is_told() {
    let mut world = World::logged_in();
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o777)).expect("chmod");
    doctor(&world)
        .fails(&[], 0)
        .says("store_directory", "warning", &["mode 0777", "chmod go-w"]);
    fs::write(world.directory.path().join("file"), "").expect("written");
    for (store, word) in [
        ("../file/token_info.json", "is no directory"),
        ("../file/below/token_info.json", "cannot be made"),
    ] {
        world.tables = format!("store = \"{store}\"");
        let found = doctor(&world);
        found.says("store_directory", "failed", &[word]);
        for name in ["store_mount", "store_write", "store_lock"] {
            found.says(name, "skipped", &["store directory failed"]);
        }
    }
}

#[test]
fn a_directory_of_another_user_is_told() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    std::os::unix::fs::chown(world.state(), Some(65534), None).expect("chown");
    doctor(&world).fails(&[], 0).says(
        "store_directory",
        "warning",
        &["owner user 65534", "as user 65534"],
    );
}

#[test]
fn t03_what_keeps_the_token_file_from_being_written_is_found_before_it_costs_a_login() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    world.log_in();
    doctor(&world).says("store_mount", "warning", &["tmpfs", "free some space"]);
    fs::write(world.state().join("ballast"), vec![0; 128 << 10]).expect_err("the disk is full");
    let found = doctor(&world);
    found.fails(&["store_write"], 1).says(
        "store_write",
        "failed",
        &["No space left", "free space"],
    );
    found.says("store_lock", "skipped", &["store write failed"]);
    fs::remove_file(world.state().join("ballast")).expect("removed");
    mount.remount("ro");
    let found = doctor(&world);
    found.fails(&["store_mount"], 1).says(
        "store_mount",
        "failed",
        &["tmpfs, read-only", "mount it writable"],
    );
    for name in ["store_write", "store_lock"] {
        found.says(name, "skipped", &["store mount failed"]);
    }
    found.says("profile", "ok", &["user 4711"]);
}

#[test]
fn t08_a_token_file_that_is_mounted_by_itself_is_found_before_it_costs_a_login() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    let elsewhere = world.directory.path().join("elsewhere.json");
    fs::copy(world.store(), &elsewhere).expect("copied");
    let _mount = Mount::bind(&elsewhere, &world.store());
    let found = doctor(&world);
    found.fails(&["store_mount"], 1);
    found.says(
        "store_mount",
        "failed",
        &["mounted by itself", "mount its directory"],
    );
    let refused = world.run(&["refresh"]);
    assert!(
        errors(&refused).contains("is a mount of its own and cannot be replaced"),
        "it is true: {}",
        errors(&refused)
    );
}

#[test]
fn a_configuration_that_is_not_accepted_is_told_and_the_rest_checked_where_possible() {
    let mut world = World::logged_in();
    let found = doctor_with(&world, |command| {
        command.env_remove("LUCID_CLIENT_SECRET");
    });
    found
        .fails(&["configuration"], 78)
        .says("configuration", "failed", &["LUCID_CLIENT_SECRET"]);
    found.says("token_endpoint", "skipped", &["configuration failed"]);
    found.says("profile", "ok", &["user 4711"]);
    world.top = "listen = [\"0.0.0.0:0\"]".to_owned();
    let found = doctor(&world);
    found.fails(&["configuration"], 78).says(
        "configuration",
        "failed",
        &["0.0.0.0", "allow_unauthenticated"],
    );
    world.top = "workers = \"many\"".to_owned();
    let found = doctor(&world);
    found.fails(&["configuration"], 78);
    assert_eq!(found.checks().len(), 1, "{}", found.0);
}

#[test]
fn s06_doctor_shows_no_secret_at_any_level() {
    let (world, _fronts, bundle) = over_tls();
    let run = |secret: &str| {
        world.configure();
        let mut command = world.command(&["doctor"]);
        command
            .env("SSL_CERT_FILE", &bundle)
            .env("RUST_LOG", "trace");
        let output = command
            .env("LUCID_CLIENT_SECRET", secret)
            .output()
            .expect("it runs");
        printed(&output) + &errors(&output)
    };
    let healthy = run("sec-sandbox");
    assert!(healthy.contains("TRACE"), "the log is there: {healthy}");
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.introspections, counts.api_requests),
        (2, 1),
        "the tokens were sent"
    );
    let refused = run("sec-marked");
    assert!(
        refused.contains("does not know the client id or secret"),
        "{refused}"
    );
    world.sandbox.revoke_grants();
    let dead = run("sec-sandbox");
    assert!(dead.contains("FAILED   refresh token"), "{dead}");
    for shown in [healthy, refused, dead] {
        for secret in ["oauth2-", "sec-sandbox", "sec-marked"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
    let token = world.run(&["token"]);
    assert!(
        printed(&token).contains("oauth2-"),
        "tokens would be recognised"
    );
}
