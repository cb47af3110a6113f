//! The engine: pipelines compiled from their resources, and the choice of one for a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::Domain;
use crate::pipeline::spec::{PipelineKind, PipelineResource, SpecError, StepSpec};
use crate::pipeline::step::{Filter, Kind, Registry, Weigher};
use crate::request::Request;
use crate::settings::Settings;

/// A compiled pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Name.
    pub name: String,
    /// Domain.
    pub domain: Domain,
    /// The caller's weights count as 0.
    pub ignore_preselection: bool,
    /// Filters in order.
    pub filters: Vec<(String, Arc<dyn Filter>)>,
    /// Weighers with their multipliers.
    pub weighers: Vec<(String, Arc<dyn Weigher>, f64)>,
}

/// Registry, pipelines and settings: what a decision needs besides the state.
pub struct Engine {
    registry: Registry,
    pipelines: BTreeMap<String, Arc<Pipeline>>,
    /// Settings of the decision path.
    pub settings: Settings,
    /// Nanoseconds of some steady clock, for step timings only; [`Engine::new`] sets one that
    /// always says 0, so that the core has no clock of its own.
    pub timer: fn() -> u64,
}

/// Why no pipeline could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum ChoiceError {
    /// The name is not active.
    #[error("pipeline '{name}' is not known in domain {domain}: {known} expected")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The request's domain.
        domain: Domain,
        /// Known names.
        known: String,
    },
    /// None can be inferred.
    #[error("{0}")]
    Inference(String),
}

impl Engine {
    /// An engine without pipelines.
    pub fn new(registry: Registry, settings: Settings) -> Self {
        Self { registry, pipelines: BTreeMap::new(), settings, timer: || 0 }
    }

    /// The steps that pipelines may name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Active pipelines by name.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.pipelines.values()
    }

    /// Compiles a resource and activates it under its name, replacing an older one. On any error
    /// nothing changes; all errors of the resource are returned.
    pub fn activate(&mut self, resource: &PipelineResource) -> Result<(), Vec<SpecError>> {
        let pipeline = self.compile(resource)?;
        self.pipelines.insert(pipeline.name.clone(), Arc::new(pipeline));
        Ok(())
    }

    /// Compiles a resource without activating it.
    pub fn compile(&self, resource: &PipelineResource) -> Result<Pipeline, Vec<SpecError>> {
        let name = resource.metadata.name.clone();
        let spec = &resource.spec;
        let mut errors = Vec::new();
        let mut fail = |path: &str, message: String| {
            errors.push(SpecError { pipeline: name.clone(), path: path.to_owned(), message });
        };
        if name.is_empty() {
            fail("metadata.name", "a non-empty name expected".to_owned());
        }
        if resource.kind != "Pipeline" {
            fail("kind", format!("'{}' given, Pipeline expected", resource.kind));
        }
        if !matches!(resource.api_version.as_str(), "cortex.cloud/v1alpha1" | "cortex.c5c3.io/v1alpha1") {
            fail(
                "apiVersion",
                format!("'{}' given, cortex.cloud/v1alpha1 or cortex.c5c3.io/v1alpha1 expected", resource.api_version),
            );
        }
        if spec.kind == PipelineKind::Detector {
            fail("spec.type", "detector pipelines do not decide placements, filter-weigher expected".to_owned());
        } else if !spec.detectors.is_empty() {
            fail("spec.detectors", "only a pipeline of type detector may have detectors".to_owned());
        }
        let mut filters = Vec::new();
        for (at, step) in spec.filters.iter().enumerate() {
            let path = format!("spec.filters[{at}]");
            if step.multiplier.is_some() {
                fail(&format!("{path}.multiplier"), "filters have no multiplier".to_owned());
            }
            if spec.filters[..at].iter().any(|other| other.name == step.name && other.params == step.params) {
                fail(&path, format!("filter '{}' is listed twice with the same params", step.name));
            }
            match build(&self.registry.filters, step, spec.scheduling_domain) {
                Ok(filter) => filters.push((step.name.clone(), filter)),
                Err((inner, message)) => fail(&join(&path, &inner), message),
            }
        }
        let mut weighers = Vec::new();
        for (at, step) in spec.weighers.iter().enumerate() {
            let path = format!("spec.weighers[{at}]");
            let multiplier = step.multiplier.unwrap_or(1.0);
            if !multiplier.is_finite() {
                fail(&format!("{path}.multiplier"), format!("{multiplier} given, a finite number expected"));
            }
            match build(&self.registry.weighers, step, spec.scheduling_domain) {
                Ok(weigher) => weighers.push((step.name.clone(), weigher, multiplier)),
                Err((inner, message)) => fail(&join(&path, &inner), message),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pipeline {
            name,
            domain: spec.scheduling_domain,
            ignore_preselection: spec.ignore_preselection,
            filters,
            weighers,
        })
    }

    /// The pipeline of a request: the one it names, else the inferred one, else the default.
    pub fn choose(&self, request: &Request) -> Result<Arc<Pipeline>, ChoiceError> {
        if let Some(name) = &request.pipeline {
            return self.named(name, request.domain);
        }
        if let Some(select) = self.registry.selectors.get(&request.domain) {
            let inferred = select(request, &self.settings).map_err(ChoiceError::Inference)?;
            // An inferred pipeline that is not shipped falls back to the default, unless strict.
            if let Some(name) = inferred {
                match self.named(&name, request.domain) {
                    Err(error) if self.settings.strict_inference => return Err(error),
                    Err(_) => {}
                    found => return found,
                }
            }
        }
        let default = self.settings.default_pipeline.get(&request.domain).ok_or_else(|| {
            ChoiceError::Inference(format!("no pipeline is set for domain {} (default_pipeline)", request.domain))
        })?;
        self.named(default, request.domain)
    }

    fn named(&self, name: &str, domain: Domain) -> Result<Arc<Pipeline>, ChoiceError> {
        self.pipelines.get(name).filter(|pipeline| pipeline.domain == domain).cloned().ok_or_else(|| {
            let known: Vec<&str> =
                self.pipelines.values().filter(|p| p.domain == domain).map(|p| p.name.as_str()).collect();
            ChoiceError::Unknown { name: name.to_owned(), domain, known: known.join(", ") }
        })
    }
}

fn join(path: &str, inner: &str) -> String {
    if inner.is_empty() { path.to_owned() } else { format!("{path}.{inner}") }
}

fn build<T: ?Sized>(
    kinds: &BTreeMap<&'static str, Kind<T>>,
    step: &StepSpec,
    domain: Domain,
) -> Result<Arc<T>, (String, String)> {
    let kind = kinds.get(step.name.as_str()).ok_or_else(|| {
        let known: Vec<&str> = kinds.keys().copied().collect();
        ("name".to_owned(), format!("step '{}' is not known: {} expected", step.name, known.join(", ")))
    })?;
    if !kind.domains.contains(&domain) {
        return Err(("name".to_owned(), format!("step '{}' is not made for domain {domain}", step.name)));
    }
    let options = step.options()?;
    (kind.build)(options).map_err(|message| ("params".to_owned(), message))
}
