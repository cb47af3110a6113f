//! Prefers hosts with more members of a soft-affinity group, or with fewer of a soft-anti-affinity
//! group.
//!
//! a(h) = +n(h) or −n(h), n = members that are seen on h or have a claim there, the request's own left
//! out. The engine takes tanh of it: 1 member gives 0.76, 2 give 0.96.
//!
//! Source: cobaltcore-dev/cortex, `kvm_instance_group_soft_affinity`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::request::GroupPolicy;
use scheduler::{Domain, Request, Row};

/// The step.
#[derive(Debug)]
pub struct KvmInstanceGroupSoftAffinity;

impl Weigher for KvmInstanceGroupSoftAffinity {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let Some(group) = &cx.request.group else {
            return Verdict::Skipped("no soft group policy");
        };
        let sign = match group.policy {
            Some(GroupPolicy::SoftAffinity) => 1.0,
            Some(GroupPolicy::SoftAntiAffinity) => -1.0,
            _ => return Verdict::Skipped("no soft group policy"),
        };
        let members = cx.members_by_row(group);
        if members.is_empty() {
            return Verdict::Skipped("the group has no member yet");
        }
        for (row, count) in members {
            if let Ok(at) = hosts.binary_search(&row) {
                out[at] = sign * count as f64;
            }
        }
        Verdict::Ran
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("affinity", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for KvmInstanceGroupSoftAffinity {
    const NAME: &'static str = "kvm_instance_group_soft_affinity";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str =
        "Prefers hosts with (soft affinity) or without (soft anti-affinity) members of the group.";
    const MISSING_DATA: &'static str = "A member of which no host is known counts nowhere.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::KvmInstanceGroupSoftAffinity;
    use crate::fleet::{Fleet, case, group, host, vm};
    use scheduler::request::GroupPolicy;

    #[test]
    fn members_count() {
        let mut fleet =
            Fleet::of([host("h1").instances(&["v1", "v2", "x"]), host("h2").instances(&["v3"]), host("h3")]);
        let with = |policy, members: &'static [&'static str]| {
            case("group").request(move |r| r.group = Some(group(policy, members)))
        };
        let members: &[&str] = &["v1", "v2", "v3", "new"];
        with(GroupPolicy::SoftAntiAffinity, members)
            .scores(&[("h1", -2.0), ("h2", -1.0), ("h3", 0.0)])
            .weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
        with(GroupPolicy::SoftAffinity, members)
            .scores(&[("h1", 2.0), ("h2", 1.0), ("h3", 0.0)])
            .weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
        with(GroupPolicy::SoftAffinity, members)
            .request(|r| r.consumers = vec![vm("v3")])
            .scores(&[("h1", 2.0), ("h2", 0.0), ("h3", 0.0)])
            .weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
        for policy in [GroupPolicy::Affinity, GroupPolicy::AntiAffinity] {
            with(policy, members).skipped("no soft group policy").weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
        }
        with(GroupPolicy::SoftAffinity, &[])
            .skipped("the group has no member yet")
            .weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
        case("none").skipped("no soft group policy").weigh::<KvmInstanceGroupSoftAffinity>(&mut fleet);
    }
}
