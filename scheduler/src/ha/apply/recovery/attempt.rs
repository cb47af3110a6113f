//! Attempts: the guards in front of a call, and what it came to.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result};
use crate::ha::case::{Act, CaseId, Phase};
use crate::ha::host::HostId;
use crate::ha::order::{Clear, Done, Ended, NovaRead};
use crate::ha::recovery::{
    Attempt, AttemptState, BASELINE, EXCLUDED, Life, Permit, Recovery, Status, Stays, VmState, Waiting,
};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;

impl Cx<'_> {
    pub(in crate::ha::apply) fn attempt_intent(
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
        self.forget_move(instance);
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
        // What died with its target has left its mark there.
        if !Stop::TaskState.lets(!nova.now.task || !recovery.abandoned.is_empty()) {
            return Some("something is being done with it (task_state): a person must look".to_owned());
        }
        if nova.now.vm == VmState::Other {
            return Some("Nova evacuates only what is active, stopped or in error".to_owned());
        }
        self.destination_flaw(recovery.instance, nova, proven)
    }

    /// What speaks against starting an instance where it was, or on a third host: it may be where a migration was bringing
    /// it, as far as is known since then.
    pub(in crate::ha::apply) fn destination_flaw(&self, instance: Uuid, nova: &NovaRead, since: u64) -> Option<String> {
        let moving = self.ha().moves.get(instance).filter(|known| known.is_live());
        let named = moving.is_none_or(|known| nova.destination.is_some_and(|(host, _)| host == known.to.host));
        if !Stop::DestinationClear.lets(named) {
            return Some("a drain was bringing it elsewhere, and that host is not looked at".to_owned());
        }
        let (destination, clear) = nova.destination?;
        let clear = clear.is_some_and(|clear| self.is_clear(destination, clear, since, false));
        (!Stop::DestinationClear.lets(clear)).then(|| {
            format!(
                "a live migration was bringing it to host {destination}, which is not known to be without it since then"
            )
        })
    }

    /// Whether an instance surely does not run on `host`, by something newer than `since`.
    /// With `there` the life that is named is the one that it was brought to; else that must have ended
    /// later too, or be the last.
    pub(super) fn is_clear(&self, host: HostId, clear: Clear, since: u64, there: bool) -> bool {
        match clear {
            Clear::Absent { at } => at > since && at <= self.now(),
            Clear::Dead(life) => {
                let over = self.ha().proven(life, self.epoch()).filter(|_| life.host == host);
                let last = || self.ha().hosts.get(host).is_some_and(|host| !host.is_open());
                over.is_some_and(|at| there || at > since || last())
            }
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

    pub(in crate::ha::apply) fn attempt_observed(&mut self, key: (Uuid, u8), state: AttemptState) -> Result {
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

    pub(in crate::ha::apply) fn attempt_end(&mut self, key: (Uuid, u8), ended: Ended) -> Result {
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
                // What was in error and stopped comes up running at the second attempt: it is stopped again.
                let stopped = recovery.recorded.vm == VmState::Error && !recovery.recorded.running;
                recovery.status = if stopped { Status::Stopping(at) } else { Status::Succeeded(at) };
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
            Ended::Abandoned { migration } => {
                if !Stop::SameTarget.lets(!other(migration)) {
                    return Err(no("that migration is not its own"));
                }
                if !Stop::SameTarget.lets(self.ha().proven(attempt.target, self.epoch()).is_some()) {
                    return Err(no("its target is not proven dead: what Nova has begun there may go on"));
                }
                attempt.failed = Some(migration);
                recovery.abandoned.push(migration);
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
        let failed = matches!(ended, Ended::Failed { .. } | Ended::Abandoned { .. } | Ended::Refused { .. });
        if failed && recovery.excluded.len() < EXCLUDED && !recovery.excluded.contains(&attempt.target.host) {
            recovery.excluded.push(attempt.target.host);
        }
        recovery.tried = recovery.tried.saturating_add(1);
        recovery.attempt = Some(attempt);
        if !matches!(ended, Ended::Succeeded { .. }) {
            self.unclaim(&recovery);
        }
        if failed && recovery.tried >= recovery.allowed {
            let why = format!("instance {instance} failed {} times", recovery.tried);
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

    /// Of attempts that have left no trace in Nova nobody knows what became: their instances keep their permits, and a
    /// person looks.
    pub(in crate::ha::apply) fn leave_unknown(&mut self) {
        let open: Vec<_> = self.ha().recoveries.iter().filter(|known| known.live().is_some()).cloned().collect();
        for recovery in open {
            let mut recovery = Recovery::clone(&recovery);
            if let Some(attempt) = &mut recovery.attempt {
                (attempt.state, attempt.over) = (AttemptState::Ended, self.now());
            }
            recovery.status = Status::Stays(Stays::Conflict);
            self.unclaim(&recovery);
            self.ha_mut().recoveries.put(Arc::new(recovery));
        }
    }
}
