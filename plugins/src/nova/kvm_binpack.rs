//! Prefers hosts that are fuller with the instance on them (with a negative multiplier: emptier).
//!
//! ```text
//! a(h) = Σ w_r × (used_r + asked_r) / capacity_r  ÷  Σ w_r
//! ```
//!
//! over the weighted resources of which h has a capacity above 0 and the request asks something; 0
//! when there is none. used counts open claims and claims in flight. MEMORY_MB in MiB, VCPU in counts,
//! both for one instance. Above 1 on an overfull host.
//!
//! Source: cobaltcore-dev/cortex, `kvm_binpack` (which takes a MB as 10^6 bytes).

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::resource_weights::ResourceWeights;
use crate::weighted_mean::WeightedMeans;

/// The step: resource classes with their weights.
#[derive(Debug)]
pub struct KvmBinpack(Vec<(&'static str, f64)>);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Weights of `memory` and `cpu`, above 0; at least one.
    pub resource_weights: ResourceWeights,
}

impl Weigher for KvmBinpack {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let mut means = WeightedMeans::new(out);
        for &(class, weight) in &self.0 {
            let asked = cx.request.amount(class);
            let Some((_, column)) = cx.view.column(class).filter(|_| asked > 0) else { continue };
            let fullness = |row: &Row| {
                let at = row.0 as usize;
                let (&capacity, &used) = (column.capacity.get(at)?, column.used.get(at)?);
                (capacity > 0).then(|| (used as f64 + asked as f64) / capacity as f64)
            };
            means.add(weight, hosts.iter().map(fullness));
        }
        means.finish();
        Verdict::Ran
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("binpack score", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for KvmBinpack {
    const NAME: &'static str = "kvm_binpack";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts that are fuller with the instance on them.";
    const MISSING_DATA: &'static str =
        "A resource without capacity on the host, or not asked, is left out; a host with none gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        options.resource_weights.check(|weight| weight > 0.0, "a number above 0").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::KvmBinpack;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    const GIB: u64 = 1024;

    #[test]
    fn fullness() {
        let mut fleet = Fleet::of([
            host("h80").amounts(100, 100 * GIB).allocated(80, 80 * GIB),
            host("h10").amounts(10, 10 * GIB).allocated(1, GIB),
            host("free").amounts(100, 100 * GIB),
            host("none").amounts(0, 0),
            host("bare"),
        ]);
        let weights = |cpu, memory| match (cpu, memory) {
            (cpu, 0) => json!({"resourceWeights": {"cpu": f64::from(cpu)}}),
            (0, memory) => json!({"resourceWeights": {"memory": f64::from(memory)}}),
            _ => json!({"resourceWeights": {"cpu": f64::from(cpu), "memory": f64::from(memory)}}),
        };
        let mut check = |asks: &'static [(&'static str, u64)], options, scores: &[(&str, f64)]| {
            case("binpack").resources(asks).options(options).scores(scores).weigh::<KvmBinpack>(&mut fleet);
        };
        check(&[("VCPU", 4)], weights(1, 0), &[("h80", 0.84), ("free", 0.04), ("none", 0.0), ("bare", 0.0)]);
        check(&[("MEMORY_MB", 8 * GIB)], weights(0, 1), &[("h80", 0.88)]);
        check(&[("VCPU", 4), ("MEMORY_MB", 8 * GIB)], weights(2, 1), &[("h80", (2.0 * 0.84 + 0.88) / 3.0)]);
        check(&[("VCPU", 20)], weights(1, 0), &[("h10", 2.1)]);
        // Not asked: left out.
        check(&[("VCPU", 4)], weights(1, 1), &[("h80", 0.84)]);
        check(&[("VCPU", 4)], weights(0, 1), &[("h80", 0.0)]);
    }

    #[test]
    fn weights_are_checked() {
        let error =
            |weights: serde_json::Value| weigher_options_error::<KvmBinpack>(json!({ "resourceWeights": weights }));
        assert_eq!(error(json!({})), "resourceWeights: an empty map given, memory or cpu expected");
        assert_eq!(error(json!({"cpu": 0.0})), "resourceWeights.cpu: 0 given, a number above 0 expected");
        assert_eq!(error(json!({"memory": -1.0})), "resourceWeights.memory: -1 given, a number above 0 expected");
        assert!(error(json!({"disk": 1.0})).starts_with("unknown field `disk`"));
        assert_eq!(weigher_options_error::<KvmBinpack>(json!({})), "missing field `resourceWeights`");
    }
}
