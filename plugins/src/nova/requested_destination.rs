//! Keeps the hosts that the request's destination allows.
//!
//! Aggregates are a list of lists: at least one of each inner list must hold the host. Forbidden
//! aggregates drop it. Both name aggregates by uuid. Then the named host (ASCII case ignored) and the
//! named node (exactly). A named cell is Nova's own concern.
//!
//! Skipped for pallium's own intents.
//!
//! Source: cobaltcore-dev/cortex, `filter_requested_destination`; openstack/nova, `Destination` 1.4
//! (node and forbidden aggregates, which the peer does not read).

use std::slice;

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Mask, Request};

use super::hosts::{detail, of_hosts, of_nodes};

/// The step.
#[derive(Debug)]
pub struct RequestedDestination;

fn of_aggregates(cx: &Cx<'_>, keys: &[String]) -> Mask {
    let mut mask = Mask::default();
    for key in keys {
        mask.union(cx.view.facet(Facet::Aggregate, key));
    }
    mask
}

impl Filter for RequestedDestination {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if cx.intent.is_internal() {
            return Verdict::Skipped("internal intent");
        }
        let wanted = &cx.request.destination;
        let host = wanted.host.as_ref().filter(|host| !host.is_empty());
        let node = wanted.node.as_ref().filter(|node| !node.is_empty());
        if host.is_none() && node.is_none() && wanted.aggregates.is_empty() && wanted.forbidden_aggregates.is_empty() {
            return Verdict::Skipped("no destination requested");
        }
        for one_of in &wanted.aggregates {
            let members = of_aggregates(cx, one_of);
            hosts.keep_mask(&members, "not in the requested aggregates", |_| Detail::None);
        }
        let forbidden = of_aggregates(cx, &wanted.forbidden_aggregates);
        hosts.drop_mask(&forbidden, "in a forbidden aggregate", |_| Detail::None);
        if let Some(host) = host {
            let rows = of_hosts(&cx.view, slice::from_ref(host));
            hosts.keep_mask(&rows, "not the requested host", |_| Detail::None);
        }
        if let Some(node) = node {
            let rows = of_nodes(cx, slice::from_ref(node));
            hosts.keep_mask(&rows, "not the requested node", |row| {
                detail(cx.view.provider(row).and_then(|provider| provider.node))
            });
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for RequestedDestination {
    const NAME: &'static str = "filter_requested_destination";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that the requested destination allows.";
    const MISSING_DATA: &'static str = "A host is in no aggregate that it does not report.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestedDestination;
    use crate::fleet::{Fleet, aggregate_uuid, case, host};
    use scheduler::Intent;
    use scheduler::request::Destination;

    fn uuids(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| aggregate_uuid(name).to_string()).collect()
    }

    fn fleet() -> Fleet {
        Fleet::of([
            host("h1").aggregate("a1", &[]).aggregate("a3", &[]),
            host("h2").aggregate("a2", &[]).node("node-2"),
            host("h3").aggregate("a1", &[]).aggregate("a2", &[]),
            host("h4").aggregate("a3", &[]),
        ])
    }

    #[test]
    fn destinations() {
        let mut fleet = fleet();
        let to = |destination: Destination| case("destination").request(move |r| r.destination = destination);
        let all_of = |lists: &[&[&str]]| Destination {
            aggregates: lists.iter().map(|names| uuids(names)).collect(),
            ..Destination::default()
        };
        let check = |case: crate::fleet::Case, fleet: &mut Fleet| case.check::<RequestedDestination>(fleet);
        check(to(Destination::default()).kept_all().skipped("no destination requested"), &mut fleet);
        let host = |name: &str| Destination { host: Some(name.to_owned()), ..Destination::default() };
        check(to(host("h2")).kept(&["h2"]).dropped("h1", "not the requested host"), &mut fleet);
        check(to(host("H2")).kept(&["h2"]), &mut fleet);
        check(to(host("nowhere")).hosts(&["h1"]).kept(&[]), &mut fleet);
        check(to(host("")).kept_all().skipped("no destination requested"), &mut fleet);
        check(to(all_of(&[&["a1"]])).kept(&["h1", "h3"]).dropped("h2", "not in the requested aggregates"), &mut fleet);
        check(to(all_of(&[&["a2", "a3"]])).kept(&["h1", "h2", "h3", "h4"]), &mut fleet);
        check(to(all_of(&[&["a1"], &["a2"]])).kept(&["h3"]), &mut fleet);
        check(to(all_of(&[&["a1", "a2"], &["a3"]])).kept(&["h1"]), &mut fleet);
        check(to(all_of(&[&["a9"]])).kept(&[]), &mut fleet);
        let apart = Destination { forbidden_aggregates: uuids(&["a2", "a9"]), ..Destination::default() };
        check(to(apart).kept(&["h1", "h4"]).dropped("h3", "in a forbidden aggregate"), &mut fleet);
        let both = Destination { host: Some("h1".to_owned()), ..all_of(&[&["a2"]]) };
        check(to(both).kept(&[]), &mut fleet);
        let node = |name: &str| Destination { node: Some(name.to_owned()), ..Destination::default() };
        check(to(node("node-2")).kept(&["h2"]).dropped("h1", "not the requested node: the host has none"), &mut fleet);
        check(to(node("h4")).hosts(&["h2", "h4"]).kept(&["h4"]), &mut fleet);
        check(to(host("h2")).intent(Intent::CapacityProbe).kept_all().skipped("internal intent"), &mut fleet);
    }
}
