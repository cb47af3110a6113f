//! `cargo deny`, built once into the cache.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::steps::{Count, Log, Verdict};

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let Some(program) = install(cache, log)? else { return Ok(Verdict::Ran(Count::one(false))) };
    println!("  advisories: skipped, their database is not to be had without the network");
    let mut command = cargo::command(cache, program)?;
    command.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    Ok(Verdict::Ran(Count::one(log.run(&mut command)?)))
}

/// The program; `None` when it could not be built.
fn install(cache: &Cache, log: &Log) -> Result<Option<PathBuf>> {
    let root = cache.folder(&format!("tools/cargo-deny-{VERSION}"))?;
    let program = root.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(Some(program));
    }
    println!("  building cargo-deny {VERSION} into the cache, once");
    let folder = cache.target().join("tools");
    let mut command = cargo(cache, &["install", "--locked", "--quiet", "cargo-deny", "--version", VERSION])?;
    command.arg("--root").arg(&root).arg("--target-dir").arg(&folder);
    // It runs for a second: what optimising costs more than it saves is left out.
    for (name, value) in [("LTO", "off"), ("OPT_LEVEL", "0"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")] {
        command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    let built = log.run(&mut command)?;
    // What it was built from is never needed again.
    fs::remove_dir_all(&folder).ok();
    Ok((built && program.is_file()).then_some(program))
}
