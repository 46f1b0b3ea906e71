//! The program: everything is in the library, see [`lucid_proxy::cli`].

use std::process::ExitCode;

use lucid_proxy::config::ProcessEnvironment;
use lucid_proxy::{cli, memory, telemetry};

fn main() -> ExitCode {
    telemetry::tell_panics();
    // Before anything is read. What the system refuses, a command says that logs.
    let _ = memory::protect(&ProcessEnvironment);
    cli::main()
}
