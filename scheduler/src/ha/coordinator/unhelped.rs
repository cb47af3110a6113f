//! Guests that three restarts did not help, and that want to be moved then: once, by Nova's cold migration, to a place as a
//! drain finds one. Their permits follow as those of what persons move (`follow`): the target's check lets nothing begin
//! before the former host was seen without it.

use super::{Answer, Call, Coordinator, Due, Lead, pace};
use crate::ha::order::{Change, NovaRead};
use crate::ha::planner::{self, Asks};
use crate::ha::recovery::{Life, VmState};
use crate::ha::restart::Restart;

/// Moves of that kind at once.
const MOST_MOVES: usize = 4;

impl Coordinator {
    /// Those that are to be moved. What is in the way for ten minutes, or will stay, ends it.
    pub(super) fn move_unhelped(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        let under_way = ha.restarts.iter().filter(|known| known.well.is_none() && known.to.is_some()).count();
        let failed: Vec<_> = ha.restarts.iter().filter(|known| known.is_to_move()).copied().collect();
        for known in failed.into_iter().take(MOST_MOVES.saturating_sub(under_way)) {
            if known.rests(lead.clock) {
                continue;
            }
            let here = ha.permits.get(known.instance).is_some_and(|permit| permit.life == known.life);
            let lives = ha.lives(known.life) && ha.cases.get(known.life.host).is_none();
            let may = known.is_young(lead.clock) && here && lives && !ha.is_poison(known.instance);
            let outcome = if may { self.look_for_place(known, lead, due) } else { Some(false) };
            if let Some(well) = outcome {
                due.push(Due::Propose(Change::RestartOutcome { instance: known.instance, op: known.op, well }));
            }
        }
    }

    /// The intent to move one, once its host was seen without it, Nova has said how it stands and a place is found. What it
    /// came to when it is not moved.
    fn look_for_place(&mut self, known: Restart, lead: &Lead<'_>, due: &mut Vec<Due>) -> Option<bool> {
        let Restart { instance, life, .. } = known;
        let host = lead.ha().hosts.get(life.host)?;
        if self.yields(host, lead) {
            return None;
        }
        let list = self.hosts.get(&life.host).and_then(|facts| facts.domains.as_ref());
        let Some(list) = list.filter(|list| list.at > known.over) else {
            self.list(life.host, lead, due);
            return None;
        };
        // The last start took longer than it was waited for.
        if list.running.contains(&instance) {
            return Some(true);
        }
        let nova = self.read_now(known, lead, due)?;
        if nova.host != life.host || nova.now.vm != VmState::Active || lead.targets.stays(instance).is_some() {
            return Some(false);
        }
        if nova.now.task || nova.moving || !nova.sentinel {
            return None;
        }
        let groups = self.groups(lead, due)?;
        let asks = Asks::default();
        let placed = planner::Placed { instance, source: life, asks: &asks, excluded: Vec::new() };
        let Some(Ok(to)) = planner::places(lead.tables, &[placed], &groups, lead.targets).pop() else {
            return Some(false);
        };
        self.restart(instance, life, Some(to), nova, lead, due);
        None
    }

    /// What Nova says of it now. It is left for those who wait for it as well: its permit is to follow.
    fn read_now(&mut self, known: Restart, lead: &Lead<'_>, due: &mut Vec<Due>) -> Option<NovaRead> {
        let facts = self.instances.entry(known.instance).or_default();
        let read = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ).map(|(_, nova, _)| nova.clone());
        if read.is_none() {
            super::evacuation::read_server(facts, known.instance, pace::NOVA, lead, due);
        }
        read
    }

    /// Called once by the leader of the intent; then Nova says what becomes of it. Where it has arrived and runs, Nova keeps
    /// both places until somebody says that it may stay.
    pub(super) fn follow_unhelped(&mut self, known: Restart, to: Life, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let Restart { instance, life, op, .. } = known;
        let Some(nova) = self.read_now(known, lead, due).filter(|nova| nova.sentinel) else { return };
        let (own, barrier) = (known.by == self.leader, self.barrier(op));
        let permit = lead.ha().permits.get(instance).map(|permit| permit.life);
        let runs = permit.is_some_and(|permit| permit.host == to.host && lead.ha().takes(permit));
        let facts = self.instances.entry(instance).or_default();
        let sent = facts.sent.filter(|(sent, _)| *sent == op).map(|(_, at)| at);
        let refused = matches!(facts.answer, Some((of, Answer::Refused { .. })) if of == op);
        let rests = !nova.moving && !nova.now.task;
        let late = lead.clock > known.at.saturating_add(pace::HORIZON);
        let outcome = |well| Due::Propose(Change::RestartOutcome { instance, op, well });
        if nova.host == life.host && rests {
            if own && sent.is_none() {
                facts.sent = Some((op, lead.now));
                due.push(Due::Call(Call::MoveUnhelped { instance, host: life.host, target: to.host, barrier }));
            } else if refused || late {
                due.push(outcome(false));
            } else if !own {
                self.restart(instance, life, Some(to), nova, lead, due);
            }
        } else if nova.host == to.host && nova.moving && !nova.now.task && runs {
            if own && sent.is_some_and(|at| lead.now < at + pace::DEADLINE) {
                // It has just been said, or called.
            } else if own {
                facts.sent = Some((op, lead.now));
                due.push(Due::Call(Call::Confirm { instance, barrier }));
            } else {
                self.restart(instance, life, Some(to), nova, lead, due);
            }
        } else if rests && nova.host == to.host && runs {
            due.push(outcome(true));
        } else if rests && (nova.host != to.host || nova.now.vm == VmState::Error) {
            // Failed on its way, or moved on by somebody else: a person must look.
            due.push(outcome(false));
        }
    }
}
