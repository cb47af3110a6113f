//! Making room by moving: which instances leave a host, and where to, so that a request that fits nowhere finds a place. A
//! function of amounts: no clock, no state, nothing is done here. Who carries a plan out claims each place as any other.
//!
//! For each host that is large enough, the moves that make room there with the least memory moved; of these plans the
//! cheapest. Hosts that are nearly free enough come first, so that the search can stop early. A plan under which more hosts
//! could not be lost than before ([`losses`]) is not given: what is made free for one instance must not be what another would
//! restart on.

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
    /// Capacity.
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

fn fits(asked: Sizes, free: Sizes) -> bool {
    asked[0] <= free[0] && asked[1] <= free[1]
}

fn less(one: Sizes, other: Sizes) -> Sizes {
    [one[0].saturating_sub(other[0]), one[1].saturating_sub(other[1])]
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
    plans.into_iter().find(|plan| uncovered(&after(sites, plan)) <= before)
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
        let found = order.find_map(|n| Some((n, target(sites, &free, at, left[n], allowed)?)));
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

/// Where an instance goes: the host that it leaves least free on, as a share of its capacity.
fn target(
    sites: &[Site],
    free: &[Sizes],
    from: usize,
    item: Item,
    allowed: &impl Fn(u32, usize) -> bool,
) -> Option<usize> {
    let rest = |at: usize| {
        let rest = less(free[at], item.sizes);
        (0..2).map(|r| rest[r] as f64 / sites[at].capacity[r].max(1) as f64).sum::<f64>()
    };
    (0..sites.len())
        .filter(|&at| at != from && fits(item.sizes, free[at]) && allowed(item.id, at))
        .min_by(|&one, &other| rest(one).total_cmp(&rest(other)).then(one.cmp(&other)))
}

/// The sites as they are when a plan is done.
pub fn after(sites: &[Site], plan: &Plan) -> Vec<Site> {
    let mut sites = sites.to_vec();
    for Move { item, from, to } in &plan.moves {
        let Some(at) = sites[*from].items.iter().position(|other| other.id == *item) else { continue };
        let item = sites[*from].items.remove(at);
        for r in 0..2 {
            sites[*from].free[r] += item.sizes[r];
            sites[*to].free[r] = sites[*to].free[r].saturating_sub(item.sizes[r]);
        }
        sites[*to].items.push(item);
    }
    sites
}

/// Sites that could not be lost.
fn uncovered(sites: &[Site]) -> usize {
    losses(sites).into_iter().filter(|&left| left > 0).count()
}

/// Instances of each site that would find no room on the others if it were lost, by capacity alone: the largest first, on
/// the host with most left of what is scarcest there.
pub fn losses(sites: &[Site]) -> Vec<usize> {
    let scarcest = |site: &Site| {
        (0..2).map(|r| site.free[r] as f64 / site.capacity[r].max(1) as f64).fold(f64::INFINITY, f64::min)
    };
    let mut roomy: Vec<usize> = (0..sites.len()).collect();
    roomy.sort_by(|&one, &other| scarcest(&sites[other]).total_cmp(&scarcest(&sites[one])).then(one.cmp(&other)));
    let empty: Vec<Sizes> = roomy.iter().map(|&at| sites[at].free).collect();
    let mut free = empty.clone();
    let lost = |lost: usize| {
        free.copy_from_slice(&empty);
        let mut orphans: Vec<Sizes> = sites[lost].items.iter().map(|item| item.sizes).collect();
        orphans.sort_by_key(|asked| std::cmp::Reverse((asked[MEMORY], asked[0])));
        let (mut left, mut hopeless) = (0, None);
        for asked in orphans {
            let place = if hopeless == Some(asked) {
                None
            } else {
                (0..free.len()).find(|&at| roomy[at] != lost && fits(asked, free[at]))
            };
            if let Some(at) = place {
                free[at] = less(free[at], asked);
            } else {
                // What found no room once finds none later: room only shrinks.
                (left, hopeless) = (left + 1, Some(asked));
            }
        }
        left
    };
    (0..sites.len()).map(lost).collect()
}
