//! Scores hosts by a rule: an expression in CEL over `request`, `host` and `features` (see *Rules in
//! CEL*) that gives a number, the activation. It enters the score as multiplier × tanh(activation): keep
//! it near −1 … 1, or the hosts beyond look alike. A rule that fails for a host, or that gives something
//! else than a number, scores it 0.
//!
//! ```yaml
//! - name: cel_score
//!   multiplier: -0.5
//!   params:
//!     - {key: expression, stringValue: 'double(host.used["VCPU"]) / double(host.capacity["VCPU"])'}
//! ```
//!
//! Source: pallium's own; the language is that of cel.dev.

use scheduler::pipeline::step::Reads;
use scheduler::pipeline::{Cx, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::rule::{Rule, Said};

/// The step.
#[derive(Debug)]
pub struct CelScore(Rule);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// The rule: it gives the activation.
    pub expression: String,
}

impl Weigher for CelScore {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let mut at = 0;
        let asked = self.0.ask(cx, hosts.iter().copied(), |_, said| {
            if let (Said::Number(number), Some(out)) = (said, out.get_mut(at)) {
                *out = number;
            }
            at += 1;
        });
        match asked {
            Ok(()) => Verdict::Ran,
            Err(why) => {
                out.fill(0.0);
                Verdict::Skipped(why)
            }
        }
    }

    fn reads(&self, _: &Request) -> Reads {
        self.0.reads()
    }

    fn constant(&self) -> Option<&'static str> {
        self.0.is_constant().then_some("its rule asks nothing of the host")
    }
}

impl WeigherPlugin for CelScore {
    const NAME: &'static str = "cel_score";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "Scores hosts by a rule in CEL.";
    const MISSING_DATA: &'static str = "A rule that asks for what is not there fails for that host, which gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Rule::new(&options.expression).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::CelScore;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    #[test]
    fn a_table_of_rules() {
        let mut fleet = Fleet::of([
            host("half").amounts(64, 1024).allocated(32, 128).traits(&["CUSTOM_SSD"]),
            host("free").amounts(8, 256),
            host("bare"),
        ]);
        for (rule, scores) in [
            ("double(host.used[\"VCPU\"]) / double(host.capacity[\"VCPU\"])", [0.5, 0.0, 0.0]),
            ("\"CUSTOM_SSD\" in host.traits ? 1 : -1", [1.0, -1.0, -1.0]),
            ("host.instances * 2 + 1", [1.0, 1.0, 1.0]),
            // No number.
            ("host.name", [0.0, 0.0, 0.0]),
            ("host.name == \"half\"", [0.0, 0.0, 0.0]),
            // Not finite: the run counts it as 0.
            ("1.0 / double(host.used[\"VCPU\"])", [1.0 / 32.0, f64::INFINITY, 0.0]),
        ] {
            let scores: Vec<(&str, f64)> = ["half", "free", "bare"].into_iter().zip(scores).collect();
            let scores = scores.iter().filter(|(_, score)| score.is_finite()).copied().collect::<Vec<_>>();
            case(rule)
                .resources(&[("VCPU", 1)])
                .options(json!({ "expression": rule }))
                .scores(&scores)
                .weigh::<CelScore>(&mut fleet);
        }
        let error = weigher_options_error::<CelScore>(json!({"expression": "hots.name"}));
        assert!(error.starts_with("expression: variable 'hots' is not known"), "{error}");
    }
}
