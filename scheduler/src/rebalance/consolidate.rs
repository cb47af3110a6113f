//! Emptying hosts, so that they can be switched off, or are whole for what is large. A host is emptied wholly or not at all.

use super::coverage::{covered_but, uncovered};
use super::{MEMORY, Move, Site, Step, carry_out, share, take_back, tightest};

/// Steps of which each empties one host, with at most `most` moves in all: the fewest moves first, then the least memory. An
/// instance goes to a host in use, the one that it leaves least free on; a host that took one in is not emptied. `allowed`
/// says whether an instance may go to a host, beyond its size. When coverage is looked at, an emptied host takes nothing.
pub fn consolidate(sites: &[Site], most: usize, allowed: impl Fn(u32, usize) -> bool) -> Vec<Step> {
    let mut sites = sites.to_vec();
    let before = uncovered(&sites);
    let mut order: Vec<(usize, u64, usize)> = sites
        .iter()
        .enumerate()
        .filter(|(_, site)| !site.items.is_empty() && site.items.iter().all(|item| item.movable))
        .map(|(at, site)| (site.items.len(), site.items.iter().map(|item| item.sizes[MEMORY]).sum(), at))
        .collect();
    order.sort_unstable();
    let mut took = vec![false; sites.len()];
    let (mut steps, mut left) = (Vec::new(), most);
    for (count, cost, from) in order {
        if count > left {
            break;
        }
        if took[from] {
            continue;
        }
        let Some(moves) = empty(&mut sites, from, &allowed) else { continue };
        let whole = (sites[from].capacity, sites[from].free);
        (sites[from].capacity, sites[from].free) = ([0; 2], [0; 2]);
        if !covered_but(&sites, before) {
            (sites[from].capacity, sites[from].free) = whole;
            take_back(&mut sites, &moves);
            continue;
        }
        for one in &moves {
            took[one.to] = true;
        }
        left -= count;
        let plural = if count == 1 { "" } else { "s" };
        let reason = format!("its host is emptied by {count} move{plural}");
        steps.push(Step { moves, cost, gain: 1.0, reason });
    }
    steps
}

/// Moves all items of a site, the largest first; `None`: one finds no place, and all is as it was.
fn empty(sites: &mut [Site], from: usize, allowed: &impl Fn(u32, usize) -> bool) -> Option<Vec<Move>> {
    let mut items = sites[from].items.clone();
    let capacity = sites[from].capacity;
    let size = |r: usize, item: &super::Item| share(item.sizes[r], capacity[r]);
    let size = |item: &super::Item| size(0, item).max(size(1, item));
    items.sort_by(|one, other| size(other).total_cmp(&size(one)).then(one.id.cmp(&other.id)));
    let mut moves = Vec::new();
    for item in items {
        let in_use = |at: usize| !sites[at].items.is_empty() && allowed(item.id, at);
        let Some(to) = tightest(sites, |at| sites[at].free, from, item, in_use) else {
            take_back(sites, &moves);
            return None;
        };
        let one = Move { item: item.id, from, to };
        carry_out(sites, &[one]);
        moves.push(one);
    }
    Some(moves)
}
