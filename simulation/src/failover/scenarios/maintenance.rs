//! Planned work: a host is emptied while it lives.

use std::sync::Arc;

use scheduler::ha::Phase;
use scheduler::ha::admission::{Refuses, Rule};
use scheduler::ha::coordinator::{Answer, Call};
use scheduler::ha::drain::{Left, MOST_SOURCE, Move, MoveState, Over, Stage};
use scheduler::ha::host::{Degraded, Detection, Maintenance};
use scheduler::ha::order::{Change, Role};
use scheduler::ha::planner::Asks;
use scheduler::ha::recovery::{Status, VmState, Waiting};
use scheduler::request::{Group, GroupPolicy};

use super::{FEW, Scenario, VMS, cordoned, detection, hang, policy, recovered, untouched, want};
use crate::failover::nova::{ByHand, Server};
use crate::failover::truth::{Bmc, host, vm};
use crate::failover::world::World;

fn drain(world: &mut World, n: u128, mode: Maintenance) -> Result<String, String> {
    let open = Change::DrainOpen { host: host(n), incarnation: 1, mode };
    want(world.order(Role::Operator, open).is_ok(), "", "a drain")
}

fn stage(world: &World, n: u128) -> Option<Stage> {
    world.ha().drains.get(host(n)).map(|drain| drain.stage)
}

fn over(world: &mut World, n: u128, how: Over, within: u64) -> Result<String, String> {
    world.until(within, |world| matches!(stage(world, n), Some(Stage::Over(_))));
    let reached = stage(world, n) == Some(Stage::Over(how));
    want(reached, &format!("{how:?}"), &format!("{how:?}; it is {:?}", stage(world, n)))
}

/// The host is at work again, and nothing is left of the drain.
fn given_back(world: &mut World, n: u128) -> Result<String, String> {
    let clear = Change::Maintenance { host: host(n), mode: Maintenance::None };
    want(world.order(Role::Operator, clear).is_ok(), "", "maintenance cleared")?;
    let back = world.until(60_000, |world| world.ha().drains.get(host(n)).is_none());
    let enabled = world.nova.services.get(&host(n)).is_none_or(|(_, disabled)| !disabled);
    want(back && enabled, "", "the service enabled, the drain forgotten")
}

/// A person has Nova move the first instance to a host; its permit follows.
fn moved_by_hand(world: &mut World, by_hand: ByHand) -> Result<String, String> {
    let taken = world.nova.migrate(vm(1), host(4), Some(by_hand), world.now) == Answer::Taken;
    want(taken, "", "a migration that Nova takes")?;
    let permit = |world: &World| world.ha().permits.get(vm(1)).map(|permit| permit.life.host);
    let follows = world.until(120_000, |world| permit(world) == Some(host(4)));
    let runs = world.hosts.iter().filter(|host| host.guests.contains(&vm(1))).map(|host| host.id);
    let runs: Vec<_> = runs.collect();
    want(follows, "", &format!("a permit that follows; it is {:?}, it runs on {runs:?}", permit(world)))
}

/// Two hosts of different clusters, each with a member of an anti-affinity group, are drained to their ends; whether both
/// were emptied at once. With `declares` one of the members asks for a minimum that stays.
fn of_one_group(world: &mut World, declares: bool) -> Result<bool, String> {
    world.again(20, FEW, 8, |v| if v % 2 == 1 { 1 } else { 11 });
    world.nova.groups = vec![Group {
        uuid: Some(uuid::Uuid::from_u128(0x6_0000)),
        policy: Some(GroupPolicy::AntiAffinity),
        members: vec![vm(1), vm(2)],
        hosts: Vec::new(),
        max_per_host: 1,
    }];
    world.nova.asks = [(vm(1), Asks { min_available: declares, ..Asks::default() })].into();
    drain(world, 1, Maintenance::Auto)?;
    drain(world, 11, Maintenance::Auto)?;
    let (mut both, over) = (false, Some(Stage::Over(Over::Succeeded)));
    while [1, 11].map(|n| stage(world, n)) != [over; 2] {
        want(world.now < 1_200_000, "", "both drained in 20 minutes")?;
        world.run(500);
        both |= [1, 11].map(|n| stage(world, n)) == [Some(Stage::Moving); 2];
    }
    Ok(both)
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "PRM-06",
        what: "an instance begins, and its host dies before a report has listed it",
        run: |world| {
            world.nova.servers.insert(vm(900), Server::on(host(1)));
            world.host_mut(1).guests.insert(vm(900));
            let placed = |world: &World| world.ha().permits.get(vm(900)).map(|permit| permit.life.host);
            let seen = world.until(10_000, |world| placed(world) == Some(host(1)));
            want(seen, "", "its place, as its agent lists it")?;
            world.host_mut(1).cut();
            let waits = |world: &World| world.ha().recoveries.get(vm(900)).map(|known| known.status);
            let known = world.until(300_000, |world| waits(world) == Some(Status::Waiting(Waiting::Size)));
            want(known, "it has its place, and waits for its size", "planned with the others")
        },
    },
    Scenario {
        id: "PRM-05",
        what: "instances are deleted, and one that no host reports is not",
        run: |world| {
            for n in 1..=3 {
                world.host_mut(1).guests.remove(&vm(n));
            }
            for n in 1..=2 {
                world.nova.servers.remove(&vm(n));
            }
            world.size(1, |_| 1);
            let permitted = |world: &World, n| world.ha().permits.get(vm(n)).is_some();
            let gone = world.until(180_000, |world| !permitted(world, 1) && !permitted(world, 2));
            world.run(300_000);
            let others = (3..=VMS).all(|n| permitted(world, n));
            want(
                gone && others,
                "permitted nowhere any more, the others as before",
                "the permits of what was deleted end",
            )
        },
    },
    Scenario {
        id: "PRM-01",
        what: "a person live-migrates an instance; its new host dies",
        run: |world| {
            moved_by_hand(world, ByHand::Live)?;
            world.run(10_000);
            want(world.host(4).guests.contains(&vm(1)), "", "it runs there")?;
            world.host_mut(4).cut();
            let elsewhere = |world: &World| {
                let runs = world.hosts.iter().filter(|host| host.guests.contains(&vm(1)));
                runs.map(|host| host.id).all(|id| id != host(4)) && world.phase(4) == Some(Phase::AwaitReturn)
            };
            let recovered = world.until(300_000, elsewhere) && world.taken.contains_key(&vm(1));
            want(recovered, "", "recovered from there")?;
            want(true, "the permit follows, and the instance is recovered from where it went", "")
        },
    },
    Scenario {
        id: "PRM-02",
        what: "a person resizes an instance to another host",
        run: |world| {
            moved_by_hand(world, ByHand::Cold(None))?;
            let starts = world.until(5_000, |world| world.host(4).guests.contains(&vm(1)));
            want(starts && world.fences() == 0, "it waits at its target, and starts there", "it starts there")
        },
    },
    Scenario {
        id: "PRM-03",
        what: "the same, and the former host's agent is silent",
        run: |world| {
            world.host_mut(1).agent = false;
            (world.nova.takes, world.host_mut(1).bmc) = (1_000, Bmc::Silent);
            let taken = world.nova.migrate(vm(1), host(4), Some(ByHand::Cold(None)), world.now);
            want(taken == Answer::Taken, "", "a migration that Nova takes")?;
            world.run(29_000);
            let permit = world.ha().permits.get(vm(1)).map(|permit| permit.life.host);
            let stays = permit == Some(host(1)) && !world.host(4).guests.contains(&vm(1));
            want(stays, "nobody says that it does not run there: it is not started", "a start denied")
        },
    },
    Scenario {
        id: "MNT-01",
        what: "a host is drained",
        run: |world| {
            drain(world, 1, Maintenance::Auto)?;
            let mut most = 0;
            while stage(world, 1) != Some(Stage::Over(Over::Succeeded)) && world.now < 600_000 {
                world.run(500);
                most = most.max(world.nova.moving.iter().filter(|moving| moving.over.is_none()).count());
            }
            want(world.all_moved(VMS) && most <= MOST_SOURCE, "", "all elsewhere, two at a time")?;
            let disabled = world.nova.services.get(&host(1)).is_some_and(|(_, disabled)| *disabled);
            want(disabled, "", "disabled meanwhile")?;
            cordoned(world, Some("is in maintenance"))?;
            given_back(world, 1)?;
            cordoned(world, None)?;
            want(world.fences() == 0, "two at a time, disabled, given back", "no fence")
        },
    },
    Scenario {
        id: "ADM-01",
        what: "more is kept free than is; a host dies",
        run: |world| {
            let refused = Some("failover_admission: would leave less than 90 % of VCPU for a failover".to_owned());
            world.again(12, FEW, 8, |_| 1);
            // 36 in all, and 4 in use.
            (3..=12).for_each(|n| world.grow(n, 2));
            want(world.kept_out(2).is_none(), "", "new instances placed")?;
            policy(world, |policy| (policy.admission, policy.refuses) = (Rule::Percent(90), Refuses::Enforce))?;
            let told = world.kept_out(2);
            want(told == refused, "", &format!("new instances refused; it is {told:?}"))?;
            world.host_mut(1).cut();
            recovered(world, 120_000)?;
            want(world.kept_out(2) == refused, "new instances refused, evacuations not", "new ones refused still")
        },
    },
    Scenario {
        id: "MNT-02",
        what: "one instance of a drained host is in error",
        run: |world| {
            if let Some(server) = world.nova.servers.get_mut(&vm(1)) {
                server.vm = VmState::Error;
            }
            drain(world, 1, Maintenance::Auto)?;
            over(world, 1, Over::Partial, 600_000)?;
            let left = world.ha().drains.get(host(1)).map(|drain| drain.left.clone());
            want(left == Some(vec![(vm(1), Left::State)]), "Partial, and it is listed", "the one in error listed")
        },
    },
    Scenario {
        id: "MNT-03",
        what: "a live migration does not end",
        run: |world| {
            world.nova.stuck = vec![vm(1)];
            drain(world, 1, Maintenance::Auto)?;
            over(world, 1, Over::Partial, 6_000_000)?;
            let mut targets: Vec<_> = world.nova.migrations(vm(1)).map(|moving| moving.target).collect();
            targets.sort_unstable();
            targets.dedup();
            want(targets.len() == 3, "", &format!("each time another target; {targets:?}"))?;
            let aborts = world.sent.iter().filter(|(_, call)| matches!(call, Call::AbortMigration { .. })).count();
            want(aborts == 3, "", &format!("aborted three times; {aborts}"))?;
            let home = world.host(1).guests.iter().copied().eq([vm(1)]);
            want(home, "", "it alone runs where it was")?;
            let tried = world.nova.migrations(vm(1)).count();
            let left = world.ha().drains.get(host(1)).is_some_and(|drain| drain.left == [(vm(1), Left::Tried)]);
            want(left && tried == 3, "given up at three targets, listed", "three tries")
        },
    },
    Scenario {
        id: "MNT-03c",
        what: "the same at its first target alone",
        run: |world| {
            world.nova.stuck = vec![vm(1)];
            drain(world, 1, Maintenance::Auto)?;
            let given_up = |world: &World| world.nova.migrations(vm(1)).any(|moving| moving.over == Some(false));
            want(world.until(6_000_000, given_up), "", "given up")?;
            world.nova.stuck.clear();
            over(world, 1, Over::Succeeded, 600_000)?;
            let targets: Vec<_> = world.nova.migrations(vm(1)).map(|moving| moving.target).collect();
            let other = targets.len() == 2 && targets[0] != targets[1] && world.all_moved(VMS);
            want(other, "moved to another one", &format!("two targets; {targets:?}"))
        },
    },
    Scenario {
        id: "MNT-03b",
        what: "the same, and it may be finished by force",
        run: |world| {
            policy(world, |policy| policy.force_complete = true)?;
            world.nova.stuck = vec![vm(1)];
            drain(world, 1, Maintenance::Auto)?;
            over(world, 1, Over::Succeeded, 600_000)?;
            want(world.all_moved(VMS), "forced after two minutes without progress", "all elsewhere")
        },
    },
    Scenario {
        id: "MNT-04",
        what: "a drained host loses power half-way",
        run: |world| {
            drain(world, 1, Maintenance::Auto)?;
            let half = world.until(300_000, |world| {
                world.nova.moving.iter().filter(|m| m.over == Some(true)).count() == VMS as usize / 2
            });
            want(half, "", "half of them moved")?;
            world.run(10_000);
            let flying: Vec<_> = world.nova.moving.iter().filter(|m| m.over.is_none()).map(|m| m.instance).collect();
            world.host_mut(1).cut();
            let ended = world.until(300_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let lost = stage(world, 1) == Some(Stage::Over(Over::Lost));
            let rest = (1..=VMS).map(vm).filter(|v| !flying.contains(v));
            let once =
                rest.into_iter().all(|v| world.hosts.iter().filter(|host| host.guests.contains(&v)).count() == 1);
            want(ended && lost && once, "the drain is over, the case takes the rest", "each runs once")
        },
    },
    Scenario {
        id: "MNT-05",
        what: "another host of the cluster dies during a drain",
        run: |world| {
            world.again(10, FEW, 8, |n| if n == 1 { 2 } else { 1 });
            drain(world, 1, Maintenance::Auto)?;
            world.run(3_000);
            hang(world, 2);
            world.until(120_000, |world| world.phase(2).is_some());
            let before = world.nova.moving.iter().filter(|moving| moving.live).count();
            world.until(120_000, |world| world.phase(2) == Some(Phase::AwaitReturn));
            let meanwhile = world.nova.moving.iter().filter(|moving| moving.live).count() - before;
            over(world, 1, Over::Succeeded, 900_000)?;
            want(meanwhile == 0 && world.all_moved(1), "the drain yields, then goes on", "no new migration meanwhile")
        },
    },
    Scenario {
        id: "MNT-06",
        what: "a drain would leave no room for another host's death",
        run: |world| {
            world.again(3, 6, 4, |n| 1 + n % 3);
            policy(world, |policy| policy.keep_spare = true)?;
            drain(world, 1, Maintenance::Auto)?;
            world.run(300_000);
            want(stage(world, 1) == Some(Stage::Waiting), "", "it waits")?;
            world.grow(2, 12);
            world.grow(3, 12);
            over(world, 1, Over::Succeeded, 600_000)
        },
    },
    Scenario {
        id: "MNT-08",
        what: "a host that is given up dies",
        run: |world| {
            let gives_up = Change::Maintenance { host: host(1), mode: Maintenance::Termination };
            want(world.order(Role::Operator, gives_up).is_ok(), "", "maintenance")?;
            hang(world, 1);
            let said = recovered(world, 180_000)?;
            world.host_mut(1).boot_up();
            world.run(600_000);
            let out = world.ha().hosts.get(host(1)).is_some_and(|host| !host.takes_instances());
            want(out && world.host(1).guests.is_empty(), &format!("{said}; nothing comes back to it"), "kept out")
        },
    },
    Scenario {
        id: "MNT-09",
        what: "a host shuts down on purpose for 300 s, and stays away",
        run: |world| {
            let began = world.now;
            world.host_mut(1).shut_down(began, 300_000);
            world.run(60_000);
            let away = world.ha().hosts.get(host(1)).is_some_and(|host| host.degraded.has(Degraded::AWAY));
            want(away, "", "nothing is placed on it")?;
            world.kill_leader();
            cordoned(world, Some("goes down on purpose"))?;
            let missed = world.until(239_000, |world| detection(world, 1) != Some(Detection::Alive));
            want(!missed && world.phase(1).is_none(), "", "not missed for 300 s, whoever leads")?;
            let said = recovered(world, 60_000)?;
            want(world.fences() == 0, &format!("not missed for 300 s, then {said}"), "no fence: it is off")
        },
    },
    Scenario {
        id: "MNT-09b",
        what: "it reboots on purpose, and is back in time",
        run: |world| {
            let now = world.now;
            world.host_mut(1).shut_down(now, 300_000);
            world.run(120_000);
            world.host_mut(1).boot_up();
            let back = world.until(180_000, |world| world.host(1).guests.len() == VMS as usize);
            want(back, "", "its instances started where they were")?;
            untouched(world, 600_000).map(|_| "started where they were, nothing moved".to_owned())
        },
    },
    Scenario {
        id: "MNT-10",
        what: "two drained hosts of a group that declares min_available",
        run: |world| {
            want(of_one_group(world, false)?, "", "both at once where no member declares it")?;
            want(!of_one_group(world, true)?, "one after the other; both at once without it", "one at a time")
        },
    },
    Scenario {
        id: "MNT-11",
        what: "a drain is taken back half-way",
        run: |world| {
            drain(world, 1, Maintenance::Auto)?;
            world.until(300_000, |world| world.nova.moving.iter().any(|moving| moving.over == Some(true)));
            let cancel = Change::DrainEnd { host: host(1), over: Over::Cancelled };
            want(world.order(Role::Operator, cancel).is_ok(), "", "taken back")?;
            let begun = world.nova.moving.len();
            world.run(120_000);
            let still = world.nova.moving.len() == begun && world.ha().drains.is_empty() && world.ha().moves.is_empty();
            let enabled = world.nova.services.get(&host(1)) == Some(&(false, false));
            want(still && enabled, "what was on its way arrives, no more", "nothing new, enabled again")
        },
    },
    Scenario {
        id: "MNT-12",
        what: "two hosts of a cluster are to be drained",
        run: |world| {
            world.again(10, FEW, 8, |n| 1 + n % 2);
            drain(world, 1, Maintenance::Auto)?;
            drain(world, 2, Maintenance::Auto)?;
            let mut both = false;
            while stage(world, 2) != Some(Stage::Over(Over::Succeeded)) && world.now < 1_200_000 {
                world.run(500);
                both |= [1, 2].map(|n| stage(world, n)) == [Some(Stage::Moving); 2];
            }
            want(!both && world.now < 1_200_000, "one after the other", "one at a time")
        },
    },
    Scenario {
        id: "MNT-13",
        what: "the leader dies in the middle of a drain",
        run: |world| {
            drain(world, 1, Maintenance::Auto)?;
            world.until(300_000, |world| world.nova.moving.iter().any(|moving| moving.over.is_none()));
            world.kill_leader();
            over(world, 1, Over::Succeeded, 900_000)?;
            let once = (1..=VMS).all(|n| world.nova.migrations(vm(n)).count() == 1);
            want(once && world.all_moved(VMS), "each moved once", "one migration each")
        },
    },
    Scenario {
        id: "PRM-04",
        what: "the new host dies before the permit has followed",
        run: |world| {
            world.again(12, FEW, 8, |_| 1);
            world.nova.takes = 1_000;
            let taken = world.nova.migrate(vm(1), host(4), Some(ByHand::Live), world.now);
            want(taken == Answer::Taken, "", "a migration that Nova takes")?;
            let there = world.until(30_000, |world| world.host(4).guests.contains(&vm(1)));
            let permit = |world: &World| world.ha().permits.get(vm(1)).map(|permit| permit.life.host);
            want(there && permit(world) == Some(host(1)), "", "it runs there, and its permit has not followed")?;
            world.host_mut(4).cut();
            // Nobody says of the former host that it is without it.
            world.host_mut(1).agent = false;
            world.run(120_000);
            let kept = permit(world) == Some(host(1)) && world.taken.is_empty();
            want(
                kept && world.phase(4) == Some(Phase::AwaitReturn),
                "",
                "it stays while its former host says nothing",
            )?;
            world.host_mut(1).agent = true;
            let moved = world.until(180_000, |world| world.all_moved(1) && permit(world) != Some(host(4)));
            want(moved && world.taken.len() == 1, "", "recovered from there, once")?;
            want(true, "its permit follows to the dead host once the former one is without it, and it is recovered", "")
        },
    },
    Scenario {
        id: "MNT-14",
        what: "a drained host crashes at the switch-over of a migration, and boots unfenced",
        run: |world| {
            policy(world, |policy| policy.in_place = true)?;
            world.nova.stuck = (1..=VMS).map(vm).collect();
            drain(world, 1, Maintenance::Manual)?;
            let moving = |world: &World| {
                let running = |known: &&Arc<Move>| matches!(known.state, MoveState::Running(_));
                world.ha().moves.iter().find(running).map(|known| (known.instance, known.to.host))
            };
            want(world.until(120_000, |world| moving(world).is_some()), "", "a live migration")?;
            let (instance, to) = moving(world).unwrap_or_default();
            let n = to.0.as_u128() - host(0).0.as_u128();
            world.host_mut(1).cut();
            world.host_mut(n).guests.insert(instance);
            world.host_mut(1).boot_up();
            let there = |world: &World| world.ha().permits.get(instance).is_some_and(|known| known.life.host == to);
            let adopted = world.until(300_000, there);
            world.run(300_000);
            let others = (1..=VMS).map(vm).filter(|other| *other != instance);
            let home = others.into_iter().all(|other| world.host(1).guests.contains(&other));
            let once = !world.host(1).guests.contains(&instance) && world.host(n).guests.contains(&instance);
            want(adopted && home && once, "adopted where it runs, the others started in place", "one copy of each")
        },
    },
];
