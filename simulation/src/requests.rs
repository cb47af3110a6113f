//! Seeded placement requests against a fleet, each in two shapes that mean the same: as the core's
//! `Request`, and as the JSON body that Nova's external-scheduler hook posts.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use scheduler::request::{Caller, Candidate, Candidates, Destination, Group, GroupPolicy, Options};
use scheduler::{Domain, HostReport, Intent, Request};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::fleet::{FLAVORS, Flavor, stream, uuid};

/// A host as requests name it.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    node: String,
    zone: String,
    hana: bool,
}

/// An instance of the fleet.
#[derive(Clone, Debug)]
struct Running {
    uuid: Uuid,
    at: usize,
    flavor: Flavor,
    project: String,
}

/// A generator of requests.
#[derive(Clone, Debug)]
pub struct Requests {
    rng: SmallRng,
    nodes: Vec<Place>,
    zones: Vec<(String, Vec<usize>)>,
    running: Vec<Running>,
    /// Hosts that one request names.
    pub candidates: usize,
    /// Percent of creates that belong to a server group.
    pub group_percent: u32,
    /// Leave out `context`, as the hook's first generation does.
    pub without_context: bool,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The instance.
    pub instance: Uuid,
    /// What it is for; `Create` and `Move` have no label on the wire.
    pub intent: Intent,
    /// Wanted flavor.
    pub flavor: Flavor,
    /// Owner project.
    pub project: String,
    /// Owner user.
    pub user: String,
    /// Zone; empty = any.
    pub zone: String,
    /// Hosts in Nova's order.
    pub hosts: Vec<Candidate>,
    /// Host and node on which the instance runs.
    pub source: Option<(String, String)>,
    /// Hosts never to use.
    pub ignore_hosts: Vec<String>,
    /// Only these hosts.
    pub force_hosts: Vec<String>,
    /// Server group.
    pub group: Option<Group>,
    /// Traits that must be there.
    pub required_traits: Vec<String>,
    /// Traits that must not be there.
    pub forbidden_traits: Vec<String>,
    /// Pipeline by name.
    pub pipeline: Option<String>,
    /// Options of the call.
    pub options: Options,
    /// Request id of the context; `None` = no context.
    pub request_id: Option<Uuid>,
}

impl Requests {
    /// A generator for a fleet.
    pub fn new(fleet: &[HostReport], seed: u64) -> Self {
        let mut nodes = Vec::new();
        let mut zones: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut running = Vec::new();
        for (at, host) in fleet.iter().enumerate() {
            let zone = host.availability_zone.clone().unwrap_or_default();
            zones.entry(zone.clone()).or_default().push(at);
            nodes.push(Place {
                host: host.name.clone(),
                node: host.hypervisor_hostname.clone().unwrap_or_else(|| host.name.clone()),
                zone,
                hana: host.traits.iter().flatten().any(|name| name == HANA),
            });
            for instance in host.instances.iter().flatten() {
                let named = |flavor: &&Flavor| Some(flavor.name) == instance.flavor.as_deref();
                let Some(flavor) = FLAVORS.iter().find(named) else { continue };
                let project = instance.project_id.clone().unwrap_or_default();
                running.push(Running { uuid: instance.uuid, at, flavor: *flavor, project });
            }
        }
        Self {
            rng: stream(seed, "requests", 0),
            nodes,
            zones: zones.into_iter().collect(),
            running,
            candidates: 20,
            group_percent: 10,
            without_context: false,
        }
    }

    /// A request of some kind: mostly creates, with the moves of a working day in between.
    pub fn any(&mut self) -> Ask {
        let intent = match self.rng.random_range(0..100) {
            0..70 => Intent::Create,
            70..80 => Intent::Resize,
            80..90 => Intent::LiveMigration,
            90..94 => Intent::Rebuild,
            94..97 => Intent::Evacuate,
            _ => Intent::Move,
        };
        self.of(intent)
    }

    /// A request with this intent. Intents of existing instances need one in the fleet; without any
    /// it is a create.
    pub fn of(&mut self, intent: Intent) -> Ask {
        let moved = match intent {
            Intent::Rebuild | Intent::Resize | Intent::LiveMigration | Intent::Evacuate | Intent::Move => {
                self.running.choose(&mut self.rng).cloned()
            }
            _ => None,
        };
        let mut ask = match moved {
            Some(running) => self.of_running(intent, &running),
            None if intent.is_internal() => self.internal(intent),
            None => self.create(),
        };
        if !self.without_context {
            ask.request_id = Some(uuid(&mut self.rng));
        }
        ask
    }

    fn blank(&mut self, intent: Intent, flavor: Flavor, zone: usize) -> Ask {
        let hosts = self.hosts(zone, &flavor, None);
        let required = if flavor.hana { vec![HANA.to_owned()] } else { Vec::new() };
        Ask {
            instance: uuid(&mut self.rng),
            intent,
            flavor,
            project: uuid(&mut self.rng).simple().to_string(),
            user: uuid(&mut self.rng).simple().to_string(),
            zone: self.zones.get(zone).map(|(name, _)| name.clone()).unwrap_or_default(),
            hosts,
            source: None,
            ignore_hosts: Vec::new(),
            force_hosts: Vec::new(),
            group: None,
            required_traits: required,
            forbidden_traits: Vec::new(),
            pipeline: None,
            options: Options::default(),
            request_id: None,
        }
    }

    fn create(&mut self) -> Ask {
        // One in twenty asks for a HANA flavor, where there are hosts for it.
        let hana = self.rng.random_range(0..20) == 0 && self.nodes.iter().any(|node| node.hana);
        let fitting: Vec<Flavor> = FLAVORS.into_iter().filter(|flavor| flavor.hana == hana).collect();
        let flavor = fitting.choose(&mut self.rng).copied().unwrap_or(FLAVORS[0]);
        let zone = self.rng.random_range(0..self.zones.len().max(1));
        let mut ask = self.blank(Intent::Create, flavor, zone);
        if let Some(owner) = self.running.choose(&mut self.rng) {
            ask.project.clone_from(&owner.project);
        }
        if !hana {
            ask.forbidden_traits.push(HANA.to_owned());
        }
        if self.rng.random_range(0..100) < self.group_percent {
            ask.group = Some(self.group(ask.instance));
        }
        ask
    }

    fn group(&mut self, instance: Uuid) -> Group {
        let policies = [
            GroupPolicy::AntiAffinity,
            GroupPolicy::SoftAntiAffinity,
            GroupPolicy::SoftAffinity,
            GroupPolicy::AntiAffinity,
        ];
        let others: Vec<&Running> = self.running.choose_multiple(&mut self.rng, 3).collect();
        let mut members: Vec<Uuid> = others.iter().map(|running| running.uuid).collect();
        let hosts = others.iter().map(|running| self.nodes[running.at].host.clone()).collect();
        members.push(instance);
        Group {
            uuid: Some(uuid(&mut self.rng)),
            policy: policies.choose(&mut self.rng).copied(),
            members,
            hosts,
            max_per_host: 1,
        }
    }

    fn internal(&mut self, intent: Intent) -> Ask {
        let flavor = *FLAVORS[..5].choose(&mut self.rng).unwrap_or(&FLAVORS[0]);
        let zone = self.rng.random_range(0..self.zones.len().max(1));
        let mut ask = self.blank(intent, flavor, zone);
        ask.pipeline = Some("kvm-general-purpose-load-balancing".to_owned());
        let quiet = Options {
            skip_history: true,
            skip_inflight: true,
            skip_committed_resource_tracking: true,
            ..Options::default()
        };
        ask.options = match intent {
            Intent::ReuseFailoverReservation | Intent::CapacityProbe => Options { read_only: true, ..quiet },
            Intent::ReserveForCommittedResource => {
                Options { lock_reservations: true, max_candidates: 1, skip_inflight: false, ..quiet }
            }
            _ => Options { lock_reservations: true, ..quiet },
        };
        ask
    }

    fn of_running(&mut self, intent: Intent, running: &Running) -> Ask {
        let node = self.nodes[running.at].clone();
        let zone = self.zones.iter().position(|(name, _)| *name == node.zone).unwrap_or(0);
        let mut ask = self.blank(intent, running.flavor, zone);
        ask.instance = running.uuid;
        ask.project.clone_from(&running.project);
        ask.source = Some((node.host.clone(), node.node.clone()));
        if intent == Intent::Rebuild {
            ask.force_hosts = vec![node.host.clone()];
            ask.hosts = vec![Candidate { host: node.host.into(), node: node.node.into(), weight: 0.0 }];
            return ask;
        }
        if intent == Intent::Resize {
            let larger =
                FLAVORS.iter().find(|f| f.hana == running.flavor.hana && f.memory_mb > running.flavor.memory_mb);
            ask.flavor = larger.copied().unwrap_or(running.flavor);
        }
        ask.hosts = self.hosts(zone, &running.flavor, Some(running.at));
        ask.ignore_hosts = vec![node.host];
        ask
    }

    /// Hosts of a zone in Nova's order: by descending weight.
    fn hosts(&mut self, zone: usize, flavor: &Flavor, without: Option<usize>) -> Vec<Candidate> {
        let Some((_, all)) = self.zones.get(zone) else { return Vec::new() };
        let fitting: Vec<usize> =
            all.iter().copied().filter(|at| Some(*at) != without && self.nodes[*at].hana == flavor.hana).collect();
        // A zone without such hosts is asked all the same.
        let pool = if fitting.is_empty() { all.clone() } else { fitting };
        let mut chosen: Vec<usize> = pool.choose_multiple(&mut self.rng, self.candidates).copied().collect();
        chosen.shuffle(&mut self.rng);
        let mut weights: Vec<f64> = chosen.iter().map(|_| self.rng.random_range(0.0..3.0)).collect();
        weights.sort_by(|a, b| b.total_cmp(a));
        chosen
            .into_iter()
            .zip(weights)
            .map(|(at, weight)| Candidate {
                host: (&self.nodes[at].host).into(),
                node: (&self.nodes[at].node).into(),
                weight,
            })
            .collect()
    }
}

const HANA: &str = "CUSTOM_HANA_EXCLUSIVE_HOST";

impl Ask {
    /// The label of the intent on the wire.
    pub fn label(&self) -> Option<&'static str> {
        match self.intent {
            Intent::Create | Intent::Move => None,
            Intent::LiveMigration => Some("live_migrate"),
            other => Some(other.as_str()),
        }
    }

    /// Extra specs of the flavor.
    pub fn extra_specs(&self) -> BTreeMap<String, String> {
        let mut specs = BTreeMap::from([("capabilities:hypervisor_type".to_owned(), "QEMU".to_owned())]);
        specs.extend(self.required_traits.iter().map(|name| (format!("trait:{name}"), "required".to_owned())));
        specs.extend(self.forbidden_traits.iter().map(|name| (format!("trait:{name}"), "forbidden".to_owned())));
        specs
    }

    /// Scheduler hints.
    pub fn hints(&self) -> BTreeMap<String, Vec<String>> {
        let mut hints = BTreeMap::new();
        if let Some(label) = self.label() {
            hints.insert("_nova_check_type".to_owned(), vec![label.to_owned()]);
        }
        if let Some((host, node)) = &self.source
            && matches!(self.intent, Intent::Resize | Intent::LiveMigration)
        {
            hints.insert("source_host".to_owned(), vec![host.clone()]);
            hints.insert("source_node".to_owned(), vec![node.clone()]);
        }
        hints
    }

    /// The request as the core takes it: what a front door makes of [`Ask::hook_body`].
    pub fn request(&self) -> Request {
        let hints = self.hints();
        Request {
            domain: Domain::Nova,
            consumers: vec![self.instance],
            caller: Caller::Hook { request: self.request_id },
            pipeline: self.pipeline.clone(),
            project: Some(self.project.clone()),
            user: Some(self.user.clone()),
            label: self.label().map(Intent::from_label),
            source_host: hints.get("source_host").and_then(|hosts| hosts.first().cloned()),
            resources: self.flavor.resources(),
            flavor: Some(self.flavor.name.to_owned()),
            extra_specs: self.extra_specs(),
            image: Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, b"image").to_string()),
            image_properties: BTreeMap::new(),
            required_traits: self.required_traits.clone(),
            forbidden_traits: self.forbidden_traits.clone(),
            zone: Some(self.zone.clone()).filter(|zone| !zone.is_empty()),
            candidates: Candidates::Sent(self.hosts.clone()),
            ignore_hosts: self.ignore_hosts.clone(),
            retry_hosts: Vec::new(),
            force_hosts: self.force_hosts.clone(),
            force_nodes: Vec::new(),
            destination: Destination { cell_named: self.names_cell(), ..Destination::default() },
            group: self.group.clone(),
            hints,
            pci: Vec::new(),
            numa: None,
            pod: scheduler::pod::Pod::default(),
            num_instances: 1,
            options: self.options.clone(),
            trace_id: self.request_id.map(|id| format!("req-{id}")).unwrap_or_default(),
        }
    }

    /// Nova names the cell of every move.
    fn names_cell(&self) -> bool {
        self.source.is_some() && self.intent != Intent::Rebuild
    }

    /// The request as Nova's hook posts it.
    pub fn hook_body(&self) -> Value {
        let list = |hosts: &[String]| if hosts.is_empty() { Value::Null } else { json!(hosts) };
        let flavor = &self.flavor;
        let spec = json!({
            "id": 1,
            "image": object("ImageMeta", "1.8", json!({
                "id": Uuid::new_v5(&Uuid::NAMESPACE_OID, b"image"),
                "name": "ubuntu-24.04",
                "status": "active",
                "size": 2_361_393_152_u64,
                "container_format": "bare",
                "disk_format": "qcow2",
                "min_ram": 0,
                "min_disk": 10,
                "properties": object("ImageMetaProps", "1.44", json!({})),
            })),
            "numa_topology": null,
            "pci_requests": null,
            "project_id": self.project,
            "user_id": self.user,
            "availability_zone": if self.zone.is_empty() { Value::Null } else { json!(self.zone) },
            "flavor": object("Flavor", "1.2", json!({
                "id": 1,
                "name": flavor.name,
                "memory_mb": flavor.memory_mb,
                "vcpus": flavor.vcpus,
                "root_gb": flavor.root_gb,
                "ephemeral_gb": 0,
                "flavorid": Uuid::new_v5(&Uuid::NAMESPACE_OID, flavor.name.as_bytes()),
                "swap": 0,
                "rxtx_factor": 1.0,
                "vcpu_weight": 0,
                "disabled": false,
                "is_public": true,
                "extra_specs": self.extra_specs(),
                "description": null,
            })),
            "num_instances": 1,
            "ignore_hosts": list(&self.ignore_hosts),
            "force_hosts": list(&self.force_hosts),
            "force_nodes": null,
            "requested_destination": if self.names_cell() {
                object("Destination", "1.4", json!({
                    "cell": object("CellMapping", "1.1", json!({"id": 2, "name": "cell1", "disabled": false})),
                    "allow_cross_cell_move": false,
                }))
            } else {
                Value::Null
            },
            "retry": null,
            "limits": object("SchedulerLimits", "1.0", json!({
                "numa_topology": null, "vcpu": null, "disk_gb": null, "memory_mb": null,
            })),
            "instance_group": self.group.as_ref().map_or(Value::Null, group_object),
            "scheduler_hints": self.hints(),
            "instance_uuid": self.instance,
            "security_groups": object("SecurityGroupList", "1.1", json!({"objects": []})),
            "network_metadata": object("NetworkMetadata", "1.0", json!({"physnets": [], "tunneled": false})),
            "is_bfv": false,
            "requested_resources": [],
            "request_level_params": object("RequestLevelParams", "1.1", json!({
                "root_required": [], "root_forbidden": ["COMPUTE_STATUS_DISABLED"], "same_subtree": [],
            })),
            "requested_networks": object("NetworkRequestList", "1.1", json!({"objects": []})),
        });
        let hosts: Vec<Value> =
            self.hosts.iter().map(|h| json!({"host": h.host, "hypervisor_hostname": h.node})).collect();
        let weights: Map<String, Value> = self.hosts.iter().map(|h| (h.host.to_string(), json!(h.weight))).collect();
        let mut body = json!({
            "spec": object("RequestSpec", "1.15", spec),
            "rebuild": self.intent == Intent::Rebuild,
            "resize": self.intent == Intent::Resize,
            "live": self.intent == Intent::LiveMigration,
            "vmware": false,
            "hosts": hosts,
            "weights": weights,
        });
        if let Some(id) = self.request_id {
            body["context"] = json!({
                "user": self.user,
                "user_id": self.user,
                "project": self.project,
                "project_id": self.project,
                "request_id": format!("req-{id}"),
                "global_request_id": null,
                "is_admin": false,
                "read_only": false,
                "show_deleted": false,
                "roles": ["member"],
                "read_deleted": "no",
            });
        }
        if let Some(pipeline) = &self.pipeline {
            body["pipeline"] = json!(pipeline);
        }
        if self.options != Options::default() {
            body["options"] = json!(self.options);
        }
        body
    }
}

/// The primitive form of a Nova object.
#[expect(clippy::needless_pass_by_value, reason = "each caller makes it for this")]
fn object(name: &str, version: &str, data: Value) -> Value {
    json!({
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": data,
    })
}

fn group_object(group: &Group) -> Value {
    let policy = match group.policy {
        Some(GroupPolicy::Affinity) => "affinity",
        Some(GroupPolicy::AntiAffinity) => "anti-affinity",
        Some(GroupPolicy::SoftAffinity) => "soft-affinity",
        Some(GroupPolicy::SoftAntiAffinity) => "soft-anti-affinity",
        None => "unknown",
    };
    let rules = match group.max_per_host {
        1 => json!({}),
        most => json!({"max_server_per_host": most.to_string()}),
    };
    object(
        "InstanceGroup",
        "1.11",
        json!({
            "id": 1,
            "uuid": group.uuid,
            "name": "sg-1",
            "policies": [policy],
            "policy": policy,
            "_rules": rules,
            "members": group.members,
            "hosts": group.hosts,
            "deleted": false,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::FleetSpec;

    const INTENTS: [Intent; 10] = [
        Intent::Create,
        Intent::Rebuild,
        Intent::Resize,
        Intent::LiveMigration,
        Intent::Evacuate,
        Intent::Move,
        Intent::ReserveForFailover,
        Intent::ReuseFailoverReservation,
        Intent::ReserveForCommittedResource,
        Intent::CapacityProbe,
    ];

    #[test]
    fn equal_seeds_give_equal_requests() {
        let fleet = FleetSpec::new(60, 3).generate();
        let run = |seed| {
            let mut requests = Requests::new(&fleet, seed);
            (0..50).map(|_| requests.any().hook_body()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn every_intent_has_a_body_that_says_it() {
        let fleet = FleetSpec::new(60, 3).generate();
        let mut requests = Requests::new(&fleet, 9);
        for intent in INTENTS {
            let ask = requests.of(intent);
            assert_eq!(ask.intent, intent);
            let body = ask.hook_body();
            let data = &body["spec"]["nova_object.data"];
            let label = data["scheduler_hints"]["_nova_check_type"][0].as_str();
            assert_eq!(label, ask.label(), "{intent}");
            assert_eq!(body["hosts"].as_array().map(Vec::len), body["weights"].as_object().map(Map::len));
            assert!(!ask.hosts.is_empty() && ask.request().options.validate().is_ok());
            let ignored = |host: &Candidate| ask.ignore_hosts.iter().any(|name| *name == host.host);
            assert!(!ask.hosts.iter().any(ignored), "Nova leaves ignored hosts out");
        }
    }

    #[test]
    fn an_empty_fleet_still_gives_requests() {
        let mut requests = Requests::new(&[], 1);
        for intent in INTENTS {
            assert!(requests.of(intent).hosts.is_empty());
        }
    }
}
