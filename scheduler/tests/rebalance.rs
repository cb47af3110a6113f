//! Plans of moves: those that make room, empty hosts and even them out. None lowers coverage, and each does what it says.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use scheduler::rebalance::{
    Combined, Detection, History, Item, Move, Site, Step, above, above_mean, after, balance, combined, consolidate,
    fuller_than, goes_round, imbalance, losses, make_room,
};

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
    assert!(after(&sites, &plan.moves)[1].free[0] >= 4);
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

#[test]
fn hosts_are_emptied_with_the_fewest_moves() {
    // One move empties the second host, two the third; the first and the fourth are full, and the fifth stays out of use.
    let sites = [
        site([8, 16], &[(0, [8, 16])]),
        site([8, 16], &[(1, [2, 4])]),
        site([8, 16], &[(2, [1, 2]), (3, [1, 3])]),
        site([8, 16], &[(4, [4, 5]), (5, [1, 1])]),
        site([8, 16], &[]),
    ];
    let told = |most| -> Vec<String> {
        let steps = consolidate(&sites, most, |_, _| true);
        let told = |step: &Step| {
            let moves: Vec<String> =
                step.moves.iter().map(|one| format!("{}: {} to {}", one.item, one.from, one.to)).collect();
            format!("{}; {} moved, {}", moves.join(", "), step.cost, step.reason)
        };
        steps.iter().map(told).collect()
    };
    let first = "1: 1 to 3; 4 moved, its host is emptied by 1 move".to_owned();
    // 5 of 8 and 6 of 16 are in use on the fourth host, then 7 and 10: the larger of the two left goes there, the other nowhere.
    assert_eq!((told(0), told(1), told(2)), (vec![], vec![first.clone()], vec![first]));
    let fixed = consolidate(&sites, 9, |item, to| item != 1 && to == 3);
    assert_eq!((fixed.len(), fixed[0].moves.len(), fixed[0].cost), (1, 2, 5));
    assert_eq!(consolidate(&sites, 9, |_, to| to == 4), [], "into a host without instances nothing is packed");
}

#[test]
fn an_emptied_host_is_not_what_another_would_restart_on() {
    // Item 0 fits beside 1, and each host could be lost now; with the first one switched off the second could not.
    let sites = [site([4, 4], &[(0, [1, 1])]), site([4, 4], &[(1, [2, 2])])];
    assert_eq!(losses(&sites), [0, 0]);
    assert_eq!(consolidate(&sites, 9, |_, _| true), []);
    let spare = [&sites[..], &[site([4, 4], &[])]].concat();
    assert_eq!(consolidate(&spare, 9, |_, _| true).len(), 1);
}

#[test]
fn detectors_and_evening_out() {
    let sites = [
        site([10, 10], &[(0, [5, 4]), (1, [3, 4])]),
        site([10, 10], &[(2, [1, 1])]),
        site([10, 10], &[]),
        site([10, 10], &[]),
    ];
    let full = fuller_than(&sites, [0.75, 0.9]);
    let named: Vec<(u32, usize, &str)> = full.iter().map(|one| (one.item, one.host, one.reason.as_str())).collect();
    let why = "CPU of its host is 80.0 % in use, above 75.0 %";
    assert_eq!(named, [(0, 0, why), (1, 0, why)]);
    assert_eq!(fuller_than(&sites, [0.8, 0.8]), [], "strictly above");
    assert_eq!(above_mean(&sites, 0.5).len(), 2, "the mean is 22.5 %");
    let steps = balance(&sites, &full, 9, 0.001, |_, _| true);
    // Half and 40 % leave; then 30 and 40 % are left, and the last move would only carry that elsewhere.
    assert_eq!(steps.iter().map(|step| step.moves[0]).collect::<Vec<_>>(), [Move { item: 0, from: 0, to: 2 }]);
    assert_eq!((steps[0].cost, steps[0].reason.as_str()), (4, why));
    assert_eq!(balance(&sites, &full, 9, 0.9, |_, _| true), [], "a least gain");
    let elsewhere = balance(&sites, &full, 1, 0.001, |_, to| to == 1);
    assert_eq!(
        elsewhere[0].moves,
        [Move { item: 1, from: 0, to: 1 }],
        "80 and 10 %: 50 and 40 % are more even than 30 and 60 %"
    );
}

#[test]
fn what_detectors_say_together() {
    let one = |item, host, reason: &str| Detection { item, host, reason: reason.to_owned() };
    let found = vec![
        ("b", vec![one(1, 0, "hot"), one(2, 0, "hot"), one(3, 1, "hot")]),
        ("a", vec![one(1, 0, "old"), one(2, 1, "old")]),
    ];
    let kept = vec![one(1, 0, "multiple reasons: old; hot"), one(3, 1, "hot")];
    assert_eq!(combined(found), Combined { kept, disputed: vec![2] });
    for (threshold, values, wanted) in [
        (0.0, &[50.0, 75.0][..], &[][..]),
        (-5.0, &[50.0], &[]),
        (80.0, &[50.0, 75.0, 60.0], &[]),
        (70.0, &[50.0, 75.0, 60.0, 85.5], &[1, 3]),
        (75.0, &[50.0, 75.0, 75.1], &[2]),
        (75.555, &[75.554, 75.556], &[1]),
    ] {
        let values: Vec<(u32, usize, f64)> = values.iter().zip(0..).map(|(value, item)| (item, 0, *value)).collect();
        let items: Vec<u32> = above(&values, threshold, "steal time").iter().map(|one| one.item).collect();
        assert_eq!(items, wanted, "{threshold}");
    }
    assert_eq!(above(&[(7, 2, 85.5)], 20.0, "steal time"), [one(7, 2, "steal time 85.50, above 20.00")]);
}

#[test]
fn circles() {
    for (moves, round) in [
        (&[][..], false),
        (&[("a", "b")], false),
        (&[("a", "b"), ("b", "a")], true),
        (&[("a", "b"), ("b", "c"), ("c", "a")], true),
        (&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")], true),
        (&[("x", "y"), ("y", "z")], false),
    ] {
        assert_eq!(goes_round(moves.iter().copied()), round, "{moves:?}");
    }
    // Host 0 to 1 at 10, to 2 at 20, back to 1 at 30. Nothing older than asked for counts.
    let mut history = History::default();
    for (from, to, at) in [(0, 1, 10), (1, 2, 20), (2, 1, 30)] {
        history.add(7, from, to, at);
    }
    assert!(history.goes_round(7, 0) && history.goes_round(7, 20) && !history.goes_round(7, 21));
    assert!(history.left(7, 0, 10) && !history.left(7, 0, 11) && history.left(7, 1, 20) && !history.left(8, 1, 0));
    history.forget(30);
    assert!(!history.left(7, 1, 0) && history.left(7, 2, 0));
}

/// Most hosts that can be emptied into hosts in use with so many moves, in whatever order and whatever becomes of coverage.
fn most_emptied(sites: &[Site], most: usize) -> usize {
    fn go(sites: &[Site], free: &mut [[u64; 2]], rest: &[(usize, usize)], emptied: u32, left: usize) -> bool {
        let Some(&(host, item)) = rest.first() else { return true };
        if emptied >> host & 1 == 0 {
            return go(sites, free, &rest[1..], emptied, left);
        }
        let [cpu, memory] = sites[host].items[item].sizes;
        left > 0
            && (0..sites.len()).any(|to| {
                let fits = emptied >> to & 1 == 0
                    && !sites[to].items.is_empty()
                    && free[to][0] >= cpu
                    && free[to][1] >= memory;
                if !fits {
                    return false;
                }
                (free[to][0], free[to][1]) = (free[to][0] - cpu, free[to][1] - memory);
                let found = go(sites, free, &rest[1..], emptied, left - 1);
                (free[to][0], free[to][1]) = (free[to][0] + cpu, free[to][1] + memory);
                found
            })
    }
    let all: Vec<(usize, usize)> =
        sites.iter().enumerate().flat_map(|(host, site)| (0..site.items.len()).map(move |item| (host, item))).collect();
    let in_use = |emptied: u32| (0..sites.len()).all(|host| emptied >> host & 1 == 0 || !sites[host].items.is_empty());
    let mut free: Vec<[u64; 2]> = sites.iter().map(|site| site.free).collect();
    let sets = (0..1_u32 << sites.len()).filter(|&emptied| in_use(emptied));
    sets.filter(|&emptied| go(sites, &mut free, &all, emptied, most)).map(u32::count_ones).max().unwrap_or(0) as usize
}

/// Small cases against all there is to try.
#[test]
fn emptying_comes_near_the_optimum() {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut done, mut optimum) = (0, 0);
    for _ in 0..300 {
        let mut next = 0;
        let mut sites = Vec::new();
        for _ in 0..2 + draw(4) {
            let items: Vec<(u32, [u64; 2])> = (0..draw(4))
                .map(|_| {
                    next += 1;
                    (next, [1 + draw(3), 1 + draw(4)])
                })
                .collect();
            sites.push(site([9, 12], &items));
        }
        // Room for any of them, so that coverage never keeps a host from being emptied.
        sites.push(site([9, 12], &[]));
        let most = draw(7) as usize;
        let (here, best) = (consolidate(&sites, most, |_, _| true).len(), most_emptied(&sites, most));
        assert!(here <= best, "{sites:?}");
        // Whoever can empty a host at all does.
        assert_eq!(here == 0, best == 0, "{sites:?}");
        (done, optimum) = (done + here, optimum + best);
    }
    assert!(optimum > 200 && done * 100 >= optimum * 95, "{done} of {optimum}");
}

/// One step after the other: within the budget, never overfull, never less covered, and with the gain that is told.
fn hold(sites: &[Site], steps: &[Step], most: usize, gain: impl Fn(&[Site], &[Site], &Step) -> f64) {
    let lost = |sites: &[Site]| losses(sites).into_iter().filter(|left| *left > 0).count();
    assert!(steps.iter().map(|step| step.moves.len()).sum::<usize>() <= most);
    let before = lost(sites);
    let mut sites = sites.to_vec();
    for step in steps {
        let mut then = sites.clone();
        let mut cost = 0;
        for one in &step.moves {
            let item = *then[one.from].items.iter().find(|item| item.id == one.item).expect("on its host");
            assert!(
                item.movable && one.from != one.to && (0..2).all(|r| item.sizes[r] <= then[one.to].free[r]),
                "{step:?}"
            );
            cost += item.sizes[1];
            then = after(&then, &[*one]);
        }
        assert_eq!(cost, step.cost);
        assert!((gain(&sites, &then, step) - step.gain).abs() < 1e-9, "{step:?}");
        sites = then;
        assert!(lost(&sites) <= before, "{step:?}");
    }
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
        let done = after(&sites, &plan.moves);
        prop_assert_eq!(done.iter().map(|site| site.free).collect::<Vec<_>>(), free);
        let lost = |sites: &[Site]| losses(sites).into_iter().filter(|left| *left > 0).count();
        prop_assert!(lost(&done) <= lost(&sites));
    }

    #[test]
    fn emptied_and_evened_as_told(mut sites in estate(), most in 0..12_usize, fixed in 2..9_u32) {
        sites.iter_mut().flat_map(|site| &mut site.items).for_each(|item| item.movable = item.id % fixed != 0);
        let allowed = |item: u32, to: usize| !(item as usize + to).is_multiple_of(7);
        let in_use = |sites: &[Site]| sites.iter().filter(|site| !site.items.is_empty()).count() as f64;
        let steps = consolidate(&sites, most, allowed);
        hold(&sites, &steps, most, |before, then, _| in_use(before) - in_use(then));
        prop_assert!(steps.iter().flat_map(|step| &step.moves).all(|one| allowed(one.item, one.to)));
        prop_assert!(steps.windows(2).all(|two| two[0].moves.len() <= two[1].moves.len()), "the best gain per move first");
        prop_assert_eq!(&steps, &consolidate(&sites, most, allowed));
        // What was emptied could be switched off.
        let mut off = after(&sites, &steps.iter().flat_map(|step| step.moves.clone()).collect::<Vec<_>>());
        for step in &steps {
            off[step.moves[0].from].free = [0; 2];
        }
        let lost = |sites: &[Site]| losses(sites).into_iter().filter(|left| *left > 0).count();
        prop_assert!(lost(&off) <= lost(&sites));

        let detected = combined(vec![("full", fuller_than(&sites, [0.7; 2])), ("uneven", above_mean(&sites, 0.05))]).kept;
        let steps = balance(&sites, &detected, most, 0.001, allowed);
        hold(&sites, &steps, most, |before, then, _| imbalance(before) - imbalance(then));
        prop_assert!(steps.iter().all(|step| step.gain > 0.0009 && allowed(step.moves[0].item, step.moves[0].to)));
        prop_assert_eq!(&steps, &balance(&sites, &detected, most, 0.001, allowed));
    }
}
