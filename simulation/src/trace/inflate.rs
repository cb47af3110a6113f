//! Mode `inflate`: the shapes of a list in a drawn order, and drawn again, until the hosts are asked for more than they have.
//! Nothing is deleted.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::Serialize;

use super::events::{Event, Kind, Trace, Vm};
use super::meter::{RESOURCES, Waste};
use super::policy::Policy;
use super::replay::{Inputs, Played, Player, Watch};
use super::shape::{Shape, mix};

/// Shares of arrived demand at which fragmentation is told, percent.
const AT: [u64; 4] = [60, 80, 90, 100];

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Demand that has arrived, over capacity.
    pub arrived: f64,
    /// What of the capacity is allocated.
    pub allocated: f64,
    /// Fragmentation.
    pub fragmentation: f64,
}

/// What an inflation came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inflation {
    /// The scarce resource.
    pub resource: &'static str,
    /// Allocation of it when demand has reached the capacity.
    pub at_100: f64,
    /// Allocation of it at the end.
    pub at_factor: f64,
    /// Fragmentation at 60, 80, 90 and 100 % of arrived demand.
    pub fragmentation_at: [Option<f64>; 4],
    /// VMs asked for, and those without a host.
    pub vms: u64,
    /// VMs without a host.
    pub rejected: u64,
    /// The curve, in steps of one percent.
    pub curve: Vec<Point>,
}

/// Runs it on the first `count` hosts up to `factor` of the capacity.
pub fn inflate(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    count: usize,
    factor: f64,
    watch: &dyn Watch,
) -> Result<Inflation, String> {
    let hosts = inputs.list.first(count);
    let total: [u64; 3] =
        std::array::from_fn(|r| hosts.iter().map(|host| host.effective(policy.domain(), inputs.ratios)[r]).sum());
    let trace = &inputs.trace;
    let demand: [u64; 3] =
        std::array::from_fn(|r| trace.vms.iter().map(|vm| trace.shapes[vm.shape as usize].sizes()[r]).sum());
    let scarce = if total[2] > 0 {
        2
    } else {
        let share = |r: usize| demand[r] as f64 / total[r].max(1) as f64;
        usize::from(share(1) > share(0))
    };
    if demand[scarce] == 0 {
        return Err(format!(
            "no VM of the trace asks for any {}, the scarce resource of these hosts",
            RESOURCES[scarce]
        ));
    }
    let whole = total[scarce] as f64;
    let drawn = Arc::new(drawn(trace, scarce, (whole * factor) as u64, inputs.seed));
    let expected: Vec<(Shape, f64)> =
        mix(&trace.shapes, &trace.counts).into_iter().map(|(s, p)| (s.clone(), p)).collect();
    let inputs = Inputs { trace: Arc::clone(&drawn), ..inputs.clone() };
    let mut estate = inputs.estate(policy, count)?;
    if policy.learns() {
        estate.knows_mix(&expected.iter().map(|(shape, share)| shape.expected(*share)).collect::<Vec<_>>())?;
    }
    let mut player = Player::new(&inputs, estate, watch);
    let (mut arrived, mut used, mut rejected) = (0_u64, 0_u64, 0);
    let mut curve: Vec<Point> = Vec::new();
    player.play(
        0,
        |_, _| Ok(()),
        |_, played, estate| {
            let (vm, placed) = match played {
                Played::Placed(vm, _) => (vm, true),
                Played::Rejected(vm) => (vm, false),
                _ => return,
            };
            let size = drawn.shape(vm).sizes()[scarce];
            arrived += size;
            used += if placed { size } else { 0 };
            rejected += u64::from(!placed);
            let share = arrived as f64 / whole;
            if share >= (curve.len() + 1) as f64 / 100.0 || arrived == demand_of(&drawn, scarce) {
                let waste = Waste::of(estate, &expected);
                let point =
                    Point { arrived: share, allocated: used as f64 / whole, fragmentation: waste.fragmentation };
                while share >= (curve.len() + 1) as f64 / 100.0 {
                    curve.push(point);
                }
                if arrived == demand_of(&drawn, scarce) {
                    curve.push(point);
                }
            }
        },
    )?;
    let at = |percent: u64| curve.get(percent as usize - 1).copied();
    Ok(Inflation {
        resource: RESOURCES[scarce],
        at_100: at(100).or(curve.last().copied()).map_or(0.0, |point| point.allocated),
        at_factor: used as f64 / whole,
        fragmentation_at: AT.map(|percent| at(percent).map(|point| point.fragmentation)),
        vms: drawn.vms.len() as u64,
        rejected,
        curve,
    })
}

fn demand_of(trace: &Trace, r: usize) -> u64 {
    trace.shapes.iter().zip(&trace.counts).map(|(shape, count)| shape.sizes()[r] * count).sum()
}

/// The shapes of a trace in a drawn order and then drawn again, until `wanted` of resource `r` is asked for.
fn drawn(trace: &Trace, r: usize, wanted: u64, seed: u64) -> Trace {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut list: Vec<u32> = trace.vms.iter().map(|vm| vm.shape).collect();
    list.shuffle(&mut rng);
    let mut out = Trace { shapes: trace.shapes.clone(), counts: vec![0; trace.shapes.len()], ..Trace::default() };
    let (mut asked, mut at) = (0, 0);
    while asked < wanted {
        let shape = match list.get(at) {
            Some(shape) => *shape,
            None => list.choose(&mut rng).copied().unwrap_or(0),
        };
        at += 1;
        asked += trace.shapes[shape as usize].sizes()[r];
        out.counts[shape as usize] += 1;
        let vm = out.vms.len() as u32;
        out.vms.push(Vm { id: vm.to_string().into(), shape, group: 0, created: 0, lifetime: None });
        out.events.push(Event { time: 0, kind: Kind::Create, vm });
    }
    out
}
