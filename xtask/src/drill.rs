//! Failover by real processes, many times over: what takes too long for every change.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::chaos;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// From the last heartbeat to the first evacuation, p50 and longest
    Times,
    /// The leader is killed, paused or cut off at each step of a case
    Fates,
}

#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// Runs for each way to die
    #[arg(long, default_value_t = 20, value_name = "N")]
    runs: usize,
    /// Estates at the same time; on a busy machine more of them make each slower
    #[arg(long, default_value_t = 2, value_name = "N")]
    abreast: usize,
    /// What to do
    #[arg(value_enum, default_value = "times")]
    kind: Kind,
}

/// False when something failed.
pub fn run(cache: &Cache, plan: &Plan) -> Result<bool> {
    chaos::prepare();
    let test = match plan.kind {
        Kind::Times => "failover::times_under_a_leader_that_is_no_new_one",
        Kind::Fates => "failover::a_leader_meets_its_fate_at_each_step",
    };
    let arguments = ["test", "--locked", "--test", "faults", "--", "--nocapture", "--include-ignored", "--exact", test];
    let mut command = cargo(cache, &arguments)?;
    command.env("PALLIUM_DRILL_RUNS", plan.runs.to_string());
    cargo::succeeds(command.env("PALLIUM_DRILL_ABREAST", plan.abreast.to_string()))
}
