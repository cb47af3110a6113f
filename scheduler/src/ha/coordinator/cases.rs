//! Cases, phase by phase: quarantine, fence, prove, force down, disable, plan, evacuate.

use super::{Call, Coordinator, Due, Lead, pace, source_of};
use crate::ha::case::{Act, Case, FenceOp, FenceOutcome, Phase};
use crate::ha::host::{Detection, Fencer, Host};
use crate::ha::order::Change;
use crate::ha::planner;
use crate::ha::proof::{Evidence, Power};
use crate::ha::recovery::Status;

impl Coordinator {
    pub(super) fn case(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let alive = host.is_open() && host.incarnation == case.id.incarnation;
        self.facts(host);
        // What a person was asked for has come about by itself.
        let solved = matches!(case.phase, Phase::Fenced | Phase::Recovered) && case.held_recover.is_none();
        if solved && case.needs_operator.is_some() {
            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason: None }));
        }
        match case.phase {
            Phase::Unreachable | Phase::FencePending if alive => self.pending(case, host, lead, due),
            Phase::Fencing if alive => self.fencing(case, host, lead, due),
            Phase::FenceFailed if alive => self.fence_failed(case, host, lead, due),
            Phase::Fenced => Self::go(case, Phase::NovaDown, due),
            Phase::NovaDown => self.nova_down(case, host, lead, due),
            Phase::Planning => self.planning(case, host, lead, due),
            Phase::Evacuating => self.evacuating(case, lead, due),
            Phase::Recovered | Phase::PartiallyRecovered => Self::go(case, Phase::AwaitReturn, due),
            _ => {}
        }
    }

    fn pending(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        self.read_power(host, pace::POWER, lead, due);
        if let Some(reads) = self.off_twice(host) {
            let evidence = Evidence::PowerOff(reads);
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
        let opinion = self.liveness.opinion(host, self.leader, lead.now);
        let operator = case.cause == crate::ha::case::Cause::Operator;
        // A case that a former leader opened and that nothing was done in is watched anew.
        let own = host.belief.detection == Detection::Unreachable && host.belief.by == self.leader;
        if opinion.detection == Detection::Alive || !operator && !own && case.cause != crate::ha::case::Cause::PowerOff
        {
            Self::go(case, Phase::Cleared, due);
            return;
        }
        if !own && !operator {
            return;
        }
        if case.phase == Phase::Unreachable {
            Self::go(case, Phase::FencePending, due);
            return;
        }
        self.fence(case, host, 0, lead, due);
    }

    /// An intent at a level, once the BMC has said who it is.
    fn fence(&mut self, case: &Case, host: &Host, level: usize, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let facts = self.hosts.entry(host.id).or_default();
        let Some((at, read)) = facts.reads.back() else { return };
        // One read that says off: the second is on its way, and nothing need be sent.
        let fresh = lead.now <= at + pace::IDENTITY && read.power != Power::Off;
        let now = lead.clock;
        let hindered = case.held(Act::Kill).is_some()
            || lead.ha().paused(Act::Kill) > now
            || host.exempt > now
            || lead.ha().stops_kill(host, now).is_some();
        let Some(&fencer) = host.fencers.get(level) else { return };
        let machine = read.machine.clone();
        let by_bmc = matches!(fencer, Fencer::Redfish | Fencer::Ipmi);
        if fresh && !hindered && by_bmc && self.takes_turn(case, host, lead) {
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

    fn fencing(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let Some(op) = case.ops.last() else { return };
        self.read_power(host, pace::FENCING, lead, due);
        if let Some(reads) = self.off_twice(host) {
            if op.outcome.as_ref().is_none_or(|outcome| outcome.power != Power::Off) {
                Self::outcome(case, op, Power::Off, &reads[1].raw, due);
            }
            let evidence = Evidence::FencedOff { op: op.id, reads };
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
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
        } else if op.outcome.is_some() || lead.now >= since + pace::GIVE_UP {
            if op.outcome.is_none() {
                let raw = facts.reads.back().map_or("no answer", |(_, read)| &read.raw).to_owned();
                Self::outcome(case, op, Power::Unknown, &raw, due);
            }
            let by_bmc = |fencer: &Fencer| matches!(fencer, Fencer::Redfish | Fencer::Ipmi);
            let next = usize::from(op.level) + 1;
            if host.fencers.get(next).is_some_and(by_bmc) {
                self.fence(case, host, next, lead, due);
            } else {
                self.hosts.entry(host.id).or_default().failed = Some(lead.now);
                Self::go(case, Phase::FenceFailed, due);
            }
        } else if facts.off.is_none_or(|(sent, at)| sent != op.id || lead.now >= at + pace::AGAIN) {
            facts.off = Some((op.id, lead.now));
            due.push(Due::Call(Call::PowerOff { host: host.id, barrier: self.barrier(op.id) }));
        }
    }

    fn outcome(case: &Case, op: &FenceOp, power: Power, raw: &str, due: &mut Vec<Due>) {
        let outcome = FenceOutcome { power, raw: raw.to_owned(), machine: op.machine.clone(), at: 0 };
        due.push(Due::Propose(Change::FenceOutcome { case: case.id, op: op.id, outcome: Box::new(outcome) }));
    }

    /// Again and again, and a person is asked.
    fn fence_failed(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        self.read_power(host, pace::POWER, lead, due);
        if let Some(reads) = self.off_twice(host) {
            let evidence = match case.ops.last() {
                Some(op) => Evidence::FencedOff { op: op.id, reads },
                None => Evidence::PowerOff(reads),
            };
            due.push(Due::Propose(Change::DeathProof { host: host.id, incarnation: host.incarnation, evidence }));
            return;
        }
        if case.needs_operator.is_none() {
            let reason =
                Some("every level of fencing was tried: look at the BMC, or confirm that the host is dead".to_owned());
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
        if host.forced_down && host.disabled {
            Self::go(case, Phase::Planning, due);
            return;
        }
        let facts = self.hosts.entry(host.id).or_default();
        if let Some((forced_down, disabled)) = facts.service
            && (forced_down, disabled && forced_down) != (host.forced_down, host.disabled)
        {
            let disabled = disabled && forced_down;
            // Said once: when it is lost later it must be set and read again.
            facts.service = None;
            due.push(Due::Propose(Change::NovaMark { host: host.id, forced_down, disabled }));
            return;
        }
        if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA || facts.service.is_some() {
            facts.asked_nova = lead.now.max(1);
            facts.service = None;
            let call = if host.forced_down { Call::Disable(host.id) } else { Call::ForceDown(host.id) };
            due.push(Due::Call(call));
        }
    }

    fn planning(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let of_case = || lead.ha().recoveries.iter().filter(|recovery| recovery.case == case.id);
        let source = source_of(case);
        let planned = of_case().any(|recovery| recovery.status == Status::Planned);
        if planned || of_case().any(|recovery| recovery.live().is_some()) {
            Self::go(case, Phase::Evacuating, due);
            return;
        }
        let unplanned = lead.ha().permits.iter().any(|permit| {
            permit.life == source && lead.ha().recoveries.get(permit.instance).is_none_or(|r| r.case != case.id)
        });
        let waits = of_case().any(|recovery| !recovery.status.is_settled());
        if case.plans > 0 && !unplanned && !waits {
            let all = of_case().all(|recovery| !matches!(recovery.status, Status::Stays(_)));
            Self::go(case, if all { Phase::Recovered } else { Phase::PartiallyRecovered }, due);
            return;
        }
        self.clear_failed(case, lead, due);
        let facts = self.hosts.entry(host.id).or_default();
        let listed = facts.servers.as_ref().filter(|(at, _)| lead.now <= at + pace::REPLAN);
        let Some((_, servers)) = listed else {
            if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA {
                facts.asked_nova = lead.now.max(1);
                due.push(Due::Call(Call::ListServers(host.id)));
            }
            return;
        };
        if unplanned || facts.planned == 0 || lead.now >= facts.planned + pace::REPLAN {
            let assignments = planner::plan(lead.tables, case, servers, lead.targets);
            facts.planned = lead.now.max(1);
            due.push(Due::Propose(Change::CommitPlan { case: case.id, assignments }));
        }
    }
}
