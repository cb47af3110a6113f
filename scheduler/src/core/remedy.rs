//! Working out what would help a request that nothing fits. The thread that owns the core only takes a
//! [`Survey`], which is cheap; the search runs wherever the survey is taken to, on a copy of the state that
//! it changes as it likes: each remedy is found by trying it there and deciding again.
//!
//! One filter, or one part of the request, is lifted at a time; hosts that nothing but capacity keeps out
//! tell what they lack; then consumers are moved away from them. Only when none of that helps, two changes
//! are tried together.

mod capacity;
mod moves;
mod trial;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::intent::Intent;
use crate::overlay::Overlay;
use crate::pipeline::engine::{Engine, Pipeline};
use crate::remedy::{Aspect, Remedies, Remedy};
use crate::request::{Candidates, Request};
use crate::state::Tables;

use super::claim::validate;
use super::{Core, Refusal};
use trial::{Asked, Kept, Trial};

/// Hosts that may be judged, each by a whole pipeline: the bound of one search.
const WORK: u64 = 10_000_000;
/// Pairs of changes that are tried.
const PAIRS: usize = 64;
/// Hosts that a remedy names.
const NAMED: usize = 5;

/// What the search needs: the state with what is in flight, and the request with its pipeline.
#[derive(Debug)]
pub struct Survey {
    tables: Tables,
    overlay: Overlay,
    pipeline: Arc<Pipeline>,
    request: Request,
    intent: Intent,
    work: u64,
}

/// What is lifted: a part of the request, or a whole filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lift {
    Aspect(Aspect),
    Filter(usize),
}

impl Core {
    /// Takes what [`Survey::remedies`] needs; cheap.
    pub fn survey(&self, engine: &Engine, request: &Request) -> Result<Survey, Refusal> {
        validate(request)?;
        Ok(Survey {
            tables: self.state.tables().clone(),
            overlay: self.overlay.clone(),
            pipeline: engine.choose(request)?,
            request: request.clone(),
            intent: self.intent(request).0,
            work: WORK,
        })
    }
}

impl Survey {
    /// The same with another bound: hosts that may be judged.
    #[must_use]
    pub fn bounded_by(self, work: u64) -> Self {
        Self { work, ..self }
    }

    /// What would help. Takes as long as hundreds of decisions, and an index of the fleet is built for it: not
    /// for a thread that others wait for.
    pub fn remedies(self) -> Remedies {
        let mut out = Remedies::default();
        let Some((mut trial, asked)) = Trial::begin(self, &mut out) else { return out };
        let lifted = search(&mut trial, &asked, &mut out.remedies);
        if out.remedies.is_empty() {
            pairs(&mut trial, &asked, &lifted, &mut out.remedies);
        }
        out.bounded = trial.is_cut_short();
        out
    }
}

/// Single changes. Returns what was lifted in vain, with what kept hosts out then.
fn search(trial: &mut Trial, asked: &Asked, out: &mut Vec<Remedy>) -> Vec<(Lift, Asked, Kept)> {
    let Some(base) = trial.kept(asked) else { return Vec::new() };
    let mut vain = Vec::new();
    let mut lifts = trial.lifts(asked, &base);
    if matches!(asked.request.candidates, Candidates::Sent(_)) {
        lifts.push(Lift::Aspect(Aspect::Candidates));
    }
    for lift in lifts {
        let lifted = trial.lift(asked, &lift);
        let Some(kept) = trial.kept(&lifted) else { break };
        if kept.hosts.is_empty() {
            vain.push((lift, lifted, kept));
        } else {
            out.push(trial.remedy(vec![trial.change(&lift, &[&base])], kept.hosts.iter()));
        }
    }
    // Several parts of a request that one filter acts on.
    for (at, _) in &base.drops {
        let aspects = trial.aspects(*at, asked);
        let in_vain = |aspect: &Aspect| vain.iter().any(|(lift, ..)| *lift == Lift::Aspect(aspect.clone()));
        if aspects.len() < 2 || !aspects.iter().all(in_vain) {
            continue;
        }
        let lift = Lift::Filter(*at);
        let lifted = trial.lift(asked, &lift);
        let Some(kept) = trial.kept(&lifted) else { break };
        if !kept.hosts.is_empty() {
            out.push(trial.remedy(vec![trial.change(&lift, &[&base])], kept.hosts.iter()));
        }
    }
    let short = trial.short(asked);
    out.extend(trial.enough(asked, &short));
    out.extend(trial.moves(asked, &short));
    vain
}

/// Two changes of which neither helps alone.
fn pairs(trial: &mut Trial, asked: &Asked, vain: &[(Lift, Asked, Kept)], out: &mut Vec<Remedy>) {
    let Some(base) = trial.kept(asked) else { return };
    let mut seen = BTreeSet::new();
    for (one, lifted, kept) in vain {
        for two in trial.lifts(lifted, kept) {
            if seen.len() >= PAIRS {
                trial.cut_short();
                return;
            }
            if !seen.insert([one.min(&two).clone(), one.max(&two).clone()]) {
                continue;
            }
            let both = trial.lift(lifted, &two);
            let Some(found) = trial.kept(&both) else { return };
            if !found.hosts.is_empty() {
                let changes = [one, &two].map(|lift| trial.change(lift, &[&base, kept]));
                out.push(trial.remedy(changes.to_vec(), found.hosts.iter()));
            }
        }
        let short = trial.short(lifted);
        let change = trial.change(one, &[&base]);
        let enough = trial.enough(lifted, &short).into_iter();
        out.extend(enough.map(|more| Remedy { changes: [vec![change.clone()], more.changes].concat(), ..more }));
    }
}
