//! What a source says of one host: the shape of `Inventory.Apply`, of the fleet file and of a read
//! Hypervisor resource. An absent field changes nothing; a present one is the whole truth.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Domain;
use crate::host_state::HostState;
use crate::inventory::Inventory;
use crate::pod::Taint;

/// One host as a source reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Domain of the provider.
    #[serde(default)]
    pub domain: Domain,
    /// The name the hook sends as `host`.
    pub name: String,
    /// The node name; absent until a request or a source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor_hostname: Option<String>,
    /// Provider uuid; absent: UUIDv5 of domain/name/hypervisor_hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Availability zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// `qemu`, `kvm`, `ch`, `vmware vcenter server`, …: as the source writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor_type: Option<String>,
    /// `x86_64`, `aarch64`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_arch: Option<String>,
    /// Resource class → inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventories: Option<BTreeMap<String, Inventory>>,
    /// Resource class → amount in use as the host itself counts it (`status.allocation`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<BTreeMap<String, u64>>,
    /// Trait names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traits: Option<Vec<String>>,
    /// Aggregates with their metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregates: Option<Vec<AggregateReport>>,
    /// Condition type → `True`, `False` or `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<BTreeMap<String, String>>,
    /// The compute service is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// The compute service is forced down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_down: Option<bool>,
    /// Projects that may use the host; empty = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_projects: Option<Vec<String>>,
    /// CPU models (modes) that the host can give a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_models: Option<Vec<String>>,
    /// Features that the host's domains support.
    #[serde(default, alias = "features", skip_serializing_if = "Option::is_none")]
    pub cpu_features: Option<Vec<String>>,
    /// Devices that the host's domains support.
    #[serde(default, alias = "devices", skip_serializing_if = "Option::is_none")]
    pub cpu_devices: Option<Vec<String>>,
    /// NUMA cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<Vec<NumaCell>>,
    /// What stock Nova's filters and weighers read of a host that Placement does not know; JSON, see
    /// [`host_state`](crate::host_state).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json_text")]
    pub nova_host_state: Option<String>,
    /// Labels of a node: key → value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Taints of a node, as `key=value:Effect` or `key:Effect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<String>>,
    /// When the source looked, milliseconds since 1970 (wall time); absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<u64>,
    /// The full list of the instances on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceReport>>,
}

/// An aggregate of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct AggregateReport {
    /// Its name.
    pub name: String,
    /// Its uuid, by which requests name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Its metadata; the last report of an aggregate wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// An instance that the host lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct InstanceReport {
    /// Instance uuid.
    pub uuid: Uuid,
    /// Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Resource class → amount; absent: what the claim said, else not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeMap<String, u64>>,
    /// Flavor name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Server group uuid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_group: Option<Uuid>,
}

/// One NUMA cell of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct NumaCell {
    /// Cell number on the host.
    pub id: u32,
    /// CPUs of the cell.
    #[serde(default)]
    pub cpus: u64,
    /// Memory of the cell in MiB.
    #[serde(default)]
    pub memory_mb: u64,
}

/// Keeps free-form JSON as its text, so that the replicated state stays closed.
mod json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::Error as _};

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(text: &Option<String>, out: S) -> Result<S::Ok, S::Error> {
        let value: Option<serde_json::Value> =
            text.as_deref().map(serde_json::from_str).transpose().map_err(S::Error::custom)?;
        value.serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
        match Option::<serde_json::Value>::deserialize(input)? {
            None => Ok(None),
            Some(value @ serde_json::Value::Object(_)) => Ok(Some(value.to_string())),
            Some(_) => Err(D::Error::custom("nova_host_state: an object expected")),
        }
    }
}

/// Longest name of anything, in bytes.
pub const LONGEST_NAME: usize = 255;
/// Longest key or value of a label, and longest taint, in bytes.
const LONGEST_LABEL: usize = 512;
/// Most items in one list of a report (traits, instances, …).
pub const LONGEST_LIST: usize = 10_000;

impl HostReport {
    /// The uuid given, or UUIDv5 of domain/name/hypervisor_hostname.
    pub fn provider_uuid(&self) -> Uuid {
        self.uuid.unwrap_or_else(|| {
            let node = self.hypervisor_hostname.as_deref().unwrap_or("");
            Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{}/{}/{node}", self.domain, self.name).as_bytes())
        })
    }

    /// Every rule that a report must keep before it may enter the log; errors name field and value.
    pub fn validate(&self) -> Result<(), String> {
        name("name", &self.name)?;
        for (field, text) in [
            ("hypervisor_hostname", &self.hypervisor_hostname),
            ("availability_zone", &self.availability_zone),
            ("hypervisor_type", &self.hypervisor_type),
            ("cpu_arch", &self.cpu_arch),
        ] {
            if let Some(text) = text {
                name(field, text)?;
            }
        }
        for (class, inventory) in self.inventories.iter().flatten() {
            self::class(class).map_err(|e| format!("inventories: {e}"))?;
            inventory.validate().map_err(|e| format!("inventories.{class}.{e}"))?;
        }
        for (class, amount) in self.allocation.iter().flatten() {
            self::amount("allocation", class, *amount)?;
        }
        for (field, list) in [
            ("traits", &self.traits),
            ("allowed_projects", &self.allowed_projects),
            ("cpu_models", &self.cpu_models),
            ("cpu_features", &self.cpu_features),
            ("cpu_devices", &self.cpu_devices),
        ] {
            let list = list.as_deref().unwrap_or_default();
            length(field, list.len())?;
            for (at, text) in list.iter().enumerate() {
                name(&format!("{field}[{at}]"), text)?;
            }
        }
        for (kind, value) in self.conditions.iter().flatten() {
            name("conditions", kind)?;
            if !matches!(value.as_str(), "True" | "False" | "Unknown") {
                return Err(format!("conditions.{kind}: '{value}' given, True, False or Unknown expected"));
            }
        }
        let aggregates = self.aggregates.as_deref().unwrap_or_default();
        length("aggregates", aggregates.len())?;
        for (at, aggregate) in aggregates.iter().enumerate() {
            name(&format!("aggregates[{at}].name"), &aggregate.name)?;
        }
        let instances = self.instances.as_deref().unwrap_or_default();
        length("instances", instances.len())?;
        let mut seen = std::collections::BTreeSet::new();
        for (at, instance) in instances.iter().enumerate() {
            if !seen.insert(instance.uuid) {
                return Err(format!("instances[{at}].uuid: {} is listed twice on this host", instance.uuid));
            }
            for (class, amount) in instance.resources.iter().flatten() {
                self::amount(&format!("instances[{at}].resources"), class, *amount)?;
            }
        }
        if self.numa.as_ref().is_some_and(|cells| cells.len() > 256) {
            return Err("numa: at most 256 cells expected".to_owned());
        }
        length("labels", self.labels.as_ref().map_or(0, BTreeMap::len))?;
        for (key, value) in self.labels.iter().flatten() {
            label(key, value)?;
        }
        let taints = self.taints.as_deref().unwrap_or_default();
        length("taints", taints.len())?;
        for (at, taint) in taints.iter().enumerate() {
            label_text(&format!("taints[{at}]"), taint)?;
            if Taint::read(taint).is_none() {
                return Err(format!(
                    "taints[{at}]: '{taint}' given, key=value:Effect or key:Effect expected, with NoSchedule, PreferNoSchedule or NoExecute"
                ));
            }
        }
        if let Some(text) = &self.nova_host_state {
            HostState::read(&Arc::from(text.as_str()))?;
        }
        Ok(())
    }
}

/// A label: a key without `=`.
fn label(key: &str, value: &str) -> Result<(), String> {
    label_text("labels", key)?;
    if key.is_empty() || key.contains('=') {
        return Err(format!("labels: '{key}' given, a key without '=' expected"));
    }
    label_text(&format!("labels.{key}"), value)
}

/// A text of Kubernetes' labels and taints: at most 512 bytes (theirs have at most 253 + 1 + 63 in a key and
/// 63 in a value), no control characters.
fn label_text(field: &str, text: &str) -> Result<(), String> {
    if text.len() > LONGEST_LABEL {
        return Err(format!("{field}: {} bytes given, at most {LONGEST_LABEL} expected", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{field}: '{}' has a control character", text.escape_debug()));
    }
    Ok(())
}

/// A name: 1 to 255 bytes, no control characters.
pub fn name(field: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LONGEST_NAME {
        return Err(format!("{field}: {} bytes given, 1 to {LONGEST_NAME} expected", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{field}: '{}' has a control character", text.escape_debug()));
    }
    Ok(())
}

/// A resource class: upper-case letters, digits and underscores, at most 255.
pub fn class(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(good) {
        return Err(format!("'{text}' is no resource class: A-Z, 0-9 and _ expected, as in MEMORY_MB"));
    }
    Ok(())
}

fn amount(field: &str, class: &str, amount: u64) -> Result<(), String> {
    self::class(class).map_err(|e| format!("{field}: {e}"))?;
    if amount > Inventory::LARGEST {
        return Err(format!("{field}.{class}: {amount} given, at most {} expected", Inventory::LARGEST));
    }
    Ok(())
}

fn length(field: &str, len: usize) -> Result<(), String> {
    if len > LONGEST_LIST {
        return Err(format!("{field}: {len} items given, at most {LONGEST_LIST} expected"));
    }
    Ok(())
}
