//! A candidate pipeline beside the active one: run for a sample of the decisions, over the same hosts
//! in the same state, and only compared. It changes nothing and answers nobody.
//!
//! Its cost has two bounds: the sample, and that all candidates together never take longer than the
//! active pipelines did and 50 µs for each decision (by the engine's timer). What falls to the second bound is counted as skipped.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::PIPELINES;
use crate::pipeline::cx::View;
use crate::pipeline::engine::{Candidate, Pipeline};
use crate::pipeline::run::{Run, Scored};
use crate::provider::Row;

/// Differences that are remembered one by one.
const EXAMPLES: usize = 8;
/// Nanoseconds that candidates may be ahead, so that the first decisions are compared too.
const HEAD_START: u64 = 20_000_000;
/// Nanoseconds that each decision allows them besides: a run that is only brought up to date takes
/// next to none.
const ALLOWED: u64 = 50_000;

/// How a candidate compares with the active version, on the node that decides, since both are what
/// they are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Pipeline.
    pub pipeline: String,
    /// The active version; 0 = the one that ships with the program.
    pub active: u32,
    /// The candidate.
    pub candidate: u32,
    /// It runs for one of so many decisions.
    pub one_in: u32,
    /// Decisions that were compared.
    pub compared: u64,
    /// Decisions of the sample that were not, as the candidate had taken its share of the time.
    pub skipped: u64,
    /// Of the compared ones: those of which anything differs.
    pub differ: u64,
    /// Those whose first host differs.
    pub first: u64,
    /// Those whose kept hosts differ. Of a decision that ranks only the first hosts, their number and
    /// the ranked ones are compared.
    pub kept: u64,
    /// Those that keep the same hosts, in another order.
    pub order: u64,
    /// Nanoseconds that the candidate took, and the active version for the same decisions.
    pub nanos: (u64, u64),
    /// The newest differences, newest last.
    pub examples: VecDeque<Difference>,
}

/// A decision of which the two differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The consumer.
    pub consumer: Uuid,
    /// First host of the active version; none: it kept none.
    pub active: Option<String>,
    /// First host of the candidate.
    pub candidate: Option<String>,
    /// Number of hosts that each kept.
    pub kept: (u64, u64),
}

/// The tallies of this node.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    tallies: BTreeMap<String, Shadow>,
    /// Decisions that could have been compared.
    turn: u64,
    spent: u64,
    earned: u64,
}

fn duration(run: &Run) -> u64 {
    run.timings.iter().sum()
}

impl Shadows {
    /// The tallies, by pipeline; only of what `is_running` says is compared now.
    pub fn tallies(&self, is_running: impl Fn(&Shadow) -> bool) -> Vec<Shadow> {
        self.tallies.values().filter(|tally| is_running(tally)).cloned().collect()
    }

    /// Whether this decision is compared.
    pub fn is_due(&mut self, active: &Pipeline, candidate: &Candidate) -> bool {
        let of = (active.version, candidate.pipeline.version, candidate.one_in);
        if self.tallies.len() >= PIPELINES && !self.tallies.contains_key(&active.name) {
            self.tallies.clear();
        }
        let tally = self.tallies.entry(active.name.clone()).or_default();
        if (tally.active, tally.candidate, tally.one_in) != of {
            let pipeline = active.name.clone();
            *tally = Shadow { pipeline, active: of.0, candidate: of.1, one_in: of.2, ..Shadow::default() };
        }
        self.turn += 1;
        if !self.turn.is_multiple_of(u64::from(candidate.one_in)) {
            return false;
        }
        if self.spent > self.earned.saturating_add(HEAD_START) {
            tally.skipped += 1;
            return false;
        }
        true
    }

    /// Takes note of a decision of the active version, compared or not.
    pub fn note(&mut self, pipeline: &str, view: View<'_>, consumer: Uuid, active: &Run, candidate: Option<&Run>) {
        self.earned = self.earned.saturating_add(duration(active) + ALLOWED);
        let (Some(candidate), Some(tally)) = (candidate, self.tallies.get_mut(pipeline)) else { return };
        self.spent = self.spent.saturating_add(duration(candidate));
        tally.compared += 1;
        tally.nanos.0 += duration(candidate);
        tally.nanos.1 += duration(active);
        let first = |run: &Run| run.ranked.first().map(|scored| scored.row);
        let firsts = first(active) != first(candidate);
        let kept = active.survivors != candidate.survivors || rows(&active.ranked) != rows(&candidate.ranked);
        let order = !kept && active.ranked.iter().zip(&candidate.ranked).any(|(one, other)| one.row != other.row);
        tally.first += u64::from(firsts);
        tally.kept += u64::from(kept);
        tally.order += u64::from(order);
        if !(firsts || kept || order) {
            return;
        }
        tally.differ += 1;
        if tally.examples.len() >= EXAMPLES {
            tally.examples.pop_front();
        }
        let host = |row: Option<Row>| row.map(|row| view.host(row).to_owned());
        tally.examples.push_back(Difference {
            consumer,
            active: host(first(active)),
            candidate: host(first(candidate)),
            kept: (active.survivors as u64, candidate.survivors as u64),
        });
    }
}

fn rows(ranked: &[Scored]) -> Vec<Row> {
    let mut rows: Vec<Row> = ranked.iter().map(|scored| scored.row).collect();
    rows.sort_unstable();
    rows
}
