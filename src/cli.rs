//! The command line: one file for each command.

mod agent;
mod certs;
mod completions;
mod ctl;
mod demo;
mod failure;
mod output;
mod schema;
mod serve;
mod simulate;
mod verify;
mod wording;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pallium demo                          everything at once, no set-up
  pallium serve --data-dir data         a server on 127.0.0.1:8080
  pallium ctl import fleet.yaml         load the hosts
  pallium ctl place --vcpus 4 --memory 16Gi --dry-run
  pallium ctl explain 17                why decision 17 came out as it did";

/// Placement scheduler for OpenStack and Kubernetes estates: a decision and its claim are one
/// entry in one replicated log.
#[derive(Debug, Parser)]
#[command(name = "pallium", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Ctl(Box<ctl::Args>),
    Agent(agent::Args),
    Certs(certs::Args),
    Verify(verify::Args),
    Simulate(simulate::Args),
    Completions(completions::Args),
    Schema(schema::Args),
}

/// Runs the program.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Ctl(args) => ctl::run(*args),
        Command::Agent(args) => agent::run(args),
        Command::Certs(args) => certs::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Completions(args) => {
            completions::run(&args);
            Ok(())
        }
        Command::Schema(args) => {
            schema::run(&args);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    fn each(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&clap::Command, &str)) {
        visit(command, path);
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            each(sub, &format!("{path} {}", sub.get_name()), visit);
        }
    }

    #[test]
    fn every_command_has_an_example() {
        Cli::command().debug_assert();
        each(&Cli::command(), "pallium", &mut |command, path| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example") && help.contains("pallium"), "{path}: {help}");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{path}: too wide");
            assert!(command.get_about().is_some(), "{path}");
        });
    }
}
