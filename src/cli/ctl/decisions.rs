//! `ctl decisions`: what was decided lately, or as it happens.

pub mod export;

use api::proto::v1;
use clap::Subcommand;

use super::Client;
use crate::cli::output::{Format, complain, emit, listing, number, print, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl decisions
  pallium ctl decisions --intent evacuate --limit 20
  pallium ctl decisions --watch -o json | jq .claimed
  pallium ctl decisions export --count 500 recording";

/// List decisions, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print decisions as they are made, oldest first, until interrupted
    #[arg(long)]
    watch: bool,
    /// Only about this instance
    #[arg(long, value_name = "UUID", conflicts_with = "watch")]
    instance: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "ID", conflicts_with = "watch")]
    project: Option<String>,
    /// Only with this intent: create, resize, live_migration, evacuate, …
    #[arg(long, conflicts_with = "watch")]
    intent: Option<String>,
    /// Only this domain: nova, cinder, manila, machines or pods
    #[arg(long)]
    domain: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "watch")]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    Export(export::Args),
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    if let Some(Command::Export(args)) = &args.command {
        return export::run(client, format, args).await;
    }
    if args.watch {
        return watch(client, format, args).await;
    }
    let mut decisions = Vec::new();
    let mut before = 0;
    while decisions.len() < args.limit {
        let request = v1::DecisionsRequest {
            domain: args.domain.clone(),
            consumer: args.instance.clone(),
            project_id: args.project.clone(),
            intent: args.intent.clone(),
            limit: (args.limit - decisions.len()).min(1000) as u32,
            before,
        };
        let page = client.scheduler().decisions(request).await.map_err(|s| client.refusal(&s))?.into_inner();
        decisions.extend(page.decisions);
        before = page.next_before;
        if before == 0 {
            break;
        }
    }
    let listed = v1::DecisionsResponse { decisions, next_before: before };
    emit(format, &listed, || table(&listed.decisions))
}

fn table(decisions: &[v1::DecisionRecord]) -> String {
    if decisions.is_empty() {
        return "no decisions".to_owned();
    }
    let columns = [
        number("ID", 0),
        text("TIME (UTC)", 1),
        text("INTENT", 0),
        text("FIT", 0),
        text("CLAIM", 2),
        text("HOST", 0),
        text("FLAVOR", 4),
        text("INSTANCE", 3),
    ];
    listing(&columns, &decisions.iter().map(row).collect::<Vec<_>>())
}

fn row(decision: &v1::DecisionRecord) -> Vec<String> {
    let consumers = match decision.consumers.as_slice() {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    };
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        decision.id.to_string(),
        wording::utc(decision.wall_ms),
        decision.intent.clone(),
        format!("{}/{}", decision.hosts_out, decision.candidates + decision.unknown_hosts),
        decision.claim.clone(),
        dash(decision.claimed.join(",")),
        dash(decision.flavor.clone().unwrap_or_default()),
        consumers,
    ]
}

async fn watch(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let request = v1::WatchDecisionsRequest { domain: args.domain.clone(), after: None };
    let stream = client.scheduler().watch_decisions(request).await.map_err(|status| client.refusal(&status))?;
    let mut stream = stream.into_inner();
    while let Some(event) = stream.message().await.map_err(|status| client.refusal(&status))? {
        if event.lost > 0 {
            complain(&format!("{} not shown: this reader was too slow", wording::count(event.lost, "decision")));
        }
        let Some(decision) = event.decision else { continue };
        match format {
            Format::Table => print(&row(&decision).join("  ")),
            Format::Json => print(&serde_json::to_string(&decision).map_err(|e| Failure::new(e.to_string()))?),
            Format::Yaml => {
                let text = serde_norway::to_string(&decision).map_err(|e| Failure::new(e.to_string()))?;
                print(&format!("---\n{}", text.trim_end()));
            }
        }
    }
    Err(Failure::new("the server ended the watch: start it again to go on"))
}
