//! Prefers hosts that are fuller with the instance on them (with a negative multiplier: emptier).
//!
//! ```text
//! a(h) = Σ w_r × (used_r + asked_r) / capacity_r  ÷  Σ w_r
//! ```
//!
//! over the weighted resources that the request asks for and of which h has a capacity above 0; 0 when there is
//! none. MEMORY_MB in MiB, VCPU in counts, both for one instance. Above 1 on an overfull host.
//!
//! Use and capacity are what pallium counts itself, open claims and claims in flight included, where the host
//! reports an inventory of the resource. Of other hosts they are these features, which a source of metrics reports
//! (`POST /v1/features`); capacity is there (total − reserved) × allocation_ratio, and VCPUs are rounded down:
//!
//! | resource | used | capacity |
//! | --- | --- | --- |
//! | memory | `host-utilization.ramUsedMB` | `host-utilization.totalRAMAllocatableMB` |
//! | cpu | `host-utilization.vcpusUsed` | `host-utilization.totalVCPUsAllocatable` |
//!
//! Source: cobaltcore-dev/cortex, `vmware_binpack` and the Knowledge object `host-utilization` (by which alone it
//! goes, and which takes a MB as 10^6 bytes).

use scheduler::index::Column;
use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Provider, Request, Row, Sym};
use serde::{Deserialize, Serialize};

use super::resource_weights::ResourceWeights;
use crate::features::{MaxAge, Seen};
use crate::weighted_mean::WeightedMeans;

/// The step: resource classes with their weights.
#[derive(Debug)]
pub struct VmwareBinpack {
    weights: Vec<(&'static str, f64)>,
    age: MaxAge,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Weights of `memory` and `cpu`, above 0; at least one.
    pub resource_weights: ResourceWeights,
    /// Seconds after which a feature is as if it were not there; 0: never.
    #[serde(default)]
    pub max_age_seconds: u64,
}

/// A weighted resource, read once for a request.
struct Term<'a> {
    weight: f64,
    asked: f64,
    column: Option<&'a Column>,
    /// Features with its use and its capacity.
    features: Option<[Sym; 2]>,
    whole: bool,
}

impl Term<'_> {
    /// Use and capacity as pallium counts them.
    fn counted(&self, row: Row) -> Option<[f64; 2]> {
        let (column, at) = (self.column?, row.0 as usize);
        let capacity = column.capacity.get(at).copied().filter(|&capacity| capacity > 0)?;
        Some([*column.used.get(at)? as f64, capacity as f64])
    }

    /// Use and capacity as a source of metrics says.
    fn reported(&self, provider: Option<&Provider>, since: u64, seen: &mut Seen) -> Option<[f64; 2]> {
        let (features, [used, capacity]) = (&provider?.features, self.features?);
        let mut value = |name| {
            let value = seen.note(features.get(name), since)?;
            Some(if self.whole { value.trunc() } else { value })
        };
        Some([value(used)?, value(capacity).filter(|&capacity| capacity > 0.0)?])
    }
}

impl Weigher for VmwareBinpack {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let term = |&(class, weight): &(&str, f64)| {
            let names = match class {
                "VCPU" => ["host-utilization.vcpusUsed", "host-utilization.totalVCPUsAllocatable"],
                _ => ["host-utilization.ramUsedMB", "host-utilization.totalRAMAllocatableMB"],
            };
            Term {
                weight,
                asked: cx.request.amount(class) as f64,
                column: cx.view.column(class).map(|(_, column)| column),
                features: cx.view.sym(names[0]).zip(cx.view.sym(names[1])).map(Into::into),
                whole: class == "VCPU",
            }
        };
        let terms: Vec<Term<'_>> = self.weights.iter().map(term).filter(|term| term.asked > 0.0).collect();
        let (since, mut seen) = (self.age.since(cx), Seen::default());
        let mut means = WeightedMeans::new(out);
        for term in &terms {
            let fullness = |&row: &Row| {
                let counted = term.counted(row).inspect(|_| seen.other());
                let [used, capacity] = counted.or_else(|| term.reported(cx.view.provider(row), since, &mut seen))?;
                Some((used + term.asked) / capacity)
            };
            means.add(term.weight, hosts.iter().map(fullness));
        }
        means.finish();
        seen.verdict()
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("binpack score", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        self.age.reads(Reads::OwnUse)
    }
}

impl WeigherPlugin for VmwareBinpack {
    const NAME: &'static str = "vmware_binpack";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str =
        "Prefers hosts that are fuller with the instance on them, by what metrics say of them.";
    const MISSING_DATA: &'static str = "A resource of which neither inventory nor features tell a capacity, or that is not asked, is left out; a host \
         with none gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let weights = options.resource_weights.check(|weight| weight > 0.0, "a number above 0")?;
        Ok(Self { weights, age: MaxAge::of(options.max_age_seconds) })
    }
}

#[cfg(test)]
mod tests {
    use super::VmwareBinpack;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use scheduler::Domain;
    use serde_json::{Value, json};

    const GIB: u64 = 1024;

    fn utilization(cpu: [f64; 2], memory: [f64; 2]) -> [(&'static str, f64); 4] {
        [
            ("host-utilization.vcpusUsed", cpu[0]),
            ("host-utilization.totalVCPUsAllocatable", cpu[1]),
            ("host-utilization.ramUsedMB", memory[0]),
            ("host-utilization.totalRAMAllocatableMB", memory[1]),
        ]
    }

    fn weights(cpu: Option<f64>, memory: Option<f64>) -> Value {
        let given = [("cpu", cpu), ("memory", memory)];
        let given: serde_json::Map<_, _> =
            given.into_iter().filter_map(|(key, weight)| Some((key.to_owned(), json!(weight?)))).collect();
        json!({ "resourceWeights": given })
    }

    #[test]
    fn fullness() {
        let mib = (100 * GIB) as f64;
        let mut fleet = Fleet::of([
            host("h80"),
            host("part"),
            host("h10"),
            host("none"),
            host("bare"),
            host("counted").amounts(100, 100 * GIB).allocated(50, 50 * GIB),
        ]);
        for (name, cpu, memory) in [
            ("h80", [80.9, 100.9], [0.8 * mib, mib]),
            ("h10", [1.0, 10.0], [1024.0, 10240.0]),
            ("none", [0.0, 0.0], [0.0, 0.0]),
            // Its own inventory is fresher.
            ("counted", [1.0, 100.0], [1024.0, mib]),
        ] {
            fleet.features(Domain::Nova, name, &utilization(cpu, memory));
        }
        fleet.features(Domain::Nova, "part", &utilization([80.0, 100.0], [0.0, 0.0])[..2]);
        let mut check = |asks: &'static [(&'static str, u64)], options: Value, scores: &[(&str, f64)]| {
            case("binpack").resources(asks).options(options).scores(scores).weigh::<VmwareBinpack>(&mut fleet);
        };
        let (cpu, memory) = (&[("VCPU", 4)][..], &[("MEMORY_MB", 8 * GIB)][..]);
        let scores = [("h80", 0.84), ("h10", 0.5), ("none", 0.0), ("bare", 0.0), ("counted", 0.54)];
        check(cpu, weights(Some(1.0), None), &scores);
        check(memory, weights(None, Some(1.0)), &[("h80", 0.88), ("part", 0.0), ("counted", 0.58)]);
        let both = &[("VCPU", 4), ("MEMORY_MB", 8 * GIB)][..];
        check(both, weights(Some(2.0), Some(1.0)), &[("h80", (2.0 * 0.84 + 0.88) / 3.0), ("part", 0.84)]);
        check(&[("VCPU", 20)], weights(Some(1.0), None), &[("h10", 2.1)]);
        // Not asked: left out.
        check(cpu, weights(Some(1.0), Some(1.0)), &[("h80", 0.84)]);
        case("nothing to go by")
            .hosts(&["bare", "part"])
            .resources(memory)
            .options(weights(None, Some(1.0)))
            .skipped("no host has the features")
            .weigh::<VmwareBinpack>(&mut fleet);
    }

    #[test]
    fn claims_count_where_they_are_counted() {
        let mut fleet = Fleet::of([host("counted").amounts(100, GIB)]);
        fleet.features(Domain::Nova, "counted", &utilization([0.0, 100.0], [0.0, 1024.0]));
        fleet.claim("v", "counted", |request| {
            request.resources.insert("VCPU".to_owned(), 40);
        });
        case("claimed")
            .resources(&[("VCPU", 10)])
            .options(weights(Some(1.0), None))
            .scores(&[("counted", 0.5)])
            .weigh::<VmwareBinpack>(&mut fleet);
    }

    #[test]
    fn options_are_checked() {
        let error = |weights: Value| weigher_options_error::<VmwareBinpack>(json!({ "resourceWeights": weights }));
        assert_eq!(error(json!({})), "resourceWeights: an empty map given, memory or cpu expected");
        assert_eq!(error(json!({"cpu": 0.0})), "resourceWeights.cpu: 0 given, a number above 0 expected");
        assert_eq!(weigher_options_error::<VmwareBinpack>(json!({})), "missing field `resourceWeights`");
    }
}
