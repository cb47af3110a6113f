//! How long things took, out of the replicated state: what is newer than what was looked at before is observed. Every node
//! observes the same from its start on.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use scheduler::ha::case::{Case, Phase};
use scheduler::ha::note::{Seen, What};
use scheduler::ha::proof::Power;
use scheduler::ha::recovery::Status;
use scheduler::ha::{Detection, Failover};

use crate::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fence {
    provider: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// Seconds: the aims are between some seconds and ten minutes.
const BOUNDS: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0, 3600.0];

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

pub(super) struct CaseTimes {
    /// Up to when was looked, replicated milliseconds.
    looked: Mutex<Option<u64>>,
    detection: Times<Stage>,
    fence: Times<Fence>,
    phases: Times<InPhase>,
    evacuation: Histogram,
    recovery: Histogram,
}

impl Default for CaseTimes {
    fn default() -> Self {
        Self {
            looked: Mutex::default(),
            detection: Family::new_with_constructor(histogram),
            fence: Family::new_with_constructor(histogram),
            phases: Family::new_with_constructor(histogram),
            evacuation: histogram(),
            recovery: histogram(),
        }
    }
}

impl CaseTimes {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Of cases: from the last sign of life to a suspicion, to being unreachable, to a proof of death";
        registry.register("pallium_ha_detection_seconds", help, self.detection.clone());
        let help = "From the order to fence to what was read back, by what fenced and whether it was off";
        registry.register("pallium_ha_fence_seconds", help, self.fence.clone());
        registry.register("pallium_ha_case_phase_seconds", "Time that cases were in a phase", self.phases.clone());
        let help = "From the order to evacuate an instance to its end at the target";
        registry.register("pallium_ha_evacuation_seconds", help, self.evacuation.clone());
        let help = "From a host's last sign of life to an instance that runs elsewhere";
        registry.register("pallium_ha_recovery_time_seconds", help, self.recovery.clone());
        // What has no series cannot be told from what is not scraped.
        for stage in ["suspect", "unreachable", "dead"] {
            let _ = self.detection.get_or_create(&Stage { stage });
        }
    }

    /// Observes what happened up to now and was not looked at before; at first nothing, for when that was seen nobody
    /// knows.
    pub(super) fn observe(&self, failover: &Failover, now: u64) {
        let Some(since) = self.since(now) else { return };
        let new = |at: u64| at > since && at <= now;
        let open = failover.cases.iter().map(|case| &**case);
        // Newest first, and its last step is when one ended.
        let closed = failover.closed().take_while(|case| case.since > since);
        for case in open.chain(closed) {
            self.case(case, new);
        }
        for recovery in failover.recoveries.iter() {
            let Some(attempt) = recovery.attempt.as_ref().filter(|attempt| new(attempt.over)) else { continue };
            if !matches!(recovery.status, Status::Succeeded(_) | Status::Stopping(_)) {
                continue;
            }
            self.evacuation.observe(seconds(attempt.over, attempt.at));
            let case = failover.cases.get(recovery.case.host).filter(|case| case.id == recovery.case);
            if let Some(last) = case.and_then(|case| last_heard(case)) {
                self.recovery.observe(seconds(attempt.over, last));
            }
        }
    }

    /// Since when nobody has looked.
    fn since(&self, now: u64) -> Option<u64> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).replace(now)
    }

    fn case(&self, case: &Case, new: impl Fn(u64) -> bool) {
        for pair in case.steps.windows(2).filter(|pair| new(pair[1].at)) {
            let phase = pair[0].phase.as_str();
            self.phases.get_or_create(&InPhase { phase }).observe(seconds(pair[1].at, pair[0].at));
        }
        let stage = |stage, at, last| self.detection.get_or_create(&Stage { stage }).observe(seconds(at, last));
        let opened = case.steps.first().map_or(0, |step| step.at);
        if new(opened) {
            // What led to it was seen before it began.
            for seen in sightings(case).filter(|seen| seen.at <= opened) {
                match seen.detection {
                    Detection::Suspect => stage("suspect", seen.at, seen.at.saturating_sub(seen.age)),
                    Detection::Unreachable => stage("unreachable", seen.at, seen.at.saturating_sub(seen.age)),
                    _ => {}
                }
            }
        }
        let proven = case.steps.iter().find(|step| step.phase == Phase::Fenced && new(step.at));
        if let Some((step, last)) = proven.zip(last_heard(case)) {
            stage("dead", step.at, last);
        }
        for op in &case.ops {
            if let Some(outcome) = op.outcome.as_ref().filter(|outcome| new(outcome.at)) {
                let result = if outcome.power == Power::Off { "off" } else { "failed" };
                let fence = Fence { provider: op.fencer.as_str(), result };
                self.fence.get_or_create(&fence).observe(seconds(outcome.at, op.at));
            }
        }
    }
}

fn sightings(case: &Case) -> impl Iterator<Item = &Seen> {
    case.notes.iter().filter_map(|note| match &note.what {
        What::Seen(seen) => Some(seen),
        _ => None,
    })
}

/// When its host was heard last, replicated milliseconds.
fn last_heard(case: &Case) -> Option<u64> {
    sightings(case).next().map(|seen| seen.at.saturating_sub(seen.age))
}

fn seconds(to: u64, from: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use scheduler::ha::case::{CaseId, Cause, FenceOp, FenceOutcome, Step};
    use scheduler::ha::host::{Fencer, Machine};
    use scheduler::ha::note::Note;
    use scheduler::ha::order::{Groups, Leader};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_new_is_observed_once_and_what_was_before_the_start_is_not() {
        let by = Leader { term: 1, node: 1 };
        let step = |phase, at| Step { phase, at, wall: at, by };
        let seen = |detection, at, age| {
            let what = What::Seen(Seen { detection, life: 1, groups: Groups(5), age, at, wall: at, by });
            Note { at, wall: at, by, who: None, what }
        };
        let machine = Machine::default();
        let outcome = FenceOutcome { power: Power::Off, raw: String::new(), machine: machine.clone(), at: 33_000 };
        let op = FenceOp {
            id: Uuid::nil(),
            level: 0,
            fencer: Fencer::Redfish,
            machine,
            by,
            at: 29_000,
            outcome: Some(outcome),
        };
        let mut case = Case {
            id: CaseId::default(),
            epoch: 0,
            cause: Cause::Unreachable,
            phase: Phase::Fencing,
            since: 29_000,
            held_kill: None,
            held_recover: None,
            needs_operator: None,
            would: None,
            fences: 1,
            ops: vec![op],
            plans: 0,
            reentry: scheduler::ha::reentry::Reentry::default(),
            steps: vec![step(Phase::Unreachable, 28_000), step(Phase::Fencing, 29_000)],
            notes: vec![seen(Detection::Suspect, 12_000, 7_000), seen(Detection::Unreachable, 28_000, 23_000)],
        };
        let look = |times: &CaseTimes, case: &Case, now| {
            if let Some(since) = times.since(now) {
                times.case(case, |at| at > since && at <= now);
            }
        };
        let times = CaseTimes::default();
        let mut registry = Registry::default();
        times.register(&mut registry);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a string takes everything");
            text
        };
        look(&times, &case, 10_000);
        look(&times, &case, 30_000);
        look(&times, &case, 30_000);
        let first = text();
        assert!(first.contains("pallium_ha_detection_seconds_sum{stage=\"suspect\"} 7.0\n"), "{first}");
        assert!(first.contains("pallium_ha_detection_seconds_sum{stage=\"unreachable\"} 23.0\n"), "{first}");
        assert!(first.contains("pallium_ha_case_phase_seconds_sum{phase=\"Unreachable\"} 1.0\n"), "{first}");
        assert!(!first.contains("redfish"), "not yet: {first}");
        case.steps.push(step(Phase::Fenced, 34_000));
        look(&times, &case, 40_000);
        let second = text();
        assert!(second.contains("pallium_ha_fence_seconds_sum{provider=\"redfish\",result=\"off\"} 4.0\n"), "{second}");
        assert!(second.contains("pallium_ha_detection_seconds_sum{stage=\"dead\"} 29.0\n"), "{second}");
        assert!(second.contains("pallium_ha_detection_seconds_count{stage=\"unreachable\"} 1\n"), "once: {second}");
        // A node that starts now has seen nothing of that.
        let late = CaseTimes::default();
        look(&late, &case, 40_000);
        look(&late, &case, 41_000);
        let mut registry = Registry::default();
        late.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        assert!(text.contains("pallium_ha_detection_seconds_count{stage=\"dead\"} 0\n"), "{text}");
    }
}
