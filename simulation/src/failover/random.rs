//! Random worlds: a seed draws an estate and the faults of hosts, BMCs, networks, Nova, leaders and people, lives
//! with them for a while, heals everything, and says what is left. The same seed gives the same life.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use scheduler::ha::breaker::{Decision, ScopeName};
use scheduler::ha::case::{Act, Case};
use scheduler::ha::drain::{Drain, Over, Stage};
use scheduler::ha::host::Maintenance;
use scheduler::ha::order::{Change, Role};
use scheduler::ha::planner::{Asks, OnCrash};
use scheduler::ha::policy::{FailoverPolicy, Mode, Rules, Selector};
use scheduler::ha::proof::{Evidence, Lease, LeaseMode, Token};
use scheduler::ha::recovery::VmState;
use scheduler::ha::{Phase, Policy};

use uuid::Uuid;

use super::nova::{ByHand, Trouble};
use super::truth::{Bmc, TrueHost, host, vm};
use super::world::{Flaw, World};

/// A life.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Simulated minutes with faults; forty without follow.
    pub minutes: u64,
    /// How many kinds of faults there are, the oldest first: a seed that was found when there were fewer lives the
    /// same life with as many ([`KINDS`] are all).
    pub kinds: u8,
    /// Hosts at most: [`SMALL`] is what seeds were drawn from first, and up to it they are drawn as they were then.
    pub hosts: u128,
    /// A fault built in on purpose.
    pub flaw: Option<Flaw>,
}

/// Hosts of a small estate, at most: a few instances on three of them.
pub const SMALL: u128 = 16;
/// Hosts of a large one, at most, where nothing else is asked for.
const LARGE: u128 = 40;

/// How many hosts a seed may have where nobody says: one seed of eight has a large estate.
pub fn usual(seed: u64) -> u128 {
    if seed.is_multiple_of(8) { LARGE } else { SMALL }
}

/// Milliseconds between two draws.
const STEP: u64 = 5_000;
/// Minutes without faults at the end.
const CALM: u64 = 40;

/// Lives it; what is broken is in the world.
pub fn live(plan: Plan) -> World {
    Flaw::with(plan.flaw, || lived(plan))
}

fn lived(plan: Plan) -> World {
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    let (mut world, vms) = estate(plan.hosts, &mut rng);
    let hosts = world.hosts.len() as u128;
    world.flaw(plan.flaw);
    settle(&mut world, &mut rng);
    // Few kinds of faults at a time find more than all at once.
    let kinds: Vec<u8> = (0..plan.kinds.min(FRAGILE)).filter(|_| rng.random_bool(0.45)).collect();
    let pace = rng.random_range(0.02..0.25);
    world.say(&format!("seed {}: {hosts} hosts, {vms} instances, faults {kinds:?}", plan.seed));
    let end = world.now + plan.minutes * 60_000;
    let mut heals: Vec<(u64, u8, u128)> = Vec::new();
    let mut haunts: BTreeSet<u128> = BTreeSet::new();
    // By dice of their own: the lives of before stay as they were.
    let mut dice = SmallRng::seed_from_u64(!plan.seed);
    let crashes = plan.kinds > FRAGILE && dice.random_bool(0.4);
    let mut fragile: BTreeSet<(u128, Uuid)> = BTreeSet::new();
    while world.now < end && world.broken.is_empty() {
        let now = world.now;
        let (due, later): (Vec<_>, Vec<_>) = heals.into_iter().partition(|(at, ..)| *at <= now);
        heals = later;
        for (_, kind, n) in due {
            heal(&mut world, kind, n);
            haunts.retain(|haunt| kind != HAUNTS || *haunt != n);
            fragile.retain(|(host, _)| kind != FRAGILE || *host != n);
        }
        if !kinds.is_empty() && rng.random_bool(pace) {
            let kind = kinds[rng.random_range(0..kinds.len())];
            // The hosts with instances are the interesting ones: in a small estate the first three.
            let n = if plan.hosts <= SMALL && rng.random_bool(0.6) {
                rng.random_range(1..=3.min(hosts))
            } else {
                rng.random_range(1..=hosts)
            };
            harm(&mut world, kind, n, vms, &mut rng);
            if kind == HAUNTS {
                haunts.insert(n);
            }
            heals.push((now + rng.random_range(1_000..400_000), kind, n));
        }
        if crashes && dice.random_bool(0.02) {
            let n = dice.random_range(1..=3.min(hosts));
            harm(&mut world, FRAGILE, n, vms, &mut dice);
            fragile.extend(world.host(n).guests.first().map(|guest| (n, *guest)));
            heals.push((now + dice.random_range(100_000..600_000), FRAGILE, n));
        }
        let proven = |phase: Phase| phase.is_proven() && phase.is_unrecovered();
        for n in haunts.extract_if(.., |n| world.phase(*n).is_some_and(proven)).collect::<Vec<_>>() {
            world.say(&format!("host {n} is back between its proof and its evacuations"));
            world.host_mut(n).boot_up();
        }
        for (n, guest) in &fragile {
            if world.host(*n).runs() && world.host(*n).guests.contains(guest) {
                world.crash(*n, guest.as_u128() - vm(0).as_u128());
            }
        }
        world.run(STEP);
    }
    // Drains that are on go on: each must end by itself (INV-29).
    for kind in (0..plan.kinds).filter(|kind| *kind != DRAINED) {
        for n in 1..=hosts {
            heal(&mut world, kind, n);
        }
    }
    if world.broken.is_empty() {
        calm(&mut world);
    }
    world
}

/// Hosts and instances; how many of those.
fn estate(most: u128, rng: &mut SmallRng) -> (World, u128) {
    if most <= SMALL {
        let hosts = rng.random_range(5.min(most)..=most);
        let vms = rng.random_range(2..=10_u128);
        return (World::spread(hosts, vms, rng.random_range(3..=8), |n| 1 + (n * 7) % 3.min(hosts)), vms);
    }
    let hosts = rng.random_range(3..=most);
    let each = rng.random_range(1..=20_u128);
    let room = each as u64 + rng.random_range(1..=4);
    (World::spread(hosts, hosts * each, room, |n| 1 + (n - 1) / each), hosts * each)
}

/// What an operator has settled.
fn settle(world: &mut World, rng: &mut SmallRng) {
    let policy = Policy {
        fence_isolated: if rng.random_bool(0.3) { 60_000 } else { 0 },
        power_on: rng.random_bool(0.5),
        in_place: rng.random_bool(0.8),
        error_instances: rng.random_bool(0.5),
        ..Policy::default()
    };
    world.order(Role::Operator, Change::Policy(policy)).ok();
    if rng.random_bool(0.4) {
        let voter = |node| scheduler::ha::order::Voter {
            node,
            host: None,
            chassis: "control".to_owned(),
            power: "control".to_owned(),
        };
        world.order(Role::Coordinator, Change::Voters((1..=3).map(voter).collect())).ok();
        let lease = Lease { mode: LeaseMode::Strict, ..Lease::default() };
        world.order(Role::Operator, Change::LeaseEpoch(lease)).ok();
        for host in &mut world.hosts {
            host.fed = Some(0);
            host.slow = if rng.random_bool(0.3) { 10 } else { 0 };
        }
        world.run(10_000);
    }
}

/// Kinds of faults.
pub const KINDS: u8 = 31;
/// Another cluster takes the mark in Nova, or sets its own beside it.
const MARKED: u8 = 29;
/// It is drained.
const DRAINED: u8 = 22;
/// It dies, and is back as soon as that is proven.
const HAUNTS: u8 = 25;
/// It goes down on purpose, and says so.
const PLANNED: u8 = 27;
/// A person has Nova move an instance, past failover.
const BY_HAND: u8 = 28;
/// A guest crashes whenever it runs there, and wants to be moved when restarts do not help.
const FRAGILE: u8 = 30;
/// The policy of a dry run that comes and goes.
const TRIAL: &str = "trial";

fn harm(world: &mut World, kind: u8, n: u128, vms: u128, rng: &mut SmallRng) {
    // What small estates were drawn from before.
    let vms = vms.max(10);
    world.say(&format!("harm {kind} to host {n}"));
    let now = world.now;
    let until = now + rng.random_range(10_000..600_000);
    match kind {
        0 | HAUNTS => world.host_mut(n).cut(),
        PLANNED => world.host_mut(n).shut_down(now, rng.random_range(60_000..900_000)),
        1 => world.host_mut(n).hung = world.host(n).on,
        2 => world.host_mut(n).reaches = [false; 3],
        3 => world.host_mut(n).reaches[rng.random_range(0..3)] = false,
        4 => (world.host_mut(n).storage, world.host_mut(n).data) = (rng.random_bool(0.5), rng.random_bool(0.5)),
        5 => world.host_mut(n).agent = false,
        6 => {
            let modes = [Bmc::Silent, Bmc::Lies, Bmc::Refuses, Bmc::Stuck, Bmc::Strange];
            world.bmc(n, modes[rng.random_range(0..modes.len())]);
        }
        7 => {
            let troubles = [
                Trouble::Down,
                Trouble::LostAnswers,
                Trouble::Late(rng.random_range(1_000..150_000)),
                Trouble::Partial,
                Trouble::Slow(rng.random_range(1_000..20_000)),
            ];
            world.trouble(troubles[rng.random_range(0..troubles.len())]);
        }
        8 => world.nova.refusing.push(host(n)),
        9 => world.kill_leader(),
        10 => world.pause(rng.random_bool(0.7)),
        11 => world.host_mut(n).boot_up(),
        12 => world.restart_all(),
        13 => world.host_mut(n).libvirt = false,
        14 => world.skew = rng.random_range(-7_200_000..7_200_000),
        15 => world.host_mut(n).restores = true,
        16 => {
            let act = if rng.random_bool(0.5) { Act::Kill } else { Act::Recover };
            world.operate(Change::Pause { act, until });
        }
        17 => {
            let mode = [Maintenance::Manual, Maintenance::Auto][rng.random_range(0..2)];
            world.operate(Change::Maintenance { host: host(n), mode });
        }
        18 => {
            let scopes: Vec<ScopeName> = ["rack-0", "rack-1"].map(|rack| ScopeName::Cluster(rack.to_owned())).into();
            let scope = if rng.random_bool(0.5) { ScopeName::Region } else { scopes[rng.random_range(0..2)].clone() };
            world.operate(Change::BreakerAck { scope, decision: Decision::ProceedAll, until });
        }
        19 => confirm(world, n),
        DRAINED => {
            if let Some(incarnation) = world.ha().hosts.get(host(n)).map(|host| host.incarnation) {
                world.operate(Change::DrainOpen { host: host(n), incarnation, mode: Maintenance::Auto });
            }
        }
        20 => {
            // A person evacuates by hand what surely does not run any more.
            let instance = vm(rng.random_range(1..=vms));
            let from = world.nova.servers.get(&instance).map(|server| server.host);
            let dead = from.is_some_and(|from| !world.by_id(from).on);
            // Where pallium evacuates it already, nobody does beside it: Nova would take both.
            let begun = world.ha().recoveries.get(instance).is_some_and(|known| known.live().is_some());
            if dead && !begun && world.nova.migrations(instance).all(|moving| moving.over.is_some()) {
                world.nova.evacuate(instance, host(n), false, now);
            }
        }
        BY_HAND => {
            let instance = vm(rng.random_range(1..=vms));
            let by_hand = if rng.random_bool(0.5) { ByHand::Live } else { ByHand::Cold(None) };
            // Nova itself refuses what its target's hypervisor, or its source's, cannot do.
            let well = |host: &TrueHost| host.runs() && host.compute && host.libvirt;
            let server = world.nova.servers.get(&instance).copied();
            let moves = server.is_some_and(|server| {
                let source = world.by_id(server.host);
                let runs = well(source) && source.guests.contains(&instance);
                let up = world.nova.services.get(&server.host).is_none_or(|(forced_down, _)| !forced_down);
                runs && up && server.vm == VmState::Active && server.host != host(n) && well(world.host(n))
            });
            if moves {
                world.nova.migrate(instance, host(n), Some(by_hand), now);
            }
        }
        23 => world.ambush = true,
        MARKED => {
            world.nova.marks.retain(|_| rng.random_bool(0.5));
            world.nova.marks.insert(0, Uuid::from_u128(0xC9));
        }
        26 => {
            let selector = match rng.random_range(0..3) {
                0 => Selector { domain: Some(ScopeName::Region), ..Selector::default() },
                1 => Selector { domain: Some(ScopeName::Cluster("rack-0".to_owned())), ..Selector::default() },
                _ => Selector { hosts: vec![format!("node-{n}")], ..Selector::default() },
            };
            let mode = Some(if rng.random_bool(0.7) { Mode::DryRun } else { Mode::Off });
            let rules = Rules { mode, ..Rules::default() };
            let policy = FailoverPolicy { name: TRIAL.to_owned(), selector, rules };
            world.operate(Change::PolicyPut(Box::new(policy)));
        }
        FRAGILE => {
            let asks = Asks { on_crash: Some(OnCrash::RestartThenMove), ..Asks::default() };
            let guest = world.host(n).guests.first().copied();
            world.nova.asks.extend(guest.map(|guest| (guest, asks)));
        }
        24 => {
            // Nobody sees it any more, nor its BMC, and it goes on.
            let host = world.host_mut(n);
            (host.reaches, host.storage, host.data, host.bmc) = ([false; 3], false, false, Bmc::Silent);
        }
        _ => {
            let guest = world.host(n).guests.first().copied();
            if let Some(guest) = guest.filter(|_| world.host(n).runs()) {
                world.crash(n, guest.as_u128() - vm(0).as_u128());
            }
        }
    }
}

/// A person who looked confirms what is so.
fn confirm(world: &mut World, n: u128) {
    let Some(case) = world.ha().cases.get(host(n)).map(|case| (case.id, case.phase)) else { return };
    if world.host(n).on {
        return;
    }
    let token = Token { case: case.0, phase: case.1, at: world.now };
    let evidence = Evidence::Operator { token, youngest: Some(60_000) };
    world.operate(Change::DeathProof { host: host(n), incarnation: case.0.incarnation, evidence });
}

fn heal(world: &mut World, kind: u8, n: u128) {
    match kind {
        0 | 1 | 15 | HAUNTS | PLANNED => {
            let now = world.now;
            let host = world.host_mut(n);
            host.restores = false;
            host.hung = false;
            if !host.on {
                host.boots_at = host.boots_at.or(Some(now + 30_000));
            }
        }
        2 | 3 => world.host_mut(n).reaches = [true; 3],
        4 => (world.host_mut(n).storage, world.host_mut(n).data) = (true, true),
        5 => world.host_mut(n).agent = true,
        6 => world.bmc(n, Bmc::Well),
        MARKED => world.operate(Change::Release),
        7 => world.trouble(Trouble::None),
        8 => world.nova.refusing.clear(),
        10 => world.go_on(),
        23 => {
            world.ambush = false;
            world.go_on();
        }
        24 => {
            let host = world.host_mut(n);
            (host.reaches, host.storage, host.data, host.bmc) = ([true; 3], true, true, Bmc::Well);
        }
        26 if world.ha().small.policies.iter().any(|kept| kept.policy.name == TRIAL) => {
            world.operate(Change::PolicyRemove(TRIAL.to_owned()));
        }
        13 => world.host_mut(n).libvirt = true,
        14 => world.skew = 0,
        16 => {
            for act in [Act::Kill, Act::Recover] {
                if world.ha().paused(act) > 0 {
                    world.operate(Change::Pause { act, until: 0 });
                }
            }
        }
        DRAINED => {
            world.operate(Change::DrainEnd { host: host(n), over: Over::Cancelled });
            if world.ha().hosts.get(host(n)).is_some_and(|host| host.maintenance == Maintenance::Auto) {
                world.operate(Change::Maintenance { host: host(n), mode: Maintenance::None });
            }
        }
        // Where a drain goes on its end is what ends the maintenance.
        17 if world.ha().drains.get(host(n)).is_none()
            && world.ha().hosts.get(host(n)).is_some_and(|host| host.maintenance != Maintenance::None) =>
        {
            world.operate(Change::Maintenance { host: host(n), mode: Maintenance::None });
        }
        _ => {}
    }
}

/// Nothing is wrong any more. Every case is over, or a person was asked; every instance runs once, or it is told
/// why not.
fn calm(world: &mut World) {
    // The operator was shown whose mark it is once the leader has read it.
    world.run(120_000);
    world.operate(Change::Release);
    world.run((CALM - 2) * 60_000);
    let mut left = Vec::new();
    for case in world.ha().cases.iter() {
        let waits = matches!(case.phase, Phase::AwaitReturn)
            && !world.ha().hosts.get(case.id.host).is_some_and(|h| h.is_open());
        if case.needs_operator.is_none() && !waits {
            left.push(format!("INV-27 case {} is in {} and nobody is asked", case.id, case.phase));
        }
    }
    // A drain waits for the cases of its cluster, and for the persons who were asked about them.
    let cluster = |id| world.ha().hosts.get(id).map(|host| host.places.cluster);
    let yields = |id| {
        let of = |case: &Case| case.phase.is_unrecovered() && cluster(case.id.host) == cluster(id);
        // A person gave a host that is drained another maintenance: it waits for that person, and others for it.
        let taken = |drain: &Drain| {
            let host = world.ha().hosts.get(drain.host);
            let over = matches!(drain.stage, Stage::Over(_));
            !over
                && cluster(drain.host) == cluster(id)
                && host.is_some_and(|host| host.maintenance != Maintenance::Auto)
        };
        let asked = world.ha().cases.iter().any(|case| of(case) && case.needs_operator.is_some());
        asked || world.ha().drains.iter().any(|drain| taken(drain))
    };
    for drain in world.ha().drains.iter().filter(|drain| !matches!(drain.stage, Stage::Over(_)) && !yields(drain.host))
    {
        left.push(format!("INV-29 the drain of {} does not end: it is {:?}", drain.host, drain.stage));
    }
    let asked = |host| {
        let case = world.ha().cases.get(host);
        case.is_some_and(|case| case.needs_operator.is_some() || case.phase == Phase::AwaitReturn)
    };
    for (instance, server) in &world.nova.servers {
        let runs = world.hosts.iter().filter(|host| host.guests.contains(instance)).count();
        let permit = world.ha().permits.get(*instance).map(|permit| permit.life.host);
        let told = asked(server.host) || permit.is_some_and(asked);
        let tired = world.ha().restarts.get(*instance).is_some_and(|known| known.well == Some(false));
        // One that crashed by itself stays so where no policy starts it again.
        let policy = world.ha().small.policy.in_place;
        let stays = !policy && world.hosts.iter().any(|host| host.crashed.contains(instance));
        // What Nova gave up while a person had it moved is in error, and that person's.
        let failed = world.nova.migrations(*instance).any(|moving| matches!(moving.by_hand, Some(ByHand::Cold(_))));
        let failed = failed && server.vm == VmState::Error;
        // Three hosts died under it.
        let poison = world.ha().is_poison(*instance);
        if runs == 0 && !told && !tired && !poison && !stays && !failed {
            left.push(format!(
                "INV-26 instance {instance} runs nowhere, Nova has it {:?} on {}",
                server.vm, server.host
            ));
        }
        if runs == 1 && !told && permit != Some(server.host) {
            left.push(format!("INV-21 instance {instance}: Nova has it on {}, its permit is {permit:?}", server.host));
        }
    }
    for what in left {
        world.broke(what);
    }
}
