//! Keeps the hosts that the request's affinity group names, and those on which a member has a claim that
//! waits to be seen; without any such host it keeps all.
//!
//! Names are compared exactly.
//!
//! Source: openstack/nova, `ServerGroupAffinityFilter`, which knows of no claims.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::request::GroupPolicy;
use scheduler::{Aspect, Domain, Request};

use super::instances::named;

/// The step.
#[derive(Debug)]
pub struct ServerGroupAffinityFilter;

impl Filter for ServerGroupAffinityFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(group) = cx.request.group.as_ref().filter(|group| group.policy == Some(GroupPolicy::Affinity)) else {
            return Verdict::Skipped("no affinity group");
        };
        let claimed = cx.claimed_by_members(group);
        if group.hosts.is_empty() && claimed.is_empty() {
            return Verdict::Skipped("the group has no host yet");
        }
        let mut rows = named(cx, &group.hosts);
        for row in claimed {
            rows.insert(row);
        }
        hosts.keep_mask(&rows, "holds no member of the affinity group", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Group]
    }
}

impl FilterPlugin for ServerGroupAffinityFilter {
    const NAME: &'static str = "ServerGroupAffinityFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that the request's affinity group names.";
    const MISSING_DATA: &'static str = "A group without hosts keeps all.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerGroupAffinityFilter;
    use crate::fleet::{Fleet, case, group, host, texts};
    use scheduler::request::GroupPolicy;

    #[test]
    fn hosts_of_the_group() {
        let mut fleet = Fleet::of([host("a").instances(&["v1"]), host("b"), host("c")]);
        let with = |policy, members: &'static [&'static str], hosts: &'static [&'static str]| {
            case("group").request(move |request| {
                let mut group = group(policy, members);
                group.hosts = texts(hosts);
                request.group = Some(group);
            })
        };
        with(GroupPolicy::Affinity, &["v1"], &["b", "C"]).kept(&["b"]).check::<ServerGroupAffinityFilter>(&mut fleet);
        with(GroupPolicy::Affinity, &["v1"], &["gone"]).kept(&[]).check::<ServerGroupAffinityFilter>(&mut fleet);
        with(GroupPolicy::Affinity, &["v1"], &[])
            .skipped("the group has no host yet")
            .check::<ServerGroupAffinityFilter>(&mut fleet);
        with(GroupPolicy::SoftAffinity, &[], &["b"])
            .skipped("no affinity group")
            .check::<ServerGroupAffinityFilter>(&mut fleet);
        // A member on its way to a host is there.
        fleet.claim("v2", "c", |_| {});
        with(GroupPolicy::Affinity, &["v2"], &["b"]).kept(&["b", "c"]).check::<ServerGroupAffinityFilter>(&mut fleet);
        with(GroupPolicy::Affinity, &["v2"], &[]).kept(&["c"]).check::<ServerGroupAffinityFilter>(&mut fleet);
    }
}
