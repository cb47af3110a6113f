//! Hypervisor resources (`kvm.cloud.sap/v1`, `hypervisor.c5c3.io/v1`: one schema) as
//! `kubectl get hypervisors -o json` prints them.
//!
//! A Hypervisor is the full report of its host. Capacity per resource: `status.effectiveCapacity`
//! (overcommit is in it already) where given, else `status.capacity` × `spec.overcommit`. cpu →
//! VCPU, rounded up (an effective capacity down); memory bytes → MEMORY_MB, capacity rounded down,
//! use rounded up. A resource without `status` says nothing of capacity and instances.
//! Unknown keys are left alone: the resource grows without us.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{AggregateReport, Domain, HostReport, InstanceReport, Inventory, NumaCell};
use serde_json::{Map, Value};

use crate::fleet::texts_by_key;
use crate::quantity::Quantity;
use crate::reader::{Fields, Place, Reader};

/// The API groups that share the schema.
pub const VERSIONS: [&str; 2] = ["kvm.cloud.sap/v1", "hypervisor.c5c3.io/v1"];
/// Label of the availability zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Bytes of a mebibyte as a power of two.
const MIB: u32 = 20;

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// Reads one Hypervisor at its place.
pub fn read(reader: &mut Reader, tree: &Value, at: &Place<'_>) -> Option<HostReport> {
    let hypervisor = reader.fields(tree, at)?;
    let places = [Place::Key(at, "metadata"), Place::Key(at, "spec"), Place::Key(at, "status")];
    let [metadata, spec, status] = ["metadata", "spec", "status"].map(|key| reader.map(hypervisor, key));
    let has_status = status.is_some();
    let metadata = Fields { map: metadata.unwrap_or(&EMPTY), at: &places[0] };
    let spec = Fields { map: spec.unwrap_or(&EMPTY), at: &places[1] };
    let status = Fields { map: status.unwrap_or(&EMPTY), at: &places[2] };

    let name = reader.required(metadata, "name")?;
    let labels_at = Place::Key(metadata.at, "labels");
    let zone = reader.map(metadata, "labels").and_then(|map| reader.text(Fields { map, at: &labels_at }, ZONE));
    let (group_traits, group_aggregates) = groups(reader, spec);
    let traits: BTreeSet<String> = [reader.texts(status, "traits"), reader.texts(spec, "customTraits")]
        .into_iter()
        .flatten()
        .flatten()
        .chain(group_traits)
        .collect();

    let capabilities_at = Place::Key(status.at, "capabilities");
    let cpu_arch =
        reader.map(status, "capabilities").and_then(|map| reader.text(Fields { map, at: &capabilities_at }, "cpuArch"));
    let domain_at = Place::Key(status.at, "domainCapabilities");
    let domain = reader.map(status, "domainCapabilities");
    let domain = Fields { map: domain.unwrap_or(&EMPTY), at: &domain_at };

    let full = |list: Option<Vec<String>>| has_status.then(|| list.unwrap_or_default());
    Some(HostReport {
        domain: Domain::Nova,
        name,
        hypervisor_hostname: None,
        uuid: reader.uuid(status, "hypervisorId"),
        availability_zone: zone.filter(|zone| !zone.is_empty()),
        hypervisor_type: reader.text(domain, "hypervisorType").filter(|text| !text.is_empty()),
        cpu_arch: cpu_arch.filter(|text| !text.is_empty()),
        inventories: Some(inventories(reader, spec, status)).filter(|_| has_status),
        allocation: Some(allocation(reader, status)).filter(|_| has_status),
        traits: Some(traits.into_iter().collect()),
        aggregates: Some(aggregates(reader, status, group_aggregates)),
        conditions: Some(conditions(reader, status)).filter(|_| has_status),
        disabled: None,
        forced_down: None,
        allowed_projects: Some(reader.texts(spec, "allowedProjects").unwrap_or_default()),
        cpu_models: full(reader.texts(domain, "supportedCpuModes")),
        cpu_features: full(reader.texts(domain, "supportedFeatures")),
        cpu_devices: full(reader.texts(domain, "supportedDevices")),
        numa: Some(cells(reader, status)).filter(|_| has_status),
        nova_host_state: None,
        labels: None,
        taints: None,
        observed_at: None,
        instances: Some(instances(reader, status)).filter(|_| has_status),
    })
}

/// Resource, class, and the power of two of the class's unit.
const RESOURCES: [(&str, &str, u32); 2] = [("cpu", "VCPU", 0), ("memory", "MEMORY_MB", MIB)];

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// A quantity of a resource map in whole units.
fn units(reader: &mut Reader, fields: Fields<'_, '_>, key: &str, unit: u32, round: Round) -> Option<u64> {
    let value = fields.get(key)?;
    let at = Place::Key(fields.at, key);
    let quantity = match Quantity::of(value) {
        Ok(quantity) => quantity,
        Err(error) => {
            reader.fault(&at, error);
            return None;
        }
    };
    let units = match round {
        Round::Up => quantity.ceil(unit),
        Round::Down => quantity.floor(unit),
    };
    if units.is_none() {
        reader.fault(&at, format!("{value} is too large"));
    }
    units
}

fn inventories(reader: &mut Reader, spec: Fields<'_, '_>, status: Fields<'_, '_>) -> BTreeMap<String, Inventory> {
    let places = [
        Place::Key(status.at, "effectiveCapacity"),
        Place::Key(status.at, "capacity"),
        Place::Key(spec.at, "overcommit"),
    ];
    let effective = reader.map(status, "effectiveCapacity");
    let capacity = reader.map(status, "capacity");
    let overcommit = reader.map(spec, "overcommit");
    let effective = Fields { map: effective.unwrap_or(&EMPTY), at: &places[0] };
    let capacity = Fields { map: capacity.unwrap_or(&EMPTY), at: &places[1] };
    let overcommit = Fields { map: overcommit.unwrap_or(&EMPTY), at: &places[2] };
    let mut out = BTreeMap::new();
    for (resource, class, unit) in RESOURCES {
        let ratio = reader.number(overcommit, resource).unwrap_or(1.0);
        if ratio < 1.0 {
            reader.fault(&Place::Key(overcommit.at, resource), format!("{ratio} given, at least 1.0 expected"));
        }
        let round = if unit == 0 { Round::Up } else { Round::Down };
        let inventory = units(reader, effective, resource, unit, Round::Down)
            .map(Inventory::of)
            .or_else(|| Some(Inventory::of(units(reader, capacity, resource, unit, round)?).with_ratio(ratio)));
        out.extend(inventory.map(|inventory| (class.to_owned(), inventory)));
    }
    out
}

fn allocation(reader: &mut Reader, status: Fields<'_, '_>) -> BTreeMap<String, u64> {
    let at = Place::Key(status.at, "allocation");
    let map = reader.map(status, "allocation").unwrap_or(&EMPTY);
    let inner = Fields { map, at: &at };
    let mut out = BTreeMap::new();
    for (resource, class, unit) in RESOURCES {
        out.extend(units(reader, inner, resource, unit, Round::Up).map(|amount| (class.to_owned(), amount)));
    }
    out
}

/// Traits and aggregates of `spec.groups[]`, a union of which each item has one.
fn groups(reader: &mut Reader, spec: Fields<'_, '_>) -> (Vec<String>, Vec<AggregateReport>) {
    let (mut traits, mut aggregates) = (Vec::new(), Vec::new());
    let place = Place::Key(spec.at, "groups");
    for (position, item) in reader.list(spec, "groups").unwrap_or_default().iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(group) = reader.fields(item, &at) else { continue };
        let trait_at = Place::Key(&at, "trait");
        if let Some(map) = reader.map(group, "trait") {
            traits.extend(reader.required(Fields { map, at: &trait_at }, "name"));
        }
        let aggregate_at = Place::Key(&at, "aggregate");
        if let Some(value) = group.get("aggregate") {
            aggregates.extend(aggregate(reader, value, &aggregate_at));
        }
    }
    (traits, aggregates)
}

fn aggregate(reader: &mut Reader, value: &Value, at: &Place<'_>) -> Option<AggregateReport> {
    // The older form is a bare name.
    if let Value::String(name) = value {
        return Some(AggregateReport { name: name.clone(), ..AggregateReport::default() });
    }
    let fields = reader.fields(value, at)?;
    Some(AggregateReport {
        name: reader.required(fields, "name")?,
        uuid: reader.uuid(fields, "uuid"),
        metadata: texts_by_key(reader, fields, "metadata"),
    })
}

/// `status.aggregates` and those of the groups; one aggregate is listed once, with its metadata.
fn aggregates(reader: &mut Reader, status: Fields<'_, '_>, of_groups: Vec<AggregateReport>) -> Vec<AggregateReport> {
    let place = Place::Key(status.at, "aggregates");
    let listed = reader.list(status, "aggregates").unwrap_or_default();
    let mut out: Vec<AggregateReport> = Vec::with_capacity(listed.len() + of_groups.len());
    let of_status = listed
        .iter()
        .enumerate()
        .filter_map(|(position, item)| aggregate(reader, item, &Place::Item(&place, position)));
    for aggregate in of_status.collect::<Vec<_>>().into_iter().chain(of_groups) {
        let same = |known: &&mut AggregateReport| match (known.uuid, aggregate.uuid) {
            (Some(known), Some(uuid)) => known == uuid,
            _ => known.name == aggregate.name,
        };
        match out.iter_mut().find(same) {
            None => out.push(aggregate),
            Some(known) => {
                known.uuid = known.uuid.or(aggregate.uuid);
                known.metadata = known.metadata.take().filter(|map| !map.is_empty()).or(aggregate.metadata);
            }
        }
    }
    out
}

fn conditions(reader: &mut Reader, status: Fields<'_, '_>) -> BTreeMap<String, String> {
    let place = Place::Key(status.at, "conditions");
    let mut out = BTreeMap::new();
    for (position, item) in reader.list(status, "conditions").unwrap_or_default().iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        if let (Some(kind), Some(value)) = (reader.required(fields, "type"), reader.required(fields, "status")) {
            if matches!(value.as_str(), "True" | "False" | "Unknown") {
                out.insert(kind, value);
            } else {
                reader.fault(&Place::Key(&at, "status"), format!("'{value}' given, True, False or Unknown expected"));
            }
        }
    }
    out
}

fn cells(reader: &mut Reader, status: Fields<'_, '_>) -> Vec<NumaCell> {
    let place = Place::Key(status.at, "cells");
    let mut out = Vec::new();
    for (position, item) in reader.list(status, "cells").unwrap_or_default().iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        let id = reader.whole(fields, "cellID").unwrap_or(position as u64);
        let Ok(id) = u32::try_from(id) else {
            reader.fault(&Place::Key(&at, "cellID"), format!("{id} given, at most {} expected", u32::MAX));
            continue;
        };
        let capacity_at = Place::Key(&at, "capacity");
        let capacity = Fields { map: reader.map(fields, "capacity").unwrap_or(&EMPTY), at: &capacity_at };
        let cpus = units(reader, capacity, "cpu", 0, Round::Up).unwrap_or(0);
        let memory_mb = units(reader, capacity, "memory", MIB, Round::Down).unwrap_or(0);
        out.push(NumaCell { id, cpus, memory_mb });
    }
    out
}

/// Every instance that the host lists, running or not.
fn instances(reader: &mut Reader, status: Fields<'_, '_>) -> Vec<InstanceReport> {
    let place = Place::Key(status.at, "instances");
    let mut out = Vec::new();
    for (position, item) in reader.list(status, "instances").unwrap_or_default().iter().enumerate() {
        let at = Place::Item(&place, position);
        let Some(fields) = reader.fields(item, &at) else { continue };
        if fields.get("id").is_none() {
            reader.fault(&Place::Key(&at, "id"), "missing");
        }
        if let Some(uuid) = reader.uuid(fields, "id") {
            out.push(InstanceReport { uuid, ..InstanceReport::default() });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn read_one(tree: &Value) -> (Option<HostReport>, Vec<String>) {
        let mut reader = Reader::default();
        let report = read(&mut reader, tree, &Place::Root);
        let faults = reader.faults.iter();
        (report, faults.map(|f| format!("{}: {}", crate::document::path_text(&f.path), f.message)).collect())
    }

    fn sample() -> Value {
        json!({
            "apiVersion": "kvm.cloud.sap/v1",
            "kind": "Hypervisor",
            "metadata": {"name": "node001-bb00", "labels": {
                "topology.kubernetes.io/zone": "az-a", "kubernetes.metal.cloud.sap/bb": "bb00"}},
            "spec": {
                "lifecycleEnabled": true,
                "customTraits": ["CUSTOM_B", "CUSTOM_A"],
                "allowedProjects": ["p1"],
                "overcommit": {"cpu": 2.5},
                "groups": [
                    {"trait": {"name": "CUSTOM_G"}},
                    {"aggregate": {"name": "agg", "uuid": "f5be0a8c-63c7-4da1-9f44-2f72d5140be0",
                        "metadata": {"ssd": "true"}}}
                ]
            },
            "status": {
                "hypervisorId": "0b9a1b7e-93a5-44bb-9b94-28a0f6e7d3b3",
                "capabilities": {"cpuArch": "x86_64", "cpus": 128},
                "domainCapabilities": {"hypervisorType": "ch", "supportedDevices": ["video"],
                    "supportedCpuModes": ["host-passthrough"], "supportedFeatures": ["sev"]},
                "capacity": {"cpu": "127500m", "memory": "1073741823Ki"},
                "effectiveCapacity": {"memory": "2097152.9Mi"},
                "allocation": {"cpu": "3", "memory": "1048577"},
                "traits": ["HW_CPU_X86_AVX2", "CUSTOM_A"],
                "aggregates": [{"name": "agg", "uuid": "f5be0a8c-63c7-4da1-9f44-2f72d5140be0"}, {"name": "other"}],
                "cells": [{"cellID": 1, "capacity": {"cpu": "64", "memory": "512Gi"}}],
                "instances": [
                    {"id": "198d1710-5a6c-4990-8a9f-9ea722780747", "name": "instance-1", "active": true},
                    {"id": "1d30dab6-de95-4b2d-83de-04c6d01a6975", "name": "instance-2", "active": false}
                ],
                "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"},
                    {"type": "Tainted", "status": "Unknown"}]
            }
        })
    }

    #[test]
    fn reads_every_field() {
        let (report, faults) = read_one(&sample());
        let report = report.unwrap();
        assert_eq!(faults, Vec::<String>::new());
        report.validate().unwrap();
        assert_eq!((report.name.as_str(), report.hypervisor_hostname.as_deref()), ("node001-bb00", None));
        assert_eq!(report.availability_zone.as_deref(), Some("az-a"));
        assert_eq!(report.uuid.unwrap().to_string(), "0b9a1b7e-93a5-44bb-9b94-28a0f6e7d3b3");
        assert_eq!(report.hypervisor_type.as_deref(), Some("ch"));
        assert_eq!(report.cpu_arch.as_deref(), Some("x86_64"));
        let inventories = report.inventories.unwrap();
        assert_eq!((inventories["VCPU"].total, inventories["VCPU"].capacity()), (128, 320));
        assert_eq!((inventories["MEMORY_MB"].total, inventories["MEMORY_MB"].capacity()), (2_097_152, 2_097_152));
        let allocation = report.allocation.unwrap();
        assert_eq!((allocation["VCPU"], allocation["MEMORY_MB"]), (3, 2));
        assert_eq!(report.traits.unwrap(), ["CUSTOM_A", "CUSTOM_B", "CUSTOM_G", "HW_CPU_X86_AVX2"]);
        let aggregates = report.aggregates.unwrap();
        assert_eq!(aggregates.len(), 2);
        assert_eq!(aggregates[0].metadata.as_ref().unwrap()["ssd"], "true");
        assert_eq!(report.conditions.unwrap()["Tainted"], "Unknown");
        assert_eq!(report.allowed_projects.unwrap(), ["p1"]);
        assert_eq!(report.cpu_models.unwrap(), ["host-passthrough"]);
        assert_eq!(report.numa.unwrap(), [NumaCell { id: 1, cpus: 64, memory_mb: 524_288 }]);
        assert_eq!(report.instances.unwrap().len(), 2);
    }

    #[test]
    fn a_new_object_says_nothing_of_its_status() {
        let (report, faults) = read_one(&json!({"metadata": {"name": "h"}, "spec": {}}));
        let report = report.unwrap();
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!((report.inventories, report.instances, report.conditions), (None, None, None));
        assert_eq!(report.traits, Some(vec![]));
        let (report, _) = read_one(&json!({"metadata": {"name": "h"}, "status": {"numInstances": 0}}));
        assert_eq!(report.unwrap().instances, Some(vec![]));
    }

    #[test]
    fn errors_name_the_field() {
        for (pointer, value, want) in [
            ("/status/capacity/cpu", json!("lots"), "status.capacity.cpu: 'lots' is no quantity"),
            ("/status/allocation/memory", json!("-1"), "status.allocation.memory: '-1' is no quantity"),
            ("/spec/overcommit/cpu", json!(0.5), "spec.overcommit.cpu: 0.5 given, at least 1.0 expected"),
            ("/status/instances/1/id", json!("x"), "status.instances[1].id: a uuid expected, 'x' given"),
            ("/status/conditions/0/status", json!("Yes"), "status.conditions[0].status: 'Yes' given"),
            ("/spec/groups/0/trait/name", json!(null), "spec.groups[0].trait.name: missing"),
            ("/metadata/name", json!(null), "metadata.name: missing"),
            ("/status/traits", json!("A"), "status.traits: a list expected, 'A' given"),
        ] {
            let mut tree = sample();
            *tree.pointer_mut(pointer).unwrap() = value;
            let (_, faults) = read_one(&tree);
            assert!(faults.len() == 1 && faults[0].starts_with(want), "{want}: {faults:?}");
        }
    }
}
