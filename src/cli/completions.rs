//! Shell completions.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

const EXAMPLES: &str = "\
Example:
  pallium completions bash > ~/.local/share/bash-completion/completions/pallium";

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell to complete in
    shell: Shell,
}

pub fn run(args: &Args) {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pallium", &mut out);
    super::output::print(String::from_utf8_lossy(&out).trim_end());
}
