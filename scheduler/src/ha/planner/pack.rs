//! Packing: items onto hosts that each may go to, the most urgent first and the largest before the smaller,
//! spread so that few rebuild on one host at a time; what finds no room makes some by moving others of the
//! same plan. All budgets count moves, none counts time: equal states give equal plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Bond, Rank};
use crate::ha::host::HostId;
use crate::ha::recovery::Life;
use crate::provider::{Amounts, Provider};

/// Rebuilds on one target at once: a target with so many planned comes after those with fewer.
const ROUND: u32 = 4;
/// Moves that the local search may try in one plan.
const MOVES: u32 = 20_000;
/// Hosts on which room is made for one item.
const WIDTH: usize = 64;
/// Items that one chain moves.
const DEPTH: u32 = 3;

/// What is to be placed.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub instance: Uuid,
    pub amounts: Arc<Amounts>,
    pub rank: Rank,
    /// Largest part of a host that it takes of any class, millionths.
    pub size: u64,
    /// Its list of hosts.
    pub list: usize,
    pub bond: Option<Bond>,
    pub excluded: Vec<HostId>,
}

/// The working copy.
pub(super) struct Packer<'a> {
    pub hosts: Vec<(Life, &'a Provider)>,
    /// Hosts by index, the best first.
    pub lists: Vec<Vec<usize>>,
    /// Open claims of each host, with what is planned there.
    open: Vec<Amounts>,
    /// Items of each host.
    on: Vec<Vec<usize>>,
    /// Members of a group on a host.
    members: BTreeMap<(Uuid, usize), u32>,
    placed: Vec<Option<usize>>,
    moves: u32,
}

/// Where a scan of a list stands for items of one shape: what did not fit once does not fit later.
#[derive(Clone, Copy, Default)]
struct Cursor {
    level: u32,
    at: usize,
    fits: bool,
    ended: bool,
}

impl<'a> Packer<'a> {
    pub fn new(hosts: Vec<(Life, &'a Provider)>, lists: Vec<Vec<usize>>) -> Self {
        let open = hosts.iter().map(|(_, provider)| provider.open.clone()).collect();
        let on = vec![Vec::new(); hosts.len()];
        Self { hosts, lists, open, on, members: BTreeMap::new(), placed: Vec::new(), moves: 0 }
    }

    /// A host for each item, as far as there is room; items keep their order.
    pub fn pack(mut self, items: &[Item]) -> Vec<Option<Life>> {
        self.placed = vec![None; items.len()];
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_unstable_by_key(|&at| {
            let item = &items[at];
            (item.rank, std::cmp::Reverse(item.size), item.instance)
        });
        let mut cursors: BTreeMap<(usize, &Amounts), Cursor> = BTreeMap::new();
        let mut left = Vec::new();
        for at in order {
            let item = &items[at];
            let plain = item.bond.is_none() && item.excluded.is_empty();
            let found = if plain {
                let cursor = cursors.entry((item.list, &item.amounts)).or_default();
                self.next(item, cursor)
            } else {
                self.best(item)
            };
            match found {
                Some(host) => self.put(items, at, host),
                None => left.push(at),
            }
        }
        for at in left {
            self.make_room(items, at, DEPTH);
        }
        self.placed.iter().map(|host| host.map(|host| self.hosts[host].0)).collect()
    }

    fn fits(&self, item: &Item, host: usize) -> bool {
        self.hosts[host].1.fits_with(&self.open[host], &item.amounts, &Amounts::default())
    }

    /// Whether a host is among those that it may go to, whatever room there is.
    fn allows(&self, item: &Item, host: usize) -> bool {
        let life = self.hosts[host].0;
        let bound = match item.bond {
            Some(Bond::Apart { group, most }) => self.members.get(&(group, host)).copied().unwrap_or(0) < most,
            Some(Bond::Together { group }) => {
                let mut of_group = self.members.range((group, 0)..=(group, usize::MAX)).filter(|(_, n)| **n > 0);
                of_group.next().is_none_or(|((_, there), _)| *there == host)
            }
            None => true,
        };
        bound && !item.excluded.contains(&life.host)
    }

    fn level(&self, host: usize) -> u32 {
        self.on[host].len() as u32 / ROUND
    }

    /// The next host of a list that takes an item of this shape, fewest rounds first.
    fn next(&self, item: &Item, cursor: &mut Cursor) -> Option<usize> {
        let list = &self.lists[item.list];
        while !cursor.ended {
            while let Some(&host) = list.get(cursor.at) {
                if self.fits(item, host) {
                    if self.level(host) <= cursor.level {
                        return Some(host);
                    }
                    cursor.fits = true;
                }
                cursor.at += 1;
            }
            *cursor = Cursor { level: cursor.level + 1, at: 0, fits: false, ended: !cursor.fits };
        }
        None
    }

    fn best(&self, item: &Item) -> Option<usize> {
        let fitting = self.lists[item.list].iter().enumerate();
        let fitting = fitting.filter(|(_, host)| self.allows(item, **host) && self.fits(item, **host));
        fitting.min_by_key(|(position, host)| (self.level(**host), *position)).map(|(_, host)| *host)
    }

    fn put(&mut self, items: &[Item], at: usize, host: usize) {
        let item = &items[at];
        self.open[host].add(&item.amounts);
        self.on[host].push(at);
        self.placed[at] = Some(host);
        if let Some(group) = item.bond.map(Bond::group) {
            *self.members.entry((group, host)).or_default() += 1;
        }
    }

    fn take(&mut self, items: &[Item], at: usize) {
        let Some(host) = self.placed[at].take() else { return };
        let item = &items[at];
        self.open[host].take(&item.amounts);
        self.on[host].retain(|other| *other != at);
        if let Some(group) = item.bond.map(Bond::group)
            && let Some(members) = self.members.get_mut(&(group, host))
        {
            *members -= 1;
        }
    }

    /// Places an item by moving others of the plan, each of which ends somewhere else: nobody loses its place.
    fn make_room(&mut self, items: &[Item], at: usize, depth: u32) -> bool {
        if let Some(host) = self.best(&items[at]) {
            self.put(items, at, host);
            return true;
        }
        if depth == 0 {
            return false;
        }
        let hosts: Vec<usize> = self.lists[items[at].list].iter().copied().take(WIDTH).collect();
        for host in hosts {
            // The smallest whose going is enough comes first: it finds another place most easily.
            let mut there = self.on[host].clone();
            there.sort_unstable_by_key(|other| (items[*other].size, items[*other].instance));
            for other in there {
                if self.moves >= MOVES {
                    return false;
                }
                self.moves += 1;
                self.take(items, other);
                if self.allows(&items[at], host) && self.fits(&items[at], host) {
                    self.put(items, at, host);
                    if self.make_room(items, other, depth - 1) {
                        return true;
                    }
                    self.take(items, at);
                }
                self.put(items, other, host);
            }
        }
        false
    }
}
