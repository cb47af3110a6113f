//! Planning a case: what Nova lists there, a target for each, and when that is done.

use super::{Call, Coordinator, Due, Lead, pace, source_of};
use crate::ha::case::{Case, Phase};
use crate::ha::host::Host;
use crate::ha::order::Change;
use crate::ha::planner;
use crate::ha::recovery::{Recovery, Status};

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
            let all = of_case().all(|recovery| !matches!(recovery.status, Status::Stays(_)));
            Self::go(case, if all { Phase::Recovered } else { Phase::PartiallyRecovered }, due);
            return;
        }
        self.clear_failed(case, lead, due);
        let returns = self.in_place(case, host, lead);
        let groups = self.groups(lead, due);
        let facts = self.hosts.entry(host.id).or_default();
        let listed = facts.servers.as_ref().filter(|(at, _)| lead.now <= at + pace::REPLAN);
        let Some((_, servers)) = listed else {
            if facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA {
                facts.asked_nova = lead.now.max(1);
                due.push(Due::Call(Call::ListServers(host.id)));
            }
            return;
        };
        let Some(groups) = groups else { return };
        let every = if unplanned { pace::NOVA } else { pace::REPLAN };
        // One plan in a step: the next one sees what it claims, and which of a group went where.
        let another = |due: &Due| matches!(due, Due::Propose(Change::CommitPlan { .. }));
        if (facts.planned == 0 || lead.now >= facts.planned + every) && !due.iter().any(another) {
            let told = planner::Told { servers, groups: &groups, returns };
            let assignments = planner::plan(lead.tables, case, told, lead.targets);
            facts.planned = lead.now.max(1);
            if waits {
                // What found a place is on its way, and the case with it.
                let reason = "instances wait, and no host takes them: look at the case, make room, or let it come back";
                self.ask_late(case, lead, due, reason);
            }
            if !assignments.is_empty() || case.plans == 0 {
                due.push(Due::Propose(Change::CommitPlan { case: case.id, assignments }));
            } else {
                let reason = "what is left of it is on its way for another case: see what keeps that";
                self.ask_late(case, lead, due, reason);
            }
        }
    }
}
