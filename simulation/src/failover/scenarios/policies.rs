//! Policies for some hosts: dry runs beside zones that act. Not in the catalogue.

use scheduler::ha::breaker::ScopeName;
use scheduler::ha::order::{Change, Role};
use scheduler::ha::planner::{Asks, Rank};
use scheduler::ha::policy::{FailoverPolicy, Mode, Rules, Selector};

use super::{FEW, Scenario, asked, hang, recovered, returned, untouched, want};
use crate::failover::truth::{host, vm};
use crate::failover::world::World;

/// A host of another zone than host 1's.
const OTHER: u128 = 21;

fn put(world: &mut World, name: &str, selector: Selector, rules: Rules) -> Result<String, String> {
    let policy = FailoverPolicy { name: name.to_owned(), selector, rules };
    want(world.order(Role::Operator, Change::PolicyPut(Box::new(policy))).is_ok(), "", "a policy")
}

fn zone(world: &mut World, mode: Mode) -> Result<String, String> {
    let selector = Selector { domain: Some(ScopeName::Az("az-0".to_owned())), ..Selector::default() };
    put(world, "zone", selector, Rules { mode: Some(mode), ..Rules::default() })
}

fn would(world: &World, n: u128) -> Option<&str> {
    world.ha().cases.get(host(n))?.would.as_deref()
}

/// Two zones, with instances on the first host of each.
fn two_zones(world: &mut World) {
    world.again(24, 2 * FEW, 8, |v| if v <= FEW { 1 } else { OTHER });
}

/// A few instances, on host 1.
fn few(world: &mut World) {
    world.again(12, FEW, 8, |_| 1);
}

/// Instances that run on the first host of the other zone.
fn at_other(world: &World) -> usize {
    (FEW + 1..=2 * FEW).filter(|v| world.host(OTHER).guests.contains(&vm(*v))).count()
}

/// Those of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        id: "POL-01",
        what: "one zone is in a dry run, the other acts; a host of each hangs",
        run: |world| {
            two_zones(world);
            zone(world, Mode::DryRun)?;
            hang(world, 1);
            hang(world, OTHER);
            let moved = world.until(180_000, |world| at_other(world) == 0 && world.taken.len() == FEW as usize);
            want(moved, "", "the other zone recovers")?;
            world.run(120_000);
            let still = world.host(1).fences == 0 && world.all_home(FEW) && world.taken.len() == FEW as usize;
            want(still && !asked(world), "", "nothing is done in the zone of the dry run, and nobody is asked")?;
            want(would(world, 1) == Some("be fenced by redfish"), "", "what would be done is told")?;
            // It ends: the case goes on from where it stood.
            zone(world, Mode::Enforce)?;
            recovered(world, 120_000)?;
            want(would(world, 1).is_none(), "told in one zone, done in the other, then in both", "nothing is withheld")
        },
    },
    Scenario {
        id: "POL-02",
        what: "a host loses power in a dry run, and comes back when it acts",
        run: |world| {
            zone(world, Mode::DryRun)?;
            world.host_mut(1).cut();
            untouched(world, 180_000)?;
            let marked = world.nova.services.get(&host(1)).copied().unwrap_or_default();
            want(marked == (false, false), "", "nothing is marked in Nova")?;
            want(
                would(world, 1).is_some_and(|what| what.contains("marked as down")),
                "",
                "what would be done is told",
            )?;
            zone(world, Mode::Enforce)?;
            recovered(world, 120_000)?;
            world.host_mut(1).boot_up();
            returned(world, 300_000)
        },
    },
    Scenario {
        id: "POL-03",
        what: "a host hangs whose failover is off",
        run: |world| {
            zone(world, Mode::Off)?;
            hang(world, 1);
            untouched(world, 180_000)?;
            want(world.ha().cases.is_empty(), "no case begins", "no case")?;
            zone(world, Mode::Enforce)?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "POL-04",
        what: "a dry run begins amid an evacuation of one at a time",
        run: |world| {
            few(world);
            let one = Rules { from_source: Some(1), ..Rules::default() };
            put(world, "slow", Selector { domain: Some(ScopeName::Region), ..Selector::default() }, one)?;
            hang(world, 1);
            world.until(180_000, |world| world.taken.len() == 2);
            let live = world.ha().recoveries.iter().filter(|recovery| recovery.live().is_some()).count();
            want(live <= 1, "", "one at a time")?;
            zone(world, Mode::DryRun)?;
            world.run(5_000);
            let taken = world.taken.len();
            world.run(180_000);
            want(world.taken.len() == taken && taken < FEW as usize, "", "none is begun in a dry run")?;
            zone(world, Mode::Enforce)?;
            recovered(world, 400_000)
        },
    },
    Scenario {
        id: "EVA-09b",
        what: "room for all, one at a time, and the last is urgent",
        run: |world| {
            few(world);
            let one = Rules { from_source: Some(1), ..Rules::default() };
            put(world, "slow", Selector { domain: Some(ScopeName::Region), ..Selector::default() }, one)?;
            world.nova.asks =
                [(vm(FEW), Asks { rank: Rank { class: 0, ..Rank::default() }, ..Asks::default() })].into();
            world.host_mut(1).cut();
            world.until(180_000, |world| !world.taken.is_empty());
            want(world.taken.keys().eq([&vm(FEW)]), "", "the urgent one first")?;
            recovered(world, 400_000)
        },
    },
    Scenario {
        id: "POL-05",
        what: "of two hosts of a zone that hang one is in a dry run",
        run: |world| {
            let one = Selector { hosts: vec!["node-1".to_owned()], ..Selector::default() };
            put(world, "one", one, Rules { mode: Some(Mode::DryRun), ..Rules::default() })?;
            // Looked at before the other one, again and again.
            hang(world, 1);
            world.until(120_000, |world| would(world, 1).is_some());
            hang(world, 11);
            let fenced = world.until(60_000, |world| world.host(11).fences > 0);
            want(fenced && world.host(1).fences == 0, "it takes no turn of the other's", "only the other one is fenced")
        },
    },
];
