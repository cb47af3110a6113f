//! What of each failover domain is free: sums by resource class, kept up with each change of use, so that a decision
//! asks them and no host. A domain is where an evacuation may go by cell and availability zone.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::ha::admission::Rule;
use crate::names::Sym;
use crate::provider::Row;
use crate::rows::Rows;

/// Availability zone and cell.
pub type Group = (Sym, Sym);

/// Capacity and use of one class on one host.
type Use = (Sym, u64, u64);

/// As what a row of a watched host counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub group: Group,
    /// Evacuations may go there.
    pub takes: bool,
    /// What must stay free, and whether placements that would take it are refused. None: nobody looks.
    pub kept: Option<(Rule, bool)>,
}

/// One class of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    /// Of hosts that take instances.
    capacity: u128,
    /// Free on them.
    free: u128,
    /// In use on all.
    used: u128,
    /// How much would have to be free if a host died, its own free room included, and how many hosts are like that.
    sizes: BTreeMap<u64, u32>,
}

impl Sum {
    /// What may still be placed before less is free than the rule says; below 0 that is so already.
    fn room(&self, rule: Rule) -> i128 {
        match rule {
            // What is free elsewhere must hold what the host has: without its free room on both sides.
            Rule::Host => self.free as i128 - self.sizes.last_key_value().map_or(0, |(size, _)| i128::from(*size)),
            Rule::Percent(percent) => {
                self.capacity as i128 - self.used as i128 - (self.capacity * u128::from(percent)).div_ceil(100) as i128
            }
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Rooms {
    seats: Vec<Option<(Seat, SmallVec<[Use; 4]>)>>,
    sums: BTreeMap<(Group, Sym), Sum>,
    kept: BTreeMap<(Group, Rule, bool), Rows>,
}

impl PartialEq for Rooms {
    fn eq(&self, other: &Self) -> bool {
        let seats = |rooms: &Self| rooms.seats.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
        self.seats[..seats(self)] == other.seats[..seats(other)] && self.sums == other.sums && self.kept == other.kept
    }
}

impl Rooms {
    /// As what a row counts.
    pub(super) fn seat(&self, row: Row) -> Option<Seat> {
        Some(self.seats.get(row.0 as usize)?.as_ref()?.0)
    }

    /// Makes a row count so, with this use.
    pub(super) fn set(&mut self, row: Row, seat: Option<Seat>, of: impl Iterator<Item = Use>) {
        let at = row.0 as usize;
        if self.seats.len() <= at {
            if seat.is_none() {
                return;
            }
            self.seats.resize(at + 1, None);
        }
        let new = seat.map(|seat| (seat, of.collect::<SmallVec<_>>()));
        if self.seats[at] == new {
            return;
        }
        let old = std::mem::replace(&mut self.seats[at], new);
        if let Some((seat, of)) = &old {
            self.count(*seat, of, false);
        }
        if let Some((seat, of)) = self.seats[at].clone() {
            self.count(seat, &of, true);
        }
        let kept = |seat: Seat| seat.kept.map(|(rule, refuses)| (seat.group, rule, refuses));
        let (old, new) = (old.and_then(|(old, _)| kept(old)), seat.and_then(kept));
        if old != new {
            if let Some(rows) = old.and_then(|old| self.kept.get_mut(&old)) {
                rows.remove(row);
            }
            self.kept.retain(|_, rows| !rows.is_empty());
            if let Some(new) = new {
                self.kept.entry(new).or_default().insert(row);
            }
        }
    }

    fn count(&mut self, seat: Seat, of: &[Use], more: bool) {
        for &(class, capacity, used) in of {
            let key = (seat.group, class);
            let sum = self.sums.entry(key).or_default();
            let by = |sum: &mut u128, amount: u64| {
                // What is taken out was put in.
                *sum = if more { *sum + u128::from(amount) } else { sum.saturating_sub(u128::from(amount)) };
            };
            let free = if seat.takes { capacity.saturating_sub(used) } else { 0 };
            by(&mut sum.capacity, if seat.takes { capacity } else { 0 });
            by(&mut sum.free, free);
            by(&mut sum.used, used);
            let size = used.saturating_add(free);
            let hosts = sum.sizes.entry(size).or_default();
            *hosts = if more { *hosts + 1 } else { hosts.saturating_sub(1) };
            if *hosts == 0 {
                sum.sizes.remove(&size);
            }
            if sum.sizes.is_empty() {
                self.sums.remove(&key);
            }
        }
    }

    /// Rows that what is `asked` may not be placed on, by what would be missing: `asked` says how much more of a group's
    /// class would be in use. Placements that make nothing worse are never refused, nor are any where no host could take
    /// an evacuation (none has an agent yet): there is no room to keep.
    pub fn short(&self, asked: impl Fn(Group) -> SmallVec<[(Sym, u64); 4]>) -> impl Iterator<Item = (Short, &Rows)> {
        self.kept.iter().filter(|((_, _, refuses), _)| *refuses).filter_map(move |(&(group, rule, _), rows)| {
            let lacks = |&(class, amount): &(Sym, u64)| {
                let sum = self.sums.get(&(group, class)).filter(|sum| amount > 0 && sum.capacity > 0);
                sum.is_some_and(|sum| sum.room(rule) < i128::from(amount))
            };
            let (class, _) = asked(group).into_iter().find(|asked| lacks(asked))?;
            Some((Short { group, rule, class }, rows))
        })
    }

    /// True when some placement may be refused.
    pub fn refuses(&self) -> bool {
        self.kept.keys().any(|(_, _, refuses)| *refuses)
    }

    /// What may still be placed in each group, by rule, whether it refuses, and class.
    pub fn left(&self) -> impl Iterator<Item = (Group, Rule, bool, Sym, i128)> {
        self.kept.keys().flat_map(|&(group, rule, refuses)| {
            let of = self.sums.range((group, Sym::of(0))..).take_while(move |((other, _), _)| *other == group);
            of.map(move |((_, class), sum)| (group, rule, refuses, *class, sum.room(rule)))
        })
    }
}

/// Why a placement is refused in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// The group.
    pub group: Group,
    /// What must stay free.
    pub rule: Rule,
    /// The first class of which less would.
    pub class: Sym,
}
