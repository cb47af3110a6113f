//! A seeded fleet of hypervisors that looks like a real one: zones of building blocks, several
//! hardware generations, HANA hosts, a few hosts out of service, and instances on most.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use scheduler::{AggregateReport, Domain, HostReport, InstanceReport, Inventory, NumaCell};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

/// Hosts of one building block, which is also an aggregate.
pub const BLOCK: usize = 8;

/// A flavor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavor {
    /// Name.
    pub name: &'static str,
    /// VCPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// Root disk, GiB.
    pub root_gb: u64,
    /// Needs a HANA host.
    pub hana: bool,
}

const fn flavor(name: &'static str, vcpus: u64, memory_gb: u64, root_gb: u64) -> Flavor {
    Flavor { name, vcpus, memory_mb: memory_gb * 1024, root_gb, hana: false }
}

const fn hana(name: &'static str, vcpus: u64, memory_gb: u64) -> Flavor {
    Flavor { name, vcpus, memory_mb: memory_gb * 1024, root_gb: 64, hana: true }
}

/// The flavors of generated instances and requests, small ones first.
pub const FLAVORS: [Flavor; 8] = [
    flavor("g_c2_m4", 2, 4, 64),
    flavor("g_c2_m8", 2, 8, 64),
    flavor("g_c4_m16", 4, 16, 64),
    flavor("g_c8_m32", 8, 32, 64),
    flavor("g_c16_m64", 16, 64, 64),
    flavor("m_c16_m256", 16, 256, 64),
    hana("hana_c60_m1500", 60, 1500),
    hana("hana_c120_m3000", 120, 3000),
];

impl Flavor {
    /// What one instance takes.
    pub fn resources(&self) -> BTreeMap<String, u64> {
        [("VCPU", self.vcpus), ("MEMORY_MB", self.memory_mb), ("DISK_GB", self.root_gb)]
            .map(|(class, amount)| (class.to_owned(), amount))
            .into()
    }
}

/// A generation of hardware.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardware {
    /// Physical CPU threads.
    pub cpus: u64,
    /// Memory, GiB.
    pub memory_gb: u64,
    /// Local disk, GiB.
    pub disk_gb: u64,
    /// Traits.
    pub traits: Vec<String>,
    /// CPU models that guests can have.
    pub cpu_models: Vec<String>,
    /// For HANA alone.
    pub hana: bool,
    /// Share among the hosts, relative to the other generations.
    pub share: u32,
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSpec {
    /// Number of hosts.
    pub hosts: usize,
    /// Seed.
    pub seed: u64,
    /// Zones; each gets an equal run of building blocks.
    pub zones: Vec<String>,
    /// Hardware generations.
    pub sizes: Vec<Hardware>,
    /// Trait → percent of hosts that have it besides those of their hardware.
    pub traits: Vec<(String, u32)>,
    /// Aggregates besides those of the building blocks; each host is in one of them.
    pub aggregates: usize,
    /// VCPUs for each CPU thread.
    pub overcommit: f64,
    /// Most instances of one host; hosts are filled to between nothing and 90 %, some all the way.
    pub instances_per_host: usize,
    /// Percent of hosts that are out of service in some way.
    pub unfit_percent: u32,
    /// Number of projects that own instances.
    pub projects: usize,
    /// What node names end with after the host name.
    pub node_suffix: String,
}

impl Default for FleetSpec {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let size = |cpus, memory_gb, traits: &[&str], models: &[&str], hana, share| Hardware {
            cpus,
            memory_gb,
            disk_gb: 3500,
            traits: texts(traits),
            cpu_models: texts(models),
            hana,
            share,
        };
        let intel = ["host-passthrough", "host-model", "custom"];
        Self {
            hosts: 300,
            seed: 42,
            zones: texts(&["az-a", "az-b", "az-c"]),
            sizes: vec![
                size(96, 768, &["HW_CPU_X86_AVX2"], &intel[..2], false, 2),
                size(128, 1024, &["HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F"], &intel, false, 4),
                size(192, 1536, &["HW_CPU_X86_AVX2", "HW_CPU_X86_AMD_SEV"], &intel, false, 2),
                size(256, 2048, &["HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F", "HW_CPU_X86_AVX512VNNI"], &intel, false, 3),
                size(448, 12_288, &["HW_CPU_X86_AVX512F", "CUSTOM_HANA_EXCLUSIVE_HOST"], &intel, true, 1),
            ],
            traits: vec![
                ("COMPUTE_GRAPHICS_MODEL_VIRTIO".to_owned(), 90),
                ("COMPUTE_ACCELERATORS".to_owned(), 5),
                ("CUSTOM_DECOMMISSIONING".to_owned(), 3),
                ("CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE".to_owned(), 10),
            ],
            aggregates: 6,
            overcommit: 2.0,
            instances_per_host: 60,
            unfit_percent: 4,
            projects: 40,
            node_suffix: ".cc.region-1.example".to_owned(),
        }
    }
}

impl FleetSpec {
    /// The default fleet with so many hosts.
    pub fn new(hosts: usize, seed: u64) -> Self {
        Self { hosts, seed, ..Self::default() }
    }

    /// Name of host number `at`: `node017-bb02`.
    pub fn host_name(at: usize) -> String {
        format!("node{at:03}-bb{:02}", at / BLOCK)
    }

    /// Name of project number `at`.
    pub fn project(&self, at: usize) -> String {
        uuid(&mut stream(self.seed, "project", at)).simple().to_string()
    }

    /// The fleet; equal specs give equal fleets.
    pub fn generate(&self) -> Vec<HostReport> {
        let projects: Vec<String> = (0..self.projects.max(1)).map(|at| self.project(at)).collect();
        (0..self.hosts).map(|at| self.host(at, &projects)).collect()
    }

    fn host(&self, at: usize, projects: &[String]) -> HostReport {
        let rng = &mut stream(self.seed, "host", at);
        let name = Self::host_name(at);
        let block = at / BLOCK;
        let blocks = self.hosts.div_ceil(BLOCK).max(1);
        let zone = self.zones.get(block * self.zones.len() / blocks);
        let size = self.size(&mut stream(self.seed, "block", block));
        let mut traits: Vec<String> = size.map(|size| size.traits.clone()).unwrap_or_default();
        traits.extend(
            self.traits.iter().filter(|(_, percent)| rng.random_range(0..100) < *percent).map(|(t, _)| t.clone()),
        );
        let (cpus, memory_mb, disk_gb) =
            size.map_or((64, 512 * 1024, 1000), |s| (s.cpus, s.memory_gb * 1024, s.disk_gb));
        let is_hana = size.is_some_and(|size| size.hana);
        let inventories: BTreeMap<String, Inventory> = [
            (
                "VCPU",
                Inventory { reserved: 4, ..Inventory::of(cpus) }.with_ratio(if is_hana {
                    1.0
                } else {
                    self.overcommit
                }),
            ),
            ("MEMORY_MB", Inventory { reserved: 16 * 1024, ..Inventory::of(memory_mb) }),
            ("DISK_GB", Inventory { reserved: 100, ..Inventory::of(disk_gb) }),
        ]
        .map(|(class, inventory)| (class.to_owned(), inventory))
        .into();
        let instances = self.instances(rng, &inventories, is_hana, projects);
        let mut report = HostReport {
            domain: Domain::Nova,
            hypervisor_hostname: Some(format!("{name}{}", self.node_suffix)),
            name,
            availability_zone: zone.cloned(),
            hypervisor_type: Some("kvm".to_owned()),
            cpu_arch: Some("x86_64".to_owned()),
            inventories: Some(inventories),
            traits: Some(traits),
            aggregates: Some(self.aggregates_of(at, zone.map_or("", String::as_str))),
            conditions: Some(healthy()),
            allowed_projects: Some(Vec::new()),
            cpu_models: size.map(|size| size.cpu_models.clone()),
            cpu_features: Some(vec!["sev".to_owned()]),
            cpu_devices: Some(vec!["video".to_owned(), "rng".to_owned()]),
            numa: Some((0..2).map(|id| NumaCell { id, cpus: cpus / 2, memory_mb: memory_mb / 2 }).collect()),
            instances: Some(instances),
            ..HostReport::default()
        };
        if rng.random_range(0..100) < self.unfit_percent {
            out_of_service(rng, &mut report);
        }
        report
    }

    fn size(&self, rng: &mut SmallRng) -> Option<&Hardware> {
        self.sizes.choose_weighted(rng, |size| size.share).ok()
    }

    fn aggregates_of(&self, at: usize, zone: &str) -> Vec<AggregateReport> {
        let block = at / BLOCK;
        let named = |name: String, key: &str, number: usize, metadata: BTreeMap<String, String>| AggregateReport {
            name,
            uuid: Some(uuid(&mut stream(self.seed, key, number))),
            metadata: Some(metadata),
        };
        let mut out = vec![
            named(zone.to_owned(), zone, 0, [("availability_zone".to_owned(), zone.to_owned())].into()),
            named(format!("bb{block:02}"), "block aggregate", block, BTreeMap::new()),
        ];
        if self.aggregates > 0 {
            let number = block % self.aggregates;
            let class = if number.is_multiple_of(2) { "gold" } else { "silver" };
            let metadata = [("cpu_class".to_owned(), class.to_owned())].into();
            out.push(named(format!("class-{number}"), "aggregate", number, metadata));
        }
        out
    }

    fn instances(
        &self,
        rng: &mut SmallRng,
        inventories: &BTreeMap<String, Inventory>,
        hana: bool,
        projects: &[String],
    ) -> Vec<InstanceReport> {
        // One host in six is full.
        let fill: f64 = if rng.random_range(0..6) == 0 { 1.0 } else { rng.random_range(0.0..0.9) };
        let mut left: BTreeMap<&str, u64> = inventories
            .iter()
            .map(|(class, inventory)| (class.as_str(), (inventory.capacity() as f64 * fill) as u64))
            .collect();
        let fitting: Vec<&Flavor> = FLAVORS.iter().filter(|flavor| flavor.hana == hana).collect();
        let groups = (self.hosts / 4).max(1);
        let mut out = Vec::new();
        while out.len() < self.instances_per_host {
            let fits = |flavor: &&&Flavor| {
                let resources = flavor.resources();
                resources.iter().all(|(class, amount)| left.get(class.as_str()).is_none_or(|left| left >= amount))
            };
            let Some(flavor) = fitting.iter().filter(fits).collect::<Vec<_>>().choose(rng).copied() else { break };
            let resources = flavor.resources();
            for (class, amount) in &resources {
                if let Some(left) = left.get_mut(class.as_str()) {
                    *left -= amount;
                }
            }
            let group = rng.random_range(0..10) == 0;
            out.push(InstanceReport {
                uuid: uuid(rng),
                project_id: projects.choose(rng).cloned(),
                resources: Some(resources),
                flavor: Some(flavor.name.to_owned()),
                server_group: group.then(|| uuid(&mut stream(self.seed, "group", rng.random_range(0..groups)))),
            });
        }
        out
    }
}

/// Conditions of a host in service.
pub fn healthy() -> BTreeMap<String, String> {
    [("Ready", "True"), ("HypervisorDisabled", "False"), ("Terminating", "False"), ("Tainted", "False")]
        .map(|(kind, status)| (kind.to_owned(), status.to_owned()))
        .into()
}

/// Takes a host out of service in one of the ways that happen.
fn out_of_service(rng: &mut SmallRng, report: &mut HostReport) {
    let conditions = report.conditions.get_or_insert_default();
    let mut set = |kind: &str, status: &str| conditions.insert(kind.to_owned(), status.to_owned());
    match rng.random_range(0..4) {
        0 => {
            // Maintenance.
            set("HypervisorDisabled", "True");
            report.disabled = Some(true);
        }
        1 => {
            set("Ready", "False");
        }
        2 => {
            set("Ready", "Unknown");
            report.forced_down = Some(true);
        }
        _ => {
            set("Terminating", "True");
        }
    }
}

/// The random numbers of one thing: they do not depend on how many other things there are.
pub(crate) fn stream(seed: u64, what: &str, number: usize) -> SmallRng {
    let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{seed}/{what}/{number}").as_bytes());
    SmallRng::seed_from_u64(name.as_u64_pair().0)
}

pub(crate) fn uuid(rng: &mut SmallRng) -> Uuid {
    Builder::from_random_bytes(rng.random()).into_uuid()
}

/// What the virt driver of a host reports to Nova, as `nova_host_state` holds it.
pub fn nova_host_state(host: &HostReport) -> Value {
    let total = |class: &str| {
        let inventory = host.inventories.as_ref().and_then(|inventories| inventories.get(class));
        inventory.map_or((0, 1.0), |inventory| (inventory.total, inventory.allocation_ratio))
    };
    let instances = host.instances.as_deref().unwrap_or_default();
    let used =
        |class: &str| -> u64 { instances.iter().filter_map(|instance| instance.resources.as_ref()?.get(class)).sum() };
    let ((vcpus, cpu_ratio), (ram, ram_ratio), (disk, disk_ratio)) =
        (total("VCPU"), total("MEMORY_MB"), total("DISK_GB"));
    json!({
        "vcpus_total": vcpus, "vcpus_used": used("VCPU"), "cpu_allocation_ratio": cpu_ratio,
        "total_usable_ram_mb": ram, "free_ram_mb": ram as i64 - used("MEMORY_MB") as i64,
        "ram_allocation_ratio": ram_ratio, "total_usable_disk_gb": disk,
        "free_disk_mb": (disk as i64 - used("DISK_GB") as i64) * 1024, "disk_allocation_ratio": disk_ratio,
        "num_instances": instances.len(), "num_io_ops": 0, "hypervisor_type": "QEMU",
        "hypervisor_version": 8_002_000, "supported_instances": [["x86_64", "kvm", "hvm"]],
    })
}

#[cfg(test)]
mod tests {
    use super::FleetSpec;
    use std::collections::BTreeSet;

    #[test]
    fn equal_seeds_give_equal_fleets() {
        let fleet = FleetSpec::new(120, 7).generate();
        assert_eq!(fleet, FleetSpec::new(120, 7).generate());
        assert_ne!(fleet, FleetSpec::new(120, 8).generate());
    }

    #[test]
    fn a_fleet_is_valid_and_diverse() {
        let fleet = FleetSpec::new(600, 1).generate();
        let mut instances = BTreeSet::new();
        for host in &fleet {
            host.validate().expect("a valid report");
            for (class, inventory) in host.inventories.iter().flatten() {
                let used: u64 =
                    host.instances.iter().flatten().filter_map(|i| i.resources.as_ref()?.get(class).copied()).sum();
                assert!(used <= inventory.capacity(), "{}: {class}", host.name);
            }
            instances.extend(host.instances.iter().flatten().map(|instance| instance.uuid));
        }
        let listed: usize = fleet.iter().map(|host| host.instances.as_ref().map_or(0, Vec::len)).sum();
        assert_eq!(instances.len(), listed, "an instance is on one host");
        let zones: BTreeSet<_> = fleet.iter().map(|host| host.availability_zone.clone()).collect();
        assert_eq!(zones.len(), 3);
        let with = |name: &str| fleet.iter().filter(|host| host.traits.iter().flatten().any(|t| t == name)).count();
        for name in ["HW_CPU_X86_AVX512F", "COMPUTE_GRAPHICS_MODEL_VIRTIO", "CUSTOM_HANA_EXCLUSIVE_HOST"] {
            assert!((1..600).contains(&with(name)), "{name}: {}", with(name));
        }
        let unfit = fleet.iter().filter(|host| host.conditions != Some(super::healthy())).count();
        assert!((6..60).contains(&unfit), "{unfit}");
        assert!(listed > 3000, "{listed}");
    }
}
