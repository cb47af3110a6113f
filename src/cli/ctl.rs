//! `ctl`: the operator's tool, over gRPC.

mod backup;
mod client;
mod cluster;
pub mod decisions;
mod explain;
mod features;
mod ha;
mod hosts;
pub mod import;
mod input;
mod instances;
mod pipelines;
mod place;
mod recover;
mod release;
mod restore;
mod what_if;

use clap::Subcommand;

pub use client::{Client, Target};

use super::Failure;
use super::output::Format;

const EXAMPLES: &str = "\
Examples:
  pallium ctl import fleet.yaml
  kubectl get hypervisors -o json | pallium ctl import -
  pallium ctl hosts --zone az-a
  pallium ctl explain 198d1710-5a6c-4990-8a9f-9ea722780747 --host node-001
  PALLIUM_SERVER=http://10.0.0.1:8080 pallium ctl decisions --watch
  pallium ctl --server https://10.0.0.1:8080 --ca ca.pem hosts";

/// Look at and change what a server knows
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Args),
    Hosts(hosts::Args),
    Instances(instances::Args),
    Features(features::Args),
    Place(Box<place::Args>),
    Explain(explain::Args),
    WhatIf(what_if::Args),
    Decisions(decisions::Args),
    Pipelines(pipelines::Args),
    Release(release::Args),
    Cluster(cluster::Args),
    Ha(ha::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Recover(recover::Args),
}

/// Runs one command against the server.
pub fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let (target, format) = (args.target, args.output);
    runtime.block_on(async {
        match args.command {
            Command::Import(args) => import::run(&target, format, &args).await,
            Command::Hosts(args) => hosts::run(&Client::connect(&target).await?, format, &args).await,
            Command::Instances(args) => instances::run(&Client::connect(&target).await?, format, &args).await,
            Command::Features(args) => features::run(&target, format, args).await,
            Command::Place(args) => place::run(&target, format, &args).await,
            Command::Explain(args) => explain::run(&Client::connect(&target).await?, format, &args).await,
            Command::WhatIf(args) => what_if::run(&Client::connect(&target).await?, format, args).await,
            Command::Decisions(args) => decisions::run(&Client::connect(&target).await?, format, &args).await,
            Command::Pipelines(args) => pipelines::run(&target, format, args).await,
            Command::Release(args) => release::run(&Client::connect(&target).await?, format, &args).await,
            Command::Cluster(args) => cluster::run(&Client::connect(&target).await?, format, &args).await,
            Command::Ha(args) => ha::run(&target, format, args).await,
            Command::Backup(args) => backup::run(&target, format, &args).await,
            Command::Restore(args) => restore::run(format, &args),
            Command::Recover(args) => recover::run(format, &args),
        }
    })
}
