//! The invariants of the design, executable. Tests, simulations and debug servers call [`check`]
//! after every command.

use std::collections::{BTreeMap, BTreeSet};

use crate::consumer::{Consumer, Phase, Slot};
use crate::provider::{Amounts, Row};
use crate::sharded::hash_of;
use crate::state::{HISTORY, KEYS, State};

/// Every broken invariant, in words; empty when all hold.
pub fn check(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    let tables = state.tables();
    let mut sums: BTreeMap<Row, (Amounts, Amounts, Vec<Slot>)> = BTreeMap::new();
    let mut expiry = BTreeSet::new();
    let mut count = 0;
    for (at, consumer) in tables.consumers.iter().enumerate() {
        let Some(consumer) = consumer else { continue };
        let slot = Slot(at as u32);
        count += 1;
        let sum = sums.entry(consumer.row).or_default();
        let sum_of = if consumer.is_open() { &mut sum.0 } else { &mut sum.1 };
        sum_of.add(&consumer.amounts);
        sum.2.push(slot);
        if let Phase::Claimed { expires } = consumer.phase {
            expiry.insert((expires, slot));
        }
        if tables.slot_of(consumer.domain, consumer.uuid, consumer.purpose) != Some(slot) {
            broken.push(format!("consumer {} at slot {at} is not found by its key: it exists twice", consumer.uuid));
        }
        if tables.provider(consumer.row).is_none_or(|provider| provider.domain != consumer.domain) {
            broken.push(format!(
                "consumer {} is on row {:?}, which is no host of its domain",
                consumer.uuid, consumer.row
            ));
        }
    }
    if expiry != state.expiry {
        broken.push("the expiry queue is not the set of open claims".to_owned());
    }
    let mut hosts = 0;
    for (row, provider) in tables.providers() {
        hosts += 1;
        let host = tables.names.text(provider.host);
        let (open, listed, slots) = sums.remove(&row).unwrap_or_default();
        if open != provider.open || listed != provider.listed {
            broken.push(format!("host {host}: its sums of use are not those of its consumers"));
        }
        if slots != provider.consumers {
            broken.push(format!("host {host}: its list of consumers is wrong"));
        }
        let classes: BTreeSet<_> = [&provider.open, &provider.listed, &provider.reported]
            .iter()
            .flat_map(|a| a.iter())
            .map(|(c, _)| c)
            .collect();
        for class in classes {
            let (used, capacity) = (provider.used(class), provider.capacity(class).unwrap_or(0));
            let excess = provider.excess.binary_search(&class).is_ok();
            if used > capacity && !excess {
                broken.push(format!(
                    "host {host}: {used} of {} used, capacity {capacity}, and no report explains it",
                    tables.names.text(class)
                ));
            }
            if used <= capacity && excess {
                broken.push(format!("host {host}: {} is marked as excess and is not", tables.names.text(class)));
            }
        }
        if tables.row_of(provider.uuid) != Some(row) {
            broken.push(format!("host {host}: not found by its uuid"));
        }
        if tables.host_index.find(hash_of(&(provider.domain, provider.host)), |at| at == row.0).is_none() {
            broken.push(format!("host {host}: not found by its name"));
        }
    }
    if hosts != tables.counters.hosts || count != tables.counters.consumers {
        broken.push("the numbers of hosts or consumers are wrong".to_owned());
    }
    if tables.history.len() > HISTORY || tables.keys.entries.len() > KEYS {
        broken.push("a history is longer than its bound".to_owned());
    }
    crate::ha::invariants::check(tables, &mut broken);
    if tables.checksum() != tables.checksum_anew() {
        broken.push("the checksum is not the one of the content: a change was not noticed".to_owned());
    }
    broken
}

/// Number of open claims.
pub fn open_claims(state: &State) -> usize {
    state.tables().consumers().filter(|consumer| Consumer::is_open(consumer)).count()
}
