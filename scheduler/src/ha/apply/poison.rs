//! Guests that were on hosts that died one after another.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::ha::case::Phase;
use crate::ha::note::{What, Who};
use crate::ha::order::Done;
use crate::ha::recovery::{Life, Recovery, Status, Stays, Waiting};
use crate::ha::table::DEATHS;

impl Cx<'_> {
    /// Counts that an instance ran in that life until it was proven over; why it is kept from another host, if it is.
    pub(super) fn count_death(&mut self, instance: Uuid, life: Life) -> Option<Stays> {
        let deaths = self.ha().deaths_with(instance, life, self.epoch(), self.now())?;
        let stays = deaths.stays();
        // What finds no room is not counted: that an instance comes back goes before.
        if self.ha().deaths.get(instance).is_some() || self.ha().deaths.len() < DEATHS {
            self.ha_mut().deaths.put(deaths);
        }
        stays
    }

    /// What is too long ago, and of instances that are gone.
    pub(super) fn forget_deaths(&mut self) {
        let now = self.now();
        let gone = self.ha().deaths.iter();
        let gone = gone.filter(|known| known.is_over(now) || self.ha().permits.get(known.instance).is_none());
        let gone: Vec<_> = gone.map(|known| known.instance).collect();
        for instance in gone {
            self.ha_mut().deaths.remove(instance);
        }
    }

    /// A person lets one go: what was counted is forgotten. In an open case of a dead host it is planned like any other;
    /// where its host is back a person starts it.
    pub(super) fn guest_quarantine_end(&mut self, instance: Uuid) -> Result {
        if !self.ha().is_poison(instance) {
            return Err(invalid("instance", &instance.to_string(), "one in quarantine: `pallium ctl ha` lists them"));
        }
        self.ha_mut().deaths.remove(instance);
        let stays = [Status::Stays(Stays::PoisonGuest), Status::Stays(Stays::PostcopySplit)];
        let Some(recovery) = self.ha().recoveries.get(instance).filter(|known| stays.contains(&known.status)) else {
            return Ok(Done::Changed);
        };
        let id = recovery.case;
        let left = self.ha().permits.get(instance).is_some_and(|permit| permit.life == recovery.source());
        let status = if left { Status::Waiting(Waiting::Replan) } else { Status::Stays(Stays::Returns) };
        let recovery = Recovery { status, ..Recovery::clone(recovery) };
        self.ha_mut().recoveries.put(Arc::new(recovery));
        let away =
            self.ha().hosts.get(id.host).is_some_and(|host| !host.is_open() && host.forced_down && host.disabled);
        let step = self.step(Phase::Planning);
        if let Some(case) = self.ha_mut().case_mut(id.host)
            && left
            && away
            && matches!(case.phase, Phase::PartiallyRecovered | Phase::AwaitReturn)
        {
            case.enter(step);
        }
        let who = Who { name: self.order.actor.name.clone(), reason: self.order.actor.reason.clone(), until: 0 };
        self.write(id.host, Some(who), What::Ordered(format!("lets instance {instance} go")));
        Ok(Done::Changed)
    }
}
