//! What people do: restores, confirmations, overrides.

use scheduler::ha::Phase;
use scheduler::ha::Refusal;
use scheduler::ha::breaker::{Decision, ScopeName};
use scheduler::ha::case::Act;
use scheduler::ha::host::Hello;
use scheduler::ha::order::{Change, Done, Role};
use scheduler::ha::policy::{FailoverPolicy, Mode, Rules, Selector};
use scheduler::ha::proof::{Evidence, Token};
use scheduler::ha::recovery::Status;
use uuid::Uuid;

use super::{FEW, Scenario, VMS, asked, called, hang, recovered, restore, returned, untouched, want};
use crate::failover::nova::Trouble;
use crate::failover::truth::{Bmc, host, machine, vm};
use crate::failover::world::World;

/// A person confirms that a life of host 1 is over; nothing is heard of it.
fn confirmed(world: &mut World, token: Token, incarnation: u64) -> Result<Done, Refusal> {
    let evidence = Evidence::Operator { token, youngest: None };
    world.order(Role::Operator, Change::DeathProof { host: host(1), incarnation, evidence })
}

/// A life in which a pause, answers to a breaker, a confirmation, an exemption, a storm's window, restarts and their window
/// run out, with wall clocks that jump thrice meanwhile: what happened.
fn timed(world: &mut World, skews: [i64; 3]) -> Result<Vec<String>, String> {
    world.again(12, FEW, 8, |_| 1);
    world.skew = skews[0];
    let until = world.now + 60_000;
    want(world.order(Role::Operator, Change::Pause { act: Act::Kill, until }).is_ok(), "", "a pause")?;
    let until = world.now + 100_000;
    want(world.order(Role::Operator, Change::Exempt { host: host(2), until }).is_ok(), "", "an exemption")?;
    hang(world, 1);
    world.run(50_000);
    world.skew = skews[1];
    want(world.fences() == 0, "", "nothing while paused")?;
    recovered(world, 120_000)?;
    // The exempt one, and one that opens the breaker of three within its window.
    world.bmc(3, Bmc::Silent);
    hang(world, 2);
    hang(world, 3);
    world.run(40_000);
    let case = world.ha().cases.get(host(3)).map(|case| (case.id, case.phase)).ok_or("expected: a case")?;
    let token = Token { case: case.0, phase: case.1, at: world.now };
    let scope = ScopeName::Cluster("rack-0".to_owned());
    let ack = Change::BreakerAck { scope, decision: Decision::ProceedAll, until: world.now + 90_000 };
    world.order(Role::Operator, ack).ok();
    world.skew = skews[2];
    for _ in 0..5 {
        let guest = world.host(4).guests.first().copied();
        if let Some(guest) = guest {
            world.crash(4, guest.as_u128() - vm(0).as_u128());
        }
        world.run(50_000);
    }
    // Young enough, by replicated time.
    world.skew = skews[0];
    let evidence = Evidence::Operator { token, youngest: None };
    world.order(Role::Operator, Change::DeathProof { host: host(3), incarnation: 1, evidence }).ok();
    world.run(900_000);
    Ok(std::mem::take(&mut world.log))
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "RST-01",
        what: "a backup with an open case is restored, the host is back",
        run: |world| {
            hang(world, 1);
            world.until(120_000, |world| world.phase(1) == Some(Phase::NovaDown));
            let backup = world.core.freeze();
            recovered(world, 120_000)?;
            let back = world.host_mut(1);
            (back.on, back.boots) = (true, 1);
            let (fences, taken) = (world.fences(), world.taken.clone());
            restore(world, backup);
            hang(world, 5);
            world.run(600_000);
            let paused = world.ha().small.epoch < world.core.state().tables().counters().epoch;
            let still = world.fences() == fences && world.taken == taken;
            want(paused, "", "paused until a person releases it")?;
            want(still, "paused: nothing on old authority", "no fence and no evacuation after the restore")
        },
    },
    Scenario {
        id: "RST-02",
        what: "the old cluster and the restored one run at once",
        run: |world| {
            want(world.nova.marks == [world.cluster], "", "the mark of this cluster in Nova")?;
            // The other one has taken the mark over, amid this leadership, and is gone on by a new one.
            let other = Uuid::from_u128(0xC9);
            world.nova.marks = vec![other];
            world.run(65_000);
            hang(world, 1);
            untouched(world, 200_000)?;
            world.kill_leader();
            untouched(world, 200_000)?;
            want(world.nova.marks == [other], "", "nothing written over the other's mark")?;
            // Both set it at once: each sees both.
            world.nova.marks.push(world.cluster);
            untouched(world, 60_000)?;
            world.trouble(Trouble::Down);
            world.kill_leader();
            world.nova.marks = vec![world.cluster];
            untouched(world, 60_000)?;
            world.nova.marks = vec![other];
            world.trouble(Trouble::None);
            untouched(world, 20_000)?;
            want(world.order(Role::Operator, Change::Release).is_ok(), "", "an operator's order")?;
            let said = recovered(world, 200_000)?;
            want(world.nova.marks == [world.cluster], &said, "the mark taken over")?;
            // That order was for once.
            world.nova.marks = vec![other];
            world.run(130_000);
            want(world.nova.marks == [other], "", "no second taking")?;
            // Nothing is written for hosts that no policy lets it act on.
            world.nova.marks.clear();
            let rules = Rules { mode: Some(Mode::DryRun), ..Rules::default() };
            let selector = Selector { domain: Some(ScopeName::Region), ..Selector::default() };
            let policy = FailoverPolicy { name: "trial".to_owned(), selector, rules };
            want(world.order(Role::Operator, Change::PolicyPut(Box::new(policy))).is_ok(), "", "a policy")?;
            world.run(130_000);
            let none = world.nova.marks.is_empty();
            want(none, &format!("nothing while it is another's; then {said}"), "no mark for a dry run")
        },
    },
    Scenario {
        id: "RST-03",
        what: "a backup of a host that has just booted is restored",
        run: |world| {
            world.host_mut(1).boot_up();
            let booted = world.until(10_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(booted, "", "a case of the boot")?;
            let backup = world.core.freeze();
            restore(world, backup);
            world.hosts.iter_mut().for_each(|host| host.greets = true);
            world.run(10_000);
            want(world.order(Role::Operator, Change::Release).is_ok(), "", "a release")?;
            world.run(600_000);
            let none = world.restarted.is_empty() && world.taken.is_empty();
            want(none && asked(world), "nothing on old authority, an operator is asked", "no restart, NeedsOperator")
        },
    },
    Scenario {
        id: "RST-04",
        what: "a backup is restored whose evacuations are on their way, one of them never called for",
        run: |world| {
            world.nova.takes = 100_000;
            world.host_mut(1).cut();
            let intent = |world: &World| {
                let live = |n| world.ha().recoveries.get(vm(n)).is_some_and(|known| known.live().is_some());
                (1..=VMS).all(live)
            };
            want(world.until(120_000, intent), "", "an intent for each")?;
            let backup = world.core.freeze();
            world.until(30_000, called);
            // What the old cluster called for last was lost with it.
            world.nova.moving.retain(|moving| moving.instance != vm(VMS));
            restore(world, backup);
            world.run(60_000);
            let refused = world.order(Role::Operator, Change::Release).is_err();
            want(refused, "", "no release while Nova works at them")?;
            world.run(120_000);
            let taken = world.taken.clone();
            want(world.order(Role::Operator, Change::Release).is_ok(), "", "a release once they are over")?;
            world.run(120_000);
            let status = |n| world.ha().recoveries.get(vm(n)).map(|known| known.status);
            let moved = (1..VMS).all(|n| matches!(status(n), Some(Status::Succeeded(_)) | None));
            let left = world.hosts.iter().all(|host| !host.guests.contains(&vm(VMS)));
            let read = moved && left && world.taken == taken && world.all_moved(VMS - 1);
            want(read, "read to their end, the one without a trace left for a person", "nothing called for twice")
        },
    },
    Scenario {
        id: "OPS-11",
        what: "confirm-dead is sent again after the host came back",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Silent);
            world.until(60_000, |world| world.phase(1) == Some(Phase::FencePending));
            let Some(case) = world.ha().cases.get(host(1)).map(|case| case.id) else {
                return Err("expected: a case".to_owned());
            };
            let token = Token { case, phase: Phase::FencePending, at: world.now };
            world.host_mut(1).hung = false;
            world.run(60_000);
            let evidence = Evidence::Operator { token, youngest: Some(500) };
            let confirm = Change::DeathProof { host: host(1), incarnation: 1, evidence };
            let refused = world.order(Role::Operator, confirm).is_err();
            want(refused && world.all_home(VMS), "refused", "a refusal")
        },
    },
    Scenario {
        id: "DET-19",
        what: "a clone says Hello with the victim's certificate",
        run: |world| {
            let hello =
                Hello { boot: Uuid::from_u128(77), machine: machine(host(1)), permit_check: true, ..Hello::default() };
            let change = Change::IncarnationOpen { host: host(1), hello: Box::new(hello) };
            let said = world.order(Role::Coordinator, change);
            let alive = world.ha().hosts.get(host(1)).is_some_and(|host| host.is_open() && host.quarantined);
            untouched(world, 60_000)?;
            want(matches!(said, Ok(Done::Quarantined(_))) && alive, "quarantined, no proof", "quarantine")
        },
    },
    Scenario {
        id: "FEN-17",
        what: "a person confirms the death of an incarnation that is over",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Silent);
            world.until(60_000, |world| world.phase(1) == Some(Phase::FencePending));
            let Some(case) = world.ha().cases.get(host(1)).map(|case| case.id) else {
                return Err("expected: a case".to_owned());
            };
            let shown = Token { case, phase: Phase::FencePending, at: world.now };
            world.host_mut(1).boot_up();
            world.run(5_000);
            want(confirmed(world, shown, 1).is_err(), "", "what was shown before is refused")?;
            // It dies in its next life, and a person is shown the case of that.
            returned(world, 600_000)?;
            world.bmc(1, Bmc::Silent);
            world.host_mut(1).cut();
            let open = world.until(300_000, |world| world.phase(1) == Some(Phase::FencePending));
            let case = world.ha().cases.get(host(1)).map(|case| case.id).filter(|_| open);
            let case = case.ok_or("expected: a case of the next life")?;
            let (fresh, life) = (Token { case, phase: Phase::FencePending, at: world.now }, case.incarnation);
            want(life > 1, "", &format!("another life; {life}"))?;
            let refused = (0..life).all(|life| confirmed(world, fresh, life).is_err());
            want(refused, "", "lives before are refused, by a token of this one")?;
            let proofs = world.ha().hosts.get(host(1)).map_or(0, |host| host.proofs.len());
            want(proofs == 1 && world.taken.is_empty(), "", "the proof of the boot alone")?;
            want(confirmed(world, fresh, life).is_ok(), "", "this life may be confirmed")?;
            recovered(world, 180_000).map(|_| "the old life refused, by tokens old and new; this one taken".to_owned())
        },
    },
    Scenario {
        id: "FEN-25",
        what: "a person confirms the death of a host without a BMC",
        run: |world| {
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            world.until(60_000, |world| world.phase(1) == Some(Phase::FencePending));
            let Some(case) = world.ha().cases.get(host(1)).map(|case| case.id) else {
                return Err("expected: a case".to_owned());
            };
            let token = Token { case, phase: Phase::FencePending, at: world.now };
            let evidence = Evidence::Operator { token, youngest: Some(40_000) };
            let confirm = Change::DeathProof { host: host(1), incarnation: 1, evidence };
            want(world.order(Role::Operator, confirm).is_ok(), "", "P7")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "API-08",
        what: "fencing is paused for 10 min, a host hangs at 9",
        run: |world| {
            let until = world.now + 600_000;
            let pause = Change::Pause { act: Act::Kill, until };
            want(world.order(Role::Operator, pause).is_ok(), "", "a pause")?;
            world.run(540_000);
            hang(world, 1);
            world.run(59_000);
            want(world.fences() == 0, "", "nothing while paused")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "CLU-02",
        what: "the leader's wall clock jumps two hours either way",
        run: |world| {
            // Whatever ends by itself, in three lives.
            let straight = timed(world, [0; 3])?;
            for skews in [[7_200_000, -7_200_000, 0], [-7_200_000, 0, 7_200_000]] {
                let jumps = timed(world, skews)?;
                let differs = straight.iter().zip(&jumps).find(|(one, other)| one != other);
                want(differs.is_none() && straight.len() == jumps.len(), "", &format!("the same life: {differs:?}"))?;
            }
            want(true, "a life with jumps is the life without", "")
        },
    },
];
