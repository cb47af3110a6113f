//! What an author may want to know of a pipeline that can run: it never speaks against activating it.

use crate::pipeline::engine::{Engine, Pipeline};
use crate::pipeline::spec::{PipelineResource, SpecError, StepSpec};

/// Steps that are what their params say: several of them are no mistake.
const RULES: [&str; 2] = ["filter_cel", "cel_score"];
/// The filters that keep claims within the capacity, each of its own domains.
const CAPACITY: [&str; 2] = ["filter_has_enough_capacity", "nodecapacity"];

/// Largest multiplier of a weigher that is accepted: beyond it the scores of the others are lost in rounding.
const MOST_MULTIPLIER: f64 = 1e9;

impl Engine {
    /// Errors and warnings of a resource.
    pub fn lint(&self, resource: &PipelineResource) -> (Vec<SpecError>, Vec<SpecError>) {
        let (mut errors, warnings) = match self.compile(resource) {
            Err(errors) => (errors, self.warnings(resource, None)),
            Ok(pipeline) => (Vec::new(), self.warnings(resource, Some(&pipeline))),
        };
        // Not an error of compiling: a version that is replicated already runs on.
        for (at, step) in resource.spec.weighers.iter().enumerate() {
            if let Some(given) = step.multiplier.filter(|given| given.abs() > MOST_MULTIPLIER) {
                errors.push(SpecError {
                    pipeline: resource.metadata.name.clone(),
                    path: format!("spec.weighers[{at}].multiplier"),
                    message: format!("{given:e} given, at most {MOST_MULTIPLIER:e} either way expected"),
                });
            }
        }
        (errors, warnings)
    }

    fn warnings(&self, resource: &PipelineResource, compiled: Option<&Pipeline>) -> Vec<SpecError> {
        let mut out = Vec::new();
        let mut warn = |path: String, message: String| {
            out.push(SpecError { pipeline: resource.metadata.name.clone(), path, message });
        };
        let spec = &resource.spec;
        let lists = [("filters", &spec.filters), ("weighers", &spec.weighers)];
        for (list, steps) in lists {
            for (at, step) in steps.iter().enumerate() {
                let path = || format!("spec.{list}[{at}]");
                if let Some(alias) = self.registry().alias_of(&step.name) {
                    warn(format!("{}.name", path()), alias.warning(&step.name));
                }
                if twice(&steps[..at], step) {
                    warn(path(), format!("'{}' is in the pipeline twice, with other params", step.name));
                }
                if step.multiplier == Some(0.0) {
                    warn(format!("{}.multiplier", path()), "0 given: the step runs and decides nothing".to_owned());
                }
            }
        }
        if let Some(pipeline) = compiled {
            for (at, (name, weigher, _)) in pipeline.weighers.iter().enumerate() {
                if let Some(why) = weigher.constant() {
                    warn(format!("spec.weighers[{at}].params"), format!("{name} scores every host alike: {why}"));
                }
            }
        }
        if spec.ignore_preselection && spec.weighers.is_empty() {
            let message = "true given without weighers: all hosts score 0 and only the caller's order is left";
            warn("spec.ignorePreselection".to_owned(), message.to_owned());
        }
        let known = self.registry().filters().filter(|kind| kind.domains.contains(&spec.scheduling_domain));
        if let Some(capacity) = known.map(|kind| kind.name).find(|name| CAPACITY.contains(name))
            && !spec.filters.iter().any(|step| step.name == capacity)
        {
            let message = format!("no {capacity}: hosts that are full are answered, and a claim on them is refused");
            warn("spec.filters".to_owned(), message);
        }
        out
    }
}

fn twice(before: &[StepSpec], step: &StepSpec) -> bool {
    !RULES.contains(&step.name.as_str())
        && before.iter().any(|other| other.name == step.name && other.params != step.params)
}
