//! What a person decides of single instances.

use scheduler::ha::case::Act;
use scheduler::ha::order::{Change, Done, Role, Verdict};
use scheduler::ha::recovery::{Status, Stays};
use scheduler::ha::{HostId, Phase, Refusal};

use super::{Scenario, VMS, returned, want};
use crate::failover::truth::{host, vm};
use crate::failover::world::World;

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "ORD-01",
        what: "an instance that Nova refused for good is mended and retried",
        run: |world| {
            world.nova.never = vec![vm(1)];
            world.host_mut(1).cut();
            world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            want(status(world, 1) == Some(Status::Stays(Stays::Refused)), "", "one that stays")?;
            world.nova.never.clear();
            let told = decide(world, 1, Verdict::Retry);
            want(told == Ok(Done::Changed), "", "a retry that is taken")?;
            let moved = world.until(180_000, |world| world.all_moved(VMS));
            let over = world.until(60_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let once = world.taken.values().all(|count| *count == 1);
            want(moved && over && once, "elsewhere by the second attempt", "all elsewhere, one call taken for each")?;
            let again = decide(world, 1, Verdict::Retry);
            want(
                matches!(again, Err(Refusal::Attempt { .. })),
                "moved by a second attempt, then nothing is left",
                "no third",
            )
        },
    },
    Scenario {
        id: "ORD-02",
        what: "an instance is skipped before it begins, and its host comes back",
        run: |world| {
            planned_and_held(world)?;
            want(decide(world, 1, Verdict::Skip) == Ok(Done::Changed), "", "a skip that is taken")?;
            hold(world, None)?;
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let others = !world.taken.contains_key(&vm(1)) && world.taken.len() == VMS as usize - 1;
            let stays = status(world, 1) == Some(Status::Stays(Stays::Skipped));
            want(over && others && stays, "", "three moved, one left")?;
            world.host_mut(1).boot_up();
            returned(world, 300_000)?;
            let late = decide(world, 1, Verdict::Retry);
            want(world.host(1).guests.contains(&vm(1)), "", "it runs where it was")?;
            want(late.is_err(), "left alone, and started where it was", "no retry once the host is back")
        },
    },
    Scenario {
        id: "ORD-03",
        what: "a person says where a planned instance goes",
        run: |world| {
            planned_and_held(world)?;
            let target = |world: &World| {
                let known = world.ha().recoveries.get(vm(1));
                known.and_then(|known| known.attempt.as_ref()).map(|attempt| attempt.target.host)
            };
            let nth = if target(world) == Some(host(7)) { 8 } else { 7 };
            let other = host(nth);
            let to = |host: HostId| Verdict::Retarget(host);
            world.host_mut(5).cut();
            world.until(120_000, |world| world.phase(5).is_some());
            for (wrong, why) in [(host(1), "its own host"), (host(5), "a dead host"), (host(99), "an unknown host")] {
                want(decide(world, 1, to(wrong)).is_err(), "", &format!("a refusal of {why}"))?;
            }
            want(decide(world, 1, to(other)) == Ok(Done::Changed), "", "a host that is taken")?;
            want(target(world) == Some(other), "", "a claim there")?;
            hold(world, None)?;
            world.until(120_000, |world| world.taken.contains_key(&vm(1)));
            let alive = decide(world, 1, to(host(6)));
            want(matches!(alive, Err(Refusal::Attempt { .. })), "", "no other way once it is on its way")?;
            let there = world.until(180_000, |world| world.all_moved(VMS) && world.host(nth).guests.contains(&vm(1)));
            want(there, "it goes there, and the others where they were planned", "all elsewhere, this one there")
        },
    },
];

fn status(world: &World, n: u128) -> Option<Status> {
    world.ha().recoveries.get(vm(n)).map(|known| known.status)
}

fn decide(world: &mut World, n: u128, verdict: Verdict) -> Result<Done, Refusal> {
    let instance = vm(n);
    let Some(case) = world.ha().recoveries.get(instance).map(|known| known.case) else {
        return Err(Refusal::Instance(instance));
    };
    world.order(Role::Operator, Change::Verdict { case, instance, verdict })
}

/// Evacuations of host 1 are held, or go on.
fn hold(world: &mut World, reason: Option<&str>) -> Result<String, String> {
    let case = world.ha().cases.get(host(1)).map(|case| case.id).ok_or("expected: a case")?;
    let change = Change::CaseHold { case, act: Act::Recover, reason: reason.map(str::to_owned) };
    want(world.order(Role::Operator, change).is_ok(), "", "a hold that is taken")
}

/// Host 1 is dead, all its instances have a target, and none has begun.
fn planned_and_held(world: &mut World) -> Result<String, String> {
    world.host_mut(1).cut();
    world.until(120_000, |world| world.phase(1) == Some(Phase::Fenced));
    hold(world, Some("a person sorts"))?;
    let planned = |world: &World| (1..=VMS).all(|n| status(world, n) == Some(Status::Planned));
    want(world.until(120_000, planned) && world.taken.is_empty(), "", "a plan, and nothing begun")
}
