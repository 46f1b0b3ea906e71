//! One question to the grant, from a command: the refresher runs for as long as that takes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use super::{Failure, Signals};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::token::refresher::{OpenError, Refresher};
use crate::token::state::Trouble;
use crate::token::{Grant, NoToken};

/// Enough to store a pair on a disk that works.
const DRAIN: Duration = Duration::from_secs(5);

/// The configured grant, for a question that waits no longer than `patience`.
pub(super) fn open(config: &Config, patience: Duration) -> Result<(Grant, Refresher), OpenError> {
    Refresher::open(&config.credential, patience, Arc::new(SystemClock))
}

/// Waits for the answer while the refresher works. A signal ends the wait; a rotation that has begun is finished all
/// the same, whatever becomes of the question (T4).
pub(super) fn ask<T>(
    refresher: Refresher,
    question: impl Future<Output = Result<T, NoToken>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stop = CancellationToken::new();
        let asking = async {
            let answer = tokio::select! {
                answer = question => Ok(answer),
                name = signals.next() => Err(anyhow!("{name}: stopped; a refresh under way was finished first")),
            };
            stop.cancel();
            answer
        };
        let (answer, ()) = tokio::join!(asking, refresher.run(stop.clone(), DRAIN));
        answer
    })?;
    answer.map_err(|no_token| match no_token.trouble {
        Trouble::LoginRequired(message) => Failure::login_needed(message),
        other => Failure {
            code: 1,
            error: other.into(),
        },
    })
}
