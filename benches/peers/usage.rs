//! What a process has used, as Linux counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time of all threads of a process, in the kernel and outside of it.
///
/// `schedstat` counts in nanoseconds; the times in `stat` are in ticks of 10 ms, too coarse for short rounds.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(thread?.path().join("schedstat"))
            .context("this kernel does not count CPU time (CONFIG_SCHED_INFO)")?;
        let running = schedstat.split_ascii_whitespace().next();
        nanoseconds += running
            .context("an empty schedstat")?
            .parse::<u64>()
            .context("a schedstat without a number")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory in KiB: now, and at its highest.
pub(crate) fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("/proc/{pid}/status has no {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
