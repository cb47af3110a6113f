//! Keeps hosts that can run the image: an entry of the host's `supported_instances` must contain the
//! image's architecture, hypervisor type and VM mode, as far as it names them, the hypervisor's version
//! must satisfy `img_hv_requested_version`, and the host's physical address bits `hw_maxphysaddr_bits`.
//!
//! Versions are dotted numbers. A host that says no version or no address bits is not asked for them.
//!
//! Source: openstack/nova, `ImagePropertiesFilter`. Nova fails the request for a demand on the version
//! that cannot be read; here the hosts that say a version fail.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

/// The step: the architecture of images that name none.
#[derive(Debug)]
pub struct ImagePropertiesFilter(Option<String>);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Architecture of images that name none.
    pub image_properties_default_architecture: Option<String>,
}

fn architecture(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "i386" | "i486" | "i586" | "x86_32" | "x86_32p" => "i686".to_owned(),
        "amd64" => "x86_64".to_owned(),
        _ => name,
    }
}

fn hypervisor(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name == "xapi" { "xen".to_owned() } else { name }
}

fn mode(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "pv" => "xen".to_owned(),
        "hv" | "baremetal" => "hvm".to_owned(),
        _ => name,
    }
}

/// A dotted version with at most this many parts.
type Version = [u64; 6];

/// Conditions on a version; `None`: they cannot be read.
fn conditions(text: &str) -> Option<Vec<(&str, Version)>> {
    let version = |text: &str| {
        let mut version = Version::default();
        let mut parts = version.iter_mut();
        for part in text.split('.') {
            *parts.next()? = part.parse().ok()?;
        }
        Some(version)
    };
    let condition = |text: &'_ str| -> Option<(&'static str, Version)> {
        let text = text.trim();
        let operator = ["<=", ">=", "!=", "==", "<", ">"].into_iter().find(|operator| text.starts_with(operator))?;
        Some((operator, version(text[operator.len()..].trim())?))
    };
    text.split(',').map(condition).collect()
}

/// The version behind Nova's number.
fn version(number: f64) -> Version {
    let (mut left, mut parts) = (number as u64, Version::default());
    let mut len = 0;
    while left > 0 && len < parts.len() {
        parts[len] = left % 1000;
        left /= 1000;
        len += 1;
    }
    parts[..len].reverse();
    parts
}

fn satisfied((operator, wanted): &(&str, Version), version: &Version) -> bool {
    match *operator {
        "<=" => version <= wanted,
        ">=" => version >= wanted,
        "!=" => version != wanted,
        "==" => version == wanted,
        "<" => version < wanted,
        _ => version > wanted,
    }
}

impl Filter for ImagePropertiesFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let property = |name: &str| cx.request.image_properties.get(name).map(String::as_str);
        let asked: Vec<String> = [
            property("hw_architecture").or(self.0.as_deref()).map(architecture),
            property("img_hv_type").map(hypervisor),
            property("hw_vm_mode").map(mode),
        ]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .collect();
        if asked.is_empty() {
            return Verdict::Skipped("the image names no architecture, hypervisor or VM mode");
        }
        let view = cx.view;
        let none = |_: Row| Detail::None;
        let runs = view.host_kinds().judged(|kind| {
            let guests = kind.supported.as_deref().unwrap_or_default();
            guests.iter().any(|guest| asked.iter().all(|name| guest.triple.iter().any(|known| **known == **name)))
        });
        hosts.keep_where("cannot run such an image", |row| runs(row).unwrap_or(false), none);
        if let Some(wanted) = property("img_hv_requested_version").filter(|wanted| !wanted.is_empty()) {
            let conditions = conditions(wanted);
            if conditions.is_none() {
                hosts.note("img_hv_requested_version of the image cannot be read");
            }
            let column = view.host_numbers(HostNumber::HypervisorVersion);
            let fits = |row: Row| {
                let number = column.get(row.0 as usize).copied().unwrap_or(0.0);
                let all =
                    || conditions.as_ref().is_some_and(|all| all.iter().all(|one| satisfied(one, &version(number))));
                number <= 0.0 || all()
            };
            hosts.keep_where("has another version of the hypervisor than the image asks for", fits, none);
        }
        if let Some(bits) = property("hw_maxphysaddr_bits").and_then(|bits| bits.parse::<f64>().ok()) {
            let fits = view.host_kinds().judged(|kind| {
                let has = kind.attribute("cpu_info").and_then(|info| info.get("maxphysaddr")?.get("bits")?.number());
                has.is_none_or(|has| has == 0.0 || has >= bits)
            });
            hosts.keep_where(
                "has fewer physical address bits than the image asks for",
                |row| fits(row).unwrap_or(true),
                none,
            );
        }
        Verdict::Ran
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for ImagePropertiesFilter {
    const NAME: &'static str = "ImagePropertiesFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that can run the image.";
    const MISSING_DATA: &'static str =
        "A host that lists no supported instances is dropped when the image asks for something.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.image_properties_default_architecture))
    }
}

#[cfg(test)]
mod tests {
    use super::ImagePropertiesFilter;
    use crate::fleet::{Case, Fleet, case, host};
    use scheduler::Intent;
    use serde_json::json;

    fn image(properties: &[(&str, &str)]) -> Case {
        let properties: Vec<_> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        case("image").request(|request| request.image_properties.extend(properties))
    }

    type Pairs = &'static [(&'static str, &'static str)];

    #[test]
    fn images_find_hosts() {
        let mut fleet = Fleet::of([
            host("kvm").state(json!({"supported_instances": [["x86_64", "kvm", "hvm"], ["i686", "kvm", "hvm"]],
                "hypervisor_version": 8_002_000, "cpu_info": {"maxphysaddr": {"bits": 46}}})),
            host("xen").state(json!({"supported_instances": [["x86_64", "xen", "xen"]]})),
            host("bare"),
        ]);
        let rows: &[(Pairs, &[&str])] = &[
            (&[], &["kvm", "xen", "bare"]),
            (&[("hw_architecture", "AMD64")], &["kvm", "xen"]),
            (&[("hw_architecture", "i386"), ("img_hv_type", "KVM")], &["kvm"]),
            (&[("img_hv_type", "xapi"), ("hw_vm_mode", "pv")], &["xen"]),
            (&[("img_hv_type", "kvm"), ("hw_vm_mode", "xen")], &[]),
            // A host without a version is not asked.
            (&[("hw_architecture", "x86_64"), ("img_hv_requested_version", ">=8.2,<9")], &["kvm", "xen"]),
            (&[("hw_architecture", "x86_64"), ("img_hv_requested_version", "==8.2")], &["kvm", "xen"]),
            (&[("hw_architecture", "x86_64"), ("img_hv_requested_version", "> 8.2.0")], &["xen"]),
            (&[("hw_architecture", "x86_64"), ("img_hv_requested_version", "8.2")], &["xen"]),
            (&[("hw_architecture", "x86_64"), ("hw_maxphysaddr_bits", "47")], &["xen"]),
            // The version alone asks for nothing.
            (&[("img_hv_requested_version", ">9")], &["kvm", "xen", "bare"]),
        ];
        for (properties, kept) in rows {
            image(properties).kept(kept).check::<ImagePropertiesFilter>(&mut fleet);
        }
        image(&[("img_hv_type", "xen")])
            .intent(Intent::Rebuild)
            .kept(&["xen"])
            .check::<ImagePropertiesFilter>(&mut fleet);
        image(&[])
            .options(json!({"image_properties_default_architecture": "i686"}))
            .kept(&["kvm"])
            .check::<ImagePropertiesFilter>(&mut fleet);
    }
}
