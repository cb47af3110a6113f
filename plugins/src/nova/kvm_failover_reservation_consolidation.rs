//! Gathers failover reservations on few hosts, but not those of one flavor group.
//!
//! ```text
//! a(h) = (totalCountWeight × n(h) − sameSpecPenalty × same(h)) / T
//! ```
//!
//! T = failover reservations with a host, n(h) = those on h, same(h) = those of the request's flavor
//! group on h; 0 when T is 0. No failover reservation is known yet, so that every host gets 0.
//!
//! Skipped for every intent but `reserve_for_failover`.
//!
//! Source: cobaltcore-dev/cortex, `kvm_failover_reservation_consolidation`.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Intent, Request, Row};
use serde::{Deserialize, Serialize};

/// The step.
#[derive(Debug)]
pub struct KvmFailoverReservationConsolidation;

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Weight of a host's share of all failover reservations, at least 0.
    pub total_count_weight: f64,
    /// Weight of its share of those of the same flavor group: at least 0, below totalCountWeight, or
    /// both 0.
    pub same_spec_penalty: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { total_count_weight: 1.0, same_spec_penalty: 0.1 }
    }
}

impl Weigher for KvmFailoverReservationConsolidation {
    fn weigh(&self, cx: &Cx<'_>, _: &[Row], _: &mut [f64]) -> Verdict {
        if cx.intent != Intent::ReserveForFailover {
            return Verdict::Skipped("no failover reservation is placed");
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for KvmFailoverReservationConsolidation {
    const NAME: &'static str = "kvm_failover_reservation_consolidation";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Gathers failover reservations, but not those of one flavor group.";
    const MISSING_DATA: &'static str = "Without reservations every host gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let Options { total_count_weight: total, same_spec_penalty: penalty } = options;
        for (key, value) in [("totalCountWeight", total), ("sameSpecPenalty", penalty)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("{key}: {value} given, a number of at least 0 expected"));
            }
        }
        if penalty >= total && (penalty, total) != (0.0, 0.0) {
            return Err(format!("sameSpecPenalty: {penalty} given, less than totalCountWeight ({total}) expected"));
        }
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::KvmFailoverReservationConsolidation;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use scheduler::Intent;
    use serde_json::json;

    #[test]
    fn without_reservations() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        case("failover")
            .intent(Intent::ReserveForFailover)
            .scores(&[("h1", 0.0), ("h2", 0.0)])
            .weigh::<KvmFailoverReservationConsolidation>(&mut fleet);
        case("both 0")
            .options(json!({"totalCountWeight": 0.0, "sameSpecPenalty": 0.0}))
            .skipped("no failover reservation is placed")
            .weigh::<KvmFailoverReservationConsolidation>(&mut fleet);
    }

    #[test]
    fn weights_are_checked() {
        let error = |options| weigher_options_error::<KvmFailoverReservationConsolidation>(options);
        assert_eq!(
            error(json!({"totalCountWeight": -1.0})),
            "totalCountWeight: -1 given, a number of at least 0 expected"
        );
        assert_eq!(
            error(json!({"sameSpecPenalty": 1.0})),
            "sameSpecPenalty: 1 given, less than totalCountWeight (1) expected"
        );
    }
}
