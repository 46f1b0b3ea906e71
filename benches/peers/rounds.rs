//! The rounds: every proxy in turn, in another order each time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::case::Case;
use crate::load::{self, Target};
use crate::peer::{Job, Kind, Peer};
use crate::upstream::Upstream;
use crate::usage;

/// How long each proxy is loaded before the first round: pools fill, memory settles.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) kinds: Vec<Kind>,
    /// The lucid-proxy that is measured.
    pub(crate) binary: PathBuf,
    pub(crate) rounds: u32,
    /// How long a proxy is measured in a round.
    pub(crate) period: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Results {
    /// The proxies that were there, with their versions.
    pub(crate) peers: Vec<(Kind, String)>,
    pub(crate) measurements: Vec<Measurement>,
}

/// One proxy in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) case: &'static str,
    pub(crate) round: u32,
    pub(crate) proxy: &'static str,
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_micros_per_request: f64,
    /// The part of the time in which the proxy was running; near 1 it was what the others waited for.
    pub(crate) busy: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) rss_kib: u64,
    /// The highest since the proxy was started.
    pub(crate) peak_rss_kib: u64,
}

/// Starts upstream and the proxies and measures all that was asked for.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Results> {
    let upstream = Upstream::start(&plan.cases)?;
    // Before the proxies, so that their processes end before their files go.
    let directory = tempfile::tempdir()?;
    let job = Job {
        upstream: upstream.address,
        directory: directory.path(),
        lucid_proxy: &plan.binary,
    };
    let mut peers = Vec::new();
    for kind in &plan.kinds {
        match kind.start(&job)? {
            Some(peer) => peers.push(peer),
            None => println!("{} is not installed and is left out", kind.name()),
        }
    }
    let mut measurements = Vec::new();
    for case in &plan.cases {
        for peer in &peers {
            measure(peer, case, 0, WARM_UP)?;
        }
        for round in 1..=plan.rounds {
            eprintln!("case {}, round {round} of {}", case.name, plan.rounds);
            let first = round as usize % peers.len();
            let (last, first) = peers.split_at(first);
            for peer in first.iter().chain(last) {
                measurements.push(measure(peer, case, round, plan.period)?);
                upstream.check()?;
            }
        }
    }
    let peers = peers.iter().map(|peer| (peer.kind, peer.version.clone()));
    let peers = peers.collect();
    Ok(Results {
        peers,
        measurements,
    })
}

fn measure(peer: &Peer, case: &Case, round: u32, period: Duration) -> anyhow::Result<Measurement> {
    let target = Target {
        address: peer.address,
        request_head: case.request_head(peer.head),
        content: case.content.clone(),
        answer: case.answer.clone(),
        load: case.load,
    };
    let proxy = peer.kind.name();
    let measured = load::run(target, period, || usage::cpu_time(peer.pid()))
        .with_context(|| format!("{proxy}, case {}", case.name))?;
    let (rss_kib, peak_rss_kib) = usage::memory(peer.pid())?;
    let cpu = (measured.after - measured.before).as_secs_f64();
    let (requests, elapsed) = (measured.requests as f64, measured.elapsed.as_secs_f64());
    Ok(Measurement {
        case: case.name,
        round,
        proxy,
        requests: measured.requests,
        requests_per_second: requests / elapsed,
        cpu_micros_per_request: cpu * 1e6 / requests,
        busy: cpu / elapsed,
        p50_micros: quantile(&measured.latencies, 0.5),
        p99_micros: quantile(&measured.latencies, 0.99),
        rss_kib,
        peak_rss_kib,
    })
}

/// Of sorted nanoseconds, in microseconds.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    sorted
        .get(at)
        .map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds) / 1e3)
}
