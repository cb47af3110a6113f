//! Plans: how far from the best, which come first, and which rules hold within one.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bench::{Bench, HOSTS, RUNS, host, life, spec, vm};
use super::hook::engine;
use crate::ha::order::{Assignment, PermitCause, To};
use crate::ha::planner::groups::ServerGroups;
use crate::ha::planner::{self, Asked, Asks, Listed, Rank, Targets, Told};
use crate::ha::recovery::{Life, Recorded};
use crate::ha::{Change, HostId};
use crate::request::{Group, GroupPolicy};
use crate::{Batch, Command, Core, HostReport, InstanceReport, Inventory, Proposer};

/// Hosts in their order, and what a test says of instances.
#[derive(Default)]
struct Known {
    hosts: Vec<HostId>,
    ranks: BTreeMap<Uuid, Rank>,
    groups: ServerGroups,
}

impl Targets for Known {
    fn ranked(&self, _: &Asked<'_>) -> Vec<Life> {
        self.hosts.iter().map(|host| Life { host: *host, incarnation: 1 }).collect()
    }

    fn question(&self, _: Uuid, _: &Asks) -> Option<u64> {
        Some(0)
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
    estate_beside(sizes, rooms, &[])
}

/// The same, with an instance of 1 and 1 on each of these hosts, from number 200 on.
fn estate_beside(sizes: &[(u64, u64)], rooms: &[(u64, u64)], beside: &[u128]) -> Bench {
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
        let beside = (200..).zip(beside).filter(|(_, on)| **on == n).map(|(v, _)| InstanceReport {
            uuid: vm(v),
            resources: Some(amounts((1, 1))),
            ..InstanceReport::default()
        });
        bench.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some(inventories.into()),
            instances: Some(instances.chain(beside).collect()),
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

fn made(bench: &Bench, servers: &[(Uuid, Recorded)], targets: &Known) -> Vec<Assignment> {
    let rank = |instance| targets.ranks.get(&instance).copied().unwrap_or_default();
    let listed = servers.iter().map(|(instance, recorded)| Listed {
        instance: *instance,
        recorded: *recorded,
        asks: Asks { rank: rank(*instance), ..Asks::default() },
    });
    let listed: Vec<_> = listed.collect();
    let told = Told { case: bench.case(1), servers: &listed, returns: false };
    let plans = planner::plan(bench.core.state().tables(), &[told], &targets.groups, targets);
    plans.into_iter().next().map(|(_, plan)| plan).expect("one case")
}

/// Host of each instance by the plan.
fn planned(bench: &Bench, sizes: usize, targets: &Known) -> Vec<Option<HostId>> {
    let servers: Vec<_> = (0..sizes).map(|v| (vm(100 + v as u128), RUNS)).collect();
    let plan = made(bench, &servers, targets);
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

/// A group of the first `members` instances of host 1, and all that run beside it.
fn group(policy: GroupPolicy, most: u64, members: usize, beside: usize) -> ServerGroups {
    let members = (0..members as u128).map(|v| 100 + v).chain((0..beside as u128).map(|v| 200 + v));
    ServerGroups::new(vec![Group {
        uuid: Some(Uuid::from_u128(5)),
        policy: Some(policy),
        members: members.map(vm).collect(),
        hosts: Vec::new(),
        max_per_host: most,
    }])
}

/// Number of the host of each instance by the plan, or why it waits.
fn told(bench: &Bench, sizes: usize, targets: &Known) -> String {
    let servers: Vec<_> = (0..sizes).map(|v| (vm(100 + v as u128), RUNS)).collect();
    let mut plan = made(bench, &servers, targets);
    // Others are permitted there too.
    plan.retain(|assignment| servers.iter().any(|(instance, _)| *instance == assignment.instance));
    plan.sort_unstable_by_key(|assignment| assignment.instance);
    let words = plan.iter().map(|assignment| match assignment.to {
        To::Target(life) => (life.host.0.as_u128() - 0xA000).to_string(),
        To::Waiting(why) => why.as_str().to_owned(),
        To::Stays(why) => format!("{why:?}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn groups_stay_apart_or_together() {
    use GroupPolicy::{Affinity, AntiAffinity, SoftAffinity, SoftAntiAffinity};
    type Sizes = &'static [(u64, u64)];
    struct Case(GroupPolicy, u64, Sizes, usize, Sizes, &'static [u128], &'static str);
    let cases = [
        // Policy, most on a host, sizes, how many of them are members, rooms from host 2 on, hosts of other members.
        Case(AntiAffinity, 1, &[(1, 1); 4], 4, &[(8, 8); 3], &[], "2 3 4 group"),
        // Those that run elsewhere count, up to what is allowed.
        Case(AntiAffinity, 1, &[(1, 1); 3], 3, &[(8, 8); 3], &[3], "2 4 group"),
        Case(AntiAffinity, 2, &[(1, 1); 4], 4, &[(8, 8); 2], &[2], "2 3 3 group"),
        // Without room it is not the group that keeps it.
        Case(AntiAffinity, 1, &[(9, 9), (1, 1)], 2, &[(8, 8); 2], &[], "capacity 2"),
        // Room is made for a member by one that is none, and by a member only where it may go.
        Case(AntiAffinity, 1, &[(3, 3), (3, 3), (2, 2)], 2, &[(5, 5), (3, 3)], &[], "2 3 2"),
        Case(AntiAffinity, 1, &[(3, 3), (2, 2), (2, 2)], 2, &[(4, 4), (3, 3)], &[], "3 2 2"),
        // All on a host that takes all, although the first one is better for each.
        Case(Affinity, 1, &[(2, 2); 3], 3, &[(4, 4), (6, 6)], &[], "3 3 3"),
        Case(Affinity, 1, &[(1, 1), (1, 1), (3, 3)], 2, &[(4, 4), (4, 4)], &[], "3 3 2"),
        Case(Affinity, 1, &[(2, 2); 3], 3, &[(4, 4), (2, 2)], &[], "2 2 group"),
        // Where one runs already.
        Case(Affinity, 1, &[(1, 1); 2], 2, &[(8, 8), (3, 3)], &[3], "3 3"),
        Case(Affinity, 1, &[(1, 1); 2], 2, &[(8, 8), (2, 2)], &[3], "3 group"),
        // A wish gives way, and goes before spreading the work.
        Case(SoftAntiAffinity, 1, &[(1, 1); 3], 3, &[(8, 8); 2], &[], "2 3 2"),
        Case(SoftAntiAffinity, 1, &[(1, 1); 2], 2, &[(8, 8); 2], &[2], "3 2"),
        Case(SoftAffinity, 1, &[(1, 1); 2], 2, &[(8, 8); 2], &[3], "3 3"),
        Case(SoftAffinity, 1, &[(1, 1); 6], 6, &[(8, 8); 2], &[], "2 2 2 2 2 2"),
        Case(SoftAffinity, 1, &[(2, 2); 3], 3, &[(4, 4), (4, 4)], &[], "2 2 3"),
    ];
    for Case(policy, most, sizes, members, rooms, beside, expected) in cases {
        let bench = estate_beside(sizes, rooms, beside);
        let targets = Known { groups: group(policy, most, members, beside.len()), ..known(rooms.len()) };
        assert_eq!(
            told(&bench, sizes.len(), &targets),
            expected,
            "{policy:?}, {most} on a host, {sizes:?} in {rooms:?}, beside {beside:?}"
        );
    }
}

#[test]
fn who_waits_for_its_group_says_so() {
    let bench = estate(&[(1, 1); 2], &[(8, 8)]);
    let targets = Known { groups: group(GroupPolicy::AntiAffinity, 1, 2, 0), ..known(1) };
    let plan = made(&bench, &[(vm(100), RUNS), (vm(101), RUNS)], &targets);
    let why = plan.iter().find_map(|assignment| match assignment.to {
        To::Waiting(why) => Some(why.to_string()),
        _ => None,
    });
    let group = Uuid::from_u128(5);
    let expected = format!("group {group}: at most 1 of it on a host, and every host with room has as many");
    assert_eq!(why, Some(expected));
}

#[test]
fn work_is_spread() {
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

/// Hosts 1 and 2 are dead; hosts differ in cells, zones, hypervisors, traits and room, and instances in what they ask.
#[test]
fn one_plan_for_all_dead_hosts_goes_nowhere_that_nova_refuses() {
    let pick = |draw: &mut dyn FnMut(u64) -> u64, of: &[&'static str]| of[draw(of.len() as u64) as usize - 1];
    let (mut placed, mut unlike) = (0, 0);
    for seed in 1..=25 {
        let mut draw = numbers(seed);
        let mut bench = Bench::new();
        let mut told: BTreeMap<Uuid, (u128, Asks, (u64, u64))> = BTreeMap::new();
        let mut hosts: BTreeMap<u128, [&'static str; 5]> = BTreeMap::new();
        let mut rooms: BTreeMap<u128, (u64, u64)> = BTreeMap::new();
        for n in 1..=HOSTS {
            let draw: &mut dyn FnMut(u64) -> u64 = &mut draw;
            let cell = pick(draw, &["one", "one", "two"]);
            let zone = pick(draw, &["a", "a", "b"]);
            let kind = pick(draw, &["qemu", "qemu", "qemu", "ch"]);
            hosts.insert(n, [cell, zone, kind, pick(draw, &["", "FAST"]), pick(draw, &["", "", "", "X_EXCLUSIVE"])]);
            rooms.insert(n, if n <= 2 { (99, 99) } else { (4 + draw(12), 4 + draw(12)) });
            for v in 0..if n <= 2 { 6 } else { 0 } {
                let specs = [None, Some(""), Some("required"), Some("forbidden")][draw(4) as usize - 1]
                    .map(|wanted| BTreeMap::from([("trait:FAST".to_owned(), wanted.to_owned())]));
                let zone = [None, None, Some(None), Some(Some("b".to_owned()))][draw(4) as usize - 1].clone();
                let rank = Rank { class: draw(3) as u8, ..Rank::default() };
                let asks = Asks { rank, zone, extra_specs: specs, ..Asks::default() };
                told.insert(vm(100 + n * 10 + v), (n, asks, (draw(4), draw(4))));
            }
        }
        for (n, [_, zone, kind, traits @ ..]) in &hosts {
            let (cpus, memory) = rooms[n];
            let of = |(cpus, memory)| BTreeMap::from([("VCPU".to_owned(), cpus), ("MEMORY_MB".to_owned(), memory)]);
            let here = told.iter().filter(|(_, (on, ..))| on == n).map(|(uuid, (.., size))| InstanceReport {
                uuid: *uuid,
                resources: Some(of(*size)),
                ..InstanceReport::default()
            });
            bench.apply(Command::Report(Box::new(HostReport {
                name: format!("node-{n}"),
                inventories: Some(of((cpus, memory)).into_iter().map(|(class, n)| (class, Inventory::of(n))).collect()),
                availability_zone: Some((*zone).to_owned()),
                hypervisor_type: Some((*kind).to_owned()),
                traits: Some(traits.iter().filter(|name| !name.is_empty()).map(|name| (*name).to_owned()).collect()),
                instances: Some(here.collect()),
                ..HostReport::default()
            })));
        }
        for (n, cell) in [(11, "one"), (12, "two")] {
            let mut spec = spec(n);
            spec.places.cell = cell.to_owned();
            bench.must(Change::HostUpsert(Box::new(spec)));
        }
        for (instance, (n, ..)) in &told {
            let cause = PermitCause::Placed;
            bench.must(Change::PermitMove { instance: *instance, from: None, to: life(*n), cause });
        }
        let apart = ServerGroups::new(vec![Group {
            uuid: Some(Uuid::from_u128(5)),
            policy: Some(GroupPolicy::AntiAffinity),
            members: (1..=2).flat_map(|n| [vm(100 + n * 10), vm(101 + n * 10)]).collect(),
            hosts: Vec::new(),
            max_per_host: 1,
        }]);
        for n in 1..=2 {
            bench.planning(n);
        }
        // As no order can: the breaker of a small cell would not let two of its hosts die.
        let [one, two] = [11, 12].map(|n| bench.host(n).places.cell);
        bench.tamper(|ha| {
            for (n, [cell, ..]) in &hosts {
                let mut known = crate::ha::Host::clone(ha.hosts.get(host(*n)).expect("known"));
                known.places.cell = if *cell == "one" { one } else { two };
                ha.hosts.put(known.into());
            }
        });
        let listed: Vec<Vec<Listed>> = (1..=2)
            .map(|n| {
                let here = told.iter().filter(|(_, (on, ..))| *on == n);
                here.map(|(uuid, (_, asks, _))| Listed { instance: *uuid, recorded: RUNS, asks: asks.clone() })
                    .collect()
            })
            .collect();
        let targets = Known { hosts: (1..=HOSTS).map(host).collect(), ..Known::default() };
        let cases: Vec<_> = (1..=2).zip(&listed).collect();
        let cases: Vec<_> =
            cases.iter().map(|(n, servers)| Told { case: bench.case(*n), servers, returns: false }).collect();
        let plans = planner::plan(bench.core.state().tables(), &cases, &apart, &targets);
        let again = planner::plan(bench.core.state().tables(), &cases, &apart, &targets);
        assert_eq!(plans, again, "the same state gives the same plan");
        let number = |host: HostId| host.0.as_u128() - 0xA000;
        let mut members = BTreeMap::new();
        for assignment in plans.iter().flat_map(|(_, plan)| plan) {
            let Some((source, asks, size)) = told.get(&assignment.instance) else { continue };
            let to = match assignment.to {
                To::Target(target) => number(target.host),
                To::Waiting(why) => {
                    unlike += usize::from(why.as_str() == "unlike");
                    continue;
                }
                To::Stays(why) => panic!("{why:?}"),
            };
            placed += 1;
            let (from, there) = (hosts[source], hosts[&to]);
            let what = format!("seed {seed}: {assignment:?} from {from:?} to {there:?}, {asks:?}");
            assert!(to > 2 && from[0] == there[0] && from[2] == there[2], "{what}");
            match &asks.zone {
                None => assert_eq!(from[1], there[1], "{what}"),
                Some(zone) => assert!(zone.as_ref().is_none_or(|zone| zone == there[1]), "{what}"),
            }
            match asks.extra_specs.as_ref().map(|specs| specs["trait:FAST"].as_str()) {
                Some(wanted) => {
                    assert!(wanted != "required" || there[3] == "FAST", "{what}");
                    assert!(wanted != "forbidden" || there[3].is_empty(), "{what}");
                    assert!(there[4].is_empty(), "{what}");
                }
                // Nobody said what it asked for: as its host, and set apart where that is.
                None => assert!((from[3].is_empty() || from[3] == there[3]) && from[4] == there[4], "{what}"),
            }
            let room = rooms.get_mut(&to).expect("known");
            *room = (room.0.checked_sub(size.0).expect(&what), room.1.checked_sub(size.1).expect(&what));
            if (1..=2).any(|n| [vm(100 + n * 10), vm(101 + n * 10)].contains(&assignment.instance)) {
                assert_eq!(members.insert(to, assignment.instance), None, "{what}");
            }
        }
    }
    assert!(placed > 80 && unlike > 40, "{placed} placed, {unlike} told what they need");
}

#[test]
fn the_urgent_one_of_another_host_gets_the_room() {
    let mut bench = estate(&[(4, 4)], &[(0, 0), (4, 4)]);
    let size = BTreeMap::from([("VCPU".to_owned(), 4), ("MEMORY_MB".to_owned(), 4)]);
    bench.apply(Command::Report(Box::new(HostReport {
        name: "node-2".to_owned(),
        instances: Some(vec![InstanceReport { uuid: vm(150), resources: Some(size), ..InstanceReport::default() }]),
        ..HostReport::default()
    })));
    bench.must(Change::PermitMove { instance: vm(150), from: None, to: life(2), cause: PermitCause::Placed });
    bench.planning(2);
    let high = Asks { rank: Rank { class: 1, after: 900 }, ..Asks::default() };
    let servers = [vec![(vm(100), RUNS).into()], vec![Listed { instance: vm(150), recorded: RUNS, asks: high }]];
    let told = |n| Told { case: bench.case(n), servers: &servers[n as usize - 1], returns: false };
    let plans = planner::plan(bench.core.state().tables(), &[told(1), told(2)], &ServerGroups::default(), &known(2));
    let to = |at: usize, v| plans[at].1.iter().find(|known| known.instance == vm(v)).map(|known| known.to);
    assert_eq!(to(1, 150), Some(To::Target(life(3))));
    assert!(matches!(to(0, 100), Some(To::Waiting(_))), "{plans:?}");
    // And begins before the others, whatever its number: its rank is in the state.
    for (case, assignments) in plans.clone() {
        bench.must(Change::CommitPlan { case, assignments });
    }
    assert_eq!(bench.recovery(150).rank, Rank { class: 1, after: 900 });
}

#[test]
fn every_host_is_asked_for() {
    let report = |n: u128| {
        let instance = InstanceReport {
            uuid: vm(1),
            resources: Some(BTreeMap::from([("VCPU".to_owned(), 1)])),
            ..InstanceReport::default()
        };
        Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some([("VCPU".to_owned(), Inventory::of(1))].into()),
            instances: Some((n == 0).then_some(instance).into_iter().collect()),
            ..HostReport::default()
        }))
    };
    let mut core = Core::new();
    core.apply(&Batch { proposer: Proposer::default(), now: 1, wall: 1, commands: (0..1_000).map(report).collect() });
    let asks = Asks::default();
    let asked = Asked { instance: vm(1), source: life(1), asks: &asks, group: None };
    let request = asked.request(core.state().tables()).expect("known");
    let said = core.probe(&engine(), &request).expect("an answer");
    assert_eq!(said.hosts.len(), 1_000, "each of them, although the first has room no more");
}
