//! Planning a case: what Nova lists there, a target for each, and when that is done.

use super::{Call, Coordinator, Due, Lead, pace, source_of};
use crate::ha::case::{Case, CaseId, Phase};
use crate::ha::host::Host;
use crate::ha::order::{Change, To};
use crate::ha::planner;
use crate::ha::recovery::{Recovery, Status};

/// A case in a step in which plans may be made.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    case: CaseId,
    turn: Turn,
    returns: bool,
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It is to be planned now.
    Due,
    /// It was planned lately, and is planned with those that are due.
    Joins,
    /// What Nova lists there is on its way: the others wait for it for a moment.
    Awaited,
}

impl Coordinator {
    pub(super) fn planning(&mut self, case: &Case, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let of_case = || lead.ha().recoveries.iter().filter(|recovery| recovery.case == case.id);
        let source = source_of(case);
        let stands = |recovery: &Recovery| planner::stands(lead.tables, recovery);
        let planned = of_case().any(|recovery| recovery.status == Status::Planned && stands(recovery));
        if planned || of_case().any(|recovery| recovery.live().is_some()) {
            Self::go(case, Phase::Evacuating, due);
            return;
        }
        let unplanned = lead.ha().permits.iter().any(|permit| {
            permit.life == source && lead.ha().recoveries.get(permit.instance).is_none_or(|r| r.case != case.id)
        });
        let waits = of_case().any(|recovery| !recovery.status.is_settled());
        if case.plans > 0 && !unplanned && !waits {
            if self.permits_follow_the_dead(case, lead, due) {
                return;
            }
            let all = of_case().all(|recovery| !matches!(recovery.status, Status::Stays(_)));
            Self::go(case, if all { Phase::Recovered } else { Phase::PartiallyRecovered }, due);
            return;
        }
        self.clear_failed(case, lead, due);
        let returns = self.in_place(case, host, lead);
        let groups = self.groups(lead, due);
        let facts = self.hosts.entry(host.id).or_default();
        let listed = facts.servers.as_ref().is_some_and(|(at, _)| lead.now <= at + pace::REPLAN);
        if !listed {
            if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA {
                facts.asked_nova = lead.now.max(1);
                due.push(Due::Call(Call::ListServers(host.id)));
            }
            let late = lead.now >= facts.asked_nova + pace::TOGETHER;
            if !late {
                self.ready.push(Ready { case: case.id, turn: Turn::Awaited, returns, waits });
            }
            return;
        }
        if groups.is_none() {
            return;
        }
        let every = if unplanned { pace::NOVA } else { pace::REPLAN };
        let turn = if facts.planned == 0 || lead.now >= facts.planned + every { Turn::Due } else { Turn::Joins };
        self.ready.push(Ready { case: case.id, turn, returns, waits });
    }

    /// One plan for all cases that are to be planned: who comes first is asked of all their instances together.
    pub(super) fn plan(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ready = std::mem::take(&mut self.ready);
        let awaits = ready.iter().any(|ready| ready.turn == Turn::Awaited);
        if awaits || !ready.iter().any(|ready| ready.turn == Turn::Due) {
            return;
        }
        let Some((_, groups)) = self.groups.clone() else { return };
        let told = ready.iter().filter_map(|ready| {
            let (_, servers) = self.hosts.get(&ready.case.host)?.servers.as_ref()?;
            let case = lead.ha().cases.get(ready.case.host)?;
            Some(planner::Told { case, servers, returns: ready.returns })
        });
        let told: Vec<_> = told.collect();
        let plans = planner::plan(lead.tables, &told, &groups, lead.targets);
        for (case, assignments) in plans {
            let Some(ready) = ready.iter().find(|ready| ready.case == case) else { continue };
            let Some(known) = lead.ha().cases.get(case.host) else { continue };
            let found = assignments.iter().any(|assignment| matches!(assignment.to, To::Target(_)));
            if ready.turn == Turn::Joins && !found {
                // Nothing is new of it.
                continue;
            }
            self.hosts.entry(case.host).or_default().planned = lead.now.max(1);
            if ready.waits {
                // What found a place is on its way, and the case with it.
                let reason = "instances wait, and no host takes them: look at the case, make room, or let it come back";
                self.ask_late(known, lead, due, reason);
            }
            if !assignments.is_empty() || known.plans == 0 {
                due.push(Due::Propose(Change::CommitPlan { case, assignments }));
            } else {
                let reason = "what is left of it is on its way for another case: see what keeps that";
                self.ask_late(known, lead, due, reason);
            }
        }
    }
}
