//! JSON Schemas of the files that pallium reads.

use clap::ValueEnum;

use super::{output, serve};

const EXAMPLES: &str = "\
Examples:
  pallium schema fleet > fleet.schema.json
  pallium schema config > config.schema.json";

/// Print the JSON Schema of a file that pallium reads
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which file
    #[arg(value_enum)]
    file: File,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    /// The fleet file of `pallium ctl import`
    Fleet,
    /// The config file of `pallium serve`
    Config,
}

pub fn run(args: &Args) {
    let schema = match args.file {
        File::Fleet => operators::schema::fleet(),
        File::Config => serve::config::schema(),
    };
    output::print(&format!("{schema:#}"));
}
