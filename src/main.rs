//! The `pallium` program: wires the crates together behind one command line.
//!
//! Exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 usage.

mod cli;

use std::process::ExitCode;

/// glibc's allocator took a quarter of the processor time of a node that decides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
