//! Keeps the hosts that offer what the flavor's `capabilities:` extra specs ask for.
//!
//! A host offers `capabilities:hypervisor_type` (`QEMU` for a reported type `kvm` or `qemu`, `CH` for
//! `ch`) and `capabilities:cpu_arch`, as reported. Hypervisor types are compared with ASCII case
//! ignored, architectures exactly; operators are evaluated as [`extra_specs`](super::extra_specs)
//! says, once for each distinct value in the fleet. A host of any other type offers nothing, and the
//! event `filter_capabilities_unknown_hypervisor_type` counts that type.
//!
//! Source: cobaltcore-dev/cortex, `filter_capabilities`; openstack/nova, `ComputeCapabilitiesFilter`
//! (operators: the peer skips the whole filter when it meets one).

use std::collections::BTreeSet;

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Mask, Request};

use super::extra_specs::matches;
use super::hosts::detail;

const SCOPE: &str = "capabilities:";

/// The step.
#[derive(Debug)]
pub struct Capabilities;

/// The name under which flavors ask for a reported hypervisor type.
fn offered_type(reported: &str) -> Option<&'static str> {
    match reported {
        _ if reported.eq_ignore_ascii_case("kvm") || reported.eq_ignore_ascii_case("qemu") => Some("qemu"),
        _ if reported.eq_ignore_ascii_case("ch") => Some("ch"),
        _ => None,
    }
}

impl Filter for Capabilities {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let asked = || cx.request.extra_specs.iter().filter_map(|(key, value)| Some((key.strip_prefix(SCOPE)?, value)));
        if asked().next().is_none() {
            return Verdict::Skipped("no capability asked");
        }
        let view = cx.view;
        let reported = |row| detail(view.provider(row).and_then(|provider| provider.hypervisor_type));

        let types: Vec<_> = view.facet_values(Facet::HypervisorType).collect();
        let mut known = Mask::default();
        let mut strange = BTreeSet::new();
        for &(value, rows) in &types {
            if offered_type(value).is_some() {
                known.union(rows);
            } else if rows.iter().any(|row| hosts.mask().has(row)) {
                strange.insert(value);
            }
        }
        for value in strange {
            let labels = vec![("hypervisor_type", value.to_owned())];
            hosts.event("filter_capabilities_unknown_hypervisor_type", labels);
        }
        hosts.keep_mask(&known, "no known hypervisor type", reported);

        for (key, wanted) in asked() {
            let mut fit = Mask::default();
            match key {
                "hypervisor_type" => {
                    let wanted = wanted.to_ascii_lowercase();
                    for &(value, rows) in &types {
                        if matches(offered_type(value), &wanted) {
                            fit.union(rows);
                        }
                    }
                    hosts.keep_mask(&fit, "capabilities:hypervisor_type differs", reported);
                }
                "cpu_arch" => {
                    for (value, rows) in view.facet_values(Facet::CpuArch) {
                        if matches(Some(value), wanted) {
                            fit.union(rows);
                        }
                    }
                    hosts.keep_mask(&fit, "capabilities:cpu_arch differs", |row| {
                        detail(view.provider(row).and_then(|provider| provider.cpu_arch))
                    });
                }
                _ => {
                    hosts.note(format!("{SCOPE}{key} is asked, no host offers it"));
                    hosts.drop_all("a capability is asked that no host offers");
                }
            }
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for Capabilities {
    const NAME: &'static str = "filter_capabilities";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that offer the capabilities that the flavor asks for.";
    const MISSING_DATA: &'static str = "When a capability is asked, a host without a known hypervisor type is dropped, and so is one without the asked value.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;
    use crate::fleet::{Case, Fleet, case, host};

    type Specs = &'static [(&'static str, &'static str)];

    fn asks(specs: Specs) -> Case {
        case("capabilities").extra_specs(specs)
    }

    #[test]
    fn capabilities_are_matched() {
        let mut fleet = Fleet::of([
            host("h1").hypervisor("ch").arch("x86_64"),
            host("h2").hypervisor("kvm").arch("x86_64"),
            host("h3").hypervisor("ch").arch("aarch64"),
            host("h4").hypervisor("QEMU").arch("aarch64"),
        ]);
        asks(&[("hw:mem_page_size", "large")])
            .kept_all()
            .skipped("no capability asked")
            .check::<Capabilities>(&mut fleet);
        asks(&[("capabilities:hypervisor_type", "CH")])
            .kept(&["h1", "h3"])
            .dropped("h2", "capabilities:hypervisor_type differs: the host has kvm")
            .check::<Capabilities>(&mut fleet);
        asks(&[("capabilities:hypervisor_type", "QEMU"), ("capabilities:cpu_arch", "aarch64")])
            .kept(&["h4"])
            .dropped("h2", "capabilities:cpu_arch differs: the host has x86_64")
            .check::<Capabilities>(&mut fleet);
        asks(&[
            ("capabilities:hypervisor_type", "CH"),
            ("capabilities:cpu_arch", "x86_64"),
            ("hw:mem_page_size", "large"),
        ])
        .hosts(&["h1", "h2", "h3"])
        .kept(&["h1"])
        .check::<Capabilities>(&mut fleet);
        asks(&[("capabilities:hypervisor_type", "ch")])
            .hosts(&["h1", "h2"])
            .kept(&["h1"])
            .check::<Capabilities>(&mut fleet);
        asks(&[("capabilities:hypervisor_type", "KVM")])
            .hosts(&["h1", "h2"])
            .kept(&[])
            .check::<Capabilities>(&mut fleet);
        asks(&[("capabilities:cpu_info:features", "avx")])
            .kept(&[])
            .dropped("h1", "a capability is asked that no host offers")
            .note("capabilities:cpu_info:features is asked, no host offers it")
            .check::<Capabilities>(&mut fleet);
    }

    #[test]
    fn operators_are_evaluated() {
        let mut fleet = Fleet::of([
            host("h1").hypervisor("ch").arch("x86_64"),
            host("h2").hypervisor("kvm").arch("x86_64"),
            host("h3").hypervisor("ch").arch("aarch64"),
            host("h4").hypervisor("kvm"),
        ]);
        let rows: &[(Specs, &[&str])] = &[
            (&[("capabilities:cpu_arch", "s>= x86_64")], &["h1", "h2"]),
            (&[("capabilities:cpu_arch", "s>=x86_64")], &[]),
            (&[("capabilities:cpu_arch", "<or> aarch64 <or> ppc64le")], &["h3"]),
            (&[("capabilities:cpu_arch", "<in> 64")], &["h1", "h2", "h3"]),
            (&[("capabilities:cpu_arch", "= 64")], &[]),
            (&[("capabilities:cpu_arch", "<or>")], &[]),
            (&[("capabilities:hypervisor_type", "<or> qemu <or> CH")], &["h1", "h2", "h3", "h4"]),
            (&[("capabilities:hypervisor_type", "s!= QEMU")], &["h1", "h3"]),
            (&[("capabilities:other", "!= 4")], &[]),
        ];
        for (specs, kept) in rows {
            asks(specs).kept(kept).check::<Capabilities>(&mut fleet);
        }
    }

    #[test]
    fn strange_hypervisors_offer_nothing() {
        let mut fleet = Fleet::of([
            host("h1").hypervisor("kvm").arch("x86_64"),
            host("h2").hypervisor("xen").arch("x86_64"),
            host("h3").arch("x86_64"),
        ]);
        asks(&[("capabilities:cpu_arch", "x86_64")])
            .kept(&["h1"])
            .dropped("h2", "no known hypervisor type: the host has xen")
            .dropped("h3", "no known hypervisor type: the host has none")
            .event("filter_capabilities_unknown_hypervisor_type", &[("hypervisor_type", "xen")])
            .check::<Capabilities>(&mut fleet);
    }
}
