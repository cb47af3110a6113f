//! Steps that pack hosts by what is free on them: the scores of the bin-packing literature, for pipelines with
//! `scoring: raw`. They are made for clouds of every kind: a resource is named as people name it, and looked for in
//! the class that the domain has for it.

pub mod device_slots;
pub mod fit;
pub mod fragmentation;
pub mod lifetime;
pub mod random_choice;
pub mod slot_prices;

use scheduler::Domain;
use scheduler::index::Column;
use scheduler::pipeline::Cx;
use serde::{Deserialize, Serialize};

/// Domains of whose hosts the sizes are known.
const DOMAINS: &[Domain] = &[Domain::Nova, Domain::Machines, Domain::Pods];

/// Class of all devices of a host together, in thousandths of one: what claims take of them.
pub const GPU_MILLI: &str = "GPU_MILLI";
/// Most devices of a host that are known one by one.
pub const MOST_DEVICES: usize = 16;
/// Class of each device, in thousandths of it: what the host reports of them, one by one.
pub const DEVICES: [&str; MOST_DEVICES] = [
    "GPU_0", "GPU_1", "GPU_2", "GPU_3", "GPU_4", "GPU_5", "GPU_6", "GPU_7", "GPU_8", "GPU_9", "GPU_10", "GPU_11",
    "GPU_12", "GPU_13", "GPU_14", "GPU_15",
];
/// Label with the model of a node's devices.
pub const MODEL_LABEL: &str = "gpu-model";

/// Weight of each resource; one that is not named does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Weight of CPU: VCPU, for pods and machines MILLICPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Weight of MEMORY_MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Weight of GPU_MILLI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<f64>,
}

/// A resource, in whichever class the domain has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Cpu,
    Memory,
    Gpu,
}

impl Resource {
    pub fn class(self, domain: Domain) -> &'static str {
        match self {
            Self::Cpu if matches!(domain, Domain::Pods | Domain::Machines) => "MILLICPU",
            Self::Cpu => "VCPU",
            Self::Memory => "MEMORY_MB",
            Self::Gpu => GPU_MILLI,
        }
    }

    /// Its column and what is asked of it.
    pub fn of<'a>(self, cx: &Cx<'a>) -> Option<(&'a Column, u64)> {
        let class = self.class(cx.request.domain);
        cx.view.column(class).map(|(_, column)| (column, cx.request.amount(class)))
    }
}

impl Weights {
    fn check(self) -> Result<Vec<(Resource, f64)>, String> {
        let given = [
            ("cpu", Resource::Cpu, self.cpu),
            ("memory", Resource::Memory, self.memory),
            ("gpu", Resource::Gpu, self.gpu),
        ];
        let given: Vec<_> =
            given.into_iter().filter_map(|(key, resource, weight)| Some((key, resource, weight?))).collect();
        if given.is_empty() {
            return Err("resourceWeights: an empty map given, cpu, memory or gpu expected".to_owned());
        }
        match given.iter().find(|(_, _, weight)| !weight.is_finite() || *weight <= 0.0) {
            Some((key, _, weight)) => Err(format!("resourceWeights.{key}: {weight} given, a number above 0 expected")),
            None => Ok(given.into_iter().map(|(_, resource, weight)| (resource, weight)).collect()),
        }
    }
}

/// What is free of a column on a host; negative where more is in use than there is.
fn free(column: &Column, at: usize) -> f64 {
    match (column.capacity.get(at), column.used.get(at)) {
        (Some(&capacity), Some(&used)) => capacity as f64 - used as f64,
        _ => 0.0,
    }
}
