//! What a replay decided, create by create, and what it moved: for those who want to know why.

use scheduler::Decision;
use scheduler::decision::StepKind;

use super::sheet::{Cell, Column, Kind, Sheet, column};

/// Most creates of which decisions are kept: some hundred bytes each.
pub const MOST: usize = 5_000_000;

/// Columns of the decisions: a row for each create.
pub const DECISIONS: &[Column] = &[
    column("seq", Kind::Whole, "", "number of the create, from 1"),
    column("time_s", Kind::Number, "s", "time from the start of the trace"),
    column("vm_id", Kind::Text, "", "the VM"),
    column("node_id", Kind::Text, "", "the host that was chosen; empty: rejected"),
    column("reason", Kind::Text, "", "of a rejection: cpu, mem, gpu, gpu_model or combination"),
    column("candidates", Kind::Whole, "hosts", "hosts that entered the pipeline"),
    column("left", Kind::Text, "hosts", "hosts left after each filter, FILTER=HOSTS with ; between them"),
];

/// Columns of the moves: a row for each.
pub const MOVES: &[Column] = &[
    column("time_s", Kind::Number, "s", "time from the start of the trace"),
    column("vm_id", Kind::Text, "", "the VM that was moved"),
    column("from", Kind::Text, "", "its host before"),
    column("to", Kind::Text, "", "its host after"),
    column("memory_mib", Kind::Whole, "MiB", "its memory"),
    column("why", Kind::Text, "", "room: for a VM that fitted nowhere; else the objective of --rebalance"),
];

/// The record of a replay.
#[derive(Clone, Debug, Default)]
pub struct Record {
    decisions: Vec<Vec<Cell>>,
    moves: Vec<Vec<Cell>>,
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

impl Record {
    /// A create at a time in milliseconds went to a host, or was rejected for a reason.
    pub fn decided(&mut self, time: u64, vm: &str, outcome: Result<&str, &str>, decision: &Decision) {
        let filters = decision.steps.iter().filter(|step| step.kind == StepKind::Filter);
        let left: Vec<String> = filters.map(|step| format!("{}={}", step.name, step.hosts_out)).collect();
        self.decisions.push(vec![
            Cell::Whole(self.decisions.len() as u64 + 1),
            Cell::Number(Some(time as f64 / 1000.0)),
            text(vm),
            text(outcome.unwrap_or_default()),
            text(outcome.err().unwrap_or_default()),
            Cell::Whole(decision.candidates),
            text(&left.join(";")),
        ]);
    }

    /// A VM was moved.
    pub fn moved(&mut self, time: u64, vm: &str, [from, to]: [&str; 2], memory_mib: u64, why: &str) {
        let time = Cell::Number(Some(time as f64 / 1000.0));
        self.moves.push(vec![time, text(vm), text(from), text(to), Cell::Whole(memory_mib), text(why)]);
    }

    /// As tables, by name.
    pub fn sheets(self) -> [(&'static str, Sheet); 2] {
        [
            ("decisions", Sheet { columns: DECISIONS, rows: self.decisions }),
            ("moves", Sheet { columns: MOVES, rows: self.moves }),
        ]
    }
}
