//! The proxy as a forward proxy: who may use it so, where it leads, and what passes.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lucid_proxy::config::{Config, KeyHash, KnownClient, Need, Rules};
use lucid_proxy::intercept::own_user;
use lucid_proxy::sandbox::{CLIENT_ID, CLIENT_SECRET};
use lucid_proxy::server::{Running, Server};

use crate::connecting::{closed_port, serve_with_hosts};
use crate::world::connect_proxy::{Act, ConnectProxy};
use crate::world::raw_upstream::RawUpstream;
use crate::world::{Client, Response, SOON, Serving, World};

/// What makes a listener a forward proxy.
pub(crate) const ENABLED: &str = "[intercept]\nenabled = true\n";
const KEY: &str = "lpk_marked-key-of-the-run";

fn forward_proxy(tables: &str) -> (World, Serving) {
    let mut world = World::logged_in();
    world.tables = format!("{ENABLED}{tables}");
    let serving = world.serve();
    (world, serving)
}

/// CONNECT to an authority, with more fields.
fn connect(address: SocketAddr, authority: &str, fields: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n").as_bytes(),
    );
    client
}

fn refused(address: SocketAddr, authority: &str, fields: &str) -> Response {
    let mut client = connect(address, authority, fields);
    let response = client.response();
    assert_eq!(response.header("connection"), Some("close"), "{authority}");
    assert!(client.is_closed(), "{authority}");
    response
}

#[track_caller]
fn assert_refused(response: &Response, status: u16, code: &str, message: &str) {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.code(), code, "{text}");
    assert!(text.contains(message), "{message}: {text}");
    let line = response.header("proxy-status").expect("a field");
    assert!(line.starts_with("lucid-proxy; error="), "{line}");
}

#[test]
fn without_interception_nothing_is_changed_but_the_words() {
    let world = World::logged_in();
    let serving = world.serve();
    let connect = refused(serving.address, "api.lucid.co:443", "");
    assert_refused(&connect, 403, "policyDenied", "[intercept] enabled = true");
    let mut client = serving.connect();
    client.send(b"GET http://api.lucid.co/users HTTP/1.1\r\nHost: api.lucid.co\r\n\r\n");
    assert_refused(&client.response(), 403, "hostNotAllowed", "allow_hosts");
    assert!(
        !world.state().join("ca.pem").exists(),
        "no authority is made"
    );
    assert_eq!(serving.get("/users/me/profile").status, 200);
}

#[test]
fn a_shared_listener_is_no_open_proxy() {
    let (world, serving) = forward_proxy("allow_tunnels = [\"files.example:443\"]\n");
    for (authority, message) in [
        (
            "files.example:8443",
            "allow_tunnels = [\\\"files.example:8443\\\"]",
        ),
        ("evil.example:443", "NO_PROXY=evil.example"),
        ("api.lucid.co:22", "port 22"),
        ("evil.example:22", "port 22"),
        ("api.lucid.co:8443", "port 8443 is not"),
        ("127.0.0.1:443", "no tunnel leads to an address"),
        ("[::1]:443", "no tunnel leads to an address"),
        ("169.254.169.254:80", "no tunnel leads to an address"),
        ("0x7f.1:443", "no tunnel leads to an address"),
        ("localhost:443", "NO_PROXY=localhost"),
    ] {
        let response = refused(serving.address, authority, "");
        assert_refused(&response, 403, "policyDenied", message);
    }
    let own = serving.address.to_string();
    let response = refused(serving.address, &own, "");
    assert_refused(
        &response,
        403,
        "policyDenied",
        "no tunnel leads to an address",
    );
    let mut client = serving.connect();
    client.send(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_refused(
        &client.response(),
        403,
        "policyDenied",
        "allow_tunnels = [\\\"evil.example:80\\\"]",
    );
    // The positive control, and that its own address is still its own in every form.
    assert_eq!(
        connect(serving.address, "api.lucid.co:443", "")
            .head()
            .status,
        200
    );
    let mut client = serving.connect();
    client.send(
        format!("GET http://{own}/users/me/profile HTTP/1.1\r\nHost: {own}\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.response().status, 200);
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn what_is_no_connect_is_refused_with_400() {
    let (_world, serving) = forward_proxy("");
    for (authority, fields, message) in [
        ("api.lucid.co", "", "a port, which CONNECT always has"),
        ("api.lucid.co:0", "", "a port"),
        ("user:marked@api.lucid.co:443", "", "a port"),
        (
            "api.lucid.co:443",
            "Host: evil.example\r\n",
            "name different hosts",
        ),
        (
            "api.lucid.co:443",
            "Content-Length: 2\r\n\r\nhi",
            "without content",
        ),
        (
            "api.lucid.co:443",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n",
            "without content",
        ),
    ] {
        let response = refused(serving.address, authority, fields);
        assert_refused(&response, 400, "badRequest", message);
        assert!(!response.text().contains("marked"), "{}", response.text());
    }
    for host in ["evil.example:443", "api.lucid.co:80", "a, b"] {
        let mut client = serving.connect();
        client
            .send(format!("CONNECT api.lucid.co:443 HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_refused(&client.response(), 400, "badRequest", "different hosts");
    }
    for head in [
        "CONNECT api.lucid.co:443 HTTP/1.1\r\nHost: api.lucid.co\r\nContent-Length: 0\r\n\r\n",
        "CONNECT API.LUCID.CO:443 HTTP/1.1\r\nHost: api.lucid.co:443\r\n\r\n",
        "CONNECT api.lucid.co:443 HTTP/1.0\r\n\r\n",
    ] {
        let mut client = serving.connect();
        client.send(head.as_bytes());
        let response = client.head();
        assert_eq!(response.status, 200, "{head}");
        for name in ["content-length", "transfer-encoding", "connection"] {
            assert_eq!(response.header(name), None, "{head}");
        }
    }
}

#[test]
fn a_name_that_stands_for_a_private_address_leads_nowhere() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = far.local_addr().expect("it listens").port();
    let mut world = World::logged_in();
    let names = ["lan", "metadata", "metadata6", "own", "mixed", "open"];
    let allowed = names.map(|name| format!("\"{name}.example:{port}\""));
    world.tables = format!("{ENABLED}allow_tunnels = [{}]\n", allowed.join(", "));
    world.upstream_keys = "connect_timeout = \"1s\"\n".to_owned();
    let hosts = "127.0.0.1 own.example\n10.0.0.1 lan.example\n169.254.169.254 metadata.example\n\
        fd00:ec2::254 metadata6.example\n127.0.0.1 mixed.example\n192.0.2.1 mixed.example\n";
    let Some(serving) = serve_with_hosts(&world, hosts) else {
        return;
    };
    for (name, message) in [
        (
            "own",
            "own.example stands for 127.0.0.1, which is this machine's own",
        ),
        ("lan", "10.0.0.1, which is private"),
        ("metadata", "169.254.169.254, which is link-local"),
        ("metadata6", "fd00:ec2::254, which is private"),
    ] {
        let authority = format!("{name}.example:{port}");
        let response = refused(serving.address, &authority, "");
        assert_refused(&response, 403, "policyDenied", message);
        let status = response.header("proxy-status").expect("a field");
        assert!(
            status.contains("error=destination_ip_prohibited"),
            "{status}"
        );
        let mut client = serving.connect();
        client.send(
            format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes(),
        );
        assert_refused(&client.response(), 403, "policyDenied", message);
    }
    // What is left of a name's addresses is tried, and nothing else: nobody answers at this one.
    let response = refused(serving.address, &format!("mixed.example:{port}"), "");
    let text = response.text();
    assert!(matches!(response.status, 502 | 504), "{text}");
    assert!(
        text.contains("192.0.2.1") && !text.contains("127.0.0.1"),
        "{text}"
    );
    far.set_nonblocking(true).expect("a socket");
    let came = far.accept().map_err(|error| error.kind());
    assert_eq!(came.err(), Some(std::io::ErrorKind::WouldBlock));
}

/// A login as a proxy is told it.
fn login(name: &str, key: &str) -> String {
    let login = STANDARD.encode(format!("{name}:{key}"));
    format!("Proxy-Authorization: Basic {login}\r\n")
}

#[test]
fn s04_a_proxys_clients_say_who_they_are_in_front_of_the_tunnel() {
    let mut world = World::logged_in();
    fs::write(world.directory.path().join("ci.key"), KEY).expect("written");
    world.tables = format!("{ENABLED}[clients.ci]\nkey_file = \"ci.key\"\n");
    let serving = world.serve();
    for fields in [
        String::new(),
        format!("Authorization: Bearer {KEY}\r\n"),
        login("ci", "lpk_another-key-that-is-wrong"),
        login("other", KEY),
        "Proxy-Authorization: Basic !\r\n".to_owned(),
        format!("{}{}", login("ci", KEY), login("ci", KEY)),
    ] {
        let absolute = || {
            let mut client = serving.connect();
            let head = format!(
                "GET http://api.lucid.co/users/me/profile HTTP/1.1\r\nHost: api.lucid.co\r\n{fields}\r\n"
            );
            client.send(head.as_bytes());
            client.response()
        };
        // Strangers are not told where it would lead.
        for response in [
            refused(serving.address, "api.lucid.co:443", &fields),
            refused(serving.address, "evil.example:22", &fields),
            absolute(),
        ] {
            assert_refused(&response, 407, "clientKeyRequired", "Proxy-Authorization");
            let challenge = response.header("proxy-authenticate");
            assert_eq!(challenge, Some("Basic realm=\"lucid-proxy\""));
            assert_eq!(response.header("www-authenticate"), None);
        }
    }
    for fields in [
        login("ci", KEY),
        format!("Proxy-Authorization: Bearer {KEY}\r\n"),
    ] {
        let mut client = connect(serving.address, "api.lucid.co:443", &fields);
        assert_eq!(client.head().status, 200);
        let mut client = serving.connect();
        let head = format!(
            "GET http://api.lucid.co/users/me/profile HTTP/1.1\r\nHost: api.lucid.co\r\n{fields}\r\n"
        );
        client.send(head.as_bytes());
        assert_eq!(client.response().status, 200);
    }
    assert!(!serving.log().contains("marked"), "{}", serving.log());
    // Without a proxy in between nothing has changed.
    assert_eq!(serving.get("/users/me/profile").status, 401);
}

#[test]
fn in_absolute_form_the_api_is_served_as_by_any_other_way() {
    let (upstream, mut world) = World::before_raw_upstream();
    let origin = upstream.origin();
    let links = format!(
        "HTTP/1.1 200 OK\r\nLink: <{origin}/x?page=2>; rel=\"next\"\r\nLocation: https://api.lucid.co/y\r\nContent-Length: 2\r\n\r\nok"
    );
    let seen = upstream.answering(Box::leak(links.into_bytes().into_boxed_slice()));
    world.top = "public_url = \"https://elsewhere.example\"\n".to_owned();
    world.tables = format!("{ENABLED}[guard]\nallow_origins = [\"https://page.example\"]\n");
    let serving = world.serve();
    let mut client = serving.connect();
    // Old versions of axios leave TLS to the proxy.
    for scheme in ["http", "https", "http"] {
        client.send(format!("GET {scheme}://api.lucid.co/x?a=b HTTP/1.1\r\nHost: api.lucid.co\r\nProxy-Connection: keep-alive\r\nAuthorization: Bearer stale\r\n\r\n").as_bytes());
        let response = client.response();
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("link"),
            Some(&*format!(
                "<{scheme}://api.lucid.co/x?page=2>; rel=\"next\""
            ))
        );
        assert_eq!(response.header("location"), Some("https://api.lucid.co/y"));
        let request = seen.recv_timeout(SOON).expect("a request");
        let request = String::from_utf8_lossy(&request).into_owned();
        let token = world.stored()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        assert!(request.starts_with("GET /x?a=b HTTP/1.1\r\n"), "{request}");
        let bearer = format!("authorization: Bearer {token}\r\n");
        assert!(request.contains(&bearer), "{request}");
        assert!(!request.contains("roxy-connection"), "{request}");
    }
    let mut other = serving.connect();
    other.send(b"GET https://files.example/ HTTP/1.1\r\nHost: files.example\r\n\r\n");
    let why = "CONNECT files.example:443";
    assert_refused(&other.response(), 403, "policyDenied", why);
    // What a page sends is refused there too.
    client.send(b"GET http://api.lucid.co/x HTTP/1.1\r\nHost: api.lucid.co\r\nOrigin: https://evil.example\r\n\r\n");
    assert_refused(&client.response(), 403, "originNotAllowed", "evil.example");
    client.send(b"OPTIONS http://api.lucid.co/x HTTP/1.1\r\nHost: api.lucid.co\r\nOrigin: https://page.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
    let preflight = client.response();
    assert_eq!(preflight.status, 204);
    let allowed = preflight.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://page.example"));
    assert!(seen.try_recv().is_err(), "upstream sees no preflight");
}

/// A world whose proxy reaches others through a company's proxy, whose tunnels lead to `behind`.
fn behind_a_company(behind: SocketAddr, tables: &str) -> (ConnectProxy, World, Serving) {
    let company = ConnectProxy::start(behind);
    let mut world = World::logged_in();
    world.upstream_keys = format!("proxy = \"{}\"\n", company.url(""));
    world.tables = format!(
        "{ENABLED}allow_tunnels = [\"files.example:443\", \"files.example:80\"]\n[log]\nrequests = true\n{tables}"
    );
    let serving = world.serve();
    (company, world, serving)
}

/// Bytes that pass both ways, and the end of each way.
fn passes_both_ways(client: &mut Client, far: &TcpListener) {
    let (mut far, _) = far.accept().expect("a connection");
    far.set_read_timeout(Some(SOON)).expect("a timeout");
    client.send(b"GET / HTTP/1.1\r\n\r\n\x16\x03\n");
    client.finish();
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).expect("an end");
    assert_eq!(bytes, b"GET / HTTP/1.1\r\n\r\n\x16\x03\n");
    far.write_all(b"after the other end")
        .expect("half of it is open");
    far.shutdown(Shutdown::Write).expect("an end");
    let mut bytes = Vec::new();
    assert!(client.rest(&mut bytes), "an end in order");
    assert_eq!(bytes, b"after the other end");
}

#[test]
fn an_allowed_tunnel_goes_by_the_companys_proxy_and_is_logged_once_at_its_end() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (company, world, serving) = behind_a_company(far.local_addr().expect("it listens"), "");
    let mut client = connect(serving.address, "Files.example:443", "User-Agent: x\r\n");
    assert_eq!(client.head().status, 200);
    passes_both_ways(&mut client, &far);
    serving.wait_for_log(" out ");
    let log = serving.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" out ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in [
        "CONNECT  200 ",
        " 21 B in ",
        " 19 B out ",
        " Files.example:443",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    let heads = company.heads();
    assert!(
        heads[0].starts_with("CONNECT files.example:443 HTTP/1.1\r\n"),
        "{heads:?}"
    );
    assert!(!heads[0].contains("User-Agent: x"), "{heads:?}");
    company.will([Act::Answer("HTTP/1.1 403 Forbidden\r\n\r\n")]);
    let response = refused(serving.address, "files.example:443", "");
    assert_refused(
        &response,
        502,
        "upstreamUnreachable",
        "refused a tunnel to files.example:443",
    );
    assert_eq!(world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn f12_a_tunnel_on_which_nothing_moves_ends() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = far.local_addr().expect("it listens");
    let (_company, _world, serving) = behind_a_company(address, "[timeouts]\ntunnel = \"200ms\"\n");
    let mut client = connect(serving.address, "files.example:443", "");
    assert_eq!(client.head().status, 200);
    let (mut far, _) = far.accept().expect("a connection");
    assert!(client.is_closed());
    assert_eq!(far.read(&mut [0]).unwrap_or(0), 0);
    serving.wait_for_log("nothing moved for 200ms (timeouts.tunnel)");
}

#[test]
fn an_open_tunnel_does_not_hold_up_the_end_for_longer_than_the_drain() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = far.local_addr().expect("it listens");
    let (_company, _world, serving) = behind_a_company(address, "[timeouts]\ndrain = \"100ms\"\n");
    let mut client = connect(serving.address, "files.example:443", "");
    assert_eq!(client.head().status, 200);
    let _far = far.accept().expect("a connection");
    let log = serving.stop();
    assert!(log.contains("(timeouts.drain) and are cut"), "{log}");
    assert!(client.is_closed());
}

#[test]
fn s07_tunnels_are_counted_among_the_connections() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = far.local_addr().expect("it listens");
    let (_company, _world, serving) = behind_a_company(address, "[limits]\nconnections = 1\n");
    let mut client = connect(serving.address, "files.example:443", "");
    assert_eq!(client.head().status, 200);
    let far = far.accept().expect("a connection");
    assert_eq!(serving.get("/users/me/profile").status, 503);
    drop((client, far));
    serving.wait_until(|serving| serving.get("/users/me/profile").status == 200);
}

/// A server as `exec` has one, with the address of its listener.
struct Private {
    world: World,
    running: Option<Running>,
    address: SocketAddr,
}

impl Private {
    fn start() -> Self {
        let world = World::logged_in();
        let environment = std::collections::BTreeMap::from([
            (
                "STATE_DIRECTORY".to_owned(),
                world.state().display().to_string(),
            ),
            ("LUCID_CLIENT_ID".to_owned(), CLIENT_ID.to_owned()),
            ("LUCID_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned()),
        ]);
        let path = world.configure();
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\n{}",
            fs::read_to_string(path).expect("it was written")
        );
        let config = Config::parse(&text, None, &environment, Need::Everything);
        let mut config = config.expect("a configuration");
        config.intercept.private = true;
        config.clients = vec![KnownClient {
            name: "exec".to_owned(),
            key: Some(KeyHash::of(KEY.as_bytes())),
            rules: Rules::default(),
        }];
        let server = Server::bind(&config).expect("a server");
        let address = server.endpoints()[0].tcp().expect("an address");
        let running = Some(server.start().expect("it starts"));
        Self {
            world,
            running,
            address,
        }
    }

    fn tunnel(&self, authority: &str) -> Client {
        connect(self.address, authority, &login("exec", KEY))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let running = self.running.take().expect("it is stopped once");
        assert!(running.shutdown());
    }
}

#[test]
fn the_listener_of_one_program_leads_everywhere_with_its_credential() {
    let private = Private::start();
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = far.local_addr().expect("it listens").port();
    for authority in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let mut client = private.tunnel(&authority);
        assert_eq!(client.head().status, 200, "{authority}");
        passes_both_ways(&mut client, &far);
        let response = refused(private.address, &authority, "");
        assert_refused(&response, 407, "clientKeyRequired", "");
    }
    let closed = closed_port();
    let response = private.tunnel(&format!("127.0.0.1:{}", closed)).response();
    assert_refused(&response, 502, "upstreamUnreachable", "refused");
    assert!(
        !response.text().contains("upstream.url"),
        "{}",
        response.text()
    );
    let response = private.tunnel("name.invalid:443").response();
    assert_refused(&response, 502, "upstreamUnreachable", "name.invalid");
    // By its own address it asks for the key too where another listener lets in its user alone, and serves no page at all.
    let mut client = Client::connect(private.address);
    let without = match own_user::IS_TOLD {
        true => 401,
        false => 200,
    };
    let profile = "GET /users/me/profile";
    assert_eq!(client.ask(profile, &[], b"").status, without);
    let key = format!("Authorization: Bearer {KEY}");
    assert_eq!(client.ask(profile, &[&key], b"").status, 200);
    let page = client.ask("GET /users", &["Origin: https://evil.example"], b"");
    assert_refused(&page, 403, "originNotAllowed", "");
    assert_eq!(private.world.sandbox.counts().problems, [""; 0]);
}

#[test]
fn much_passes_through_a_tunnel_both_ways_at_once() {
    const LENGTH: usize = 8 << 20;
    let private = Private::start();
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = private.tunnel(&far.local_addr().expect("it listens").to_string());
    assert_eq!(client.head().status, 200);
    let (mut far, _) = far.accept().expect("a connection");
    let (mut up, mut down) = (client.second_handle(), far.try_clone().expect("a handle"));
    let up = std::thread::spawn(move || up.write_all(&vec![1; LENGTH]));
    let down = std::thread::spawn(move || down.write_all(&vec![2; LENGTH]));
    let reader = std::thread::spawn(move || client.take(LENGTH));
    let mut received = vec![0; LENGTH];
    far.read_exact(&mut received).expect("all of it");
    assert!(received.iter().all(|byte| *byte == 1));
    up.join().expect("no panic").expect("sent");
    down.join().expect("no panic").expect("sent");
    assert_eq!(reader.join().expect("no panic"), LENGTH);
}

/// A request in absolute form through the private listener, as it was sent.
fn onward(private: &Private, upstream: &RawUpstream, fields: &str, body: &[u8]) -> Client {
    let host = upstream.origin();
    let host = host.strip_prefix("http://").expect("plain");
    let mut client = Client::connect(private.address);
    let head = format!(
        "POST http://{host}/x?a=%2f HTTP/1.1\r\nHost: {host}\r\n{}{fields}\r\n",
        login("exec", KEY)
    );
    client.send(&[head.as_bytes(), body].concat());
    client
}

#[test]
fn f01_f02_a_plain_request_for_another_host_is_passed_on_without_our_token() {
    let private = Private::start();
    let upstream = RawUpstream::start();
    let fields = "Connection: X-Hop\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n\
        Authorization: Basic dGhlaXJzOm93bg==\r\nX-Kept: é\r\nContent-Length: 4\r\n";
    let mut client = onward(&private, &upstream, fields, b"body");
    let mut connection = upstream.accept();
    let request = connection.request();
    let request = String::from_utf8_lossy(&request).into_owned();
    let host = upstream.origin().replace("http://", "");
    assert!(
        request.starts_with("POST /x?a=%2f HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\nbody"), "{request}");
    for line in [
        format!("host: {host}"),
        "authorization: Basic dGhlaXJzOm93bg==".to_owned(),
        "via: 1.1 lucid-proxy".to_owned(),
        "connection: close".to_owned(),
    ] {
        assert_eq!(
            request.matches(&format!("{line}\r\n")).count(),
            1,
            "{line}: {request}"
        );
    }
    let token = private.world.stored()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    for absent in [
        "x-hop",
        "proxy-",
        "upgrade",
        &token,
        "marked",
        "lucid-api-version",
    ] {
        assert!(!request.contains(absent), "{absent}: {request}");
    }
    assert!(
        request.contains("x-kept: "),
        "the positive control: {request}"
    );
    connection.send(b"HTTP/1.1 302 Found\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLocation: http://a.example/\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(b"2\r\nab\r\n");
    let response = client.head();
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("http://a.example/"));
    assert_eq!(response.header("via"), Some("1.1 lucid-proxy"));
    assert_eq!(response.header("x-hop"), None);
    assert_eq!(response.all("set-cookie"), [b"a", b"b"]);
    // It streams: this came before the rest was sent.
    assert_eq!(client.until(b"ab\r\n"), b"2\r\nab\r\n");
    connection.send(b"0\r\n\r\n");
    assert_eq!(client.until(b"0\r\n\r\n"), b"0\r\n\r\n");
}

#[test]
fn f13_an_answer_that_breaks_off_reaches_the_client_broken_off() {
    let private = Private::start();
    let upstream = RawUpstream::start();
    let mut client = onward(
        &private,
        &upstream,
        "Transfer-Encoding: chunked\r\n",
        b"2\r\nhi\r\n0\r\n\r\n",
    );
    let mut connection = upstream.accept();
    let request = connection.request();
    assert!(
        request.ends_with(b"2\r\nhi\r\n0\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&request)
    );
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    drop(connection);
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(!response.complete);
}

#[test]
fn what_another_host_does_wrong_is_told_of_it() {
    let private = Private::start();
    for (answer, message) in [
        (&b"nonsense\r\n\r\n"[..], "is not HTTP"),
        (b"", "ended before it answered"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "switched",
        ),
    ] {
        let upstream = RawUpstream::start();
        let mut client = onward(&private, &upstream, "Content-Length: 0\r\n", b"");
        let mut connection = upstream.accept();
        connection.request();
        connection.send(answer);
        drop(connection);
        let response = client.response();
        assert_refused(&response, 502, "upstreamUnreachable", message);
        assert!(
            response
                .text()
                .contains("passing the request on to 127.0.0.1"),
            "{}",
            response.text()
        );
    }
    let looped = "Via: 1.1 lucid-proxy\r\nContent-Length: 0\r\n";
    let upstream = RawUpstream::start();
    assert_eq!(
        onward(&private, &upstream, looped, b"").response().status,
        508
    );
}

#[test]
fn a_thousand_tunnels_leave_nothing_behind() {
    let far = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = far.local_addr().expect("it listens");
    let (_company, _world, serving) = behind_a_company(address, "");
    let tunnel = || {
        let mut client = connect(serving.address, "files.example:443", "");
        assert_eq!(client.head().status, 200);
        let (far, _) = far.accept().expect("a connection");
        drop(far);
        assert!(client.is_closed());
    };
    let intercepted = || {
        let mut client = connect(serving.address, "api.lucid.co:443", "");
        assert_eq!(client.head().status, 200);
        client.finish();
        assert!(client.is_closed());
    };
    tunnel();
    intercepted();
    let before = serving.descriptors();
    for _ in 0..500 {
        tunnel();
        intercepted();
    }
    // The process has a few of its own, some of which it may have opened later.
    serving.wait_until(|serving| serving.descriptors() <= before + 20);
}
