//! `lucid-proxy sandbox`: a stand-in for Lucid and a proxy in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use http::StatusCode;

use super::{Failure, NoConfig, announce, print, serve, start_logging};
use crate::config::{Config, Listen, Need};
use crate::sandbox::{Behaviour, CLIENT_ID, CLIENT_SECRET, Pair, Sandbox, TokenFailure};
use crate::server::{Endpoint, Server};
use crate::token::record::Record;
use crate::token::store::Store;

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    config: NoConfig,
    /// Where the proxy listens: an address (port 0 takes a free one) or unix:/path/of/a/socket; repeatable
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8118")]
    listen: Vec<Listen>,
    /// Where the stand-in listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    sandbox_listen: SocketAddr,
    /// How long an access token lives
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// How long the token endpoint takes
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    refresh_delay: Duration,
    /// How the next refreshes fail, in order: html, cut, cut-after (the new pair is lost), no-token, invalid-grant,
    /// redirect, or a status such as 429 or 503; a number of times with *, as in 503*3
    #[arg(long, value_name = "HOW", value_delimiter = ',')]
    fail_refresh: Vec<Failures>,
    /// Log each request: method, status, duration, sizes, which token, path, what became of it
    #[arg(short, long)]
    verbose: bool,
}

/// One failure, some number of times.
#[derive(Clone, Debug)]
struct Failures {
    failure: TokenFailure,
    times: usize,
}

impl FromStr for Failures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (how, times) = match text.split_once('*') {
            Some((how, times)) => (
                how,
                times
                    .parse()
                    .ok()
                    .filter(|times| *times <= 1000)
                    .ok_or(format!("{times:?} is not a number of times up to 1000"))?,
            ),
            None => (text, 1),
        };
        let failure = match how {
            "html" => TokenFailure::Html(StatusCode::OK),
            "cut" => TokenFailure::CutBefore,
            "cut-after" => TokenFailure::CutAfter,
            "no-token" => TokenFailure::NoAccessToken,
            "invalid-grant" => TokenFailure::InvalidGrant,
            "redirect" => TokenFailure::Redirect,
            status => {
                let code = status
                    .parse()
                    .ok()
                    .filter(|code: &StatusCode| code.as_u16() >= 300);
                let code = code.ok_or("expected html, cut, cut-after, no-token, invalid-grant, redirect, or a status from 300 to 999")?;
                TokenFailure::Status {
                    code,
                    retry_after: None,
                    body: "{}".to_owned(),
                }
            }
        };
        Ok(Self { failure, times })
    }
}

pub(super) fn run(options: Options) -> Result<(), Failure> {
    options.config.refuse("sandbox")?;
    let behaviour = Behaviour {
        access_lifetime: options.token_lifetime,
        token_delay: options.refresh_delay,
        token_failures: options
            .fail_refresh
            .into_iter()
            .flat_map(|failures| std::iter::repeat_n(failures.failure, failures.times))
            .collect(),
        ..Behaviour::default()
    };
    if !options.sandbox_listen.ip().is_loopback() {
        let message = format!(
            "--sandbox-listen {}: expected an address of this machine alone, such as 127.0.0.1:8120",
            options.sandbox_listen
        );
        return Err(Failure {
            code: 2,
            error: anyhow::Error::msg(message),
        });
    }
    let sandbox = Sandbox::start(options.sandbox_listen, behaviour).with_context(|| {
        format!(
            "the stand-in cannot listen on {}; choose another address with --sandbox-listen",
            options.sandbox_listen
        )
    })?;
    // Removed with everything in it at the end of this function.
    let directory = tempfile::Builder::new()
        .prefix("lucid-proxy-sandbox-")
        .tempdir()?;
    let mut config = configure(&sandbox, directory.path())?;
    config.listen = options.listen;
    config.log.requests = options.verbose;
    Store::new(config.credential.store.clone()).write(&record(&sandbox.approve())?)?;
    start_logging(&config);
    serve(Server::bind(&config)?, |endpoints| {
        endpoints
            .iter()
            .for_each(|endpoint| announce("proxy", endpoint));
        announce("sandbox", &sandbox.origin());
        print(&examples(&endpoints[0]))
    })
}

pub(super) fn configure(sandbox: &Sandbox, directory: &std::path::Path) -> Result<Config, Failure> {
    let origin = sandbox.origin();
    let text = format!(
        "[upstream]\nurl = \"{origin}\"\n[credentials.default]\ntoken_url = \"{origin}/oauth2/token\"\n"
    );
    let environment = BTreeMap::from([
        ("LUCID_CLIENT_ID".to_owned(), CLIENT_ID.to_owned()),
        ("LUCID_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned()),
        (
            "STATE_DIRECTORY".to_owned(),
            directory.display().to_string(),
        ),
    ]);
    Ok(Config::parse(&text, None, &environment, Need::Everything)?)
}

/// The pair that a login would have stored.
pub(super) fn record(pair: &Pair) -> Result<Record, Failure> {
    let record = Record::from_json(&serde_json::to_vec(pair)?)?;
    Ok(Record {
        generation: Some(1),
        issued_at: SystemTime::now(),
        ..record
    })
}

fn examples(proxy: &Endpoint) -> String {
    let proxy = match proxy {
        Endpoint::Tcp { .. } => proxy.to_string(),
        Endpoint::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
    };
    format!(
        "\ntry:
  curl {proxy}/users/me/profile
  curl -i {proxy}/'users?pageSize=2'
  curl {proxy}/documents/search -H 'Content-Type: application/json' -d '{{}}'
"
    )
}
