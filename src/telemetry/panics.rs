//! A panic is a bug of this program: one line of the log says where it was, and nothing of what was being worked on
//! (rule S6).
//!
//! The usual message would show more. That of `expect` holds an error under `Debug`, and a slice of text that ends within
//! a character quotes the text, whoever it came from. So only what the code says literally is repeated.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// Has every panic told in the log, in the place of what the standard library writes to standard error.
pub(super) fn tell() {
    panic::set_hook(Box::new(tell_of));
}

fn tell_of(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = thread::current();
    // Functions and lines, without values; there where `RUST_BACKTRACE` asks for it.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(
        place,
        thread = thread.name(),
        message_in_code = panic.payload().downcast_ref::<&'static str>(),
        trace,
        "this is a bug in lucid-proxy: it has panicked, and what was under way there ends; please report this line"
    );
}
