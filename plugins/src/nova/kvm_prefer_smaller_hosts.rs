//! Prefers small hosts, so that large ones stay free for what fits only there.
//!
//! ```text
//! s_r(h) = 1 − (capacity_r(h) − min_r) / (max_r − min_r)      min, max over the surviving hosts
//! a(h)   = Σ w_r × s_r(h)  ÷  Σ w_r
//! ```
//!
//! over the weighted resources of which h has a capacity above 0 and the hosts differ; 0 when there is
//! none. MEMORY_MB in MiB, VCPU in counts; only their ratio matters.
//!
//! Source: cobaltcore-dev/cortex, `kvm_prefer_smaller_hosts`.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::resource_weights::ResourceWeights;
use crate::weighted_mean::WeightedMeans;

/// The step: resource classes with their weights.
#[derive(Debug)]
pub struct KvmPreferSmallerHosts(Vec<(&'static str, f64)>);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Weights of `memory` and `cpu`, at least 0; at least one.
    pub resource_weights: ResourceWeights,
}

impl Weigher for KvmPreferSmallerHosts {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let mut means = WeightedMeans::new(out);
        for &(class, weight) in &self.0 {
            let Some((_, column)) = cx.view.column(class) else { continue };
            let size = |row: &Row| column.capacity.get(row.0 as usize).copied().unwrap_or(0);
            let sizes: Vec<u64> = hosts.iter().map(size).collect();
            let known = || sizes.iter().copied().filter(|&size| size > 0);
            let (min, max) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
            if min < max {
                let span = (max - min) as f64;
                let smallness = |&size: &u64| (size > 0).then(|| 1.0 - (size - min) as f64 / span);
                means.add(weight, sizes.iter().map(smallness));
            }
        }
        means.finish();
        Verdict::Ran
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("small host score", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for KvmPreferSmallerHosts {
    const NAME: &'static str = "kvm_prefer_smaller_hosts";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers small hosts.";
    const MISSING_DATA: &'static str =
        "A resource without capacity on the host is left out, also of minimum and maximum; a host with none gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        options.resource_weights.check(|weight| weight >= 0.0, "a number of at least 0").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::KvmPreferSmallerHosts;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    const GIB: u64 = 1024;

    #[test]
    fn smaller_hosts_score_higher() {
        let check = |sizes: &[(u64, u64)], weights: serde_json::Value, scores: &[f64]| {
            let name = |at: usize| format!("h{at}");
            let mut fleet = Fleet::of(
                sizes.iter().enumerate().map(|(at, &(cpu, memory))| host(&name(at)).amounts(cpu, memory * GIB)),
            );
            let names: Vec<String> = (0..sizes.len()).map(name).collect();
            let scores: Vec<(&str, f64)> = names.iter().map(String::as_str).zip(scores.iter().copied()).collect();
            case("sizes")
                .options(json!({ "resourceWeights": weights }))
                .scores(&scores)
                .weigh::<KvmPreferSmallerHosts>(&mut fleet);
        };
        let memory = || json!({"memory": 1.0});
        check(&[(8, 64), (8, 128), (8, 256)], memory(), &[1.0, 2.0 / 3.0, 0.0]);
        check(&[(8, 100), (8, 150), (8, 200)], memory(), &[1.0, 0.5, 0.0]);
        check(&[(8, 64), (8, 96), (8, 128), (8, 192)], memory(), &[1.0, 0.75, 0.5, 0.0]);
        check(&[(8, 64), (16, 64)], memory(), &[0.0, 0.0]);
        check(&[(8, 64)], memory(), &[0.0]);
        check(&[(256, 64), (64, 256)], json!({"memory": 2.0, "cpu": 1.0}), &[2.0 / 3.0, 1.0 / 3.0]);
        // Equal in one resource, or without it: the other alone counts.
        check(&[(8, 64), (8, 256)], json!({"memory": 1.0, "cpu": 5.0}), &[1.0, 0.0]);
        check(&[(8, 64), (8, 128), (0, 0)], memory(), &[1.0, 0.0, 0.0]);
        check(&[(8, 64), (8, 128)], json!({"memory": 0.0}), &[0.0, 0.0]);
    }

    #[test]
    fn weights_are_checked() {
        let error = |options| weigher_options_error::<KvmPreferSmallerHosts>(options);
        assert_eq!(
            error(json!({"resourceWeights": {"cpu": -0.5}})),
            "resourceWeights.cpu: -0.5 given, a number of at least 0 expected"
        );
        assert_eq!(
            error(json!({"resourceWeights": {}})),
            "resourceWeights: an empty map given, memory or cpu expected"
        );
    }
}
