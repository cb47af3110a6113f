//! Keeps the hosts whose hypervisor can run the image.
//!
//! The image's type is its property `img_hv_type`, else `hypervisor_type`, in lower case. `kvm` keeps
//! every host. `vmware` and `baremetal` keep only the hosts that report such a hypervisor type
//! (`vmware vcenter server` or `vmware`; `ironic` or `baremetal`). Any other value, or none, keeps
//! every host and counts the event `image_properties_hv_type_undetermined` with the label `intent`:
//! the operation that the caller named, or `unknown`.
//!
//! Skipped for pallium's own intents (reservations and probes), which carry no image.
//!
//! Source: cobaltcore-dev/cortex, `filter_image_properties`. The peer drops every known host for
//! `vmware` and `baremetal`, since it knows KVM hosts only.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Intent, Mask, Request};

use super::hosts::detail;

/// The step.
#[derive(Debug)]
pub struct ImageProperties;

impl Filter for ImageProperties {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if cx.intent.is_internal() {
            return Verdict::Skipped("internal intent");
        }
        let properties = &cx.request.image_properties;
        let kind = properties.get("img_hv_type").or_else(|| properties.get("hypervisor_type"));
        let (types, why) = match kind.map(|kind| kind.to_lowercase()).as_deref() {
            Some("kvm") => return Verdict::Ran,
            Some("vmware") => (["vmware vcenter server", "vmware"], "the image is for vmware"),
            Some("baremetal") => (["ironic", "baremetal"], "the image is for baremetal"),
            _ => {
                let intent = cx.request.label.map_or("unknown", Intent::as_str);
                hosts.event("image_properties_hv_type_undetermined", vec![("intent", intent.to_owned())]);
                return Verdict::Ran;
            }
        };
        let mut fit = Mask::default();
        for (value, rows) in cx.view.facet_values(Facet::HypervisorType) {
            if types.iter().any(|known| value.eq_ignore_ascii_case(known)) {
                fit.union(rows);
            }
        }
        hosts.keep_mask(&fit, why, |row| detail(cx.view.provider(row).and_then(|provider| provider.hypervisor_type)));
        Verdict::Ran
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for ImageProperties {
    const NAME: &'static str = "filter_image_properties";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts whose hypervisor can run the image.";
    const MISSING_DATA: &'static str = "An image without a type keeps every host. A host without a hypervisor type is dropped for vmware and baremetal images.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::ImageProperties;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Intent;

    const UNDETERMINED: &str = "image_properties_hv_type_undetermined";

    #[test]
    fn images_meet_hypervisors() {
        let mut fleet = Fleet::of([
            host("h1").hypervisor("kvm"),
            host("h2").hypervisor("ch"),
            host("h3").hypervisor("VMware vCenter Server"),
            host("h4").hypervisor("ironic"),
            host("h5"),
        ]);
        let image = |key: &'static str, value: &'static str| {
            case(value).request(move |r| {
                r.image_properties.insert(key.to_owned(), value.to_owned());
            })
        };
        image("img_hv_type", "kvm").kept_all().check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "KVM").kept_all().check::<ImageProperties>(&mut fleet);
        image("hypervisor_type", "vmware")
            .kept(&["h3"])
            .dropped("h1", "the image is for vmware: the host has kvm")
            .dropped("h5", "the image is for vmware: the host has none")
            .check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "baremetal")
            .kept(&["h4"])
            .dropped("h3", "the image is for baremetal: the host has VMware vCenter Server")
            .check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "xen")
            .kept_all()
            .event(UNDETERMINED, &[("intent", "unknown")])
            .check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "xen")
            .intent(Intent::Resize)
            .kept_all()
            .event(UNDETERMINED, &[("intent", "resize")])
            .check::<ImageProperties>(&mut fleet);
        case("no property")
            .kept_all()
            .event(UNDETERMINED, &[("intent", "unknown")])
            .check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "vmware")
            .intent(Intent::CapacityProbe)
            .kept_all()
            .skipped("internal intent")
            .check::<ImageProperties>(&mut fleet);
        image("img_hv_type", "vmware").intent(Intent::Rebuild).kept(&["h3"]).check::<ImageProperties>(&mut fleet);
    }
}
