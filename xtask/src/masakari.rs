//! What Masakari's API is held against: its real client and the monitors' own sender, in a Python environment in
//! the cache.

use anyhow::Result;

use crate::cache::Cache;
use crate::cargo::cargo;
use crate::packages::unavailable;
use crate::python;
use crate::steps::{Log, Verdict, counted};

/// Runs the tests named `masakari` of the API. Where the client cannot be had the step fails in CI, and is skipped
/// elsewhere.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let Some(python) = python::environment(cache, log, "masakari", "api/tests/server/requirements.txt")? else {
        return Ok(unavailable(
            "python-masakariclient could not be installed: python3 with venv and a package index are needed",
        ));
    };
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--test", "server", "masakari"])?;
    command.env("PALLIUM_MASAKARI_PYTHON", python.join("python"));
    let passed = log.run(&mut command)?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}
