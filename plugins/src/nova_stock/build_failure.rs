//! Weighs hosts by the builds that failed there since the last good one; the multiplier counts against them.
//!
//! The multiplier is the option, overridden for a host by the metadata `build_failure_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `BuildFailureWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct BuildFailureWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub build_failure_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { build_failure_weight_multiplier: 1_000_000.0 }
    }
}

impl Weigher for BuildFailureWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::FailedBuilds, hosts, out);
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "build_failure_weight_multiplier", self.0, -1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for BuildFailureWeigher {
    const NAME: &'static str = "BuildFailureWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Avoids hosts on which builds failed.";
    const MISSING_DATA: &'static str = "A host that reports none has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("build_failure_weight_multiplier", options.build_failure_weight_multiplier).map(Self)
    }
}
