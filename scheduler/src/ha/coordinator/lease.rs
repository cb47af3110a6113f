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
use crate::ha::policy;
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
    /// even when nothing else reaches it. It is no act, and given whatever this leader's configuration lets it
    /// do: without it the host resets itself. `confirmed` is how long ago a majority confirmed the leadership,
    /// milliseconds.
    pub fn grant(&mut self, ask: Ask, confirmed: u64, lead: &Lead<'_>) -> Option<Grant> {
        let host = lead.ha().hosts.get(ask.host)?;
        let lease = policy::lease(lead.tables, host);
        let fencing = lead.ha().cases.get(ask.host).is_some_and(|case| {
            let gone = host.incarnation == case.id.incarnation;
            gone && !matches!(case.phase, Phase::Unreachable | Phase::FencePending)
        });
        // One whose watchdog is armed still is reset without: it is disarmed first.
        let given = host.enabled && lease.mode == LeaseMode::Strict || host.watchdog.armed;
        if !given || confirmed > CONFIRMED || host.boot != Some(ask.boot) || fencing {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::liveness::Timers;
    use crate::ha::order::{Change, Voter};
    use crate::ha::policy::Mode;
    use crate::ha::proof::Lease;
    use crate::ha::tests::bench::{Bench, boot, host, spec};

    /// A host that lives on leases is reset without: whatever the leader may do otherwise, and whatever has become of the
    /// host meanwhile. What it was granted counts.
    #[test]
    fn a_lease_is_no_act() {
        let mut bench = Bench::new();
        let voter = |node| Voter { node, host: None, chassis: "control".to_owned(), power: "control".to_owned() };
        bench.must(Change::Voters((1..=3).map(voter).collect()));
        let strict = Lease { mode: LeaseMode::Strict, ..Lease::default() };
        bench.as_operator(Change::LeaseEpoch(strict));
        let granted = |bench: &Bench, leader: &mut Coordinator, ceiling| {
            let ask = Ask { host: host(1), boot: boot(1, 0), seq: 7 };
            leader.grant(ask, 0, &bench.lead(ceiling, 100_000)).is_some()
        };
        let over = |bench: &Bench, leader: &Coordinator, now| {
            leader.lease_over(bench.host(1), &bench.lead(Mode::DryRun, now)).is_some()
        };
        for ceiling in [Mode::Off, Mode::DryRun, Mode::Enforce] {
            let mut leader = Coordinator::new(bench.leader, Timers::default(), 0);
            assert!(granted(&bench, &mut leader, ceiling), "{ceiling:?}");
            let fired = 100_000 + strict.fired(10_000);
            assert_eq!([fired - 1, fired].map(|now| over(&bench, &leader, now)), [false, true], "{ceiling:?}");
        }
        let mut leader = Coordinator::new(bench.leader, Timers::default(), 0);
        bench.must(Change::HostUpsert(Box::new(crate::ha::HostSpec { enabled: false, ..spec(1) })));
        assert!(granted(&bench, &mut leader, Mode::Off), "armed");
        bench.as_operator(Change::LeaseEpoch(Lease::default()));
        assert!(granted(&bench, &mut leader, Mode::Off), "armed");
        let watchdog = bench.host(1).watchdog;
        let watchdog = crate::ha::host::Watchdog { armed: false, ..watchdog };
        bench.must(Change::Watchdog { host: host(1), incarnation: 1, watchdog });
        assert!(!granted(&bench, &mut leader, Mode::Enforce), "it needs none");
    }
}
