//! What befell single guests of hosts that live. Agents tell it as long as it is so; it is recorded once, and no case comes
//! of it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Coordinator, Due, GUESTS, Lead, pace};
use crate::ha::host::HostId;
use crate::ha::order::Change;
use crate::ha::recovery::{Life, VmState};
use crate::ha::trouble::Kind;

/// Who, where, what.
pub(super) type Told = (Uuid, HostId, Kind);

/// How far one is looked into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// When it was told first, by the leader's clock.
    since: Option<u64>,
    /// Nothing more is to be found out.
    pub done: bool,
}

impl Coordinator {
    pub(super) fn troubled(&mut self, told: Vec<(HostId, Uuid, Kind)>) {
        let told: BTreeSet<_> =
            told.into_iter().take(GUESTS).map(|(host, instance, kind)| (instance, host, kind)).collect();
        self.troubles.retain(|known, _| told.contains(known));
        for one in told {
            self.troubles.entry(one).or_default();
        }
    }

    pub(super) fn look_into_troubles(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let open: Vec<_> =
            self.troubles.iter().filter(|(_, look)| !look.done).map(|(one, look)| (*one, *look)).collect();
        for ((instance, id, kind), look) in open {
            let since = look.since.unwrap_or(lead.now);
            let host = lead.ha().hosts.get(id).filter(|host| host.enabled && host.is_open());
            let life = host.map(|host| Life { host: id, incarnation: host.incarnation });
            let done = match life.filter(|_| lead.ha().permits.get(instance).is_some()) {
                None => true,
                Some(life) if kind == Kind::Destroyed => self.destroyed(instance, life, since, lead, due),
                Some(life) => Self::record(instance, life, kind, lead, due),
            };
            self.troubles.insert((instance, id, kind), Look { since: Some(since), done });
        }
    }

    /// Whether it is recorded.
    fn record(instance: Uuid, life: Life, kind: Kind, lead: &Lead<'_>, due: &mut Vec<Due>) -> bool {
        let told = lead.ha().is_told(instance, life, kind, lead.clock);
        if !told {
            due.push(Due::Propose(Change::GuestTrouble { instance, life, kind }));
        }
        told
    }

    /// Nova destroys guests too, and says so before it does or within half a minute after. Whether all is known of it.
    fn destroyed(&mut self, instance: Uuid, life: Life, since: u64, lead: &Lead<'_>, due: &mut Vec<Due>) -> bool {
        let here = lead.ha().permits.get(instance).is_some_and(|permit| permit.life == life);
        // What failover itself is doing with it destroys guests as well.
        let ours = lead.ha().restarts.get(instance).is_some_and(|known| known.well.is_none())
            || lead.ha().moves.get(instance).is_some_and(|known| known.is_live());
        if !here || ours || lead.ha().cases.get(life.host).is_some() {
            return true;
        }
        if lead.now < since + pace::UNASKED {
            return false;
        }
        let facts = self.instances.entry(instance).or_default();
        if facts.missing.is_some() {
            return true;
        }
        let fresh = facts.read.as_ref().filter(|(at, ..)| *at >= since + pace::UNASKED);
        let Some((_, read, _)) = fresh else {
            super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
            return false;
        };
        if read.host != life.host || read.now.vm != VmState::Active || read.now.task || read.moving {
            return true;
        }
        let starts = super::restart::is_wanted(read, lead);
        let recorded = Self::record(instance, life, Kind::Destroyed, lead, due);
        if recorded && starts {
            // From here on it is as one that crashed.
            self.stopped(life.host, instance);
        }
        recorded
    }
}
