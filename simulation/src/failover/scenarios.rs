//! Scenarios of the fault catalogue, by their ids. Each begins with an estate whose rhythm is known, does its
//! harm, and says what came of it; an invariant that breaks on the way fails it whatever it says.

mod detection;
mod evacuation;
mod fencing;
mod maintenance;
mod orders;
mod people;
mod policies;
mod storms;

use scheduler::ha::coordinator::Call;
use scheduler::ha::host::{Detection, Fencer};
use scheduler::ha::order::{Change, Role, Voter};
use scheduler::ha::proof::{Kind, Lease, LeaseMode};
use scheduler::ha::{Phase, Policy, Refusal};

use super::truth::{host, machine};
use super::world::{Flaw, World};

/// All of them, by family.
const FAMILIES: &[&[Scenario]] = &[
    detection::ALL,
    fencing::ALL,
    storms::ALL,
    evacuation::ALL,
    maintenance::ALL,
    people::ALL,
    policies::ALL,
    orders::ALL,
];

/// All that are played.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    FAMILIES.iter().copied().flatten()
}

/// Those of the catalogue that are shown elsewhere, for a door or a piece of its own is what they are about: the test.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("STO-12", "api: requests::an_agent_without_a_stream_is_heard_and_told: nothing reads a host's clock"),
    ("EVA-11", "raft: ears, and scheduler: ha::tests::planner: what is local stays; EVA-12: it is started on return"),
    ("MNT-07", "EVA-15 and FEN-22: a return asks what Nova's compute would delete"),
    ("API-01", "api: masakari::versions_pages_and_what_a_notification_comes_to"),
    ("API-02", "api: masakari::bad_input_is_told_as_masakari_tells_it"),
    ("API-03", "front_door: cluster::a_read_may_say_how_new_it_must_be"),
    ("API-04", "front_door: identities::an_agent_speaks_for_the_host_of_its_certificate"),
    ("API-05", "api: requests::an_agent_without_a_stream_is_heard_and_told"),
    ("API-06", "agent: core::tests::a_flood_of_events_is_bounded_and_told"),
    ("API-07", "operators: events::every_event_arrives_in_order_whatever_the_receiver_does"),
    ("CLU-01", "raft: node::together::a_voter_with_an_older_disk_does_not_vote, and the simulation of clusters"),
    (
        "CLU-02",
        "raft: owner::tests::replicated_time_does_not_follow_a_wall_clock_that_jumps, of what stamps; here of what reads",
    ),
];

/// Those that nothing shows, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "DET-15",
        "Kubernetes is not watched yet; what is deleted there would set maintenance, as in MNT-08, and prove nothing",
    ),
    ("FEN-11", "quorum leases are planned"),
    ("FEN-14", "PDUs are planned"),
    ("FEN-19", "fenced storage is no proof in the first version"),
    ("EVA-19", "admission by slots is planned"),
];

/// One of them.
pub struct Scenario {
    /// Its id in the catalogue.
    pub id: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Does it: what came of it, or what should have.
    pub run: fn(&mut World) -> Result<String, String>,
}

/// Instances of each host of the estate.
const VMS: u128 = 20;
/// Instances where a smaller one is made.
const FEW: u128 = 4;

impl Scenario {
    /// Runs it.
    pub fn play(&self) -> (World, Result<String, String>) {
        self.play_with(None)
    }

    /// Runs it with a fault built in on purpose.
    pub fn play_with(&self, flaw: Option<Flaw>) -> (World, Result<String, String>) {
        let mut world = World::estate(VMS);
        world.flaw(flaw);
        let said = Flaw::with(flaw, || (self.run)(&mut world));
        let result = match world.broken.first() {
            Some(broken) => Err(broken.clone()),
            None => said,
        };
        (world, result)
    }
}

fn want(holds: bool, said: &str, expected: &str) -> Result<String, String> {
    if holds { Ok(said.to_owned()) } else { Err(format!("expected: {expected}")) }
}

/// Everything of host 1 runs elsewhere, once, and Nova was called once for each.
fn recovered(world: &mut World, within: u64) -> Result<String, String> {
    let began = world.now;
    let moved = world.until(within, |world| world.all_moved(world.vms) && world.phase(1) == Some(Phase::AwaitReturn));
    if !moved {
        return Err(format!("expected: all instances elsewhere; the case is in {:?}", world.phase(1)));
    }
    let once = world.taken.values().all(|count| *count == 1) && !asked(world);
    let kind = world.ha().hosts.get(host(1)).and_then(|host| host.proofs.first()).map(|proof| proof.evidence.kind());
    let seconds = (world.now - began) / 1_000;
    want(
        once,
        &format!("recovered in {seconds} s by {}", kind.map_or("nothing", name)),
        "one evacuation for each, and nobody asked",
    )
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::P1 => "P1",
        Kind::P2 => "P2",
        Kind::P3 => "P3",
        Kind::P4 => "P4",
        Kind::P7 => "P7",
    }
}

/// Nobody is fenced, nothing moves.
fn untouched(world: &mut World, within: u64) -> Result<String, String> {
    world.run(within);
    want(world.fences() == 0 && world.taken.is_empty(), "nothing fenced, nothing moved", "no fence, no evacuation")
}

/// The same, by that proof.
fn recovered_by(world: &mut World, within: u64, kind: Kind) -> Result<String, String> {
    let said = recovered(world, within)?;
    let proof = world.ha().hosts.get(host(1)).and_then(|host| host.proofs.first()).map(|proof| proof.evidence.kind());
    want(proof == Some(kind), &said, &format!("a proof {}; it is {proof:?}", name(kind)))
}

/// Why the case of host 1 is not fenced, and that a person was asked.
fn held(world: &World, phase: Phase) -> Result<String, String> {
    let case = world.ha().cases.get(host(1));
    let told = case.map(|case| (case.phase, case.needs_operator.as_deref()));
    let right = told.is_some_and(|(at, asked)| at == phase && asked.is_some());
    want(
        right && world.ha().hosts.get(host(1)).is_some_and(|host| host.proofs.is_empty()),
        "",
        &format!("{phase}, NeedsOperator, no proof; it is {told:?}"),
    )
}

/// Why an order of the leader to fence host 1 would be refused now.
fn refused(world: &mut World) -> Result<Refusal, String> {
    let case = world.ha().cases.get(host(1)).map(|case| case.id).ok_or("expected: a case")?;
    let change = Change::FenceIntent {
        case,
        level: 0,
        fencer: Fencer::Redfish,
        op: uuid::Uuid::from_u128(0xFE),
        machine: machine(host(1)),
        voters: world.voters.clone(),
    };
    world.order(Role::Coordinator, change).err().ok_or_else(|| "expected: a fence that is refused".to_owned())
}

/// Calls that change something, of host 1 or of what ran there, in their order: the kinds of them.
fn acts(world: &World) -> Vec<&'static str> {
    let mut acts: Vec<_> = world
        .sent
        .iter()
        .filter_map(|(_, call)| match call {
            Call::PowerOff { host: id, .. } => (*id == host(1)).then_some("off"),
            Call::ForceDown { host: id, .. } => (*id == host(1)).then_some("forced down"),
            Call::Disable { host: id, .. } => (*id == host(1)).then_some("disabled"),
            Call::Evacuate { .. } => Some("evacuated"),
            _ => None,
        })
        .collect();
    acts.dedup();
    acts
}

/// What failover thinks of host 1 keeps new instances off it, for this reason; none: they may come.
fn cordoned(world: &mut World, why: Option<&str>) -> Result<String, String> {
    let told = world.kept_out(1);
    let expected = why.map(|why| format!("failover_cordon: {why}"));
    want(told == expected, "", &format!("new instances kept off it: {expected:?}; it is {told:?}"))
}

fn detection(world: &World, n: u128) -> Option<Detection> {
    world.ha().hosts.get(host(n)).map(|host| host.belief.detection)
}

fn hang(world: &mut World, n: u128) {
    world.host_mut(n).hung = true;
}

/// The first attempts are called for, or none is.
fn called(world: &World) -> bool {
    world.taken.len() == world.vms as usize
}

/// The cluster is made anew from `backup`.
fn restore(world: &mut World, backup: scheduler::Frozen) {
    world.core = scheduler::Core::of(backup.in_new_epoch());
    world.cluster = uuid::Uuid::from_u128(0xC2);
    world.kill_leader();
}

/// Every host has a watchdog, and leases are given.
fn leased(world: &mut World) -> Result<String, String> {
    let voter = |node| Voter { node, host: None, chassis: "control".to_owned(), power: "control".to_owned() };
    let voters = Change::Voters((1..=3).map(voter).collect());
    want(world.order(Role::Coordinator, voters).is_ok(), "", "voters")?;
    let lease = Change::LeaseEpoch(Lease { mode: LeaseMode::Strict, ..Lease::default() });
    want(world.order(Role::Operator, lease).is_ok(), "", "leases")?;
    world.hosts.iter_mut().for_each(|host| host.fed = Some(0));
    world.run(10_000);
    want(world.hosts.iter().all(|host| host.lease > world.now), "", "a lease for each host")
}

/// The policy is changed by an operator.
fn policy(world: &mut World, change: fn(&mut Policy)) -> Result<String, String> {
    let mut policy = world.ha().small.policy;
    change(&mut policy);
    want(world.order(Role::Operator, Change::Policy(policy)).is_ok(), "", "a policy")
}

/// Host 1 is let in again, with nothing left of its case.
fn returned(world: &mut World, within: u64) -> Result<String, String> {
    let back = world.until(within, |world| {
        let host = world.ha().hosts.get(host(1));
        world.phase(1).is_none() && host.is_some_and(|host| host.takes_instances())
    });
    let service = world.nova.services.get(&host(1)).copied().unwrap_or_default();
    let clean = back && service == (false, false);
    want(clean, "let in again", &format!("the host is let in again; its case is in {:?}", world.phase(1)))
}

/// A person was asked about host 1.
fn asked(world: &World) -> bool {
    world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some())
}
