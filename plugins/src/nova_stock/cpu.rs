//! Weighs hosts by free VCPUs: vcpus_total × cpu_allocation_ratio − VCPUs in use and claimed; a negative one counts as 0.
//!
//! The multiplier is the option, overridden for a host by the metadata `cpu_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `CPUWeigher`.

use scheduler::pipeline::{Bounds, Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct CPUWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub cpu_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cpu_weight_multiplier: 1.0 }
    }
}

impl Weigher for CPUWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::FreeVcpus, hosts, out);
        Verdict::Ran
    }

    fn bounds(&self) -> Bounds {
        Bounds { min: Some(0.0), max: None }
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "cpu_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for CPUWeigher {
    const NAME: &'static str = "CPUWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with more free VCPUs.";
    const MISSING_DATA: &'static str =
        "A host that reports no VCPUs has 0; one without a ratio offers each of its VCPUs once.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("cpu_weight_multiplier", options.cpu_weight_multiplier).map(Self)
    }
}
