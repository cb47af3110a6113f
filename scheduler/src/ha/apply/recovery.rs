//! Recovery: plans, attempts, and where instances may run. At most one attempt of an instance is alive,
//! and its permit goes with it.

mod attempt;
mod permit;
mod verdict;

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::consumer::{Consumer, Phase as ConsumerPhase, Purpose};
use crate::domain::Domain;
use crate::ha::case::{CaseId, Phase};
use crate::ha::host::HostId;
use crate::ha::order::{Assignment, Done, To};
use crate::ha::poison::Deaths;
use crate::ha::recovery::{ATTEMPTS, Attempt, AttemptState, Life, Recovery, Status, Stays, Waiting};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::RECOVERIES;
use crate::intent::Intent;
use crate::provider::{Amounts, Row};

/// Instances in one plan entry: a larger host takes several.
const ASSIGNMENTS: usize = 4_096;

impl Cx<'_> {
    /// What still fits is claimed, the rest waits: there is no reservation apart.
    pub(super) fn commit_plan(&mut self, id: CaseId, assignments: &[Assignment]) -> Result {
        let case = self.case(id)?;
        if case.phase != Phase::Planning {
            let expected = Phase::Planning.to_string();
            return Err(Refusal::Phase { case: id, current: case.phase, what: "a plan".to_owned(), expected });
        }
        if assignments.len() > ASSIGNMENTS {
            return Err(invalid("assignments", &assignments.len().to_string(), "4096 at most, then another plan"));
        }
        let new = assignments.iter().filter(|a| self.ha().recoveries.get(a.instance).is_none()).count();
        if self.ha().recoveries.len() + new > RECOVERIES {
            return Err(Refusal::Full { table: "recoveries".to_owned(), most: RECOVERIES as u64 });
        }
        self.forget_deaths();
        let (mut planned, mut waiting, mut stays) = (0, 0, 0);
        for assignment in assignments {
            match self.assign(id, assignment) {
                Some(Status::Planned) => planned += 1,
                Some(Status::Waiting(_)) => waiting += 1,
                Some(Status::Stays(_)) => stays += 1,
                _ => {}
            }
        }
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.plans += 1;
        }
        Ok(Done::Planned { planned, waiting, stays })
    }

    /// None: it is not to be touched (another case's, alive, or settled).
    fn assign(&mut self, case: CaseId, assignment: &Assignment) -> Option<Status> {
        let source = Life { host: case.host, incarnation: case.incarnation };
        let instance = assignment.instance;
        let known = self.ha().recoveries.get(instance).map(|recovery| Recovery::clone(recovery));
        // What another case has settled is this one's now: the host that it was brought to has died too.
        let known = known.filter(|known| known.case == case || !known.status.is_settled());
        let movable =
            |known: &Recovery| known.case == case && matches!(known.status, Status::Waiting(_) | Status::Planned);
        if !known.as_ref().is_none_or(movable) {
            return None;
        }
        let abandoned = self.ha().recoveries.get(instance).map(|known| known.abandoned.clone()).unwrap_or_default();
        let mut recovery = known.unwrap_or(Recovery {
            instance,
            case,
            recorded: assignment.recorded,
            rank: assignment.rank,
            status: Status::Waiting(Waiting::Replan),
            attempt: None,
            tried: 0,
            allowed: ATTEMPTS,
            excluded: Vec::new(),
            abandoned,
        });
        if Stop::RecordedRules.lets(false) {
            recovery.recorded = assignment.recorded;
        }
        recovery.rank = assignment.rank;
        self.unclaim(&recovery);
        let permitted = self.ha().permits.get(instance).map(|permit| permit.life);
        let at_failed = recovery.attempt.as_ref().is_some_and(|a| a.failed.is_some() && permitted == Some(a.target));
        let kept = if recovery.recorded.ran() && permitted == Some(source) {
            self.count_death(instance, source)
        } else {
            self.ha().deaths.get(instance).and_then(Deaths::stays)
        };
        let (status, attempt) = match assignment.to {
            // The failed target is not known to be clear yet.
            _ if at_failed => (Status::Waiting(Waiting::Replan), recovery.attempt.take()),
            _ if !Stop::PermitExact.lets(permitted == Some(source)) => (Status::Stays(Stays::PermitConflict), None),
            _ if kept.is_some() => (kept.map_or(recovery.status, Status::Stays), None),
            To::Waiting(why) => (Status::Waiting(why), recovery.attempt.take()),
            To::Stays(why) => (Status::Stays(why), recovery.attempt.take()),
            To::Target(target) => match self.claim(&recovery, source, target) {
                Ok(attempt) => (Status::Planned, Some(attempt)),
                Err(status) => (status, recovery.attempt.take()),
            },
        };
        (recovery.status, recovery.attempt) = (status, attempt);
        self.ha_mut().recoveries.put(Arc::new(recovery));
        Some(status)
    }

    /// Claims room on a target, as a move of the instance.
    fn claim(&mut self, recovery: &Recovery, source: Life, target: Life) -> std::result::Result<Attempt, Status> {
        let instance = recovery.instance;
        if recovery.tried >= recovery.allowed {
            return Err(Status::Stays(Stays::Refused));
        }
        if self.target_flaw(source, target).is_some() || recovery.excluded.contains(&target.host) {
            return Err(Status::Waiting(Waiting::Target));
        }
        let row = self.row(target.host).ok_or(Status::Waiting(Waiting::Target))?;
        if let Some(known) = self.state.tables.slot_of(Domain::Nova, instance, Purpose::Move) {
            // Seen there: a migration had brought it so far when its source died.
            if self.state.tables.consumer_at(known).is_some_and(Consumer::is_listed) {
                return Err(Status::Stays(Stays::AdoptLiveMigration));
            }
            self.state.remove(known, self.touched);
        }
        let at_home = self.state.tables.consumer(Domain::Nova, instance, Purpose::Instance).cloned();
        let home = at_home.filter(|home| !home.amounts.is_empty()).ok_or(Status::Waiting(Waiting::Size))?;
        let fits = |row: Row, amounts: &Amounts| {
            self.state.tables.provider(row).is_some_and(|provider| provider.fits(amounts, &Amounts::default()))
        };
        if !fits(row, &home.amounts) {
            return Err(Status::Waiting(Waiting::Capacity));
        }
        let number = recovery.tried + 1;
        let counters = *self.state.tables.counters();
        // Names the claim: no other is made by this command for this instance.
        let ticket = counters.commands << 8 | u64::from(number);
        self.state.put(
            Consumer {
                purpose: Purpose::Move,
                row,
                // It ends with its attempt, not by time.
                phase: ConsumerPhase::Claimed { expires: u64::MAX },
                intent: Intent::Evacuate,
                decision: 0,
                ticket,
                request: None,
                since: counters.now,
                since_wall: counters.wall,
                ..home
            },
            self.touched,
        );
        Ok(Attempt {
            number,
            target,
            ticket,
            state: AttemptState::Claimed,
            calls: 0,
            op: Uuid::nil(),
            by: self.order.leader,
            at: counters.now,
            baseline: Vec::new(),
            failed: None,
            over: 0,
        })
    }

    pub(super) fn row(&self, host: HostId) -> Option<Row> {
        let name = self.ha().hosts.get(host)?.nova_host;
        self.state.tables.row_of_node(Domain::Nova, self.state.tables.names.text(name), None)
    }

    /// Gives up the claim of an attempt, as long as it is one.
    pub(super) fn unclaim(&mut self, recovery: &Recovery) {
        let Some(attempt) = &recovery.attempt else { return };
        let Some(slot) = self.state.tables.slot_of(Domain::Nova, recovery.instance, Purpose::Move) else { return };
        let open = |consumer: &Consumer| consumer.is_open() && consumer.ticket == attempt.ticket;
        if self.state.tables.consumer_at(slot).is_some_and(open) {
            self.state.remove(slot, self.touched);
        }
    }

    /// Why a host takes no instance.
    pub(super) fn target_flaw(&self, source: Life, target: Life) -> Option<String> {
        let Some(host) = self.ha().hosts.get(target.host) else { return Some("it is not known".to_owned()) };
        if target.host == source.host {
            return Some("it is the source".to_owned());
        }
        let alive = host.takes_instances() && host.incarnation == target.incarnation;
        if !Stop::TargetAlive.lets(alive && self.ha().cases.get(target.host).is_none()) {
            return Some(format!(
                "it is {:?}, in incarnation {}, or not at work",
                host.belief.detection, host.incarnation
            ));
        }
        None
    }
}
