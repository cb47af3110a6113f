//! Keeps hosts that have what the flavor's extra specs ask of a host's attributes.
//!
//! An extra spec `capabilities:a:b:c` walks from the attribute `a` of the host state (where it has no
//! value: from the key `a` of `stats`) along the keys `b` and `c`; a text on the way that is itself JSON is
//! read. An extra spec without a scope counts when a host has such an attribute or such a key in
//! `stats`; other scopes are for others. `hw:maxphysaddr_bits` N asks
//! `capabilities:cpu_info:maxphysaddr:bits` for ">= N". Values are compared as
//! [`extra_specs`](super::extra_specs) says, as Python's `str()` writes them.
//!
//! Source: openstack/nova, `ComputeCapabilitiesFilter`. Nova fails the whole request for a number
//! that is none and for a bare `<or>`; here the host fails. Extra specs that name internals of Nova's
//! Python objects find nothing.

use scheduler::host_state::kinds::Kind;
use scheduler::host_state::node::{Node, Value};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict, View};
use scheduler::{Domain, Request, Row};

use super::attributes::{Attribute, Leaf};
use crate::nova::extra_specs::Wanted;

/// The step.
#[derive(Debug)]
pub struct ComputeCapabilitiesFilter;

/// One extra spec, read once for a request.
struct Demand<'a> {
    first: &'a str,
    attribute: Option<Attribute<'a>>,
    rest: Vec<&'a str>,
    wanted: Wanted<'a>,
    /// Without a scope: a host that has no such thing is not asked.
    unscoped: bool,
}

fn stats<'a>(view: &View<'a>, row: Row) -> Option<&'a Node> {
    view.host_state(row)?.attribute("stats")
}

impl<'a> Demand<'a> {
    fn of(view: &View<'a>, key: &'a str, wanted: &'a str) -> Option<Self> {
        let mut scope = key.split(':');
        let first = scope.next()?;
        let mut rest: Vec<&str> = scope.collect();
        let unscoped = rest.is_empty();
        let first = match unscoped {
            true => first,
            false if first == "capabilities" => rest.remove(0),
            false => return None,
        };
        let attribute = Attribute::of(view, first);
        Some(Self { first, attribute, rest, wanted: Wanted::of(wanted), unscoped })
    }

    fn met(&self, view: &View<'a>, row: Row) -> bool {
        if self.unscoped && self.attribute.is_none() {
            let known = stats(view, row).is_some_and(
                |stats| matches!(&stats.value, Value::Map(map) if map.iter().any(|(key, _)| **key == *self.first)),
            );
            if !known {
                return true;
            }
        }
        let own = self.attribute.and_then(|attribute| attribute.get(view, row));
        let first = own.or_else(|| stats(view, row)?.get(self.first).map(Leaf::Node));
        first.is_some_and(|first| self.accepts(first))
    }

    /// Of every host of a kind; `None`: they may differ.
    fn met_by(&self, kind: &Kind) -> Option<bool> {
        Some(self.accepts(Leaf::Node(kind.attribute(self.first)?)))
    }

    fn accepts(&self, first: Leaf<'_>) -> bool {
        let found = self.rest.iter().try_fold(first, |leaf, key| leaf.get(key));
        found.is_some_and(|leaf| match leaf.number() {
            Some(number) => leaf.with_text(|text| self.wanted.accepts_number(text, number)),
            None => leaf.with_text(|text| self.wanted.accepts(text)),
        })
    }
}

impl Filter for ComputeCapabilitiesFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        const BITS: &str = "hw:maxphysaddr_bits";
        let (view, specs) = (cx.view, &cx.request.extra_specs);
        let bits = specs.get(BITS).map(|bits| (CPU_BITS, format!(">= {bits}")));
        let bits = bits.as_ref().map(|(key, wanted)| (*key, wanted.as_str()));
        let plain = specs.iter().map(|(key, wanted)| (key.as_str(), wanted.as_str()));
        let plain = plain.filter(|(key, _)| *key != BITS && (bits.is_none() || *key != CPU_BITS));
        let mut asked = false;
        for (key, wanted) in plain.chain(bits) {
            let Some(demand) = Demand::of(&view, key, wanted) else { continue };
            asked = true;
            let by_kind = view.host_kinds().judged(|kind| demand.met_by(kind));
            let met = |row: Row| by_kind(row).flatten().unwrap_or_else(|| demand.met(&view, row));
            hosts.keep_where("lacks a capability that the flavor asks for", met, |_| Detail::None);
        }
        if asked { Verdict::Ran } else { Verdict::Skipped("no capability asked") }
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

const CPU_BITS: &str = "capabilities:cpu_info:maxphysaddr:bits";

impl FilterPlugin for ComputeCapabilitiesFilter {
    const NAME: &'static str = "ComputeCapabilitiesFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that have what the flavor's extra specs ask of a host's attributes.";
    const MISSING_DATA: &'static str = "A host without the asked attribute is dropped.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::ComputeCapabilitiesFilter;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn capabilities() {
        let mut fleet = Fleet::of([
            host("a")
                .state(json!({"free_ram_mb": 512, "hypervisor_type": "QEMU", "stats": {"rack": "1", "none": null},
                "cpu_info": {"features": ["avx", "sse"], "maxphysaddr": {"bits": 46}}})),
            host("b").state(json!({"free_ram_mb": 1024, "stats": {"rack": 2},
                "cpu_info": "{\"features\": [\"sse\"], \"topology\": {\"cores\": 4}}"})),
            host("c").hypervisor("QEMU"),
        ]);
        for (key, wanted, kept) in [
            ("capabilities:free_ram_mb", ">= 600", &["b"][..]),
            ("capabilities:free_ram_mb", "0", &["c"]),
            ("free_ram_mb", "s== 1024", &["b"]),
            ("capabilities:hypervisor_type", "QEMU", &["a", "c"]),
            ("capabilities:cpu_info:features", "<in> avx", &["a"]),
            ("capabilities:cpu_info:features", "['sse']", &["b"]),
            ("capabilities:cpu_info:topology:cores", "4", &["b"]),
            ("hw:maxphysaddr_bits", "46", &["a"]),
            ("capabilities:rack", "<or> 1 <or> 2", &["a", "b"]),
            // Without a scope only hosts that know the key are asked; null is known, but has no value.
            ("rack", "1", &["a", "c"]),
            ("none", "1", &["b", "c"]),
            ("unheard", "of", &["a", "b", "c"]),
            ("capabilities:unheard", "of", &[]),
            ("other:free_ram_mb", "7", &["a", "b", "c"]),
            ("capabilities:free_ram_mb", ">= many", &[]),
        ] {
            case(key).extra_specs(&[(key, wanted)]).kept(kept).check::<ComputeCapabilitiesFilter>(&mut fleet);
        }
    }
}
