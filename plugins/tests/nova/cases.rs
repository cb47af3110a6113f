//! Seeded cases: hosts and a request, with much that is missing, odd or wrong.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use scheduler::numa::{CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
use scheduler::request::{Candidate, Candidates, Group, GroupPolicy, PciRequest};
use scheduler::{AggregateReport, Domain, HostReport, InstanceReport, Intent, Inventory, Request};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// When every host was looked at, milliseconds since 1970.
const LOOKED: u64 = 1_700_000_000_000;

/// What chooses.
pub struct Random(SmallRng);

impl Random {
    pub fn of(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    fn often(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of.choose(&mut self.0).expect("some to choose from")
    }

    fn some<T: Clone>(&mut self, of: &[T], percent: u32) -> Vec<T> {
        of.iter().filter(|_| self.often(percent)).cloned().collect()
    }
}

/// A step with its options.
pub struct Step {
    pub name: String,
    pub options: Map<String, Value>,
}

/// A case.
pub struct Case {
    pub hosts: Vec<HostReport>,
    pub request: Request,
    /// Image properties with their types, which a request of pallium has as texts.
    image: Option<Map<String, Value>>,
    cell: Option<String>,
    allow_cross_cell_move: bool,
    pub rebuild: bool,
    pub filters: Vec<Step>,
    pub weighers: Vec<Step>,
}

fn instance(number: usize) -> Uuid {
    Uuid::from_u128(0x1000 + number as u128)
}

fn cell(number: usize) -> String {
    Uuid::from_u128(0x2000 + number as u128).to_string()
}

const INSTANCES: usize = 7;
const CAPABILITY_KEYS: [&str; 21] = [
    "capabilities:free_ram_mb",
    "capabilities:cpu_info:features",
    "capabilities:cpu_info:topology:cores",
    "capabilities:cpu_info:model",
    "capabilities:cpu_info",
    "capabilities:hypervisor_type",
    "capabilities:hypervisor_version",
    "capabilities:vcpus_total",
    "capabilities:cpu_allocation_ratio",
    "capabilities:rack",
    "capabilities:stats:rack",
    "capabilities:nested:a:b",
    "capabilities:host",
    "capabilities:unheard",
    "free_ram_mb",
    "num_instances",
    "rack",
    "none",
    "hw:maxphysaddr_bits",
    "other:rack",
    "hw:cpu_policy",
];
const AGGREGATE_KEYS: [&str; 5] = [
    "ssd",
    "rack",
    "aggregate_instance_extra_specs:ssd",
    "aggregate_instance_extra_specs:rack",
    "aggregate_instance_extra_specs:a:b",
];
const OPERANDS: [&str; 19] = [
    "1024", "512", "4", "8", "0", "-1", "1e3", "4.0", "true", "True", "avx", "sse", "r1", "r2", "x86_64", "QEMU",
    "nan", "1_0", "",
];
const OPERATORS: [&str; 17] =
    ["", "", "", "=", "==", "!=", ">=", "<=", "s==", "s!=", "s<", "s<=", "s>", "s>=", "<in>", "<all-in>", "<or>"];

fn wanted(random: &mut Random) -> String {
    let operator = random.one(&OPERATORS);
    let operand = random.one(&OPERANDS);
    match operator {
        "" => operand.to_owned(),
        "<or>" | "<all-in>" if random.often(60) => format!("{operator} {operand} {operator} {}", random.one(&OPERANDS)),
        _ if random.often(5) => format!("{operator}{operand}"),
        _ => format!("{operator} {operand}"),
    }
}

fn state(random: &mut Random, ranking: bool) -> Map<String, Value> {
    let mut out = Map::new();
    if !ranking && random.often(8) {
        return out;
    }
    // A fresh state has no ratio to multiply with: there Nova fails the request.
    out.insert("cpu_allocation_ratio".to_owned(), json!(*random.one(&[&1.0, &2.0, &16.0, &1.5])));
    out.insert("ram_allocation_ratio".to_owned(), json!(*random.one(&[&1.0, &1.5])));
    if random.often(70) {
        // The cells of a host are of one kind.
        let kind = (1 + random.below(2), random.below(4));
        let cells: Vec<Value> = (0..=random.below(3)).map(|id| host_cell(random, kind, id as u64)).collect();
        out.insert("numa_topology".to_owned(), json!({ "cells": cells }));
    }
    let numbers: [(&str, &[i64]); 12] = [
        ("free_ram_mb", &[-512, 0, 512, 1000, 1024, 2048, 262_144]),
        ("total_usable_ram_mb", &[1024, 4096]),
        ("free_disk_mb", &[-1024, 0, 1024, 10_240, 102_400]),
        ("disk_mb_used", &[0, 1024]),
        ("total_usable_disk_gb", &[0, 100]),
        ("vcpus_total", &[0, 4, 8, 64]),
        ("vcpus_used", &[0, 1, 4, 100]),
        ("num_instances", &[0, 1, 4, 5, 49, 50, 51]),
        ("num_io_ops", &[0, 1, 7, 8, 9]),
        ("failed_builds", &[0, 0, 0, 1, 5]),
        ("hypervisor_version", &[0, 8_002_000, 8_002_001, 9_000_000, 7]),
        ("last_seen_up", &[0, -59_999, -60_000, -60_001, 60_000, 60_001]),
    ];
    for (name, values) in numbers {
        if random.often(85) {
            let mut value = values[random.below(values.len())];
            if name == "last_seen_up" {
                value += LOOKED as i64;
            }
            out.insert(name.to_owned(), json!(value));
        }
    }
    if random.often(80) {
        out.insert("hypervisor_type".to_owned(), json!(random.one(&["QEMU", "kvm", "VMware vCenter Server", "xen"])));
    }
    if random.often(80) {
        out.insert("host_ip".to_owned(), json!(random.one(&["10.0.0.9", "10.0.1.9", "192.168.3.4", "fd00::9"])));
    }
    if random.often(80) {
        out.insert("cell_uuid".to_owned(), json!(cell(random.below(3))));
    }
    if random.often(80) {
        let mut info = json!({"arch": "x86_64", "model": random.one(&["Skylake", "avx", "4"])});
        if random.often(70) {
            info["features"] = json!(random.some(&["avx", "avx2", "sse", "it's"], 60));
        }
        if random.often(60) {
            info["topology"] = json!({"cores": random.below(9), "threads": 2});
        }
        if random.often(60) {
            info["maxphysaddr"] = json!({"bits": random.one(&[&39, &46, &0]), "mode": "emulate"});
        }
        let info = if random.often(25) { Value::String(info.to_string()) } else { info };
        out.insert("cpu_info".to_owned(), info);
    }
    if random.often(80) {
        let mut stats = Map::new();
        for (name, value) in [
            ("rack", json!(random.one(&["r1", "r2", "4"]))),
            ("n", json!(random.below(3))),
            ("on", json!(random.often(50))),
            ("half", json!(0.5)),
            ("none", Value::Null),
            ("nested", json!({"a": "{\"b\": 4}"})),
            ("nested", json!({"a": {"b": [1, true, "x"]}})),
            ("list", json!([1, 2])),
            ("free_ram_mb", json!("not this one")),
        ] {
            if random.often(60) {
                stats.insert(name.to_owned(), value);
            }
        }
        out.insert("stats".to_owned(), stats.into());
    }
    if random.often(85) {
        let all = [
            json!(["x86_64", "kvm", "hvm"]),
            json!(["i686", "kvm", "hvm"]),
            json!(["x86_64", "xen", "xen"]),
            json!(["aarch64", "qemu", "hvm"]),
        ];
        out.insert("supported_instances".to_owned(), random.some(&all, 50).into());
    }
    if random.often(80) {
        let all = [("load", json!(0.25)), ("load", json!(3)), ("power", json!(-2.5)), ("heat", json!(0))];
        let metrics = random.some(&all, 60).into_iter().map(|(name, value)| json!({"name": name, "value": value}));
        let metrics = metrics.collect::<Vec<_>>();
        out.insert("metrics".to_owned(), metrics.into());
    }
    if random.often(60) {
        let pools: Vec<Value> = (0..random.below(4)).map(|_| pool(random)).collect();
        out.insert("pci_stats".to_owned(), pools.into());
    }
    if random.often(60) {
        let mut counts = Map::new();
        for (name, value) in
            [("os_type", "linux"), ("hw_boot_menu", "True"), ("hw_numa_nodes", "2"), ("os_type", "windows")]
        {
            if random.often(60) {
                let values = counts.entry(name).or_insert_with(|| json!({}));
                values[value] = json!(random.below(4));
            }
        }
        out.insert("image_properties".to_owned(), counts.into());
    }
    out
}

fn host_cell(random: &mut Random, (threads, kind): (usize, usize), id: u64) -> Value {
    let cores = 2 + random.below(3);
    let cpus: Vec<u64> = (0..(threads * cores) as u64).map(|cpu| 100 * id + cpu).collect();
    let half = cpus.len() / 2;
    let (shared, dedicated) = match kind {
        0 => (&cpus[..], &cpus[..]),
        1 => (&cpus[..half], &cpus[half..]),
        2 => (&cpus[..], &[][..]),
        _ => (&[][..], &cpus[..]),
    };
    let memory = **random.one(&[&&1024_u64, &&2048, &&4096]);
    let mut pages = Vec::new();
    if random.often(60) {
        pages.push(json!({"size_kb": 4, "total": memory * 256, "used": random.below(2) * 200_000, "reserved": 0}));
        if random.often(60) {
            let used = random.below(400);
            pages.push(json!({"size_kb": 2048, "total": 512, "used": used, "reserved": random.below(100)}));
        }
        if random.often(20) {
            pages.reverse();
        }
    }
    let mut cell = json!({
        "id": id, "cpuset": shared, "pcpuset": dedicated, "memory": memory,
        "memory_usage": random.one(&[&0, &512, &2000]), "cpu_usage": random.below(2 * cpus.len()),
        "pinned_cpus": random.some(dedicated, 35), "siblings": cpus.chunks(threads).collect::<Vec<_>>(),
        "mempages": pages,
    });
    if random.often(25) {
        let physnets = random.some(&["net1", "net2"], 50);
        cell["network_metadata"] = json!({"physnets": physnets, "tunneled": random.often(40)});
    }
    cell
}

fn guest(random: &mut Random) -> GuestTopology {
    let policy =
        **random.one(&[&&CpuPolicy::Shared, &&CpuPolicy::Dedicated, &&CpuPolicy::Dedicated, &&CpuPolicy::Mixed]);
    let threads = **random.one(&[&&ThreadPolicy::Prefer, &&ThreadPolicy::Isolate, &&ThreadPolicy::Require]);
    let cell = |random: &mut Random| GuestCell {
        shared: if policy == CpuPolicy::Dedicated { 0 } else { 1 + random.below(4) as u64 },
        dedicated: if policy == CpuPolicy::Shared { 0 } else { 1 + random.below(3) as u64 },
        memory_mb: **random.one(&[&&128_u64, &&128, &&512, &&1024, &&3001]),
        page_kib: **random.one(&[&&0_i64, &&0, &&0, &&-1, &&-2, &&-3, &&4, &&2048, &&1_048_576]),
        policy,
        threads,
    };
    GuestTopology {
        cells: (0..=**random.one(&[&&0, &&0, &&1, &&2])).map(|_| cell(random)).collect(),
        emulator_isolated: policy != CpuPolicy::Shared && random.often(30),
        physnets: random.some(&["net1".to_owned(), "net3".to_owned()], 20),
        tunneled: random.often(15),
    }
}

fn pool(random: &mut Random) -> Value {
    let mut pool =
        json!({"count": random.one(&[&0, &1, &2, &8, &98, &200]), "vendor_id": random.one(&["8086", "10DE"])});
    for (key, values) in [
        ("product_id", &[json!("1520"), json!("20b0")][..]),
        ("dev_type", &[json!("type-PCI"), json!("type-PF"), json!("type-VF"), json!("vdpa")]),
        ("numa_node", &[json!(0), Value::Null]),
        ("physical_network", &[json!("net1"), json!("NET2"), Value::Null]),
        ("remote_managed", &[json!("true"), json!("False"), json!("on")]),
        ("live_migratable", &[json!("true"), json!("false")]),
    ] {
        if random.often(35) {
            pool[key] = values[random.below(values.len())].clone();
        }
    }
    pool
}

fn devices(random: &mut Random) -> PciRequest {
    let values: [(&str, &[Option<&str>]); 8] = [
        ("vendor_id", &[Some("8086"), Some("10de")]),
        ("product_id", &[Some("1520")]),
        ("dev_type", &[Some("type-PF"), Some("type-VF"), Some("vdpa")]),
        ("physical_network", &[Some("NET1"), Some("net2"), None]),
        ("remote_managed", &[Some("True"), Some("false")]),
        ("live_migratable", &[Some("true"), Some("false")]),
        ("numa_node", &[Some("0"), None]),
        ("resource_class", &[Some("CUSTOM_ANY")]),
    ];
    let specs = (0..=random.below(2)).map(|_| {
        let mut spec = BTreeMap::new();
        for (key, values) in values {
            if random.often(20) {
                spec.insert(key.to_owned(), values[random.below(values.len())].map(str::to_owned));
            }
        }
        spec
    });
    PciRequest { specs: specs.collect(), count: 1 + random.below(3) as u64 }
}

fn aggregates(random: &mut Random) -> Vec<AggregateReport> {
    let numbers = ["1", "2", " 8 ", "8.0", "1_0", "-2.5", "many", "", "1e2", "0"];
    let values: [(&str, &[&str]); 18] = [
        ("ssd", &["true", "True, 4", "512,1024", "", "avx"]),
        ("rack", &["r1", "r1 ,r2", "4", "x86_64"]),
        ("a:b", &["4", "r1"]),
        ("filter_tenant_id", &["p1", "p2, p3", "", "P1"]),
        ("filter_tenant_id_2", &["p1", "p4 ,p1"]),
        ("instance_type", &["m1.small", "m1.big, m1.small", "", "M1.SMALL"]),
        ("max_io_ops_per_host", &numbers),
        ("max_instances_per_host", &numbers),
        ("os_type", &["linux", "windows, linux", "bsd"]),
        ("os_distro", &["ubuntu", "debian, ", ""]),
        ("hw_boot_menu", &["True", "true", "False"]),
        ("hw_numa_nodes", &["2", "0, 1"]),
        ("ram_weight_multiplier", &numbers),
        ("build_failure_weight_multiplier", &numbers),
        ("metrics_weight_multiplier", &numbers),
        ("io_ops_weight_multiplier", &numbers),
        ("soft_affinity_weight_multiplier", &numbers),
        ("image_props_weight_multiplier", &numbers),
    ];
    let aggregate = |number: usize, metadata: BTreeMap<String, String>| AggregateReport {
        name: format!("aggregate-{number}"),
        uuid: (number > 0).then(|| Uuid::from_u128(0x3000 + number as u128)),
        metadata: Some(metadata),
    };
    (0..5)
        .map(|number| {
            let mut metadata = BTreeMap::new();
            for (key, values) in values {
                if random.often(20) {
                    metadata.insert(key.to_owned(), (*random.one(values)).to_owned());
                }
            }
            aggregate(number, metadata)
        })
        .collect()
}

fn hosts(random: &mut Random, ranking: bool) -> Vec<HostReport> {
    let aggregates = aggregates(random);
    let count = 2 + random.below(if ranking { 11 } else { 6 });
    let placed: Vec<Option<usize>> =
        (0..INSTANCES).map(|_| Some(random.below(count + 2)).filter(|host| *host < count)).collect();
    (0..count)
        .map(|at| {
            let instances = placed.iter().enumerate().filter(|(_, host)| **host == Some(at));
            let instances =
                instances.map(|(number, _)| InstanceReport { uuid: instance(number), ..InstanceReport::default() });
            let room = |total| Inventory::of(total);
            HostReport {
                domain: Domain::Nova,
                name: format!("{}{at}", if random.often(80) { "host-" } else { "Host-" }),
                hypervisor_hostname: Some(format!("node-{at}.example")),
                uuid: Some(Uuid::from_u128(0x4000 + at as u128)),
                inventories: Some(BTreeMap::from([
                    ("VCPU".to_owned(), room(1000)),
                    ("MEMORY_MB".to_owned(), room(1 << 20)),
                ])),
                aggregates: Some(random.some(&aggregates, 35)),
                disabled: Some(random.often(10)),
                forced_down: Some(random.often(10)),
                nova_host_state: Some(Value::Object(state(random, ranking)).to_string()),
                observed_at: Some(LOOKED),
                instances: Some(instances.collect()),
                ..HostReport::default()
            }
        })
        .collect()
}

fn image(random: &mut Random) -> Option<Map<String, Value>> {
    random.often(85).then(|| {
        let all: [(&str, &[Value]); 9] = [
            ("hw_architecture", &[json!("x86_64"), json!("i686"), json!("aarch64")]),
            ("img_hv_type", &[json!("kvm"), json!("xen"), json!("qemu"), json!("vmware")]),
            ("hw_vm_mode", &[json!("hvm"), json!("xen")]),
            ("img_hv_requested_version", &[json!(">=8.2,<9"), json!("==8.2.1"), json!(" > 8"), json!("!=7,<=9.0.0.0")]),
            ("hw_maxphysaddr_bits", &[json!(39), json!(46), json!(52)]),
            ("os_type", &[json!("linux"), json!("windows")]),
            ("hw_boot_menu", &[json!(true), json!(false)]),
            ("hw_numa_nodes", &[json!(0), json!(1), json!(2)]),
            ("os_distro", &[json!("ubuntu"), json!("Ubuntu"), json!("")]),
        ];
        let mut out = Map::new();
        for (name, values) in all {
            if random.often(35) {
                out.insert(name.to_owned(), values[random.below(values.len())].clone());
            }
        }
        out
    })
}

fn query(random: &mut Random, depth: usize) -> Value {
    if depth == 0 || random.often(30) {
        return match random.below(14) {
            0 => json!("$free_ram_mb"),
            1 => json!("$stats.rack"),
            2 => json!("$stats.n"),
            3 => json!("$stats.on"),
            4 => json!("$host"),
            5 => json!("$hypervisor_type"),
            6 => json!("$unheard"),
            7 => json!("$cpu_allocation_ratio"),
            8 => json!("$stats.list"),
            9 => json!("$host.x"),
            10 => json!(random.one(&["host-0", "r1", "QEMU", "", "$"])),
            11 => json!(*random.one(&[&0, &1, &512, &1024])),
            12 => json!(*random.one(&[&0.5, &2.0])),
            _ => json!(random.often(50)),
        };
    }
    let operator = random.one(&["=", "<", ">", "<=", ">=", "in", "not", "or", "and", "and"]);
    let mut out = vec![json!(operator)];
    out.extend((0..random.below(4)).map(|_| query(random, depth - 1)));
    if random.often(4) { json!([]) } else { out.into() }
}

fn hints(random: &mut Random) -> BTreeMap<String, Vec<String>> {
    let mut out = BTreeMap::new();
    for hint in ["same_host", "different_host"] {
        if random.often(40) {
            let uuid = |number: usize| instance(number).to_string();
            let mut uuids: Vec<String> = (0..random.below(3)).map(|_| uuid(random.below(INSTANCES + 1))).collect();
            if random.often(10) {
                uuids.push(uuid(0).to_uppercase());
                uuids.push("no uuid".to_owned());
            }
            out.insert(hint.to_owned(), uuids);
        }
    }
    if random.often(50) {
        let near = random.one(&["10.0.0.200", "192.168.0.1", "fd00::1", "10.0.0"]);
        out.insert("build_near_host_ip".to_owned(), vec![near.to_owned()]);
        if random.often(60) {
            let cidr = random.one(&["/24", "/23", "/8", "/64", "/255.255.0.0", "/0.0.255.255", "/33", "24"]);
            out.insert("cidr".to_owned(), vec![cidr.to_owned()]);
        }
    }
    if random.often(60) {
        let query = match random.below(20) {
            0 => String::new(),
            1 => "[".to_owned(),
            2 => "{\"a\": 1}".to_owned(),
            3 => "[\"xor\", true]".to_owned(),
            _ => {
                let inner = query(random, 3);
                if inner.is_array() { inner.to_string() } else { json!(["or", inner]).to_string() }
            }
        };
        out.insert("query".to_owned(), vec![query]);
    }
    out
}

fn request(random: &mut Random, hosts: &[HostReport], image: Option<&Map<String, Value>>) -> Request {
    let mut extra_specs = BTreeMap::new();
    for _ in 0..random.below(3) {
        extra_specs.insert((*random.one(&CAPABILITY_KEYS)).to_owned(), wanted(random));
    }
    if random.often(50) {
        extra_specs.insert((*random.one(&AGGREGATE_KEYS)).to_owned(), wanted(random));
    }
    if random.often(15) {
        extra_specs.insert("hw:cpu_policy".to_owned(), "dedicated".to_owned());
        extra_specs.insert("hw:cpu_thread_policy".to_owned(), "require".to_owned());
    }
    let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let policies =
        [GroupPolicy::Affinity, GroupPolicy::AntiAffinity, GroupPolicy::SoftAffinity, GroupPolicy::SoftAntiAffinity];
    let members: Vec<Uuid> = (0..INSTANCES).map(instance).collect();
    let group = random.often(75).then(|| Group {
        uuid: Some(Uuid::from_u128(0x5000)),
        policy: policies.choose(&mut random.0).copied(),
        members: random.some(&members, 60),
        hosts: if random.often(30) { Vec::new() } else { random.some(&names, 40) },
        max_per_host: 1 + random.below(3) as u64,
    });
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let candidates = hosts.iter().map(|host| Candidate {
        host: (&host.name).into(),
        node: host.hypervisor_hostname.as_deref().unwrap_or_default().into(),
        weight: 0.0,
    });
    Request {
        consumers: vec![instance(0)],
        project: Some((*random.one(&["p1", "p2", "p4", "P1"])).to_owned()),
        resources: BTreeMap::from([("VCPU".to_owned(), 1), ("MEMORY_MB".to_owned(), 512)]),
        flavor: Some((*random.one(&["m1.small", "m1.big"])).to_owned()),
        extra_specs,
        image: image.and_then(|_| random.often(80).then(|| (*random.one(&["image-1", "image-2"])).to_owned())),
        image_properties: image.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect(),
        candidates: Candidates::Sent(candidates.collect()),
        group,
        hints: hints(random),
        pci: if random.often(70) { (0..=random.below(2)).map(|_| devices(random)).collect() } else { Vec::new() },
        numa: random.often(70).then(|| guest(random)),
        ..Request::default()
    }
}

fn step(name: &str, options: &Value) -> Step {
    Step { name: name.to_owned(), options: options.as_object().cloned().unwrap_or_default() }
}

fn filters(random: &mut Random, hosts: &[HostReport]) -> Vec<Step> {
    let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let plain = json!({});
    let mut namespace = json!({});
    if random.often(50) {
        namespace = json!({"aggregate_image_properties_isolation_namespace": random.one(&["os", "hw"]),
            "aggregate_image_properties_isolation_separator": random.one(&["_", "."])});
    }
    let isolated = json!({
        "isolated_hosts": random.some(&names, 40),
        "isolated_images": random.some(&["image-1", "image-3"], 50),
        "restrict_isolated_hosts_to_isolated_images": random.often(60),
    });
    let metrics = random.some(&["load=1", "power=-2.5", "heat=0"], 40);
    let mut architecture = json!({});
    if random.often(20) {
        architecture = json!({"image_properties_default_architecture": random.one(&["x86_64", "i686"])});
    }
    [
        step("ComputeFilter", &json!({"service_down_time": random.one(&[&60, &59])})),
        step("ComputeCapabilitiesFilter", &plain),
        step("ImagePropertiesFilter", &architecture),
        step("ServerGroupAntiAffinityFilter", &plain),
        step("ServerGroupAffinityFilter", &plain),
        step("AggregateInstanceExtraSpecsFilter", &plain),
        step("AggregateImagePropertiesIsolation", &namespace),
        step("AggregateMultiTenancyIsolation", &plain),
        step("AggregateTypeAffinityFilter", &plain),
        step("IoOpsFilter", &json!({"max_io_ops_per_host": random.one(&[&8, &1, &0])})),
        step("AggregateIoOpsFilter", &json!({"max_io_ops_per_host": random.one(&[&8, &1])})),
        step("NumInstancesFilter", &json!({"max_instances_per_host": random.one(&[&50, &5, &1])})),
        step("AggregateNumInstancesFilter", &json!({"max_instances_per_host": random.one(&[&50, &5])})),
        step("DifferentHostFilter", &plain),
        step("SameHostFilter", &plain),
        step("IsolatedHostsFilter", &isolated),
        step("JsonFilter", &plain),
        step("MetricsFilter", &json!({ "weight_setting": metrics })),
        step("SimpleCIDRAffinityFilter", &plain),
        step("NUMATopologyFilter", &plain),
        step("PciPassthroughFilter", &plain),
        step("AllHostsFilter", &plain),
    ]
    .into()
}

fn weighers(random: &mut Random) -> Vec<Step> {
    let metrics = random.some(&["load=1", "power=-2.5", "heat=0"], 60);
    let properties = random.some(&["os_type=2", "hw_boot_menu=-1"], 40);
    let multiplier: f64 = *random.one(&[&1.0, &0.0, &-2.5]);
    let single = |name: &str, key: &str, number: f64| Step {
        name: name.to_owned(),
        options: Map::from_iter([(key.to_owned(), json!(number))]),
    };
    [
        single("ServerGroupSoftAffinityWeigher", "soft_affinity_weight_multiplier", multiplier.abs()),
        single("ServerGroupSoftAntiAffinityWeigher", "soft_anti_affinity_weight_multiplier", multiplier.abs()),
        single("BuildFailureWeigher", "build_failure_weight_multiplier", multiplier),
        single("CPUWeigher", "cpu_weight_multiplier", multiplier),
        single("CrossCellWeigher", "cross_cell_move_weight_multiplier", multiplier),
        single("DiskWeigher", "disk_weight_multiplier", multiplier),
        single("HypervisorVersionWeigher", "hypervisor_version_weight_multiplier", multiplier),
        step(
            "ImagePropertiesWeigher",
            &json!({"image_props_weight_multiplier": multiplier, "image_props_weight_setting": properties}),
        ),
        single("IoOpsWeigher", "io_ops_weight_multiplier", multiplier),
        step(
            "MetricsWeigher",
            &json!({"weight_setting": metrics, "weight_multiplier": multiplier,
                "required": random.often(20), "weight_of_unavailable": -10_000.0}),
        ),
        single("NumInstancesWeigher", "num_instances_weight_multiplier", multiplier),
        single("PCIWeigher", "pci_weight_multiplier", multiplier.abs()),
        single("RAMWeigher", "ram_weight_multiplier", multiplier),
    ]
    .into()
}

impl Case {
    fn of(random: &mut Random, ranking: bool) -> Self {
        let hosts = hosts(random, ranking);
        let image = image(random);
        let mut request = request(random, &hosts, image.as_ref());
        let cell = random.often(60).then(|| cell(random.below(3)));
        let allow_cross_cell_move = random.often(70);
        request.destination.cell_named = cell.is_some();
        request.destination.preferred_cell = cell.clone().filter(|_| allow_cross_cell_move);
        Self {
            filters: filters(random, &hosts),
            weighers: weighers(random),
            hosts,
            request,
            image,
            cell,
            allow_cross_cell_move,
            rebuild: false,
        }
    }

    /// A case for single steps.
    pub fn of_steps(random: &mut Random) -> Self {
        let mut case = Self::of(random, false);
        case.rebuild = random.often(8);
        if case.rebuild {
            case.request.label = Some(Intent::Rebuild);
            case.request.hints.insert("_nova_check_type".to_owned(), vec!["rebuild".to_owned()]);
        }
        case
    }

    /// A case for whole rankings: the filters and weighers of a Nova with its default configuration.
    pub fn of_ranking(random: &mut Random) -> Self {
        let mut case = Self::of(random, true);
        if random.often(60) {
            case.request.extra_specs.clear();
        }
        if random.often(60) {
            case.image = None;
            case.request.image_properties.clear();
            case.request.image = None;
        }
        case.filters.truncate(5);
        let steps = case.filters.iter_mut().chain(&mut case.weighers);
        steps.for_each(|step| step.options.clear());
        case
    }

    /// The case as the driver reads it.
    pub fn question(&self) -> Value {
        let request = &self.request;
        let hosts = self.hosts.iter().map(|host| {
            let state: Value = serde_json::from_str(host.nova_host_state.as_deref().unwrap_or("{}")).expect("JSON");
            let aggregates = host.aggregates.iter().flatten().map(|aggregate| json!(aggregate.metadata));
            let instances = host.instances.iter().flatten().map(|instance| json!(instance.uuid));
            json!({
                "host": host.name, "node": host.hypervisor_hostname, "uuid": host.uuid,
                "disabled": host.disabled, "forced_down": host.forced_down, "state": state,
                "aggregates": aggregates.collect::<Vec<_>>(), "instances": instances.collect::<Vec<_>>(),
            })
        });
        let group = request.group.as_ref().map(|group| {
            json!({"uuid": group.uuid, "policy": group.policy, "members": group.members, "hosts": group.hosts,
                "max": group.max_per_host})
        });
        let steps = |steps: &[Step]| {
            steps.iter().map(|step| json!({"name": step.name, "options": step.options})).collect::<Vec<_>>()
        };
        json!({
            "observed_at": LOOKED,
            "hosts": hosts.collect::<Vec<_>>(),
            "request": {
                "instance_uuid": request.consumers[0], "project_id": request.project, "flavor": request.flavor,
                "extra_specs": request.extra_specs, "hints": request.hints, "pci": request.pci,
                "numa": request.numa,
                "image": self.image.as_ref().map(|properties| json!({"id": request.image, "properties": properties})),
                "group": group, "cell": self.cell, "allow_cross_cell_move": self.allow_cross_cell_move,
            },
            "filters": steps(&self.filters), "weighers": steps(&self.weighers),
        })
    }
}
