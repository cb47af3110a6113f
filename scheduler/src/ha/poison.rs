//! Guests in quarantine: left where they are, and started nowhere, until a person lets them go. One that was on three hosts
//! that died within an hour may be what kills them (T10); of one whose migration failed in post-copy neither half is whole.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::host::HostId;
use super::keyed::Entry;
use super::recovery::{Life, Stays};
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
    /// It is so because a migration failed in post-copy, and not for its hosts.
    pub split: bool,
}

impl Deaths {
    /// Nothing is known of an instance.
    pub fn none(instance: Uuid) -> Self {
        Self { instance, hosts: Vec::new(), quarantined: None, split: false }
    }

    /// Why nothing starts it, if nothing does.
    pub fn stays(&self) -> Option<Stays> {
        self.quarantined.map(|_| if self.split { Stays::PostcopySplit } else { Stays::PoisonGuest })
    }

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
        let mut deaths = known.unwrap_or(Deaths::none(instance));
        deaths.count(life.host, at, now);
        Some(deaths)
    }

    /// Why an instance is kept from another host once that life is counted, if it is.
    pub fn stays_after(&self, instance: Uuid, life: Life, epoch: u64, now: u64) -> Option<Stays> {
        self.deaths_with(instance, life, epoch, now)?.stays()
    }
}
