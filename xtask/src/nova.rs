//! The real Nova for its differential test: a Python environment in the cache, with exactly what
//! `tests/nova/requirements.txt` names.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::packages::has;
use crate::steps::{Count, Log, Verdict, counted};

/// Runs the test targets named `nova`. Where there is no Nova the step fails in CI, and is skipped elsewhere.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let Some(python) = python(cache, log)? else {
        if env::var_os("CI").is_some_and(|ci| ci == "true") {
            println!("  nova could not be installed: python3 with venv and a package index are needed, see the log");
            return Ok(Verdict::Ran(Count::one(false)));
        }
        return Ok(Verdict::Skipped("nova could not be installed: python3 with venv and a package index are needed"));
    };
    let mut command = cargo(cache, &["test", "--package", "plugins", "--locked", "--test", "nova"])?;
    command.arg("--").arg("--nocapture").env("PALLIUM_NOVA_PYTHON", python);
    let passed = log.run(&mut command)?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}

/// The Python that has Nova, for a bench.
pub fn python_or_error(cache: &Cache) -> Result<PathBuf> {
    let log = Log::create(cache, "nova")?;
    python(cache, &log)?.context("nova could not be installed: python3 with venv and a package index are needed")
}

/// The Python that has Nova; `None` when it could not be had. Made once for each content of the
/// requirements.
fn python(cache: &Cache, log: &Log) -> Result<Option<PathBuf>> {
    let requirements = cargo::root()?.join("tests/nova/requirements.txt");
    let wanted = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = cache.folder("nova")?;
    let (made, python) = (folder.join("requirements.txt"), folder.join("venv/bin/python"));
    if fs::read(&made).is_ok_and(|known| known == wanted) && python.is_file() {
        return Ok(Some(python));
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
    Ok(Some(python))
}
