//! Weighs hosts by metrics: Σ value × ratio over the metrics of `weight_setting`.
//!
//! A host that lacks one of them gets `weight_of_unavailable`, unless its ratio or the host's multiplier
//! is 0. The multiplier is `weight_multiplier`, overridden for a host by the metadata
//! `metrics_weight_multiplier` of its aggregates (the smallest of several).
//!
//! Source: openstack/nova, `MetricsWeigher`. With `required` Nova fails the request when a host lacks a
//! metric; here such a host gets `weight_of_unavailable` as well: put `MetricsFilter` before it to drop it.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::metrics::settings;
use super::multipliers::{factors, finite, multipliers};

const KEY: &str = "metrics_weight_multiplier";

/// The step.
#[derive(Debug)]
pub struct MetricsWeigher {
    setting: Vec<(String, f64)>,
    multiplier: f64,
    unavailable: f64,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub weight_multiplier: f64,
    /// Metrics as `NAME=RATIO`.
    pub weight_setting: Vec<String>,
    /// Nova's switch for missing metrics; see above.
    pub required: bool,
    /// Weight of a host that lacks a metric.
    pub weight_of_unavailable: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { weight_multiplier: 1.0, weight_setting: Vec::new(), required: true, weight_of_unavailable: -10_000.0 }
    }
}

impl Weigher for MetricsWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        if self.setting.is_empty() {
            return Verdict::Skipped("no metric is named");
        }
        let multipliers = multipliers(cx, KEY, self.multiplier);
        for (&row, out) in hosts.iter().zip(out) {
            let metrics = cx.view.host_state(row).map_or(&[][..], |state| &state.metrics);
            for (name, ratio) in &self.setting {
                match metrics.iter().find(|(known, _)| **known == **name) {
                    Some((_, value)) => *out += value * ratio,
                    None if ratio * multipliers.get(row) != 0.0 => {
                        *out = self.unavailable;
                        break;
                    }
                    None => {}
                }
            }
        }
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, KEY, self.multiplier, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for MetricsWeigher {
    const NAME: &'static str = "MetricsWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts by the metrics that they report.";
    const MISSING_DATA: &'static str = "A host that lacks a metric gets `weight_of_unavailable`.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self {
            setting: settings("weight_setting", &options.weight_setting)?,
            multiplier: finite("weight_multiplier", options.weight_multiplier)?,
            unavailable: finite("weight_of_unavailable", options.weight_of_unavailable)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::MetricsWeigher;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    #[test]
    fn metrics_are_summed() {
        let mut fleet = Fleet::of([
            host("both").state(json!({"metrics": [{"name": "a", "value": 2}, {"name": "b", "value": 0.5}]})),
            host("one").state(json!({"metrics": [{"name": "a", "value": 4}]})),
            host("off")
                .state(json!({"metrics": [{"name": "a", "value": 4}]}))
                .aggregate("off", &[("metrics_weight_multiplier", "0")]),
        ]);
        case("sum")
            .options(json!({"weight_setting": ["a=1.5", "b=-2"]}))
            .scores(&[("both", 2.0), ("one", -10_000.0), ("off", 6.0)])
            .weigh::<MetricsWeigher>(&mut fleet);
        case("ratio 0")
            .options(json!({"weight_setting": ["a=1", "b=0"]}))
            .scores(&[("both", 2.0), ("one", 4.0), ("off", 4.0)])
            .weigh::<MetricsWeigher>(&mut fleet);
        case("none").skipped("no metric is named").weigh::<MetricsWeigher>(&mut fleet);
        assert_eq!(
            weigher_options_error::<MetricsWeigher>(json!({"weight_setting": ["=1"]})),
            "weight_setting[0]: '=1' given, NAME=NUMBER expected"
        );
    }
}
