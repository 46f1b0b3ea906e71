//! `lucid-proxy token`: an access token, or the API key, for a script.

use super::{ConfigOption, Failure, grant, load, print, start_logging_for_scripts};
use crate::config::{Kind, Need};
use crate::secret::ExposeSecret;

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let config = load(option, Need::Everything)?;
    start_logging_for_scripts();
    if let Kind::ApiKey(key) = &config.credential.kind {
        return print(key.expose_secret());
    }
    let (grant, refresher) = grant::open(&config, config.timeouts.token)?;
    let bearer = grant::ask(refresher, grant.bearer())?;
    print(bearer.token().expose_secret())
}
