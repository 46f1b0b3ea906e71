//! One question to the grant, from a command: the refresher runs for as long as that takes.

use std::future::Future;
use std::io::Write;
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

/// The configured login, for a question that waits no longer than `patience`.
pub(super) fn open(config: &Config, patience: Duration) -> Result<(Grant, Refresher), OpenError> {
    Refresher::open(&config.credential, patience, Arc::new(SystemClock))
}

/// Said at once, since a refresh that has begun is finished first. A closed standard error is no reason not to.
fn say_to_wait(name: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "lucid-proxy: {name}: finishing the refresh that is under way, if one is"
    );
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
                name = signals.next() => {
                    say_to_wait(name);
                    Err(anyhow!("{name}: stopped; what became of the refresh, if one was under way: lucid-proxy status"))
                }
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
