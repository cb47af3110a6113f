//! Creates a second, deletes and everything around them included, of whole replays on one core. What is timed is what `pallium
//! simulate` does: the pipeline, the claim, apply, and the meter.
//!
//! Arguments: policies (none = all), `--hosts 500,1000`, `--events 20000`. Each case runs in a process of its own, so that
//! its memory is its own.

#[path = "trace/inputs.rs"]
mod inputs;

use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::json;
use simulation::trace::replay::{Unwatched, Wanted, replay};

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

/// Most memory of this process so far, MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Processor time of this thread so far, seconds: it depends less on what else runs than the clock does.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn one(name: &str, hosts: usize, events: usize) {
    let (inputs, creates) = inputs::inputs(hosts, events);
    let policy = inputs::policy(name);
    let (begun, used) = (Instant::now(), processor());
    let metrics = replay(&inputs, &policy, hosts, Wanted::default(), &Unwatched).expect("a replay").metrics;
    let (seconds, used) = (begun.elapsed().as_secs_f64(), processor() - used);
    let row = json!({
        "bench": "replay", "case": name, "hosts": hosts, "count": creates,
        "per_second": (creates as f64 / seconds).round(), "per_cpu_second": (creates as f64 / used).round(),
        "rejected": metrics.rejections.count, "peak_mib": peak(),
    });
    println!("BENCH {row}");
}

fn main() -> ExitCode {
    let plan = inputs::Plan::of_arguments(&POLICIES, &SIZES);
    if let ([name], &[hosts]) = (&*plan.names, &*plan.sizes) {
        one(name, hosts, plan.events(hosts));
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("a path of this program");
    for &hosts in &plan.sizes {
        for name in &plan.names {
            let [size, events] = [hosts, plan.events(hosts)].map(|number| number.to_string());
            let run = Command::new(&program).args(["--hosts", &size, "--events", &events, name]).status();
            if !run.expect("this program again").success() {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
