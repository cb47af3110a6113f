//! The hosts of a run (`nodes.csv`), and what the core is told of them.

use std::path::Path;

use hashbrown::HashSet;
use plugins::packing::{DEVICES, GPU_MILLI, MODEL_LABEL, MOST_DEVICES};
use scheduler::state::Tables;
use scheduler::{Domain, HostReport, Inventory, Provider};

use super::shape::MOST;
use super::table::{BadInput, Table, read};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name in the file.
    pub id: String,
    /// Thousandths of a vCPU.
    pub milli_cpu: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Number of GPUs.
    pub gpus: u64,
    /// Their model; may be empty.
    pub model: String,
    /// Failure domain; may be empty.
    pub domain: String,
}

/// Capacity for each physical unit, by resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Of CPU.
    pub cpu: f64,
    /// Of memory.
    pub memory: f64,
}

impl Default for Ratios {
    fn default() -> Self {
        Self { cpu: 1.0, memory: 1.0 }
    }
}

/// A list of hosts.
#[derive(Clone, Debug, Default)]
pub struct HostList {
    /// In the order of the file, which decides between equals.
    pub hosts: Vec<Host>,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

const COLUMNS: &[&str] = &["node_id", "vcpus", "memory_mib", "gpus", "gpu_model", "domain"];
/// Most hosts of a file.
const MOST_HOSTS: usize = 1_000_000;

impl HostList {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, BadInput> {
        let (bytes, sha256) = read(path)?;
        Ok(Self { sha256, ..Self::read(&path.display().to_string(), bytes)? })
    }

    /// What is free on the hosts of a domain; failure domains are zones. Hosts that take nothing are left out.
    pub fn of_state(tables: &Tables, domain: Domain, checksum: &str) -> Result<Self, String> {
        let free = |provider: &Provider, class: &str| {
            let class = tables.names.get(class)?;
            Some(provider.capacity(class)?.saturating_sub(provider.used(class)))
        };
        let cpu = if domain == Domain::Nova { ("VCPU", 1000) } else { ("MILLICPU", 1) };
        let host = |(_, provider): (_, &Provider)| {
            let open = provider.domain == domain && !provider.disabled && !provider.forced_down;
            let name = tables.names.text(provider.host);
            let node = provider.node.map(|node| tables.names.text(node)).filter(|node| *node != name);
            Some(Host {
                id: node.map_or_else(|| name.to_owned(), |node| format!("{name}/{node}")),
                milli_cpu: free(provider, cpu.0).filter(|_| open)? * cpu.1,
                memory_mib: free(provider, "MEMORY_MB")?,
                gpus: 0,
                model: String::new(),
                domain: provider.zone.map_or_else(String::new, |zone| tables.names.text(zone).to_owned()),
            })
        };
        let hosts: Vec<Host> = tables.providers().filter_map(host).collect();
        if hosts.is_empty() {
            return Err(format!("no host of domain {domain} with {} and MEMORY_MB, at least one expected", cpu.0));
        }
        Ok(Self { hosts, sha256: checksum.to_owned() })
    }

    /// Reads bytes; `file` is for messages.
    pub fn read(file: &str, bytes: Vec<u8>) -> Result<Self, BadInput> {
        let mut table = Table::new(file, bytes, COLUMNS, 3)?;
        let mut hosts = Vec::new();
        let mut names = HashSet::new();
        while let Some(line) = table.next_line()? {
            let id = line.name(0)?.to_owned();
            if !names.insert(id.clone()) {
                return Err(line.wrong_cell(0, format!("{id} is there twice, once expected")));
            }
            if hosts.len() >= MOST_HOSTS {
                return Err(line.wrong(format!("more than {MOST_HOSTS} hosts, fewer expected")));
            }
            hosts.push(Host {
                id,
                milli_cpu: line.given(1, line.thousandths(1, MOST / 1000)?)?,
                memory_mib: line.given(2, line.whole(2, MOST)?)?,
                gpus: line.whole(3, MOST_DEVICES as u64)?.unwrap_or(0),
                model: line.text(4)?.to_owned(),
                domain: line.text(5)?.to_owned(),
            });
        }
        if hosts.is_empty() {
            return Err(BadInput::File {
                file: file.to_owned(),
                what: "no host given, at least one expected".to_owned(),
            });
        }
        Ok(Self { hosts, sha256: String::new() })
    }

    /// The first `count` hosts; beyond the end the list begins anew, with a suffix to the names.
    pub fn first(&self, count: usize) -> Vec<Host> {
        let each = self.hosts.len().max(1);
        (0..count)
            .map(|at| {
                let host = &self.hosts[at % each];
                let id = if at < each { host.id.clone() } else { format!("{}-{}", host.id, at / each) };
                Host { id, ..host.clone() }
            })
            .collect()
    }

    /// Whether all are alike but for name and domain.
    pub fn are_equal(&self) -> bool {
        let like = |one: &Host, other: &Host| one.capacity() == other.capacity() && one.model == other.model;
        self.hosts.windows(2).all(|pair| like(&pair[0], &pair[1]))
    }
}

impl Host {
    /// CPU, memory and GPU: thousandths, MiB, thousandths.
    pub fn capacity(&self) -> [u64; 3] {
        [self.milli_cpu, self.memory_mib, self.gpus * 1000]
    }

    /// The same as the core counts it, with overcommit.
    pub fn effective(&self, domain: Domain, ratios: Ratios) -> [u64; 3] {
        let times = |amount: u64, ratio: f64| Inventory::of(amount).with_ratio(ratio).capacity();
        let cpu = match domain {
            Domain::Nova => times(self.milli_cpu / 1000, ratios.cpu) * 1000,
            _ => times(self.milli_cpu, ratios.cpu),
        };
        [cpu, times(self.memory_mib, ratios.memory), self.gpus * 1000]
    }

    /// Name of the host at this place as the core knows it: among equal hosts the core takes the first name, which must be
    /// that of the first row of the file.
    pub fn name_at(at: usize) -> String {
        format!("host-{at:07}")
    }

    /// What the core is told of the host at this place.
    pub fn report(&self, at: usize, domain: Domain, ratios: Ratios) -> HostReport {
        let of = |total: u64, ratio: f64| Inventory::of(total).with_ratio(ratio);
        let cpu = match domain {
            Domain::Nova => ("VCPU", of(self.milli_cpu / 1000, ratios.cpu)),
            _ => ("MILLICPU", of(self.milli_cpu, ratios.cpu)),
        };
        let mut inventories = vec![cpu, ("MEMORY_MB", of(self.memory_mib, ratios.memory))];
        if self.gpus > 0 {
            inventories.push((GPU_MILLI, Inventory::of(self.gpus * 1000)));
            inventories.extend(DEVICES.iter().take(self.gpus as usize).map(|class| (*class, Inventory::of(1000))));
        }
        let labels =
            [(MODEL_LABEL, &self.model), ("domain", &self.domain)].into_iter().filter(|(_, value)| !value.is_empty());
        HostReport {
            domain,
            name: Self::name_at(at),
            inventories: Some(
                inventories.into_iter().map(|(class, inventory)| (class.to_owned(), inventory)).collect(),
            ),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.clone())).collect()),
            hypervisor_type: Some("QEMU".to_owned()),
            availability_zone: Some("sim".to_owned()),
            conditions: Some(crate::fleet::healthy()),
            ..HostReport::default()
        }
    }
}
