//! The body of Nova's external scheduler hook, in all three of its generations, made into a
//! [`Request`]. Pure translation: what a request means for the state is decided elsewhere.
//!
//! Read as Nova writes it: every object is wrapped (`nova_object.data`), null and absent are one,
//! unknown fields are skipped. What is skipped is never kept: connection strings of a cell mapping,
//! tokens and catalogs of a context reach no request, no log and no history. Source:
//! `sapcc/nova:nova/scheduler/external.py`, `nova/objects/request_spec.py`,
//! `nova/scheduler/utils.py` (`ResourceRequest`).
//!
//! Amounts: VCPU = vcpus, MEMORY_MB = memory_mb (MiB), DISK_GB = ephemeral_gb + ⌈swap MiB / 1024⌉ +
//! root_gb unless the server boots from a volume (GiB). An extra spec `resources:CLASS=N` replaces the
//! amount of its class, as in Nova; numbered groups (`resources1:…`) ask for other providers than
//! the host and are not read. A class whose amount is 0 is left out.

use std::collections::BTreeMap;
use std::fmt;

use scheduler::numa::{CELLS, CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
use scheduler::request::{Destination, Group, GroupPolicy, PciRequest, Request};
use scheduler::{Domain, Intent};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::body::{BadRequest, Object, Text, filled, shortened, split};

/// Reads one body.
pub fn translate(body: &[u8]) -> Result<Request, BadRequest> {
    let (spec, around) = split::<Wrapped<Spec<'_>>>(body, Domain::Nova)?;
    let spec = spec
        .and_then(Wrapped::data)
        .ok_or_else(|| BadRequest::at("spec", "absent, a RequestSpec expected: this is no scheduling request"))?;
    let flavor = spec
        .flavor
        .and_then(Wrapped::data)
        .ok_or_else(|| BadRequest::at("spec.flavor", "absent, a Flavor expected: this is no scheduling request"))?;
    let uuid = spec.instance_uuid.as_ref().map_or("", |uuid| &*uuid.0);
    let consumer = Uuid::try_parse(uuid)
        .map_err(|_| BadRequest::at("spec.instance_uuid", format!("'{}' given, a uuid expected", shortened(uuid))))?;

    let hints: BTreeMap<String, Vec<String>> =
        spec.scheduler_hints.unwrap_or_default().into_iter().filter_map(|(key, hint)| Some((key, hint.0?))).collect();
    let hint = |key: &str| hints.get(key).and_then(|values| values.first());
    let label = hint("_nova_check_type").map(|label| Intent::from_label(label));
    let source_host = hint("source_host").cloned();

    let extra_specs: BTreeMap<String, String> =
        flavor.extra_specs.unwrap_or_default().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let swap = flavor.swap.unwrap_or(0).div_ceil(1024);
    let root = if spec.is_bfv == Some(true) { 0 } else { flavor.root_gb.unwrap_or(0) };
    let disk = flavor.ephemeral_gb.unwrap_or(0).saturating_add(swap).saturating_add(root);
    // Nova always says these two; taken as nothing, a body of another shape would overcommit in silence.
    let said = |path: &'static str, amount: Option<u64>| {
        amount.ok_or_else(|| BadRequest::at(path, "absent, a number expected: a flavor says it"))
    };
    let mut resources = BTreeMap::from([
        ("VCPU".to_owned(), said("spec.flavor.vcpus", flavor.vcpus)?),
        ("MEMORY_MB".to_owned(), said("spec.flavor.memory_mb", flavor.memory_mb)?),
        ("DISK_GB".to_owned(), disk),
    ]);
    let (mut required_traits, mut forbidden_traits) = (Vec::new(), Vec::new());
    for (key, value) in &extra_specs {
        if let Some(class) = key.strip_prefix("resources:") {
            if let Ok(amount) = value.trim().parse()
                && scheduler::report::class(class).is_ok()
            {
                resources.insert(class.to_owned(), amount);
            }
        } else if let Some(name) = key.strip_prefix("trait:") {
            match value.as_str() {
                "required" => required_traits.push(name.to_owned()),
                "forbidden" => forbidden_traits.push(name.to_owned()),
                _ => {}
            }
        }
    }
    resources.retain(|_, amount| *amount > 0);

    let image = spec.image.and_then(Wrapped::data).unwrap_or_default();
    let image_id = filled(image.id);
    let image = image.properties.and_then(Wrapped::data).unwrap_or_default();
    for name in image.traits_required {
        if !required_traits.contains(&name) {
            required_traits.push(name);
        }
    }

    Ok(Request {
        consumers: vec![consumer],
        project: filled(spec.project_id),
        user: filled(spec.user_id),
        label,
        source_host,
        resources,
        flavor: filled(flavor.name),
        extra_specs,
        image: image_id,
        image_properties: image.texts,
        required_traits,
        forbidden_traits,
        zone: filled(spec.availability_zone),
        ignore_hosts: spec.ignore_hosts.unwrap_or_default(),
        retry_hosts: spec.retry.and_then(|retry| retry.data()?.hosts).map(|hosts| hosts.0).unwrap_or_default(),
        force_hosts: spec.force_hosts.unwrap_or_default(),
        force_nodes: spec.force_nodes.unwrap_or_default(),
        destination: spec.requested_destination.and_then(Wrapped::data).map(destination).unwrap_or_default(),
        group: spec.instance_group.and_then(Wrapped::data).map(group),
        hints,
        pci: spec.pci_requests.and_then(|requests| requests.data()?.requests).map(pci).unwrap_or_default(),
        numa: numa(spec.numa_topology, spec.network_metadata)?,
        num_instances: spec.num_instances.unwrap_or(1),
        ..around
    })
}

fn destination(to: DestinationData) -> Destination {
    let set = |text: String| -> Vec<String> {
        text.split(',').map(str::trim).filter(|uuid| !uuid.is_empty()).map(str::to_owned).collect()
    };
    Destination {
        host: filled(to.host),
        node: filled(to.node),
        aggregates: to.aggregates.unwrap_or_default().into_iter().map(set).filter(|set| !set.is_empty()).collect(),
        forbidden_aggregates: to.forbidden_aggregates.unwrap_or_default(),
        cell_named: to.cell.is_some(),
        preferred_cell: to
            .cell
            .filter(|_| to.allow_cross_cell_move == Some(true))
            .and_then(|cell| filled(cell.data()?.uuid)),
    }
}

fn pci(requests: Vec<Wrapped<PciRequestData>>) -> Vec<PciRequest> {
    let read = |request: PciRequestData| {
        let text = |(key, value): (String, Loose)| (key, value.render());
        let specs = request.spec.unwrap_or_default().into_iter();
        let specs = specs.map(|spec| spec.into_iter().map(text).collect()).collect();
        PciRequest { count: request.count.unwrap_or(0), specs }
    };
    requests.into_iter().filter_map(|request| Some(read(request.data()?))).collect()
}

fn numa(
    topology: Option<Wrapped<NumaData>>,
    network: Option<Wrapped<NetworkData>>,
) -> Result<Option<GuestTopology>, BadRequest> {
    let topology = topology.and_then(Wrapped::data);
    let cells = topology.as_ref().map_or(0, |topology| topology.cells.as_ref().map_or(0, Vec::len));
    if cells > CELLS {
        let message = format!("{cells} cells given, at most {CELLS} expected");
        return Err(BadRequest { path: "spec.numa_topology.cells".to_owned(), message });
    }
    // A topology without cells asks nothing.
    let Some(topology) = topology.filter(|_| cells > 0) else { return Ok(None) };
    let network = network.and_then(Wrapped::data).unwrap_or_default();
    Ok(Some(GuestTopology {
        cells: topology.cells.into_iter().flatten().filter_map(Wrapped::data).map(numa_cell).collect(),
        emulator_isolated: topology.emulator_threads_policy.as_deref() == Some("isolate"),
        physnets: network.physnets.unwrap_or_default(),
        tunneled: network.tunneled == Some(true),
    }))
}

fn numa_cell(cell: NumaCellData) -> GuestCell {
    let policy = match cell.cpu_policy.as_deref() {
        Some("dedicated") => CpuPolicy::Dedicated,
        Some("mixed") => CpuPolicy::Mixed,
        _ => CpuPolicy::Shared,
    };
    let count = |set: Option<Vec<u64>>| set.unwrap_or_default().len() as u64;
    let (shared, dedicated) = match (policy, cell.pcpuset) {
        // Before version 1.5 the dedicated ones stood in the only set.
        (CpuPolicy::Dedicated, None) => (0, count(cell.cpuset)),
        (_, pcpuset) => (count(cell.cpuset), count(pcpuset)),
    };
    GuestCell {
        shared,
        dedicated,
        memory_mb: cell.memory.unwrap_or(0),
        page_kib: cell.pagesize.unwrap_or(0),
        policy,
        threads: match cell.cpu_thread_policy.as_deref() {
            Some("isolate") => ThreadPolicy::Isolate,
            Some("require") => ThreadPolicy::Require,
            _ => ThreadPolicy::Prefer,
        },
    }
}

fn group(group: GroupData) -> Group {
    let uuids = |texts: Vec<String>| texts.iter().filter_map(|text| Uuid::try_parse(text).ok()).collect();
    let policy = filled(group.policy).or_else(|| group.policies.unwrap_or_default().into_iter().next());
    let most = group.rules.and_then(|Object(rules)| rules.max_server_per_host).and_then(|most| most.0);
    Group {
        uuid: group.uuid.and_then(|uuid| Uuid::try_parse(&uuid).ok()),
        policy: policy.as_deref().and_then(GroupPolicy::from_name),
        members: group.members.map(uuids).unwrap_or_default(),
        hosts: group.hosts.unwrap_or_default(),
        max_per_host: most.unwrap_or(1).max(1),
    }
}

// What is read of the body. Everything else is skipped unseen.

/// An object of Nova in its wrapper.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Wrapped<T>(Object<WrapperData<T>>);

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct WrapperData<T> {
    #[serde(rename = "nova_object.data")]
    data: Option<Object<T>>,
}

impl<T> Wrapped<T> {
    fn data(self) -> Option<T> {
        self.0.0.data.map(|Object(data)| data)
    }
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    instance_uuid: Option<Text<'a>>,
    project_id: Option<String>,
    user_id: Option<String>,
    availability_zone: Option<String>,
    num_instances: Option<u64>,
    is_bfv: Option<bool>,
    flavor: Option<Wrapped<FlavorData>>,
    image: Option<Wrapped<ImageData>>,
    scheduler_hints: Option<BTreeMap<String, Hint>>,
    ignore_hosts: Option<Vec<String>>,
    force_hosts: Option<Vec<String>>,
    force_nodes: Option<Vec<String>>,
    requested_destination: Option<Wrapped<DestinationData>>,
    instance_group: Option<Wrapped<GroupData>>,
    retry: Option<Wrapped<RetryData>>,
    pci_requests: Option<Wrapped<PciRequestsData>>,
    numa_topology: Option<Wrapped<NumaData>>,
    network_metadata: Option<Wrapped<NetworkData>>,
}

#[derive(Deserialize)]
struct NumaData {
    cells: Option<Vec<Wrapped<NumaCellData>>>,
    emulator_threads_policy: Option<String>,
}

#[derive(Deserialize)]
struct NumaCellData {
    cpuset: Option<Vec<u64>>,
    pcpuset: Option<Vec<u64>>,
    memory: Option<u64>,
    pagesize: Option<i64>,
    cpu_policy: Option<String>,
    cpu_thread_policy: Option<String>,
}

#[derive(Default, Deserialize)]
struct NetworkData {
    physnets: Option<Vec<String>>,
    tunneled: Option<bool>,
}

#[derive(Deserialize)]
struct FlavorData {
    name: Option<String>,
    vcpus: Option<u64>,
    memory_mb: Option<u64>,
    root_gb: Option<u64>,
    ephemeral_gb: Option<u64>,
    swap: Option<u64>,
    extra_specs: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
struct ImageData {
    id: Option<String>,
    properties: Option<Wrapped<Properties>>,
}

#[derive(Deserialize)]
struct DestinationData {
    host: Option<String>,
    node: Option<String>,
    aggregates: Option<Vec<String>>,
    forbidden_aggregates: Option<Vec<String>>,
    /// Its uuid and nothing else: it may carry connection strings.
    cell: Option<Wrapped<CellData>>,
    allow_cross_cell_move: Option<bool>,
}

#[derive(Deserialize)]
struct CellData {
    uuid: Option<String>,
}

#[derive(Deserialize)]
struct GroupData {
    uuid: Option<String>,
    policy: Option<String>,
    policies: Option<Vec<String>>,
    members: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    #[serde(rename = "_rules")]
    rules: Option<Object<RulesData>>,
}

#[derive(Deserialize)]
struct PciRequestsData {
    requests: Option<Vec<Wrapped<PciRequestData>>>,
}

#[derive(Deserialize)]
struct PciRequestData {
    count: Option<u64>,
    spec: Option<Vec<BTreeMap<String, Loose>>>,
}

#[derive(Deserialize)]
struct RulesData {
    max_server_per_host: Option<Count>,
}

#[derive(Deserialize)]
struct RetryData {
    hosts: Option<RetryHosts>,
}

/// A hint: a string, or a list whose first item is a string; anything else reads as absent, an empty
/// list as an empty one.
struct Hint(Option<Vec<String>>);

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(Self(match Loose::deserialize(input)? {
            Loose::Text(text) => Some(vec![text]),
            Loose::List(items) => match items.first() {
                None | Some(Loose::Text(_)) => Some(items.into_iter().filter_map(Loose::text).collect()),
                Some(_) => None,
            },
            Loose::Number(_) | Loose::Bool(_) | Loose::Other => None,
        }))
    }
}

/// A count that old releases send as a string; `None`: no count at all.
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(Self(match Loose::deserialize(input)? {
            Loose::Text(text) => text.trim().parse().ok(),
            Loose::Number(number) => number.as_u64(),
            _ => None,
        }))
    }
}

/// Host names of a retry: `ComputeNodeList`, a plain list of its nodes, or the older lists of host
/// and node.
struct RetryHosts(Vec<String>);

impl<'de> Deserialize<'de> for RetryHosts {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut out = Vec::new();
        let value = serde_json::Value::deserialize(input)?;
        let list = unwrapped(&value);
        let items = list.get("objects").unwrap_or(list).as_array();
        for item in items.into_iter().flatten() {
            let item = unwrapped(item);
            let host = item.get("host").or_else(|| item.get(0)).unwrap_or(item);
            out.extend(host.as_str().map(str::to_owned));
        }
        Ok(Self(out))
    }
}

fn unwrapped(value: &serde_json::Value) -> &serde_json::Value {
    value.get("nova_object.data").unwrap_or(value)
}

/// Image properties: as text, and the traits that the image requires.
#[derive(Default)]
struct Properties {
    texts: BTreeMap<String, String>,
    traits_required: Vec<String>,
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Properties;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of image properties")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut out = Properties::default();
                while let Some(key) = map.next_key::<String>()? {
                    let value: Loose = map.next_value()?;
                    if key == "traits_required" {
                        if let Loose::List(items) = value {
                            out.traits_required = items.into_iter().filter_map(Loose::text).collect();
                        }
                    } else if let Some(text) = value.render() {
                        out.texts.insert(key, text);
                    }
                }
                Ok(out)
            }
        }
        input.deserialize_map(Read)
    }
}

/// A value whose type varies. Objects are skipped unseen.
enum Loose {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
    List(Vec<Self>),
    Other,
}

impl Loose {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text as it is, everything else as JSON; `None` for null and objects.
    fn render(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(number.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            list @ Self::List(_) => Some(list.json().to_string()),
            Self::Other => None,
        }
    }

    fn json(self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Bool(flag) => flag.into(),
            Self::List(items) => items.into_iter().map(Self::json).collect(),
            Self::Other => serde_json::Value::Null,
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Loose;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Loose, E> {
                Ok(Loose::Bool(flag))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
                Ok(Loose::Number(number.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Loose, E> {
                Ok(Loose::Number(number.into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Loose, E> {
                Ok(serde_json::Number::from_f64(number).map_or(Loose::Other, Loose::Number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Loose, E> {
                Ok(Loose::Text(text))
            }
            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Loose::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }
        input.deserialize_any(Read)
    }
}
