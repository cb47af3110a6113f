//! Developer tasks: `cargo xtask TASK`. One place that sets up what a test needs and runs it.
//!
//! Never here: a shell, a sleep, or a write outside the checkout's own files and the build cache
//! (apart from Debian packages that a step cannot do without).

mod agent;
mod bench;
mod cache;
mod cargo;
mod chaos;
mod ci;
mod cloudsim;
mod coverage;
mod drill;
mod failover;
mod fuzz;
mod hands;
mod licences;
mod masakari;
mod nova;
mod packages;
mod profile;
mod python;
mod simulate;
mod steps;
mod timings;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use bench::Peer;
use cache::Cache;
use steps::{Step, check, fix};

/// Developer tasks of pallium.
///
/// Builds go to a cache outside the checkout: PALLIUM_TARGET_DIR, else CARGO_TARGET_DIR, else
/// $XDG_CACHE_HOME/pallium/target, else ~/.cache/pallium/target.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run what CI runs; without STEP all of it
    #[command(after_help = "Example: cargo xtask test clippy test")]
    Test {
        /// Only what a developer runs before each commit: fmt, clippy, test
        #[arg(long, conflicts_with = "steps")]
        quick: bool,
        /// Seconds for each fuzz target
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u32,
        /// Steps to run, in this order
        #[arg(value_enum, value_name = "STEP")]
        steps: Vec<Step>,
    },
    /// Format everything
    Fmt,
    /// Run clippy as CI does, and mend what it can
    Lint,
    /// Fuzz what strangers send: libFuzzer with coverage on the stable toolchain
    #[command(after_help = "Example: cargo xtask fuzz --seconds 600 nova_hook")]
    Fuzz {
        /// Seconds for each target
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u32,
        /// Targets; without any, all of fuzz/src/bin
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Run a real cluster under faults and check what its clients saw (root, for all of the faults)
    #[command(after_help = "Example: cargo xtask chaos --minutes 30 --seed 7")]
    Chaos {
        /// How long
        #[arg(long, default_value_t = 10, value_name = "N")]
        minutes: u64,
        /// What is chosen; another one each time when absent
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// Voters
        #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=5))]
        nodes: u64,
    },
    /// Live through random worlds of failover under seeds: hosts, BMCs, Nova, leaders and people at fault
    #[command(after_help = "Example: cargo xtask failover --seed 7 --seeds 2000")]
    Failover(failover::Plan),
    /// Let hosts die under three real servers, many times: how long it takes, or what a leader's fate spoils
    #[command(after_help = "Example: cargo xtask drill times --runs 20")]
    Drill(drill::Plan),
    /// Simulate whole clusters under seeds, with crashes, cuts, bad disks and clocks
    #[command(after_help = "Example: cargo xtask simulate --seed 7 --seeds 20 --minutes 20")]
    Simulate(simulate::Plan),
    /// Run benches and print one table: hosts × percentile
    #[command(after_help = "Example: cargo xtask bench decide -- --hosts 10000")]
    Bench {
        /// Benches; without any, all
        #[arg(value_name = "BENCH")]
        benches: Vec<String>,
        /// Print the table in Markdown
        #[arg(long)]
        markdown: bool,
        /// Time the real Nova beside the bench `decide` (installs it into the cache)
        #[arg(long)]
        vs_nova: bool,
        /// Run CloudSim Plus beside the bench `replay`, on the same hosts and events (needs a JDK 17 and Maven)
        #[arg(long, conflicts_with_all = ["vs_nova", "benches", "arguments"])]
        vs_cloudsim: bool,
        /// Arguments for the bench programs
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Say where the time of a bench goes: perf, else callgrind
    #[command(after_help = "Example: cargo xtask profile decide -- --hosts 10000")]
    Profile {
        /// The bench
        bench: String,
        /// Arguments for the bench program
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Check licences, bans and sources of the dependencies (installs cargo-deny into the cache)
    Deny,
    /// Clone HEAD into an empty folder and run .ci/run there, as CI does
    Ci,
    /// Build from nothing and print the crates that take longest
    Timings {
        /// The release build instead of the development build
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    if coverage::is_wrapper() {
        eprintln!("error: cannot run rustc: {}", coverage::become_rustc());
        return ExitCode::FAILURE;
    }
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False: something was checked and failed, and has been reported.
fn run(task: Task) -> Result<bool> {
    let cache = Cache::open()?;
    match task {
        Task::Test { quick, seconds, steps } => {
            let steps = match (quick, steps.is_empty()) {
                (true, _) => Step::QUICK.to_vec(),
                (false, true) => Step::ALL.to_vec(),
                (false, false) => steps,
            };
            check(&cache, &steps, seconds)
        }
        Task::Fmt => fix(&cache, &["fmt", "--all"]),
        Task::Lint => {
            fix(&cache, &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--", "-Dwarnings"])
        }
        Task::Fuzz { seconds, targets } => fuzz::run(&cache, seconds, &targets),
        Task::Chaos { minutes, seed, nodes } => chaos::run(&cache, minutes, seed, nodes),
        Task::Failover(plan) => failover::run(&cache, &plan),
        Task::Drill(plan) => drill::run(&cache, &plan),
        Task::Simulate(plan) => simulate::run(&cache, &plan),
        Task::Bench { benches, markdown, vs_nova, vs_cloudsim, mut arguments } => {
            let peer = match (vs_nova, vs_cloudsim) {
                (false, false) => None,
                (true, _) => Some(Peer::Nova(nova::python_or_error(&cache)?)),
                (_, true) => {
                    arguments = cloudsim::arguments();
                    Some(Peer::CloudSim(cloudsim::runs(&cache)?))
                }
            };
            bench::run(&cache, &benches, markdown, peer, &arguments)
        }
        Task::Profile { bench, arguments } => profile::run(&cache, &bench, &arguments),
        Task::Deny => check(&cache, &[Step::Deny], 0),
        Task::Ci => ci::run(&cache),
        Task::Timings { release } => timings::run(&cache, release),
    }
}
