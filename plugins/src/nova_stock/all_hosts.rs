//! Keeps every host.
//!
//! Source: openstack/nova, `AllHostsFilter`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

/// The step.
#[derive(Debug)]
pub struct AllHostsFilter;

impl Filter for AllHostsFilter {
    fn filter(&self, _: &Cx<'_>, _: &mut Survivors) -> Verdict {
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AllHostsFilter {
    const NAME: &'static str = "AllHostsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps every host.";
    const MISSING_DATA: &'static str = "Nothing is looked at.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::AllHostsFilter;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn all_are_kept() {
        let mut fleet = Fleet::of([host("a").disabled(), host("b")]);
        case("all").kept_all().check::<AllHostsFilter>(&mut fleet);
    }
}
