//! Planned work: a host is emptied by live migrations while it lives. Nothing here needs a proof, for both
//! sides are alive; a host that dies meanwhile is a case, and its drain is over.

use std::collections::BTreeMap;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::{HostId, Incarnation};
use super::keyed::Entry;
use super::order::{Leader, NovaRead};
use super::recovery::Life;
use super::table::Failover;

/// Outgoing migrations of one source at once.
pub const MOST_SOURCE: usize = 2;
/// Incoming migrations of one target at once.
pub const MOST_TARGET: usize = 2;
/// Migrations of one cell at once.
pub const MOST_CELL: usize = 20;
/// Tries of one instance.
pub const TRIES: u8 = 3;
/// Milliseconds between two tries.
pub const BACKOFF: [u64; 3] = [60_000, 300_000, 900_000];
/// Instances that stay of one drain that are remembered.
pub const LEFT: usize = 4_096;
/// Server groups of one drain that are remembered.
pub const GROUPS: usize = 4_096;
/// A migration that has taken so long is stuck, milliseconds.
pub const STUCK: u64 = 600_000;
/// One whose remaining memory has not shrunk for so long does not get on, milliseconds.
pub const STALLED: u64 = 120_000;

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Until another one of its cluster, or of a server group, is over.
    Waiting,
    /// Instances are moved.
    Moving,
    /// Over.
    Over(Over),
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The host is empty.
    Succeeded,
    /// Some instances stayed.
    Partial,
    /// An operator has taken it back.
    Cancelled,
    /// The host died.
    Lost,
}

/// Why an instance stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// It is in error, or neither active nor stopped.
    State,
    /// Something is being done with it.
    Busy,
    /// No host has room for it.
    NoTarget,
    /// It was tried three times.
    Tried,
    /// It may run elsewhere only.
    Permit,
    /// It cannot be moved: a device, a local disk.
    Fixed,
}

/// A drain.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Drain {
    /// The host.
    pub host: HostId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The epoch it was ordered in. In another it moves nothing.
    pub epoch: u64,
    /// Where it stands.
    pub stage: Stage,
    /// Since when, replicated milliseconds.
    pub since: u64,
    /// Its service is disabled in Nova for this drain.
    pub disabled: bool,
    /// It may be: from its begin on that is called for, and a call may take effect after the drain is over.
    pub called: bool,
    /// The last intent about the service.
    pub op: Option<(Uuid, Leader)>,
    /// Instances that were moved.
    pub moved: u32,
    /// Instances that stay, and why.
    pub left: Vec<(Uuid, Left)>,
    /// Server groups whose members must be apart and of which some were on the host when it began, and whether one of
    /// those declares a minimum that is to stay (`pallium:min_available`). None once it is over.
    pub groups: BTreeMap<Uuid, bool>,
}

impl Drain {
    /// Names what is marked in Nova for it, by whichever leader.
    pub fn mark(&self) -> Uuid {
        Uuid::new_v5(&self.host.0, format!("drain/{}/mark", self.incarnation).as_bytes())
    }
}

impl Entry for Drain {
    type Key = HostId;
    fn key(&self) -> HostId {
        self.host
    }
}

impl Failover {
    /// A host that is emptied now and has members of the same server group, where a member on either declares a
    /// minimum: it, and the group.
    pub fn shares(&self, drain: &Drain) -> Option<(HostId, Uuid)> {
        let known = |id| id != drain.host && self.hosts.get(id).is_some();
        self.drains.iter().filter(|other| other.stage == Stage::Moving && known(other.host)).find_map(|other| {
            let shared = other
                .groups
                .iter()
                .find(|(group, declares)| drain.groups.get(*group).is_some_and(|own| *own || **declares));
            shared.map(|(group, _)| (other.host, *group))
        })
    }
}

/// Where a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// There is room for it.
    Claimed,
    /// It may be called.
    Intent,
    /// Nova's migration is known.
    Running(Uuid),
    /// It failed, and waits for another try.
    Failed,
}

/// A migration away from a host that is drained.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Move {
    /// The instance.
    pub instance: Uuid,
    /// From where.
    pub from: Life,
    /// To where.
    pub to: Life,
    /// It runs meanwhile; else it is stopped, and moved so.
    pub live: bool,
    /// Ticket of its claim.
    pub ticket: u64,
    /// Where it stands.
    pub state: MoveState,
    /// Names the last intent.
    pub op: Uuid,
    /// The leader of the last intent.
    pub by: Leader,
    /// When the last step was, replicated milliseconds.
    pub at: u64,
    /// Tries so far.
    pub tries: u8,
    /// Migrations that were there before.
    pub baseline: Vec<Uuid>,
    /// Targets that failed.
    pub excluded: Vec<HostId>,
}

impl Entry for Move {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}

impl Move {
    /// Whether it may be happening.
    pub fn is_live(&self) -> bool {
        matches!(self.state, MoveState::Intent | MoveState::Running(_))
    }
}

/// What a plan says of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Way {
    /// There.
    To {
        /// The target.
        life: Life,
        /// It runs meanwhile.
        live: bool,
    },
    /// It stays.
    Left(Left),
}

/// A step of a drain.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Step {
    /// It is its turn.
    Begin,
    /// Its service may be disabled or enabled.
    Service(Uuid),
    /// Its service is disabled for us, or is not any more.
    Disabled(bool),
    /// Targets, and claims on them.
    Plan(Vec<(Uuid, Way)>),
    /// A migration may be called, of an instance as Nova has it.
    Intent(Uuid, Uuid, Box<NovaRead>),
    /// Its migration is known.
    Running(Uuid, Uuid),
    /// It may be finished by force, or given up: names the intent.
    Press(Uuid, Uuid),
    /// It is there, by that migration.
    Moved(Uuid, Uuid),
    /// It is where it was.
    Failed(Uuid),
    /// Server groups that it has members of while it waits for its turn, as [`Drain::groups`] has them.
    Groups(BTreeMap<Uuid, bool>),
}
