//! Hosts on which nothing new is placed: what pipelines see of failover. A host that takes no evacuations takes no new
//! instances either, but for one that failover knows nothing of yet: it has no agent, and is as good as any.

use super::host::{Degraded, Detection, Host, Maintenance};
use super::policy::{self, Mode};
use super::{Failover, breaker::Scope};
use crate::state::Tables;

/// Why; of several reasons the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cordon {
    /// An operator has said so, or it is being drained.
    Maintenance,
    /// It has an open case.
    Case,
    /// It is proven dead.
    Dead,
    /// It must be rebooted before it comes back.
    Reboot,
    /// It was put into quarantine.
    Quarantine,
    /// Its nova-compute does not run.
    Compute,
    /// Its libvirt does not answer.
    Libvirt,
    /// It does not reach its storage.
    Storage,
    /// It goes down on purpose.
    Away,
    /// It was suspected again and again.
    Flaps,
    /// It is silent. A belief: see [`of`].
    Silent,
}

impl Cordon {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Maintenance,
        Self::Case,
        Self::Dead,
        Self::Reboot,
        Self::Quarantine,
        Self::Compute,
        Self::Libvirt,
        Self::Storage,
        Self::Away,
        Self::Flaps,
        Self::Silent,
    ];

    /// In words; short, for they are replicated with each decision.
    pub fn why(self) -> &'static str {
        match self {
            Self::Maintenance => "is in maintenance",
            Self::Case => "has an open case of failover",
            Self::Dead => "is dead",
            Self::Reboot => "must be rebooted before it comes back",
            Self::Quarantine => "is in quarantine",
            Self::Compute => "runs no nova-compute",
            Self::Libvirt => "has a libvirt that does not answer",
            Self::Storage => "does not reach its storage",
            Self::Away => "goes down on purpose",
            Self::Flaps => "was suspected again and again",
            Self::Silent => "is silent",
        }
    }
}

impl Failover {
    /// What speaks against placing anything on a host, whatever its policy and its breakers say. A function of the
    /// host and of whether it has a case: without one nothing of it is marked in Nova (INV-14).
    pub(crate) fn doubt(&self, host: &Host) -> Option<Cordon> {
        let ill = |what| host.degraded.has(what);
        let doubts = [
            (host.maintenance != Maintenance::None, Cordon::Maintenance),
            (self.cases.get(host.id).is_some(), Cordon::Case),
            (host.belief.detection == Detection::Dead, Cordon::Dead),
            (host.must_reboot, Cordon::Reboot),
            (host.quarantined, Cordon::Quarantine),
            (ill(Degraded::COMPUTE), Cordon::Compute),
            (ill(Degraded::LIBVIRT), Cordon::Libvirt),
            (ill(Degraded::STORAGE), Cordon::Storage),
            (ill(Degraded::AWAY), Cordon::Away),
            (ill(Degraded::FLAPS), Cordon::Flaps),
            (host.belief.detection != Detection::Alive, Cordon::Silent),
        ];
        doubts.into_iter().find_map(|(doubted, why)| (host.enabled && doubted).then_some(why))
    }
}

/// Why nothing new is placed on a host, if so. Nothing is done about a host whose policy does not say `enforce`. And
/// silence of more hosts of a scope than its breaker believes is more likely our own deafness, which must not stop a
/// region: Nova's own view of its services is left to decide then.
pub fn of(tables: &Tables, host: &Host) -> Option<Cordon> {
    let ha = tables.failover();
    let open = |scope| ha.small.breakers.get(&scope).is_some_and(|breaker| breaker.trips.stops_kill());
    let why = ha.doubt(host)?;
    let believed = why != Cordon::Silent || !Scope::all_of(host).into_iter().any(open);
    (believed && policy::of(tables, host).mode == Mode::Enforce).then_some(why)
}
