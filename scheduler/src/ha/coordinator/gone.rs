//! Permits of instances that were deleted: without an end of them a host collects all that it ever had.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Coordinator, Due, Lead, pace};
use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::ha::order::Change;

/// Between two looks for them, and between two questions about one that Nova has, milliseconds.
const EVERY: (u64, u64) = (60_000, 600_000);
/// That are looked into at once.
const MOST: usize = 32;

/// What is looked into, and what Nova turned out to have; when.
#[derive(Clone, Debug, Default)]
pub(super) struct Gone {
    next: u64,
    open: Vec<Uuid>,
    there: BTreeMap<Uuid, u64>,
}

impl Gone {
    /// Whether one is looked into.
    pub(super) fn asks(&self, instance: Uuid) -> bool {
        self.open.contains(&instance)
    }
}

impl Coordinator {
    /// What no host reports any more, Nova does not know (twice, 10 s apart), and the agent of its host does not list, is
    /// permitted nowhere from now on.
    pub(super) fn let_go(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        if lead.now >= self.gone.next {
            self.gone.next = lead.now + EVERY.0;
            self.gone.there.retain(|_, at| lead.now < *at + EVERY.1);
            let there = &self.gone.there;
            let open = ha.permits.iter().filter(|permit| {
                let unknown = lead.tables.consumer(Domain::Nova, permit.instance, Purpose::Instance).is_none();
                unknown && !there.contains_key(&permit.instance) && ha.may_end(permit.instance, permit.life)
            });
            self.gone.open = open.map(|permit| permit.instance).take(MOST).collect();
        }
        for instance in self.gone.open.clone() {
            let Some(life) = ha.permits.get(instance).map(|permit| permit.life) else { continue };
            let facts = self.instances.entry(instance).or_default();
            if facts.read.is_some() {
                self.gone.there.insert(instance, lead.now);
                self.gone.open.retain(|open| *open != instance);
                continue;
            }
            let Some(since) = facts.missing.filter(|since| lead.now >= since + pace::VANISHED) else {
                super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
                continue;
            };
            let since = lead.clock.saturating_sub(lead.now - since);
            if let Some(at) = self.without(life.host, instance, since, lead, due) {
                due.push(Due::Propose(Change::PermitEnd { instance, life, at }));
            }
        }
    }
}
