//! What a task needs beyond Rust: Debian packages, installed when this is root, named otherwise.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::cargo;
use crate::steps::{Count, Verdict};

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
    let path = taken_apart(cache, &[package])?.map(|root| root.join("usr/bin").join(program));
    Ok(path.filter(|path| path.is_file()))
}

/// The folder with the content of Debian packages, named by the first of them. None: they cannot be fetched.
pub fn taken_apart(cache: &Cache, packages: &[&str]) -> Result<Option<PathBuf>> {
    let folder = cache.folder("debian")?.join(packages[0]);
    // What broke off is fetched again.
    let (made, wanted) = (folder.join("packages"), packages.join(" "));
    if fs::read_to_string(&made).is_ok_and(|known| known == wanted) {
        return Ok(Some(folder));
    }
    if !has("apt-get") || !has("dpkg-deb") {
        return Ok(None);
    }
    fs::create_dir_all(&folder)?;
    let mut fetch = Command::new("apt-get");
    if !cargo::succeeds(fetch.current_dir(&folder).args(["download", "-q"]).args(packages))? {
        return Ok(None);
    }
    for file in fs::read_dir(&folder)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb")
            && !cargo::succeeds(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&folder))?
        {
            return Ok(None);
        }
    }
    fs::write(&made, wanted)?;
    Ok(Some(folder))
}

/// What becomes of a step whose tools cannot be had: it fails in CI, and is skipped elsewhere.
pub fn unavailable(why: &'static str) -> Verdict {
    if env::var_os("CI").is_some_and(|ci| ci == "true") {
        println!("  {why}; see the log");
        return Verdict::Ran(Count::one(false));
    }
    Verdict::Skipped(why)
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
