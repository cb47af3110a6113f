//! What the benches of whole replays play: the beginning of the shipped trace of VMs, as many times at once as there are
//! thousands of hosts; and their arguments.

use std::path::Path;
use std::sync::Arc;

use scheduler::Domain;
use simulation::trace::events::Kind;
use simulation::trace::{HostList, Inputs, Policy, Ratios, Trace};

/// Events of one run on up to 5,000 hosts, ten times as many on ten times as many: enough to fill the hosts.
const EVENTS: usize = 150_000;

/// What is run.
pub struct Plan {
    /// Policies.
    pub names: Vec<String>,
    /// Numbers of hosts.
    pub sizes: Vec<usize>,
    events: Option<usize>,
}

impl Plan {
    /// From the arguments: policies, `--hosts 500,1000`, `--events 20000`; else what is given.
    pub fn of_arguments(names: &[&str], sizes: &[usize]) -> Self {
        let mut plan = Self { names: Vec::new(), sizes: sizes.to_vec(), events: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("a value");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            match &*arg {
                "--bench" => {}
                "--hosts" => plan.sizes = value().split(',').map(number).collect(),
                "--events" => plan.events = Some(number(&value())),
                _ => plan.names.push(arg),
            }
        }
        if plan.names.is_empty() {
            plan.names = names.iter().map(ToString::to_string).collect();
        }
        plan
    }

    /// Events on so many hosts.
    pub fn events(&self, hosts: usize) -> usize {
        self.events.unwrap_or(EVENTS * (hosts / 5_000).max(1))
    }
}

/// A policy, by name.
pub fn policy(name: &str) -> Arc<Policy> {
    Arc::new(Policy::named(name, Domain::Nova, false, 42).expect("a known policy"))
}

/// The beginning of the trace, its creates, and the list of hosts.
pub fn inputs(hosts: usize, events: usize) -> (Inputs, u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/azure2017");
    let copies = (hosts / 1000).max(1);
    let mut trace = Trace::open(&folder.join("events.csv.gz")).expect("the shipped trace");
    let creates = |trace: &Trace| trace.events.iter().filter(|event| event.kind == Kind::Create).count();
    // Copies are up to 300 seconds apart: a twentieth more of each is enough.
    trace.events.truncate(events / copies * 21 / 20 + 1_000);
    trace.vms.truncate(creates(&trace));
    trace.groups = trace.vms.iter().map(|vm| vm.group).max().unwrap_or(0);
    let mut trace = trace.scaled(copies as u32);
    trace.events.truncate(events);
    let creates = creates(&trace) as u64;
    let inputs = Inputs {
        trace: Arc::new(trace),
        list: Arc::new(HostList::open(&folder.join("nodes-uniform.csv")).expect("the shipped hosts")),
        ratios: Ratios::default(),
        warm_up: 0.25,
        seed: 42,
        check: false,
        migrations: 0.0,
        rebalance: None,
        failures: None,
    };
    (inputs, creates)
}
