//! Keeps the members of an anti-affinity group apart: the rule of
//! [`filter_instance_group_anti_affinity`](crate::nova::instance_group_anti_affinity) under Nova's name.
//!
//! Source: openstack/nova, `ServerGroupAntiAffinityFilter`. Members whose claim waits to be seen count
//! too; Nova does not see them.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Aspect, Domain, Request};

use crate::nova::instance_group_anti_affinity::InstanceGroupAntiAffinity;

/// The step.
#[derive(Debug)]
pub struct ServerGroupAntiAffinityFilter;

impl Filter for ServerGroupAntiAffinityFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        InstanceGroupAntiAffinity.filter(cx, hosts)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Group]
    }
}

impl FilterPlugin for ServerGroupAntiAffinityFilter {
    const NAME: &'static str = "ServerGroupAntiAffinityFilter";
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
    use super::ServerGroupAntiAffinityFilter;
    use crate::fleet::{Fleet, case, group, host, vm};
    use scheduler::request::GroupPolicy;

    #[test]
    fn members_stay_apart() {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2"]), host("b").instances(&["v3"]), host("c")]);
        let with = |limit| {
            case("group").request(move |request| {
                let group = group(GroupPolicy::AntiAffinity, &["v1", "v2", "v3"]);
                request.group = Some(scheduler::request::Group { max_per_host: limit, ..group });
            })
        };
        with(1).kept(&["c"]).check::<ServerGroupAntiAffinityFilter>(&mut fleet);
        with(2).kept(&["b", "c"]).check::<ServerGroupAntiAffinityFilter>(&mut fleet);
        with(1)
            .request(|request| request.consumers = vec![vm("v1")])
            .kept(&["a", "c"])
            .check::<ServerGroupAntiAffinityFilter>(&mut fleet);
    }
}
