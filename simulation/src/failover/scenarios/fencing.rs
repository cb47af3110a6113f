//! Fencing: power-offs, and BMCs that lie.

use scheduler::ha::Phase;
use scheduler::ha::breaker::Decision;
use scheduler::ha::case::FenceOp;
use scheduler::ha::coordinator::Call;
use scheduler::ha::host::{Fencer, HostSpec, Maintenance};
use scheduler::ha::order::{Change, Role, Voter};
use scheduler::ha::proof::{Kind, Token};

use super::{
    Scenario, VMS, asked, called, cordoned, hang, held, leased, policy, recovered, recovered_by, refused, returned,
    untouched, want,
};
use crate::failover::truth::{Bmc, host};
use crate::failover::world::{World, spec};

/// What fences host 1.
fn fenced_by(world: &mut World, fencers: &[Fencer]) -> Result<String, String> {
    let spec = HostSpec { fencers: fencers.to_vec(), ..spec(1) };
    want(world.order(Role::Coordinator, Change::HostUpsert(Box::new(spec))).is_ok(), "", "other fencers")
}

/// Fence operations of the case of host 1.
fn ops(world: &World) -> &[FenceOp] {
    world.ha().cases.get(host(1)).map_or(&[], |case| &case.ops)
}

/// A person takes the case of host 1 back, as its leader hears it.
fn abort(world: &mut World) -> Result<(), String> {
    let case = world.ha().cases.get(host(1)).map(|case| (case.id, case.phase));
    let (case, phase) = case.ok_or("expected: a case")?;
    let last = world.host(1).last_beat.into_iter().max().unwrap_or(0);
    let token = Token { case, phase, at: world.now };
    let change = Change::CaseAbort { token, heard: Some(world.now - last) };
    world.order(Role::Operator, change).map(drop).map_err(|refusal| refusal.to_string())
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "FEN-01",
        what: "the host is off already",
        run: |world| {
            world.host_mut(1).cut();
            let said = recovered_by(world, 120_000, Kind::P1)?;
            let case = world.ha().cases.get(host(1)).is_some_and(|case| case.fences == 0 && case.held_kill.is_none());
            want(world.fences() == 0 && case, &format!("state read, nothing sent; {said}"), "no power-off sent")
        },
    },
    Scenario {
        id: "FEN-02",
        what: "the reset answers 400, the power goes 6 s later",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Refuses);
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "FEN-03",
        what: "the BMC says 204 and does nothing",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Lies);
            world.run(300_000);
            let asks = world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some());
            want(asks && world.taken.is_empty(), "not believed, an operator is asked", "no proof, NeedsOperator")
        },
    },
    Scenario {
        id: "FEN-03b",
        what: "the same by Redfish, and IPMI is behind a watchdog",
        run: |world| {
            fenced_by(world, &[Fencer::Redfish, Fencer::WatchdogLease, Fencer::Ipmi])?;
            hang(world, 1);
            world.bmc(1, Bmc::Lies);
            recovered(world, 180_000)?;
            let by: Vec<_> = ops(world).iter().map(|op| (op.level, op.fencer)).collect();
            want(by == [(0, Fencer::Redfish), (2, Fencer::Ipmi)], "the next level is tried", &format!("both; {by:?}"))
        },
    },
    Scenario {
        id: "FEN-03c",
        what: "a watchdog and a person are in front of Redfish",
        run: |world| {
            fenced_by(world, &[Fencer::WatchdogLease, Fencer::Manual, Fencer::Redfish])?;
            hang(world, 1);
            recovered(world, 120_000)?;
            want(ops(world).len() == 1, "what only waits does not hold it up", "one power-off, by Redfish")
        },
    },
    Scenario {
        id: "FEN-03d",
        what: "a BMC does nothing, the host is heard before the next",
        run: |world| {
            fenced_by(world, &[Fencer::Redfish, Fencer::Ipmi])?;
            hang(world, 1);
            world.bmc(1, Bmc::Lies);
            world.until(60_000, |world| world.fences() > 0);
            world.run(15_000);
            world.host_mut(1).hung = false;
            world.run(120_000);
            let one = ops(world).iter().all(|op| op.fencer == Fencer::Redfish);
            want(one && asked(world), "not gone on with, an operator is asked", "Redfish alone, NeedsOperator")
        },
    },
    Scenario {
        id: "FEN-04",
        what: "PoweringOff for ever",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Stuck);
            world.run(600_000);
            let asks = world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some());
            want(asks && world.taken.is_empty(), "no proof, an operator is asked", "no proof, NeedsOperator")
        },
    },
    Scenario {
        id: "FEN-06",
        what: "the BMC cannot be reached",
        run: |world| {
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            (2..=40).for_each(|n| world.bmc(n, Bmc::Silent));
            world.run(300_000);
            want(world.taken.is_empty() && world.fences() == 0, "nothing started without a proof", "nothing")?;
            held(world, Phase::FencePending)?;
            want(world.ha().cases.len() == 1, "", "a case of the dead host alone")?;
            (1..=40).for_each(|n| world.bmc(n, Bmc::Well));
            recovered_by(world, 180_000, Kind::P1)
        },
    },
    Scenario {
        id: "FEN-07",
        what: "the host is back before anything is sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.phase(1) == Some(Phase::Unreachable));
            world.host_mut(1).hung = false;
            world.run(30_000);
            want(world.fences() == 0 && world.ha().cases.is_empty(), "cleared", "cleared, no power-off")
        },
    },
    Scenario {
        id: "FEN-08",
        what: "the host is back 1 s after the power-off was sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.host_mut(1).hung = false;
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "FEN-08b",
        what: "its BMC did nothing, it is back, and a person takes it back",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Lies);
            let failed = world.until(180_000, |world| world.phase(1) == Some(Phase::FenceFailed));
            want(failed && abort(world).is_err(), "", "a silent host is not taken back")?;
            world.host_mut(1).hung = false;
            world.run(120_000);
            want(asked(world), "", "NeedsOperator")?;
            let sent = world.fences();
            want(abort(world).is_ok(), "", "taken back")?;
            world.run(300_000);
            let kept = world.phase(1).is_none() && world.fences() == sent && world.all_home(VMS);
            want(kept, "", "left running, no new case")?;
            cordoned(world, Some("must be rebooted before it comes back"))?;
            world.host_mut(1).boot_up();
            returned(world, 600_000)?;
            want(world.all_home(VMS) && world.taken.is_empty(), "lives on, and reboots first", "its instances at home")
        },
    },
    Scenario {
        id: "FEN-09",
        what: "the leader dies after the power-off was sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.kill_leader();
            recovered(world, 180_000)?;
            let cases = world.ha().hosts.get(host(1)).map(|host| host.case_seq);
            want(cases == Some(1), "one case, proven by the next leader", "one case")
        },
    },
    Scenario {
        id: "FEN-10",
        what: "the host powers itself on during the evacuation",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.host_mut(1).boot_up();
            recovered(world, 180_000)?;
            let quarantined = world.ha().hosts.get(host(1)).is_some_and(|host| host.quarantined);
            want(quarantined, "quarantined, the attempts finish", "quarantine")
        },
    },
    Scenario {
        id: "FEN-15",
        what: "a voter runs on the host, another one is down",
        run: |world| {
            let on = |node, n: u128| Voter {
                node,
                host: Some(host(n)),
                chassis: format!("chassis-{n}"),
                power: "feed-0".to_owned(),
            };
            let voters = Change::Voters(vec![on(1, 1), on(2, 2), on(3, 3)]);
            want(world.order(Role::Coordinator, voters).is_ok(), "", "voters")?;
            world.voters = vec![1, 2];
            hang(world, 1);
            untouched(world, 120_000)?;
            held(world, Phase::FencePending)?;
            let why = refused(world)?.to_string();
            want(why.contains("no majority"), "", &format!("held for the voters; {why}"))?;
            world.voters = vec![1, 2, 3];
            recovered_by(world, 120_000, Kind::P2)
        },
    },
    Scenario {
        id: "FEN-16",
        what: "the BMC is that of another machine",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Strange);
            untouched(world, 300_000)?;
            held(world, Phase::FencePending)?;
            let ops = world.ha().cases.get(host(1)).map(|case| case.fences);
            want(ops == Some(0), "not fenced by it, an operator is asked", "no intent")
        },
    },
    Scenario {
        id: "FEN-18",
        what: "a host in manual maintenance hangs, then loses power",
        run: |world| {
            let manual = Change::Maintenance { host: host(1), mode: Maintenance::Manual };
            want(world.order(Role::Operator, manual).is_ok(), "", "maintenance")?;
            policy(world, |policy| policy.power_on = true)?;
            hang(world, 1);
            untouched(world, 120_000)?;
            held(world, Phase::FencePending)?;
            let why = refused(world)?.to_string();
            want(why.contains("manual maintenance"), "", &format!("held for the maintenance; {why}"))?;
            world.host_mut(1).cut();
            recovered_by(world, 120_000, Kind::P1)?;
            world.run(300_000);
            let power = world.sent.iter().any(|(_, call)| matches!(call, Call::PowerOff { .. } | Call::PowerOn { .. }));
            want(!power && world.fences() == 0, "no power action, P1 is enough", "no power action, on or off")
        },
    },
    Scenario {
        id: "FEN-05",
        what: "a host and its BMC lose power, leases are given",
        run: |world| {
            leased(world)?;
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            let began = world.now;
            let proven = world.until(65_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(proven && world.now >= began + 34_000, "", "P4, not before 36 s after the last grant")?;
            recovered_by(world, 120_000, Kind::P4)
        },
    },
    Scenario {
        id: "FEN-05b",
        what: "the same without leases",
        run: |world| {
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            let soon = world.until(150_000, asked);
            want(soon, "", "NeedsOperator within 120 s of its phase")?;
            world.run(450_000);
            held(world, Phase::FencePending)?;
            want(world.taken.is_empty(), "nothing started, an operator is asked", "nothing started")
        },
    },
    Scenario {
        id: "FEN-12",
        what: "the leader changes 1 s after a grant",
        run: |world| {
            leased(world)?;
            world.bmc(1, Bmc::Silent);
            world.host_mut(1).cut();
            world.run(1_000);
            world.kill_leader();
            let led = world.now + 3_000;
            let proven = world.until(120_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(proven && world.now >= led + 45_000, "", "P4, not before 45 s of the new leader")?;
            recovered_by(world, 120_000, Kind::P4)
        },
    },
    Scenario {
        id: "FEN-13",
        what: "the agent's clock is 1 % slow",
        run: |world| {
            leased(world)?;
            world.host_mut(1).slow = 10;
            world.run(30_000);
            world.host_mut(1).reaches = [false; 3];
            (world.host_mut(1).storage, world.host_mut(1).data) = (false, false);
            world.bmc(1, Bmc::Silent);
            let proven = world.until(90_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(proven && world.host(1).boots == 1, "", "its watchdog fired before the proof")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "FEN-20",
        what: "quorum is lost for 60 s, leases are strict",
        run: |world| {
            leased(world)?;
            world.kill_leader();
            world.elect = Some(world.now + 60_000);
            world.run(120_000);
            let reset = world.hosts.iter().filter(|host| host.boots > 0).count();
            world.run(300_000);
            let none = world.taken.is_empty();
            want(reset == 40 && none, "every leased host resets itself, nothing moves", "40 resets, P3 for each")
        },
    },
    Scenario {
        id: "FEN-21",
        what: "an isolated host under fence_after 60 s",
        run: |world| {
            policy(world, |policy| policy.fence_isolated = 60_000)?;
            world.host_mut(1).reaches = [false; 3];
            world.run(65_000);
            want(world.fences() == 0, "", "not fenced before")?;
            recovered(world, 180_000)?;
            want(world.host(1).fences > 0, "fenced by policy, then recovered", "a fence")
        },
    },
    Scenario {
        id: "FEN-22",
        what: "a fenced host comes back",
        run: |world| {
            hang(world, 1);
            recovered(world, 120_000)?;
            world.host_mut(1).boot_up();
            returned(world, 300_000)
        },
    },
    Scenario {
        id: "FEN-23",
        what: "a fenced host is powered on by policy",
        run: |world| {
            policy(world, |policy| policy.power_on = true)?;
            hang(world, 1);
            recovered(world, 120_000)?;
            returned(world, 600_000)
        },
    },
    Scenario {
        id: "FEN-26",
        what: "three hosts of a zone hang within 7 s",
        run: |world| {
            hang(world, 1);
            hang(world, 2);
            world.run(7_000);
            hang(world, 11);
            world.until(120_000, |world| world.host(11).fences > 0);
            let at = |n| {
                world.sent.iter().find(|(_, call)| matches!(call, Call::PowerOff { host: id, .. } if *id == host(n)))
            };
            let at = [1, 2, 11].map(|n| at(n).map_or(0, |(at, _)| *at));
            let apart = at[0] > 0 && at[1] - at[0] < 10_000 && at[2] >= at[0] + 10_000;
            want(apart, "two at once, the third after them", &format!("the third 10 s after the first: {at:?}"))
        },
    },
    Scenario {
        id: "FEN-27",
        what: "eight hosts of two zones hang, a person lets all go on",
        run: |world| {
            for n in [1, 2, 3, 4, 21, 22, 23, 24] {
                hang(world, n);
                world.bmc(n, Bmc::Lies);
            }
            world.run(60_000);
            want(world.fences() == 0, "", "the breakers stop it")?;
            let names =
                ["az:az-0", "az:az-1", "cell:cell-0", "cell:cell-1", "cluster:rack-0", "cluster:rack-2", "region"];
            for scope in names {
                let until = world.now + 600_000;
                let scope = scope.parse().map_err(|why: String| why)?;
                let ack = Change::BreakerAck { scope, decision: Decision::ProceedAll, until };
                want(world.order(Role::Operator, ack).is_ok(), "", "an answer")?;
            }
            let mut most = 0;
            for _ in 0..240 {
                world.run(500);
                most = most.max(world.ha().cases.iter().filter(|case| case.phase == Phase::Fencing).count());
            }
            want((4..=5).contains(&most), "no more than five at once", &format!("four or five at once; {most}"))
        },
    },
    Scenario {
        id: "FEN-24",
        what: "a host that came back dies again on its way in",
        run: |world| {
            hang(world, 1);
            recovered(world, 120_000)?;
            world.host_mut(1).boot_up();
            world.until(120_000, |world| world.phase(1) == Some(Phase::Returning));
            world.run(10_000);
            // Within its boot grace only its BMC tells.
            world.host_mut(1).cut();
            world.run(400_000);
            world.host_mut(1).boot_up();
            world.run(300_000);
            let kept = world.ha().hosts.get(host(1)).is_some_and(|host| !host.takes_instances());
            want(kept && asked(world), "an operator must let it in after two deaths", "kept out, NeedsOperator")
        },
    },
];
