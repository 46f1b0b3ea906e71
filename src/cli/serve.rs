//! `lucid-proxy serve`: the proxy.

use std::net::SocketAddr;

use clap::Args;

use super::{ConfigOption, Failure, announce, load, serve, start_logging};
use crate::config::Need;
use crate::server::Server;

#[derive(Args, Debug, Default)]
pub(super) struct Options {
    /// Listen here instead of where the configuration says; repeatable, port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Log each request: method, status, duration, sizes, which token, path, what became of it
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
    serve(Server::bind(&config)?, |addresses| {
        addresses
            .iter()
            .for_each(|address| announce("proxy", *address));
        Ok(())
    })
}
