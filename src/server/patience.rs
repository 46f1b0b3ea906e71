//! A bound for waits that are many and mostly short.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bounds each of a row of waits. A wait that is over leaves the timer as it was, for the next one: setting it costs more
/// than most waits last.
#[derive(Debug)]
pub(super) struct Patience {
    bound: Duration,
    /// Of the wait under way.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(bound: Duration) -> Self {
        Self {
            bound,
            since: None,
            timer: None,
        }
    }

    pub(super) fn bound(&self) -> Duration {
        self.bound
    }

    /// Begins a wait, or goes on with it; ready when it has lasted too long.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.bound;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        if Instant::now() < deadline {
            // It was set for an earlier wait.
            timer.as_mut().reset(deadline);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    /// The wait is over; returns whether there was one.
    pub(super) fn renew(&mut self) -> bool {
        self.since.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// How long a wait of `patience` takes to end.
    async fn until_the_end(patience: &mut Patience) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| patience.poll_end(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn f12_each_wait_has_the_whole_bound_and_no_more() {
        let bound = Duration::from_secs(10);
        let mut patience = Patience::new(bound);
        assert!(!patience.renew(), "there was no wait");
        for _ in 0..5 {
            // A wait that is over in time, and time without any.
            let wait = tokio::time::timeout(bound * 9 / 10, until_the_end(&mut patience));
            wait.await.expect_err("it does not end");
            assert!(patience.renew());
            tokio::time::sleep(bound * 3 / 10).await;
        }
        assert_eq!(until_the_end(&mut patience).await, bound);
        patience.renew();
        assert_eq!(until_the_end(&mut patience).await, bound);
    }
}
