//! A host dies under three real servers: each of its instances comes up elsewhere exactly once, and not before
//! the proof, whoever leads when. Nova is a model with its rules and dangers; BMCs answer Redfish; agents are
//! sessions.
//!
//! `cargo xtask drill` measures the times over many runs, and has leaders killed, paused and cut off at each step of a
//! case.

mod bmcs;
mod estate;
#[allow(dead_code, reason = "the hands' own tests use all of it")]
#[path = "../../operators/tests/model/nova.rs"]
mod nova;
mod trap;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use self::estate::{Death, Estate, Fate};
use self::trap::{Step, When};
use crate::server::run;

/// From the last heartbeat to the first evacuation.
async fn die_and_recover(estate: &mut Estate, death: Death, fate: Option<(Step, When, Fate)>) -> Duration {
    let last = estate.dies(death).await;
    let took = estate.recovered(fate).await.duration_since(last);
    estate.once().await;
    took
}

#[test]
fn a_host_without_power_is_recovered_once() {
    run(async {
        let mut estate = Estate::new().await;
        estate.dies(Death::PowerLost).await;
        let (instance, chosen) = estate.decides().await;
        estate.recovered(None).await;
        estate.once().await;
        assert_eq!(estate.model.cloud().runs_on(instance), [chosen], "where a person sent it");
        assert_eq!(estate.bmcs.of(1).1, 0, "what is off is not switched off");
        estate.comes_back().await;
    });
}

#[test]
fn a_leader_that_dies_within_a_recovery_leaves_nothing_twice() {
    run(async {
        let mut estate = Estate::new().await;
        let fate = (Step::Evacuate, When::After, Fate::Killed);
        let took = die_and_recover(&mut estate, Death::PowerLost, Some(fate)).await;
        println!("power lost, leader killed at the first evacuation, which came after {took:.1?}");
    });
}

#[test]
fn a_leader_that_is_cut_off_within_a_recovery_does_nothing_twice() {
    run(async {
        let Some(mut estate) = Estate::apart().await else {
            return println!("skipped: no network namespaces here");
        };
        let fate = (Step::Evacuate, When::Before, Fate::CutOff(Duration::from_secs(15)));
        die_and_recover(&mut estate, Death::PowerLost, Some(fate)).await;
    });
}

/// Estates at a time.
const ABREAST: usize = 3;

/// What a host may die of, and the aims of the specification for half of the runs and for nearly all, seconds.
const DEATHS: [(Death, u32, u32); 3] = [(Death::PowerLost, 20, 35), (Death::Hung, 35, 60), (Death::Dark, 65, 65)];

/// A number that `cargo xtask drill` sets.
fn given(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a future for each, some of them abreast; a panic is its failure. Prints the runners' closing line.
fn drill<T: Copy + std::fmt::Debug, R>(all: &[T], one: impl AsyncFn(T) -> R) -> Vec<(T, R)> {
    let guarded = async |each: T| {
        let done = AssertUnwindSafe(one(each)).catch_unwind().await.ok();
        println!("{} {each:?}", if done.is_some() { "passed" } else { "FAILED" });
        done.map(|done| (each, done))
    };
    let abreast = given("PALLIUM_DRILL_ABREAST").unwrap_or(ABREAST);
    let ended: Vec<Option<(T, R)>> =
        run(futures::stream::iter(all.iter().copied()).map(guarded).buffer_unordered(abreast).collect());
    let passed = ended.iter().flatten().count();
    println!("{passed} passed, {} failed", ended.len() - passed);
    assert_eq!(passed, all.len(), "some failed");
    ended.into_iter().flatten().collect()
}

#[test]
fn times_under_a_leader_that_is_no_new_one() {
    let runs = given("PALLIUM_DRILL_RUNS").unwrap_or(3);
    let deaths: Vec<Death> = (0..runs).flat_map(|_| DEATHS.map(|(death, ..)| death)).collect();
    let took = drill(&deaths, async |death| {
        let mut estate = if death == Death::Dark { Estate::leased().await } else { Estate::new().await };
        estate.settles().await;
        die_and_recover(&mut estate, death, None).await
    });
    println!("from the last heartbeat to the first evacuation, of {runs} runs each:");
    println!("{:10} {:>8} {:>8} {:>8} {:>8}", "", "p50 s", "aim", "max s", "aim p99");
    for (kind, half_aim, aim) in DEATHS {
        let mut times: Vec<f64> =
            took.iter().filter(|(death, _)| *death == kind).map(|(_, took)| took.as_secs_f64()).collect();
        times.sort_unstable_by(f64::total_cmp);
        if let (Some(half), Some(most)) = (times.get(times.len() / 2), times.last()) {
            println!("{:10} {half:>8.1} {half_aim:>8} {most:>8.1} {aim:>8}", format!("{kind:?}"));
        }
    }
}

#[test]
#[ignore = "cargo xtask drill: half an hour"]
fn a_leader_meets_its_fate_at_each_step() {
    let whens = [When::Before, When::After];
    let lasts = Duration::from_secs(15);
    let fates = [Fate::Killed, Fate::Paused(lasts), Fate::CutOff(lasts)];
    let all: Vec<(Step, When, Fate)> = Step::ALL
        .into_iter()
        .flat_map(|step| whens.map(|when| (step, when)))
        .flat_map(|(step, when)| fates.map(|fate| (step, when, fate)))
        .collect();
    drill(&all, async |fate| {
        let estate = if matches!(fate.2, Fate::CutOff(_)) { Estate::apart().await } else { Some(Estate::new().await) };
        match estate {
            Some(mut estate) => drop(die_and_recover(&mut estate, Death::Hung, Some(fate)).await),
            None => println!("skipped {fate:?}: no network namespaces here"),
        }
    });
}
