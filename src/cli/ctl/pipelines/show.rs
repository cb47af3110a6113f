//! Tables and comparisons.

use api::proto::v1;

use super::Client;
use super::change::named;
use crate::cli::output::{Format, emit, listing, number, print, text};
use crate::cli::{Failure, wording};

pub async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let request = v1::ListPipelinesRequest { domain: None };
    let answer = client.pipelines().list(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || table(&answer.pipelines))
}

/// `shipped`, or the number of the version.
fn version(number: u32) -> String {
    if number == 0 { "shipped".to_owned() } else { number.to_string() }
}

fn table(pipelines: &[v1::Pipeline]) -> String {
    let columns = [
        text("PIPELINE", 0),
        text("DOMAIN", 3),
        text("STATE", 0),
        text("VERSION", 0),
        text("SINCE (UTC)", 2),
        number("FILTERS", 1),
        number("WEIGHERS", 1),
        text("DEFAULT", 4),
        text("SHADOW", 1),
    ];
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .map(|pipeline| {
            vec![
                pipeline.name.clone(),
                pipeline.domain.clone(),
                pipeline.state.clone(),
                if pipeline.state == "inactive" { "-".to_owned() } else { version(pipeline.version) },
                pipeline.since.map_or("-".to_owned(), |since| wording::utc(since.wall_ms)),
                pipeline.filters.len().to_string(),
                pipeline.weighers.len().to_string(),
                if pipeline.is_default { "yes" } else { "" }.to_owned(),
                pipeline.candidate.map_or(String::new(), version),
            ]
        })
        .collect();
    let unrunnable = pipelines.iter().filter_map(|pipeline| Some((&pipeline.name, pipeline.unrunnable.as_ref()?)));
    let remarks = unrunnable.map(|(name, why)| format!("\n{name}: cannot run on the node that answered: {why}"));
    listing(&columns, &rows) + &remarks.collect::<String>()
}

pub async fn get(client: &Client, format: Format, name: String) -> Result<(), Failure> {
    let request = v1::GetPipelineRequest { name: name.clone() };
    let answer = client.pipelines().get(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    let Some(pipeline) = answer.pipeline else {
        return Err(Failure::new(format!("there is no pipeline '{name}'")));
    };
    if let (Format::Json | Format::Yaml, Some(resource)) = (format, &pipeline.resource) {
        let value: serde_json::Value = serde_json::from_str(resource)
            .map_err(|error| Failure::new(format!("the server's answer cannot be read: {error}")))?;
        emit(format, &value, String::new)
    } else {
        print(&steps(&pipeline));
        Ok(())
    }
}

fn steps(pipeline: &v1::Pipeline) -> String {
    let mut out = vec![match pipeline.state.as_str() {
        "inactive" => {
            format!("{} ({}), no version is active, newest: {}", pipeline.name, pipeline.domain, pipeline.newest)
        }
        _ => format!("{} ({}), {}", pipeline.name, pipeline.domain, named(pipeline.version)),
    }];
    if let Some(why) = &pipeline.unrunnable {
        out.push(format!("it cannot run on the node that answered, which refuses requests for it: {why}"));
    }
    if pipeline.ignore_preselection {
        out.push("the caller's weights count as 0".to_owned());
    }
    if !pipeline.filters.is_empty() {
        out.push("filters, in order:".to_owned());
        out.extend(pipeline.filters.iter().map(|name| format!("  {}", wording::step(name))));
    }
    if !pipeline.weighers.is_empty() {
        out.push("weighers:".to_owned());
        out.extend(pipeline.weighers.iter().map(|weigher| format!("  {:<45} x {}", weigher.name, weigher.multiplier)));
    }
    out.join("\n")
}

pub async fn history(client: &Client, format: Format, name: String) -> Result<(), Failure> {
    let request = v1::PipelineHistoryRequest { name };
    let answer = client.pipelines().history(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || told(&answer))
}

fn told(history: &v1::PipelineHistoryResponse) -> String {
    let mut out = vec![format!("{}: {} is active", history.name, named(history.active))];
    let at = |moment: Option<v1::Moment>| moment.map_or("-".to_owned(), |moment| wording::utc(moment.wall_ms));
    if !history.versions.is_empty() {
        let columns = [number("VERSION", 0), text("APPLIED (UTC)", 0), number("STEPS", 1), text("NOTE", 2)];
        let rows: Vec<Vec<String>> = history
            .versions
            .iter()
            .map(|one| vec![one.version.to_string(), at(one.applied), one.steps.to_string(), one.note.clone()])
            .collect();
        out.extend([String::new(), listing(&columns, &rows)]);
    }
    if !history.activations.is_empty() {
        let columns = [text("ACTIVE SINCE (UTC)", 0), text("VERSION", 0), number("COMMAND", 1)];
        let rows: Vec<Vec<String>> = history
            .activations
            .iter()
            .map(|one| {
                let command = one.since.map_or(0, |since| since.command);
                vec![at(one.since), version(one.version), command.to_string()]
            })
            .collect();
        out.extend([String::new(), listing(&columns, &rows)]);
    }
    out.join("\n")
}

pub async fn diff(client: &Client, format: Format, request: v1::DiffPipelineRequest) -> Result<(), Failure> {
    let answer = client.pipelines().diff(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(
        format,
        &answer,
        || if answer.equal { "they say the same".to_owned() } else { answer.diff.trim_end().to_owned() },
    )
}
