//! Prefers the hosts with a free committed-resource slot of the project and flavor group.
//!
//! Active when the hint `_cortex_resource_group` names a flavor group; Nova never sends it. No slot is
//! known yet, so that every host gets `defaultHostWeight` then.
//!
//! Skipped for the intent `reserve_for_failover`.
//!
//! Source: cobaltcore-dev/cortex, `kvm_committed_resource_reservation`.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Intent, Request, Row};
use serde::{Deserialize, Serialize};

/// The step.
#[derive(Debug)]
pub struct KvmCommittedResourceReservation(Options);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Activation of a host with a fitting slot.
    pub reservation_host_weight: f64,
    /// Activation of any other host.
    pub default_host_weight: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { reservation_host_weight: 1.0, default_host_weight: 0.1 }
    }
}

impl Weigher for KvmCommittedResourceReservation {
    fn weigh(&self, cx: &Cx<'_>, _: &[Row], out: &mut [f64]) -> Verdict {
        if cx.intent == Intent::ReserveForFailover {
            return Verdict::Skipped("internal intent");
        }
        if cx.request.hint("_cortex_resource_group").is_none() {
            return Verdict::Skipped("no _cortex_resource_group hint");
        }
        out.fill(self.0.default_host_weight);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for KvmCommittedResourceReservation {
    const NAME: &'static str = "kvm_committed_resource_reservation";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with a free committed-resource slot of the project.";
    const MISSING_DATA: &'static str = "Without a slot a host gets defaultHostWeight.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::KvmCommittedResourceReservation;
    use crate::fleet::{Fleet, case, host};
    use scheduler::{Intent, Request};

    fn hint(request: &mut Request) {
        request.hints.insert("_cortex_resource_group".to_owned(), vec!["hana_v2".to_owned()]);
    }

    #[test]
    fn without_slots() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        case("hint")
            .request(hint)
            .scores(&[("h1", 0.1), ("h2", 0.1)])
            .weigh::<KvmCommittedResourceReservation>(&mut fleet);
        case("failover")
            .request(hint)
            .intent(Intent::ReserveForFailover)
            .skipped("internal intent")
            .weigh::<KvmCommittedResourceReservation>(&mut fleet);
        case("no hint").skipped("no _cortex_resource_group hint").weigh::<KvmCommittedResourceReservation>(&mut fleet);
    }
}
