//! The program: everything is in the library, see [`lucid_proxy::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lucid_proxy::cli::main()
}
