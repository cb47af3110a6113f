//! Weighs hosts by free memory, MiB, less what open claims take; a negative one counts as 0.
//!
//! The multiplier is the option, overridden for a host by the metadata `ram_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `RAMWeigher`.

use scheduler::pipeline::{Bounds, Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct RAMWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub ram_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { ram_weight_multiplier: 1.0 }
    }
}

impl Weigher for RAMWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::FreeRamMb, hosts, out);
        Verdict::Ran
    }

    fn bounds(&self) -> Bounds {
        Bounds { min: Some(0.0), max: None }
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "ram_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for RAMWeigher {
    const NAME: &'static str = "RAMWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with more free memory.";
    const MISSING_DATA: &'static str = "A host that reports none has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("ram_weight_multiplier", options.ram_weight_multiplier).map(Self)
    }
}
