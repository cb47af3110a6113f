//! Python environments in the cache, with exactly what a file of requirements names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cargo;
use crate::packages::has;
use crate::steps::Log;

/// The folder of an environment's programs; `None` when it could not be had. Made once for each content of
/// the requirements, which are named from the root of the checkout.
pub fn environment(cache: &Cache, log: &Log, name: &str, requirements: &str) -> Result<Option<PathBuf>> {
    let requirements = cargo::root()?.join(requirements);
    let wanted = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = cache.folder(name)?;
    let (made, programs) = (folder.join("requirements.txt"), folder.join("venv/bin"));
    let python = programs.join("python");
    if fs::read(&made).is_ok_and(|known| known == wanted) && python.is_file() {
        return Ok(Some(programs));
    }
    if !has("python3") {
        return Ok(None);
    }
    // An environment that broke off is made anew.
    let mut venv = Command::new("python3");
    let mut install = Command::new(&python);
    venv.args(["-m", "venv", "--clear"]).arg(folder.join("venv"));
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements);
    if !log.run(&mut venv)? || !log.run(&mut install)? {
        return Ok(None);
    }
    fs::write(&made, wanted).with_context(|| format!("cannot write {}", made.display()))?;
    Ok(Some(programs))
}
