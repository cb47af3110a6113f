//! Weighs hosts by their cell, where a move may leave the cell of its instance: 1 in that cell, −1 in any
//! other; 0 otherwise.
//!
//! The multiplier is the option, overridden for a host by the metadata `cross_cell_move_weight_multiplier`
//! of its aggregates (the smallest of several).
//!
//! Source: openstack/nova, `CrossCellWeigher`.

use scheduler::host_state::node::Node;
use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::multipliers::{factors, finite};

/// The step: its multiplier.
#[derive(Debug)]
pub struct CrossCellWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub cross_cell_move_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cross_cell_move_weight_multiplier: 1_000_000.0 }
    }
}

impl Weigher for CrossCellWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let Some(cell) = cx.request.destination.preferred_cell.as_deref() else {
            return Verdict::Skipped("no move across cells");
        };
        for (&row, out) in hosts.iter().zip(out) {
            let own: Option<&Node> = cx.view.host_state(row).and_then(|state| state.attribute("cell_uuid"));
            *out = if own.is_some_and(|own| &*own.text == cell) { 1.0 } else { -1.0 };
        }
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "cross_cell_move_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for CrossCellWeigher {
    const NAME: &'static str = "CrossCellWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts in the cell of the instance that moves.";
    const MISSING_DATA: &'static str = "A host that reports no cell is in another one.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        finite("cross_cell_move_weight_multiplier", options.cross_cell_move_weight_multiplier).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::CrossCellWeigher;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn the_cell_comes_first() {
        let mut fleet = Fleet::of([
            host("same").state(json!({ "cell_uuid": "c1" })),
            host("other").state(json!({ "cell_uuid": "c2" })),
            host("bare"),
        ]);
        case("across")
            .request(|request| request.destination.preferred_cell = Some("c1".to_owned()))
            .scores(&[("same", 1.0), ("other", -1.0), ("bare", -1.0)])
            .shares(&[("same", 1e6), ("other", 0.0), ("bare", 0.0)])
            .weigh::<CrossCellWeigher>(&mut fleet);
        case("within").skipped("no move across cells").weigh::<CrossCellWeigher>(&mut fleet);
    }
}
