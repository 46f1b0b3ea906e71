//! `lucid-proxy login`: one approval, or nothing at all.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use lucid_proxy::sandbox::{Behaviour, CLIENT_SECRET, ScopesShape, TokenFailure};
use lucid_proxy::secret::Secret;
use lucid_proxy::token::record::Record;
use lucid_proxy::token::store::Store;
use rustix::process::Signal;

use crate::world::login::{parameter, visit};
use crate::world::{Client, Mount, SOON, World, errors, is_root, printed};

/// No login yet, and a stand-in that behaves as Lucid does.
fn world() -> World {
    World::new().for_login()
}

fn behaving(change: impl FnOnce(&mut Behaviour)) -> World {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    World::behaving(behaviour).for_login()
}

/// A login in the store, known to be that of user 4711.
fn logged_in() -> World {
    let world = world();
    let pair = serde_json::to_vec(&world.sandbox.approve()).expect("JSON");
    let record = Record::from_json(&pair).expect("a record");
    let record = Record {
        generation: Some(1),
        user_id: Some(4711),
        ..record
    };
    Store::new(world.store()).write(&record).expect("written");
    world
}

/// What a login says that asks nobody.
fn refused(world: &World, arguments: &[&str]) -> Output {
    let mut login = world.waiting(&[&["login"], arguments].concat());
    login.wait_for_line("lucid-proxy: ");
    login.end()
}

#[track_caller]
fn assert_failed(world: &World, output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", errors(output));
    assert!(
        errors(output).contains(reason),
        "{reason}: {}",
        errors(output)
    );
    assert_eq!(printed(output), "");
    assert!(!world.store().exists(), "nothing was stored");
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn an_approval_is_a_login() {
    let world = world();
    let login = world.login(&[]);
    assert_eq!(login.parameter("response_type").as_deref(), Some("code"));
    assert_eq!(
        login.parameter("code_challenge_method").as_deref(),
        Some("S256")
    );
    let page = login.approve();
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("You are logged in"), "{}", page.text());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    let output = login.end();
    assert!(output.status.success(), "{}", errors(&output));
    for word in [
        "logged in as user 4711",
        "offline_access",
        "generation 1",
        "lasts until",
    ] {
        assert!(
            printed(&output).contains(word),
            "{word}: {}",
            printed(&output)
        );
    }
    let stored = world.stored();
    assert_eq!(stored["user_id"], 4711);
    assert_eq!(stored["generation"], 1);
    assert_eq!(world.serve().get("/users/me/profile").status, 200);
    let counts = world.sandbox.counts();
    assert_eq!(
        (counts.code_exchanges, counts.token_posts),
        (1, 0),
        "the pair is fresh"
    );
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn refresh_tokens_of_4_kib_work() {
    let world = behaving(|behaviour| behaviour.token_length = 4096);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    world.sandbox.expire_access_tokens();
    assert_eq!(world.serve().get("/users/me/profile").status, 200);
    assert!(
        world.stored()["refresh_token"]
            .as_str()
            .expect("text")
            .len()
            >= 4096
    );
}

#[test]
fn without_a_proof_key_none_is_sent() {
    let mut world = world();
    world.tables.push_str("pkce = false\n");
    let login = world.login(&[]);
    assert_eq!(login.parameter("code_challenge"), None);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn an_account_login_asks_at_the_other_page() {
    let world = world();
    let login = world.login(&["--account"]);
    assert!(
        login.url.contains("/oauth2/authorizeAccount?"),
        "{}",
        login.url
    );
    assert_eq!(login.approve().status, 200);
    let output = login.end();
    assert!(
        printed(&output).contains("logged in as account 52"),
        "{}",
        printed(&output)
    );
    assert_eq!(world.stored()["account_id"], 52);
    let mut other = World::new();
    other.tables = format!("authorize_url = \"{}/approve\"\n", other.sandbox.origin());
    let output = refused(&other, &["--account"]);
    assert_failed(&other, &output, "credentials.default.authorize_url");
}

#[test]
fn a_refused_approval_is_told_and_stores_nothing() {
    let world = world();
    let login = world.login(&[]);
    let page = visit(&login.press("deny"));
    assert_eq!(page.status, 400);
    for text in [page.text(), errors(&login.end())] {
        assert!(
            text.contains("approval was refused (access_denied)"),
            "{text}"
        );
        assert!(text.contains("nothing was stored"), "{text}");
    }
    assert_eq!(world.sandbox.counts().code_posts, 0);
    assert!(!world.store().exists());
}

#[test]
fn what_the_server_says_is_text_on_the_page_and_on_the_terminal() {
    let login = world().login(&[]);
    let page =
        login.call_back("error=server_error&error_description=%3Cscript%3E%1b%5b2J&state=STATE");
    assert!(page.text().contains("&lt;script&gt;[2J"), "{}", page.text());
    assert!(!page.text().contains("<script"), "{}", page.text());
    let errors = errors(&login.end());
    assert!(
        errors.contains("server_error") && !errors.contains('\u{1b}'),
        "{errors:?}"
    );
}

#[test]
fn what_carries_no_state_of_this_login_does_not_end_it() {
    let world = world();
    let mut login = world.login(&[]);
    for (query, reason) in [
        ("", "it carries no state"),
        ("code=forged", "it carries no state"),
        ("code=forged&state=", "it carries no state"),
        (
            "code=forged&state=forged",
            "its state is not that of this login",
        ),
        ("code=forged&state=STATE&state=STATE", "its state is not"),
        ("error=access_denied&state=forged", "its state is not"),
    ] {
        let page = login.call_back(query);
        assert_eq!(page.status, 400, "{query}");
        assert!(page.text().contains(reason), "{query}: {}", page.text());
        login.wait_for_line("was not used");
    }
    assert_eq!(world.sandbox.counts().code_posts, 0);
    assert_eq!(login.approve().status, 200, "the login still waits");
    assert!(login.end().status.success());
}

#[test]
fn an_answer_that_contradicts_itself_ends_the_login_and_stores_nothing() {
    for (query, reason) in [
        (
            "code=a&error=access_denied&state=STATE",
            "both a code and an error",
        ),
        ("state=STATE", "neither a code nor an error"),
        (
            "code=a&code=b&state=STATE",
            "it carries code more than once",
        ),
        (
            "error=a&error=b&state=STATE",
            "it carries error more than once",
        ),
        ("code=a%0db&state=STATE", "not one word of visible ASCII"),
    ] {
        let world = world();
        let login = world.login(&[]);
        let page = login.call_back(query);
        assert_eq!(page.status, 400, "{query}");
        assert!(page.text().contains(reason), "{query}: {}", page.text());
        assert_failed(&world, &login.end(), reason);
        assert_eq!(world.sandbox.counts().code_posts, 0);
    }
}

#[test]
fn a_second_callback_is_told_that_the_login_is_over() {
    let world = behaving(|behaviour| behaviour.hold_token_endpoint = true);
    let login = world.login(&[]);
    let place = login.press("approve");
    let first = std::thread::scope(|threads| {
        let first = threads.spawn(|| visit(&place));
        world
            .sandbox
            .wait_until(SOON, |counts| counts.code_posts == 1);
        for query in [
            place.split_once('?').expect("a query").1,
            "error=access_denied&state=STATE",
            "code=forged&state=forged",
        ] {
            let second = login.call_back(query);
            assert_eq!(second.status, 410);
            assert!(
                second.text().contains("This login is over"),
                "{}",
                second.text()
            );
        }
        world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = false);
        first.join().expect("a page")
    });
    assert_eq!(first.status, 200, "the page waited for the exchange");
    assert!(login.end().status.success());
    assert_eq!(world.sandbox.counts().code_posts, 1);
}

#[test]
fn s02_the_listener_answers_to_its_own_names_and_on_one_path_only() {
    let world = world();
    let login = world.login(&[]);
    let redirect_uri = login.parameter("redirect_uri").expect("there");
    let authority = redirect_uri
        .trim_start_matches("http://")
        .trim_end_matches("/callback")
        .to_owned();
    let address = authority.parse().expect("an address");
    let good = login.press("approve");
    let query = good.split_once('?').expect("a query").1;
    let raw = |line: &str, host: &str| {
        let mut client = Client::connect(address);
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        client.response().status
    };
    let target = format!("/callback?{query}");
    for host in ["evil.example", "evil.example:80", "127.0.0.1", ""] {
        assert_eq!(raw(&format!("GET {target}"), host), 403, "{host}");
    }
    for line in [
        format!("POST {target}"),
        format!("OPTIONS {target}"),
        "GET /favicon.ico".to_owned(),
        format!("GET /?{query}"),
        format!("GET /callback/?{query}"),
        format!("GET /callback/..?{query}"),
    ] {
        assert_eq!(raw(&line, &authority), 404, "{line}");
    }
    assert_eq!(world.sandbox.counts().code_posts, 0);
    assert_eq!(raw(&format!("GET {target}"), &authority), 200);
    assert!(login.end().status.success());
}

#[test]
fn a_listener_is_not_held_up_by_silent_connections() {
    let world = world();
    let login = world.login(&[]);
    let redirect_uri = login.parameter("redirect_uri").expect("there");
    let authority = redirect_uri
        .trim_start_matches("http://")
        .trim_end_matches("/callback");
    let address = authority.parse().expect("an address");
    let mut silent: Vec<_> = (0..8).map(|_| Client::connect(address)).collect();
    silent[0].send(b"GET /call");
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
}

#[test]
fn a_port_in_use_is_told_before_anything_else_happens() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("bound").port();
    for host in ["localhost", "127.0.0.1"] {
        let redirect_url = format!("http://{host}:{port}/callback");
        let world = World::new().redirecting(&redirect_url);
        let output = refused(&world, &[]);
        assert_failed(&world, &output, &format!("127.0.0.1:{port} is in use"));
        for word in [redirect_url.as_str(), "redirect_url", "--paste"] {
            assert!(
                errors(&output).contains(word),
                "{word}: {}",
                errors(&output)
            );
        }
        assert!(
            !errors(&output).contains("to log in"),
            "{}",
            errors(&output)
        );
    }
}

#[test]
fn without_offline_access_nothing_is_stored() {
    let granted = ["user.profile", "lucidchart.document.content"].map(str::to_owned);
    let world = behaving(|behaviour| behaviour.granted_scopes = Some(granted.to_vec()));
    let login = world.login(&["--accept-fewer-scopes"]);
    let page = login.approve();
    assert_eq!(page.status, 400);
    assert!(page.text().contains("offline_access"), "{}", page.text());
    assert_failed(
        &world,
        &login.end(),
        "the scope offline_access was not granted",
    );
    assert_eq!(world.sandbox.counts().code_exchanges, 1);
}

#[test]
fn a_scope_that_was_not_granted_is_told_and_accepted_only_when_told_to() {
    let granted = ["offline_access", "user.profile"].map(str::to_owned);
    let world = behaving(|behaviour| behaviour.granted_scopes = Some(granted.to_vec()));
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 400);
    let output = login.end();
    assert_failed(
        &world,
        &output,
        "without the scopes lucidchart.document.content",
    );
    assert!(
        errors(&output).contains("--accept-fewer-scopes"),
        "{}",
        errors(&output)
    );
    let login = world.login(&["--accept-fewer-scopes"]);
    assert_eq!(login.approve().status, 200);
    let output = login.end();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(
        errors(&output).contains("not granted"),
        "{}",
        errors(&output)
    );
    assert_eq!(
        world.stored()["scopes"].as_array().expect("a list").len(),
        2
    );
}

#[test]
fn an_answer_without_scopes_grants_what_was_asked_for() {
    let world = behaving(|behaviour| behaviour.token_answer.scopes = ScopesShape::Absent);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(
        world.stored()["scopes"].as_array().expect("a list").len(),
        3
    );
}

#[test]
fn t19_another_users_login_is_replaced_only_when_told_to() {
    let world = logged_in();
    let before = fs::read(world.store()).expect("a store");
    world.sandbox.change(|behaviour| behaviour.user_id = 5);
    let login = world.login(&[]);
    let page = login.approve();
    assert_eq!(page.status, 400);
    let output = login.end();
    assert_eq!(output.status.code(), Some(1));
    for text in [page.text(), errors(&output)] {
        assert!(
            text.contains("user 4711") && text.contains("user 5"),
            "{text}"
        );
        assert!(text.contains("--replace"), "{text}");
    }
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    let account = world.login(&["--account"]);
    assert_eq!(account.approve().status, 400, "an account is another owner");
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    drop(account);
    let login = world.login(&["--replace"]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.stored()["user_id"], 5);
    assert_eq!(world.stored()["generation"], 2);
    assert_eq!(world.sandbox.counts().revocations, 0);
}

#[test]
fn t19_the_same_user_may_log_in_again() {
    let world = logged_in();
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.stored()["generation"], 2);
    assert_eq!(world.sandbox.counts().introspections, 0);
}

#[test]
fn t19_whose_login_is_there_is_found_out_before_the_browser_opens() {
    let world = world();
    world.log_in();
    let mut silent = world.stored();
    silent.as_object_mut().expect("an object").remove("user_id");
    let store = || world.write_store(silent.to_string().as_bytes());
    store();
    world.sandbox.change(|behaviour| behaviour.user_id = 5);
    let login = world.login(&[]);
    assert_eq!(world.sandbox.counts().introspections, 1);
    assert_eq!(login.approve().status, 400, "it is another's");
    assert!(errors(&login.end()).contains("user 4711"));
    world.sandbox.change(|behaviour| behaviour.user_id = 4711);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());

    store();
    world
        .sandbox
        .change(|behaviour| behaviour.introspection_status = StatusCode::BAD_GATEWAY);
    let shown = world.sandbox.counts().authorize_pages;
    let output = refused(&world, &[]);
    assert_eq!(output.status.code(), Some(1));
    for word in ["cannot be found out whose it is", "502", "login --replace"] {
        assert!(
            errors(&output).contains(word),
            "{word}: {}",
            errors(&output)
        );
    }
    assert!(
        !errors(&output).contains("to log in"),
        "{}",
        errors(&output)
    );
    assert_eq!(world.sandbox.counts().authorize_pages, shown);
    let login = world.login(&["--replace"]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
}

#[test]
fn t19_whose_a_new_login_is_is_found_out_where_its_answer_does_not_say() {
    let world = logged_in();
    let silent = |behaviour: &mut Behaviour| {
        let extra = &mut behaviour.token_answer.extra;
        extra.insert("user_id".to_owned(), serde_json::Value::Null);
    };
    world.sandbox.change(silent);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    let output = login.end();
    assert!(
        printed(&output).contains("logged in as user 4711"),
        "{}",
        printed(&output)
    );
    let before = fs::read(world.store()).expect("a store");
    world.sandbox.change(|behaviour| behaviour.user_id = 5);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 400);
    assert!(errors(&login.end()).contains("this one is of user 5"));
    world.sandbox.change(|behaviour| {
        behaviour.user_id = 4711;
        behaviour.introspection_status = StatusCode::BAD_GATEWAY;
    });
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 400);
    assert!(errors(&login.end()).contains("somebody who is not named"));
    assert_eq!(fs::read(world.store()).expect("a store"), before);
}

#[test]
fn t19_a_dead_login_of_another_user_is_no_obstacle() {
    let world = logged_in();
    world.sandbox.change(|behaviour| {
        behaviour.user_id = 5;
        behaviour
            .token_failures
            .push_back(TokenFailure::InvalidGrant);
    });
    world.sandbox.expire_access_tokens();
    assert_eq!(world.serve().get("/users/me/profile").status, 401);
    assert!(world.stored()["refusal"].is_object());
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.stored()["user_id"], 5);
    assert_eq!(world.serve().get("/users/me/profile").status, 200);
}

/// No page was shown and no code was sent.
#[track_caller]
fn assert_nobody_was_asked(world: &World, output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", errors(output));
    assert!(!errors(output).contains("to log in"), "{}", errors(output));
    assert_eq!(world.sandbox.counts().connections, 0);
}

#[test]
fn t19_an_unwritable_store_is_told_before_the_browser_opens() {
    if !is_root() {
        return;
    }
    let world = world();
    let mount = Mount::tmpfs(&world.state(), "size=32k,mode=700");
    fs::write(world.state().join("ballast"), vec![0; 64 << 10]).expect_err("the disk is full");
    let output = refused(&world, &[]);
    assert_nobody_was_asked(&world, &output);
    assert!(
        errors(&output).contains("free space"),
        "{}",
        errors(&output)
    );
    fs::remove_file(world.state().join("ballast")).expect("removed");
    mount.remount("ro");
    let output = refused(&world, &[]);
    assert_nobody_was_asked(&world, &output);
    assert!(errors(&output).contains("writable"), "{}", errors(&output));
    mount.remount("rw");
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
}

#[test]
fn t19_an_unusable_store_or_lock_is_told_before_the_browser_opens() {
    let world = world();
    world.write_store(b"{\"access_token\":");
    let output = refused(&world, &[]);
    assert_nobody_was_asked(&world, &output);
    assert!(
        errors(&output).contains("cannot be used"),
        "{}",
        errors(&output)
    );
    fs::remove_file(world.store()).expect("removed");
    let lock = world.state().join("token_info.json.lock");
    fs::create_dir(&lock).expect("a directory in the lock's place");
    let output = refused(&world, &[]);
    assert_nobody_was_asked(&world, &output);
    assert!(
        errors(&output).contains("cannot lock"),
        "{}",
        errors(&output)
    );
}

#[test]
fn t19_a_store_that_fills_up_meanwhile_is_tried_again() {
    if !is_root() {
        return;
    }
    let world = world();
    let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    let mut login = world.login(&[]);
    let ballast = world.state().join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).expect_err("the disk is full");
    let place = login.press("approve");
    let page = std::thread::scope(|threads| {
        let page = threads.spawn(|| visit(&place));
        login.wait_for_line("approved; trying for");
        fs::remove_file(&ballast).expect("removed");
        page.join().expect("a page")
    });
    assert_eq!(page.status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.serve().get("/users/me/profile").status, 200);
}

#[test]
fn t02_the_lock_of_another_process_is_waited_for() {
    let world = logged_in();
    let mut login = world.login(&[]);
    let store = Store::new(world.store());
    let lock = store.try_lock().expect("lockable").expect("free");
    let place = login.press("approve");
    let page = std::thread::scope(|threads| {
        let page = threads.spawn(|| visit(&place));
        login.wait_for_line(&format!("process {}", std::process::id()));
        assert_eq!(world.stored()["generation"], 1);
        drop(lock);
        page.join().expect("a page")
    });
    assert_eq!(page.status, 200);
    assert!(login.end().status.success());
    assert_eq!(world.stored()["generation"], 2);
}

#[test]
fn s08_a_token_that_no_header_may_carry_is_refused() {
    for field in ["access_token", "refresh_token"] {
        let world = behaving(|behaviour| {
            let bad = serde_json::Value::from("oauth2-\r\nmarked");
            behaviour.token_answer.extra.insert(field.to_owned(), bad);
        });
        let login = world.login(&[]);
        assert_eq!(login.approve().status, 400, "{field}");
        let output = login.end();
        assert_failed(&world, &output, "characters that no header may carry");
        assert!(!errors(&output).contains("marked"), "{}", errors(&output));
    }
}

#[test]
fn failures_of_the_token_endpoint_are_told_and_store_nothing() {
    for (failure, reason) in [
        (
            TokenFailure::Status {
                code: StatusCode::SERVICE_UNAVAILABLE,
                retry_after: None,
                body: String::new(),
            },
            "answered 503",
        ),
        (
            TokenFailure::Html(StatusCode::OK),
            "without an access_token",
        ),
        (TokenFailure::Html(StatusCode::FORBIDDEN), "answered 403"),
        (TokenFailure::CutBefore, "could not be asked"),
        (TokenFailure::CutAfter, "could not be asked"),
        (TokenFailure::HalfBodyAfter, "cut off"),
        (TokenFailure::NoAccessToken, "without an access_token"),
        (
            TokenFailure::Status {
                code: StatusCode::OK,
                retry_after: None,
                body: r#"{"access_token":"lucid-proxy-placeholder-access-1","refresh_token":"lucid-proxy-placeholder-refresh-1"}"#.to_owned(),
            },
            "a lucid-proxy answered",
        ),
        (TokenFailure::Redirect, "answered 307"),
        (
            TokenFailure::InvalidGrant,
            "a code works once, for two minutes",
        ),
    ] {
        let world = behaving(|behaviour| behaviour.token_failures.push_back(failure.clone()));
        let login = world.login(&[]);
        let page = login.approve();
        assert_eq!(page.status, 400, "{failure:?}");
        assert!(
            page.text().contains("nothing was stored"),
            "{}",
            page.text()
        );
        assert_failed(&world, &login.end(), reason);
        assert_eq!(world.sandbox.counts().code_posts, 1, "{failure:?}");
    }
}

#[test]
fn an_expired_code_is_told() {
    let world = behaving(|behaviour| behaviour.code_lifetime = Duration::ZERO);
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 400);
    assert_failed(&world, &login.end(), "a code works once, for two minutes");
    assert_eq!(world.sandbox.counts().refused_code_exchanges, 1);
}

#[test]
fn a_wrong_client_secret_is_told() {
    let world = world();
    let login = world.login_with(&[], |command| {
        command.env("LUCID_CLIENT_SECRET", "wrong-marked");
    });
    assert_eq!(login.approve().status, 400);
    let output = login.end();
    assert_failed(&world, &output, "the client id or secret is wrong");
    assert!(
        !errors(&output).contains("wrong-marked"),
        "{}",
        errors(&output)
    );
    let output = world
        .command(&["login"])
        .env_remove("LUCID_CLIENT_SECRET")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(78), "{}", errors(&output));
}

#[test]
fn a_pasted_code_or_address_is_a_login() {
    for whole in [false, true] {
        let world = World::new().redirecting("http://localhost:8117/callback");
        let mut login = world.login(&["--paste"]);
        login.wait_for_line("paste here the code");
        let place = login.press("approve");
        let code = parameter(&place, "code").expect("a code");
        login.paste("two words\n");
        login.wait_for_line("not one word");
        login.paste("http://localhost:8117/callback?code=forged&state=forged\n");
        login.wait_for_line("its state is not that of this login");
        login.paste(&format!("{}\n", if whole { &place } else { &code }));
        let output = login.end();
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(world.stored()["user_id"], 4711);
        assert_eq!(world.sandbox.counts().code_posts, 1);
    }
}

#[test]
fn lucids_test_page_is_a_redirect_url_too() {
    let world = World::new();
    let page = format!(
        "{}/oauth2/clients/cid-sandbox/redirect",
        world.sandbox.origin()
    );
    // Not told from a listener's by its address: the stand-in's page is on this machine.
    let world = world.redirecting(&page);
    let mut login = world.login(&["--paste"]);
    let place = login.press("approve");
    assert!(visit(&place).text().contains("Access granted"));
    login.paste(&parameter(&place, "code").expect("a code"));
    login.end_of_input();
    let output = login.end();
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn where_no_browser_can_come_back_pasting_is_chosen_and_said() {
    let lucid = "https://lucid.app/oauth2/clients/cid-sandbox/redirect";
    let world = World::new().redirecting(lucid);
    let mut login = world.login(&[]);
    login.wait_for_line("redirect_url is not an http:// address of this machine");
    assert_eq!(login.parameter("redirect_uri").as_deref(), Some(lucid));
    login.end_of_input();
    assert_failed(
        &world,
        &login.end(),
        "standard input ended without a code; nothing was stored",
    );
    let any_port = refused(&world_with_any_port(), &["--paste"]);
    assert!(
        errors(&any_port).contains("redirect_url has port 0"),
        "{}",
        errors(&any_port)
    );
}

fn world_with_any_port() -> World {
    World::new().redirecting("http://localhost:0/callback")
}

#[test]
fn a_pasted_refusal_ends_the_login() {
    let world = World::new().redirecting("http://localhost:8117/callback");
    let mut login = world.login(&["--paste"]);
    let place = login.press("deny");
    login.paste(&format!("{place}\n"));
    assert_failed(&world, &login.end(), "the approval was refused");
}

#[test]
fn a_signal_ends_the_wait_and_stores_nothing() {
    let world = behaving(|behaviour| behaviour.hold_token_endpoint = true);
    let login = world.login(&[]);
    login.signal(Signal::INT);
    assert_failed(&world, &login.end(), "SIGINT: stopped; nothing was stored");
    let mut login = world.login(&[]);
    let place = login.press("approve");
    let page = std::thread::scope(|threads| {
        let page = threads.spawn(|| visit(&place));
        world
            .sandbox
            .wait_until(SOON, |counts| counts.code_posts == 1);
        login.signal(Signal::TERM);
        login.wait_for_line("SIGTERM: finishing the login");
        login.signal(Signal::TERM);
        page.join().expect("a page")
    });
    assert!(
        page.text().contains("nothing was stored"),
        "{}",
        page.text()
    );
    assert_failed(&world, &login.end(), "SIGTERM: stopped; nothing was stored");
}

#[test]
fn t04_a_signal_does_not_end_a_login_whose_code_was_sent() {
    let world = behaving(|behaviour| behaviour.hold_token_endpoint = true);
    let mut login = world.login(&[]);
    let place = login.press("approve");
    std::thread::scope(|threads| {
        let page = threads.spawn(|| visit(&place));
        world
            .sandbox
            .wait_until(SOON, |counts| counts.code_posts == 1);
        login.signal(Signal::INT);
        login.wait_for_line("SIGINT: finishing the login");
        world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = false);
        assert_eq!(page.join().expect("a page").status, 200);
    });
    assert!(login.end().status.success());
    assert_eq!(world.stored()["user_id"], 4711);
}

#[test]
fn the_browser_is_opened_without_secrets_unless_told_not_to() {
    let world = world();
    let shown = world.directory.path().join("shown");
    let browser = world.directory.path().join("browser");
    let script = format!(
        "#!/bin/sh\necho noise\nenv > {0}.env\necho \"$1\" > {0}.new\nmv {0}.new {0}\n",
        shown.display()
    );
    fs::write(&browser, script).expect("written");
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).expect("chmod");
    let with_browser = |arguments: &[&str]| {
        world.login_with(arguments, |command| {
            command.env("BROWSER", &browser).env("MARKED", "control");
        })
    };
    let mut login = with_browser(&["--no-browser"]);
    login.wait_for_line("waiting for the browser");
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
    assert!(!shown.exists());

    let login = with_browser(&[]);
    let deadline = std::time::Instant::now() + SOON;
    while !shown.exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "the browser was opened"
        );
        std::thread::yield_now();
    }
    assert_eq!(
        fs::read_to_string(&shown).expect("readable").trim(),
        login.url
    );
    let environment = fs::read_to_string(format!("{}.env", shown.display())).expect("readable");
    assert!(environment.contains("MARKED=control"), "{environment}");
    assert!(!environment.contains(CLIENT_SECRET), "{environment}");
    assert_eq!(login.approve().status, 200);
    let output = login.end();
    assert!(!printed(&output).contains("noise") && !errors(&output).contains("noise"));

    let mut login = world.login_with(&[], |command| {
        command.env("BROWSER", "/nowhere/browser");
    });
    login.wait_for_line("no browser could be opened (/nowhere/browser");
    assert_eq!(login.approve().status, 200);
    assert!(login.end().status.success());
}

#[test]
fn a_running_proxy_takes_a_login_over() {
    let world = world();
    let serving = world.serve();
    assert_eq!(serving.get("/users/me/profile").code(), "loginRequired");
    let login = world.login(&[]);
    assert_eq!(login.approve().status, 200);
    let output = login.end();
    assert!(
        printed(&output).contains("the running proxy takes it over"),
        "{}",
        printed(&output)
    );
    serving.wait_for_log("took over a newer token");
    assert_eq!(serving.get("/users/me/profile").status, 200);
    assert_eq!(world.sandbox.counts().token_posts, 0);
}

#[test]
fn s06_neither_code_nor_verifier_nor_token_shows_in_the_log_at_any_level() {
    let world = behaving(|behaviour| {
        behaviour
            .token_failures
            .push_back(TokenFailure::InvalidGrant);
    });
    let mut secrets = Vec::new();
    let (mut logs, mut addresses) = (String::new(), String::new());
    for _ in 0..2 {
        let login = world.login_with(&[], |command| {
            command.env("RUST_LOG", "trace");
        });
        login.call_back("code=forged-marked&state=forged");
        let place = login.press("approve");
        visit(&place);
        secrets.push(parameter(&place, "code").expect("a code"));
        let state = login.parameter("state").expect("a state");
        let address = login.url.clone();
        let output = login.end();
        let log = errors(&output) + &printed(&output);
        assert!(
            log.contains("TRACE") || log.contains("DEBUG"),
            "it is verbose: {log}"
        );
        assert_eq!(
            log.matches(&state).count(),
            1,
            "in the address alone: {log}"
        );
        logs.push_str(&log.replace(&address, ""));
        addresses.push_str(&address);
    }
    let stored = world.stored();
    for field in ["access_token", "refresh_token"] {
        secrets.push(stored[field].as_str().expect("text").to_owned());
    }
    secrets.extend([CLIENT_SECRET, "forged-marked"].map(str::to_owned));
    for secret in secrets {
        assert!(!logs.contains(&secret), "{secret} in {logs}");
    }
    // What was made at random for a login has 43 characters: state, verifier, challenge.
    assert_eq!(words_of_43(&addresses), 4, "the control: {addresses}");
    assert_eq!(words_of_43(&logs), 0, "{logs}");
}

fn words_of_43(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    words.filter(|word| word.len() == 43).count()
}

#[test]
fn a_login_asks_nothing_where_the_configuration_is_wrong() {
    for (line, reason) in [
        (
            "redirect_url = \"http://lucid.example/callback\"",
            "http:// is accepted for this machine only",
        ),
        (
            "redirect_url = \"http://localhost:8117/#here\"",
            "expected a URL",
        ),
        (
            "redirect_url = \"https://localhost:0/\"",
            "port 0 is accepted on this machine",
        ),
        ("scopes = [\"user.profile\"]", "offline_access"),
    ] {
        let mut world = World::new();
        world.tables = line.to_owned();
        let output = refused(&world, &[]);
        assert_eq!(output.status.code(), Some(78), "{line}");
        assert!(
            errors(&output).contains(reason),
            "{line}: {}",
            errors(&output)
        );
    }
}

/// A login that lives in a store that a test has made by hand keeps its place in the order of generations.
#[test]
fn t18_a_login_has_a_higher_generation_than_every_one_before() {
    let world = world();
    let path = world.store();
    let old = Record {
        generation: Some(41),
        ..Record::from_refresh_token(Secret::from("old"), SystemTime::now())
    };
    let written = |path: &Path| Store::new(path.to_owned()).write(&old).expect("written");
    written(&path);
    let login = world.login(&[]);
    assert_eq!(
        login.approve().status,
        200,
        "the old one is dead, says introspection"
    );
    assert!(login.end().status.success());
    assert_eq!(world.stored()["generation"], 42);
}
