//! One request of Nova's hook that names every host of a large fleet in its body, in the order in which the hosts were
//! reported and in any other: how long one caller waits for its durable claim over HTTP, and where the time goes, stage
//! by stage, in this process. `--hosts N` asks for one size, `--program FILE` for the server of another build.

#[path = "support/servers.rs"]
mod servers;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use scheduler::{Batch, Command, Core, HostReport, Inventory, Proposer, Settings, Settled};
use serde_json::json;

use self::servers::{SENT, Servers, argument, ask, body, connect, name, uuid};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [SENT, 1_000, 10_000];
const ROUNDS: u64 = 200;

fn report(case: &str, (hosts, order): (usize, &str), latency: &Histogram<u64>, more: serde_json::Value) {
    let millis = |q: f64| latency.value_at_quantile(q) as f64 / 1e6;
    let mut row = json!({
        "bench": "hook", "case": case, "hosts": hosts, "order": order, "unit": "ms",
        "p50": millis(0.5), "p99": millis(0.99),
    });
    if let (Some(row), serde_json::Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    println!("BENCH {row}");
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram")
}

/// The fleet that [`Servers::load_hosts`] gives to a server.
fn core(hosts: usize) -> Core {
    let inventories = [("VCPU", 1 << 20), ("MEMORY_MB", 1 << 32)];
    let report = |host: usize| HostReport {
        name: name(host),
        hypervisor_hostname: Some(name(host)),
        availability_zone: Some("az-a".to_owned()),
        hypervisor_type: Some("qemu".to_owned()),
        cpu_arch: Some("x86_64".to_owned()),
        inventories: Some(inventories.map(|(class, total)| (class.to_owned(), Inventory::of(total))).into()),
        ..HostReport::default()
    };
    let mut core = Core::new();
    let commands = (0..hosts).map(|host| Command::Report(Box::new(report(host)))).collect();
    core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
    core
}

fn stages((hosts, order): (usize, &str), (head, tail): &(String, String)) {
    let engine = plugins::engine(Settings::default());
    let mut core = core(hosts);
    let mut stages = ["read the body", "decide", "apply", "write the answer"].map(|stage| (stage, histogram()));
    for n in 1..=ROUNDS {
        let body = [head, uuid(n).as_str(), tail].concat();
        let mut clock = Instant::now();
        let mut lap = |stage: usize| {
            stages[stage].1.saturating_record(clock.elapsed().as_nanos() as u64);
            clock = Instant::now();
        };
        let request = api::nova::translate(body.as_bytes()).expect("a request");
        lap(0);
        let mut proposal = core.decide(&engine, &request).expect("a decision");
        lap(1);
        let commands = vec![proposal.take_command().expect("a claim")];
        let outcome = core.apply(&Batch { proposer: Proposer::default(), now: n, wall: n, commands }).pop();
        let Settled::Done(decision) = core.settle(proposal, outcome) else { panic!("the claim fits") };
        lap(2);
        let names: Vec<&str> = decision.hosts.iter().map(|ranked| ranked.host.as_str()).collect();
        black_box(serde_json::to_vec(&BTreeMap::from([("hosts", names)])).expect("JSON"));
        lap(3);
    }
    for (stage, latency) in &stages {
        report(stage, (hosts, order), latency, json!({}));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut random = SmallRng::seed_from_u64(1);
    let sizes = argument("--hosts").map_or_else(|| SIZES.to_vec(), |hosts| vec![hosts as usize]);
    for (hosts, order) in sizes.into_iter().flat_map(|hosts| [(hosts, "of reports"), (hosts, "any")]) {
        let mut sent: Vec<usize> = (0..hosts).collect();
        if order == "any" {
            sent.shuffle(&mut random);
        }
        let body = body(&mut random, &sent);
        stages((hosts, order), &body);
        runtime.block_on(async {
            let servers = Servers::start(1, "");
            servers.load_hosts(0, hosts).await;
            let mut connection = connect(&servers.nodes[0].address).await.expect("a connection");
            let (mut latency, mut answered) = (histogram(), 0);
            for n in 1..=ROUNDS {
                let began = Instant::now();
                let (status, _, bytes) = ask(&mut connection, &body, n).await.expect("an answer");
                latency.saturating_record(began.elapsed().as_nanos() as u64);
                assert!(status == 200 && bytes > 14, "a host");
                answered = bytes;
            }
            let sizes = json!({ "body": body.0.len() + body.1.len() + 36, "answer": answered });
            report("over HTTP, durable claim included", (hosts, order), &latency, sizes);
        });
    }
}
