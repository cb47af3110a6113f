//! Drops hosts on which an instance of the hint `different_host` is.
//!
//! The hint `different_host` lists instances by their uuids. They count where they run and where they have a
//! claim.
//!
//! Source: openstack/nova, `DifferentHostFilter`.

use scheduler::Domain;
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Survivors, Verdict};

use super::instances::hinted;

/// The step.
#[derive(Debug)]
pub struct DifferentHostFilter;

impl Filter for DifferentHostFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(rows) = hinted(cx, "different_host") else { return Verdict::Skipped("no hint different_host") };
        hosts.drop_mask(&rows, "holds an instance that the hint different_host names", |_| Detail::None);
        Verdict::Ran
    }
}

impl FilterPlugin for DifferentHostFilter {
    const NAME: &'static str = "DifferentHostFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts on which an instance of the hint `different_host` is.";
    const MISSING_DATA: &'static str = "An instance of which no host is known counts nowhere.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::DifferentHostFilter;
    use crate::fleet::{Fleet, case, host, vm};

    #[test]
    fn instances_of_the_hint() {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2"]), host("b").instances(&["v3"]), host("c")]);
        fleet.claim("v4", "c", |_| {});
        let hint = |uuids: Vec<String>| {
            case("hint").request(|request| {
                request.hints.insert("different_host".to_owned(), uuids);
            })
        };
        let texts = |names: &[&str]| names.iter().map(|name| vm(name).to_string()).collect::<Vec<_>>();
        case("none").kept_all().skipped("no hint different_host").check::<DifferentHostFilter>(&mut fleet);
        hint(vec![]).kept_all().skipped("no hint different_host").check::<DifferentHostFilter>(&mut fleet);
        hint(texts(&["v1"])).kept(&["b", "c"]).check::<DifferentHostFilter>(&mut fleet);
        hint(texts(&["v3", "v4", "elsewhere"])).kept(&["a"]).check::<DifferentHostFilter>(&mut fleet);
        // Another spelling names no instance.
        hint(vec![vm("v1").simple().to_string(), vm("v2").to_string().to_uppercase()])
            .kept(&["a", "b", "c"])
            .check::<DifferentHostFilter>(&mut fleet);
    }
}
