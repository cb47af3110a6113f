//! Creates a second, deletes and everything around them included, of whole replays on one core: the shipped trace of VMs on
//! 500, 5,000 and 50,000 hosts, played as many times at once as there are thousands of hosts. What is timed is what `pallium
//! simulate` does: the pipeline, the claim, apply, and the meter.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use scheduler::Domain;
use serde_json::json;
use simulation::trace::events::Kind;
use simulation::trace::replay::{Unwatched, Wanted, replay};
use simulation::trace::{HostList, Inputs, Policy, Ratios, Trace};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 4] = [500, 1_000, 5_000, 50_000];
const POLICIES: [&str; 7] = [
    "first-fit",
    "best-fit",
    "ram-cpu-spread",
    "fgd",
    "nova-packing",
    "nova-general",
    "kvm-general-purpose-load-balancing",
];
/// Events of one run: enough to fill the hosts to where the trace spends its days.
const EVENTS: usize = 150_000;
/// Bytes in a unit of what the kernel tells.
const KIB: u64 = 1024;

/// Most memory of this process so far, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * KIB
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/azure2017");
    let once = Trace::open(&folder.join("events.csv.gz")).expect("the shipped trace");
    let list = Arc::new(HostList::open(&folder.join("nodes-uniform.csv")).expect("the shipped hosts"));
    for hosts in SIZES {
        let mut trace = once.scaled((hosts / 1000).max(1) as u32);
        trace.events.truncate(EVENTS * (hosts / 5_000).max(1));
        let creates = trace.events.iter().filter(|event| event.kind == Kind::Create).count();
        let inputs = Inputs {
            trace: Arc::new(trace),
            list: Arc::clone(&list),
            ratios: Ratios::default(),
            warm_up: 0.25,
            seed: 42,
            check: false,
            migrations: 0.0,
            failures: None,
            rebalance: None,
        };
        for name in POLICIES.iter().filter(|name| only.is_empty() || only.iter().any(|only| only == *name)) {
            let policy = Arc::new(Policy::named(name, Domain::Nova, false, 42).expect("a known policy"));
            let begun = Instant::now();
            let metrics = replay(&inputs, &policy, hosts, Wanted::default(), &Unwatched).expect("a replay").metrics;
            let seconds = begun.elapsed().as_secs_f64();
            let row = json!({
                "bench": "replay", "case": name, "hosts": hosts, "count": creates,
                "per_second": (creates as f64 / seconds).round(), "rejected": metrics.rejections.count,
                "peak_mib": peak() / (KIB * KIB),
            });
            println!("BENCH {row}");
        }
    }
}
