//! The `pallium` program: wires the crates together behind one command line.
//!
//! Exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 usage.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
