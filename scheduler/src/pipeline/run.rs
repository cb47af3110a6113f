//! One run of a pipeline over a set of candidates: filters in order, then weighers on what is left,
//! then the order.
//!
//! ```text
//! base(h)  = tanh(weight(h)) with at least one weigher, else weight(h); 0 with ignorePreselection
//! score(h) = base(h) + Σ multiplier × tanh(activation(h)), rounded to 1e-9
//! order    = score descending, then the caller's position (without one: the bytes of the name)
//! ```
//!
//! A pipeline may choose another [`Scoring`].
//!
//! Source of the formula: cobaltcore-dev/cortex, filter-weigher pipeline (`nova-pipeline` B.2);
//! rounding and ties are pallium's own (0.3).

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::decision::{Impact, StepKind, StepReport};
use crate::intent::Intent;
use crate::pipeline::cx::Cx;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::scoring::{Factors, Scoring, Shape, extremes, tidy};
use crate::pipeline::step::Verdict;
use crate::pipeline::survivors::{Detail, Dropped, Event, Survivors};
use crate::provider::Row;
use crate::rows::Mask;

/// What enters a run.
#[derive(Clone, Debug)]
pub struct Entrants {
    /// The candidates.
    pub mask: Mask,
    /// Weight and position of the candidates that the caller sent, ascending by row.
    pub sent: Arc<Vec<Entrant>>,
    /// Keep a reason for each dropped host, and the activations of each survivor instead of only
    /// those of the ranked ones.
    pub detailed: bool,
    /// Order at least this many hosts; the others follow in no order and are left out. 0 = all.
    pub limit: usize,
    /// Measure how far each weigher moves hosts.
    pub impact: bool,
}

/// A candidate as the caller sent it.
#[derive(Clone, Copy, Debug)]
pub struct Entrant {
    /// Its row.
    pub row: Row,
    /// Its position in the caller's list.
    pub position: u32,
    /// The caller's weight.
    pub weight: f64,
}

/// A host that passed all filters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Its row.
    pub row: Row,
    /// Its place among the survivors by row.
    pub place: u32,
    /// Its position in the caller's list; the highest when there is none.
    pub position: u32,
    /// Its score in units of 1e-9.
    pub score: i64,
}

/// What a run found.
#[derive(Debug)]
pub struct Run {
    /// Survivors in order.
    pub ranked: Vec<Scored>,
    /// Number of survivors; above `ranked.len()` when the run was limited.
    pub survivors: usize,
    /// What each step did.
    pub steps: Arc<Vec<StepReport>>,
    /// Smallest and largest activation by each step that has them.
    pub ranges: Vec<Option<(f64, f64)>>,
    /// Remarks of steps.
    pub notes: Vec<String>,
    /// Events of steps, with the step's name.
    pub events: Vec<(String, Event)>,
    /// Duration of each step in nanoseconds, by the engine's timer; none of a run that was only
    /// brought up to date.
    pub timings: Vec<u64>,
    /// Detail for explanations.
    pub trace: Arc<Trace>,
    /// What of it is different by now.
    pub changed: Arc<Changes>,
}

impl Run {
    /// Without what explanations of a run that was not detailed leave out.
    pub(crate) fn trimmed(mut self, detailed: bool) -> Self {
        // With every survivor ranked there is nothing to leave out.
        if !detailed && self.ranked.len() < self.trace.rows.len() {
            self.trace = Arc::new(self.trace.of_ranked(&self.ranked, &self.trace.activations, &self.trace.shapes));
        }
        self
    }
}

/// What is different since a trace was written.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Hosts that were judged again.
    pub hosts: Vec<Changed>,
    /// What makes shares of activations now, when that is different.
    pub(crate) shapes: Option<Vec<Shape>>,
}

/// A host that was judged again since its trace was written.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The host.
    pub row: Row,
    /// Of a host that was dropped: what it has now.
    pub detail: Detail,
    /// Of a host that was not: its activations by all weighers, in the trace's order.
    pub activations: SmallVec<[f64; 8]>,
}

/// What explanations need beyond the step reports.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Dropped hosts with their reasons, when the run was detailed; in order of the filters.
    pub dropped: Option<Vec<Dropped>>,
    /// Otherwise: survivors after each filter that dropped something.
    pub masks: Arc<Vec<(u16, Mask)>>,
    /// Survivors, ascending by row; of a run that was not detailed the ranked ones only, in order.
    pub rows: Vec<Row>,
    /// Base of each of them.
    pub base: Vec<f64>,
    /// Activations of each weigher, for each of them; empty for a skipped weigher.
    pub activations: Vec<Vec<f64>>,
    /// What makes shares of the score of each weigher's activations.
    pub(crate) shapes: Vec<Shape>,
}

impl Trace {
    /// Of the survivors only those that were ranked; `activations` and `shapes` as in a trace of all of them.
    pub(super) fn of_ranked(&self, ranked: &[Scored], activations: &[Vec<f64>], shapes: &[Shape]) -> Self {
        let at: Vec<usize> = ranked.iter().map(|scored| scored.place as usize).collect();
        let of = |values: &Vec<f64>| {
            if values.is_empty() { Vec::new() } else { at.iter().map(|&at| values[at]).collect() }
        };
        Self {
            dropped: self.dropped.clone(),
            masks: Arc::clone(&self.masks),
            base: of(&self.base),
            activations: activations.iter().map(of).collect(),
            shapes: shapes.iter().map(|shape| shape.only(&at)).collect(),
            rows: ranked.iter().map(|scored| scored.row).collect(),
        }
    }
}

/// Names listed of the hosts that a step dropped.
const NAMED: usize = 10;

/// Score in units of 1e-9; NaN counts as 0, infinities saturate.
pub(crate) fn rounded(score: f64) -> i64 {
    let units = score * 1e9;
    (units + 0.5_f64.copysign(units)) as i64
}

/// Position of a row in the caller's list.
pub(super) fn position(sent: &[Entrant], row: Row) -> u32 {
    sent.binary_search_by_key(&row, |entrant| entrant.row).map_or(u32::MAX, |at| sent[at].position)
}

/// What the caller sent of each of `rows`, which ascend as `sent` does.
fn of_rows<'a>(sent: &'a [Entrant], rows: &'a [Row]) -> impl Iterator<Item = Option<&'a Entrant>> {
    let mut sent = sent.iter().peekable();
    rows.iter().map(move |row| {
        while sent.next_if(|entrant| entrant.row < *row).is_some() {}
        sent.peek().copied().filter(|entrant| entrant.row == *row)
    })
}

/// Which of two hosts comes first.
pub(super) fn order(cx: &Cx<'_>, one: Scored, other: Scored) -> Ordering {
    (other.score, one.position)
        .cmp(&(one.score, other.position))
        .then_with(|| cx.view.host(one.row).cmp(cx.view.host(other.row)))
        .then_with(|| one.row.cmp(&other.row))
}

/// The score that the first `limit` hosts have at least (0 = all hosts).
fn least(scores: &[i64], limit: usize) -> i64 {
    if limit == 0 || scores.len() <= limit {
        return i64::MIN;
    }
    let mut scratch = scores.to_vec();
    *scratch.select_nth_unstable_by(limit - 1, |a, b| b.cmp(a)).1
}

/// The first `limit` hosts in order (0 = all). Names are looked up only for hosts with equal scores and without positions.
pub(super) fn ranked(cx: &Cx<'_>, rows: &[Row], scores: &[i64], sent: &[Entrant], limit: usize) -> Vec<Scored> {
    let least = least(scores, limit);
    let positions = of_rows(sent, rows).map(|entrant| entrant.map_or(u32::MAX, |entrant| entrant.position));
    let mut hosts: Vec<Scored> = (0..)
        .zip(rows)
        .zip(positions)
        .zip(scores)
        .filter(|&(_, &score)| score >= least)
        .map(|(((place, &row), position), &score)| Scored { row, place, position, score })
        .collect();
    let key = |host: &Scored| (Reverse(host.score), host.position);
    hosts.sort_unstable_by_key(key);
    let limit = if limit == 0 { hosts.len() } else { limit.min(hosts.len()) };
    let mut left = limit;
    for equal in hosts.chunk_by_mut(|one, other| key(one) == key(other)) {
        bring_forward(equal, left, |host| (cx.view.host(host.row), host.row));
        left = left.saturating_sub(equal.len());
    }
    hosts.truncate(limit);
    hosts
}

/// Hosts of which few are wanted by name: no more of them are kept in order while the names are looked at.
const FEW: usize = 32;

/// Brings the first `wanted` of `items` by `key` to their front, in order.
fn bring_forward<T, K: Ord>(items: &mut [T], wanted: usize, key: impl Fn(&T) -> K) {
    let wanted = wanted.min(items.len());
    if items.len() < 2 || wanted == 0 {
        return;
    }
    if wanted == items.len() || wanted > FEW {
        if wanted < items.len() {
            items.select_nth_unstable_by_key(wanted - 1, &key);
        }
        items[..wanted].sort_by_cached_key(key);
        return;
    }
    for at in 1..items.len() {
        let kept = at.min(wanted);
        let new = key(&items[at]);
        if new > key(&items[kept - 1]) {
            continue;
        }
        let place = items[..kept].partition_point(|item| key(item) < new);
        // Of those that are kept the last one gives its place.
        let last = at.min(wanted - 1);
        items.swap(last, at);
        items[place..=last].rotate_right(1);
    }
}

/// What a caller's weight counts in the score of a host.
pub(crate) fn base(pipeline: &Pipeline, weight: f64) -> f64 {
    if pipeline.ignore_preselection {
        0.0
    } else if pipeline.scoring == Scoring::Cortex && !pipeline.weighers.is_empty() {
        tanh(weight)
    } else {
        weight
    }
}

impl Pipeline {
    /// Runs one filter.
    pub(crate) fn filter(&self, at: usize, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let filter = &self.filters[at].1;
        if cx.intent == Intent::Rebuild && !filter.runs_on_rebuild() {
            return Verdict::Skipped("rebuild");
        }
        filter.filter(cx, hosts)
    }
}

/// Runs `pipeline`. The trace has every survivor until it is trimmed.
pub(crate) fn run(pipeline: &Pipeline, cx: &Cx<'_>, entrants: Entrants, timer: fn() -> u64) -> Run {
    let Entrants { mask, sent, detailed, limit, impact } = entrants;
    let rebuild = cx.intent == Intent::Rebuild;
    let mut hosts = Survivors::new(mask, detailed);
    let mut trace = Trace::default();
    let mut masks = Vec::new();
    let mut steps = Vec::with_capacity(pipeline.filters.len() + pipeline.weighers.len());
    let mut out = Run {
        ranked: Vec::new(),
        survivors: 0,
        steps: Arc::default(),
        ranges: Vec::with_capacity(pipeline.filters.len() + pipeline.weighers.len()),
        notes: Vec::new(),
        events: Vec::new(),
        timings: Vec::with_capacity(pipeline.filters.len() + pipeline.weighers.len()),
        trace: Arc::default(),
        changed: Arc::default(),
    };
    let mut clock = timer();
    let mut before_mask = Mask::default();
    for (at, (name, _)) in pipeline.filters.iter().enumerate() {
        let before = hosts.len();
        before_mask.clone_from(hosts.mask());
        let verdict = pipeline.filter(at, cx, &mut hosts);
        let record = hosts.end_step();
        let mut dropped = Vec::new();
        if hosts.len() < before {
            let words = before_mask.words().iter().zip(hosts.mask().words());
            let gone = words
                .enumerate()
                .flat_map(|(at, (was, is))| crate::rows::Bits(was & !is).map(move |bit| Row((at * 64) as u32 + bit)));
            dropped = gone.take(NAMED).map(|row| cx.view.host_name(row)).collect();
            if !detailed {
                masks.push((at as u16, hosts.mask().clone()));
            }
        }
        out.notes.extend(record.notes.into_iter().map(|note| format!("{name}: {note}")));
        out.events.extend(record.events.into_iter().map(|event| (name.clone(), event)));
        steps.push(StepReport {
            name: name.clone(),
            kind: StepKind::Filter,
            hosts_in: before as u64,
            hosts_out: hosts.len() as u64,
            skipped: skipped(verdict),
            reasons: record.reasons.into_iter().map(|(text, count)| (text.into_owned(), count)).collect(),
            dropped,
            multiplier: None,
            impact: None,
        });
        out.ranges.push(None);
        lap(&mut out.timings, &mut clock, timer);
    }

    let mut rows: Vec<Row> = Vec::with_capacity(hosts.len());
    rows.extend(hosts.iter());
    let scoring = pipeline.scoring;
    let mut bases = vec![0.0; rows.len()];
    if !sent.is_empty() {
        for (base, entrant) in bases.iter_mut().zip(of_rows(&sent, &rows)) {
            *base = entrant.map_or(0.0, |entrant| self::base(pipeline, entrant.weight));
        }
    }
    let mut total = bases.clone();
    // Zeros that a skipped weigher has left.
    let mut zeros = Vec::new();
    for (name, weigher, multiplier) in &pipeline.weighers {
        let mut activations = std::mem::take(&mut zeros);
        activations.resize(rows.len(), 0.0);
        let verdict = if rebuild {
            Verdict::Skipped("rebuild")
        } else if rows.is_empty() {
            Verdict::Skipped("no hosts left")
        } else if rows.len() == 1 && scoring == Scoring::Nova {
            Verdict::Skipped("one host left")
        } else {
            weigher.weigh(cx, &rows, &mut activations)
        };
        let ran = verdict == Verdict::Ran;
        let factors = if ran { weigher.factors(cx, &rows) } else { Factors::One(1.0) };
        let mut shape = Shape::new(scoring, *multiplier, factors, weigher.bounds());
        let mut range = None;
        let before = if impact && ran { total.clone() } else { Vec::new() };
        if ran {
            let odd = tidy(&mut activations);
            if odd > 0 {
                out.notes.push(format!("{name}: {odd} hosts got no finite activation, counted as 0"));
                out.events.push((name.clone(), Event { name: "no_finite_activation", labels: Vec::new() }));
            }
            range = extremes(&activations);
            shape.stretch(range);
            shape.add(&activations, &mut total);
        }
        steps.push(StepReport {
            name: name.clone(),
            kind: StepKind::Weigher,
            hosts_in: rows.len() as u64,
            hosts_out: rows.len() as u64,
            skipped: skipped(verdict),
            reasons: Vec::new(),
            dropped: Vec::new(),
            multiplier: Some(*multiplier),
            impact: (!before.is_empty()).then(|| {
                let (statistic, unit) = weigher.statistic();
                Impact { statistic, unit, value: moved(&before, &total, &activations) }
            }),
        });
        out.ranges.push(range);
        if ran {
            trace.activations.push(activations);
        } else {
            zeros = activations;
            trace.activations.push(Vec::new());
        }
        trace.shapes.push(shape);
        lap(&mut out.timings, &mut clock, timer);
    }

    out.steps = Arc::new(steps);
    out.survivors = rows.len();
    let scores: Vec<i64> = total.iter().map(|&score| rounded(score)).collect();
    out.ranked = ranked(cx, &rows, &scores, &sent, limit);
    trace.masks = Arc::new(masks);
    trace.rows = rows;
    trace.base = bases;
    trace.dropped = hosts.into_dropped();
    out.trace = Arc::new(trace);
    out
}

/// tanh to within 1e-15, in a form that compilers turn into vector code: 1 − 2 / (e^2|x| + 1), with
/// e^y = 2^k · e^r, r = y − k·ln 2 and the series of e^r up to r^13. libm's costs four times as much,
/// and was a quarter of a decision over 100,000 hosts.
pub(crate) fn tanh(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 × 2^52: adding it rounds to a whole number
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let y = (2.0 * x.abs()).min(60.0);
    let shifted = y * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (y - k * LN2_HIGH) - k * LN2_LOW;
    let mut series = 1.0 / 6_227_020_800.0;
    for factor in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * r + factor;
    }
    let exp = series * f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff << 52));
    (1.0 - 2.0 / (exp + 1.0)).copysign(x)
}

fn skipped(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Ran => None,
        Verdict::Skipped(why) => Some(why.to_owned()),
    }
}

fn lap(timings: &mut Vec<u64>, clock: &mut u64, timer: fn() -> u64) {
    let now = timer();
    timings.push(now.saturating_sub(*clock));
    *clock = now;
}

/// Places of the order that an impact looks at.
const FIRST: usize = 5;

/// The impact of a step that turned the scores `before` into `after`; see [`Impact`].
fn moved(before: &[f64], after: &[f64], statistic: &[f64]) -> f64 {
    let order = |scores: &[f64]| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by_key(|&host| Reverse(rounded(scores[host])));
        order
    };
    let (old, new) = (order(before), order(after));
    let mut position = vec![0; old.len()];
    for (at, &host) in old.iter().enumerate() {
        position[host] = at;
    }
    let places = new.iter().zip(&old).take(FIRST).enumerate();
    places
        .map(|(at, (&host, &was))| position[host].abs_diff(at) as f64 * (statistic[was] - statistic[host]).abs())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{FEW, bring_forward, moved, tanh};

    #[test]
    fn the_first_of_a_list_come_forward_in_order() {
        for len in [0, 1, 2, 5, 40, 300_u64] {
            for wanted in [0, 1, 2, 4, FEW, FEW + 1, 299, 300, 301] {
                // 7919 is prime: each number once, in no order; and both orders.
                let mixed = |at: u64| (at * 7919 + 13) % len.max(1);
                for list in [(0..len).map(mixed).collect::<Vec<_>>(), (0..len).collect(), (0..len).rev().collect()] {
                    let mut items = list.clone();
                    bring_forward(&mut items, wanted, |item| *item);
                    let first = (wanted as u64).min(len);
                    assert_eq!(items[..first as usize], (0..first).collect::<Vec<_>>(), "{wanted} of {len}");
                    items.sort_unstable();
                    assert_eq!(items, (0..len).collect::<Vec<_>>(), "{wanted} of {len}");
                }
            }
        }
    }

    #[test]
    fn impacts_are_those_of_the_peer() {
        let statistic = [30.0, 20.0, 10.0, 0.0];
        let before = [4.0, 3.0, 2.0, 1.0];
        for (after, wanted) in
            [([1.0, 2.0, 3.0, 4.0], 200.0), ([4.0, 2.0, 3.0, 1.0], 20.0), ([4.0, 3.0, 2.0, 5.0], 120.0), (before, 0.0)]
        {
            assert!((moved(&before, &after, &statistic) - wanted).abs() < 1e-9, "{after:?}");
        }
    }

    #[test]
    fn tanh_is_that_of_libm() {
        let mut x = 1e-9_f64;
        while x < 1e6 {
            for x in [x, -x] {
                assert!((tanh(x) - x.tanh()).abs() < 1e-15, "{x}: {} and {}", tanh(x), x.tanh());
            }
            x *= 1.001;
        }
        for (x, wanted) in [(0.0, 0.0), (1e300, 1.0), (-1e300, -1.0), (f64::INFINITY, 1.0)] {
            assert!((tanh(x) - wanted).abs() < f64::EPSILON);
        }
    }
}
