//! What goes through the log: an order is one change, with the leader that wrote it.

mod change;
mod evacuation;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::case::CaseId;
use super::host::HostId;

pub use change::Change;
pub use evacuation::{Assignment, Clear, Ended, NovaRead, PermitCause, To, Verdict};

/// A leader: the term alone names none, for two nodes may lead in one term, one after the other. The
/// order is the log's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Leader {
    /// Its term.
    pub term: u64,
    /// Its node.
    pub node: u64,
}

impl std::fmt::Display for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} in term {}", self.node, self.term)
    }
}

/// By what right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The coordinator of the leader.
    Coordinator,
    /// A person.
    Operator,
}

/// What an order came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The state has changed.
    Changed,
    /// It was so already.
    Unchanged,
    /// The case that was opened.
    Case(CaseId),
    /// Instances that were given a target, that wait, and that stay.
    Planned {
        /// With a target.
        planned: u32,
        /// Waiting.
        waiting: u32,
        /// Staying.
        stays: u32,
    },
    /// The Hello is not believed: nothing is placed on the host until an operator has looked.
    Quarantined(String),
    /// A life that was proven over has said Hello: the proof was wrong. Page.
    ProofViolated,
}

/// Who, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Actor {
    /// By what right.
    pub role: Role,
    /// Who, in the words of the access control.
    pub name: String,
    /// Why; an operator must say.
    pub reason: String,
}

/// One change of the failover state.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Order {
    /// The leader that proposed it.
    pub leader: Leader,
    /// The epoch that it was written for.
    pub epoch: u64,
    /// Who.
    pub actor: Actor,
    /// What.
    pub change: Change,
}

/// A voter of pallium, and what it stands on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Voter {
    /// Its node id.
    pub node: u64,
    /// The host that it runs on, if failover knows that host.
    pub host: Option<HostId>,
    /// Its chassis.
    pub chassis: String,
    /// Its power domain.
    pub power: String,
}

/// Groups of observers, each one bit: independence counts, not number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Groups(pub u8);

impl Groups {
    /// The host's management: agent, kube Lease, Nova's service, libvirt's port.
    pub const MANAGEMENT: Self = Self(1);
    /// Its BMC cannot be reached while its neighbours' can.
    pub const OUT_OF_BAND: Self = Self(2);
    /// Its storage heartbeat.
    pub const STORAGE: Self = Self(4);
    /// Its peers.
    pub const DATA: Self = Self(8);

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether these are among them.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}
