//! Making room by moving: which instances leave a host, and where to, so that a request that fits nowhere finds a place.
//!
//! For each host that is large enough, the moves that make room there with the least memory moved; of these plans the
//! cheapest. Hosts that are nearly free enough come first, so that the search can stop early. What is made free for one
//! instance must not be what another would restart on.

use super::coverage::{covered_but, uncovered};
use super::{Item, MEMORY, Move, Site, Sizes, after, fits, less, tightest};

/// What would make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The moves; every one fits before the next is done.
    pub moves: Vec<Move>,
    /// Place of the host that has room then.
    pub host: usize,
    /// Memory moved.
    pub cost: u64,
    /// What can be placed then and could not before.
    pub gain: Sizes,
}

/// Sites of which the cheapest plan is sought: those that lack least.
const LOOKED_AT: usize = 64;

/// The cheapest plan of at most `most` moves that makes room for `asked`; `None`: there is none, or each lowers coverage.
/// `allowed` says whether an instance may go to a host, beyond its size.
pub fn make_room(sites: &[Site], asked: Sizes, most: usize, allowed: impl Fn(u32, usize) -> bool) -> Option<Plan> {
    let large = sites.iter().enumerate().filter(|(_, site)| fits(asked, site.capacity));
    let share = |lack: Sizes, site: &Site| {
        (0..2).map(|r| lack[r].saturating_mul(1_000_000) / site.capacity[r].max(1)).max().unwrap_or(0)
    };
    let mut near: Vec<(u64, usize)> = large.map(|(at, site)| (share(less(asked, site.free), site), at)).collect();
    near.sort_unstable();
    near.truncate(LOOKED_AT);
    let mut plans: Vec<Plan> = near.into_iter().filter_map(|(_, at)| clear(sites, at, asked, most, &allowed)).collect();
    plans.sort_by_key(|plan| (plan.cost, plan.moves.len(), plan.host));
    let before = uncovered(sites);
    plans.into_iter().find(|plan| covered_but(&after(sites, &plan.moves), before))
}

/// The moves that make room on one site.
fn clear(sites: &[Site], at: usize, asked: Sizes, most: usize, allowed: &impl Fn(u32, usize) -> bool) -> Option<Plan> {
    let site = &sites[at];
    let mut free: Vec<Sizes> = sites.iter().map(|site| site.free).collect();
    let mut left: Vec<Item> = site.items.iter().copied().filter(|item| item.movable).collect();
    // By memory, then CPU: the first that is enough is the cheapest.
    left.sort_by_key(|item| (item.sizes[MEMORY], item.sizes[0], item.id));
    let mut moves = Vec::new();
    let mut cost = 0;
    loop {
        let lack = less(asked, free[at]);
        if lack == [0, 0] {
            return Some(Plan { moves, host: at, cost, gain: asked });
        }
        if moves.len() >= most {
            return None;
        }
        // One that is enough, else the largest that finds a place.
        let enough = left.iter().position(|item| fits(lack, item.sizes));
        let mut order =
            enough.into_iter().flat_map(|first| first..left.len()).chain((0..enough.unwrap_or(left.len())).rev());
        let target = |item: Item| tightest(sites, |at| free[at], at, item, |to| allowed(item.id, to));
        let found = order.find_map(|n| Some((n, target(left[n])?)));
        let (n, to) = found?;
        let item = left.remove(n);
        for (r, size) in item.sizes.into_iter().enumerate() {
            free[to][r] -= size;
            free[at][r] += size;
        }
        cost += item.sizes[MEMORY];
        moves.push(Move { item: item.id, from: at, to });
    }
}
