//! Programs that have `https://api.lucid.co` written into them.

use std::io::Read;
use std::process::Command;

use super::{Run, assert_code};
use crate::world::{NOBODY, World, errors, is_root, is_there, missing, printed};
use std::os::unix::process::CommandExt;

const PROFILE: &str = "https://api.lucid.co/users/me/profile";

/// Runs a script with the stand-in, whose user is called Ada.
#[track_caller]
fn in_sandbox(world: &World, arguments: &[&str]) -> String {
    let output = world.exec_output(&[&["--sandbox", "--"], arguments].concat());
    assert_code(&output, 0);
    printed(&output)
}

#[test]
fn curl_and_python_reach_the_stand_in_without_an_account() {
    let world = World::new();
    for version in ["--http1.1", "--http2"] {
        let seen = in_sandbox(&world, &["curl", "-sS", "--fail", version, PROFILE]);
        assert!(seen.contains("Ada"), "{seen}");
    }
    let script = format!("import urllib.request as r; print(r.urlopen('{PROFILE}').read())");
    let seen = in_sandbox(&world, &["python3", "-c", &script]);
    assert!(seen.contains("Ada"), "{seen}");
    assert!(!world.state().exists(), "nothing real is touched");
    assert!(world.left().is_empty());
}

#[test]
fn with_the_stand_in_nothing_leads_to_lucids_other_hosts() {
    let host = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = host.local_addr().expect("an address");
    let script = format!(
        "for host in https://users.lucid.app https://lucid.co https://api.lucidgov.app http://lucid.app; do
            curl -s -o /dev/null -w '%{{http_connect}}%{{http_code}} ' $host/; done; \
        curl -s --noproxy '' --proxytunnel --max-time 1 -o /dev/null -w '%{{http_connect}}' http://{other}/; true"
    );
    let seen = in_sandbox(&World::new(), &["sh", "-c", &script]);
    assert_eq!(seen, "403000 403000 403000 000403 200");
}

#[test]
fn a_token_that_dies_in_the_middle_is_not_noticed() {
    let world = World::logged_in();
    let script = format!(
        "set -e; read line; curl -sS --fail {PROFILE} > /dev/null; echo one; read line; curl -sS --fail {PROFILE} > /dev/null; echo two; read line || exit 6"
    );
    let mut run = Run::start(world.exec(&["--", "sh", "-c", &script]));
    for said in ["one", "two"] {
        run.say("on");
        assert_eq!(run.line(), said);
        world.sandbox.expire_access_tokens();
    }
    assert_eq!(run.end().0.code(), Some(6));
    assert_eq!(world.stored()["generation"], 2, "refreshed once");
}

#[test]
fn a_node_that_looks_at_no_variable_comes_all_the_same() {
    if !is_there("node", &["--version"]) {
        return missing("node");
    }
    let world = World::new();
    let fetch = format!(
        "(async () => {{
            for (const n of [1, 2]) console.log((await (await fetch('{PROFILE}')).json()).fullName);
            const r = await fetch('https://api.lucid.co/documents/search', {{method: 'POST', body: '{{}}', headers: {{'content-type': 'application/json'}}}});
            console.log(r.status);
        }})()"
    );
    assert_eq!(
        in_sandbox(&world, &["node", "-e", &fetch]),
        "Ada Demo\nAda Demo\n200\n"
    );
    let https = format!(
        "require('https').get('{PROFILE}', (r) => {{ r.resume(); r.on('end', () => console.log(r.statusCode)); }})"
    );
    assert_eq!(in_sandbox(&world, &["node", "-e", &https]), "200\n");
    let esm = format!(
        "import {{ get }} from 'node:https'; get('{PROFILE}', (r) => {{ r.resume(); r.on('end', () => console.log(r.statusCode)); }})"
    );
    let module = ["node", "--input-type=module", "-e", &esm];
    assert_eq!(in_sandbox(&world, &module), "200\n");
}

#[test]
fn a_node_that_is_refused_says_by_whom() {
    if !is_there("node", &["--version"]) {
        return missing("node");
    }
    let world = World::new();
    let script = format!(
        "fetch('{PROFILE}').then(() => console.log('no error'), (e) => console.log(e.cause.message))"
    );
    let run =
        format!("HTTPS_PROXY=$(echo $HTTPS_PROXY | sed s/exec:lpk_/exec:/) node -e \"{script}\"");
    let seen = in_sandbox(&world, &["sh", "-c", &run]);
    assert_eq!(
        seen,
        "lucid-proxy refused the connection: HTTP/1.1 407 Proxy Authentication Required\n"
    );
}

#[test]
fn wget_which_reads_no_variable_for_its_trust_gets_a_file() {
    if !is_there("wget", &["--version"]) {
        return missing("wget");
    }
    let seen = in_sandbox(&World::new(), &["wget", "-qO-", PROFILE]);
    assert!(seen.contains("Ada"), "{seen}");
}

#[test]
fn java_which_sends_no_login_is_known_by_its_user() {
    if !is_there("java", &["-version"]) {
        return missing("java");
    }
    let world = World::new();
    let source = format!(
        "import java.net.*; import java.net.http.*;
        public class Calls {{ public static void main(String[] a) throws Exception {{
            var uri = URI.create(\"{PROFILE}\");
            var request = HttpRequest.newBuilder(uri).build();
            System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.discarding()).statusCode());
            System.out.println(((HttpURLConnection) uri.toURL().openConnection()).getResponseCode());
        }} }}"
    );
    let file = world.directory.path().join("Calls.java");
    std::fs::write(&file, source).expect("written");
    let file = file.display().to_string();
    assert_eq!(in_sandbox(&world, &["java", &file]), "200\n200\n");
}

#[test]
fn s01_the_base_url_is_for_programs_of_this_user_alone() {
    let world = World::logged_in();
    let script = "echo $LUCID_BASE_URL; read line || true";
    let exec = world.exec(&["--", "sh", "-c", script]);
    let mut run = Run::heard(exec);
    let mut said = run.child.stderr.take().expect("piped");
    let url = format!("{}/users/me/profile", run.line());
    let curl = |user: Option<u32>| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--noproxy",
            "*",
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            &url,
        ]);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.output().expect("curl")
    };
    assert_eq!(printed(&curl(None)), "200");
    if is_root() {
        for _ in 0..3 {
            let refused = curl(Some(NOBODY));
            assert_eq!(printed(&refused), "000", "{}", errors(&refused));
        }
        assert_eq!(world.sandbox.counts().api_requests, 1);
    }
    assert!(run.end().0.success());
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    let times = text.matches("a connection of another user was closed");
    assert_eq!(times.count(), usize::from(is_root()), "{text}");
}

#[test]
fn s04_the_proxy_of_a_run_asks_for_its_key() {
    let world = World::new();
    let script = format!(
        "at=${{HTTPS_PROXY#*@}}; key=${{HTTPS_PROXY%@*}}; key=${{key##*:}}
        curl -s -o /dev/null -w '%{{http_connect}} ' {PROFILE}
        for login in '' exec:wrong@ other:$key@; do
            curl -s -o /dev/null -w '%{{http_connect}} ' --proxy http://${{login}}$at {PROFILE}
        done
        curl -s -o /dev/null -w '%{{http_code}}' http://$at/users/me/profile; true"
    );
    let seen = in_sandbox(&world, &["sh", "-c", &script]);
    assert_eq!(seen, "200 407 407 407 401");
}
