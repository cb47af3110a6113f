//! What is measured while a trace is played. Averages are weighted by the time until the next event and leave the warm-up
//! out; counts do not.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::estate::Estate;
use super::events::Trace;
use super::lifetimes::Calibration;
use super::migrations::Migrations;
use super::outages;
use super::shape::{Shape, mix};

/// CPU, memory and GPU.
pub const RESOURCES: [&str; 3] = ["cpu", "mem", "gpu"];
/// Virtual time between two samples of what is costly to measure, milliseconds.
const SAMPLE_EVERY: u64 = 3_600_000;
/// The probe of large slots: 16 vCPU, 64 GiB.
const PROBE: [u64; 2] = [16_000, 65_536];

/// An average over time.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// A number for each resource; `None`: nothing has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByResource {
    /// CPU.
    pub cpu: Option<f64>,
    /// Memory.
    pub mem: Option<f64>,
    /// GPU.
    pub gpu: Option<f64>,
}

impl ByResource {
    pub(super) fn of(values: [Option<f64>; 3]) -> Self {
        let [cpu, mem, gpu] = values;
        Self { cpu, mem, gpu }
    }
}

/// Why creates were rejected: the first resource that no host had enough of; `combination`: each would fit somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reasons {
    /// CPU.
    pub cpu: u64,
    /// Memory.
    pub mem: u64,
    /// GPUs with enough free on each.
    pub gpu: u64,
    /// The model of the GPUs.
    pub gpu_model: u64,
    /// Each resource by itself would fit.
    pub combination: u64,
}

/// Creates that found no host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejections {
    /// How many.
    pub count: u64,
    /// Of them in the warm-up.
    pub in_warm_up: u64,
    /// Their vCPU, thousandths.
    pub milli_vcpus: u64,
    /// Their memory, MiB.
    pub memory_mib: u64,
    /// Their GPUs, thousandths.
    pub gpu_milli: u64,
    /// By reason.
    pub by_reason: Reasons,
}

/// What was measured; definitions in docs/simulation.md.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Creates, deletes, and deletes of VMs that were rejected.
    pub creates: u64,
    /// Deletes of placed VMs.
    pub deletes: u64,
    /// Deletes of rejected VMs.
    pub orphan_deletes: u64,
    /// Packing density of the hosts in use.
    pub density: ByResource,
    /// Use over all capacity.
    pub allocation: ByResource,
    /// Share of hosts without a VM.
    pub empty_hosts: Option<f64>,
    /// Most hosts in use at a time.
    pub hosts_peak: u64,
    /// Creates without a host.
    pub rejections: Rejections,
    /// VMs placed before the first of them; `None`: there was none.
    pub first_rejection: Option<u64>,
    /// Share of all capacity that is free and that the mix cannot use.
    pub fragmentation: Option<f64>,
    /// The same as a share of what is free.
    pub frag_of_free: Option<f64>,
    /// Free on hosts where no shape of the mix fits, over all capacity.
    pub stranded: ByResource,
    /// Further VMs of 16 vCPU and 64 GiB.
    pub large_slots: Option<f64>,
    /// Standard deviation of the use of hosts in use.
    pub imbalance: ByResource,
    /// Of groups with at least two VMs: mean of the largest share on one host.
    pub group_spread: Option<f64>,
    /// What was moved, where moves are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Migrations>,
    /// What failures of hosts came to, where hosts fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<outages::Metrics>,
    /// How long VMs were expected to live and did, where the policy is told a forecast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetimes: Option<Calibration>,
}

/// A moment of the series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds from the start of the trace.
    pub time_s: f64,
    /// Hosts with a VM.
    pub hosts_used: u64,
    /// Use over capacity of the hosts in use.
    pub used: ByResource,
    /// Fragmentation at the last sample.
    pub fragmentation: Option<f64>,
    /// Large slots at the last sample.
    pub large_slots: Option<f64>,
    /// Rejections so far.
    pub rejected: u64,
    /// Moves so far.
    pub migrations: u64,
}

/// The meter.
pub struct Meter {
    trace: Arc<Trace>,
    mix: Vec<(Shape, f64)>,
    total: [f64; 3],
    hosts: f64,
    warm: u64,
    last: u64,
    next_sample: u64,
    used: [f64; 3],
    in_use: [f64; 3],
    used_hosts: u64,
    /// Σ use and Σ use² of each host, as shares of its capacity.
    shares: [[f64; 2]; 3],
    density: [Average; 3],
    allocation: [Average; 3],
    imbalance: [Average; 3],
    stranded: [Average; 3],
    empty: Average,
    fragmentation: Average,
    of_free: Average,
    slots: Average,
    sampled: (Option<f64>, Option<f64>),
    metrics: Metrics,
    moves: u64,
    /// Where VMs of groups were placed.
    groups: Vec<Vec<u32>>,
}

impl Meter {
    /// A meter of hosts without VMs; averages begin at `warm`, milliseconds.
    pub fn new(trace: &Arc<Trace>, estate: &Estate, warm: u64) -> Self {
        let total = std::array::from_fn(|r| estate.capacity().iter().map(|capacity| capacity[r] as f64).sum());
        let mix = mix(&trace.shapes, &trace.counts).into_iter().map(|(shape, share)| (shape.clone(), share)).collect();
        let begin = trace.events.first().map_or(0, |event| event.time);
        Self {
            groups: vec![Vec::new(); trace.groups as usize + 1],
            trace: Arc::clone(trace),
            mix,
            total,
            hosts: estate.hosts().len() as f64,
            warm,
            last: begin,
            next_sample: warm,
            used: [0.0; 3],
            in_use: [0.0; 3],
            used_hosts: 0,
            shares: [[0.0; 2]; 3],
            density: Default::default(),
            allocation: Default::default(),
            imbalance: Default::default(),
            stranded: Default::default(),
            empty: Average::default(),
            fragmentation: Average::default(),
            of_free: Average::default(),
            slots: Average::default(),
            sampled: (None, None),
            metrics: Metrics::default(),
            moves: 0,
        }
    }

    /// Time goes on to `now`, with everything as it stands.
    pub fn advance(&mut self, now: u64, estate: &Estate) {
        let since = self.last.max(self.warm);
        if now > since {
            let weight = (now - since) as f64 / 1000.0;
            for r in 0..3 {
                if self.in_use[r] > 0.0 && self.used_hosts > 0 {
                    self.density[r].add(self.used[r] / self.in_use[r], weight);
                    let count = self.used_hosts as f64;
                    let mean = self.shares[r][0] / count;
                    self.imbalance[r].add((self.shares[r][1] / count - mean * mean).max(0.0).sqrt(), weight);
                }
                if self.total[r] > 0.0 {
                    self.allocation[r].add(self.used[r] / self.total[r], weight);
                }
            }
            self.empty.add((self.hosts - self.used_hosts as f64) / self.hosts, weight);
            while self.next_sample <= now {
                self.next_sample += SAMPLE_EVERY;
                if self.next_sample > now {
                    self.sample(estate);
                }
            }
        }
        self.last = self.last.max(now);
    }

    fn sample(&mut self, estate: &Estate) {
        let waste = Waste::of(estate, &self.mix);
        self.fragmentation.add(waste.fragmentation, 1.0);
        if let Some(of_free) = waste.of_free {
            self.of_free.add(of_free, 1.0);
        }
        for (average, stranded) in self.stranded.iter_mut().zip(waste.stranded) {
            if let Some(stranded) = stranded {
                average.add(stranded, 1.0);
            }
        }
        let slots = (0..estate.hosts().len()).map(|host| {
            let free = estate.free(host);
            (free[0] / PROBE[0]).min(free[1] / PROBE[1])
        });
        let slots = slots.sum::<u64>() as f64;
        self.slots.add(slots, 1.0);
        self.sampled = (Some(waste.fragmentation), Some(slots));
    }

    /// A VM was placed on a host, which holds it now.
    pub fn placed(&mut self, vm: u32, host: u32, estate: &Estate) {
        self.metrics.creates += 1;
        let group = self.trace.vms[vm as usize].group as usize;
        if group > 0 {
            self.groups[group].push(host);
        }
        self.changed(vm, host, estate, 1.0);
        self.metrics.hosts_peak = self.metrics.hosts_peak.max(self.used_hosts);
    }

    /// A VM left a host, which no longer holds it.
    pub fn left(&mut self, vm: u32, host: u32, estate: &Estate) {
        self.metrics.deletes += 1;
        self.changed(vm, host, estate, -1.0);
    }

    /// A VM was moved.
    pub fn moved(&mut self, vm: u32, from: u32, to: u32, estate: &Estate) {
        self.moves += 1;
        self.changed(vm, from, estate, -1.0);
        self.changed(vm, to, estate, 1.0);
        self.metrics.hosts_peak = self.metrics.hosts_peak.max(self.used_hosts);
    }

    /// A VM runs no more: its host has failed.
    pub fn lost(&mut self, vm: u32, host: u32, estate: &Estate) {
        self.changed(vm, host, estate, -1.0);
    }

    /// It runs again.
    pub fn restored(&mut self, vm: u32, host: u32, estate: &Estate) {
        self.changed(vm, host, estate, 1.0);
        self.metrics.hosts_peak = self.metrics.hosts_peak.max(self.used_hosts);
    }

    /// It is deleted before that.
    pub fn gone(&mut self) {
        self.metrics.deletes += 1;
    }

    /// A VM that was rejected is deleted.
    pub fn orphan(&mut self) {
        self.metrics.orphan_deletes += 1;
    }

    fn changed(&mut self, vm: u32, host: u32, estate: &Estate, sign: f64) {
        let (held, capacity) = (&estate.held()[host as usize], &estate.capacity()[host as usize]);
        let sizes = self.trace.shape(vm).sizes();
        for r in 0..3 {
            let (size, capacity) = (sizes[r] as f64, capacity[r] as f64);
            self.used[r] += sign * size;
            if capacity > 0.0 {
                let (now, before) = (held.used[r] as f64 / capacity, (held.used[r] as f64 - sign * size) / capacity);
                self.shares[r][0] += now - before;
                self.shares[r][1] += now * now - before * before;
            }
        }
        let turned = if sign > 0.0 { held.vms.len() == 1 } else { held.vms.is_empty() };
        if turned {
            self.used_hosts = self.used_hosts.saturating_add_signed(sign as i64);
            for (in_use, capacity) in self.in_use.iter_mut().zip(capacity) {
                *in_use += sign * *capacity as f64;
            }
        }
        if self.used_hosts == 0 {
            self.shares = [[0.0; 2]; 3];
        }
    }

    /// A VM found no host; the reason.
    pub fn rejected(&mut self, vm: u32, now: u64, estate: &Estate) -> &'static str {
        let shape = self.trace.shape(vm);
        let metrics = &mut self.metrics;
        let placed = metrics.creates - metrics.rejections.count;
        metrics.first_rejection.get_or_insert(placed);
        metrics.creates += 1;
        let rejections = &mut metrics.rejections;
        rejections.count += 1;
        rejections.in_warm_up += u64::from(now < self.warm);
        rejections.milli_vcpus += shape.milli_cpu;
        rejections.memory_mib += shape.memory_mib;
        rejections.gpu_milli += shape.gpu_total();
        let hosts = || 0..estate.hosts().len();
        let by = &mut rejections.by_reason;
        let (count, reason) = if !hosts().any(|host| estate.free(host)[0] >= shape.milli_cpu) {
            (&mut by.cpu, "cpu")
        } else if !hosts().any(|host| estate.free(host)[1] >= shape.memory_mib) {
            (&mut by.mem, "mem")
        } else if !hosts().any(|host| has_devices(estate, host, shape)) {
            (&mut by.gpu, "gpu")
        } else if !hosts().any(|host| has_model(estate, host, shape) && has_devices(estate, host, shape)) {
            (&mut by.gpu_model, "gpu_model")
        } else {
            (&mut by.combination, "combination")
        };
        *count += 1;
        reason
    }

    /// Rejections so far.
    pub fn rejections(&self) -> u64 {
        self.metrics.rejections.count
    }

    /// VMs on hosts now, in all resources.
    pub fn allocation(&self) -> ByResource {
        ByResource::of(std::array::from_fn(|r| (self.total[r] > 0.0).then(|| self.used[r] / self.total[r])))
    }

    /// This moment of the series.
    pub fn moment(&self, now: u64) -> Moment {
        // Rounded, so that it is the same when it was kept as text.
        let round = |value: f64| (value * 1e6).round() / 1e6;
        let used = std::array::from_fn(|r| (self.in_use[r] > 0.0).then(|| round(self.used[r] / self.in_use[r])));
        Moment {
            time_s: now as f64 / 1000.0,
            hosts_used: self.used_hosts,
            used: ByResource::of(used),
            fragmentation: self.sampled.0.map(round),
            large_slots: self.sampled.1,
            rejected: self.metrics.rejections.count,
            migrations: self.moves,
        }
    }

    /// What was measured.
    pub fn metrics(&self) -> Metrics {
        let of = |averages: &[Average; 3]| ByResource::of(averages.map(Average::value));
        let spreads = self.groups.iter().filter(|hosts| hosts.len() > 1).map(|hosts| {
            let mut hosts = hosts.clone();
            hosts.sort_unstable();
            let most = hosts.chunk_by(|one, other| one == other).map(<[u32]>::len).max().unwrap_or(0);
            most as f64 / hosts.len() as f64
        });
        let (sum, count) = spreads.fold((0.0, 0_u64), |(sum, count), share| (sum + share, count + 1));
        Metrics {
            density: of(&self.density),
            allocation: of(&self.allocation),
            imbalance: of(&self.imbalance),
            stranded: of(&self.stranded),
            empty_hosts: self.empty.value(),
            fragmentation: self.fragmentation.value(),
            frag_of_free: self.of_free.value(),
            large_slots: self.slots.value(),
            group_spread: (count > 0).then(|| sum / count as f64),
            ..self.metrics.clone()
        }
    }
}

fn has_model(estate: &Estate, host: usize, shape: &Shape) -> bool {
    shape.gpus == 0 || shape.models.is_empty() || shape.models.contains(&estate.hosts()[host].model)
}

fn has_devices(estate: &Estate, host: usize, shape: &Shape) -> bool {
    let devices = estate.held()[host].devices.iter();
    devices.filter(|&&used| used + shape.gpu_milli <= 1000).count() as u64 >= shape.gpus
}

/// Whether a VM of this shape fits on a host.
fn fits(estate: &Estate, host: usize, shape: &Shape) -> bool {
    let free = estate.free(host);
    free[0] >= shape.milli_cpu
        && free[1] >= shape.memory_mib
        && has_devices(estate, host, shape)
        && has_model(estate, host, shape)
}

/// What is free and of no use.
pub struct Waste {
    /// Over all capacity.
    pub fragmentation: f64,
    /// Over what is free.
    pub of_free: Option<f64>,
    /// Free on hosts where no shape of the mix fits, over all capacity.
    pub stranded: [Option<f64>; 3],
}

impl Waste {
    /// Of the hosts as they stand, for a mix. With any GPU in the list the GPU form, else CPU and memory.
    pub fn of(estate: &Estate, mix: &[(Shape, f64)]) -> Self {
        let capacity = estate.capacity();
        let total: [u64; 3] = std::array::from_fn(|r| capacity.iter().map(|capacity| capacity[r]).sum());
        let most: [u64; 3] = std::array::from_fn(|r| capacity.iter().map(|capacity| capacity[r]).max().unwrap_or(0));
        let amount =
            |sizes: [u64; 3]| 0.5 * (sizes[0] as f64 / most[0].max(1) as f64 + sizes[1] as f64 / most[1].max(1) as f64);
        let (mut wasted, mut free_in_all, mut capacity_in_all) = (0.0, 0.0, 0.0);
        let mut stranded = [0; 3];
        for host in 0..capacity.len() {
            let free = estate.free(host);
            let mut of_use = false;
            let (all, whole) = if total[2] > 0 {
                (free[2] as f64, capacity[host][2] as f64)
            } else {
                (amount(free), amount(capacity[host]))
            };
            free_in_all += all;
            capacity_in_all += whole;
            for (shape, share) in mix {
                let good = fits(estate, host, shape);
                of_use |= good;
                wasted += share
                    * if total[2] == 0 { if good { 0.0 } else { all } } else { devices_wasted(estate, host, shape) };
            }
            if !of_use {
                stranded.iter_mut().zip(free).for_each(|(sum, free)| *sum += free);
            }
        }
        Self {
            fragmentation: wasted / f64::max(capacity_in_all, f64::MIN_POSITIVE),
            of_free: (free_in_all > 0.0).then(|| wasted / free_in_all),
            stranded: std::array::from_fn(|r| (total[r] > 0).then(|| stranded[r] as f64 / total[r] as f64)),
        }
    }
}

fn devices_wasted(estate: &Estate, host: usize, shape: &Shape) -> f64 {
    let free = estate.held()[host].devices.iter().map(|used| 1000 - used);
    let good = shape.gpus > 0
        && has_model(estate, host, shape)
        && estate.free(host)[0] >= shape.milli_cpu
        && has_devices(estate, host, shape);
    free.filter(|&free| !good || free < shape.gpu_milli).sum::<u64>() as f64
}
