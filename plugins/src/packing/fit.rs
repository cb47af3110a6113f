//! Scores a host by what is free of its resources.
//!
//! ```text
//! best_fit     a(h) = −Σ w_r × (F_r − q_r) / Cmax_r
//! l2_norm      a(h) = −Σ w_r × ((F_r − q_r) / Cmax_r)²
//! dot_product  a(h) =  Σ w_r × q_r × F_r / Cmax_r²
//! ```
//!
//! F_r is what is free on the host before the placement, q_r what is asked, Cmax_r the largest capacity of any host. With
//! best_fit and l2_norm the fullest host comes first, with dot_product the one whose free vector points the way of the
//! request. A negative multiplier turns them round.
//!
//! Source of the scores: Panigrahy et al., "Heuristics for Vector Bin Packing", 2011.

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::{DOMAINS, Resource, Weights, free};

/// The step.
#[derive(Debug)]
pub struct Packing {
    form: Form,
    weights: Vec<(Resource, f64)>,
}

/// How free resources become a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The least free, summed.
    #[default]
    BestFit,
    /// The least free, squared and summed.
    L2Norm,
    /// Free resources weighed by what is asked of them.
    DotProduct,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// `best_fit`, `l2_norm` or `dot_product`.
    #[serde(default)]
    pub form: Form,
    /// Weights of `cpu`, `memory` and `gpu`, above 0; at least one.
    pub resource_weights: Weights,
}

impl Weigher for Packing {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        for &(resource, weight) in &self.weights {
            let Some((column, asked)) = resource.of(cx).filter(|(column, _)| column.largest > 0) else { continue };
            let (asked, largest) = (asked as f64, column.largest as f64);
            let rows = hosts.iter().map(|row| free(column, row.0 as usize)).zip(&mut *out);
            match self.form {
                Form::BestFit => rows.for_each(|(free, a)| *a -= weight * ((free - asked) / largest)),
                Form::L2Norm => rows.for_each(|(free, a)| {
                    let left = (free - asked) / largest;
                    *a -= weight * left * left;
                }),
                Form::DotProduct => rows.for_each(|(free, a)| *a += weight * asked * free / (largest * largest)),
            }
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("packing score", "float")
    }
}

impl WeigherPlugin for Packing {
    const NAME: &'static str = "packing";
    const DOMAINS: &'static [Domain] = DOMAINS;
    const SUMMARY: &'static str = "Scores hosts by what is free on them, in one of the forms of bin packing.";
    const MISSING_DATA: &'static str = "A host without an inventory of a resource counts as having none of it free.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self { form: options.form, weights: options.resource_weights.check()? })
    }
}

#[cfg(test)]
mod tests {
    use super::Packing;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    /// (F − q) / Cmax: of `half` 3/10 cpu and 15/40 memory, of `full` 0 and 5/40, of `large` 8/10 and 35/40.
    #[test]
    fn scores() {
        let mut fleet = Fleet::of([
            host("half").amounts(10, 40).allocated(5, 20),
            host("full").amounts(10, 40).allocated(8, 30),
            host("large").amounts(10, 40),
        ]);
        let asks: &[(&str, u64)] = &[("VCPU", 2), ("MEMORY_MB", 5)];
        for (form, weights, scores) in [
            ("best_fit", json!({"cpu": 1.0, "memory": 1.0}), [("half", -0.675), ("full", -0.125), ("large", -1.675)]),
            ("best_fit", json!({"memory": 2.0}), [("half", -0.75), ("full", -0.25), ("large", -1.75)]),
            (
                "l2_norm",
                json!({"cpu": 1.0, "memory": 1.0}),
                [("half", -0.230_625), ("full", -0.015_625), ("large", -1.405_625)],
            ),
            (
                "dot_product",
                json!({"cpu": 1.0, "memory": 1.0}),
                [("half", 0.162_5), ("full", 0.071_25), ("large", 0.325)],
            ),
        ] {
            let options = json!({"form": form, "resourceWeights": weights});
            case(form).resources(asks).options(options).scores(&scores).weigh::<Packing>(&mut fleet);
        }
    }

    #[test]
    fn options_are_checked() {
        let error = |weights: serde_json::Value| {
            weigher_options_error::<Packing>(json!({"form": "best_fit", "resourceWeights": weights}))
        };
        assert_eq!(error(json!({})), "resourceWeights: an empty map given, cpu, memory or gpu expected");
        assert_eq!(error(json!({"gpu": 0.0})), "resourceWeights.gpu: 0 given, a number above 0 expected");
        assert!(error(json!({"disk": 1.0})).starts_with("unknown field `disk`"));
    }
}
