//! Goes by the instances that a hint lists by their uuids: `SameHostFilter` keeps the hosts on which one of the hint
//! `same_host` is, `DifferentHostFilter` drops those on which one of the hint `different_host` is. They count where
//! they run and where they have a claim.
//!
//! Source: openstack/nova, `SameHostFilter`, `DifferentHostFilter`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

use super::instances::hinted;

/// The step for the hint `different_host`.
#[derive(Debug)]
pub struct DifferentHostFilter;

/// The step for the hint `same_host`.
#[derive(Debug)]
pub struct SameHostFilter;

const MISSING_DATA: &str = "An instance of which no host is known counts nowhere.";

/// Where the instances of a hint are changes with every claim.
fn reads(request: &Request, hint: &str) -> Reads {
    if request.hints.contains_key(hint) { Reads::Everything } else { Reads::Facts }
}

impl Filter for DifferentHostFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(rows) = hinted(cx, "different_host") else { return Verdict::Skipped("no hint different_host") };
        hosts.drop_mask(&rows, "holds an instance that the hint different_host names", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, request: &Request) -> Reads {
        reads(request, "different_host")
    }
}

impl Filter for SameHostFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(rows) = hinted(cx, "same_host") else { return Verdict::Skipped("no hint same_host") };
        hosts.keep_mask(&rows, "holds no instance that the hint same_host names", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, request: &Request) -> Reads {
        reads(request, "same_host")
    }
}

impl FilterPlugin for DifferentHostFilter {
    const NAME: &'static str = "DifferentHostFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts on which an instance of the hint `different_host` is.";
    const MISSING_DATA: &'static str = MISSING_DATA;
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

impl FilterPlugin for SameHostFilter {
    const NAME: &'static str = "SameHostFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts on which an instance of the hint `same_host` is.";
    const MISSING_DATA: &'static str = MISSING_DATA;
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::{DifferentHostFilter, SameHostFilter};
    use crate::fleet::{Fleet, case, host, vm};
    use scheduler::pipeline::FilterPlugin;

    /// Instances of the hint, and the hosts that are kept.
    fn check<F: FilterPlugin>(hint: &str, rows: &[(Vec<String>, &[&str])]) {
        let mut fleet = Fleet::of([host("a").instances(&["v1", "v2"]), host("b").instances(&["v3"]), host("c")]);
        fleet.claim("v4", "c", |_| {});
        let skipped = format!("no hint {hint}");
        case("none").kept_all().skipped(&skipped).check::<F>(&mut fleet);
        let given = |uuids: Vec<String>| {
            case(hint).request(|request| {
                request.hints.insert(hint.to_owned(), uuids);
            })
        };
        given(vec![]).kept_all().skipped(&skipped).check::<F>(&mut fleet);
        for (uuids, kept) in rows {
            given(uuids.clone()).kept(kept).check::<F>(&mut fleet);
        }
    }

    #[test]
    fn instances_of_the_hint() {
        let texts = |names: &[&str]| names.iter().map(|name| vm(name).to_string()).collect::<Vec<_>>();
        // Another spelling names no instance.
        let odd = vec![vm("v1").simple().to_string(), vm("v2").to_string().to_uppercase()];
        let (one, three) = (texts(&["v1"]), texts(&["v3", "v4", "elsewhere"]));
        check::<SameHostFilter>(
            "same_host",
            &[(one.clone(), &["a"]), (three.clone(), &["b", "c"]), (odd.clone(), &[])],
        );
        check::<DifferentHostFilter>("different_host", &[(one, &["b", "c"]), (three, &["a"]), (odd, &["a", "b", "c"])]);
    }
}
