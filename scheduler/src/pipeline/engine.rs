//! The engine: pipelines compiled from their resources, and the choice of one for a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Change, Versions, named_well};
use crate::domain::Domain;
use crate::pipeline::scoring::Scoring;
use crate::pipeline::spec::{PipelineKind, PipelineResource, SpecError, StepSpec};
use crate::pipeline::step::{Filter, Kind, Registry, Weigher};
use crate::pipeline::{admission, cordon};
use crate::request::Request;
use crate::settings::Settings;

/// A compiled pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Name.
    pub name: String,
    /// Its version; 0 = the one that ships with the program.
    pub version: u32,
    /// What it was compiled from.
    pub resource: PipelineResource,
    /// Domain.
    pub domain: Domain,
    /// The caller's weights count as 0.
    pub ignore_preselection: bool,
    /// How activations add up.
    pub scoring: Scoring,
    /// Filters in order.
    pub filters: Vec<(String, Arc<dyn Filter>)>,
    /// Weighers with their multipliers.
    pub weighers: Vec<(String, Arc<dyn Weigher>, f64)>,
}

/// Registry, pipelines and settings: what a decision needs besides the state.
pub struct Engine {
    registry: Registry,
    shipped: BTreeMap<String, Arc<Pipeline>>,
    /// What decides: the active version of each name, else the shipped one.
    active: BTreeMap<String, Result<Arc<Pipeline>, Unrunnable>>,
    /// What runs beside the active version, by name.
    candidates: BTreeMap<String, Candidate>,
    followed: Arc<Catalogue>,
    /// Settings of the decision path.
    pub settings: Settings,
    /// Nanoseconds of some steady clock, for step timings only; [`Engine::new`] sets one that
    /// always says 0, so that the core has no clock of its own.
    pub timer: fn() -> u64,
}

/// A pipeline that is active and that this program cannot run: it is of a newer version, or lacks a step.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error(
    "pipeline '{name}' is active in version {version}, which this node cannot run ({why}): run the same pallium on all nodes, \
     or activate a version that this one can run (pallium ctl pipelines rollback {name})"
)]
pub struct Unrunnable {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// What is wrong with it.
    pub why: String,
}

/// A pipeline that runs beside the active one without effect.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// It.
    pub pipeline: Arc<Pipeline>,
    /// It runs for one of so many decisions.
    pub one_in: u32,
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
    /// It is active and cannot run here: nothing else decides in its place.
    #[error(transparent)]
    Unrunnable(Unrunnable),
}

impl Engine {
    /// An engine without pipelines.
    pub fn new(registry: Registry, settings: Settings) -> Self {
        Self {
            registry,
            shipped: BTreeMap::new(),
            active: BTreeMap::new(),
            candidates: BTreeMap::new(),
            followed: Arc::default(),
            settings,
            timer: || 0,
        }
    }

    /// The same pipelines and settings, for a copy of the state. It can compile nothing and follows nothing.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut registry = Registry::default();
        registry.selectors.clone_from(&self.registry.selectors);
        Self {
            registry,
            shipped: self.shipped.clone(),
            active: self.active.clone(),
            candidates: BTreeMap::new(),
            followed: Arc::clone(&self.followed),
            settings: self.settings.clone(),
            timer: self.timer,
        }
    }

    /// The steps that pipelines may name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Active pipelines by name.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.active.values().filter_map(|active| active.as_ref().ok())
    }

    /// Active pipelines that cannot run here.
    pub fn unrunnable(&self) -> impl Iterator<Item = &Unrunnable> {
        self.active.values().filter_map(|active| active.as_ref().err())
    }

    /// The pipeline that ships with the program under a name.
    pub fn shipped(&self, name: &str) -> Option<&Arc<Pipeline>> {
        self.shipped.get(name)
    }

    /// The replicated pipelines that are followed.
    pub fn followed(&self) -> &Arc<Catalogue> {
        &self.followed
    }

    /// What runs beside the active version of a name.
    pub fn candidate(&self, name: &str) -> Option<&Candidate> {
        self.candidates.get(name)
    }

    /// Compiles a resource and ships it under its name: it is active while the replicated pipelines
    /// name no other version. On any error nothing changes; all errors of the resource are returned.
    pub fn activate(&mut self, resource: &PipelineResource) -> Result<(), Vec<SpecError>> {
        let pipeline = Arc::new(self.compile(resource)?);
        self.shipped.insert(pipeline.name.clone(), pipeline);
        let followed = std::mem::take(&mut self.followed);
        self.compile_active(&followed);
        self.followed = followed;
        Ok(())
    }

    /// Makes active what the replicated pipelines say. True when they were others before.
    pub fn follow(&mut self, catalogue: &Arc<Catalogue>) -> bool {
        if Arc::ptr_eq(&self.followed, catalogue) {
            return false;
        }
        self.followed = Arc::clone(catalogue);
        self.compile_active(catalogue);
        true
    }

    fn compile_active(&mut self, catalogue: &Catalogue) {
        self.active = self.shipped.iter().map(|(name, shipped)| (name.clone(), Ok(Arc::clone(shipped)))).collect();
        self.candidates.clear();
        for (name, versions) in catalogue.iter() {
            let active = versions.active();
            if active > 0 {
                self.active.insert(name.to_owned(), self.version(name, versions, active));
            }
            if let Some(candidate) = versions.candidate
                && let Ok(pipeline) = self.version(name, versions, candidate.version)
            {
                self.candidates.insert(name.to_owned(), Candidate { pipeline, one_in: candidate.one_in.max(1) });
            }
        }
    }

    /// Compiles a version that the replicated pipelines keep.
    fn version(&self, name: &str, versions: &Versions, number: u32) -> Result<Arc<Pipeline>, Unrunnable> {
        let text = versions.version(number).map_or("", |version| &*version.resource);
        let compiled = PipelineResource::read(text).and_then(|resource| {
            let compiled = self.compile(&resource);
            compiled.map_err(|errors| errors.iter().map(SpecError::placed).collect::<Vec<_>>().join("; "))
        });
        match compiled {
            Ok(pipeline) => Ok(Arc::new(Pipeline { name: name.to_owned(), version: number, ..pipeline })),
            Err(why) => Err(Unrunnable { name: name.to_owned(), version: number, why }),
        }
    }

    /// What speaks against a change before it is proposed: the part that depends on this program, which
    /// apply must not look at. For the node that leads.
    pub fn admit(&self, catalogue: &Catalogue, change: &Change) -> Result<(), String> {
        let name = change.name();
        let runs = |version: u32| match catalogue.get(name) {
            Some(versions) if version > 0 && versions.version(version).is_some() => {
                self.version(name, versions, version).map(|_| ()).map_err(|error| {
                    format!("version {version} of pipeline '{name}' cannot run on the node that leads: {}", error.why)
                })
            }
            // What is not kept, apply refuses.
            _ => Ok(()),
        };
        let shipped = || {
            if self.shipped.contains_key(name) {
                return Ok(());
            }
            match Domain::ALL.into_iter().find(|domain| self.settings.default_of(*domain) == name) {
                Some(domain) => Err(format!(
                    "pipeline '{name}' is the default of domain {domain} and none of that name ships with the program: \
                     requests would have no pipeline"
                )),
                None => Ok(()),
            }
        };
        match change {
            Change::Apply { resource, .. } => {
                let resource = PipelineResource::read(resource)?;
                if resource.metadata.name != name {
                    return Err(format!("metadata.name: '{}' given, '{name}' expected", resource.metadata.name));
                }
                let errors = self.compile(&resource).err().unwrap_or_default();
                if errors.is_empty() {
                    return Ok(());
                }
                Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
            Change::Activate { version: 0, .. } if !self.shipped.contains_key(name) => {
                Err(format!("no pipeline '{name}' ships with the program: a version that was applied expected"))
            }
            Change::Activate { version, .. } | Change::Shadow { candidate: Some((version, _)), .. } => runs(*version),
            Change::Rollback { .. } => match catalogue.get(name).map_or(0, Versions::before) {
                0 if !self.shipped.contains_key(name) => {
                    Err(format!("nothing of pipeline '{name}' was active before: there is nothing to go back to"))
                }
                version => runs(version),
            },
            Change::Delete { .. } => shipped(),
            Change::Shadow { candidate: None, .. } => Ok(()),
        }
    }

    /// Compiles a resource without activating it.
    pub fn compile(&self, resource: &PipelineResource) -> Result<Pipeline, Vec<SpecError>> {
        let name = resource.metadata.name.clone();
        let spec = &resource.spec;
        let mut errors = Vec::new();
        let mut fail = |path: &str, message: String| {
            errors.push(SpecError { pipeline: name.clone(), path: path.to_owned(), message });
        };
        if let Err(why) = named_well(&name) {
            fail("metadata.name", why);
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
        let cordons = self.settings.cordon && spec.scheduling_domain == Domain::Nova;
        let own = cordons.then(|| [cordon::step(), admission::step()]);
        let mut filters: Vec<_> = own.into_iter().flatten().collect();
        for (at, step) in spec.filters.iter().enumerate() {
            let path = format!("spec.filters[{at}]");
            if step.multiplier.is_some() {
                fail(&format!("{path}.multiplier"), "filters have no multiplier".to_owned());
            }
            if spec.filters[..at].iter().any(|other| other.name == step.name && other.params == step.params) {
                fail(&path, format!("filter '{}' is listed twice with the same params", step.name));
            }
            match build(&self.registry.filters, self.registry.resolve(&step.name), step, spec.scheduling_domain) {
                Ok(filter) => filters.push((self.registry.resolve(&step.name).to_owned(), filter)),
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
            match build(&self.registry.weighers, self.registry.resolve(&step.name), step, spec.scheduling_domain) {
                Ok(weigher) => weighers.push((self.registry.resolve(&step.name).to_owned(), weigher, multiplier)),
                Err((inner, message)) => fail(&join(&path, &inner), message),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pipeline {
            name,
            version: 0,
            resource: resource.clone(),
            domain: spec.scheduling_domain,
            ignore_preselection: spec.ignore_preselection,
            scoring: spec.scoring,
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
                    Err(ChoiceError::Unknown { .. }) if !self.settings.strict_inference => {}
                    found => return found,
                }
            }
        }
        self.named(self.settings.default_of(request.domain), request.domain)
    }

    fn named(&self, name: &str, domain: Domain) -> Result<Arc<Pipeline>, ChoiceError> {
        match self.active.get(name) {
            Some(Ok(pipeline)) if pipeline.domain == domain => Ok(Arc::clone(pipeline)),
            Some(Err(unrunnable)) => Err(ChoiceError::Unrunnable(unrunnable.clone())),
            _ => {
                let known = self.pipelines().filter(|pipeline| pipeline.domain == domain);
                let known: Vec<&str> = known.map(|pipeline| pipeline.name.as_str()).collect();
                Err(ChoiceError::Unknown { name: name.to_owned(), domain, known: known.join(", ") })
            }
        }
    }
}

fn join(path: &str, inner: &str) -> String {
    if inner.is_empty() { path.to_owned() } else { format!("{path}.{inner}") }
}

fn build<T: ?Sized>(
    kinds: &BTreeMap<&'static str, Kind<T>>,
    name: &str,
    step: &StepSpec,
    domain: Domain,
) -> Result<Arc<T>, (String, String)> {
    let kind = kinds.get(name).ok_or_else(|| {
        let known: Vec<&str> = kinds.keys().copied().collect();
        ("name".to_owned(), format!("step '{name}' is not known: {} expected", known.join(", ")))
    })?;
    if !kind.domains.contains(&domain) {
        return Err(("name".to_owned(), format!("step '{name}' is not made for domain {domain}")));
    }
    let options = step.options()?;
    (kind.build)(options).map_err(|message| ("params".to_owned(), message))
}
