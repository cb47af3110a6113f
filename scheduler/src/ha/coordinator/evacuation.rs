//! Attempts: one call for each instance, and what became of it read until it is known.

use std::sync::Arc;

use uuid::Uuid;

use super::{Answer, Call, Coordinator, Due, FROM_CELL, InstanceFacts, Lead, MOST, Migration, PART, pace};
use crate::ha::breaker::Scope;
use crate::ha::case::{Act, Case, CaseId, Phase};
use crate::ha::host::HostId;
use crate::ha::order::{Change, Clear, Ended, NovaRead, PermitCause};
use crate::ha::planner;
use crate::ha::policy;
use crate::ha::recovery::{Attempt, AttemptState, Life, Recovery, Status};

impl Coordinator {
    pub(super) fn evacuating(&mut self, case: &Case, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let of_case: Vec<_> =
            lead.ha().recoveries.iter().filter(|recovery| recovery.case == case.id).cloned().collect();
        // A target that is not what it was, or whose room was given away, takes nothing any more: it is planned anew.
        let fits = |recovery: &Recovery| planner::stands(lead.tables, recovery);
        let busy = |recovery: &Recovery| match recovery.status {
            Status::Planned => fits(recovery),
            status => matches!(status, Status::Evacuating | Status::Stopping(_)),
        };
        if !of_case.iter().any(|recovery| busy(recovery)) {
            // What is settled, what waits and what must be planned again: planning tells them apart.
            Self::go(case, Phase::Planning, due);
            return;
        }
        for recovery in &of_case {
            let Some(attempt) = &recovery.attempt else { continue };
            match (recovery.status, attempt.state) {
                (Status::Stopping(_), _) => self.stop_again(recovery, attempt, lead, due),
                (Status::Evacuating, _) => self.follow(case, recovery, attempt, lead, due),
                _ => {}
            }
        }
    }

    /// What is planned begins in the order of urgency, whichever host it is of: the limits leave the others for later.
    pub(super) fn begin_in_turn(&mut self, cases: &[Arc<Case>], lead: &Lead<'_>, due: &mut Vec<Due>) {
        let of = |id| cases.iter().find(|case| case.id == id && case.phase == Phase::Evacuating);
        let planned = lead.ha().recoveries.iter().filter(|recovery| recovery.status == Status::Planned);
        let mut turns: Vec<_> = planned
            .filter(|recovery| planner::stands(lead.tables, recovery))
            .filter_map(|recovery| Some((of(recovery.case)?, Arc::clone(recovery))))
            .collect();
        turns.sort_by_key(|(_, recovery)| (recovery.rank, recovery.instance));
        let alive = lead.ha().recoveries.iter();
        let mut live: Vec<_> = alive.filter_map(|recovery| Some((recovery.case, recovery.live()?.target))).collect();
        // What is not done takes no room from what is.
        let acts = |host| lead.mode(Some(host)) == policy::Mode::Enforce;
        for (case, recovery) in turns {
            let attempt = recovery.attempt.as_ref().filter(|attempt| attempt.state == AttemptState::Claimed);
            let Some(attempt) = attempt else { continue };
            // A dry run tells of each what it would do.
            let counted = live.iter().filter(|(of, _)| of.host == case.id.host || acts(of.host));
            if !self.may_begin(case, attempt, &counted.copied().collect::<Vec<_>>(), lead) {
                continue;
            }
            let before = due.len();
            self.begin(case, &recovery, attempt, lead, due);
            let begun = due[before..].iter().any(|due| matches!(due, Due::Propose(Change::AttemptIntent { .. })));
            live.extend(begun.then_some((case.id, attempt.target)));
        }
    }

    /// No call while a former leader's may be on its way, or while an operator or a breaker says no.
    pub(super) fn may_call(&self, case: &Case, lead: &Lead<'_>) -> bool {
        let ha = lead.ha();
        let stopped = ha.hosts.get(case.id.host).is_none_or(|host| ha.stops_recover(host).is_some())
            || ha.paused(Act::Recover) > lead.clock
            || case.held(Act::Recover).is_some();
        !stopped && !self.liveness.is_quiet(lead.now)
    }

    /// No new attempt above the limits either: those that are alive count, and those that this step begins.
    fn may_begin(&self, case: &Case, attempt: &Attempt, live: &[(CaseId, Life)], lead: &Lead<'_>) -> bool {
        let cell_of = |host| lead.ha().hosts.get(host).map(|host| host.places.cell);
        let source = live.iter().filter(|(known, _)| *known == case.id).count();
        let target = live.iter().filter(|(_, target)| target.host == attempt.target.host).count();
        let cell = cell_of(case.id.host);
        let in_cell = live.iter().filter(|(known, _)| cell_of(known.host) == cell).count();
        let policy = |host| lead.ha().hosts.get(host).map(|host| policy::of(lead.tables, host)).unwrap_or_default();
        let host = lead.ha().hosts.get(case.id.host);
        let reduced = host.is_some_and(|host| Scope::all_of(host).into_iter().any(|scope| lead.ha().is_reduced(scope)));
        let part = |limit: usize| if reduced { limit.div_ceil(PART) } else { limit };
        let from = part(policy(case.id.host).from_source as usize);
        let to = part(policy(attempt.target.host).to_target as usize);
        let room = live.len() < part(MOST) && in_cell < part(FROM_CELL) && source < from && target < to;
        room && self.may_call(case, lead)
    }

    /// An intent, once Nova has said how the instance stands.
    fn begin(&mut self, case: &Case, recovery: &Recovery, attempt: &Attempt, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let op =
            self.name(recovery.instance, case, "evacuate", u64::from(attempt.number) << 8 | u64::from(attempt.calls));
        let facts = self.instances.entry(recovery.instance).or_default();
        let fresh = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ);
        let Some((_, nova, migrations)) = fresh else {
            read_server(facts, recovery.instance, pace::NOVA, lead, due);
            return;
        };
        let (mut nova, migrations) = (nova.clone(), migrations.clone());
        // What Nova goes on with for ever moves nothing.
        let mut open = migrations.iter().filter(|migration| migration.over.is_none()).peekable();
        nova.moving &= open.peek().is_none() || !open.all(|migration| recovery.abandoned.contains(&migration.id));
        // Proposed again and again, or not even that.
        let since = facts.wanted.filter(|(known, _)| *known == op).map_or(lead.now, |(_, since)| since);
        facts.wanted = Some((op, since));
        if lead.now >= since + pace::STUCK {
            let what = "does not begin: see in Nova where it is, and what is being done with it";
            self.ask(case, format!("the evacuation of instance {} {what}", recovery.instance), due);
        }
        // Somebody else has moved it: where it is found running it stays.
        if nova.host != case.id.host {
            if !nova.moving && nova.sentinel {
                self.found_there(case, recovery.instance, nova.host, lead, due);
            }
            return;
        }
        if !self.arrived_nowhere(case, recovery.instance, &mut nova, lead, due) {
            return;
        }
        let facts = self.instances.entry(recovery.instance).or_default();
        due.push(Due::Propose(Change::AttemptIntent {
            case: case.id,
            instance: recovery.instance,
            number: attempt.number,
            target: attempt.target,
            op,
            nova: Box::new(nova),
        }));
        facts.read = None;
    }

    /// Whether an instance is known not to be where a migration was bringing it when its host died; found running there
    /// it is adopted.
    pub(super) fn arrived_nowhere(
        &mut self,
        case: &Case,
        instance: Uuid,
        nova: &mut NovaRead,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> bool {
        // A drain of ours, or what Nova says of its last live migration.
        let drained = lead.ha().moves.get(instance).filter(|known| known.is_live());
        nova.destination = nova.destination.or(drained.map(|known| (known.to.host, None)));
        let Some((host, None)) = nova.destination else { return true };
        let clear = match last_life(host, lead) {
            Some(life) => Some(Clear::Dead(life)),
            None => match self.found_there(case, instance, host, lead, due) {
                Some((false, at)) => Some(Clear::Absent { at }),
                _ => None,
            },
        };
        nova.destination = Some((host, clear));
        clear.is_some()
    }

    /// After a restore what was called before is read until it is over, and nothing is begun.
    pub(super) fn read_to_the_end(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let open: Vec<_> = lead.ha().recoveries.iter().filter(|known| known.live().is_some()).cloned().collect();
        for recovery in open {
            let case = lead.ha().cases.get(recovery.case.host).filter(|case| case.id == recovery.case).cloned();
            let (Some(case), Some(attempt)) = (case, recovery.live()) else { continue };
            let mut all = Vec::new();
            self.follow(&case, &recovery, attempt, lead, &mut all);
            due.extend(all.into_iter().filter(|due| match due {
                Due::Propose(change) => matches!(change, Change::AttemptObserved { .. } | Change::AttemptEnd { .. }),
                Due::Call(call) => !call.writes(),
            }));
        }
    }

    fn follow(&mut self, case: &Case, recovery: &Recovery, attempt: &Attempt, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let instance = recovery.instance;
        let barrier = self.barrier(attempt.op);
        let own = attempt.by == self.leader;
        let observed = |state| Due::Propose(Change::AttemptObserved { instance, number: attempt.number, state });
        let ended = |ended| Due::Propose(Change::AttemptEnd { instance, number: attempt.number, ended });
        // Nova works at it for ever, or its target died: nothing is sent again, and a person is asked.
        if case.needs_operator.is_none() && lead.clock > attempt.at.saturating_add(pace::STUCK) {
            let reason = format!("the evacuation of instance {instance} is stuck: see what its migration does in Nova");
            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason: Some(reason) }));
        }
        let facts = self.instances.entry(instance).or_default();
        if attempt.state == AttemptState::Intent {
            if !own {
                // Whether its leader sent the call is not known.
                due.push(observed(AttemptState::Ambiguous));
                return;
            }
            match facts.answer.filter(|(op, _)| *op == attempt.op) {
                Some((_, Answer::Taken)) => due.push(observed(AttemptState::Called)),
                Some((_, Answer::Refused { forever })) if attempt.calls <= 1 => {
                    due.push(ended(Ended::Refused { forever }));
                }
                Some((_, Answer::SourceUp)) => {
                    due.push(observed(AttemptState::Ambiguous));
                    let host = case.id.host;
                    due.push(Due::Propose(Change::NovaMark { host, forced_down: false, disabled: false }));
                }
                Some((_, Answer::Unknown | Answer::Refused { .. } | Answer::NotSent)) => {
                    due.push(observed(AttemptState::Ambiguous));
                }
                None => match facts.sent.filter(|(op, _)| *op == attempt.op) {
                    Some((_, at)) if lead.now >= at + pace::DEADLINE + 1_000 => {
                        due.push(observed(AttemptState::Ambiguous));
                    }
                    Some(_) => {}
                    None => {
                        facts.sent = Some((attempt.op, lead.now));
                        due.push(Due::Call(Call::Evacuate { instance, target: attempt.target.host, barrier }));
                    }
                },
            }
            return;
        }
        if let Some(since) = facts.missing {
            if lead.now >= since + pace::VANISHED {
                due.push(ended(Ended::Vanished { sentinel: true }));
                return;
            }
            read_server(facts, instance, pace::NOVA, lead, due);
            return;
        }
        let Some((read_at, nova, migrations)) = facts.read.clone() else {
            read_server(facts, instance, pace::NOVA, lead, due);
            return;
        };
        facts.read = None;
        if !nova.sentinel {
            return;
        }
        // Of what came since, those to another target are somebody else's.
        let own = |migration: &Migration| {
            migration.evacuates.is_some_and(|target| target.is_none_or(|target| target == attempt.target.host))
        };
        let new = migrations.iter().filter(|migration| !attempt.baseline.contains(&migration.id)).copied();
        let (own, others): (Vec<Migration>, Vec<Migration>) = new.partition(own);
        // A call that was sent again may be behind it still.
        let calls = usize::from(attempt.calls);
        let late = own.len() < calls && lead.clock < attempt.at.saturating_add(2 * pace::HORIZON);
        match own.as_slice() {
            [] => {
                let done = others.iter().find(|migration| migration.over == Some(true));
                if let Some(migration) = done.filter(|_| nova.host != case.id.host && !nova.moving) {
                    due.push(ended(Ended::Succeeded { at: nova.host, migration: migration.id }));
                    return;
                }
                let since = facts.traceless(attempt.op, read_at);
                let again = attempt.state == AttemptState::Ambiguous
                    && read_at >= since + pace::HORIZON
                    && nova.host == case.id.host
                    && !nova.moving;
                if again && self.may_call(case, lead) {
                    let facts = self.instances.entry(instance).or_default();
                    facts.traceless = None;
                    facts.read = Some((read_at, nova, migrations));
                    self.begin(case, recovery, attempt, lead, due);
                }
            }
            [migration] => {
                facts.traceless = None;
                match migration.over {
                    None if attempt.state.migration().is_none() => {
                        due.push(observed(AttemptState::Accepted(migration.id)));
                    }
                    Some(true) if nova.host != case.id.host => {
                        due.push(ended(Ended::Succeeded { at: nova.host, migration: migration.id }));
                    }
                    // Its target died over it, and nothing comes of it any more.
                    None if nova.host == case.id.host && died(attempt.target, read_at, lead) => {
                        due.push(ended(Ended::Abandoned { migration: migration.id }));
                    }
                    // Not over; or done, and Nova still names the source: it is about to say otherwise.
                    None | Some(true) => {}
                    Some(false) if late => {}
                    Some(false) => due.push(ended(Ended::Failed { migration: migration.id })),
                }
            }
            // A call that came late, beside the one that was sent again to the same target: what is true is
            // known when all of them are over.
            several => {
                let open = several.iter().filter(|migration| migration.over.is_none()).count();
                let done = several.iter().find(|migration| migration.over == Some(true));
                match done {
                    _ if open > 0 => {
                        let reason =
                            format!("instance {instance} has {open} migrations that are not over: look at Nova");
                        if case.needs_operator.is_none() {
                            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason: Some(reason) }));
                        }
                    }
                    Some(migration) if nova.host != case.id.host => {
                        due.push(ended(Ended::Succeeded { at: nova.host, migration: migration.id }));
                    }
                    Some(_) => {}
                    None if late => {}
                    None => due.push(ended(Ended::Failed { migration: several[0].id })),
                }
            }
        }
    }

    /// It came up running although it was stopped before (a second attempt of one in error does that).
    fn stop_again(&mut self, recovery: &Recovery, attempt: &Attempt, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let instance = recovery.instance;
        let op = Uuid::new_v5(&attempt.op, format!("stop/{}/{}", self.leader, lead.clock / pace::REPLAN).as_bytes());
        let barrier = self.barrier(attempt.op);
        let facts = self.instances.entry(instance).or_default();
        let read = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ).map(|(_, read, _)| read.now);
        let sent = facts.sent.filter(|(sent, _)| *sent == attempt.op);
        match read {
            None => read_server(facts, instance, pace::NOVA, lead, due),
            Some(now) if !now.running => due.push(Due::Propose(Change::Stop { instance, op: attempt.op, done: true })),
            Some(_) if attempt.by == self.leader && facts.stopping == Some(attempt.op) => {
                if sent.is_none_or(|(_, at)| lead.now >= at + pace::REPLAN) {
                    facts.sent = Some((attempt.op, lead.now));
                    due.push(Due::Call(Call::Stop { instance, barrier }));
                }
                facts.read = None;
            }
            Some(_) => {
                facts.stopping = Some(op);
                due.push(Due::Propose(Change::Stop { instance, op, done: false }));
            }
        }
    }

    /// The permit of an instance whose attempt failed goes back once the target is known to be without it.
    pub(super) fn clear_failed(&mut self, case: &Case, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let failed: Vec<_> = lead
            .ha()
            .recoveries
            .iter()
            .filter(|recovery| recovery.case == case.id && !recovery.status.is_settled())
            .filter_map(|recovery| {
                let attempt = recovery.attempt.as_ref().filter(|attempt| attempt.failed.is_some())?;
                let permit = lead.ha().permits.get(recovery.instance)?.life;
                (permit == attempt.target).then(|| (recovery.instance, recovery.source(), attempt.clone()))
            })
            .collect();
        let epoch = lead.tables.counters().epoch;
        for (instance, source, attempt) in failed {
            let facts = self.instances.entry(instance).or_default();
            let target = attempt.target;
            let absent = facts.absent.filter(|(host, at)| *host == target.host && *at > attempt.over);
            let clear = match absent {
                Some((_, at)) => Some(Clear::Absent { at }),
                None => lead.ha().proven(target, epoch).map(|_| Clear::Dead(target)),
            };
            if let Some(clear) = clear {
                let back = PermitCause::AttemptFailed(clear);
                due.push(Due::Propose(Change::PermitMove { instance, from: Some(target), to: source, cause: back }));
            } else if facts.asked == 0 || lead.now >= facts.asked + pace::NOVA {
                facts.asked = lead.now.max(1);
                due.push(Due::Call(Call::ReadDomain { host: target.host, instance }));
            }
        }
    }
}

/// Whether that life was proven over before Nova was read.
fn died(life: Life, read_at: u64, lead: &Lead<'_>) -> bool {
    let read = lead.clock.saturating_sub(lead.now.saturating_sub(read_at));
    lead.ha().proven(life, lead.tables.counters().epoch).is_some_and(|proven| proven < read)
}

/// The life of a host that was proven over last, if it is in none since.
pub(super) fn last_life(host: HostId, lead: &Lead<'_>) -> Option<Life> {
    let dead = lead.ha().hosts.get(host).filter(|there| !there.is_open())?;
    Some(Life { host, incarnation: dead.proofs.first()?.incarnation })
}

pub(super) fn read_server(facts: &mut InstanceFacts, instance: Uuid, every: u64, lead: &Lead<'_>, due: &mut Vec<Due>) {
    if facts.asked == 0 || lead.now >= facts.asked + every {
        facts.asked = lead.now.max(1);
        due.push(Due::Call(Call::ReadServer(instance)));
    }
}
