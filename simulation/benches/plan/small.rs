//! How far plans are from the best there are, on cases so small that every assignment can be looked at: up to
//! four hosts and eight instances, with less room than they would take.

use scheduler::ha::order::To;
use scheduler::ha::planner::groups::ServerGroups;
use scheduler::ha::planner::{self, Asked, Asks, Listed, Rank, Targets, Told};
use scheduler::ha::recovery::Life;
use serde_json::json;
use uuid::Uuid;

use super::{Draw, Estate, RUNS, host, vm};

/// Ranks at most.
const RANKS: usize = 3;
/// Instances of each rank that have a place, the most urgent first: the larger is the better plan.
type Placed = [usize; RANKS];

/// All hosts for each.
struct Every {
    lives: Vec<Life>,
}

impl Targets for Every {
    fn ranked(&self, _: &Asked<'_>) -> Vec<Life> {
        self.lives.clone()
    }

    fn question(&self, _: Uuid, _: &Asks) -> Option<u64> {
        Some(0)
    }
}

/// An instance: virtual CPUs, memory, rank.
type Instance = (u64, u64, u8);

/// The best of all assignments of `left`, which ascend by rank; `so_far` have a place. `best` is at least what was
/// found before.
fn search(left: &[Instance], rooms: &mut [(u64, u64)], so_far: Placed, best: &mut Placed) {
    // Not even with a place for all that are left.
    let mut hoped = so_far;
    for (_, _, rank) in left {
        hoped[usize::from(*rank)] += 1;
    }
    if hoped <= *best {
        return;
    }
    let Some((&(cpus, memory, rank), rest)) = left.split_first() else {
        *best = so_far;
        return;
    };
    let mut with = so_far;
    with[usize::from(rank)] += 1;
    for at in 0..rooms.len() {
        if rooms[at].0 >= cpus && rooms[at].1 >= memory {
            rooms[at] = (rooms[at].0 - cpus, rooms[at].1 - memory);
            search(rest, rooms, with, best);
            rooms[at] = (rooms[at].0 + cpus, rooms[at].1 + memory);
        }
    }
    search(rest, rooms, so_far, best);
}

/// What the planner makes of it.
fn planned(instances: &[Instance], rooms: &[(u64, u64)]) -> Placed {
    let sizes: Vec<_> = instances.iter().map(|(cpus, memory, _)| (*cpus, *memory)).collect();
    let estate = Estate::small(&sizes, rooms);
    let lives = (1..=rooms.len()).map(|n| Life { host: host(n), incarnation: 1 });
    let targets = Every { lives: lives.collect() };
    let listed = instances.iter().enumerate().map(|(v, (_, _, class))| Listed {
        instance: vm(0, v),
        recorded: RUNS,
        asks: Asks { rank: Rank { class: *class, ..Rank::default() }, ..Asks::default() },
    });
    let servers: Vec<_> = listed.collect();
    let groups = ServerGroups::default();
    let case = estate.ha().cases.get(host(0)).expect("open");
    let told = Told { case, servers: &servers, returns: false };
    let mut placed = Placed::default();
    let plans = planner::plan(estate.core.state().tables(), &[told], &groups, &targets);
    for assignment in plans.into_iter().flat_map(|(_, plan)| plan) {
        if matches!(assignment.to, To::Target(_)) {
            placed[usize::from(assignment.rank.class)] += 1;
        }
    }
    placed
}

/// Compares plans with the best of `seeds` cases, with instances of so many ranks.
pub(super) fn gap(case: &str, seeds: u64, ranks: u64) {
    let (mut whole, mut worst, mut found, mut possible, mut optimal, mut all) = (0, 0, 0, 0, 0_u64, 0);
    for seed in 1..=seeds {
        let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut instances: Vec<Instance> =
            (0..5 + draw.below(4)).map(|_| (1 + draw.below(8), 1 + draw.below(8), draw.below(ranks) as u8)).collect();
        instances.sort_unstable_by_key(|(_, _, rank)| *rank);
        // Room for about nine tenths of them, on two to four hosts of different shapes.
        let hosts = 2 + draw.below(3);
        let sum = |of: fn(&Instance) -> u64| instances.iter().map(of).sum::<u64>() * 9 / (10 * hosts);
        let (cpus, memory) = (sum(|known| known.0), sum(|known| known.1));
        let mut room = |about: u64| 1 + about / 2 + draw.below(about + 1);
        let mut rooms: Vec<_> = (0..hosts).map(|_| (room(cpus), room(memory))).collect();
        let made = planned(&instances, &rooms);
        let mut best = made;
        search(&instances, &mut rooms, Placed::default(), &mut best);
        // In the most urgent rank in which they differ.
        let missing = made.iter().zip(best).map(|(made, best)| best.saturating_sub(*made)).find(|missing| *missing > 0);
        let missing = missing.unwrap_or(0);
        (whole, worst) = (whole + missing, worst.max(missing));
        optimal += u64::from(missing == 0);
        let sum = |placed: Placed| placed.iter().sum::<usize>();
        (found, possible, all) = (found + sum(made), possible + sum(best), all + instances.len());
    }
    let share = |part: usize| (part as f64 / all as f64 * 10_000.0).round() / 10_000.0;
    println!(
        "BENCH {}",
        json!({
            "bench": "plan", "case": format!("gap to the best, {case}"), "hosts": 4, "unit": "instances",
            "count": seeds, "mean": (whole as f64 / seeds as f64 * 1_000.0).round() / 1_000.0, "max": worst,
            "optimal": (optimal as f64 / seeds as f64 * 1_000.0).round() / 1_000.0,
            "restored": share(found), "possible": share(possible),
        })
    );
}
