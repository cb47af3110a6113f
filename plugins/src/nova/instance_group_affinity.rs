//! Keeps the members of an affinity group together: only hosts that hold members stay.
//!
//! These are the hosts that the request names for the group (`instance_group.hosts`, ASCII case
//! ignored), and the hosts on which pallium knows a member to be or to have a claim. A group without
//! any such host restricts nothing: its first member may go anywhere.
//!
//! Skipped for pallium's own intents.
//!
//! Source: cobaltcore-dev/cortex, `filter_instance_group_affinity` (it knows the named hosts only).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::request::GroupPolicy;
use scheduler::{Aspect, Domain, Request};

use super::hosts::of_hosts;

/// The step.
#[derive(Debug)]
pub struct InstanceGroupAffinity;

impl Filter for InstanceGroupAffinity {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if cx.intent.is_internal() {
            return Verdict::Skipped("internal intent");
        }
        let Some(group) = cx.request.group.as_ref().filter(|group| group.policy == Some(GroupPolicy::Affinity)) else {
            return Verdict::Skipped("no affinity group");
        };
        let members = cx.members_by_row(group);
        if group.hosts.is_empty() && members.is_empty() {
            return Verdict::Skipped("the group has no host yet");
        }
        let mut theirs = of_hosts(&cx.view, &group.hosts);
        for row in members.into_keys() {
            theirs.insert(row);
        }
        hosts.keep_mask(&theirs, "holds no member of the affinity group", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Group]
    }
}

impl FilterPlugin for InstanceGroupAffinity {
    const NAME: &'static str = "filter_instance_group_affinity";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that hold members of the request's affinity group.";
    const MISSING_DATA: &'static str = "A group of which no host is known keeps every host.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::InstanceGroupAffinity;
    use crate::fleet::{Case, Fleet, case, group, host, texts, vm};
    use scheduler::Intent;
    use scheduler::request::GroupPolicy;

    fn with(policy: GroupPolicy, hosts: &'static [&'static str], members: &'static [&'static str]) -> Case {
        case("group").request(move |r| {
            let mut group = group(policy, members);
            group.hosts = texts(hosts);
            r.group = Some(group);
        })
    }

    #[test]
    fn members_stay_together() {
        let mut fleet = Fleet::of([
            host("host1").instances(&["v1"]),
            host("host2"),
            host("host3").instances(&["v2"]),
            host("host4"),
        ]);
        let check = |case: Case, fleet: &mut Fleet| case.check::<InstanceGroupAffinity>(fleet);
        check(case("none").kept_all().skipped("no affinity group"), &mut fleet);
        for policy in [GroupPolicy::AntiAffinity, GroupPolicy::SoftAffinity, GroupPolicy::SoftAntiAffinity] {
            check(with(policy, &["host1"], &[]).kept_all().skipped("no affinity group"), &mut fleet);
        }
        let affinity = |hosts, members| with(GroupPolicy::Affinity, hosts, members);
        check(affinity(&[], &[]).kept_all().skipped("the group has no host yet"), &mut fleet);
        check(
            affinity(&["host2", "host3", "host5"], &[])
                .kept(&["host2", "host3"])
                .dropped("host1", "holds no member of the affinity group"),
            &mut fleet,
        );
        check(affinity(&["HOST1"], &[]).kept(&["host1"]), &mut fleet);
        check(affinity(&["host2"], &["v2"]).kept(&["host2", "host3"]), &mut fleet);
        check(affinity(&["elsewhere"], &[]).kept(&[]), &mut fleet);
        check(
            affinity(&["host1"], &[]).intent(Intent::CapacityProbe).kept_all().skipped("internal intent"),
            &mut fleet,
        );
        // The request's own instance is no member.
        check(
            affinity(&[], &["v1"])
                .request(|r| r.consumers = vec![vm("v1")])
                .kept_all()
                .skipped("the group has no host yet"),
            &mut fleet,
        );
        // A member counts where it has a claim, before it is seen there.
        fleet.claim("v9", "host4", |_| {});
        check(affinity(&[], &["v9"]).kept(&["host4"]), &mut fleet);
    }
}
