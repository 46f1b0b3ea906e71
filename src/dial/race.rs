//! Happy eyeballs (RFC 8305): an address that does not answer keeps nobody from the next.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// How long an address has before the next one is tried beside it (the Connection Attempt Delay of section 5).
const DELAY: Duration = Duration::from_millis(250);
/// The least that section 5 allows.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
/// More addresses of one name are not tried.
const MOST: usize = 16;

/// The addresses that were tried, in that order, and what became of each.
#[derive(Debug, Default)]
pub struct Attempts(Vec<(SocketAddr, Option<io::Error>)>);

impl Attempts {
    /// The kind of failure that all of them have in common, if they do.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        let kind = |(_, failure): &(_, Option<io::Error>)| failure.as_ref().map(io::Error::kind);
        let first = self.0.first().and_then(kind)?;
        let alike = self.0.iter().all(|attempt| kind(attempt) == Some(first));
        alike.then_some(first)
    }

    fn begin(&mut self, address: SocketAddr) -> usize {
        self.0.push((address, None));
        self.0.len() - 1
    }

    fn fail(&mut self, index: usize, error: io::Error) {
        self.0[index].1 = Some(error);
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, failure)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match failure {
                Some(error) => write!(f, "{comma}{address}: {error}")?,
                None => write!(f, "{comma}{address}: no answer yet")?,
            }
        }
        Ok(())
    }
}

/// The families in turns, beginning with that of the first address, and within a family as they were (section 4).
pub fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let of_first = |address: &&SocketAddr| {
        addresses.first().map(SocketAddr::is_ipv6) == Some(address.is_ipv6())
    };
    let mut same = addresses.iter().filter(of_first);
    let mut other = addresses.iter().filter(|address| !of_first(address));
    let mut order: Vec<SocketAddr> = Vec::new();
    loop {
        let pair = [same.next(), other.next()];
        if pair == [None, None] || order.len() >= MOST {
            order.truncate(MOST);
            return order;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(address) {
                order.push(*address);
            }
        }
    }
}

/// The delay between `count` attempts: shorter where half of `bound` would not do for all of them to begin.
pub fn pace(bound: Duration, count: usize) -> Duration {
    let share = bound / 2 / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    share.clamp(SHORTEST_DELAY, DELAY)
}

/// The first connection that is made. An attempt begins when the one before has failed, or has lasted for `delay`; the
/// others are dropped with the first success. `None` when all have failed, and `attempts` says how.
pub async fn first<S, F>(
    addresses: &[SocketAddr],
    delay: Duration,
    attempts: &mut Attempts,
    connect: impl Fn(SocketAddr) -> F,
) -> Option<S>
where
    F: Future<Output = io::Result<S>>,
{
    let mut waiting = addresses.iter().copied();
    let mut running = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push((attempts.begin(address), Box::pin(connect(address))));
        } else if running.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            (index, ended) = any(&mut running) => match ended {
                Ok(stream) => return Some(stream),
                Err(error) => attempts.fail(index, error),
            },
            () = tokio::time::sleep(delay), if waiting.len() > 0 => {}
        }
    }
}

/// The next attempt that ends.
async fn any<S, F>(running: &mut Vec<(usize, Pin<Box<F>>)>) -> (usize, io::Result<S>)
where
    F: Future<Output = io::Result<S>>,
{
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(ended) = running[at].1.as_mut().poll(cx) {
                let (index, _) = running.swap_remove(at);
                return Poll::Ready((index, ended));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    /// What a connection to an address does: it is made or fails after so many milliseconds, or neither ever.
    #[derive(Clone, Copy)]
    enum Fate {
        Made(u64),
        Fails(u64),
        Silent,
    }
    use Fate::{Fails, Made, Silent};

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number as u8], 443))
    }

    /// Runs a race in which address n has the nth fate: which one won, at which millisecond, and how all fared.
    async fn race(fates: &[Fate]) -> (Option<usize>, u128, Attempts) {
        let addresses: Vec<_> = (0..fates.len()).map(address).collect();
        let (begun, mut attempts) = (Instant::now(), Attempts::default());
        let connect = |to: SocketAddr| {
            let number = addresses.iter().position(|address| *address == to);
            let number = number.expect("one of them");
            let fate = fates[number];
            async move {
                let (after, ended) = match fate {
                    Made(after) => (after, Ok(number)),
                    Fails(after) => (after, Err(io::ErrorKind::ConnectionRefused.into())),
                    Silent => return pending().await,
                };
                tokio::time::sleep(Duration::from_millis(after)).await;
                ended
            }
        };
        let won = first(&addresses, DELAY, &mut attempts, connect).await;
        (won, begun.elapsed().as_millis(), attempts)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_keeps_nobody_from_the_next() {
        for (fates, winner, at, tried) in [
            (&[Made(20), Made(0)][..], Some(0), 20, 1),
            (&[Silent, Made(20)], Some(1), 270, 2),
            (&[Silent, Silent, Made(0), Made(0)], Some(2), 500, 3),
            // The first one has its chance all along.
            (&[Made(300), Made(100)], Some(0), 300, 2),
            // A failure lets the next one begin at once.
            (&[Fails(10), Fails(10), Made(10)], Some(2), 30, 3),
            (&[Silent, Fails(10), Made(10)], Some(2), 270, 3),
            (&[Fails(10), Fails(400)], None, 410, 2),
            (&[], None, 0, 0),
        ] {
            let (won, ended, attempts) = race(fates).await;
            assert_eq!((won, ended), (winner, at), "{attempts}");
            assert_eq!(attempts.0.len(), tried, "{attempts}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_tried_is_told() {
        let (_, _, attempts) = race(&[Fails(0), Fails(0)]).await;
        assert_eq!(attempts.kind(), Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(
            attempts.to_string(),
            "192.0.2.0:443: connection refused, 192.0.2.1:443: connection refused"
        );
        let (_, _, attempts) = race(&[Fails(0), Silent, Made(0)]).await;
        assert_eq!(attempts.kind(), None);
        assert_eq!(
            attempts.to_string(),
            "192.0.2.0:443: connection refused, 192.0.2.1:443: no answer yet, 192.0.2.2:443: no answer yet"
        );
    }

    #[test]
    fn the_families_take_turns() {
        let of = |texts: &[&str]| -> Vec<SocketAddr> {
            let parse = |text: &&str| text.parse().expect("an address");
            texts.iter().map(parse).collect()
        };
        for (found, order) in [
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"][..],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"][..],
            ),
            (
                &["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"],
                &["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"],
            ),
            (&["1.1.1.1:1", "1.1.1.1:1"], &["1.1.1.1:1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleave(&of(found)), of(order));
        }
        let many: Vec<_> = (0..99).map(address).collect();
        assert_eq!(interleave(&many), many[..MOST]);
    }

    #[test]
    fn all_of_many_addresses_begin_within_the_bound() {
        assert_eq!(pace(Duration::from_secs(10), 2), DELAY);
        assert_eq!(pace(Duration::from_secs(1), 5), Duration::from_millis(100));
        assert_eq!(pace(Duration::from_millis(1), MOST), SHORTEST_DELAY);
        assert_eq!(pace(Duration::ZERO, 0), SHORTEST_DELAY);
    }

    #[tokio::test]
    async fn a_dead_address_of_one_family_is_followed_by_one_of_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let living = listener.local_addr().expect("an address");
        // Nobody has this port on the other family: it was just free there, and is bound and not listening.
        let Ok(taken) = tokio::net::TcpSocket::new_v6() else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        if let Err(error) = taken.bind("[::1]:0".parse().expect("an address")) {
            eprintln!("skipped: this machine has no IPv6 loopback ({error})");
            return;
        }
        let dead = taken.local_addr().expect("an address");
        let mut attempts = Attempts::default();
        let addresses = interleave(&[dead, living]);
        let stream = first(&addresses, DELAY, &mut attempts, TcpStream::connect).await;
        assert_eq!(stream.expect("the other").peer_addr().ok(), Some(living));
        assert!(attempts.to_string().contains("refused"), "{attempts}");
    }

    #[tokio::test]
    async fn those_who_lose_are_dropped() {
        let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
        let held = std::cell::Cell::new(Some(dropped));
        let connect = |to: SocketAddr| {
            let held = (to == address(0)).then(|| held.take()).flatten();
            async move {
                match held {
                    Some(_held) => pending().await,
                    None => ready(Ok(())).await,
                }
            }
        };
        let addresses = [address(0), address(1)];
        let won = first(&addresses, DELAY, &mut Attempts::default(), connect).await;
        assert_eq!(won, Some(()));
        assert!(gone.await.is_err(), "its sender is gone");
    }
}
