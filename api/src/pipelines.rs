//! The pipelines as clients see them: lists, changes, comparisons, and how candidates do.
//!
//! A change is checked here first, for a complete list of what is wrong with it; the leader checks
//! again before it proposes, and apply refuses what no longer fits the state.

use std::sync::Arc;

use axum::http::StatusCode;
use raft::Freshness;
use scheduler::catalogue::{Change, Moment, Versions};
use scheduler::core::Shadow;
use scheduler::pipeline::engine::Pipeline;
use scheduler::pipeline::spec::{PipelineResource, SpecError};
use scheduler::{Catalogue, Command, Domain, Engine, Outcome};
use similar::TextDiff;

use crate::convert;
use crate::error::ApiError;
use crate::proto::v1;
use crate::service::Service;

/// A candidate runs for one of so many decisions when nothing else is said.
const ONE_IN: u32 = 16;

fn resource(text: Option<&str>) -> Result<PipelineResource, ApiError> {
    let text = text.ok_or_else(|| ApiError::bad_request("resource: a Pipeline resource expected, none given"))?;
    PipelineResource::read(text).map_err(|error| ApiError::bad_request(format!("resource: {error}")))
}

fn finding(error: &SpecError) -> v1::PipelineFinding {
    v1::PipelineFinding { path: error.path.clone(), message: error.message.clone() }
}

fn moment(at: Moment) -> v1::Moment {
    v1::Moment { command: at.command, wall_ms: at.wall }
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("no pipeline '{}'", name.escape_debug()))
}

/// What the engine and the state say of one name.
fn view(engine: &Engine, catalogue: &Catalogue, name: &str, running: Option<&Arc<Pipeline>>) -> v1::Pipeline {
    let versions = catalogue.get(name);
    let unrunnable = engine.unrunnable().find(|unrunnable| unrunnable.name == name);
    let mut out = v1::Pipeline {
        name: name.to_owned(),
        state: match (running, unrunnable) {
            (Some(_), _) => "active",
            (None, Some(_)) => "unrunnable",
            (None, None) => "inactive",
        }
        .to_owned(),
        version: versions.map_or(0, Versions::active),
        newest: versions.map_or(0, |versions| versions.last),
        since: versions.and_then(|versions| versions.activations.last()).map(|activation| moment(activation.at)),
        candidate: versions.and_then(|versions| versions.candidate).map(|candidate| candidate.version),
        unrunnable: unrunnable.map(|unrunnable| unrunnable.why.clone()),
        is_default: Domain::ALL.into_iter().any(|domain| engine.settings.default_of(domain) == name),
        ..v1::Pipeline::default()
    };
    if let Some(pipeline) = running {
        out.domain = pipeline.domain.to_string();
        out.ignore_preselection = pipeline.ignore_preselection;
        out.filters = pipeline.filters.iter().map(|(name, _)| name.clone()).collect();
        let weighers = pipeline.weighers.iter();
        out.weighers = weighers
            .map(|(name, _, multiplier)| v1::PipelineWeigher { name: name.clone(), multiplier: *multiplier })
            .collect();
    } else if let Some(resource) = newest(versions).and_then(|text| PipelineResource::read(text).ok()) {
        out.domain = resource.spec.scheduling_domain.to_string();
    }
    out
}

fn newest(versions: Option<&Versions>) -> Option<&str> {
    versions?.versions.last().map(|version| &*version.resource)
}

/// The resource of a version; 0 = the shipped one.
fn text_of(engine: &Engine, catalogue: &Catalogue, name: &str, version: u32) -> Option<String> {
    match version {
        0 => engine.shipped(name).map(|pipeline| pipeline.resource.text()),
        _ => Some(catalogue.get(name)?.version(version)?.resource.to_string()),
    }
}

/// A resource as YAML, for comparisons by people.
fn yaml(text: &str) -> Result<String, ApiError> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| ApiError::internal(error.to_string()))?;
    serde_norway::to_string(&value).map_err(|error| ApiError::internal(error.to_string()))
}

fn shadow(tally: Shadow) -> v1::PipelineShadow {
    let mean = |nanos: u64| nanos as f64 / 1e3 / tally.compared.max(1) as f64;
    v1::PipelineShadow {
        candidate_us: mean(tally.nanos.0),
        active_us: mean(tally.nanos.1),
        pipeline: tally.pipeline,
        active: tally.active,
        candidate: tally.candidate,
        one_in: tally.one_in,
        compared: tally.compared,
        skipped: tally.skipped,
        differ: tally.differ,
        first: tally.first,
        kept: tally.kept,
        order: tally.order,
        examples: tally
            .examples
            .into_iter()
            .rev()
            .map(|example| v1::ShadowDifference {
                consumer: example.consumer.to_string(),
                active_host: example.active,
                candidate_host: example.candidate,
                active_kept: example.kept.0,
                candidate_kept: example.kept.1,
            })
            .collect(),
    }
}

impl Service {
    /// Looks at the engine together with the replicated pipelines of the same moment.
    async fn catalogued<T: Send + 'static>(
        &self,
        fresh: Freshness,
        look: impl FnOnce(&Engine, &Catalogue) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.node.read_barrier(fresh).await?;
        Ok(self.node.engine(move |_, engine| look(engine, engine.followed())).await?)
    }

    pub(crate) async fn pipelines(
        &self,
        request: v1::ListPipelinesRequest,
        fresh: Freshness,
    ) -> Result<v1::ListPipelinesResponse, ApiError> {
        let domain: Option<Domain> = convert::some_domain(request.domain.as_deref())?;
        let listed = self.catalogued(fresh, |engine, catalogue| {
            let running = engine.pipelines().map(|pipeline| view(engine, catalogue, &pipeline.name, Some(pipeline)));
            let mut listed: Vec<v1::Pipeline> = running.collect();
            let others: Vec<_> = catalogue
                .iter()
                .filter(|(name, _)| !listed.iter().any(|pipeline| pipeline.name == *name))
                .map(|(name, _)| view(engine, catalogue, name, None))
                .collect();
            listed.extend(others);
            listed.sort_by(|one, other| one.name.cmp(&other.name));
            listed
        });
        let mut pipelines = listed.await?;
        pipelines.retain(|pipeline| domain.is_none_or(|domain| pipeline.domain == domain.as_str()));
        Ok(v1::ListPipelinesResponse { pipelines })
    }

    pub(crate) async fn pipeline(
        &self,
        request: v1::GetPipelineRequest,
        fresh: Freshness,
    ) -> Result<v1::GetPipelineResponse, ApiError> {
        let missing = unknown(&request.name);
        let found = self.catalogued(fresh, move |engine, catalogue| {
            let name = request.name.as_str();
            let running = engine.pipelines().find(|pipeline| pipeline.name == name);
            if running.is_none() && catalogue.get(name).is_none() {
                return None;
            }
            let pipeline = view(engine, catalogue, name, running);
            let inactive = || newest(catalogue.get(name)).map(str::to_owned);
            let resource = text_of(engine, catalogue, name, pipeline.version).or_else(inactive);
            Some(v1::Pipeline { resource, ..pipeline })
        });
        let pipeline = found.await?.ok_or(missing)?;
        Ok(v1::GetPipelineResponse { pipeline: Some(pipeline) })
    }

    pub(crate) async fn lint(&self, request: v1::LintPipelineRequest) -> Result<v1::LintPipelineResponse, ApiError> {
        let resource = resource(request.resource.as_deref())?;
        let (errors, warnings) = self.node.engine(move |_, engine| engine.lint(&resource)).await?;
        Ok(v1::LintPipelineResponse {
            errors: errors.iter().map(finding).collect(),
            warnings: warnings.iter().map(finding).collect(),
        })
    }

    pub(crate) async fn apply_pipeline(
        &self,
        request: v1::ApplyPipelineRequest,
    ) -> Result<v1::ChangePipelineResponse, ApiError> {
        let resource = resource(request.resource.as_deref())?;
        let (name, text) = (resource.metadata.name.clone(), resource.text());
        let (errors, warnings) = self.node.engine(move |_, engine| engine.lint(&resource)).await?;
        if !errors.is_empty() {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(ApiError::bad_request(errors.join("\n")));
        }
        let v1::ApplyPipelineRequest { note, keep_inactive, seen, .. } = request;
        let change = Change::Apply { name, resource: text, note, activate: !keep_inactive, seen };
        let warnings = warnings.iter().map(finding).collect();
        Ok(v1::ChangePipelineResponse { warnings, ..self.propose(change).await? })
    }

    pub(crate) async fn activate(
        &self,
        request: v1::ActivatePipelineRequest,
    ) -> Result<v1::ChangePipelineResponse, ApiError> {
        let v1::ActivatePipelineRequest { name, version } = request;
        self.change_known(Change::Activate { name, version }).await
    }

    pub(crate) async fn rollback(
        &self,
        request: v1::RollbackPipelineRequest,
    ) -> Result<v1::ChangePipelineResponse, ApiError> {
        let v1::RollbackPipelineRequest { name, from } = request;
        self.change_known(Change::Rollback { name, from }).await
    }

    pub(crate) async fn delete_pipeline(
        &self,
        request: v1::DeletePipelineRequest,
    ) -> Result<v1::ChangePipelineResponse, ApiError> {
        self.change_known(Change::Delete { name: request.name }).await
    }

    pub(crate) async fn shadow(
        &self,
        request: v1::ShadowPipelineRequest,
    ) -> Result<v1::ChangePipelineResponse, ApiError> {
        let v1::ShadowPipelineRequest { name, version, one_in } = request;
        let candidate = version.map(|version| (version, one_in.unwrap_or(ONE_IN)));
        self.change_known(Change::Shadow { name, candidate }).await
    }

    /// A change of something that was applied before.
    async fn change_known(&self, change: Change) -> Result<v1::ChangePipelineResponse, ApiError> {
        let name = change.name().to_owned();
        let known = self.catalogued(Freshness::Linearizable, move |engine, catalogue| {
            (catalogue.get(&name).is_some(), engine.shipped(&name).is_some())
        });
        match known.await? {
            (true, _) => self.propose(change).await,
            (false, true) => Err(ApiError::new(
                StatusCode::CONFLICT,
                "conflict",
                format!(
                    "pipeline '{}' is as it ships with the program: no version of it was applied yet",
                    change.name()
                ),
            )),
            (false, false) => Err(unknown(change.name())),
        }
    }

    async fn propose(&self, change: Change) -> Result<v1::ChangePipelineResponse, ApiError> {
        let name = change.name().to_owned();
        match self.node.propose(Command::Pipeline(Box::new(change))).await? {
            Outcome::Pipeline(changed) => Ok(v1::ChangePipelineResponse {
                name,
                version: changed.version,
                active: changed.active,
                changed: changed.changed,
                warnings: Vec::new(),
            }),
            Outcome::Refused(why) => Err(ApiError::new(StatusCode::CONFLICT, "conflict", why)),
            other => Err(ApiError::internal(format!("a change of a pipeline came out as {other:?}"))),
        }
    }

    pub(crate) async fn history(
        &self,
        request: v1::PipelineHistoryRequest,
        fresh: Freshness,
    ) -> Result<v1::PipelineHistoryResponse, ApiError> {
        let missing = unknown(&request.name);
        let found = self.catalogued(fresh, move |engine, catalogue| {
            let shipped = engine.shipped(&request.name).is_some();
            let versions = catalogue.get(&request.name).cloned();
            if !shipped && versions.is_none() {
                return None;
            }
            let versions = versions.unwrap_or_default();
            let steps = |text: &str| {
                let steps = |spec: PipelineResource| spec.spec.filters.len() + spec.spec.weighers.len();
                PipelineResource::read(text).map_or(0, steps) as u32
            };
            let listed = versions.versions.iter().rev().map(|version| v1::PipelineVersion {
                version: version.number,
                note: version.note.clone(),
                applied: Some(moment(version.at)),
                steps: steps(&version.resource),
            });
            let since = versions.activations.iter().rev().map(|activation| v1::PipelineActivation {
                version: activation.version,
                since: Some(moment(activation.at)),
            });
            Some(v1::PipelineHistoryResponse {
                name: request.name.clone(),
                active: versions.active(),
                shipped,
                versions: listed.collect(),
                activations: since.collect(),
            })
        });
        found.await?.ok_or(missing)
    }

    pub(crate) async fn diff(
        &self,
        request: v1::DiffPipelineRequest,
        fresh: Freshness,
    ) -> Result<v1::DiffPipelineResponse, ApiError> {
        let v1::DiffPipelineRequest { name, from, to, resource: given } = request;
        if to.is_some() && given.is_some() {
            return Err(ApiError::bad_request("to and resource: at most one of the two expected"));
        }
        let given = given.map(|text| resource(Some(&text))).transpose()?.map(|resource| resource.text());
        let sides = self.catalogued(fresh, move |engine, catalogue| {
            let shipped = engine.shipped(&name).is_some();
            let versions = catalogue.get(&name);
            if versions.is_none() && !shipped {
                return Err(unknown(&name));
            }
            let side = |version: u32| {
                let text = text_of(engine, catalogue, &name, version);
                let gone = || ApiError::not_found(format!("version {version} of pipeline '{name}' is not kept"));
                Ok::<_, ApiError>((format!("{name} version {version}"), text.ok_or_else(gone)?))
            };
            let old = side(from.unwrap_or_else(|| catalogue.active(&name)))?;
            let new = match given {
                Some(text) => (format!("{name} as given"), text),
                None => side(to.unwrap_or_else(|| versions.map_or(0, |versions| versions.last)))?,
            };
            Ok((old, new))
        });
        let ((old_name, old), (new_name, new)) = sides.await??;
        let (old, new) = (yaml(&old)?, yaml(&new)?);
        let equal = old == new;
        let diff = if equal {
            String::new()
        } else {
            TextDiff::from_lines(&old, &new).unified_diff().header(&old_name, &new_name).to_string()
        };
        Ok(v1::DiffPipelineResponse { equal, diff })
    }

    pub(crate) async fn shadows(&self, request: v1::ListShadowsRequest) -> Result<v1::ListShadowsResponse, ApiError> {
        let mut shadows = self.node.shadows().await?;
        shadows.retain(|tally| request.name.as_ref().is_none_or(|name| tally.pipeline == *name));
        Ok(v1::ListShadowsResponse { shadows: shadows.into_iter().map(shadow).collect() })
    }
}
