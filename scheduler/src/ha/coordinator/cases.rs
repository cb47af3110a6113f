//! Cases, phase by phase: quarantine, fence, prove, force down, disable, plan, evacuate.

use super::{Call, Coordinator, Due, Lead, pace};
use crate::ha::case::{Act, Case, Cause, FenceOp, FenceOutcome, Phase};
use crate::ha::host::{Detection, Host, Maintenance};
use crate::ha::order::Change;
use crate::ha::policy;
use crate::ha::proof::{Evidence, Power};
use crate::ha::{CONFIRM, SUSPECT};

impl Coordinator {
    pub(super) fn case(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let alive = host.is_open() && host.incarnation == case.id.incarnation;
        self.facts(host);
        // What a person was asked for has come about by itself.
        let solved = matches!(case.phase, Phase::Fenced | Phase::Recovered) && case.held_recover.is_none();
        if solved && case.needs_operator.is_some() {
            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason: None }));
        }
        if case.phase.is_proven() && case.phase != Phase::Returning {
            self.adopt(case, lead, due);
        }
        match case.phase {
            Phase::Unreachable | Phase::FencePending if alive => self.pending(case, host, lead, due),
            Phase::Fencing if alive => self.fencing(case, host, lead, due),
            Phase::FenceFailed if alive => self.fence_failed(case, host, lead, due),
            Phase::Fenced => {
                // Back before anything was done about its instances: they are started where their disks are.
                let back = self.in_place(case, host, lead) && !host.forced_down;
                if back {
                    Self::go(case, Phase::AwaitReturn, due);
                } else if self.recovers_in_turn(case, host, lead) {
                    Self::go(case, Phase::NovaDown, due);
                }
            }
            Phase::NovaDown => self.nova_down(case, host, lead, due),
            Phase::Planning => self.planning(case, host, lead, due),
            Phase::Evacuating => self.evacuating(case, lead, due),
            Phase::Recovered | Phase::PartiallyRecovered => Self::go(case, Phase::AwaitReturn, due),
            Phase::AwaitReturn => self.await_return(case, host, lead, due),
            Phase::Returning => self.returning(case, host, lead, due),
            _ => {}
        }
    }

    /// Whether what was on a host is started there rather than evacuated: it is back, did not crash before within a
    /// day, and the policy says so, or it was never missed.
    pub(super) fn in_place(&self, case: &Case, host: &Host, lead: &Lead<'_>) -> bool {
        let asked = case.cause == Cause::Rebooted || policy::of(lead.tables, host).in_place;
        asked && host.is_open() && self.crashes(host, lead) < crate::ha::reentry::CRASHES
    }

    fn pending(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        self.read_power(host, pace::POWER, lead, due);
        if let Some(reads) = self.off_twice(host, lead) {
            let evidence = Evidence::PowerOff(reads);
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
        if self.prove_by_lease(host, lead, due) {
            return;
        }
        let opinion = self.liveness.opinion(host, self.leader, lead.now);
        let operator = case.cause == Cause::Operator;
        // A case that a former leader opened and that nothing was done in is watched anew.
        let isolated = case.cause == Cause::Isolated && host.belief.detection == Detection::Isolated;
        let own = (isolated || host.belief.detection == Detection::Unreachable) && host.belief.by == self.leader;
        if opinion.detection == Detection::Alive || !operator && !own && case.cause != Cause::PowerOff {
            Self::go(case, Phase::Cleared, due);
            return;
        }
        // In a dry run it waits on purpose.
        let acts = lead.mode(Some(host.id)) == policy::Mode::Enforce;
        if acts && lead.clock > case.since.saturating_add(pace::WAITS) {
            self.ask(
                case,
                "it waits to be fenced: look at its BMC and at the breakers, or confirm its death".to_owned(),
                due,
            );
        }
        if !own && !operator {
            return;
        }
        if case.phase == Phase::Unreachable {
            if case.held(Act::Kill).is_none() && lead.ha().paused(Act::Kill) <= lead.clock {
                Self::go(case, Phase::FencePending, due);
            }
            return;
        }
        self.fence(case, host, 0, lead, due);
    }

    /// An intent at the first level from one on that is a BMC's, once that has said who it is.
    fn fence(&mut self, case: &Case, host: &Host, from: usize, lead: &Lead<'_>, due: &mut Vec<Due>) {
        // Heard again, if only just now: whatever is believed still, it is not fenced.
        let silent = self.stays_silent(case, host, lead);
        let facts = self.hosts.entry(host.id).or_default();
        let Some((at, read)) = facts.reads.back() else { return };
        // One read that says off: the second is on its way, and nothing need be sent.
        let fresh = lead.now <= at + pace::IDENTITY && read.power != Power::Off;
        let now = lead.clock;
        let hindered = !silent
            || case.held(Act::Kill).is_some()
            || lead.ha().paused(Act::Kill) > now
            || host.exempt > now
            || host.maintenance == Maintenance::Manual
            || lead.ha().stops_kill(host, now).is_some();
        let Some((level, fencer)) = host.level(from) else { return };
        let machine = read.machine.clone();
        let again = facts.intended.is_none_or(|at| lead.now >= at + pace::INTEND);
        // What is not done takes no turn from what is.
        let acts = || lead.mode(Some(host.id)) == policy::Mode::Enforce;
        if fresh && again && !hindered && (!acts() || self.takes_turn(case, host, lead)) {
            self.hosts.entry(host.id).or_default().intended = Some(lead.now);
            due.push(Due::Propose(Change::FenceIntent {
                case: case.id,
                level: level as u8,
                fencer,
                op: self.name(host.id.0, case, "fence", u64::from(case.fences) + 1),
                machine,
                voters: lead.voters.to_vec(),
            }));
        }
    }

    /// Whether nothing is heard of a host that is to be fenced. What was heard since it was believed to be away
    /// begins its watch anew, unless a person ordered the case.
    fn stays_silent(&self, case: &Case, host: &Host, lead: &Lead<'_>) -> bool {
        let watched = |at| case.cause == Cause::Operator || lead.now >= at + SUSPECT + CONFIRM;
        self.liveness.is_silent(host.id, lead.now) && self.liveness.last(host.id).is_none_or(watched)
    }

    fn fencing(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let Some(op) = case.ops.last() else { return };
        self.read_power(host, pace::FENCING, lead, due);
        if let Some(reads) = self.off_twice(host, lead) {
            if op.outcome.as_ref().is_none_or(|outcome| outcome.power != Power::Off) {
                Self::outcome(case, op, Power::Off, &reads[1].raw, due);
            }
            let evidence = Evidence::FencedOff { op: op.id, reads };
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
        if self.prove_by_lease(host, lead, due) {
            return;
        }
        let silent = self.stays_silent(case, host, lead);
        let facts = self.hosts.entry(host.id).or_default();
        let since = match facts.working {
            Some((known, since)) if known == op.id => since,
            _ => lead.now,
        };
        facts.working = Some((op.id, since));
        if op.by != self.leader {
            // A former leader's: this one reads first, and writes its own intent before it sends anything.
            let read = facts.reads.back().is_some_and(|(at, read)| *at >= since && read.power != Power::Off);
            if read {
                self.fence(case, host, usize::from(op.level), lead, due);
            }
            // Heard again, or nothing can be read: what its leader had begun is not gone on with, and a person is asked.
            if lead.now >= since + pace::GIVE_UP {
                self.hosts.entry(host.id).or_default().failed = Some(lead.now);
                Self::go(case, Phase::FenceFailed, due);
            }
        } else if op.outcome.is_some() || lead.now >= since + pace::GIVE_UP {
            if op.outcome.is_none() {
                let raw = facts.reads.back().map_or("no answer", |(_, read)| &read.raw).to_owned();
                Self::outcome(case, op, Power::Unknown, &raw, due);
            }
            let next = usize::from(op.level) + 1;
            // What stands in the way of the next level for as long again, and a person is asked.
            if host.level(next).is_some() && lead.now < since + 2 * pace::GIVE_UP {
                self.fence(case, host, next, lead, due);
            } else {
                self.hosts.entry(host.id).or_default().failed = Some(lead.now);
                Self::go(case, Phase::FenceFailed, due);
            }
        } else if silent && facts.off.is_none_or(|(sent, at)| sent != op.id || lead.now >= at + pace::AGAIN) {
            // One that is heard between the intent and the call keeps its power, and a person is asked.
            facts.off = Some((op.id, lead.now));
            due.push(Due::Call(Call::PowerOff { host: host.id, barrier: self.barrier(op.id) }));
        }
    }

    /// A lease that has run out is a proof, whatever its BMC says or does not say.
    fn prove_by_lease(&self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) -> bool {
        let Some(evidence) = self.lease_over(host, lead) else { return false };
        let incarnation = host.incarnation;
        due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation, evidence }));
        true
    }

    fn outcome(case: &Case, op: &FenceOp, power: Power, raw: &str, due: &mut Vec<Due>) {
        let outcome = FenceOutcome { power, raw: raw.to_owned(), machine: op.machine.clone(), at: 0 };
        due.push(Due::Propose(Change::FenceOutcome { case: case.id, op: op.id, outcome: Box::new(outcome) }));
    }

    /// Again and again, and a person is asked.
    fn fence_failed(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        self.read_power(host, pace::POWER, lead, due);
        if let Some(reads) = self.off_twice(host, lead) {
            let evidence = match case.ops.last() {
                Some(op) => Evidence::FencedOff { op: op.id, reads },
                None => Evidence::PowerOff(reads),
            };
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
        if self.prove_by_lease(host, lead, due) {
            return;
        }
        if case.needs_operator.is_none() {
            let reason =
                Some(
                "every level of fencing was tried: look at the BMC. Confirm that the host is dead once you have made sure, or \
                 take the case back (abort) if it is heard"
                    .to_owned(),
            );
            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason }));
        }
        let facts = self.hosts.entry(host.id).or_default();
        let since = *facts.failed.get_or_insert(lead.now);
        let wait = pace::ROUNDS[facts.rounds.min(pace::ROUNDS.len() - 1)];
        if lead.now >= since + wait {
            facts.rounds += 1;
            facts.failed = None;
            self.fence(case, host, 0, lead, due);
        }
    }

    /// Forced down first; with the service considered up, disabling makes Nova call the dead host.
    fn nova_down(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let facts = self.hosts.entry(host.id).or_default();
        if host.forced_down && host.disabled {
            // The pace is that of one question; the list is the next.
            facts.asked_nova = 0;
            Self::go(case, Phase::Planning, due);
            return;
        }
        if let Some((forced_down, disabled)) = facts.service
            && (forced_down, disabled && forced_down) != (host.forced_down, host.disabled)
        {
            let disabled = disabled && forced_down;
            // Said once: when it is lost later it must be set and read again.
            (facts.service, facts.asked_nova) = (None, 0);
            due.push(Due::Propose(Change::NovaMark { host: host.id, forced_down, disabled }));
            return;
        }
        if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA || facts.service.is_some() {
            facts.asked_nova = lead.now.max(1);
            facts.service = None;
            let (host, barrier, marked) = (host.id, self.barrier(case.mark()), host.forced_down);
            let call = if marked { Call::Disable { host, barrier } } else { Call::ForceDown { host, barrier } };
            due.push(Due::Call(call));
        }
    }
}
