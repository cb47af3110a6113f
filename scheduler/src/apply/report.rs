//! Applying what a source says of one host.
//!
//! A report is the full truth of its host at `observed_at`: a listed instance confirms its claim,
//! one no longer listed is gone, a claim that was not seen yet stays until it expires. A report
//! older than the last applied one of its host is ignored.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::apply::place::claimable;
use crate::apply::{Touched, forgive_excess, note_excess};
use crate::command::{Change, Outcome};
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::domain::Domain;
use crate::features::Features;
use crate::intent::Intent;
use crate::inventory::Inventory;
use crate::names::{Names, Sym};
use crate::provider::{Aggregate, Amounts, Provider, Row};
use crate::report::{AggregateReport, HostReport, InstanceReport};
use crate::sharded::hash_of;
use crate::state::State;

pub(super) fn report(state: &mut State, report: &HostReport, touched: &mut Vec<Touched>) -> Outcome {
    if let Err(error) = report.validate() {
        return Outcome::Refused(error);
    }
    let observed_at = report.observed_at.unwrap_or(state.tables.counters.wall);
    let by_uuid = report.uuid.and_then(|uuid| state.tables.row_of(uuid));
    let by_name = state.tables.row_of_node(report.domain, &report.name, report.hypervisor_hostname.as_deref());
    if let Some(row) = by_uuid
        && let Some(provider) = state.tables.provider(row)
        && (provider.domain != report.domain || state.tables.names.text(provider.host) != report.name)
    {
        return Outcome::Refused(format!(
            "uuid: {} belongs to host '{}' of domain {}, not to '{}' of domain {}",
            provider.uuid,
            state.tables.names.text(provider.host),
            provider.domain,
            report.name,
            report.domain
        ));
    }
    let (row, added) = match by_uuid.or(by_name) {
        Some(row) => (row, false),
        None => match add(state, report) {
            Ok(row) => (row, true),
            Err(error) => return Outcome::Refused(error),
        },
    };
    let Some(before) = state.tables.provider(row).cloned() else {
        return Outcome::Refused("the host vanished while its report was applied".to_owned());
    };
    if !added && observed_at < before.observed_at {
        return Outcome::Reported(Change::Stale);
    }
    facts(state, row, report, touched);
    let mut moved = false;
    if let Some(instances) = &report.instances {
        moved = see(state, row, instances, observed_at, touched);
    }
    let Some(provider) = state.tables.provider_mut(row) else {
        return Outcome::Refused("the host vanished while its report was applied".to_owned());
    };
    provider.observed_at = observed_at;
    note_excess(provider);
    let mut now = provider.clone();
    now.observed_at = before.observed_at;
    now.generation = before.generation;
    if now == before && !added && !moved {
        if now.nova_host_state.is_some() && observed_at != before.observed_at {
            touched.push(Touched::Use(row));
        }
        return Outcome::Reported(Change::Unchanged);
    }
    provider.generation += 1;
    // Apart from what is in use.
    now.consumers.clone_from(&before.consumers);
    now.excess.clone_from(&before.excess);
    (now.reported, now.listed, now.open) = (before.reported.clone(), before.listed.clone(), before.open.clone());
    touched.push(if now == before && !added { Touched::Use(row) } else { Touched::Facts(row) });
    Outcome::Reported(if added { Change::Added } else { Change::Changed })
}

fn add(state: &mut State, report: &HostReport) -> Result<Row, String> {
    let uuid = report.provider_uuid();
    if let Some(row) = state.tables.row_of(uuid) {
        let other = state.tables.provider(row).map_or("", |provider| state.tables.names.text(provider.host));
        return Err(format!("uuid: {uuid} belongs to host '{other}' already"));
    }
    let names = &mut state.tables.names;
    names.intern(report.domain.as_str());
    let host = names.intern(&report.name);
    Ok(state.tables.add_provider(Provider {
        uuid,
        domain: report.domain,
        host,
        node: None,
        generation: 0,
        incarnation: 1,
        zone: None,
        hypervisor_type: None,
        cpu_arch: None,
        inventories: Vec::new(),
        reported: Amounts::default(),
        listed: Amounts::default(),
        open: Amounts::default(),
        excess: Vec::new(),
        traits: Vec::new(),
        aggregates: Vec::new(),
        conditions: Vec::new(),
        disabled: false,
        forced_down: false,
        allowed_projects: Vec::new(),
        cpu_models: Vec::new(),
        cpu_features: Vec::new(),
        cpu_devices: Vec::new(),
        numa: Vec::new(),
        nova_host_state: None,
        labels: Vec::new(),
        taints: Vec::new(),
        features: Features::default(),
        observed_at: 0,
        consumers: Vec::new(),
    }))
}

fn facts(state: &mut State, row: Row, report: &HostReport, touched: &mut Vec<Touched>) {
    let aggregates = report.aggregates.as_ref().map(|reports| aggregates(state, reports, touched));
    let tables = &mut state.tables;
    let taken = report.uuid.is_some_and(|uuid| tables.row_of(uuid).is_some());
    let names = &mut tables.names;
    let one = |names: &mut Names, text: &Option<String>| text.as_ref().map(|text| names.intern(text));
    let set = |names: &mut Names, list: &Option<Vec<String>>| {
        list.as_ref().map(|list| sorted(list.iter().map(|text| names.intern(text)).collect()))
    };
    let node = one(names, &report.hypervisor_hostname);
    let zone = one(names, &report.availability_zone);
    let hypervisor_type = one(names, &report.hypervisor_type);
    let cpu_arch = one(names, &report.cpu_arch);
    let traits = set(names, &report.traits);
    let allowed_projects = set(names, &report.allowed_projects);
    let cpu_models = set(names, &report.cpu_models);
    let cpu_features = set(names, &report.cpu_features);
    let cpu_devices = set(names, &report.cpu_devices);
    let conditions = report.conditions.as_ref().map(|conditions| {
        sorted(conditions.iter().map(|(kind, value)| names.intern(&format!("{kind}={value}"))).collect())
    });
    let labels = report.labels.as_ref().map(|labels| {
        let pair = |(key, value): (&String, &String)| {
            // The index lists hosts by key as well.
            names.intern(key);
            names.intern(&format!("{key}={value}"))
        };
        sorted(labels.iter().map(pair).collect())
    });
    let taints = set(names, &report.taints);
    let inventories: Option<Vec<(Sym, Inventory)>> = report.inventories.as_ref().map(|inventories| {
        let mut out: Vec<_> = inventories.iter().map(|(class, inventory)| (names.intern(class), *inventory)).collect();
        out.sort_unstable_by_key(|&(class, _)| class);
        out
    });
    let reported = report.allocation.as_ref().map(|amounts| amounts_of(names, amounts));

    let mut rekey = None;
    if let Some(provider) = tables.provider_mut(row) {
        // A source that knows the provider's real uuid replaces the one that was derived.
        if let Some(uuid) = report.uuid
            && provider.uuid != uuid
            && !taken
        {
            rekey = Some((provider.uuid, uuid));
            provider.uuid = uuid;
        }
        set_some(&mut provider.node, node.map(Some));
        set_some(&mut provider.zone, zone.map(Some));
        set_some(&mut provider.hypervisor_type, hypervisor_type.map(Some));
        set_some(&mut provider.cpu_arch, cpu_arch.map(Some));
        set_some(&mut provider.inventories, inventories);
        set_some(&mut provider.reported, reported);
        set_some(&mut provider.traits, traits);
        set_some(&mut provider.aggregates, aggregates);
        set_some(&mut provider.conditions, conditions);
        set_some(&mut provider.disabled, report.disabled);
        set_some(&mut provider.forced_down, report.forced_down);
        set_some(&mut provider.allowed_projects, allowed_projects);
        set_some(&mut provider.cpu_models, cpu_models);
        set_some(&mut provider.cpu_features, cpu_features);
        set_some(&mut provider.cpu_devices, cpu_devices);
        set_some(&mut provider.numa, report.numa.clone());
        set_some(&mut provider.labels, labels);
        set_some(&mut provider.taints, taints);
        set_some(&mut provider.nova_host_state, report.nova_host_state.as_deref().map(|text| Some(Arc::from(text))));
    }
    if let Some((old, new)) = rekey {
        tables.provider_index.remove(hash_of(&old), row.0);
        tables.list_uuid(row, new);
    }
}

fn set_some<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn sorted(mut list: Vec<Sym>) -> Vec<Sym> {
    list.sort_unstable();
    list.dedup();
    list
}

fn amounts_of(names: &mut Names, amounts: &std::collections::BTreeMap<String, u64>) -> Amounts {
    amounts.iter().map(|(class, amount)| (names.intern(class), *amount)).collect()
}

fn aggregates(state: &mut State, reports: &[AggregateReport], touched: &mut Vec<Touched>) -> Vec<Sym> {
    let mut keys = Vec::with_capacity(reports.len());
    for report in reports {
        let key = match report.uuid {
            Some(uuid) => state.tables.names.intern(&uuid.to_string()),
            None => state.tables.names.intern(&report.name),
        };
        keys.push(key);
        let known = state.tables.aggregates.get(&key);
        let metadata = report.metadata.clone().or_else(|| known.map(|known| known.metadata.clone()));
        let aggregate =
            Aggregate { name: report.name.clone(), uuid: report.uuid, metadata: metadata.unwrap_or_default() };
        if known != Some(&aggregate) {
            Arc::make_mut(&mut state.tables.aggregates).insert(key, aggregate);
            touched.push(Touched::Aggregate(key));
        }
    }
    sorted(keys)
}

/// Takes the list of instances of a host as the truth. True when a consumer elsewhere changed.
fn see(
    state: &mut State,
    row: Row,
    instances: &[InstanceReport],
    observed_at: u64,
    touched: &mut Vec<Touched>,
) -> bool {
    let Some(provider) = state.tables.provider(row) else { return false };
    let domain = provider.domain;
    let before = provider.consumers.clone();
    let listed: BTreeSet<Uuid> = instances.iter().map(|instance| instance.uuid).collect();
    let mut elsewhere = false;
    for instance in instances {
        elsewhere |= sighted(state, domain, row, instance, observed_at, touched);
    }
    for slot in before {
        let Some(consumer) = state.tables.consumer_at(slot) else { continue };
        if consumer.row == row && consumer.is_listed() && !listed.contains(&consumer.uuid) {
            elsewhere |= gone(state, slot, touched);
        }
    }
    elsewhere
}

/// One instance seen on a host. True when a consumer on another host changed.
fn sighted(
    state: &mut State,
    domain: Domain,
    row: Row,
    instance: &InstanceReport,
    observed_at: u64,
    touched: &mut Vec<Touched>,
) -> bool {
    let slot_here = |state: &State, purpose| {
        let slot = state.tables.slot_of(domain, instance.uuid, purpose)?;
        (state.tables.consumer_at(slot)?.row == row).then_some(slot)
    };
    // The instance itself first: after a resize on one host it stays the instance there, and its
    // second claim ends with the new size seen.
    if let Some(slot) = slot_here(state, Purpose::Instance) {
        confirm(state, slot, instance, touched);
        if let Some(claim) = slot_here(state, Purpose::Move) {
            let resized = instance.resources.is_some();
            if resized && state.tables.consumer_at(claim).is_some_and(Consumer::is_open) {
                state.remove(claim, touched);
                state.tables.counters.confirmed += 1;
            }
        }
        return false;
    }
    if let Some(slot) = slot_here(state, Purpose::Move) {
        confirm(state, slot, instance, touched);
        // Without an instance elsewhere, the move's place is the instance's now.
        if state.tables.slot_of(domain, instance.uuid, Purpose::Instance).is_none() {
            state.tables.promote(slot);
        }
        return false;
    }
    let Some(elsewhere) = state.tables.slot_of(domain, instance.uuid, Purpose::Instance) else {
        observe(state, domain, row, instance, Purpose::Instance, touched);
        // A move's claim on another host stands: the instance may still be on its way there.
        return false;
    };
    let Some(known) = state.tables.consumer_at(elsewhere) else { return false };
    if known.is_open() {
        if observed_at < known.since_wall {
            // The report is older than the claim: the claim stands, the host's own count covers it.
            return false;
        }
        let claim = state.remove(elsewhere, touched);
        state.tables.counters.moved += 1;
        observe(state, domain, row, instance, Purpose::Instance, touched);
        inherit(state, domain, instance, claim.as_ref(), touched);
        return true;
    }
    // It runs on another host too: a move that pallium did not decide, or not for this target.
    if let Some(slot) = state.tables.slot_of(domain, instance.uuid, Purpose::Move) {
        if state.tables.consumer_at(slot).is_some_and(|consumer| observed_at < consumer.since_wall) {
            return false;
        }
        state.remove(slot, touched);
        state.tables.counters.moved += 1;
    }
    let known = state.tables.consumer_at(elsewhere).cloned();
    observe(state, domain, row, instance, Purpose::Move, touched);
    inherit_into(state, domain, instance, Purpose::Move, known.as_ref(), touched);
    true
}

/// A listed consumer that its host lists no longer. True when a consumer elsewhere changed.
fn gone(state: &mut State, slot: Slot, touched: &mut Vec<Touched>) -> bool {
    let Some(consumer) = state.remove(slot, touched) else { return false };
    if consumer.purpose == Purpose::Move {
        return false;
    }
    match state.tables.slot_of(consumer.domain, consumer.uuid, Purpose::Move) {
        Some(claim) => {
            state.tables.promote(claim);
            true
        }
        None => false,
    }
}

/// Marks a consumer as seen, and takes over what the report knows better.
fn confirm(state: &mut State, slot: Slot, instance: &InstanceReport, touched: &mut Vec<Touched>) {
    let Some(known) = state.tables.consumer_at(slot) else { return };
    let was_open = known.is_open();
    let names = &mut state.tables.names;
    let amounts = instance.resources.as_ref().map(|resources| amounts_of(names, resources));
    let project = instance.project_id.as_ref().map(|text| names.intern(text));
    let flavor = instance.flavor.as_ref().map(|text| names.intern(text));
    let Some(known) = state.tables.consumer_at(slot) else { return };
    let amounts = amounts.unwrap_or_else(|| (*known.amounts).clone());
    let amounts = claimable(state.tables.provider(known.row), &amounts);
    let new = Consumer {
        phase: if was_open { Phase::Confirmed } else { known.phase },
        amounts: state.shapes.share(amounts),
        project: project.or(known.project),
        flavor: flavor.or(known.flavor),
        group: instance.server_group.map(Box::new).or_else(|| known.group.clone()),
        ..known.clone()
    };
    if new == *known {
        return;
    }
    state.remove(slot, touched);
    state.put(new, touched);
    if was_open {
        state.tables.counters.confirmed += 1;
    }
}

fn observe(
    state: &mut State,
    domain: Domain,
    row: Row,
    instance: &InstanceReport,
    purpose: Purpose,
    touched: &mut Vec<Touched>,
) {
    let names = &mut state.tables.names;
    let amounts = instance.resources.as_ref().map(|resources| amounts_of(names, resources)).unwrap_or_default();
    let project = instance.project_id.as_ref().map(|text| names.intern(text));
    let flavor = instance.flavor.as_ref().map(|text| names.intern(text));
    let amounts = claimable(state.tables.provider(row), &amounts);
    let consumer = Consumer {
        domain,
        uuid: instance.uuid,
        purpose,
        row,
        amounts: state.shapes.share(amounts),
        phase: Phase::Observed,
        project,
        user: None,
        flavor,
        group: instance.server_group.map(Box::new),
        intent: Intent::Create,
        decision: 0,
        ticket: 0,
        request: None,
        since: state.tables.counters.now,
        since_wall: state.tables.counters.wall,
    };
    state.put(consumer, touched);
}

fn inherit(
    state: &mut State,
    domain: Domain,
    instance: &InstanceReport,
    from: Option<&Consumer>,
    touched: &mut Vec<Touched>,
) {
    inherit_into(state, domain, instance, Purpose::Instance, from, touched);
}

/// Fills what a bare sighting does not say (size, owner, group) from what was known of the
/// instance elsewhere.
fn inherit_into(
    state: &mut State,
    domain: Domain,
    instance: &InstanceReport,
    purpose: Purpose,
    from: Option<&Consumer>,
    touched: &mut Vec<Touched>,
) {
    let (Some(from), Some(slot)) = (from, state.tables.slot_of(domain, instance.uuid, purpose)) else { return };
    let Some(bare) = state.remove(slot, touched) else { return };
    let amounts = if instance.resources.is_some() {
        Arc::clone(&bare.amounts)
    } else {
        state.shapes.share(claimable(state.tables.provider(bare.row), &from.amounts))
    };
    let full = Consumer {
        amounts,
        project: bare.project.or(from.project),
        user: from.user,
        flavor: bare.flavor.or(from.flavor),
        group: bare.group.or_else(|| from.group.clone()),
        intent: from.intent,
        decision: from.decision,
        ..bare
    };
    let row = full.row;
    state.put(full, touched);
    if let Some(provider) = state.tables.provider_mut(row) {
        forgive_excess(provider);
    }
}
