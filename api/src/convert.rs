//! Between the messages of the API and the words of the core, both ways.

use std::collections::BTreeMap;

use scheduler::core::{MOST_CONSUMERS, record_view};
use scheduler::decision::{Claim, Decision, DetailView, HostStory, Placement, RankedHost, StepKind, StepReport};
use scheduler::remedy::{self, Aspect, Remedies, Remedy};
use scheduler::report::{AggregateReport, HostReport, InstanceReport, NumaCell};
use scheduler::request::{Caller, Candidate, Candidates, Destination, Group, GroupPolicy, Options, Request};
use scheduler::state::{Stored, Tables};
use scheduler::{Consumer, Domain, FeatureReport, Intent, Inventory, Phase, Provider, Purpose, Sym};
use uuid::Uuid;

use crate::body::{BadRequest, is_id};
use crate::guest;
use crate::pod::pod;
use crate::proto::v1;

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

fn bad(path: &str, message: impl Into<String>) -> BadRequest {
    BadRequest { path: path.to_owned(), message: message.into() }
}

/// A domain by name; absent or empty = nova.
pub(crate) fn domain(path: &str, name: Option<&str>) -> Result<Domain, BadRequest> {
    match name {
        None | Some("") => Ok(Domain::Nova),
        Some(name) => name.parse().map_err(|message: String| bad(path, message)),
    }
}

/// A domain to choose by; absent or empty = any.
pub(crate) fn some_domain(name: Option<&str>) -> Result<Option<Domain>, BadRequest> {
    name.filter(|name| !name.is_empty()).map(|name| domain("domain", Some(name))).transpose()
}

/// A uuid.
pub(crate) fn uuid(path: &str, text: &str) -> Result<Uuid, BadRequest> {
    Uuid::try_parse(text).map_err(|_| bad(path, format!("'{}' given, a uuid expected", text.escape_debug())))
}

fn some_uuid(path: &str, text: Option<&str>) -> Result<Option<Uuid>, BadRequest> {
    text.map(|text| uuid(path, text)).transpose()
}

/// An intent by name; absent or empty = none.
pub(crate) fn intent(path: &str, name: Option<&str>) -> Result<Option<Intent>, BadRequest> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    INTENTS.into_iter().find(|intent| intent.as_str() == name).map(Some).ok_or_else(|| {
        let known: Vec<&str> = INTENTS.iter().map(|intent| intent.as_str()).collect();
        bad(path, format!("'{}' given, one of {} expected", name.escape_debug(), known.join(", ")))
    })
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A request to place, traced under `trace_id` unless it names an id of its own.
pub(crate) fn request(from: v1::PlaceRequest, trace_id: &str) -> Result<Request, BadRequest> {
    let key = some_uuid("request_id", from.request_id.as_deref().filter(|id| !id.is_empty()))?;
    let mut consumers = Vec::with_capacity(from.consumers.len().max(1));
    for (at, text) in from.consumers.iter().enumerate() {
        // The path is for an error only: it is not written for each of many.
        consumers.push(Uuid::try_parse(text).or_else(|_| uuid(&format!("consumers[{at}]"), text))?);
    }
    if consumers.is_empty() {
        let most = MOST_CONSUMERS;
        if from.count as usize > most {
            return Err(bad("count", format!("{} given, 1 to {most} expected", from.count)));
        }
        // The same key means the same consumers: a repeat is the same request.
        consumers.extend((0..from.count.max(1)).map(|at| match key {
            Some(key) => Uuid::new_v5(&key, &at.to_be_bytes()),
            None => Uuid::now_v7(),
        }));
    } else if from.count != 0 && from.count as usize != consumers.len() {
        return Err(bad("count", format!("{} given with {} consumers", from.count, consumers.len())));
    }
    let candidates = match from.candidates.as_slice() {
        [] => Candidates::All,
        hosts => {
            if let Some(at) = hosts.iter().position(|host| host.host.is_empty()) {
                return Err(bad(&format!("candidates[{at}].host"), "an empty name given, a host name expected"));
            }
            let candidate =
                |host: v1::Candidate| Candidate { host: host.host.into(), node: host.node.into(), weight: host.weight };
            Candidates::Sent(from.candidates.into_iter().map(candidate).collect())
        }
    };
    let mut options = from.options.map(options).unwrap_or_default();
    if from.dry_run {
        options = Options {
            assume_empty_hosts: options.assume_empty_hosts,
            lock_reservations: options.lock_reservations,
            ignored_reservation_types: options.ignored_reservation_types,
            max_candidates: options.max_candidates,
            ..Options::probe()
        };
    }
    let trace_id = match filled(from.trace_id) {
        None => trace_id.to_owned(),
        Some(id) if is_id(&id) => id,
        Some(_) => return Err(bad("trace_id", "at most 64 bytes of visible ASCII expected")),
    };
    let domain = domain("domain", from.domain.as_deref())?;
    let (pod, resources) = pod(from.pod, domain, from.resources)?;
    Ok(Request {
        domain,
        num_instances: consumers.len() as u64,
        consumers,
        caller: Caller::Keyed { key },
        pipeline: filled(from.pipeline),
        project: filled(from.project_id),
        user: filled(from.user_id),
        label: intent("intent", from.intent.as_deref())?,
        source_host: filled(from.source_host),
        resources: resources.into_iter().filter(|(_, amount)| *amount > 0).collect(),
        flavor: filled(from.flavor),
        extra_specs: from.extra_specs,
        image: filled(from.image_id),
        image_properties: from.image_properties,
        required_traits: from.required_traits,
        forbidden_traits: from.forbidden_traits,
        zone: filled(from.availability_zone),
        candidates,
        ignore_hosts: from.ignore_hosts,
        retry_hosts: from.retry_hosts,
        force_hosts: from.force_hosts,
        force_nodes: from.force_nodes,
        destination: from.destination.map(destination).unwrap_or_default(),
        group: from.group.map(group).transpose()?,
        hints: from.hints.into_iter().map(|(key, values)| (key, values.items)).collect(),
        pci: guest::pci(from.pci_requests)?,
        numa: guest::numa(from.numa_topology)?,
        pod,
        options,
        trace_id,
    })
}

fn options(from: v1::PlaceOptions) -> Options {
    Options {
        read_only: from.read_only,
        assume_empty_hosts: from.assume_empty_hosts,
        lock_reservations: from.lock_reservations,
        ignored_reservation_types: from.ignored_reservation_types,
        max_candidates: from.max_candidates,
        skip_history: from.skip_history,
        skip_inflight: from.skip_inflight,
        skip_committed_resource_tracking: from.skip_committed_resource_tracking,
    }
}

fn destination(from: v1::Destination) -> Destination {
    Destination {
        host: filled(from.host),
        node: filled(from.node),
        aggregates: from.aggregates.into_iter().map(|set| set.any_of).filter(|set| !set.is_empty()).collect(),
        forbidden_aggregates: from.forbidden_aggregates,
        cell_named: from.cell.is_some(),
        preferred_cell: filled(from.cell).filter(|_| from.allow_cross_cell_move),
    }
}

fn group(from: v1::ServerGroup) -> Result<Group, BadRequest> {
    let mut members = Vec::with_capacity(from.members.len());
    for (at, member) in from.members.iter().enumerate() {
        members.push(uuid(&format!("group.members[{at}]"), member)?);
    }
    Ok(Group {
        uuid: some_uuid("group.uuid", from.uuid.as_deref())?,
        policy: GroupPolicy::from_name(&from.policy),
        members,
        hosts: from.hosts,
        max_per_host: from.max_server_per_host.max(1),
    })
}

/// Features of a host; the state validates them.
pub(crate) fn features(from: v1::HostFeatures) -> Result<FeatureReport, BadRequest> {
    Ok(FeatureReport {
        domain: domain("domain", from.domain.as_deref())?,
        name: from.name,
        hypervisor_hostname: filled(from.hypervisor_hostname),
        values: from.values,
        forget: from.forget,
        observed_at: from.observed_at,
    })
}

/// Name of what happened to a claim.
pub(crate) fn claim(claim: Claim) -> &'static str {
    match claim {
        Claim::Made => "made",
        Claim::Kept => "kept",
        Claim::Replaced => "replaced",
        Claim::None => "none",
    }
}

/// The answer; with what each step did, when that is wanted.
pub(crate) fn decision(from: &Decision, steps: bool) -> v1::Decision {
    let told = from.steps.iter().zip(&from.ranges).take(if steps { usize::MAX } else { 0 });
    v1::Decision {
        id: from.id,
        domain: from.domain.to_string(),
        intent: from.intent.to_string(),
        pipeline: from.pipeline.clone(),
        placements: from.placements.iter().map(Into::into).collect(),
        hosts: from.hosts.iter().map(Into::into).collect(),
        claim: claim(from.claim).to_owned(),
        candidates: from.candidates,
        unknown_hosts: from.unknown_hosts.clone(),
        steps: told.map(|(step, range)| step_report(step, *range)).collect(),
        notes: if steps { from.notes.clone() } else { Vec::new() },
        wall_ms: from.wall,
        trace_id: from.trace_id.clone(),
        pipeline_version: from.version,
    }
}

impl From<&Placement> for v1::Placement {
    fn from(from: &Placement) -> Self {
        Self {
            consumer: from.consumer.to_string(),
            host: from.host.clone(),
            node: from.node.clone(),
            provider: from.provider.to_string(),
        }
    }
}

impl From<&RankedHost> for v1::RankedHost {
    fn from(from: &RankedHost) -> Self {
        Self { host: from.host.to_string(), score: from.score }
    }
}

fn reasons(from: Vec<(String, u64)>) -> Vec<v1::DropReason> {
    from.into_iter().map(|(reason, hosts)| v1::DropReason { reason, hosts }).collect()
}

fn step_report(from: &StepReport, range: Option<(f64, f64)>) -> v1::StepReport {
    let kind = match from.kind {
        StepKind::Filter => "filter",
        StepKind::Weigher => "weigher",
    };
    v1::StepReport {
        name: from.name.clone(),
        kind: kind.to_owned(),
        hosts_in: from.hosts_in,
        hosts_out: from.hosts_out,
        skipped: from.skipped.clone(),
        reasons: reasons(from.reasons.clone()),
        dropped: from.dropped.iter().map(ToString::to_string).collect(),
        multiplier: from.multiplier,
        lowest: range.map(|(lowest, _)| lowest),
        highest: range.map(|(_, highest)| highest),
    }
}

/// A remembered decision, with names instead of numbers.
pub(crate) fn record(tables: &Tables, stored: &Stored) -> v1::DecisionRecord {
    let view = record_view(tables, stored);
    let reason = |(reason, hosts)| v1::DropReason { reason, hosts };
    v1::DecisionRecord {
        id: view.id,
        wall_ms: view.wall,
        domain: view.domain.to_string(),
        consumers: view.consumers.iter().map(ToString::to_string).collect(),
        intent: view.intent.to_string(),
        pipeline: view.pipeline,
        project_id: view.project,
        flavor: view.flavor,
        candidates: view.candidates,
        unknown_hosts: view.unknown_hosts,
        drops: view
            .drops
            .into_iter()
            .map(|(step, reasons)| v1::StepDrops { step, reasons: reasons.into_iter().map(reason).collect() })
            .collect(),
        hosts_out: view.hosts_out,
        top: view.top.iter().map(Into::into).collect(),
        claimed: view.claimed,
        claim: claim(view.claim).to_owned(),
        trace_id: view.trace_id,
        pipeline_version: view.version,
    }
}

impl From<DetailView> for v1::DecisionDetail {
    fn from(from: DetailView) -> Self {
        Self { decision: Some(decision(&from.decision, true)), hosts: from.hosts.into_iter().map(Into::into).collect() }
    }
}

impl From<Remedies> for v1::Remedies {
    fn from(from: Remedies) -> Self {
        let remedy = |remedy: Remedy| v1::Remedy {
            changes: remedy.changes.into_iter().map(Into::into).collect(),
            hosts: remedy.hosts,
            first: remedy.first,
        };
        Self {
            fits: from.fits,
            placed: from.placed,
            remedies: from.remedies.into_iter().map(remedy).collect(),
            bounded: from.bounded,
        }
    }
}

impl From<remedy::Change> for v1::RemedyChange {
    fn from(from: remedy::Change) -> Self {
        let mut out = Self::default();
        let kind = match from {
            remedy::Change::WithoutFilter { step, reasons } => {
                (out.name, out.reasons) = (Some(step), reasons);
                "without_filter"
            }
            remedy::Change::Without(Aspect::RequiredTrait(name)) => {
                out.name = Some(name);
                "without_required_trait"
            }
            remedy::Change::Without(Aspect::ForbiddenTrait(name)) => {
                out.name = Some(name);
                "without_forbidden_trait"
            }
            remedy::Change::Without(Aspect::Group) => "without_group",
            remedy::Change::Without(Aspect::Candidates) => "other_candidates",
            // They are never left out: more capacity is sought instead.
            remedy::Change::Without(Aspect::Amounts) => "without_amounts",
            remedy::Change::More { amounts, zone } => {
                (out.amounts, out.zone) = (amounts.into_iter().collect(), zone);
                "more_capacity"
            }
            remedy::Change::Move { consumer, from, to, amounts } => {
                out.amounts = amounts.into_iter().collect();
                (out.consumer, out.from, out.to) = (Some(consumer.to_string()), Some(from), Some(to));
                "move"
            }
        };
        kind.clone_into(&mut out.kind);
        out
    }
}

impl From<HostStory> for v1::HostStory {
    fn from(from: HostStory) -> Self {
        Self {
            host: from.host,
            rank: from.rank,
            dropped_by: from.dropped_by,
            reason: from.reason,
            base: from.base,
            scores: from
                .scores
                .into_iter()
                .map(|(step, raw, contribution)| v1::StepScore { step, raw, contribution })
                .collect(),
            score: from.score,
        }
    }
}

impl From<HostReport> for v1::HostReport {
    fn from(from: HostReport) -> Self {
        let list = |items: Option<Vec<String>>| items.map(|items| v1::StringList { items });
        Self {
            domain: Some(from.domain.to_string()),
            name: from.name,
            hypervisor_hostname: from.hypervisor_hostname,
            uuid: from.uuid.map(|uuid| uuid.to_string()),
            availability_zone: from.availability_zone,
            hypervisor_type: from.hypervisor_type,
            cpu_arch: from.cpu_arch,
            inventories: from.inventories.map(|items| v1::InventoryMap {
                items: items.into_iter().map(|(class, inventory)| (class, inventory.into())).collect(),
            }),
            allocation: from.allocation.map(|items| v1::AmountMap { items }),
            traits: list(from.traits),
            aggregates: from.aggregates.map(|items| v1::AggregateList {
                items: items
                    .into_iter()
                    .map(|aggregate| v1::AggregateReport {
                        name: aggregate.name,
                        uuid: aggregate.uuid.map(|uuid| uuid.to_string()),
                        metadata: aggregate.metadata.map(|items| v1::StringMap { items }),
                    })
                    .collect(),
            }),
            conditions: from.conditions.map(|items| v1::StringMap { items }),
            disabled: from.disabled,
            forced_down: from.forced_down,
            allowed_projects: list(from.allowed_projects),
            cpu_models: list(from.cpu_models),
            cpu_features: list(from.cpu_features),
            cpu_devices: list(from.cpu_devices),
            numa: from.numa.map(|items| v1::NumaCellList {
                items: items
                    .into_iter()
                    .map(|cell| v1::NumaCell { id: cell.id, cpus: cell.cpus, memory_mb: cell.memory_mb })
                    .collect(),
            }),
            nova_host_state: from.nova_host_state,
            labels: from.labels.map(|items| v1::StringMap { items }),
            taints: list(from.taints),
            observed_at: from.observed_at,
            instances: from.instances.map(|items| v1::InstanceReportList {
                items: items
                    .into_iter()
                    .map(|instance| v1::InstanceReport {
                        uuid: instance.uuid.to_string(),
                        project_id: instance.project_id,
                        resources: instance.resources.map(|items| v1::AmountMap { items }),
                        flavor: instance.flavor,
                        server_group: instance.server_group.map(|uuid| uuid.to_string()),
                    })
                    .collect(),
            }),
        }
    }
}

impl From<Inventory> for v1::InventoryReport {
    fn from(from: Inventory) -> Self {
        Self {
            total: from.total,
            reserved: from.reserved,
            allocation_ratio: Some(from.allocation_ratio),
            min_unit: Some(from.min_unit),
            max_unit: Some(from.max_unit),
            step_size: Some(from.step_size),
        }
    }
}

impl From<v1::InventoryReport> for Inventory {
    fn from(from: v1::InventoryReport) -> Self {
        Self {
            total: from.total,
            reserved: from.reserved,
            allocation_ratio: from.allocation_ratio.unwrap_or(1.0),
            min_unit: from.min_unit.unwrap_or(1),
            max_unit: from.max_unit.unwrap_or(i32::MAX as u64),
            step_size: from.step_size.unwrap_or(1),
        }
    }
}

impl TryFrom<v1::HostReport> for HostReport {
    type Error = BadRequest;

    fn try_from(from: v1::HostReport) -> Result<Self, BadRequest> {
        let list = |list: Option<v1::StringList>| list.map(|list| list.items);
        Ok(Self {
            domain: domain("domain", from.domain.as_deref())?,
            name: from.name,
            hypervisor_hostname: from.hypervisor_hostname,
            uuid: some_uuid("uuid", from.uuid.as_deref())?,
            availability_zone: from.availability_zone,
            hypervisor_type: from.hypervisor_type,
            cpu_arch: from.cpu_arch,
            inventories: from
                .inventories
                .map(|map| map.items.into_iter().map(|(class, inventory)| (class, inventory.into())).collect()),
            allocation: from.allocation.map(|map| map.items),
            traits: list(from.traits),
            aggregates: from
                .aggregates
                .map(|list| list.items.into_iter().enumerate().map(aggregate).collect())
                .transpose()?,
            conditions: from.conditions.map(|map| map.items),
            disabled: from.disabled,
            forced_down: from.forced_down,
            allowed_projects: list(from.allowed_projects),
            cpu_models: list(from.cpu_models),
            cpu_features: list(from.cpu_features),
            cpu_devices: list(from.cpu_devices),
            numa: from.numa.map(|list| {
                let cell = |cell: v1::NumaCell| NumaCell { id: cell.id, cpus: cell.cpus, memory_mb: cell.memory_mb };
                list.items.into_iter().map(cell).collect()
            }),
            nova_host_state: from.nova_host_state.map(object).transpose()?,
            labels: from.labels.map(|map| map.items),
            taints: list(from.taints),
            observed_at: from.observed_at,
            instances: from
                .instances
                .map(|list| list.items.into_iter().enumerate().map(instance).collect())
                .transpose()?,
        })
    }
}

fn aggregate((at, from): (usize, v1::AggregateReport)) -> Result<AggregateReport, BadRequest> {
    Ok(AggregateReport {
        uuid: some_uuid(&format!("aggregates[{at}].uuid"), from.uuid.as_deref())?,
        name: from.name,
        metadata: from.metadata.map(|map| map.items),
    })
}

fn instance((at, from): (usize, v1::InstanceReport)) -> Result<InstanceReport, BadRequest> {
    Ok(InstanceReport {
        uuid: uuid(&format!("instances[{at}].uuid"), &from.uuid)?,
        project_id: from.project_id,
        resources: from.resources.map(|map| map.items),
        flavor: from.flavor,
        server_group: some_uuid(&format!("instances[{at}].server_group"), from.server_group.as_deref())?,
    })
}

/// The text of a JSON object; gRPC carries it as text that nothing has read yet.
fn object(text: String) -> Result<String, BadRequest> {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(bad("nova_host_state", format!("a JSON object expected: {error}"))),
    }
}

/// A host as it is known.
pub(crate) fn host(tables: &Tables, provider: &Provider) -> v1::Host {
    let text = |sym: Sym| tables.names.text(sym).to_owned();
    let texts = |syms: &[Sym]| syms.iter().map(|&sym| text(sym)).collect::<Vec<_>>();
    let pairs = |syms: &[Sym]| {
        let pairs = syms.iter().filter_map(|&sym| tables.names.text(sym).split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let consumers = provider.consumers.iter().filter_map(|&slot| tables.consumer_at(slot));
    let (claims, instances): (Vec<_>, Vec<_>) = consumers.partition(|consumer| consumer.is_open());
    v1::Host {
        uuid: provider.uuid.to_string(),
        domain: provider.domain.to_string(),
        name: text(provider.host),
        hypervisor_hostname: provider.node.map(text),
        availability_zone: provider.zone.map(text),
        hypervisor_type: provider.hypervisor_type.map(text),
        cpu_arch: provider.cpu_arch.map(text),
        resources: provider
            .inventories
            .iter()
            .map(|(class, inventory)| {
                let stock = v1::Stock {
                    total: inventory.total,
                    reserved: inventory.reserved,
                    allocation_ratio: inventory.allocation_ratio,
                    capacity: inventory.capacity(),
                    used: provider.used(*class),
                };
                (text(*class), stock)
            })
            .collect(),
        traits: texts(&provider.traits),
        aggregates: provider
            .aggregates
            .iter()
            .map(|&key| match tables.aggregate(key) {
                Some(known) => {
                    v1::HostAggregate { name: known.name.clone(), uuid: known.uuid.map(|uuid| uuid.to_string()) }
                }
                None => v1::HostAggregate { name: text(key), uuid: None },
            })
            .collect(),
        conditions: pairs(&provider.conditions),
        disabled: provider.disabled,
        forced_down: provider.forced_down,
        allowed_projects: texts(&provider.allowed_projects),
        cpu_models: texts(&provider.cpu_models),
        cpu_features: texts(&provider.cpu_features),
        cpu_devices: texts(&provider.cpu_devices),
        excess: texts(&provider.excess),
        generation: provider.generation,
        incarnation: provider.incarnation,
        observed_at: provider.observed_at,
        instances: instances.len() as u64,
        claims: claims.len() as u64,
        features: provider.features.0.iter().map(|known| (text(known.name), known.value)).collect(),
        features_at: provider.features.0.iter().map(|known| known.observed_at).max().unwrap_or(0),
        features_observed_at: provider.features.0.iter().map(|known| (text(known.name), known.observed_at)).collect(),
        labels: pairs(&provider.labels),
        taints: texts(&provider.taints),
    }
}

/// A consumer as it is known.
pub(crate) fn consumer(tables: &Tables, consumer: &Consumer) -> v1::Instance {
    let text = |sym: Sym| tables.names.text(sym).to_owned();
    let provider = tables.provider(consumer.row);
    let (phase, expires_in_ms) = match consumer.phase {
        Phase::Claimed { expires } => ("claimed", Some(expires.saturating_sub(tables.counters().now))),
        Phase::Confirmed => ("confirmed", None),
        Phase::Observed => ("observed", None),
    };
    let purpose = match consumer.purpose {
        Purpose::Instance => "instance",
        Purpose::Move => "move",
    };
    let resources: BTreeMap<String, u64> =
        consumer.amounts.iter().map(|(class, amount)| (text(class), amount)).collect();
    v1::Instance {
        uuid: consumer.uuid.to_string(),
        domain: consumer.domain.to_string(),
        purpose: purpose.to_owned(),
        host: provider.map(|provider| text(provider.host)).unwrap_or_default(),
        hypervisor_hostname: provider.and_then(|provider| provider.node).map(text),
        resources,
        phase: phase.to_owned(),
        expires_in_ms,
        project_id: consumer.project.map(text),
        user_id: consumer.user.map(text),
        flavor: consumer.flavor.map(text),
        server_group: consumer.group.as_deref().map(Uuid::to_string),
        intent: (consumer.ticket != 0).then(|| consumer.intent.to_string()),
        decision: consumer.decision,
        since: consumer.since_wall,
    }
}
