//! Drops hosts whose aggregates are set apart for other projects.
//!
//! A host's projects are the union over its aggregates of the comma-separated values of every
//! metadata key that begins with `filter_tenant_id`. A host with such projects takes only these; an
//! empty value restricts nothing. Metadata is read once for each aggregate, not for each host.
//!
//! Skipped for the intents `reserve_for_failover`, `reuse_failover_reservation`, `capacity_probe`.
//!
//! Source: cobaltcore-dev/cortex, `filter_aggregate_metadata`; openstack/nova,
//! `AggregateMultiTenancyIsolation`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Aggregate, Domain, Request};

use crate::nova_stock::aggregates::set_apart;

/// Begin of the metadata keys that list projects.
const KEY: &str = "filter_tenant_id";

/// The step.
#[derive(Debug)]
pub struct AggregateMetadata;

fn projects(aggregate: &Aggregate) -> impl Iterator<Item = &str> {
    aggregate
        .metadata
        .iter()
        .filter(|(key, _)| key.starts_with(KEY))
        .flat_map(|(_, value)| value.split(','))
        .map(str::trim)
        .filter(|project| !project.is_empty())
}

impl Filter for AggregateMetadata {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if super::is_ownerless(cx.intent) {
            return Verdict::Skipped("internal intent");
        }
        let project = cx.request.project.as_deref().unwrap_or("");
        let listing = cx.view.aggregates_with(KEY).filter(|(aggregate, _)| projects(aggregate).next().is_some());
        let closed =
            set_apart(listing.map(|(aggregate, rows)| (projects(aggregate).any(|listed| listed == project), rows)));
        hosts.drop_mask(&closed, "in an aggregate of other projects", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AggregateMetadata {
    const NAME: &'static str = "filter_aggregate_metadata";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts whose aggregates are set apart for other projects.";
    const MISSING_DATA: &'static str =
        "A host without such aggregates is kept. A request without a project matches none of them.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::AggregateMetadata;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Intent;

    #[test]
    fn tenants_of_aggregates() {
        let mut fleet = Fleet::of([
            host("of-a").aggregate("agg-a", &[("filter_tenant_id", "a")]),
            host("of-two")
                .aggregate("agg-a", &[("filter_tenant_id", "a")])
                .aggregate("agg-b", &[("filter_tenant_id", "b")]),
            host("listed").aggregate("agg-list", &[("filter_tenant_id", "a, b ,c")]),
            host("numbered").aggregate(
                "agg-numbered",
                &[("filter_tenant_id", "a"), ("filter_tenant_id1", "b"), ("filter_tenant_id2", "c")],
            ),
            host("other-key").aggregate("agg-ssd", &[("ssd", "true"), ("tenant_filter_tenant_id", "a")]),
            host("empty").aggregate("agg-empty", &[("filter_tenant_id", " , ")]),
            host("no-metadata").aggregate("agg-plain", &[]),
            host("bare"),
        ]);
        let project = |name: &'static str| case(name).request(move |r| r.project = Some(name.to_owned()));
        let free = ["other-key", "empty", "no-metadata", "bare"];
        project("a").kept_all().check::<AggregateMetadata>(&mut fleet);
        project("b")
            .kept(&[&["of-two", "listed", "numbered"][..], &free].concat())
            .dropped("of-a", "in an aggregate of other projects")
            .check::<AggregateMetadata>(&mut fleet);
        project("c").kept(&[&["listed", "numbered"][..], &free].concat()).check::<AggregateMetadata>(&mut fleet);
        project("A").kept(&free).check::<AggregateMetadata>(&mut fleet);
        case("no project").kept(&free).check::<AggregateMetadata>(&mut fleet);
        project("z")
            .intent(Intent::ReserveForFailover)
            .kept_all()
            .skipped("internal intent")
            .check::<AggregateMetadata>(&mut fleet);
    }
}
