//! Keeps hosts that have the PCI devices that the request asks for, all of them together.
//!
//! Each request takes its number of devices from the pools (`pci_stats` of the host state) that match one
//! of its specs: every key equal, ASCII case ignored, pools with more keys last. Pools of physical functions,
//! vDPA and remote-managed devices serve only requests that name them, and a spec with `live_migratable`
//! takes only pools that say the same.
//!
//! `resource_class`, `traits` and `rp_uuids` are Placement's concern and not compared, and neither is the NUMA
//! affinity of devices. Devices that open claims will take are not known.
//!
//! Source: openstack/nova, `PciPassthroughFilter` and `nova/pci/stats.py`.

use std::cell::RefCell;

use scheduler::host_state::PciPool;
use scheduler::host_state::node::{Node, Value};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::request::PciRequest;
use scheduler::{Domain, Request};

/// The step.
#[derive(Debug)]
pub struct PciPassthroughFilter;

/// Keys of a spec that Placement has matched.
const PLACED: [&str; 3] = ["resource_class", "traits", "rp_uuids"];

/// A request for devices, read once.
struct Wanted<'a> {
    request: &'a PciRequest,
    physical: bool,
    vdpa: bool,
    remote: bool,
    migratable: Option<&'static str>,
}

fn yes(text: &str) -> bool {
    ["1", "t", "true", "on", "y", "yes"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
}

fn property<'a>(pool: &'a PciPool, key: &str) -> Option<&'a Node> {
    pool.properties.iter().find(|(known, _)| **known == *key).map(|(_, node)| node)
}

fn is(pool: &PciPool, key: &str, text: &str) -> bool {
    property(pool, key).is_some_and(|node| *node.text == *text)
}

impl<'a> Wanted<'a> {
    fn of(request: &'a PciRequest) -> Self {
        let has = |key: &str, good: &dyn Fn(&str) -> bool| {
            let mut values = request.specs.iter().filter_map(|spec| spec.get(key)?.as_deref());
            values.any(good)
        };
        let all = |text: &str| {
            let value = |spec: &std::collections::BTreeMap<String, Option<String>>| {
                spec.get("live_migratable").is_some_and(|value| value.as_deref() == Some(text))
            };
            request.specs.iter().all(value)
        };
        Self {
            request,
            physical: has("dev_type", &|kind| kind == "type-PF"),
            vdpa: has("dev_type", &|kind| kind == "vdpa"),
            remote: has("remote_managed", &yes),
            migratable: ["true", "false"].into_iter().find(|text| all(text)),
        }
    }

    fn takes(&self, pool: &PciPool) -> bool {
        let matched = self.request.specs.iter().any(|spec| {
            spec.iter().filter(|(key, _)| !PLACED.contains(&key.as_str())).all(|(key, wanted)| {
                match (property(pool, key), wanted) {
                    (None, None) => true,
                    (Some(node), None) => node.value == Value::Null,
                    (Some(Node { value: Value::Text(_), text }), Some(wanted)) => text.eq_ignore_ascii_case(wanted),
                    _ => false,
                }
            })
        });
        matched
            && (self.physical || !is(pool, "dev_type", "type-PF"))
            && (self.vdpa || !is(pool, "dev_type", "vdpa"))
            && (self.remote || !property(pool, "remote_managed").is_some_and(|node| yes(&node.text)))
            && self.migratable.is_none_or(|text| is(pool, "live_migratable", text))
    }
}

/// Whether the pools, which have `free` devices each, have what all requests want together.
fn fit(wanted: &[Wanted<'_>], pools: &[PciPool], free: &mut [u64]) -> bool {
    wanted.iter().all(|wanted| {
        let enough = |free: &[u64]| {
            let pools = pools.iter().zip(free).filter(|(pool, free)| **free > 0 && wanted.takes(pool));
            pools.map(|(_, free)| free).sum::<u64>()
        };
        if enough(free) < wanted.request.count.max(1) {
            return false;
        }
        let mut left = wanted.request.count;
        for (pool, free) in pools.iter().zip(free.iter_mut()) {
            if left > 0 && *free > 0 && wanted.takes(pool) {
                let taken = left.min(*free);
                *free -= taken;
                left -= taken;
            }
        }
        true
    })
}

impl Filter for PciPassthroughFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if cx.request.pci.is_empty() {
            return Verdict::Skipped("no PCI device asked");
        }
        let wanted: Vec<Wanted<'_>> = cx.request.pci.iter().map(Wanted::of).collect();
        let free = RefCell::new(Vec::new());
        let fits = |row| {
            let Some(pools) = cx.view.host_state(row).and_then(|state| state.pci.as_deref()) else { return false };
            let mut free = free.borrow_mut();
            free.clear();
            free.extend(pools.iter().map(|pool| pool.count));
            fit(&wanted, pools, &mut free)
        };
        hosts.keep_where("lacks the PCI devices that are asked for", fits, |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for PciPassthroughFilter {
    const NAME: &'static str = "PciPassthroughFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that have the PCI devices that the request asks for.";
    const MISSING_DATA: &'static str = "A host that reports no PCI pools is dropped when a device is asked.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::PciPassthroughFilter;
    use crate::fleet::{Fleet, case, host};
    use scheduler::request::PciRequest;
    use serde_json::json;

    #[test]
    fn devices_are_taken_together() {
        let gpu =
            |count: u64| json!({"count": count, "vendor_id": "10DE", "product_id": "20b0", "dev_type": "type-PCI"});
        let mut fleet = Fleet::of([
            host("two").state(json!({ "pci_stats": [gpu(2)] })),
            host("three").state(json!({ "pci_stats": [gpu(1), gpu(2)] })),
            host("nic").state(json!({"pci_stats": [
                {"count": 8, "vendor_id": "8086", "dev_type": "type-PF", "numa_node": 0},
                {"count": 1, "vendor_id": "8086", "dev_type": "type-VF", "physical_network": "p1"}]})),
            host("none").state(json!({ "pci_stats": [] })),
            host("bare"),
        ]);
        let request = |count: u64, specs: &[&[(&str, Option<&str>)]]| PciRequest {
            count,
            specs: specs
                .iter()
                .map(|spec| spec.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect())
                .collect(),
        };
        let nvidia = [("vendor_id", Some("10de")), ("resource_class", Some("CUSTOM_GPU"))];
        let intel = [("vendor_id", Some("8086"))];
        for (requests, kept) in [
            (vec![request(2, &[&nvidia])], &["two", "three"][..]),
            (vec![request(2, &[&nvidia]), request(1, &[&nvidia])], &["three"]),
            (vec![request(4, &[&nvidia])], &[]),
            (vec![request(1, &[&intel, &nvidia])], &["two", "three", "nic"]),
            // Physical functions only where they are named.
            (vec![request(2, &[&intel])], &[]),
            (vec![request(2, &[&[("dev_type", Some("type-PF"))]])], &["nic"]),
            (vec![request(1, &[&[("physical_network", Some("P1"))]])], &["nic"]),
            (vec![request(1, &[&[("physical_network", None)]])], &["two", "three"]),
            (vec![request(1, &[&[("numa_node", Some("0")), ("dev_type", Some("type-PF"))]])], &[]),
        ] {
            case("pci").request(|r| r.pci = requests).kept(kept).check::<PciPassthroughFilter>(&mut fleet);
        }
        case("none").kept_all().skipped("no PCI device asked").check::<PciPassthroughFilter>(&mut fleet);
    }
}
