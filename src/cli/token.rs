//! `lucid-proxy token`: an access token for a script.

use super::{ConfigOption, Failure, grant, load, print, start_logging_for_scripts};
use crate::config::Need;
use crate::secret::ExposeSecret;

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let config = load(option, Need::Everything)?;
    start_logging_for_scripts();
    let (grant, refresher) = grant::open(&config, config.timeouts.token)?;
    let bearer = grant::ask(refresher, grant.bearer())?;
    print(bearer.token().expose_secret())
}
