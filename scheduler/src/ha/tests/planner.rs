//! Plans: how far from the best, which come first, and which rules hold within one.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bench::{Bench, HOSTS, RUNS, host, life, vm};
use crate::ha::order::{PermitCause, To};
use crate::ha::planner::{self, Bond, Rank, Targets};
use crate::ha::recovery::Life;
use crate::ha::{Change, HostId};
use crate::{Command, HostReport, InstanceReport, Inventory};

/// Hosts in their order, and what a test says of instances.
#[derive(Default)]
struct Known {
    hosts: Vec<HostId>,
    ranks: BTreeMap<Uuid, Rank>,
    bonds: BTreeMap<Uuid, Bond>,
}

impl Targets for Known {
    fn ranked(&self, _: Uuid, _: Life) -> Vec<Life> {
        self.hosts.iter().map(|host| Life { host: *host, incarnation: 1 }).collect()
    }

    fn question(&self, _: Uuid) -> Option<u64> {
        Some(0)
    }

    fn rank(&self, instance: Uuid) -> Rank {
        self.ranks.get(&instance).copied().unwrap_or_default()
    }

    fn bond(&self, instance: Uuid) -> Option<Bond> {
        self.bonds.get(&instance).copied()
    }
}

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |most| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        1 + state % most
    }
}

/// Host 1 with instances of these sizes (CPUs, GiB), hosts 2 and on with this room.
fn estate(sizes: &[(u64, u64)], rooms: &[(u64, u64)]) -> Bench {
    let mut bench = Bench::new();
    let amounts =
        |(cpus, memory): (u64, u64)| BTreeMap::from([("VCPU".to_owned(), cpus), ("MEMORY_MB".to_owned(), memory)]);
    for n in 1..=HOSTS {
        let (cpus, memory) = if n == 1 { (999, 999) } else { rooms.get(n as usize - 2).copied().unwrap_or((0, 0)) };
        let inventories = [("VCPU".to_owned(), Inventory::of(cpus)), ("MEMORY_MB".to_owned(), Inventory::of(memory))];
        let instances = sizes.iter().enumerate().filter(|_| n == 1).map(|(v, size)| InstanceReport {
            uuid: vm(100 + v as u128),
            resources: Some(amounts(*size)),
            ..InstanceReport::default()
        });
        bench.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some(inventories.into()),
            instances: Some(instances.collect()),
            ..HostReport::default()
        })));
    }
    for v in 0..sizes.len() {
        let cause = PermitCause::Placed;
        bench.must(Change::PermitMove { instance: vm(100 + v as u128), from: None, to: life(1), cause });
    }
    bench.planning(1);
    bench
}

/// Host of each instance by the plan.
fn planned(bench: &Bench, sizes: usize, targets: &Known) -> Vec<Option<HostId>> {
    let servers: Vec<_> = (0..sizes).map(|v| (vm(100 + v as u128), RUNS)).collect();
    let plan = planner::plan(bench.core.state().tables(), bench.case(1), &servers, targets);
    (0..sizes)
        .map(|v| {
            let of = plan.iter().find(|assignment| assignment.instance == vm(100 + v as u128));
            match of.map(|assignment| assignment.to) {
                Some(To::Target(life)) => Some(life.host),
                _ => None,
            }
        })
        .collect()
}

fn known(rooms: usize) -> Known {
    Known { hosts: (2..2 + rooms as u128).map(host).collect(), ..Known::default() }
}

/// The most instances that any assignment places.
fn best(sizes: &[(u64, u64)], rooms: &mut [(u64, u64)]) -> usize {
    let Some((&(cpus, memory), rest)) = sizes.split_first() else { return 0 };
    let mut most = best(rest, rooms);
    for at in 0..rooms.len() {
        if rooms[at].0 >= cpus && rooms[at].1 >= memory {
            rooms[at] = (rooms[at].0 - cpus, rooms[at].1 - memory);
            most = most.max(1 + best(rest, rooms));
            rooms[at] = (rooms[at].0 + cpus, rooms[at].1 + memory);
        }
    }
    most
}

#[test]
fn small_plans_are_nearly_as_good_as_the_best_assignment() {
    let (mut placed, mut possible, mut whole, mut wholes) = (0, 0, 0, 0);
    let seeds = 200;
    for seed in 1..=seeds {
        let mut draw = numbers(seed);
        let sizes: Vec<_> = (0..6).map(|_| (draw(6), draw(6))).collect();
        let mut rooms: Vec<_> = (0..3).map(|_| (draw(16), draw(16))).collect();
        let found = planned(&estate(&sizes, &rooms), sizes.len(), &known(rooms.len()));
        for (at, room) in rooms.iter().enumerate() {
            let here = found.iter().zip(&sizes).filter(|(to, _)| **to == Some(host(2 + at as u128)));
            let used = here.fold((0, 0), |used, (_, size)| (used.0 + size.0, used.1 + size.1));
            assert!(used.0 <= room.0 && used.1 <= room.1, "seed {seed}: {used:?} in {room:?}");
        }
        let (found, best) = (found.iter().flatten().count(), best(&sizes, &mut rooms));
        (placed, possible) = (placed + found, possible + best);
        if best == sizes.len() {
            (whole, wholes) = (whole + usize::from(found == best), wholes + 1);
        }
    }
    // Largest first, not as many as possible: where not all fit, a large one may stand for two small ones.
    println!("placed {placed} of {possible}; all of {whole} of {wholes} estates in which all can be placed");
    assert!(placed * 100 >= possible * 85, "{placed} of {possible}");
    assert!(whole * 100 >= wholes * 90, "{whole} of {wholes}");
}

#[test]
fn the_urgent_go_first_and_the_large_get_the_one_hole() {
    // One host takes the large one or eight small ones.
    let sizes: Vec<_> = std::iter::once((8, 8)).chain(std::iter::repeat_n((1, 1), 8)).collect();
    let bench = estate(&sizes, &[(8, 8)]);
    let found = planned(&bench, sizes.len(), &known(1));
    assert!(found[0].is_some() && found[1..].iter().all(Option::is_none), "the largest first: {found:?}");
    let mut targets = known(1);
    targets.ranks.insert(vm(103), Rank { class: 0, after: 0 });
    let found = planned(&bench, sizes.len(), &targets);
    assert!(found[3].is_some() && found[0].is_none(), "the urgent before the large: {found:?}");
}

#[test]
fn groups_stay_apart_or_together_within_a_plan_and_work_is_spread() {
    let sizes = vec![(1, 1); 4];
    let bench = estate(&sizes, &[(8, 8), (8, 8), (8, 8)]);
    let group = Uuid::from_u128(5);
    let mut targets = known(3);
    for v in 0..4 {
        targets.bonds.insert(vm(100 + v), Bond::Apart { group, most: 1 });
    }
    let mut found: Vec<_> = planned(&bench, 4, &targets).into_iter().flatten().collect();
    found.sort_unstable();
    assert_eq!(found, [host(2), host(3), host(4)], "three hosts, one each, and one waits");
    for v in 0..4 {
        targets.bonds.insert(vm(100 + v), Bond::Together { group });
    }
    assert_eq!(planned(&bench, 4, &targets), [Some(host(2)); 4]);
    // Four on a host at a time, then the next, although the first has room.
    let sizes = vec![(1, 1); 12];
    let found = planned(&estate(&sizes, &[(12, 12), (12, 12), (12, 12)]), 12, &known(3));
    for n in 2..=4 {
        assert_eq!(found.iter().filter(|to| **to == Some(host(n))).count(), 4);
    }
}

#[test]
fn what_finds_no_room_makes_some() {
    // The large one went to the host that only the memory-heavy one fits on.
    let sizes = [(4, 4), (3, 3), (3, 3), (2, 2)];
    let bench = estate(&sizes, &[(6, 6), (6, 6)]);
    let found = planned(&bench, sizes.len(), &known(2));
    assert!(found.iter().all(Option::is_some), "{found:?}");
}
