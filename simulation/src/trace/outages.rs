//! Hosts fail while a trace is played: what ran on them is evacuated by the planner of failover, what finds no place waits, and
//! both are counted. What a real failover takes until it knows, proves and fences is no time here.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::estate::Estate;
use super::events::Trace;
use super::failures::Turn;
use super::replay::Played;

/// Time between two plans of what waits, as failover's leader has it, milliseconds.
const REPLAN: u64 = 30_000;
/// Hosts and VMs that are named.
const NAMED: usize = 20;

/// What failures came to. Each VM counts once for each failure of its host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Failures of hosts.
    pub hosts: u64,
    /// Moments at which some failed.
    pub moments: u64,
    /// Most hosts that were down at one time.
    pub down_at_once: u64,
    /// VMs on hosts when they failed: the sum of the five that follow.
    pub vms: u64,
    /// Placed elsewhere by the plan of that moment.
    pub at_once: u64,
    /// Placed elsewhere by a later plan.
    pub later: u64,
    /// Started where they were, when their host came back.
    pub in_place: u64,
    /// Deleted while they waited.
    pub deleted: u64,
    /// Without a place when the trace ended.
    pub lost: u64,
    /// Share of VMs that were placed at once.
    pub restored_at_once: Option<f64>,
    /// Sum of the times that VMs waited, seconds.
    pub down_vm_s: f64,
    /// Longest of them.
    pub longest_s: f64,
    /// Creates without a host while one was down.
    pub rejected: u64,
    /// The moment at which most VMs found no place.
    pub worst: Option<Worst>,
}

/// A moment at which hosts failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Worst {
    /// Seconds from the start of the trace.
    pub time_s: f64,
    /// Hosts that failed.
    pub failed: u64,
    /// The first of them.
    pub hosts: Vec<String>,
    /// VMs on them.
    pub vms: u64,
    /// Of them without a place at once.
    pub without: u64,
    /// The first of these.
    pub waiting: Vec<String>,
}

/// What fails in a run, and what waits.
#[derive(Debug, Default)]
pub struct Outages {
    turns: Vec<Turn>,
    next: usize,
    down: u64,
    /// When each VM that waits was lost.
    since: BTreeMap<u32, u64>,
    planned: u64,
    /// When there is something to plan again for.
    again: Option<u64>,
    waited: u64,
    longest: u64,
    metrics: Metrics,
}

impl Outages {
    /// Turns in order of time.
    pub fn new(turns: Vec<Turn>) -> Self {
        Self { turns, ..Self::default() }
    }

    /// When something is due, if that is not after `until`.
    pub fn due(&self, until: u64) -> Option<u64> {
        let turn = self.turns.get(self.next).map(|turn| turn.time);
        turn.into_iter().chain(self.again).min().filter(|time| *time <= until)
    }

    /// Hosts fail and come back at `time`; then all that wait are planned as one.
    pub fn play(
        &mut self,
        time: u64,
        trace: &Trace,
        estate: &mut Estate,
        mut after: impl FnMut(Played, &Estate),
    ) -> Result<(), String> {
        let mut worst = Worst { time_s: time as f64 / 1000.0, ..Worst::default() };
        let mut hit = BTreeSet::new();
        while let Some(&Turn { host, up, .. }) = self.turns.get(self.next).filter(|turn| turn.time == time) {
            self.next += 1;
            if up {
                self.down -= 1;
                estate.reopen(host)?;
                let here = |&(_, home): &(&u32, &u32)| *home == host;
                for vm in estate.waiting().iter().filter(here).map(|(vm, _)| *vm).collect::<Vec<_>>() {
                    estate.restart(vm, host)?;
                    self.metrics.in_place += 1;
                    self.waits_no_more(vm, time);
                    after(Played::Restored(vm, host), estate);
                }
                continue;
            }
            for vm in estate.held()[host as usize].vms.clone() {
                estate.lose(vm, host)?;
                self.since.insert(vm, time);
                hit.insert(vm);
                worst.vms += 1;
                after(Played::Lost(vm, host), estate);
            }
            estate.close(host)?;
            self.down += 1;
            worst.failed += 1;
            if worst.hosts.len() < NAMED {
                worst.hosts.push(estate.hosts()[host as usize].id.clone());
            }
        }
        let placed = if self.since.is_empty() { Vec::new() } else { estate.plan_evacuation()? };
        for &(vm, host) in &placed {
            estate.evacuate(vm, host)?;
            *(if hit.contains(&vm) { &mut self.metrics.at_once } else { &mut self.metrics.later }) += 1;
            self.waits_no_more(vm, time);
            after(Played::Restored(vm, host), estate);
        }
        self.planned = time;
        // Each plan asks for so many hosts only: the next one may find more.
        self.again = (!placed.is_empty() && !self.since.is_empty()).then_some(time + REPLAN);
        if worst.failed > 0 {
            let without = || hit.iter().filter(|vm| self.since.contains_key(vm));
            worst.without = without().count() as u64;
            worst.waiting = without().take(NAMED).map(|&vm| trace.vms[vm as usize].id.to_string()).collect();
            let metrics = &mut self.metrics;
            metrics.hosts += worst.failed;
            metrics.moments += 1;
            metrics.down_at_once = metrics.down_at_once.max(self.down);
            metrics.vms += worst.vms;
            let size = |worst: &Worst| (worst.without, worst.vms);
            if metrics.worst.as_ref().is_none_or(|known| size(known) < size(&worst)) {
                metrics.worst = Some(worst);
            }
        }
        Ok(())
    }

    /// Takes note of what an event of the trace did.
    pub fn played(&mut self, played: Played, time: u64) {
        match played {
            Played::Rejected(_) => self.metrics.rejected += u64::from(self.down > 0),
            Played::Gone(vm) => {
                self.metrics.deleted += 1;
                self.waits_no_more(vm, time);
            }
            // There is room now.
            Played::Left(..) if !self.since.is_empty() => {
                self.again = self.again.or(Some(time.max(self.planned + REPLAN)));
            }
            _ => {}
        }
        if self.since.is_empty() {
            self.again = None;
        }
    }

    fn waits_no_more(&mut self, vm: u32, time: u64) {
        let waited = self.since.remove(&vm).map_or(0, |since| time - since);
        self.waited += waited;
        self.longest = self.longest.max(waited);
    }

    /// What it came to, when the trace ends.
    pub fn metrics(mut self, end: u64) -> Metrics {
        let lost: Vec<u32> = self.since.keys().copied().collect();
        for &vm in &lost {
            self.waits_no_more(vm, end);
        }
        let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        Metrics {
            lost: lost.len() as u64,
            restored_at_once: share(self.metrics.at_once, self.metrics.vms),
            down_vm_s: self.waited as f64 / 1000.0,
            longest_s: self.longest as f64 / 1000.0,
            ..self.metrics
        }
    }
}
