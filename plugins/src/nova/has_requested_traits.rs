//! Keeps the hosts that have every required trait and no forbidden one.
//!
//! The request's traits are those of the flavor (`trait:X` = `required` or `forbidden`) and of the
//! image; other values ask for nothing. Names are compared exactly.
//!
//! Source: cobaltcore-dev/cortex, `filter_has_requested_traits` (image traits are pallium's own).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Aspect, Domain, Facet, Request};

/// The step.
#[derive(Debug)]
pub struct HasRequestedTraits;

impl Filter for HasRequestedTraits {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let (required, forbidden) = (&cx.request.required_traits, &cx.request.forbidden_traits);
        if required.is_empty() && forbidden.is_empty() {
            return Verdict::Skipped("no trait asked");
        }
        for name in required {
            let rows = cx.view.facet(Facet::Trait, name);
            if rows.is_empty() {
                // Reasons are remembered: one that names what callers make up would have no bound.
                hosts.note(format!("no host has the required trait {name}"));
                hosts.drop_all("lacks a required trait that no host has");
            } else {
                hosts.keep(rows, format!("lacks required trait {name}"), |_| Detail::None);
            }
        }
        for name in forbidden {
            hosts.drop(cx.view.facet(Facet::Trait, name), format!("has forbidden trait {name}"), |_| Detail::None);
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }

    fn acts_on(&self, request: &Request) -> Vec<Aspect> {
        let required = request.required_traits.iter().cloned().map(Aspect::RequiredTrait);
        required.chain(request.forbidden_traits.iter().cloned().map(Aspect::ForbiddenTrait)).collect()
    }
}

impl FilterPlugin for HasRequestedTraits {
    const NAME: &'static str = "filter_has_requested_traits";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with every required trait and no forbidden one.";
    const MISSING_DATA: &'static str = "A host that reports no traits has none.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::HasRequestedTraits;
    use crate::fleet::{Fleet, case, host, texts};

    #[test]
    fn traits_are_required_and_forbidden() {
        let mut fleet = Fleet::of([
            host("h1").traits(&["A", "B"]),
            host("h2").traits(&["A", "C"]),
            host("h3").traits(&["B", "C"]),
            host("h4").traits(&["D"]),
            host("h5"),
            host("h6").traits(&["A", "B", "C", "D"]),
        ]);
        let asks = |required: &'static [&'static str], forbidden: &'static [&'static str]| {
            case("traits").request(move |r| {
                r.required_traits = texts(required);
                r.forbidden_traits = texts(forbidden);
            })
        };
        asks(&["A"], &["D"])
            .hosts(&["h1", "h2", "h4", "h6"])
            .kept(&["h1", "h2"])
            .dropped("h4", "lacks required trait A")
            .dropped("h6", "has forbidden trait D")
            .check::<HasRequestedTraits>(&mut fleet);
        asks(&["A", "B"], &["D"]).kept(&["h1"]).check::<HasRequestedTraits>(&mut fleet);
        asks(&["X"], &[])
            .kept(&[])
            .dropped("h5", "lacks a required trait that no host has")
            .note("no host has the required trait X")
            .check::<HasRequestedTraits>(&mut fleet);
        asks(&["a"], &[]).kept(&[]).check::<HasRequestedTraits>(&mut fleet);
        asks(&[], &["X"]).kept_all().check::<HasRequestedTraits>(&mut fleet);
        asks(&["A"], &["A"]).kept(&[]).check::<HasRequestedTraits>(&mut fleet);
        asks(&[], &[]).kept_all().skipped("no trait asked").check::<HasRequestedTraits>(&mut fleet);
    }
}
