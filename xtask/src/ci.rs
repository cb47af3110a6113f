//! CI as a stranger has it: a fresh clone of what is committed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cargo;
use crate::packages;

/// Clones HEAD and runs `.ci/run` in the clone; false when it failed.
pub fn run(cache: &Cache) -> Result<bool> {
    packages::need("git", "git")?;
    let root = cargo::root()?;
    let folder = cache.folder("ci")?;
    let (clone, shared) = (folder.join("clone"), folder.join("shared"));
    if clone.exists() {
        fs::remove_dir_all(&clone).with_context(|| format!("cannot empty {}", clone.display()))?;
    }
    if shared.is_symlink() {
        fs::remove_file(&shared)?;
    }
    if let Ok(beside) = root.join("../shared").canonicalize() {
        symlink(beside, &shared).context("cannot lay ../shared beside the clone")?;
    }
    let mut git = cargo::command(cache, "git")?;
    if !cargo::succeeds(git.args(["clone", "--quiet"]).arg(&root).arg(&clone))? {
        return Ok(false);
    }
    let mut bash = cargo::command(cache, "bash")?;
    bash.current_dir(&clone).arg(".ci/run").env("CI", "true").stdin(Stdio::null());
    cargo::succeeds(&mut bash)
}
