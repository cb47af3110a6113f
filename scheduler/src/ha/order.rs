//! What goes through the log: an order is one change, with the leader that wrote it.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::breaker::{Decision, ScopeName, Trips};
use super::case::{Act, CaseId, Cause, FenceOutcome, Phase};
use super::host::{Detection, Fencer, Hello, HostId, HostSpec, Incarnation, Machine, Maintenance, Watchdog};
use super::proof::{Evidence, Lease};
use super::recovery::{AttemptState, Life, Recorded, Stays, Waiting};

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

/// What was seen of a host that an instance was being brought to, newer than the proof or the end it is
/// compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Clear {
    /// Its agent's list of domains does not have the instance.
    Absent {
        /// When the list was taken in, replicated milliseconds.
        at: u64,
    },
    /// That life of it is proven over.
    Dead(Life),
}

/// What Nova said of an instance in front of an intent, all in one round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NovaRead {
    /// The host that Nova names.
    pub host: HostId,
    /// As the plan recorded it, now.
    pub now: Recorded,
    /// An unfiltered list of the cell had a row that is known to be in it: the answer was whole.
    pub sentinel: bool,
    /// Uuids of all migrations of the instance, of every type.
    pub migrations: Vec<Uuid>,
    /// One of them is not over.
    pub moving: bool,
    /// A live migration was bringing it there when the source died, and whether it is clear.
    pub destination: Option<(HostId, Option<Clear>)>,
}

/// What a plan says of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// The instance.
    pub instance: Uuid,
    /// As it is now.
    pub recorded: Recorded,
    /// Where to.
    pub to: To,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum To {
    /// There, in that life.
    Target(Life),
    /// Nowhere yet.
    Waiting(Waiting),
    /// Nowhere.
    Stays(Stays),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ended {
    /// It runs there, whatever the target was.
    Succeeded {
        /// Nova's host of it.
        at: HostId,
        /// The migration, which is done.
        migration: Uuid,
    },
    /// The migration ended without success: another attempt may come.
    Failed {
        /// The migration.
        migration: Uuid,
    },
    /// Nova refused the call itself, and took nothing.
    Refused {
        /// For good, or of this target only.
        forever: bool,
    },
    /// The instance is gone: two reads of 404, 10 s apart, with the sentinel seen.
    Vanished {
        /// The sentinel was seen in both.
        sentinel: bool,
    },
}

/// What is changed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Change {
    /// A host of the inventory.
    HostUpsert(Box<HostSpec>),
    /// Failover forgets a host.
    HostRemove(HostId),
    /// The voters of pallium.
    Voters(Vec<Voter>),
    /// An agent has said Hello.
    IncarnationOpen {
        /// The host of its credential.
        host: HostId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// The agent has armed its watchdog, or asks to disarm it.
    Watchdog {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// The device.
        watchdog: Watchdog,
    },
    /// What the leader has come to believe of a host. From and to may be equal: a new leader watches anew.
    DetectionSet {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// What was believed.
        from: Detection,
        /// What is believed.
        to: Detection,
        /// Groups of observers that say no; see [`Groups`].
        groups: Groups,
        /// Milliseconds since the last sign of life, by the leader's clock.
        age: u64,
    },
    /// A case begins.
    CaseOpen {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
    },
    /// A case goes on.
    CasePhase {
        /// The case.
        case: CaseId,
        /// Where it stands.
        from: Phase,
        /// Where it goes.
        to: Phase,
    },
    /// Something holds an act of a case, or nothing does any more.
    CaseHold {
        /// The case.
        case: CaseId,
        /// The act.
        act: Act,
        /// What holds it.
        reason: Option<String>,
    },
    /// A person must look at a case, or need not any more.
    NeedsOperator {
        /// The case.
        case: CaseId,
        /// Why.
        reason: Option<String>,
    },
    /// A fence operation may be done.
    FenceIntent {
        /// The case.
        case: CaseId,
        /// Level of the host's fencers, from 0.
        level: u8,
        /// The fencer at that level.
        fencer: Fencer,
        /// Names the operation.
        op: Uuid,
        /// Whom the BMC says it belongs to, read just before.
        machine: Machine,
        /// Voters that the leader hears.
        voters: Vec<u64>,
    },
    /// What a fence operation came to.
    FenceOutcome {
        /// The case.
        case: CaseId,
        /// The operation.
        op: Uuid,
        /// What was read back; its time is set by apply.
        outcome: Box<FenceOutcome>,
    },
    /// A life is over.
    DeathProof {
        /// The host.
        host: HostId,
        /// The life.
        incarnation: Incarnation,
        /// Why that is certain.
        evidence: Evidence,
    },
    /// Nova has these marks of ours on a host.
    NovaMark {
        /// The host.
        host: HostId,
        /// Forced down.
        forced_down: bool,
        /// Disabled by us.
        disabled: bool,
    },
    /// Targets for the instances of a case, and claims on them.
    CommitPlan {
        /// The case.
        case: CaseId,
        /// What is planned.
        assignments: Vec<Assignment>,
    },
    /// An evacuation may be called.
    AttemptIntent {
        /// The case.
        case: CaseId,
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// Where to.
        target: Life,
        /// Names the intent.
        op: Uuid,
        /// What Nova said.
        nova: Box<NovaRead>,
    },
    /// An attempt has got somewhere.
    AttemptObserved {
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// Where it stands.
        state: AttemptState,
    },
    /// An attempt is over.
    AttemptEnd {
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// How.
        ended: Ended,
    },
    /// The place of an instance changes.
    PermitMove {
        /// The instance.
        instance: Uuid,
        /// From where; none: it had no place.
        from: Option<Life>,
        /// To where.
        to: Life,
        /// By what right.
        cause: PermitCause,
    },
    /// Leases.
    LeaseEpoch(Lease),
    /// The leader looks at the breaker of a scope: what can be counted is counted by apply, what cannot is
    /// what it sees.
    BreakerSet {
        /// The scope.
        scope: ScopeName,
        /// What the leader sees: T6 to T9.
        seen: Trips,
    },
    /// An operator answers a breaker.
    BreakerAck {
        /// The scope.
        scope: ScopeName,
        /// The answer.
        decision: Decision,
        /// Until when, replicated milliseconds.
        until: u64,
    },
    /// An operator stops an act everywhere for a while, or lets it go on.
    Pause {
        /// The act.
        act: Act,
        /// Until when, replicated milliseconds; at most a day; 0: not any more.
        until: u64,
    },
    /// An operator keeps a host from being fenced for a while.
    Exempt {
        /// The host.
        host: HostId,
        /// Until when, replicated milliseconds; at most a day; 0: not any more.
        until: u64,
    },
    /// A host is at work or not.
    Maintenance {
        /// The host.
        host: HostId,
        /// Why it is not.
        mode: Maintenance,
    },
    /// An operator has looked at a host in quarantine.
    QuarantineEnd(HostId),
    /// After a restore, or a recovery from one survivor: an operator lets failover act again.
    Release,
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

/// By what right the place of an instance changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PermitCause {
    /// It was first placed there, or first seen.
    Placed,
    /// A migration that both sides were alive for is done.
    Migrated(Uuid),
    /// The attempt there failed, and the target is clear: back to the dead source.
    AttemptFailed(Clear),
    /// The same host in a new boot: the instance stays where its disk is.
    SameHostNewBoot,
    /// An agent sees it run there, where a migration was bringing it.
    Adopted {
        /// When the agent's list was taken in, replicated milliseconds.
        at: u64,
    },
}

impl Change {
    /// Its name in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HostUpsert(_) => "HostUpsert",
            Self::HostRemove(_) => "HostRemove",
            Self::Voters(_) => "Voters",
            Self::IncarnationOpen { .. } => "IncarnationOpen",
            Self::Watchdog { .. } => "Watchdog",
            Self::DetectionSet { .. } => "DetectionSet",
            Self::CaseOpen { .. } => "CaseOpen",
            Self::CasePhase { .. } => "CasePhase",
            Self::CaseHold { .. } => "CaseHold",
            Self::NeedsOperator { .. } => "NeedsOperator",
            Self::FenceIntent { .. } => "FenceIntent",
            Self::FenceOutcome { .. } => "FenceOutcome",
            Self::DeathProof { .. } => "DeathProof",
            Self::NovaMark { .. } => "NovaMark",
            Self::CommitPlan { .. } => "CommitPlan",
            Self::AttemptIntent { .. } => "AttemptIntent",
            Self::AttemptObserved { .. } => "AttemptObserved",
            Self::AttemptEnd { .. } => "AttemptEnd",
            Self::PermitMove { .. } => "PermitMove",
            Self::LeaseEpoch(_) => "LeaseEpoch",
            Self::BreakerSet { .. } => "BreakerSet",
            Self::BreakerAck { .. } => "BreakerAck",
            Self::Pause { .. } => "Pause",
            Self::Exempt { .. } => "Exempt",
            Self::Maintenance { .. } => "Maintenance",
            Self::QuarantineEnd(_) => "QuarantineEnd",
            Self::Release => "Release",
        }
    }
}
