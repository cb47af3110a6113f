//! Which instances move, and where to. Functions of amounts: no clock, no state, nothing is done here; who carries a plan out
//! claims each place as any other. Every move of a plan fits before the next one is done, and under no plan could more hosts
//! not be lost than before ([`losses`]).
//!
//! [`make_room`] moves so that a request that fits nowhere finds a place, [`consolidate`] empties hosts, [`balance`] evens
//! them out. What detectors name is [`combined`]; a [`History`] keeps instances from going round in circles.

mod balance;
mod consolidate;
mod coverage;
mod cycle;
mod detect;
mod objective;
mod room;

pub use balance::{balance, imbalance};
pub use consolidate::consolidate;
pub use coverage::losses;
pub use cycle::{History, goes_round};
pub use detect::{Combined, Detection, above, above_mean, combined, fuller_than};
pub use objective::Objective;
pub use room::{Plan, make_room};

/// CPU and memory, each in the caller's unit.
pub type Sizes = [u64; 2];

/// Memory's place in [`Sizes`]: what a move copies.
const MEMORY: usize = 1;

/// An instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The caller's number of it.
    pub id: u32,
    /// What it takes.
    pub sizes: Sizes,
    /// Whether it may be moved at all.
    pub movable: bool,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Capacity; 0: it takes no part.
    pub capacity: Sizes,
    /// What of it is free.
    pub free: Sizes,
    /// What is on it.
    pub items: Vec<Item>,
}

/// A move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The instance.
    pub item: u32,
    /// Place of its host among the sites.
    pub from: usize,
    /// Place of the host that it goes to.
    pub to: usize,
}

/// Moves that are of use together only; the steps of a plan are done one after the other, as many as one likes.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The moves.
    pub moves: Vec<Move>,
    /// Memory moved.
    pub cost: u64,
    /// Of [`consolidate`]: hosts emptied; of [`balance`]: by how much the [`imbalance`] falls.
    pub gain: f64,
    /// Why.
    pub reason: String,
}

fn fits(asked: Sizes, free: Sizes) -> bool {
    asked[0] <= free[0] && asked[1] <= free[1]
}

fn less(one: Sizes, other: Sizes) -> Sizes {
    [one[0].saturating_sub(other[0]), one[1].saturating_sub(other[1])]
}

/// An amount as a share of a capacity.
fn share(amount: u64, capacity: u64) -> f64 {
    amount as f64 / capacity.max(1) as f64
}

/// Of the sites that take an item, the one that it leaves least free on, as a share of its capacity.
fn tightest(
    sites: &[Site],
    free: impl Fn(usize) -> Sizes,
    from: usize,
    item: Item,
    takes: impl Fn(usize) -> bool,
) -> Option<usize> {
    let rest = |at: usize| {
        let rest = less(free(at), item.sizes);
        (0..2).map(|r| share(rest[r], sites[at].capacity[r])).sum::<f64>()
    };
    (0..sites.len())
        .filter(|&at| at != from && fits(item.sizes, free(at)) && takes(at))
        .min_by(|&one, &other| rest(one).total_cmp(&rest(other)).then(one.cmp(&other)))
}

/// Does moves on the sites.
fn carry_out(sites: &mut [Site], moves: &[Move]) {
    for Move { item, from, to } in moves {
        let Some(at) = sites[*from].items.iter().position(|other| other.id == *item) else { continue };
        let item = sites[*from].items.remove(at);
        for r in 0..2 {
            sites[*from].free[r] += item.sizes[r];
            sites[*to].free[r] = sites[*to].free[r].saturating_sub(item.sizes[r]);
        }
        sites[*to].items.push(item);
    }
}

/// Takes moves back.
fn take_back(sites: &mut [Site], moves: &[Move]) {
    let back: Vec<Move> =
        moves.iter().rev().map(|&Move { item, from, to }| Move { item, from: to, to: from }).collect();
    carry_out(sites, &back);
}

/// The sites as they are when moves are done.
pub fn after(sites: &[Site], moves: &[Move]) -> Vec<Site> {
    let mut sites = sites.to_vec();
    carry_out(&mut sites, moves);
    sites
}
