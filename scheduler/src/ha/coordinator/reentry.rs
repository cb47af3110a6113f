//! The return of a host, as a reconciler: each look begins with what the state and the world say, and does
//! what is missing. Steps that may destroy something have their intent first, and apply looks again.

use super::{Call, Coordinator, Due, Lead, pace};
use crate::ha::case::{Case, Phase};
use crate::ha::host::{Host, Maintenance};
use crate::ha::order::Change;
use crate::ha::policy;
use crate::ha::recovery::Life;
use crate::ha::reentry::{HOLD_OFF, STABLE, Seen, Step};

impl Coordinator {
    /// Until it says Hello. It is powered on where the policy says so.
    pub(super) fn await_return(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        if host.is_open() && host.incarnation > case.id.incarnation {
            Self::go(case, Phase::Returning, due);
            return;
        }
        self.permits_follow_the_dead(case, lead, due);
        let may = policy::of(lead.tables, host).power_on
            && host.maintenance != Maintenance::Manual
            && host.bmc.is_some()
            && lead.clock >= case.since.saturating_add(HOLD_OFF);
        if may {
            let call = |barrier| Call::PowerOn { host: host.id, barrier };
            self.step_of_return(case, Step::PowerOn, pace::POWER_ON, lead, due, call);
        }
    }

    /// Proposes the intent of a step, and calls once it is this leader's; both again after `every`.
    fn step_of_return(
        &mut self,
        case: &Case,
        step: Step,
        every: u64,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
        call: impl FnOnce(super::Barrier) -> Call,
    ) {
        let nth = lead.clock / every;
        let op = self.name(case.id.host.0, case, &format!("{step:?}"), nth);
        let known = case.reentry.begun(step).filter(|begun| begun.by == self.leader);
        let own = known.filter(|begun| lead.clock < begun.at.saturating_add(every));
        let barrier = own.map(|begun| self.barrier(begun.op));
        let facts = self.hosts.entry(case.id.host).or_default();
        match (own, barrier) {
            (Some(begun), Some(barrier)) if facts.called != Some(begun.op) => {
                facts.called = Some(begun.op);
                due.push(Due::Call(call(barrier)));
            }
            (Some(_), _) => {}
            _ if facts.stepped.is_none_or(|at| lead.now >= at + pace::NOVA) => {
                facts.stepped = Some(lead.now);
                let compute = facts.compute.as_ref().map(|(_, read)| read.clone());
                let domains = facts.domains.as_ref().map(|known| (known.listed.clone(), known.at));
                let seen = Box::new(Seen { compute, domains });
                due.push(Due::Propose(Change::Reenter { case: case.id, step, op, seen }));
            }
            _ => {}
        }
    }

    /// Back in a new life: what is stale goes, what was left is started, and then it is let in.
    pub(super) fn returning(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        if !host.is_open() || host.incarnation != case.reentry.life {
            Self::go(case, Phase::AwaitReturn, due);
            return;
        }
        let id = host.id;
        let facts = self.facts(host);
        if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA {
            facts.asked_nova = lead.now.max(1);
            due.push(Due::Call(Call::ReadCompute(id)));
            due.push(Due::Call(Call::ListDomains(id)));
        }
        // Told of a mark: first in the state what is so in Nova.
        if let Some((forced_down, disabled)) = facts.service.take() {
            let told = (forced_down && host.forced_down, disabled && host.disabled);
            if told != (host.forced_down, host.disabled) {
                due.push(Due::Propose(Change::NovaMark { host: id, forced_down: told.0, disabled: told.1 }));
                return;
            }
        }
        let compute = facts.compute.as_ref().filter(|(at, _)| lead.now <= at + pace::REPLAN).map(|(_, read)| read);
        let Some(compute) = compute.cloned() else { return };
        if !self.is_next_to_start(case, host, &compute, lead, due) {
            return;
        }
        self.restart_in_place(host, lead, due);
        if Self::leaves_something(host, lead) {
            self.ask_what_keeps(case, host, lead, due);
            return;
        }
        if lead.clock < case.reentry.unforced.saturating_add(STABLE) {
            return;
        }
        if self.crashes(host, lead) >= crate::ha::reentry::CRASHES {
            let reason = "it died again within a day: look at it, then let it back in".to_owned();
            self.ask(case, reason, due);
            return;
        }
        if host.disabled {
            let call = |barrier| Call::Enable { host: id, barrier };
            self.step_of_return(case, Step::Enable, pace::AGAIN, lead, due, call);
        } else if host.quarantined {
            let call = |_| Call::ListDomains(id);
            self.step_of_return(case, Step::Admit, pace::AGAIN, lead, due, call);
        } else {
            Self::go(case, Phase::Closed, due);
        }
    }

    /// What was left there is not started, and nobody has said that it must wait.
    fn ask_what_keeps(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let may = self.may_call(case, lead);
        let kept = &mut self.facts(host).kept;
        *kept = kept.or(Some(lead.now)).filter(|_| may);
        let late = kept.is_some_and(|since| lead.now >= since + pace::STUCK);
        let here = Life { host: host.id, incarnation: host.incarnation };
        let began = lead.ha().restarts.iter().filter(|known| known.life == here).map(|known| known.at).max();
        if late && began.is_none_or(|at| lead.clock > at.saturating_add(pace::STUCK)) {
            let reason = "instances of its former life are not started: see in Nova what keeps them";
            self.ask(case, reason.to_owned(), due);
        }
    }

    /// Whether its nova-compute runs, and Nova knows that it is up. What is missing for that is done.
    fn is_next_to_start(
        &mut self,
        case: &Case,
        host: &Host,
        compute: &crate::ha::reentry::ComputeRead,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> bool {
        let id = host.id;
        let begun = |step| case.reentry.begun(step).is_some();
        if !begun(Step::StartNova) || !compute.fresh {
            let what = if compute.open.is_empty() { "does not start" } else { "is kept from starting" };
            self.ask_late(case, lead, due, &format!("nova-compute on it {what}: look at its evacuations in Nova"));
            let call = |barrier| Call::StartNova { host: id, barrier };
            self.step_of_return(case, Step::StartNova, pace::REPLAN, lead, due, call);
            return false;
        }
        if host.forced_down {
            if !compute.done.is_empty() {
                let reason = "Nova keeps an evacuation away from it as not cleaned up: restart its nova-compute";
                self.ask_late(case, lead, due, reason);
            }
            let call = |barrier| Call::Unforce { host: id, barrier };
            self.step_of_return(case, Step::Unforce, pace::AGAIN, lead, due, call);
            return false;
        }
        true
    }

    /// Deaths of a host within a day.
    #[expect(clippy::unused_self, reason = "read beside the others")]
    pub(super) fn crashes(&self, host: &Host, lead: &Lead<'_>) -> usize {
        let young = |at: u64| lead.clock.saturating_sub(at) < crate::ha::reentry::DAY;
        host.proofs.iter().filter(|proof| young(proof.at)).count()
    }
}
