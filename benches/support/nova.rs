//! The real Nova beside a bench: a process of `tests/nova/bench.py`, which times its default filters and
//! weighers over a fleet.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use scheduler::{HostReport, Request};
use serde::Deserialize;
use serde_json::json;
use simulation::fleet::nova_host_state;

/// Largest fleet: it takes seconds for a request.
pub const MOST: usize = 10_000;
/// Requests of a fleet.
pub const REQUESTS: usize = 8;

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
                "state": nova_host_state(host), "aggregates": aggregates.collect::<Vec<_>>(),
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
