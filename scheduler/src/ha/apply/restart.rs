//! Guests that are started again where they were: only where they are permitted, and on a living host.

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::ha::case::{Act, Phase};
use crate::ha::order::{Done, NovaRead, PermitCause};
use crate::ha::planner::OnCrash;
use crate::ha::recovery::{Life, Permit, Status, VmState};
use crate::ha::refusal::Refusal;
use crate::ha::restart::{MOST, MOVES, Restart, WINDOW};
use crate::ha::stop::Stop;
use crate::ha::table::RESTARTS;

impl Cx<'_> {
    pub(super) fn restart_intent(
        &mut self,
        instance: Uuid,
        life: Life,
        op: Uuid,
        to: Option<Life>,
        nova: &NovaRead,
    ) -> Result {
        let host = self.alive(life.host, life.incarnation)?;
        let now = self.now();
        let known = self.ha().restarts.get(instance).copied();
        if known.is_some_and(|known| (known.op, known.by) == (op, self.order.leader)) {
            return Ok(Done::Unchanged);
        }
        let number = known.map_or(0, |known| known.tries);
        let no = |why: String| Err(Refusal::Attempt { instance, number, why });
        if let Some(known) = known.filter(|known| known.well.is_none() && known.to.is_some()) {
            if self.ha().stands(&known) && known.to != to {
                return no("a move of it is on its way".to_owned());
            }
            // It is there: another leader only says the last word.
            if self.ha().stands(&known) && to.is_some_and(|to| to.host == nova.host) {
                let by = self.order.leader;
                self.ha_mut().restarts.put(Restart { op, by, ..known });
                return Ok(Done::Changed);
            }
        }
        let case = self.ha().cases.get(life.host);
        if host.quarantined && case.is_none_or(|case| case.phase != Phase::Returning) {
            return no("its host is in quarantine".to_owned());
        }
        match case {
            Some(case) => self.unhindered(case, Act::Recover)?,
            None if !Stop::Paused.lets(self.ha().paused(Act::Recover) <= now) => {
                let left = (self.ha().paused(Act::Recover) - now).div_ceil(1_000);
                return Err(Refusal::Paused { act: Act::Recover, left });
            }
            None => {}
        }
        let moving = self.ha().moves.get(instance).is_some_and(|known| known.is_live() && known.from == life);
        if (moving || self.ha().recoveries.get(instance).is_some_and(|recovery| recovery.live().is_some()))
            && !Stop::OneAttempt.lets(false)
        {
            return no("an evacuation of it is alive".to_owned());
        }
        // Somebody may have moved it by hand: what Nova says rules whether there is anything to start.
        if nova.host != life.host {
            return no(format!("Nova has it on host {}: look at what moved it", nova.host));
        }
        if !Stop::Sentinel.lets(nova.sentinel) {
            return no("Nova's answer lacks a row that is known to be there: it is not whole".to_owned());
        }
        if !Stop::NothingMoving.lets(!nova.moving) {
            return no("a migration of it is not over".to_owned());
        }
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        let over = |from: Life| {
            from.host == life.host
                && from.incarnation < life.incarnation
                && self.ha().proven(from, self.epoch()).is_some()
        };
        if !Stop::PermitExact.lets(current == Some(life) || current.is_some_and(over)) {
            return Err(Refusal::Permit { instance, given: Some(life), current });
        }
        let proven = current.filter(|from| *from != life).and_then(|from| self.ha().proven(from, self.epoch()));
        if let Some(why) = self.destination_flaw(instance, nova, proven.unwrap_or(0)) {
            return no(why);
        }
        let poison = match current.filter(|from| *from != life) {
            Some(from) => self.ha().stays_after(instance, from, self.epoch(), now).is_some(),
            None => self.ha().is_poison(instance),
        };
        if poison {
            return no("it is in quarantine: a person must let it go".to_owned());
        }
        if let Some(to) = to {
            return self.move_as_unhelped(instance, life, op, to, nova);
        }
        let young = known.filter(|known| now.saturating_sub(known.since) < WINDOW && known.life == life);
        if known.is_some_and(|known| known.well.is_none() && known.by == self.order.leader && known.life == life) {
            return no("a restart of it is on its way".to_owned());
        }
        if young.is_some_and(|known| known.tries >= MOST) {
            return no(format!("it was restarted {MOST} times within {} min: a person must look", WINDOW / 60_000));
        }
        if known.is_none() && self.ha().restarts.len() >= RESTARTS {
            self.forget_restarts();
            if self.ha().restarts.len() >= RESTARTS {
                return Err(Refusal::Full { table: "restarts".to_owned(), most: RESTARTS as u64 });
            }
        }
        if let Some(from) = current.filter(|from| *from != life) {
            self.count_death(instance, from);
            self.forget_move(instance);
            self.settle_elsewhere(instance, life, PermitCause::SameHostNewBoot);
            self.ha_mut().permits.put(Permit { instance, life });
        }
        let (since, tries) = young.map_or((now, 1), |known| (known.since, known.tries + 1));
        let last_move = known.and_then(|known| known.last_move).filter(|at| now.saturating_sub(*at) < MOVES);
        let moves = nova.on_crash == Some(OnCrash::RestartThenMove) && last_move.is_none();
        let (by, at, well, over, to) = (self.order.leader, now, None, 0, None);
        let restart = Restart { instance, life, op, by, at, since, tries, well, over, moves, to, last_move };
        self.ha_mut().restarts.put(restart);
        Ok(Done::Changed)
    }

    /// A move in place of one restart more. No permit moves here, and the target lets nothing begin before that has
    /// followed: see `follow`.
    fn move_as_unhelped(&mut self, instance: Uuid, life: Life, op: Uuid, to: Life, nova: &NovaRead) -> Result {
        let known = self.ha().restarts.get(instance).copied().filter(|known| known.life == life);
        let number = known.map_or(0, |known| known.tries);
        let no = |why: &str| Err(Refusal::Attempt { instance, number, why: why.to_owned() });
        // As a former leader has ordered it, or for the first time.
        let due = |known: &Restart| known.is_to_move() || known.well.is_none() && known.to == Some(to);
        let Some(known) = known.filter(due) else { return no("it is not to be moved, or may yet be restarted") };
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        if !Stop::PermitExact.lets(current == Some(life)) {
            return Err(Refusal::Permit { instance, given: Some(life), current });
        }
        if nova.now.vm != VmState::Active || nova.now.task {
            return no("Nova has it not as active and at rest");
        }
        if let Some(why) = self.target_flaw(life, to) {
            return Err(Refusal::Target { host: to.host, why });
        }
        let (by, at) = (self.order.leader, self.now());
        let restart =
            Restart { op, by, at, well: None, over: 0, moves: false, to: Some(to), last_move: Some(at), ..known };
        self.ha_mut().restarts.put(restart);
        Ok(Done::Changed)
    }

    /// What is known to be over, and whose tries do not count any more.
    fn forget_restarts(&mut self) {
        let now = self.now();
        let over = |restart: &&Restart| restart.well.is_some() && now.saturating_sub(restart.since) >= WINDOW;
        let gone: Vec<_> = self.ha().restarts.iter().filter(over).map(|restart| restart.instance).collect();
        for instance in gone {
            self.ha_mut().restarts.remove(instance);
        }
    }

    pub(super) fn restart_outcome(&mut self, instance: Uuid, op: Uuid, well: bool) -> Result {
        let Some(known) = self.ha().restarts.get(instance).copied().filter(|known| known.op == op) else {
            return Err(invalid("op", &op.to_string(), "the last restart of the instance"));
        };
        // Said again of one that is to be moved: it is not.
        let moves = known.moves && known.well != Some(well);
        if known.well == Some(well) && known.moves == moves {
            return Ok(Done::Unchanged);
        }
        let over = self.now();
        self.ha_mut().restarts.put(Restart { well: Some(well), over, moves, ..known });
        Ok(Done::Changed)
    }

    /// An intent to stop it again, and then that it is stopped.
    pub(super) fn stop_again(&mut self, instance: Uuid, op: Uuid, done: bool) -> Result {
        let Some(recovery) = self.ha().recoveries.get(instance) else { return Err(Refusal::Instance(instance)) };
        let Status::Stopping(host) = recovery.status else {
            return Err(invalid(
                "instance",
                "one that is not to be stopped",
                "one that came up and was stopped before",
            ));
        };
        let case = self.case(recovery.case)?;
        self.unhindered(case, Act::Recover)?;
        let mut recovery = crate::ha::Recovery::clone(recovery);
        if done {
            recovery.status = Status::Succeeded(host);
        } else if let Some(attempt) = &mut recovery.attempt {
            (attempt.op, attempt.by) = (op, self.order.leader);
        }
        self.ha_mut().recoveries.put(std::sync::Arc::new(recovery));
        Ok(Done::Changed)
    }
}
