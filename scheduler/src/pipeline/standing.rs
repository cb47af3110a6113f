//! Runs that still stand. Most requests ask what another has asked just before, and between the two
//! a few hosts were claimed on. While the facts of the fleet are the same, only hosts whose use has
//! changed are judged again, and only by the steps that look at use ([`Reads`]); the rest of the run
//! holds. What comes out is what a whole run would give, to the last bit: a change that would
//! move more than scores (a host drops out or comes back) ends the standing run, and a whole one
//! follows.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::decision::StepReport;
use crate::index::rooms::Short;
use crate::pipeline::admission;
use crate::pipeline::cx::Cx;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::run::{
    Changed, Changes, Entrant, Entrants, Run, Scored, Trace, order, position, ranked, rounded, run,
};
use crate::pipeline::scoring::{Shape, extremes};
use crate::pipeline::step::{Reads, Verdict};
use crate::pipeline::survivors::{Detail, Event, Survivors};
use crate::provider::Row;
use crate::request::{Candidates, Request};
use crate::rows::Mask;

/// Requests whose runs are remembered.
const MOST: usize = 8;
/// Hosts that may have changed, beside an eighth of the survivors.
const FEW: usize = 64;
/// Changes beside a trace, before it is written anew.
const CHANGES: usize = 64;
/// So many times the hosts that are wanted are kept in order.
const SPARE: usize = 4;

/// The remembered runs of one core.
#[derive(Debug, Default)]
pub struct Standings {
    /// The last asked first.
    seen: VecDeque<Seen>,
    stood: u64,
}

/// A request that was seen: asked a second time, its run is kept.
#[derive(Debug)]
struct Seen {
    asked: Request,
    standing: Option<Standing>,
}

/// A run that can be brought up to date.
#[derive(Debug)]
struct Standing {
    pipeline: Arc<Pipeline>,
    facts: u64,
    /// Where it would have taken the room of a failover.
    short: SmallVec<[Short; 2]>,
    /// Changes of use that were seen.
    seen: u64,
    use_sums: Vec<u64>,
    /// Positions of the steps that look at use.
    filters: Vec<usize>,
    weighers: Vec<usize>,
    candidates: Mask,
    sent: Arc<Vec<Entrant>>,
    detailed: bool,
    limit: usize,
    steps: Arc<Vec<StepReport>>,
    ranges: Vec<Option<(f64, f64)>>,
    notes: Vec<String>,
    events: Vec<(String, Event)>,
    trace: Arc<Trace>,
    changed: Arc<Changes>,
    /// Raw activations by weigher and survivor, up to date; empty for a skipped weigher.
    activations: Vec<Vec<f64>>,
    /// What makes shares of them, up to date.
    shapes: Vec<Shape>,
    scores: Vec<i64>,
    /// The scores before they are rounded, while they are summed.
    total: Vec<f64>,
    /// The survivors up to `last`, in order; without a last one all.
    first: Vec<Scored>,
    last: Option<Scored>,
}

/// What judging hosts again has left to do.
#[derive(Default)]
struct Again {
    /// Survivors with new activations.
    weighed: SmallVec<[usize; 8]>,
    /// Weighers whose range is no longer sure.
    stale: SmallVec<[usize; 4]>,
}

impl Standings {
    /// How often a run stood.
    pub fn stood(&self) -> u64 {
        self.stood
    }

    /// The first `most` hosts of the run of an equal request that was the last to be asked, if it still
    /// stands.
    pub(crate) fn order(&mut self, pipeline: &Arc<Pipeline>, cx: &Cx<'_>, most: usize) -> Option<Vec<Scored>> {
        let seen = self.seen.front_mut().filter(|seen| seen.asked.asks_same(cx.request))?;
        let standing = seen.standing.as_mut().filter(|standing| Arc::ptr_eq(&standing.pipeline, pipeline))?;
        if !standing.catch_up(cx) {
            // Part of it may be up to date and part not.
            seen.standing = None;
            return None;
        }
        self.stood += 1;
        Some(standing.first[..most.min(standing.first.len())].to_vec())
    }

    /// Runs `pipeline`, or brings the run of an equal request up to date. To be asked for requests that
    /// create a consumer which nobody knows, outside of any group. `repeats`: the same will be asked again.
    pub(crate) fn run(
        &mut self,
        pipeline: &Arc<Pipeline>,
        cx: &Cx<'_>,
        entrants: impl FnOnce() -> Entrants,
        timer: fn() -> u64,
        repeats: bool,
    ) -> Run {
        match self.seen.iter().position(|seen| seen.asked.asks_same(cx.request)) {
            Some(at) => self.seen.swap(0, at),
            // Hosts with the caller's weights are hardly sent twice.
            None if repeats || cx.request.candidates == Candidates::All => {
                self.seen.truncate(MOST - 1);
                self.seen.push_front(Seen { asked: cx.request.clone(), standing: None });
                if !repeats {
                    return whole(pipeline, cx, entrants(), timer);
                }
            }
            None => return whole(pipeline, cx, entrants(), timer),
        }
        let seen = &mut self.seen[0];
        if let Some(standing) = &mut seen.standing
            && Arc::ptr_eq(&standing.pipeline, pipeline)
            && standing.catch_up(cx)
        {
            self.stood += 1;
            return standing.again();
        }
        let entrants = entrants();
        let whole = run(pipeline, cx, entrants.clone(), timer);
        let detailed = entrants.detailed;
        seen.standing = Standing::of(pipeline, cx, &whole, entrants);
        whole.trimmed(detailed)
    }
}

fn short(cx: &Cx<'_>) -> SmallVec<[Short; 2]> {
    admission::short(cx).into_iter().map(|(short, _)| short).collect()
}

/// A run of which nothing is kept.
fn whole(pipeline: &Pipeline, cx: &Cx<'_>, entrants: Entrants, timer: fn() -> u64) -> Run {
    let detailed = entrants.detailed;
    run(pipeline, cx, entrants, timer).trimmed(detailed)
}

impl Standing {
    /// None when a step looks at more than can be followed.
    fn of(
        pipeline: &Arc<Pipeline>,
        cx: &Cx<'_>,
        run: &Run,
        Entrants { mask, sent, detailed, limit, impact: _ }: Entrants,
    ) -> Option<Standing> {
        let request = cx.request;
        let filters: Vec<Reads> = pipeline.filters.iter().map(|(_, filter)| filter.reads(request)).collect();
        let weighers: Vec<Reads> = pipeline.weighers.iter().map(|(_, weigher, _)| weigher.reads(request)).collect();
        if filters.iter().chain(&weighers).any(|reads| *reads == Reads::Everything) {
            return None;
        }
        let own = |reads: Vec<Reads>| {
            let places = reads.iter().enumerate().filter(|(_, reads)| **reads == Reads::OwnUse);
            places.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let index = cx.view.index;
        let mut standing = Standing {
            pipeline: Arc::clone(pipeline),
            facts: index.facts(),
            short: short(cx),
            seen: index.changes(),
            use_sums: index.use_sums().to_vec(),
            filters: own(filters),
            weighers: own(weighers),
            candidates: mask,
            sent,
            detailed,
            limit,
            steps: Arc::clone(&run.steps),
            ranges: run.ranges.clone(),
            notes: run.notes.clone(),
            events: run.events.clone(),
            trace: Arc::clone(&run.trace),
            changed: Arc::default(),
            activations: run.trace.activations.clone(),
            shapes: run.trace.shapes.clone(),
            scores: Vec::new(),
            total: Vec::new(),
            first: Vec::new(),
            last: None,
        };
        if standing.steps.iter().any(|step| step.impact.is_some()) {
            for step in Arc::make_mut(&mut standing.steps) {
                step.impact = None;
            }
        }
        standing.score_anew(cx);
        Some(standing)
    }

    /// Survivors, ascending by row.
    fn rows(&self) -> &[Row] {
        &self.trace.rows
    }

    fn score_anew(&mut self, cx: &Cx<'_>) {
        self.total.clone_from(&self.trace.base);
        for (shape, activations) in self.shapes.iter().zip(&self.activations) {
            shape.add(activations, &mut self.total);
        }
        self.scores.clear();
        self.scores.extend(self.total.iter().map(|&score| rounded(score)));
        self.order_anew(cx);
    }

    fn order_anew(&mut self, cx: &Cx<'_>) {
        self.first = ranked(cx, self.rows(), &self.scores, &self.sent, self.limit * SPARE);
        self.last = self.first.last().copied().filter(|_| self.first.len() < self.scores.len());
    }

    /// The score of a survivor, summed as a whole run sums it.
    fn score(&self, at: usize) -> i64 {
        let weighed = self.shapes.iter().zip(&self.activations);
        rounded(weighed.fold(self.trace.base[at], |total, (shape, activations)| {
            activations.get(at).map_or(total, |&activation| total + shape.share(at, activation))
        }))
    }

    /// Judges the hosts again whose use has changed. False when the run no longer stands.
    fn catch_up(&mut self, cx: &Cx<'_>) -> bool {
        let index = cx.view.index;
        if self.facts != index.facts() || self.short != short(cx) {
            return false;
        }
        let Some(rows) = index.changed_since(self.seen) else { return false };
        let sums = index.use_sums();
        let mut judged = 0;
        let mut again = Again::default();
        for row in rows {
            let at = row.0 as usize;
            // A claim that is applied leaves the overlay: in the end nothing has changed.
            if self.use_sums[at] == sums[at] {
                continue;
            }
            self.use_sums[at] = sums[at];
            judged += 1;
            if judged > FEW + self.scores.len() / 8 || !self.judge(cx, row, &mut again) {
                return false;
            }
        }
        self.seen = index.changes();
        let mut stretched = false;
        for weigher in again.stale {
            let range = &mut self.ranges[self.pipeline.filters.len() + weigher];
            let old = std::mem::replace(range, extremes(&self.activations[weigher]));
            if self.shapes[weigher].is_relative() && *range != old {
                self.shapes[weigher].stretch(*range);
                stretched = true;
            }
        }
        if stretched {
            if self.detailed {
                Arc::make_mut(&mut self.changed).shapes = Some(self.shapes.clone());
            }
            self.score_anew(cx);
        } else {
            again.weighed.into_iter().for_each(|at| self.rank(cx, at));
        }
        if self.first.len() < self.limit.min(self.scores.len()) {
            self.order_anew(cx);
        }
        true
    }

    fn judge(&mut self, cx: &Cx<'_>, row: Row, again: &mut Again) -> bool {
        match self.rows().binary_search(&row) {
            Ok(at) => self.weigh(cx, row, at, again),
            Err(_) if self.candidates.has(row) => self.is_still_out(cx, row),
            Err(_) => true,
        }
    }

    fn weigh(&mut self, cx: &Cx<'_>, row: Row, at: usize, again: &mut Again) -> bool {
        if self.filters.iter().any(|&filter| self.drops(cx, filter, row).is_some()) {
            return false;
        }
        for &weigher in &self.weighers {
            if self.activations[weigher].is_empty() {
                continue;
            }
            let mut new = [0.0];
            let verdict = self.pipeline.weighers[weigher].1.weigh(cx, &[row], &mut new);
            if verdict != Verdict::Ran || !new[0].is_finite() {
                return false;
            }
            let old = std::mem::replace(&mut self.activations[weigher][at], new[0]);
            let range = self.ranges[self.pipeline.filters.len() + weigher];
            let within = range.is_some_and(|(low, high)| low < old && old < high && low <= new[0] && new[0] <= high);
            if !within && !again.stale.contains(&weigher) {
                again.stale.push(weigher);
            }
        }
        again.weighed.push(at);
        if self.detailed {
            let activations = self.activations.iter().map(|all| all.get(at).copied().unwrap_or_default()).collect();
            self.change(Changed { row, detail: Detail::None, activations });
        }
        true
    }

    /// Gives a survivor with new activations its place.
    fn rank(&mut self, cx: &Cx<'_>, at: usize) {
        let row = self.rows()[at];
        let (old, new) = (self.scores[at], self.score(at));
        self.scores[at] = new;
        let position = position(&self.sent, row);
        let place = |first: &[Scored], scored| first.binary_search_by(|other| order(cx, *other, scored));
        if let Ok(place) = place(&self.first, Scored { row, place: at as u32, position, score: old }) {
            self.first.remove(place);
        }
        let scored = Scored { row, place: at as u32, position, score: new };
        if self.last.is_none_or(|last| order(cx, scored, last).is_le())
            && let Err(place) = place(&self.first, scored)
        {
            self.first.insert(place, scored);
        }
    }

    /// Whether a host that was dropped still is, by the same step for the same reason.
    fn is_still_out(&mut self, cx: &Cx<'_>, row: Row) -> bool {
        let dropped = if let Some(dropped) = &self.trace.dropped {
            let dropped = dropped.iter().find(|dropped| dropped.row == row);
            dropped.map(|dropped| (usize::from(dropped.step), Some(usize::from(dropped.reason))))
        } else {
            let dropped = self.trace.masks.iter().find(|(_, mask)| !mask.has(row));
            dropped.map(|(step, _)| (usize::from(*step), None))
        };
        let Some((step, reason)) = dropped else { return false };
        for place in 0..self.filters.len() {
            let filter = self.filters[place];
            if filter > step {
                break;
            }
            let now = self.drops(cx, filter, row);
            if filter < step {
                if now.is_some() {
                    return false;
                }
                continue;
            }
            let reasons = &self.steps[step].reasons;
            let reason = match (reason, reasons.as_slice()) {
                (Some(reason), _) => reasons.get(reason),
                (None, [only]) => Some(only),
                (None, _) => None,
            };
            let (Some((why, detail)), Some((known, _))) = (now, reason) else { return false };
            if why != *known {
                return false;
            }
            if self.detailed {
                self.change(Changed { row, detail, activations: SmallVec::new() });
            }
        }
        true
    }

    /// Why a filter drops a host, if it does.
    fn drops(&self, cx: &Cx<'_>, filter: usize, row: Row) -> Option<(String, Detail)> {
        let mut one = Survivors::only(row);
        self.pipeline.filters[filter].1.filter(cx, &mut one);
        if !one.is_empty() {
            return None;
        }
        let why = one.end_step().reasons.into_iter().next().map(|(why, _)| why.into_owned());
        let detail = one.into_dropped().into_iter().flatten().next().map(|dropped| dropped.detail);
        Some((why.unwrap_or_default(), detail.unwrap_or(Detail::None)))
    }

    fn change(&mut self, change: Changed) {
        let changed = &mut Arc::make_mut(&mut self.changed).hosts;
        match changed.iter_mut().find(|known| known.row == change.row) {
            Some(known) => *known = change,
            None => changed.push(change),
        }
        if changed.len() < CHANGES {
            return;
        }
        let trace = Arc::make_mut(&mut self.trace);
        trace.activations.clone_from(&self.activations);
        let dropped = changed.drain(..).filter(|changed| changed.activations.is_empty());
        let details: rustc_hash::FxHashMap<Row, Detail> =
            dropped.map(|changed| (changed.row, changed.detail)).collect();
        for dropped in trace.dropped.iter_mut().flatten() {
            if let Some(&detail) = details.get(&dropped.row) {
                dropped.detail = detail;
            }
        }
    }

    /// The run as it stands.
    fn again(&self) -> Run {
        let limit = if self.limit == 0 { self.first.len() } else { self.limit.min(self.first.len()) };
        let ranked = self.first[..limit].to_vec();
        let trace = if self.detailed {
            Arc::clone(&self.trace)
        } else {
            Arc::new(self.trace.of_ranked(&ranked, &self.activations, &self.shapes))
        };
        Run {
            survivors: self.scores.len(),
            steps: Arc::clone(&self.steps),
            ranges: self.ranges.clone(),
            notes: self.notes.clone(),
            events: self.events.clone(),
            timings: Vec::new(),
            trace,
            changed: Arc::clone(&self.changed),
            ranked,
        }
    }
}
