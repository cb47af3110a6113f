//! One decision of the full KVM general-purpose pipeline, and of the one that ranks as Nova does, over
//! every host of the fleet, on one core: candidates, filters, weighers, order, claim and its command; no
//! log, no network.
//!
//! The fleet and the requests come from seeds. Criterion measures; each decision is also timed by
//! itself for the percentiles, and each step of it. Beside them a bare scan of the same hosts (`support/scan.rs`) shows what
//! the machine needs at least. With a Python that has Nova in `PALLIUM_NOVA_PYTHON` (`cargo xtask bench
//! --vs-nova`), Nova's own filters and weighers are timed over the same hosts beside it.

#[path = "support/nova.rs"]
mod nova;
#[path = "support/scan.rs"]
mod scan;

use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use hdrhistogram::Histogram;
use scheduler::request::{Caller, Candidates};
use scheduler::{Batch, Command, Core, Decision, Engine, HostReport, Intent, Proposer, Request, Settings};
use serde_json::json;
use simulation::fleet::{FleetSpec, nova_host_state};
use simulation::requests::Requests;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Name and case.
const PIPELINES: [(&str, &str); 2] =
    [("kvm-general-purpose-load-balancing", "kvm general purpose"), ("nova-default", "nova default")];
const REQUESTS: usize = 256;

fn fleet(hosts: usize) -> Vec<HostReport> {
    let mut fleet = FleetSpec::new(hosts, 42).generate();
    for host in &mut fleet {
        host.nova_host_state = Some(nova_host_state(host).to_string());
    }
    fleet
}

fn requests(fleet: &[HostReport]) -> Vec<Request> {
    let mut source = Requests::new(fleet, 7);
    let plain = || Request {
        candidates: Candidates::All,
        caller: Caller::Keyed { key: None },
        ..source.of(Intent::Create).request()
    };
    std::iter::repeat_with(plain).take(REQUESTS).collect()
}

fn core(fleet: Vec<HostReport>) -> Core {
    let mut core = Core::new();
    let commands = fleet.into_iter().map(|host| Command::Report(Box::new(host))).collect();
    core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
    core
}

fn decide(core: &mut Core, engine: &Engine, request: &Request) {
    let mut proposal = core.decide(engine, request).expect("a decision");
    black_box(proposal.take_command());
    // Not committed: the claim in flight is dropped again, so that each decision meets one fleet.
    black_box(core.settle(proposal, None));
}

/// The hook's body with 20 hosts, as bytes, to a request.
fn translate(criterion: &mut Criterion) {
    let (_, text) = simulation::fixtures::REQUESTS[1];
    let body: serde_json::Value = serde_json::from_str(text).expect("a recorded request is JSON");
    let body = body.to_string();
    let mut latency = histogram();
    criterion.bench_function("translate", |bencher| {
        bencher.iter_custom(|rounds| {
            timed(rounds, &mut latency, || {
                black_box(api::nova::translate(black_box(body.as_bytes())).expect("a request"));
            })
        });
    });
    report("translate", "the hook's body", 20, &latency, json!({ "bytes": body.len() }));
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram")
}

fn timed(rounds: u64, latency: &mut Histogram<u64>, mut work: impl FnMut()) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let began = Instant::now();
        work();
        let took = began.elapsed();
        latency.saturating_record(took.as_nanos() as u64);
        total += took;
    }
    total
}

fn report(bench: &str, case: &str, hosts: usize, latency: &Histogram<u64>, more: serde_json::Value) {
    if latency.is_empty() {
        return;
    }
    let percentile = |q: f64| latency.value_at_quantile(q) as f64 / 1000.0;
    let mut row = json!({
        "bench": bench, "case": case, "hosts": hosts, "unit": "µs",
        "p50": percentile(0.5), "p90": percentile(0.9), "p99": percentile(0.99),
    });
    if let (Some(row), serde_json::Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    println!("BENCH {row}");
}

/// One request again and again, for another consumer each time, each claim applied before the next:
/// only what the claim changed is judged anew. Every 20th time a claim of another request comes between.
fn again(core: &mut Core, engine: &Engine, requests: &[Request], (case, hosts): (&str, usize)) {
    /// Of all cases: a consumer that is known already is another question.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut latency = histogram();
    let stood = core.runs_that_stood();
    let fits = |request: &&Request| request.group.is_none() && request.resources.get("VCPU") == Some(&2);
    let mut request = requests.iter().find(fits).expect("a small request").clone();
    for n in 1..=20_000_u64 {
        let other = requests[n as usize % requests.len()].clone();
        let request = if n.is_multiple_of(20) { &mut { other } } else { &mut request };
        request.consumers = vec![uuid::Uuid::from_u64_pair(1, NEXT.fetch_add(1, Ordering::Relaxed))];
        let began = Instant::now();
        let mut proposal = core.decide(engine, request).expect("a decision");
        if !n.is_multiple_of(20) {
            latency.saturating_record(began.elapsed().as_nanos() as u64);
        }
        let outcome = proposal.take_command().and_then(|command| {
            let commands = vec![command];
            core.apply(&Batch { proposer: Proposer::default(), now: n, wall: n, commands }).pop()
        });
        black_box(core.settle(proposal, outcome));
    }
    let stood = core.runs_that_stood() - stood;
    report("decide again", case, hosts, &latency, json!({ "stood": stood }));
}

/// What each step of a whole decision costs, by its name.
fn steps(core: &mut Core, requests: &[Request], (case, hosts): (&str, usize)) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let mut engine = plugins::engine(Settings::default());
    engine.timer = || START.elapsed().as_nanos() as u64;
    let mut costs: Vec<(String, Histogram<u64>)> = Vec::new();
    for request in requests {
        let decision = core.probe(&engine, request).expect("a decision");
        for (at, (step, nanoseconds)) in decision.steps.iter().zip(&decision.timings).enumerate() {
            if costs.len() == at {
                costs.push((step.name.clone(), histogram()));
            }
            costs[at].1.saturating_record(*nanoseconds);
        }
    }
    for (step, latency) in &costs {
        report("step", &format!("{case}: {step}"), hosts, latency, json!({}));
    }
}

/// What would help requests for which no host has enough: what the deciding thread does for it, and the search.
fn remedies(core: &Core, engine: &Engine, requests: &[Request], (case, hosts): (&str, usize)) {
    let (mut taken, mut searched) = (histogram(), histogram());
    let (mut found, mut bounded) = (0, 0);
    for request in requests.iter().take(8) {
        let mut request = request.clone();
        request.resources.values_mut().for_each(|amount| *amount = amount.saturating_mul(64));
        let began = Instant::now();
        let survey = core.survey(engine, &request).expect("a sensible request");
        taken.saturating_record(began.elapsed().as_nanos() as u64);
        let began = Instant::now();
        let remedies = survey.remedies();
        searched.saturating_record(began.elapsed().as_nanos() as u64);
        found += remedies.remedies.len();
        bounded += usize::from(remedies.bounded);
    }
    report("what would help", &format!("{case}: taken by the deciding thread"), hosts, &taken, json!({}));
    report(
        "what would help",
        &format!("{case}: searched elsewhere"),
        hosts,
        &searched,
        json!({ "found": found, "bounded": bounded }),
    );
}

fn main() {
    let engine = plugins::engine(Settings::default());
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(5)).configure_from_args();
    translate(&mut criterion);
    let mut peer = nova::Nova::start();
    for hosts in SIZES {
        let fleet = fleet(hosts);
        let mut requests = requests(&fleet);
        if let Some(peer) = peer.as_mut().filter(|_| hosts <= nova::MOST) {
            let seconds = peer.time(&fleet, &requests[..nova::REQUESTS]);
            let mut latency = histogram();
            for seconds in seconds {
                latency.saturating_record((seconds * 1e9) as u64);
            }
            report("decide", "Nova's own default", hosts, &latency, json!({}));
        }
        bare(&fleet, &requests);
        let mut core = core(fleet);
        for (pipeline, case) in PIPELINES {
            for request in &mut requests {
                request.pipeline = Some(pipeline.to_owned());
            }
            whole(&mut criterion, &mut core, &engine, &requests, (case, hosts));
            steps(&mut core, &requests, (case, hosts));
            again(&mut core, &engine, &requests, (case, hosts));
            remedies(&core, &engine, &requests, (case, hosts));
        }
    }
}

/// The floor: the same hosts and requests as columns of numbers, and nothing around them.
fn bare(fleet: &[HostReport], requests: &[Request]) {
    let mut scan = scan::Scan::new(fleet);
    let asked: Vec<_> = requests.iter().map(|request| scan.asked(request)).collect();
    let fitting: usize = asked.iter().map(|asked| scan.run(asked).1).sum();
    let mut latency = histogram();
    for asked in asked.iter().cycle().take(20 * REQUESTS) {
        timed(1, &mut latency, || {
            black_box(scan.run(black_box(asked)));
        });
    }
    report("decide", "bare scan", fleet.len(), &latency, json!({ "fitting": fitting / REQUESTS }));
}

/// Decisions that begin from nothing each time.
fn whole(
    criterion: &mut Criterion,
    core: &mut Core,
    engine: &Engine,
    requests: &[Request],
    (case, hosts): (&str, usize),
) {
    let mut latency = histogram();
    let kept = |decision: &Decision| {
        decision.steps.iter().filter(|step| step.multiplier.is_none()).map(|step| step.hosts_out).min().unwrap_or(0)
    };
    let fitting: u64 = requests.iter().map(|request| kept(&core.probe(engine, request).expect("a decision"))).sum();
    let mut at = 0;
    criterion.bench_function(&format!("{case}/{hosts}"), |bencher| {
        bencher.iter_custom(|rounds| {
            timed(rounds, &mut latency, || {
                decide(core, engine, &requests[at % REQUESTS]);
                at += 1;
            })
        });
    });
    report("decide", case, hosts, &latency, json!({ "fitting": fitting / REQUESTS as u64 }));
}
