//! Keeps this process's memory to itself: it holds tokens.
//!
//! Once told so, the system writes no core dump of it, and lets nobody but root attach a debugger or read its memory, its
//! environment or its open files under `/proc`. Programs that it starts are as they would have been, but for two limits: that
//! of their core dumps, which they may raise again, and that of their open files, which the server has raised as far as it
//! may. Giving that back between fork and exec would take unsafe code.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Environment;

/// With any value, debuggers and core dumps are as the system has them.
pub const ALLOW_DUMPS: &str = "LUCID_PROXY_ALLOW_DUMPS";

/// Has the system keep others out, unless the environment says that they may come in. Where it refuses, nothing is worse
/// than before.
///
/// # Errors
///
/// What the system refused, and why.
pub fn protect(environment: &dyn Environment) -> Result<(), String> {
    if environment.var(ALLOW_DUMPS).is_some() {
        return Ok(());
    }
    let refused = |what: &'static str| move |error| format!("{what}: {error}");
    // Both are tried: either alone is worth having.
    let tracing = forbid_tracing().map_err(refused("debuggers cannot be kept out"));
    let dumps = forbid_core_dumps().map_err(refused("core dumps cannot be switched off"));
    tracing.and(dumps)
}

#[cfg(target_os = "linux")]
fn forbid_tracing() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(not(target_os = "linux"))]
fn forbid_tracing() -> rustix::io::Result<()> {
    Ok(())
}

/// The hard limit stays: it is for the programs that are started from here to decide on theirs.
fn forbid_core_dumps() -> rustix::io::Result<()> {
    let before = *CORE_LIMIT.get_or_init(|| getrlimit(Resource::Core));
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            ..before
        },
    )
}

/// As it was when this process began.
static CORE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// The limit of core dumps that this process would have without [`protect`].
pub fn core_limit() -> Rlimit {
    CORE_LIMIT
        .get()
        .copied()
        .unwrap_or_else(|| getrlimit(Resource::Core))
}
