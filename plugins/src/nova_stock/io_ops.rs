//! Keeps hosts with fewer than `max_io_ops_per_host` I/O operations in progress: `IoOpsFilter` by the option, `AggregateIoOpsFilter` by the
//! metadata of that name of the host's aggregates, the smallest of which counts; the option where there is none,
//! and where one of them is no whole number.
//!
//! Claims that the host does not list yet count.
//!
//! Source: openstack/nova, `IoOpsFilter`, `AggregateIoOpsFilter`.

use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, HostNumber, Request};
use serde::{Deserialize, Serialize};

use super::count_limit::{Limit, below};

const WHY: &str = "too many I/O operations in progress";

/// The step with the option's limit.
#[derive(Debug)]
pub struct IoOpsFilter(i64);

/// The step with the aggregates' limits.
#[derive(Debug)]
pub struct AggregateIoOpsFilter(i64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// A host with this many is full.
    pub max_io_ops_per_host: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_io_ops_per_host: 8 }
    }
}

impl Filter for IoOpsFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        below(Limit::Option(self.0), HostNumber::NumIoOps, WHY, cx, hosts)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl Filter for AggregateIoOpsFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        below(Limit::Aggregates("max_io_ops_per_host", self.0), HostNumber::NumIoOps, WHY, cx, hosts)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl FilterPlugin for IoOpsFilter {
    const NAME: &'static str = "IoOpsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with fewer I/O operations in progress than an option says.";
    const MISSING_DATA: &'static str = "A host that reports no count has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.max_io_ops_per_host))
    }
}

impl FilterPlugin for AggregateIoOpsFilter {
    const NAME: &'static str = "AggregateIoOpsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with fewer I/O operations in progress than their aggregates say.";
    const MISSING_DATA: &'static str = "A host that reports no count has 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.max_io_ops_per_host))
    }
}

#[cfg(test)]
mod tests {
    use super::{AggregateIoOpsFilter, IoOpsFilter, WHY};
    use crate::nova_stock::count_limit::table;

    #[test]
    fn full_hosts_are_dropped() {
        table::<IoOpsFilter, AggregateIoOpsFilter>("num_io_ops", "max_io_ops_per_host", WHY);
    }
}
