//! What members tell one another of hosts.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::ha::HostId;
use scheduler::ha::coordinator::lease::{Ask, Grant};
use scheduler::ha::host::Degraded;
use scheduler::ha::liveness::{Digest, Heard, Says, Stall};
use scheduler::ha::order::Groups;
use scheduler::ha::trouble;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FRESH;

/// What one observer says of a host that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Who; an older node does not say.
    #[serde(default)]
    pub by: HostId,
    /// The host.
    pub host: HostId,
    /// Storage or data.
    pub group: Groups,
    /// What.
    pub says: Says,
}

/// Where a report stands among those of one boot: the agent's epoch, and its number in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order(pub u64, pub u64);

/// The domains that an agent listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domains {
    /// The host.
    pub host: HostId,
    /// The boot it is of.
    pub boot: Uuid,
    /// Milliseconds since it was made.
    pub age: u64,
    /// Which of the agent's reports had it; an older node does not say.
    #[serde(default)]
    pub order: Order,
    /// When it was made by the host's own clock, milliseconds since it booted; 0: an older node does not say.
    #[serde(default)]
    pub made: u64,
    /// Instances that libvirt knows, in whatever state.
    pub instances: BTreeSet<Uuid>,
    /// Those of them that execute, and are not on their way here or away.
    #[serde(default)]
    pub running: BTreeSet<Uuid>,
    /// Those that write to a disk which no other host reaches.
    #[serde(default)]
    pub local: BTreeSet<Uuid>,
    /// Those that are shut off.
    #[serde(default)]
    pub off: BTreeSet<Uuid>,
}

/// What an agent has listed of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// Instances that libvirt knows, in whatever state.
    pub listed: BTreeSet<Uuid>,
    /// Those of them that execute, and are not on their way here or away.
    pub running: BTreeSet<Uuid>,
    /// Those that write to a disk which no other host reaches.
    pub local: BTreeSet<Uuid>,
    /// Those that are shut off: no process has their disks.
    pub off: BTreeSet<Uuid>,
}

/// An agent has taken a permit in: it is on its disk, and its check lets the guest begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The host.
    pub host: HostId,
    /// Its boot; nil: it is none's any more.
    pub boot: Uuid,
    /// The instance.
    pub instance: Uuid,
}

/// What a member tells the leader twice in a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overheard {
    /// Ages of hosts.
    pub heard: Vec<Heard>,
    /// What the clocks of the same hosts said, milliseconds since they booted.
    #[serde(default)]
    pub clocks: Vec<u64>,
    /// What was seen of others since the last time.
    pub seen: Vec<Seen>,
    /// Lists of domains since the last time.
    pub domains: Vec<Domains>,
    /// Permits that agents took in since the last time.
    #[serde(default)]
    pub held: Vec<Held>,
    /// Hosts that were heard just now and are not well.
    #[serde(default)]
    pub ill: Vec<(HostId, Degraded)>,
    /// Guests that crashed by themselves and were not started since, of hosts that were heard just now.
    #[serde(default)]
    pub crashed: Vec<(HostId, Uuid)>,
    /// Guests that begin, or run, without a permit there, of hosts that were heard just now.
    #[serde(default)]
    pub strangers: Vec<(HostId, Uuid)>,
    /// What befell guests and is so still, of hosts that were heard just now.
    #[serde(default)]
    pub troubles: Vec<(HostId, Uuid, trouble::Kind)>,
    /// Where guests stand still for I/O errors, of hosts that were heard just now.
    #[serde(default)]
    pub stalls: Vec<(HostId, Stall)>,
    /// Requests for leases since the last time.
    #[serde(default)]
    pub asks: Vec<Ask>,
    /// The member has lost half of its sessions in one sweep.
    #[serde(default)]
    pub blind: bool,
}

/// What the leader tells a member in return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Leases for the agents of its sessions.
    pub grants: Vec<(HostId, Grant)>,
    /// Hosts whose domains are to be listed anew.
    pub lists: Vec<HostId>,
}

/// What the leader has of all members.
#[derive(Debug, Default)]
pub struct All {
    /// Each member's digest, the leader's own among them. Ages are those of now.
    pub members: Vec<(u64, Overheard)>,
    /// What was seen of others since the last time.
    pub seen: Vec<Seen>,
    /// Requests for leases since the last time, and the member that has the session.
    pub asks: Vec<(u64, Ask)>,
}

impl Overheard {
    /// As liveness takes it in, from that member: it reaches the leader, which hears a majority.
    pub fn digest(&self, member: u64) -> Digest<'_> {
        Digest { member, in_quorum: true, blind: self.blind, heard: &self.heard }
    }

    /// Where guests of the hosts stand still that this member has heard just now.
    pub fn stalled(&self) -> BTreeMap<HostId, Vec<Stall>> {
        let fresh = self.heard.iter().filter(|heard| u128::from(heard.age) < FRESH.as_millis());
        let mut stalled: BTreeMap<_, Vec<_>> = fresh.map(|heard| (heard.host, Vec::new())).collect();
        for (host, stall) in &self.stalls {
            stalled.entry(*host).or_default().push(stall.clone());
        }
        stalled
    }

    /// How the hosts are that this member has heard just now.
    pub fn health(&self) -> impl Iterator<Item = (HostId, Degraded)> {
        let fresh = self.heard.iter().filter(|heard| u128::from(heard.age) < FRESH.as_millis());
        fresh.map(|heard| {
            let ill = self.ill.iter().find(|(host, _)| *host == heard.host);
            (heard.host, ill.map_or_else(Degraded::default, |(_, ill)| *ill))
        })
    }
}
