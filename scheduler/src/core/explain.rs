//! Explaining past decisions. Nothing is decided again: the record is replicated, the detail is
//! what the deciding node kept.

use std::sync::Arc;

use uuid::Uuid;

use crate::decision::{Decision, DetailView, Explanation, HostStory, RankedHost, RecordView, StepKind};
use crate::domain::Domain;
use crate::intent::Intent;
use crate::names::{Names, Text};
use crate::pipeline::engine::Engine;
use crate::pipeline::run::{Changes, Entrant, Trace};
use crate::provider::Row;
use crate::request::{Candidates, Request};
use crate::state::{Stored, Tables};

use super::candidates::Field;
use super::compose::score;
use super::{Core, Proposal, Refusal, as_probe};

/// Hosts whose story is told when none is asked for.
const FIRST_HOSTS: usize = 5;

/// What the deciding node keeps of a decision.
#[derive(Debug)]
pub(super) struct Detail {
    pub decision: Arc<Decision>,
    trace: Arc<Trace>,
    changed: Arc<Changes>,
    /// Known hosts that were sent, ascending by row; none when the whole domain was asked for.
    sent: Option<Arc<Vec<Entrant>>>,
}

impl Detail {
    /// The detail of a decision that is still to be settled; its answer comes with that.
    pub fn new(trace: Arc<Trace>, changed: Arc<Changes>, field: &Field, request: &Request) -> Self {
        let sent = (request.candidates != Candidates::All).then(|| Arc::clone(&field.sent));
        Self { decision: Arc::new(super::compose::blank(request, Intent::Create, "")), trace, changed, sent }
    }

    /// Hosts that it remembers something of.
    pub fn hosts(&self) -> usize {
        self.decision.hosts.len().max(self.sent.as_ref().map_or(0, |sent| sent.len()))
    }

    /// What happened to one host.
    fn story(&self, tables: &Tables, rows: &[Row], host: &str) -> HostStory {
        let mut story = HostStory {
            host: host.to_owned(),
            rank: None,
            dropped_by: None,
            reason: None,
            base: None,
            scores: Vec::new(),
            score: None,
        };
        let was_sent = |row: &&Row| match &self.sent {
            Some(sent) => sent.binary_search_by_key(*row, |entrant| entrant.row).is_ok(),
            None => true,
        };
        let unknown = self.decision.unknown_hosts.iter().any(|name| name.eq_ignore_ascii_case(host));
        let rank = self.decision.hosts.iter().position(|ranked| ranked.host.eq_ignore_ascii_case(host));
        story.rank = rank.map(|at| at as u64 + 1);
        story.score = rank.map(|at| self.decision.hosts[at].score);
        let Some(&row) = rows.iter().find(was_sent) else {
            let (dropped_by, reason) = match (unknown, rank) {
                (true, Some(_)) => (None, "no source has reported such a host: ranked by what was sent"),
                (false, Some(_)) => (None, "the host was removed since"),
                (false, None) if self.sent.is_some() => (None, "it was not among the hosts of the request"),
                _ => (Some("unknown_host"), "no source has reported such a host"),
            };
            story.dropped_by = dropped_by.map(str::to_owned);
            story.reason = Some(reason.to_owned());
            return story;
        };
        let changed = self.changed.hosts.iter().find(|changed| changed.row == row);
        let filters: Vec<_> = self.decision.steps.iter().filter(|step| step.kind == StepKind::Filter).collect();
        if let Some(dropped) = &self.trace.dropped {
            if let Some(dropped) = dropped.iter().find(|dropped| dropped.row == row)
                && let Some(step) = filters.get(dropped.step as usize)
            {
                let why = step.reasons.get(dropped.reason as usize).map_or("", |(why, _)| why.as_str());
                let detail = changed.map_or(dropped.detail, |changed| changed.detail);
                story.dropped_by = Some(step.name.clone());
                story.reason = Some(format!("{why}{}", detail.render(&tables.names)));
                return story;
            }
        } else if let Some((step, _)) = self.trace.masks.iter().find(|(_, mask)| !mask.has(row))
            && let Some(step) = filters.get(*step as usize)
        {
            story.dropped_by = Some(step.name.clone());
            story.reason = match step.reasons.as_slice() {
                [(why, _)] => Some(why.clone()),
                reasons => Some(reasons.iter().map(|(why, _)| why.as_str()).collect::<Vec<_>>().join(", or ")),
            };
            return story;
        }
        let Some(at) = self.trace.rows.iter().position(|known| *known == row) else { return story };
        story.base = self.trace.base.get(at).copied();
        let weighers = self.decision.steps.iter().filter(|step| step.kind == StepKind::Weigher);
        let shapes = self.changed.shapes.as_ref().unwrap_or(&self.trace.shapes);
        for (weigher, (step, activations)) in weighers.zip(&self.trace.activations).enumerate() {
            if let Some(raw) = activations.get(at) {
                let raw = *changed.and_then(|changed| changed.activations.get(weigher)).unwrap_or(raw);
                let share = shapes.get(weigher).map_or(0.0, |shape| shape.share(at, raw));
                story.scores.push((step.name.clone(), raw, share));
            }
        }
        story
    }

    fn view(&self, core: &Core, hosts: &[String]) -> DetailView {
        let names: Vec<String> = match hosts {
            [] => self.decision.hosts.iter().take(FIRST_HOSTS).map(|ranked| ranked.host.to_string()).collect(),
            [all] if all == "*" => self.every_host(core),
            hosts => hosts.to_vec(),
        };
        let tables = core.state.tables();
        let stories = names
            .iter()
            .map(|host| {
                let rows: Vec<Row> = (core.index.rows_of_host(host).iter().copied())
                    .filter(|&row| tables.provider(row).is_some_and(|p| p.domain == self.decision.domain))
                    .collect();
                self.story(tables, &rows, host)
            })
            .collect();
        DetailView { decision: (*self.decision).clone(), hosts: stories }
    }

    fn every_host(&self, core: &Core) -> Vec<String> {
        if let Some(sent) = &self.sent {
            let mut sent: Vec<(u32, Row)> = sent.iter().map(|entrant| (entrant.position, entrant.row)).collect();
            sent.sort_unstable();
            let known = sent.into_iter().map(|(_, row)| core.view().host(row).to_owned());
            return known.chain(self.decision.unknown_hosts.iter().cloned()).collect();
        }
        let ranked = self.decision.hosts.iter().map(|ranked| ranked.host.to_string());
        let dropped = self.trace.dropped.iter().flatten();
        ranked.chain(dropped.map(|dropped| core.view().host(dropped.row).to_owned())).collect()
    }
}

pub(super) fn ranked(tables: &Tables, row: Row, units: i64) -> RankedHost {
    let host = tables.provider(row).map_or("(removed)", |provider| tables.names.text(provider.host));
    RankedHost { host: host.into(), score: score(units) }
}

fn text(names: &Names, text: &Text) -> String {
    match text {
        Text::Known(sym) => names.text(*sym).to_owned(),
        Text::New(text) => text.clone(),
    }
}

/// The record with names instead of numbers.
pub fn record_view(tables: &Tables, stored: &Stored) -> RecordView {
    let names = &tables.names;
    let record = &stored.record;
    let host = |row: &Row| ranked(tables, *row, 0).host.to_string();
    RecordView {
        id: stored.id,
        wall: stored.wall,
        domain: stored.domain,
        consumers: stored.parts.iter().map(|(consumer, _)| *consumer).collect(),
        intent: stored.intent,
        pipeline: text(names, &record.pipeline),
        version: record.version,
        project: stored.project.map(|sym| names.text(sym).to_owned()),
        flavor: stored.flavor.map(|sym| names.text(sym).to_owned()),
        candidates: u64::from(record.candidates),
        unknown_hosts: u64::from(record.unknown),
        drops: record
            .drops
            .iter()
            .map(|(step, reasons)| {
                (text(names, step), reasons.iter().map(|(why, count)| (text(names, why), u64::from(*count))).collect())
            })
            .collect(),
        hosts_out: u64::from(record.hosts_out),
        top: record.top.iter().map(|&(row, score)| ranked(tables, row, score)).collect(),
        claimed: stored.parts.iter().filter_map(|(_, row)| row.as_ref().map(host)).collect(),
        claim: record.claim,
        trace_id: record.trace_id.clone(),
    }
}

impl Core {
    /// Everything that is known of a past decision; stories of `hosts` (none = the first of the
    /// answer, `*` = every host). `None`: no such decision, or it is no longer remembered.
    pub fn explain(&self, id: u64, hosts: &[String]) -> Option<Explanation> {
        let stored = self.state.tables().decision(id)?;
        let record = record_view(self.state.tables(), stored);
        let detail = self.details.iter().find(|(known, _)| *known == id).map(|(_, detail)| detail.view(self, hosts));
        let note = detail.is_none().then(|| {
            "this node did not make the decision, or has dropped its detail since: here is the summary".to_owned()
        });
        let refused = self.refused.iter().find(|(known, _)| *known == id);
        let request = refused.map(|(_, request)| Box::new((**request).clone()));
        Some(Explanation { record, detail, note, request })
    }

    /// The newest decision about a consumer.
    pub fn decision_of(&self, domain: Domain, consumer: Uuid) -> Option<u64> {
        let mut decisions = self.state.tables().decisions();
        decisions
            .find(|stored| stored.domain == domain && stored.parts.iter().any(|(uuid, _)| *uuid == consumer))
            .map(|stored| stored.id)
    }

    /// A dry run with the stories of `hosts`, as in [`Core::explain`].
    pub fn probe_detail(
        &mut self,
        engine: &Engine,
        request: &Request,
        hosts: &[String],
    ) -> Result<DetailView, Refusal> {
        let proposal = self.decide(engine, &as_probe(request))?;
        let Proposal { decision, detail, .. } = proposal;
        let hosts = match detail {
            Some(detail) => Detail { decision: Arc::new(decision.clone()), ..detail }.view(self, hosts).hosts,
            None => Vec::new(),
        };
        Ok(DetailView { decision, hosts })
    }
}
