//! `lucid-proxy serve`: the proxy.

use clap::Args;

use super::{ConfigOption, Failure, announce, load, serve, start_logging};
use crate::config::{Listen, Need};
use crate::server::Server;

#[derive(Args, Debug, Default)]
pub(super) struct Options {
    /// Listen here instead of where the configuration says, plain HTTP: 127.0.0.1:8118 (port 0 takes a free one),
    /// unix:/path/of/a/socket, or systemd for what a socket unit passes; repeatable
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Listen>,
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
    serve(Server::bind(&config)?, |endpoints| {
        endpoints
            .iter()
            .for_each(|endpoint| announce("proxy", endpoint));
        Ok(())
    })
}
