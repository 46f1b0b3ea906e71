//! The results, for people on standard output and for programs in a file.

use std::path::Path;

use anyhow::Context;

use crate::case::{Case, Load};
use crate::peer::Kind;
use crate::rounds::{Measurement, Plan, Results};

/// Prints one table for each case: medians over the rounds with the lowest and the highest, then the ratios.
pub(crate) fn print(plan: &Plan, results: &Results) {
    println!();
    for (kind, version) in &results.peers {
        println!("{:<12} {version}", kind.name());
    }
    for case in &plan.cases {
        let load = match case.load {
            Load::Crowd(connections) => {
                format!(
                    "{connections} connections; {} rounds of {:?}",
                    plan.rounds, plan.period
                )
            }
            Load::Single => format!("{} times", plan.rounds),
        };
        println!("\ncase {}: {}; {load}", case.name, case.title);
        match case.load {
            Load::Crowd(_) => print_table(case, results),
            Load::Single => print_singles(case, results),
        }
        print_ratios(case, results);
    }
}

fn print_table(case: &Case, results: &Results) {
    println!(
        "{:<12} {:>20} {:>24} {:>5} {:>8} {:>8} {:>9} {:>9}",
        "", "CPU µs per request", "requests per second", "busy", "p50 µs", "p99 µs", "RSS", "peak"
    );
    for (kind, _) in &results.peers {
        let of = |value: fn(&Measurement) -> f64| {
            Spread::of(results.rounds(case, *kind).map(value).collect())
        };
        println!(
            "{:<12} {:>20} {:>24} {:>4.0}% {:>8.0} {:>8.0} {:>5.1} MiB {:>5.1} MiB",
            kind.name(),
            of(|round| round.cpu_micros_per_request).show(2),
            of(|round| round.requests_per_second).show(0),
            of(|round| round.busy).median * 100.0,
            of(|round| round.p50_micros).median,
            of(|round| round.p99_micros).median,
            of(|round| round.rss_kib as f64).median / 1024.0,
            of(|round| round.peak_rss_kib as f64).highest / 1024.0,
        );
    }
}

fn print_singles(case: &Case, results: &Results) {
    println!(
        "{:<12} {:>20} {:>20} {:>9} {:>9}",
        "", "CPU ms", "ms", "RSS", "peak"
    );
    for (kind, _) in &results.peers {
        let of = |value: fn(&Measurement) -> f64| {
            Spread::of(results.rounds(case, *kind).map(value).collect())
        };
        println!(
            "{:<12} {:>20} {:>20} {:>5.1} MiB {:>5.1} MiB",
            kind.name(),
            of(|round| round.cpu_micros_per_request / 1e3).show(0),
            of(|round| 1e3 / round.requests_per_second).show(0),
            of(|round| round.rss_kib as f64).median / 1024.0,
            of(|round| round.peak_rss_kib as f64).highest / 1024.0,
        );
    }
}

/// CPU time per request, divided within each round: what else the machine did then concerns both.
fn print_ratios(case: &Case, results: &Results) {
    for (other, _) in &results.peers {
        if *other == Kind::LucidProxy {
            continue;
        }
        let ours = results.rounds(case, Kind::LucidProxy);
        let ratios: Vec<f64> = ours
            .zip(results.rounds(case, *other))
            .map(|(ours, theirs)| ours.cpu_micros_per_request / theirs.cpu_micros_per_request)
            .collect();
        if !ratios.is_empty() {
            let ratio = Spread::of(ratios).show(2);
            println!("CPU per request, lucid-proxy / {:<8} {ratio}", other.name());
        }
    }
}

/// Keeps every round in `peers.json` in Cargo's target directory.
pub(crate) fn save(plan: &Plan, results: &Results) -> anyhow::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let path = target
        .context("the target directory has no name")?
        .join("peers.json");
    let versions: serde_json::Map<_, _> = results
        .peers
        .iter()
        .map(|(kind, version)| (kind.name().to_owned(), version.clone().into()))
        .collect();
    let document = serde_json::json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "seconds": plan.period.as_secs_f64(),
        "versions": versions,
        "measurements": results.measurements,
    });
    std::fs::write(&path, serde_json::to_vec_pretty(&document)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nevery round: {}", path.display());
    Ok(())
}

impl Results {
    /// The rounds of one proxy in one case, first to last.
    fn rounds(&self, case: &Case, kind: Kind) -> impl Iterator<Item = &Measurement> {
        let (case, proxy) = (case.name, kind.name());
        self.measurements
            .iter()
            .filter(move |one| one.case == case && one.proxy == proxy)
    }
}

/// The middle of some numbers and how far they lie apart.
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| numbers.get(index).copied().unwrap_or(f64::NAN);
        let last = numbers.len().saturating_sub(1);
        Self {
            lowest: at(0),
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            highest: at(last),
        }
    }

    fn show(&self, decimals: usize) -> String {
        let Self {
            lowest,
            median,
            highest,
        } = self;
        format!("{median:.decimals$} ({lowest:.decimals$}–{highest:.decimals$})")
    }
}
