//! Weighs hosts by the number of their hypervisor's version.
//!
//! The multiplier is the option, overridden for a host by the metadata `hypervisor_version_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `HypervisorVersionWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct HypervisorVersionWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub hypervisor_version_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { hypervisor_version_weight_multiplier: 1.0 }
    }
}

impl Weigher for HypervisorVersionWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::HypervisorVersion, hosts, out);
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "hypervisor_version_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for HypervisorVersionWeigher {
    const NAME: &'static str = "HypervisorVersionWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with a newer hypervisor.";
    const MISSING_DATA: &'static str = "A host that reports none has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("hypervisor_version_weight_multiplier", options.hypervisor_version_weight_multiplier).map(Self)
    }
}
