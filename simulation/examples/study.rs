//! A study without the command line of pallium, for work on policies: `study EVENTS HOSTS COUNT MODE POLICY…`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use scheduler::Domain;
use simulation::trace::replay::Unwatched;
use simulation::trace::{HostList, Inputs, Mode, Policy, Ratios, Study, Trace};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let shapes = args[0].contains("shapes");
    let trace =
        if shapes { Trace::open_shapes(Path::new(&args[0])) } else { Trace::open(Path::new(&args[0])) }.unwrap();
    let list = HostList::open(Path::new(&args[1])).unwrap();
    let gpus = list.hosts.iter().any(|host| host.gpus > 0);
    let domain = if gpus { Domain::Pods } else { Domain::Nova };
    let count: usize = args[2].parse().unwrap();
    let mode = match args[3].as_str() {
        "replay" => Mode::Replay,
        "min-hosts" => Mode::MinHosts,
        "first-failure" => Mode::FirstFailure { starts: 10 },
        "survive" => Mode::Survive { every: 6 * 3_600_000 },
        _ => Mode::Inflate { factor: 1.3 },
    };
    let seed = std::env::var("SEED").map_or(42, |seed| seed.parse().unwrap());
    let policy = |name: &String| {
        if name.ends_with(".yaml") {
            plugins::parse_pipelines(&std::fs::read_to_string(name).unwrap())
                .unwrap()
                .into_iter()
                .map(Policy::of)
                .collect()
        } else {
            vec![Policy::named(name, domain, gpus, seed).unwrap()]
        }
    };
    let policies = args[4..].iter().flat_map(policy).map(Arc::new).collect();
    let inputs = Inputs {
        trace: Arc::new(trace),
        list: Arc::new(list),
        ratios: Ratios::default(),
        warm_up: 0.25,
        seed,
        check: false,
    };
    let count = if count == 0 { inputs.list.hosts.len() } else { count };
    let study = Study { inputs, policies, modes: vec![mode], count, series: None };
    study.check().unwrap();
    let begun = Instant::now();
    let bounds = study.bounds();
    println!("{bounds:?} in {:?}", begun.elapsed());
    for point in study.points() {
        let begun = Instant::now();
        let done = study.run_point(point, bounds, &Unwatched).unwrap();
        let mut result = done.result;
        if let Some(inflate) = result.get_mut("inflate").and_then(|value| value.as_object_mut()) {
            inflate.remove("curve");
        }
        println!("{} {:.1?} {}", point.name(), begun.elapsed(), serde_json::Value::Object(result));
    }
}
