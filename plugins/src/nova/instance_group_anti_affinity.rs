//! Keeps the members of an anti-affinity group apart: a host that holds `max_server_per_host` of
//! them already (default 1) is dropped.
//!
//! Members count where they are seen and where they have a claim, the request's own left out. The
//! host on which the request's own instance runs stays, whatever it holds.
//!
//! Skipped for pallium's own intents.
//!
//! Source: cobaltcore-dev/cortex, `filter_instance_group_anti_affinity`. The peer ignores
//! `max_server_per_host` as Nova sends it (a string) and does not see members being built.

use scheduler::Mask;
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::request::GroupPolicy;
use scheduler::{Aspect, Domain, Request};

/// The step.
#[derive(Debug)]
pub struct InstanceGroupAntiAffinity;

impl Filter for InstanceGroupAntiAffinity {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if cx.intent.is_internal() {
            return Verdict::Skipped("internal intent");
        }
        let Some(group) = cx.request.group.as_ref().filter(|group| group.policy == Some(GroupPolicy::AntiAffinity))
        else {
            return Verdict::Skipped("no anti-affinity group");
        };
        let members = cx.members_by_row(group);
        let limit = group.max_per_host.max(1);
        let own = cx.seen_on();
        let full: Mask =
            members.iter().filter(|&(row, &found)| found >= limit && own != Some(*row)).map(|(&row, _)| row).collect();
        hosts.drop_mask(&full, "holds too many members of the anti-affinity group", |row| Detail::Count {
            found: members.get(&row).copied().unwrap_or(0),
            limit,
        });
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Group]
    }
}

impl FilterPlugin for InstanceGroupAntiAffinity {
    const NAME: &'static str = "filter_instance_group_anti_affinity";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts that hold too many members of the request's anti-affinity group.";
    const MISSING_DATA: &'static str = "A member of which no host is known counts nowhere.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::InstanceGroupAntiAffinity;
    use crate::fleet::{Case, Fleet, case, group, host, vm};
    use scheduler::Intent;
    use scheduler::request::GroupPolicy;

    fn with(members: &'static [&'static str], limit: u64) -> Case {
        case("group").request(move |r| {
            let mut group = group(GroupPolicy::AntiAffinity, members);
            group.max_per_host = limit;
            r.group = Some(group);
        })
    }

    #[test]
    fn members_stay_apart() {
        let mut fleet = Fleet::of([
            host("h1"),
            host("h2").instances(&["v1"]),
            host("h3").instances(&["v2", "v3"]),
            host("h4").instances(&["w1", "w2"]),
            host("h5").instances(&["v4", "v5", "v6"]),
        ]);
        let check = |case: Case, fleet: &mut Fleet| case.check::<InstanceGroupAntiAffinity>(fleet);
        check(
            with(&["v1", "v2", "w1", "w2"], 1)
                .hosts(&["h1", "h2", "h3", "h4"])
                .kept(&["h1"])
                .dropped("h2", "holds too many members of the anti-affinity group: 1 there, at most 1 allowed")
                .dropped("h4", "holds too many members of the anti-affinity group: 2 there, at most 1 allowed"),
            &mut fleet,
        );
        check(
            with(&["v1", "v2", "v3", "w1", "w2"], 2).hosts(&["h1", "h2", "h3", "h4"]).kept(&["h1", "h2"]),
            &mut fleet,
        );
        check(with(&["v4", "v5", "v6"], 3).hosts(&["h1", "h5"]).kept(&["h1"]), &mut fleet);
        check(with(&["v4", "v5", "v6"], 4).hosts(&["h1", "h5"]).kept(&["h1", "h5"]), &mut fleet);
        check(with(&["v1"], 2).hosts(&["h2"]).kept(&["h2"]), &mut fleet);
        check(with(&["v1", "v2", "v3", "v4", "v5"], 1).kept(&["h1", "h4"]), &mut fleet);
        check(with(&[], 1).kept_all(), &mut fleet);
        check(case("none").kept_all().skipped("no anti-affinity group"), &mut fleet);
        check(with(&["v1"], 1).intent(Intent::CapacityProbe).kept_all().skipped("internal intent"), &mut fleet);
        // The host of the request's own instance stays, and so does a host that holds only it.
        check(
            with(&["v2", "v3", "v1"], 1).request(|r| r.consumers = vec![vm("v2")]).kept(&["h1", "h3", "h4", "h5"]),
            &mut fleet,
        );
        // A member counts where it has a claim, before it is seen there; so it does when the request
        // does not name it but its claim names the group. The request's own claim protects no host.
        fleet.claim("v8", "h1", |_| {});
        check(with(&["v8"], 1).hosts(&["h1", "h2"]).kept(&["h2"]), &mut fleet);
        let uuid = vm("the group");
        let claimed = move |r: &mut scheduler::Request| {
            r.group = Some(scheduler::request::Group { uuid: Some(uuid), ..group(GroupPolicy::AntiAffinity, &[]) });
        };
        fleet.claim("v9", "h4", claimed);
        check(case("claimed").request(claimed).hosts(&["h2", "h4"]).kept(&["h2"]), &mut fleet);
        check(case("own").request(claimed).request(|r| r.consumers = vec![vm("v9")]).kept_all(), &mut fleet);
        check(
            with(&["v4", "v8"], 1).request(|r| r.consumers = vec![vm("v8")]).hosts(&["h1", "h5"]).kept(&["h1"]),
            &mut fleet,
        );
    }
}
