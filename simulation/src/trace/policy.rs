//! The policies that can be compared: reference policies of the literature, the pipelines that ship with pallium, and
//! pipelines from files. Each is a pipeline; nothing here decides anything.

use plugins::packing::fragmentation::{FragmentationGradient, Shape as Expected};
use plugins::packing::lifetime::LifetimeAlignment;
use scheduler::pipeline::WeigherPlugin;
use scheduler::pipeline::spec::{Param, PipelineResource};
use scheduler::{Domain, Engine, Settings};
use serde_json::{Value, json};

use super::lifetimes::Knowledge;

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What tables call it.
    pub name: String,
    /// Its pipeline.
    pub resource: PipelineResource,
    /// Who tells it how long VMs live.
    pub lifetimes: Knowledge,
}

/// Reference policies: name, and what it does.
pub const REFERENCES: [(&str, &str); 11] = [
    ("random", "a seeded draw among the hosts that fit"),
    ("first-fit", "the first host of the list"),
    ("best-fit", "least free CPU and memory, as shares of the largest host (with GPUs: CPU and GPU, half each)"),
    ("worst-fit", "the opposite of best-fit"),
    ("dot-product", "free resources that point the way of the request"),
    ("l2-norm", "least free, squared"),
    ("ram-cpu-spread", "Nova's RAM and CPU weighers: most free, each stretched over the hosts that fit"),
    ("kvm-binpack", "Cortex's kvm_binpack: fullest of its own capacity"),
    ("fgd", "fragmentation gradient descent, ties by best-fit"),
    ("lifetime-oracle", "hosts whose VMs end together, with perfect knowledge of every end"),
    ("lifetime-learned", "the same, with what the past of the trace lets one expect"),
];

/// The policy that packs best of those that ship with pallium.
pub const BEST: &str = "nova-packing";

/// What is compared when nobody names a policy.
pub const USUAL: [&str; 4] = ["first-fit", "best-fit", "ram-cpu-spread", BEST];

/// What a reference policy weighs.
fn weighers(name: &str, domain: Domain, gpus: bool, seed: u64) -> Option<(&'static str, Value)> {
    let both = if gpus { json!({"cpu": 0.5, "gpu": 0.5}) } else { json!({"cpu": 1.0, "memory": 1.0}) };
    let packing = |form: &str, weights: &Value, multiplier: f64| {
        json!({"name": "packing", "multiplier": multiplier, "params": [
            {"key": "form", "stringValue": form},
            {"key": "resourceWeights", "floatMapValue": weights},
        ]})
    };
    let raw = |steps: Value| Some(("raw", steps));
    match name {
        "random" => raw(json!([{"name": "random_choice", "params": [{"key": "seed", "intValue": seed as i64}]}])),
        "first-fit" => raw(json!([])),
        "best-fit" => raw(json!([packing("best_fit", &both, 1.0)])),
        "worst-fit" => raw(json!([packing("best_fit", &both, -1.0)])),
        "dot-product" => raw(json!([packing("dot_product", &both, 1.0)])),
        "l2-norm" => raw(json!([packing("l2_norm", &both, 1.0)])),
        // Stretched, −(−F) is F less the same for every host.
        "ram-cpu-spread" => Some((
            "nova",
            json!([
                packing("best_fit", &json!({"memory": 1.0}), -1.0),
                packing("best_fit", &json!({"cpu": 1.0}), -1.0)
            ]),
        )),
        "kvm-binpack" if domain == Domain::Nova => raw(json!([
            {"name": "kvm_binpack", "params": [{"key": "resourceWeights", "floatMapValue": {"cpu": 1.0, "memory": 1.0}}]}
        ])),
        "kvm-binpack" => raw(json!([
            {"name": "binpack", "params": [{"key": "resourceWeights", "floatMapValue": {"cpu": 1.0, "memory": 1.0, "GPU_MILLI": 1.0}}]}
        ])),
        "fgd" => {
            let form = if gpus { "gpu" } else { "cpu_memory" };
            raw(json!([
                {"name": "fragmentation_gradient", "params": [
                    {"key": "form", "stringValue": form}, {"key": "mix", "stringListValue": []},
                ]},
                packing("best_fit", &both, if gpus { 1e-3 } else { 1e-6 }),
            ]))
        }
        "lifetime-oracle" | "lifetime-learned" => raw(json!([
            {"name": "lifetime_alignment", "multiplier": 100.0}, packing("best_fit", &both, 1.0),
        ])),
        _ => None,
    }
}

impl Policy {
    /// A reference policy; `None`: there is none of this name.
    pub fn reference(name: &str, domain: Domain, gpus: bool, seed: u64) -> Option<Self> {
        let (scoring, weighers) = weighers(name, domain, gpus, seed)?;
        let filters = match (domain, gpus) {
            (Domain::Nova, _) => json!([{"name": "filter_host_instructions"}, {"name": "filter_has_enough_capacity"}]),
            (_, false) => json!([{"name": "nodecapacity"}]),
            (_, true) => json!([{"name": "nodeaffinity"}, {"name": "nodecapacity"}, {"name": "device_slots"}]),
        };
        let resource = json!({
            "apiVersion": "cortex.cloud/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
            "spec": {
                "schedulingDomain": domain, "type": "filter-weigher", "ignorePreselection": true, "scoring": scoring,
                "filters": filters, "weighers": weighers,
            },
        });
        let resource = serde_json::from_value(resource).expect("a test reads every reference policy");
        let lifetimes = match name {
            "lifetime-oracle" => Knowledge::Oracle,
            "lifetime-learned" => Knowledge::Learned,
            _ => Knowledge::None,
        };
        Some(Self { name: name.to_owned(), resource, lifetimes })
    }

    /// A policy by name: a reference policy, else a pipeline that ships with pallium.
    pub fn named(name: &str, domain: Domain, gpus: bool, seed: u64) -> Result<Self, String> {
        if let Some(reference) = Self::reference(name, domain, gpus, seed) {
            return Ok(reference);
        }
        let shipped = plugins::shipped();
        let known = shipped.iter().filter(|resource| resource.spec.scheduling_domain == domain);
        let names: Vec<&str> =
            REFERENCES.iter().map(|(name, _)| *name).chain(known.map(|r| r.metadata.name.as_str())).collect();
        match shipped.iter().find(|resource| resource.metadata.name == name) {
            Some(resource) => Ok(Self::of(resource.clone())),
            None => Err(format!("policy '{name}' is not known: a file, or one of {} expected", names.join(", "))),
        }
    }

    /// A pipeline as it is. It is told no lifetimes.
    pub fn of(resource: PipelineResource) -> Self {
        Self { name: resource.metadata.name.clone(), resource, lifetimes: Knowledge::None }
    }

    /// Whether some step of it asks how long VMs live.
    pub fn asks_lifetimes(&self) -> bool {
        self.resource.spec.weighers.iter().any(|step| step.name == LifetimeAlignment::NAME)
    }

    /// Domain of its requests.
    pub fn domain(&self) -> Domain {
        self.resource.spec.scheduling_domain
    }

    /// An engine in which this pipeline alone is active; errors as `ctl pipelines lint` tells them.
    pub fn engine(&self) -> Result<Engine, String> {
        let settings = Settings {
            claim_expiry: scheduler::settings::ClaimExpiry { create: NEVER, resize: NEVER, live_migration: NEVER },
            record_top: 1,
            detail_hosts: 0,
            detail_decisions: 0,
            ..Settings::default()
        };
        let mut engine = Engine::new(plugins::registry(), settings);
        let errors = |errors: Vec<scheduler::pipeline::spec::SpecError>| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        engine.activate(&self.resource).map_err(errors)?;
        Ok(engine)
    }

    /// Whether some step waits to be told the mix: its option `mix` is empty.
    pub fn learns(&self) -> bool {
        self.mixes().next().is_some()
    }

    fn mixes(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let steps = self.resource.spec.weighers.iter().enumerate();
        let steps = steps.filter(|(_, step)| step.name == FragmentationGradient::NAME);
        steps.filter_map(|(at, step)| {
            let empty =
                |param: &Param| param.key == "mix" && param.string_list_value.as_ref().is_some_and(Vec::is_empty);
            Some((at, step.params.iter().position(empty)?))
        })
    }

    /// The pipeline with this mix in the steps that wait for one.
    pub fn with_mix(&self, mix: &[Expected]) -> PipelineResource {
        let mut resource = self.resource.clone();
        for (step, param) in self.mixes() {
            let text = mix.iter().map(ToString::to_string).collect();
            resource.spec.weighers[step].params[param].string_list_value = Some(text);
        }
        resource
    }
}

/// Life of a claim, seconds: until the VM is deleted.
const NEVER: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::{BEST, Policy, REFERENCES, USUAL};
    use scheduler::Domain;

    #[test]
    fn every_reference_policy_runs() {
        for (name, _) in REFERENCES {
            for (domain, gpus) in [(Domain::Nova, false), (Domain::Pods, false), (Domain::Pods, true)] {
                let policy = Policy::named(name, domain, gpus, 7).expect("a known name");
                assert!(policy.engine().is_ok(), "{name} {domain}: {:?}", policy.engine().err());
                assert_eq!(policy.learns(), name == "fgd");
            }
        }
        for name in USUAL.into_iter().chain([BEST]) {
            assert!(Policy::named(name, Domain::Nova, false, 7).is_ok(), "{name}");
        }
        let error = Policy::named("best-fits", Domain::Nova, false, 7).expect_err("a bad name");
        assert!(error.starts_with("policy 'best-fits' is not known: a file, or one of random, first-fit"), "{error}");
    }
}
