//! `lucid-proxy token`: an access token for a script.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ConfigOption, Failure, Signals, load, print, start_logging};
use crate::clock::SystemClock;
use crate::config::{LogFormat, Need};
use crate::secret::ExposeSecret;
use crate::token::refresher::Refresher;
use crate::token::state::Trouble;

/// Enough to store a pair on a disk that works.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) fn run(option: &ConfigOption) -> Result<(), Failure> {
    let mut config = load(option, Need::Everything)?;
    config.log.format = LogFormat::Text;
    start_logging(&config);
    let (grant, refresher) = Refresher::open(
        &config.credential,
        config.timeouts.token,
        Arc::new(SystemClock),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stop = CancellationToken::new();
        let asking = async {
            let answer = tokio::select! {
                answer = grant.bearer() => Ok(answer),
                name = signals.next() => Err(anyhow::anyhow!("{name}: stopped; a refresh under way was finished first")),
            };
            stop.cancel();
            answer
        };
        // A rotation that has begun is finished whatever becomes of the question.
        let (answer, ()) = tokio::join!(asking, refresher.run(stop.clone(), DRAIN));
        answer
    })?;
    match answer {
        Ok(bearer) => print(bearer.token().expose_secret()),
        Err(no_token) => match no_token.trouble {
            Trouble::LoginRequired(message) => Err(Failure::login_needed(message)),
            other => Err(Failure {
                code: 1,
                error: other.into(),
            }),
        },
    }
}
