//! A timer that serves one wait after the other.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for waits that nearly always end before their time.
///
/// To set a timer and to take it back costs more than the rest of such a wait. So this one stays set when a wait is over.
/// What it was set for comes before the end of the next wait, most often; then it is looked at again.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Completes at `deadline`.
    pub(super) async fn at(&mut self, deadline: Instant) {
        poll_fn(|cx| self.poll_at(deadline, cx)).await;
    }

    fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() == deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn f12_each_wait_ends_at_its_own_time() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut alarm = Alarm::default();
        // Left before its time; later than what it was set for; at once; earlier than that; long past.
        let left = tokio::time::timeout_at(at(1), alarm.at(at(10))).await;
        assert!(left.is_err());
        for (deadline, end) in [(12, 12), (12, 12), (30, 30), (3, 30)] {
            alarm.at(at(deadline)).await;
            assert_eq!(begun.elapsed().as_secs(), end);
        }
        let left = tokio::time::timeout_at(at(31), alarm.at(at(100))).await;
        assert!(left.is_err());
        alarm.at(at(40)).await;
        assert_eq!(begun.elapsed().as_secs(), 40);
    }
}
