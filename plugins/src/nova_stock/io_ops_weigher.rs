//! Weighs hosts by the I/O operations in progress, one for each open claim; by default fewer are better.
//!
//! The multiplier is the option, overridden for a host by the metadata `io_ops_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `IoOpsWeigher`.

use scheduler::pipeline::{Bounds, Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct IoOpsWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub io_ops_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { io_ops_weight_multiplier: -1.0 }
    }
}

impl Weigher for IoOpsWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::NumIoOps, hosts, out);
        Verdict::Ran
    }

    fn bounds(&self) -> Bounds {
        Bounds { min: Some(0.0), max: None }
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "io_ops_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for IoOpsWeigher {
    const NAME: &'static str = "IoOpsWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with fewer I/O operations in progress.";
    const MISSING_DATA: &'static str = "A host that reports none has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("io_ops_weight_multiplier", options.io_ops_weight_multiplier).map(Self)
    }
}
