//! What a task needs beyond Rust: Debian packages, installed when this is root, named otherwise.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::cargo;

/// True when `program` is on the path.
pub fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A program of a Debian package, taken out of the package without installing it: what is installed
/// may start a server. None: it is not there, and cannot be fetched.
pub fn unpacked(cache: &Cache, program: &str, package: &str) -> Result<Option<PathBuf>> {
    if has(program) {
        return Ok(Some(program.into()));
    }
    let folder = cache.folder("debian")?.join(package);
    let path = folder.join("usr/bin").join(program);
    if !path.is_file() && has("apt-get") && has("dpkg-deb") {
        fs::create_dir_all(&folder)?;
        let mut fetch = Command::new("apt-get");
        if cargo::succeeds(fetch.current_dir(&folder).args(["download", "-q", package]))? {
            for file in fs::read_dir(&folder)? {
                let file = file?.path();
                if file.extension().is_some_and(|extension| extension == "deb") {
                    cargo::succeeds(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&folder))?;
                }
            }
        }
    }
    Ok(path.is_file().then_some(path))
}

/// Makes sure that `program` is there; `package` is the Debian package that has it.
pub fn need(program: &str, package: &str) -> Result<()> {
    need_file(program, package, || has(program))
}

/// The same for what is no program on the path.
pub fn need_file(program: &str, package: &str, is_there: impl Fn() -> bool) -> Result<()> {
    if is_there() {
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
    if !installed || !is_there() {
        bail!("{program} is missing and `apt-get install {package}` did not bring it");
    }
    Ok(())
}
