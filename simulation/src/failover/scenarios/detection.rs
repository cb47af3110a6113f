//! Detection: who is silent, and who is dead.

use scheduler::ha::Phase;
use scheduler::ha::breaker::{Scope, Trips};
use scheduler::ha::coordinator::{Barrier, Call};
use scheduler::ha::host::{Degraded, Detection};
use scheduler::ha::masakari::{self, Kind, MemberSpec, NotificationSpec, Report, SegmentSpec, Status};
use scheduler::ha::order::{Change, Leader, Role};
use scheduler::ha::planner::{Asks, OnCrash};
use scheduler::ha::proof::Kind as Proof;
use scheduler::ha::recovery::{Status as Stands, VmState};
use uuid::Uuid;

use super::{FEW, Scenario, VMS, acts, cordoned, detection, hang, policy, recovered, recovered_by, untouched, want};
use crate::failover::truth::{Bmc, host, vm};
use crate::failover::world::World;

/// Masakari has a segment with host 1.
fn segment(world: &mut World) -> Result<String, String> {
    let uuid = Uuid::from_u128(0xF001);
    let segment = SegmentSpec { uuid, create: true, name: Some("one".to_owned()), ..SegmentSpec::default() };
    let name = Some("node-1".to_owned());
    let member =
        MemberSpec { uuid: Uuid::from_u128(0xF002), create: true, segment: uuid, name, ..MemberSpec::default() };
    let changes = [masakari::Change::Segment(Box::new(segment)), masakari::Change::Member(Box::new(member))];
    let done =
        changes.into_iter().all(|change| world.order(Role::Operator, Change::Masakari(Box::new(change))).is_ok());
    want(done, "", "a segment")
}

/// A monitor says that guest `n` of host 1 failed.
fn stopped(world: &mut World, n: u128) -> Result<String, String> {
    let uuid = vm(n).to_string();
    let payload = [("event", "LIFECYCLE"), ("instance_uuid", &uuid), ("vir_domain_event", "STOPPED_FAILED")];
    let said = NotificationSpec {
        uuid: Uuid::from_u128(0xF100 + n),
        kind: Kind::Vm,
        host: "node-1".to_owned(),
        generated: 0,
        payload: payload.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        report: Report::Nothing,
    };
    let change = Change::Masakari(Box::new(masakari::Change::Notify(Box::new(said))));
    want(world.order(Role::Operator, change).is_ok(), "", "a notification")
}

/// No host is even suspected, at no moment.
fn unsuspected(world: &mut World, within: u64) -> Result<String, String> {
    let doubted = |world: &World| world.ha().hosts.iter().any(|host| host.belief.detection != Detection::Alive);
    want(!world.until(within, doubted), "", "no host suspected")?;
    untouched(world, 0).map(|_| "no host suspected, nothing fenced, nothing moved".to_owned())
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "DET-01",
        what: "power loss, BMC alive",
        run: |world| {
            world.host_mut(1).cut();
            let proven = world.until(16_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(proven, "", "proven within 16 s")?;
            let said = recovered_by(world, 120_000, Proof::P1)?;
            let order = ["forced down", "disabled", "evacuated"];
            want(acts(world) == order, &said, &format!("{order:?}; it is {:?}", acts(world)))
        },
    },
    Scenario {
        id: "DET-02",
        what: "kernel hang, BMC on",
        run: |world| {
            hang(world, 1);
            let seen = world.until(27_000, |world| detection(world, 1) == Some(Detection::Unreachable));
            want(seen && world.fences() == 0, "", "Unreachable within 25 s and two ticks")?;
            let said = recovered_by(world, 120_000, Proof::P2)?;
            let order = ["off", "forced down", "disabled", "evacuated"];
            want(acts(world) == order, &said, &format!("{order:?}; it is {:?}", acts(world)))
        },
    },
    Scenario {
        id: "DET-03",
        what: "the agent crashes, the host runs",
        run: |world| {
            world.host_mut(1).agent = false;
            let told = world.until(30_000, |world| detection(world, 1) == Some(Detection::Isolated));
            want(told, "", "told as Isolated")?;
            let dead = |world: &World| detection(world, 1) == Some(Detection::Unreachable) || world.phase(1).is_some();
            want(!world.until(600_000, dead), "", "never Unreachable, no case")?;
            cordoned(world, Some("is silent"))?;
            world.host_mut(1).agent = true;
            let back = world.until(60_000, |world| detection(world, 1) == Some(Detection::Alive));
            want(back, "", "Alive once its agent runs again")?;
            untouched(world, 60_000)?;
            want(world.all_home(VMS), "told and cordoned, not fenced, no case", "its instances where they were")
        },
    },
    Scenario {
        id: "DET-04",
        what: "the management network of a host is cut",
        run: |world| {
            world.host_mut(1).reaches = [false; 3];
            world.run(60_000);
            want(detection(world, 1) == Some(Detection::Isolated), "", "Isolated")?;
            cordoned(world, Some("is silent"))?;
            world.host_mut(1).reaches = [true; 3];
            let back = world.until(60_000, |world| detection(world, 1) == Some(Detection::Alive));
            want(back, "", "Alive again by itself")?;
            cordoned(world, None)?;
            untouched(world, 60_000)?;
            want(true, "cordoned while it is isolated, not fenced", "")
        },
    },
    Scenario {
        id: "DET-06",
        what: "a host reaches one member of three",
        run: |world| {
            world.host_mut(1).reaches = [false, false, true];
            unsuspected(world, 300_000)
        },
    },
    Scenario {
        id: "DET-07",
        what: "of a rack's heartbeats 30 % are lost, others 3 s late",
        run: |world| {
            (1..=10).for_each(|n| (world.host_mut(n).jitter, world.host_mut(n).loses) = (3_000, 30));
            let gone = |world: &World| (1..=10).any(|n| detection(world, n) == Some(Detection::Unreachable));
            want(!world.until(600_000, gone) && world.ha().cases.is_empty(), "", "none Unreachable, no case")?;
            untouched(world, 0)
        },
    },
    Scenario {
        id: "DET-10",
        what: "the leader dies 14 s into a suspicion",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Well);
            world.until(30_000, |world| detection(world, 1) == Some(Detection::Suspect));
            world.run(14_000);
            world.kill_leader();
            let led = world.now + 3_000;
            world.until(120_000, |world| world.fences() > 0);
            want(world.now >= led + 20_000 + 15_000, "", "warm-up and confirmation anew")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "DET-11",
        what: "the leader dies every 20 s while a host is off",
        run: |world| {
            world.host_mut(1).cut();
            for _ in 0..15 {
                world.run(20_000);
                world.kill_leader();
            }
            want(world.phase(1).is_some_and(Phase::is_proven), "", "proven by its BMC meanwhile")?;
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "DET-13",
        what: "the leader is stopped with a power-off in its queue",
        run: |world| {
            let barrier = Barrier {
                leader: Leader { term: 1, node: 2 },
                intent: Uuid::nil(),
                confirmed: 1_000,
                deadline: 10_000,
            };
            world.keep(Call::PowerOff { host: host(3), barrier });
            world.keep(Call::Evacuate { instance: vm(1), target: host(4), barrier });
            world.paused = true;
            world.run(5_000);
            world.kill_leader();
            world.run(40_000);
            world.go_on();
            untouched(world, 60_000)
        },
    },
    Scenario {
        id: "DET-05",
        what: "the storage network of a host is cut",
        run: |world| {
            world.host_mut(1).storage = false;
            untouched(world, 600_000)?;
            cordoned(world, Some("does not reach its storage"))?;
            world.host_mut(1).storage = true;
            world.run(10_000);
            cordoned(world, None)?;
            want(true, "degraded and cordoned, not fenced; well again by itself", "")
        },
    },
    Scenario {
        id: "DET-05b",
        what: "guests of one host stand still for I/O errors",
        run: |world| {
            world.host_mut(1).stalled = 2;
            world.run(90_000);
            cordoned(world, None)?;
            world.host_mut(1).stalled = 3;
            untouched(world, 90_000)?;
            cordoned(world, Some("does not reach its storage"))?;
            world.kill_leader();
            untouched(world, 90_000)?;
            cordoned(world, Some("does not reach its storage"))?;
            world.host_mut(1).stalled = 0;
            world.run(10_000);
            cordoned(world, None)?;
            want(true, "cordoned, whoever leads, not fenced", "")
        },
    },
    Scenario {
        id: "DET-08",
        what: "a member is paused 4 s of every 5 s",
        run: |world| {
            for _ in 0..60 {
                world.blind = [true, false, false];
                world.hosts.iter_mut().for_each(|host| host.reaches[0] = false);
                unsuspected(world, 4_000)?;
                world.blind = [false; 3];
                world.hosts.iter_mut().for_each(|host| host.reaches[0] = true);
                unsuspected(world, 1_000)?;
            }
            unsuspected(world, 60_000)
        },
    },
    Scenario {
        id: "DET-09",
        what: "one member hears 12 hosts that the others do not",
        run: |world| {
            for n in 1..=12 {
                world.host_mut(n).reaches = [false, true, false];
            }
            for n in 13..=40 {
                world.host_mut(n).reaches = [true, false, true];
            }
            unsuspected(world, 300_000)
        },
    },
    Scenario {
        id: "DET-12",
        what: "the leader's wall clock jumps an hour back, two ahead",
        run: |world| {
            hang(world, 1);
            let began = world.now;
            world.run(12_000);
            world.skew = -3_600_000;
            world.run(5_000);
            world.skew = 7_200_000;
            let sent = world.until(60_000, |world| world.fences() > 0);
            let after = world.now - began;
            want(
                sent && (20_000..=27_000).contains(&after),
                "",
                &format!("fenced as without a jump; after {after} ms"),
            )?;
            recovered_by(world, 120_000, Proof::P2)?;
            let case = world.ha().cases.get(host(1)).ok_or("expected: a case")?;
            let grows = case.steps.windows(2).all(|two| two[0].at <= two[1].at);
            let walls = case.steps.windows(2).any(|two| two[0].wall > two[1].wall)
                || case.steps.iter().all(|step| step.wall > step.at);
            want(grows && walls, "no timer moves, and the history is in order", "a history in order")
        },
    },
    Scenario {
        id: "DET-14",
        what: "libvirt hangs, the heartbeat is fresh",
        run: |world| {
            world.host_mut(1).libvirt = false;
            world.run(90_000);
            let ill = world.ha().hosts.get(host(1)).is_some_and(|host| host.degraded.has(Degraded::LIBVIRT));
            want(ill, "", "degraded after a minute")?;
            cordoned(world, Some("has a libvirt that does not answer"))?;
            untouched(world, 600_000)?;
            world.host_mut(1).libvirt = true;
            world.run(5_000);
            let well = world.ha().hosts.get(host(1)).is_some_and(|host| host.takes_instances());
            cordoned(world, None)?;
            want(well, "degraded and cordoned, well again by itself", "well again")
        },
    },
    Scenario {
        id: "DET-16",
        what: "a kernel panic and a boot within 90 s",
        run: |world| {
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            world.run(30_000);
            world.host_mut(1).boot_up();
            world.bmc(1, Bmc::Well);
            let home = world.until(300_000, |world| world.all_home(VMS) && world.phase(1).is_none());
            let once = world.restarted.values().all(|count| *count == 1);
            want(home && once && world.taken.is_empty(), "P3, restarted in place, none moved", "all at home, once")
        },
    },
    Scenario {
        id: "DET-16b",
        what: "a boot before the host is missed, no policy restarts",
        run: |world| {
            policy(world, |policy| policy.in_place = false)?;
            world.host_mut(1).boot_up();
            let home = world.until(300_000, |world| world.all_home(VMS) && world.phase(1).is_none());
            let once = world.restarted.values().all(|count| *count == 1);
            want(home && once && world.taken.is_empty(), "P3, restarted in place, none moved", "all at home, once")
        },
    },
    Scenario {
        id: "DET-17",
        what: "a guest panics",
        run: |world| {
            world.crash(1, 1);
            let back = world.until(60_000, |world| world.all_home(VMS));
            let alone = world.ha().cases.is_empty() && world.restarted.len() == 1;
            want(back && alone, "restarted on its host, no case", "one restart, no case")
        },
    },
    Scenario {
        id: "DET-17d",
        what: "a guest panics 4 s after each start",
        run: |world| {
            let (mut starts, began) = (Vec::new(), world.now);
            while world.now < began + 200_000 {
                if world.host(1).guests.contains(&vm(1)) {
                    starts.push(world.now);
                    // Long enough to be seen to run.
                    world.run(4_000);
                    world.crash(1, 1);
                }
                world.run(1_000);
            }
            // The first is the one that ran before.
            let gaps: Vec<_> = starts.windows(2).skip(1).map(|two| two[1] - two[0]).collect();
            let waited = gaps.len() == 2 && gaps[0] >= 9_000 && gaps[1] >= 29_000;
            want(waited, "", &format!("three restarts, the second after 10 s, the third after 30 s; {gaps:?}"))?;
            let now = world.now;
            let given_up =
                world.ha().restarts.iter().any(|restart| restart.instance == vm(1) && restart.is_exhausted(now));
            let known = world.ha().restarts.iter().next().copied();
            let expected = format!("exhausted, no case; {known:?}");
            want(given_up && world.ha().cases.is_empty(), "three restarts, then a person", &expected)
        },
    },
    Scenario {
        id: "DET-17b",
        what: "a Masakari monitor says that a guest stopped by itself",
        run: |world| {
            segment(world)?;
            // One that failed, and one that its user stopped.
            world.host_mut(1).guests.retain(|guest| ![vm(1), vm(2)].contains(guest));
            if let Some(server) = world.nova.servers.get_mut(&vm(2)) {
                server.vm = VmState::Stopped;
            }
            for n in [1, 2] {
                stopped(world, n)?;
            }
            let back = world.until(60_000, |world| world.host(1).guests.contains(&vm(1)));
            world.run(180_000);
            let one = world.restarted.len() == 1 && world.ha().cases.is_empty();
            let now = world.now;
            let stands: Vec<_> = world.ha().notified().map(|said| world.ha().status_of(said, now)).collect();
            want(back && one, "", "one restart, no case")?;
            want(
                stands == [Status::Ignored, Status::Finished],
                "the one that failed is restarted",
                &format!("{stands:?}"),
            )
        },
    },
    Scenario {
        id: "DET-17e",
        what: "guests panic that want to be left, or started, in spite of their host's policy",
        run: |world| {
            let asks = |on_crash| Asks { on_crash: Some(on_crash), ..Asks::default() };
            world.nova.asks = [(vm(1), asks(OnCrash::Stays)), (vm(2), asks(OnCrash::Restart))].into();
            world.crash(1, 1);
            world.crash(1, 3);
            let third = world.until(60_000, |world| world.host(1).guests.contains(&vm(3)));
            // It is told again and again.
            world.run(180_000);
            want(
                third && world.restarted.keys().eq([&vm(3)]),
                "",
                "where the policy restarts, 1 says none and is left",
            )?;
            policy(world, |policy| policy.in_place = false)?;
            world.restarted.clear();
            for n in [2, 4] {
                world.crash(1, n);
            }
            let second = world.until(60_000, |world| world.host(1).guests.contains(&vm(2)));
            world.run(180_000);
            let alone = world.restarted.keys().eq([&vm(2)]) && world.ha().cases.is_empty();
            want(second && alone, "each as it asks, the others as the policy says", "where it does not, 2 is started")
        },
    },
    Scenario {
        id: "DET-17f",
        what: "a guest panics 4 s after each start, and wants to be moved when that does not help",
        run: |world| {
            world.nova.asks = [(vm(1), Asks { on_crash: Some(OnCrash::RestartThenMove), ..Asks::default() })].into();
            let crashes = |world: &mut World, until: fn(&World) -> bool| {
                let began = world.now;
                while world.now < began + 400_000 && !until(world) {
                    if world.host(1).guests.contains(&vm(1)) {
                        world.run(4_000);
                        world.crash(1, 1);
                    }
                    world.run(1_000);
                }
            };
            let known = |world: &World| world.ha().restarts.iter().find(|known| known.instance == vm(1)).copied();
            crashes(world, |world| world.nova.servers.get(&vm(1)).is_some_and(|server| server.host != host(1)));
            let started = world.restarted.get(&vm(1)).copied();
            want(started == Some(3), "", &format!("three restarts come first; {started:?}"))?;
            let moved = world.until(120_000, |world| {
                let there = |n| world.host(n).guests.contains(&vm(1));
                known(world).is_some_and(|known| known.well == Some(true)) && (2..=5).any(there)
            });
            let migrations = world.nova.migrations(vm(1)).filter(|moving| moving.over == Some(true)).count();
            let well = moved && migrations == 1 && world.ha().cases.is_empty();
            want(
                well,
                "three restarts, then a move",
                &format!("moved once, and runs; {:?}, {migrations}", known(world)),
            )?;
            let permit = world.ha().permits.get(vm(1)).map(|permit| permit.life.host);
            let server = world.nova.servers.get(&vm(1)).map(|server| server.host);
            want(permit == server, "three restarts, then a move", "its permit has followed")
        },
    },
    Scenario {
        id: "DET-17g",
        what: "the same, where no host has room",
        run: |world| {
            world.again(2, 8, 4, |v| 1 + (v - 1) / 4);
            world.nova.asks = [(vm(1), Asks { on_crash: Some(OnCrash::RestartThenMove), ..Asks::default() })].into();
            let began = world.now;
            while world.now < began + 400_000 {
                if world.host(1).guests.contains(&vm(1)) {
                    world.run(4_000);
                    world.crash(1, 1);
                }
                world.run(1_000);
            }
            let now = world.now;
            let known = world.ha().restarts.iter().next().copied();
            let given_up = known.is_some_and(|known| known.is_exhausted(now) && known.to.is_none());
            let stays = world.nova.migrations(vm(1)).count() == 0;
            want(given_up && stays, "three restarts, then a person", &format!("exhausted, not moved; {known:?}"))
        },
    },
    Scenario {
        id: "DET-18",
        what: "8 hosts hang, one in 6 min, and there is no room",
        run: |world| {
            world.again(40, 40 * FEW, FEW as u64, |v| 1 + (v - 1) / FEW);
            let counted = |world: &World| {
                let scope = world.ha().hosts.get(host(1)).map(|host| Scope::Cluster(host.places.cluster));
                let breaker = scope.and_then(|scope| world.ha().small.breakers.get(&scope));
                breaker.is_some_and(|breaker| breaker.trips.or(Trips::COUNT) == breaker.trips)
            };
            for n in 1..=8 {
                hang(world, n);
                world.run(360_000);
                let unrecovered = |n| world.phase(n).is_some_and(Phase::is_unrecovered);
                let proven = (1..=n).filter(|n| world.phase(*n).is_some_and(Phase::is_proven)).count();
                want((1..=n).all(unrecovered) && world.taken.is_empty(), "", "none recovered")?;
                want(counted(world) == (n > 2), "", &format!("T1 from the third on; after {n}: {}", counted(world)))?;
                want(proven == n.min(2) as usize, "", &format!("two proven dead; after {n}: {proven}"))?;
            }
            want((3..=8).all(|n| world.host(n).fences == 0), "", "no fence from the third on")?;
            let waits =
                |n| world.ha().recoveries.get(vm(n)).is_some_and(|known| matches!(known.status, Stands::Waiting(_)));
            want((1..=2 * FEW).all(waits), "", "the instances of the first two wait")?;
            // Room for those of one host, and for no more.
            world.grow(20, 2 * FEW as u64);
            let first = world.until(600_000, |world| world.all_moved(FEW));
            want(first && counted(world), "the total that is not recovered opens T1", "those of the first recovered")
        },
    },
    Scenario {
        id: "DET-20",
        what: "a host that flaps",
        run: |world| {
            for _ in 0..3 {
                world.host_mut(1).reaches = [false; 3];
                world.run(20_000);
                world.host_mut(1).reaches = [true; 3];
                world.run(60_000);
            }
            let flaps = world.ha().hosts.get(host(1)).is_some_and(|host| host.degraded.has(Degraded::FLAPS));
            want(flaps, "", "degraded after three suspicions")?;
            cordoned(world, Some("was suspected again and again"))?;
            untouched(world, 60_000)?;
            world.run(3_700_000);
            let well = world.ha().hosts.get(host(1)).is_some_and(|host| host.takes_instances());
            want(well, "degraded for an hour, then trusted again", "trusted again after an hour")
        },
    },
];
