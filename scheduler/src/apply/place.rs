//! Applying a decision: the claim is checked again, against the state as the log made it.

use std::collections::BTreeMap;

use crate::apply::Touched;
use crate::command::{Action, Outcome, Part, Place, Record};
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::mutant::{self, Mutant};
use crate::names::{Names, Sym, Text};
use crate::provider::{Amounts, Provider, Row};
use crate::state::{KeyEntry, State, Stored, issued};

pub(super) fn place(state: &mut State, place: &Place, touched: &mut Vec<Touched>) -> Outcome {
    if let Some((key, hash)) = place.key.filter(|_| !mutant::on(Mutant::NoDedupe)) {
        match state.tables.keys.get(key) {
            Some(known) if known.hash == hash => {
                return Outcome::Duplicate { decision: known.decision, rows: known.rows.clone() };
            }
            Some(_) => return Outcome::KeyConflict,
            None if issued(key).is_none_or(|at| at < state.tables.keys.horizon) => return Outcome::KeyExpired,
            // A repeat that waited for the first call, which was lost.
            None if place.parts.is_empty() => return Outcome::Stale("the first call with this key was lost".into()),
            None => {}
        }
    }
    let chosen = match check(state, place) {
        Ok(chosen) => chosen,
        Err(why) => return Outcome::Stale(why.into()),
    };
    learn(state, place, touched);
    let names = &mut state.tables.names;
    let project = place.project.as_ref().map(|text| names.resolve(text));
    let user = place.user.as_ref().map(|text| names.resolve(text));
    let flavor = place.flavor.as_ref().map(|text| names.resolve(text));
    let decision = match &place.record {
        Some(_) => {
            state.tables.counters.decisions += 1;
            state.tables.counters.decisions
        }
        None => 0,
    };
    let rows: Vec<Option<Row>> = place
        .parts
        .iter()
        .zip(chosen)
        .map(|(part, chosen)| act(state, place, part, chosen, (project, user, flavor), decision, touched))
        .collect();
    if let Some((key, hash)) = place.key.filter(|_| !mutant::on(Mutant::NoDedupe)) {
        state.tables.keys.put(KeyEntry { key, hash, decision, rows: rows.clone() });
    }
    if let Some(record) = &place.record {
        let record = resolve(&mut state.tables.names, record);
        let parts = place.parts.iter().map(|part| part.consumer).zip(rows.iter().copied()).collect();
        let (domain, intent, wall) = (place.domain, place.intent, state.tables.counters.wall);
        state.tables.remember(Stored { id: decision, wall, domain, intent, project, flavor, parts, record });
    }
    Outcome::Placed { decision, wall: state.tables.counters.wall, rows }
}

/// Whether every part can be done, and on which row each claim goes. Changes nothing.
fn check(state: &State, place: &Place) -> Result<Vec<Option<Row>>, &'static str> {
    if let Some(record) = &place.record {
        let name = match &record.pipeline {
            Text::Known(name) => state.tables.names.text(*name),
            Text::New(name) => name,
        };
        if state.tables.catalogue.active(name) != record.version {
            return Err("another version of the pipeline is active");
        }
    }
    let mut added: BTreeMap<Row, Amounts> = BTreeMap::new();
    let mut out = Vec::with_capacity(place.parts.len());
    for part in &place.parts {
        let present = state.tables.consumer(place.domain, part.consumer, part.purpose);
        let open = present.filter(|consumer| consumer.is_open());
        if open.map(|consumer| consumer.ticket) != part.seen {
            return Err("the claim of this consumer changed");
        }
        let Action::Claim { targets, amounts, .. } = &part.action else {
            out.push(None);
            continue;
        };
        if present.is_some_and(Consumer::is_listed) {
            return Err("the consumer was seen on a host");
        }
        let target = targets.iter().copied().find(|&row| {
            if mutant::on(Mutant::NoRecheck) {
                return state.tables.provider(row).is_some();
            }
            state.tables.provider(row).is_some_and(|provider| {
                let own = open.filter(|consumer| consumer.row == row).map(|consumer| &*consumer.amounts);
                let held = match part.purpose {
                    Purpose::Instance => None,
                    Purpose::Move => state.tables.consumer(place.domain, part.consumer, Purpose::Instance),
                };
                let held = held.filter(|instance| instance.row == row).map(|instance| &*instance.amounts);
                fits(provider, amounts, held.unwrap_or(&Amounts::default()), own, added.get(&row))
            })
        });
        let Some(row) = target else { return Err("no target fits any more") };
        added.entry(row).or_default().add(&claimable(state.tables.provider(row), amounts));
        out.push(Some(row));
    }
    Ok(out)
}

fn fits(
    provider: &Provider,
    amounts: &Amounts,
    held: &Amounts,
    own: Option<&Amounts>,
    added: Option<&Amounts>,
) -> bool {
    let amounts = claimable(Some(provider), amounts);
    if own.is_none() && added.is_none() {
        return provider.fits(&amounts, held);
    }
    let mut open = provider.open.clone();
    if let Some(own) = own {
        open.take(own);
    }
    if let Some(added) = added {
        open.add(added);
    }
    provider.fits_with(&open, &amounts, held)
}

/// The part of `amounts` of which the provider keeps an inventory: a hypervisor that reports no
/// disk cannot be charged for it.
pub(crate) fn claimable(provider: Option<&Provider>, amounts: &Amounts) -> Amounts {
    let Some(provider) = provider else { return Amounts::default() };
    amounts.iter().filter(|&(class, _)| provider.inventory(class).is_some()).collect()
}

fn act(
    state: &mut State,
    place: &Place,
    part: &Part,
    chosen: Option<Row>,
    (project, user, flavor): (Option<Sym>, Option<Sym>, Option<Sym>),
    decision: u64,
    touched: &mut Vec<Touched>,
) -> Option<Row> {
    let now = state.tables.counters.now;
    let open: Option<Slot> = state
        .tables
        .slot_of(place.domain, part.consumer, part.purpose)
        .filter(|&slot| state.tables.consumer_at(slot).is_some_and(Consumer::is_open));
    match &part.action {
        Action::Leave => None,
        Action::Keep => {
            let slot = open?;
            let expires = now.saturating_add(place.life);
            let consumer = state.tables.consumer_mut(slot)?;
            let Phase::Claimed { expires: old } = consumer.phase else { return None };
            // The claim of an attempt ends with the attempt, not by time.
            let expires = if old == u64::MAX { old } else { expires };
            consumer.phase = Phase::Claimed { expires };
            if let Some(request) = place.request {
                consumer.request = Some(Box::new(request));
            }
            let row = consumer.row;
            state.expiry.remove(&(old, slot));
            state.expiry.insert((expires, slot));
            Some(row)
        }
        Action::Release => {
            if let Some(slot) = open {
                state.remove(slot, touched);
                state.tables.counters.released += 1;
            }
            None
        }
        Action::Claim { ticket, amounts, .. } => {
            let row = chosen?;
            if let Some(slot) = open {
                state.remove(slot, touched);
                state.tables.counters.released += 1;
            }
            let amounts = claimable(state.tables.provider(row), amounts);
            let consumer = Consumer {
                domain: place.domain,
                uuid: part.consumer,
                purpose: part.purpose,
                row,
                amounts: state.shapes.share(amounts),
                phase: Phase::Claimed { expires: now.saturating_add(place.life) },
                project,
                user,
                flavor,
                group: place.group.map(Box::new),
                intent: place.intent,
                decision,
                ticket: *ticket,
                request: place.request.map(Box::new),
                since: now,
                since_wall: state.tables.counters.wall,
            };
            state.put(consumer, touched);
            state.tables.counters.claims += 1;
            Some(row)
        }
    }
}

fn learn(state: &mut State, place: &Place, touched: &mut Vec<Touched>) {
    for (row, node) in &place.learned {
        if state.tables.provider(*row).is_none_or(|provider| provider.node.is_some()) {
            continue;
        }
        let node = state.tables.names.resolve(node);
        if let Some(provider) = state.tables.provider_mut(*row) {
            provider.node = Some(node);
            touched.push(Touched::Facts(*row));
        }
    }
}

fn resolve(names: &mut Names, record: &Record) -> Record {
    let mut known = |text: &Text| Text::Known(names.resolve(text));
    Record {
        pipeline: known(&record.pipeline),
        drops: record
            .drops
            .iter()
            .map(|(step, reasons)| (known(step), reasons.iter().map(|(why, count)| (known(why), *count)).collect()))
            .collect(),
        ..record.clone()
    }
}
