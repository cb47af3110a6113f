//! Instances that go round in circles are left where they are.

use std::collections::{BTreeMap, BTreeSet};

/// Whether a chain of moves, as (from, to) in their order, comes back to a host that it had visited.
pub fn goes_round<H: Ord>(moves: impl IntoIterator<Item = (H, H)>) -> bool {
    let mut visited = BTreeSet::new();
    for (from, to) in moves {
        if visited.is_empty() {
            visited.insert(from);
        }
        if !visited.insert(to) {
            return true;
        }
    }
    false
}

/// Moves of the past, by instance. Of each question those count that are not older than a time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// From, to and when, in their order.
    moves: BTreeMap<u32, Vec<(usize, usize, u64)>>,
}

impl History {
    /// An instance was moved.
    pub fn add(&mut self, item: u32, from: usize, to: usize, at: u64) {
        self.moves.entry(item).or_default().push((from, to, at));
    }

    /// Drops moves that are older.
    pub fn forget(&mut self, since: u64) {
        self.moves.retain(|_, moves| {
            moves.retain(|one| one.2 >= since);
            !moves.is_empty()
        });
    }

    fn since(&self, item: u32, since: u64) -> impl Iterator<Item = (usize, usize)> {
        let moves = self.moves.get(&item).into_iter().flatten();
        moves.filter(move |one| one.2 >= since).map(|&(from, to, _)| (from, to))
    }

    /// Whether an instance came back to a host: it is not moved again.
    pub fn goes_round(&self, item: u32, since: u64) -> bool {
        goes_round(self.since(item, since))
    }

    /// Whether an instance was moved away from a host: it does not go back there.
    pub fn left(&self, item: u32, host: usize, since: u64) -> bool {
        self.since(item, since).any(|(from, _)| from == host)
    }
}
