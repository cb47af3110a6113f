//! `ctl pipelines`: the pipelines of the cluster, their versions, and what a new one would change.

mod change;
mod shadow;
mod show;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use scheduler::pipeline::spec::PipelineResource;

use super::{Client, Target, input};
use crate::cli::Failure;
use crate::cli::output::Format;

const EXAMPLES: &str = "\
Examples:
  pallium ctl pipelines
  pallium ctl pipelines get nova-general -o yaml > nova-general.yaml
  pallium ctl pipelines lint nova-general.yaml
  pallium ctl pipelines diff nova-general --file nova-general.yaml
  pallium ctl pipelines apply nova-general.yaml --note 'spread by memory'
  pallium ctl pipelines history nova-general
  pallium ctl pipelines rollback nova-general

To try a version first, beside the active one and without effect:
  pallium ctl pipelines apply nova-general.yaml --inactive
  pallium ctl pipelines shadow nova-general 4
  pallium ctl pipelines shadow nova-general
  pallium ctl pipelines activate nova-general 4

Version 0 is the pipeline that ships with the program.";

/// List, check, change and compare the pipelines of the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the pipelines (as without a command)
    #[command(after_help = "Example: pallium ctl pipelines list -o json")]
    List,
    /// Show the steps of one; with -o yaml or json its resource, as apply takes it
    #[command(after_help = "Example: pallium ctl pipelines get nova-general -o yaml")]
    Get {
        /// Name
        name: String,
    },
    /// Check the pipelines of a file; changes nothing
    #[command(after_help = "Examples:
  pallium ctl pipelines lint my-pipeline.yaml
  pallium ctl pipelines lint my-pipeline.yaml --offline")]
    Lint {
        /// YAML or JSON, any number of documents; - is stdin
        file: PathBuf,
        /// Ask no server: check against the steps of this program
        #[arg(long)]
        offline: bool,
    },
    /// Add a version of each pipeline of a file and make it active
    #[command(after_help = "Examples:
  pallium ctl pipelines apply my-pipeline.yaml --note 'ticket 4711'
  pallium ctl pipelines apply my-pipeline.yaml --inactive")]
    Apply {
        /// YAML or JSON, any number of documents; - is stdin
        file: PathBuf,
        /// Who or why; shown in the history
        #[arg(long, default_value = "")]
        note: String,
        /// Keep the version without making it active
        #[arg(long)]
        inactive: bool,
        /// Refuse when there is a newer version than this one
        #[arg(long, value_name = "VERSION")]
        seen: Option<u32>,
    },
    /// Show what differs between two versions, or between a version and a file
    #[command(after_help = "Examples:
  pallium ctl pipelines diff nova-general --from 2 --to 3
  pallium ctl pipelines diff nova-general --file nova-general.yaml")]
    Diff {
        /// Name
        name: String,
        /// The old side [default: the active version]
        #[arg(long, value_name = "VERSION")]
        from: Option<u32>,
        /// The new side [default: the newest version]
        #[arg(long, value_name = "VERSION", conflicts_with = "file")]
        to: Option<u32>,
        /// The new side: a file with this pipeline; - is stdin
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// List the versions, and which was active since when
    #[command(after_help = "Example: pallium ctl pipelines history nova-general")]
    History {
        /// Name
        name: String,
    },
    /// Make a version active that is kept
    #[command(after_help = "Example: pallium ctl pipelines activate nova-general 3")]
    Activate {
        /// Name
        name: String,
        /// Version; 0 = the pipeline that ships with the program
        version: u32,
    },
    /// Make active what was active before
    #[command(after_help = "Example: pallium ctl pipelines rollback nova-general")]
    Rollback {
        /// Name
        name: String,
        /// Refuse when another version than this one is active by now
        #[arg(long, value_name = "VERSION")]
        from: Option<u32>,
    },
    /// Forget a pipeline with all its versions; a shipped one of that name is active again then
    #[command(after_help = "Example: pallium ctl pipelines delete my-pipeline")]
    Delete {
        /// Name
        name: String,
    },
    /// Let a version run beside the active one without effect, and show how often they differ
    #[command(after_help = "Examples:
  pallium ctl pipelines shadow nova-general 4 --one-in 8
  pallium ctl pipelines shadow nova-general
  pallium ctl pipelines shadow nova-general --stop")]
    Shadow {
        /// Name; without one, all are shown
        name: Option<String>,
        /// The version that shall run; without one, how it does is shown
        version: Option<u32>,
        /// It runs for one of so many decisions
        #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
        one_in: u32,
        /// End it
        #[arg(long, conflicts_with = "version", requires = "name")]
        stop: bool,
    },
}

pub async fn run(target: &Target, format: Format, args: Args) -> Result<(), Failure> {
    if let Some(Command::Lint { file, offline: true }) = &args.command {
        return change::lint_offline(format, &read(file)?);
    }
    let client = &Client::connect(target).await?;
    match args.command.unwrap_or(Command::List) {
        Command::List => show::list(client, format).await,
        Command::Get { name } => show::get(client, format, name).await,
        Command::Lint { file, .. } => change::lint(client, format, &read(&file)?).await,
        Command::Apply { file, note, inactive, seen } => {
            change::apply(client, format, &read(&file)?, &note, inactive, seen).await
        }
        Command::Diff { name, from, to, file } => {
            let given = file.map(|file| one_of(&read(&file)?, &name)).transpose()?;
            show::diff(client, format, api::proto::v1::DiffPipelineRequest { name, from, to, resource: given }).await
        }
        Command::History { name } => show::history(client, format, name).await,
        Command::Activate { name, version } => change::activate(client, format, name, version).await,
        Command::Rollback { name, from } => change::rollback(client, format, name, from).await,
        Command::Delete { name } => change::delete(client, format, name).await,
        Command::Shadow { name: Some(name), version: Some(version), one_in, .. } => {
            shadow::start(client, format, name, version, one_in).await
        }
        Command::Shadow { name: Some(name), stop: true, .. } => shadow::stop(client, format, name).await,
        Command::Shadow { name, .. } => shadow::show(client, format, name).await,
    }
}

/// The pipelines of a file, or of stdin.
fn read(file: &Path) -> Result<Vec<PipelineResource>, Failure> {
    let (named, text) = input::read(file)?;
    let resources = plugins::parse_pipelines(&text).map_err(|error| Failure::new(format!("{named}: {error}")))?;
    if resources.is_empty() {
        return Err(Failure::new(format!("{named}: no pipeline in it, at least one Pipeline resource expected")));
    }
    Ok(resources)
}

fn one_of(resources: &[PipelineResource], name: &str) -> Result<String, Failure> {
    let found = resources.iter().find(|resource| resource.metadata.name == name);
    found.map(PipelineResource::text).ok_or_else(|| {
        let names: Vec<&str> = resources.iter().map(|resource| resource.metadata.name.as_str()).collect();
        Failure::new(format!("the file has no pipeline '{name}': {} found", names.join(", ")))
    })
}
