//! `ctl what-if`: questions that are answered on a copy of the state, and touch nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::proto::v1;
use clap::Subcommand;

use super::{Client, place};
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl what-if fit --vcpus 4 --memory 16Gi --count 200
  pallium ctl what-if fit --vcpus 4 --memory 16Gi --count 200 --ratio VCPU=3.0
  pallium ctl what-if fit --vcpus 4 --memory 16Gi --pipeline nova-packing
  pallium ctl what-if lose --each host
  pallium ctl what-if lose --each label:rack --limit 50
  pallium ctl what-if lose compute-17 compute-18
  pallium ctl what-if consolidate --moves 50
  pallium ctl what-if balance

The pipelines decide, on a copy of the state of the node that is asked. Nothing
is claimed, recorded or held up. Exit code 1 when not all fit.";

/// Ask what would be, without touching anything
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Do so many fit, where, and what stops them?
    #[command(after_help = "Example: pallium ctl what-if fit --vcpus 4 --memory 16Gi --count 200")]
    Fit(Box<Fit>),
    /// If hosts were lost, which instances would find no place?
    #[command(after_help = "Example: pallium ctl what-if lose --each label:rack")]
    Lose(Lose),
    /// Which moves would empty hosts?
    #[command(after_help = "Example: pallium ctl what-if consolidate --moves 50")]
    Consolidate(Moves),
    /// Which moves would even hosts out?
    #[command(after_help = "Example: pallium ctl what-if balance --moves 50 -o json")]
    Balance(Moves),
}

#[derive(Debug, clap::Args)]
struct Moves {
    /// At most so many moves, 1000 at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    moves: u32,
    /// Pipeline by name; inferred when absent
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Fit {
    /// Read the request from a file, or - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "ask")]
    request: Option<PathBuf>,
    /// With --request: number of instances
    #[arg(long, value_name = "N", requires = "request")]
    times: Option<u64>,
    #[command(flatten)]
    ask: place::Ask,
    #[command(flatten)]
    ratios: Ratios,
}

#[derive(Debug, clap::Args)]
struct Lose {
    /// Hosts that are lost together
    #[arg(value_name = "HOST", required_unless_present = "each", conflicts_with = "each")]
    hosts: Vec<String>,
    /// Each of these by itself: host, zone, aggregate, or label:KEY
    #[arg(long, value_name = "WHAT")]
    each: Option<String>,
    /// So many of those that hold most, 200 at most
    #[arg(long, value_name = "N", default_value_t = 20, requires = "each")]
    limit: u32,
    /// Domain
    #[arg(long)]
    domain: Option<String>,
    /// Pipeline by name; inferred when absent
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    #[command(flatten)]
    ratios: Ratios,
}

/// Ratios as they would be.
#[derive(Debug, clap::Args)]
struct Ratios {
    /// Allocation ratio as it would be on every host; may be given several times
    #[arg(long = "ratio", value_name = "CLASS=N", value_parser = ratio)]
    ratios: Vec<(String, f64)>,
}

fn ratio(text: &str) -> Result<(String, f64), String> {
    let (class, ratio) = text.split_once('=').ok_or("CLASS=N expected, as in VCPU=3.0")?;
    Ok((class.to_owned(), ratio.parse().map_err(|_| format!("'{ratio}' given, a number expected"))?))
}

impl Ratios {
    fn map(self) -> BTreeMap<String, f64> {
        self.ratios.into_iter().collect()
    }
}

pub async fn run(client: &Client, format: Format, args: Args) -> Result<(), Failure> {
    match args.question {
        Question::Fit(fit) => run_fit(client, format, *fit).await,
        Question::Lose(lose) => run_lose(client, format, lose).await,
        Question::Consolidate(moves) => run_moves(client, format, "consolidate", moves).await,
        Question::Balance(moves) => run_moves(client, format, "balance", moves).await,
    }
}

async fn run_fit(client: &Client, format: Format, fit: Fit) -> Result<(), Failure> {
    let request = match &fit.request {
        Some(path) => place::read(path)?,
        None => fit.ask.request()?,
    };
    let count = fit.times.unwrap_or_else(|| u64::from(request.count.max(1)));
    let asked = v1::WhatIfFitRequest { request: Some(request), count, ratios: fit.ratios.map() };
    let answer = client.what_if().fit(asked).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || told(&answer))?;
    match answer.asked - answer.placed {
        0 => Ok(()),
        _ => Err(Failure::new("not all fit")),
    }
}

fn told(answer: &v1::WhatIfFitResponse) -> String {
    let mut out = vec![format!(
        "{} of {} fit, on {}",
        answer.placed,
        answer.asked,
        wording::count(answer.hosts.len() as u64, "host")
    )];
    if answer.changed > 0 {
        out.push(format!("with the ratios of {} changed", wording::count(answer.changed, "host")));
    }
    if let Some(stopped) = &answer.stopped {
        let drops = wording::drops_of(&stopped.steps);
        let unknown = stopped.unknown_hosts.len() as u64;
        let outcome = wording::outcome(super::explain::fit(stopped), stopped.candidates, unknown, &drops);
        out.push(wording::wrapped(&format!("the next one: {outcome}"), 80, "  "));
    }
    out.join("\n")
}

async fn run_lose(client: &Client, format: Format, lose: Lose) -> Result<(), Failure> {
    let Lose { hosts, each, limit, domain, pipeline, ratios } = lose;
    let each = each.unwrap_or_default();
    let asked = v1::WhatIfLoseRequest { domain, hosts, each, limit, pipeline, ratios: ratios.map() };
    let answer = client.what_if().lose(asked).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || losses(&answer))
}

fn losses(answer: &v1::WhatIfLoseResponse) -> String {
    if answer.losses.is_empty() {
        return "nothing to lose: no instance is known there".to_owned();
    }
    let columns = [text("LOST", 0), number("HOSTS", 1), number("INSTANCES", 0), number("WITHOUT A PLACE", 0)];
    let row = |loss: &v1::WhatIfLoss| {
        vec![loss.name.clone(), loss.hosts.to_string(), loss.instances.to_string(), loss.left.to_string()]
    };
    let mut out = vec![listing(&columns, &answer.losses.iter().map(row).collect::<Vec<_>>())];
    for loss in answer.losses.iter().filter(|loss| loss.left > 0) {
        let named = loss.named.iter();
        out.extend(named.map(|left| {
            wording::wrapped(
                &format!("{}: {} of {} finds no place: {}", loss.name, left.instance, left.host, left.why),
                80,
                "  ",
            )
        }));
        let more = loss.left - loss.named.len() as u64;
        if more > 0 {
            out.push(format!("{}: and {more} more", loss.name));
        }
    }
    let uncovered = answer.losses.iter().filter(|loss| loss.left > 0).count();
    out.push(match uncovered {
        0 => format!("any of these {} could be lost", answer.losses.len()),
        _ => format!("{uncovered} of these {} could not be lost", answer.losses.len()),
    });
    if answer.not_tried > 0 {
        out.push(format!("{} that hold less were not tried", wording::grouped(answer.not_tried)));
    }
    out.join("\n")
}

async fn run_moves(client: &Client, format: Format, objective: &str, asked: Moves) -> Result<(), Failure> {
    let Moves { moves, pipeline } = asked;
    let asked = v1::WhatIfMovesRequest { objective: objective.to_owned(), moves, pipeline };
    let answer = client.what_if().moves(asked).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || plan(&answer))
}

fn plan(answer: &v1::WhatIfMovesResponse) -> String {
    let mut out = Vec::new();
    if answer.steps.is_empty() {
        out.push("no move would be of use".to_owned());
    } else {
        let columns = [
            number("STEP", 1),
            text("INSTANCE", 0),
            text("FROM", 0),
            text("TO", 0),
            number("MEMORY MIB", 0),
            number("GAIN", 0),
            text("WHY", 2),
        ];
        let rows = answer.steps.iter().zip(1_u64..).flat_map(|(step, at)| {
            step.moves.iter().enumerate().map(move |(place, one)| {
                // What a step is for stands beside its first move.
                let first = |text: String| if place == 0 { text } else { String::new() };
                vec![
                    at.to_string(),
                    one.instance.clone(),
                    one.from.clone(),
                    one.to.clone(),
                    one.memory_mib.to_string(),
                    first(format!("{:.4}", step.gain)),
                    first(step.reason.clone()),
                ]
            })
        });
        out.push(listing(&columns, &rows.collect::<Vec<_>>()));
    }
    out.push(format!(
        "{} and {} MiB moved; hosts in use: {} of {}, then {}; imbalance: {:.3}, then {:.3}",
        wording::count(answer.moves, "move"),
        answer.memory_mib,
        answer.in_use,
        answer.hosts,
        answer.in_use_after,
        answer.imbalance,
        answer.imbalance_after
    ));
    if answer.refused > 0 {
        let refused = wording::count(answer.refused, "move");
        out.push(format!("planned again without {refused} that a pipeline refused when its turn came"));
    }
    if answer.bounded {
        out.push("the bound of work was reached: there may be more".to_owned());
    }
    out.join("\n")
}
