//! Weighs hosts by the members of a soft-anti-affinity group on them, which count against them. Members count where they run
//! and where they have a claim; the request's own instance counts where it runs.
//!
//! The multiplier is the option, overridden for a host by the metadata
//! `soft_anti_affinity_weight_multiplier` of its aggregates (the smallest of several).
//!
//! Source: openstack/nova, `ServerGroupSoftAntiAffinityWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::request::GroupPolicy;
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::instances::weigh_members;
use super::multipliers::{factors, not_negative};

/// The step: its multiplier.
#[derive(Debug)]
pub struct ServerGroupSoftAntiAffinityWeigher(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one.
    pub soft_anti_affinity_weight_multiplier: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { soft_anti_affinity_weight_multiplier: 1.0 }
    }
}

impl Weigher for ServerGroupSoftAntiAffinityWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        weigh_members(cx, GroupPolicy::SoftAntiAffinity, -1.0, hosts, out)
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "soft_anti_affinity_weight_multiplier", self.0, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for ServerGroupSoftAntiAffinityWeigher {
    const NAME: &'static str = "ServerGroupSoftAntiAffinityWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts with fewer members of the request's soft-anti-affinity group.";
    const MISSING_DATA: &'static str = "A member of which no host is known counts nowhere.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        not_negative("soft_anti_affinity_weight_multiplier", options.soft_anti_affinity_weight_multiplier).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerGroupSoftAntiAffinityWeigher;
    use crate::fleet::{Fleet, case, group, host, vm};
    use scheduler::request::GroupPolicy;

    #[test]
    fn members_count() {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2", "x"]), host("b").instances(&["v3"]), host("c")]);
        let with = |policy| {
            case("group").request(move |request| request.group = Some(group(policy, &["v1", "v2", "v3", "v4"])))
        };
        with(GroupPolicy::SoftAntiAffinity)
            .scores(&[("a", -2.0), ("b", -1.0), ("c", 0.0)])
            .weigh::<ServerGroupSoftAntiAffinityWeigher>(&mut fleet);
        // The instance itself counts where it runs, a claim where it is.
        fleet.claim("v4", "c", |_| {});
        with(GroupPolicy::SoftAntiAffinity)
            .request(|request| request.consumers = vec![vm("v3")])
            .scores(&[("a", -2.0), ("b", -1.0), ("c", -1.0)])
            .weigh::<ServerGroupSoftAntiAffinityWeigher>(&mut fleet);
        with(GroupPolicy::SoftAffinity)
            .skipped("no group of this policy")
            .weigh::<ServerGroupSoftAntiAffinityWeigher>(&mut fleet);
        case("none").skipped("no group of this policy").weigh::<ServerGroupSoftAntiAffinityWeigher>(&mut fleet);
    }
}
