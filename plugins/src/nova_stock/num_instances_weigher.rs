//! Weighs hosts by their instances, open claims included; off by default.
//!
//! The multiplier is the option, overridden for a host by the metadata `num_instances_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `NumInstancesWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct NumInstancesWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub num_instances_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { num_instances_weight_multiplier: 0.0 }
    }
}

impl Weigher for NumInstancesWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::NumInstances, hosts, out);
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "num_instances_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for NumInstancesWeigher {
    const NAME: &'static str = "NumInstancesWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "With a negative multiplier: prefers hosts with fewer instances.";
    const MISSING_DATA: &'static str = "A host that reports none has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("num_instances_weight_multiplier", options.num_instances_weight_multiplier).map(Self)
    }
}
