//! One decision of the full KVM general-purpose pipeline over every host of the fleet, on one core:
//! candidates, filters, weighers, order, claim and its command; no log, no network.
//!
//! The fleet and the requests come from seeds. Criterion measures; each decision is also timed by
//! itself for the percentiles.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use hdrhistogram::Histogram;
use scheduler::request::{Caller, Candidates};
use scheduler::{Batch, Command, Core, Engine, Intent, Proposer, Request, Settings};
use serde_json::json;
use simulation::fleet::FleetSpec;
use simulation::requests::Requests;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const PIPELINE: &str = "kvm-general-purpose-load-balancing";
const REQUESTS: usize = 256;

fn core(hosts: usize) -> (Core, Vec<Request>) {
    let fleet = FleetSpec::new(hosts, 42).generate();
    let mut source = Requests::new(&fleet, 7);
    let requests = (0..REQUESTS)
        .map(|_| Request {
            pipeline: Some(PIPELINE.to_owned()),
            candidates: Candidates::All,
            caller: Caller::Keyed { key: None },
            ..source.of(Intent::Create).request()
        })
        .collect();
    let mut core = Core::new();
    let commands = fleet.into_iter().map(|host| Command::Report(Box::new(host))).collect();
    core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
    (core, requests)
}

fn decide(core: &mut Core, engine: &Engine, request: &Request) -> u64 {
    let mut proposal = core.decide(engine, request).expect("a decision");
    black_box(proposal.take_command());
    // Not committed: the claim in flight is dropped again, so that each decision meets one fleet.
    black_box(core.settle(proposal, None));
    1
}

fn main() {
    let engine = plugins::engine(Settings::default());
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(5)).configure_from_args();
    for hosts in SIZES {
        let (mut core, requests) = core(hosts);
        let latency = RefCell::new(Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram"));
        let survivors: u64 = requests
            .iter()
            .map(|request| core.probe(&engine, request).expect("a decision"))
            .map(|decision| {
                decision.steps.iter().filter(|s| s.multiplier.is_none()).map(|s| s.hosts_out).min().unwrap_or(0)
            })
            .sum();
        let mut at = 0;
        criterion.bench_function(&format!("decide/{hosts}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let request = &requests[at % REQUESTS];
                    at += 1;
                    let began = Instant::now();
                    decide(&mut core, &engine, request);
                    let took = began.elapsed();
                    latency.borrow_mut().saturating_record(took.as_nanos() as u64);
                    total += took;
                }
                total
            });
        });
        let latency = latency.into_inner();
        if latency.is_empty() {
            continue;
        }
        let percentile = |q: f64| latency.value_at_quantile(q) as f64 / 1000.0;
        println!(
            "BENCH {}",
            json!({
                "bench": "decide", "case": "kvm general purpose", "hosts": hosts, "unit": "µs",
                "p50": percentile(0.5), "p90": percentile(0.9), "p99": percentile(0.99),
                "fitting": survivors / REQUESTS as u64,
            })
        );
    }
}
