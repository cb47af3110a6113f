//! What goes wrong: crashes, cuts, bad weather, clocks that are set, disks that rot or are slow, and
//! changes of the membership in the middle of it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::host::Crash;
use super::net::Weather;
use super::random::Random;
use super::world::World;
use crate::members::Change;

/// Voters that there are at most.
const VOTERS: usize = 5;

/// Lets things go wrong for a while.
pub async fn storm(world: &World, random: &mut Random, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end && world.trace.is_whole() {
        sleep(random.millis(100, 1_500)).await;
        strike(world, random);
    }
}

fn strike(world: &World, random: &mut Random) {
    let (all, up) = (world.hosts(), world.up());
    let Some(one) = random.one_of(&all) else { return };
    match random.below(100) {
        0..22 => crash(world, random, &up),
        22..40 => cut(world, random, &all),
        40..52 => weather(world, random),
        52..58 => {
            let step = random.below(7_200_000) as i64 - 3_600_000;
            world.trace.event(format_args!("the clock of host {one} is set by {step} ms"));
            world.set_clock(one, step);
        }
        58..66 => {
            let most = if random.per_mille(400) { 200 } else { 3 };
            world.trace.event(format_args!("syncs of host {one} take up to {most} ms"));
            world.slow_disk(one, most);
        }
        66..78 => transfer(world, random),
        78..92 => membership(world, random),
        92..96 => world.snapshot(one),
        _ => {
            world.trace.event("the network heals");
            world.net.heal();
        }
    }
}

fn crash(world: &World, random: &mut Random, up: &[u64]) {
    let rests = random.millis(50, 4_000);
    let how = match random.below(100) {
        0..40 => Crash::Killed,
        40..95 => Crash::PowerLost,
        _ => Crash::Rotten,
    };
    let struck: Vec<u64> = match random.below(100) {
        0..12 => up.to_vec(),
        12..24 => up.iter().copied().filter(|_| random.per_mille(500)).collect(),
        _ => world.leader().filter(|_| random.per_mille(500)).or_else(|| random.one_of(up)).into_iter().collect(),
    };
    for host in struck {
        // One rotten disk at a time, and only while the others are a majority.
        let how = if how == Crash::Rotten && !world.may_rot(host) { Crash::PowerLost } else { how };
        world.crash(host, how);
        let world = world.clone();
        world.tasks.clone().spawn(async move {
            sleep(rests).await;
            world.start(host).await;
        });
    }
}

fn cut(world: &World, random: &mut Random, all: &[u64]) {
    let side: Vec<u64> = match random.below(3) {
        0 => world.leader().into_iter().collect(),
        1 => random.one_of(all).into_iter().collect(),
        _ => all.iter().copied().filter(|_| random.per_mille(500)).collect(),
    };
    let both = random.per_mille(600);
    world.trace.event(format_args!("{side:?} is cut off{}", if both { "" } else { " in one direction" }));
    for a in &side {
        for b in all.iter().filter(|b| !side.contains(b)) {
            world.net.cut(*a, *b);
            if both {
                world.net.cut(*b, *a);
            }
        }
    }
    let (net, trace, lasts) = (world.net.clone(), world.trace.clone(), random.millis(100, 6_000));
    world.tasks.spawn(async move {
        sleep(lasts).await;
        trace.event("the network heals");
        net.heal();
    });
}

fn weather(world: &World, random: &mut Random) {
    let weather = match random.below(3) {
        0 => Weather::CALM,
        1 => Weather { loss: 20, twice: 20, late: 50, latest: 100, breaks: 2 },
        _ => Weather { loss: random.below(200), twice: random.below(100), late: 200, latest: 700, breaks: 20 },
    };
    world.trace.event(format_args!("{weather:?}"));
    world.net.set(weather);
}

fn transfer(world: &World, random: &mut Random) {
    let (voters, _) = world.members();
    let Some(to) = random.one_of(&voters) else { return };
    if let Some(leader) = world.leader().filter(|leader| *leader != to && random.per_mille(300)) {
        // The old leader does not hear of the new one.
        let (world, after, lasts) = (world.clone(), random.millis(1, 12), random.millis(100, 2_000));
        world.tasks.clone().spawn(async move {
            sleep(after).await;
            world.trace.event(format_args!("host {leader} hears nothing any more"));
            for other in world.hosts() {
                world.net.cut(other, leader);
            }
            sleep(lasts).await;
            world.net.heal();
        });
    }
    world.change_later(Change::Transfer { to });
}

fn membership(world: &World, random: &mut Random) {
    let (voters, learners) = world.members();
    match random.below(3) {
        0 if voters.len() + learners.len() < VOTERS && world.hosts().len() <= VOTERS => {
            world.add_later();
        }
        1 => {
            if let Some(node) = random.one_of(&learners) {
                world.change_later(Change::Promote { node });
            }
        }
        _ => {
            let candidates = if voters.len() > 3 { voters } else { learners };
            if let Some(node) = random.one_of(&candidates) {
                world.change_later(Change::Remove { node });
            }
        }
    }
}
