//! Keeps hosts whose aggregates have what the flavor's extra specs ask for.
//!
//! Each extra spec `aggregate_instance_extra_specs:KEY`, and each without a scope, must be matched by one
//! of the comma-separated values of the metadata KEY of some aggregate of the host; values are compared
//! as [`extra_specs`](super::extra_specs) says. Extra specs of other scopes are for others.
//!
//! Source: openstack/nova, `AggregateInstanceExtraSpecsFilter`. Nova fails the whole request for a number
//! that is none and for a bare `<or>`; here such a value does not match.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Mask, Request};

use super::aggregates::{with_key, words};
use crate::nova::extra_specs::Wanted;

/// The step.
#[derive(Debug)]
pub struct AggregateInstanceExtraSpecsFilter;

impl Filter for AggregateInstanceExtraSpecsFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let mut asked = false;
        for (key, wanted) in &cx.request.extra_specs {
            let key = match key.split_once(':') {
                None => key.as_str(),
                Some(("aggregate_instance_extra_specs", key)) => key,
                Some(_) => continue,
            };
            asked = true;
            let wanted = Wanted::of(wanted);
            let mut fit = Mask::default();
            for (value, rows) in with_key(cx.view, key) {
                if words(value).any(|value| wanted.accepts(value)) {
                    fit.union(rows);
                }
            }
            hosts.keep_mask(&fit, "in no aggregate that has what the flavor asks for", |_| Detail::None);
        }
        if asked { Verdict::Ran } else { Verdict::Skipped("nothing asked of aggregates") }
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AggregateInstanceExtraSpecsFilter {
    const NAME: &'static str = "AggregateInstanceExtraSpecsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts whose aggregates have what the flavor's extra specs ask for.";
    const MISSING_DATA: &'static str = "A host in no aggregate with the asked key is dropped.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::AggregateInstanceExtraSpecsFilter;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn extra_specs_of_aggregates() {
        let mut fleet = Fleet::of([
            host("ssd").aggregate("one", &[("disk", "ssd, nvme"), ("racks", "4")]),
            host("both")
                .aggregate("one", &[("disk", "ssd, nvme"), ("racks", "4")])
                .aggregate("two", &[("disk", "hdd")]),
            host("bare"),
        ]);
        for (key, wanted, kept) in [
            ("disk", "nvme", &["ssd", "both"][..]),
            ("aggregate_instance_extra_specs:disk", "hdd", &["both"]),
            ("aggregate_instance_extra_specs:racks", ">= 3", &["ssd", "both"]),
            ("aggregate_instance_extra_specs:disk", ">= 3", &[]),
            ("disk", "<or> hdd <or> tape", &["both"]),
            ("other:disk", "tape", &["ssd", "both", "bare"]),
            ("unheard", "of", &[]),
        ] {
            case(key).extra_specs(&[(key, wanted)]).kept(kept).check::<AggregateInstanceExtraSpecsFilter>(&mut fleet);
        }
    }
}
