//! Drops the hosts that the operator excludes by name, ASCII case ignored.
//!
//! Source: cobaltcore-dev/cortex, `filter_exclude_hosts` (the peer compares exactly).

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};
use serde::{Deserialize, Serialize};

use super::hosts::of_hosts;

/// The step.
#[derive(Debug)]
pub struct ExcludeHosts(Options);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Names of hosts; unknown and empty ones are harmless.
    pub excluded_hosts: Vec<String>,
}

impl Filter for ExcludeHosts {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if self.0.excluded_hosts.is_empty() {
            return Verdict::Skipped("no host is excluded");
        }
        let excluded = of_hosts(&cx.view, &self.0.excluded_hosts);
        hosts.drop_mask(&excluded, "in excludedHosts", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for ExcludeHosts {
    const NAME: &'static str = "filter_exclude_hosts";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts that the operator excludes by name.";
    const MISSING_DATA: &'static str = "Unknown names are harmless.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::ExcludeHosts;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn excluded_hosts_are_dropped() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        let excluding = |names: serde_json::Value| case("excluding").options(json!({ "excludedHosts": names }));
        excluding(json!(["h1", "h9", ""]))
            .kept(&["h2"])
            .dropped("h1", "in excludedHosts")
            .check::<ExcludeHosts>(&mut fleet);
        excluding(json!(["H1"])).kept(&["h2"]).check::<ExcludeHosts>(&mut fleet);
        case("default").kept_all().skipped("no host is excluded").check::<ExcludeHosts>(&mut fleet);
    }
}
