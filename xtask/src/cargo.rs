//! Calling cargo: its command with the cache set, and what it knows of the workspace.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cache::Cache;

/// The root of the checkout.
pub fn root() -> Result<PathBuf> {
    // `cargo run` sets it at run time. What was set at build time could be another checkout's, for
    // they share a cache.
    match env::var_os("CARGO_MANIFEST_DIR").as_deref().map(Path::new).and_then(Path::parent) {
        Some(root) => Ok(root.to_owned()),
        None => env::current_dir().context("cannot find the checkout: run it as `cargo xtask`"),
    }
}

/// `program` in the root of the checkout, with the build cache set and without what `cargo run` told
/// this program about itself.
pub fn command(cache: &Cache, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root()?).env("CARGO_TARGET_DIR", cache.target());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(&name);
        }
    }
    if env::var_os("CI").is_some() {
        // A fresh clone finds no incremental state of its own: it would only fill the cache.
        command.env("CARGO_INCREMENTAL", "0");
    }
    Ok(command)
}

/// `cargo` with `arguments`.
pub fn cargo(cache: &Cache, arguments: &[&str]) -> Result<Command> {
    let mut command = command(cache, env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    command.args(arguments);
    Ok(command)
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stderr(std::process::Stdio::inherit()).output();
    let done = done.with_context(|| format!("cannot run {program}"))?;
    if !done.status.success() {
        bail!("{program} failed: {}", done.status);
    }
    String::from_utf8(done.stdout).with_context(|| format!("{program} printed what is no text"))
}

/// Runs a command whose output goes to the terminal; false when it failed.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let program = command.get_program().to_string_lossy().into_owned();
    Ok(command.status().with_context(|| format!("cannot run {program}"))?.success())
}

/// Names of the workspace's targets of `kind` (`test`, `bench`, `bin`), sorted, each once.
pub fn targets(cache: &Cache, kind: &str) -> Result<Vec<String>> {
    let text = output(&mut cargo(cache, &["metadata", "--no-deps", "--locked", "--format-version", "1"])?)?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    Ok(names(&metadata, kind))
}

fn names(metadata: &Value, kind: &str) -> Vec<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let packages = list(metadata, "packages").into_iter();
    let mut names: Vec<String> = packages
        .flat_map(|package| list(&package, "targets"))
        .filter(|target| list(target, "kind").iter().any(|known| known == kind))
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn targets_are_found_by_kind_and_named_once() {
        let metadata = serde_json::json!({"packages": [
            {"targets": [{"name": "raft", "kind": ["lib"]}, {"name": "faults", "kind": ["test"]}]},
            {"targets": [{"name": "faults", "kind": ["test"]}, {"name": "door", "kind": ["test"]}]},
        ]});
        assert_eq!(names(&metadata, "test"), ["door", "faults"]);
        assert!(names(&metadata, "bench").is_empty());
    }
}
