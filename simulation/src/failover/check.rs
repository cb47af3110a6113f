//! The invariants of the catalogue that need the truth, checked after every event. What the replicated
//! state alone can break is checked by `Core::check`.

use scheduler::ha::breaker::Scope;
use scheduler::ha::coordinator::{Barrier, Call};
use scheduler::ha::host::HostId;
use scheduler::ha::liveness::Timers;
use scheduler::ha::order::Leader;
use scheduler::ha::policy::{self, Mode};
use scheduler::ha::{CONFIRM, SUSPECT};
use scheduler::request::GroupPolicy;
use uuid::Uuid;

use super::truth::vm;
use super::world::World;

impl World {
    pub(super) fn broke(&mut self, what: String) {
        self.say(&format!("BROKEN {what}"));
        self.broken.push(what);
    }

    pub(super) fn check_state(&mut self) {
        for what in self.core.check() {
            self.broke(what);
        }
    }

    pub(super) fn check_truth(&mut self) {
        let mut broken = Vec::new();
        // INV-1: no guest executes on two hosts.
        for n in 1..=64 {
            let count = self.hosts.iter().filter(|host| host.guests.contains(&vm(n))).count();
            if count > 1 {
                broken.push(format!("INV-1 instance {n} executes on {count} hosts"));
            }
        }
        // INV-4: what is proven dead executes nothing.
        for host in &self.hosts {
            let over = self.ha().hosts.get(host.id).is_some_and(|known| known.boots.contains(&host.boot()));
            if over && !host.guests.is_empty() {
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
        for what in broken {
            if !self.broken.contains(&what) {
                self.broke(what);
            }
        }
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
            self.check_breakers(*host, barrier);
            let now = self.now;
            let host = self.by_id(*host);
            let (silent, first) = (now.saturating_sub(host.heard), host.fences == 0);
            let (seen_off, away) = (host.seen_off, host.away.saturating_sub(now));
            if first && away > 0 {
                self.broke(format!("a host is fenced {away} ms before it is to be back"));
            }
            if first && !seen_off && silent < SUSPECT + CONFIRM {
                self.broke(format!("INV-8 a host is fenced {silent} ms after its last sign of life"));
            }
        }
    }

    /// INV-9: no fence begins while too many of a scope are away, unless an operator said so.
    fn check_breakers(&mut self, id: HostId, barrier: &Barrier) {
        let ha = self.ha();
        let Some(host) = ha.hosts.get(id) else { return };
        let begun = ha.cases.get(id).and_then(|case| case.op(barrier.intent)).map_or(0, |op| op.at);
        // As it was when the intent was applied: an onset since then does not count.
        let many = Scope::all_of(host).into_iter().find(|scope| {
            let count = ha.count(*scope, self.now);
            let known = ha.small.breakers.get(scope);
            let answered = known.is_some_and(|breaker| breaker.answer.is_some());
            let over = count.unavailable >= scope.threshold(count.hosts) && count.hosts > 4;
            let before = known.is_some_and(|breaker| breaker.since < begun) || begun == self.now;
            over && before && !answered
        });
        if let Some(scope) = many {
            self.broke(format!("INV-9 host {id} is fenced, and too many of {scope:?} are away"));
        }
    }

    /// INV-6, INV-7: Nova never works at two evacuations of one instance.
    pub(super) fn check_taken(&mut self, instance: Uuid) {
        *self.taken.entry(instance).or_default() += 1;
        let open = self.nova.migrations(instance).filter(|moving| moving.over.is_none() && !moving.live).count();
        // A call that arrives when it counts as lost is sent again: the target's libvirt takes one of them.
        if open > 1 && !self.overdue.contains(&instance) {
            self.broke(format!("INV-7 Nova works at {open} evacuations of {instance}"));
        }
    }
}
