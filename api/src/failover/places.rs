//! What may begin to run in which life of which host: what sessions tell their agents.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::Domain;
use scheduler::consumer::Purpose;
use scheduler::ha::host::{Fencer, Host};
use scheduler::ha::policy::{self, Mode};
use scheduler::ha::proof::LeaseMode;
use scheduler::ha::recovery::Life;
use scheduler::ha::reentry::Step;
use scheduler::ha::{Failover, HostId, Phase, stale};
use scheduler::state::Tables;
use uuid::Uuid;

/// A host, as its agent must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) life: Life,
    pub(super) quarantined: bool,
    /// Its nova-compute is held back.
    pub(super) holds: bool,
    /// It is watched, leases are given, and its watchdog is one of its fencers.
    pub(super) leased: bool,
    /// What is decided about it is done.
    enforced: bool,
}

impl Place {
    pub(super) fn of(tables: &Tables, host: &Host) -> Self {
        let failover = tables.failover();
        // Until it was looked at what its nova-compute would delete. A host without a case has nothing to delete.
        let holds = failover.cases.get(host.id).is_some_and(|case| {
            let back = matches!(case.phase, Phase::Returning) && case.reentry.life == host.incarnation;
            case.phase.is_proven() && !(back && case.reentry.begun(Step::StartNova).is_some())
        });
        let leased = host.enabled
            && host.fencers.contains(&Fencer::WatchdogLease)
            && failover.gives_leases()
            && policy::lease(tables, host).mode == LeaseMode::Strict;
        let life = Life { host: host.id, incarnation: host.incarnation };
        // What is started in place is started before it is let in, once Nova has it up again.
        let back = failover.cases.get(host.id).filter(|case| case.phase == Phase::Returning);
        let starts = back.is_some_and(|case| {
            let own = case.reentry.life == host.incarnation;
            own && !host.forced_down && case.reentry.begun(Step::StartNova).is_some()
        });
        let enforced = policy::of(tables, host).mode == Mode::Enforce;
        Self { life, quarantined: host.quarantined && !starts, holds, leased, enforced }
    }
}

/// Lives of hosts, and what may run in each.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Commands that were applied by then.
    pub(super) commands: u64,
    /// This node does not reach the others: what agents tell it helps nobody.
    pub(super) astray: bool,
    pub(super) hosts: BTreeMap<HostId, Place>,
    pub(super) permits: BTreeMap<Life, BTreeSet<Uuid>>,
    /// Leases are given.
    pub(super) leases: bool,
    /// What it is all of, and when: replicated milliseconds, and the epoch.
    failover: Failover,
    at: (u64, u64),
}

/// What may begin to run in a life: what is permitted there, and what is being brought there.
pub(super) fn may_begin(failover: &Failover) -> impl Iterator<Item = (Life, Uuid)> {
    let placed = failover.permits.iter().map(|permit| (permit.life, permit.instance));
    let placed = placed.filter(|(life, instance)| !failover.is_left_over(*instance, *life));
    placed.chain(failover.moves.iter().filter(|known| known.is_live()).map(|known| (known.to, known.instance)))
}

/// What was placed on a host by a decision, or is listed there, and has no place yet: its first start is here, wherever the
/// reports of hosts are. What has a place elsewhere gets here by its guards only.
fn new_on(tables: &Tables, host: &Host, permits: &mut BTreeSet<Uuid>) {
    let name = tables.names.text(host.nova_host);
    let provider = tables.row_of_node(Domain::Nova, name, None).and_then(|row| tables.provider(row));
    // Nearly always each has its permit.
    let Some(provider) = provider.filter(|provider| provider.consumers.len() > permits.len()) else { return };
    let consumers = provider.consumers.iter().filter_map(|slot| tables.consumer_at(*slot));
    let placed = consumers.filter(|consumer| consumer.purpose == Purpose::Instance);
    permits.extend(placed.map(|consumer| consumer.uuid).filter(|uuid| tables.failover().permits.get(*uuid).is_none()));
}

impl Places {
    /// Nothing is known, for this node does not reach the others.
    pub(super) fn astray() -> Self {
        Self { astray: true, ..Self::default() }
    }

    pub(super) fn of(tables: &Tables) -> Self {
        let failover = tables.failover();
        let mut permits: BTreeMap<Life, BTreeSet<Uuid>> = BTreeMap::new();
        for (life, instance) in may_begin(failover) {
            permits.entry(life).or_default().insert(instance);
        }
        for host in failover.hosts.iter().filter(|host| host.enabled && host.is_open()) {
            let life = Life { host: host.id, incarnation: host.incarnation };
            new_on(tables, host, permits.entry(life).or_default());
        }
        Self {
            commands: tables.counters().commands,
            astray: false,
            hosts: failover.hosts.iter().map(|host| (host.id, Place::of(tables, host))).collect(),
            permits,
            leases: failover.gives_leases(),
            failover: failover.clone(),
            at: (tables.counters().now, tables.counters().epoch),
        }
    }

    /// Of the guests that have a process on a host in that boot, those that its agent is to stop.
    pub(super) fn to_stop(&self, host: HostId, boot: Uuid, guests: &BTreeSet<Uuid>) -> BTreeSet<Uuid> {
        let known = self.failover.hosts.get(host).filter(|known| known.enabled);
        let known = known.filter(|_| self.hosts.get(&host).is_some_and(|place| place.enforced));
        known.map(|known| stale::to_stop(&self.failover, self.at, known, boot, guests)).unwrap_or_default()
    }

    pub(super) fn at(&self, life: Life) -> BTreeSet<Uuid> {
        self.permits.get(&life).cloned().unwrap_or_default()
    }
}
