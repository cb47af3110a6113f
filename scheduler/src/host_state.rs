//! What stock Nova's scheduler keeps of a host that Placement does not know: its `HostState`. A source
//! reports it as JSON; it is read once, when the report is applied, never for a request.
//!
//! Every field is optional. An absent one (or null) is what a fresh `HostState` has: 0 for the
//! counts, nothing for the rest. Name, node, aggregates and instances stand in the report itself.
//!
//! | key | value |
//! | --- | --- |
//! | `free_ram_mb`, `total_usable_ram_mb`, `free_disk_mb`, `disk_mb_used` | MiB |
//! | `total_usable_disk_gb` | GiB |
//! | `vcpus_total`, `vcpus_used`, `num_instances`, `num_io_ops`, `failed_builds` | counts |
//! | `hypervisor_version` | whole number, 1,000 for each part: 8002000 is 8.2.0 |
//! | `cpu_allocation_ratio`, `ram_allocation_ratio`, `disk_allocation_ratio` | factors |
//! | `hypervisor_type`, `host_ip`, `cell_uuid` | texts |
//! | `last_seen_up` | last sign of life of the compute service, milliseconds since 1970 |
//! | `supported_instances` | list of `[architecture, hypervisor type, VM mode]` |
//! | `cpu_info`, `stats` | maps (`cpu_info` also as JSON in a text) |
//! | `metrics` | list of `{name, value}` |
//! | `pci_stats` | list of pools of PCI devices: maps with a `count` |
//! | `numa_topology` | `{"cells": [...]}`, the fields of Nova's `NUMACell`, as they are in Nova's database too |
//! | `image_properties` | property → value → number of instances whose image has it |
//!
//! Source: openstack/nova, `nova/scheduler/host_manager.py`.

pub mod kinds;
pub mod node;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use kinds::Kind;
use node::Node;

use crate::numa::HostTopology;

/// Numbers that steps compare; columns of the index. Open claims that the host does not list yet are
/// charged as Nova charges a chosen host (`HostState.consume_from_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNumber {
    /// Free memory, MiB; less what is claimed.
    FreeRamMb,
    /// Free disk, MiB; less what is claimed.
    FreeDiskMb,
    /// VCPUs in use; claimed ones included.
    VcpusUsed,
    /// vcpus_total × cpu_allocation_ratio − vcpus in use.
    FreeVcpus,
    /// Instances; claims included.
    NumInstances,
    /// I/O operations in progress; one for each claim included.
    NumIoOps,
    /// Failed builds since the last good one.
    FailedBuilds,
    /// Version of the hypervisor.
    HypervisorVersion,
    /// Free PCI devices.
    FreePciDevices,
    /// Milliseconds between the last sign of life of the compute service and the report; 0 when it was not
    /// said.
    Silence,
}

/// Number of columns.
pub const HOST_NUMBERS: usize = HostNumber::Silence as usize + 1;

/// Keys with a whole number.
const WHOLE: [&str; 12] = [
    "total_usable_ram_mb",
    "total_usable_disk_gb",
    "disk_mb_used",
    "free_ram_mb",
    "free_disk_mb",
    "vcpus_total",
    "vcpus_used",
    "num_instances",
    "num_io_ops",
    "failed_builds",
    "hypervisor_version",
    "last_seen_up",
];
/// Keys with any number.
const RATIOS: [&str; 3] = ["cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio"];
/// Keys with a text.
const TEXTS: [&str; 3] = ["hypervisor_type", "host_ip", "cell_uuid"];
/// Keys that are read by functions of their own.
const OTHERS: [&str; 7] =
    ["supported_instances", "cpu_info", "stats", "metrics", "pci_stats", "image_properties", "numa_topology"];
/// Largest whole number, either way: above it a float would skip some.
const LARGEST: i64 = 1 << 53;
/// Longest text of a host state, bytes.
pub const LONGEST: usize = 64 * 1024;
/// Deepest nesting of `cpu_info` and `stats`.
const DEEPEST: usize = 8;

/// A kind of guest that a host can run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supported {
    /// Architecture, hypervisor type and VM mode.
    pub triple: [Box<str>; 3],
}

/// Attributes, by name.
type Attributes = Vec<(Box<str>, Node)>;

fn find<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a Node> {
    let at = attributes.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
    Some(&attributes[at].1)
}

/// A pool of equal PCI devices.
#[derive(Clone, Debug, PartialEq)]
pub struct PciPool {
    /// Free devices.
    pub count: u64,
    /// Everything else, by key.
    pub properties: Vec<(Box<str>, Node)>,
}

/// A read host state.
#[derive(Clone, Debug)]
pub struct HostState {
    text: Arc<str>,
    /// What many hosts have in common.
    pub(crate) kind: Arc<Kind>,
    /// Attributes that are not in the kind, by name.
    own: Attributes,
    /// Metrics by name, each once.
    pub metrics: Vec<(Box<str>, f64)>,
    /// PCI pools; `None`: not said.
    pub pci: Option<Vec<PciPool>>,
    /// NUMA cells; `None`: not said.
    pub numa: Option<HostTopology>,
    /// Last sign of life of the compute service, milliseconds since 1970.
    pub last_seen_up: Option<i64>,
    /// Address of the host.
    pub host_ip: Option<IpAddr>,
    /// Property, value and number of instances.
    pub image_properties: Vec<(Box<str>, Box<str>, u64)>,
}

impl PartialEq for HostState {
    /// Equal when the texts are: the rest is read from them.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn words(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn wrong(path: &str, value: &Value, expected: &str) -> String {
    format!("nova_host_state.{path}: {} given, {expected} expected", words(value))
}

impl HostState {
    /// Reads a host state; the error names the key, what was given and what was expected.
    pub fn read(text: &Arc<str>) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("nova_host_state: {} bytes given, at most {LONGEST} expected", text.len()));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("nova_host_state: a JSON object expected, but it cannot be read: {error}"))?;
        let Value::Object(map) = value else {
            return Err(format!("nova_host_state: {} given, a JSON object expected", words(&value)));
        };
        let mut out = Self {
            text: Arc::clone(text),
            kind: Arc::default(),
            own: Vec::new(),
            metrics: Vec::new(),
            pci: None,
            numa: None,
            last_seen_up: None,
            host_ip: None,
            image_properties: Vec::new(),
        };
        let mut kind = Kind::default();
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            out.field(&mut kind, key, value)?;
        }
        let attributes = map
            .into_iter()
            .filter(|(key, value)| !value.is_null() && !OTHERS[3..].contains(&key.as_str()))
            .map(|(key, value)| (key.into_boxed_str(), Node::of(value)));
        (kind.attributes, out.own) = attributes.partition(|(key, _)| Kind::has(key));
        kind.attributes.sort_by(|a, b| a.0.cmp(&b.0));
        out.own.sort_by(|a, b| a.0.cmp(&b.0));
        out.kind = Arc::new(kind);
        Ok(out)
    }

    fn field(&mut self, kind: &mut Kind, key: &str, value: &Value) -> Result<(), String> {
        match key {
            _ if WHOLE.contains(&key) => {
                let number = value.as_i64().filter(|number| (-LARGEST..=LARGEST).contains(number));
                let number = number.ok_or_else(|| wrong(key, value, "a whole number"))?;
                if key == "last_seen_up" {
                    self.last_seen_up = Some(number);
                }
                Ok(())
            }
            _ if RATIOS.contains(&key) => {
                let good = value.as_f64().is_some_and(|number| number.is_finite() && number >= 0.0);
                good.then_some(()).ok_or_else(|| wrong(key, value, "a number of at least 0"))
            }
            _ if TEXTS.contains(&key) => {
                let text = value.as_str().ok_or_else(|| wrong(key, value, "a text"))?;
                if key == "host_ip" {
                    self.host_ip = Some(text.parse().map_err(|_| wrong(key, value, "an IP address"))?);
                }
                Ok(())
            }
            "supported_instances" => {
                let read = |item: &Value| -> Option<Supported> {
                    let texts: Vec<&str> = item.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
                    let [arch, kind, mode] = texts.as_slice() else { return None };
                    Some(Supported { triple: [(*arch).into(), (*kind).into(), (*mode).into()] })
                };
                let list = value.as_array().map(|list| list.iter().map(read).collect::<Option<Vec<_>>>());
                let expected = "a list of [architecture, hypervisor type, VM mode]";
                kind.supported = Some(list.flatten().ok_or_else(|| wrong(key, value, expected))?);
                Ok(())
            }
            "cpu_info" | "stats" => {
                let map = match value {
                    Value::Object(_) => true,
                    Value::String(text) if key == "cpu_info" => {
                        serde_json::from_str::<Value>(text).is_ok_and(|inner| inner.is_object())
                    }
                    _ => false,
                };
                if !map {
                    return Err(wrong(key, value, "a map"));
                }
                if depth(value) > DEEPEST {
                    return Err(format!("nova_host_state.{key}: nested deeper than {DEEPEST} given"));
                }
                Ok(())
            }
            "metrics" => {
                let expected = "a list of {name, value}";
                for metric in value.as_array().ok_or_else(|| wrong(key, value, expected))? {
                    let name = metric.get("name").and_then(Value::as_str);
                    let number = metric.get("value").and_then(Value::as_f64);
                    let (Some(name), Some(number)) = (name, number) else { return Err(wrong(key, metric, expected)) };
                    self.metrics.retain(|(known, _)| **known != *name);
                    self.metrics.push((name.into(), number));
                }
                Ok(())
            }
            "pci_stats" => {
                let pools = value.as_array().ok_or_else(|| wrong(key, value, "a list of pools"))?;
                let mut pools = pools.iter().map(pool).collect::<Result<Vec<_>, _>>()?;
                // Nova takes devices of plain pools first.
                pools.sort_by_key(|pool| pool.properties.len());
                self.pci = Some(pools);
                Ok(())
            }
            "numa_topology" => {
                let read = HostTopology::read(value);
                self.numa = Some(read.map_err(|(place, expected)| wrong(&format!("{key}{place}"), value, expected))?);
                Ok(())
            }
            "image_properties" => {
                let expected = "a map of property → value → number of instances";
                for (name, values) in value.as_object().ok_or_else(|| wrong(key, value, expected))? {
                    for (text, count) in values.as_object().ok_or_else(|| wrong(key, values, expected))? {
                        let count = count.as_u64().ok_or_else(|| wrong(key, count, expected))?;
                        self.image_properties.push((name.as_str().into(), text.as_str().into(), count));
                    }
                }
                Ok(())
            }
            _ => {
                let known = [&WHOLE[..], &RATIOS, &TEXTS, &OTHERS].concat();
                Err(format!(
                    "nova_host_state.{}: unknown key, one of {} expected",
                    key.escape_debug(),
                    known.join(", ")
                ))
            }
        }
    }

    /// The text it was read from.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// An attribute as it was reported.
    pub fn attribute(&self, name: &str) -> Option<&Node> {
        if Kind::has(name) { self.kind.attribute(name) } else { find(&self.own, name) }
    }

    /// What many hosts have in common.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// A reported number, 0 when absent.
    pub fn number(&self, name: &str) -> f64 {
        self.attribute(name).and_then(Node::number).unwrap_or(0.0)
    }

    /// The numbers of the columns: as reported at `observed_at`, and charged with open claims.
    pub(crate) fn numbers(&self, open: Open, observed_at: u64) -> [f64; HOST_NUMBERS] {
        let vcpus_used = self.number("vcpus_used") + open.vcpus as f64;
        // A host that says no ratio offers its VCPUs once.
        let ratio = self.attribute("cpu_allocation_ratio").and_then(Node::number).unwrap_or(1.0);
        let mut out = [0.0; HOST_NUMBERS];
        for (number, value) in [
            (HostNumber::FreeRamMb, self.number("free_ram_mb") - open.memory_mb as f64),
            (HostNumber::FreeDiskMb, self.number("free_disk_mb") - open.disk_gb as f64 * 1024.0),
            (HostNumber::VcpusUsed, vcpus_used),
            (HostNumber::FreeVcpus, self.number("vcpus_total") * ratio - vcpus_used),
            (HostNumber::NumInstances, self.number("num_instances") + open.claims as f64),
            (HostNumber::NumIoOps, self.number("num_io_ops") + open.claims as f64),
            (HostNumber::FailedBuilds, self.number("failed_builds")),
            (HostNumber::HypervisorVersion, self.number("hypervisor_version")),
            (HostNumber::FreePciDevices, self.pci.iter().flatten().map(|pool| pool.count as f64).sum()),
            (HostNumber::Silence, self.last_seen_up.map_or(0, |seen| (observed_at as i64).abs_diff(seen)) as f64),
        ] {
            out[number as usize] = value;
        }
        out
    }
}

/// What open claims, not listed by the host yet, take of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    pub claims: u64,
    pub vcpus: u64,
    pub memory_mb: u64,
    pub disk_gb: u64,
}

fn pool(value: &Value) -> Result<PciPool, String> {
    let expected = "a map with a count";
    let map: &Map<String, Value> = value.as_object().ok_or_else(|| wrong("pci_stats", value, expected))?;
    let count = map.get("count").and_then(Value::as_u64).filter(|count| *count <= LARGEST as u64);
    let count = count.ok_or_else(|| wrong("pci_stats", value, expected))?;
    if depth(value) > DEEPEST {
        return Err(format!("nova_host_state.pci_stats: nested deeper than {DEEPEST} given"));
    }
    let others = map.iter().filter(|(key, _)| *key != "count");
    Ok(PciPool {
        count,
        properties: others.map(|(key, value)| (key.as_str().into(), Node::of(value.clone()))).collect(),
    })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::String(text) if text.starts_with('{') => match serde_json::from_str::<Value>(text) {
            Ok(inner @ Value::Object(_)) => 1 + depth(&inner),
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{HostNumber, HostState, Open};
    use std::sync::Arc;

    fn read(text: &str) -> Result<HostState, String> {
        HostState::read(&Arc::from(text))
    }

    #[test]
    fn numbers_are_charged_with_open_claims() {
        let state = read(
            r#"{"free_ram_mb": 1000, "free_disk_mb": 4096, "vcpus_total": 4, "vcpus_used": 1,
                "cpu_allocation_ratio": 2.0, "num_instances": 2, "hypervisor_version": null,
                "pci_stats": [{"count": 2}, {"count": 3, "vendor_id": "8086"}]}"#,
        )
        .expect("a good state");
        let numbers = state.numbers(Open { claims: 1, vcpus: 2, memory_mb: 1500, disk_gb: 1 }, 0);
        for (number, wanted) in [
            (HostNumber::FreeRamMb, -500.0),
            (HostNumber::FreeDiskMb, 3072.0),
            (HostNumber::FreeVcpus, 5.0),
            (HostNumber::VcpusUsed, 3.0),
            (HostNumber::NumInstances, 3.0),
            (HostNumber::NumIoOps, 1.0),
            (HostNumber::HypervisorVersion, 0.0),
            (HostNumber::FreePciDevices, 5.0),
        ] {
            assert_eq!(numbers[number as usize].to_bits(), f64::to_bits(wanted), "{number:?}");
        }
    }

    /// Snapshots of versions that kept a `String` are read as before.
    #[test]
    fn the_format_is_that_of_a_string() {
        let text = Some("{\"num_io_ops\":3}");
        assert_eq!(bitcode::encode(&text.map(Arc::<str>::from)), bitcode::encode(&text.map(str::to_owned)));
    }

    #[test]
    fn bad_states_are_named() {
        for (text, wanted) in [
            ("[]", "nova_host_state: [] given, a JSON object expected"),
            (r#"{"num_io_ops": "3"}"#, "nova_host_state.num_io_ops: \"3\" given, a whole number expected"),
            (r#"{"num_io_ops": 1.5}"#, "nova_host_state.num_io_ops: 1.5 given, a whole number expected"),
            (
                r#"{"free_ram_mb": 9007199254740993}"#,
                "nova_host_state.free_ram_mb: 9007199254740993 given, a whole number expected",
            ),
            (
                r#"{"cpu_allocation_ratio": -1}"#,
                "nova_host_state.cpu_allocation_ratio: -1 given, a number of at least 0 expected",
            ),
            (r#"{"host_ip": "10.0.0"}"#, "nova_host_state.host_ip: \"10.0.0\" given, an IP address expected"),
            (
                r#"{"supported_instances": [["x86_64", "kvm"]]}"#,
                "nova_host_state.supported_instances: [[\"x86_64\",\"kvm\"]] given, a list of [architecture, hypervisor type, VM mode] expected",
            ),
            (r#"{"cpu_info": "no"}"#, "nova_host_state.cpu_info: \"no\" given, a map expected"),
            (
                r#"{"stats": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}"#,
                "nova_host_state.stats: nested deeper than 8 given",
            ),
            (
                r#"{"metrics": [{"name": "a"}]}"#,
                "nova_host_state.metrics: {\"name\":\"a\"} given, a list of {name, value} expected",
            ),
            (
                r#"{"numa_topology": {"cells": [{"cpuset": [0, "x"]}]}}"#,
                "nova_host_state.numa_topology.cells[0].cpuset: {\"cells\":[{\"cpuset\":[0,\"x\"]}]} given, a list of CPUs expected",
            ),
            (r#"{"pci_stats": [{}]}"#, "nova_host_state.pci_stats: {} given, a map with a count expected"),
        ] {
            assert_eq!(read(text).expect_err(text), wanted);
        }
        let error = read(r#"{"num_io_op": 3}"#).expect_err("a bad key");
        assert!(error.starts_with("nova_host_state.num_io_op: unknown key, one of total_usable_ram_mb,"), "{error}");
        assert!(read("{").expect_err("no JSON").starts_with("nova_host_state: a JSON object expected"));
        assert!(
            read(&format!("{{\"stats\": \"{}\"}}", "x".repeat(70_000))).expect_err("long").contains("at most 65536")
        );
    }
}
