//! Prefers hosts whose instances wait less for a CPU: `vmware_avoid_long_term_contended_hosts` by the last four
//! weeks, `vmware_avoid_short_term_contended_hosts` by the last 20 minutes (as the options are usually set:
//! activations that fall with the contention).
//!
//! ```text
//! a(h) = scale(average) + scale(maximum)
//! scale(v) = clamp(from + (v − lower) / (upper − lower) × (to − from), from, to)
//! ```
//!
//! Average and maximum are features of the host, percent, which a source of metrics reports (`POST /v1/features`):
//!
//! | step | features |
//! | --- | --- |
//! | long term | `vmware-long-term-contended-hosts.AvgCPUContention`, `vmware-long-term-contended-hosts.MaxCPUContention` |
//! | short term | `vmware-short-term-contended-hosts.AvgCPUContention`, `vmware-short-term-contended-hosts.MaxCPUContention` |
//!
//! 0 where both activation bounds are equal. Over which time they are taken is up to the source.
//!
//! Source: cobaltcore-dev/cortex, `vmware_avoid_long_term_contended_hosts`,
//! `vmware_avoid_short_term_contended_hosts`, and the Knowledge objects whose names the features begin with.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use crate::features::min_max_scale::MinMaxScale;
use crate::features::{MaxAge, weigh};

/// Options.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Average contention (%) that gets avgCPUContentionActivationLowerBound.
    #[serde(rename = "avgCPUContentionLowerBound")]
    pub avg_lower: f64,
    /// Average contention (%) that gets avgCPUContentionActivationUpperBound; another number than the lower bound.
    #[serde(rename = "avgCPUContentionUpperBound")]
    pub avg_upper: f64,
    /// Activation at and below the lower bound of the average.
    #[serde(rename = "avgCPUContentionActivationLowerBound")]
    pub avg_from: f64,
    /// Activation at and above the upper bound of the average.
    #[serde(rename = "avgCPUContentionActivationUpperBound")]
    pub avg_to: f64,
    /// Maximum contention (%) that gets maxCPUContentionActivationLowerBound.
    #[serde(rename = "maxCPUContentionLowerBound")]
    pub max_lower: f64,
    /// Maximum contention (%) that gets maxCPUContentionActivationUpperBound; another number than the lower bound.
    #[serde(rename = "maxCPUContentionUpperBound")]
    pub max_upper: f64,
    /// Activation at and below the lower bound of the maximum.
    #[serde(rename = "maxCPUContentionActivationLowerBound")]
    pub max_from: f64,
    /// Activation at and above the upper bound of the maximum.
    #[serde(rename = "maxCPUContentionActivationUpperBound")]
    pub max_to: f64,
    /// Seconds after which a feature is as if it were not there; 0: never.
    #[serde(rename = "maxAgeSeconds")]
    pub max_age: u64,
}

/// How average and maximum are scaled.
#[derive(Debug)]
struct Contention {
    avg: MinMaxScale,
    max: MinMaxScale,
    age: MaxAge,
}

impl Contention {
    fn new(options: Options) -> Result<Self, String> {
        let (avg, max) = ([options.avg_lower, options.avg_upper], [options.max_lower, options.max_upper]);
        Ok(Self {
            avg: MinMaxScale::new("avgCPUContention", avg, [options.avg_from, options.avg_to])?,
            max: MinMaxScale::new("maxCPUContention", max, [options.max_from, options.max_to])?,
            age: MaxAge::of(options.max_age),
        })
    }

    fn weigh(&self, cx: &Cx<'_>, [avg, max]: [&str; 2], hosts: &[Row], out: &mut [f64]) -> Verdict {
        weigh(cx, [(avg, &self.avg), (max, &self.max)], self.age, hosts, out)
    }
}

/// The step for the last weeks.
#[derive(Debug)]
pub struct VmwareAvoidLongTermContendedHosts(Contention);

/// The step for the last minutes.
#[derive(Debug)]
pub struct VmwareAvoidShortTermContendedHosts(Contention);

const MISSING_DATA: &str = "A host without one of the features gets nothing for it; with none it gets 0.";

impl Weigher for VmwareAvoidLongTermContendedHosts {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let names =
            ["vmware-long-term-contended-hosts.AvgCPUContention", "vmware-long-term-contended-hosts.MaxCPUContention"];
        self.0.weigh(cx, names, hosts, out)
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("cpu contention activation", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        self.0.age.reads(Reads::Facts)
    }
}

impl WeigherPlugin for VmwareAvoidLongTermContendedHosts {
    const NAME: &'static str = "vmware_avoid_long_term_contended_hosts";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts whose instances waited less for a CPU over the last weeks.";
    const MISSING_DATA: &'static str = MISSING_DATA;
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Contention::new(options).map(Self)
    }
}

impl Weigher for VmwareAvoidShortTermContendedHosts {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let names = [
            "vmware-short-term-contended-hosts.AvgCPUContention",
            "vmware-short-term-contended-hosts.MaxCPUContention",
        ];
        self.0.weigh(cx, names, hosts, out)
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("cpu contention activation", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        self.0.age.reads(Reads::Facts)
    }
}

impl WeigherPlugin for VmwareAvoidShortTermContendedHosts {
    const NAME: &'static str = "vmware_avoid_short_term_contended_hosts";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts whose instances waited less for a CPU over the last minutes.";
    const MISSING_DATA: &'static str = MISSING_DATA;
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Contention::new(options).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::{VmwareAvoidLongTermContendedHosts, VmwareAvoidShortTermContendedHosts};
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use scheduler::Domain;
    use scheduler::pipeline::WeigherPlugin;
    use serde_json::{Value, json};

    fn options(upper: f64, avg: f64, max: f64) -> Value {
        json!({
            "avgCPUContentionUpperBound": upper, "avgCPUContentionActivationUpperBound": avg,
            "maxCPUContentionUpperBound": upper, "maxCPUContentionActivationUpperBound": max,
        })
    }

    /// The vectors of the peer, with contention in the features of this term.
    fn vectors<W: WeigherPlugin>(term: &str) {
        let mut fleet = Fleet::of(["0-0", "100-0", "0-100", "100-100", "5-5", "avg-4", "none"].map(host));
        for (name, avg, max) in [
            ("0-0", 0.0, 0.0),
            ("100-0", 100.0, 0.0),
            ("0-100", 0.0, 100.0),
            ("100-100", 100.0, 100.0),
            ("5-5", 5.0, 5.0),
        ] {
            let (avg_name, max_name) = (format!("{term}.AvgCPUContention"), format!("{term}.MaxCPUContention"));
            fleet.features(Domain::Nova, name, &[(&avg_name, avg), (&max_name, max)]);
        }
        fleet.features(Domain::Nova, "avg-4", &[(&format!("{term}.AvgCPUContention"), 4.0)]);
        case("0..100 gives 0..-1")
            .options(options(100.0, -1.0, -1.0))
            .scores(&[("0-0", 0.0), ("100-0", -1.0), ("0-100", -1.0), ("100-100", -2.0), ("none", 0.0)])
            .weigh::<W>(&mut fleet);
        case("as shipped")
            .options(options(10.0, -0.75, -0.25))
            .scores(&[("0-0", 0.0), ("5-5", -0.5), ("100-100", -1.0), ("avg-4", -0.3), ("none", 0.0)])
            .weigh::<W>(&mut fleet);
        // Hosts that the request does not name are not looked at.
        case("one")
            .hosts(&["none"])
            .options(options(10.0, -0.75, -0.25))
            .skipped("no host has the features")
            .weigh::<W>(&mut fleet);
        let mut others = Fleet::of(["a", "b"].map(host));
        others.features(Domain::Nova, "a", &[("AvgCPUContention", 100.0)]);
        case("other features")
            .options(options(10.0, -0.75, -0.25))
            .skipped("no host has the features")
            .weigh::<W>(&mut others);
        assert_eq!(
            weigher_options_error::<W>(json!({})),
            "avgCPUContentionLowerBound and avgCPUContentionUpperBound: 0 given for both, two different numbers expected"
        );
        assert_eq!(
            weigher_options_error::<W>(json!({"avgCPUContentionUpperBound": 10.0})),
            "maxCPUContentionLowerBound and maxCPUContentionUpperBound: 0 given for both, two different numbers expected"
        );
    }

    #[test]
    fn each_by_its_own_features() {
        vectors::<VmwareAvoidLongTermContendedHosts>("vmware-long-term-contended-hosts");
        vectors::<VmwareAvoidShortTermContendedHosts>("vmware-short-term-contended-hosts");
    }

    #[test]
    fn what_is_too_old_does_not_count() {
        let mut fleet = Fleet::of(["old", "new", "none"].map(host));
        let both = |value| {
            [
                ("vmware-short-term-contended-hosts.AvgCPUContention", value),
                ("vmware-short-term-contended-hosts.MaxCPUContention", value),
            ]
        };
        fleet.features_at(1_000, Domain::Nova, "old", &both(100.0));
        fleet.features_at(100_000, Domain::Nova, "new", &both(100.0));
        let aged = |seconds: u64| {
            let mut options = options(100.0, -1.0, -1.0);
            options["maxAgeSeconds"] = json!(seconds);
            options
        };
        // It is 100 s after the beginning.
        for (seconds, old) in [(0, -2.0), (99, -2.0), (98, 0.0)] {
            case("age")
                .options(aged(seconds))
                .scores(&[("old", old), ("new", -2.0), ("none", 0.0)])
                .weigh::<VmwareAvoidShortTermContendedHosts>(&mut fleet);
        }
        case("silent source")
            .hosts(&["old", "none"])
            .options(aged(98))
            .skipped("the features of all hosts are older than maxAgeSeconds")
            .weigh::<VmwareAvoidShortTermContendedHosts>(&mut fleet);
    }
}
