//! Weighs hosts by the members of a soft-affinity group on them. Members count where they run
//! and where they have a claim; the request's own instance counts where it runs.
//!
//! The multiplier is the option, overridden for a host by the metadata
//! `soft_affinity_weight_multiplier` of its aggregates (the smallest of several).
//!
//! Source: openstack/nova, `ServerGroupSoftAffinityWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::request::GroupPolicy;
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::instances::weigh_members;
use super::multipliers::{factors, not_negative};

/// The step: its multiplier.
#[derive(Debug)]
pub struct ServerGroupSoftAffinityWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub soft_affinity_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { soft_affinity_weight_multiplier: 1.0 }
    }
}

impl Weigher for ServerGroupSoftAffinityWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        weigh_members(cx, GroupPolicy::SoftAffinity, 1.0, hosts, out)
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "soft_affinity_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for ServerGroupSoftAffinityWeigher {
    const NAME: &'static str = "ServerGroupSoftAffinityWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with more members of the request's soft-affinity group.";
    const MISSING_DATA: &'static str = "A member of which no host is known counts nowhere.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        not_negative("soft_affinity_weight_multiplier", options.soft_affinity_weight_multiplier).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerGroupSoftAffinityWeigher;
    use crate::fleet::{Fleet, case, group, host, vm};
    use scheduler::request::GroupPolicy;

    #[test]
    fn members_count() {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2", "x"]), host("b").instances(&["v3"]), host("c")]);
        let with = |policy| {
            case("group").request(move |request| request.group = Some(group(policy, &["v1", "v2", "v3", "v4"])))
        };
        with(GroupPolicy::SoftAffinity)
            .scores(&[("a", 2.0), ("b", 1.0), ("c", 0.0)])
            .weigh::<ServerGroupSoftAffinityWeigher>(&mut fleet);
        // The instance itself counts where it runs, a claim where it is.
        fleet.claim("v4", "c", |_| {});
        with(GroupPolicy::SoftAffinity)
            .request(|request| request.consumers = vec![vm("v3")])
            .scores(&[("a", 2.0), ("b", 1.0), ("c", 1.0)])
            .weigh::<ServerGroupSoftAffinityWeigher>(&mut fleet);
        with(GroupPolicy::SoftAntiAffinity)
            .skipped("no group of this policy")
            .weigh::<ServerGroupSoftAffinityWeigher>(&mut fleet);
        case("none").skipped("no group of this policy").weigh::<ServerGroupSoftAffinityWeigher>(&mut fleet);
    }
}
