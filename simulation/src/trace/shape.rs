//! What one VM asks for, and which shapes of a trace are frequent.

use plugins::packing::fragmentation::Shape as Expected;
use plugins::packing::{GPU_MILLI, MODEL_LABEL, MOST_DEVICES};
use scheduler::pod::{Demand, Pod, Requirement, Term};
use scheduler::request::{Candidates, Options};
use scheduler::{Domain, Intent, Request};

use super::table::{BadInput, Line};

/// What a VM asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Thousandths of a vCPU.
    pub milli_cpu: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Number of GPUs.
    pub gpus: u64,
    /// Thousandths of each GPU.
    pub gpu_milli: u64,
    /// GPU models that will do; empty = any.
    pub models: Vec<String>,
}

/// Most of any resource: what an inventory may hold.
pub const MOST: u64 = 1 << 40;

impl Shape {
    /// Reads five columns from `first` on: vcpus, memory_mib, gpus, gpu_milli, gpu_models.
    pub fn read(line: Line<'_>, first: usize) -> Result<Self, BadInput> {
        let milli_cpu = line.given(first, line.thousandths(first, MOST / 1000)?)?;
        let memory_mib = line.given(first + 1, line.whole(first + 1, MOST)?)?;
        let gpus = line.whole(first + 2, MOST_DEVICES as u64)?.unwrap_or(0);
        let gpu_milli = line.whole(first + 3, 1000)?.unwrap_or(if gpus > 0 { 1000 } else { 0 });
        if (gpus == 0) != (gpu_milli == 0) || (gpus > 1 && gpu_milli < 1000) {
            let what = format!(
                "{gpu_milli} of each of {gpus} GPUs given: 0 of none, 1 to 1000 of one, or 1000 of each expected"
            );
            return Err(line.wrong_cell(first + 3, what));
        }
        let models = line.text(first + 4)?;
        let models =
            if gpus == 0 || models.is_empty() { Vec::new() } else { models.split('|').map(str::to_owned).collect() };
        Ok(Self { milli_cpu, memory_mib, gpus, gpu_milli, models })
    }

    /// Thousandths of GPUs in all.
    pub fn gpu_total(&self) -> u64 {
        self.gpus * self.gpu_milli
    }

    /// CPU, memory and GPU: thousandths, MiB, thousandths.
    pub fn sizes(&self) -> [u64; 3] {
        [self.milli_cpu, self.memory_mib, self.gpu_total()]
    }

    /// As one asks for it, without consumers; `None` when the domain counts CPU in whole ones and this is none.
    pub fn request(&self, domain: Domain, pipeline: &str) -> Option<Request> {
        let cpu = match domain {
            Domain::Nova if self.milli_cpu.is_multiple_of(1000) => ("VCPU", self.milli_cpu / 1000),
            Domain::Nova => return None,
            _ => ("MILLICPU", self.milli_cpu),
        };
        let asked = [cpu, ("MEMORY_MB", self.memory_mib), (GPU_MILLI, self.gpu_total())];
        let resources = asked.into_iter().filter(|(_, amount)| *amount > 0);
        let model = Requirement { key: MODEL_LABEL.to_owned(), demand: Demand::In(self.models.clone()) };
        let term = Term { labels: vec![model], ..Term::default() };
        Some(Request {
            domain,
            pipeline: Some(pipeline.to_owned()),
            label: Some(Intent::Create),
            resources: resources.map(|(class, amount)| (class.to_owned(), amount)).collect(),
            candidates: Candidates::All,
            pod: Pod { affinity: if self.models.is_empty() { Vec::new() } else { vec![term] }, ..Pod::default() },
            num_instances: 1,
            options: Options { max_candidates: 1, skip_history: true, ..Options::default() },
            ..Request::default()
        })
    }

    /// As an entry of a mix.
    pub fn expected(&self, share: f64) -> Expected {
        Expected {
            share,
            milli_cpu: self.milli_cpu,
            memory: self.memory_mib,
            gpus: self.gpus,
            gpu_milli: self.gpu_milli,
            models: self.models.clone(),
        }
    }
}

/// The demand mix: the most frequent shapes that together cover 95 % of the creates, with their shares renormalised to 1.
/// Shapes with equal counts come in their own order.
pub fn mix<'a>(shapes: &'a [Shape], counts: &[u64]) -> Vec<(&'a Shape, f64)> {
    let mut order: Vec<usize> = (0..shapes.len()).filter(|&at| counts[at] > 0).collect();
    order.sort_by(|&one, &other| counts[other].cmp(&counts[one]).then_with(|| shapes[one].cmp(&shapes[other])));
    let all: u64 = counts.iter().sum();
    let mut covered = 0;
    let mut taken = Vec::new();
    for at in order {
        if covered as f64 >= 0.95 * all as f64 {
            break;
        }
        covered += counts[at];
        taken.push(at);
    }
    taken.into_iter().map(|at| (&shapes[at], counts[at] as f64 / covered as f64)).collect()
}
