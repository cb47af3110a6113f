//! `ctl pipelines`: the pipelines that are active.

use api::proto::v1;

use super::Client;
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl pipelines
  pallium ctl pipelines kvm-general-purpose-load-balancing";

/// List the active pipelines, or the steps of one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of a pipeline
    name: Option<String>,
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        let request = v1::GetPipelineRequest { name: name.clone() };
        let answer = client.pipelines().get(request).await.map_err(|status| client.refusal(&status))?.into_inner();
        return match answer.pipeline {
            Some(pipeline) => emit(format, &pipeline, || steps(&pipeline)),
            None => Err(Failure::new(format!("there is no pipeline '{name}'"))),
        };
    }
    let request = v1::ListPipelinesRequest { domain: None };
    let answer = client.pipelines().list(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || table(&answer.pipelines))
}

fn table(pipelines: &[v1::Pipeline]) -> String {
    let columns =
        [text("PIPELINE", 0), text("DOMAIN", 1), number("FILTERS", 0), number("WEIGHERS", 0), text("DEFAULT", 0)];
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .map(|pipeline| {
            vec![
                pipeline.name.clone(),
                pipeline.domain.clone(),
                pipeline.filters.len().to_string(),
                pipeline.weighers.len().to_string(),
                if pipeline.is_default { "yes" } else { "" }.to_owned(),
            ]
        })
        .collect();
    listing(&columns, &rows)
}

fn steps(pipeline: &v1::Pipeline) -> String {
    let mut out = vec![format!("{} ({})", pipeline.name, pipeline.domain)];
    if pipeline.ignore_preselection {
        out.push("the caller's weights count as 0".to_owned());
    }
    out.push("filters, in order:".to_owned());
    out.extend(pipeline.filters.iter().map(|name| format!("  {}", wording::step(name))));
    if !pipeline.weighers.is_empty() {
        out.push("weighers:".to_owned());
        out.extend(pipeline.weighers.iter().map(|weigher| format!("  {:<45} x {}", weigher.name, weigher.multiplier)));
    }
    out.join("\n")
}
