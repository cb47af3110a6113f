//! The invariants of the catalogue that need the truth, checked after every event. What the replicated
//! state alone can break is checked by `Core::check`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use scheduler::Sym;
use scheduler::ha::breaker::{Decision, STORM, Scope};
use scheduler::ha::case::{Act, Case, CaseId, Cause};
use scheduler::ha::coordinator::{Barrier, Call};
use scheduler::ha::host::{Host, HostId, Maintenance};
use scheduler::ha::liveness::Timers;
use scheduler::ha::order::{Change, Done, Leader};
use scheduler::ha::policy::{self, Mode};
use scheduler::ha::proof::Evidence;
use scheduler::ha::table::Seat;
use scheduler::ha::{CONFIRM, Phase, Refusal, SUSPECT};
use scheduler::request::GroupPolicy;
use uuid::Uuid;

use super::nova::{Moving, Trouble};
use super::truth::{Bmc, TrueHost};
use super::world::World;

/// Breakers are closed so long after everything is well, milliseconds (INV-28).
const RELEASE: u64 = 180_000;
/// A case is no longer in a phase without a person being asked, milliseconds (INV-27), with the warm-up of a leader.
const STUCK: u64 = 150_000;
/// The same where it is told when it counts as stuck: 300 s, and the grace of a boot before it.
const LATE: u64 = 650_000;
/// What a BMC said of itself in front of a fence is not older, with its way, milliseconds.
const IDENTITY: u64 = 11_000;

/// What is remembered of what was, to see that it goes on as it must.
#[derive(Default)]
pub(super) struct Memory {
    epoch: u64,
    /// Life and last case of each host.
    lives: BTreeMap<HostId, (u64, u64)>,
    open: BTreeMap<HostId, CaseId>,
    /// Cases with a power-off that was sent.
    fenced: HashSet<CaseId>,
    /// What may be fenced in a zone: milliseconds saved up, and when.
    tokens: BTreeMap<Sym, (u64, u64)>,
    /// Scopes whose recovery was slowed down a tick ago.
    slow: BTreeSet<Scope>,
    /// The last host of a scope whose recovery began.
    turns: BTreeMap<Scope, (HostId, u64)>,
    /// Since when each case is in its phase, with nothing that hinders it.
    stuck: HashMap<CaseId, (Phase, u64)>,
    /// Since when everything is well.
    well: Option<u64>,
}

impl World {
    pub(super) fn broke(&mut self, what: String) {
        self.say(&format!("BROKEN {what}"));
        self.broken.push(what);
    }

    pub(super) fn check_state(&mut self) {
        for what in self.core.check() {
            self.broke(what);
        }
        let mut broken = Vec::new();
        let epoch = self.core.state().tables().counters().epoch;
        let ha = self.core.state().tables().failover();
        let memory = &mut self.memory;
        if memory.epoch != epoch {
            // Restored: what was is not any more.
            *memory = Memory { epoch, ..Memory::default() };
        }
        // INV-13: lives and numbers of cases only grow.
        for host in ha.hosts.iter() {
            let now = (host.incarnation, host.case_seq);
            let before = memory.lives.insert(host.id, now).unwrap_or_default();
            if now.0 < before.0 || now.1 < before.1 {
                broken.push(format!("INV-13 host {}: life and case were {before:?}, they are {now:?}", host.id));
            }
        }
        let open: BTreeMap<_, _> = ha.cases.iter().map(|case| (case.id.host, case.id)).collect();
        let over = |id: &CaseId| open.get(&id.host) != Some(id);
        let gone: Vec<CaseId> = memory.open.values().copied().filter(over).collect();
        // One that died again on its way in has its next case.
        let let_in = |case: &&Case| case.phase == Phase::Closed && !open.contains_key(&case.id.host);
        let closed = ha.closed().filter(|case| gone.contains(&case.id)).filter(let_in);
        for case in closed {
            let id = case.id.host;
            let Some(host) = ha.hosts.get(id) else { continue };
            // INV-28: nothing that was set for a case is left once it is closed.
            let (forced_down, disabled) = self.nova.services.get(&id).copied().unwrap_or_default();
            let planned = host.maintenance != Maintenance::None || ha.drains.get(id).is_some();
            if forced_down || disabled && !planned || host.forced_down || host.disabled || host.quarantined {
                broken.push(format!("INV-28 case {} is closed, and marks of it are left", case.id));
            }
            // INV-20: and nothing runs there whose place is elsewhere. The place of what Nova has just moved there follows.
            let there = self.hosts.iter().find(|host| host.id == id);
            let moved = |guest: &Uuid| self.nova.servers.get(guest).is_some_and(|server| server.host == id);
            let stale = there
                .into_iter()
                .flat_map(|host| host.guests.union(&host.halves))
                .find(|guest| !moved(guest) && ha.permits.get(**guest).is_some_and(|permit| permit.life.host != id));
            if let Some(guest) = stale {
                broken.push(format!("INV-20 case {} is closed, and {guest} is there", case.id));
            }
        }
        memory.open = open;
        for what in broken {
            self.broke(what);
        }
    }

    /// What must hold where an intent is committed, looked at there.
    pub(super) fn check_order(&mut self, change: &Change, said: &Result<Done, Refusal>) {
        let mut broken = Vec::new();
        match (change, said) {
            (Change::FenceIntent { case, voters, .. }, Ok(Done::Changed)) => {
                self.check_fence(*case, voters, &mut broken);
            }
            (Change::AttemptIntent { instance, .. }, Ok(Done::Changed)) => self.check_rates(*instance, &mut broken),
            (Change::CasePhase { case, from: Phase::Fenced, to: Phase::NovaDown }, Ok(Done::Changed)) => {
                self.check_turn(case.host, &mut broken);
            }
            // INV-25: its hardware has fired before that is claimed.
            (Change::DeathProof { host, evidence: Evidence::Lease { .. }, .. }, Ok(Done::Changed)) => {
                let over = self.ha().hosts.get(*host).and_then(|known| known.boots.first().copied());
                let there = self.hosts.iter().find(|there| there.id == *host);
                if there.is_some_and(|there| there.on && Some(there.boot()) == over) {
                    broken.push(format!("INV-25 host {host} is proven dead by its watchdog, which has not fired"));
                }
            }
            // INV-22: a pause that is over stops nothing.
            (_, Err(Refusal::Paused { act, .. })) if self.ha().paused(*act) <= self.now => {
                broken.push(format!("INV-22 {act} is refused for a pause that is over"));
            }
            _ => {}
        }
        for what in broken {
            self.broke(what);
        }
    }

    fn check_fence(&mut self, id: CaseId, voters: &[u64], broken: &mut Vec<String>) {
        let (now, led, term) = (self.now, self.led, self.term());
        let ha = self.core.state().tables().failover();
        let (Some(host), Some(case)) = (ha.hosts.get(id.host), ha.cases.get(id.host)) else { return };
        let Some(op) = case.ops.last() else { return };
        // INV-9, INV-22: no fence begins while too many of a scope are away, unless an operator says so, now.
        for scope in Scope::all_of(host) {
            let count = ha.count(scope, now);
            let known = ha.small.breakers.get(&scope);
            let mut stale = false;
            let answered = known.and_then(|breaker| breaker.answer.as_ref()).is_some_and(|(answer, until)| {
                let names = match answer {
                    Decision::Proceed(hosts) => hosts.contains(&id.host),
                    Decision::ProceedAll => true,
                    Decision::Abort => false,
                };
                stale = names && *until <= now;
                names && *until > now
            });
            let many = count.unavailable >= scope.threshold(count.hosts) || count.hosts <= 4 && count.unavailable >= 2;
            let open = known.is_some_and(|breaker| breaker.trips.stops_kill());
            if (many || open) && stale {
                broken.push(format!("INV-22 host {} is fenced by an answer that is over", id.host));
            } else if (many || open) && !answered {
                broken.push(format!("INV-9 host {} is fenced, and too many of {scope:?} are away", id.host));
            }
        }
        // INV-16.
        if host.maintenance == Maintenance::Manual || host.exempt > now {
            broken.push(format!("INV-16 host {} is fenced, and a person keeps it from that", id.host));
        }
        // INV-17: the voters that are left are a majority.
        let lost = |seat: &&Seat| seat.host == Some(id.host) || seat.chassis == host.places.chassis;
        let seats = &ha.small.voters;
        let left = seats.iter().filter(|seat| voters.contains(&seat.node) && !lost(seat)).count();
        if seats.iter().any(|seat| lost(&seat)) && left * 2 <= seats.len() {
            broken.push(format!("INV-17 host {} is fenced, {left} of {} voters are left", id.host, seats.len()));
        }
        // INV-19: a BMC that has been another machine's since before it was last asked.
        let there = self.hosts.iter().find(|there| there.id == id.host);
        if there.and_then(|there| there.strange).is_some_and(|since| now > since + IDENTITY) && op.fencer.is_bmc() {
            broken.push(format!("INV-19 host {} is fenced by the BMC of another machine", id.host));
        }
        // INV-8: a new leader watches anew.
        let seen_off = there.is_some_and(|there| there.seen_off);
        let timers = Timers::default();
        if case.fences == 1
            && case.cause != Cause::Operator
            && !seen_off
            && term > 1
            && now < led + timers.warmup + CONFIRM
        {
            broken.push(format!("INV-8 host {} is fenced {} ms after its leader began", id.host, now - led));
        }
        // INV-10: one host of a zone in ten seconds, two at first, five at once.
        let entered = case.steps.last().is_some_and(|step| step.phase == Phase::Fencing && step.at == now);
        if entered && case.ops.iter().filter(|op| op.at == now).count() == 1 {
            let fencing = ha.cases.iter().filter(|case| case.phase == Phase::Fencing).count();
            if fencing > 5 {
                broken.push(format!("INV-10 {fencing} hosts are fenced at once"));
            }
            let (full, at) = self.memory.tokens.get(&host.places.az).copied().unwrap_or((20_000, now));
            let full = (full + now - at).min(20_000);
            if full < 10_000 {
                broken.push(format!("INV-10 host {} is fenced too soon after others of its zone", id.host));
            }
            self.memory.tokens.insert(host.places.az, (full.saturating_sub(10_000), now));
        }
    }

    /// INV-9, INV-10: what may be called of an instance for the first time.
    fn check_rates(&self, instance: Uuid, broken: &mut Vec<String>) {
        let tables = self.core.state().tables();
        let ha = tables.failover();
        let Some(recovery) = ha.recoveries.get(instance) else { return };
        let Some(attempt) = recovery.live().filter(|attempt| attempt.calls == 1) else { return };
        let (from, to) = (recovery.case.host, attempt.target.host);
        let (Some(source), Some(target)) = (ha.hosts.get(from), ha.hosts.get(to)) else { return };
        if ha
            .small
            .breakers
            .iter()
            .any(|(scope, breaker)| Scope::all_of(source).contains(scope) && breaker.trips.stops_recover())
        {
            broken.push(format!("INV-9 {instance} is evacuated, and a breaker stops that"));
        }
        let slow = Scope::all_of(source).iter().any(|scope| self.memory.slow.contains(scope) && ha.is_reduced(*scope));
        let part = |limit: u32| if slow { limit.div_ceil(4) } else { limit } as usize;
        let live = || ha.recoveries.iter().filter_map(|known| Some((known.case.host, known.live()?.target.host)));
        let cell = |id| ha.hosts.get(id).map(|host| host.places.cell);
        let counts = [
            ("everywhere", live().count(), 64),
            ("in a cell", live().filter(|(of, _)| cell(*of) == cell(from)).count(), 24),
            ("from a host", live().filter(|(of, _)| *of == from).count(), policy::of(tables, source).from_source),
            ("to a host", live().filter(|(_, at)| *at == to).count(), policy::of(tables, target).to_target),
        ];
        for (what, count, most) in counts {
            if count > part(most) {
                broken.push(format!("INV-10 {count} evacuations at once {what}, {} are allowed", part(most)));
            }
        }
    }

    /// INV-10: under a breaker the recovery of one host of a scope begins in half a minute.
    fn check_turn(&mut self, id: HostId, broken: &mut Vec<String>) {
        let ha = self.core.state().tables().failover();
        let Some(host) = ha.hosts.get(id) else { return };
        // Where recovery is held up nothing begins, and no turn of another is taken.
        let held = ha.paused(Act::Recover) > self.now
            || ha.cases.get(id).is_some_and(|case| case.held(Act::Recover).is_some());
        if held || policy::mode(self.core.state().tables(), id) != Mode::Enforce {
            return;
        }
        for scope in Scope::all_of(host) {
            let last = self.memory.turns.insert(scope, (id, self.now));
            let soon = last.is_some_and(|(other, at)| other != id && self.now < at + 30_000);
            if soon && self.memory.slow.contains(&scope) && ha.is_reduced(scope) {
                broken.push(format!("INV-10 the recovery of {id} begins too soon after another of {scope:?}"));
            }
        }
    }

    /// INV-14: Nova is told what is proven, in its order.
    pub(super) fn check_mark(&mut self, call: &Call) {
        let wrong = match call {
            Call::ForceDown { host, .. } => self.ha().cases.get(*host).is_none_or(|case| !case.phase.is_proven()),
            Call::Disable { host, .. } => self.ha().hosts.get(*host).is_none_or(|host| !host.forced_down),
            _ => false,
        };
        if wrong {
            self.broke(format!("INV-14 out of its order: {call:?}"));
        }
    }

    pub(super) fn check_truth(&mut self) {
        let mut broken = Vec::new();
        // INV-1: no guest executes on two hosts.
        let mut executes = HashSet::with_capacity(self.nova.servers.len());
        for host in &self.hosts {
            for guest in host.guests.iter().filter(|guest| !executes.insert(**guest)) {
                broken.push(format!("INV-1 instance {guest} executes on {} too", host.id));
            }
        }
        // INV-4: what is proven dead executes nothing, where the hardware did not lie.
        for host in &self.hosts {
            let over = self.ha().hosts.get(host.id).is_some_and(|known| known.boots.contains(&host.boot()));
            if over && !host.guests.is_empty() && host.bmc != Bmc::Swapped {
                broken.push(format!("INV-4 host {} is proven dead and executes guests", host.id));
            }
        }
        // INV-12: what is brought to a host keeps the rule of its group.
        for group in self.nova.groups.iter().filter(|group| group.policy == Some(GroupPolicy::AntiAffinity)) {
            for host in &self.hosts {
                let here = group.members.iter().filter(|member| host.guests.contains(member));
                let (here, brought) =
                    (here.clone().count() as u64, here.filter(|id| self.taken.contains_key(id)).count());
                if here > group.max_per_host && brought > 0 {
                    broken.push(format!("INV-12 host {} has {here} members of an anti-affinity group", host.id));
                }
            }
        }
        self.check_stuck(&mut broken);
        let ha = self.core.state().tables().failover();
        self.memory.slow = ha.small.breakers.keys().copied().filter(|scope| ha.is_reduced(*scope)).collect();
        // INV-28: where everything is well again the breakers close.
        let lost = |host: &Arc<Host>| {
            let died = host.proofs.iter().any(|proof| self.now < proof.at + STORM);
            died || ha.cases.get(host.id).is_some_and(|case| case.phase.is_unrecovered())
        };
        let well = self.leader.is_some()
            && !self.paused
            && self.blind == [false; 3]
            && self.nova.trouble == Trouble::None
            && self.hosts.iter().all(TrueHost::is_well)
            && !ha.hosts.iter().any(lost);
        let since = if well { self.memory.well.unwrap_or(self.now).max(self.led) } else { self.now };
        self.memory.well = well.then_some(since);
        if self.now > since + RELEASE && !ha.small.breakers.is_empty() {
            let scopes: Vec<_> = ha.small.breakers.keys().collect();
            broken.push(format!("INV-28 all hosts are well, and breakers are open: {scopes:?}"));
        }
        for what in broken {
            if !self.broken.contains(&what) {
                self.broke(what);
            }
        }
    }

    /// INV-27: a case leaves its phase, or a person is asked, where nothing hinders it.
    fn check_stuck(&mut self, broken: &mut Vec<String>) {
        let now = self.now;
        let leads = self.leader.is_some() && !self.paused && self.nova.trouble == Trouble::None;
        let tables = self.core.state().tables();
        let ha = tables.failover();
        // Whose the mark in Nova is is a question about the whole cluster, and told as such.
        let acts = leads
            && self.leader.as_ref().map(|leading| leading.id) == self.marked
            && ha.small.epoch == tables.counters().epoch
            && [Act::Kill, Act::Recover].into_iter().all(|act| ha.paused(act) <= now)
            && !ha.small.breakers.values().any(|breaker| breaker.trips.stops_recover());
        let free = |case: &Case| {
            let held = case.held(Act::Kill).or(case.held(Act::Recover)).is_some();
            acts && case.needs_operator.is_none() && !held && policy::mode(tables, case.id.host) == Mode::Enforce
        };
        let reduced = |case: &Case| {
            let host = ha.hosts.get(case.id.host);
            host.is_some_and(|host| Scope::all_of(host).into_iter().any(|scope| ha.is_reduced(scope)))
        };
        let mut stuck = HashMap::new();
        for case in ha.cases.iter() {
            let known = self.memory.stuck.get(&case.id).filter(|(phase, _)| *phase == case.phase && free(case));
            let since = known.map_or(now, |(_, since)| *since).max(self.led);
            let most = match case.phase {
                // Evacuations take as long as they take, and a host is back when it is.
                Phase::Evacuating | Phase::AwaitReturn => u64::MAX,
                // One host for each half minute while a breaker is open, which is told.
                Phase::Fenced if reduced(case) => u64::MAX,
                // What waits for room, or for a guest to start, is told when it counts as stuck.
                Phase::Planning | Phase::Returning => LATE,
                _ => STUCK,
            };
            if now - since > most {
                broken.push(format!("INV-27 case {} is in {} for long, and nobody is asked", case.id, case.phase));
            }
            stuck.insert(case.id, (case.phase, since));
        }
        self.memory.stuck = stuck;
    }

    /// INV-5, INV-8: an intent of this leader is committed, it still leads, and nobody is fenced early.
    pub(super) fn check_send(&mut self, call: &Call, barrier: &Barrier, from: Leader) {
        if !self.passes(barrier, from) {
            self.broke(format!("INV-5 {from} sends a call without its barrier: {call:?}"));
        }
        if self.marked != Some(from) {
            self.broke(format!("RST-02 {from} acts without the mark of its cluster alone in Nova: {call:?}"));
        }
        if let Some(host) = policy::called(call, self.ha())
            && policy::mode(self.core.state().tables(), host) != Mode::Enforce
        {
            self.broke(format!("an act on a host that no policy lets act is sent: {call:?}"));
        }
        let quiet = Timers::default().quiet;
        if matches!(call, Call::Evacuate { .. }) && self.term() > 1 && self.now < self.led + quiet {
            self.broke(format!("INV-5 {from} evacuates {} ms after it began to lead", self.now - self.led));
        }
        if let Call::PowerOff { host, .. } = call {
            let now = self.now;
            let case = self.ha().cases.get(*host).map(|case| case.id);
            // What was begun goes on.
            let first = case.is_some_and(|case| self.memory.fenced.insert(case));
            let host = self.by_id(*host);
            let silent = now.saturating_sub(host.heard);
            let (seen_off, away) = (host.seen_off, host.away.saturating_sub(now));
            if first && away > 0 {
                self.broke(format!("a host is fenced {away} ms before it is to be back"));
            }
            if first && !seen_off && silent < SUSPECT + CONFIRM {
                self.broke(format!("INV-8 a host is fenced {silent} ms after its last sign of life"));
            }
        }
    }

    /// INV-6, INV-7: Nova never works at two evacuations of one instance.
    pub(super) fn check_taken(&mut self, instance: Uuid) {
        *self.taken.entry(instance).or_default() += 1;
        // What died with its target is worked at by nobody.
        let known = self.ha().recoveries.get(instance);
        let lost = |moving: &&Moving| known.is_some_and(|known| known.abandoned.contains(&moving.id));
        let open = self.nova.migrations(instance).filter(|moving| moving.over.is_none() && !moving.live);
        let open = open.filter(|moving| !lost(moving)).count();
        // A call that arrives when it counts as lost is sent again: the target's libvirt takes one of them.
        if open > 1 && !self.overdue.contains(&instance) {
            self.broke(format!("INV-7 Nova works at {open} evacuations of {instance}"));
        }
    }
}
