//! `lucid-proxy serve`: the proxy.

use std::net::SocketAddr;

use clap::Args;

use super::{ConfigOption, Failure, announce, load, serve_until_signal, start_logging};
use crate::config::Need;
use crate::server::Server;

#[derive(Args, Debug, Default)]
pub(super) struct Options {
    /// Listen here instead of where the configuration says; repeatable, port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Log each request
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(config: &ConfigOption, options: Options) -> Result<(), Failure> {
    let mut config = load(config, Need::Everything)?;
    if !options.listen.is_empty() {
        config.listen = options.listen;
    }
    config.log.requests |= options.verbose;
    start_logging(&config);
    let server = Server::bind(&config)?;
    for address in server.addresses() {
        announce("proxy", *address);
    }
    serve_until_signal(server.start(&config)?)
}
