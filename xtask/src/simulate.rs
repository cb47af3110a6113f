//! Simulations of whole clusters: the simulator is built once and runs each seed in a process of its
//! own, as many at once as there are processors.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::steps::{Count, Log, Verdict, words};

/// Faults that are built in on purpose; a sample of seeds must catch each (`scheduler::mutant`).
const MUTANTS: [&str; 11] = [
    "no-fsync",
    "forget-vote",
    "leader-restore",
    "no-dedupe",
    "no-recheck",
    "no-overlay",
    "stale-read",
    "ack-before-commit",
    "skip-restore",
    "wall-clock-apply",
    "raise-early",
];
/// Seeds that may pass before a mutant counts as not caught.
const MUTANT_SEEDS: u64 = 6;

/// What to simulate.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many seeds, one after another
    #[arg(long, default_value_t = 1, value_name = "N")]
    seeds: u64,
    /// Simulated minutes of each
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// Run the first seed twice: both runs must be the same
    #[arg(long)]
    twice: bool,
    /// Break each promise on purpose, and demand that some seed notices
    #[arg(long)]
    mutants: bool,
    /// Break this promise on purpose
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Print every event
    #[arg(long)]
    print: bool,
}

impl Plan {
    /// What CI runs: a sample. Seeds 4 and 8 have found something before.
    fn sample() -> Plan {
        Plan { seed: 1, seeds: 8, minutes: 5, twice: true, mutants: true, mutant: None, print: false }
    }
}

/// One process: a seed, and perhaps a fault.
#[derive(Clone, Debug)]
struct Job {
    seed: u64,
    minutes: u64,
    mutant: Option<String>,
}

struct Done {
    job: Job,
    passed: bool,
    text: String,
    took: Duration,
}

impl Done {
    /// The closing line.
    fn line(&self) -> &str {
        self.text.lines().last().unwrap_or("no output")
    }

    fn hash(&self) -> Option<&str> {
        self.line().split("hash ").nth(1)
    }
}

/// Runs a plan; false when something was found, or not found that should have been.
pub fn run(cache: &Cache, plan: &Plan) -> Result<bool> {
    let program = build(cache, None)?;
    if plan.print {
        let mut command = Command::new(program);
        command.args(["--seed", &plan.seed.to_string(), "--minutes", &plan.minutes.to_string(), "--print"]);
        command.args(plan.mutant.iter().flat_map(|mutant| ["--mutant", mutant]));
        return cargo::succeeds(&mut command);
    }
    let count = simulate(cache, &program, plan)?;
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(count.failed == 0)
}

/// The sample as a step of `test`.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let program = build(cache, Some(log))?;
    Ok(Verdict::Ran(simulate(cache, &program, &Plan::sample())?))
}

fn build(cache: &Cache, log: Option<&Log>) -> Result<PathBuf> {
    // The whole graph is built with another flag, so it gets a folder of its own.
    let target = cache.target().join("simulation");
    let arguments = ["build", "--package", "raft", "--features", "simulation", "--bin", "simulate", "--locked"];
    let mut command = cargo(cache, &arguments)?;
    command.args(["--profile", "simulation"]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "--cfg tokio_unstable");
    let built = match log {
        Some(log) => log.run(&mut command)?,
        None => cargo::succeeds(&mut command)?,
    };
    if !built {
        bail!("the simulator does not build");
    }
    Ok(target.join("simulation/simulate"))
}

fn simulate(cache: &Cache, program: &PathBuf, plan: &Plan) -> Result<Count> {
    let mut count = Count::default();
    let mut jobs: VecDeque<Job> = (plan.seed..plan.seed + plan.seeds)
        .map(|seed| Job { seed, minutes: plan.minutes, mutant: plan.mutant.clone() })
        .collect();
    if plan.twice {
        jobs.extend(jobs.front().cloned());
    }
    let began = Instant::now();
    let done = parallel(program, jobs)?;
    for done in &done {
        count.add(Count::one(done.passed));
        println!("  {}", done.line());
        if !done.passed {
            report(cache, done)?;
        }
    }
    let (simulated, busy) = done
        .iter()
        .fold((0, Duration::ZERO), |(simulated, busy), done| (simulated + done.job.minutes, busy + done.took));
    let rate = simulated as f64 / (busy.as_secs_f64() / 60.0).max(0.001);
    println!(
        "  {} runs, {simulated} simulated minutes in {}: {rate:.0} for each minute of a run",
        done.len(),
        words(began.elapsed())
    );
    if plan.twice {
        let mut hashes = done.iter().filter(|done| done.job.seed == plan.seed).map(Done::hash);
        let same = hashes.next().zip(hashes.next()).is_some_and(|(one, other)| one.is_some() && one == other);
        count.add(Count::one(same));
        println!("  seed {} twice: {}", plan.seed, if same { "the same" } else { "NOT the same" });
    }
    if plan.mutants {
        for mutant in MUTANTS {
            let caught = catch(program, plan, mutant)?;
            count.add(Count::one(caught.is_some()));
            match caught {
                Some(done) => {
                    let why = done.text.lines().find_map(|line| line.strip_prefix("BROKEN ")).unwrap_or("it ended");
                    println!("  {mutant} is caught by seed {}: {why}", done.job.seed);
                }
                None => println!("  {mutant} is NOT caught by {MUTANT_SEEDS} seeds"),
            }
        }
    }
    Ok(count)
}

/// The first seed that notices a fault.
fn catch(program: &PathBuf, plan: &Plan, mutant: &str) -> Result<Option<Done>> {
    let step = workers() as u64;
    for first in (plan.seed..plan.seed + MUTANT_SEEDS).step_by(step as usize) {
        let seeds = first..(first + step).min(plan.seed + MUTANT_SEEDS);
        let jobs = seeds.map(|seed| Job { seed, minutes: plan.minutes, mutant: Some(mutant.to_owned()) });
        if let Some(caught) = parallel(program, jobs.collect())?.into_iter().find(|done| !done.passed) {
            return Ok(Some(caught));
        }
    }
    Ok(None)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs jobs, as many at once as there are processors; gives them in their order.
fn parallel(program: &PathBuf, jobs: VecDeque<Job>) -> Result<Vec<Done>> {
    let jobs = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let next = || jobs.lock().ok()?.next();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers())
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some((at, job)) = next() {
                        let result = one(program, job)?;
                        done.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?.push((at, result));
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let mut done = done.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, done)| done).collect())
}

fn one(program: &PathBuf, job: Job) -> Result<Done> {
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(["--seed", &job.seed.to_string(), "--minutes", &job.minutes.to_string()]);
    command.args(job.mutant.iter().flat_map(|mutant| ["--mutant", mutant]));
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if output.status.code() == Some(2) {
        bail!("the simulator was called wrongly: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let text = if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { text };
    Ok(Done { passed: output.status.success(), text, took: began.elapsed(), job })
}

/// Says what a seed found and how to see it again.
fn report(cache: &Cache, done: &Done) -> Result<()> {
    let path = cache.folder("logs")?.join(format!("seed-{}.log", done.job.seed));
    fs::write(&path, &done.text).with_context(|| format!("cannot write {}", path.display()))?;
    for line in done.text.lines().filter(|line| line.starts_with("BROKEN ")).take(5) {
        println!("    {line}");
    }
    let mutant = done.job.mutant.as_ref().map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    println!("    the last events: {}", path.display());
    println!("    again: cargo xtask simulate --seed {} --minutes {}{mutant} --print", done.job.seed, done.job.minutes);
    Ok(())
}
