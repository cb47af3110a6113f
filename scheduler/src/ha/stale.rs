//! Guests that have no right to run where they are, and are stopped by their host's agent: nothing else reaches them
//! without its power. Each node's sessions say it of the hosts that they hear; what stands in the state gives the right,
//! and none of it is taken back while the guest could be there for another reason.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::case::Act;
use super::host::Host;
use super::recovery::{Life, Status};
use super::table::Failover;

impl Failover {
    /// Whether an instance is at a life of a host by an attempt that failed there, and nowhere else yet: what is left of it
    /// there is not to begin, and keeps the next attempt waiting.
    pub fn is_left_over(&self, instance: Uuid, life: Life) -> bool {
        let recovery = self.recoveries.get(instance).filter(|recovery| !recovery.status.is_settled());
        let attempt = recovery.and_then(|recovery| recovery.attempt.as_ref());
        attempt.is_some_and(|attempt| attempt.failed.is_some() && attempt.target == life)
            && self.permits.get(instance).is_some_and(|permit| permit.life == life)
    }

    /// Whether the boot is of a life of the host that this epoch has proven over: what it executes has no right to.
    pub fn is_violated(&self, host: &Host, boot: Uuid, epoch: u64) -> bool {
        host.boot != Some(boot)
            && host.boots.contains(&boot)
            && host.proofs.first().is_some_and(|proof| proof.epoch == epoch)
    }

    /// Whether the host is on its way in while its case has the instance elsewhere, or on its way there.
    fn is_stale(&self, instance: Uuid, host: &Host) -> bool {
        let case = self.cases.get(host.id).filter(|_| host.quarantined);
        let recovery = self.recoveries.get(instance).filter(|known| case.is_some_and(|case| case.id == known.case));
        let moved = recovery.is_some_and(|known| {
            known.live().is_some() || matches!(known.status, Status::Succeeded(to) if to != host.id)
        });
        moved && self.permits.get(instance).is_some_and(|permit| permit.life.host != host.id)
    }
}

/// Of the guests that have a process on a host in that boot, those that its agent is to stop; `now` and `epoch` are the
/// replicated ones. None while an operator has paused what this is a part of.
pub fn to_stop(
    ha: &Failover,
    (now, epoch): (u64, u64),
    host: &Host,
    boot: Uuid,
    guests: &BTreeSet<Uuid>,
) -> BTreeSet<Uuid> {
    let of = |right: &dyn Fn(Uuid) -> bool| guests.iter().copied().filter(|guest| right(*guest)).collect();
    if ha.is_violated(host, boot, epoch) {
        // What failover does not know is not its to stop.
        let known = |guest| ha.permits.get(guest).is_some() || ha.recoveries.get(guest).is_some();
        return of(&|guest| ha.paused(Act::Kill) <= now && known(guest));
    }
    if host.boot != Some(boot) || ha.paused(Act::Recover) > now {
        return BTreeSet::new();
    }
    let life = Life { host: host.id, incarnation: host.incarnation };
    // What an older epoch decided gives no right to anything.
    let ours = |guest| {
        let id = ha.recoveries.get(guest).map(|known| known.case);
        let case = id.and_then(|id| ha.cases.get(id.host).filter(|case| case.id == id));
        case.is_some_and(|case| case.epoch == epoch)
    };
    of(&|guest| ours(guest) && (ha.is_left_over(guest, life) || ha.is_stale(guest, host)))
}
