//! A company's proxy on the way to upstream and token endpoint.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::connecting::{assert_not_found, assert_unreached, closed_port};
use crate::world::connect_proxy::{Act, ConnectProxy};
use crate::world::http2::Http2Front;
use crate::world::tls::TlsFront;
use crate::world::{Response, SOON, Serving, World, errors, printed};

/// What nobody but the proxy can find.
const NAME: &str = "lucid.test";

/// `ada:p@ss`, as the proxy is to be told it.
const LOGIN: &str = "proxy-authorization: Basic YWRhOnBAc3M=\r\n";

/// A world in which upstream and token endpoint are behind a proxy.
struct Company {
    world: World,
    front: TlsFront,
    proxy: ConnectProxy,
}

impl Company {
    /// With a login whose access token lives.
    fn new() -> Self {
        Self::of(World::logged_in(), ConnectProxy::start)
    }

    fn of(mut world: World, proxy: impl FnOnce(std::net::SocketAddr) -> ConnectProxy) -> Self {
        let front = TlsFront::named(NAME, world.sandbox.address());
        let proxy = proxy(front.address);
        let certificates = [
            Some(front.certificate.as_str()),
            proxy.certificate.as_deref(),
        ];
        let bundle: String = certificates.into_iter().flatten().collect();
        std::fs::write(world.directory.path().join("ca.pem"), bundle).expect("written");
        world.upstream_keys = "ca_file = \"ca.pem\"\n".to_owned();
        (world.upstream, world.token_origin) = (front.origin(), front.origin());
        world
            .sandbox
            .change(|behaviour| behaviour.public_origin = Some(front.origin()));
        Self {
            world,
            front,
            proxy,
        }
    }

    /// Host and port that the proxy is asked for.
    fn target(&self) -> String {
        format!("{NAME}:{}", self.front.address.port())
    }

    fn serve(&self) -> Serving {
        self.serve_with(&[("HTTPS_PROXY", &self.proxy.url(""))])
    }

    fn serve_with(&self, variables: &[(&str, &str)]) -> Serving {
        self.world.serve_with(|command| {
            command.envs(variables.iter().copied());
        })
    }

    fn command(&self, arguments: &[&str], user: &str) -> Command {
        self.world.configure();
        let mut command = self.world.command(arguments);
        command.env("HTTPS_PROXY", self.proxy.url(user));
        command
    }
}

#[test]
fn t05_requests_and_refreshes_go_through_the_same_proxy() {
    let company = Company::new();
    let url = company.proxy.url("ada:p%40ss@");
    let serving = company.serve_with(&[("HTTPS_PROXY", &url)]);
    // One connection, so that one worker serves all of it.
    let mut client = serving.connect();
    let mut ask = || client.ask("GET /users", &[], b"").status;
    assert_eq!([ask(), ask()], [200; 2]);
    company.world.sandbox.expire_access_tokens();
    assert_eq!(ask(), 200);
    let counts = company.world.sandbox.counts();
    assert_eq!((counts.rotations, counts.token_connections), (1, 1));
    // That the proxy's login never went further is among them.
    assert_eq!(counts.problems, [""; 0]);
    let heads = company.proxy.heads();
    let target = company.target();
    assert_eq!(
        heads.len(),
        2,
        "one is kept for requests, one is for the refresh"
    );
    for head in &heads {
        let line = format!("CONNECT {target} HTTP/1.1\r\n");
        assert!(head.starts_with(&line), "{head}");
        let host = format!("host: {target}\r\n");
        assert!(head.to_ascii_lowercase().contains(&host), "{head}");
        assert!(head.contains(LOGIN), "{head}");
        assert!(!head.contains("oauth2-"), "{head}");
    }
}

#[test]
fn the_file_names_the_proxy_or_none() {
    let mut company = Company::new();
    let usual = company.world.upstream_keys.clone();
    let url = company.proxy.url("ada:p%40ss@");
    let secret = company.world.directory.path().join("proxy.secret");
    std::fs::write(&secret, format!("{url}\n")).expect("written");
    for (key, set) in [
        (format!("proxy = \"{}\"", company.proxy.url("")), None),
        ("proxy_env = \"CORP\"".to_owned(), Some(("CORP", &*url))),
        (format!("proxy_file = {secret:?}"), None),
    ] {
        company.world.upstream_keys = format!("{usual}{key}\n");
        let before = company.proxy.heads().len();
        let mut variables = vec![("HTTPS_PROXY", "http://nobody.invalid"), ("NO_PROXY", "*")];
        variables.extend(set);
        let serving = company.serve_with(&variables);
        assert_eq!(serving.get("/users").status, 200, "{key}");
        let heads = company.proxy.heads();
        assert_eq!(heads.len(), before + 1, "{key}");
        let has_login = heads[before].contains(LOGIN);
        assert_eq!(has_login, !key.starts_with("proxy ="), "{key}");
    }
    company.world.upstream_keys = format!("{usual}proxy = \"none\"\n");
    let before = company.proxy.heads().len();
    let response = company.serve().get("/users");
    assert_not_found(&response, NAME);
    assert_eq!(company.proxy.heads().len(), before);
}

#[test]
fn what_no_proxy_names_and_what_is_on_this_machine_is_reached_directly() {
    let company = Company::new();
    let url = company.proxy.url("");
    let excepted = company.serve_with(&[("HTTPS_PROXY", &url), ("NO_PROXY", "x.y, .lucid.test")]);
    assert_not_found(&excepted.get("/users"), NAME);

    let world = World::logged_in();
    world.sandbox.expire_access_tokens();
    let names = ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"];
    let serving = world.serve_with(|command| {
        command.envs(names.map(|name| (name, &url)));
    });
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(world.sandbox.counts().rotations, 1);
    assert!(company.proxy.heads().is_empty());
    // The same proxy is used where it is to be.
    assert_eq!(company.serve().get("/users").status, 200);
    assert_eq!(company.proxy.heads().len(), 1);
}

#[test]
fn a_proxy_with_tls_is_judged_like_every_server() {
    let company = Company::of(World::logged_in(), ConnectProxy::over_tls);
    let serving = company.serve_with(&[("HTTPS_PROXY", &company.proxy.url("ada:p%40ss@"))]);
    let body = vec![b'x'; 200 << 10];
    for _ in 0..2 {
        assert_eq!(serving.get("/users").status, 200);
        let mut client = serving.connect();
        let headers = ["Content-Type: application/json"];
        let response = client.ask("POST /documents/search", &headers, &body);
        assert_eq!(response.status, 400, "it has read all: {}", response.text());
        company.world.sandbox.expire_access_tokens();
    }
    assert_eq!(company.world.sandbox.counts().rotations, 1);
    assert!(
        company
            .proxy
            .heads()
            .iter()
            .all(|head| head.contains(LOGIN))
    );

    company
        .front
        .write_bundle(&company.world.directory.path().join("ca.pem"));
    let before = company.proxy.heads().len();
    let response = company.serve().get("/users");
    let words = [
        "no trusted TLS connection to the proxy https://localhost:",
        "HTTPS_PROXY",
    ];
    assert_unreached(&response, 502, "tls_certificate_error", &words);
    assert_eq!(company.proxy.heads().len(), before);
}

#[test]
fn http2_is_agreed_through_a_tunnel() {
    for start in [ConnectProxy::start, ConnectProxy::over_tls] {
        let mut company = Company::of(World::logged_in(), start);
        let front = Http2Front::named(NAME, company.world.sandbox.address(), 100);
        let certificates = [
            Some(&front.tls.certificate),
            company.proxy.certificate.as_ref(),
        ];
        let bundle: String = certificates.into_iter().flatten().cloned().collect();
        let path = company.world.directory.path().join("ca.pem");
        std::fs::write(path, bundle).expect("written");
        company.proxy.lead_to(front.tls.address);
        company.world.upstream = front.tls.origin();
        company.world.upstream_keys += "http = \"2\"\n";
        let serving = company.serve();
        let mut client = serving.connect();
        for _ in 0..3 {
            assert_eq!(client.ask("GET /users", &[], b"").status, 200);
        }
        assert_eq!((front.connections(), company.proxy.heads().len()), (1, 1));
    }
}

#[test]
fn what_a_proxy_answers_instead_of_a_tunnel_is_told() {
    let company = Company::new();
    let serving = company.serve();
    let target = company.target();
    let allow = format!("allow CONNECT to {target}");
    let large = format!(
        "HTTP/1.1 200 OK\r\nX-Padding: {}\r\n\r\n",
        "a".repeat(300 << 10)
    );
    for (answer, error, words) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a, b\"\r\nContent-Length: 0\r\n\r\n",
            "proxy_configuration_error",
            &[
                "wants a user and a password (407)",
                "http://user:password@127.0.0.1:",
            ][..],
        ),
        (
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM TlRMTVNT\r\n\r\n",
            "proxy_configuration_error",
            &[
                "by Negotiate or NTLM (407)",
                "only Basic is spoken",
                "upstream.proxy",
            ],
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nblock",
            "http_request_denied",
            &["403 Forbidden", &allow],
        ),
        (
            "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
            "http_request_denied",
            &["405 Method Not Allowed"],
        ),
        (
            "HTTP/1.0 502 Bad Gateway\r\n\r\n<html>",
            "destination_unavailable",
            &["502 Bad Gateway", "upstream.url and HTTPS_PROXY"],
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\n\r\n",
            "destination_unavailable",
            &["302 Found"],
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n",
            "destination_unavailable",
            &["204 No Content"],
        ),
        ("", "connection_terminated", &["names an HTTP proxy"]),
        (
            "HTTP/1.1 200 OK\r\nVia",
            "connection_terminated",
            &["names an HTTP proxy"],
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "http_protocol_error",
            &["names an HTTP proxy"],
        ),
        (
            large.leak(),
            "http_response_header_section_size",
            &["names an HTTP proxy"],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "http_protocol_error",
            &["spoke into the tunnel"],
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n",
            "tls_protocol_error",
            &["TLS connection to https://lucid.test"],
        ),
    ] {
        company.proxy.will([Act::Answer(answer)]);
        let response = serving.get("/users");
        assert_unreached(&response, 502, error, words);
        if !error.starts_with("tls") {
            let words = [&*format!(
                "the proxy {} (HTTPS_PROXY)",
                company.proxy.url("")
            )];
            assert_unreached(&response, 502, error, &words);
        }
    }
    assert_eq!(company.world.sandbox.counts().connections, 0);
    for answer in [
        "HTTP/1.0 200 Connection established\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: 1.1 x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        company.proxy.will([Act::Open(answer)]);
        assert_eq!(serving.get("/users").status, 200, "{answer}");
        company.proxy.cut();
    }
}

#[test]
fn s06_a_wrong_password_is_told_without_it() {
    const REFUSED: &str = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let company = Company::new();
    company.proxy.will([Act::Answer(REFUSED)]);
    let url = company.proxy.url("ada:p%40ss@");
    let response = company.serve_with(&[("HTTPS_PROXY", &url)]).get("/users");
    let words = [
        "does not accept the user and password",
        "correct them in HTTPS_PROXY",
    ];
    assert_unreached(&response, 502, "proxy_configuration_error", &words);
    for secret in ["ada", "p%40ss", "p@ss", "YWRhOnBAc3M"] {
        assert!(!response.text().contains(secret), "{}", response.text());
    }
}

#[test]
fn f12_a_proxy_that_does_not_answer_is_not_waited_for_for_ever() {
    let mut company = Company::new();
    company.world.upstream_keys += "connect_timeout = \"300ms\"\n";
    company.proxy.will([Act::Silent]);
    let serving = company.serve();
    let told = format!("did not open a tunnel to {} within 300ms", company.target());
    let words = [
        &*told,
        "the proxy http://127.0.0.1:",
        "upstream.connect_timeout",
    ];
    assert_unreached(&serving.get("/users"), 504, "connection_timeout", &words);
    assert_eq!(serving.get("/users").status, 200);
    drop(serving);

    let gone = format!("http://127.0.0.1:{}", closed_port());
    let serving = company.serve_with(&[("HTTPS_PROXY", &gone)]);
    let words = [
        &*format!("cannot connect to the proxy {gone} (HTTPS_PROXY)"),
        "check HTTPS_PROXY",
    ];
    assert_unreached(&serving.get("/users"), 502, "connection_refused", &words);
}

#[track_caller]
fn assert_token_unavailable(response: &Response, word: &str) {
    let seen = (response.status, response.code());
    assert_eq!(seen, (503, "tokenUnavailable".to_owned()), "{word}");
    assert!(response.text().contains(word), "{}", response.text());
}

#[test]
fn t05_without_a_tunnel_no_refresh_token_was_sent() {
    let refusals = [
        ("HTTP/1.1 407 No\r\n\r\n", "proxy authorization required"),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "tunnel error: unsuccessful",
        ),
        ("", "tunnel error: unexpected end of file"),
        ("HTTP/1.1 200 OK\r\n\r\n", "through the proxy"),
    ];
    let check = |(answer, word): (&'static str, &str)| {
        let company = Company::of(World::expired(), ConnectProxy::start);
        company.proxy.will([Act::Answer(answer)]);
        let serving = company.serve();
        assert_token_unavailable(&serving.get("/users"), word);
        // Nothing was sent, so nothing is asked, and the next attempt is the first one that arrives.
        let counts = company
            .world
            .sandbox
            .wait_until(SOON, |counts| counts.rotations == 1);
        assert_eq!(
            (counts.token_posts, counts.introspections),
            (1, 0),
            "{word}"
        );
        serving.wait_for_log("token rotated");
        assert_eq!(serving.get("/users").status, 200, "{word}");
        assert_eq!(company.world.record().lost_rotation, None, "{word}");
    };
    std::thread::scope(|threads| {
        for refusal in refusals {
            threads.spawn(move || check(refusal));
        }
    });
}

#[test]
fn t05_t11_a_tunnel_that_is_cut_under_a_refresh_leaves_its_outcome_unknown() {
    let company = Company::of(World::expired(), ConnectProxy::start);
    let sandbox = &company.world.sandbox;
    let delay = |delay| sandbox.change(|behaviour| behaviour.token_delay = delay);
    delay(2 * SOON);
    let serving = company.serve();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| serving.get("/users"));
        sandbox.wait_until(SOON, |counts| counts.token_posts == 1);
        company.proxy.cut();
        assert_token_unavailable(&waiting.join().expect("an answer"), "could not be asked");
    });
    assert!(company.world.record().intent.is_some(), "it was sent");
    delay(Duration::ZERO);
    // Whether it took effect is the stand-in's business; it is asked before it is sent again.
    let counts = sandbox.wait_until(SOON, |counts| counts.token_posts == 2);
    assert_eq!(counts.introspections, 1);
}

#[test]
fn t05_a_token_endpoint_behind_another_proxy_rule_is_reached_by_that() {
    // Upstream on this machine, the token endpoint behind the proxy: each by its own host, from the same settings.
    let mut company = Company::of(World::expired(), ConnectProxy::start);
    company.world.upstream = company.world.sandbox.origin();
    let serving = company.serve();
    assert_eq!(serving.get("/users").status, 200);
    let heads = company.proxy.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert_eq!(company.world.sandbox.counts().rotations, 1);
}

#[test]
fn check_tells_the_way_and_what_cannot_be_one() {
    let company = Company::new();
    let output = company
        .command(&["check"], "ada:marked@")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", errors(&output));
    let shown = printed(&output);
    let through = format!(
        ", through the proxy {} (HTTPS_PROXY)\n",
        company.proxy.url("")
    );
    assert_eq!(shown.matches(&through).count(), 2, "{shown}");
    assert!(!shown.contains("marked"), "{shown}");
    let mut command = company.command(&["check"], "");
    let output = command.env("https_proxy", "socks5://ada:marked@a").output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let told = errors(&output);
    for word in ["https_proxy: SOCKS", "upstream.proxy = \"none\""] {
        assert!(told.contains(word), "{told}");
    }
    assert!(!told.contains("marked"), "{told}");
    // What touches no network does not mind.
    let mut command = company.command(&["status"], "");
    let status = command.env("https_proxy", "socks5://a").output();
    assert!(status.expect("it runs").status.success());
}

#[test]
fn s06_the_login_of_a_proxy_shows_nowhere_at_any_level() {
    let company = Company::new();
    let mut shown = String::new();
    for act in [None, Some(Act::Answer("HTTP/1.1 407 No\r\n\r\n"))] {
        company.proxy.will(act);
        let mut command = company.command(&["doctor"], "ada-marked:p%40ss-marked@");
        let output = command.env("RUST_LOG", "trace").output().expect("it runs");
        shown += &(printed(&output) + &errors(&output));
    }
    let serving = company.world.serve_with(|command| {
        let url = company.proxy.url("ada-marked:p%40ss-marked@");
        command
            .envs([("HTTPS_PROXY", &*url), ("RUST_LOG", "trace")])
            .arg("--verbose");
    });
    assert_eq!(serving.get("/users").status, 200);
    shown += &serving.stop();
    assert!(
        shown.contains("DEBUG") && shown.contains("opened a tunnel"),
        "{shown}"
    );
    let heads = company.proxy.heads();
    const ENCODED: &str = "YWRhLW1hcmtlZDpwQHNzLW1hcmtlZA==";
    assert!(
        heads.iter().all(|head| head.contains(ENCODED)),
        "it was sent: {heads:?}"
    );
    for secret in ["marked", ENCODED] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// What doctor found: its checks by name, as verdict, what was seen and advice.
fn doctor(company: &Company, prepare: impl FnOnce(&mut Command)) -> BTreeMap<String, [String; 3]> {
    let mut command = company.command(&["doctor", "--json"], "ada:p%40ss@");
    prepare(&mut command);
    let output = command.output().expect("it runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = found["checks"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = checks.iter().map(|check| {
        let said = [&check["verdict"], &check["seen"], &check["advice"]].map(text);
        (text(&check["name"]), said)
    });
    named.collect()
}

#[track_caller]
fn assert_says(said: &[String; 3], verdict: &str, words: &[&str]) {
    assert_eq!(said[0], verdict, "{said:?}");
    for word in words {
        assert!(
            said[1..].iter().any(|text| text.contains(word)),
            "{word}: {said:?}"
        );
    }
}

#[test]
fn doctor_goes_the_way_of_requests_and_tells_it() {
    for start in [ConnectProxy::start, ConnectProxy::over_tls] {
        let company = Company::of(World::logged_in(), start);
        let found = doctor(&company, |_| {});
        let name = format!("the proxy {} (HTTPS_PROXY)", company.proxy.url(""));
        let opens = format!("{name} opens a tunnel to {}", company.target());
        let itself = format!("{name}, which looks {NAME} up itself");
        assert_says(&found["upstream_name"], "ok", &[&itself]);
        assert_says(
            &found["upstream_port"],
            "ok",
            &["accepts connections", &opens],
        );
        let words = [
            "a certificate for lucid.test",
            "judged with upstream.ca_file=ca.pem",
        ];
        assert_says(&found["upstream_tls"], "ok", &words);
        assert_says(&found["refresh_token"], "ok", &["alive"]);
        assert_says(&found["profile"], "ok", &["user 4711"]);
        let heads = company.proxy.heads();
        assert!(heads.iter().all(|head| head.contains(LOGIN)), "{heads:?}");
        let counts = company.world.sandbox.counts();
        assert_eq!((counts.introspections, counts.api_requests), (2, 1));
        assert_eq!(counts.problems, [""; 0]);
    }
}

#[test]
fn doctor_names_the_proxy_where_it_leads_no_further() {
    const REFUSED: &str = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let company = Company::new();
    company.proxy.will([Act::Answer(REFUSED)]);
    let found = doctor(&company, |_| {});
    assert_says(&found["upstream_name"], "ok", &[]);
    let words = [
        "does not accept the user and password",
        "correct them in HTTPS_PROXY",
    ];
    assert_says(&found["upstream_port"], "failed", &words);
    for name in ["upstream_tls", "token_endpoint", "profile"] {
        assert_says(&found[name], "skipped", &["upstream port failed"]);
    }

    let gone = format!("http://127.0.0.1:{}", closed_port());
    let found = doctor(&company, |command| {
        command.env("HTTPS_PROXY", &gone);
    });
    let words = ["Connection refused", "check HTTPS_PROXY, the network"];
    assert_says(&found["upstream_port"], "failed", &words);

    let found = doctor(&company, |command| {
        command.env("HTTPS_PROXY", "http://nobody.invalid");
    });
    let words = [
        "nobody.invalid cannot be looked up",
        "check HTTPS_PROXY and the name service",
    ];
    assert_says(&found["upstream_name"], "failed", &words);

    let found = doctor(&company, |command| {
        command.env("HTTPS_PROXY", "socks5://127.0.0.1:1080");
    });
    assert_says(&found["configuration"], "failed", &["HTTPS_PROXY: SOCKS"]);
    for name in [
        "upstream_name",
        "upstream_port",
        "upstream_tls",
        "token_endpoint",
    ] {
        assert_says(&found[name], "skipped", &["configuration failed"]);
    }

    let untrusting = Company::of(World::logged_in(), ConnectProxy::over_tls);
    untrusting
        .front
        .write_bundle(&untrusting.world.directory.path().join("ca.pem"));
    let found = doctor(&untrusting, |_| {});
    let words = [
        "no trusted TLS connection to the proxy https://localhost:",
        "upstream.ca_file",
    ];
    assert_says(&found["upstream_port"], "failed", &words);
}
