//! TLS towards upstream and token endpoint, with the system's trust.

use crate::world::tls::TlsFront;
use crate::world::{Serving, World};

/// A proxy that reaches upstream and token endpoint over TLS, and trusts what `bundle` says.
fn serve(world: &mut World, front: &TlsFront, bundle: &str) -> Serving {
    world.upstream = front.origin();
    world.token_origin = front.origin();
    let bundle = world.directory.path().join(bundle);
    world.serve_with(|command| {
        command.env("SSL_CERT_FILE", bundle);
    })
}

fn world() -> (World, TlsFront) {
    let world = World::logged_in();
    let front = TlsFront::start(world.sandbox.address());
    front.write_bundle(&world.directory.path().join("trusted.pem"));
    TlsFront::start(world.sandbox.address())
        .write_bundle(&world.directory.path().join("other.pem"));
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = Some(front.origin()));
    (world, front)
}

#[test]
fn requests_and_refreshes_go_over_tls() {
    let (mut world, front) = world();
    let serving = serve(&mut world, &front, "trusted.pem");
    for _ in 0..3 {
        let response = serving.get("/users?pageSize=2");
        assert_eq!(response.status, 200, "{}", response.text());
        let link = response.header("link").expect("a next page");
        assert!(
            link.starts_with(&format!("<http://{}/users?", serving.address)),
            "{link}"
        );
        world.sandbox.expire_access_tokens();
    }
    let counts = world.sandbox.counts();
    assert_eq!((counts.rotations, counts.token_connections), (2, 2));
    assert_eq!(counts.problems, [""; 0]);
}

#[test]
fn a_certificate_that_is_not_trusted_gets_no_token() {
    let (mut world, front) = world();
    let serving = serve(&mut world, &front, "other.pem");
    let response = serving.get("/users");
    assert_eq!(
        (response.status, response.code().as_str()),
        (502, "upstreamUnreachable")
    );
    assert!(
        response.text().contains("no trusted TLS connection"),
        "{}",
        response.text()
    );
    drop(serving);
    let mut stored = world.stored();
    stored["expiration"] = "2020-01-01T00:00:00".into();
    world.write_store(stored.to_string().as_bytes());
    let response = serve(&mut world, &front, "other.pem").get("/users");
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "tokenUnavailable")
    );
    let counts = world.sandbox.counts();
    assert_eq!((counts.connections, counts.token_posts), (0, 0));
}

#[test]
fn without_any_trusted_certificate_the_start_says_what_to_install() {
    let (mut world, front) = world();
    world.upstream = front.origin();
    world.token_origin = front.origin();
    world.configure();
    std::fs::write(world.directory.path().join("empty.pem"), "").expect("written");
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let output = command
        .env("SSL_CERT_FILE", world.directory.path().join("empty.pem"))
        .env("SSL_CERT_DIR", world.directory.path().join("nowhere"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = crate::world::errors(&output);
    assert!(errors.contains("ca-certificates"), "{errors}");
}

#[test]
fn t05_a_ca_file_is_trusted_beside_the_systems_certificates_by_requests_and_refreshes_alike() {
    let (mut world, front) = world();
    let second = TlsFront::start(world.sandbox.address());
    second.write_bundle(&world.directory.path().join("ca.pem"));
    (world.upstream, world.token_origin) = (second.origin(), second.origin());
    let serve = |world: &World| {
        world.serve_with(|command| {
            command.env("SSL_CERT_FILE", "trusted.pem");
        })
    };
    // The system trusts the other one alone.
    assert_eq!(serve(&world).get("/users").code(), "upstreamUnreachable");
    world.upstream_keys = "ca_file = \"ca.pem\"".to_owned();
    let serving = serve(&world);
    assert_eq!(serving.get("/users").status, 200);
    world.sandbox.expire_access_tokens();
    assert_eq!(serving.get("/users").status, 200);
    assert_eq!(world.sandbox.counts().rotations, 1);
    drop(serving);

    world.upstream = front.origin();
    let serving = serve(&world);
    assert_eq!(serving.get("/users").status, 200, "whom the system trusts");
    drop(serving);

    // With nothing else to trust, it is enough.
    world.upstream = second.origin();
    let serving = world.serve_with(|command| {
        command.envs([("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")]);
    });
    assert_eq!(serving.get("/users").status, 200);
}

#[test]
fn a_ca_file_that_is_none_is_told_with_its_line() {
    let mut world = World::new();
    let path = world.directory.path().join("ca.pem");
    world.upstream_keys = format!("ca_file = \"{}\"", path.display());
    let told = |world: &World| {
        let output = world.run(&["check"]);
        assert_eq!(output.status.code(), Some(78));
        let errors = crate::world::errors(&output);
        assert!(
            errors.contains("line 4, column 11: upstream.ca_file: "),
            "{errors}"
        );
        errors
    };
    assert!(told(&world).contains("ca.pem: No such file"));
    std::fs::write(&path, "").expect("written");
    assert!(told(&world).contains("ca.pem is empty"));
    std::fs::write(
        &path,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    assert!(told(&world).contains("certificate 1 in the file"));
    TlsFront::start(world.sandbox.address()).write_bundle(&path);
    assert!(world.run(&["check"]).status.success());
}
