//! A whole file: what kind it is, every host in it, and everything that is wrong with it. Nothing
//! is returned of a file that has an error.

use std::collections::BTreeMap;
use std::fmt;

use scheduler::HostReport;
use serde_json::Value;
use uuid::Uuid;

use crate::document::{Documents, Step, path_steps, path_text};
use crate::reader::{Fault, Place, Reader};
use crate::{fleet, hypervisor};

/// Errors that are told; the rest is counted.
const MOST_ERRORS: usize = 20;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// What it is.
    pub kind: Kind,
    /// One report for each host, in the order of the file.
    pub reports: Vec<HostReport>,
    /// Resources that were left out.
    pub skipped: Vec<Skipped>,
    /// What a person should know, though it is no error.
    pub notes: Vec<String>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kubernetes resources.
    Hypervisors,
    /// A fleet file.
    Fleet,
    /// Documents of both kinds.
    Mixed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hypervisors => "Hypervisor resources",
            Self::Fleet => "fleet file",
            Self::Mixed => "Hypervisor resources and fleet file",
        })
    }
}

/// Resources of one kind that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Their kind.
    pub kind: String,
    /// Their apiVersion.
    pub api_version: String,
    /// How many.
    pub count: usize,
    /// True: a kind that pallium will use; false: one that it does not know.
    pub known: bool,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, api_version, count, known } = self;
        let why = if *known { "not used yet" } else { "not a kind that pallium knows" };
        write!(f, "{count} {kind} ({api_version}): {why}")
    }
}

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ImportError {
    /// Line from 1.
    pub line: Option<usize>,
    /// Field, as in `hosts[3].inventories.VCPU.total`; empty for the file as a whole.
    pub path: String,
    /// What was given, what was expected.
    pub message: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Kinds that come with later capabilities (`resources.md`).
const LATER: [&str; 13] = [
    "Datasource",
    "Knowledge",
    "KPI",
    "Pipeline",
    "Decision",
    "History",
    "Descheduling",
    "Reservation",
    "CommittedResource",
    "FlavorGroupCapacity",
    "ProjectQuota",
    "Eviction",
    "Migration",
];
const LATER_GROUPS: [&str; 4] = ["cortex.cloud/", "cortex.c5c3.io/", "kvm.cloud.sap/", "hypervisor.c5c3.io/"];

/// A report and where it stands.
struct Found {
    report: HostReport,
    tree: usize,
    path: Vec<Step>,
    is_resource: bool,
}

#[derive(Default)]
struct Stream {
    reader: Reader,
    found: Vec<Found>,
    skipped: BTreeMap<(String, String), (usize, bool)>,
    fleets: usize,
    resources: usize,
}

/// Reads a file of hosts: Kubernetes resources or a fleet file, told apart by content.
pub fn read(text: &str) -> Result<Import, Vec<ImportError>> {
    let documents = Documents::parse(text).map_err(|error| {
        vec![ImportError {
            line: error.line,
            path: String::new(),
            message: format!("no YAML or JSON: {}", error.message),
        }]
    })?;
    if documents.trees.is_empty() {
        let message = "the file is empty: a fleet file (hosts: …) or Hypervisor resources expected".to_owned();
        return Err(vec![ImportError { line: None, path: String::new(), message }]);
    }
    let mut stream = Stream::default();
    for (at, tree) in documents.trees.iter().enumerate() {
        stream.reader.tree = at;
        if fleet::is_fleet(tree) {
            stream.fleets += 1;
            let hosts = fleet::read(&mut stream.reader, tree);
            stream.found.extend(hosts.into_iter().map(|(report, position)| Found {
                report,
                tree: at,
                path: vec![Step::Key("hosts".to_owned()), Step::Item(position)],
                is_resource: false,
            }));
        } else {
            resource(&mut stream, tree, &Place::Root);
        }
    }
    let mut notes = Vec::new();
    let Stream { reader, found, skipped, fleets, resources } = stream;
    let mut faults = reader.faults;
    check(&found, &mut faults, &mut notes);
    if !faults.is_empty() {
        return Err(told(&documents, faults));
    }
    let kind = match (fleets, resources) {
        (0, _) => Kind::Hypervisors,
        (_, 0) => Kind::Fleet,
        _ => Kind::Mixed,
    };
    let skipped = skipped
        .into_iter()
        .map(|((kind, api_version), (count, known))| Skipped { kind, api_version, count, known })
        .collect();
    Ok(Import { kind, reports: found.into_iter().map(|found| found.report).collect(), skipped, notes })
}

/// One Kubernetes resource, or a list of them.
fn resource(stream: &mut Stream, tree: &Value, at: &Place<'_>) {
    let word = |key: &str| tree.get(key).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (word("apiVersion"), word("kind")) else {
        let what = if tree.is_object() {
            "neither a fleet file (a map with 'hosts') nor a Kubernetes resource (with 'apiVersion' and 'kind')"
        } else {
            "a fleet file (a map with 'hosts') or Kubernetes resources expected"
        };
        stream.reader.fault(at, what);
        return;
    };
    stream.resources += 1;
    if (version == "v1" && kind == "List") || (kind == "HypervisorList" && hypervisor::VERSIONS.contains(&version)) {
        let Some(fields) = stream.reader.fields(tree, at) else { return };
        let items_at = Place::Key(at, "items");
        for (position, item) in stream.reader.list(fields, "items").unwrap_or_default().iter().enumerate() {
            let at = Place::Item(&items_at, position);
            if kind == "HypervisorList" && item.get("kind").is_none() {
                one(stream, item, &at);
            } else {
                resource(stream, item, &at);
            }
        }
    } else if kind == "Hypervisor" && hypervisor::VERSIONS.contains(&version) {
        one(stream, tree, at);
    } else {
        let known = LATER.contains(&kind) && LATER_GROUPS.iter().any(|group| version.starts_with(group));
        let count = stream.skipped.entry((kind.to_owned(), version.to_owned())).or_insert((0, known));
        count.0 += 1;
    }
}

fn one(stream: &mut Stream, tree: &Value, at: &Place<'_>) {
    if let Some(report) = hypervisor::read(&mut stream.reader, tree, at) {
        stream.found.push(Found { report, tree: stream.reader.tree, path: at.steps(), is_resource: true });
    }
}

/// What no host can be asked alone, and the rules of a report.
fn check(found: &[Found], faults: &mut Vec<Fault>, notes: &mut Vec<String>) {
    let mut names = BTreeMap::new();
    let mut providers: BTreeMap<Uuid, &Found> = BTreeMap::new();
    let mut instances: BTreeMap<(scheduler::Domain, Uuid), &Found> = BTreeMap::new();
    let mut moving = 0usize;
    let mut example = String::new();
    let fault = |host: &Found, inner: &str, message: String| {
        let mut path = host.path.clone();
        path.extend(path_steps(inner));
        Fault { tree: host.tree, path, message }
    };
    for host in found {
        let report = &host.report;
        let has_fault = faults.iter().any(|f| f.tree == host.tree && f.path.starts_with(&host.path));
        if let Err(error) = report.validate()
            && !has_fault
        {
            let (inner, message) = error.split_once(": ").unwrap_or(("", &error));
            // A resource has other field names than a report: there the message keeps its field.
            faults.push(if host.is_resource { fault(host, "", error) } else { fault(host, inner, message.to_owned()) });
        }
        let key = (report.domain, report.name.to_ascii_lowercase(), report.hypervisor_hostname.clone());
        if names.insert(key, host).is_some() {
            let node = report.hypervisor_hostname.as_ref().map(|node| format!(" (node '{node}')")).unwrap_or_default();
            let field = if host.is_resource { "metadata.name" } else { "name" };
            faults.push(fault(host, field, format!("host '{}'{node} is in the file twice", report.name)));
        }
        if let Some(uuid) = report.uuid
            && let Some(other) = providers.insert(uuid, host)
        {
            let field = if host.is_resource { "status.hypervisorId" } else { "uuid" };
            faults.push(fault(host, field, format!("{uuid} is the uuid of host '{}' too", other.report.name)));
        }
        for (at, instance) in report.instances.iter().flatten().enumerate() {
            let Some(other) = instances.insert((report.domain, instance.uuid), host) else { continue };
            if std::ptr::eq(other, host) {
                continue;
            }
            if host.is_resource && other.is_resource {
                moving += 1;
                example = format!("{} on '{}' and '{}'", instance.uuid, other.report.name, report.name);
            } else {
                let message = format!("instance {} is on host '{}' too", instance.uuid, other.report.name);
                faults.push(fault(host, &format!("instances[{at}].uuid"), message));
            }
        }
    }
    // While it migrates live, an instance is listed by both hypervisors.
    match moving {
        0 => {}
        1 => notes.push(format!("one instance is listed by two hosts, taken as a move under way: {example}")),
        _ => notes.push(format!("{moving} instances are listed by two hosts, taken as moves: the last is {example}")),
    }
}

/// The first errors, with lines.
fn told(documents: &Documents<'_>, mut faults: Vec<Fault>) -> Vec<ImportError> {
    faults.sort_by(|a, b| (a.tree, &a.path).cmp(&(b.tree, &b.path)));
    let more = faults.len().saturating_sub(MOST_ERRORS);
    let mut out: Vec<ImportError> = faults
        .into_iter()
        .take(MOST_ERRORS)
        .map(|fault| ImportError {
            line: documents.line(fault.tree, &fault.path),
            path: path_text(&fault.path),
            message: fault.message,
        })
        .collect();
    if more > 0 {
        out.push(ImportError { line: None, path: String::new(), message: format!("and {more} more errors") });
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FLEET: &str = "\
domain: nova
hosts:
  - name: node-001
    hypervisor_hostname: node-001.example
    availability_zone: az-a
    hypervisor_type: qemu
    inventories: { VCPU: {total: 128, allocation_ratio: 2.0, reserved: 4}, MEMORY_MB: {total: 1048576, reserved: 8192}, DISK_GB: {total: 4000} }
    traits: [HW_CPU_X86_AVX2, CUSTOM_DECOMMISSIONING]
    aggregates: [{name: agg-1, uuid: f5be0a8c-63c7-4da1-9f44-2f72d5140be0, metadata: {ssd: \"true\"}}]
    conditions: {Ready: True, Tainted: False}
    features: [sev]
    nova_host_state: {num_io_ops: 3}
    numa: [{id: 0, cpus: 64, memory_mb: 524288}]
    instances: [{uuid: 198d1710-5a6c-4990-8a9f-9ea722780747, project_id: p, resources: {VCPU: 4, MEMORY_MB: 8192}, flavor: m1.large}]
  - name: node-002
";

    #[test]
    fn reads_a_fleet_file() {
        let import = read(FLEET).unwrap();
        assert_eq!((import.kind, import.reports.len()), (Kind::Fleet, 2));
        let host = &import.reports[0];
        assert_eq!(host.inventories.as_ref().unwrap()["VCPU"].capacity(), 248);
        assert_eq!(host.conditions.as_ref().unwrap()["Ready"], "True");
        assert_eq!(host.cpu_features.as_ref().unwrap(), &["sev"]);
        assert_eq!(host.nova_host_state.as_deref(), Some("{\"num_io_ops\":3}"));
        assert_eq!(host.instances.as_ref().unwrap()[0].resources.as_ref().unwrap()["VCPU"], 4);
        assert_eq!(import.reports[1], HostReport { name: "node-002".to_owned(), ..HostReport::default() });
        let json = serde_json::to_string(&serde_norway::from_str::<Value>(FLEET).unwrap()).unwrap();
        assert_eq!(read(&json).unwrap(), import);
    }

    /// Each case: the text to change in FLEET, the change, and what is told.
    #[test]
    fn errors_name_line_and_field() {
        for (from, to, want) in [
            ("node-002", "b\n    domain: glance", "line 16: hosts[1].domain: unknown domain 'glance'"),
            ("node-002", "b\n    colour: red", "line 16: hosts[1].colour: unknown key, see 'pallium schema'"),
            (
                "total: 128",
                "total: -1",
                "line 7: hosts[0].inventories.VCPU.total: a whole number of at least 0 expected, -1 given",
            ),
            (
                "total: 128",
                "totl: 128",
                "line 7: hosts[0].inventories.VCPU.total: missing\nline 7: hosts[0].inventories.VCPU.totl: unknown key, did you mean 'total'?",
            ),
            (
                "availability_zone",
                "availabilty_zone",
                "line 5: hosts[0].availabilty_zone: unknown key, did you mean 'availability_zone'?",
            ),
            (
                "ratio: 2.0",
                "ratio: 0",
                "line 7: hosts[0].inventories.VCPU.allocation_ratio: 0 given, a finite number above 0 expected",
            ),
            (
                "Ready: True",
                "Ready: Yes",
                "line 10: hosts[0].conditions.Ready: 'Yes' given, True, False or Unknown expected",
            ),
            (
                "\"true\"",
                "true",
                "line 9: hosts[0].aggregates[0].metadata.ssd: text expected, true given: put it in quotes",
            ),
            (
                "198d1710-5a6c",
                "198d1710-5a6",
                "line 14: hosts[0].instances[0].uuid: a uuid expected, '198d1710-5a6-4990-8a9f-9ea722780747' given",
            ),
            (
                "  - name: node-002",
                "  - nam: x",
                "line 15: hosts[1].nam: unknown key, did you mean 'name'?\nline 15: hosts[1].name: missing",
            ),
            ("  - name: node-002", "  - name: ''", "line 15: hosts[1].name: 0 bytes given, 1 to 255 expected"),
            ("  - name: node-002", "  - just-a-name", "line 15: hosts[1]: a map expected, 'just-a-name' given"),
            (
                "node-002",
                "NODE-001\n    hypervisor_hostname: node-001.example",
                "line 15: hosts[1].name: host 'NODE-001' (node 'node-001.example') is in the file twice",
            ),
            (
                "node-002",
                "b\n    instances: [{uuid: 198d1710-5a6c-4990-8a9f-9ea722780747}]",
                "line 16: hosts[1].instances[0].uuid: instance 198d1710-5a6c-4990-8a9f-9ea722780747 is on host 'node-001' too",
            ),
            (
                "domain: nova",
                "domain: glance",
                "line 1: domain: unknown domain 'glance': expected nova, cinder, manila, machines or pods",
            ),
            (
                "VCPU: 4",
                "vcpu: 4",
                "line 14: hosts[0].instances[0].resources: 'vcpu' is no resource class: A-Z, 0-9 and _ expected, as in MEMORY_MB",
            ),
            (
                "sev]",
                "sev",
                "line 12: no YAML or JSON: did not find expected ',' or ']', while parsing a flow sequence at line 11 column 15",
            ),
        ] {
            let text = FLEET.replacen(from, to, 1);
            assert_ne!(text, FLEET, "{from}");
            let errors = read(&text).unwrap_err();
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(told.join("\n").starts_with(want), "wanted\n{want}\ngot\n{}", told.join("\n"));
        }
    }

    #[test]
    fn tells_twenty_errors_and_counts_the_rest() {
        let mut text = "hosts:\n".to_owned();
        for _ in 0..25 {
            text.push_str("  - nme: x\n");
        }
        let errors = read(&text).unwrap_err();
        assert_eq!(errors.len(), 21);
        assert_eq!(errors[20].to_string(), "and 30 more errors");
    }

    fn hypervisor(name: &str, instance: &str) -> String {
        format!(
            "apiVersion: kvm.cloud.sap/v1\nkind: Hypervisor\nmetadata:\n  name: {name}\nstatus:\n  \
             capacity:\n    cpu: \"64\"\n    memory: 512Gi\n  instances:\n  - id: {instance}\n"
        )
    }

    #[test]
    fn reads_kubernetes_streams() {
        let (a, b) = ("198d1710-5a6c-4990-8a9f-9ea722780747", "1d30dab6-de95-4b2d-83de-04c6d01a6975");
        let text = format!(
            "---\n{}---\n{}---\napiVersion: cortex.cloud/v1alpha1\nkind: Reservation\n---\napiVersion: v1\nkind: ConfigMap\n",
            hypervisor("n1", a),
            hypervisor("n2", b)
        );
        let import = read(&text).unwrap();
        assert_eq!((import.kind, import.reports.len(), import.notes.len()), (Kind::Hypervisors, 2, 0));
        let skipped: Vec<String> = import.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            skipped,
            ["1 ConfigMap (v1): not a kind that pallium knows", "1 Reservation (cortex.cloud/v1alpha1): not used yet"]
        );
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
            serde_norway::from_str::<Value>(&hypervisor("n1", a)).unwrap(),
            serde_norway::from_str::<Value>(&hypervisor("n2", a)).unwrap(),
        ]});
        let import = read(&serde_json::to_string_pretty(&list).unwrap()).unwrap();
        assert_eq!((import.reports.len(), import.notes.len()), (2, 1));
    }

    #[test]
    fn kubernetes_errors_name_line_and_field() {
        let uuid = "198d1710-5a6c-4990-8a9f-9ea722780747";
        let bad = hypervisor("n2", uuid).replace("512Gi", "512Gb");
        let errors = read(&format!("{}---\n{bad}", hypervisor("n1", uuid))).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].to_string().starts_with("line 19: status.capacity.memory: '512Gb' is no quantity"),
            "{errors:?}"
        );
        let errors = read(&format!("{0}---\n{0}", hypervisor("n1", uuid))).unwrap_err();
        assert_eq!(errors[0].to_string(), "line 15: metadata.name: host 'n1' is in the file twice");
        for (text, want) in [
            ("", "the file is empty"),
            ("Error from server (NotFound)", "a fleet file (a map with 'hosts') or Kubernetes resources expected"),
            ("a: 1", "line 1: neither a fleet file"),
        ] {
            let told = read(text).unwrap_err()[0].to_string();
            assert!(told.contains(want), "{told}");
        }
    }
}
