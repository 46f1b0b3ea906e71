//! A real browser (rules S2 and S3): a page of another origin tries every way to use the proxy, by its address and under
//! a name of its own. In the same run the same page is served where its origin is allowed.

mod chromium;
mod site;

use crate::websocket::accept_key;
use crate::world::raw_upstream::RawUpstream;
use crate::world::{Serving, World};
use chromium::Chromium;
use site::Site;

/// Every way in which the page tries to send a request; the page has them under the same names.
const WAYS: [&str; 24] = [
    "fetch",
    "fetch-no-cors",
    "fetch-with-cookies",
    "post-json",
    "post-text",
    "post-no-cors",
    "put",
    "authorization",
    "redirected",
    "xhr",
    "xhr-post",
    "form-get",
    "form-post",
    "link",
    "frame",
    "image",
    "script",
    "module",
    "style",
    "video",
    "event-source",
    "socket",
    "beacon",
    "sandboxed",
];

/// A world whose proxy logs requests and serves the pages of this origin.
fn world(origin: &str) -> World {
    let mut world = World::logged_in();
    world.tables = format!("[log]\nrequests = true\n[guard]\nallow_origins = [\"{origin}\"]\n");
    world
}

/// Follows the page through all ways. Each must have reached the proxy, have been refused with this code, and have left
/// upstream alone.
fn assert_refused(site: &Site, world: &World, serving: &Serving, code: &str) {
    for way in WAYS {
        let step = site.next();
        assert_eq!(step.way, way, "{}", serving.log());
        serving.wait_for_log(&format!("/sandbox/echo/{way}  {code}"));
        assert!(!step.outcome.contains("200"), "{way}: {}", step.outcome);
        let counts = world.sandbox.counts();
        assert_eq!(counts.api_requests, 0, "{way}: {}", serving.log());
        step.go_on();
    }
    assert_eq!(site.next().done().way, "end");
}

/// An upstream that opens a WebSocket and says `hello` on it.
fn talk(upstream: &RawUpstream) {
    let mut connection = upstream.accept();
    let request = connection.request();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(&request)
    );
    connection.send(&[head.as_bytes(), b"\x81\x05hello"].concat());
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    assert!(!request.contains("\r\norigin:"), "{request}");
}

#[test]
fn s03_a_browser_serves_no_stranger_whatever_its_page_tries_and_an_allowed_page_all_the_same() {
    let Some(program) = chromium::find() else {
        return;
    };
    let site = Site::start();
    let own = site.origin("localhost");
    let (world, mut socket_world) = (world(&own), world(&own));
    let serving = world.serve();
    let upstream = RawUpstream::start();
    socket_world.upstream = upstream.origin();
    let sockets = socket_world.serve();
    let base = format!("http://{}", serving.address);
    let control = format!(
        "{own}/page.html?allowed={base}&socket=http://{}/socket",
        sockets.address
    );
    let attack = site.origin("stranger.example");
    let attack = format!(
        "{attack}/page.html?attack={base}&next={}",
        control.replace('&', "%26")
    );
    let _chromium = Chromium::open(&program, "MAP stranger.example 127.0.0.1", &attack);
    assert_refused(&site, &world, &serving, "originNotAllowed");
    let told = |way: &str| {
        let step = site.next();
        assert_eq!(step.way, way, "{}", serving.log());
        step.done().outcome
    };
    assert_eq!(told("read"), "ada");
    let link = told("link");
    assert!(link.starts_with(&format!("<{base}/users?")), "{link}");
    let posted = told("post-json");
    assert!(posted.contains("\"body_length\":7"), "{posted}");
    serving.wait_for_log("OPTIONS  204");
    assert_eq!(told("authorization"), "cors 200");
    assert_eq!(told("delete"), "cors 200");
    let xhr = told("xhr");
    assert!(xhr.starts_with("200 "), "{xhr}");
    let refusal = told("refusal");
    assert!(refusal.starts_with("policyDenied lucid-proxy"), "{refusal}");
    let talking = std::thread::spawn(move || talk(&upstream));
    assert_eq!(told("socket"), "hello");
    talking.join().expect("no panic");
    assert_eq!(told("end"), "");
    let counts = world.sandbox.counts();
    assert_eq!(counts.api_requests, 6, "{}", serving.log());
    assert_eq!(counts.problems, Vec::<String>::new());
}

/// The name first leads to the page's server and then to the proxy, at the same port: to the browser it stays one origin,
/// and it sends what it is asked to without a word about pages.
#[test]
fn s02_a_browser_whose_page_has_its_name_rebound_to_the_proxy_gets_nothing() {
    let Some(program) = chromium::find() else {
        return;
    };
    let world = world("http://localhost:1");
    let serving = world.serve();
    let site = Site::rebinding_to(serving.address);
    let origin = site.origin("evil.example");
    let page = format!("{origin}/page.html?attack={origin}");
    let rule = format!("MAP evil.example {}", site.address.ip());
    let _chromium = Chromium::open(&program, &rule, &page);
    assert_refused(&site, &world, &serving, "hostNotAllowed");
    assert_eq!(serving.get("/users").status, 200, "{}", serving.log());
    assert_eq!(world.sandbox.counts().api_requests, 1);
}

#[test]
fn s03_what_a_person_types_into_the_address_bar_is_served() {
    let Some(program) = chromium::find() else {
        return;
    };
    let world = World::logged_in();
    let serving = world.serve();
    let url = format!("http://{}/users/me/profile", serving.address);
    let shown = Chromium::dump(&program, &url);
    assert!(shown.contains("\"username\":\"ada\""), "{shown}");
    assert!(world.sandbox.counts().api_requests > 0);
}
