//! Compares lucid-proxy with nginx, haproxy, and a relay that only copies bytes.
//!
//! ```text
//! cargo bench --bench peers                        seven rounds, about four minutes
//! cargo bench --bench peers -- --quick             three short rounds
//! cargo bench --bench peers -- --case A --only lucid-proxy --seconds 30 --binary FILE
//! ```
//!
//! Every proxy does the same job on one thread: another `Host`, an `Authorization` with a token, kept connections on
//! both sides, no log; what is large is buffered by nobody. Requests come from [`load`] and go to [`upstream`], both in
//! this process; each proxy is a process of its own. What counts is the proxy's CPU time per request: on a machine that
//! also runs the load, throughput and latency say as much about the load as about the proxy.
//!
//! Absolute times depend on the machine and on what else it does. The proxies take turns, every round in another
//! order, and are compared within a round; the ratios are what can be compared between machines.
//!
//! A wrong answer, or a request that reaches upstream without exactly one right `Host` and `Authorization`, fails the
//! run. No time does. A peer that is not installed is left out. All rounds are kept in `target/peers.json`.

mod case;
mod content;
mod load;
mod peer;
mod relay;
mod report;
mod rounds;
mod upstream;
mod usage;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use rounds::Plan;

#[derive(Debug, Parser)]
#[command(about = "Compares lucid-proxy with other proxies")]
struct Options {
    /// Three rounds of one second
    #[arg(long)]
    quick: bool,
    /// How many rounds, instead of seven
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each proxy is measured in a round, instead of three seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Only this case; repeatable
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Only this proxy; repeatable
    #[arg(long, value_name = "PROXY")]
    only: Vec<String>,
    /// Another build of lucid-proxy: one with symbols for a profiler, one from before a change
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_lucid-proxy"), hide_default_value = true)]
    binary: PathBuf,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the relay
    #[arg(long, hide = true, value_name = "UPSTREAM")]
    relay: Option<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(upstream) = options.relay {
        return relay::run(upstream).context("the relay failed");
    }
    if !options.bench {
        // `cargo test --all-targets` runs this too: a debug build with nothing to measure.
        println!("nothing is measured without --bench; run: cargo bench --bench peers");
        return Ok(());
    }
    let plan = Plan::try_from(options)?;
    let results = rounds::run(&plan)?;
    report::print(&plan, &results);
    report::save(&plan, &results)
}

impl TryFrom<Options> for Plan {
    type Error = anyhow::Error;

    fn try_from(options: Options) -> anyhow::Result<Self> {
        let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 3) };
        let wanted = |name: &str, names: &[String]| {
            names.is_empty() || names.iter().any(|one| one.eq_ignore_ascii_case(name))
        };
        let mut cases = case::all();
        cases.retain(|case| wanted(case.name, &options.case));
        let mut kinds = peer::KINDS.to_vec();
        kinds.retain(|kind| wanted(kind.name(), &options.only));
        anyhow::ensure!(!cases.is_empty(), "--case: there is no such case");
        anyhow::ensure!(!kinds.is_empty(), "--only: there is no such proxy");
        // Absolute, since each proxy is started in a directory of its own.
        let binary = options.binary.canonicalize();
        let binary = binary.with_context(|| format!("--binary {}", options.binary.display()))?;
        Ok(Self {
            cases,
            kinds,
            binary,
            rounds: options.rounds.unwrap_or(rounds),
            period: Duration::from_secs(options.seconds.unwrap_or(seconds).into()),
        })
    }
}
