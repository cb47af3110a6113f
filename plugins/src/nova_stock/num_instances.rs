//! Keeps hosts with fewer than `max_instances_per_host` instances: `NumInstancesFilter` by the option, `AggregateNumInstancesFilter` by the
//! metadata of that name of the host's aggregates, the smallest of which counts; the option where there is none,
//! and where one of them is no whole number.
//!
//! Claims that the host does not list yet count.
//!
//! Source: openstack/nova, `NumInstancesFilter`, `AggregateNumInstancesFilter`.

use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, HostNumber, Request};
use serde::{Deserialize, Serialize};

use super::count_limit::{Limit, below};

const WHY: &str = "too many instances";

/// The step with the option's limit.
#[derive(Debug)]
pub struct NumInstancesFilter(i64);

/// The step with the aggregates' limits.
#[derive(Debug)]
pub struct AggregateNumInstancesFilter(i64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// A host with this many is full.
    pub max_instances_per_host: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_instances_per_host: 50 }
    }
}

impl Filter for NumInstancesFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        below(Limit::Option(self.0), HostNumber::NumInstances, WHY, cx, hosts)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl Filter for AggregateNumInstancesFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        below(Limit::Aggregates("max_instances_per_host", self.0), HostNumber::NumInstances, WHY, cx, hosts)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl FilterPlugin for NumInstancesFilter {
    const NAME: &'static str = "NumInstancesFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with fewer instances than an option says.";
    const MISSING_DATA: &'static str = "A host that reports no count has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.max_instances_per_host))
    }
}

impl FilterPlugin for AggregateNumInstancesFilter {
    const NAME: &'static str = "AggregateNumInstancesFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with fewer instances than their aggregates say.";
    const MISSING_DATA: &'static str = "A host that reports no count has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.max_instances_per_host))
    }
}

#[cfg(test)]
mod tests {
    use super::{AggregateNumInstancesFilter, NumInstancesFilter, WHY};
    use crate::nova_stock::count_limit::table;

    #[test]
    fn full_hosts_are_dropped() {
        table::<NumInstancesFilter, AggregateNumInstancesFilter>("num_instances", "max_instances_per_host", WHY);
    }
}
