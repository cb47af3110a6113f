//! What hosts and VMs take of memory in a replay: what is allocated when the hosts are there, and the most that is
//! allocated beside it while the trace is played, for each VM that lives at its end. The trace itself is not counted.
//! Arguments as those of `replay`.

#[path = "trace/inputs.rs"]
mod inputs;

use serde_json::json;
use simulation::trace::estate::Estate;
use simulation::trace::replay::{Played, Player, Unwatched};

fn main() {
    let plan = inputs::Plan::of_arguments(&["best-fit", "nova-packing"], &[500, 1_000, 5_000, 50_000]);
    for &hosts in &plan.sizes {
        let (inputs, _) = inputs::inputs(hosts, plan.events(hosts));
        for name in &plan.names {
            let policy = inputs::policy(name);
            let mut estate = None;
            let of_hosts = allocation_counter::measure(|| estate = inputs.estate(&policy, hosts).ok());
            let mut player = Player::new(&inputs, estate.expect("hosts without VMs"), &Unwatched);
            let mut living = 0_u64;
            let count = |_, played, _: &Estate| match played {
                Played::Placed(..) => living += 1,
                Played::Left(..) => living -= 1,
                _ => {}
            };
            let of_vms = allocation_counter::measure(|| player.play(0, |_, _| Ok(()), count).expect("a replay"));
            let row = json!({
                "bench": "memory", "case": name, "hosts": hosts, "count": living, "unit": "bytes",
                "per_host": of_hosts.bytes_current.max(0) as u64 / hosts as u64,
                "per_vm": of_vms.bytes_max / living.max(1),
            });
            println!("BENCH {row}");
        }
    }
}
