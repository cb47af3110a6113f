//! Fuzzing with libFuzzer on the stable toolchain (`docs/decisions/0008-fuzz-on-stable.md`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::coverage;
use crate::packages;
use crate::steps::{Count, Log, Verdict};

/// Largest input, bytes.
const LARGEST: &str = "65536";
/// Inputs of the corpus in the cache above which it starts anew.
const MOST_INPUTS: usize = 20_000;
/// What libFuzzer calls the inputs that it keeps.
const FINDS: [&str; 5] = ["crash-", "timeout-", "oom-", "leak-", "slow-unit-"];

/// One run of one target.
struct Run {
    target: String,
    child: Child,
    log: PathBuf,
    finds: PathBuf,
}

/// Builds and runs the targets (none = all), `seconds` each, at once; false when one found something.
pub fn run(cache: &Cache, seconds: u32, targets: &[String]) -> Result<bool> {
    if !cargo::succeeds(&mut build(cache)?)? {
        return Ok(false);
    }
    Ok(fuzz(cache, seconds, targets)?.failed == 0)
}

/// The same as a step of `test`.
pub fn step(cache: &Cache, log: &Log, seconds: u32, targets: &[String]) -> Result<Verdict> {
    if !log.run(&mut build(cache)?)? {
        return Ok(Verdict::Ran(Count::one(false)));
    }
    Ok(Verdict::Ran(fuzz(cache, seconds, targets)?))
}

fn build(cache: &Cache) -> Result<Command> {
    packages::need("c++", "g++")?;
    // The whole workspace is named so that other crates get the features of a build of the workspace.
    let mut command = cargo(cache, &["build", "--workspace", "--locked", "--features", "fuzz/libfuzzer"])?;
    for target in names()? {
        command.args(["--bin", &target]);
    }
    coverage::add_to(&mut command).context("cannot find this program")?;
    // What is fuzzed is slow without optimising; its assertions stay.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_INCREMENTAL", "0");
    Ok(command)
}

fn fuzz(cache: &Cache, seconds: u32, targets: &[String]) -> Result<Count> {
    let known = names()?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no fuzz target '{unknown}': {} expected", known.join(", "));
    }
    let chosen = if targets.is_empty() { &known } else { targets };
    let runs: Vec<Run> = chosen.iter().map(|target| start(cache, seconds, target)).collect::<Result<_>>()?;
    let mut count = Count::default();
    for run in runs {
        let passed = finish(run)?;
        count.passed += u64::from(passed);
        count.failed += u64::from(!passed);
    }
    Ok(count)
}

/// Targets: the programs in `fuzz/src/bin`.
fn names() -> Result<Vec<String>> {
    let folder = cargo::root()?.join("fuzz/src/bin");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn start(cache: &Cache, seconds: u32, target: &str) -> Result<Run> {
    let corpus = cache.folder(&format!("corpus/{target}"))?;
    if fs::read_dir(&corpus)?.count() > MOST_INPUTS {
        fs::remove_dir_all(&corpus)?;
        fs::create_dir(&corpus)?;
    }
    let finds = cache.folder(&format!("finds/{target}"))?;
    for old in found(&finds)? {
        fs::remove_file(old)?;
    }
    let log = cache.folder("logs")?.join(format!("fuzz-{target}.log"));
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = cache.target().join("debug").join(target);
    let mut command = cargo::command(cache, program)?;
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LARGEST}"))
        .arg(format!("-artifact_prefix={}/", finds.display()))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg(&corpus);
    // New inputs go to the first folder; the others are only read.
    let root = cargo::root()?;
    let folders = ["seeds", "regressions"].map(|folder| root.join("fuzz/corpus").join(target).join(folder));
    command.args(folders.iter().filter(|folder| folder.is_dir()));
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot run the fuzz target {target}"))?;
    Ok(Run { target: target.to_owned(), child, log, finds })
}

/// Waits for a run and says what it did; false when it found something.
fn finish(mut run: Run) -> Result<bool> {
    let ended = run.child.wait()?.success();
    let text = String::from_utf8_lossy(&fs::read(&run.log)?).into_owned();
    let target = &run.target;
    if !text.contains("inline 8-bit counters") {
        println!("  {target}: it was built without coverage, log: {}", run.log.display());
        return Ok(false);
    }
    let stat = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim();
    let edges = text.rsplit("cov: ").next().and_then(|rest| rest.split(' ').next()).unwrap_or("?");
    let runs = stat("stat::number_of_executed_units:");
    println!("  {target}: {runs} inputs, {edges} edges, log: {}", run.log.display());
    let finds = found(&run.finds)?;
    let kept = cargo::root()?.join("fuzz/corpus").join(target).join("regressions");
    for find in &finds {
        fs::create_dir_all(&kept)?;
        let name = find.file_name().context("a find has a name")?;
        fs::copy(find, kept.join(name))?;
        let name = name.to_string_lossy();
        println!("  {target}: kept as fuzz/corpus/{target}/regressions/{name}; replay: cargo test --package fuzz");
    }
    if !ended {
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.iter().position(|line| line.contains("panicked at") || line.starts_with("==")).unwrap_or(0);
        for line in lines[from..].iter().take(30) {
            println!("  | {line}");
        }
    }
    Ok(ended && finds.is_empty())
}

fn found(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_find = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        FINDS.iter().any(|prefix| name.starts_with(prefix))
    };
    Ok(fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(is_find).collect())
}
