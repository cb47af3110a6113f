//! The real Nova beside a bench: a process of `tests/nova/bench.py`, which times its default filters and
//! weighers over a fleet.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use scheduler::{HostReport, Request};
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest fleet: it takes seconds for a request.
pub const MOST: usize = 10_000;
/// Requests of a fleet.
pub const REQUESTS: usize = 8;

/// What the virt driver of a host reports to Nova, as `nova_host_state` holds it.
pub fn state(host: &HostReport) -> Value {
    let total = |class: &str| {
        let inventory = host.inventories.as_ref().and_then(|inventories| inventories.get(class));
        inventory.map_or((0, 1.0), |inventory| (inventory.total, inventory.allocation_ratio))
    };
    let instances = host.instances.as_deref().unwrap_or_default();
    let used =
        |class: &str| -> u64 { instances.iter().filter_map(|instance| instance.resources.as_ref()?.get(class)).sum() };
    let ((vcpus, cpu_ratio), (ram, ram_ratio), (disk, disk_ratio)) =
        (total("VCPU"), total("MEMORY_MB"), total("DISK_GB"));
    json!({
        "vcpus_total": vcpus, "vcpus_used": used("VCPU"), "cpu_allocation_ratio": cpu_ratio,
        "total_usable_ram_mb": ram, "free_ram_mb": ram as i64 - used("MEMORY_MB") as i64,
        "ram_allocation_ratio": ram_ratio, "total_usable_disk_gb": disk,
        "free_disk_mb": (disk as i64 - used("DISK_GB") as i64) * 1024, "disk_allocation_ratio": disk_ratio,
        "num_instances": instances.len(), "num_io_ops": 0, "hypervisor_type": "QEMU",
        "hypervisor_version": 8_002_000, "supported_instances": [["x86_64", "kvm", "hvm"]],
    })
}

pub struct Nova {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: Vec<f64>,
}

impl Nova {
    /// None where no Python has Nova.
    pub fn start() -> Option<Nova> {
        let python = std::env::var_os("PALLIUM_NOVA_PYTHON")?;
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nova/bench.py");
        let mut command = Command::new(python);
        command.args(["-W", "ignore", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("PALLIUM_NOVA_PYTHON names a Python");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Nova { child, input, output })
    }

    /// Processor time of Nova for each request, seconds. All of them mean the same to it but for the
    /// flavor: what a flavor needs, Placement has seen to before.
    pub fn time(&mut self, fleet: &[HostReport], requests: &[Request]) -> Vec<f64> {
        let hosts = fleet.iter().map(|host| {
            let aggregates = host.aggregates.iter().flatten().map(|aggregate| json!(aggregate.metadata));
            let instances = host.instances.iter().flatten().map(|instance| json!(instance.uuid));
            json!({
                "host": host.name, "node": host.hypervisor_hostname, "uuid": host.uuid,
                "disabled": host.disabled.unwrap_or(false), "forced_down": host.forced_down.unwrap_or(false),
                "state": state(host), "aggregates": aggregates.collect::<Vec<_>>(),
                "instances": instances.collect::<Vec<_>>(),
            })
        });
        let requests = requests.iter().map(|request| {
            json!({
                "instance_uuid": request.consumers[0], "project_id": request.project, "flavor": request.flavor,
                "extra_specs": request.extra_specs, "hints": request.hints, "pci": [], "image": null, "group": null,
                "cell": null, "allow_cross_cell_move": false,
            })
        });
        let question = json!({
            "observed_at": 1_700_000_000_000_u64, "hosts": hosts.collect::<Vec<_>>(),
            "requests": requests.collect::<Vec<_>>(),
        });
        writeln!(self.input.as_mut().expect("it is open until the end"), "{question}").expect("Nova reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("Nova answers");
        serde_json::from_str::<Answer>(&line).unwrap_or_else(|error| panic!("Nova says {line}: {error}")).seconds
    }
}

impl Drop for Nova {
    fn drop(&mut self) {
        // Without input it ends.
        self.input = None;
        let _ = self.child.wait();
    }
}
