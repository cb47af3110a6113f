//! The real Nova for its differential test: a Python environment in the cache, with exactly what
//! `tests/nova/requirements.txt` names.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cargo::cargo;
use crate::packages::unavailable;
use crate::python;
use crate::steps::{Log, Verdict, counted};

const MISSING: &str = "nova could not be installed: python3 with venv and a package index are needed";

/// Runs the test targets named `nova`. Where there is no Nova the step fails in CI, and is skipped elsewhere.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let Some(python) = python(cache, log)? else { return Ok(unavailable(MISSING)) };
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--test", "nova"])?;
    command.arg("--").arg("--nocapture").env("PALLIUM_NOVA_PYTHON", python);
    let passed = log.run(&mut command)?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}

/// The Python that has Nova, for a bench.
pub fn python_or_error(cache: &Cache) -> Result<PathBuf> {
    let log = Log::create(cache, "nova")?;
    python(cache, &log)?.context(MISSING)
}

fn python(cache: &Cache, log: &Log) -> Result<Option<PathBuf>> {
    let folder = python::environment(cache, log, "nova", "tests/nova/requirements.txt")?;
    Ok(folder.map(|folder| folder.join("python")))
}
