//! `lucid-proxy check`: the configuration, without the network.

use super::{ConfigOption, Failure, load, print};
use crate::config::Need;
use crate::server::Server;

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let config = load(option, Need::Everything)?;
    Server::check_exposure(&config)?;
    let source = match &config.file {
        Some(file) => file.display().to_string(),
        None => "the environment (no proxy.toml)".to_owned(),
    };
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    print(&format!(
        "configuration  {source}: ok\nlisten         {}\nworkers        {}\nupstream       {}\ntoken endpoint {}\nstore          {}",
        listen.join(", "),
        config.workers,
        config.upstream.origin,
        config.credential.token_url,
        config.credential.store.display(),
    ))
}
