//! Random worlds of failover: the program is built once with the faults that can be built in, and lives through
//! all seeds in one process.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::cache::Cache;
use crate::cargo::{self, cargo};

/// Faults that are built in on purpose; a sample of seeds must notice each.
const MUTANTS: [&str; 6] = ["no-barrier", "believe-codes", "no-proof", "trust-ping", "no-quiet", "no-breaker"];
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

/// Runs a plan; false when something was found, or not found that should have been.
pub fn run(cache: &Cache, plan: &Plan) -> Result<bool> {
    let arguments = ["build", "--package", "simulation", "--features", "mutants", "--bin", "failover", "--locked"];
    let mut build = cargo(cache, &arguments)?;
    if !cargo::succeeds(build.args(["--profile", "simulation"]))? {
        bail!("the simulation does not build");
    }
    let program = cache.target().join("simulation/failover");
    let live = |seeds: u64, mutant: Option<&str>| {
        let mut command = Command::new(&program);
        for (name, number) in [("--seed", plan.seed), ("--seeds", seeds), ("--minutes", plan.minutes)] {
            command.args([name, &number.to_string()]);
        }
        command.args(plan.kinds.iter().flat_map(|kinds| ["--kinds".to_owned(), kinds.to_string()]));
        command.args(mutant.iter().flat_map(|mutant| ["--mutant", mutant]));
        command.args(plan.print.then_some("--print"));
        command
    };
    let mut well = cargo::succeeds(&mut live(plan.seeds, plan.mutant.as_deref()))?;
    for mutant in MUTANTS.iter().filter(|_| plan.mutants) {
        let noticed = !live(MUTANT_SEEDS, Some(mutant)).output()?.status.success();
        println!("  {mutant} is {} by {MUTANT_SEEDS} seeds", if noticed { "noticed" } else { "NOT noticed" });
        well &= noticed;
    }
    Ok(well)
}
