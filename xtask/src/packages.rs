//! What a task needs beyond Rust: Debian packages, installed when this is root, named otherwise.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo;

/// True when `program` is on the path.
pub fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Makes sure that `program` is there; `package` is the Debian package that has it.
pub fn need(program: &str, package: &str) -> Result<()> {
    if has(program) {
        return Ok(());
    }
    let root = cargo::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root || !has("apt-get") {
        bail!("{program} is missing: install it, on Debian with `sudo apt-get install {package}`");
    }
    println!("{program} is missing: installing the Debian package {package}");
    let apt = |arguments: &[&str]| {
        cargo::succeeds(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    let installed = apt(&["update", "-q"])? && apt(&["install", "-qy", "--no-install-recommends", package])?;
    if !installed || !has(program) {
        bail!("{program} is missing and `apt-get install {package}` did not bring it");
    }
    Ok(())
}
