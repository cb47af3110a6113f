//! Failover in a simulated world: the fault catalogue as far as it is built, and the leader killed at each of
//! its steps. `cargo test -p simulation --test failover -- --nocapture` prints the table.

use scheduler::ha::Phase;
use simulation::failover::scenarios::ALL;
use simulation::failover::{Cut, Flaw, World};

#[test]
fn scenarios_of_the_catalogue() {
    let mut failed = Vec::new();
    println!("{:<8} {:<56} result", "id", "what");
    for scenario in ALL {
        let (world, result) = scenario.play();
        let (verdict, said) = match &result {
            Ok(said) => ("ok", said),
            Err(why) => ("FAILED", why),
        };
        println!("{:<8} {:<56} {verdict}: {said}", scenario.id, scenario.what);
        if result.is_err() {
            let last = world.log.len().saturating_sub(60);
            failed.push(format!("{}: {said}\n{}", scenario.id, world.log[last..].join("\n")));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// A hung host with two instances, from silence to recovery, with a leader that dies at its nth order or
/// call, before it takes effect or after it.
fn killed_at(cut: Option<Cut>) -> World {
    let mut world = World::new(12, 2, 8);
    world.cut = cut;
    world.host_mut(1).hung = true;
    world.until(400_000, |world| world.all_moved(2) && world.phase(1) == Some(Phase::AwaitReturn));
    world
}

#[test]
fn a_leader_killed_at_any_step_leaves_a_recovery_that_is_done_once() {
    let whole = killed_at(None);
    assert!(whole.all_moved(2), "{}", whole.log.join("\n"));
    assert!(whole.effects > 15, "{} steps", whole.effects);
    for nth in 1..=whole.effects {
        for after in [false, true] {
            let world = killed_at(Some(Cut { nth, after }));
            let once = world.taken.values().all(|count| *count == 1) && world.taken.len() == 2;
            let done = world.all_moved(2) && once && world.broken.is_empty();
            assert!(done, "killed at {nth}, after: {after}, {:?}:\n{}", world.broken, world.log.join("\n"));
        }
    }
}

/// Faults built in on purpose: some scenario notices each.
#[test]
fn faults_built_in_are_noticed() {
    for flaw in [Flaw::NoBarrier, Flaw::BelieveCodes] {
        let noticed = ALL.iter().filter(|scenario| scenario.play_with(Some(flaw)).1.is_err());
        let noticed: Vec<_> = noticed.map(|scenario| scenario.id).collect();
        println!("{flaw:?} is noticed by {noticed:?}");
        assert!(!noticed.is_empty(), "{flaw:?}");
    }
}
