//! Keeps every host. Pipelines of Cortex name it.
//!
//! Source: cobaltcore-dev/cortex, `noop`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

/// The step.
#[derive(Debug)]
pub struct Noop;

impl Filter for Noop {
    fn filter(&self, _: &Cx<'_>, _: &mut Survivors) -> Verdict {
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for Noop {
    const NAME: &'static str = "noop";
    const DOMAINS: &'static [Domain] = &[Domain::Machines, Domain::Pods];
    const SUMMARY: &'static str = "Keeps every host.";
    const MISSING_DATA: &'static str = "Nothing is looked at.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::Noop;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Domain;

    #[test]
    fn all_are_kept() {
        for names in [&["p1"][..], &["p1", "p2"]] {
            let pool = |name: &&str| host(name).domain(Domain::Machines);
            let mut fleet = Fleet::of(names.iter().map(pool));
            case("noop").domain(Domain::Machines).kept_all().check::<Noop>(&mut fleet);
        }
    }
}
