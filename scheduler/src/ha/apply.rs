//! Applying orders: every guard that does not need the world is here. Total and deterministic; a refusal
//! changes nothing.

mod case;
mod drain;
mod fence;
mod host;
mod masakari;
mod note;
mod poison;
mod policy;
mod proof;
mod recovery;
mod reentry;
mod restart;
mod trouble;

use super::breaker::{ANSWERED, Decision, Scope, ScopeName};
use super::case::{Act, Case, CaseId, Phase, Step};
use super::host::{Host, HostId, Incarnation};
use super::mark::{Mark, Marked};
use super::order::{Change, Done, Order, Role};
use super::recovery::{Attempt, AttemptState};
use super::refusal::Refusal;
use super::stop::Stop;
use super::table::{BREAKERS, Failover, RECEIVERS, Seat, VOTERS};
use super::{LEVEL, OVERRIDE, TEXT};
use crate::apply::Touched;
use crate::state::State;

/// What a guard needs.
struct Cx<'a> {
    state: &'a mut State,
    order: &'a Order,
    touched: &'a mut Vec<Touched>,
}

type Result<T = Done> = std::result::Result<T, Refusal>;

/// Applies an order.
pub(crate) fn apply(state: &mut State, order: &Order, touched: &mut Vec<Touched>) -> Result {
    let mut cx = Cx { state, order, touched };
    cx.admit()?;
    let done = cx.change()?;
    cx.noted(&done);
    if cx.ha().small.leader < order.leader {
        cx.ha_mut().small_mut().leader = order.leader;
    }
    Ok(done)
}

impl Cx<'_> {
    fn ha(&self) -> &Failover {
        &self.state.tables.failover
    }

    fn ha_mut(&mut self) -> &mut Failover {
        &mut self.state.tables.failover
    }

    fn now(&self) -> u64 {
        self.state.tables.counters.now
    }

    fn epoch(&self) -> u64 {
        self.state.tables.counters.epoch
    }

    fn is_operator(&self) -> bool {
        self.order.actor.role == Role::Operator
    }

    fn step(&self, phase: Phase) -> Step {
        Step { phase, at: self.now(), wall: self.state.tables.counters.wall, by: self.order.leader }
    }

    /// What holds for every order.
    fn admit(&self) -> Result<()> {
        let Order { leader, epoch, actor, change } = self.order;
        let level = self.state.tables.level();
        if level < LEVEL {
            return Err(Refusal::Level { level, needed: LEVEL });
        }
        if !Stop::Epoch.lets(*epoch == self.epoch()) {
            return Err(Refusal::Epoch { given: *epoch, current: self.epoch() });
        }
        let current = self.ha().small.leader;
        if !Stop::LeaderExact.lets(*leader >= current) {
            return Err(Refusal::Leader { given: *leader, current });
        }
        text("actor.name", &actor.name)?;
        text("actor.reason", &actor.reason)?;
        let operators = matches!(
            change,
            Change::BreakerAck { .. }
                | Change::Pause { .. }
                | Change::Exempt { .. }
                | Change::LeaseEpoch(_)
                | Change::Policy(_)
                | Change::PolicyPut(_)
                | Change::PolicyRemove(_)
                | Change::DrainOpen { .. }
                | Change::QuarantineEnd(_)
                | Change::GuestQuarantineEnd(_)
                | Change::CaseAbort { .. }
                | Change::Verdict { .. }
                | Change::Release
        );
        if operators && !self.is_operator() {
            return Err(Refusal::Role { what: change.name().to_owned() });
        }
        if self.is_operator() && actor.reason.is_empty() {
            return Err(invalid("actor.reason", "nothing", "why, in a few words"));
        }
        let acts = matches!(
            change,
            Change::CaseOpen { .. }
                | Change::CasePhase { .. }
                | Change::FenceIntent { .. }
                | Change::DeathProof { .. }
                | Change::NovaMark { .. }
                | Change::CommitPlan { .. }
                | Change::Verdict { .. }
                | Change::AttemptIntent { .. }
                | Change::Reenter { .. }
                | Change::RestartIntent { .. }
                | Change::Stop { .. }
                | Change::DrainStep { .. }
        );
        if acts && !Stop::PausedAfterRestore.lets(self.ha().small.epoch == self.epoch()) {
            return Err(Refusal::Restored);
        }
        self.is_enforced(change)?;
        self.acts_alone(change)
    }

    fn change(&mut self) -> Result {
        let order = self.order;
        match &order.change {
            Change::HostUpsert(spec) => self.host_upsert(spec),
            Change::HostRemove(host) => self.host_remove(*host),
            Change::Voters(voters) => self.voters(voters),
            Change::IncarnationOpen { host, hello } => self.incarnation_open(*host, hello),
            Change::Watchdog { host, incarnation, watchdog } => self.watchdog(*host, *incarnation, *watchdog),
            Change::DetectionSet { host, incarnation, from, to, groups, age } => {
                self.detection_set(*host, *incarnation, (*from, *to), *groups, *age)
            }
            Change::CaseOpen { host, incarnation, cause } => self.case_open(*host, *incarnation, *cause),
            Change::CasePhase { case, from, to } => self.case_phase(*case, *from, *to),
            Change::CaseHold { case, act, reason } => self.case_hold(*case, *act, reason.as_deref()),
            Change::NeedsOperator { case, reason } => self.needs_operator(*case, reason.as_deref()),
            Change::FenceIntent { case, level, fencer, op, machine, voters } => {
                self.fence_intent(*case, (*level, *fencer), *op, machine, voters)
            }
            Change::FenceOutcome { case, op, outcome } => self.fence_outcome(*case, *op, outcome),
            Change::DeathProof { host, incarnation, evidence } => self.death_proof(*host, *incarnation, evidence),
            Change::NovaMark { host, forced_down, disabled } => self.nova_mark(*host, *forced_down, *disabled),
            Change::CommitPlan { case, assignments } => self.commit_plan(*case, assignments),
            Change::AttemptIntent { case, instance, number, target, op, nova } => {
                self.attempt_intent(*case, (*instance, *number), *target, *op, nova)
            }
            Change::AttemptObserved { instance, number, state } => self.attempt_observed((*instance, *number), *state),
            Change::AttemptEnd { instance, number, ended } => self.attempt_end((*instance, *number), *ended),
            Change::PermitEnd { instance, life, at } => self.permit_end(*instance, *life, *at),
            Change::PermitMove { instance, from, to, cause } => self.permit_move(*instance, *from, *to, *cause),
            Change::LeaseEpoch(lease) => {
                self.may_lease(Some(lease.mode), "lease.mode")?;
                // L < 5 heartbeats would let one lost message reset a host.
                if lease.ttl < 10_000 {
                    return Err(invalid("lease.ttl", &format!("{} ms", lease.ttl), "10000 ms at least"));
                }
                self.ha_mut().small_mut().lease = *lease;
                Ok(Done::Changed)
            }
            Change::BreakerSet { scope, seen } => {
                let scope = self.scope(scope)?;
                let looked = self.ha().looked(scope, *seen, self.now());
                if looked.as_ref() == self.ha().small.breakers.get(&scope) {
                    return Ok(Done::Unchanged);
                }
                let breakers = &mut self.ha_mut().small_mut().breakers;
                match looked {
                    None => drop(breakers.remove(&scope)),
                    Some(_) if breakers.len() >= BREAKERS && !breakers.contains_key(&scope) => {
                        return Err(Refusal::Full { table: "breakers".to_owned(), most: BREAKERS as u64 });
                    }
                    Some(breaker) => drop(breakers.insert(scope, breaker)),
                }
                self.touched.push(Touched::Doubts);
                Ok(Done::Changed)
            }
            Change::BreakerAck { scope, decision, until } => {
                let scope = self.scope(scope)?;
                self.override_until(*until)?;
                if let Decision::Proceed(hosts) = decision
                    && hosts.len() > ANSWERED
                {
                    return Err(invalid("decision", &format!("{} hosts", hosts.len()), "256 hosts at most"));
                }
                let Some(breaker) = self.ha_mut().small_mut().breakers.get_mut(&scope) else {
                    return Err(invalid("scope", "a closed breaker", "an open one: there is nothing to answer"));
                };
                breaker.answer = Some((decision.clone(), *until));
                Ok(Done::Changed)
            }
            Change::Pause { act, until } => {
                self.override_until(*until)?;
                let small = self.ha_mut().small_mut();
                match act {
                    Act::Kill => small.paused_kill = *until,
                    Act::Recover => small.paused_recover = *until,
                }
                Ok(Done::Changed)
            }
            Change::Exempt { host, until } => {
                self.override_until(*until)?;
                self.host(*host)?;
                self.with_host(*host, |host| host.exempt = *until);
                Ok(Done::Changed)
            }
            Change::Maintenance { host, mode } => {
                self.host(*host)?;
                self.with_host(*host, |host| host.maintenance = *mode);
                Ok(Done::Changed)
            }
            Change::Degraded { host, incarnation, degraded } => {
                if self.alive(*host, *incarnation)?.degraded == *degraded {
                    return Ok(Done::Unchanged);
                }
                self.with_host(*host, |host| host.degraded = *degraded);
                Ok(Done::Changed)
            }
            Change::DrainOpen { host, incarnation, mode } => self.drain_open(*host, *incarnation, *mode),
            Change::DrainStep { host, step } => self.drain_step(*host, step),
            Change::DrainEnd { host, over } => self.drain_end(*host, *over),
            Change::Policy(policy) => self.policy(*policy),
            Change::PolicyPut(policy) => self.policy_put(policy),
            Change::PolicyRemove(name) => self.policy_remove(name),
            Change::WouldDo { case, what } => self.would_do(*case, what.as_deref()),
            Change::CaseAbort { token, heard } => self.case_abort(token, *heard),
            Change::Verdict { case, instance, verdict } => self.verdict(*case, *instance, *verdict),
            Change::Reenter { case, step, op, seen } => self.reenter(*case, *step, *op, seen),
            Change::RestartIntent { instance, life, op, to, nova } => {
                self.restart_intent(*instance, *life, *op, *to, nova)
            }
            Change::RestartOutcome { instance, op, well } => self.restart_outcome(*instance, *op, *well),
            Change::Stop { instance, op, done } => self.stop_again(*instance, *op, *done),
            Change::QuarantineEnd(host) => {
                let open = self.host(*host)?.is_open();
                if !open {
                    return Err(invalid("host", "one that has not said Hello since its death", "one that is back"));
                }
                self.with_host(*host, |host| host.quarantined = false);
                Ok(Done::Changed)
            }
            Change::GuestTrouble { instance, life, kind } => self.guest_trouble(*instance, *life, *kind),
            Change::GuestQuarantineEnd(instance) => self.guest_quarantine_end(*instance),
            Change::Release => self.release(),
            Change::Masakari(change) => self.masakari(change),
            Change::Mark(mark) => self.mark(mark),
            Change::FencePath { host, why, age } => self.fence_path(*host, why.as_deref(), *age),
            Change::EventsTold { receiver, at } => self.events_told(receiver, *at),
        }
    }

    /// Open attempts must have been looked at first: what they came to is read, not guessed.
    fn release(&mut self) -> Result {
        let epoch = self.epoch();
        // The order is about the cluster whose mark was shown, and about no other.
        let takes = match &self.ha().small.marked {
            Some(Marked { mark: Mark::Foreign(other), epoch: of, .. }) if *of == epoch => Some(*other),
            _ => None,
        };
        if self.ha().small.epoch == epoch {
            if takes.is_none() || self.ha().small.takes == takes {
                return Ok(Done::Unchanged);
            }
            self.ha_mut().small_mut().takes = takes;
            return Ok(Done::Changed);
        }
        // What is known of a call is read to its end first.
        let known = |attempt: &Attempt| attempt.state != AttemptState::Ambiguous;
        if let Some(recovery) = self.ha().recoveries.iter().find(|recovery| recovery.live().is_some_and(known)) {
            return Err(Refusal::Attempt {
                instance: recovery.instance,
                number: recovery.attempt.as_ref().map_or(0, |attempt| attempt.number),
                why: "it is open since before the restore: it is read in Nova until it is over; release after that"
                    .to_owned(),
            });
        }
        self.leave_unknown();
        let old: Vec<HostId> =
            self.ha().cases.iter().filter(|case| case.epoch != epoch).map(|case| case.id.host).collect();
        for host in old {
            let step = self.step(Phase::Cleared);
            if let Some(case) = self.ha_mut().case_mut(host) {
                case.enter(step);
            }
            self.close(host);
        }
        let small = self.ha_mut().small_mut();
        (small.epoch, small.takes) = (epoch, takes);
        small.breakers.clear();
        (small.paused_kill, small.paused_recover) = (0, 0);
        self.touched.push(Touched::Doubts);
        Ok(Done::Changed)
    }

    fn mark(&mut self, mark: &Mark) -> Result {
        if let Mark::Unknown(why) = mark {
            text("mark", why)?;
        }
        let marked = Some(Marked { mark: mark.clone(), by: self.order.leader, epoch: self.epoch() });
        if self.ha().small.marked == marked {
            return Ok(Done::Unchanged);
        }
        let small = self.ha_mut().small_mut();
        small.marked = marked;
        if *mark == Mark::Ours {
            small.takes = None;
        }
        Ok(Done::Changed)
    }

    /// It never falls back. One that is configured no more makes room for a new one.
    fn events_told(&mut self, receiver: &str, at: u64) -> Result {
        text("receiver", receiver)?;
        let told = &mut self.ha_mut().small_mut().told;
        if !told.contains_key(receiver) && told.len() >= RECEIVERS {
            let oldest = told.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
            oldest.map(|name| told.remove(&name));
        }
        let known = told.entry(receiver.to_owned()).or_default();
        if *known >= at {
            return Ok(Done::Unchanged);
        }
        *known = at;
        Ok(Done::Changed)
    }

    fn voters(&mut self, voters: &[super::order::Voter]) -> Result {
        if voters.len() > VOTERS {
            return Err(invalid("voters", &voters.len().to_string(), "16 at most"));
        }
        for voter in voters {
            text("voters.chassis", &voter.chassis)?;
            text("voters.power", &voter.power)?;
        }
        let names = &mut self.state.tables.names;
        let seats = voters.iter().map(|voter| Seat {
            node: voter.node,
            host: voter.host,
            chassis: names.intern(&voter.chassis),
            power: names.intern(&voter.power),
        });
        let seats = seats.collect();
        self.ha_mut().small_mut().voters = seats;
        Ok(Done::Changed)
    }

    fn override_until(&self, until: u64) -> Result<()> {
        if until > self.now().saturating_add(OVERRIDE) {
            return Err(invalid("until", &format!("{} s from now", (until - self.now()) / 1_000), "a day at most"));
        }
        Ok(())
    }

    fn scope(&self, name: &ScopeName) -> Result<Scope> {
        let of = |name: &str| {
            let known = self.state.tables.names.get(name);
            known.ok_or_else(|| invalid("scope", &format!("'{name}'"), "a zone, cell or cluster of a known host"))
        };
        Ok(match name {
            ScopeName::Region => Scope::Region,
            ScopeName::Az(az) => Scope::Az(of(az)?),
            ScopeName::Cell(cell) => Scope::Cell(of(cell)?),
            ScopeName::Cluster(cluster) => Scope::Cluster(of(cluster)?),
        })
    }

    fn scope_name(&self, scope: Scope) -> String {
        let name = |sym| self.state.tables.names.text(sym);
        match scope {
            Scope::Region => "the region".to_owned(),
            Scope::Az(az) => format!("zone {}", name(az)),
            Scope::Cell(cell) => format!("cell {}", name(cell)),
            Scope::Cluster(cluster) => format!("cluster {}", name(cluster)),
        }
    }

    fn host(&self, id: HostId) -> Result<&Host> {
        self.ha().hosts.get(id).map(|host| &**host).ok_or(Refusal::Host(id))
    }

    fn with_host(&mut self, id: HostId, change: impl FnOnce(&mut Host)) {
        if let Some(host) = self.ha_mut().host_mut(id) {
            change(host);
        }
        self.doubt(id);
    }

    /// What is thought of a host may have changed.
    fn doubt(&mut self, id: HostId) {
        let name = self.ha().hosts.get(id).map(|host| host.nova_host);
        self.touched.extend(name.map(|name| Touched::Doubt(id, name)));
    }

    /// Takes a case out of the open ones.
    fn close(&mut self, host: HostId) {
        self.ha_mut().close(host);
        self.doubt(host);
    }

    /// The host, in that life, which has begun and is not over.
    fn alive(&self, id: HostId, incarnation: Incarnation) -> Result<&Host> {
        let host = self.host(id)?;
        if !Stop::LifeMatches.lets(host.incarnation == incarnation && host.is_open()) {
            let (current, open) = (host.incarnation, host.is_open());
            return Err(Refusal::Incarnation { host: id, given: incarnation, current, open });
        }
        Ok(host)
    }

    /// The open case of that name, of this epoch.
    fn case(&self, id: CaseId) -> Result<&Case> {
        let open = self.ha().cases.get(id.host);
        let Some(case) = open.filter(|case| case.id == id) else {
            return Err(Refusal::Case { given: id, current: open.map(|case| case.id) });
        };
        if !Stop::Epoch.lets(case.epoch == self.epoch()) {
            return Err(Refusal::Epoch { given: case.epoch, current: self.epoch() });
        }
        Ok(case)
    }

    /// Nothing that an operator or the state has put in the way of an act.
    fn unhindered(&self, case: &Case, act: Act) -> Result<()> {
        let until = self.ha().paused(act);
        if !Stop::Paused.lets(until <= self.now()) {
            return Err(Refusal::Paused { act, left: (until - self.now()).div_ceil(1_000) });
        }
        if let Some(reason) = case.held(act) {
            return Err(Refusal::Held { case: case.id, act, reason: reason.to_owned() });
        }
        if act == Act::Recover {
            let host = self.host(case.id.host)?;
            if let Some((scope, trips)) = self.ha().stops_recover(host) {
                let count = self.ha().count(scope, self.now());
                return Err(Refusal::Breaker { scope: self.scope_name(scope), trips, count });
            }
        }
        Ok(())
    }
}

fn invalid(field: &str, given: &str, expected: &str) -> Refusal {
    let given = given.to_owned();
    Refusal::Invalid { field: field.to_owned(), given, expected: expected.to_owned() }
}

fn text(field: &str, text: &str) -> Result<()> {
    if text.len() > TEXT {
        return Err(invalid(field, &format!("{} bytes", text.len()), "512 bytes at most"));
    }
    Ok(())
}
