//! What becomes of one instance of a dead host: where it may run, and how it gets there.

use crate::ha::planner::Rank;
use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::case::CaseId;
use super::host::{HostId, Incarnation};
use super::keyed::Entry;
use super::order::Leader;

/// A life of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Life {
    /// The host.
    pub host: HostId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in incarnation {}", self.host, self.incarnation)
    }
}

/// The only place where an instance may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Permit {
    /// The instance.
    pub instance: Uuid,
    /// The place.
    pub life: Life,
}

impl Entry for Permit {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}

/// Nova's `vm_state`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Running.
    Active,
    /// Shut off.
    Stopped,
    /// In error.
    Error,
    /// Any other.
    Other,
}

/// An instance as it was when the plan was made: this rules all attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recorded {
    /// `vm_state`.
    pub vm: VmState,
    /// Its power state said that it ran.
    pub running: bool,
    /// `task_state` was set.
    pub task: bool,
}

impl Recorded {
    /// Whether it was at work, as far as Nova knew.
    pub fn ran(self) -> bool {
        self.vm == VmState::Active || self.running
    }
}

/// Why an instance waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// No host has room.
    Capacity,
    /// Nobody knows how large it is.
    Size,
    /// The target is not what it was when the plan was made.
    Target,
    /// It is to be planned again.
    Replan,
    /// Hosts have room, and its server group lets it go to none of them.
    Group(Bond),
    /// Hosts have room, and none of them is what it needs: what those that come nearest lack.
    Unlike(Unlike),
}

/// What keeps an instance off a host that has room; what is told of several hosts is the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlike {
    /// It is in another cell, and Nova evacuates within one.
    Cell,
    /// It is in another availability zone.
    Zone,
    /// It has another type of hypervisor, or another architecture.
    Hypervisor,
    /// It lacks a trait that is required, has one that is forbidden, or is set apart.
    Traits,
}

impl Unlike {
    /// What a host must be.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Cell => "is in its cell",
            Self::Zone => "is in its availability zone",
            Self::Hypervisor => "has its type of hypervisor and its architecture",
            Self::Traits => "has the traits that it requires, and none that it must not have",
        }
    }
}

impl Waiting {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Size => "size",
            Self::Target => "target",
            Self::Replan => "replan",
            Self::Group(_) => "group",
            Self::Unlike(_) => "unlike",
        }
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(Bond::Apart { group, most }) => {
                write!(f, "group {group}: at most {most} of it on a host, and every host with room has as many")
            }
            Self::Group(Bond::Together { group }) => {
                write!(f, "group {group}: all of it on one host, and theirs has no room for it")
            }
            Self::Unlike(what) => write!(f, "no host with room {}", what.wanted()),
            plain => f.write_str(plain.as_str()),
        }
    }
}

/// A hard rule of a server group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bond {
    /// At most so many members on a host.
    Apart {
        /// The group.
        group: Uuid,
        /// Members on a host, at least 1.
        most: u64,
    },
    /// All on one host.
    Together {
        /// The group.
        group: Uuid,
    },
}

/// Why an instance is not evacuated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// Its permit is elsewhere, though Nova lists it here.
    PermitConflict,
    /// Its host is back before it was on its way: it is started there.
    Returns,
    /// It runs where a migration was bringing it.
    AdoptLiveMigration,
    /// It was in error before.
    ErrorState,
    /// It is not there long enough, or not any more: building, deleting.
    NotRunning,
    /// Something is being done with it: resize, migration.
    TaskState,
    /// Its disk is local: it would be built anew from its image.
    LocalDisk,
    /// It is not protected.
    NotProtected,
    /// Nova refuses for good.
    Refused,
    /// Nobody knows what runs where: a person must look.
    Conflict,
    /// A person sees to it.
    Skipped,
    /// It was on several hosts that died within an hour: a person must let it go.
    PoisonGuest,
    /// A migration of it failed in post-copy: its memory is in two halves, and a person must look.
    PostcopySplit,
}

/// How an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has no target yet.
    Waiting(Waiting),
    /// It has one, and room there.
    Planned,
    /// An attempt is alive.
    Evacuating,
    /// It came up there although it was stopped before: it is to be stopped.
    Stopping(HostId),
    /// It runs there.
    Succeeded(HostId),
    /// It is not evacuated.
    Stays(Stays),
    /// It was deleted meanwhile.
    Vanished,
}

impl Status {
    /// Whether nothing more is done.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Stays(_) | Self::Vanished)
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// There is room for it.
    Claimed,
    /// It may be called: from here on it may happen.
    Intent,
    /// Nova took the call.
    Called,
    /// Nobody knows whether Nova took it.
    Ambiguous,
    /// Nova's migration is known.
    Accepted(Uuid),
    /// The same, and the target works on it.
    Running(Uuid),
    /// It is over.
    Ended,
}

impl AttemptState {
    /// Whether it may still happen.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Claimed | Self::Ended)
    }

    /// The migration that is known to be its own.
    pub fn migration(self) -> Option<Uuid> {
        match self {
            Self::Accepted(migration) | Self::Running(migration) => Some(migration),
            _ => None,
        }
    }

    /// A rank that never falls but for `Ambiguous`, which takes the place of `Intent` and `Called`.
    pub(crate) fn leads_to(self, to: Self) -> bool {
        use AttemptState::{Accepted, Ambiguous, Called, Intent, Running};
        match (self, to) {
            (Intent, Called | Ambiguous)
            | (Called, Ambiguous)
            | (Intent | Called | Ambiguous, Accepted(_) | Running(_)) => true,
            (Accepted(known), Running(same)) => known == same,
            _ => false,
        }
    }
}

/// Migrations of an instance that are remembered as older than an attempt.
pub const BASELINE: usize = 256;
/// Hosts that an instance was refused by.
pub const EXCLUDED: usize = 16;
/// Attempts of one instance before a person must look, and again after each retry that a person orders.
pub const ATTEMPTS: u8 = 6;

/// An attempt: (source life, instance, number).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u8,
    /// Where to.
    pub target: Life,
    /// Ticket of its claim.
    pub ticket: u64,
    /// Where it stands.
    pub state: AttemptState,
    /// Calls that may have been sent.
    pub calls: u8,
    /// Names the last intent.
    pub op: Uuid,
    /// The leader of the last intent: only it may send the call.
    pub by: Leader,
    /// When the last intent was committed, replicated milliseconds.
    pub at: u64,
    /// Migrations of the instance that were there before.
    pub baseline: Vec<Uuid>,
    /// A migration of this attempt ended for good without success: another target may come next once the
    /// old one is known to be clear.
    pub failed: Option<Uuid>,
    /// When it ended, replicated milliseconds.
    pub over: u64,
}

/// What is done about one instance.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Recovery {
    /// The instance.
    pub instance: Uuid,
    /// The case.
    pub case: CaseId,
    /// The instance as it was.
    pub recorded: Recorded,
    /// How urgent it is: the order in which attempts begin.
    pub rank: Rank,
    /// How it stands.
    pub status: Status,
    /// The last attempt.
    pub attempt: Option<Attempt>,
    /// Attempts that ended.
    pub tried: u8,
    /// Attempts that may end before a person must look.
    pub allowed: u8,
    /// Targets that are not asked again.
    pub excluded: Vec<HostId>,
    /// Evacuations that Nova counts as going on for ever: their targets died over them.
    pub abandoned: Vec<Uuid>,
}

impl Entry for Recovery {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}

impl Recovery {
    /// The life that it leaves.
    pub fn source(&self) -> Life {
        Life { host: self.case.host, incarnation: self.case.incarnation }
    }

    /// Its attempt, while that may still happen.
    pub fn live(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.state.is_live())
    }
}
