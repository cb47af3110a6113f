//! Notes for people, written with the change that they are of.

use std::sync::Arc;

use super::Cx;
use crate::ha::case::CaseId;
use crate::ha::host::{Detection, HostId};
use crate::ha::note::{self, Note, ORDERS, Ordered, What, Who};
use crate::ha::order::{Change, Done};

impl Cx<'_> {
    /// In the open case of a host, if there is one.
    pub(super) fn note(&mut self, host: HostId, what: What) {
        self.write(host, None, what);
    }

    pub(super) fn write(&mut self, host: HostId, who: Option<Who>, what: What) {
        let (at, wall, by) = (self.now(), self.state.tables.counters.wall, self.order.leader);
        if let Some(case) = self.ha_mut().case_mut(host) {
            case.note(Note { at, wall, by, who, what });
        }
    }

    /// What led to a case: what was seen of its life since it was believed to be alive.
    pub(super) fn note_seen(&mut self, id: CaseId) {
        let Some(host) = self.ha().hosts.get(id.host) else { return };
        let seen = host.seen.iter().rev();
        let seen = seen.take_while(|seen| seen.life == id.incarnation && seen.detection != Detection::Alive);
        let mut seen: Vec<_> = seen.copied().collect();
        seen.reverse();
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            for seen in seen {
                case.note(Note { at: seen.at, wall: seen.wall, by: seen.by, who: None, what: What::Seen(seen) });
            }
        }
    }

    /// What a person ordered, in the case of its host.
    pub(super) fn note_order(&mut self) {
        let order = self.order;
        let Some((Some(host), what, until)) = note::of(&order.change).filter(|_| self.is_operator()) else { return };
        let who = Who { name: order.actor.name.clone(), reason: order.actor.reason.clone(), until };
        self.write(host, Some(who), What::Ordered(what));
    }

    /// After an order was done.
    pub(super) fn noted(&mut self, done: &Done) {
        if let Done::Planned { planned, waiting, stays } = *done
            && let Change::CommitPlan { case, .. } = &self.order.change
        {
            self.note(case.host, What::Planned { planned, waiting, stays });
        }
        if !self.is_operator() || *done == Done::Unchanged {
            return;
        }
        let Some((host, what, until)) = note::of(&self.order.change) else { return };
        if !matches!(self.order.change, Change::CaseAbort { .. }) {
            self.note_order();
        }
        let (at, wall, by, actor) = (self.now(), self.state.tables.counters.wall, self.order.leader, &self.order.actor);
        let who = Who { name: actor.name.clone(), reason: actor.reason.clone(), until };
        let orders = Arc::make_mut(&mut self.ha_mut().small_mut().orders);
        if orders.len() >= ORDERS {
            orders.remove(0);
        }
        orders.push(Ordered { at, wall, by, who, host, what });
    }
}
