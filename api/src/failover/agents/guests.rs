//! What a session's agent lists of its guests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::ears::{Domains, Order};
use scheduler::ha::liveness::Stall;
use scheduler::ha::trouble;

use super::{INSTANCES, Session, uuid};
use crate::error::ApiError;
use crate::proto::ha;

/// That a guest was destroyed is told for so long: the leader asks Nova about it after half a minute.
const DESTROYED: Duration = Duration::from_mins(2);
/// Places that a guest writes to that are looked at, and places of a host.
const BACKENDS: usize = 16;

impl Session {
    pub(super) fn instances(&mut self, told: &ha::AgentInstances, order: Order, clock: u64) -> Result<(), ApiError> {
        let (present, gone) = (told.present.iter().map(|instance| &instance.uuid), &told.gone);
        let read = |texts: Vec<&String>| {
            let read = texts.into_iter().map(|text| uuid("instances", text));
            read.collect::<Result<BTreeSet<_>, ApiError>>()
        };
        let (present, gone) = (read(present.collect())?, read(gone.iter().collect())?);
        let ran = told.present.iter().filter(|instance| was_destroyed(instance));
        let ran = read(ran.map(|instance| &instance.uuid).collect())?;
        self.destroyed.retain(|instance, _| {
            ran.contains(instance) || !told.whole && !present.contains(instance) && !gone.contains(instance)
        });
        for instance in ran.intersection(&self.running).filter(|instance| !self.stops.told(**instance)) {
            self.destroyed.insert(*instance, tokio::time::Instant::now().into_std() + DESTROYED);
        }
        for (set, is) in [
            (&mut self.running, executes as fn(&ha::AgentInstance) -> bool),
            (&mut self.crashed, has_crashed),
            (&mut self.off, |instance| instance.state == "shut_off"),
            (&mut self.split, is_split),
        ] {
            let those = told.present.iter().filter(|instance| is(instance)).map(|instance| &instance.uuid);
            let those = read(those.collect())?;
            *set = if told.whole { those } else { &(&(&*set - &present) - &gone) | &those };
        }
        if told.whole {
            self.domains = present;
            self.listed = true;
        } else {
            self.domains.extend(present);
            self.domains.retain(|instance| !gone.contains(instance));
        }
        if self.domains.len() > INSTANCES {
            return Err(ApiError::bad_request(format!(
                "instances: {} given, {INSTANCES} at most expected",
                self.domains.len()
            )));
        }
        if told.whole {
            self.writes.clear();
        }
        for instance in &told.present {
            let backends = instance.backends.iter().take(BACKENDS).cloned().collect();
            self.writes.insert(uuid("instances", &instance.uuid)?, (backends, stands_still(instance)));
        }
        let (writes, domains) = (&mut self.writes, &self.domains);
        writes.retain(|instance, _| domains.contains(instance));
        // One that goes on has room again.
        self.full.retain(|instance| writes.get(instance).is_some_and(|(_, stalled)| *stalled));
        if self.listed && self.life.incarnation != 0 {
            let ears = self.service.node.ears();
            ears.stalls(self.host, self.stalls());
            let local = self.writes.iter().filter(|(_, (backends, _))| backends.iter().any(|at| at == Stall::LOCAL));
            let local = local.map(|(instance, _)| *instance).collect();
            ears.listed(Domains {
                host: self.host,
                boot: self.boot,
                age: told.age_ms,
                order,
                made: clock.saturating_sub(told.age_ms),
                instances: self.domains.clone(),
                running: self.running.clone(),
                local,
                off: self.off.clone(),
            });
            ears.crashed(self.host, self.crashed.clone());
            self.tell_troubles();
        }
        Ok(())
    }

    pub(super) fn tell_troubles(&self) {
        let split = self.split.iter().map(|instance| (*instance, trouble::Kind::PostcopyFailed, None));
        let unmanaged = self.unmanaged.iter().map(|instance| (*instance, trouble::Kind::Unmanaged, None));
        let destroyed = self.destroyed.iter();
        let destroyed = destroyed.map(|(instance, until)| (*instance, trouble::Kind::Destroyed, Some(*until)));
        self.service.node.ears().troubles(self.host, split.chain(unmanaged).chain(destroyed).collect());
    }

    /// Where guests stand still; nothing of places where none does.
    pub(super) fn stalls(&self) -> Vec<Stall> {
        let mut places: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for (instance, (backends, stalled)) in &self.writes {
            for backend in backends {
                let (guests, still) = places.entry(backend).or_default();
                *guests += 1;
                *still += u32::from(*stalled && !self.full.contains(instance));
            }
        }
        let stalled = places.into_iter().filter(|(_, (_, stalled))| *stalled > 0).take(BACKENDS);
        stalled.map(|(backend, (guests, stalled))| Stall { backend: backend.to_owned(), guests, stalled }).collect()
    }
}

/// Whether a guest has ended by itself: it crashed, or shut off for a crash or a failure, by libvirt's codes
/// (`virDomainShutoffReason`). Whoever starts it, or destroys it, makes it something else.
fn has_crashed(instance: &ha::AgentInstance) -> bool {
    match instance.state.as_str() {
        "crashed" => true,
        "shut_off" => matches!(instance.state_reason, 3 | 6),
        _ => false,
    }
}

/// Whether a guest was destroyed, by libvirt's code (`VIR_DOMAIN_SHUTOFF_DESTROYED`): Nova does that too.
fn was_destroyed(instance: &ha::AgentInstance) -> bool {
    instance.state == "shut_off" && instance.state_reason == 2
}

/// Whether a migration failed in post-copy, by libvirt's codes (`VIR_DOMAIN_PAUSED_POSTCOPY_FAILED`, and of one that
/// runs): part of its memory is here, part at the other end.
fn is_split(instance: &ha::AgentInstance) -> bool {
    matches!((&*instance.state, instance.state_reason), ("paused", 13) | ("running", 11))
}

/// Whether a guest executes here, and is not on its way here or away.
fn executes(instance: &ha::AgentInstance) -> bool {
    matches!(instance.state.as_str(), "running" | "blocked") && !instance.migrating
}

/// Whether a guest is paused for an I/O error, by libvirt's code (`VIR_DOMAIN_PAUSED_IOERROR`).
fn stands_still(instance: &ha::AgentInstance) -> bool {
    instance.state == "paused" && instance.state_reason == 5
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By libvirt's numbers, as include/libvirt/libvirt-domain.h has them.
    #[test]
    fn what_a_state_and_its_reason_say_of_a_guest() {
        let cases = [
            ("running", 1, [true, false, false, false]),
            ("running", 11, [false, false, false, true]),
            ("paused", 13, [false, false, false, true]),
            ("paused", 12, [false; 4]),
            ("shut_off", 1, [false; 4]),
            ("shut_off", 2, [false, false, true, false]),
            ("shut_off", 3, [false, true, false, false]),
            ("shut_off", 6, [false, true, false, false]),
            ("crashed", 0, [false, true, false, false]),
        ];
        for (state, state_reason, expected) in cases {
            let migrating = matches!((state, state_reason), ("running", 10 | 11) | ("paused", 2 | 12 | 13));
            let state = state.to_owned();
            let guest = ha::AgentInstance { state, state_reason, migrating, ..ha::AgentInstance::default() };
            let is = [executes(&guest), has_crashed(&guest), was_destroyed(&guest), is_split(&guest)];
            assert_eq!(is, expected, "{guest:?}");
        }
    }
}
