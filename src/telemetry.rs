//! Log lines: to standard error, as text for people or as JSON.

mod panics;
mod request_line;

use std::fmt;
use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{ChronoUtc, FormatTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Environment, LogFormat};
pub use panics::tell_panics;
use request_line::RequestLine;

/// The target of the events that tell of one request each.
pub const REQUEST: &str = "lucid_proxy::request";

/// Starts logging for the whole process. `RUST_LOG` (`debug`, or `lucid_proxy=trace,hyper=info`) chooses what is
/// logged; without it, everything from `usual` up.
///
/// Libraries that would repeat what a request says are never heard below a level at which they do not.
///
/// A second call changes nothing.
pub fn start(format: LogFormat, usual: LevelFilter, environment: &dyn Environment) {
    let filter = environment
        .var("RUST_LOG")
        .and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(usual));
    let registry = tracing_subscriber::registry().with(filter).with(discreet());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // It fails only where logging has begun already, as in a program that embeds this one.
    let _ = match format {
        LogFormat::Text => registry.with(lines.event_format(Text::new())).try_init(),
        LogFormat::Json => {
            let json = lines.with_target(false).with_timer(timer()).json();
            registry.with(json.flatten_event(true)).try_init()
        }
    };
}

/// What may be logged at all.
fn discreet() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        // At debug level it quotes a path that it cannot read, query and all, and at trace level a field.
        .with_target("h2", LevelFilter::INFO)
}

fn timer() -> ChronoUtc {
    ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".to_owned())
}

/// For people: requests in columns, everything else as a sentence with its fields behind it.
struct Text {
    sentences: format::Format<format::Full, ChronoUtc>,
    timer: ChronoUtc,
}

impl Text {
    fn new() -> Self {
        Self {
            sentences: format::format().with_target(false).with_timer(timer()),
            timer: timer(),
        }
    }

    /// As sentences begin.
    fn write_beginning(&self, writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        if !writer.has_ansi_escapes() {
            self.timer.format_time(writer)?;
            return write!(writer, " {level:>5} ");
        }
        writer.write_str("\x1b[2m")?;
        self.timer.format_time(writer)?;
        write!(writer, "\x1b[0m \x1b[32m{level:>5}\x1b[0m ")
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if event.metadata().target() != REQUEST {
            return self.sentences.format_event(context, writer, event);
        }
        self.write_beginning(&mut writer, event)?;
        let colours = writer.has_ansi_escapes();
        RequestLine::of(event).write(&mut writer, colours)?;
        writeln!(writer)
    }
}
