//! Plans that make room: the cheapest one, none that lowers coverage, and each does what it says.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use scheduler::rebalance::{Item, Move, Site, after, losses, make_room};

fn site(capacity: [u64; 2], items: &[(u32, [u64; 2])]) -> Site {
    let used = |r: usize| items.iter().map(|(_, sizes)| sizes[r]).sum::<u64>();
    let items = items.iter().map(|&(id, sizes)| Item { id, sizes, movable: true }).collect();
    Site { capacity, free: [capacity[0] - used(0), capacity[1] - used(1)], items }
}

#[test]
fn the_cheapest_moves() {
    // 4/8 fits nowhere: the first host lacks 2/4 and has one of 3/5; the second lacks 1/2 and has two of 1/3.
    let sites = [
        site([8, 16], &[(0, [3, 7]), (1, [3, 5])]),
        site([8, 16], &[(2, [3, 4]), (3, [1, 3]), (4, [1, 3])]),
        site([8, 16], &[(5, [5, 11])]),
    ];
    let plan = make_room(&sites, [4, 8], 4, |_, _| true).expect("a plan");
    assert_eq!((plan.moves.clone(), plan.host, plan.cost), (vec![Move { item: 3, from: 1, to: 0 }], 1, 3));
    assert!(after(&sites, &plan)[1].free[0] >= 4);
    // 3 and 4 may not go: the next cheapest leaves.
    let plan = make_room(&sites, [4, 8], 4, |item, _| item != 3 && item != 4).expect("a plan");
    assert_eq!((plan.moves[0].item, plan.cost), (2, 4));
    assert_eq!(make_room(&sites, [4, 8], 0, |_, _| true), None, "no move allowed");
    assert_eq!(make_room(&sites, [9, 1], 9, |_, _| true), None, "larger than any host");
}

#[test]
fn coverage_is_not_lowered() {
    // The cheapest is to move 1 to the third host, on which 0 would restart; the second is too small for that.
    let sites = [site([4, 4], &[(0, [3, 3])]), site([4, 2], &[(1, [2, 1])]), site([3, 3], &[])];
    assert_eq!(losses(&sites), [0, 0, 0]);
    assert_eq!(losses(&[site([4, 4], &[(9, [1, 1])])]), [1], "a lost host takes nothing");
    assert_eq!(make_room(&sites, [4, 1], 9, |item, _| item == 1), None);
    let plan = make_room(&sites, [4, 1], 9, |_, _| true).expect("a dearer plan");
    assert_eq!(plan.moves, [Move { item: 0, from: 0, to: 2 }]);
}

fn estate() -> impl Strategy<Value = Vec<Site>> {
    let items = prop::collection::vec((1..5_u64, 1..9_u64), 0..6);
    prop::collection::vec((items, 0..4_u64, 0..8_u64), 2..7).prop_map(|hosts| {
        let mut next = 0;
        let host = |(items, cpu, memory): (Vec<(u64, u64)>, u64, u64)| {
            let items: Vec<_> = items
                .into_iter()
                .map(|(cpu, memory)| {
                    next += 1;
                    (next, [cpu, memory])
                })
                .collect();
            let sum = |r: usize| items.iter().map(|(_, sizes)| sizes[r]).sum::<u64>();
            site([sum(0) + cpu, sum(1) + memory], &items)
        };
        hosts.into_iter().map(host).collect()
    })
}

proptest! {
    #[test]
    fn a_plan_does_what_it_says(sites in estate(), cpu in 1..9_u64, memory in 1..17_u64, most in 0..5_usize) {
        let Some(plan) = make_room(&sites, [cpu, memory], most, |item, _| item % 5 != 0) else { return Ok(()) };
        prop_assert!(plan.moves.len() <= most);
        prop_assert!(plan.moves.iter().all(|each| each.item % 5 != 0 && each.from == plan.host && each.to != plan.host));
        // One after the other, nothing is ever overfull.
        let mut free: Vec<[u64; 2]> = sites.iter().map(|site| site.free).collect();
        let mut cost = 0;
        for Move { item, from, to } in &plan.moves {
            let sizes = sites[*from].items.iter().find(|other| other.id == *item).expect("on its host").sizes;
            for (r, size) in sizes.into_iter().enumerate() {
                prop_assert!(free[*to][r] >= size);
                free[*to][r] -= size;
                free[*from][r] += size;
            }
            cost += sizes[1];
        }
        prop_assert!(free[plan.host][0] >= cpu && free[plan.host][1] >= memory);
        prop_assert_eq!(cost, plan.cost);
        let done = after(&sites, &plan);
        prop_assert_eq!(done.iter().map(|site| site.free).collect::<Vec<_>>(), free);
        let lost = |sites: &[Site]| losses(sites).into_iter().filter(|left| *left > 0).count();
        prop_assert!(lost(&done) <= lost(&sites));
    }
}
