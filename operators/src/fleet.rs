//! The fleet file, pallium's own: `domain` and `hosts`, YAML or JSON. Its JSON Schema is in
//! [`crate::schema`]; here it is read, with every error of every host.

use std::collections::BTreeMap;
use std::str::FromStr;

use scheduler::{AggregateReport, Domain, HostReport, InstanceReport, Inventory, NumaCell};
use serde_json::Value;

use crate::reader::{Fields, Place, Reader};

/// Keys of the file.
pub const FILE_KEYS: [&str; 2] = ["domain", "hosts"];
/// Keys of a host.
pub const HOST_KEYS: [&str; 24] = [
    "domain",
    "name",
    "hypervisor_hostname",
    "uuid",
    "availability_zone",
    "hypervisor_type",
    "cpu_arch",
    "inventories",
    "allocation",
    "traits",
    "aggregates",
    "conditions",
    "disabled",
    "forced_down",
    "allowed_projects",
    "cpu_models",
    "cpu_features",
    "cpu_devices",
    "numa",
    "nova_host_state",
    "labels",
    "taints",
    "observed_at",
    "instances",
];
/// Short names of keys of a host.
const ALIASES: [&str; 2] = ["features", "devices"];
/// Keys of an inventory.
pub const INVENTORY_KEYS: [&str; 6] = ["total", "reserved", "allocation_ratio", "min_unit", "max_unit", "step_size"];
/// Keys of an aggregate.
pub const AGGREGATE_KEYS: [&str; 3] = ["name", "uuid", "metadata"];
/// Keys of an instance.
pub const INSTANCE_KEYS: [&str; 5] = ["uuid", "project_id", "resources", "flavor", "server_group"];
/// Keys of a NUMA cell.
pub const NUMA_KEYS: [&str; 3] = ["id", "cpus", "memory_mb"];

/// True when a tree is meant as a fleet file.
pub fn is_fleet(tree: &Value) -> bool {
    tree.get("hosts").is_some() && tree.get("kind").is_none()
}

/// Reads a fleet file; each report with its position in `hosts`.
pub fn read(reader: &mut Reader, tree: &Value) -> Vec<(HostReport, usize)> {
    let root = Place::Root;
    let Some(file) = reader.fields(tree, &root) else { return Vec::new() };
    reader.only(file, &FILE_KEYS);
    let domain = domain(reader, file).unwrap_or_default();
    let hosts = Place::Key(&root, "hosts");
    let mut out = Vec::new();
    for (position, item) in reader.list(file, "hosts").unwrap_or_default().iter().enumerate() {
        let at = Place::Item(&hosts, position);
        if let Some(fields) = reader.fields(item, &at)
            && let Some(report) = host(reader, fields, domain)
        {
            out.push((report, position));
        }
    }
    out
}

fn domain(reader: &mut Reader, fields: Fields<'_, '_>) -> Option<Domain> {
    match Domain::from_str(&reader.text(fields, "domain")?) {
        Ok(domain) => Some(domain),
        Err(error) => {
            reader.fault(&Place::Key(fields.at, "domain"), error);
            None
        }
    }
}

fn host(reader: &mut Reader, fields: Fields<'_, '_>, domain: Domain) -> Option<HostReport> {
    let known: Vec<&str> = HOST_KEYS.iter().chain(&ALIASES).copied().collect();
    reader.only(fields, &known);
    let either = |reader: &mut Reader, key: &str, alias: &str| {
        if fields.get(key).is_some() && fields.get(alias).is_some() {
            reader.fault(&Place::Key(fields.at, alias), format!("the same as '{key}', which is given too"));
        }
        reader.texts(fields, if fields.get(key).is_some() { key } else { alias })
    };
    let cpu_features = either(reader, "cpu_features", "features");
    let cpu_devices = either(reader, "cpu_devices", "devices");
    let report = HostReport {
        domain: self::domain(reader, fields).unwrap_or(domain),
        name: reader.required(fields, "name").unwrap_or_default(),
        hypervisor_hostname: reader.text(fields, "hypervisor_hostname"),
        uuid: reader.uuid(fields, "uuid"),
        availability_zone: reader.text(fields, "availability_zone"),
        hypervisor_type: reader.text(fields, "hypervisor_type"),
        cpu_arch: reader.text(fields, "cpu_arch"),
        inventories: inventories(reader, fields),
        allocation: amounts(reader, fields, "allocation"),
        traits: reader.texts(fields, "traits"),
        aggregates: aggregates(reader, fields),
        conditions: conditions(reader, fields),
        disabled: reader.flag(fields, "disabled"),
        forced_down: reader.flag(fields, "forced_down"),
        allowed_projects: reader.texts(fields, "allowed_projects"),
        cpu_models: reader.texts(fields, "cpu_models"),
        cpu_features,
        cpu_devices,
        numa: numa(reader, fields),
        nova_host_state: reader.map(fields, "nova_host_state").map(|map| Value::Object(map.clone()).to_string()),
        labels: texts_by_key(reader, fields, "labels"),
        taints: reader.texts(fields, "taints"),
        observed_at: reader.whole(fields, "observed_at"),
        instances: instances(reader, fields),
    };
    // Without a name there is nothing to say of it; the missing name is an error already.
    (!report.name.is_empty() || fields.get("name").is_some()).then_some(report)
}

fn inventories(reader: &mut Reader, host: Fields<'_, '_>) -> Option<BTreeMap<String, Inventory>> {
    let map = reader.map(host, "inventories")?;
    let place = Place::Key(host.at, "inventories");
    let mut out = BTreeMap::new();
    for (class, value) in map {
        let at = Place::Key(&place, class);
        let Some(fields) = reader.fields(value, &at) else { continue };
        reader.only(fields, &INVENTORY_KEYS);
        if fields.get("total").is_none() {
            reader.fault(&Place::Key(&at, "total"), "missing");
        }
        let mut inventory = Inventory::of(reader.whole(fields, "total").unwrap_or(0));
        inventory.reserved = reader.whole(fields, "reserved").unwrap_or(inventory.reserved);
        inventory.allocation_ratio = reader.number(fields, "allocation_ratio").unwrap_or(inventory.allocation_ratio);
        inventory.min_unit = reader.whole(fields, "min_unit").unwrap_or(inventory.min_unit);
        inventory.max_unit = reader.whole(fields, "max_unit").unwrap_or(inventory.max_unit);
        inventory.step_size = reader.whole(fields, "step_size").unwrap_or(inventory.step_size);
        out.insert(class.clone(), inventory);
    }
    Some(out)
}

fn amounts(reader: &mut Reader, fields: Fields<'_, '_>, key: &str) -> Option<BTreeMap<String, u64>> {
    let map = reader.map(fields, key)?;
    let place = Place::Key(fields.at, key);
    let inner = Fields { map, at: &place };
    Some(map.keys().filter_map(|class| Some((class.clone(), reader.whole(inner, class)?))).collect())
}

/// A map of texts.
pub(crate) fn texts_by_key(reader: &mut Reader, fields: Fields<'_, '_>, key: &str) -> Option<BTreeMap<String, String>> {
    let map = reader.map(fields, key)?;
    let place = Place::Key(fields.at, key);
    let inner = Fields { map, at: &place };
    Some(map.keys().filter_map(|key| Some((key.clone(), reader.text(inner, key)?))).collect())
}

/// Conditions; an unquoted `True` is a boolean in YAML and counts as the word.
fn conditions(reader: &mut Reader, host: Fields<'_, '_>) -> Option<BTreeMap<String, String>> {
    let map = reader.map(host, "conditions")?;
    let place = Place::Key(host.at, "conditions");
    let inner = Fields { map, at: &place };
    let mut out = BTreeMap::new();
    for (kind, value) in map {
        let word = match value {
            Value::Bool(true) => Some("True".to_owned()),
            Value::Bool(false) => Some("False".to_owned()),
            _ => reader.text(inner, kind),
        };
        out.extend(word.map(|word| (kind.clone(), word)));
    }
    Some(out)
}

fn aggregates(reader: &mut Reader, host: Fields<'_, '_>) -> Option<Vec<AggregateReport>> {
    let items = reader.list(host, "aggregates")?;
    let place = Place::Key(host.at, "aggregates");
    let mut out = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        reader.only(fields, &AGGREGATE_KEYS);
        out.push(AggregateReport {
            name: reader.required(fields, "name").unwrap_or_else(|| "?".to_owned()),
            uuid: reader.uuid(fields, "uuid"),
            metadata: texts_by_key(reader, fields, "metadata"),
        });
    }
    Some(out)
}

fn numa(reader: &mut Reader, host: Fields<'_, '_>) -> Option<Vec<NumaCell>> {
    let items = reader.list(host, "numa")?;
    let place = Place::Key(host.at, "numa");
    let mut out = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        reader.only(fields, &NUMA_KEYS);
        if fields.get("id").is_none() {
            reader.fault(&Place::Key(&at, "id"), "missing");
        }
        let id = reader.whole(fields, "id").unwrap_or(0);
        if u32::try_from(id).is_err() {
            reader.fault(&Place::Key(&at, "id"), format!("{id} given, at most {} expected", u32::MAX));
        }
        let cpus = reader.whole(fields, "cpus").unwrap_or(0);
        let memory_mb = reader.whole(fields, "memory_mb").unwrap_or(0);
        out.push(NumaCell { id: id as u32, cpus, memory_mb });
    }
    Some(out)
}

fn instances(reader: &mut Reader, host: Fields<'_, '_>) -> Option<Vec<InstanceReport>> {
    let items = reader.list(host, "instances")?;
    let place = Place::Key(host.at, "instances");
    let mut out = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        reader.only(fields, &INSTANCE_KEYS);
        if fields.get("uuid").is_none() {
            reader.fault(&Place::Key(&at, "uuid"), "missing");
        }
        let Some(uuid) = reader.uuid(fields, "uuid") else { continue };
        out.push(InstanceReport {
            uuid,
            project_id: reader.text(fields, "project_id"),
            resources: amounts(reader, fields, "resources"),
            flavor: reader.text(fields, "flavor"),
            server_group: reader.uuid(fields, "server_group"),
        });
    }
    Some(out)
}
