//! Drops hosts whose aggregates are set apart for other flavors: a host in aggregates with the metadata
//! `instance_type` takes only flavors whose name is among the comma-separated values of one of them.
//!
//! Source: openstack/nova, `AggregateTypeAffinityFilter`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

use super::aggregates::{set_apart, with_key, words};

/// The step.
#[derive(Debug)]
pub struct AggregateTypeAffinityFilter;

impl Filter for AggregateTypeAffinityFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let flavor = cx.request.flavor.as_deref();
        let listed = with_key(cx.view, "instance_type");
        let closed = set_apart(listed.map(|(value, rows)| (words(value).any(|name| flavor == Some(name)), rows)));
        hosts.drop_mask(&closed, "in an aggregate for other flavors", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AggregateTypeAffinityFilter {
    const NAME: &'static str = "AggregateTypeAffinityFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts whose aggregates are set apart for other flavors.";
    const MISSING_DATA: &'static str =
        "A host without such aggregates is kept. A request without a flavor name matches none of them.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::AggregateTypeAffinityFilter;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn flavors_of_aggregates() {
        let mut fleet = Fleet::of([
            host("small").aggregate("one", &[("instance_type", "m1.small, m1.tiny")]),
            host("both")
                .aggregate("one", &[("instance_type", "m1.small, m1.tiny")])
                .aggregate("two", &[("instance_type", "m1.big")]),
            host("other").aggregate("other", &[("instance_types", "m1.small")]),
        ]);
        for (flavor, kept) in [
            (Some("m1.tiny"), &["small", "both", "other"][..]),
            (Some("m1.big"), &["both", "other"]),
            (Some("M1.BIG"), &["other"]),
            (None, &["other"]),
        ] {
            case("flavor")
                .request(|request| request.flavor = flavor.map(str::to_owned))
                .kept(kept)
                .check::<AggregateTypeAffinityFilter>(&mut fleet);
        }
    }
}
