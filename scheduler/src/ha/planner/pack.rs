//! Packing: items onto hosts that each may go to, the most urgent first and the largest before the smaller,
//! spread so that few rebuild on one host at a time; what finds no room makes some by moving others of the
//! same plan. All budgets count moves, none counts time: equal states give equal plans.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Rank;
use super::groups::Tie;
use crate::ha::host::HostId;
use crate::ha::recovery::Life;
use crate::provider::{Amounts, Provider, Row};
use crate::request::GroupPolicy;

/// Rebuilds on one target at once: a target with so many planned comes after those with fewer.
const ROUND: u32 = 4;
/// Moves that the local search may try in one plan.
const MOVES: u32 = 20_000;
/// Hosts that it may look at meanwhile.
const LOOKS: usize = 2_000_000;
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
    pub tie: Option<Tie>,
    pub excluded: Vec<HostId>,
}

/// A host.
pub(super) struct Place<'a> {
    pub life: Life,
    pub row: Row,
    pub provider: &'a Provider,
}

/// Members of groups on each host: those that run there, and those that are planned there.
pub(super) type Members = BTreeMap<usize, BTreeMap<Row, u64>>;

/// The working copy.
pub(super) struct Packer<'a> {
    pub hosts: Vec<Place<'a>>,
    /// Hosts by index, the best first.
    pub lists: Vec<Vec<usize>>,
    /// Open claims of each host, with what is planned there.
    open: Vec<Amounts>,
    /// Items of each host.
    on: Vec<Vec<usize>>,
    members: Members,
    placed: Vec<Option<usize>>,
    moves: u32,
    /// Hosts that were looked at one by one.
    looks: usize,
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
    pub fn new(hosts: Vec<Place<'a>>, lists: Vec<Vec<usize>>, members: Members) -> Self {
        let open = hosts.iter().map(|place| place.provider.open.clone()).collect();
        let on = vec![Vec::new(); hosts.len()];
        Self { hosts, lists, open, on, members, placed: Vec::new(), moves: 0, looks: 0 }
    }

    /// A host for each item, as far as there is room; items keep their order.
    pub fn pack(&mut self, items: &[Item]) -> Vec<Option<Life>> {
        self.placed = vec![None; items.len()];
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_unstable_by_key(|&at| {
            let item = &items[at];
            (item.rank, Reverse(item.size), item.instance)
        });
        let mut cursors: BTreeMap<(usize, &Amounts), Cursor> = BTreeMap::new();
        let mut left = Vec::new();
        for &at in &order {
            let item = &items[at];
            if self.placed[at].is_some() {
                // With others of its group.
                continue;
            }
            let plain = item.tie.is_none() && item.excluded.is_empty();
            let found = if plain {
                let cursor = cursors.entry((item.list, &item.amounts)).or_default();
                self.next(item, cursor)
            } else if item.tie.is_some_and(|tie| tie.policy == GroupPolicy::Affinity) {
                self.together(items, &order, at);
                self.placed[at].or_else(|| self.best(item))
            } else {
                self.best(item)
            };
            match found {
                Some(_) if self.placed[at].is_some() => {}
                Some(host) => self.put(items, at, host),
                None => left.push(at),
            }
        }
        self.looks = 0;
        for at in left {
            self.make_room(items, at, DEPTH);
        }
        self.placed.iter().map(|host| host.map(|host| self.hosts[host].life)).collect()
    }

    /// Whether one of these hosts has room for an item, whatever its group says.
    pub fn has_room(&self, item: &Item, hosts: &[usize]) -> bool {
        hosts.iter().any(|&host| {
            let place = &self.hosts[host];
            let open = self.open.get(host).unwrap_or(&place.provider.open);
            !item.excluded.contains(&place.life.host)
                && place.provider.fits_with(open, &item.amounts, &Amounts::default())
        })
    }

    fn fits(&self, item: &Item, host: usize) -> bool {
        self.hosts[host].provider.fits_with(&self.open[host], &item.amounts, &Amounts::default())
    }

    /// Members of its group on a host.
    fn beside(&self, tie: Tie, host: usize) -> u64 {
        let of_group = self.members.get(&tie.at);
        of_group.and_then(|rows| rows.get(&self.hosts[host].row)).copied().unwrap_or(0)
    }

    /// Whether a host is among those that it may go to, whatever room there is.
    fn allows(&self, item: &Item, host: usize) -> bool {
        let bound = item.tie.is_none_or(|tie| match tie.policy {
            GroupPolicy::AntiAffinity => self.beside(tie, host) < tie.most,
            // Where some are already, if any have a place.
            GroupPolicy::Affinity => {
                let of_group = self.members.get(&tie.at);
                let none = of_group.is_none_or(|rows| rows.values().all(|count| *count == 0));
                none || self.beside(tie, host) > 0
            }
            GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity => true,
        });
        bound && !item.excluded.contains(&self.hosts[host].life.host)
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

    fn best(&mut self, item: &Item) -> Option<usize> {
        let at = self.best_at(item);
        let list = &self.lists[item.list];
        self.looks = self.looks.saturating_add(at.map_or(list.len(), |at| at + 1));
        at.map(|at| list[at])
    }

    fn best_at(&self, item: &Item) -> Option<usize> {
        let plain = |host: &usize| self.against(item, *host) == 0 && self.level(*host) == 0;
        // None is better than the first of these, which is near.
        let found = |host: &usize| plain(host) && self.allows(item, *host) && self.fits(item, *host);
        if let Some(at) = self.lists[item.list].iter().take(WIDTH).position(found) {
            return Some(at);
        }
        let fitting = self.lists[item.list].iter().enumerate();
        let fitting = fitting.filter(|(_, host)| self.allows(item, **host) && self.fits(item, **host));
        fitting.min_by_key(|(at, host)| (self.against(item, **host), self.level(**host), *at)).map(|(at, _)| at)
    }

    /// How far a soft group speaks against a host.
    fn against(&self, item: &Item, host: usize) -> u64 {
        match item.tie {
            Some(tie) if tie.policy == GroupPolicy::SoftAntiAffinity => self.beside(tie, host),
            Some(tie) if tie.policy == GroupPolicy::SoftAffinity => u64::MAX - self.beside(tie, host),
            _ => 0,
        }
    }

    /// Places all members of an affinity group on the best host that takes them all, if there is one: where the
    /// first goes alone the others may find no room.
    fn together(&mut self, items: &[Item], order: &[usize], first: usize) {
        let group = |at: usize| items[at].tie.map(|tie| tie.at);
        let all: Vec<usize> =
            order.iter().copied().filter(|&at| group(at) == group(first) && self.placed[at].is_none()).collect();
        let mut whole = Amounts::default();
        for &at in &all {
            whole.add(&items[at].amounts);
        }
        let takes = |host: usize| {
            let room = self.hosts[host].provider.fits_with(&self.open[host], &whole, &Amounts::default());
            room && all.iter().all(|&at| self.allows(&items[at], host) && self.lists[items[at].list].contains(&host))
        };
        let fitting = self.lists[items[first].list].iter().enumerate().filter(|(_, host)| takes(**host));
        let best = fitting.min_by_key(|(at, host)| (self.level(**host), *at)).map(|(_, host)| *host);
        for at in all {
            if let Some(host) = best {
                self.put(items, at, host);
            }
        }
    }

    fn put(&mut self, items: &[Item], at: usize, host: usize) {
        let item = &items[at];
        self.open[host].add(&item.amounts);
        self.on[host].push(at);
        self.placed[at] = Some(host);
        if let Some(tie) = item.tie {
            *self.members.entry(tie.at).or_default().entry(self.hosts[host].row).or_default() += 1;
        }
    }

    fn take(&mut self, items: &[Item], at: usize) {
        let Some(host) = self.placed[at].take() else { return };
        let item = &items[at];
        self.open[host].take(&item.amounts);
        self.on[host].retain(|other| *other != at);
        let row = self.hosts[host].row;
        if let Some(members) = item.tie.and_then(|tie| self.members.get_mut(&tie.at)?.get_mut(&row)) {
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
        let mut hosts = self.lists[items[at].list].clone();
        hosts.retain(|host| !self.on[*host].is_empty());
        hosts.truncate(WIDTH);
        for host in hosts {
            // The smallest whose going is enough comes first: it finds another place most easily.
            let mut there = self.on[host].clone();
            there.sort_unstable_by_key(|other| (items[*other].size, items[*other].instance));
            for other in there {
                if self.moves >= MOVES || self.looks >= LOOKS {
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
