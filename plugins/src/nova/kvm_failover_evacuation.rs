//! Prefers, for an evacuation, the hosts with a failover reservation of the instance.
//!
//! No failover reservation is known yet, so that every host of an evacuation gets
//! `defaultHostWeight`; any other request is skipped.
//!
//! Source: cobaltcore-dev/cortex, `kvm_failover_evacuation`.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Intent, Request, Row};
use serde::{Deserialize, Serialize};

/// The step.
#[derive(Debug)]
pub struct KvmFailoverEvacuation(Options);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Activation of a host with a reservation of the instance.
    pub failover_host_weight: f64,
    /// Activation of any other host.
    pub default_host_weight: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { failover_host_weight: 1.0, default_host_weight: 0.1 }
    }
}

impl Weigher for KvmFailoverEvacuation {
    fn weigh(&self, cx: &Cx<'_>, _: &[Row], out: &mut [f64]) -> Verdict {
        if cx.intent != Intent::Evacuate {
            return Verdict::Skipped("no evacuation");
        }
        out.fill(self.0.default_host_weight);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for KvmFailoverEvacuation {
    const NAME: &'static str = "kvm_failover_evacuation";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with a failover reservation of the evacuated instance.";
    const MISSING_DATA: &'static str = "Without a reservation a host gets defaultHostWeight.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::KvmFailoverEvacuation;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Intent;
    use serde_json::json;

    #[test]
    fn without_reservations() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        case("evacuation")
            .intent(Intent::Evacuate)
            .scores(&[("h1", 0.1), ("h2", 0.1)])
            .weigh::<KvmFailoverEvacuation>(&mut fleet);
        case("evacuation")
            .intent(Intent::Evacuate)
            .options(json!({"defaultHostWeight": 0.25}))
            .scores(&[("h1", 0.25), ("h2", 0.25)])
            .weigh::<KvmFailoverEvacuation>(&mut fleet);
        case("create").skipped("no evacuation").weigh::<KvmFailoverEvacuation>(&mut fleet);
    }
}
