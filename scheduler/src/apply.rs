//! Apply: the only place where the state changes. Total: an outcome for every command, however
//! stale or absurd, and no panic; it knows no clock, no randomness and no order but the log's.

mod features;
mod place;
mod report;

pub(crate) use place::claimable;

use std::sync::Arc;

use uuid::Uuid;

use crate::catalogue::{Catalogue, Change, Moment};
use crate::command::{Batch, Command, Outcome};
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::domain::Domain;
use crate::ha::{self, HostId};
use crate::names::Sym;
use crate::provider::{Provider, Row};
use crate::state::State;

/// Notes that are remembered.
#[cfg(feature = "next-level")]
const NOTES: usize = 256;

/// What apply touched, for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Anything of the row.
    Facts(Row),
    /// Use of the row only.
    Use(Row),
    /// Name or metadata of an aggregate.
    Aggregate(Sym),
    /// What failover thinks of a host that has, or had, that name.
    Doubt(HostId, Sym),
    /// What that means, of all hosts: breakers.
    Doubts,
    /// The policies of all hosts.
    Policies,
    /// A consumer took up a group.
    Joined(Uuid, Uuid),
    /// A consumer left a group.
    Left(Uuid, Uuid),
}

/// Applies one command at the times of its batch.
pub(crate) fn apply(state: &mut State, batch: &Batch, command: &Command, touched: &mut Vec<Touched>) -> Outcome {
    let counters = &mut state.tables.counters;
    counters.now = counters.now.max(batch.now);
    counters.wall = batch.wall;
    counters.commands += 1;
    match command {
        Command::Place(place) => place::place(state, place, touched),
        Command::Release { domain, consumer, open_only } => release(state, *domain, *consumer, *open_only, touched),
        Command::Report(report) => report::report(state, report, touched),
        Command::RemoveHost { domain, provider } => remove_host(state, *domain, *provider, touched),
        Command::Tick => expire(state, touched),
        Command::Pipeline(change) => pipeline(state, change),
        Command::Features(report) => features::features(state, report, touched),
        Command::Raise { level } => {
            counters.level = counters.level.max(*level);
            Outcome::Raised(counters.level)
        }
        Command::Failover(order) => Outcome::Failover(ha::apply::apply(state, order, touched)),
        #[cfg(feature = "next-level")]
        Command::Note(number) => {
            let notes = &mut state.tables.notes;
            notes.truncate(NOTES - 1);
            notes.insert(0, *number);
            Outcome::Raised(state.tables.counters.level)
        }
    }
}

fn release(state: &mut State, domain: Domain, uuid: Uuid, open_only: bool, touched: &mut Vec<Touched>) -> Outcome {
    let mut count = 0;
    for purpose in [Purpose::Move, Purpose::Instance] {
        let Some(slot) = state.tables.slot_of(domain, uuid, purpose) else { continue };
        if open_only && state.tables.consumer_at(slot).is_some_and(Consumer::is_listed) {
            continue;
        }
        state.remove(slot, touched);
        count += 1;
    }
    state.tables.counters.released += u64::from(count);
    Outcome::Released(count)
}

fn remove_host(state: &mut State, domain: Domain, uuid: Uuid, touched: &mut Vec<Touched>) -> Outcome {
    let Some(row) = state.tables.row_of(uuid) else { return Outcome::Removed(false) };
    let Some(provider) = state.tables.provider(row).filter(|provider| provider.domain == domain) else {
        return Outcome::Removed(false);
    };
    for slot in provider.consumers.clone() {
        state.remove(slot, touched);
    }
    state.tables.drop_provider(row);
    touched.push(Touched::Facts(row));
    Outcome::Removed(true)
}

/// A refusal leaves the table as it is; so does a change of nothing, which is no new table then.
fn pipeline(state: &mut State, change: &Change) -> Outcome {
    let tables = &mut state.tables;
    let at = Moment { command: tables.counters.commands, wall: tables.counters.wall };
    let mut catalogue = Catalogue::clone(&tables.catalogue);
    match catalogue.change(change, at) {
        Err(why) => Outcome::Refused(why),
        Ok(changed) => {
            if changed.changed {
                tables.catalogue = Arc::new(catalogue);
            }
            Outcome::Pipeline(changed)
        }
    }
}

fn expire(state: &mut State, touched: &mut Vec<Touched>) -> Outcome {
    let mut count = 0;
    while let Some(&(at, slot)) = state.expiry.first() {
        if at > state.tables.counters.now {
            break;
        }
        state.remove(slot, touched);
        count += 1;
    }
    state.tables.counters.expired += u64::from(count);
    Outcome::Expired(count)
}

impl State {
    /// Puts a consumer on its provider. The caller has checked that there is none of its key.
    pub(crate) fn put(&mut self, consumer: Consumer, touched: &mut Vec<Touched>) -> Slot {
        let (row, group, uuid, phase) =
            (consumer.row, consumer.group.as_deref().copied(), consumer.uuid, consumer.phase);
        let amounts = Arc::clone(&consumer.amounts);
        let slot = self.tables.put_consumer(consumer);
        if let Some(provider) = self.tables.provider_mut(row) {
            if matches!(phase, Phase::Claimed { .. }) {
                provider.open.add(&amounts);
            } else {
                provider.listed.add(&amounts);
            }
            if let Err(at) = provider.consumers.binary_search(&slot) {
                provider.consumers.insert(at, slot);
            }
            provider.generation += 1;
        }
        if let Phase::Claimed { expires } = phase {
            self.expiry.insert((expires, slot));
        }
        if let Some(group) = group {
            touched.push(Touched::Joined(group, uuid));
        }
        touched.push(Touched::Use(row));
        slot
    }

    /// Takes a consumer off its provider.
    pub(crate) fn remove(&mut self, slot: Slot, touched: &mut Vec<Touched>) -> Option<Consumer> {
        let consumer = self.tables.take_consumer(slot)?;
        if let Some(provider) = self.tables.provider_mut(consumer.row) {
            if consumer.is_open() {
                provider.open.take(&consumer.amounts);
            } else {
                provider.listed.take(&consumer.amounts);
            }
            if let Ok(at) = provider.consumers.binary_search(&slot) {
                provider.consumers.remove(at);
            }
            provider.generation += 1;
            forgive_excess(provider);
        }
        if let Phase::Claimed { expires } = consumer.phase {
            self.expiry.remove(&(expires, slot));
        }
        if let Some(group) = consumer.group.as_deref().copied() {
            let other = match consumer.purpose {
                Purpose::Instance => Purpose::Move,
                Purpose::Move => Purpose::Instance,
            };
            let still = self.tables.consumer(consumer.domain, consumer.uuid, other);
            if still.is_none_or(|other| other.group.as_deref() != Some(&group)) {
                touched.push(Touched::Left(group, consumer.uuid));
            }
        }
        touched.push(Touched::Use(consumer.row));
        Some(consumer)
    }
}

fn over(provider: &Provider) -> impl Iterator<Item = Sym> + '_ {
    let classes = provider.reported.iter().chain(provider.listed.iter()).chain(provider.open.iter());
    classes.map(|(class, _)| class).filter(|&class| provider.used(class) > provider.capacity(class).unwrap_or(0))
}

/// After a report: every class above its capacity is excess that was observed, not claimed.
fn note_excess(provider: &mut Provider) {
    let mut excess: Vec<_> = over(provider).collect();
    excess.sort_unstable();
    excess.dedup();
    provider.excess = excess;
}

/// After use shrank: classes that are within capacity again are no longer excess.
fn forgive_excess(provider: &mut Provider) {
    if !provider.excess.is_empty() {
        let still: Vec<_> = over(provider).collect();
        provider.excess.retain(|class| still.contains(class));
    }
}
