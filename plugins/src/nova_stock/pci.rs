//! Weighs hosts by 100 − min(free PCI devices, 99): hosts with few devices are used first, whether the request asks for one or not.
//!
//! The multiplier is the option, overridden for a host by the metadata `pci_weight_multiplier` of its
//! aggregates (the smallest of several).
//!
//! Source: openstack/nova, `PCIWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, not_negative, numbers};

/// The step: its multiplier.
#[derive(Debug)]
pub struct PCIWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub pci_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { pci_weight_multiplier: 1.0 }
    }
}

impl Weigher for PCIWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        numbers(cx, HostNumber::FreePciDevices, hosts, out);
        for free in out {
            *free = 100.0 - free.min(99.0);
        }
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "pci_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl WeigherPlugin for PCIWeigher {
    const NAME: &'static str = "PCIWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Spares hosts with free PCI devices.";
    const MISSING_DATA: &'static str = "A host that reports no devices has none.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        not_negative("pci_weight_multiplier", options.pci_weight_multiplier).map(Self)
    }
}
