//! Drops hosts whose aggregates are set apart for other projects.
//!
//! A host's projects are the union over its aggregates of the comma-separated values of every metadata
//! key that begins with `filter_tenant_id`. A host with such a key takes only these projects; unlike
//! [`filter_aggregate_metadata`](crate::nova::aggregate_metadata) an empty value closes it to all.
//!
//! Source: openstack/nova, `AggregateMultiTenancyIsolation`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

use super::aggregates::{set_apart, words};

/// Begin of the metadata keys that list projects.
const KEY: &str = "filter_tenant_id";

/// The step.
#[derive(Debug)]
pub struct AggregateMultiTenancyIsolation;

impl Filter for AggregateMultiTenancyIsolation {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let project = cx.request.project.as_deref();
        let closed = set_apart(cx.view.aggregates_with(KEY).map(|(aggregate, rows)| {
            let keys = aggregate.metadata.iter().filter(|(key, _)| key.starts_with(KEY));
            (keys.flat_map(|(_, value)| words(value)).any(|listed| project == Some(listed)), rows)
        }));
        hosts.drop_mask(&closed, "in an aggregate of other projects", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AggregateMultiTenancyIsolation {
    const NAME: &'static str = "AggregateMultiTenancyIsolation";
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
    use super::AggregateMultiTenancyIsolation;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn tenants_of_aggregates() {
        let mut fleet = Fleet::of([
            host("of-a").aggregate("a", &[("filter_tenant_id", "a")]),
            host("of-two")
                .aggregate("a", &[("filter_tenant_id", "a")])
                .aggregate("b", &[("filter_tenant_id2", " b ,c")]),
            host("empty").aggregate("empty", &[("filter_tenant_id", "")]),
            host("other").aggregate("other", &[("tenant", "a")]),
        ]);
        for (project, kept) in [
            (Some("a"), &["of-a", "of-two", "other"][..]),
            (Some("c"), &["of-two", "other"]),
            (Some("A"), &["other"]),
            (None, &["other"]),
        ] {
            case("tenant")
                .request(|request| request.project = project.map(str::to_owned))
                .kept(kept)
                .check::<AggregateMultiTenancyIsolation>(&mut fleet);
        }
    }
}
