//! What looks like a mistake in a pipeline, seen from a run: told in the notes of the decision and
//! counted as events of the step. It changes nothing.

use crate::decision::{Decision, StepKind};
use crate::pipeline::survivors::Event;

/// Adds notes and events to a decision that has its steps.
pub(super) fn look(decision: &mut Decision) {
    for (step, range) in decision.steps.iter().zip(&decision.ranges) {
        let (event, note) = match (step.kind, *range) {
            (StepKind::Filter, _) if step.hosts_in > 0 && step.hosts_out == 0 => {
                let left = match step.hosts_in {
                    1 => "the only host that was left".to_owned(),
                    count => format!("all {count} hosts that were left"),
                };
                ("dropped_all", format!("{}: dropped {left}", step.name))
            }
            (StepKind::Weigher, Some((low, high))) if step.hosts_in > 1 && low >= high => (
                "constant_activation",
                format!("{}: {low} for each of {} hosts, decides nothing", step.name, step.hosts_in),
            ),
            _ => continue,
        };
        decision.notes.push(note);
        decision.events.push((step.name.clone(), Event { name: event, labels: Vec::new() }));
    }
}
