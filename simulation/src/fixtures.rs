//! A fleet that matches a body of Nova's hook: its hosts with their node names in its zone, room
//! for its flavor, the traits and aggregates that it asks for, its instance on its source host, the
//! members of its group on the hosts of the group. So recorded requests can be sent as they are.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use scheduler::{AggregateReport, Domain, HostReport, InstanceReport, Inventory};
use serde_json::Value;
use uuid::Uuid;

use crate::fleet::{healthy, stream};

/// Recorded bodies of Nova's hook by name, in the order of their numbers. The data is invented.
pub const REQUESTS: [(&str, &str); 24] = [
    ("01-create-kvm", include_str!("fixtures/requests/01-create-kvm.json")),
    ("02-create-kvm-context", include_str!("fixtures/requests/02-create-kvm-context.json")),
    ("03-create-vmware", include_str!("fixtures/requests/03-create-vmware.json")),
    ("04-create-no-hypervisor-type", include_str!("fixtures/requests/04-create-no-hypervisor-type.json")),
    ("05-create-hana-kvm", include_str!("fixtures/requests/05-create-hana-kvm.json")),
    ("06-create-hana-forbidden", include_str!("fixtures/requests/06-create-hana-forbidden.json")),
    ("07-create-traits", include_str!("fixtures/requests/07-create-traits.json")),
    ("08-group-anti-affinity", include_str!("fixtures/requests/08-group-anti-affinity.json")),
    ("09-group-affinity", include_str!("fixtures/requests/09-group-affinity.json")),
    ("10-group-soft-anti-affinity", include_str!("fixtures/requests/10-group-soft-anti-affinity.json")),
    ("11-create-three", include_str!("fixtures/requests/11-create-three.json")),
    ("12-resize", include_str!("fixtures/requests/12-resize.json")),
    ("13-cold-migrate-target", include_str!("fixtures/requests/13-cold-migrate-target.json")),
    ("14-live-migrate", include_str!("fixtures/requests/14-live-migrate.json")),
    ("15-live-migrate-context", include_str!("fixtures/requests/15-live-migrate-context.json")),
    ("16-rebuild", include_str!("fixtures/requests/16-rebuild.json")),
    ("17-evacuate", include_str!("fixtures/requests/17-evacuate.json")),
    ("18-evacuate-no-hint", include_str!("fixtures/requests/18-evacuate-no-hint.json")),
    ("19-aggregates", include_str!("fixtures/requests/19-aggregates.json")),
    ("20-numa-dedicated", include_str!("fixtures/requests/20-numa-dedicated.json")),
    ("21-boot-from-volume", include_str!("fixtures/requests/21-boot-from-volume.json")),
    ("22-image-properties", include_str!("fixtures/requests/22-image-properties.json")),
    ("23-hints", include_str!("fixtures/requests/23-hints.json")),
    ("24-large", include_str!("fixtures/requests/24-large.json")),
];

/// A way in which a host was made unfit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Condition `Ready` is `False`.
    NotReady,
    /// Condition `HypervisorDisabled` is `True`.
    Disabled,
    /// In another zone; only where the request names one.
    OtherZone,
    /// As good as full.
    Full,
    /// Only for a project that is not the request's.
    OtherProject,
    /// Lacks a trait that the request requires; only where it requires one.
    NoTrait,
}

/// Requests with fewer hosts find all of them fit in [`fleet_for`].
pub const FEW_HOSTS: usize = 10;
/// Seed of the unfit hosts of [`fleet_for`].
const SEED: u64 = 1;

/// The fleet for a body: all its hosts fit when they are few, else as in [`fleet_with_unfit`].
pub fn fleet_for(body: &Value) -> Vec<HostReport> {
    let hosts = body["hosts"].as_array().map_or(0, Vec::len);
    if hosts < FEW_HOSTS { fit_fleet_for(body) } else { fleet_with_unfit(body, SEED).0 }
}

/// The fleet for a body in which every host is fit, as far as the host alone decides (a full
/// server group is the request's own doing).
pub fn fit_fleet_for(body: &Value) -> Vec<HostReport> {
    let mut fleet = Vec::new();
    add_for(&mut fleet, body);
    fleet
}

/// The fleet for a body in which two fifths of its hosts, chosen by the seed, are unfit in the way
/// told of each. Hosts that the request cannot do without stay fit: the one it names, the one its
/// instance is on, those of an affinity group.
pub fn fleet_with_unfit(body: &Value, seed: u64) -> (Vec<HostReport>, BTreeMap<String, Unfit>) {
    let mut fleet = fit_fleet_for(body);
    let wish = Wish::of(body);
    let rng = &mut stream(seed, "unfit", 0);
    let mut hosts: Vec<String> = wish.hosts.iter().map(|(host, _)| host.clone()).collect();
    hosts.retain(|host| !wish.wanted_hosts.contains(host));
    hosts.shuffle(rng);
    hosts.truncate(hosts.len() * 2 / 5);
    let mut ways = vec![Unfit::NotReady, Unfit::Disabled, Unfit::Full];
    if wish.names_type {
        // The default pipeline does not look at projects.
        ways.push(Unfit::OtherProject);
    }
    if wish.zone.is_some() {
        ways.push(Unfit::OtherZone);
    }
    if !wish.required_traits.is_empty() {
        ways.push(Unfit::NoTrait);
    }
    let mut unfit = BTreeMap::new();
    for (at, host) in hosts.into_iter().enumerate() {
        // Each way in turn, so that none is left to luck.
        let way = ways[at % ways.len()];
        for report in fleet.iter_mut().filter(|report| report.name == host) {
            spoil(report, way, &wish);
        }
        unfit.insert(host, way);
    }
    (fleet, unfit)
}

/// Adds to a fleet what a body needs: its unknown hosts, and on all of them its zone, traits,
/// aggregates and room for its flavor, and the instances of [`place_for`].
pub fn add_for(fleet: &mut Vec<HostReport>, body: &Value) {
    let wish = Wish::of(body);
    for (host, node) in &wish.hosts {
        let at = position(fleet, host, node.as_deref()).unwrap_or_else(|| {
            fleet.push(new_host(&wish, host, node.clone()));
            fleet.len() - 1
        });
        suit(&mut fleet[at], &wish);
    }
    place(fleet, &wish);
}

/// Puts on a fleet only the instances that a body speaks of: its own on its source host (which is
/// down when the body is an evacuation), and the members of its group on the hosts of the group.
pub fn place_for(fleet: &mut Vec<HostReport>, body: &Value) {
    place(fleet, &Wish::of(body));
}

fn place(fleet: &mut Vec<HostReport>, wish: &Wish) {
    if let Some(source) = &wish.source {
        let at = named(fleet, wish, source);
        list(&mut fleet[at], wish, wish.instance, wish.present_resources(), wish.group);
        if wish.source_is_down {
            fleet[at].forced_down = Some(true);
            fleet[at].conditions.get_or_insert_default().insert("Ready".to_owned(), "False".to_owned());
        }
    }
    let members = wish.members.iter().filter(|member| **member != wish.instance);
    for (number, member) in members.enumerate() {
        let Some(host) = wish.group_hosts.get(number % wish.group_hosts.len().max(1)) else { break };
        let at = named(fleet, wish, host);
        list(&mut fleet[at], wish, *member, wish.resources.clone(), wish.group);
    }
    // Instances that the hints name run somewhere among the hosts.
    for (number, instance) in wish.hinted.iter().enumerate() {
        let Some((host, _)) = wish.hosts.get(number % wish.hosts.len().max(1)) else { break };
        let at = named(fleet, wish, host);
        list(&mut fleet[at], wish, *instance, wish.resources.clone(), None);
    }
}

/// What a body asks for, as far as hosts are concerned.
struct Wish {
    instance: Uuid,
    hosts: Vec<(String, Option<String>)>,
    /// Hosts on which the instance is, or to which it is sent by name.
    wanted_hosts: BTreeSet<String>,
    zone: Option<String>,
    project: String,
    flavor: String,
    resources: BTreeMap<String, u64>,
    hypervisor_type: String,
    /// The flavor names a hypervisor type whose pipeline is shipped.
    names_type: bool,
    is_resize: bool,
    source: Option<String>,
    source_is_down: bool,
    required_traits: Vec<String>,
    forbidden_traits: Vec<String>,
    aggregates: Vec<Uuid>,
    forbidden_aggregates: Vec<Uuid>,
    group: Option<Uuid>,
    members: Vec<Uuid>,
    group_hosts: Vec<String>,
    hinted: Vec<Uuid>,
    node_suffix: Option<String>,
}

fn data(value: &Value) -> &Value {
    value.get("nova_object.data").unwrap_or(value)
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

fn uuids(value: &Value) -> Vec<Uuid> {
    texts(value).iter().flat_map(|text| text.split(',')).filter_map(|text| Uuid::try_parse(text.trim()).ok()).collect()
}

impl Wish {
    fn of(body: &Value) -> Self {
        let spec = data(&body["spec"]);
        let flavor = data(&spec["flavor"]);
        let hints = &spec["scheduler_hints"];
        let hint = |key: &str| texts(&hints[key]).into_iter().next();
        let destination = data(&spec["requested_destination"]);
        let group = data(&spec["instance_group"]);
        let amount = |key: &str| flavor[key].as_u64().unwrap_or(0);
        let empty = serde_json::Map::new();
        let extra_specs = flavor["extra_specs"].as_object().unwrap_or(&empty);
        let traits_that_are = |wanted: &str| -> Vec<String> {
            let is = |value: &Value| value.as_str() == Some(wanted);
            let named = extra_specs.iter().filter(|(_, value)| is(value));
            named.filter_map(|(key, _)| key.strip_prefix("trait:").map(str::to_owned)).collect()
        };
        let mut required_traits = traits_that_are("required");
        required_traits.extend(texts(&data(&data(&spec["image"])["properties"])["traits_required"]));
        if extra_specs.contains_key("accel:device_profile") {
            required_traits.push("COMPUTE_ACCELERATORS".to_owned());
        }
        if hint("domain_name").is_some_and(|name| name.starts_with("iaas-")) {
            required_traits.push("CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE".to_owned());
        }
        let hosts: Vec<(String, Option<String>)> = body["hosts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|host| {
                let node = host["hypervisor_hostname"].as_str().filter(|node| !node.is_empty());
                Some((host["host"].as_str()?.to_owned(), node.map(str::to_owned)))
            })
            .collect();
        let ignored = texts(&spec["ignore_hosts"]);
        let forced = texts(&spec["force_hosts"]);
        let label = hint("_nova_check_type");
        let moves_by_ignoring = destination.get("cell").is_some() && !ignored.is_empty();
        let source = match label.as_deref() {
            Some("resize" | "live_migrate") => hint("source_host").or_else(|| ignored.first().cloned()),
            Some("evacuate") => ignored.first().cloned(),
            Some("rebuild") => forced.first().or(hosts.first().map(|(host, _)| host)).cloned(),
            _ if moves_by_ignoring => ignored.first().cloned(),
            _ => None,
        };
        let source_is_down = match label.as_deref() {
            Some("evacuate") => true,
            None => moves_by_ignoring,
            Some(_) => false,
        };
        let disk = amount("root_gb") + amount("ephemeral_gb") + amount("swap").div_ceil(1024);
        let is_bfv = spec["is_bfv"].as_bool().unwrap_or(false);
        let mut wanted_hosts: BTreeSet<String> = forced.into_iter().chain(source.clone()).collect();
        wanted_hosts.extend(destination["host"].as_str().map(str::to_owned));
        if group["policy"] == "affinity" {
            wanted_hosts.extend(texts(&group["hosts"]));
        }
        let node_suffix =
            hosts.iter().find_map(|(host, node)| Some(node.as_ref()?.strip_prefix(host.as_str())?.to_owned()));
        let hypervisor = extra_specs.get("capabilities:hypervisor_type").and_then(Value::as_str).unwrap_or_default();
        let is_vmware = body["vmware"].as_bool().unwrap_or(false);
        Self {
            instance: spec["instance_uuid"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default(),
            hosts,
            wanted_hosts,
            zone: spec["availability_zone"].as_str().filter(|zone| !zone.is_empty()).map(str::to_owned),
            project: spec["project_id"].as_str().unwrap_or_default().to_owned(),
            flavor: flavor["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("unnamed").to_owned(),
            resources: [
                ("VCPU", amount("vcpus")),
                ("MEMORY_MB", amount("memory_mb")),
                ("DISK_GB", if is_bfv { 0 } else { disk }),
            ]
            .into_iter()
            .filter(|(_, amount)| *amount > 0)
            .map(|(class, amount)| (class.to_owned(), amount))
            .collect(),
            hypervisor_type: match hypervisor.to_ascii_lowercase().as_str() {
                "ch" => "ch",
                "" if is_vmware => "VMware vCenter Server",
                text if text.starts_with("vmware") => "VMware vCenter Server",
                _ => "kvm",
            }
            .to_owned(),
            names_type: matches!(hypervisor.to_ascii_lowercase().as_str(), "qemu" | "ch"),
            is_resize: body["resize"].as_bool().unwrap_or(false) && destination["host"].is_null(),
            source,
            source_is_down,
            required_traits,
            forbidden_traits: traits_that_are("forbidden"),
            aggregates: uuids(&destination["aggregates"]),
            forbidden_aggregates: uuids(&destination["forbidden_aggregates"]),
            group: group["uuid"].as_str().and_then(|text| text.parse().ok()),
            members: uuids(&group["members"]),
            group_hosts: texts(&group["hosts"]),
            hinted: [uuids(&hints["same_host"]), uuids(&hints["different_host"])].concat(),
            node_suffix,
        }
    }

    /// What the instance takes now: half of what it asks for when it is resized.
    fn present_resources(&self) -> BTreeMap<String, u64> {
        if !self.is_resize {
            return self.resources.clone();
        }
        let half = self.resources.iter().map(|(class, amount)| (class.clone(), amount.div_ceil(2)));
        half.collect()
    }
}

fn position(fleet: &[HostReport], host: &str, node: Option<&str>) -> Option<usize> {
    let same_node = |report: &HostReport| match (report.hypervisor_hostname.as_deref(), node) {
        (Some(known), Some(node)) => known == node,
        _ => true,
    };
    fleet.iter().position(|report| report.name.eq_ignore_ascii_case(host) && same_node(report))
}

/// The host of a name, added if it is not there.
fn named(fleet: &mut Vec<HostReport>, wish: &Wish, host: &str) -> usize {
    position(fleet, host, None).unwrap_or_else(|| {
        let node = wish.node_suffix.as_ref().map(|suffix| format!("{host}{suffix}"));
        fleet.push(new_host(wish, host, node));
        fleet.len() - 1
    })
}

fn new_host(wish: &Wish, host: &str, node: Option<String>) -> HostReport {
    let asked = |class: &str| wish.resources.get(class).copied().unwrap_or(0);
    let inventories = [
        ("VCPU", Inventory::of((asked("VCPU") * 4).max(128))),
        ("MEMORY_MB", Inventory::of((asked("MEMORY_MB") * 4).max(1024 * 1024))),
        ("DISK_GB", Inventory::of((asked("DISK_GB") * 4).max(4000))),
    ];
    HostReport {
        domain: Domain::Nova,
        name: host.to_owned(),
        hypervisor_hostname: node,
        availability_zone: wish.zone.clone(),
        hypervisor_type: Some(wish.hypervisor_type.clone()),
        cpu_arch: Some("x86_64".to_owned()),
        inventories: Some(inventories.map(|(class, inventory)| (class.to_owned(), inventory)).into()),
        traits: Some(wish.required_traits.clone()),
        aggregates: Some(Vec::new()),
        conditions: Some(healthy()),
        allowed_projects: Some(Vec::new()),
        cpu_models: Some(vec!["host-passthrough".to_owned(), "host-model".to_owned(), "custom".to_owned()]),
        cpu_features: Some(vec!["sev".to_owned()]),
        cpu_devices: Some(vec!["video".to_owned(), "rng".to_owned()]),
        instances: Some(Vec::new()),
        ..HostReport::default()
    }
}

/// Makes a host one that the request can use.
fn suit(report: &mut HostReport, wish: &Wish) {
    if wish.zone.is_some() {
        report.availability_zone.clone_from(&wish.zone);
    }
    let traits = report.traits.get_or_insert_default();
    traits.retain(|name| !wish.forbidden_traits.contains(name));
    let missing: Vec<String> = wish.required_traits.iter().filter(|name| !traits.contains(name)).cloned().collect();
    traits.extend(missing);
    let aggregates = report.aggregates.get_or_insert_default();
    aggregates.retain(|aggregate| aggregate.uuid.is_none_or(|uuid| !wish.forbidden_aggregates.contains(&uuid)));
    for uuid in &wish.aggregates {
        if !aggregates.iter().any(|aggregate| aggregate.uuid == Some(*uuid)) {
            let name = format!("aggregate-{}", &uuid.simple().to_string()[..8]);
            aggregates.push(AggregateReport { name, uuid: Some(*uuid), metadata: None });
        }
    }
    make_room(report, &wish.resources);
}

/// Takes instances off a host until `resources` fit.
fn make_room(report: &mut HostReport, resources: &BTreeMap<String, u64>) {
    loop {
        let used = |class: &str| -> u64 {
            let listed = report.instances.iter().flatten();
            listed.filter_map(|instance| instance.resources.as_ref()?.get(class).copied()).sum()
        };
        let short = resources.iter().any(|(class, amount)| {
            let capacity =
                report.inventories.as_ref().and_then(|all| all.get(class)).map_or(u64::MAX, Inventory::capacity);
            used(class).saturating_add(*amount) > capacity
        });
        if !short || report.instances.get_or_insert_default().pop().is_none() {
            return;
        }
    }
}

/// Puts an instance on a host, in front, so that it is the last to make room.
fn list(
    report: &mut HostReport,
    wish: &Wish,
    uuid: Uuid,
    resources: BTreeMap<String, u64>,
    server_group: Option<Uuid>,
) {
    let instances = report.instances.get_or_insert_default();
    instances.retain(|instance| instance.uuid != uuid);
    let project_id = Some(wish.project.clone()).filter(|project| !project.is_empty());
    let (flavor, resources) = (Some(wish.flavor.clone()), Some(resources));
    instances.insert(0, InstanceReport { uuid, project_id, resources, flavor, server_group });
    make_room(report, &wish.resources);
}

fn spoil(report: &mut HostReport, way: Unfit, wish: &Wish) {
    match way {
        Unfit::NotReady => {
            report.conditions.get_or_insert_default().insert("Ready".to_owned(), "False".to_owned());
        }
        Unfit::Disabled => {
            report.conditions.get_or_insert_default().insert("HypervisorDisabled".to_owned(), "True".to_owned());
        }
        Unfit::OtherZone => report.availability_zone = Some("az-elsewhere".to_owned()),
        Unfit::OtherProject => report.allowed_projects = Some(vec!["somebody-else".to_owned()]),
        Unfit::NoTrait => report.traits.get_or_insert_default().retain(|name| !wish.required_traits.contains(name)),
        Unfit::Full => {
            // The host itself counts all but one VCPU as in use.
            let capacity =
                |class: &str| report.inventories.as_ref().and_then(|all| all.get(class)).map(Inventory::capacity);
            let used =
                ["VCPU", "MEMORY_MB"].map(|class| (class.to_owned(), capacity(class).unwrap_or(1).saturating_sub(1)));
            report.allocation = Some(used.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fleet::FleetSpec;
    use crate::requests::Requests;
    use scheduler::Intent;

    #[test]
    fn the_fleet_of_a_body_has_what_it_asks_for() {
        let fleet = FleetSpec::new(80, 4).generate();
        let mut requests = Requests::new(&fleet, 11);
        requests.group_percent = 50;
        for intent in
            [Intent::Create, Intent::Resize, Intent::LiveMigration, Intent::Evacuate, Intent::Move, Intent::Rebuild]
        {
            for _ in 0..5 {
                let ask = requests.of(intent);
                let made = fit_fleet_for(&ask.hook_body());
                for candidate in &ask.hosts {
                    let at = position(&made, &candidate.host, Some(&candidate.node)).unwrap();
                    assert_eq!(made[at].availability_zone.as_deref().unwrap_or(""), ask.zone);
                    let traits = made[at].traits.as_ref().unwrap();
                    assert!(ask.required_traits.iter().all(|name| traits.contains(name)));
                }
                for host in &made {
                    host.validate().unwrap();
                }
                let runs_on = |uuid| made.iter().find(|host| host.instances.iter().flatten().any(|i| i.uuid == uuid));
                let source = runs_on(ask.instance);
                assert_eq!(source.map(|host| &host.name), ask.source.as_ref().map(|(host, _)| host), "{intent}");
                let down = matches!(intent, Intent::Evacuate | Intent::Move);
                assert_eq!(source.is_some_and(|host| host.forced_down == Some(true)), down, "{intent}");
                for (member, host) in ask.group.iter().flat_map(|group| group.members.iter().zip(&group.hosts)) {
                    assert_eq!(runs_on(*member).map(|host| &host.name), Some(host));
                }
            }
        }
    }

    #[test]
    fn unfit_hosts_are_told_and_follow_the_seed() {
        let fleet = FleetSpec::new(80, 4).generate();
        let body = Requests::new(&fleet, 12).of(Intent::Create).hook_body();
        let (made, unfit) = fleet_with_unfit(&body, 3);
        assert_eq!((made.clone(), unfit.clone()), fleet_with_unfit(&body, 3));
        assert_ne!(unfit, fleet_with_unfit(&body, 4).1);
        assert_eq!(unfit.len(), body["hosts"].as_array().unwrap().len() * 2 / 5);
        let fit = fit_fleet_for(&body);
        for (before, after) in fit.iter().zip(&made) {
            after.validate().unwrap();
            assert_eq!(before != after, unfit.contains_key(&after.name), "{}", after.name);
        }
    }

    #[test]
    fn adding_to_a_fleet_keeps_the_rest() {
        let mut fleet = FleetSpec::new(80, 4).generate();
        let before = fleet.clone();
        let body = Requests::new(&fleet, 13).of(Intent::LiveMigration).hook_body();
        add_for(&mut fleet, &body);
        assert_eq!(fleet.len(), before.len());
        let named: Vec<&str> = body["hosts"].as_array().unwrap().iter().filter_map(|h| h["host"].as_str()).collect();
        let source = body["spec"]["nova_object.data"]["ignore_hosts"][0].as_str().unwrap();
        for (before, after) in before.iter().zip(&fleet) {
            if !named.contains(&after.name.as_str()) && after.name != source {
                assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn recorded_requests_have_fleets() {
        for (name, text) in REQUESTS {
            let body: Value = serde_json::from_str(text).unwrap();
            let fleet = fleet_for(&body);
            assert!(fleet.len() >= body["hosts"].as_array().unwrap().len(), "{name}");
            let mut instances = BTreeSet::new();
            for host in &fleet {
                host.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
                for instance in host.instances.iter().flatten() {
                    assert!(instances.insert(instance.uuid), "{name}: {} is on two hosts", instance.uuid);
                }
            }
        }
    }
}
