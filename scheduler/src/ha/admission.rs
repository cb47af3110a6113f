//! Room for a failover. What a policy keeps free, and what is done about placements that would take it, is judged by
//! sums ([`Rooms`](crate::index::rooms::Rooms)) within each decision.
//!
//! Could a host be lost now, and which one not: for the largest hosts, whether all of their instances would
//! find room on others (`hosts 1`).
//!
//! By capacity alone: an instance that finds room here may still be refused by a filter when it happens, so
//! what is left without room is a lower bound. Packed as the planner packs: the largest first, on the host with
//! most left of what is scarcest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::host::{Host, HostId};
use super::policy::{Mode, Policy};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::names::Sym;
use crate::provider::{Amounts, Row};
use crate::state::Tables;

/// What stays free in a failover domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// As much as any one of its hosts may need elsewhere.
    #[default]
    Host,
    /// So much of each class.
    Percent(u8),
}

impl Rule {
    /// More than this is no reserve.
    const MOST: u8 = 90;

    /// Whether it can be kept to.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Host => true,
            Self::Percent(percent) => (1..=Self::MOST).contains(&percent),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("hosts 1"),
            Self::Percent(percent) => write!(f, "percent {percent}"),
        }
    }
}

impl std::str::FromStr for Rule {
    type Err = ();

    fn from_str(given: &str) -> Result<Self, ()> {
        let rule = match given.split_once(' ') {
            Some(("hosts", "1")) => Self::Host,
            Some(("percent", percent)) => Self::Percent(percent.parse().map_err(drop)?),
            _ => return Err(()),
        };
        if rule.is_valid() { Ok(rule) } else { Err(()) }
    }
}

/// What is done about placements that would take what stays free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refuses {
    /// Nobody looks.
    Off,
    /// It is told.
    #[default]
    Warn,
    /// They are refused.
    Enforce,
}

/// What a policy keeps free, and whether placements are refused for it.
pub fn kept(policy: &Policy) -> Option<(Rule, bool)> {
    let refuses = policy.refuses == Refuses::Enforce && policy.mode == Mode::Enforce;
    (policy.refuses != Refuses::Off).then_some((policy.admission, refuses))
}

/// What may still be placed in a failover domain before less of a class is free than a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Availability zone and cell, as in `az-a/cell1`.
    pub domain: String,
    /// What must stay free.
    pub rule: Rule,
    /// Resource class.
    pub class: String,
    /// So much; below 0: so much is missing.
    pub left: i64,
}

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
