//! Multipliers of stock Nova's weighers: an option, which the metadata of a host's aggregates override.
//!
//! Source: openstack/nova, `nova/scheduler/utils.py` (`get_weight_multiplier`).

use scheduler::pipeline::{Cx, Factors};
use scheduler::{HostNumber, Row};

use super::aggregates::Numbers;
use super::python;

/// The multiplier of each of `hosts`: the smallest of the values of `key` in its aggregates; `option` where
/// there is none, or where one of them is no finite number. `sign` is a factor of all.
pub fn factors(cx: &Cx<'_>, hosts: &[Row], key: &str, option: f64, sign: f64) -> Factors {
    let numbers = multipliers(cx, key, option);
    if numbers.is_empty() {
        return Factors::One(sign * option);
    }
    Factors::Each(hosts.iter().map(|&row| sign * numbers.get(row)).collect())
}

/// The multipliers by host.
pub fn multipliers<'a>(cx: &Cx<'a>, key: &str, option: f64) -> Numbers<'a, f64> {
    Numbers::of(cx.view, key, option, |text| python::float(text).filter(|number| number.is_finite()))
}

/// Writes a number of each host.
pub fn numbers(cx: &Cx<'_>, number: HostNumber, hosts: &[Row], out: &mut [f64]) {
    let column = cx.view.host_numbers(number);
    for (row, out) in hosts.iter().zip(out) {
        *out = column.get(row.0 as usize).copied().unwrap_or(0.0);
    }
}

/// An option that must be a finite number.
pub fn finite(key: &str, number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("{key}: {number} given, a finite number expected")) }
}

/// An option that must be at least 0.
pub fn not_negative(key: &str, number: f64) -> Result<f64, String> {
    let good = number.is_finite() && number >= 0.0;
    if good { Ok(number) } else { Err(format!("{key}: {number} given, a number of at least 0 expected")) }
}

#[cfg(test)]
mod tests {
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use crate::nova_stock::build_failure::BuildFailureWeigher;
    use crate::nova_stock::cpu::CPUWeigher;
    use crate::nova_stock::disk::DiskWeigher;
    use crate::nova_stock::hypervisor_version::HypervisorVersionWeigher;
    use crate::nova_stock::io_ops_weigher::IoOpsWeigher;
    use crate::nova_stock::num_instances_weigher::NumInstancesWeigher;
    use crate::nova_stock::pci::PCIWeigher;
    use crate::nova_stock::ram::RAMWeigher;
    use serde_json::json;

    #[test]
    fn numbers_of_hosts() {
        let mut fleet = Fleet::of([
            host("a").state(json!({"free_ram_mb": 1000, "free_disk_mb": 2048, "vcpus_total": 4, "vcpus_used": 1,
                "cpu_allocation_ratio": 2.0, "num_io_ops": 2, "num_instances": 3, "failed_builds": 1,
                "hypervisor_version": 8_000_000, "pci_stats": [{"count": 60}, {"count": 60}]})),
            host("b").state(json!({"free_ram_mb": -500, "vcpus_total": 2, "vcpus_used": 4,
                "pci_stats": [{"count": 4}]})),
            host("bare"),
        ]);
        let weigh = |a, b, bare| case("numbers").scores(&[("a", a), ("b", b), ("bare", bare)]);
        weigh(1000.0, -500.0, 0.0).weigh::<RAMWeigher>(&mut fleet);
        weigh(2048.0, 0.0, 0.0).weigh::<DiskWeigher>(&mut fleet);
        weigh(7.0, -2.0, 0.0).weigh::<CPUWeigher>(&mut fleet);
        weigh(2.0, 0.0, 0.0).weigh::<IoOpsWeigher>(&mut fleet);
        weigh(3.0, 0.0, 0.0).weigh::<NumInstancesWeigher>(&mut fleet);
        weigh(1.0, 0.0, 0.0).weigh::<BuildFailureWeigher>(&mut fleet);
        weigh(8_000_000.0, 0.0, 0.0).weigh::<HypervisorVersionWeigher>(&mut fleet);
        weigh(1.0, 96.0, 100.0).weigh::<PCIWeigher>(&mut fleet);

        let adds = |a, b, bare| case("shares").shares(&[("a", a), ("b", b), ("bare", bare)]);
        adds(1.0, 0.0, 0.0).weigh::<RAMWeigher>(&mut fleet);
        adds(-1.0, 0.0, 0.0).weigh::<IoOpsWeigher>(&mut fleet);
        adds(0.0, 0.0, 0.0).weigh::<NumInstancesWeigher>(&mut fleet);
        adds(-1e6, 0.0, 0.0).weigh::<BuildFailureWeigher>(&mut fleet);
        adds(0.0, 95.0 / 99.0, 1.0).weigh::<PCIWeigher>(&mut fleet);
        adds(-2.5, 0.0, 0.0).options(json!({"cpu_weight_multiplier": -2.5})).weigh::<CPUWeigher>(&mut fleet);
    }

    #[test]
    fn open_claims_are_charged() {
        let mut fleet = Fleet::of([
            host("a").amounts(8, 8192).state(json!({"free_ram_mb": 8192, "free_disk_mb": 10_240, "vcpus_total": 8,
                "num_instances": 1})),
            host("b").amounts(8, 8192),
        ]);
        fleet.claim("v", "a", |request| {
            request.resources = [("VCPU", 2), ("MEMORY_MB", 1024)].map(|(class, n)| (class.to_owned(), n)).into();
        });
        let weigh = |a| case("claimed").scores(&[("a", a), ("b", 0.0)]);
        weigh(7168.0).weigh::<RAMWeigher>(&mut fleet);
        weigh(6.0).weigh::<CPUWeigher>(&mut fleet);
        weigh(2.0).weigh::<NumInstancesWeigher>(&mut fleet);
        weigh(1.0).weigh::<IoOpsWeigher>(&mut fleet);
        // The claim of the request's own instance does not count against it.
        let own = |a| weigh(a).request(|request| request.consumers = vec![crate::fleet::vm("v")]);
        own(8192.0).weigh::<RAMWeigher>(&mut fleet);
        own(8.0).weigh::<CPUWeigher>(&mut fleet);
        own(1.0).weigh::<NumInstancesWeigher>(&mut fleet);
    }

    #[test]
    fn aggregates_override_multipliers() {
        const KEY: &str = "ram_weight_multiplier";
        let with = |name, free: i64| host(name).state(json!({ "free_ram_mb": free }));
        let mut fleet = Fleet::of([
            with("plain", 100),
            with("two", 100).aggregate("two", &[(KEY, "2")]),
            with("smallest", 100).aggregate("two", &[(KEY, "2")]).aggregate("minus", &[(KEY, " -1.5 ")]),
            with("odd", 100).aggregate("two", &[(KEY, "2")]).aggregate("odd", &[(KEY, "two")]),
            with("infinite", 100).aggregate("infinite", &[(KEY, "inf")]),
            with("empty", 0).aggregate("two", &[(KEY, "2")]),
        ]);
        case("aggregates")
            .options(json!({ "ram_weight_multiplier": 3.0 }))
            .shares(&[
                ("plain", 3.0),
                ("two", 2.0),
                ("smallest", -1.5),
                ("odd", 3.0),
                ("infinite", 3.0),
                ("empty", 0.0),
            ])
            .weigh::<RAMWeigher>(&mut fleet);
        assert_eq!(
            weigher_options_error::<PCIWeigher>(json!({ "pci_weight_multiplier": -1.0 })),
            "pci_weight_multiplier: -1 given, a number of at least 0 expected"
        );
    }
}
