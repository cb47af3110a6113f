//! Prefers storage pools whose NetApp nodes are less busy (as the options are usually set: activations
//! that fall with the load).
//!
//! ```text
//! a(pool) = scale(average) + scale(maximum)
//! scale(v) = clamp(from + (v − lower) / (upper − lower) × (to − from), from, to)
//! ```
//!
//! Average and maximum are the features `AvgCPUUsagePct` and `MaxCPUUsagePct` of the pool, percent of the
//! node's busy time, which a source of metrics reports (`POST /v1/features`); the pool itself is reported
//! as a host of the domain, under the name that Manila sends. 0 where both activation bounds are equal.
//!
//! Source: cobaltcore-dev/cortex, `netapp_cpu_usage_balancing` (which is dropped from its pipeline while
//! there are no features at all).

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use crate::features::min_max_scale::MinMaxScale;
use crate::features::{MaxAge, weigh};

/// Features of a pool.
const AVERAGE: &str = "AvgCPUUsagePct";
const MAXIMUM: &str = "MaxCPUUsagePct";

/// The step: how average and maximum are scaled.
#[derive(Debug)]
pub struct NetappCpuUsageBalancing {
    avg: MinMaxScale,
    max: MinMaxScale,
    age: MaxAge,
}

/// Options.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Average usage (%) that gets avgCPUUsageActivationLowerBound.
    #[serde(rename = "avgCPUUsageLowerBound")]
    pub avg_lower: f64,
    /// Average usage (%) that gets avgCPUUsageActivationUpperBound; another number than the lower bound.
    #[serde(rename = "avgCPUUsageUpperBound")]
    pub avg_upper: f64,
    /// Activation at and below the lower bound of the average.
    #[serde(rename = "avgCPUUsageActivationLowerBound")]
    pub avg_from: f64,
    /// Activation at and above the upper bound of the average.
    #[serde(rename = "avgCPUUsageActivationUpperBound")]
    pub avg_to: f64,
    /// Maximum usage (%) that gets maxCPUUsageActivationLowerBound.
    #[serde(rename = "maxCPUUsageLowerBound")]
    pub max_lower: f64,
    /// Maximum usage (%) that gets maxCPUUsageActivationUpperBound; another number than the lower bound.
    #[serde(rename = "maxCPUUsageUpperBound")]
    pub max_upper: f64,
    /// Activation at and below the lower bound of the maximum.
    #[serde(rename = "maxCPUUsageActivationLowerBound")]
    pub max_from: f64,
    /// Activation at and above the upper bound of the maximum.
    #[serde(rename = "maxCPUUsageActivationUpperBound")]
    pub max_to: f64,
    /// Seconds after which a feature is as if it were not there; 0: never.
    #[serde(rename = "maxAgeSeconds")]
    pub max_age: u64,
}

impl Weigher for NetappCpuUsageBalancing {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        weigh(cx, [(AVERAGE, &self.avg), (MAXIMUM, &self.max)], self.age, hosts, out)
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("cpu usage activation", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        self.age.reads(Reads::Facts)
    }
}

impl WeigherPlugin for NetappCpuUsageBalancing {
    const NAME: &'static str = "netapp_cpu_usage_balancing";
    const DOMAINS: &'static [Domain] = &[Domain::Manila];
    const SUMMARY: &'static str = "Prefers storage pools whose NetApp nodes are less busy.";
    const MISSING_DATA: &'static str = "A pool without one of the features gets nothing for it; with none it gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let avg = [options.avg_from, options.avg_to];
        let max = [options.max_from, options.max_to];
        Ok(Self {
            avg: MinMaxScale::new("avgCPUUsage", [options.avg_lower, options.avg_upper], avg)?,
            max: MinMaxScale::new("maxCPUUsage", [options.max_lower, options.max_upper], max)?,
            age: MaxAge::of(options.max_age),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::NetappCpuUsageBalancing;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use scheduler::Domain;
    use serde_json::{Value, json};

    fn options(upper: f64, avg: f64, max: f64) -> Value {
        json!({
            "avgCPUUsageUpperBound": upper, "avgCPUUsageActivationUpperBound": avg,
            "maxCPUUsageUpperBound": upper, "maxCPUUsageActivationUpperBound": max,
        })
    }

    fn pools() -> Fleet {
        let pool = |name: &str| host(name).domain(Domain::Manila);
        let mut fleet = Fleet::of(["h@b#00", "h@b#a0", "h@b#0m", "h@b#am", "h@b#5", "h@b#none"].map(pool));
        for (name, avg, max) in [
            ("h@b#00", 0.0, 0.0),
            ("h@b#a0", 100.0, 0.0),
            ("h@b#0m", 0.0, 100.0),
            ("h@b#am", 100.0, 100.0),
            ("h@b#5", 5.0, 5.0),
        ] {
            fleet.features(Domain::Manila, name, &[("AvgCPUUsagePct", avg), ("MaxCPUUsagePct", max)]);
        }
        fleet
    }

    #[test]
    fn vectors_of_the_peer() {
        let mut fleet = pools();
        case("0..100 gives 0..-1")
            .domain(Domain::Manila)
            .options(options(100.0, -1.0, -1.0))
            .scores(&[("h@b#00", 0.0), ("h@b#a0", -1.0), ("h@b#0m", -1.0), ("h@b#am", -2.0), ("h@b#none", 0.0)])
            .weigh::<NetappCpuUsageBalancing>(&mut fleet);
        case("as shipped")
            .domain(Domain::Manila)
            .options(options(10.0, -0.75, -0.25))
            .scores(&[("h@b#5", -0.5), ("h@b#am", -1.0)])
            .weigh::<NetappCpuUsageBalancing>(&mut fleet);
        // Pools that the request does not name are not looked at.
        case("one pool")
            .domain(Domain::Manila)
            .hosts(&["h@b#none"])
            .options(options(100.0, -1.0, -1.0))
            .skipped("no host has the features")
            .weigh::<NetappCpuUsageBalancing>(&mut fleet);
    }

    #[test]
    fn without_features_it_is_skipped() {
        let mut fleet = Fleet::of([host("h@b#p").domain(Domain::Manila)]);
        case("none")
            .domain(Domain::Manila)
            .options(options(10.0, -0.75, -0.25))
            .skipped("no host has the features")
            .weigh::<NetappCpuUsageBalancing>(&mut fleet);
    }

    #[test]
    fn bounds_are_checked() {
        assert_eq!(
            weigher_options_error::<NetappCpuUsageBalancing>(json!({})),
            "avgCPUUsageLowerBound and avgCPUUsageUpperBound: 0 given for both, two different numbers expected"
        );
        assert_eq!(
            weigher_options_error::<NetappCpuUsageBalancing>(json!({"avgCPUUsageUpperBound": 10.0})),
            "maxCPUUsageLowerBound and maxCPUUsageUpperBound: 0 given for both, two different numbers expected"
        );
    }
}
