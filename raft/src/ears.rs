//! What this node hears of hosts, in memory: signs of life from the agents that speak to it, and, on the
//! leader, from the other members. Outside of the log: only what the leader makes of it is proposed.
//!
//! Instants never leave a node: a digest carries ages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use scheduler::ha::HostId;
use scheduler::ha::liveness::{Digest, Heard, Says};
use scheduler::ha::order::Groups;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock;

/// Hosts that a node hears at most: as many as failover knows.
const HOSTS: usize = scheduler::ha::table::HOSTS;
/// Observations of others that wait for the leader; more are forgotten, oldest first: they are repeated.
const SEEN: usize = 65_536;
/// A member's digest is of no use when it is older.
const STALE: Duration = Duration::from_secs(3);

/// What one observer says of a host that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The host.
    pub host: HostId,
    /// Storage or data.
    pub group: Groups,
    /// What.
    pub says: Says,
}

/// The domains that an agent listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domains {
    /// The host.
    pub host: HostId,
    /// The boot it is of.
    pub boot: Uuid,
    /// Milliseconds since it was taken in.
    pub age: u64,
    /// Instances that libvirt knows, in whatever state.
    pub instances: BTreeSet<Uuid>,
}

/// What a member tells the leader twice in a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overheard {
    /// Ages of hosts.
    pub heard: Vec<Heard>,
    /// What was seen of others since the last time.
    pub seen: Vec<Seen>,
    /// Lists of domains since the last time.
    pub domains: Vec<Domains>,
}

#[derive(Debug)]
struct Listed {
    boot: Uuid,
    at: Instant,
    instances: BTreeSet<Uuid>,
}

#[derive(Debug, Default)]
struct Memory {
    signs: BTreeMap<HostId, (Instant, Uuid)>,
    seen: Vec<Seen>,
    /// Hosts whose list has not been told yet.
    untold: BTreeSet<HostId>,
    domains: BTreeMap<HostId, Listed>,
    members: BTreeMap<u64, (Instant, Overheard)>,
    /// When the leader took in what this node had heard.
    told: Option<Instant>,
}

/// What this node hears.
#[derive(Debug, Default)]
pub struct Ears(Mutex<Memory>);

impl Ears {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host has given a sign of life in that boot.
    pub fn heard(&self, host: HostId, boot: Uuid) {
        let mut memory = self.memory();
        if memory.signs.len() < HOSTS || memory.signs.contains_key(&host) {
            memory.signs.insert(host, (clock::now(), boot));
        }
    }

    /// An observer has seen other hosts.
    pub fn seen(&self, seen: impl IntoIterator<Item = Seen>) {
        let mut memory = self.memory();
        memory.seen.extend(seen);
        let over = memory.seen.len().saturating_sub(SEEN);
        memory.seen.drain(..over);
    }

    /// An agent has listed all domains of its host.
    pub fn listed(&self, host: HostId, boot: Uuid, instances: BTreeSet<Uuid>) {
        let mut memory = self.memory();
        if memory.domains.len() < HOSTS || memory.domains.contains_key(&host) {
            memory.domains.insert(host, Listed { boot, at: clock::now(), instances });
            memory.untold.insert(host);
        }
    }

    /// Forgets hosts that are none.
    pub fn keep(&self, known: impl Fn(HostId) -> bool) {
        let mut memory = self.memory();
        memory.signs.retain(|host, _| known(*host));
        memory.domains.retain(|host, _| known(*host));
        memory.untold.retain(|host| known(*host));
    }

    /// The list of a host's domains and its age, if its agent gave one in that boot.
    pub fn domains(&self, host: HostId, boot: Uuid) -> Option<(Duration, BTreeSet<Uuid>)> {
        let memory = self.memory();
        let listed = memory.domains.get(&host).filter(|listed| listed.boot == boot)?;
        Some((clock::since(listed.at), listed.instances.clone()))
    }

    /// Time since a host's last sign of life that this node, or a member that told it, has heard.
    pub fn age(&self, host: HostId) -> Option<Duration> {
        let memory = self.memory();
        let own = memory.signs.get(&host).map(|(at, _)| clock::since(*at));
        let told = memory.members.values().filter_map(|(at, told)| {
            let heard = told.heard.iter().find(|heard| heard.host == host)?;
            Some(Duration::from_millis(heard.age) + clock::since(*at))
        });
        told.chain(own).min()
    }

    /// What is to be told the leader now. What is told once is forgotten.
    pub fn overheard(&self) -> Overheard {
        let mut memory = self.memory();
        let heard = memory.signs.iter().map(|(host, (at, boot))| Heard { host: *host, age: millis(*at), boot: *boot });
        let heard = heard.collect();
        let untold = std::mem::take(&mut memory.untold);
        let domains = untold.iter().filter_map(|host| {
            let listed = memory.domains.get(host)?;
            let (boot, age, instances) = (listed.boot, millis(listed.at), listed.instances.clone());
            Some(Domains { host: *host, boot, age, instances })
        });
        let domains = domains.collect();
        let seen = std::mem::take(&mut memory.seen);
        Overheard { heard, seen, domains }
    }

    /// The leader has taken in what this node has heard.
    pub(crate) fn told(&self) {
        self.memory().told = Some(clock::now());
    }

    /// Whether it did so within this time.
    pub(crate) fn told_within(&self, within: Duration) -> bool {
        self.memory().told.is_some_and(|told| clock::since(told) < within)
    }

    /// Takes in what a member has heard.
    pub fn take(&self, member: u64, mut told: Overheard) {
        let now = clock::now();
        self.seen(told.seen.drain(..));
        let mut memory = self.memory();
        for Domains { host, boot, age, instances } in told.domains.drain(..) {
            let at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
            let newer = memory.domains.get(&host).is_none_or(|known| known.at < at);
            if newer && (memory.domains.len() < HOSTS || memory.domains.contains_key(&host)) {
                memory.domains.insert(host, Listed { boot, at, instances });
            }
        }
        memory.members.insert(member, (now, told));
    }

    /// For the leader: each member's digest, its own among them, and what was seen of others since the last
    /// time. Ages are those of now.
    pub fn all(&self, own: u64) -> (Vec<(u64, Overheard)>, Vec<Seen>) {
        let mine = self.overheard();
        let mut memory = self.memory();
        memory.members.retain(|_, (at, _)| clock::since(*at) < STALE);
        let aged = |at: Instant, told: &Overheard| {
            let since = millis(at);
            let heard = told.heard.iter().map(|heard| Heard { age: heard.age + since, ..*heard });
            Overheard { heard: heard.collect(), ..told.clone() }
        };
        let mut all: Vec<_> = memory.members.iter().map(|(member, (at, told))| (*member, aged(*at, told))).collect();
        let seen = mine.seen.clone();
        all.push((own, mine));
        (all, seen)
    }
}

impl Overheard {
    /// As liveness takes it in, from that member: it reaches the leader, which hears a majority. That it is
    /// blind no member says; the leader sees it when most hosts are silent.
    pub fn digest(&self, member: u64) -> Digest<'_> {
        Digest { member, in_quorum: true, blind: false, heard: &self.heard }
    }
}

fn millis(at: Instant) -> u64 {
    clock::since(at).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_member_heard_grows_older_and_what_was_told_is_told_once() {
        let (member, leader) = (Ears::default(), Ears::default());
        let (host, boot, guest) = (HostId(Uuid::from_u128(1)), Uuid::from_u128(2), Uuid::from_u128(3));
        member.heard(host, boot);
        member.listed(host, boot, BTreeSet::from([guest]));
        member.seen([Seen { host, group: Groups::DATA, says: Says::Silent }]);
        tokio::time::advance(Duration::from_millis(400)).await;
        leader.take(2, member.overheard());
        tokio::time::advance(Duration::from_millis(100)).await;
        let (all, seen) = leader.all(1);
        assert_eq!(all[0].1.heard, [Heard { host, age: 500, boot }]);
        assert_eq!(seen.len(), 1);
        let (age, instances) = leader.domains(host, boot).expect("it was told");
        assert_eq!((age.as_millis(), instances.contains(&guest)), (500, true));
        assert_eq!(leader.domains(host, Uuid::nil()), None, "of another boot");
        let again = member.overheard();
        assert!(again.seen.is_empty() && again.domains.is_empty() && again.heard[0].age == 500);

        // One that fell silent is left out.
        tokio::time::advance(STALE).await;
        assert_eq!(leader.all(1).0.len(), 1, "its own");
    }
}
