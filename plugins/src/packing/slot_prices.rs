//! Prefers the host on which a placement costs the fewest places for the requests that are to be expected, each place at
//! a price that rises as places of its shape become scarce.
//!
//! ```text
//! a(h) = −Σ_m w_m × (worth(h, m) − worth(h with the request, m)) / (1 + Σ_g worth(g, m))
//! worth(h, m) = (smooth × x + (1 − smooth) × ⌊x⌋)^power,  x = min over r of F_r / m_r
//! ```
//!
//! m runs over the option `shapes`, with weights w_m; r over CPU and memory; g over all hosts that have both. A small instance
//! goes where large ones do not fit any more; one that needs much memory goes where memory is left over; and the last places
//! of a large shape are spared. With `smooth` above 0 a part of a place counts as well, so that hosts on which a place is
//! nearly free again are left alone; with `power` above 1 places on one host are worth more than on many. Many hosts come
//! out equal: give `packing` a small multiplier beside it.
//!
//! Related: the bid prices of network revenue management (Talluri and van Ryzin, "The Theory and Practice of Revenue
//! Management", 2004), here 1 / places left instead of a dual.

use scheduler::pipeline::{Cx, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Row};
use serde::{Deserialize, Serialize};

use super::fragmentation::Shape;
use super::{DOMAINS, Resource, free};

/// Most shapes.
const MOST: usize = 64;

/// The step.
#[derive(Debug)]
pub struct SlotPrices {
    shapes: Vec<Shape>,
    smooth: f64,
    power: f64,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Shapes to keep places for, each as `weight cpu memory gpus gpuMilli models`, as in `2 8 57344 0 0 -`: weight above 0,
    /// vCPU, MiB; GPUs are not looked at.
    pub shapes: Vec<String>,
    /// How much of a part of a place counts, 0 to 1.
    #[serde(default)]
    pub smooth: f64,
    /// Power of the places on one host, above 0 and at most 4.
    #[serde(default = "one")]
    pub power: f64,
}

fn one() -> f64 {
    1.0
}

/// A shape in the units of the columns, and what places for it are worth.
struct Probe {
    weight: f64,
    cpu: f64,
    memory: f64,
    smooth: f64,
    power: f64,
}

impl Probe {
    fn worth(&self, cpu: f64, memory: f64) -> f64 {
        // A shape that asks nothing of a resource divides by 0: the other one decides.
        let places = (cpu / self.cpu).min(memory / self.memory).max(0.0);
        let worth = self.smooth * places + (1.0 - self.smooth) * places.floor();
        if (self.power - 1.0).abs() < f64::EPSILON { worth } else { worth.powf(self.power) }
    }
}

impl Weigher for SlotPrices {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let (Some((cpu, asked_cpu)), Some((memory, asked_memory))) = (Resource::Cpu.of(cx), Resource::Memory.of(cx))
        else {
            return Verdict::Skipped("no host reports CPU and memory");
        };
        let milli = if Resource::Cpu.class(cx.request.domain) == "MILLICPU" { 1.0 } else { 1000.0 };
        let rows = cpu.capacity.len().min(memory.capacity.len());
        let all: Vec<(f64, f64)> = (0..rows).map(|at| (free(cpu, at), free(memory, at))).collect();
        let (asked_cpu, asked_memory) = (asked_cpu as f64, asked_memory as f64);
        let mut worths = vec![0.0; rows];
        for shape in &self.shapes {
            let probe = Probe {
                weight: shape.share,
                cpu: shape.milli_cpu as f64 / milli,
                memory: shape.memory as f64,
                smooth: self.smooth,
                power: self.power,
            };
            let mut last = ((f64::NAN, f64::NAN), 0.0);
            for (worth, &(cpu, memory)) in worths.iter_mut().zip(&all) {
                // Neighbours are often alike, empty ones above all.
                if last.0 != (cpu, memory) {
                    last = ((cpu, memory), probe.worth(cpu, memory));
                }
                *worth = last.1;
            }
            let price = probe.weight / (1.0 + worths.iter().sum::<f64>());
            let mut last = ((f64::NAN, f64::NAN), 0.0);
            for (row, a) in hosts.iter().zip(&mut *out) {
                let at = row.0 as usize;
                let (Some(&(cpu, memory)), Some(&before)) = (all.get(at), worths.get(at)) else { continue };
                if last.0 != (cpu, memory) {
                    last = ((cpu, memory), price * (before - probe.worth(cpu - asked_cpu, memory - asked_memory)));
                }
                *a -= last.1;
            }
        }
        Verdict::Ran
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("price of places", "float")
    }
}

impl WeigherPlugin for SlotPrices {
    const NAME: &'static str = "slot_prices";
    const DOMAINS: &'static [Domain] = DOMAINS;
    const SUMMARY: &'static str =
        "Prefers the host on which a placement costs the fewest places for the shapes to be expected.";
    const MISSING_DATA: &'static str = "A host without an inventory has no places.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        if options.shapes.len() > MOST {
            return Err(format!("shapes: {} given, at most {MOST} expected", options.shapes.len()));
        }
        let good = |shape: &Shape| shape.milli_cpu > 0 || shape.memory > 0;
        let read = |text: &String| {
            Shape::read(text).filter(good).ok_or_else(|| {
                format!(
                    "shapes: '{text}' given, 'weight cpu memory gpus gpuMilli models' expected, as in '2 8 57344 0 0 -'"
                )
            })
        };
        let (smooth, power) = (options.smooth, options.power);
        if !(0.0..=1.0).contains(&smooth) {
            return Err(format!("smooth: {smooth} given, a number from 0 to 1 expected"));
        }
        if !(power > 0.0 && power <= 4.0) {
            return Err(format!("power: {power} given, a number above 0 and at most 4 expected"));
        }
        Ok(Self { shapes: options.shapes.iter().map(read).collect::<Result<_, _>>()?, smooth, power })
    }
}

#[cfg(test)]
mod tests {
    use super::SlotPrices;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use serde_json::json;

    /// Places of 4/40 before: `tight` 1 (memory), `wide` 2, `full` 0; 3 in all. 2/5 takes one of `tight` and one of `wide`
    /// (8 vCPU → 6); of 1/5 there are 4 + 8 + 2 = 14 before, and it takes 2, 2 and 2.
    #[test]
    fn prices() {
        let mut fleet = Fleet::of([
            host("tight").amounts(4, 40),
            host("wide").amounts(8, 100),
            host("full").amounts(10, 100).allocated(8, 90),
        ]);
        let (large, small) = (1.0 / 4.0, 2.0 / 15.0);
        case("prices")
            .resources(&[("VCPU", 2), ("MEMORY_MB", 5)])
            .options(json!({"shapes": ["1 4 40 0 0 -", "1 1 5 0 0 -"]}))
            .scores(&[("tight", -large - small), ("wide", -large - small), ("full", -small)])
            .weigh::<SlotPrices>(&mut fleet);
    }

    #[test]
    fn shapes_are_checked() {
        let error = weigher_options_error::<SlotPrices>(json!({"shapes": ["8 57344"]}));
        assert!(error.starts_with("shapes: '8 57344' given, 'weight cpu memory"), "{error}");
    }
}
