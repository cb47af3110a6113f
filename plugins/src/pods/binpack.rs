//! Prefers nodes that are fuller with the pod on them (with a negative multiplier: emptier).
//!
//! ```text
//! u_r  = (total_r − allocatable_r + used_r + asked_r) / total_r
//! a(n) = min(1, Σ w_r × u_r  ÷  Σ w_r)
//! ```
//!
//! over the asked classes of which n has a total above 0; 0 when there is none, or when their weights sum to
//! 0. total − allocatable is what the system keeps for itself; used counts the pods that the node lists and
//! every open claim.
//!
//! Source: cobaltcore-dev/cortex, `binpack` (which counts no pods).

use std::collections::BTreeMap;

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::pod::PODS;
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::class_of;
use crate::weighted_mean::WeightedMeans;

/// The step: weights by resource class.
#[derive(Debug)]
pub struct Binpack(BTreeMap<String, f64>);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Weight of each resource, by Kubernetes' name (`cpu`, `memory`, `nvidia.com/gpu`) or by its resource
    /// class, at least 0; of a resource that is not named 1, of `pods` 0.
    pub resource_weights: BTreeMap<String, f64>,
}

impl Binpack {
    fn weight(&self, class: &str) -> f64 {
        self.0.get(class).copied().unwrap_or(if class == PODS { 0.0 } else { 1.0 })
    }
}

impl Weigher for Binpack {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let mut means = WeightedMeans::new(&mut *out);
        for (class, &asked) in &cx.request.resources {
            let weight = self.weight(class);
            let Some((sym, column)) = cx.view.column(class).filter(|_| asked > 0 && weight > 0.0) else { continue };
            let fullness = |row: &Row| {
                let at = row.0 as usize;
                let (&capacity, &used) = (column.capacity.get(at)?, column.used.get(at)?);
                let inventory = cx.view.provider(*row)?.inventory(sym).filter(|inventory| inventory.total > 0)?;
                let total = inventory.total as f64;
                let kept = (total - capacity as f64).max(0.0);
                Some((kept + used as f64 + asked as f64) / total)
            };
            means.add(weight, hosts.iter().map(fullness));
        }
        means.finish();
        for fullness in out {
            *fullness = fullness.min(1.0);
        }
        Verdict::Ran
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("binpack score", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for Binpack {
    const NAME: &'static str = "binpack";
    const DOMAINS: &'static [Domain] = &[Domain::Pods];
    const SUMMARY: &'static str = "Prefers nodes that are fuller with the pod on them.";
    const MISSING_DATA: &'static str =
        "A resource of which the node reports no total is left out; a node with none gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let mut weights = BTreeMap::new();
        for (name, weight) in options.resource_weights {
            if !weight.is_finite() || weight < 0.0 {
                return Err(format!("resourceWeights.{name}: {weight} given, a number of at least 0 expected"));
            }
            if weights.insert(class_of(&name), weight).is_some() {
                return Err(format!("resourceWeights.{name}: {} has a weight already", class_of(&name)));
            }
        }
        Ok(Self(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::Binpack;
    use crate::fleet::{Fleet, Host, case, node, vm, weigher_options_error};
    use scheduler::{InstanceReport, Inventory};
    use serde_json::json;

    const GIB: u64 = 1024;

    /// Capacity and allocatable of each class.
    fn sized(name: &str, amounts: &[(&str, u64, u64)]) -> Host {
        amounts.iter().fold(node(name), |host, &(class, capacity, allocatable)| {
            host.inventory(class, Inventory { reserved: capacity - allocatable, ..Inventory::of(capacity) })
        })
    }

    fn check(host: Host, asked: &[(&str, u64)], weights: &serde_json::Value, score: f64) {
        let name = host.0.name.clone();
        let mut fleet = Fleet::of([host]);
        case(&name)
            .pod(|_| ())
            .resources(asked)
            .options(json!({ "resourceWeights": weights }))
            .scores(&[(&name, score)])
            .weigh::<Binpack>(&mut fleet);
    }

    #[test]
    fn vectors_of_the_peer() {
        let weights = json!({"cpu": 2.0, "memory": 1.0, "nvidia.com/gpu": 3.0});
        let (cpu, memory, gpu) = ("MILLICPU", "MEMORY_MB", "NVIDIA_COM_GPU");
        let small = sized("little reserve", &[(cpu, 4000, 3500), (memory, 8 * GIB, 7 * GIB)]);
        check(small, &[(cpu, 500), (memory, GIB), ("PODS", 1)], &weights, 0.25);
        let half = sized("much reserve", &[(cpu, 4000, 2000), (memory, 8 * GIB, 3 * GIB)]);
        check(half, &[(cpu, 500), (memory, GIB)], &weights, 2.0 / 3.0);
        let gpus = sized("gpus", &[(cpu, 8000, 1000), (memory, 16 * GIB, 2 * GIB), (gpu, 4, 4)]);
        check(gpus, &[(cpu, 1000), (memory, 2 * GIB), (gpu, 2)], &weights, 0.75);
        let over = sized("clamped", &[(cpu, 2000, 1500), (memory, 4 * GIB, 3 * GIB)]);
        check(over, &[(cpu, 3000), (memory, 2 * GIB)], &weights, 1.0);
        check(node("no data"), &[(cpu, 500)], &weights, 0.0);
        // A resource without a weight has 1; weights of 0 leave nothing.
        let even = sized("default", &[(cpu, 1000, 1000), (memory, 1000, 1000)]);
        check(even, &[(cpu, 500), (memory, 100)], &json!({}), 0.3);
        let none = sized("no weights", &[(cpu, 1000, 1000)]);
        check(none, &[(cpu, 500)], &json!({"cpu": 0.0}), 0.0);
    }

    #[test]
    fn pods_on_the_node_count() {
        let mut busy = sized("busy", &[("MILLICPU", 4000, 4000)]);
        busy.0.instances = Some(vec![InstanceReport {
            uuid: vm("running"),
            resources: Some([("MILLICPU".to_owned(), 2000)].into()),
            ..InstanceReport::default()
        }]);
        check(busy, &[("MILLICPU", 1000)], &json!({}), 0.75);
    }

    #[test]
    fn weights_are_checked() {
        let error =
            |weights: serde_json::Value| weigher_options_error::<Binpack>(json!({ "resourceWeights": weights }));
        assert_eq!(error(json!({"cpu": -1.0})), "resourceWeights.cpu: -1 given, a number of at least 0 expected");
        assert_eq!(error(json!({"MILLICPU": 1.0, "cpu": 1.0})), "resourceWeights.cpu: MILLICPU has a weight already");
    }
}
