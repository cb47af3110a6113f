//! JSON Schema of the fleet file, for editors and generators. The structs mirror what
//! [`crate::fleet`] reads; a test keeps both equal.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// A fleet: the hosts of one domain.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields, rename = "Fleet")]
struct Fleet {
    /// Domain of the hosts; nova when absent.
    domain: Option<Domain>,
    /// The hosts. Hosts that are known and not named stay as they are.
    hosts: Vec<Host>,
}

/// A scheduling domain.
#[derive(JsonSchema, Serialize)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "a schema, never a value")]
enum Domain {
    Nova,
    Cinder,
    Manila,
    Machines,
    Pods,
}

/// One host. An absent key changes nothing; a present one is the whole truth.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Host {
    /// Domain of this host; that of the file when absent.
    domain: Option<Domain>,
    /// Compute host name: the same as `host` in the hook's request.
    #[schemars(length(min = 1, max = 255))]
    name: String,
    /// Node name; learned from the first request that names it, when absent.
    hypervisor_hostname: Option<String>,
    /// Provider uuid; UUIDv5 of domain/name/hypervisor_hostname, when absent.
    #[schemars(with = "Option<uuid_schema::Text>")]
    uuid: Option<String>,
    /// Availability zone.
    availability_zone: Option<String>,
    /// qemu, kvm, ch, vmware vcenter server, …
    hypervisor_type: Option<String>,
    /// x86_64, aarch64, …
    cpu_arch: Option<String>,
    /// Resource class (VCPU, MEMORY_MB in MiB, DISK_GB in GiB, …) to inventory.
    inventories: Option<BTreeMap<String, Inventory>>,
    /// Resource class to the amount in use as the host counts it.
    allocation: Option<BTreeMap<String, u64>>,
    /// Trait names.
    traits: Option<Vec<String>>,
    /// Aggregates.
    aggregates: Option<Vec<Aggregate>>,
    /// Condition type to True, False or Unknown; an absent condition counts as met.
    conditions: Option<BTreeMap<String, Condition>>,
    /// The compute service is disabled.
    disabled: Option<bool>,
    /// The compute service is forced down.
    forced_down: Option<bool>,
    /// Projects that may use the host; empty = all.
    allowed_projects: Option<Vec<String>>,
    /// CPU models (modes) that the host can give a guest.
    cpu_models: Option<Vec<String>>,
    /// Features that the host's domains support; also `features`.
    cpu_features: Option<Vec<String>>,
    /// Devices that the host's domains support; also `devices`.
    cpu_devices: Option<Vec<String>>,
    /// The same as cpu_features.
    features: Option<Vec<String>>,
    /// The same as cpu_devices.
    devices: Option<Vec<String>>,
    /// NUMA cells.
    numa: Option<Vec<NumaCell>>,
    /// What stock Nova's filters and weighers read of a host that Placement does not know; its keys are in
    /// docs/operations.md.
    nova_host_state: Option<Map<String, Value>>,
    /// Labels of a node.
    labels: Option<BTreeMap<String, String>>,
    /// Taints of a node, as key=value:Effect or key:Effect.
    taints: Option<Vec<String>>,
    /// When the source looked, milliseconds since 1970; now, when absent.
    observed_at: Option<u64>,
    /// The full list of the host's instances.
    instances: Option<Vec<Instance>>,
}

/// A condition: quoted or not.
#[derive(JsonSchema, Serialize)]
#[schemars(untagged)]
#[expect(dead_code, reason = "a schema, never a value")]
enum Condition {
    /// As YAML reads an unquoted True.
    Flag(bool),
    /// As Kubernetes writes it.
    Word(ConditionWord),
}

/// Status of a condition.
#[derive(JsonSchema, Serialize)]
#[expect(dead_code, reason = "a schema, never a value")]
enum ConditionWord {
    True,
    False,
    Unknown,
}

/// Inventory of one resource class. Capacity = (total − reserved) × allocation_ratio.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Inventory {
    /// Physical amount.
    total: u64,
    /// Never given away; 0 when absent.
    reserved: Option<u64>,
    /// Overcommit, above 0; 1 when absent.
    allocation_ratio: Option<f64>,
    /// Smallest amount of one consumer; 1 when absent.
    min_unit: Option<u64>,
    /// Largest amount of one consumer.
    max_unit: Option<u64>,
    /// Amounts are multiples of this; 1 when absent.
    step_size: Option<u64>,
}

/// An aggregate of a host.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Aggregate {
    /// Name.
    name: String,
    /// Uuid, by which requests name it.
    #[schemars(with = "Option<uuid_schema::Text>")]
    uuid: Option<String>,
    /// Metadata; values are text.
    metadata: Option<BTreeMap<String, String>>,
}

/// One NUMA cell.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct NumaCell {
    /// Cell number.
    id: u32,
    /// CPUs of the cell.
    cpus: Option<u64>,
    /// Memory of the cell, MiB.
    memory_mb: Option<u64>,
}

/// An instance that the host lists.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Instance {
    /// Instance uuid.
    #[schemars(with = "uuid_schema::Text")]
    uuid: String,
    /// Owner.
    project_id: Option<String>,
    /// Resource class to amount.
    resources: Option<BTreeMap<String, u64>>,
    /// Flavor name.
    flavor: Option<String>,
    /// Server group uuid.
    #[schemars(with = "Option<uuid_schema::Text>")]
    server_group: Option<String>,
}

mod uuid_schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    /// A text that is a uuid.
    pub struct Text;

    impl JsonSchema for Text {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "Uuid".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "string", "format": "uuid"})
        }
    }
}

/// The JSON Schema of the fleet file.
pub fn fleet() -> Value {
    let mut schema = schemars::schema_for!(Fleet).to_value();
    schema["title"] = "pallium fleet file".into();
    schema
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use crate::fleet as keys;

    #[test]
    fn the_schema_names_what_is_read() {
        let schema = super::fleet();
        let of = |pointer: &str| -> BTreeSet<String> {
            let map = schema.pointer(pointer).and_then(|value| value.as_object());
            map.unwrap_or_else(|| panic!("{pointer}: {schema:#}")).keys().cloned().collect()
        };
        let want = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(of("/properties"), want(&keys::FILE_KEYS));
        let mut host = want(&keys::HOST_KEYS);
        host.extend(want(&["features", "devices"]));
        assert_eq!(of("/$defs/Host/properties"), host);
        assert_eq!(of("/$defs/Inventory/properties"), want(&keys::INVENTORY_KEYS));
        assert_eq!(of("/$defs/Aggregate/properties"), want(&keys::AGGREGATE_KEYS));
        assert_eq!(of("/$defs/Instance/properties"), want(&keys::INSTANCE_KEYS));
        assert_eq!(of("/$defs/NumaCell/properties"), want(&keys::NUMA_KEYS));
        assert_eq!(schema["required"], serde_json::json!(["hosts"]));
        assert_eq!(schema["$defs"]["Host"]["required"], serde_json::json!(["name"]));
    }
}
