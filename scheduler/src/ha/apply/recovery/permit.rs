//! Permits: by what right an instance may run elsewhere.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result};
use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::ha::case::Phase;
use crate::ha::order::{Done, PermitCause};
use crate::ha::recovery::{Life, Permit, Recovery, Status, Waiting};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::PERMITS;

impl Cx<'_> {
    pub(in crate::ha::apply) fn permit_move(
        &mut self,
        instance: Uuid,
        from: Option<Life>,
        to: Life,
        cause: PermitCause,
    ) -> Result {
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
        let back = matches!(cause, PermitCause::AttemptFailed(_) | PermitCause::Followed { .. });
        if !back && !Stop::NoPermitOnDead.lets(self.ha().lives(to)) {
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
                // What failover is about to move, or has, it moves itself.
                if !self.ha().lives(from) || recovery.is_some_and(|recovery| !recovery.status.is_settled()) {
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
                if !Stop::FailedTargetClear.lets(self.is_clear(from.host, clear, attempt.over, true)) {
                    let why = "the target is not known to be without it since the attempt failed".to_owned();
                    return Err(Refusal::Attempt { instance, number: attempt.number, why });
                }
                // It may have begun there, and be why that host died.
                self.count_death(instance, from);
            }
            (PermitCause::SameHostNewBoot, Some(from)) => {
                if !Stop::NoStealing.lets(from.host == to.host && dead.is_some()) {
                    return Err(refused);
                }
                // Its place is there, and it is not started: what keeps it is remembered.
                if self.ha().stays_after(instance, from, self.epoch(), self.now()).is_some() {
                    self.count_death(instance, from);
                }
            }
            (PermitCause::Adopted { at }, Some(_)) => {
                let seen = dead.is_some_and(|proven| at > proven && at <= self.now());
                if !Stop::NoStealing.lets(seen) {
                    return Err(refused);
                }
            }
            (PermitCause::Followed { read, at }, Some(from)) => {
                let without = at > read && at <= self.now();
                let proven = self.ha().proven(to, self.epoch()).is_some_and(|proven| at > proven);
                let others = self.ha().lives(from) && from.host != to.host && self.may_follow(instance, to);
                if !Stop::NoStealing.lets(without && proven && others) {
                    return Err(refused);
                }
            }
            _ => return Err(refused),
        }
        self.settle_elsewhere(instance, to, cause);
        self.ha_mut().permits.put(Permit { instance, life: to });
        if matches!(cause, PermitCause::Followed { .. }) {
            self.recover_followed(instance, to);
        }
        Ok(Done::Changed)
    }

    /// What was deleted needs no place. One that is reported, or is being placed, is there.
    pub(in crate::ha::apply) fn permit_end(&mut self, instance: Uuid, life: Life, at: u64) -> Result {
        let Some(current) = self.ha().permits.get(instance).map(|permit| permit.life) else {
            return Ok(Done::Unchanged);
        };
        let known = self.state.tables.slot_of(Domain::Nova, instance, Purpose::Instance).is_some();
        let listed = at <= self.now();
        if !Stop::PermitExact.lets(current == life && !known && listed && self.ha().may_end(instance, life)) {
            return Err(Refusal::Permit { instance, given: Some(life), current: Some(current) });
        }
        self.ha_mut().permits.remove(instance);
        Ok(Done::Changed)
    }

    /// Whether the case of a dead host can take an instance more, and nothing else is about to be done with it.
    fn may_follow(&self, instance: Uuid, to: Life) -> bool {
        let ha = self.ha();
        let case = ha.cases.get(to.host).filter(|case| case.id.incarnation == to.incarnation);
        let takes = case.is_some_and(|case| match case.phase {
            Phase::NovaDown | Phase::Planning | Phase::Evacuating => true,
            // One that is back is on its way in.
            Phase::AwaitReturn => ha.hosts.get(to.host).is_some_and(|host| !host.is_open()),
            _ => false,
        });
        let stays = |known: &Recovery| match known.status {
            Status::Stays(_) => true,
            status => status.is_settled() && case.is_some_and(|case| case.id != known.case),
        };
        let moved = ha.moves.get(instance).is_some_and(|known| known.is_live());
        let restarted = ha.is_restarting(instance, to.host);
        takes && !moved && !restarted && ha.recoveries.get(instance).is_none_or(|known| stays(known))
    }

    /// It is planned like the others of its host, and the marks in Nova come first.
    fn recover_followed(&mut self, instance: Uuid, to: Life) {
        let known = self.ha().recoveries.get(instance).filter(|known| known.source() == to).cloned();
        if let Some(known) = known {
            let status = Status::Waiting(Waiting::Replan);
            self.ha_mut().recoveries.put(Arc::new(Recovery { status, ..Recovery::clone(&known) }));
        }
        let step = self.step(Phase::NovaDown);
        if let Some(case) = self.ha_mut().case_mut(to.host)
            && case.phase == Phase::AwaitReturn
        {
            case.enter(step);
        }
    }

    /// An instance that got its place otherwise needs no attempt any more.
    pub(in crate::ha::apply) fn settle_elsewhere(&mut self, instance: Uuid, to: Life, cause: PermitCause) {
        let elsewhere = matches!(cause, PermitCause::Adopted { .. } | PermitCause::SameHostNewBoot);
        let Some(recovery) = self.ha().recoveries.get(instance).filter(|_| elsewhere) else { return };
        let mut recovery = Recovery::clone(recovery);
        self.forget_move(instance);
        self.unclaim(&recovery);
        // One in quarantine has its place there, and is not started.
        if !self.ha().is_poison(instance) || matches!(cause, PermitCause::Adopted { .. }) {
            recovery.status = Status::Succeeded(to.host);
        }
        recovery.attempt = None;
        self.ha_mut().recoveries.put(Arc::new(recovery));
    }
}
