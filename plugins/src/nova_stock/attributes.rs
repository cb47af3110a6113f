//! Attributes of a host by the names that Nova's `HostState` has for them: for steps whose requests
//! name them (capabilities in extra specs, the JSON query).
//!
//! Free memory, free disk, VCPUs in use, instances and I/O operations count the claims that the host
//! does not list yet, as everywhere. What is no data of the host (`instances`, `aggregates`, `limits`,
//! `service`, `updated`, `allocation_candidates` and Python's own attributes) has no value here.

use scheduler::host_state::node::Node;
use scheduler::pipeline::View;
use scheduler::{HostNumber, Row};
use uuid::Uuid;

/// Names that every `HostState` has, with a value or without.
const NAMES: [&str; 33] = [
    "host",
    "nodename",
    "uuid",
    "total_usable_ram_mb",
    "total_usable_disk_gb",
    "disk_mb_used",
    "free_ram_mb",
    "free_disk_mb",
    "vcpus_total",
    "vcpus_used",
    "pci_stats",
    "numa_topology",
    "num_instances",
    "num_io_ops",
    "failed_builds",
    "host_ip",
    "hypervisor_type",
    "hypervisor_version",
    "hypervisor_hostname",
    "cpu_info",
    "supported_instances",
    "limits",
    "metrics",
    "aggregates",
    "instances",
    "ram_allocation_ratio",
    "cpu_allocation_ratio",
    "disk_allocation_ratio",
    "cell_uuid",
    "updated",
    "allocation_candidates",
    "stats",
    "service",
];

/// A value of a host.
#[derive(Clone, Copy, Debug)]
pub enum Leaf<'a> {
    /// A count.
    Whole(i64),
    /// A name.
    Text(&'a str),
    /// A uuid.
    Uuid(Uuid),
    /// Anything that was reported.
    Node(&'a Node),
}

impl Leaf<'_> {
    /// The value under a key, where this is a map.
    pub fn get(self, key: &str) -> Option<Self> {
        match self {
            Self::Node(node) => node.get(key).map(Self::Node),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(number as f64),
            Self::Node(node) => node.number(),
            _ => None,
        }
    }

    /// Calls `read` with what Python's `str()` makes of it.
    pub fn with_text<T>(self, read: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Text(text) => read(text),
            Self::Node(node) => read(&node.text),
            Self::Uuid(uuid) => read(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Self::Whole(number) => {
                let (mut digits, mut at) = ([0_u8; 20], 20);
                let mut left = number.unsigned_abs();
                while left > 0 || at == 20 {
                    at -= 1;
                    digits[at] = b'0' + (left % 10) as u8;
                    left /= 10;
                }
                // A column's number has at most 16 digits: there is room for the sign.
                if number < 0 {
                    at -= 1;
                    digits[at] = b'-';
                }
                read(std::str::from_utf8(&digits[at..]).unwrap_or(""))
            }
        }
    }
}

/// An attribute, found once for a request.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'a> {
    /// A column of the index.
    Column(&'a [f64]),
    /// A reported count, 0 when absent.
    Count(&'a str),
    /// The host's name.
    Host,
    /// The node's name.
    Node,
    /// The provider's uuid.
    Uuid,
    /// The hypervisor type, else that of the report.
    HypervisorType,
    /// Reported, or nothing.
    Reported(&'a str),
}

impl<'a> Attribute<'a> {
    /// The attribute of this name; `None`: a host state has no such attribute.
    pub fn of(view: &View<'a>, name: &'a str) -> Option<Self> {
        let column = |number| Self::Column(view.host_numbers(number));
        Some(match name {
            "free_ram_mb" => column(HostNumber::FreeRamMb),
            "free_disk_mb" => column(HostNumber::FreeDiskMb),
            "vcpus_used" => column(HostNumber::VcpusUsed),
            "num_instances" => column(HostNumber::NumInstances),
            "num_io_ops" => column(HostNumber::NumIoOps),
            "total_usable_ram_mb" | "total_usable_disk_gb" | "disk_mb_used" | "vcpus_total" | "failed_builds" => {
                Self::Count(name)
            }
            "host" => Self::Host,
            "nodename" | "hypervisor_hostname" => Self::Node,
            "uuid" => Self::Uuid,
            "hypervisor_type" => Self::HypervisorType,
            _ if NAMES.contains(&name) => Self::Reported(name),
            _ => return None,
        })
    }

    /// Its value for a host.
    pub fn get(self, view: &View<'a>, row: Row) -> Option<Leaf<'a>> {
        let reported = |name| view.host_state(row).and_then(|state| state.attribute(name)).map(Leaf::Node);
        match self {
            Self::Column(column) => Some(Leaf::Whole(column.get(row.0 as usize).map_or(0, |&number| number as i64))),
            Self::Count(name) => Some(reported(name).unwrap_or(Leaf::Whole(0))),
            Self::Host => Some(Leaf::Text(view.host(row))),
            Self::Node => Some(Leaf::Text(view.names().text(view.provider(row)?.node?))),
            Self::Uuid => Some(Leaf::Uuid(view.provider(row)?.uuid)),
            Self::HypervisorType => reported("hypervisor_type").or_else(|| {
                let kind = view.provider(row)?.hypervisor_type?;
                Some(Leaf::Text(view.names().text(kind)))
            }),
            Self::Reported(name) => reported(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Leaf;

    #[test]
    fn whole_numbers_as_texts() {
        for number in [0, 7, -7, 1 << 53, -(1 << 53)] {
            Leaf::Whole(number).with_text(|text| assert_eq!(text, number.to_string()));
        }
    }
}
