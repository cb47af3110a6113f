//! Keeps hosts on which an instance of the hint `same_host` is.
//!
//! The hint `same_host` lists instances by their uuids. They count where they run and where they have a
//! claim.
//!
//! Source: openstack/nova, `SameHostFilter`.

use scheduler::Domain;
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Survivors, Verdict};

use super::instances::hinted;

/// The step.
#[derive(Debug)]
pub struct SameHostFilter;

impl Filter for SameHostFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(rows) = hinted(cx, "same_host") else { return Verdict::Skipped("no hint same_host") };
        hosts.keep_mask(&rows, "holds no instance that the hint same_host names", |_| Detail::None);
        Verdict::Ran
    }
}

impl FilterPlugin for SameHostFilter {
    const NAME: &'static str = "SameHostFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts on which an instance of the hint `same_host` is.";
    const MISSING_DATA: &'static str = "An instance of which no host is known counts nowhere.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::SameHostFilter;
    use crate::fleet::{Fleet, case, host, vm};

    #[test]
    fn instances_of_the_hint() {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2"]), host("b").instances(&["v3"]), host("c")]);
        fleet.claim("v4", "c", |_| {});
        let hint = |uuids: Vec<String>| {
            case("hint").request(|request| {
                request.hints.insert("same_host".to_owned(), uuids);
            })
        };
        let texts = |names: &[&str]| names.iter().map(|name| vm(name).to_string()).collect::<Vec<_>>();
        case("none").kept_all().skipped("no hint same_host").check::<SameHostFilter>(&mut fleet);
        hint(vec![]).kept_all().skipped("no hint same_host").check::<SameHostFilter>(&mut fleet);
        hint(texts(&["v1"])).kept(&["a"]).check::<SameHostFilter>(&mut fleet);
        hint(texts(&["v3", "v4", "elsewhere"])).kept(&["b", "c"]).check::<SameHostFilter>(&mut fleet);
        // Another spelling names no instance.
        hint(vec![vm("v1").simple().to_string(), vm("v2").to_string().to_uppercase()])
            .kept(&[])
            .check::<SameHostFilter>(&mut fleet);
    }
}
