//! How many connections are open, and who has them (rule S7). One count for the whole process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::files;
use crate::config;
use crate::proxy::ambiguity::Unservable;
use crate::proxy::body::InFlight;
use crate::proxy::reply::Refusal;

/// Clients that are told at the same time that there is no room. The others find the connection closed.
const MOST_TOLD: usize = 64;
/// How often it is said that there is no room, of each kind.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What all workers count together.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) head: config::HeadLimits,
    most: usize,
    most_per_address: usize,
    open: AtomicUsize,
    /// Of addresses that are counted, and have any.
    by_address: Mutex<HashMap<Address, usize>>,
    told: AtomicUsize,
    connections_said: Said,
    requests_said: Said,
    heads_said: Said,
}

/// Whose connections are counted together: those of an IPv4 address, or of the 64 bits of an IPv6 address that tell one
/// network from another (RFC 4291 section 2.5.4), since a client has all the rest to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Address {
    /// `None` for this machine's own addresses, which all its programs share.
    fn of(peer: IpAddr) -> Option<Self> {
        match peer.to_canonical() {
            peer if peer.is_loopback() => None,
            IpAddr::V4(peer) => Some(Self::V4(peer.octets())),
            IpAddr::V6(peer) => {
                let [a, b, c, d, ..] = peer.segments();
                Some(Self::V6([a, b, c, d]))
            }
        }
    }
}

/// The place of one connection among those that may be open; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Limits>,
    address: Option<Address>,
}

/// A client is being told that there is no room.
#[derive(Debug)]
pub(super) struct Telling(Arc<Limits>);

/// Which limit a connection is over, and what that limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All(usize),
    Address(usize),
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::All(most) => Self::too_many_connections(most),
            Full::Address(most) => Self::too_many_connections_of_an_address(most),
        }
    }
}

impl Limits {
    /// As configured, less where the system allows fewer files beside those of the workers, which is said.
    pub(super) fn new(limits: &config::Limits, workers: usize, listeners: usize) -> Arc<Self> {
        let room = files::room(limits, workers, listeners);
        Self::with(config::Limits {
            connections: room.connections,
            requests: room.requests,
            ..*limits
        })
    }

    fn with(limits: config::Limits) -> Arc<Self> {
        Arc::new(Self {
            in_flight: InFlight::new(limits.requests),
            head: limits.head,
            most: limits.connections,
            most_per_address: limits.connections_per_address,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            told: AtomicUsize::new(0),
            connections_said: Said::default(),
            requests_said: Said::default(),
            heads_said: Said::default(),
        })
    }

    /// A place for a connection from `peer`, `None` for one of this machine that has no address.
    pub(super) fn admit(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Place, Full> {
        // Nothing is to be ordered by the number.
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::All(self.most));
        }
        let mut place = Place {
            limits: self.clone(),
            address: None,
        };
        if let Some(address) = peer.and_then(Address::of) {
            let mut by_address = self.by_address();
            let open = by_address.entry(address).or_default();
            if *open >= self.most_per_address {
                // The place is given back as it is dropped.
                return Err(Full::Address(self.most_per_address));
            }
            *open += 1;
            place.address = Some(address);
        }
        Ok(place)
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        // Nothing panics while it is held.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more client may be told that there is no room.
    pub(super) fn tell(self: &Arc<Self>) -> Option<Telling> {
        let before = self.told.fetch_add(1, Ordering::Relaxed);
        let telling = Telling(self.clone());
        (before < MOST_TOLD).then_some(telling)
    }

    /// Says that a connection was not taken.
    pub(super) fn say_full(&self, full: Full) {
        if let Some(times) = self.connections_said.now() {
            let refusal = Refusal::from(full);
            tracing::warn!(times, "a connection was refused: {}", refusal.message);
        }
    }

    /// Says that a request is not served, unless that is told elsewhere.
    pub(super) fn say_unservable(&self, why: Unservable) {
        let said = match why {
            Unservable::Ambiguous(_) => return,
            Unservable::Overloaded(_) => &self.requests_said,
            _ => &self.heads_said,
        };
        if let Some(times) = said.now() {
            let refusal = Refusal::from(why);
            tracing::warn!(times, "a request was refused: {}", refusal.message);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        if let Entry::Occupied(mut open) = self.limits.by_address().entry(address) {
            match open.get() - 1 {
                0 => drop(open.remove()),
                left => *open.get_mut() = left,
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.told.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is said at most once a second, with how often it has happened since it was last said.
#[derive(Debug, Default)]
struct Said {
    last: Mutex<Option<Instant>>,
    times: AtomicU64,
}

impl Said {
    /// It happens. Returns how often it has, if that is to be said now.
    fn now(&self) -> Option<u64> {
        self.times.fetch_add(1, Ordering::Relaxed);
        // Whoever has it says it.
        let mut last = self.last.try_lock().ok()?;
        let is_due = last.is_none_or(|last| last.elapsed() >= SAY_EVERY);
        is_due.then(|| {
            *last = Some(Instant::now());
            self.times.swap(0, Ordering::Relaxed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, connections_per_address: usize) -> Arc<Limits> {
        let head = config::HeadLimits {
            bytes: 1,
            fields: 1,
            target: 1,
        };
        Limits::with(config::Limits {
            connections,
            connections_per_address,
            requests: 1,
            head,
        })
    }

    fn peer(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    #[test]
    fn s07_connections_are_counted_and_each_place_is_given_back() {
        let limits = limits(2, 2);
        let first = limits.admit(None).expect("a place");
        let _second = limits.admit(peer("192.0.2.1")).expect("a place");
        for who in [None, peer("127.0.0.1"), peer("192.0.2.2")] {
            assert_eq!(limits.admit(who).err(), Some(Full::All(2)));
        }
        drop(first);
        let third = limits.admit(peer("192.0.2.2")).expect("a place");
        assert!(limits.admit(None).is_err());
        drop(third);
        assert_eq!(limits.open.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn s07_an_address_has_its_share_and_no_more() {
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"),
        ] {
            let limits = limits(10, 2);
            let first = limits.admit(peer(one)).expect("a place");
            let _second = limits.admit(peer(same)).expect("a place");
            for who in [one, same] {
                assert_eq!(limits.admit(peer(who)).err(), Some(Full::Address(2)));
            }
            let others = limits.admit(peer(other)).expect("a place");
            drop(first);
            let third = limits.admit(peer(same)).expect("a place");
            assert!(limits.admit(peer(one)).is_err());
            drop((others, third));
            let left = limits.by_address().len();
            assert_eq!(left, 1, "nothing is kept of those that have gone");
        }
    }

    #[test]
    fn s07_this_machine_is_counted_with_all_and_not_by_address() {
        let limits = limits(4, 1);
        let of_this_machine = [
            None,
            peer("127.0.0.1"),
            peer("::1"),
            peer("::ffff:127.0.0.9"),
        ];
        let places = of_this_machine.map(|who| limits.admit(who).expect("a place"));
        assert_eq!(limits.admit(peer("127.0.0.1")).err(), Some(Full::All(4)));
        drop(places);
    }

    #[test]
    fn s07_only_so_many_are_told_at_once_that_there_is_no_room() {
        let limits = limits(1, 1);
        let mut told: Vec<_> = (0..MOST_TOLD).map(|_| limits.tell()).collect();
        assert!(told.iter().all(Option::is_some));
        assert!(limits.tell().is_none());
        told.pop();
        assert!(limits.tell().is_some(), "what was not told is not counted");
    }

    #[test]
    fn s07_what_happens_often_is_said_once_with_how_often() {
        let said = Said::default();
        let now: Vec<_> = (0..5).map(|_| said.now()).collect();
        assert_eq!(now, [Some(1), None, None, None, None]);
        *said.last.lock().expect("whole") = Instant::now().checked_sub(SAY_EVERY);
        assert_eq!(said.now(), Some(5));
    }
}
