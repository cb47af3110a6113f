//! A run that is brought up to date gives what a whole run would: two cores see the same, one of them
//! forgets its runs before each decision. Claims in flight, repeats, releases, reports, expiry and
//! calls for many consumers come between; answers and every host's story must be equal.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use scheduler::command::Proposer;
use scheduler::request::{Candidate, Candidates};
use scheduler::{
    Batch, Command, Core, Decision, Domain, Engine, HostReport, Outcome, Proposal, Request, Settings, Settled,
};
use serde_json::{Value, json};
use simulation::fleet::{FleetSpec, nova_host_state};
use simulation::requests::Requests;
use uuid::Uuid;

/// A core, and what it has in flight.
struct Half {
    core: Core,
    flights: VecDeque<(Proposal, Command)>,
    forgets: bool,
}

impl Half {
    fn new(forgets: bool) -> Self {
        Self { core: Core::new(), flights: VecDeque::new(), forgets }
    }

    fn decide(&mut self, engine: &Engine, request: &Request) -> Option<Value> {
        if self.forgets {
            self.core.forget_runs();
        }
        let mut proposal = self.core.decide(engine, request).ok()?;
        match proposal.take_command() {
            Some(command) => {
                let seen = json!(format!("{command:?}"));
                self.flights.push_back((proposal, command));
                Some(seen)
            }
            None => Some(self.told(proposal, None)),
        }
    }

    fn told(&mut self, proposal: Proposal, outcome: Option<Outcome>) -> Value {
        let Settled::Done(decision) = self.core.settle(proposal, outcome) else { return Value::Null };
        let story = self.core.explain(decision.id, &["*".to_owned()]);
        json!({ "decision": &*decision as &Decision, "story": story })
    }

    fn apply(&mut self, at: u64, command: Command) -> Vec<Outcome> {
        let proposer = Proposer { node: 1, run: 1, seq: at };
        self.core.apply(&Batch { proposer, now: at, wall: at, commands: vec![command] })
    }

    fn land(&mut self, at: u64) -> Option<Value> {
        let (proposal, command) = self.flights.pop_front()?;
        let outcome = self.apply(at, command).pop();
        Some(self.told(proposal, outcome))
    }

    fn give_up(&mut self) {
        if let Some((proposal, _)) = self.flights.pop_back() {
            let _ = self.core.settle(proposal, None);
        }
    }
}

/// A fleet that also reports what Nova's own steps look at, and whose aggregates set some multipliers.
fn fleet(random: &mut SmallRng, seed: u64, hosts: usize) -> Vec<HostReport> {
    let mut fleet = FleetSpec::new(hosts, seed).generate();
    for (host, at) in fleet.iter_mut().zip(1..) {
        host.observed_at = Some(at);
        let mut state = nova_host_state(host);
        state["failed_builds"] = json!(random.random_range(0..3));
        state["last_seen_up"] = json!(at);
        state["stats"] = json!({ "rack": random.random_range(0..2) });
        state["cpu_info"] = json!({ "model": *["EPYC", "Xeon"].choose(random).unwrap() });
        host.nova_host_state = Some(state.to_string());
        for aggregate in host.aggregates.iter_mut().flatten().filter(|aggregate| aggregate.name == "bb00") {
            aggregate.metadata.get_or_insert_default().insert("ram_weight_multiplier".to_owned(), "2.5".to_owned());
        }
    }
    fleet
}

fn compare(seed: u64, hosts: usize, settings: Settings) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let fleet = fleet(&mut random, seed, hosts);
    let engine = plugins::engine(settings);
    let mut halves = [Half::new(false), Half::new(true)];
    let mut at = 0;
    for report in &fleet {
        at += 1;
        for half in &mut halves {
            half.apply(at, Command::Report(Box::new(report.clone())));
        }
    }
    let mut made = Requests::new(&fleet, seed);
    let mut shapes: Vec<Request> = (0..8)
        .map(|n| {
            let mut request = made.of(scheduler::Intent::Create).request();
            request.caller = scheduler::request::Caller::default();
            if n < 6 {
                request.candidates = Candidates::All;
            }
            if n < 3 {
                request.pipeline = Some("nova-default".to_owned());
                let asked =
                    ("capabilities:cpu_info:model", *["EPYC", "<or> EPYC <or> Xeon"].choose(&mut random).unwrap());
                request.extra_specs.insert(asked.0.to_owned(), asked.1.to_owned());
            }
            request.options.max_candidates = *[0, 0, 1, 7].choose(&mut random).unwrap();
            request
        })
        .collect();
    shapes.push(made.any().request());
    let mut placed: Vec<Uuid> = Vec::new();
    for _ in 0..400 {
        at += random.random_range(1..50);
        for half in &mut halves {
            half.core.set_clock(at);
        }
        let mut outcomes: Vec<Option<Value>> = Vec::new();
        match random.random_range(0..100) {
            0..60 => {
                let mut request = shapes.choose(&mut random).unwrap().clone();
                let many = if random.random_bool(0.1) { random.random_range(2..20) } else { 1 };
                request.consumers = (0..many).map(|_| Uuid::from_u128(random.random())).collect();
                // Sometimes one that is known already.
                if random.random_bool(0.05)
                    && let Some(known) = placed.choose(&mut random)
                {
                    request.consumers = vec![*known];
                }
                placed.extend(&request.consumers);
                outcomes.extend(halves.iter_mut().map(|half| half.decide(&engine, &request)));
            }
            60..85 => {
                for _ in 0..random.random_range(1..5) {
                    outcomes.extend(halves.iter_mut().map(|half| half.land(at)));
                }
            }
            85..88 => halves.iter_mut().for_each(Half::give_up),
            88..95 => {
                if let Some(&consumer) = placed.choose(&mut random) {
                    let command = Command::Release { domain: Domain::Nova, consumer, open_only: false };
                    for half in &mut halves {
                        half.apply(at, command.clone());
                    }
                }
            }
            95..97 => {
                for half in &mut halves {
                    half.apply(at, Command::Tick);
                }
            }
            _ => {
                let mut report: HostReport = fleet.choose(&mut random).unwrap().clone();
                report.observed_at = Some(at);
                match random.random_range(0..3) {
                    0 => report.disabled = Some(random.random_bool(0.5)),
                    1 => report.instances = report.instances.map(|list| list.into_iter().skip(1).collect()),
                    _ => {}
                }
                for half in &mut halves {
                    half.apply(at, Command::Report(Box::new(report.clone())));
                }
            }
        }
        for pair in outcomes.chunks(2) {
            assert_eq!(pair[0], pair[1], "seed {seed} at {at}");
        }
    }
    for half in &halves {
        assert_eq!(half.core.check(), Vec::<String>::new(), "seed {seed}");
    }
    halves[0].core.runs_that_stood()
}

#[test]
fn a_run_brought_up_to_date_is_a_whole_run() {
    let mut stood = 0;
    for seed in 1..=6 {
        stood += compare(seed, 60, Settings::default());
        // Too many hosts for a story of each.
        stood += compare(seed, 40, Settings { detail_hosts: 10, ..Settings::default() });
    }
    assert!(stood > 500, "the runs that stood: {stood}");
}

#[test]
fn only_a_second_equal_request_keeps_its_run() {
    let fleet = FleetSpec::new(20, 1).generate();
    let mut half = Half::new(false);
    let engine = plugins::engine(Settings::default());
    for (report, at) in fleet.iter().zip(1..) {
        half.apply(at, Command::Report(Box::new(report.clone())));
    }
    let mut request = Requests::new(&fleet, 1).of(scheduler::Intent::Create).request();
    request.candidates = Candidates::All;
    for (consumer, stood) in (1..).zip([0, 0, 1, 2]) {
        request.consumers = vec![Uuid::from_u128(consumer)];
        half.decide(&engine, &request);
        assert_eq!(half.core.runs_that_stood(), stood);
    }
}

/// Decisions over many hosts are explained for a shorter while, so that the memory for it has a bound.
#[test]
fn what_is_kept_for_explanations_is_bounded_by_hosts() {
    let settings = Settings { detail_decisions: 10, detail_hosts: 4, ..Settings::default() };
    let engine = plugins::engine(settings);
    let fleet = FleetSpec::new(20, 1).generate();
    let mut half = Half::new(false);
    for (report, at) in fleet.iter().zip(1..) {
        half.apply(at, Command::Report(Box::new(report.clone())));
    }
    let sent = |report: &HostReport| Candidate {
        host: (&report.name).into(),
        node: report.hypervisor_hostname.as_deref().unwrap_or_default().into(),
        weight: 1.0,
    };
    let mut told = |hosts: &[HostReport], consumer: u128| {
        let mut request = Requests::new(&fleet, 1).of(scheduler::Intent::Create).request();
        request.candidates = Candidates::Sent(hosts.iter().map(sent).collect());
        request.consumers = vec![Uuid::from_u128(consumer)];
        half.decide(&engine, &request);
        half.land(100);
        let kept = |id: &u64| half.core.explain(*id, &[]).is_some_and(|told| told.detail.is_some());
        (1..=20).filter(kept).collect::<Vec<_>>()
    };
    // Forty hosts in all: two decisions over twenty each, or ten over three.
    let kept = [1, 2, 3, 4].map(|consumer| told(&fleet, consumer));
    assert_eq!(kept, [vec![1], vec![1, 2], vec![2, 3], vec![3, 4]]);
    let kept = (5..=20).map(|consumer| told(&fleet[..3], consumer).len()).collect::<Vec<_>>();
    assert_eq!(kept[..8], [2, 3, 4, 5, 6, 7, 7, 8], "with the last over twenty there is room for six more");
    assert_eq!(kept[9..], [10; 7]);
}
