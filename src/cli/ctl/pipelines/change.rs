//! Checks and changes.

use api::proto::v1;
use scheduler::Settings;
use scheduler::pipeline::spec::{PipelineResource, SpecError};
use serde::Serialize;

use super::Client;
use crate::cli::Failure;
use crate::cli::output::{Format, complain, emit, print};

/// The findings of one pipeline.
#[derive(Serialize)]
struct Checked {
    pipeline: String,
    errors: Vec<v1::PipelineFinding>,
    warnings: Vec<v1::PipelineFinding>,
}

pub async fn lint(client: &Client, format: Format, resources: &[PipelineResource]) -> Result<(), Failure> {
    let mut checked = Vec::new();
    for resource in resources {
        let request = v1::LintPipelineRequest { resource: Some(resource.text()) };
        let answer = client.pipelines().lint(request).await.map_err(|status| client.refusal(&status))?;
        let v1::LintPipelineResponse { errors, warnings } = answer.into_inner();
        checked.push(Checked { pipeline: resource.metadata.name.clone(), errors, warnings });
    }
    told(format, &checked)
}

pub fn lint_offline(format: Format, resources: &[PipelineResource]) -> Result<(), Failure> {
    let engine = plugins::engine(Settings::default());
    let finding = |error: &SpecError| v1::PipelineFinding { path: error.path.clone(), message: error.message.clone() };
    let checked = resources.iter().map(|resource| {
        let (errors, warnings) = engine.lint(resource);
        let (errors, warnings) = (errors.iter().map(finding).collect(), warnings.iter().map(finding).collect());
        Checked { pipeline: resource.metadata.name.clone(), errors, warnings }
    });
    told(format, &checked.collect::<Vec<_>>())
}

fn told(format: Format, checked: &[Checked]) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for Checked { pipeline, errors, warnings } in checked {
        lines.extend(errors.iter().map(|found| format!("{pipeline}: error: {}: {}", found.path, found.message)));
        lines.extend(warnings.iter().map(|found| format!("{pipeline}: warning: {}: {}", found.path, found.message)));
        if errors.is_empty() && warnings.is_empty() {
            lines.push(format!("{pipeline}: nothing to say against it"));
        }
    }
    emit(format, &checked, || lines.join("\n"))?;
    match checked.iter().map(|checked| checked.errors.len()).sum() {
        0_usize => Ok(()),
        1 => Err(Failure::new("1 error: it cannot be applied")),
        errors => Err(Failure::new(format!("{errors} errors: it cannot be applied"))),
    }
}

/// Applies all of them, or none when one cannot run.
pub async fn apply(
    client: &Client,
    format: Format,
    resources: &[PipelineResource],
    note: &str,
    inactive: bool,
    seen: Option<u32>,
) -> Result<(), Failure> {
    let mut errors = Vec::new();
    for resource in resources {
        let request = v1::LintPipelineRequest { resource: Some(resource.text()) };
        let answer = client.pipelines().lint(request).await.map_err(|status| client.refusal(&status))?;
        let name = &resource.metadata.name;
        errors.extend(
            answer.into_inner().errors.iter().map(|found| format!("{name}: {}: {}", found.path, found.message)),
        );
    }
    if !errors.is_empty() {
        return Err(Failure::new(format!("nothing was applied:\n{}", errors.join("\n"))));
    }
    let mut answers = Vec::new();
    for resource in resources {
        let request = v1::ApplyPipelineRequest {
            resource: Some(resource.text()),
            note: note.to_owned(),
            keep_inactive: inactive,
            seen,
        };
        let answer = client.pipelines().apply(request).await.map_err(|status| client.refusal(&status))?.into_inner();
        for warning in &answer.warnings {
            complain(&format!("warning: {}: {}: {}", answer.name, warning.path, warning.message));
        }
        if format == Format::Table {
            print(&applied(&answer));
        }
        answers.push(answer);
    }
    if format != Format::Table {
        emit(format, &answers, String::new)?;
    }
    Ok(())
}

fn applied(answer: &v1::ChangePipelineResponse) -> String {
    let v1::ChangePipelineResponse { name, version, active, changed, .. } = answer;
    match (active == version, changed) {
        (true, true) => format!("{name}: version {version} is active"),
        (true, false) => format!("{name}: version {version} is the same and active already"),
        (false, true) => format!(
            "{name}: version {version} is kept, {} is active; try it with: pallium ctl pipelines shadow {name} {version}",
            named(*active)
        ),
        (false, false) => {
            format!("{name}: version {version} is the same and kept already, {} is active", named(*active))
        }
    }
}

/// `version 3`, or what stands for version 0.
pub fn named(version: u32) -> String {
    if version == 0 { "the shipped version".to_owned() } else { format!("version {version}") }
}

pub async fn activate(client: &Client, format: Format, name: String, version: u32) -> Result<(), Failure> {
    let request = v1::ActivatePipelineRequest { name, version };
    let answer = client.pipelines().activate(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || switched(&answer))
}

pub async fn rollback(client: &Client, format: Format, name: String, from: Option<u32>) -> Result<(), Failure> {
    let request = v1::RollbackPipelineRequest { name, from };
    let answer = client.pipelines().rollback(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || switched(&answer))
}

fn switched(answer: &v1::ChangePipelineResponse) -> String {
    let already = if answer.changed { "" } else { " already" };
    format!("{}: {} is active{already}", answer.name, named(answer.active))
}

pub async fn delete(client: &Client, format: Format, name: String) -> Result<(), Failure> {
    let request = v1::DeletePipelineRequest { name };
    let answer = client.pipelines().delete(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || format!("{}: all its versions are forgotten", answer.name))
}
