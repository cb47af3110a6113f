//! What Nova asks about an instance that failover recovers. One that is on its way is answered with its target, or
//! with nothing: no other host may start it. One that has a target, and is evacuated by hand before its turn, goes
//! there first, onto the room that is claimed for it.

use std::sync::Arc;

use uuid::Uuid;

use crate::command::{Action, Part};
use crate::consumer::Purpose;
use crate::decision::{StepKind, StepReport};
use crate::domain::Domain;
use crate::ha::case::CaseId;
use crate::ha::planner;
use crate::ha::recovery::Status;
use crate::intent::Intent;
use crate::pipeline::cx::View;
use crate::pipeline::run::{Run, Scored, Trace};
use crate::provider::Row;
use crate::request::Request;
use crate::rows::Mask;
use crate::state::Tables;

use super::candidates::Field;
use super::claim::keep_first;

/// Stands in the steps of a decision that the plan has made.
const STEP: &str = "failover_plan";
/// Why it drops hosts; short, for it is replicated.
const REASON: &str = "is not the target of the evacuation that is under way";
/// Names listed of the hosts that are dropped.
const NAMED: usize = 10;

/// Where failover brings an instance.
pub(super) struct Planned {
    row: Row,
    case: CaseId,
    number: u8,
    ticket: u64,
    /// It may be on its way: nothing else than its target is an answer.
    live: bool,
}

/// What failover plans for the consumer of a request.
pub(super) fn planned(tables: &Tables, request: &Request) -> Option<Planned> {
    let [instance] = *request.consumers.as_slice() else { return None };
    let internal = request.label.is_some_and(Intent::is_internal);
    if request.domain != Domain::Nova || internal || tables.failover().recoveries.is_empty() {
        return None;
    }
    let known = tables.failover().recoveries.get(instance)?;
    let attempt = known.attempt.as_ref()?;
    let live = known.live().is_some();
    let waits = known.status == Status::Planned && planner::stands(tables, known);
    let waits = waits && request.label != Some(Intent::Rebuild);
    if !live && !waits {
        return None;
    }
    let host = tables.failover().hosts.get(attempt.target.host)?;
    let row = tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None)?;
    Some(Planned { row, case: known.case, number: attempt.number, ticket: attempt.ticket, live })
}

/// A note on an evacuation of which nothing proves that its source is dead.
pub(super) fn unfenced(tables: &Tables, instance: Uuid) -> Option<String> {
    let ha = tables.failover();
    let life = ha.permits.get(instance)?.life;
    let host = ha.hosts.get(life.host)?;
    if ha.proven(life, tables.counters().epoch).is_some() {
        return None;
    }
    let name = tables.names.text(host.nova_host);
    Some(format!(
        "UnfencedEvacuation: nothing proves that {name} is dead; if {instance} still runs there it will run twice: make \
         sure of it, then say so (pallium ctl ha confirm-dead {name})"
    ))
}

impl Planned {
    /// It is on its way: the plan answers, and no pipeline runs.
    pub fn answers(&self) -> bool {
        self.live
    }

    /// What it answers.
    pub fn run(&self, view: View<'_>, field: &Field) -> Run {
        let sent = field.mask.has(self.row);
        let position = field.sent.binary_search_by_key(&self.row, |entrant| entrant.row);
        let position = position.map_or(u32::MAX, |at| field.sent[at].position);
        let others = || field.sent.iter().map(|entrant| entrant.row).filter(|row| *row != self.row);
        let dropped = field.count - usize::from(sent);
        let step = StepReport {
            name: STEP.to_owned(),
            kind: StepKind::Filter,
            hosts_in: field.count as u64,
            hosts_out: u64::from(sent),
            skipped: None,
            reasons: if dropped > 0 { vec![(REASON.to_owned(), dropped as u64)] } else { Vec::new() },
            dropped: others().take(NAMED).map(|row| view.host_name(row)).collect(),
            multiplier: None,
            impact: None,
        };
        let mut target = Mask::none(view.index.rows());
        target.insert(self.row);
        let rows = if sent { vec![self.row] } else { Vec::new() };
        let masks = Arc::new(vec![(0, target)]);
        let base = vec![0.0; rows.len()];
        Run {
            ranked: rows.iter().map(|&row| Scored { row, place: 0, position, score: 0 }).collect(),
            survivors: rows.len(),
            steps: Arc::new(vec![step]),
            ranges: vec![None],
            notes: vec![self.note(view, field, sent)],
            events: Vec::new(),
            timings: Vec::new(),
            trace: Arc::new(Trace { masks, rows, base, ..Trace::default() }),
            changed: Arc::default(),
        }
    }

    /// The pipeline's order, with the target first where it is among the hosts that are left; whether it is.
    pub fn lead(&self, ranked: &mut [Scored]) -> bool {
        keep_first(ranked, self.row)
    }

    /// What is said of it; `leads`: its target is the first host of the answer.
    pub fn note(&self, view: View<'_>, field: &Field, leads: bool) -> String {
        let Self { case, number, .. } = self;
        let target = view.host(self.row);
        let why = if field.mask.has(self.row) { "a filter leaves out" } else { "is not among the hosts sent" };
        match (self.live, leads) {
            (true, true) => format!(
                "attempt {number} of case {case} brings it to {target}: that is the answer, whatever the pipeline says"
            ),
            (true, false) => format!(
                "attempt {number} of case {case} brings it to {target}, which {why}: no other may start it, so there \
                 is no host"
            ),
            (false, true) => format!("case {case} has planned it for {target}, with room claimed there"),
            (false, false) => {
                format!("case {case} has planned it for {target}, which {why}: decided anew, and the case follows")
            }
        }
    }

    /// What becomes of the claim that stands for it: nothing, but that it is shown.
    pub fn part(&self, consumer: Uuid, open: Option<(u64, Row)>, claims: bool, found: bool) -> Part {
        let own = open.is_some_and(|(ticket, row)| ticket == self.ticket && row == self.row);
        let action = if own && claims && found { Action::Keep } else { Action::Leave };
        Part { consumer, purpose: Purpose::Move, seen: open.map(|(ticket, _)| ticket), action }
    }
}
