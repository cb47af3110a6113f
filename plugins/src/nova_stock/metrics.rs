//! Metrics that hosts report: the filter keeps hosts that have every metric named in `weight_setting`.
//!
//! Source: openstack/nova, `MetricsFilter`. An entry of `weight_setting` that is not `NAME=RATIO` keeps the
//! pipeline from being activated; Nova ignores it with a warning.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};
use serde::{Deserialize, Serialize};

use super::python;

/// The step: names of the metrics.
#[derive(Debug)]
pub struct MetricsFilter(Vec<(String, f64)>);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Metrics as `NAME=RATIO`.
    pub weight_setting: Vec<String>,
}

/// Reads a list of `NAME=NUMBER`.
pub fn settings(key: &str, list: &[String]) -> Result<Vec<(String, f64)>, String> {
    let read = |(at, text): (usize, &String)| {
        let (name, number) = text.split_once('=')?;
        let number = python::float(number).filter(|number| number.is_finite());
        Some((name.to_owned(), number.filter(|_| !name.is_empty())?)).ok_or(at).ok()
    };
    let each = list.iter().enumerate().map(|(at, text)| {
        read((at, text)).ok_or_else(|| format!("{key}[{at}]: '{}' given, NAME=NUMBER expected", text.escape_debug()))
    });
    each.collect()
}

impl Filter for MetricsFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if self.0.is_empty() {
            return Verdict::Skipped("no metric is named");
        }
        let has = |row| {
            let metrics = cx.view.host_state(row).map_or(&[][..], |state| &state.metrics);
            self.0.iter().all(|(name, _)| metrics.iter().any(|(known, _)| **known == **name))
        };
        hosts.keep_where("lacks a metric", has, |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for MetricsFilter {
    const NAME: &'static str = "MetricsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that report every metric that is to be weighed.";
    const MISSING_DATA: &'static str = "A host without metrics is dropped when one is named.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        settings("weight_setting", &options.weight_setting).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::MetricsFilter;
    use crate::fleet::{Fleet, case, filter_options_error, host};
    use serde_json::json;

    #[test]
    fn metrics_must_be_there() {
        let mut fleet = Fleet::of([
            host("both").state(json!({"metrics": [{"name": "a", "value": 0}, {"name": "b", "value": 1.5}]})),
            host("one").state(json!({"metrics": [{"name": "a", "value": 1}]})),
            host("bare"),
        ]);
        for (setting, kept) in
            [(json!(["a=1"]), &["both", "one"][..]), (json!(["a=1", "b=-2.5"]), &["both"]), (json!(["A=1"]), &[])]
        {
            case("metrics").options(json!({ "weight_setting": setting })).kept(kept).check::<MetricsFilter>(&mut fleet);
        }
        case("none").kept_all().skipped("no metric is named").check::<MetricsFilter>(&mut fleet);
        assert_eq!(
            filter_options_error::<MetricsFilter>(json!({ "weight_setting": ["a=1", "b"] })),
            "weight_setting[1]: 'b' given, NAME=NUMBER expected"
        );
    }
}
