//! A run made into an answer and a record.

use std::cmp::Reverse;
use std::sync::Arc;

use uuid::Uuid;

use crate::command::{Action, Part, Record};
use crate::decision::{Claim, Decision, Placement, RankedHost, StepKind};
use crate::intent::Intent;
use crate::pipeline::cx::View;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::run::{Changes, Run, Scored, Trace, base, rounded};
use crate::provider::Row;
use crate::request::{Candidate, Candidates, Request};
use crate::settings::{Settings, UnknownHosts};

use super::candidates::Field;

pub(super) struct Composed {
    pub decision: Decision,
    pub record: Record,
    pub trace: Arc<Trace>,
    pub changed: Arc<Changes>,
}

pub(super) fn blank(request: &Request, intent: Intent, pipeline: &str) -> Decision {
    Decision {
        id: 0,
        domain: request.domain,
        intent,
        pipeline: pipeline.to_owned(),
        version: 0,
        placements: Vec::new(),
        hosts: Vec::new(),
        claim: Claim::None,
        candidates: 0,
        unknown_hosts: Vec::new(),
        steps: Arc::default(),
        ranges: Vec::new(),
        notes: Vec::new(),
        wall: 0,
        trace_id: request.trace_id.clone(),
        events: Vec::new(),
        timings: Vec::new(),
    }
}

pub(super) fn without_host(consumer: Uuid) -> Placement {
    Placement { consumer, host: String::new(), node: None, provider: Uuid::nil() }
}

/// Score in its own unit.
pub(super) fn score(units: i64) -> f64 {
    units as f64 / 1e9
}

/// Where a part places its consumer; `open` is the row of its open claim.
pub(super) fn placement(view: View<'_>, part: &Part, open: Option<Row>) -> Option<Placement> {
    let row = match &part.action {
        Action::Claim { targets, .. } => targets.first().copied(),
        Action::Keep => open,
        Action::Leave | Action::Release => None,
    };
    let provider = view.provider(row?)?;
    let names = view.names();
    Some(Placement {
        consumer: part.consumer,
        host: names.text(provider.host).to_owned(),
        node: provider.node.map(|node| names.text(node).to_owned()),
        provider: provider.uuid,
    })
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is a different thing")]
pub(super) fn compose(
    view: View<'_>,
    settings: &Settings,
    pipeline: &Pipeline,
    request: &Request,
    field: &Field,
    ran: Run,
    part: &Part,
    open: Option<Row>,
) -> Composed {
    let names = view.names();
    let claim = match (&part.action, open) {
        (Action::Claim { .. }, None) => Claim::Made,
        (Action::Claim { .. }, Some(_)) => Claim::Replaced,
        (Action::Keep, _) => Claim::Kept,
        (Action::Leave | Action::Release, _) => Claim::None,
    };
    let record = Record {
        pipeline: names.refer(&pipeline.name),
        version: 0,
        candidates: field.count as u32,
        unknown: field.unknown.len() as u32,
        hosts_out: (ran.survivors + field.strangers.len()) as u32,
        drops: ran
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Filter && !step.reasons.is_empty())
            .map(|step| {
                let reasons = step.reasons.iter().map(|(why, count)| (names.refer(why), *count as u32)).collect();
                (names.refer(&step.name), reasons)
            })
            .collect(),
        top: ran.ranked.iter().take(settings.record_top).map(|scored| (scored.row, scored.score)).collect(),
        claim,
        trace_id: truncated(&request.trace_id, 64),
    };
    // The answer names hosts as the caller wrote them.
    let sent_name = |scored: &Scored| match &request.candidates {
        Candidates::Sent(hosts) => {
            hosts.get(scored.position as usize).map(|sent| sent.host.clone()).unwrap_or_default()
        }
        Candidates::All => view.host_name(scored.row),
    };
    let mut hosts: Vec<RankedHost> =
        ran.ranked.iter().map(|scored| RankedHost { host: sent_name(scored), score: score(scored.score) }).collect();
    if let (Candidates::Sent(sent), false) = (&request.candidates, field.strangers.is_empty()) {
        hosts = among_strangers(pipeline, sent, field, &ran.ranked);
    }
    let most = request.options.max_candidates as usize;
    if most > 0 {
        hosts.truncate(most);
    }
    let mut decision = blank(request, Intent::Create, &pipeline.name);
    decision.hosts = hosts;
    if settings.unknown_hosts == UnknownHosts::Append && field.strangers.is_empty() {
        let unknown = field.unknown.iter();
        decision.hosts.extend(unknown.map(|host| RankedHost { host: host.into(), score: f64::MIN }));
    }
    decision.claim = claim;
    decision.candidates = field.count as u64;
    decision.unknown_hosts.clone_from(&field.unknown);
    decision.steps = ran.steps;
    decision.ranges = ran.ranges;
    decision.notes = ran.notes;
    let equal = ran.ranked.iter().take_while(|scored| scored.score == ran.ranked[0].score).count();
    if equal > 1 && field.strangers.is_empty() {
        let rule = match &request.candidates {
            Candidates::Sent(_) => "the caller's order",
            Candidates::All => "the name",
        };
        decision.notes.push(format!("tie: the first {equal} hosts have equal scores, {rule} decided between them"));
    }
    decision.events = ran.events;
    decision.timings = ran.timings;
    Composed { decision, record, trace: ran.trace, changed: ran.changed }
}

/// The ranked hosts and the strangers in one order.
fn among_strangers(pipeline: &Pipeline, sent: &[Candidate], field: &Field, ranked: &[Scored]) -> Vec<RankedHost> {
    let known = ranked.iter().map(|scored| (scored.score, scored.position));
    let strangers = field.strangers.iter().map(|one| (rounded(base(pipeline, one.weight)), one.position));
    let mut all: Vec<(i64, u32)> = known.chain(strangers).collect();
    all.sort_unstable_by_key(|&(units, position)| (Reverse(units), position));
    all.into_iter()
        .map(|(units, at)| RankedHost { host: sent[at as usize].host.clone(), score: score(units) })
        .collect()
}

fn truncated(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}
