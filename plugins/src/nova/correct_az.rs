//! Keeps the hosts of the availability zone that was asked for, compared exactly.
//!
//! Source: cobaltcore-dev/cortex, `filter_correct_az`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Request};

use super::hosts::detail;

/// The step.
#[derive(Debug)]
pub struct CorrectAz;

impl Filter for CorrectAz {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(zone) = cx.request.zone.as_deref().filter(|zone| !zone.is_empty()) else {
            return Verdict::Skipped("no availability zone asked");
        };
        hosts.keep(cx.view.facet(Facet::Zone, zone), "in another availability zone", |row| {
            detail(cx.view.provider(row).and_then(|provider| provider.zone))
        });
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for CorrectAz {
    const NAME: &'static str = "filter_correct_az";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts in the availability zone that was asked for.";
    const MISSING_DATA: &'static str = "A host without a zone is dropped when a zone is asked.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::CorrectAz;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn zones_are_compared_exactly() {
        let mut fleet = Fleet::of([
            host("h1").zone("az-1"),
            host("h2").zone("az-1"),
            host("h3").zone("az-2"),
            host("h4").zone("az-3"),
            host("h5"),
        ]);
        let zone = |zone: &'static str| case(zone).request(move |r| r.zone = Some(zone.to_owned()));
        zone("az-1")
            .kept(&["h1", "h2"])
            .dropped("h3", "in another availability zone: the host has az-2")
            .dropped("h5", "in another availability zone: the host has none")
            .check::<CorrectAz>(&mut fleet);
        zone("az-2").kept(&["h3"]).check::<CorrectAz>(&mut fleet);
        zone("AZ-2").kept(&[]).check::<CorrectAz>(&mut fleet);
        zone("az-nonexistent").kept(&[]).check::<CorrectAz>(&mut fleet);
        zone("").kept_all().skipped("no availability zone asked").check::<CorrectAz>(&mut fleet);
        case("no zone").kept_all().skipped("no availability zone asked").check::<CorrectAz>(&mut fleet);
    }
}
