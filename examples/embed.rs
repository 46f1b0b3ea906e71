//! Runs the proxy inside another program: `cargo run --example embed`.
//!
//! It needs neither an account nor a network, since a stand-in for Lucid runs in it too. For Lucid itself leave out the
//! stand-in and the two addresses that name it, and put in your own client id, client secret and refresh token.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::SystemTime;

use lucid_proxy::config::{Config, Need};
use lucid_proxy::sandbox::{Behaviour, CLIENT_ID, CLIENT_SECRET, Sandbox};
use lucid_proxy::secret::Secret;
use lucid_proxy::server::Server;
use lucid_proxy::token::record::Record;
use lucid_proxy::token::store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let lucid = Sandbox::start(([127, 0, 0, 1], 0).into(), Behaviour::default())?;
    let state = tempfile::tempdir()?;
    let config = configure(&lucid.origin(), state.path())?;

    // What a login leaves behind. A refresh token is enough: the proxy gets the rest with it.
    let refresh_token = Secret::from(lucid.approve().refresh_token);
    let login = Record::from_refresh_token(refresh_token, SystemTime::now());
    Store::new(config.credential.store.clone()).write(&login)?;

    let server = Server::bind(&config)?;
    let address = server.endpoints()[0].tcp().ok_or("no address")?;
    let running = server.start()?;

    println!("{}", get(address, "/users/me/profile")?);
    // Nobody tells the proxy; it learns from the 401, gets a new token and asks again.
    lucid.expire_access_tokens();
    println!("{}", get(address, "/users/me/profile")?);
    println!("tokens rotated: {}", lucid.counts().rotations);

    // Requests under way are finished first, then a rotation under way; only then may the stand-in go.
    if !running.shutdown() {
        return Err("a part of the proxy did not end as it should".into());
    }
    Ok(())
}

/// What `proxy.toml` and the environment would say.
fn configure(lucid: &str, state: &Path) -> Result<Config, Box<dyn Error>> {
    let text = format!(
        "listen = [\"127.0.0.1:0\"]
        upstream.url = \"{lucid}\"
        credentials.default.token_url = \"{lucid}/oauth2/token\""
    );
    let environment = BTreeMap::from([
        ("LUCID_CLIENT_ID".to_owned(), CLIENT_ID.to_owned()),
        ("LUCID_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned()),
        ("STATE_DIRECTORY".to_owned(), state.display().to_string()),
    ]);
    Ok(Config::parse(&text, None, &environment, Need::Everything)?)
}

/// The content of an answer, whatever HTTP client the program has.
fn get(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(answer.into());
    }
    Ok(content.to_owned())
}
