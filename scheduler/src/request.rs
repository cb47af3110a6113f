//! One placement request, in no protocol's words: every front door translates into this.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::domain::Domain;
use crate::intent::Intent;
use crate::numa::GuestTopology;
use crate::pod::Pod;
use crate::remedy::Aspect;

/// A request for one host for each of its consumers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Domain whose providers are asked for.
    pub domain: Domain,
    /// The consumers to place; the hook always names exactly one. Each gets a host of its own
    /// choice; all or none are claimed.
    pub consumers: Vec<Uuid>,
    /// Who called: what decides how repeats are read.
    pub caller: Caller,
    /// Pipeline asked for by name; `None` = inferred.
    pub pipeline: Option<String>,
    /// Owner project.
    pub project: Option<String>,
    /// Owner user.
    pub user: Option<String>,
    /// Label of the operation; `None` = derived from the state.
    pub label: Option<Intent>,
    /// Source host of a move, as the hint names it (it may be stale).
    pub source_host: Option<String>,
    /// Wanted amounts of one consumer: resource class → amount in its unit.
    pub resources: BTreeMap<String, u64>,
    /// Flavor name.
    pub flavor: Option<String>,
    /// Flavor extra specs.
    pub extra_specs: BTreeMap<String, String>,
    /// Id of the image; `None`: without an image, or one that has no id.
    #[serde(default)]
    pub image: Option<String>,
    /// Normalised image properties (numbers and booleans as their JSON text).
    pub image_properties: BTreeMap<String, String>,
    /// Traits that must be there (`trait:X=required`, the image's, the caller's).
    pub required_traits: Vec<String>,
    /// Traits that must not be there.
    pub forbidden_traits: Vec<String>,
    /// Availability zone; empty or `None` = any.
    pub zone: Option<String>,
    /// Hosts to choose from.
    pub candidates: Candidates,
    /// Hosts never to use (ASCII case-insensitive).
    pub ignore_hosts: Vec<String>,
    /// Hosts that a former attempt of the same operation refused.
    pub retry_hosts: Vec<String>,
    /// If not empty, only these hosts (ASCII case-insensitive).
    pub force_hosts: Vec<String>,
    /// If not empty, only these nodes (exact).
    pub force_nodes: Vec<String>,
    /// Requested destination.
    pub destination: Destination,
    /// Server group.
    pub group: Option<Group>,
    /// Scheduler hints, values always as lists.
    pub hints: BTreeMap<String, Vec<String>>,
    /// PCI devices asked for, all of them together.
    #[serde(default)]
    pub pci: Vec<PciRequest>,
    /// NUMA cells asked for.
    #[serde(default)]
    pub numa: Option<GuestTopology>,
    /// What it asks of a node's labels and taints (pods and machines).
    #[serde(default)]
    pub pod: Pod,
    /// Size of the original request, a hint; never used for capacity.
    pub num_instances: u64,
    /// The call's options.
    pub options: Options,
    /// Ids for logs and traces, never for decisions.
    pub trace_id: String,
}

/// Which contract the caller follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A hook: a repeat is ranked anew and only its claim is remembered. `request` is the
    /// caller's own request id (`req-<uuid>`), absent in the hook's first generation.
    Hook {
        /// Request id of the context, if the hook sent one.
        request: Option<Uuid>,
    },
    /// A caller with an idempotency key (UUIDv7): the same key and content give the first answer.
    Keyed {
        /// The key; `None` = every call is a new request.
        key: Option<Uuid>,
    },
}

impl Default for Caller {
    fn default() -> Self {
        Self::Keyed { key: None }
    }
}

/// The hosts that a request may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Candidates {
    /// Every provider of the domain.
    #[default]
    All,
    /// These, in the caller's order.
    Sent(Vec<Candidate>),
}

/// A host that the caller sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Compute host name.
    pub host: SmolStr,
    /// Node name.
    pub node: SmolStr,
    /// The caller's own weight.
    pub weight: f64,
}

/// Where the caller wants to go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// This host only.
    pub host: Option<String>,
    /// This node only.
    pub node: Option<String>,
    /// AND of ORs of aggregate uuids.
    pub aggregates: Vec<Vec<String>>,
    /// None of these aggregates.
    pub forbidden_aggregates: Vec<String>,
    /// A cell was named (a move; the cell itself is Nova's concern).
    pub cell_named: bool,
    /// Uuid of that cell, where hosts of other cells are allowed too: the hosts of this one come first.
    #[serde(default)]
    pub preferred_cell: Option<String>,
}

/// PCI devices that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PciRequest {
    /// How many.
    pub count: u64,
    /// What a device must be: any of these, each a map of keys and values.
    pub specs: Vec<BTreeMap<String, Option<String>>>,
}

/// Policy of a server group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupPolicy {
    /// All members on one host.
    Affinity,
    /// At most `max_server_per_host` members on a host.
    AntiAffinity,
    /// Rather together.
    SoftAffinity,
    /// Rather apart.
    SoftAntiAffinity,
}

impl GroupPolicy {
    /// Reads Nova's name of a policy.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "affinity" => Self::Affinity,
            "anti-affinity" => Self::AntiAffinity,
            "soft-affinity" => Self::SoftAffinity,
            "soft-anti-affinity" => Self::SoftAntiAffinity,
            _ => return None,
        })
    }
}

/// A server group as the request carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Group uuid.
    pub uuid: Option<Uuid>,
    /// Policy; `None` = one we do not know: no rule applies.
    pub policy: Option<GroupPolicy>,
    /// Members, including ones still being built.
    pub members: Vec<Uuid>,
    /// Hosts that hold members, by the caller's knowledge.
    pub hosts: Vec<String>,
    /// `max_server_per_host`, at least 1.
    pub max_per_host: u64,
}

/// Call-time options (`nova-pipeline` A.8).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Decide and explain, claim and record nothing. Demands the three skips.
    pub read_only: bool,
    /// The capacity filter ignores what is in use.
    pub assume_empty_hosts: bool,
    /// The capacity filter never unlocks committed-resource reservations.
    pub lock_reservations: bool,
    /// Reservation types left out of the capacity arithmetic.
    pub ignored_reservation_types: Vec<String>,
    /// Keep only the first N hosts of the answer; 0 = all.
    pub max_candidates: u64,
    /// Record no history.
    pub skip_history: bool,
    /// Make no claim.
    pub skip_inflight: bool,
    /// Do not write the instance into a committed-resource slot.
    pub skip_committed_resource_tracking: bool,
}

impl Options {
    /// A question that leaves no trace.
    pub fn probe() -> Self {
        Self {
            read_only: true,
            skip_history: true,
            skip_inflight: true,
            skip_committed_resource_tracking: true,
            ..Self::default()
        }
    }

    /// The rule between `read_only` and the three skips, in the peer's words.
    pub fn validate(&self) -> Result<(), String> {
        if !self.read_only {
            return Ok(());
        }
        let rules = [
            (self.skip_history, "read-only runs must not write scheduling history: set skip_history=true"),
            (self.skip_inflight, "read-only runs cannot create inflight reservations: set skip_inflight=true"),
            (
                self.skip_committed_resource_tracking,
                "read-only runs must not write CR reservation allocations: set skip_committed_resource_tracking=true",
            ),
        ];
        rules.into_iter().find(|(set, _)| !set).map_or(Ok(()), |(_, text)| Err(text.to_owned()))
    }
}

impl Request {
    /// Whether `other` asks the same, for whichever consumer.
    pub(crate) fn asks_same(&self, other: &Self) -> bool {
        // Every field is named, so that a new one is not forgotten.
        let Self {
            domain,
            consumers: _,
            caller: _,
            pipeline,
            project,
            user,
            label,
            source_host,
            resources,
            flavor,
            extra_specs,
            image,
            image_properties,
            required_traits,
            forbidden_traits,
            zone,
            candidates,
            ignore_hosts,
            retry_hosts,
            force_hosts,
            force_nodes,
            destination,
            group,
            hints,
            pci,
            numa,
            pod,
            num_instances,
            options,
            trace_id: _,
        } = self;
        (domain, label, num_instances) == (&other.domain, &other.label, &other.num_instances)
            && (resources, flavor, project, user, zone)
                == (&other.resources, &other.flavor, &other.project, &other.user, &other.zone)
            && (pipeline, extra_specs) == (&other.pipeline, &other.extra_specs)
            && (image, image_properties) == (&other.image, &other.image_properties)
            && (required_traits, forbidden_traits) == (&other.required_traits, &other.forbidden_traits)
            && (ignore_hosts, retry_hosts) == (&other.ignore_hosts, &other.retry_hosts)
            && (force_hosts, force_nodes) == (&other.force_hosts, &other.force_nodes)
            && (source_host, destination, group, hints)
                == (&other.source_host, &other.destination, &other.group, &other.hints)
            && (options, pci, numa, pod) == (&other.options, &other.pci, &other.numa, &other.pod)
            && candidates == &other.candidates
    }

    /// Whether hosts that no source has reported are ranked too. Cinder and Manila send hosts that nobody
    /// has to report, and claim nothing of them; without them an empty pallium would stop both.
    pub(crate) fn ranks_unknown(&self) -> bool {
        matches!(self.caller, Caller::Hook { .. }) && matches!(self.domain, Domain::Cinder | Domain::Manila)
    }

    /// The same without a part of it.
    pub fn without(&self, aspect: &Aspect) -> Self {
        let mut out = self.clone();
        match aspect {
            Aspect::Amounts => {}
            Aspect::RequiredTrait(name) => out.required_traits.retain(|known| known != name),
            Aspect::ForbiddenTrait(name) => out.forbidden_traits.retain(|known| known != name),
            Aspect::Group => out.group = None,
            Aspect::Candidates => out.candidates = Candidates::All,
        }
        out
    }

    /// First value of a hint, the way Nova means one-element lists.
    pub fn hint(&self, key: &str) -> Option<&str> {
        self.hints.get(key)?.first().map(String::as_str)
    }

    /// Amount asked of a class, 0 when none.
    pub fn amount(&self, class: &str) -> u64 {
        self.resources.get(class).copied().unwrap_or(0)
    }
}
