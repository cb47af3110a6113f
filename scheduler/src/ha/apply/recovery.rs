//! Recovery: plans, attempts, and where instances may run. At most one attempt of an instance is alive,
//! and its permit goes with it.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::consumer::{Consumer, Phase as ConsumerPhase, Purpose};
use crate::domain::Domain;
use crate::ha::case::{Act, CaseId, Phase};
use crate::ha::host::HostId;
use crate::ha::order::{Assignment, Clear, Done, Ended, NovaRead, PermitCause, To};
use crate::ha::recovery::{
    ATTEMPTS, Attempt, AttemptState, BASELINE, EXCLUDED, Life, Permit, Recovery, Status, Stays, VmState, Waiting,
};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::{PERMITS, RECOVERIES};
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
        let mut recovery = known.unwrap_or(Recovery {
            instance,
            case,
            recorded: assignment.recorded,
            status: Status::Waiting(Waiting::Replan),
            attempt: None,
            tried: 0,
            excluded: Vec::new(),
        });
        if Stop::RecordedRules.lets(false) {
            recovery.recorded = assignment.recorded;
        }
        self.unclaim(&recovery);
        let permitted = self.ha().permits.get(instance).map(|permit| permit.life);
        let at_failed = recovery.attempt.as_ref().is_some_and(|a| a.failed.is_some() && permitted == Some(a.target));
        let (status, attempt) = match assignment.to {
            // The failed target is not known to be clear yet.
            _ if at_failed => (Status::Waiting(Waiting::Replan), recovery.attempt.take()),
            _ if !Stop::PermitExact.lets(permitted == Some(source)) => (Status::Stays(Stays::PermitConflict), None),
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
        if recovery.tried >= ATTEMPTS {
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

    fn row(&self, host: HostId) -> Option<Row> {
        let name = self.ha().hosts.get(host)?.nova_host;
        self.state.tables.row_of_node(Domain::Nova, self.state.tables.names.text(name), None)
    }

    /// Gives up the claim of an attempt, as long as it is one.
    fn unclaim(&mut self, recovery: &Recovery) {
        let Some(attempt) = &recovery.attempt else { return };
        let Some(slot) = self.state.tables.slot_of(Domain::Nova, recovery.instance, Purpose::Move) else { return };
        let open = |consumer: &Consumer| consumer.is_open() && consumer.ticket == attempt.ticket;
        if self.state.tables.consumer_at(slot).is_some_and(open) {
            self.state.remove(slot, self.touched);
        }
    }

    /// Why a host takes no instance.
    fn target_flaw(&self, source: Life, target: Life) -> Option<String> {
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

    pub(super) fn attempt_intent(
        &mut self,
        id: CaseId,
        (instance, number): (Uuid, u8),
        target: Life,
        op: Uuid,
        nova: &NovaRead,
    ) -> Result {
        let case = self.case(id)?;
        let source = Life { host: id.host, incarnation: id.incarnation };
        let no = |why: &str| Refusal::Attempt { instance, number, why: why.to_owned() };
        let Some(recovery) = self.ha().recoveries.get(instance).filter(|recovery| recovery.case == id) else {
            return Err(Refusal::Instance(instance));
        };
        let Some(attempt) = recovery.attempt.as_ref().filter(|attempt| attempt.number == number) else {
            return Err(no("it is not planned"));
        };
        if attempt.op == op && attempt.by == self.order.leader && attempt.state.is_live() {
            return Ok(Done::Unchanged);
        }
        if !Stop::NovaOrder.lets(case.phase == Phase::Evacuating && self.is_marked(id.host)) {
            let expected = "Evacuating, with the host forced down and disabled in Nova".to_owned();
            return Err(Refusal::Phase { case: id, current: case.phase, what: "an attempt".to_owned(), expected });
        }
        self.unhindered(case, Act::Recover)?;
        let proven = self.ha().proven(source, self.epoch());
        if !Stop::ProofBeforeStart.lets(proven.is_some()) {
            return Err(no("no proof of this epoch says that its source is dead"));
        }
        // The same call again is safe only to the same target: one libvirt refuses the second domain.
        let again = attempt.state != AttemptState::Claimed;
        if again && !Stop::OneAttempt.lets(attempt.state == AttemptState::Ambiguous) {
            return Err(no("an attempt of it is alive: see what becomes of it"));
        }
        if !Stop::SameTarget.lets(attempt.target == target) {
            return Err(no("another target: only after a migration of this attempt has ended"));
        }
        if let Some(why) = self.target_flaw(source, target) {
            return Err(Refusal::Target { host: target.host, why });
        }
        let place = if again { attempt.target } else { source };
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        if !Stop::PermitExact.lets(current == Some(place)) {
            return Err(Refusal::Permit { instance, given: Some(place), current });
        }
        if let Some(why) = self.nova_flaw(recovery, attempt, nova, again, proven.unwrap_or(u64::MAX)) {
            return Err(no(&why));
        }
        let (at, by) = (self.now(), self.order.leader);
        let mut recovery = Recovery::clone(recovery);
        if let Some(attempt) = &mut recovery.attempt {
            if !again {
                attempt.baseline.clone_from(&nova.migrations);
            }
            attempt.calls = attempt.calls.saturating_add(1);
            (attempt.state, attempt.op, attempt.by, attempt.at) = (AttemptState::Intent, op, by, at);
        }
        recovery.status = Status::Evacuating;
        self.ha_mut().recoveries.put(Arc::new(recovery));
        self.ha_mut().permits.put(Permit { instance, life: target });
        Ok(Done::Changed)
    }

    fn is_marked(&self, host: HostId) -> bool {
        self.ha().hosts.get(host).is_some_and(|host| host.forced_down && host.disabled)
    }

    /// What in Nova's answer speaks against a call.
    fn nova_flaw(
        &self,
        recovery: &Recovery,
        attempt: &Attempt,
        nova: &NovaRead,
        again: bool,
        proven: u64,
    ) -> Option<String> {
        let source = recovery.source();
        if nova.host != source.host {
            return Some(format!("Nova has it on host {}: look at what moved it", nova.host));
        }
        if nova.migrations.len() > BASELINE {
            return Some(format!("{} migrations, {BASELINE} at most: a person must look", nova.migrations.len()));
        }
        if !Stop::Sentinel.lets(nova.sentinel) {
            return Some("Nova's answer lacks a row that is known to be there: it is not whole".to_owned());
        }
        if !Stop::NothingMoving.lets(!nova.moving) {
            return Some("a migration of it is not over".to_owned());
        }
        let ours = again && nova.migrations.iter().any(|migration| !attempt.baseline.contains(migration));
        if !Stop::NothingMoving.lets(!ours) {
            return Some("a migration is there that was not before: the call was taken".to_owned());
        }
        if !Stop::TaskState.lets(!nova.now.task) {
            return Some("something is being done with it (task_state): a person must look".to_owned());
        }
        if nova.now.vm == VmState::Other {
            return Some("Nova evacuates only what is active, stopped or in error".to_owned());
        }
        if let Some((destination, clear)) = nova.destination {
            let clear = clear.is_some_and(|clear| self.is_clear(destination, clear, proven));
            if !Stop::DestinationClear.lets(clear) {
                let why = "a live migration was bringing it to host";
                return Some(format!("{why} {destination}, which is not known to be without it since the proof"));
            }
        }
        None
    }

    /// Whether an instance surely does not run on `host`, by something newer than `since`.
    fn is_clear(&self, host: HostId, clear: Clear, since: u64) -> bool {
        match clear {
            Clear::Absent { at } => at > since && at <= self.now(),
            Clear::Dead(life) => life.host == host && self.ha().proven(life, self.epoch()).is_some(),
        }
    }

    fn attempt(&self, (instance, number): (Uuid, u8)) -> Result<(&Recovery, &Attempt)> {
        let recovery = self.ha().recoveries.get(instance).ok_or(Refusal::Instance(instance))?;
        let attempt = recovery.attempt.as_ref().filter(|attempt| attempt.number == number);
        let attempt = attempt.ok_or_else(|| {
            let known = recovery.attempt.as_ref().map_or(0, |attempt| attempt.number);
            Refusal::Attempt { instance, number, why: format!("the last one is number {known}") }
        })?;
        Ok((recovery, attempt))
    }

    pub(super) fn attempt_observed(&mut self, key: (Uuid, u8), state: AttemptState) -> Result {
        let (recovery, attempt) = self.attempt(key)?;
        if attempt.state == state {
            return Ok(Done::Unchanged);
        }
        let before = attempt.state;
        let older = state.migration().is_some_and(|migration| attempt.baseline.contains(&migration));
        if !before.leads_to(state) || older {
            let why = if older {
                "that migration is older than it".to_owned()
            } else {
                format!("from {before:?} to {state:?} is no way")
            };
            return Err(Refusal::Attempt { instance: key.0, number: key.1, why });
        }
        let mut recovery = Recovery::clone(recovery);
        if let Some(attempt) = &mut recovery.attempt {
            attempt.state = state;
        }
        self.ha_mut().recoveries.put(Arc::new(recovery));
        Ok(Done::Changed)
    }

    pub(super) fn attempt_end(&mut self, key: (Uuid, u8), ended: Ended) -> Result {
        let (recovery, attempt) = self.attempt(key)?;
        let (instance, number) = key;
        let no = |why: &str| Refusal::Attempt { instance, number, why: why.to_owned() };
        if attempt.state == AttemptState::Ended {
            return Ok(Done::Unchanged);
        }
        if !attempt.state.is_live() {
            return Err(no("nothing was called yet"));
        }
        let other = |migration: Uuid| {
            attempt.baseline.contains(&migration) || attempt.state.migration().is_some_and(|known| known != migration)
        };
        let source = recovery.source();
        let mut recovery = Recovery::clone(recovery);
        let Some(mut attempt) = recovery.attempt.take() else { return Err(no("it is gone")) };
        let mut permit = None;
        match ended {
            Ended::Succeeded { at, migration } => {
                if other(migration) {
                    return Err(no("that migration is not its own"));
                }
                let host = self.host(at)?;
                // Where it came up, in the life that host lives now: a target that died is its own case's.
                let life = if at == attempt.target.host {
                    attempt.target
                } else {
                    Life { host: at, incarnation: host.incarnation }
                };
                if at == source.host || at != attempt.target.host && !host.is_open() {
                    return Err(Refusal::Target { host: at, why: "it cannot have come up there".to_owned() });
                }
                recovery.status = Status::Succeeded(at);
                permit = Some(life);
                if at != attempt.target.host {
                    recovery.attempt = Some(attempt.clone());
                    self.unclaim(&recovery);
                }
            }
            Ended::Failed { migration } => {
                if !Stop::SameTarget.lets(!other(migration)) {
                    return Err(no("that migration is not its own"));
                }
                attempt.failed = Some(migration);
                recovery.status = Status::Waiting(Waiting::Replan);
            }
            Ended::Refused { forever } => {
                // An earlier call may have been taken: this refusal says nothing of it.
                if !Stop::SameTarget.lets(attempt.calls <= 1 && attempt.state != AttemptState::Ambiguous) {
                    return Err(no("an earlier call of it may have been taken: see what Nova says of its migrations"));
                }
                if attempt.state.migration().is_some() {
                    return Err(no("Nova has a migration of it"));
                }
                recovery.status =
                    if forever { Status::Stays(Stays::Refused) } else { Status::Waiting(Waiting::Replan) };
                permit = Some(source);
            }
            Ended::Vanished { sentinel } => {
                if !Stop::Sentinel.lets(sentinel) {
                    return Err(no("Nova's answer lacks a row that is known to be there: it is not whole"));
                }
                recovery.status = Status::Vanished;
            }
        }
        attempt.state = AttemptState::Ended;
        attempt.over = self.now();
        let failed = matches!(ended, Ended::Failed { .. } | Ended::Refused { .. });
        if failed && recovery.excluded.len() < EXCLUDED && !recovery.excluded.contains(&attempt.target.host) {
            recovery.excluded.push(attempt.target.host);
        }
        recovery.tried = recovery.tried.saturating_add(1);
        recovery.attempt = Some(attempt);
        if !matches!(ended, Ended::Succeeded { .. }) {
            self.unclaim(&recovery);
        }
        if failed && recovery.tried >= ATTEMPTS {
            let why = format!("instance {instance} failed {ATTEMPTS} times");
            if let Some(case) = self.ha_mut().case_mut(source.host) {
                case.needs_operator = Some(why);
            }
        }
        if recovery.status == Status::Vanished {
            self.ha_mut().permits.remove(instance);
        } else if let Some(life) = permit {
            self.ha_mut().permits.put(Permit { instance, life });
        }
        self.ha_mut().recoveries.put(Arc::new(recovery));
        Ok(Done::Changed)
    }

    pub(super) fn permit_move(&mut self, instance: Uuid, from: Option<Life>, to: Life, cause: PermitCause) -> Result {
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        if current == Some(to) {
            return Ok(Done::Unchanged);
        }
        if current != from {
            return Err(Refusal::Permit { instance, given: from, current });
        }
        let recovery = self.ha().recoveries.get(instance);
        let live = recovery.is_some_and(|recovery| recovery.live().is_some());
        if live && !Stop::OneAttempt.lets(false) {
            let number = recovery.and_then(|r| r.attempt.as_ref()).map_or(0, |attempt| attempt.number);
            let why = "it is alive: its end moves the permit".to_owned();
            return Err(Refusal::Attempt { instance, number, why });
        }
        let back = matches!(cause, PermitCause::AttemptFailed(_));
        let open =
            self.ha().hosts.get(to.host).is_some_and(|host| host.is_open() && host.incarnation == to.incarnation);
        if !back && !Stop::NoPermitOnDead.lets(open) {
            return Err(Refusal::Target {
                host: to.host,
                why: format!("it is not in incarnation {}, or that is over", to.incarnation),
            });
        }
        let refused = Refusal::Permit { instance, given: Some(to), current };
        let dead = from.and_then(|life| self.ha().proven(life, self.epoch()));
        match (cause, from) {
            (PermitCause::Placed, None) if self.ha().permits.len() >= PERMITS => {
                return Err(Refusal::Full { table: "permits".to_owned(), most: PERMITS as u64 });
            }
            (PermitCause::Placed, None) => {}
            (PermitCause::Migrated(_), Some(from)) => {
                // Away from a live host by a migration that both saw; from a dead one it is an adoption.
                let alive = self
                    .ha()
                    .hosts
                    .get(from.host)
                    .is_some_and(|host| host.is_open() && host.incarnation == from.incarnation);
                if !alive || recovery.is_some() {
                    return Err(refused);
                }
            }
            (PermitCause::AttemptFailed(clear), Some(from)) => {
                let failed = recovery.and_then(|recovery| Some((recovery.source(), recovery.attempt.as_ref()?)));
                let Some((source, attempt)) = failed.filter(|(_, attempt)| attempt.failed.is_some()) else {
                    return Err(refused);
                };
                if attempt.target != from || source != to {
                    return Err(refused);
                }
                if !Stop::FailedTargetClear.lets(self.is_clear(from.host, clear, attempt.over)) {
                    let why = "the target is not known to be without it since the attempt failed".to_owned();
                    return Err(Refusal::Attempt { instance, number: attempt.number, why });
                }
            }
            (PermitCause::SameHostNewBoot, Some(from)) => {
                if !Stop::NoStealing.lets(from.host == to.host && dead.is_some()) {
                    return Err(refused);
                }
            }
            (PermitCause::Adopted { at }, Some(_)) => {
                let seen = dead.is_some_and(|proven| at > proven && at <= self.now());
                if !Stop::NoStealing.lets(seen) {
                    return Err(refused);
                }
            }
            _ => return Err(refused),
        }
        self.settle_elsewhere(instance, to, cause);
        self.ha_mut().permits.put(Permit { instance, life: to });
        Ok(Done::Changed)
    }

    /// An instance that got its place otherwise needs no attempt any more.
    fn settle_elsewhere(&mut self, instance: Uuid, to: Life, cause: PermitCause) {
        let elsewhere = matches!(cause, PermitCause::Adopted { .. } | PermitCause::SameHostNewBoot);
        let Some(recovery) = self.ha().recoveries.get(instance).filter(|_| elsewhere) else { return };
        let mut recovery = Recovery::clone(recovery);
        self.unclaim(&recovery);
        recovery.status = Status::Succeeded(to.host);
        recovery.attempt = None;
        self.ha_mut().recoveries.put(Arc::new(recovery));
    }
}
