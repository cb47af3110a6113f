//! Drains: whose turn it is, room on targets, and where instances may run when they have moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::consumer::{Consumer, Phase as ConsumerPhase, Purpose};
use crate::domain::Domain;
use crate::ha::case::Act;
use crate::ha::drain::{
    Drain, GROUPS, LEFT, Left, MOST_SOURCE, MOST_TARGET, Move, MoveState, Over, Stage, Step, TRIES, Way,
};
use crate::ha::host::{HostId, Incarnation, Maintenance};
use crate::ha::order::{Done, NovaRead};
use crate::ha::policy;
use crate::ha::recovery::{BASELINE, EXCLUDED, Life, Permit};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::{DRAINS, MOVES};
use crate::intent::Intent;
use crate::provider::Amounts;

impl Cx<'_> {
    pub(super) fn drain_open(&mut self, id: HostId, incarnation: Incarnation, mode: Maintenance) -> Result {
        self.alive(id, incarnation)?;
        if mode == Maintenance::None {
            return Err(invalid("mode", "none", "manual, auto or termination"));
        }
        if let Some(case) = self.ha().cases.get(id) {
            return Err(invalid("host", &format!("one with the open case {}", case.id), "one without"));
        }
        let known = self.ha().drains.get(id);
        if known.is_some_and(|drain| !matches!(drain.stage, Stage::Over(_))) {
            return Ok(Done::Unchanged);
        }
        if known.is_none() && self.ha().drains.len() >= DRAINS {
            return Err(Refusal::Full { table: "drains".to_owned(), most: DRAINS as u64 });
        }
        let (disabled, called) = known.map_or((false, false), |drain| (drain.disabled, drain.called));
        let (epoch, since) = (self.epoch(), self.now());
        let stage = Stage::Waiting;
        let (left, groups) = (Vec::new(), BTreeMap::new());
        let (host, op, moved) = (id, None, 0);
        let drain = Drain { host, incarnation, epoch, stage, since, disabled, called, op, moved, left, groups };
        self.ha_mut().drains.put(Arc::new(drain));
        self.with_host(id, |host| host.maintenance = mode);
        Ok(Done::Changed)
    }

    fn drain(&self, id: HostId) -> Result<&Drain> {
        let known = self.ha().drains.get(id).map(|drain| &**drain);
        known.ok_or_else(|| invalid("host", "one that is not drained", "a drain that was opened"))
    }

    pub(super) fn drain_end(&mut self, id: HostId, over: Over) -> Result {
        let drain = self.drain(id)?;
        if matches!(drain.stage, Stage::Over(_)) {
            return Ok(Done::Unchanged);
        }
        let cancelled = over == Over::Cancelled;
        if cancelled && !self.is_operator() {
            return Err(Refusal::Role { what: "taking back a drain".to_owned() });
        }
        let live = self.ha().moves.iter().any(|known| known.from.host == id && known.is_live());
        if live && !cancelled && over != Over::Lost {
            return Err(invalid("over", "a drain with migrations on their way", "the end of them"));
        }
        let mut drain = drain.clone();
        (drain.stage, drain.since) = (Stage::Over(over), self.now());
        drain.groups.clear();
        self.ha_mut().drains.put(Arc::new(drain));
        // What was not called yet is not called any more.
        let idle = |known: &&Arc<Move>| known.from.host == id && !known.is_live();
        let idle: Vec<_> = self.ha().moves.iter().filter(idle).map(|known| known.instance).collect();
        for instance in idle {
            self.forget_move(instance);
        }
        if cancelled {
            self.with_host(id, |host| host.maintenance = Maintenance::None);
        }
        Ok(Done::Changed)
    }

    /// Gives up a move and its claim.
    pub(super) fn forget_move(&mut self, instance: Uuid) {
        let Some(known) = self.ha_mut().moves.remove(instance) else { return };
        let Some(slot) = self.state.tables.slot_of(Domain::Nova, instance, Purpose::Move) else { return };
        let open = |consumer: &Consumer| consumer.is_open() && consumer.ticket == known.ticket;
        if self.state.tables.consumer_at(slot).is_some_and(open) {
            self.state.remove(slot, self.touched);
        }
    }

    pub(super) fn drain_step(&mut self, id: HostId, step: &Step) -> Result {
        let drain = self.drain(id)?.clone();
        if !Stop::Epoch.lets(drain.epoch == self.epoch()) {
            return Err(Refusal::Epoch { given: drain.epoch, current: self.epoch() });
        }
        match step {
            Step::Groups(groups) => self.drain_groups(drain, groups),
            Step::Begin => self.drain_begin(drain),
            Step::Service(op) => {
                let op = Some((*op, self.order.leader));
                self.ha_mut().drains.put(Arc::new(Drain { op, ..drain }));
                Ok(Done::Changed)
            }
            Step::Disabled(disabled) => {
                if !disabled && matches!(drain.stage, Stage::Over(_)) {
                    self.ha_mut().drains.remove(id);
                } else {
                    self.ha_mut().drains.put(Arc::new(Drain { disabled: *disabled, ..drain }));
                }
                Ok(Done::Changed)
            }
            Step::Plan(ways) => self.drain_plan(drain, ways),
            Step::Intent(instance, op, nova) => self.move_intent(&drain, *instance, *op, nova),
            Step::Running(instance, migration) => self.move_running(*instance, *migration),
            Step::Press(instance, op) => {
                let mut known = self.moving(*instance)?.clone();
                (known.op, known.by) = (*op, self.order.leader);
                self.ha_mut().moves.put(Arc::new(known));
                Ok(Done::Changed)
            }
            Step::Moved(instance, migration) => self.move_done(drain, *instance, *migration),
            Step::Failed(instance) => self.move_failed(drain, *instance),
        }
    }

    fn drain_groups(&mut self, drain: Drain, groups: &BTreeMap<Uuid, bool>) -> Result {
        if drain.stage != Stage::Waiting {
            return Ok(Done::Unchanged);
        }
        if groups.len() > GROUPS {
            return Err(invalid("groups", &groups.len().to_string(), "4096 at most"));
        }
        self.ha_mut().drains.put(Arc::new(Drain { groups: groups.clone(), ..drain }));
        Ok(Done::Changed)
    }

    fn drain_begin(&mut self, drain: Drain) -> Result {
        let host = self.alive(drain.host, drain.incarnation)?;
        if drain.stage != Stage::Waiting {
            return Ok(Done::Unchanged);
        }
        let cluster = host.places.cluster;
        let moving = self.ha().drains.iter().filter(|other| {
            let there = self.ha().hosts.get(other.host).is_some_and(|host| host.places.cluster == cluster);
            other.stage == Stage::Moving && there
        });
        let (moving, most) = (moving.count(), policy::of(&self.state.tables, host).drains as usize);
        if !Stop::DrainLimits.lets(moving < most) {
            return Err(invalid("host", &format!("one whose cluster drains {moving} already"), "its turn"));
        }
        let shares = self.ha().shares(&drain).filter(|_| !Stop::DrainLimits.lets(false));
        if let Some((other, group)) = shares {
            let given = format!("one with members of group {group}, which declares min_available, as has {other}");
            return Err(invalid("host", &given, "its turn"));
        }
        let since = self.now();
        self.ha_mut().drains.put(Arc::new(Drain { stage: Stage::Moving, since, called: true, ..drain }));
        Ok(Done::Changed)
    }

    fn drain_plan(&mut self, mut drain: Drain, ways: &[(Uuid, Way)]) -> Result {
        if drain.stage != Stage::Moving {
            return Err(invalid("host", "one that is not being drained now", "its turn"));
        }
        if ways.len() > LEFT {
            return Err(invalid("plan", &ways.len().to_string(), "4096 at most, then another plan"));
        }
        let from = Life { host: drain.host, incarnation: drain.incarnation };
        let (mut planned, mut stays) = (0, 0);
        for (instance, way) in ways {
            let known = self.ha().moves.get(*instance).map(|known| Move::clone(known));
            // One that has its place waits for its turn; it may turn out to stay.
            let has = |known: &Move| known.state == MoveState::Claimed && !matches!(way, Way::Left(_));
            if known.as_ref().is_some_and(|known| known.is_live() || has(known)) {
                continue;
            }
            drain.left.retain(|(left, _)| left != instance);
            let permitted = self.ha().permits.get(*instance).map(|permit| permit.life);
            let tries = known.as_ref().map_or(0, |known| known.tries);
            let left = match *way {
                _ if permitted != Some(from) => Some(Left::Permit),
                _ if tries >= TRIES => Some(Left::Tried),
                Way::Left(why) => Some(why),
                Way::To { life, live } => self.claim_move(*instance, from, life, live, known).err(),
            };
            match left {
                Some(why) => {
                    self.forget_move(*instance);
                    drain.left.push((*instance, why));
                    stays += 1;
                }
                None => planned += 1,
            }
        }
        self.ha_mut().drains.put(Arc::new(drain));
        Ok(Done::Planned { planned, waiting: 0, stays })
    }

    fn claim_move(
        &mut self,
        instance: Uuid,
        from: Life,
        to: Life,
        live: bool,
        known: Option<Move>,
    ) -> std::result::Result<(), Left> {
        let excluded = known.as_ref().is_some_and(|known| known.excluded.contains(&to.host));
        if excluded || self.target_flaw(from, to).is_some() || self.ha().moves.len() >= MOVES {
            return Err(Left::NoTarget);
        }
        let row = self.row(to.host).ok_or(Left::NoTarget)?;
        if self.state.tables.slot_of(Domain::Nova, instance, Purpose::Move).is_some() {
            return Err(Left::Busy);
        }
        let home = self.state.tables.consumer(Domain::Nova, instance, Purpose::Instance).cloned();
        let home = home.filter(|home| !home.amounts.is_empty()).ok_or(Left::State)?;
        let fits = self.state.tables.provider(row).is_some_and(|there| there.fits(&home.amounts, &Amounts::default()));
        if !fits {
            return Err(Left::NoTarget);
        }
        let counters = *self.state.tables.counters();
        let tries = known.as_ref().map_or(0, |known| known.tries);
        let ticket = counters.commands << 8 | 0x80 | u64::from(tries);
        self.state.put(
            Consumer {
                purpose: Purpose::Move,
                row,
                // It ends with its move, not by time.
                phase: ConsumerPhase::Claimed { expires: u64::MAX },
                intent: Intent::LiveMigration,
                decision: 0,
                ticket,
                request: None,
                since: counters.now,
                since_wall: counters.wall,
                ..home
            },
            self.touched,
        );
        let (excluded, baseline) = known.map(|known| (known.excluded, known.baseline)).unwrap_or_default();
        let (op, by, at, state) = (Uuid::nil(), self.order.leader, counters.now, MoveState::Claimed);
        let planned = Move { instance, from, to, live, ticket, state, op, by, at, tries, baseline, excluded };
        self.ha_mut().moves.put(Arc::new(planned));
        Ok(())
    }

    fn moving(&self, instance: Uuid) -> Result<&Move> {
        self.ha().moves.get(instance).map(|known| &**known).ok_or(Refusal::Instance(instance))
    }

    fn move_intent(&mut self, drain: &Drain, instance: Uuid, op: Uuid, nova: &NovaRead) -> Result {
        let known = self.moving(instance)?;
        if (known.op, known.by) == (op, self.order.leader) && known.state == MoveState::Intent {
            return Ok(Done::Unchanged);
        }
        let (number, now) = (known.tries, self.now());
        let no = |why: &str| Err(Refusal::Attempt { instance, number, why: why.to_owned() });
        let again = known.state == MoveState::Intent;
        if drain.stage != Stage::Moving || !matches!(known.state, MoveState::Claimed | MoveState::Intent) {
            return no("it is not its turn");
        }
        if !Stop::Paused.lets(self.ha().paused(Act::Recover) <= now) {
            return Err(Refusal::Paused {
                act: Act::Recover,
                left: (self.ha().paused(Act::Recover) - now).div_ceil(1_000),
            });
        }
        self.alive(known.from.host, known.from.incarnation)?;
        if let Some(why) = self.target_flaw(known.from, known.to) {
            return Err(Refusal::Target { host: known.to.host, why });
        }
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        if !Stop::PermitExact.lets(current == Some(known.from)) {
            return Err(Refusal::Permit { instance, given: Some(known.from), current });
        }
        if nova.host != known.from.host || nova.migrations.len() > BASELINE {
            return no("Nova has it elsewhere, or more migrations of it than are kept: a person must look");
        }
        if !Stop::Sentinel.lets(nova.sentinel) {
            return no("Nova's answer lacks a row that is known to be there: it is not whole");
        }
        if !Stop::NothingMoving.lets(!nova.moving && !nova.now.task) {
            return no("something is being done with it");
        }
        let started = self.ha().restarts.get(instance).filter(|restart| restart.well.is_none());
        if started.is_some_and(|restart| self.ha().stands(restart)) && !Stop::OneAttempt.lets(false) {
            return no("a restart of it is on its way");
        }
        let live = || self.ha().under_way().filter(|other| other.instance != instance);
        let source = live().filter(|other| other.from.host == known.from.host).count();
        let target = live().filter(|other| other.to.host == known.to.host).count();
        if !Stop::DrainLimits.lets(source < MOST_SOURCE && target < MOST_TARGET) {
            return no("two migrations of its source or its target are on their way");
        }
        let mut known = known.clone();
        if !again {
            known.baseline.clone_from(&nova.migrations);
            known.tries = known.tries.saturating_add(1);
        }
        (known.state, known.op, known.by, known.at) = (MoveState::Intent, op, self.order.leader, now);
        self.ha_mut().moves.put(Arc::new(known));
        Ok(Done::Changed)
    }

    fn move_running(&mut self, instance: Uuid, migration: Uuid) -> Result {
        let known = self.moving(instance)?;
        if known.state == MoveState::Running(migration) {
            return Ok(Done::Unchanged);
        }
        if known.state != MoveState::Intent || known.baseline.contains(&migration) {
            let number = known.tries;
            return Err(Refusal::Attempt { instance, number, why: "that migration is not its own".to_owned() });
        }
        let at = self.now();
        let known = Move { state: MoveState::Running(migration), at, ..known.clone() };
        self.ha_mut().moves.put(Arc::new(known));
        Ok(Done::Changed)
    }

    /// Both sides were alive for it: the place goes with the instance.
    fn move_done(&mut self, mut drain: Drain, instance: Uuid, migration: Uuid) -> Result {
        let known = self.moving(instance)?;
        let (from, to, number) = (known.from, known.to, known.tries);
        if !known.is_live() || known.baseline.contains(&migration) {
            return Err(Refusal::Attempt { instance, number, why: "that migration is not its own".to_owned() });
        }
        self.alive(from.host, from.incarnation)?;
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        if !Stop::PermitExact.lets(current == Some(from)) {
            return Err(Refusal::Permit { instance, given: Some(from), current });
        }
        self.forget_move(instance);
        self.ha_mut().permits.put(Permit { instance, life: to });
        drain.moved += 1;
        drain.left.retain(|(left, _)| *left != instance);
        self.ha_mut().drains.put(Arc::new(drain));
        Ok(Done::Changed)
    }

    fn move_failed(&mut self, mut drain: Drain, instance: Uuid) -> Result {
        let mut known = self.moving(instance)?.clone();
        self.forget_move(instance);
        known.at = self.now();
        known.state = MoveState::Failed;
        if known.excluded.len() < EXCLUDED && !known.excluded.contains(&known.to.host) {
            known.excluded.push(known.to.host);
        }
        if known.tries >= TRIES {
            if drain.left.len() < LEFT {
                drain.left.push((instance, Left::Tried));
            }
            self.ha_mut().drains.put(Arc::new(drain));
        } else if drain.stage == Stage::Moving {
            self.ha_mut().moves.put(Arc::new(known));
        }
        Ok(Done::Changed)
    }
}
