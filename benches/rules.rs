//! What a rule in CEL costs for each host: a pipeline of that rule alone over a fleet of hosts, on one
//! core. The pipeline without steps is measured too, and taken off.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use scheduler::{Batch, Command, Core, Engine, FeatureReport, HostReport, Inventory, Proposer, Request, Settings};
use serde_json::json;
use uuid::Uuid;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOSTS: usize = 10_000;
const ROUNDS: usize = 30;

const RULES: [(&str, &str, &str); 7] = [
    ("no step", "", ""),
    ("true", "filter_cel", "true"),
    ("a trait", "filter_cel", r#"!("CUSTOM_GONE" in host.traits) || request.project == "ops""#),
    ("an amount", "filter_cel", r#"host.free["VCPU"] >= 2 * request.resources["VCPU"]"#),
    ("a loop", "filter_cel", r#"host.traits.exists(t, t.startsWith("CUSTOM_"))"#),
    ("a share", "cel_score", r#"double(host.used["VCPU"]) / double(host.capacity["VCPU"])"#),
    ("a feature", "cel_score", r#""load" in features ? features["load"] : 0.5"#),
];

fn core() -> Core {
    let mut commands = Vec::new();
    for number in 0..HOSTS {
        let name = format!("node-{number}");
        let inventories =
            BTreeMap::from([("VCPU".to_owned(), Inventory::of(128)), ("MEMORY_MB".to_owned(), Inventory::of(1 << 20))]);
        let traits = (0..8).map(|n| format!("CUSTOM_{}", n * (number % 5 + 1))).collect();
        commands.push(Command::Report(Box::new(HostReport {
            name: name.clone(),
            inventories: Some(inventories),
            traits: Some(traits),
            ..HostReport::default()
        })));
        let values = BTreeMap::from([("load".to_owned(), number as f64 / HOSTS as f64)]);
        commands.push(Command::Features(Box::new(FeatureReport { name, values, ..FeatureReport::default() })));
    }
    let mut core = Core::new();
    core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
    core
}

fn engine(step: &str, rule: &str) -> Engine {
    let mut engine = Engine::new(plugins::registry(), Settings::default());
    let steps = json!([{"name": step, "params": [{"key": "expression", "stringValue": rule}]}]);
    let (filters, weighers) = match step {
        "" => (json!([]), json!([])),
        "filter_cel" => (steps, json!([])),
        _ => (json!([]), steps),
    };
    let resource = json!({
        "apiVersion": "cortex.cloud/v1alpha1", "kind": "Pipeline", "metadata": {"name": "nova-general"},
        "spec": {"schedulingDomain": "nova", "type": "filter-weigher", "filters": filters, "weighers": weighers},
    });
    engine.activate(&serde_json::from_value(resource).expect("a resource")).expect("a pipeline");
    engine
}

fn main() {
    let began = Instant::now();
    for (_, step, rule) in RULES.iter().cycle().take(RULES.len() * ROUNDS).filter(|(_, step, _)| !step.is_empty()) {
        black_box(engine(step, rule));
    }
    let micros = began.elapsed().as_micros() as f64 / ((RULES.len() - 1) * ROUNDS) as f64;
    println!(
        "BENCH {}",
        json!({"bench": "rules", "case": "load a pipeline of one", "hosts": 0, "unit": "µs", "p50": micros})
    );
    let mut core = core();
    let mut none = 0.0;
    for (case, step, rule) in RULES {
        let engine = engine(step, rule);
        let mut took: Vec<f64> = (0..ROUNDS as u128)
            .map(|round| {
                let request = Request {
                    consumers: vec![Uuid::from_u128(round + 1)],
                    resources: BTreeMap::from([("VCPU".to_owned(), 4)]),
                    ..Request::default()
                };
                // A run that stands would not look at the hosts again.
                core.forget_runs();
                let began = Instant::now();
                black_box(core.probe(&engine, &request).expect("a decision"));
                began.elapsed().as_nanos() as f64 / HOSTS as f64
            })
            .collect();
        took.sort_by(f64::total_cmp);
        let median = took[ROUNDS / 2];
        if step.is_empty() {
            none = median;
        }
        println!(
            "BENCH {}",
            json!({"bench": "rules", "case": case, "hosts": HOSTS, "unit": "ns per host", "p50": (median - none).max(0.0)})
        );
    }
}
