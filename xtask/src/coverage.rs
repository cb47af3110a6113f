//! This program as cargo's wrapper around rustc, for the fuzz build: it adds coverage to the crates of
//! the workspace, and to nothing else. So the crates that others wrote are shared
//! with other builds; what they have of generic code is compiled, and covered, in ours.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the fuzz build: this program is the wrapper.
const MARK: &str = "PALLIUM_XTASK_COVERAGE";
/// Coverage of every edge, and of what is compared with what: the flags of `cargo fuzz`, without the
/// sanitizers, which need nightly.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Makes `cargo` build the workspace's crates with coverage.
pub fn add_to(cargo: &mut Command) -> io::Result<()> {
    cargo.env(MARK, "1").env("RUSTC_WORKSPACE_WRAPPER", env::current_exe()?);
    Ok(())
}

/// True when cargo called this program as the wrapper.
pub fn is_wrapper() -> bool {
    env::var_os(MARK).is_some()
}

/// Becomes rustc; returns only when that is not possible.
pub fn become_rustc() -> io::Error {
    let mut arguments = env::args_os().skip(1);
    let Some(rustc) = arguments.next() else { return io::Error::other("cargo gave no rustc") };
    let arguments: Vec<OsString> = arguments.collect();
    // A build script runs without libFuzzer, which has what the flags call. Without a crate name
    // rustc is only asked for its version.
    let name = arguments.iter().skip_while(|argument| *argument != "--crate-name").nth(1);
    let covered = name.is_some_and(|name| !name.to_string_lossy().starts_with("build_script_"));
    Command::new(rustc).args(&arguments).args(covered.then_some(FLAGS).into_iter().flatten()).exec()
}
