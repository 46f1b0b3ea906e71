//! Log lines: to standard error, as text for people or as JSON.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::ChronoUtc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Environment, LogFormat};

/// Starts logging for the whole process. `RUST_LOG` (`debug`, or `lucid_proxy=trace,hyper=info`) chooses what is
/// logged; without it, everything from `usual` up.
///
/// A second call changes nothing.
pub fn start(format: LogFormat, usual: LevelFilter, environment: &dyn Environment) {
    let filter = environment
        .var("RUST_LOG")
        .and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(usual));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_timer(ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".to_owned()))
        .with_ansi(std::io::stderr().is_terminal());
    // It fails only where logging has begun already, as in a program that embeds this one.
    let _ = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}
