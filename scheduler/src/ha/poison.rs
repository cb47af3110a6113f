//! Guests that may be what kills their hosts (T10): one that was on three hosts that died within an hour is left where
//! it is, and started nowhere, until a person lets it go.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::host::HostId;
use super::keyed::Entry;
use super::recovery::Life;
use super::table::Failover;

/// Hosts that died under an instance before it is kept from a further one.
pub const MOST: usize = 3;
/// Within so long, milliseconds.
pub const WINDOW: u64 = 3_600_000;

/// The hosts that an instance ran on when they died.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Deaths {
    /// The instance.
    pub instance: Uuid,
    /// The last of them, each once, oldest first, at most [`MOST`]; and when its death was proven, replicated milliseconds.
    pub hosts: Vec<(HostId, u64)>,
    /// Since when it is in quarantine, replicated milliseconds. That ends by a person's word alone.
    pub quarantined: Option<u64>,
}

impl Deaths {
    /// Whether it says nothing any more.
    pub fn is_over(&self, now: u64) -> bool {
        let young = |at: u64| now.saturating_sub(at) < WINDOW;
        self.quarantined.is_none() && !self.hosts.iter().any(|(_, at)| young(*at))
    }

    fn count(&mut self, host: HostId, at: u64, now: u64) {
        self.hosts.retain(|(known, then)| *known != host && at.saturating_sub(*then) < WINDOW);
        let place = self.hosts.partition_point(|(_, then)| *then <= at);
        self.hosts.insert(place, (host, at));
        if self.hosts.len() >= MOST {
            self.quarantined = self.quarantined.or(Some(now));
            self.hosts.drain(..self.hosts.len() - MOST);
        }
    }
}

impl Entry for Deaths {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}

impl Failover {
    /// Whether an instance is in quarantine: nothing starts it.
    pub fn is_poison(&self, instance: Uuid) -> bool {
        self.deaths.get(instance).is_some_and(|deaths| deaths.quarantined.is_some())
    }

    /// What is known of an instance's hosts with the one whose life it ran in until that was proven over. None: it is not.
    pub fn deaths_with(&self, instance: Uuid, life: Life, epoch: u64, now: u64) -> Option<Deaths> {
        let at = self.proven(life, epoch)?;
        let known = self.deaths.get(instance).cloned();
        let mut deaths = known.unwrap_or(Deaths { instance, hosts: Vec::new(), quarantined: None });
        deaths.count(life.host, at, now);
        Some(deaths)
    }

    /// Whether an instance is kept from another host once that life is counted.
    pub fn is_poison_after(&self, instance: Uuid, life: Life, epoch: u64, now: u64) -> bool {
        self.deaths_with(instance, life, epoch, now).is_some_and(|deaths| deaths.quarantined.is_some())
    }
}
