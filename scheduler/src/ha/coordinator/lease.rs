//! Watchdog leases: what this leader granted, and when a watchdog must have fired (section C.4 of the
//! specification, strict mode).
//!
//! An agent counts a lease from the moment it sent the request that the grant names, the leader from the
//! moment it gave the grant: the agent's ends first, however long the answer was on its way. Grants are
//! this leader's own memory; a new leader takes the longest that a former one may still have granted.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Coordinator, Lead};
use crate::ha::case::Phase;
use crate::ha::host::{Fencer, Host, HostId};
use crate::ha::policy::{self, Mode};
use crate::ha::proof::{Evidence, LeaseMode};

/// A grant is given only when a majority has confirmed the leadership so recently, milliseconds.
pub const CONFIRMED: u64 = 1_000;

/// An agent asks for a lease, with a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The host of its credential.
    pub host: HostId,
    /// Its boot.
    pub boot: Uuid,
    /// Number of the request among the agent's.
    pub seq: u64,
}

/// A lease: it ends `ttl` after the agent *sent* request `seq`, by the agent's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its number under this leader.
    pub lease: u64,
    /// The request that it answers.
    pub seq: u64,
    /// Its life, milliseconds.
    pub ttl: u64,
}

impl Coordinator {
    /// Grants a lease, or none: a host that is being fenced gets none any more, so that its watchdog fires
    /// even when nothing else reaches it. `confirmed` is how long ago a majority confirmed the leadership,
    /// milliseconds.
    pub fn grant(&mut self, ask: Ask, confirmed: u64, lead: &Lead<'_>) -> Option<Grant> {
        let host = lead.ha().hosts.get(ask.host)?;
        let lease = policy::lease(lead.tables, host);
        let fencing = lead.ha().cases.get(ask.host).is_some_and(|case| {
            let gone = host.incarnation == case.id.incarnation;
            gone && !matches!(case.phase, Phase::Unreachable | Phase::FencePending)
        });
        let known = host.enabled && host.boot == Some(ask.boot);
        // One whose watchdog is armed still is reset without: it is disarmed first.
        let given = lead.ceiling == Mode::Enforce && (lease.mode == LeaseMode::Strict || host.watchdog.armed);
        if !given || confirmed > CONFIRMED || !known || fencing {
            return None;
        }
        self.granted.insert(ask.host, (host.incarnation, lead.now));
        self.leases += 1;
        Some(Grant { lease: self.leases, seq: ask.seq, ttl: lease.ttl })
    }

    /// The proof that the watchdog of a host must have fired, once it is one: 36 s after the last grant with
    /// the defaults, 45 s after a change of leader.
    pub(super) fn lease_over(&self, host: &Host, lead: &Lead<'_>) -> Option<Evidence> {
        let lease = policy::lease(lead.tables, host);
        let leased = lease.mode == LeaseMode::Strict && host.fencers.contains(&Fencer::WatchdogLease);
        if !leased || host.watchdog.flaw().is_some() {
            return None;
        }
        let leader = lead.now - self.led;
        let granted = self.granted.get(&host.id).filter(|(life, _)| *life == host.incarnation);
        let granted = granted.map(|(_, at)| lead.now - at);
        let fired = lease.fired(host.watchdog.timeout);
        let over = match granted {
            Some(granted) => granted.min(leader) >= fired,
            None => leader >= fired.saturating_add(lease.overlap),
        };
        over.then_some(Evidence::Lease { granted, leader })
    }
}
