//! A panic is a bug of this program: one line of the log says where it was, and nothing of what was being worked on
//! (rule S6). No filter of the log hides it: what has panicked would end in silence.
//!
//! The usual message would show more. That of `expect` holds an error under `Debug`, and a slice of text that ends within
//! a character quotes the text, whoever it came from. So only what the code says literally is repeated.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing::Level;

const BUG: &str = "this is a bug in lucid-proxy: it has panicked, and what was under way there ends; please report this line";

/// Has every panic told in the log, or plainly on standard error where nothing is logged, in the place of what the standard
/// library writes there. To be called before anything is read: the usual message would show it.
pub fn tell_panics() {
    panic::set_hook(Box::new(tell_of));
}

fn tell_of(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = thread::current();
    // Functions and lines, without values; there where `RUST_BACKTRACE` asks for it.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    let message = panic.payload().downcast_ref::<&'static str>();
    if tracing::enabled!(Level::ERROR) {
        tracing::error!(
            place,
            thread = thread.name(),
            message_in_code = message,
            trace,
            "{BUG}"
        );
    } else {
        let told = [
            ("place", place.as_deref()),
            ("thread", thread.name()),
            ("message_in_code", message.copied()),
            ("trace", trace.as_deref()),
        ];
        // One that is closed has nobody who reads it.
        let _ = io::stderr().write_all(plain(&told).as_bytes());
    }
}

/// One line, as the log would have it but for the time; written at once, so that no other comes between.
fn plain(told: &[(&str, Option<&str>)]) -> String {
    let mut line = format!("lucid-proxy: {BUG}");
    for (name, value) in told {
        if let Some(value) = value {
            line += &format!(" {name}={value:?}");
        }
    }
    line + "\n"
}
