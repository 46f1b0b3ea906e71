//! How many files this process may open, and what that leaves room for (rule S7).
//!
//! Where a limit of the configuration promised more than fits, a client would be taken and then be told that upstream is
//! unreachable, for want of a file. So the limits are lowered to what fits, and who is over them is told that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config;

/// Files for what is neither a connection of a client nor a request, at least: listening sockets, runtimes, the token file,
/// what a refresh needs, and clients that are told that there is no room.
const RESERVE: u64 = 256;
/// Those of them that are not a worker's.
const FOR_ALL: u64 = 192;
/// Those of one worker's runtime, beside its handles on the listening sockets.
const PER_WORKER: u64 = 5;
/// The client's socket, and upstream's where it has become a WebSocket.
const PER_CONNECTION: u64 = 2;
/// A connection to upstream, and the temporary file in which the content is recorded.
const PER_REQUEST: u64 = 2;

/// How many connections and requests there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) connections: usize,
    pub(super) requests: usize,
}

/// As many as are configured, or as many as the system allows this process to open files for beside so many workers with
/// so many listening sockets, which is said.
pub(super) fn room(limits: &config::Limits, workers: usize, listeners: usize) -> Room {
    let wanted = Room {
        connections: limits.connections,
        requests: limits.requests,
    };
    let Some(files) = raise_limit() else {
        return wanted;
    };
    let room = that_fits(files, reserve(workers, listeners), wanted);
    if room != wanted {
        let text = format!(
            "no more than {} are accepted at a time: no more than {files} files may be open (ulimit -Hn, LimitNOFILE= of systemd)",
            lowered(room, wanted)
        );
        // Nobody has asked for the usual ones.
        let usual = config::Limits::default();
        match (limits.connections, limits.requests) == (usual.connections, usual.requests) {
            true => tracing::info!("{text}"),
            false => tracing::warn!("{text}"),
        }
    }
    room
}

/// Those limits of which less than is wanted fits.
fn lowered(room: Room, wanted: Room) -> String {
    let lowered = [
        ("connections", room.connections, wanted.connections),
        ("requests", room.requests, wanted.requests),
    ];
    let lowered = lowered
        .into_iter()
        .filter(|(_, room, wanted)| room < wanted);
    let lowered: Vec<_> = lowered
        .map(|(name, room, wanted)| format!("{room} {name} (limits.{name} is {wanted})"))
        .collect();
    lowered.join(" and ")
}

/// How many files this process may open from now on: as many as it is allowed to allow itself. `None` for no limit.
fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        // Some systems call unlimited what they do not grant.
        Err(_) => current,
    }
}

/// Files for everything else.
fn reserve(workers: usize, listeners: usize) -> u64 {
    let number = |number| u64::try_from(number).unwrap_or(u64::MAX);
    let of_worker = number(listeners).saturating_add(PER_WORKER);
    let of_workers = number(workers).saturating_mul(of_worker);
    RESERVE.max(FOR_ALL.saturating_add(of_workers))
}

/// What of `wanted` fits where so many files may be open, so many of which are for everything else. Connections and requests have half of them each, or what the
/// others leave; one of each is always taken.
fn that_fits(files: u64, reserve: u64, wanted: Room) -> Room {
    let free = files - reserve.min(files / 2);
    let as_wanted = |number: usize, files_for_one| {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        number.saturating_mul(files_for_one)
    };
    let for_requests = as_wanted(wanted.requests, PER_REQUEST);
    let for_connections = as_wanted(wanted.connections, PER_CONNECTION);
    let left_by = |others: u64| (free / 2).max(free.saturating_sub(others));
    let that_fit = |number: usize, files: u64, files_for_one: u64| {
        let fit = usize::try_from(files / files_for_one).unwrap_or(usize::MAX);
        number.min(fit.max(1))
    };
    Room {
        connections: that_fit(wanted.connections, left_by(for_requests), PER_CONNECTION),
        requests: that_fit(wanted.requests, left_by(for_connections), PER_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fit(files: u64, connections: usize, requests: usize) -> (usize, usize) {
        let wanted = Room {
            connections,
            requests,
        };
        let room = that_fits(files, RESERVE, wanted);
        (room.connections, room.requests)
    }

    #[test]
    fn s07_of_what_does_not_fit_only_what_was_lowered_is_told() {
        let room = |connections, requests| Room {
            connections,
            requests,
        };
        let wanted = room(20, 10);
        let both =
            "8 connections (limits.connections is 20) and 9 requests (limits.requests is 10)";
        assert_eq!(lowered(room(8, 9), wanted), both);
        let one = "8 connections (limits.connections is 20)";
        assert_eq!(lowered(room(8, 10), wanted), one);
    }

    #[test]
    fn s07_of_few_files_connections_and_requests_have_what_fits_beside_a_reserve() {
        assert_eq!(fit(1024, 16_384, 4096), (192, 192));
        assert_eq!(fit(4096, 16_384, 4096), (960, 960));
        // What one of the two does not need is for the other.
        assert_eq!(fit(1024, 16_384, 10), (374, 10));
        assert_eq!(fit(1024, 10, 4096), (10, 374));
        assert_eq!(fit(64, 16_384, 4096), (8, 8));
        // Positive control: what fits is not lowered.
        assert_eq!(fit(41_216, 16_384, 4096), (16_384, 4096));
        assert_eq!(fit(41_215, 16_384, 4096), (16_383, 4096));
        assert_eq!(fit(1 << 20, 16_384, 4096), (16_384, 4096));
        // There would be nothing to do otherwise.
        assert_eq!(fit(0, 10, 10), (1, 1));
    }

    #[test]
    fn s07_many_workers_have_files_of_their_own() {
        assert_eq!(reserve(2, 1), RESERVE);
        assert_eq!(reserve(64, 3), 192 + 64 * 8);
        assert_eq!(reserve(usize::MAX, usize::MAX), u64::MAX);
        let wanted = Room {
            connections: 16_384,
            requests: 10,
        };
        assert_eq!(that_fits(4096, reserve(64, 3), wanted).connections, 1686);
        assert_eq!(that_fits(4096, u64::MAX, wanted).connections, 1014);
    }

    proptest! {
        #[test]
        fn s07_the_files_of_what_fits_are_never_more_than_there_are(
            files in 10_u64..100_000,
            connections in 1_usize..1_000_000,
            requests in 1_usize..1_000_000,
        ) {
            let (some, others) = fit(files, connections, requests);
            prop_assert!(some <= connections && others <= requests);
            let needed = (some as u64) * PER_CONNECTION + (others as u64) * PER_REQUEST;
            prop_assert!(needed + RESERVE.min(files / 2) <= files, "{some} {others}");
            // Nothing is left that either could have.
            let is_full = needed + RESERVE.min(files / 2) + 8 > files;
            prop_assert!(is_full || (some, others) == (connections, requests), "{some} {others}");
        }
    }
}
