//! How long VMs will still live, said from what has happened in the trace so far and nothing else. What is said reaches a
//! pipeline as it would from any source: as the hint and the feature that the step `lifetime_alignment` reads.
//!
//! ```text
//! p(b)    = ended in b / (reached b − still living in b / 2)      of the VMs of one shape, by age
//! left(b) = p(b) × w / 2 + (1 − p(b)) × (w + left(b + 1))          w = width of b
//! ```
//!
//! The life-table estimate of Cutler and Ederer (1958): VMs that still live say that lives are at least so long. `left` is the
//! conditional expectation E[life − age | life > age], as in Ling et al., "LAVA", MLSys 2025, which says it anew as a VM gets
//! older; the classes of the calibration are LAVA's. Beyond the oldest VM ever seen one is expected to live as long again as it
//! has. Barbalho et al., MLSys 2023, say it once, when a VM is created.
//!
//! Never here: a lifetime of the trace, but in [`Calibration`], which measures when all is over.

use std::sync::Arc;

use serde::Serialize;

use super::events::{Kind, Trace};

/// Seconds of the first age; each further edge is that of half a class of `lifetime_alignment`: 300 s × (2^(b/2) − 1).
const UNIT: f64 = 300.0;
/// Ages that are told apart; the last ends after ten years.
const AGES: usize = 40;
/// VMs of a shape that must have ended before anything is said of it alone.
const ENOUGH: u32 = 30;
/// Ends of LAVA's lifetime classes, seconds.
const CLASSES: [f64; 3] = [3_600.0, 36_000.0, 360_000.0];
/// Uptime at which what is said is held against the truth a second time, seconds.
const LATER: f64 = 3_600.0;

/// Who says how long VMs live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// Nobody.
    #[default]
    None,
    /// The trace itself: knowledge of the future.
    Oracle,
    /// What happened so far.
    Learned,
}

/// What was said, to be held against what came.
#[derive(Clone, Copy, Debug)]
struct Said {
    vm: u32,
    now: u64,
    class: u8,
}

/// Ends by age, and what follows from them.
#[derive(Clone, Debug)]
struct Curve {
    /// Share of those that reach an age and end in it.
    ends: [f64; AGES],
    /// Seconds that are left when an age is reached.
    left: [f64; AGES + 1],
    /// The first age that nobody has reached.
    beyond: usize,
}

/// The forecast.
#[derive(Clone, Debug)]
pub struct Forecast {
    trace: Arc<Trace>,
    edges: [f64; AGES + 1],
    /// VMs that ended, by shape and age; all shapes together come last.
    ended: Vec<[u32; AGES]>,
    /// `None`: too few have ended.
    curves: Vec<Option<Curve>>,
    /// Said of new VMs.
    said: Vec<Said>,
    /// Said of those that live for an hour.
    said_later: Vec<Said>,
    later: Vec<bool>,
}

fn class(seconds: f64) -> u8 {
    CLASSES.iter().filter(|&&end| seconds >= end).count() as u8
}

impl Curve {
    fn of(ended: &[u32; AGES], living: &[u32; AGES], edges: &[f64; AGES + 1]) -> Option<Self> {
        if ended.iter().sum::<u32>() < ENOUGH {
            return None;
        }
        let mut curve = Self { ends: [0.0; AGES], left: *edges, beyond: AGES };
        let mut reached = 0.0;
        for age in (0..AGES).rev() {
            let (gone, living) = (f64::from(ended[age]), f64::from(living[age]));
            reached += gone + living;
            if reached == 0.0 {
                curve.beyond = age;
                continue;
            }
            let (ends, width) = (gone / (reached - living / 2.0), edges[age + 1] - edges[age]);
            curve.ends[age] = ends;
            curve.left[age] = ends * width / 2.0 + (1.0 - ends) * (width + curve.left[age + 1]);
        }
        Some(curve)
    }
}

impl Forecast {
    /// One that knows nothing yet.
    pub fn new(trace: &Arc<Trace>) -> Self {
        let keys = trace.shapes.len() + 1;
        Self {
            edges: std::array::from_fn(|age| UNIT * ((age as f64 / 2.0).exp2() - 1.0)),
            ended: vec![[0; AGES]; keys],
            curves: vec![None; keys],
            said: Vec::new(),
            said_later: Vec::new(),
            later: vec![false; trace.vms.len()],
            trace: Arc::clone(trace),
        }
    }

    /// What it knows, without what it said.
    #[must_use]
    pub fn fork(&self) -> Self {
        let (edges, trace) = (self.edges, Arc::clone(&self.trace));
        let (ended, curves) = (self.ended.clone(), self.curves.clone());
        Self { trace, edges, ended, curves, said: Vec::new(), said_later: Vec::new(), later: self.later.clone() }
    }

    fn shape(&self, vm: u32) -> usize {
        self.trace.vms[vm as usize].shape as usize
    }

    fn uptime(&self, vm: u32, now: u64) -> f64 {
        now.saturating_sub(self.trace.vms[vm as usize].created) as f64 / 1000.0
    }

    fn age(&self, uptime: f64) -> usize {
        (self.edges.partition_point(|edge| *edge <= uptime).max(1) - 1).min(AGES - 1)
    }

    /// A VM ends.
    pub fn ends(&mut self, vm: u32, now: u64) {
        let (shape, age) = (self.shape(vm), self.age(self.uptime(vm, now)));
        self.ended[shape][age] += 1;
        if let Some(all) = self.ended.last_mut() {
            all[age] += 1;
        }
    }

    /// Takes in what happened so far; `living` are the VMs that live.
    pub fn learn(&mut self, now: u64, living: impl Iterator<Item = u32>) {
        let all = self.trace.shapes.len();
        let mut ages = vec![[0_u32; AGES]; all + 1];
        let mut old = Vec::new();
        for vm in living {
            let uptime = self.uptime(vm, now);
            let age = self.age(uptime);
            ages[self.shape(vm)][age] += 1;
            ages[all][age] += 1;
            if uptime >= LATER && !std::mem::replace(&mut self.later[vm as usize], true) {
                old.push(vm);
            }
        }
        let curves = self.ended.iter().zip(&ages).map(|(ended, ages)| Curve::of(ended, ages, &self.edges));
        self.curves = curves.collect();
        for vm in old {
            let said = self.left(vm, now).map(|left| Said { vm, now, class: class(left) });
            self.said_later.extend(said);
        }
    }

    /// What is said of a new VM is kept, to be held against what comes.
    pub fn create(&mut self, vm: u32, now: u64) {
        let said = self.left(vm, now).map(|left| Said { vm, now, class: class(left) });
        self.said.extend(said);
    }

    /// Seconds that a VM is expected to live on; `None`: too little has happened to say.
    pub fn left(&self, vm: u32, now: u64) -> Option<f64> {
        let curve = self.curves[self.shape(vm)].as_ref().or(self.curves.last()?.as_ref())?;
        let uptime = self.uptime(vm, now);
        let age = self.age(uptime);
        if age >= curve.beyond {
            return Some(uptime.max(UNIT));
        }
        let rest = self.edges[age + 1] - uptime;
        let ends = curve.ends[age] * rest / (self.edges[age + 1] - self.edges[age]);
        Some(ends * rest / 2.0 + (1.0 - ends) * (rest + curve.left[age + 1]))
    }

    /// What was said against what came.
    pub fn calibration(&self) -> Calibration {
        let mut ends = vec![None; self.trace.vms.len()];
        for event in self.trace.events.iter().filter(|event| event.kind == Kind::Delete) {
            ends[event.vm as usize] = Some(event.time);
        }
        let table = |said: &[Said]| {
            let mut table = Table::default();
            for said in said {
                let came = ends[said.vm as usize].map(|end| class(end.saturating_sub(said.now) as f64 / 1000.0));
                table.vms[usize::from(said.class)][came.map_or(4, usize::from)] += 1;
            }
            let came: [u64; 4] = std::array::from_fn(|came| table.vms.iter().map(|row| row[came]).sum());
            let all: u64 = came.iter().sum();
            let share = |some: u64| (all > 0).then(|| some as f64 / all as f64);
            table.right = share((0..4).map(|class| table.vms[class][class]).sum());
            table.right_by_one_class = share(came.into_iter().max().unwrap_or(0));
            table
        };
        Calibration { created: table(&self.said), an_hour_old: table(&self.said_later) }
    }
}

/// How long VMs were expected to live on, and did: of those of whom something was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// Said when they were created.
    pub created: Table,
    /// Said again of those that were an hour old, when the forecast was next brought up to date.
    pub an_hour_old: Table,
}

/// Expected against actual, in classes: below 1 hour, below 10, below 100, longer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// VMs: a row for each class that was said; columns are what came, the last one those without an end in the trace.
    pub vms: [[u64; 5]; 4],
    /// Of those that ended: share whose class was said.
    pub right: Option<f64>,
    /// The share that one would get who always says the same class, the best one: what any forecast must beat.
    pub right_by_one_class: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::{AGES, Curve, Forecast};
    use crate::trace::Trace;
    use std::sync::Arc;

    /// 40 VMs: half end at 100 s, the others live for 4000 s and longer; what is left grows with age.
    #[test]
    fn who_is_old_is_expected_to_get_older() {
        let lines = (0..40).map(|at| format!("0,create,v{at},1,1,0,0,,,\n")).collect::<Vec<_>>().concat();
        let text = format!("time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models,lifetime_s,group\n{lines}");
        let trace = Arc::new(Trace::read("events.csv", text.into_bytes()).expect("a good trace"));
        let mut forecast = Forecast::new(&trace);
        forecast.learn(50_000, 0..40);
        assert_eq!(forecast.left(0, 50_000), None, "nobody has ended");
        for vm in 0..20 {
            forecast.ends(vm, 100_000);
        }
        for vm in 20..30 {
            forecast.ends(vm, 4_000_000);
        }
        forecast.learn(4_000_000, 30..40);
        let left = |uptime: u64| forecast.left(39, uptime * 1000).expect("30 have ended");
        // Of 40 half end in the first age (0 to 124 s, 62 on average), and of the 20 others half in that of 4000 s.
        assert!(left(0) > 2_000.0 && left(0) < 4_000.0, "{}", left(0));
        assert!(left(200) > 1.8 * left(0), "{} after {}", left(200), left(0));
        assert!((left(200) - left(1_200) - 1_000.0).abs() < 1.0, "nobody ends between: {} {}", left(200), left(1_200));
        assert!(left(10_000) >= 10_000.0, "nobody was so old: {}", left(10_000));
    }

    /// 30 end and 30 live on in the first age; the 30 that live are at risk for half of it: p = 30 / (60 − 15).
    #[test]
    fn the_living_count_as_half_at_risk() {
        let edges: [f64; AGES + 1] = std::array::from_fn(|age| age as f64);
        let (mut ended, mut living) = ([0; AGES], [0; AGES]);
        (ended[0], living[0]) = (30, 30);
        let curve = Curve::of(&ended, &living, &edges).expect("30 have ended");
        assert!((curve.ends[0] - 30.0 / 45.0).abs() < 1e-12 && curve.beyond == 1);
        assert!((curve.left[0] - (2.0 / 3.0 * 0.5 + 1.0 / 3.0 * (1.0 + 1.0))).abs() < 1e-12, "{}", curve.left[0]);
    }
}
