//! Prefers the host on which a placement wastes the least for the requests that are to be expected (fragmentation gradient
//! descent).
//!
//! ```text
//! frag(h) = Σ_m p_m × w(h, m)      m runs over the option `mix`, p_m is its share
//! cpu_memory  w = A(h) = ½ × (F_cpu / Cmax_cpu + F_mem / Cmax_mem) if m does not fit on h, else 0
//!             a = 1000 × (frag(h) − frag(h with the request))
//! gpu         w = all free GPU milli of h if m asks for no GPU, or for a model that h has not, or F_cpu < m.cpu, or fewer
//!                 than m.gpus devices have m.gpu_milli free; else the free milli of the devices that have less than that
//!             a = ⌊100 × σ((frag(h) − frag(h with the request)) / 1000)⌋, of a shared device the best one counts
//! ```
//!
//! F is what is free, Cmax the largest capacity of any host, σ the logistic function. Many hosts come out equal: give a
//! weigher like `packing` a small multiplier beside it.
//!
//! Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
//! USENIX ATC 2023, and hkust-adsl/kubernetes-scheduler-simulator (`gpu_frag_score.go`).

use std::fmt;

use scheduler::index::Column;
use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Facet, Request, Row, Rows};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::device_slots::{asked, columns, free as free_devices};
use super::{DOMAINS, MODEL_LABEL, MOST_DEVICES, Resource, free};

/// Shapes of a mix.
pub const MOST_SHAPES: usize = 1024;

/// The step.
#[derive(Debug)]
pub struct FragmentationGradient {
    form: Form,
    mix: Vec<Shape>,
}

/// Which resource must not be wasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// CPU and memory alike.
    #[default]
    CpuMemory,
    /// Devices.
    Gpu,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// `cpu_memory` or `gpu`.
    #[serde(default)]
    pub form: Form,
    /// The requests to be expected, each as `share cpu memory gpus gpuMilli models`, as in `0.25 4 16384 1 500 T4|P100`:
    /// share of all above 0, vCPU with up to three decimals, MiB, number of devices, thousandths of each, and models (`-`: any).
    pub mix: Vec<String>,
}

/// A shape of the mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Share of all requests.
    pub share: f64,
    /// Thousandths of a vCPU.
    pub milli_cpu: u64,
    /// MiB.
    pub memory: u64,
    /// Devices.
    pub gpus: u64,
    /// Thousandths of each.
    pub gpu_milli: u64,
    /// Models that will do; empty = any.
    pub models: Vec<String>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models = if self.models.is_empty() { "-".to_owned() } else { self.models.join("|") };
        let cpu = self.milli_cpu as f64 / 1000.0;
        write!(f, "{} {cpu} {} {} {} {models}", self.share, self.memory, self.gpus, self.gpu_milli)
    }
}

impl Shape {
    pub(super) fn read(text: &str) -> Option<Self> {
        let fields: [&str; 6] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let [share, cpu, memory, gpus, gpu_milli, models] = fields;
        let share: f64 = share.parse().ok().filter(|share| *share > 0.0 && f64::is_finite(*share))?;
        let cpu: f64 = cpu.parse().ok().filter(|cpu| (0.0..1e9).contains(cpu))?;
        let models = if models == "-" { Vec::new() } else { models.split('|').map(str::to_owned).collect() };
        Some(Self {
            share,
            milli_cpu: (cpu * 1000.0).round() as u64,
            memory: memory.parse().ok()?,
            gpus: gpus.parse().ok()?,
            gpu_milli: gpu_milli.parse().ok().filter(|milli| *milli <= 1000)?,
            models,
        })
    }
}

/// A host while it is judged: thousandths of a vCPU, MiB, thousandths of each device.
struct Free {
    cpu: f64,
    memory: f64,
    devices: SmallVec<[u64; MOST_DEVICES]>,
}

impl Free {
    fn devices_with(&self, milli: u64) -> u64 {
        self.devices.iter().filter(|&&free| free >= milli).count() as u64
    }
}

/// The mix as this run needs it.
struct Mix<'a> {
    shapes: &'a [Shape],
    /// Hosts with a model that will do, for shapes that name some.
    models: Vec<Option<Vec<&'a Rows>>>,
}

impl<'a> Mix<'a> {
    fn new(cx: &Cx<'a>, shapes: &'a [Shape]) -> Self {
        let labelled = |model: &String| cx.view.facet(Facet::Label, &format!("{MODEL_LABEL}={model}"));
        let models =
            shapes.iter().map(|shape| (!shape.models.is_empty()).then(|| shape.models.iter().map(labelled).collect()));
        Self { models: models.collect(), shapes }
    }

    fn accepts(&self, shape: usize, row: Row) -> bool {
        self.models[shape].as_ref().is_none_or(|models| models.iter().any(|rows| rows.has(row)))
    }

    /// Free thousandths of devices that the mix cannot use, each shape by its share.
    fn wasted_devices(&self, row: Row, host: &Free) -> f64 {
        let all = host.devices.iter().sum::<u64>() as f64;
        let mut wasted = 0.0;
        for (at, shape) in self.shapes.iter().enumerate() {
            let fits = shape.gpus > 0
                && host.cpu >= shape.milli_cpu as f64
                && host.devices_with(shape.gpu_milli) >= shape.gpus
                && self.accepts(at, row);
            let waste = if fits {
                host.devices.iter().filter(|&&free| free < shape.gpu_milli).sum::<u64>() as f64
            } else {
                all
            };
            wasted += shape.share * waste;
        }
        wasted
    }

    /// Free CPU and memory that the mix cannot use, as shares of the largest host.
    fn wasted(&self, host: &Free, cpu: f64, memory: f64) -> f64 {
        let amount = 0.5 * (host.cpu / cpu + host.memory / memory);
        let out =
            self.shapes.iter().filter(|shape| host.cpu < shape.milli_cpu as f64 || host.memory < shape.memory as f64);
        amount * out.map(|shape| shape.share).sum::<f64>()
    }
}

/// Columns of CPU and memory, what is asked, and thousandths in a unit of CPU.
struct Sizes<'a> {
    cpu: (&'a Column, u64),
    memory: (&'a Column, u64),
    milli: f64,
}

impl Sizes<'_> {
    fn free(&self, row: Row) -> Free {
        let at = row.0 as usize;
        Free { cpu: free(self.cpu.0, at) * self.milli, memory: free(self.memory.0, at), devices: SmallVec::new() }
    }

    fn place(&self, host: &mut Free) {
        host.cpu -= self.cpu.1 as f64 * self.milli;
        host.memory -= self.memory.1 as f64;
    }
}

impl FragmentationGradient {
    fn by_devices(mix: &Mix<'_>, cx: &Cx<'_>, sizes: &Sizes<'_>, hosts: &[Row], out: &mut [f64]) {
        let columns = columns(cx);
        let (count, each) = asked(cx.request);
        for (&row, a) in hosts.iter().zip(out) {
            let mut host = sizes.free(row);
            host.devices.extend(free_devices(&columns, row));
            let before = mix.wasted_devices(row, &host);
            sizes.place(&mut host);
            let mut best = f64::NEG_INFINITY;
            let mut tried: SmallVec<[u64; MOST_DEVICES]> = SmallVec::new();
            if count != 1 || each == 1000 {
                let mut left = count;
                for device in &mut host.devices {
                    if left > 0 && *device >= each {
                        *device -= each;
                        left -= 1;
                    }
                }
                best = before - mix.wasted_devices(row, &host);
            }
            for at in 0..host.devices.len() {
                let was = host.devices[at];
                if count != 1 || each == 1000 || was < each || tried.contains(&was) {
                    continue;
                }
                tried.push(was);
                host.devices[at] = was - each;
                best = best.max(before - mix.wasted_devices(row, &host));
                host.devices[at] = was;
            }
            *a = if best.is_finite() { (100.0 / (1.0 + (-best / 1000.0).exp())).floor() } else { 0.0 };
        }
    }
}

impl Weigher for FragmentationGradient {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let (Some(cpu), Some(memory)) = (Resource::Cpu.of(cx), Resource::Memory.of(cx)) else {
            return Verdict::Skipped("no host reports CPU and memory");
        };
        let milli = if Resource::Cpu.class(cx.request.domain) == "MILLICPU" { 1.0 } else { 1000.0 };
        let sizes = Sizes { cpu, memory, milli };
        let mix = Mix::new(cx, &self.mix);
        if self.form == Form::Gpu {
            Self::by_devices(&mix, cx, &sizes, hosts, out);
            return Verdict::Ran;
        }
        let (most_cpu, most_memory) = ((cpu.0.largest as f64 * milli).max(1.0), (memory.0.largest as f64).max(1.0));
        for (&row, a) in hosts.iter().zip(out) {
            let mut host = sizes.free(row);
            let before = mix.wasted(&host, most_cpu, most_memory);
            sizes.place(&mut host);
            *a = 1000.0 * (before - mix.wasted(&host, most_cpu, most_memory));
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("change of fragmentation", "float")
    }
}

impl WeigherPlugin for FragmentationGradient {
    const NAME: &'static str = "fragmentation_gradient";
    const DOMAINS: &'static [Domain] = DOMAINS;
    const SUMMARY: &'static str =
        "Prefers the host on which a placement wastes the least for the requests to be expected.";
    const MISSING_DATA: &'static str = "A host without an inventory counts as having none of it free.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        if options.mix.len() > MOST_SHAPES {
            return Err(format!("mix: {} shapes given, at most {MOST_SHAPES} expected", options.mix.len()));
        }
        let read = |text: &String| {
            Shape::read(text).ok_or_else(|| {
                format!("mix: '{text}' given, 'share cpu memory gpus gpuMilli models' expected, as in '0.25 4 16384 1 500 T4|P100'")
            })
        };
        let mut mix = options.mix.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let sum: f64 = mix.iter().map(|shape| shape.share).sum();
        for shape in &mut mix {
            shape.share /= sum;
        }
        Ok(Self { form: options.form, mix })
    }
}

#[cfg(test)]
mod tests {
    use super::FragmentationGradient;
    use crate::fleet::{Fleet, case, host, node, weigher_options_error};
    use scheduler::Inventory;
    use serde_json::json;

    /// Cmax = 10 vCPU, 40 MiB. Of `a` (4, 20 free, 2 and 15 after) the large shape (share ¼) never fits and the small one
    /// always: ¼ × (½ × (0.4 + 0.5) − ½ × (0.2 + 0.375)). `b` (10, 40) loses the large shape: 0 − ¼ × ½ × (0.8 + 0.875).
    #[test]
    fn cpu_and_memory() {
        let mut fleet = Fleet::of([host("a").amounts(10, 40).allocated(6, 20), host("b").amounts(10, 40)]);
        case("cpu and memory")
            .resources(&[("VCPU", 2), ("MEMORY_MB", 5)])
            .options(json!({"mix": ["3 1 1 0 0 -", "1 9 1 0 0 -"]}))
            .scores(&[("a", 1000.0 * 0.25 * (0.45 - 0.2875)), ("b", -1000.0 * 0.25 * 0.8375)])
            .weigh::<FragmentationGradient>(&mut fleet);
    }

    /// Half a device, of a mix of half and whole ones. On `half` (500, 1000 free) the best device is the first: ½ × 0 + ½ × 500
    /// wasted before, 0 after. On `whole` 0 before, 250 after (500 of one device are no whole one).
    #[test]
    fn devices() {
        let gpus = |name: &str, free: [u64; 2]| {
            let host = node(name).inventory("MILLICPU", Inventory::of(8000)).inventory("MEMORY_MB", Inventory::of(8));
            let mut host = host.inventory("GPU_0", Inventory::of(1000)).inventory("GPU_1", Inventory::of(1000));
            host.0.allocation =
                Some([("GPU_0".to_owned(), 1000 - free[0]), ("GPU_1".to_owned(), 1000 - free[1])].into());
            host
        };
        let mut fleet = Fleet::of([gpus("half", [500, 1000]), gpus("whole", [1000, 1000])]);
        let sigma = |delta: f64| (100.0 / (1.0 + (-delta / 1000.0_f64).exp())).floor();
        case("devices")
            .pod(|_| ())
            .resources(&[("MILLICPU", 1000), ("GPU_MILLI", 500)])
            .options(json!({"form": "gpu", "mix": ["1 1 1 1 500 -", "1 1 1 1 1000 -"]}))
            .scores(&[("half", sigma(250.0)), ("whole", sigma(-250.0))])
            .weigh::<FragmentationGradient>(&mut fleet);
    }

    #[test]
    fn a_mix_is_checked() {
        let error = weigher_options_error::<FragmentationGradient>(json!({"mix": ["1 2 3"]}));
        assert!(error.starts_with("mix: '1 2 3' given, 'share cpu memory"), "{error}");
    }
}
