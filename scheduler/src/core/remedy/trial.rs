//! A copy of the state to try things on, and ways to ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::consumer::Purpose;
use crate::core::candidates::field;
use crate::core::{Core, Survey};
use crate::index::Index;
use crate::intent::Intent;
use crate::overlay::Pending;
use crate::pipeline::cx::Cx;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::run::{Entrants, run};
use crate::pipeline::survivors::Survivors;
use crate::provider::{Amounts, Row};
use crate::remedy::{Aspect, Change, Remedies, Remedy};
use crate::request::Request;
use crate::rows::Mask;
use crate::state::State;

use super::{Lift, NAMED};

/// The copy, and the consumer that a host is sought for.
pub(super) struct Trial {
    pub core: Core,
    pub pipeline: Arc<Pipeline>,
    pub intent: Intent,
    pub consumer: Uuid,
    /// Hosts that may still be judged.
    work: u64,
    spent: bool,
    cut: bool,
}

/// A way to ask: a request, its candidates, and the filters that are left out.
#[derive(Clone)]
pub(super) struct Asked {
    pub request: Request,
    pub candidates: Mask,
    pub without: BTreeSet<usize>,
}

/// What filters kept.
pub(super) struct Kept {
    pub hosts: Mask,
    /// Filters that dropped hosts, with their reasons.
    pub drops: Vec<(usize, Vec<String>)>,
}

impl Trial {
    /// Copies the state and places consumers of the request until one has no host. None: all have one.
    pub fn begin(survey: Survey, out: &mut Remedies) -> Option<(Self, Asked)> {
        let Survey { tables, overlay, pipeline, request, intent, work } = survey;
        let index = Index::build(&tables, &overlay);
        let core = Core { state: State::of(tables), index, overlay, ..Core::default() };
        let found = field(core.view(), &request, &pipeline).ok()?;
        let mut trial = Self { core, pipeline, intent, consumer: Uuid::nil(), work, spent: false, cut: false };
        let asked = Asked { candidates: found.mask.clone(), request, without: BTreeSet::new() };
        let purpose = if intent.is_move() { Purpose::Move } else { Purpose::Instance };
        for &consumer in &asked.request.consumers {
            trial.consumer = consumer;
            trial.core.hide(&asked.request, consumer, purpose);
            let entrants = Entrants {
                mask: found.mask.clone(),
                sent: Arc::clone(&found.sent),
                detailed: false,
                limit: 1,
                impact: false,
            };
            let ran = run(&trial.pipeline, &trial.cx(&asked.request), entrants, || 0);
            let Some(best) = ran.ranked.first() else { return Some((trial, asked)) };
            out.fits = ran.survivors as u64;
            out.placed += 1;
            trial.core.show();
            trial.claim(&asked.request, purpose, best.row);
        }
        None
    }

    /// Counts the consumer on a host.
    fn claim(&mut self, request: &Request, purpose: Purpose, row: Row) {
        let amounts = crate::apply::claimable(self.core.state.tables().provider(row), &self.core.wanted(request));
        let group = request.group.as_ref().and_then(|group| group.uuid);
        let pending = Pending { ticket: 0, row, amounts, group, intent: self.intent, request: None, since: 0 };
        self.core.overlay.add(request.domain, self.consumer, purpose, pending);
        self.core.index.refresh_use(self.core.state.tables(), &self.core.overlay, row);
    }

    pub fn cx<'a>(&'a self, request: &'a Request) -> Cx<'a> {
        Cx { request, intent: self.intent, consumer: self.consumer, view: self.core.view() }
    }

    /// True when no more may be judged.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// True when something was left out.
    pub fn is_cut_short(&self) -> bool {
        self.cut || self.spent
    }

    /// Notes that something was left out.
    pub fn cut_short(&mut self) {
        self.cut = true;
    }

    /// Takes what judging so many hosts costs; false: too much.
    pub fn spend(&mut self, hosts: usize) -> bool {
        // A filter looks at a word of 64 rows, hosts in it or not.
        let cost = hosts.max(64) as u64;
        self.spent |= self.work < cost;
        self.work = self.work.saturating_sub(cost);
        !self.spent
    }

    /// Decides again: what is kept. None: the bound of work is reached.
    pub fn kept(&mut self, asked: &Asked) -> Option<Kept> {
        let mut hosts = Survivors::new(asked.candidates.clone(), false);
        if !self.spend(hosts.len()) {
            return None;
        }
        let cx = self.cx(&asked.request);
        let mut drops = Vec::new();
        for at in (0..self.pipeline.filters.len()).filter(|at| !asked.without.contains(at)) {
            self.pipeline.filter(at, &cx, &mut hosts);
            let reasons = hosts.end_step().reasons;
            if !reasons.is_empty() {
                drops.push((at, reasons.into_iter().map(|(why, _)| why.into_owned()).collect()));
            }
            if hosts.is_empty() {
                break;
            }
        }
        Some(Kept { hosts: hosts.mask().clone(), drops })
    }

    /// Parts of the request for which a filter drops hosts.
    pub fn aspects(&self, filter: usize, asked: &Asked) -> Vec<Aspect> {
        self.pipeline.filters[filter].1.acts_on(&asked.request)
    }

    /// Filters that look at the wanted amounts.
    pub fn capacity(&self, asked: &Asked) -> Vec<usize> {
        let all = 0..self.pipeline.filters.len();
        all.filter(|at| !asked.without.contains(at))
            .filter(|&at| self.aspects(at, asked).contains(&Aspect::Amounts))
            .collect()
    }

    /// What may be lifted of what kept hosts out.
    pub fn lifts(&self, asked: &Asked, kept: &Kept) -> Vec<Lift> {
        let mut out = Vec::new();
        for (at, _) in &kept.drops {
            let aspects = self.aspects(*at, asked);
            if aspects.is_empty() {
                out.push(Lift::Filter(*at));
            }
            for aspect in aspects {
                let lift = Lift::Aspect(aspect);
                if lift != Lift::Aspect(Aspect::Amounts) && !out.contains(&lift) {
                    out.push(lift);
                }
            }
        }
        out
    }

    pub fn lift(&self, asked: &Asked, lift: &Lift) -> Asked {
        match lift {
            Lift::Filter(at) => {
                let mut out = asked.clone();
                out.without.insert(*at);
                out
            }
            Lift::Aspect(aspect) => {
                let request = asked.request.without(aspect);
                let candidates = match aspect {
                    Aspect::Candidates => field(self.core.view(), &request, &self.pipeline).map(|field| field.mask),
                    _ => Ok(asked.candidates.clone()),
                };
                Asked { candidates: candidates.unwrap_or_default(), request, without: asked.without.clone() }
            }
        }
    }

    /// A lift in names; the reasons of a filter are looked for in `kept`.
    pub fn change(&self, lift: &Lift, kept: &[&Kept]) -> Change {
        match lift {
            Lift::Aspect(aspect) => Change::Without(aspect.clone()),
            Lift::Filter(at) => {
                let drops = kept.iter().flat_map(|kept| &kept.drops).find(|(filter, _)| filter == at);
                Change::WithoutFilter {
                    step: self.pipeline.filters[*at].0.clone(),
                    reasons: drops.map(|(_, reasons)| reasons.clone()).unwrap_or_default(),
                }
            }
        }
    }

    pub fn remedy(&self, changes: Vec<Change>, hosts: impl Iterator<Item = Row>) -> Remedy {
        let mut names: Vec<&str> = hosts.map(|row| self.core.view().host(row)).collect();
        names.sort_unstable();
        let first = names.iter().take(NAMED).map(|&name| name.to_owned()).collect();
        Remedy { changes, hosts: names.len() as u64, first }
    }

    /// Amounts by the names of their classes.
    pub fn named(&self, amounts: &Amounts) -> Vec<(String, u64)> {
        let names = self.core.view().names();
        let mut out: Vec<(String, u64)> =
            amounts.iter().map(|(class, amount)| (names.text(class).to_owned(), amount)).collect();
        out.sort_unstable();
        out
    }
}
