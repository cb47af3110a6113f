//! Storms and partitions: many at once.

use scheduler::ha::Phase;
use scheduler::ha::breaker::{Decision, Scope, Trips, ZoneMode};
use scheduler::ha::case::Act;
use scheduler::ha::coordinator::{Call, Told};
use scheduler::ha::drain::Over;
use scheduler::ha::host::{Detection, HostSpec, Maintenance, PlaceNames};
use scheduler::ha::order::{Change, Role};
use scheduler::ha::proof::Kind;

use super::{FEW, Scenario, VMS, cordoned, detection, hang, held, recovered, recovered_by, untouched, want};
use crate::failover::nova::Trouble;
use crate::failover::truth::{Bmc, host, vm};
use crate::failover::world::{World, spec};

/// The breaker of a rack is open for too many that are away.
fn counted(world: &World, rack: u32) -> bool {
    let mut open = world.ha().small.breakers.iter();
    open.any(|(scope, breaker)| {
        let of_rack = matches!(scope, Scope::Cluster(name) if world.core.state().tables().names.text(*name) == format!("rack-{rack}"));
        of_rack && breaker.trips.or(Trips::COUNT) == breaker.trips
    })
}

/// An operator answers the breakers of host 1's scopes.
fn answered(world: &mut World, decision: &Decision, until: u64) -> Result<(), String> {
    for scope in ["cluster:rack-0", "az:az-0", "cell:cell-0", "region"] {
        let ack = Change::BreakerAck { scope: scope.parse()?, decision: decision.clone(), until };
        want(world.order(Role::Operator, ack).is_ok(), "", "an answer")?;
    }
    Ok(())
}

/// Every instance runs where it began.
fn everyone_home(world: &World) -> bool {
    (1..).zip(&world.hosts).all(|(n, host)| host.guests.iter().copied().eq((VMS * (n - 1) + 1..=VMS * n).map(vm)))
}

/// These hosts are a zone of their own in the cell of the others, each in a cluster of its own, on one feed.
fn zoned(world: &mut World, hosts: std::ops::RangeInclusive<u128>) -> Result<String, String> {
    let upsert = |n: u128| {
        let name = |what: &str| format!("{what}-b");
        let places = PlaceNames {
            az: name("az"),
            cell: "cell-0".to_owned(),
            cluster: format!("rack-b{n}"),
            power: name("feed"),
            chassis: format!("chassis-{n}"),
        };
        Change::HostUpsert(Box::new(HostSpec { places, ..spec(n) }))
    };
    let told = hosts.map(upsert).all(|change| world.order(Role::Operator, change).is_ok());
    want(told, "", "hosts of another zone")
}

/// How bold failover is in each zone.
fn modes(world: &World) -> Vec<ZoneMode> {
    let names = &world.core.state().tables().names;
    let mut modes: Vec<_> =
        world.ha().zones(world.now).into_iter().map(|(az, (mode, _))| (names.text(az), mode)).collect();
    modes.sort_unstable_by_key(|(az, _)| *az);
    modes.into_iter().map(|(_, mode)| mode).collect()
}

/// Every breaker closes by itself.
fn closed(world: &mut World, within: u64) -> Result<String, String> {
    let closed = world.until(within, |world| world.ha().small.breakers.is_empty());
    want(closed, "", "the breakers closed again")
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "STO-01",
        what: "a zone of 20 of 60 loses its management network",
        run: |world| {
            world.again(60, 60 * FEW, 8, |v| 1 + (v - 1) / FEW);
            for n in 1..=20 {
                world.host_mut(n).reaches = [false; 3];
            }
            untouched(world, 300_000)?;
            let isolated = (1..=20).all(|n| detection(world, n) == Some(Detection::Isolated));
            want(isolated && counted(world, 0) && counted(world, 1), "", "all Isolated, and T1 of both clusters")?;
            let zone = world.ha().hosts.get(host(1)).map(|host| Scope::Az(host.places.az));
            let zone = zone.and_then(|zone| world.ha().small.breakers.get(&zone));
            let zone = zone.is_some_and(|breaker| breaker.trips.or(Trips::COUNT) == breaker.trips);
            want(zone, "", "T2 of their zone")?;
            // Too many to be believed: Nova's own view of its services is left to decide.
            cordoned(world, None)?;
            for n in 1..=20 {
                world.host_mut(n).reaches = [true; 3];
            }
            closed(world, 180_000)?;
            untouched(world, 120_000)?;
            want(true, "all Isolated, T1 and T2 open and close, nothing fenced", "")
        },
    },
    Scenario {
        id: "STO-03",
        what: "pallium hears nobody",
        run: |world| {
            let all = |world: &mut World, up| world.hosts.iter_mut().for_each(|host| host.reaches = [up; 3]);
            all(world, false);
            world.hosts.iter_mut().for_each(|host| (host.storage, host.data) = (false, false));
            untouched(world, 300_000)?;
            world.hosts.iter_mut().for_each(|host| (host.storage, host.data) = (true, true));
            all(world, true);
            untouched(world, 120_000)
        },
    },
    Scenario {
        id: "STO-07",
        what: "two of ten hang, and a third 200 s later",
        run: |world| {
            hang(world, 1);
            hang(world, 2);
            let began = world.now;
            recovered(world, 180_000)?;
            world.run(began + 200_000 - world.now);
            want(world.host(2).fences > 0 && world.phase(2) == Some(Phase::AwaitReturn), "", "both recovered")?;
            want(world.ha().small.breakers.is_empty(), "", "no breaker for two of ten")?;
            hang(world, 3);
            let open = world.until(60_000, |world| counted(world, 0));
            want(open, "", "the third opens the breaker, although the others are recovered")?;
            // They count for 300 s after they died, and the breaker closes 120 s after that.
            let died = world.ha().hosts.get(host(2)).and_then(|host| host.proofs.first()).map_or(0, |proof| proof.at);
            let fenced = world.until(600_000, |world| world.host(3).fences > 0);
            want(fenced && world.now >= died + 420_000, "", "the third fenced once the breaker has closed")?;
            let over = world.until(120_000, |world| world.phase(3) == Some(Phase::AwaitReturn));
            want(over, "the third opens it, though two are recovered", "the third recovered in the end")
        },
    },
    Scenario {
        id: "STO-08",
        what: "the breaker is open, an operator lets 3 of 7 hosts go on",
        run: |world| {
            for n in 1..=7 {
                hang(world, n);
            }
            untouched(world, 120_000)?;
            // More than their cell has room for.
            (11..=20).for_each(|n| world.grow(n, 32));
            let until = world.now + 600_000;
            answered(world, &Decision::Proceed([1, 2, 3].map(host).into()), until)?;
            let others = |world: &World| (4..=7).map(|n| world.host(n).fences).sum::<u32>();
            let over = |world: &World| (1..=3).all(|n| world.phase(n) == Some(Phase::AwaitReturn));
            want(world.until(400_000, over), "", "the three recovered")?;
            want((1..=3).all(|n| world.host(n).fences > 0) && others(world) == 0, "", "no other one fenced")?;
            want(world.all_moved(VMS), "", "the instances of host 1 elsewhere")?;
            // An answer that is over lets nobody go on.
            let until = world.now + 20_000;
            let pause = Change::Pause { act: Act::Kill, until };
            want(world.order(Role::Operator, pause).is_ok(), "", "a pause")?;
            answered(world, &Decision::ProceedAll, until - 10_000)?;
            world.run(60_000);
            want(
                others(world) == 0,
                "those three only, and as long as the answer holds",
                "no fence by an answer that is over",
            )
        },
    },
    Scenario {
        id: "STO-10",
        what: "Nova answers 503 for 10 min after the fence",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.trouble(Trouble::Down);
            let away = |world: &World| {
                let breaker = world.ha().small.breakers.get(&Scope::Region);
                breaker.is_some_and(|breaker| breaker.trips == Trips::CONTROL)
            };
            want(world.until(60_000, away), "", "T9, and nothing else")?;
            // A host is fenced all the same: that needs no Nova.
            hang(world, 12);
            world.run(540_000);
            want(
                world.taken.is_empty() && world.host(12).fences > 0,
                "",
                "a fence, and nothing else while Nova is down",
            )?;
            want(away(world), "", "T9 to the end")?;
            want(world.phase(1) == Some(Phase::NovaDown), "", "NovaDown waits for Nova")?;
            want(world.nova.services.is_empty(), "", "nothing marked while Nova is down")?;
            world.trouble(Trouble::None);
            recovered_by(world, 300_000, Kind::P2)?;
            closed(world, 180_000)?;
            // What fails of one instance alone is no T9: the mark is read meanwhile.
            for _ in 0..20 {
                world.tell(Told::Nova { answered: 0, failed: 3 });
                world.run(2_000);
            }
            want(world.ha().small.breakers.is_empty(), "T9 opens and closes; recovered, each called for once", "no T9")
        },
    },
    Scenario {
        id: "STO-02",
        what: "a rack loses power, with the BMCs of half of it",
        run: |world| {
            (11..=20).for_each(|n| world.grow(n, 32));
            for n in 1..=10 {
                world.host_mut(n).cut();
                if n > 5 {
                    world.bmc(n, Bmc::Silent);
                }
            }
            let storm = world.until(60_000, |world| counted(world, 0));
            want(storm, "", "T1 of their cluster")?;
            world.run(300_000);
            let off = (1..=5).all(|n| world.phase(n).is_some_and(Phase::is_proven));
            let dark = (6..=10).all(|n| world.phase(n).is_none_or(|phase| !phase.is_proven()));
            want(off && dark && world.fences() == 0, "", "those whose BMC says off are proven, no others")?;
            let begun =
                (1..=5).filter_map(|n| {
                    world.ha().cases.get(host(n)).and_then(|case| {
                        case.steps.iter().find(|step| step.phase == Phase::NovaDown).map(|step| step.at)
                    })
                });
            let mut begun: Vec<_> = begun.collect();
            begun.sort_unstable();
            let apart = begun.len() == 5 && begun.windows(2).all(|two| two[1] - two[0] >= 29_000);
            want(apart, "", &format!("a recovery begins every 30 s under the breaker: {begun:?}"))?;
            let over = |world: &World| (1..=5).all(|n| world.phase(n) == Some(Phase::AwaitReturn));
            want(world.until(900_000, over) && world.all_moved(5 * VMS), "", "the instances of five hosts elsewhere")?;
            let waits = |n| world.ha().cases.get(host(n)).is_some_and(|case| case.needs_operator.is_some());
            want((6..=10).all(waits), "five by P1, one in 30 s; five wait for a person", "five NeedsOperator")
        },
    },
    Scenario {
        id: "STO-04",
        what: "10 hosts are cut off with a minority",
        run: |world| {
            // The third member and ten hosts on one side.
            world.voters = vec![1, 2];
            for (n, host) in (1..).zip(&mut world.hosts) {
                let there = n <= 10;
                host.reaches = if there { [false, false, true] } else { [true, true, false] };
                (host.storage, host.data) = (!there, !there);
            }
            untouched(world, 300_000)?;
            let unreachable = (1..=10).all(|n| detection(world, n) == Some(Detection::Unreachable));
            want(unreachable && counted(world, 0), "", "all ten Unreachable, and T1 of their cluster")?;
            world.voters = vec![1, 2, 3];
            for host in &mut world.hosts {
                (host.reaches, host.storage, host.data) = ([true; 3], true, true);
            }
            closed(world, 180_000)?;
            untouched(world, 120_000)?;
            want(true, "all Unreachable, T1 opens and closes, nothing fenced", "")
        },
    },
    Scenario {
        id: "STO-05",
        what: "a storage backend stands still for 5 min",
        run: |world| {
            world.hosts.iter_mut().for_each(|host| (host.storage, host.stalled) = (false, 15));
            let open = world.until(10_000, |world| {
                let breaker = world.ha().small.breakers.get(&Scope::Region);
                breaker.is_some_and(|breaker| breaker.trips.stops_recover())
            });
            want(open, "", "T8, by the guests that stand still")?;
            // A host that dies meanwhile waits, and so does a drain: what is moved now would stand still elsewhere.
            hang(world, 2);
            let drain = Change::DrainOpen { host: host(1), incarnation: 1, mode: Maintenance::Auto };
            want(world.order(Role::Operator, drain).is_ok(), "", "a drain")?;
            world.run(60_000);
            let cancel = Change::DrainEnd { host: host(1), over: Over::Cancelled };
            want(world.order(Role::Operator, cancel).is_ok(), "", "a drain that is taken back")?;
            for _ in 0..20 {
                world.run(15_000);
                cordoned(world, None)?;
            }
            want(world.taken.is_empty() && world.nova.moving.is_empty() && world.fences() == 0, "", "no moves")?;
            world.hosts.iter_mut().for_each(|host| (host.storage, host.stalled) = (true, 0));
            world.host_mut(2).hung = false;
            let closed = world.until(300_000, |world| world.ha().small.breakers.is_empty());
            want(closed, "", "the breaker closes by itself")?;
            hang(world, 1);
            recovered(world, 300_000)
        },
    },
    Scenario {
        id: "STO-06",
        what: "12 hosts boot within 2 min without a word",
        run: |world| {
            for n in 1..=12 {
                world.host_mut(n).boot_up();
                world.run(10_000);
            }
            // Nobody missed them: that is no storm.
            want(world.ha().small.breakers.is_empty(), "", "no breaker for boots")?;
            let home = world.until(600_000, |world| world.ha().cases.is_empty() && everyone_home(world));
            want(home && world.taken.is_empty(), "P3 for each, restarted in place", "all at home, none moved")
        },
    },
    Scenario {
        id: "STO-09",
        what: "two hosts in a cluster, both silent",
        run: |world| {
            world.again(2, FEW, 8, |_| 1);
            hang(world, 1);
            hang(world, 2);
            untouched(world, 300_000)?;
            let breaker = world.ha().small.breakers.get(&Scope::Region);
            let small = breaker.is_some_and(|breaker| breaker.trips.or(Trips::SMALL) == breaker.trips);
            want(small, "T5, nobody fenced", "T5")?;
            held(world, Phase::FencePending)?;
            want(true, "T5 opens, nothing fenced, an operator is asked", "")
        },
    },
    Scenario {
        id: "STO-11",
        what: "every answer of Nova comes 8 s late",
        run: |world| {
            world.trouble(Trouble::Slow(8_000));
            world.host_mut(1).cut();
            let said = recovered_by(world, 400_000, Kind::P1)?;
            let calls = world.sent.iter().filter(|(_, call)| matches!(call, Call::Evacuate { .. })).count();
            want(calls == VMS as usize, &said, &format!("one call for each, and none again; {calls}"))
        },
    },
    Scenario {
        id: "STO-13",
        what: "three hosts of a zone of five hang, each of another cluster",
        run: |world| {
            world.again(12, FEW, 8, |_| 1);
            zoned(world, 1..=5)?;
            (1..=3).for_each(|n| hang(world, n));
            untouched(world, 180_000)?;
            held(world, Phase::FencePending)?;
            let modes = modes(world);
            want(modes == [ZoneMode::Normal, ZoneMode::Partial], "", &format!("a zone is Partial: {modes:?}"))?;
            (1..=3).for_each(|n| world.host_mut(n).hung = false);
            closed(world, 300_000)?;
            untouched(world, 60_000)?;
            want(true, "the zone is Partial, nothing fenced, an operator is asked", "")
        },
    },
    Scenario {
        id: "STO-14",
        what: "the only host of a zone hangs, and then loses power",
        run: |world| {
            world.again(12, FEW, 8, |_| 1);
            zoned(world, 1..=1)?;
            hang(world, 1);
            untouched(world, 180_000)?;
            held(world, Phase::FencePending)?;
            let told = modes(world);
            want(told == [ZoneMode::Normal, ZoneMode::Full], "", &format!("a zone is Full: {told:?}"))?;
            // What is proven dead goes to other zones: this one has no host that is heard.
            world.host_mut(1).cut();
            let moved = world.until(180_000, |world| world.all_moved(FEW));
            want(moved && world.fences() == 0, "", "the instances elsewhere, and no fence")?;
            let told = modes(world);
            want(told == [ZoneMode::Normal, ZoneMode::Full], "the zone is Full: fenced by nobody", &format!("{told:?}"))
        },
    },
    Scenario {
        id: "STO-15",
        what: "every zone loses its only host",
        run: |world| {
            world.again(2, VMS, 8, |_| 1);
            zoned(world, 1..=1)?;
            hang(world, 1);
            untouched(world, 60_000)?;
            hang(world, 2);
            untouched(world, 180_000)?;
            let told = modes(world);
            want(told == [ZoneMode::AllFull; 2], "", &format!("all zones are full: {told:?}"))?;
            world.hosts.iter_mut().for_each(|host| host.hung = false);
            closed(world, 300_000)?;
            untouched(world, 60_000)?;
            let told = modes(world);
            want(told == [ZoneMode::Normal; 2], "AllFull: nothing is done, and it goes by itself", &format!("{told:?}"))
        },
    },
];
