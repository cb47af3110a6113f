//! Nothing is allocated for each host: a decision over ten times as many hosts allocates as often, but
//! for a few vectors that grow. Both fleets are above the number of hosts up to which each host's reason
//! is kept.
#![allow(clippy::unwrap_used)]

use scheduler::command::Proposer;
use scheduler::request::{Caller, Candidates};
use scheduler::{Batch, Command, Core, Engine, Intent, Request, Settings};
use simulation::fleet::FleetSpec;
use simulation::requests::Requests;

const HOSTS: usize = 2_000;
/// Allocations by which a decision over ten times the hosts may have more: vectors that double.
const GROWTH: u64 = 64;

fn fleet(hosts: usize) -> (Core, Vec<Request>) {
    let fleet = FleetSpec::new(hosts, 42).generate();
    let mut source = Requests::new(&fleet, 7);
    let request = || Request {
        candidates: Candidates::All,
        caller: Caller::Keyed { key: None },
        group: None,
        ..source.of(Intent::Create).request()
    };
    let requests = std::iter::repeat_with(request).take(16).collect();
    let mut core = Core::new();
    let commands = fleet.into_iter().map(|host| Command::Report(Box::new(host))).collect();
    core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
    (core, requests)
}

/// Allocations of one decision, the most of all requests. The first round fills what is kept from one
/// decision to the next.
fn allocations(core: &mut Core, engine: &Engine, requests: &[Request]) -> u64 {
    let mut most = 0;
    for round in 0..2 {
        for request in requests {
            core.forget_runs();
            let counted = allocation_counter::measure(|| {
                let mut proposal = core.decide(engine, request).unwrap();
                drop(proposal.take_command());
                drop(core.settle(proposal, None));
            });
            most = if round == 0 { 0 } else { most.max(counted.count_total) };
        }
    }
    most
}

#[test]
fn a_decision_allocates_nothing_for_each_host() {
    let engine = plugins::engine(Settings::default());
    let (mut few, mut few_requests) = fleet(HOSTS);
    let (mut many, mut many_requests) = fleet(10 * HOSTS);
    for pipeline in ["kvm-general-purpose-load-balancing", "kvm-hana-bin-packing", "nova-default", "nova-general"] {
        for request in few_requests.iter_mut().chain(&mut many_requests) {
            request.pipeline = Some(pipeline.to_owned());
        }
        let few = allocations(&mut few, &engine, &few_requests);
        let many = allocations(&mut many, &engine, &many_requests);
        println!("{pipeline}: {few} allocations over {HOSTS} hosts, {many} over {}", 10 * HOSTS);
        assert!(few > 0 && many <= few + GROWTH, "{pipeline}: {few} over {HOSTS} hosts, {many} over {}", 10 * HOSTS);
    }
}
