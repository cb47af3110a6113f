//! Lower bounds: so many hosts are needed at some instant, however one packs. A policy that does not move VMs cannot reach
//! them in general.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem};
use rayon::prelude::*;
use serde::Serialize;

use super::events::{Kind, Trace};
use super::hosts::{HostList, Ratios};
use scheduler::Domain;

/// Seconds at which the bounds that need all VMs are evaluated: those with the largest volume.
const WORST: usize = 12;
/// Rounds of the linear program.
const MOST_ROUNDS: usize = 400;
/// Largest table of fillings of one host.
const MOST_FILLINGS: u64 = 4_000_000;

/// Lower bounds of a number of hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// The sum of one resource over the capacity of one host; for unequal hosts the first of the list that cover all sums.
    pub volume: u64,
    /// Martello and Toth's L2 of CPU; equal hosts only.
    pub l2_cpu: Option<u64>,
    /// The same of memory.
    pub l2_mem: Option<u64>,
    /// The linear program over the fillings of a host; equal hosts without GPUs only.
    pub lp: Option<u64>,
}

impl Bounds {
    /// The largest of them.
    pub fn best(&self) -> u64 {
        [Some(self.volume), self.l2_cpu, self.l2_mem, self.lp].into_iter().flatten().max().unwrap_or(0)
    }
}

/// Lower bounds of a study.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Of the hosts that are needed at all.
    #[serde(flatten)]
    pub worst: Bounds,
    /// Seconds from the start of the trace, and hosts that are needed then: the largest bound.
    pub over_time: Vec<(u64, u64)>,
}

/// The VMs that live at the end of a second, and the hosts that their sums need.
#[derive(Clone, Debug)]
struct Demand {
    hosts: u64,
    /// Living VMs of each shape.
    counts: Vec<u64>,
}

/// The hosts of a list, for bounds.
struct Hosts {
    /// Capacity of each, where all are alike.
    each: Option<[u64; 3]>,
    /// Capacity of the first hosts of the list, by their number less one.
    sums: Vec<[u128; 3]>,
}

impl Hosts {
    fn new(list: &HostList, domain: Domain, ratios: Ratios) -> Self {
        let capacities: Vec<[u64; 3]> = list.hosts.iter().map(|host| host.effective(domain, ratios)).collect();
        let mut prefix = [0_u128; 3];
        let sums = capacities.iter().map(|capacity| {
            prefix.iter_mut().zip(capacity).for_each(|(sum, &capacity)| *sum += u128::from(capacity));
            prefix
        });
        let sums = sums.collect();
        Self { each: capacities.first().copied().filter(|_| list.are_equal()), sums }
    }

    /// Hosts that the sums of a demand need.
    fn volume(&self, demand: [u64; 3]) -> u64 {
        let of = |r: usize| match self.each {
            _ if demand[r] == 0 => 0,
            Some(each) => demand[r].div_ceil(each[r].max(1)),
            None => {
                // Beyond the end the list begins anew.
                let whole = self.sums.last().map_or(1, |sum| sum[r].max(1));
                let (rounds, rest) = (u128::from(demand[r]) / whole, u128::from(demand[r]) % whole);
                rounds as u64 * self.sums.len() as u64
                    + self.sums.partition_point(|sum| sum[r] < rest) as u64
                    + u64::from(rest > 0)
            }
        };
        (0..3).map(of).max().unwrap_or(0)
    }

    /// All bounds at one instant.
    fn bounds(&self, trace: &Trace, demand: &Demand) -> Bounds {
        let mut out = Bounds { volume: demand.hosts, ..Bounds::default() };
        if let Some(capacity) = self.each {
            let l2 = |r: usize| Some(l2(&sizes(trace, demand, r), capacity[r]));
            (out.l2_cpu, out.l2_mem) = (l2(0), l2(1));
            out.lp = if capacity[2] == 0 { lp(trace, demand, capacity) } else { None };
        }
        out
    }
}

/// Bounds of the hosts that the trace needs at its worst second.
pub fn bounds(trace: &Trace, list: &HostList, domain: Domain, ratios: Ratios) -> Bounds {
    let hosts = Hosts::new(list, domain, ratios);
    let each = worst(trace, &hosts).into_iter().map(|demand| hosts.bounds(trace, &demand));
    each.fold(Bounds::default(), |most, here| Bounds {
        volume: most.volume.max(here.volume),
        l2_cpu: most.l2_cpu.max(here.l2_cpu),
        l2_mem: most.l2_mem.max(here.l2_mem),
        lp: most.lp.max(here.lp),
    })
}

/// The largest bound at so many moments, equally spaced over the trace: seconds and hosts.
pub fn over_time(trace: &Trace, list: &HostList, domain: Domain, ratios: Ratios, moments: u64) -> Vec<(u64, u64)> {
    let hosts = Hosts::new(list, domain, ratios);
    let begin = trace.events.first().map_or(0, |event| event.time);
    let span = trace.end() - begin;
    let at = |moment: u64| begin + span * moment / moments.max(1);
    let mut demands = Vec::new();
    each_second(trace, |time, until, counts, sums| {
        while (demands.len() as u64) < moments && at(demands.len() as u64) < until.max(time + 1) {
            let demand = Demand { hosts: hosts.volume(sums), counts: counts.to_vec() };
            demands.push((at(demands.len() as u64) / 1000, demand));
        }
    });
    demands.par_iter().map(|(time, demand)| (*time, hosts.bounds(trace, demand).best())).collect()
}

/// The instants with the largest volume, the worst first.
fn worst(trace: &Trace, hosts: &Hosts) -> Vec<Demand> {
    let mut found: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    each_second(trace, |time, _, _, sums| {
        let volume = hosts.volume(sums);
        found.insert((volume, u64::MAX - time), time);
        while found.len() > WORST {
            found.pop_first();
        }
    });
    let wanted: BTreeMap<u64, u64> = found.iter().map(|(&(volume, _), &time)| (time, volume)).collect();
    let mut out = Vec::new();
    each_second(trace, |time, _, counts, _| {
        if let Some(&hosts) = wanted.get(&time) {
            out.push(Demand { hosts, counts: counts.to_vec() });
        }
    });
    out.sort_by_key(|demand| std::cmp::Reverse(demand.hosts));
    out
}

/// Calls `visit` with a time, the time of the next events, and the living VMs by shape and their sums in between.
fn each_second(trace: &Trace, mut visit: impl FnMut(u64, u64, &[u64], [u64; 3])) {
    let mut counts = vec![0_u64; trace.shapes.len()];
    let mut sums = [0_u64; 3];
    for (at, event) in trace.events.iter().enumerate() {
        let shape = trace.vms[event.vm as usize].shape as usize;
        let sizes = trace.shapes[shape].sizes();
        match event.kind {
            Kind::Create => {
                counts[shape] += 1;
                sums.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size);
            }
            Kind::Delete => {
                counts[shape] -= 1;
                sums.iter_mut().zip(sizes).for_each(|(sum, size)| *sum -= size);
            }
        }
        let next = trace.events.get(at + 1).map_or(event.time, |next| next.time);
        if next != event.time || at + 1 == trace.events.len() {
            visit(event.time, next, &counts, sums);
        }
    }
}

/// Sizes of one resource with their numbers, ascending.
fn sizes(trace: &Trace, demand: &Demand, r: usize) -> Vec<(u64, u64)> {
    let mut out: BTreeMap<u64, u64> = BTreeMap::new();
    for (shape, &count) in trace.shapes.iter().zip(&demand.counts) {
        *out.entry(shape.sizes()[r]).or_default() += count;
    }
    out.into_iter().filter(|&(size, count)| size > 0 && count > 0).collect()
}

/// Martello and Toth's L2: items above C − α alone, items above half a host alone, and what does not fit beside the latter.
fn l2(sizes: &[(u64, u64)], capacity: u64) -> u64 {
    let alphas = sizes.iter().map(|&(size, _)| size).filter(|&size| size * 2 <= capacity).chain([0]);
    let bound = |alpha: u64| {
        let of = |good: &dyn Fn(u64) -> bool| {
            let items = sizes.iter().filter(|(size, _)| good(*size));
            items.fold((0, 0), |(n, sum), &(size, count)| (n + count, sum + size * count))
        };
        let (first, _) = of(&|size| size > capacity - alpha);
        let (second, second_sum) = of(&|size| size <= capacity - alpha && size * 2 > capacity);
        let (_, third_sum) = of(&|size| size >= alpha && size * 2 <= capacity);
        let beside = second * capacity - second_sum;
        first + second + third_sum.saturating_sub(beside).div_ceil(capacity.max(1))
    };
    alphas.map(bound).max().unwrap_or(0)
}

/// The configuration LP by its dual: the largest Σ n_m y_m such that no filling of a host is worth more than 1. Fillings that
/// break it are found by a knapsack. Every round gives a bound: the value over that of the best filling (Farley).
fn lp(trace: &Trace, demand: &Demand, capacity: [u64; 3]) -> Option<u64> {
    let shapes: Vec<([u64; 2], u64)> = trace
        .shapes
        .iter()
        .zip(&demand.counts)
        .filter(|&(_, &count)| count > 0)
        .map(|(shape, &count)| ([shape.milli_cpu, shape.memory_mib], count))
        .collect();
    let knapsack = Knapsack::new(&shapes, [capacity[0], capacity[1]])?;
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let values: Vec<_> = shapes.iter().map(|&(_, count)| problem.add_var(count as f64, (0.0, 1.0))).collect();
    let mut fillings: Vec<Vec<u32>> = Vec::new();
    for at in 0..shapes.len() {
        let alone = knapsack.alone(at)?;
        fillings.push((0..shapes.len()).map(|other| if other == at { alone } else { 0 }).collect());
    }
    for filling in &fillings {
        let mut expr = LinearExpr::empty();
        filling
            .iter()
            .zip(&values)
            .filter(|(count, _)| **count > 0)
            .for_each(|(count, value)| expr.add(*value, f64::from(*count)));
        problem.add_constraint(expr, ComparisonOp::Le, 1.0);
    }
    let mut solution = problem.solve().ok()?;
    let mut best = 0.0_f64;
    for _ in 0..MOST_ROUNDS {
        let duals: Vec<f64> = values.iter().map(|&value| *solution.var_value(value)).collect();
        let (worth, filling) = knapsack.fill(&duals);
        best = best.max(solution.objective() / worth.max(1.0));
        if worth <= 1.0 + 1e-9 {
            break;
        }
        let mut expr = LinearExpr::empty();
        filling
            .iter()
            .zip(&values)
            .filter(|(count, _)| **count > 0)
            .for_each(|(count, value)| expr.add(*value, f64::from(*count)));
        solution = solution.add_constraint(expr, ComparisonOp::Le, 1.0).ok()?;
    }
    Some((best - 1e-6).ceil().max(0.0) as u64)
}

/// Fillings of one host, over a grid of the greatest common divisors of what is asked.
struct Knapsack {
    items: Vec<[usize; 2]>,
    size: [usize; 2],
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Knapsack {
    /// `None` when the grid is too fine.
    fn new(shapes: &[([u64; 2], u64)], capacity: [u64; 2]) -> Option<Self> {
        let units: [u64; 2] =
            std::array::from_fn(|r| shapes.iter().fold(0, |unit, (sizes, _)| gcd(unit, sizes[r])).max(1));
        let size = [(capacity[0] / units[0]) as usize, (capacity[1] / units[1]) as usize];
        if (size[0] as u64 + 1).saturating_mul(size[1] as u64 + 1) > MOST_FILLINGS || shapes.is_empty() {
            return None;
        }
        let items =
            shapes.iter().map(|(sizes, _)| [(sizes[0] / units[0]) as usize, (sizes[1] / units[1]) as usize]).collect();
        Some(Self { items, size })
    }

    /// How many of one item fill a host; `None`: none fits, or it takes nothing.
    fn alone(&self, at: usize) -> Option<u32> {
        let fit = |r: usize| self.size[r].checked_div(self.items[at][r]);
        let most = [fit(0), fit(1)].into_iter().flatten().min()?;
        (most > 0).then_some(most as u32)
    }

    /// The filling that is worth most, and its worth.
    fn fill(&self, worth: &[f64]) -> (f64, Vec<u32>) {
        let width = self.size[1] + 1;
        let mut best = vec![0.0_f64; (self.size[0] + 1) * width];
        let mut taken = vec![u16::MAX; best.len()];
        for cpu in 0..=self.size[0] {
            for memory in 0..width {
                let here = cpu * width + memory;
                for (at, item) in self.items.iter().enumerate() {
                    if item[0] > cpu || item[1] > memory || *item == [0, 0] {
                        continue;
                    }
                    let value = best[(cpu - item[0]) * width + memory - item[1]] + worth[at];
                    if value > best[here] + 1e-12 {
                        best[here] = value;
                        taken[here] = at as u16;
                    }
                }
                // Space may stay free.
                for (less, good) in [(here.wrapping_sub(width), cpu > 0), (here.wrapping_sub(1), memory > 0)] {
                    if good && best[less] > best[here] {
                        best[here] = best[less];
                        taken[here] = u16::MAX - if less + 1 == here { 1 } else { 2 };
                    }
                }
            }
        }
        let mut filling = vec![0; self.items.len()];
        let mut here = best.len() - 1;
        let worth = best[here];
        loop {
            match taken[here] {
                u16::MAX => break,
                left if left == u16::MAX - 1 => here -= 1,
                up if up == u16::MAX - 2 => here -= width,
                at => {
                    let item = self.items[usize::from(at)];
                    filling[usize::from(at)] += 1;
                    here -= item[0] * width + item[1];
                }
            }
        }
        (worth, filling)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, bounds, l2, over_time};
    use crate::trace::{HostList, Ratios, Trace};
    use scheduler::Domain;

    fn trace(vms: &[(u64, u64)]) -> Trace {
        let lines = vms.iter().enumerate().map(|(at, (cpu, memory))| format!("0,create,v{at},{cpu},{memory},0,0,,,\n"));
        let text = format!(
            "time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models,lifetime_s,group\n{}",
            lines.collect::<String>()
        );
        Trace::read("events.csv", text.into_bytes()).expect("a good trace")
    }

    /// Six of 6/10 need six hosts, whatever their volume; 10 of 3/10 fit in threes.
    #[test]
    fn items_above_half_a_host_are_alone() {
        assert_eq!(l2(&[(6, 6)], 10), 6);
        assert_eq!(l2(&[(4, 6), (6, 6)], 10), 6);
        assert_eq!(l2(&[(5, 2), (6, 6)], 10), 7);
    }

    /// Hosts 10 / 10. Two shapes, 7/2 and 2/7: together 9/9 fill one host, so 3 + 3 need three, where the sums (27 each) say
    /// three as well. Three more of 4/4, of which two fit on a host and none beside a 7: 3 + 3/2 hosts, where the sums say
    /// 39/10.
    #[test]
    fn the_linear_program_sees_both_resources() {
        let list = HostList::read("h", b"node_id,vcpus,memory_mib\na,10,10\nb,10,10\n".to_vec()).expect("a good list");
        let of = |vms: &[(u64, u64)]| bounds(&trace(vms), &list, Domain::Nova, Ratios::default());
        let pairs = [(7, 2), (2, 7), (7, 2), (2, 7), (7, 2), (2, 7)];
        assert_eq!(of(&pairs), Bounds { volume: 3, l2_cpu: Some(3), l2_mem: Some(3), lp: Some(3) });
        let more = [&pairs[..], &[(4, 4); 3]].concat();
        assert_eq!(of(&more), Bounds { volume: 4, l2_cpu: Some(5), l2_mem: Some(5), lp: Some(5) });
    }

    /// One VM that needs a whole host from 0 s to 50 s, a second one from 20 s on: of ten moments 0 to 45 s.
    #[test]
    fn bounds_over_time() {
        let list = HostList::read("h", b"node_id,vcpus,memory_mib\na,10,10\n".to_vec()).expect("a good list");
        let text = "time_s,event,vm_id,vcpus,memory_mib\n0,create,a,6,6\n20,create,b,6,6\n50,delete,a,,\n";
        let trace = Trace::read("events.csv", text.into()).expect("a good trace");
        let found = over_time(&trace, &list, Domain::Nova, Ratios::default(), 10);
        let wanted: Vec<(u64, u64)> = (0..10).map(|at| (5 * at, if at < 4 { 1 } else { 2 })).collect();
        assert_eq!(found, wanted);
    }
}
