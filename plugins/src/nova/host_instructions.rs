//! Follows the hosts and nodes that a request names: `ignore_hosts` are dropped, and with a
//! non-empty `force_hosts` or `force_nodes` all others are. An ignored host is dropped even when it
//! is forced. Host names are compared with ASCII case ignored, node names exactly, as Nova does.
//!
//! Source: cobaltcore-dev/cortex, `filter_host_instructions`; openstack/nova, `HostManager`
//! (case, nodes, and that an empty list forces nothing).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

use super::hosts::{detail, of_hosts, of_nodes};

/// The step.
#[derive(Debug)]
pub struct HostInstructions;

impl Filter for HostInstructions {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let request = cx.request;
        if request.ignore_hosts.is_empty() && request.force_hosts.is_empty() && request.force_nodes.is_empty() {
            return Verdict::Skipped("no host named");
        }
        let ignored = of_hosts(&cx.view, &request.ignore_hosts);
        hosts.drop_mask(&ignored, "in ignore_hosts", |_| Detail::None);
        if !request.force_hosts.is_empty() {
            let forced = of_hosts(&cx.view, &request.force_hosts);
            hosts.keep_mask(&forced, "not in force_hosts", |_| Detail::None);
        }
        if !request.force_nodes.is_empty() {
            let forced = of_nodes(cx, &request.force_nodes);
            hosts.keep_mask(&forced, "not in force_nodes", |row| {
                detail(cx.view.provider(row).and_then(|provider| provider.node))
            });
        }
        Verdict::Ran
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for HostInstructions {
    const NAME: &'static str = "filter_host_instructions";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops ignored hosts and, when hosts or nodes are forced, all others.";
    const MISSING_DATA: &'static str =
        "Names of unknown hosts are harmless. A host whose node name is not known has the one that the request sent.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::HostInstructions;
    use crate::fleet::{Fleet, case, host, texts};
    use scheduler::Intent;

    #[test]
    fn ignored_hosts_go_and_forced_ones_stay() {
        let mut fleet = Fleet::of((1..=6).map(|at| host(&format!("h{at}"))));
        let named = |ignore: &'static [&'static str], force: &'static [&'static str]| {
            case("named").request(move |r| {
                r.ignore_hosts = texts(ignore);
                r.force_hosts = texts(force);
            })
        };
        named(&[], &[]).kept_all().skipped("no host named").check::<HostInstructions>(&mut fleet);
        named(&["h2"], &["h2"])
            .hosts(&["h1", "h2", "h3"])
            .kept(&[])
            .dropped("h2", "in ignore_hosts")
            .dropped("h1", "not in force_hosts")
            .check::<HostInstructions>(&mut fleet);
        named(&["h1"], &["h2", "h3"])
            .hosts(&["h1", "h2", "h3", "h4"])
            .kept(&["h2", "h3"])
            .check::<HostInstructions>(&mut fleet);
        named(&["h2", "h5"], &["h1", "h3", "h4"]).kept(&["h1", "h3", "h4"]).check::<HostInstructions>(&mut fleet);
        named(&["H2", "nowhere"], &[])
            .hosts(&["h1", "h2"])
            .kept(&["h1"])
            .dropped("h2", "in ignore_hosts")
            .check::<HostInstructions>(&mut fleet);
        named(&[], &["nowhere"]).kept(&[]).check::<HostInstructions>(&mut fleet);
    }

    #[test]
    fn nodes_are_compared_exactly() {
        let mut fleet = Fleet::of([host("h1").node("node-1"), host("h2").node("node-2"), host("h3")]);
        let nodes = |names: &'static [&'static str]| case("nodes").request(move |r| r.force_nodes = texts(names));
        nodes(&["node-1"])
            .kept(&["h1"])
            .dropped("h2", "not in force_nodes: the host has node-2")
            .dropped("h3", "not in force_nodes: the host has none")
            .check::<HostInstructions>(&mut fleet);
        nodes(&["NODE-1"]).kept(&[]).check::<HostInstructions>(&mut fleet);
        // The fixture sends a host under a node of the same name.
        nodes(&["h3"]).hosts(&["h1", "h3"]).kept(&["h3"]).check::<HostInstructions>(&mut fleet);
    }

    #[test]
    fn it_runs_on_a_rebuild() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        case("rebuild")
            .intent(Intent::Rebuild)
            .request(|r| r.force_hosts = texts(&["h1"]))
            .kept(&["h1"])
            .check::<HostInstructions>(&mut fleet);
    }
}
