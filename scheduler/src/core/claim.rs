//! Deciding: the pipeline's order turned into a claim, with what `nova-pipeline` 0.1 says of
//! repeats.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;

use rustc_hash::FxHasher;
use uuid::Uuid;

use crate::apply::claimable;
use crate::command::{Action, Command, Part, Place};
use crate::consumer::{Consumer, Purpose};
use crate::decision::{Claim, NOT_TOGETHER};
use crate::domain::Domain;
use crate::intent::Intent;
use crate::inventory::Inventory;
use crate::overlay::Pending;
use crate::pipeline::cx::{Cx, View};
use crate::pipeline::engine::Engine;
use crate::pipeline::run::{Entrants, Run, Scored, run};
use crate::provider::{Amounts, Row};
use crate::report::LONGEST_NAME;
use crate::request::{Caller, Request};
use crate::state::issued;

use super::candidates::{Field, field};
use super::compose::{Composed, compose, placement};
use super::planned::{Planned, planned, unfenced};
use super::{Core, Proposal, Refusal};

/// Alternates that a command carries, besides the chosen host.
const ALTERNATES: usize = 3;
/// Consumers that one request may place.
pub const MOST_CONSUMERS: usize = 256;
/// Of so many claims one measures how far each weigher moved hosts.
const IMPACT_SAMPLE: u32 = 16;
/// Hosts ordered when the caller sent none and set no limit.
const ORDERED: usize = 100;

/// The open claim of a consumer as this node sees it: in flight, else applied.
struct Open {
    row: Row,
    amounts: Amounts,
    ticket: u64,
    intent: Intent,
    request: Option<Uuid>,
    since: u64,
}

/// What a host is sought for.
struct Asked<'a> {
    request: &'a Request,
    intent: Intent,
    purpose: Purpose,
    consumer: Uuid,
    wanted: &'a Amounts,
}

impl Core {
    /// Decides on `request`: on what is applied plus what is in flight. The proposal's claims are in
    /// flight until it is settled.
    pub fn decide(&mut self, engine: &Engine, request: &Request) -> Result<Proposal, Refusal> {
        validate(request)?;
        let key = match request.caller {
            Caller::Keyed { key: Some(key) } if !request.options.read_only => Some((key, content(request))),
            _ => None,
        };
        if let Some((key, hash)) = key {
            if issued(key).is_none() {
                return Err(Refusal::Invalid(format!(
                    "request_id: {key} given, a UUID of version 7 expected, so that its age is known"
                )));
            }
            if self.state.tables().keys.get(key).is_some() || self.overlay.key_in_flight(key) {
                return Ok(self.join(request, key, hash));
            }
        }
        let pipeline = engine.choose(request)?;
        let field = field(self.view(), request, &pipeline)?;
        let plan = planned(self.state.tables(), request);
        let answered = plan.as_ref().is_some_and(Planned::answers);
        let (intent, mut notes) = match (&plan, request.consumers.first()) {
            // Its host is proven dead, whatever the caller calls it.
            (Some(_), _) => (Intent::Evacuate, Vec::new()),
            (None, consumer) => {
                let (intent, mut notes) = self.intent(request);
                let evacuated = consumer.filter(|_| intent == Intent::Evacuate && request.domain == Domain::Nova);
                notes.extend(evacuated.and_then(|consumer| unfenced(self.state.tables(), *consumer)));
                (intent, notes)
            }
        };
        let settings = &engine.settings;
        let purpose = if intent.is_move() { Purpose::Move } else { Purpose::Instance };
        // Whether several fit together shows only with the former ones in place; a question takes them out again.
        let trial = request.options.read_only && request.consumers.len() > 1;
        let tickets = self.tickets;
        let claims = (trial || !(request.options.read_only || request.options.skip_inflight))
            && intent != Intent::Rebuild
            && !intent.is_internal();
        let detailed = field.count <= settings.detail_hosts;

        let mut proposal = Proposal {
            decision: super::compose::blank(request, intent, &pipeline.name),
            command: None,
            flights: Vec::new(),
            detail: None,
            refused: false,
            request: None,
            keep_details: (settings.detail_decisions, settings.detail_decisions.saturating_mul(settings.detail_hosts)),
            key: key.map(|(key, _)| key),
            traced: false,
        };
        let wanted = self.wanted(request);
        let group = request.group.as_ref().and_then(|group| group.uuid);
        let hook_request = hook_request(request);
        let mut parts = Vec::with_capacity(request.consumers.len());
        let mut placed = Vec::with_capacity(request.consumers.len());
        let mut first: Option<Composed> = None;
        let mut failed = false;
        for &consumer in &request.consumers {
            let new = self.is_new(request, consumer);
            let follows = new && intent == Intent::Create && request.group.is_none();
            let view =
                View { tables: self.state.tables(), index: &self.index, overlay: &self.overlay, clock: self.clock };
            let again = (follows && first.is_some())
                .then(|| self.standings.order(&pipeline, &Cx { request, intent, consumer, view }, 1 + ALTERNATES));
            let open = if new { None } else { self.open(request, consumer, purpose) };
            let (mut ranked, rest) = if let Some(Some(ranked)) = again {
                (ranked, None)
            } else if let Some(plan) = plan.as_ref().filter(|plan| plan.answers()) {
                let mut ran = plan.run(view, &field);
                (std::mem::take(&mut ran.ranked), Some(ran))
            } else {
                let limit = match request.options.max_candidates as usize {
                    // An open claim is looked for among all hosts; the answer is cut below.
                    _ if open.is_some() => 0,
                    0 if field.sent.is_empty() => ORDERED,
                    0 => 0,
                    most => most.max(1 + ALTERNATES).max(settings.record_top),
                };
                let impact = detailed && self.tickets.is_multiple_of(IMPACT_SAMPLE);
                let entrants =
                    || Entrants { mask: field.mask.clone(), sent: Arc::clone(&field.sent), detailed, limit, impact };
                let beside = match engine.candidate(&pipeline.name) {
                    Some(candidate) if first.is_none() && !request.options.read_only => {
                        Some((candidate, self.shadows.is_due(&pipeline, candidate)))
                    }
                    _ => None,
                };
                self.hide(request, consumer, purpose);
                let view =
                    View { tables: self.state.tables(), index: &self.index, overlay: &self.overlay, clock: self.clock };
                let cx = Cx { request, intent, consumer, view };
                let mut ran = if follows {
                    self.standings.run(&pipeline, &cx, entrants, engine.timer, request.consumers.len() > 1)
                } else {
                    run(&pipeline, &cx, entrants(), engine.timer).trimmed(detailed)
                };
                if let Some((candidate, due)) = beside {
                    let entrants = || Entrants { detailed: false, impact: false, ..entrants() };
                    let shadow = due.then(|| run(&candidate.pipeline, &cx, entrants(), engine.timer));
                    self.shadows.note(&pipeline.name, view, consumer, &ran, shadow.as_ref());
                }
                self.show();
                (std::mem::take(&mut ran.ranked), Some(ran))
            };
            let known = self.state.tables().consumer(request.domain, consumer, purpose);
            let arriving = known.filter(|consumer| !new && consumer.is_listed());
            if claims && let Some(arriving) = arriving {
                // The target of a former move lists it and its source does too: both places are
                // real until one report drops it, so there is none to give up for a new claim.
                notes.push(format!(
                    "{consumer} is arriving on {} by an earlier move: nothing was claimed",
                    self.view().host(arriving.row)
                ));
            }
            let leads = plan.as_ref().is_some_and(|plan| plan.lead(&mut ranked));
            if let Some(plan) = plan.as_ref().filter(|_| !answered) {
                notes.push(plan.note(self.view(), &field, leads));
            }
            let part = if let Some(plan) = plan.as_ref().filter(|_| answered || leads || ranked.is_empty()) {
                let open = open.as_ref().map(|open| (open.ticket, open.row));
                plan.part(consumer, open, claims, !ranked.is_empty())
            } else if claims && arriving.is_none() {
                let asked = Asked { request, intent, purpose, consumer, wanted: &wanted };
                // What a plan has claimed is of no request of Nova's.
                let within = if plan.is_some() { 0 } else { settings.same_request_ms };
                self.part(&asked, open.as_ref(), &mut ranked, &field, within)
            } else {
                Part { consumer, purpose, seen: open.as_ref().map(|open| open.ticket), action: Action::Leave }
            };
            failed |= claims && ranked.is_empty();
            if let Action::Claim { ticket, targets, amounts } = &part.action
                && let Some(&row) = targets.first()
            {
                let amounts = claimable(self.state.tables().provider(row), amounts);
                let pending =
                    Pending { ticket: *ticket, row, amounts, group, intent, request: hook_request, since: self.clock };
                self.overlay.add(request.domain, consumer, purpose, pending);
                self.index.refresh_use(self.state.tables(), &self.overlay, row);
                proposal.flights.push((request.domain, consumer, purpose, *ticket));
            }
            let open = open.map(|open| open.row);
            placed.extend(placement(self.view(), &part, open));
            if let Some(ran) = rest.filter(|_| first.is_none()) {
                let ran = Run { ranked, ..ran };
                first = Some(compose(self.view(), settings, &pipeline, request, &field, ran, &part, open));
            }
            parts.push(part);
            if failed && request.consumers.len() > 1 {
                break;
            }
        }
        let Some(composed) = first else {
            return Err(Refusal::Invalid("consumers: none given, at least one expected".to_owned()));
        };
        let Composed { mut decision, mut record, trace, changed } = composed;
        if answered {
            // Nothing stands behind the target, not even hosts that nobody knows.
            decision.hosts.truncate(record.hosts_out as usize);
        }
        let detail = || super::explain::Detail::new(trace, changed, &field, request);
        decision.intent = intent;
        super::sanity::look(&mut decision);
        (decision.version, record.version) = (pipeline.version, pipeline.version);
        decision.notes.splice(0..0, notes);
        decision.placements = placed;
        let together = !failed || request.consumers.len() == 1;
        if !together {
            let fit = parts.iter().filter(|part| matches!(part.action, Action::Claim { .. } | Action::Keep)).count();
            decision.notes.push(format!("{fit} of {} {NOT_TOGETHER}", request.consumers.len()));
        }
        if trial || !together {
            decision.placements.clear();
            decision.claim = Claim::None;
            record.claim = Claim::None;
            self.drop_flights(&mut proposal);
            for part in &mut parts {
                part.action = Action::Leave;
            }
        }
        if trial {
            // What is decided after a question must not depend on it.
            self.tickets = tickets;
        }
        proposal.decision = decision;
        let record = (!request.options.skip_history && !request.options.read_only).then_some(record);
        let nothing = parts.iter().all(|part| part.action == Action::Leave) && record.is_none();
        if request.options.read_only || nothing {
            proposal.key = None;
            proposal.detail = None;
            if request.options.read_only {
                proposal.detail = Some(detail());
            }
            return Ok(proposal);
        }
        if let Some((key, _)) = key {
            self.overlay.fly_key(key);
        }
        proposal.detail = Some(detail());
        proposal.refused = !answered && (failed || record.as_ref().is_some_and(|record| record.hosts_out == 0));
        let names = self.view().names();
        proposal.traced = true;
        proposal.command = Some(Command::Place(Box::new(Place {
            domain: request.domain,
            intent,
            project: request.project.as_deref().map(|text| names.refer(text)),
            user: request.user.as_deref().map(|text| names.refer(text)),
            flavor: request.flavor.as_deref().map(|text| names.refer(text)),
            group: request.group.as_ref().and_then(|group| group.uuid),
            request: hook_request,
            key,
            parts,
            life: settings.claim_expiry.millis(intent),
            learned: field.learned,
            record,
        })));
        Ok(proposal)
    }

    /// A repeat of a keyed request: apply knows the first answer.
    fn join(&mut self, request: &Request, key: Uuid, hash: u64) -> Proposal {
        self.overlay.fly_key(key);
        let mut decision = super::compose::blank(request, request.label.unwrap_or_default(), "");
        decision.placements =
            request.consumers.iter().map(|&consumer| super::compose::without_host(consumer)).collect();
        Proposal {
            decision,
            command: Some(Command::Place(Box::new(Place {
                domain: request.domain,
                intent: request.label.unwrap_or_default(),
                project: None,
                user: None,
                flavor: None,
                group: None,
                request: None,
                key: Some((key, hash)),
                parts: Vec::new(),
                life: 0,
                learned: Vec::new(),
                record: None,
            }))),
            flights: Vec::new(),
            detail: None,
            refused: false,
            request: None,
            keep_details: (0, 0),
            key: Some(key),
            traced: true,
        }
    }

    /// What the request is for (`nova-pipeline` 0.5), and remarks on hints that were not followed.
    pub(super) fn intent(&self, request: &Request) -> (Intent, Vec<String>) {
        let mut notes = Vec::new();
        let label = request.label;
        if let Some(fixed) = label.filter(|label| *label == Intent::Rebuild || label.is_internal()) {
            return (fixed, notes);
        }
        let Some(&consumer) = request.consumers.first() else { return (label.unwrap_or_default(), notes) };
        let tables = self.state.tables();
        let known = tables.consumer(request.domain, consumer, Purpose::Instance).filter(|known| known.is_listed());
        let Some(known) = known else {
            let intent = match label {
                Some(label) if label != Intent::Create => label,
                _ if !request.ignore_hosts.is_empty() && request.destination.cell_named => Intent::Move,
                _ => Intent::Create,
            };
            return (intent, notes);
        };
        let source = tables.provider(known.row);
        if source.is_some_and(|provider| provider.forced_down) {
            return (Intent::Evacuate, notes);
        }
        if label == Some(Intent::Evacuate) {
            return (Intent::Evacuate, notes);
        }
        if let Some(label) = label.filter(|label| matches!(label, Intent::Resize | Intent::LiveMigration)) {
            let host = source.map_or("", |provider| tables.names.text(provider.host));
            match &request.source_host {
                Some(hint) if !hint.eq_ignore_ascii_case(host) => {
                    notes.push(format!(
                        "hint source_host={hint} is stale, the instance is on {host}: hint {label} ignored"
                    ));
                }
                _ => return (label, notes),
            }
        }
        let flavor = known.flavor.map(|flavor| tables.names.text(flavor));
        if flavor.is_some() && request.flavor.is_some() && flavor != request.flavor.as_deref() {
            return (Intent::Resize, notes);
        }
        (Intent::Move, notes)
    }

    /// Whether nothing is known of a consumer, not even a claim in flight.
    fn is_new(&self, request: &Request, uuid: Uuid) -> bool {
        let known = |purpose| {
            self.overlay.pending(request.domain, uuid, purpose).is_some()
                || self.state.tables().consumer(request.domain, uuid, purpose).is_some()
        };
        !known(Purpose::Instance) && !known(Purpose::Move)
    }

    fn open(&self, request: &Request, uuid: Uuid, purpose: Purpose) -> Option<Open> {
        if let Some(pending) = self.overlay.pending(request.domain, uuid, purpose) {
            return Some(Open {
                row: pending.row,
                amounts: pending.amounts.clone(),
                ticket: pending.ticket,
                intent: pending.intent,
                request: pending.request,
                since: pending.since,
            });
        }
        let consumer = self.state.tables().consumer(request.domain, uuid, purpose).filter(|c| c.is_open())?;
        Some(Open {
            row: consumer.row,
            amounts: (*consumer.amounts).clone(),
            ticket: consumer.ticket,
            intent: consumer.intent,
            request: consumer.request.as_deref().copied(),
            since: consumer.since,
        })
    }

    /// Leaves the consumer's own open claims out of what is in use, until [`Self::show`].
    pub(super) fn hide(&mut self, request: &Request, uuid: Uuid, purpose: Purpose) {
        let mut own: Vec<(Row, Amounts)> = self.overlay.pendings(request.domain, uuid, purpose);
        let applied = self.state.tables().consumer(request.domain, uuid, purpose).filter(|c| c.is_open());
        own.extend(applied.map(|consumer: &Consumer| (consumer.row, (*consumer.amounts).clone())));
        for (row, amounts) in own {
            self.overlay.hide(row, &amounts);
            self.index.refresh_use(self.state.tables(), &self.overlay, row);
        }
    }

    pub(super) fn show(&mut self) {
        for row in self.overlay.show() {
            self.index.refresh_use(self.state.tables(), &self.overlay, row);
        }
    }

    pub(super) fn drop_flights(&mut self, proposal: &mut Proposal) {
        for (domain, uuid, purpose, ticket) in proposal.flights.drain(..) {
            if let Some(row) = self.overlay.remove(domain, uuid, purpose, ticket) {
                self.index.refresh_use(self.state.tables(), &self.overlay, row);
            }
        }
    }

    /// What happens to the claim of one consumer, after its hosts were ranked.
    fn part(
        &mut self,
        asked: &Asked<'_>,
        open: Option<&Open>,
        ranked: &mut [Scored],
        field: &Field,
        same_request_ms: u64,
    ) -> Part {
        let Asked { request, intent, purpose, consumer, wanted } = *asked;
        let seen = open.map(|open| open.ticket);
        let present = Cx { request, intent, consumer, view: self.view() }.resize_discount();
        if let Some(open) = open {
            let host = self.view().host(open.row);
            let refused =
                request.ignore_hosts.iter().chain(&request.retry_hosts).any(|name| name.eq_ignore_ascii_case(host));
            let sent = field.mask.has(open.row);
            let due = match &present {
                Some((row, old)) if *row == open.row => wanted.minus(old),
                _ => wanted.clone(),
            };
            let equal =
                open.intent == intent && open.amounts == claimable(self.state.tables().provider(open.row), &due);
            if sent && !refused && equal && keep_first(ranked, open.row) {
                return Part { consumer, purpose, seen, action: Action::Keep };
            }
            if !sent && !refused && same_request(request, open, self.clock, same_request_ms) {
                return Part { consumer, purpose, seen, action: Action::Leave };
            }
        }
        let Some(best) = ranked.first().copied() else {
            let action = if open.is_some() { Action::Release } else { Action::Leave };
            return Part { consumer, purpose, seen, action };
        };
        let (targets, amounts) = match present {
            Some((row, old)) if row == best.row => (vec![row], wanted.minus(&old)),
            other => {
                let present = other.map(|(row, _)| row);
                let rows = ranked.iter().map(|scored| scored.row).filter(|&row| Some(row) != present);
                (rows.take(1 + ALTERNATES).collect(), wanted.clone())
            }
        };
        let ticket = self.next_ticket();
        Part { consumer, purpose, seen, action: Action::Claim { ticket, targets, amounts } }
    }

    /// The wanted amounts by interned class. A class that was never interned has no inventory.
    pub(super) fn wanted(&self, request: &Request) -> Amounts {
        let names = self.view().names();
        request.resources.iter().filter_map(|(class, amount)| Some((names.get(class)?, *amount))).collect()
    }
}

fn hook_request(request: &Request) -> Option<Uuid> {
    match request.caller {
        Caller::Hook { request } => request,
        Caller::Keyed { .. } => None,
    }
}

/// Puts `row` first; false when it is not among the ranked.
pub(super) fn keep_first(ranked: &mut [Scored], row: Row) -> bool {
    let Some(at) = ranked.iter().position(|scored| scored.row == row) else { return false };
    ranked[..=at].rotate_right(1);
    true
}

/// The call for alternates comes within the same Nova request: the same request id, or, in the
/// hook's first generation, soon after the claim.
fn same_request(request: &Request, open: &Open, now: u64, within: u64) -> bool {
    match (&request.caller, open.request) {
        (Caller::Hook { request: Some(id) }, Some(known)) => *id == known,
        (Caller::Hook { request: None }, None) => now.saturating_sub(open.since) < within,
        _ => false,
    }
}

pub(super) fn validate(request: &Request) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::Invalid(text));
    request.options.validate().map_err(Refusal::Invalid)?;
    let count = request.consumers.len();
    if count == 0 || count > MOST_CONSUMERS {
        return invalid(format!("consumers: {count} given, 1 to {MOST_CONSUMERS} expected"));
    }
    if request.consumers.iter().collect::<BTreeSet<_>>().len() != count {
        return invalid("consumers: one uuid is given twice".to_owned());
    }
    for (class, amount) in &request.resources {
        crate::report::class(class).map_err(|e| Refusal::Invalid(format!("resources: {e}")))?;
        if *amount > Inventory::LARGEST {
            return invalid(format!("resources.{class}: {amount} given, at most {} expected", Inventory::LARGEST));
        }
    }
    // Names that are remembered are interned for good: they stay short.
    for (field, text) in
        [("project", &request.project), ("user", &request.user), ("flavor", &request.flavor), ("zone", &request.zone)]
    {
        if let Some(text) = text.as_deref().filter(|text| text.len() > LONGEST_NAME) {
            return invalid(format!("{field}: {} bytes given, at most {LONGEST_NAME} expected", text.len()));
        }
    }
    if let crate::request::Candidates::Sent(hosts) = &request.candidates
        && let Some(long) = hosts.iter().find(|host| host.host.len().max(host.node.len()) > LONGEST_NAME)
    {
        let bytes = long.host.len().max(long.node.len());
        return invalid(format!("hosts: a name of {bytes} bytes given, at most {LONGEST_NAME} expected"));
    }
    if let crate::request::Candidates::Sent(hosts) = &request.candidates
        && let Some(odd) = hosts.iter().find(|host| !host.weight.is_finite())
    {
        return invalid(format!("weights: {} has a weight that is no finite number", odd.host));
    }
    Ok(())
}

/// Hash of everything in a keyed request but its key and trace id.
fn content(request: &Request) -> u64 {
    let mut plain = request.clone();
    plain.caller = Caller::default();
    plain.trace_id.clear();
    let mut hasher = FxHasher::default();
    // Serialising a request cannot fail: it has no map with non-string keys and no custom code.
    hasher.write(&serde_json::to_vec(&plain).unwrap_or_default());
    hasher.finish()
}
