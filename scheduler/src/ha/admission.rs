//! Could a host be lost now, and which one not: for the largest hosts, whether all of their instances would
//! find room on others (`hosts 1`).
//!
//! By capacity alone: an instance that finds room here may still be refused by a filter when it happens, so
//! what is left without room is a lower bound. Packed as the planner packs: the largest first, on the host with
//! most left of what is scarcest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::host::{Host, HostId};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::names::Sym;
use crate::provider::{Amounts, Row};
use crate::state::Tables;

/// What the loss of one host would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The host.
    pub host: HostId,
    /// Instances on it.
    pub instances: u32,
    /// Those of them that would find no room.
    pub left: u32,
}

/// The losses of the hosts that hold most, the worst first; at most `most` hosts are looked at.
pub fn losses(tables: &Tables, most: usize) -> Vec<Loss> {
    let failover = tables.failover();
    let row = |host: &Host| tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None);
    let hosts: BTreeMap<Row, &Host> =
        failover.hosts.iter().filter(|host| host.enabled).filter_map(|host| Some((row(host)?, &**host))).collect();
    let mut on: BTreeMap<Row, Vec<&Consumer>> = BTreeMap::new();
    let instances = tables.consumers().filter(|consumer| {
        consumer.domain == Domain::Nova && consumer.purpose == Purpose::Instance && !consumer.amounts.is_empty()
    });
    for consumer in instances.filter(|consumer| hosts.contains_key(&consumer.row)) {
        on.entry(consumer.row).or_default().push(consumer);
    }
    let takers: Vec<Row> = hosts.iter().filter(|(_, host)| host.takes_instances()).map(|(row, _)| *row).collect();
    let capacities = sums(takers.iter().flat_map(|row| capacities(tables, *row)));
    let share = |class: Sym, amount: u64| amount as f64 / capacities.get(&class).copied().unwrap_or(0).max(1) as f64;
    // The class of which a host's instances need most, and how much.
    let dominant = |consumers: &[&Consumer]| {
        let needs = sums(consumers.iter().flat_map(|consumer| consumer.amounts.iter()));
        let shares = needs.into_iter().map(|(class, amount)| (share(class, amount), class));
        shares.max_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)))
    };
    let mut largest: Vec<(f64, Sym, Row)> = on
        .iter()
        .filter_map(|(row, consumers)| dominant(consumers).map(|(share, class)| (share, class, *row)))
        .collect();
    largest.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.2.cmp(&other.2)));
    largest.truncate(most);
    let mut losses: Vec<Loss> = largest
        .into_iter()
        .map(|(_, class, lost)| {
            let left = unplaced(tables, &on[&lost], takers.iter().copied().filter(|row| *row != lost), class);
            Loss { host: hosts[&lost].id, instances: on[&lost].len() as u32, left }
        })
        .collect();
    losses.sort_by_key(|loss| std::cmp::Reverse(loss.left));
    losses
}

fn sums(amounts: impl Iterator<Item = (Sym, u64)>) -> BTreeMap<Sym, u64> {
    let mut sums: BTreeMap<Sym, u64> = BTreeMap::new();
    for (class, amount) in amounts {
        let sum = sums.entry(class).or_default();
        *sum = sum.saturating_add(amount);
    }
    sums
}

fn capacities(tables: &Tables, row: Row) -> impl Iterator<Item = (Sym, u64)> {
    let inventories = tables.provider(row).map(|provider| &provider.inventories).into_iter().flatten();
    inventories.map(|(class, inventory)| (*class, inventory.capacity()))
}

/// Instances that find no room on the takers.
fn unplaced(tables: &Tables, consumers: &[&Consumer], takers: impl Iterator<Item = Row>, class: Sym) -> u32 {
    let free = |row: &Row| {
        let Some(provider) = tables.provider(*row) else { return 0 };
        provider.capacity(class).unwrap_or(0).saturating_sub(provider.used(class))
    };
    let open = |row: &Row| tables.provider(*row).map_or_else(Amounts::default, |provider| provider.open.clone());
    let mut takers: Vec<(u64, Row, Amounts)> = takers.map(|row| (free(&row), row, open(&row))).collect();
    takers.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut consumers = consumers.to_vec();
    consumers
        .sort_by(|one, other| other.amounts.get(class).cmp(&one.amounts.get(class)).then(one.uuid.cmp(&other.uuid)));
    // What found no room once finds none later: room only shrinks.
    let mut hopeless: HashSet<*const Amounts> = HashSet::new();
    let mut left = 0;
    for consumer in consumers {
        let size = Arc::as_ptr(&consumer.amounts);
        let found = !hopeless.contains(&size)
            && takers.iter_mut().any(|(_, row, open)| {
                let none = Amounts::default();
                let provider = tables.provider(*row);
                let fits = provider.is_some_and(|provider| provider.fits_with(open, &consumer.amounts, &none));
                if fits {
                    open.add(&consumer.amounts);
                }
                fits
            });
        if !found {
            hopeless.insert(size);
            left += 1;
        }
    }
    left
}
