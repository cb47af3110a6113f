//! Random worlds of failover: the program is built once with the faults that can be built in, and lives through
//! all seeds in one process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::steps::{Count, Log, Verdict, counted};

/// Faults that are built in on purpose; a sample of seeds must notice each.
const MUTANTS: [&str; 7] =
    ["no-barrier", "believe-codes", "no-proof", "trust-ping", "no-quiet", "no-breaker", "feeds-always"];
/// Seeds that may pass before a mutant counts as not noticed.
const MUTANT_SEEDS: u64 = 60;

/// What to live through.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many seeds, one after another
    #[arg(long, default_value_t = 1, value_name = "N")]
    seeds: u64,
    /// Simulated minutes with faults of each; forty without follow
    #[arg(long, default_value_t = 30, value_name = "N")]
    minutes: u64,
    /// Kinds of faults, the oldest first: what an older seed was drawn from
    #[arg(long, value_name = "N")]
    kinds: Option<u8>,
    /// Hosts at most, 3 to 200; of eight seeds one has 40 at most and the others 16 where it is not given
    #[arg(long, value_name = "N")]
    hosts: Option<u8>,
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
    /// What CI lives through.
    const SAMPLE: Self = Self {
        seed: 1,
        seeds: 300,
        minutes: 120,
        kinds: None,
        hosts: None,
        mutants: false,
        mutant: None,
        print: false,
    };

    /// Lives through seeds of it.
    fn command(&self, program: &Path, seeds: u64, mutant: Option<&str>) -> Command {
        let mut command = Command::new(program);
        for (name, number) in [("--seed", self.seed), ("--seeds", seeds), ("--minutes", self.minutes)] {
            command.args([name, &number.to_string()]);
        }
        command.args(self.kinds.iter().flat_map(|kinds| ["--kinds".to_owned(), kinds.to_string()]));
        command.args(self.hosts.iter().flat_map(|hosts| ["--hosts".to_owned(), hosts.to_string()]));
        command.args(mutant.iter().flat_map(|mutant| ["--mutant", mutant]));
        command.args(self.print.then_some("--print"));
        command
    }

    /// Which mutants some seed notices.
    fn mutants(&self, program: &Path) -> Result<Count> {
        let mut count = Count::default();
        for mutant in MUTANTS {
            let mut command = self.command(program, MUTANT_SEEDS, Some(mutant));
            let noticed = !command.args(["--enough", "1"]).output()?.status.success();
            println!("  {mutant} is {} by {MUTANT_SEEDS} seeds", if noticed { "noticed" } else { "NOT noticed" });
            count.add(Count::one(noticed));
        }
        Ok(count)
    }
}

/// Runs a plan; false when something was found, or not found that should have been.
pub fn run(cache: &Cache, plan: &Plan) -> Result<bool> {
    let program = build(cache, None)?;
    let well = cargo::succeeds(&mut plan.command(&program, plan.seeds, plan.mutant.as_deref()))?;
    Ok((!plan.mutants || plan.mutants(&program)?.failed == 0) && well)
}

/// The catalogue, and a sample as a step of `test`: each seed is a check, and so is each mutant.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let arguments = ["test", "--package", "simulation", "--features", "mutants", "--test", "worlds", "--locked"];
    let played = log.run(cargo(cache, &arguments)?.args(["--profile", "simulation"]))?;
    let mut count = counted(&log.text(), played);
    let (plan, program) = (Plan::SAMPLE, build(cache, Some(log))?);
    let well = log.run(&mut plan.command(&program, plan.seeds, None))?;
    let found = log.text().lines().filter(|line| line.starts_with("again: ")).count() as u64;
    // One that ended otherwise failed as well.
    let failed = found.max(u64::from(!well));
    count.add(Count { passed: plan.seeds.saturating_sub(failed), failed });
    count.add(plan.mutants(&program)?);
    Ok(Verdict::Ran(count))
}

fn build(cache: &Cache, log: Option<&Log>) -> Result<PathBuf> {
    let arguments = ["build", "--package", "simulation", "--features", "mutants", "--bin", "failover", "--locked"];
    let mut command = cargo(cache, &arguments)?;
    command.args(["--profile", "simulation"]);
    let built = match log {
        Some(log) => log.run(&mut command)?,
        None => cargo::succeeds(&mut command)?,
    };
    if !built {
        bail!("the simulation does not build");
    }
    Ok(cache.target().join("simulation/failover"))
}
