//! Evacuation: every instance once.

use scheduler::ha::Phase;
use scheduler::ha::coordinator::Call;
use scheduler::ha::order::{Change, Done};
use scheduler::ha::planner::{Asks, Rank};
use scheduler::ha::recovery::{Bond, Status, Stays, VmState, Waiting};
use scheduler::request::{Group, GroupPolicy};

use super::{FEW, Scenario, VMS, asked, called, hang, policy, recovered, returned, want};
use crate::failover::nova::Trouble;
use crate::failover::truth::{Bmc, host, vm};
use crate::failover::world::World;

/// So many times the host dies that instance 1 is on, each time once it has arrived there; which hosts these were.
fn dies_under_it(world: &mut World, times: usize) -> Result<Vec<u128>, String> {
    let mut died = Vec::new();
    for _ in 0..times {
        let rests = |world: &World| {
            let known = world.ha().recoveries.get(vm(1));
            let place = world.ha().permits.get(vm(1)).map(|permit| permit.life);
            let settled = known.is_none_or(|known| matches!(known.status, Status::Succeeded(_)));
            settled && place.is_some_and(|place| world.ha().lives(place))
        };
        want(world.until(600_000, rests), "", "instance 1 on a host that lives")?;
        let place = world.ha().permits.get(vm(1)).map_or(host(1), |permit| permit.life.host);
        let n = place.0.as_u128() - 0xA000;
        world.host_mut(n).cut();
        died.push(n);
        // Until it is known.
        world.until(120_000, |world| world.phase(n).is_some_and(Phase::is_proven));
    }
    Ok(died)
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "EVA-02",
        what: "the leader dies after Nova took the calls",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            let before: Vec<_> = world.nova.moving.iter().map(|moving| moving.id).collect();
            world.kill_leader();
            let said = recovered(world, 180_000)?;
            let after: Vec<_> = world.nova.moving.iter().map(|moving| moving.id).collect();
            want(before == after, &format!("its migrations are adopted; {said}"), "no other migrations")
        },
    },
    Scenario {
        id: "EVA-03",
        what: "Nova takes the calls 20 s after our timeout",
        run: |world| {
            world.trouble(Trouble::Late(20_000));
            world.host_mut(1).cut();
            recovered(world, 180_000)?;
            let calls = world.sent.iter().filter(|(_, call)| matches!(call, Call::Evacuate { .. })).count();
            want(calls == VMS as usize, "one call for each, waited for", &format!("no second call; {calls} were sent"))
        },
    },
    Scenario {
        id: "EVA-03b",
        what: "Nova takes the calls and the answers are lost",
        run: |world| {
            world.trouble(Trouble::LostAnswers);
            world.host_mut(1).cut();
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-04",
        what: "calls of a dead leader arrive 9 s later",
        run: |world| {
            world.trouble(Trouble::Late(9_000));
            world.host_mut(1).cut();
            world.until(120_000, |world| world.ha().recoveries.iter().any(|recovery| recovery.live().is_some()));
            world.run(1_000);
            world.kill_leader();
            recovered(world, 240_000)
        },
    },
    Scenario {
        id: "EVA-05",
        what: "two targets fail what comes",
        run: |world| {
            world.nova.refusing = vec![host(2), host(3)];
            world.host_mut(1).cut();
            let moved = world.until(300_000, |world| world.all_moved(VMS));
            want(moved, "second attempts on other targets", "all elsewhere by a second attempt")
        },
    },
    Scenario {
        id: "EVA-06",
        what: "a target dies while it rebuilds",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            let target = world.nova.moving[0].target;
            let dying = world.hosts.iter().position(|host| host.id == target).unwrap_or(0) as u128 + 1;
            world.host_mut(dying).cut();
            let moved = world.until(400_000, |world| world.all_moved(VMS));
            want(moved, "its instances go on once it is proven dead", "all elsewhere, once each")
        },
    },
    Scenario {
        id: "EVA-07",
        what: "a target dies after it was reached",
        run: |world| {
            world.host_mut(1).cut();
            recovered(world, 120_000)?;
            let dying = (2..=40).find(|n| (1..=VMS).any(|v| world.host(*n).guests.contains(&vm(v)))).unwrap_or(2);
            world.host_mut(dying).cut();
            let moved = world.until(400_000, |world| world.all_moved(VMS));
            want(moved, "handed over to the case of the target", "all elsewhere, once each")
        },
    },
    Scenario {
        id: "EVA-08",
        what: "room for 12 of 20, 12 of them more urgent, and later for all",
        run: |world| {
            world.again(3, VMS, 6, |_| 1);
            let high = Rank { class: 1, ..Rank::default() };
            world.nova.asks = (9..=20).map(|n| (vm(n), Asks { rank: high, ..Asks::default() })).collect();
            world.host_mut(1).cut();
            world.run(400_000);
            let urgent = world.taken.keys().copied().eq((9..=20).map(vm));
            want(urgent, "", "the twelve urgent ones of twenty moved")?;
            let waits =
                |n| world.ha().recoveries.get(vm(n)).is_some_and(|known| matches!(known.status, Status::Waiting(_)));
            want((1..=8).all(waits), "", "the others wait")?;
            world.grow(2, 20);
            recovered(world, 400_000)
        },
    },
    Scenario {
        id: "EVA-09",
        what: "two large ones, one of class high, and small ones; one hole is large enough",
        run: |world| {
            world.again(3, 12, 12, |_| 1);
            world.size(1, |instance| if [vm(1), vm(2)].contains(&instance) { 4 } else { 1 });
            world.grow(2, 5);
            world.grow(3, 3);
            world.nova.asks = [(vm(2), Asks { rank: Rank { class: 1, ..Rank::default() }, ..Asks::default() })].into();
            world.host_mut(1).cut();
            world.run(180_000);
            let hole = world.nova.servers[&vm(2)].host == host(2) && !world.taken.contains_key(&vm(1));
            let small = world.taken.len() == 5;
            want(
                hole && small,
                "the urgent one has the hole, the other waits, small ones fill up",
                "large one, 4 small",
            )
        },
    },
    Scenario {
        id: "EVA-28",
        what: "two hosts of a cell with 40 instances, one of another",
        run: |world| {
            world.again(40, 60, 8, |v| [1, 2, 21][(v % 3) as usize]);
            world.nova.takes = 60_000;
            let mut most = (0, 0);
            for n in [1, 2, 21] {
                world.host_mut(n).cut();
                world.run(7_000);
            }
            while world.now < 900_000 && world.ha().cases.iter().any(|case| case.phase != Phase::AwaitReturn) {
                world.run(500);
                let open = world.nova.moving.iter().copied().filter(|moving| moving.over.is_none());
                let (there, here): (Vec<_>, Vec<_>) = open.partition(|moving| moving.source == host(21));
                most = (most.0.max(here.len()), most.1.max(there.len()));
            }
            let moved = world.taken.len() == 60 && world.taken.values().all(|count| *count == 1);
            want(
                moved && most == (24, 20),
                "24 at once from the first, 20 from the other",
                &format!("24, 20: {most:?}"),
            )
        },
    },
    Scenario {
        id: "EVA-10",
        what: "two hosts with four members of an anti-affinity group, three left",
        run: |world| {
            world.again(5, FEW, 8, |v| 1 + (v - 1) / 2);
            let group = uuid::Uuid::from_u128(0x6_0000);
            world.nova.groups = vec![Group {
                uuid: Some(group),
                policy: Some(GroupPolicy::AntiAffinity),
                members: (1..=FEW).map(vm).collect(),
                hosts: Vec::new(),
                max_per_host: 1,
            }];
            world.host_mut(1).cut();
            world.host_mut(2).cut();
            world.run(240_000);
            let on = |world: &World, n| world.host(n).guests.len();
            want((3..=5).all(|n| on(world, n) == 1), "", "one member on each host that is left")?;
            let bond = Waiting::Group(Bond::Apart { group, most: 1 });
            let waits = world.ha().recoveries.iter().filter(|known| known.status == Status::Waiting(bond)).count();
            want(waits == 1, "three go to three hosts, the fourth waits and says for which group", "one waits")
        },
    },
    Scenario {
        id: "EVA-13",
        what: "a user deletes an instance on its way",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.nova.servers.remove(&vm(1));
            world.nova.moving.retain(|moving| moving.instance != vm(1));
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let free = world.ha().permits.get(vm(1)).is_none();
            want(over && free, "vanished, the claim is free", "Vanished")
        },
    },
    Scenario {
        id: "EVA-16",
        what: "Nova lists 3 instances of 20",
        run: |world| {
            let kept: Vec<_> = (4..=VMS).filter_map(|n| Some((vm(n), world.nova.servers.remove(&vm(n))?))).collect();
            world.host_mut(1).cut();
            world.run(180_000);
            let three = world.taken.len() == 3;
            let held = kept
                .iter()
                .all(|(id, _)| world.ha().permits.get(*id).is_some_and(|permit| permit.life.host == host(1)));
            want(three && held, "three moved, the others held for a person", "no instance lost")
        },
    },
    Scenario {
        id: "EVA-18",
        what: "a target fails what comes, and its domain is there",
        run: |world| {
            world.nova.halving = (2..=5).map(host).collect();
            world.host_mut(1).cut();
            let belongs = |world: &World| world.nova.servers.values().all(|server| server.host != host(1));
            let moved = world.until(900_000, |world| belongs(world) && world.all_moved(VMS));
            let again = world.taken.values().filter(|count| **count > 1).count();
            want(moved && again == 16, "stopped there, then tried elsewhere", "16 of 20 tried again, all elsewhere")
        },
    },
    Scenario {
        id: "EVA-18b",
        what: "the same, and its agent may stop nothing",
        run: |world| {
            world.stops = false;
            world.nova.halving = (2..=40).map(host).collect();
            world.host_mut(1).cut();
            let asked = world.until(400_000, |world| {
                world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some())
            });
            world.run(600_000);
            let once = world.taken.len() == VMS as usize && world.taken.values().all(|count| *count == 1);
            want(asked && once, "", "no second attempt, and a person is asked")?;
            // Who destroys the domains there.
            world.nova.halving.clear();
            for n in 2..=40 {
                world.host_mut(n).guests.retain(|guest| !(1..=VMS).any(|n| vm(n) == *guest));
            }
            let moved = world.until(1_200_000, |world| world.all_moved(VMS));
            want(moved, "waits, a person is asked; then tried elsewhere", "all elsewhere once the domains are gone")
        },
    },
    Scenario {
        id: "EVA-20",
        what: "all members restart in the middle of a case",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.restart_all();
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-22",
        what: "five are stopped, two in error",
        run: |world| {
            for n in 1..=7 {
                let state = if n <= 5 { VmState::Stopped } else { VmState::Error };
                if let Some(server) = world.nova.servers.get_mut(&vm(n)) {
                    (server.vm, server.running) = (state, false);
                }
            }
            world.host_mut(1).cut();
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let left = (6..=7).all(|n| !world.taken.contains_key(&vm(n))) && world.taken.len() == VMS as usize - 2;
            want(over && left, "", "18 moved, two left")?;
            let stopped = |n| {
                let server = world.nova.servers.get(&vm(n));
                server.is_some_and(|server| server.vm == VmState::Stopped && !server.running && server.host != host(1))
            };
            want((1..=5).all(stopped), "the stopped move and stay so, those in error stay", "five stopped elsewhere")
        },
    },
    Scenario {
        id: "EVA-23",
        what: "forced_down is taken back before the calls",
        run: |world| {
            hang(world, 1);
            world.until(120_000, |world| world.phase(1) == Some(Phase::Evacuating));
            world.nova.services.insert(host(1), (false, true));
            let again = world.until(60_000, |world| world.phase(1) == Some(Phase::NovaDown));
            want(again, "", "back to NovaDown")?;
            recovered(world, 240_000)
        },
    },
    Scenario {
        id: "EVA-24",
        what: "Nova takes the calls 120 s after our timeout",
        run: |world| {
            world.trouble(Trouble::Late(120_000));
            world.host_mut(1).cut();
            world.until(120_000, |world| world.phase(1) == Some(Phase::Evacuating));
            world.run(140_000);
            world.trouble(Trouble::None);
            let over = |world: &World| world.all_moved(VMS) && world.phase(1) == Some(Phase::AwaitReturn);
            let moved = world.until(400_000, over);
            let targets = (1..=VMS).all(|n| {
                let mut targets: Vec<_> = world.nova.migrations(vm(n)).map(|moving| moving.target).collect();
                targets.dedup();
                targets.len() == 1
            });
            want(moved && targets, "the same target, one domain each", "never another target")
        },
    },
    Scenario {
        id: "EVA-26",
        what: "os-migrations lacks a cell",
        run: |world| {
            world.trouble(Trouble::Partial);
            world.host_mut(1).cut();
            world.run(120_000);
            want(world.taken.is_empty(), "", "no conclusion from a partial answer")?;
            world.trouble(Trouble::None);
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-01",
        what: "the leader dies after the intents, in front of the calls",
        run: |world| {
            world.host_mut(1).cut();
            let intent = |world: &World| world.ha().recoveries.iter().any(|known| known.live().is_some());
            world.trouble(Trouble::Down);
            world.until(120_000, |world| world.phase(1) == Some(Phase::Fenced));
            world.trouble(Trouble::None);
            world.until(60_000, intent);
            world.mail_lost();
            world.kill_leader();
            let led = world.now + 3_000;
            want(world.taken.is_empty(), "", "no call yet")?;
            let again = world.until(240_000, |world| !world.taken.is_empty());
            want(again && world.now >= led + 60_000, "", "a call once 60 s show no trace of the first")?;
            recovered(world, 240_000)
        },
    },
    Scenario {
        id: "EVA-12",
        what: "Nova refuses two of 20 for good",
        run: |world| {
            world.nova.never = vec![vm(1), vm(2)];
            world.host_mut(1).cut();
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let stay = (1..=2).all(|n| {
                let known = world.ha().recoveries.get(vm(n)).map(|known| known.status);
                known == Some(Status::Stays(Stays::Refused))
            });
            want(over && stay && world.taken.len() == VMS as usize - 2, "", "18 moved, two refused")?;
            world.host_mut(1).boot_up();
            let home = world.until(300_000, |world| (1..=2).all(|n| world.host(1).guests.contains(&vm(n))));
            want(home, "they start where they were when the host is back", "two at home")
        },
    },
    Scenario {
        id: "EVA-14",
        what: "the BMC is wired to another machine: a host that was proven dead lives",
        run: |world| {
            world.bmc(1, Bmc::Swapped);
            (world.host_mut(1).reaches, world.host_mut(1).storage, world.host_mut(1).data) = ([false; 3], false, false);
            let proven = world.until(120_000, |world| world.phase(1) == Some(Phase::NovaDown));
            want(proven && world.host(1).guests.len() == VMS as usize, "", "a wrong proof, and guests that run")?;
            (world.host_mut(1).reaches, world.host_mut(1).storage, world.host_mut(1).data) = ([true; 3], true, true);
            let stopped = world.until(5_000, |world| world.host(1).guests.is_empty() && asked(world));
            want(stopped, "", "ProofViolated: its guests stopped and a person asked within 5 s")?;
            world.run(300_000);
            let held = world.ha().cases.get(host(1)).is_some_and(|case| case.held_recover.is_some());
            want(
                held && world.taken.is_empty(),
                "its guests are stopped, no attempt begins, a person is asked",
                "no attempt",
            )
        },
    },
    Scenario {
        id: "EVA-14b",
        what: "a host that was proven dead says Hello in the same boot",
        run: |world| {
            hang(world, 1);
            world.until(120_000, |world| world.phase(1) == Some(Phase::Evacuating));
            let said = world.hello(1);
            let held = world.ha().cases.get(host(1)).is_some_and(|case| case.held_recover.is_some());
            world.run(120_000);
            let stopped = held && asked(world) && world.taken.is_empty();
            want(said == Done::ProofViolated && stopped, "page, attempts stop", "ProofViolated, nothing started")
        },
    },
    Scenario {
        id: "EVA-15",
        what: "the host is back while evacuations are not over",
        run: |world| {
            world.nova.takes = 200_000;
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.host_mut(1).boot_up();
            world.run(150_000);
            want(!world.host(1).compute, "", "nova-compute kept from starting")?;
            recovered(world, 300_000).or_else(|_| returned(world, 60_000))?;
            returned(world, 300_000)
        },
    },
    Scenario {
        id: "EVA-17",
        what: "somebody evacuates an instance by hand meanwhile",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, |world| world.phase(1) == Some(Phase::Planning));
            let now = world.now;
            world.nova.evacuate(vm(1), host(7), false, now);
            let over = world.until(400_000, |world| world.all_moved(VMS) && world.phase(1) == Some(Phase::AwaitReturn));
            let left = !world.taken.contains_key(&vm(1));
            want(over && left, "the foreign move is adopted where it is found", "all elsewhere, no second call")
        },
    },
    Scenario {
        id: "EVA-25",
        what: "the source of a live migration dies at switch-over",
        run: |world| {
            let moving = |world: &mut World, n, to| {
                if let Some(server) = world.nova.servers.get_mut(&vm(n)) {
                    server.destination = Some(host(to));
                }
            };
            moving(world, 1, 2);
            moving(world, 2, 3);
            world.host_mut(1).guests.remove(&vm(1));
            world.host_mut(2).guests.insert(vm(1));
            world.host_mut(1).cut();
            let there = |world: &World| world.ha().permits.get(vm(1)).is_some_and(|known| known.life.host == host(2));
            let adopted = world.until(240_000, there);
            world.run(60_000);
            let left = !world.taken.contains_key(&vm(1)) && !world.taken.contains_key(&vm(2));
            want(adopted && left, "adopted at the destination, the other left for a person", "adopted, not evacuated")
        },
    },
    Scenario {
        id: "EVA-21",
        what: "the source of a live migration dies with half of it at the destination",
        run: |world| {
            if let Some(server) = world.nova.servers.get_mut(&vm(1)) {
                server.destination = Some(host(2));
            }
            world.host_mut(2).halves.insert(vm(1));
            world.host_mut(1).cut();
            world.run(400_000);
            let there = world.ha().permits.get(vm(1)).is_some_and(|known| known.life.host == host(2));
            let others = (2..=VMS).all(|n| world.taken.contains_key(&vm(n)));
            let left = !there && others && !world.taken.contains_key(&vm(1));
            want(left, "left for a person, neither adopted nor evacuated", "the half is no place of it")
        },
    },
    Scenario {
        id: "EVA-27",
        what: "one in error and stopped before is evacuated",
        run: |world| {
            policy(world, |policy| policy.error_instances = true)?;
            if let Some(server) = world.nova.servers.get_mut(&vm(1)) {
                (server.vm, server.running) = (VmState::Error, false);
            }
            world.nova.refusing = vec![host(2)];
            world.host_mut(1).cut();
            let over = world.until(400_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let stopped = world.nova.servers.get(&vm(1)).is_some_and(|server| !server.running);
            want(over && stopped && world.all_moved(VMS), "ends stopped", "elsewhere, and stopped")
        },
    },
    Scenario {
        id: "EVA-29",
        what: "an instance's host dies, and its next one, and the one after that",
        run: |world| {
            world.again(12, 5, 8, |v| if v == 5 { 5 } else { 1 });
            // It comes to the host of instance 5, and both could go on to host 7.
            (2..=12).for_each(|n| world.grow(n, [0, 1, 2][usize::from(n <= 6) + usize::from(n == 5)]));
            dies_under_it(world, 2)?;
            world.until(600_000, |world| world.host(5).guests.contains(&vm(1)));
            world.grow(7, 4);
            let last = dies_under_it(world, 1)?[0];
            let over = world.until(600_000, |world| world.phase(last) == Some(Phase::AwaitReturn));
            let status = world.ha().recoveries.get(vm(1)).map(|known| known.status);
            let left = status == Some(Status::Stays(Stays::PoisonGuest)) && world.taken[&vm(1)] == 2;
            let other = last == 5 && world.host(7).guests.contains(&vm(5));
            want(
                over && left && other,
                "",
                &format!("two moves, then quarantine, and its neighbour moves; {status:?}"),
            )?;
            // Nor where its host is back.
            world.host_mut(last).boot_up();
            world.until(600_000, |world| world.phase(last).is_none());
            let started = world.hosts.iter().any(|host| host.guests.contains(&vm(1)));
            let done = !started && world.phase(last).is_none();
            want(done, "no fourth host, nor its last one; its neighbour moves", "started nowhere, and its host is back")
        },
    },
    Scenario {
        id: "EVA-30",
        what: "such an instance, and a person lets it go",
        run: |world| {
            let deadly = dies_under_it(world, 3)?;
            let left = Status::Stays(Stays::PoisonGuest);
            let kept = |world: &World| world.ha().recoveries.get(vm(1)).is_some_and(|known| known.status == left);
            world.until(600_000, |world| kept(world) && world.phase(deadly[2]) == Some(Phase::AwaitReturn));
            world.run(7_200_000);
            want(kept(world) && world.taken[&vm(1)] == 2, "", "kept for hours")?;
            world.operate(Change::GuestQuarantineEnd(vm(1)));
            let moved = world.until(400_000, |world| world.hosts.iter().any(|host| host.guests.contains(&vm(1))));
            want(moved && world.taken[&vm(1)] == 3, "kept for hours, then moved once more", "moved once let go")
        },
    },
    Scenario {
        id: "EVA-31",
        what: "three hosts die under an instance, an hour apart; and one that is stopped",
        run: |world| {
            if let Some(server) = world.nova.servers.get_mut(&vm(1)) {
                (server.vm, server.running) = (VmState::Stopped, false);
            }
            dies_under_it(world, 3)?;
            let moved = world.until(600_000, |world| world.taken[&vm(1)] == 3);
            want(moved, "", "a stopped one moves every time")?;
            world.again(12, VMS, 8, |_| 1);
            dies_under_it(world, 2)?;
            world.run(3_600_000);
            dies_under_it(world, 1)?;
            let moved = world.until(600_000, |world| world.taken[&vm(1)] == 3);
            want(moved, "a stopped one moves, and so does one whose hosts died long before", "moved three times")
        },
    },
    Scenario {
        id: "EVA-32",
        what: "guests are destroyed: by nobody known, by Nova, and where nothing is restarted",
        run: |world| {
            let destroy = |world: &mut World, n| {
                world.host_mut(1).guests.remove(&vm(n));
                world.host_mut(1).destroyed.insert(vm(n));
            };
            destroy(world, 1);
            destroy(world, 2);
            if let Some(server) = world.nova.servers.get_mut(&vm(2)) {
                (server.vm, server.running) = (VmState::Stopped, false);
            }
            world.run(29_000);
            want(world.ha().small.troubled == [0; 3], "", "nothing before Nova had half a minute")?;
            let up = world.until(60_000, |world| world.host(1).guests.contains(&vm(1)));
            world.run(60_000);
            let once = world.restarted.get(&vm(1)) == Some(&1) && !world.restarted.contains_key(&vm(2));
            let told = |world: &World| world.ha().small.troubles.iter().map(|known| known.instance).collect::<Vec<_>>();
            want(up && once && told(world) == [vm(1)], "", "the first is told of and started again, once")?;
            policy(world, |policy| policy.in_place = false)?;
            destroy(world, 3);
            world.run(180_000);
            let left = told(world) == [vm(1), vm(3)] && !world.restarted.contains_key(&vm(3));
            want(left, "told; started again where the policy says so; nothing if Nova did it", "told of, and left")
        },
    },
    Scenario {
        id: "EVA-33",
        what: "a migration fails in post-copy, and then its source dies",
        run: |world| {
            world.host_mut(1).guests.remove(&vm(1));
            world.host_mut(1).split.insert(vm(1));
            world.host_mut(2).split.insert(vm(1));
            world.run(10_000);
            want(world.ha().is_poison(vm(1)) && world.ha().small.troubled[1] == 2, "", "quarantine, told by both")?;
            world.host_mut(1).cut();
            let over = world.until(400_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let status = world.ha().recoveries.get(vm(1)).map(|known| known.status);
            let left =
                over && status == Some(Status::Stays(Stays::PostcopySplit)) && world.taken.len() == VMS as usize - 1;
            want(left, "neither half is started, the others move", &format!("left for a person; it is {status:?}"))
        },
    },
];
